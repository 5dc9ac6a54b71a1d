//! Rows of an embedding or a head, laid out for another vocabulary while they are read: no such tensor is ever held as a
//! whole. Which row comes from where is decided in `vocabulary`.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::inputs::Inputs;
use super::real::Real;

/// Rows summed up at a time for the padding: a fixed number, so that the sum is the same at any number of threads.
const GROUP: usize = 1024;

/// What one row of the output is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// Nothing.
    Zero,
    /// A row of an input.
    At(Place),
    /// The mean of rows of several inputs.
    Mean(Box<[Place]>),
}

/// A row of an input as it lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the input in the recipe.
    pub input: usize,
    /// Number of the row.
    pub row: usize,
}

/// The rows of one input, by their number in the output. Rows beyond them are padding.
#[derive(Debug)]
pub struct Layout {
    rows: Arc<[Row]>,
    /// A row of padding: the mean of all rows (mergekit's rule). Empty where there is none.
    padding: Vec<f64>,
}

impl Layout {
    /// The layout without its padding, which [`pad`] computes once all inputs are there.
    pub fn new(rows: Arc<[Row]>) -> Self {
        Self { rows, padding: Vec::new() }
    }

    /// Reads elements of the tensor as it is laid out, cast to the working dtype.
    pub fn read<R: Real>(&self, inputs: &Inputs<'_>, range: Range<usize>, out: &mut Vec<R>) {
        out.resize(range.len(), R::default());
        let len = row_len(inputs);
        let (mut start, mut rest) = (range.start, out.as_mut_slice());
        while !rest.is_empty() {
            let (row, column) = (start / len, start % len);
            let n = rest.len().min(len - column);
            let (part, behind) = rest.split_at_mut(n);
            self.read_row(inputs, row, column..column + n, part);
            (start, rest) = (start + n, behind);
        }
    }

    fn read_row<R: Real>(&self, inputs: &Inputs<'_>, row: usize, columns: Range<usize>, out: &mut [R]) {
        match self.rows.get(row) {
            Some(Row::Zero) => out.fill(R::zero()),
            Some(Row::At(place)) => place.read(inputs, columns.start, out),
            Some(Row::Mean(places)) => {
                let mut row = vec![R::zero(); out.len()];
                out.fill(R::zero());
                for place in places {
                    place.read(inputs, columns.start, &mut row);
                    out.iter_mut().zip(&row).for_each(|(sum, term)| *sum = *sum + *term);
                }
                let count = R::of(places.len() as f64);
                out.iter_mut().for_each(|sum| *sum = *sum / count);
                R::round_to(out, inputs.working);
            }
            None => {
                out.iter_mut().zip(&self.padding[columns]).for_each(|(out, value)| *out = R::of(*value));
                R::round_to(out, inputs.working);
            }
        }
    }

    fn mean(&self, inputs: &Inputs<'_>) -> Vec<f64> {
        let len = row_len(inputs);
        let add = |mut sums: Vec<f64>, terms: &[f64]| {
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            sums
        };
        let groups: Vec<Vec<f64>> = (0..self.rows.len().div_ceil(GROUP))
            .into_par_iter()
            .map(|group| {
                let mut row = vec![0.0; len];
                (group * GROUP..self.rows.len().min((group + 1) * GROUP)).fold(vec![0.0; len], |sums, index| {
                    self.read_row(inputs, index, 0..len, &mut row);
                    add(sums, &row)
                })
            })
            .collect();
        let count = self.rows.len().max(1) as f64;
        groups.iter().fold(vec![0.0; len], |sums, group| add(sums, group)).iter().map(|sum| sum / count).collect()
    }
}

impl Place {
    fn read<R: Real>(self, inputs: &Inputs<'_>, column: usize, out: &mut [R]) {
        let input = &inputs.inputs[self.input];
        let size = input.stored.size();
        let start = (self.row * row_len(inputs) + column) * size;
        R::decode(&input.bytes[start..start + out.len() * size], input.stored, out);
        if input.stored != inputs.working {
            R::round_to(out, inputs.working);
        }
    }
}

/// Computes what padding rows are, for the inputs that have some.
pub fn pad(inputs: &mut Inputs<'_>) {
    let n_rows = inputs.shape.first().copied().unwrap_or_default();
    for index in 0..inputs.inputs.len() {
        let Some(layout) = &inputs.inputs[index].rows else { continue };
        if layout.rows.len() < n_rows {
            let padding = layout.mean(inputs);
            if let Some(layout) = &mut inputs.inputs[index].rows {
                layout.padding = padding;
            }
        }
    }
}

/// Elements of a row: everything behind the first axis.
fn row_len(inputs: &Inputs<'_>) -> usize {
    inputs.shape.iter().skip(1).product()
}
