//! nearswap: `y = w x + (1 - w) b` with `w = clip(t / max(|b - x|, 1e-6), 0, 1)`: the other is taken over whole where it
//! differs by no more than t, and ever less where it differs by more. Every operation is a step, the division by
//! way of the inverse.

use num_traits::Float;

use super::Block;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;

const SMALLEST_DIFFERENCE: f64 = 1e-6;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    t: A::Real,
}

impl<A: Arithmetic> Kernel<A> {
    /// From the parameter.
    pub fn new(t: f64) -> Self {
        Self { t: A::Real::of(t) }
    }

    /// One block. Input 0 is the base.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        let (zero, one) = (A::Real::of(0.0), A::Real::of(1.0));
        let smallest = A::step_wide(SMALLEST_DIFFERENCE);
        for ((y, base), x) in out.iter_mut().zip(block.input(0)).zip(block.input(1)) {
            let difference = A::step(*base - *x).abs();
            let difference = if difference < smallest { smallest } else { difference };
            // PyTorch divides a number by a tensor as the number times the rounded inverse.
            let weight = if A::STEPS { A::step(A::step(one / difference) * self.t) } else { self.t / difference };
            let weight = if weight < zero { zero } else { weight };
            let weight = if weight > one { one } else { weight };
            *y = A::step(weight * *x) + A::step(A::step(one - weight) * *base);
        }
    }
}
