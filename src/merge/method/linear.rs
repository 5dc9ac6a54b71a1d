//! linear: weighted average of all inputs (model soups, arXiv:2203.05482).
//!
//! `y = sum w_i x_i`, divided by `sum w_i` where `normalize` is on, in 32 bits in either numerics. The sum runs in the
//! order of the inputs. In `f32` numerics the weights are divided, in 64 bits; in mergekit's the sum is, and a product is not
//! rounded before it is added (PyTorch's `addcmul_`). A sum of weights of zero is divided by all the same: the infinities are
//! mergekit's, and the engine reports them.

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
        let divisor = normalize.then(|| divisor::<A>(weights)).filter(|divisor| *divisor != A::Real::of(1.0));
        if A::STEPS {
            return Self { weights: weights.iter().map(|weight| A::Real::of(*weight)).collect(), divisor };
        }
        let sum: f64 = if divisor.is_some() { weights.iter().sum() } else { 1.0 };
        Self { weights: weights.iter().map(|weight| A::Real::of(weight / sum)).collect(), divisor: None }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        /// Sums that stay in registers while the inputs are gone through.
        const LANES: usize = 64;
        let (chunks, rest) = out.as_chunks_mut::<LANES>();
        let done = LANES * chunks.len();
        for (chunk, start) in chunks.iter_mut().zip((0..).step_by(LANES)) {
            let mut sums = [A::Real::of(0.0); LANES];
            self.add_up(block, start, &mut sums);
            *chunk = sums;
        }
        rest.fill(A::Real::of(0.0));
        self.add_up(block, done, rest);
    }

    /// Adds what the inputs have from an element on, and divides.
    #[inline(always)]
    fn add_up(&self, block: Block<'_, A::Real>, start: usize, sums: &mut [A::Real]) {
        for (input, weight) in self.weights.iter().enumerate() {
            let x = &block.input(input)[start..start + sums.len()];
            if A::STEPS {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = weight.mul_add(*x, *sum));
            } else {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = *sum + *weight * *x);
            }
        }
        if let Some(divisor) = self.divisor {
            sums.iter_mut().for_each(|sum| *sum = *sum / divisor);
        }
    }
}
