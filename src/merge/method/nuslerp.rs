//! nuslerp: spherical interpolation of two task vectors, or of two tensors where there is no base.
//!
//! With `t = w_2 / (w_1 + w_2)` (0.5 where the sum is next to nothing): `y = b + ns(t, x_1 - b, x_2 - b)`, or
//! `ns(t, x_1, x_2)`. ns takes vectors v along an [`Axis`]: the cosine of the unit vectors `v / max(|v|, 1e-7)`; linear
//! where `1 - cos^2 <= 1e-16`, else slerp of the raw vectors. Steps: the differences, the cosine, the angle, its sines,
//! the factors, the products, the sums.
//!
//! Invariants: a zero vector stands at a right angle to the other, so it scales it by a sine, not linearly (mergekit's
//! rule). The cosine is rounded to the working precision before the test for colinear vectors: opposite vectors would
//! otherwise be divided by the sine of rounding noise.

use rayon::prelude::*;

use super::Block;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::{BLOCK, Inputs, pair_sum};
use crate::merge::real::Real;
use crate::merge::survey::{Sum, Survey, Vector};
use crate::merge::vector::vectorised;

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

impl Axis {
    /// The axis in a tensor of that shape: a vector is one vector along either.
    pub fn in_shape(self, shape: &[usize]) -> Self {
        if shape.len() < 2 { Self::Whole } else { self }
    }
}

const SMALLEST_NORM: f64 = 1e-7;
const COLINEAR: f64 = 1e-16;
const SMALLEST_WEIGHT_SUM: f64 = 1e-6;

/// Columns that one task takes along the first axis.
const STRIPE: usize = 1024;

/// The two vectors of an operation. With a base it is input 0; the two models follow.
pub fn vectors(inputs: &[usize], has_base: bool) -> [Vector; 2] {
    if has_base {
        [Vector::task(inputs[1], inputs[0]), Vector::task(inputs[2], inputs[0])]
    } else {
        [Vector::of(inputs[0]), Vector::of(inputs[1])]
    }
}

/// The sums of whole vectors that it needs.
pub fn sums<R: Real>([first, second]: [Vector; 2]) -> Vec<Sum<R>> {
    vec![Sum::square(first), Sum::square(second), Sum::product(first, second)]
}

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    has_base: bool,
    /// Elements of a row.
    row_len: usize,
    axis: Axis,
    /// Factors of the two vectors, one pair for every vector.
    factors: Vec<[A::Real; 2]>,
}

/// Squares of the two norms, and the dot product.
type Products = [f64; 3];

