//! linear: weighted average of all inputs (model soups, arXiv:2203.05482).
//!
//! `y = sum w_i x_i`, divided by `sum w_i` where `normalize` is on. The sum runs in the order of the inputs, which the
//! recipe makes independent of the order in the file. A sum of weights of zero is divided by all the same: the infinities
//! are mergekit's, and the caller sees them.

use crate::merge::real::Real;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<R> {
    weights: Vec<R>,
    divisor: Option<R>,
}

impl<R: Real> Kernel<R> {
    /// From the resolved weights of the inputs.
    pub fn new(weights: &[f64], normalize: bool) -> Self {
        let weights: Vec<R> = weights.iter().map(|weight| R::of(*weight)).collect();
        let sum = weights.iter().fold(R::zero(), |sum, weight| sum + *weight);
        Self { weights, divisor: normalize.then_some(sum) }
    }

    /// One block.
    pub fn apply(&self, blocks: &[Vec<R>], out: &mut [R]) {
        out.fill(R::zero());
        for (weight, block) in self.weights.iter().zip(blocks) {
            out.iter_mut().zip(block).for_each(|(sum, x)| *sum = *sum + *weight * *x);
        }
        if let Some(divisor) = self.divisor {
            out.iter_mut().for_each(|sum| *sum = *sum / divisor);
        }
    }
}
