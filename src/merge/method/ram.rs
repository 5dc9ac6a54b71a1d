//! ram and ramplus_tl: the mean of the task vectors over those models that change an element at all.
//!
//! With `nz_j = [|delta_j| > epsilon]` and `c = sum nz_j`: where c = 1 that delta, where c > 1 the mean of the deltas that
//! count, else nothing. ramplus_tl multiplies what model j alone changed by `1 + r clip(rho_j, 0, alpha)`, with
//! `rho_j = #{nz_j and c > 1} / max(#{nz_j and c = 1}, epsilon)`.
//!
//! Steps: the differences, each shared one over c, their sum. In mergekit's numerics what ramplus_tl makes of a half-precision
//! tensor is a 32-bit one: its factors are.

use num_traits::Float;

use super::task_vector;
use super::{Block, UniqueScale};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;
use crate::merge::survey::{Survey, Vector};
use crate::merge::vector::vectorised;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    epsilon: A::Real,
    /// Factor of what each model alone changed.
    unique: Vec<A::Real>,
    /// Whether these are 32-bit numbers to mergekit, and so is what they are multiplied with and added to.
    wide: bool,
}

impl<A: Arithmetic> Kernel<A> {
    /// Counts, where they are needed. Input 0 is the base.
    pub fn new(epsilon: f64, unique: Option<UniqueScale>, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let vectors: Vec<Vector> = task_vector::vectors(inputs).collect();
        let threshold = A::step_wide(epsilon);
        let Some(UniqueScale { r, alpha }) = unique else {
            return Self { epsilon: threshold, unique: vec![A::Real::of(1.0); vectors.len()], wide: false };
        };
        let pieces = survey.inputs.fold::<A::Real, Vec<[u64; 2]>>(
            inputs,
            vectors.len(),
            || vec![[0; 2]; vectors.len()],
            |counts, _, blocks, deltas| {
                vectorised(|| {
                    vectors.iter().zip(&mut *deltas).for_each(|(vector, delta)| vector.fill::<A>(blocks, delta))
                });
                for index in 0..deltas.first().map_or(0, Vec::len) {
                    let changes = |model: usize| deltas[model][index].abs() > threshold;
                    let n = (0..deltas.len()).filter(|model| changes(*model)).count();
                    for (_, counts) in counts.iter_mut().enumerate().filter(|(model, _)| changes(*model)) {
                        counts[usize::from(n == 1)] += 1;
                    }
                }
            },
        );
        let factor = |model: usize| {
            let [shared, alone] = [0, 1].map(|kind| pieces.iter().map(|piece| piece[model][kind]).sum::<u64>() as f64);
            // PyTorch's clamp lets an upper bound below the lower one win; Rust's would panic.
            if A::STEPS {
                // Counts are whole numbers to PyTorch, and their ratio is a 32-bit one whatever the dtype.
                let (r, alpha) = (r as f32, alpha as f32);
                let ratio = shared as f32 / (alone as f32).max(epsilon as f32);
                return A::Real::of(f64::from(1.0 + r * ratio.max(0.0).min(alpha)));
            }
            A::Real::of(1.0 + r * (shared / alone.max(epsilon)).max(0.0).min(alpha))
        };
        Self { epsilon: threshold, unique: (0..vectors.len()).map(factor).collect(), wide: true }
    }

    /// One block. Input 0 is the base.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, scratch: &mut [Vec<A::Real>], out: &mut [A::Real]) {
        let (zero, one) = (A::Real::of(0.0), A::Real::of(1.0));
        let [counts, alone, delta] = scratch else { return };
        for buffer in [&mut *counts, &mut *alone] {
            buffer.clear();
            buffer.resize(out.len(), zero);
        }
        out.fill(zero);
        if A::STEPS {
            return self.apply_steps(block, [counts, delta], out);
        }
        for (vector, unique) in task_vector::vectors(block.inputs).zip(&self.unique) {
            vector.fill::<A>(block.blocks, delta);
            for (((sum, count), alone), delta) in out.iter_mut().zip(&mut *counts).zip(&mut *alone).zip(&*delta) {
                let changes = delta.abs() > self.epsilon;
                *sum = *sum + if changes { *delta } else { zero };
                *count = *count + if changes { one } else { zero };
                *alone = *alone + if changes { *delta * *unique } else { zero };
            }
        }
        for (((sum, count), alone), base) in out.iter_mut().zip(counts).zip(alone).zip(block.input(0)) {
            let change = if *count > one { *sum / *count } else { *alone };
            *sum = *base + change;
        }
    }

    /// The same with every task vector divided by the number of those that count before they are added.
    #[inline(always)]
    fn apply_steps(&self, block: Block<'_, A::Real>, [counts, delta]: [&mut Vec<A::Real>; 2], out: &mut [A::Real]) {
        let (zero, one) = (A::Real::of(0.0), A::Real::of(1.0));
        for vector in task_vector::vectors(block.inputs) {
            vector.fill::<A>(block.blocks, delta);
            for (count, delta) in counts.iter_mut().zip(&*delta) {
                *count = *count + if delta.abs() > self.epsilon { one } else { zero };
            }
        }
        for (vector, unique) in task_vector::vectors(block.inputs).zip(&self.unique) {
            vector.fill::<A>(block.blocks, delta);
            for ((sum, count), delta) in out.iter_mut().zip(&*counts).zip(&*delta) {
                let part = if *count > one { A::step(*delta / *count) } else { *delta * *unique };
                *sum = *sum + if delta.abs() > self.epsilon { part } else { zero };
            }
        }
        for (sum, base) in out.iter_mut().zip(block.input(0)) {
            *sum = *base + if self.wide { *sum } else { A::step(*sum) };
        }
    }
}
