//! arcee_fusion: takes over from a second model c what matters most, and keeps the base a elsewhere.
//!
//! With `p = softmax(c) + 1e-8`, `q = softmax(a) + 1e-8` along the last axis, the divergence of a row
//! `K = sum p ln(p / q)` and the importance `I = |c - a| K`, an element is taken over where
//! `I >= q(.5) + 1.5 (q(.75) - q(.25))`; `q(f)` is the element of rank floor(f (N - 1)) of all importances of the tensor.
//!
//! Invariants: the quantiles are exact at any size (mergekit samples above 10^6 elements); softmax and divergence are
//! computed in the kernel's precision, and the result has the config's dtype (mergekit's 32-bit output under
//! `dtype: bfloat16` is not reproduced); an unchanged tensor stays as it is.

use super::super::select::order_statistics;
use crate::merge::inputs::Inputs;
use crate::merge::real::Real;

/// Added to every probability.
const FLOOR: f64 = 1e-8;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<R> {
    row_len: usize,
    divergences: Vec<R>,
    threshold: R,
}

impl<R: Real> Kernel<R> {
    /// Takes the divergences and the quantiles. Input 0 is the base, input 1 the other.
    pub fn new(inputs: &Inputs<'_>) -> Self {
        let row_len = inputs.rows().len.max(1);
        let divergences = inputs
            .fold_rows::<R, Vec<R>>(Vec::new, |found, _, blocks| found.push(divergence(&blocks[1], &blocks[0])))
            .concat();
        let mut kernel = Self { row_len, divergences, threshold: R::zero() };
        let last = inputs.len().saturating_sub(1) as f64;
        let ranks = [0.25, 0.5, 0.75].map(|share| (share * last) as u64).to_vec();
        let found = order_statistics(inputs, &[ranks], |start, blocks: &[Vec<R>], _, out| {
            out.clear();
            out.extend((0..blocks[0].len()).map(|index| kernel.importance(start, index, blocks).order_key()));
        });
        let quartile = |index: usize| found[0].get(index).map_or(R::zero(), |found| R::from_order_key(found.key));
        kernel.threshold = quartile(1) + R::of(1.5) * (quartile(2) - quartile(0));
        kernel
    }

    fn importance(&self, start: usize, index: usize, blocks: &[Vec<R>]) -> R {
        let divergence = self.divergences[(start + index) / self.row_len];
        (blocks[1][index] - blocks[0][index]).abs() * divergence
    }

    /// One block.
    pub fn apply(&self, start: usize, blocks: &[Vec<R>], out: &mut [R]) {
        for (index, y) in out.iter_mut().enumerate() {
            let taken = self.importance(start, index, blocks) >= self.threshold;
            let (a, c) = (blocks[0][index], blocks[1][index]);
            *y = if taken { a + (c - a) } else { a };
        }
    }
}

/// The divergence of `c` from `a` over one row.
fn divergence<R: Real>(c: &[R], a: &[R]) -> R {
    let (c_largest, c_sum) = softmax_scale(c);
    let (a_largest, a_sum) = softmax_scale(a);
    let floor = R::of(FLOOR);
    let term = |(c, a): (&R, &R)| {
        let p = (*c - c_largest).exp() / c_sum + floor;
        let q = (*a - a_largest).exp() / a_sum + floor;
        p * (p / q).ln()
    };
    c.iter().zip(a).map(term).fold(R::zero(), |sum, term| sum + term)
}

/// The largest value, and the sum of the exponentials of what is left when it is taken off.
fn softmax_scale<R: Real>(row: &[R]) -> (R, R) {
    let largest = row.iter().fold(R::neg_infinity(), |largest, x| largest.max(*x));
    (largest, row.iter().fold(R::zero(), |sum, x| sum + (*x - largest).exp()))
}