fn factors<A: Arithmetic>(t: f64, [first, second, dot]: Products) -> [A::Real; 2] {
    let norm = |square: f64| square.sqrt().max(SMALLEST_NORM);
    let step = |value: f64| A::step_wide(value).wide();
    let cos = step((dot / (norm(first) * norm(second))).clamp(-1.0, 1.0));
    if 1.0 - cos * cos <= COLINEAR {
        return [A::step_wide(1.0 - t), A::step_wide(t)];
    }
    let theta = step(cos.acos());
    let sin = step(theta.sin());
    let factor = |share: f64| A::step_wide(step(step(share * theta).sin()) / sin);
    [factor(1.0 - t), factor(t)]
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes the angles.
    pub fn new(weights: [f64; 2], has_base: bool, axis: Axis, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let sum = weights[0] + weights[1];
        let t = if sum.abs() < SMALLEST_WEIGHT_SUM { 0.5 } else { weights[1] / sum };
        let tensors = survey.inputs;
        let axis = axis.in_shape(&tensors.shape);
        let vectors = vectors(inputs, has_base);
        let products: Vec<Products> = match axis {
            Axis::Whole => {
                let sums: Vec<f64> = sums(vectors).iter().map(|sum| survey.sum(sum)).collect();
                vec![[sums[0], sums[1], sums[2]]]
            }
            Axis::Last => row_products::<A>(vectors, inputs, tensors),
            Axis::First => column_products::<A>(vectors, inputs, tensors),
        };
        let factors = products.into_iter().map(|products| factors::<A>(t, products)).collect();
        let row_len = match axis {
            Axis::First => tensors.len() / tensors.shape[0].max(1),
            Axis::Last | Axis::Whole => tensors.rows().len,
        };
        Self { has_base, row_len, axis, factors }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        match self.axis {
            Axis::Whole => self.blend(0, block, out, |_| self.factors[0]),
            Axis::Last => {
                let mut position = 0;
                while position < out.len() {
                    let start = block.start + position;
                    let (row, column) = (start / self.row_len, start % self.row_len);
                    let end = out.len().min(position + self.row_len - column);
                    self.blend(position, block, &mut out[position..end], |_| self.factors[row]);
                    position = end;
                }
            }
            Axis::First => self.blend(0, block, out, |index| self.factors[(block.start + index) % self.row_len]),
        }
    }

    #[inline(always)]
    fn blend(
        &self,
        from: usize,
        block: Block<'_, A::Real>,
        out: &mut [A::Real],
        factors: impl Fn(usize) -> [A::Real; 2],
    ) {
        let len = out.len();
        let input = |index: usize| &block.input(index)[from..from + len];
        if self.has_base {
            let (base, first, second) = (input(0), input(1), input(2));
            for (index, y) in out.iter_mut().enumerate() {
                let [left, right] = factors(index);
                let base = base[index];
                let (first, second) = (A::step(first[index] - base), A::step(second[index] - base));
                *y = base + A::step(A::step(left * first) + A::step(right * second));
            }
        } else {
            let (first, second) = (input(0), input(1));
            for (index, y) in out.iter_mut().enumerate() {
                let [left, right] = factors(index);
                *y = A::step(left * first[index]) + A::step(right * second[index]);
            }
        }
    }
}

fn row_products<A: Arithmetic>(vectors: [Vector; 2], inputs: &[usize], tensors: &Inputs<'_>) -> Vec<Products> {
    let groups = tensors.fold_rows::<A::Real, (Vec<Products>, [Vec<A::Real>; 2])>(
        inputs,
        || (Vec::new(), [Vec::new(), Vec::new()]),
        |(found, rows), _, blocks| {
            vectorised(|| {
                vectors.iter().zip(&mut *rows).for_each(|(vector, row)| vector.fill::<A>(blocks, row));
                let [first, second] = rows;
                let dot = |left: &[A::Real], right: &[A::Real]| pair_sum(left, right, |x, y| x.wide() * y.wide());
                found.push([dot(first, first), dot(second, second), dot(first, second)]);
            });
        },
    );
    groups.into_iter().flat_map(|(found, _)| found).collect()
}

/// Products of every column. A task takes a stripe of columns from the first row to the last, so the order of summation
/// is that of the rows and no partial sums of whole rows are kept.
fn column_products<A: Arithmetic>(vectors: [Vector; 2], inputs: &[usize], tensors: &Inputs<'_>) -> Vec<Products> {
    let n_rows = tensors.shape[0];
    let n_columns = tensors.len() / n_rows.max(1);
    let stripe = |stripe: usize| {
        let columns = stripe * STRIPE..n_columns.min((stripe + 1) * STRIPE);
        let mut sums = vec![[0.0; 3]; columns.len()];
        let mut rows = [Vec::new(), Vec::new()];
        A::Real::with_blocks(tensors.inputs.len(), |blocks| {
            for row in 0..n_rows {
                let first = row * n_columns;
                for input in inputs {
                    tensors.read(*input, first + columns.start..first + columns.end, &mut blocks[*input]);
                }
                vectorised(|| {
                    vectors.iter().zip(&mut rows).for_each(|(vector, row)| vector.fill::<A>(blocks, row));
                    for ((sums, first), second) in sums.iter_mut().zip(&rows[0]).zip(&rows[1]) {
                        let (first, second) = (first.wide(), second.wide());
                        sums[0] += first * first;
                        sums[1] += second * second;
                        sums[2] += first * second;
                    }
                });
            }
        });
        sums
    };
    let stripes: Vec<Vec<Products>> = (0..n_columns.div_ceil(STRIPE)).into_par_iter().map(stripe).collect();
    stripes.concat()
}

const _: () = assert!(STRIPE <= BLOCK);
