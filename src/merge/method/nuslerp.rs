//! nuslerp: spherical interpolation of two task vectors, or of two tensors where there is no base.
//!
//! With `t = w_2 / (w_1 + w_2)` (0.5 where the sum is next to nothing): `y = b + ns(t, x_1 - b, x_2 - b)`, or
//! `ns(t, x_1, x_2)`. ns takes vectors v along an [`Axis`]: the cosine of the unit vectors `v / max(|v|, 1e-7)`; linear
//! where `1 - cos^2 <= 1e-16`, else slerp of the raw vectors. Steps: the differences, the norms, the unit vectors and their
//! products, the cosine, the angle, its sines, the products, the sum, and last the division by the sine of the angle.
//!
//! Invariants: a zero vector stands at a right angle to the other, so it scales it by a sine, not linearly (mergekit's
//! rule). The cosine is rounded to the working precision before the test for colinear vectors: opposite vectors would
//! otherwise be divided by the sine of rounding noise.

use rayon::prelude::*;

use super::Block;
use crate::config::Dtype;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::{BLOCK, Inputs, pair_sums};
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
    /// One for every vector.
    factors: Vec<Factors<A::Real>>,
}

/// What a pair of vectors is multiplied by, and what the sum is divided by.
#[derive(Debug, Clone, Copy)]
struct Factors<R> {
    left: R,
    right: R,
    divisor: R,
}

/// Squares of the two norms, and the dot product.
type Products = [f64; 3];

fn norms<A: Arithmetic>(products: &Products) -> [f64; 2] {
    let step = |value: f64| if A::STEPS { A::stepped(value) } else { value };
    [products[0], products[1]].map(|square| step(square.sqrt()).max(step(SMALLEST_NORM)))
}

fn factors<A: Arithmetic>(t: f64, cos: f64, working: Dtype) -> Factors<A::Real> {
    let (step, one) = (A::stepped, A::Real::of(1.0));
    // A float32 cosine is one, however wide the computation.
    let cos = if working == Dtype::F32 { f64::from(cos as f32) } else { step(cos) }.clamp(-1.0, 1.0);
    let colinear = if A::STEPS { step(1.0 - step(cos * cos)) <= step(COLINEAR) } else { 1.0 - cos * cos <= COLINEAR };
    if colinear {
        return Factors { left: A::Real::of(1.0 - t), right: A::Real::of(t), divisor: one };
    }
    let theta = step(cos.acos());
    let sin = step(theta.sin());
    if A::STEPS {
        let [left, right] = [1.0 - t, t].map(|share| A::step_wide(step(A::held(share) * theta).sin()));
        return Factors { left, right, divisor: A::Real::of(sin) };
    }
    let factor = |share: f64| A::step_wide(step(step(share * theta).sin()) / sin);
    Factors { left: factor(1.0 - t), right: factor(t), divisor: one }
}

/// How far from the first to the second two weights lead: 0 is the first.
pub fn share([first, second]: [f64; 2]) -> f64 {
    let sum = first + second;
    if sum.abs() < SMALLEST_WEIGHT_SUM { 0.5 } else { second / sum }
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes the angles.
    pub fn new(weights: [f64; 2], has_base: bool, axis: Axis, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let t = share(weights);
        let tensors = survey.inputs;
        let axis = axis.in_shape(&tensors.shape);
        let vectors = vectors(inputs, has_base);
        let raw = match axis {
            Axis::Whole => {
                let sums: Vec<f64> = sums(vectors).iter().map(|sum| survey.sum(sum)).collect();
                vec![[sums[0], sums[1], sums[2]]]
            }
            _ => products::<A>(axis, vectors, inputs, tensors, &|_, x, y| x.wide() * y.wide()),
        };
        let norms: Vec<[f64; 2]> = raw.iter().map(norms::<A>).collect();
        let cosines: Vec<f64> = if A::STEPS {
            // Of the unit vectors, each element of which was rounded.
            let of_units = products::<A>(axis, vectors, inputs, tensors, &|vector, x, y| {
                let [first, second] = norms[vector].map(A::Real::of);
                A::step(A::step(x / first) * A::step(y / second)).wide()
            });
            of_units.into_iter().map(|[.., dot]| dot).collect()
        } else {
            raw.iter().zip(&norms).map(|([.., dot], [first, second])| dot / (first * second)).collect()
        };
        let factors = cosines.into_iter().map(|cos| factors::<A>(t, cos, tensors.working)).collect();
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
            Axis::Whole => self.blend(0, block, out, self.factors[0]),
            Axis::Last => {
                let mut position = 0;
                while position < out.len() {
                    let start = block.start + position;
                    let (row, column) = (start / self.row_len, start % self.row_len);
                    let end = out.len().min(position + self.row_len - column);
                    self.blend(position, block, &mut out[position..end], self.factors[row]);
                    position = end;
                }
            }
            Axis::First => {
                for index in 0..out.len() {
                    let factors = self.factors[(block.start + index) % self.row_len];
                    self.blend(index, block, &mut out[index..=index], factors);
                }
            }
        }
    }

    #[inline(always)]
    fn blend(&self, from: usize, block: Block<'_, A::Real>, out: &mut [A::Real], factors: Factors<A::Real>) {
        let len = out.len();
        let Factors { left, right, divisor } = factors;
        let input = |index: usize| &block.input(index)[from..from + len];
        let sum = |first: A::Real, second: A::Real| {
            let sum = A::step(left * first) + A::step(right * second);
            if A::STEPS { A::step(A::step(sum) / divisor) } else { sum }
        };
        if self.has_base {
            let (base, first, second) = (input(0), input(1), input(2));
            for (((y, base), first), second) in out.iter_mut().zip(base).zip(first).zip(second) {
                *y = *base + A::step(sum(A::step(*first - *base), A::step(*second - *base)));
            }
        } else {
            let (first, second) = (input(0), input(1));
            for ((y, first), second) in out.iter_mut().zip(first).zip(second) {
                *y = sum(*first, *second);
            }
        }
    }
}

