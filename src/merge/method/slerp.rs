//! slerp: spherical interpolation of whole tensors (Shoemake 1985), a = base at t = 0, c = the other at t = 1.
//!
//! `theta = arccos(cos)` with cos of the flattened tensors in f64, then
//! `y = sin((1 - t) theta) / sin theta * a + sin(t theta) / sin theta * c` of the unnormalised tensors;
//! `(1 - t) a + t c` once |cos| > 0.9995, which is where light fine-tunes of one base always are. In 32 bits in either
//! numerics; in mergekit's, t, the angle and the sines are 32-bit numbers too.
//!
//! Invariants: t = 0 gives the base and t = 1 the other exactly; t outside 0..=1 extrapolates.

use super::Block;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;
use crate::merge::survey::{Sum, Survey, Vector};

/// Above this cosine the two are on one line for all purposes.
const COLINEAR: f64 = 0.9995;

/// Norms up to this are not divided by.
const SMALLEST_NORM: f64 = 1e-8;

/// The sums it needs: of the base, of the other, and of both.
pub fn sums<R: Real>(inputs: &[usize]) -> Vec<Sum<R>> {
    let (base, other) = (Vector::of(inputs[0]), Vector::of(inputs[1]));
    vec![Sum::square(base), Sum::square(other), Sum::product(base, other)]
}

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    base: A::Real,
    other: A::Real,
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes the angle. Input 0 is the base, input 1 the other.
    pub fn new(t: f64, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let sums: Vec<f64> = sums(inputs).iter().map(|sum| survey.sum(sum)).collect();
        let held = |value: f64| if A::STEPS { A::held(value) } else { value };
        let norm = |square: f64| if square.sqrt() <= SMALLEST_NORM { 1.0 } else { held(square.sqrt()) };
        let cos = held((sums[2] / (norm(sums[0]) * norm(sums[1]))).clamp(-1.0, 1.0));
        let t = held(t);
        let rest = held(1.0 - t);
        let (base, other) = if cos.abs() > COLINEAR {
            (rest, t)
        } else {
            let theta = held(cos.acos());
            let factor = |share: f64| held(held(share * theta).sin()) / held(theta.sin());
            (factor(rest), factor(t))
        };
        Self { base: A::Real::of(base), other: A::Real::of(other) }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        for ((y, a), c) in out.iter_mut().zip(block.input(0)).zip(block.input(1)) {
            *y = self.base * *a + self.other * *c;
        }
    }
}
