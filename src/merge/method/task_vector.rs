//! The task-vector family: task_arithmetic (arXiv:2212.04089), ties (arXiv:2306.01708), dare_* (arXiv:2311.03099),
//! breadcrumbs* (arXiv:2312.06795) and della* (arXiv:2406.11617) are one pass with different switches.
//!
//! With base b, models x_j of weight w_j and delta_j = sparsify(x_j - b):
//!
//! ```text
//! without consensus:  D = sum w_j                  Delta = sum w_j delta_j
//! with consensus:     s = sum w_j delta_j,  m_j = [sign(w_j delta_j) = (s >= 0 ? + : -)]   elementwise
//!                     D = sum m_j w_j              Delta = sum m_j w_j delta_j
//! y = b + lambda (normalize ? Delta / D : Delta)
//! ```
//!
//! Steps (rounded one by one in mergekit's numerics): the difference, the rescaling, the weight, each of the sums, the
//! division, lambda, and the sum with the base.
//!
//! Invariants: a divisor of zero (below 1e-8 without consensus) counts as 1; no model at all gives the base.

use super::Block;
use super::mask::Mask;
use super::sparsify::{Sparse, Sparsity};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;
use crate::merge::survey::Vector;

/// Switches and numbers of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskVector {
    /// Whether signs are elected.
    pub consensus: bool,
    /// Whether the sum is divided by the weights in it.
    pub normalize: bool,
    /// Whether sparsified task vectors keep their L1 norm.
    pub rescale: bool,
    /// Factor of the whole change.
    pub lambda: f64,
    /// The non-base inputs, in the order of the inputs.
    pub models: Vec<TaskModel>,
}

/// One model's part.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskModel {
    /// Its weight.
    pub weight: f64,
    /// What stays of its task vector.
    pub sparsity: Sparsity,
}

/// Without consensus, sums of weights smaller than this are not divided by.
const SMALLEST_DIVISOR: f64 = 1e-8;

/// The task vectors of an operation whose first input is the base.
pub fn vectors(inputs: &[usize]) -> impl Iterator<Item = Vector> {
    inputs[1..].iter().map(|input| Vector::task(*input, inputs[0]))
}

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    consensus: bool,
    normalize: bool,
    lambda: A::Real,
    divisor: A::Real,
    models: Vec<(Sparse<A::Real>, A::Real)>,
}

impl TaskVector {
    /// With what stays of every model's task vector.
    pub fn kernel<A: Arithmetic>(&self, sparse: Vec<Sparse<A::Real>>) -> Kernel<A> {
        let weights = self.models.iter().map(|model| A::step_wide(model.weight));
        Kernel {
            consensus: self.consensus,
            normalize: self.normalize,
            lambda: A::Real::of(self.lambda),
            divisor: self.divisor::<A>(),
            models: sparse.into_iter().zip(weights).collect(),
        }
    }

    /// What the sum is divided by where `normalize` is on and there is no consensus.
    pub fn divisor<A: Arithmetic>(&self) -> A::Real {
        let weights = self.models.iter().map(|model| A::step_wide(model.weight));
        let sum = A::step(weights.fold(A::Real::of(0.0), |sum, weight| sum + weight));
        if sum.wide().abs() < SMALLEST_DIVISOR { A::Real::of(1.0) } else { sum }
    }
}

impl<A: Arithmetic> Kernel<A> {
    /// Buffers that [`Kernel::apply`] works in.
    pub fn n_scratch(&self) -> usize {
        if self.consensus { self.models.len() + 3 } else { 2 }
    }

    /// One block. Input 0 is the base.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, scratch: &mut [Vec<A::Real>], out: &mut [A::Real]) {
        let zero = A::Real::of(0.0);
        let base = block.input(0);
        out.fill(zero);
        for (index, (sparse, weight)) in self.models.iter().enumerate() {
            let weight = *weight;
            if !self.consensus && matches!(sparse.mask, Mask::Everything) {
                for ((sum, x), base) in out.iter_mut().zip(block.input(index + 1)).zip(base) {
                    *sum = *sum + A::step(A::step(*x - *base) * weight);
                }
                continue;
            }
            let Some((difference, deltas)) = scratch.split_last_mut() else { return };
            let delta = &mut deltas[if self.consensus { index } else { 0 }];
            [&mut *difference, &mut *delta].into_iter().for_each(|buffer| buffer.resize(out.len(), zero));
            if matches!(sparse.mask, Mask::Nothing) {
                delta.fill(zero);
                continue;
            }
            let x = block.input(index + 1);
            if matches!(sparse.mask, Mask::Everything) {
                for ((delta, x), base) in delta.iter_mut().zip(x).zip(base) {
                    *delta = A::step(A::step(*x - *base) * weight);
                }
            } else {
                for ((difference, x), base) in difference.iter_mut().zip(x).zip(base) {
                    *difference = A::step(*x - *base);
                }
                sparse.mask.apply::<A>(block.start, difference, delta, sparse.factor);
                delta.iter_mut().for_each(|delta| *delta = A::step(*delta * weight));
            }
            out.iter_mut().zip(&*delta).for_each(|(sum, delta)| *sum = *sum + *delta);
        }
        if self.consensus {
            self.agree(scratch, out);
        } else if self.normalize {
            let divisor = self.divisor;
            out.iter_mut().for_each(|sum| *sum = A::step(A::step(*sum) / divisor));
        }
        let lambda = self.lambda;
        if lambda != A::Real::of(1.0) {
            out.iter_mut().for_each(|sum| *sum = A::step(A::step(*sum) * lambda));
        }
        out.iter_mut().zip(base).for_each(|(sum, base)| *sum = *base + A::step(*sum));
    }

    /// `sum` holds the sum of the weighted deltas, and afterwards that of those which share its sign.
    #[inline(always)]
    fn agree(&self, scratch: &mut [Vec<A::Real>], sum: &mut [A::Real]) {
        let (zero, one) = (A::Real::of(0.0), A::Real::of(1.0));
        let Some((deltas, [signs, divisors, parts])) = scratch.split_last_chunk_mut() else { return };
        for buffer in [&mut *signs, &mut *divisors, &mut *parts] {
            buffer.resize(sum.len(), zero);
        }
        for (sign, sum) in signs.iter_mut().zip(&*sum) {
            *sign = if A::step(*sum) >= zero { one } else { -one };
        }
        divisors.fill(zero);
        sum.fill(zero);
        // One loop for each sum: the compiler makes branches of them otherwise.
        for (&(_, weight), delta) in self.models.iter().zip(deltas) {
            for (delta, sign) in delta.iter_mut().zip(&*signs) {
                *delta = if *delta * *sign > zero { *delta } else { zero };
            }
            sum.iter_mut().zip(&*delta).for_each(|(sum, delta)| *sum = *sum + *delta);
            for (part, delta) in parts.iter_mut().zip(&*delta) {
                *part = if *delta != zero { weight } else { zero };
            }
            divisors.iter_mut().zip(&*parts).for_each(|(divisor, part)| *divisor = *divisor + *part);
        }
        if self.normalize {
            for (sum, divisor) in sum.iter_mut().zip(divisors) {
                let divisor = A::step(*divisor);
                *sum = A::step(A::step(*sum) / if divisor == zero { one } else { divisor });
            }
        }
    }
}