/// Products of all vectors along an axis; `term` is what two elements of a vector, given by its number, add to the dot
/// product.
fn products<A: Arithmetic>(
    axis: Axis,
    vectors: [Vector; 2],
    inputs: &[usize],
    tensors: &Inputs<'_>,
    term: &(impl Fn(usize, A::Real, A::Real) -> f64 + Sync),
) -> Vec<Products> {
    match axis {
        Axis::Whole => vec![whole_products::<A>(vectors, inputs, tensors, term)],
        Axis::Last => row_products::<A>(vectors, inputs, tensors, term),
        Axis::First => column_products::<A>(vectors, inputs, tensors, term),
    }
}

/// Products of one stretch of vector number `vector` in both tensors.
#[inline(always)]
fn products_of<A: Arithmetic>(
    vector: usize,
    vectors: [Vector; 2],
    blocks: &[Vec<A::Real>],
    [first, second]: &mut [Vec<A::Real>; 2],
    term: &impl Fn(usize, A::Real, A::Real) -> f64,
) -> Products {
    for (vector, row) in vectors.iter().zip([&mut *first, &mut *second]).filter(|(vector, _)| vector.minus.is_some()) {
        vector.fill::<A>(blocks, row);
    }
    let (first, second) = (vectors[0].of_block(blocks, first), vectors[1].of_block(blocks, second));
    pair_sums(first, second, |x, y| {
        let dot = term(vector, x, y);
        let (x, y) = (x.wide(), y.wide());
        [x * x, y * y, dot]
    })
}

fn add(sums: &mut Products, terms: Products) {
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

fn whole_products<A: Arithmetic>(
    vectors: [Vector; 2],
    inputs: &[usize],
    tensors: &Inputs<'_>,
    term: &(impl Fn(usize, A::Real, A::Real) -> f64 + Sync),
) -> Products {
    let pieces = tensors.fold::<A::Real, Products>(
        inputs,
        2,
        || [0.0; 3],
        |sums, _, blocks, rows| {
            let Some(rows) = rows.first_chunk_mut() else { return };
            add(sums, vectorised(|| products_of::<A>(0, vectors, blocks, rows, term)));
        },
    );
    let mut sums = [0.0; 3];
    pieces.into_iter().for_each(|piece| add(&mut sums, piece));
    sums
}

fn row_products<A: Arithmetic>(
    vectors: [Vector; 2],
    inputs: &[usize],
    tensors: &Inputs<'_>,
    term: &(impl Fn(usize, A::Real, A::Real) -> f64 + Sync),
) -> Vec<Products> {
    let groups = tensors.fold_rows::<A::Real, (Vec<Products>, [Vec<A::Real>; 2])>(
        inputs,
        || (Vec::new(), [Vec::new(), Vec::new()]),
        |(found, rows), number, blocks| {
            found.push(vectorised(|| products_of::<A>(number, vectors, blocks, rows, term)));
        },
    );
    groups.into_iter().flat_map(|(found, _)| found).collect()
}

/// Products of every column. A task takes a stripe of columns from the first row to the last, so the order of summation
/// is that of the rows and no partial sums of whole rows are kept.
fn column_products<A: Arithmetic>(
    vectors: [Vector; 2],
    inputs: &[usize],
    tensors: &Inputs<'_>,
    term: &(impl Fn(usize, A::Real, A::Real) -> f64 + Sync),
) -> Vec<Products> {
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
                    for (index, ((sums, x), y)) in sums.iter_mut().zip(&rows[0]).zip(&rows[1]).enumerate() {
                        let dot = term(columns.start + index, *x, *y);
                        let (x, y) = (x.wide(), y.wide());
                        add(sums, [x * x, y * y, dot]);
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
