//! linear: weighted average of all inputs (model soups, arXiv:2203.05482).
//!
//! `y = sum w_i x_i`, divided by `sum w_i` where `normalize` is on, in 32 bits in either numerics. The sum runs in the
//! order of the inputs; in mergekit's numerics a product is not rounded before it is added (PyTorch's `addcmul_`). A sum of weights of zero is divided by all the same: the infinities are mergekit's, and the
//! engine reports them.

use num_traits::Float;

use super::Block;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    weights: Vec<A::Real>,
    divisor: Option<A::Real>,
}

/// What the sum is divided by where `normalize` is on.
pub fn divisor<A: Arithmetic>(weights: &[f64]) -> A::Real {
    weights.iter().fold(A::Real::of(0.0), |sum, weight| sum + A::Real::of(*weight))
}

impl<A: Arithmetic> Kernel<A> {
    /// From the resolved weights of the inputs.
    pub fn new(weights: &[f64], normalize: bool) -> Self {
        let divisor = normalize.then(|| divisor::<A>(weights));
        Self { weights: weights.iter().map(|weight| A::Real::of(*weight)).collect(), divisor }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        out.fill(A::Real::of(0.0));
        for (input, weight) in self.weights.iter().enumerate() {
            let x = block.input(input);
            if A::STEPS {
                out.iter_mut().zip(x).for_each(|(sum, x)| *sum = weight.mul_add(*x, *sum));
            } else {
                out.iter_mut().zip(x).for_each(|(sum, x)| *sum = *sum + *weight * *x);
            }
        }
        if let Some(divisor) = self.divisor.filter(|divisor| *divisor != A::Real::of(1.0)) {
            out.iter_mut().for_each(|sum| *sum = *sum / divisor);
        }
    }
}
