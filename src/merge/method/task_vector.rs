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
//! Invariants: a divisor of zero (below 1e-8 without consensus) counts as 1; no model at all gives the base; the sum runs
//! in the order of the models given here, which the recipe makes independent of the order in the file.

use super::sparsify::{Sparse, Sparsity, sparsify};
use crate::merge::inputs::Inputs;
use crate::merge::real::Real;

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

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<R> {
    consensus: bool,
    normalize: bool,
    lambda: R,
    divisor: R,
    models: Vec<(Sparse<R>, R)>,
}

impl TaskVector {
    /// Takes the statistics that the sparsifiers need. Input 0 is the base.
    pub fn prepare<R: Real>(&self, inputs: &Inputs<'_>) -> Kernel<R> {
        let sparsities: Vec<Sparsity> = self.models.iter().map(|model| model.sparsity).collect();
        let sparse = sparsify(inputs, &sparsities, self.rescale);
        let weights = self.models.iter().map(|model| R::of(model.weight));
        let sum = weights.clone().fold(R::zero(), |sum, weight| sum + weight);
        Kernel {
            consensus: self.consensus,
            normalize: self.normalize,
            lambda: R::of(self.lambda),
            divisor: if sum.wide().abs() < SMALLEST_DIVISOR { R::one() } else { sum },
            models: sparse.into_iter().zip(weights).collect(),
        }
    }
}

impl<R: Real> Kernel<R> {
    /// One block: `blocks[0]` is the base, the others are overwritten.
    pub fn apply(&self, start: usize, blocks: &mut [Vec<R>], out: &mut [R]) {
        let Some((base, models)) = blocks.split_first_mut() else { return };
        if models.is_empty() {
            out.copy_from_slice(base);
            return;
        }
        for ((sparse, weight), delta) in self.models.iter().zip(&mut *models) {
            delta.iter_mut().zip(&*base).for_each(|(x, base)| *x = *x - *base);
            sparse.mask.apply(start, delta, sparse.factor);
            delta.iter_mut().for_each(|x| *x = *x * *weight);
        }
        out.fill(R::zero());
        for delta in &*models {
            out.iter_mut().zip(delta).for_each(|(sum, delta)| *sum = *sum + *delta);
        }
        if self.consensus {
            self.agree(models, out);
        } else if self.normalize {
            out.iter_mut().for_each(|sum| *sum = *sum / self.divisor);
        }
        if self.lambda != R::one() {
            out.iter_mut().for_each(|sum| *sum = *sum * self.lambda);
        }
        out.iter_mut().zip(&*base).for_each(|(sum, base)| *sum = *base + *sum);
    }

    /// `sum` holds the sum of the weighted deltas, and afterwards that of those which share its sign.
    fn agree(&self, models: &mut [Vec<R>], sum: &mut [R]) {
        let (zero, one) = (R::zero(), R::one());
        for (index, sum) in sum.iter_mut().enumerate() {
            let positive = *sum >= zero;
            let (mut total, mut divisor) = (zero, zero);
            for ((_, weight), delta) in self.models.iter().zip(&*models) {
                let delta = delta[index];
                let agrees = if positive { delta > zero } else { delta < zero };
                total = total + if agrees { delta } else { zero };
                divisor = divisor + if agrees { *weight } else { zero };
            }
            *sum = match self.normalize {
                true if divisor != zero => total / divisor,
                true => total / one,
                false => total,
            };
        }
    }
}
