//! nuslerp: spherical interpolation of two task vectors, or of two tensors where there is no base.
//!
//! With `t = w_2 / (w_1 + w_2)` (0.5 where the sum is next to nothing): `y = b + ns(t, x_1 - b, x_2 - b)`, or
//! `ns(t, x_1, x_2)`. ns takes vectors v along an [`Axis`]: the cosine of the unit vectors `v / max(|v|, 1e-7)`; linear
//! where `1 - cos^2 <= 1e-16`, else slerp of the raw vectors.
//!
//! Invariants: a zero vector stands at a right angle to the other, so it scales it by a sine, not linearly (mergekit's
//! rule). The cosine is rounded to the working precision before the test for colinear vectors: opposite vectors would
//! otherwise be divided by the sine of rounding noise.

use rayon::prelude::*;

use crate::merge::inputs::{BLOCK, Inputs, block_sum};
use crate::merge::real::Real;

/// What the vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// The whole tensor is one vector (mergekit: `nuslerp_flatten`).
    Whole,
    /// One vector for every row of a weight matrix.
    Last,
    /// One vector for every column (mergekit: `nuslerp_row_wise`, whose name misleads).
    First,
}

const SMALLEST_NORM: f64 = 1e-7;
const COLINEAR: f64 = 1e-16;
const SMALLEST_WEIGHT_SUM: f64 = 1e-6;

/// Columns that one task takes along the first axis.
const STRIPE: usize = 1024;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<R> {
    has_base: bool,
    /// Elements of a row.
    row_len: usize,
    axis: Axis,
    /// Factors of the two vectors, one pair for every vector.
    factors: Vec<[R; 2]>,
}

/// Squares of the two norms, and the dot product.
type Products = [f64; 3];

fn add(sum: Products, more: Products) -> Products {
    std::array::from_fn(|index| sum[index] + more[index])
}

/// The products of a stretch of the two vectors.
fn products<R: Real>(has_base: bool, blocks: &[Vec<R>]) -> Products {
    let x = |input: usize, index: usize| blocks[usize::from(has_base) + input][index];
    let v = |input, index| if has_base { (x(input, index) - blocks[0][index]).wide() } else { x(input, index).wide() };
    let len = blocks[0].len();
    let dot = |left, right| block_sum(len, |index| v(left, index) * v(right, index));
    [dot(0, 0), dot(1, 1), dot(0, 1)]
}

fn factors<R: Real>(t: f64, [first, second, dot]: Products) -> [R; 2] {
    let norm = |square: f64| square.sqrt().max(SMALLEST_NORM);
    let cos = R::of((dot / (norm(first) * norm(second))).clamp(-1.0, 1.0)).wide();
    if 1.0 - cos * cos <= COLINEAR {
        return [R::of(1.0 - t), R::of(t)];
    }
    let theta = cos.acos();
    [R::of(((1.0 - t) * theta).sin() / theta.sin()), R::of((t * theta).sin() / theta.sin())]
}

impl<R: Real> Kernel<R> {
    /// Takes the angles. With a base it is input 0; the two models follow.
    pub fn new(weights: [f64; 2], has_base: bool, axis: Axis, inputs: &Inputs<'_>) -> Self {
        let sum = weights[0] + weights[1];
        let t = if sum.abs() < SMALLEST_WEIGHT_SUM { 0.5 } else { weights[1] / sum };
        // A vector is one vector along either axis.
        let axis = if inputs.shape.len() < 2 { Axis::Whole } else { axis };
        let rows = inputs.rows();
        let products: Vec<Products> = match axis {
            Axis::Whole => {
                let pieces = inputs
                    .fold::<R, Products>(|| [0.0; 3], |sum, _, blocks| *sum = add(*sum, products(has_base, blocks)));
                vec![pieces.into_iter().fold([0.0; 3], add)]
            }
            Axis::Last => inputs
                .fold_rows::<R, Vec<Products>>(Vec::new, |found, _, blocks| found.push(products(has_base, blocks)))
                .concat(),
            Axis::First => column_products::<R>(has_base, inputs),
        };
        let factors = products.into_iter().map(|products| factors(t, products)).collect();
        let row_len = if axis == Axis::First { inputs.len() / inputs.shape[0].max(1) } else { rows.len };
        Self { has_base, row_len, axis, factors }
    }

    /// One block.
    pub fn apply(&self, start: usize, blocks: &[Vec<R>], out: &mut [R]) {
        match self.axis {
            Axis::Whole => self.blend(0, blocks, out, |_| self.factors[0]),
            Axis::Last => {
                let mut position = 0;
                while position < out.len() {
                    let (row, column) = ((start + position) / self.row_len, (start + position) % self.row_len);
                    let end = out.len().min(position + self.row_len - column);
                    self.blend(position, blocks, &mut out[position..end], |_| self.factors[row]);
                    position = end;
                }
            }
            Axis::First => {
                self.blend(0, blocks, out, |index| self.factors[(start + index) % self.row_len]);
            }
        }
    }

    fn blend(&self, from: usize, blocks: &[Vec<R>], out: &mut [R], factors: impl Fn(usize) -> [R; 2]) {
        let len = out.len();
        let input = |index: usize| &blocks[index][from..from + len];
        if self.has_base {
            let (base, first, second) = (input(0), input(1), input(2));
            for (index, y) in out.iter_mut().enumerate() {
                let [left, right] = factors(index);
                let base = base[index];
                *y = base + (left * (first[index] - base) + right * (second[index] - base));
            }
        } else {
            let (first, second) = (input(0), input(1));
            for (index, y) in out.iter_mut().enumerate() {
                let [left, right] = factors(index);
                *y = left * first[index] + right * second[index];
            }
        }
    }
}

/// Products of every column. A task takes a stripe of columns from the first row to the last, so the order of summation
/// is that of the rows and no partial sums of whole rows are kept.
fn column_products<R: Real>(has_base: bool, inputs: &Inputs<'_>) -> Vec<Products> {
    let n_rows = inputs.shape[0];
    let n_columns = inputs.len() / n_rows.max(1);
    let stripe = |stripe: usize| {
        let columns = stripe * STRIPE..n_columns.min((stripe + 1) * STRIPE);
        let mut sums = vec![[0.0; 3]; columns.len()];
        R::with_blocks(inputs.inputs.len(), |blocks| {
            for row in 0..n_rows {
                let first = row * n_columns;
                for (input, block) in blocks.iter_mut().enumerate() {
                    inputs.read(input, first + columns.start..first + columns.end, block);
                }
                for (index, sums) in sums.iter_mut().enumerate() {
                    let x = |input: usize| blocks[usize::from(has_base) + input][index];
                    let v = |input| if has_base { (x(input) - blocks[0][index]).wide() } else { x(input).wide() };
                    let (first, second) = (v(0), v(1));
                    *sums = add(*sums, [first * first, second * second, first * second]);
                }
            }
        });
        sums
    };
    let stripes: Vec<Vec<Products>> = (0..n_columns.div_ceil(STRIPE)).into_par_iter().map(stripe).collect();
    stripes.concat()
}

const _: () = assert!(STRIPE <= BLOCK);
