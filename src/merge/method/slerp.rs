//! slerp: spherical interpolation of whole tensors (Shoemake 1985), a = base at t = 0, c = the other at t = 1.
//!
//! `theta = arccos(cos)` with cos of the flattened tensors in f64, then
//! `y = sin((1 - t) theta) / sin theta * a + sin(t theta) / sin theta * c` of the unnormalised tensors;
//! `(1 - t) a + t c` once |cos| > 0.9995, which is where light fine-tunes of one base always are.
//!
//! Invariants: t = 0 gives the base and t = 1 the other exactly; t outside 0..=1 extrapolates.

use crate::merge::inputs::{Inputs, block_sum};
use crate::merge::real::Real;

/// Above this cosine the two are on one line for all purposes.
const COLINEAR: f64 = 0.9995;

/// Norms up to this are not divided by.
const SMALLEST_NORM: f64 = 1e-8;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<R> {
    base: R,
    other: R,
}

impl<R: Real> Kernel<R> {
    /// Takes the angle. Input 0 is the base, input 1 the other.
    pub fn new(t: f64, inputs: &Inputs<'_>) -> Self {
        let pieces = inputs.fold::<R, [f64; 3]>(
            || [0.0; 3],
            |sums, _, blocks| {
                let (a, c) = (&blocks[0], &blocks[1]);
                sums[0] += block_sum(a.len(), |i| a[i].wide() * a[i].wide());
                sums[1] += block_sum(a.len(), |i| c[i].wide() * c[i].wide());
                sums[2] += block_sum(a.len(), |i| a[i].wide() * c[i].wide());
            },
        );
        let [aa, cc, ac] =
            pieces.iter().fold([0.0; 3], |sum, piece| std::array::from_fn(|index| sum[index] + piece[index]));
        let norm = |square: f64| if square.sqrt() <= SMALLEST_NORM { 1.0 } else { square.sqrt() };
        let cos = (ac / (norm(aa) * norm(cc))).clamp(-1.0, 1.0);
        let (base, other) = if cos.abs() > COLINEAR {
            (1.0 - t, t)
        } else {
            let theta = cos.acos();
            (((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin())
        };
        Self { base: R::of(base), other: R::of(other) }
    }

    /// One block.
    pub fn apply(&self, blocks: &[Vec<R>], out: &mut [R]) {
        for ((y, a), c) in out.iter_mut().zip(&blocks[0]).zip(&blocks[1]) {
            *y = self.base * *a + self.other * *c;
        }
    }
}
