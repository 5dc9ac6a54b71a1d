//! Sparsifiers: which elements of a task vector delta = x - base stay, and what the kept ones are multiplied by.
//!
//! For N elements and density d, with floor written as truncation:
//!
//! - *magnitude* (TIES, arXiv:2306.01708): the max(1, floor(dN)) largest |delta|;
//! - *outliers* (Breadcrumbs, arXiv:2312.06795): n = floor(dN) stay, the floor(gamma N) largest and max(0, N - n - top)
//!   smallest go; the density wins, so fewer large ones go where gamma > 1 - d;
//! - *random* (DARE, arXiv:2311.03099): each with probability d;
//! - *magprune* (DELLA, arXiv:2406.11617): see [`super::magprune`].
//!
//! *Rescale* is mergekit's, not the papers': the kept elements are multiplied by |delta|_1 / |kept|_1 over the whole
//! tensor, which preserves its L1 norm exactly.
//!
//! Invariants: density 1 keeps everything untouched and density 0 nothing (both are settled before this module is asked);
//! equal magnitudes at a cut are told apart by position, the earlier first, or in mergekit's numerics as its sort leaves
//! them ([`introsort`]); nothing depends on threads.

use std::ops::Range;
use std::sync::Arc;

use super::magprune::Prune;
use super::mask::Mask;
use super::stream::Stream;
use crate::config::Dtype;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::followed::Followed;
use crate::merge::introsort;
use crate::merge::real::{Key, Real};
use crate::merge::select::Statistic;
use crate::merge::survey::{Sum, Survey, Vector};

/// How one model's task vector is thinned out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sparsity {
    /// Not at all.
    Everything,
    /// Down to nothing.
    Nothing,
    /// By magnitude.
    Magnitude {
        /// Share kept, between 0 and 1.
        density: f64,
    },
    /// Without the largest and the smallest.
    Outliers {
        /// Share kept, between 0 and 1.
        density: f64,
        /// Share of the largest that goes.
        gamma: f64,
    },
    /// At random.
    Random {
        /// Share kept, between 0 and 1.
        density: f64,
        /// The random numbers.
        stream: Stream,
    },
    /// At random, large changes kept more often.
    Magprune {
        /// Mean share kept, between 0 and 1.
        density: f64,
        /// Half-width of the probabilities.
        epsilon: f64,
        /// The random numbers.
        stream: Stream,
    },
}

/// A mask and the factor of what it keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse<R> {
    /// What stays.
    pub mask: Mask<R>,
    /// What it is multiplied by.
    pub factor: R,
}

/// L1 norms below this are not divided by.
const SMALLEST_NORM: f64 = 1e-7;

/// floor(share * n), at most `n`.
fn share_of(share: f64, n: u64) -> u64 {
    // A float to integer cast saturates: negative shares give 0.
    ((share * n as f64) as u64).min(n)
}

impl Sparsity {
    /// Whether magnitudes are compared with each other.
    pub fn compares(self) -> bool {
        matches!(self, Self::Magnitude { .. } | Self::Outliers { .. } | Self::Magprune { .. })
    }

    /// The ascending ranks first..end that stay, where ranks decide.
    fn kept_ranks(self, n: u64) -> Option<(u64, u64)> {
        let (first, end) = match self {
            Self::Magnitude { density } => (n - share_of(density, n).max(1).min(n), n),
            Self::Outliers { density, gamma } => {
                let kept = share_of(density, n);
                let bottom = (n - kept).saturating_sub(share_of(gamma, n));
                (bottom, bottom + kept)
            }
            _ => return None,
        };
        (first < end).then_some((first, end))
    }

    /// The ranks whose magnitudes it needs, in a tensor of `n` elements.
    pub fn ranks(self, n: u64) -> Vec<u64> {
        match (self, self.kept_ranks(n)) {
            (Self::Magnitude { .. }, Some((first, _))) => vec![first],
            (_, Some((first, end))) => vec![first, end - 1],
            (_, None) => Vec::new(),
        }
    }

    /// Its rows of random decisions, if it makes any.
    pub fn prune(self, vector: Vector) -> Option<Prune> {
        match self {
            Self::Magprune { density, epsilon, stream } => Some(Prune { vector, density, epsilon, stream }),
            _ => None,
        }
    }

    /// What stays of a task vector. The ranks and the prunings it asked for are known.
    pub fn mask<A: Arithmetic>(
        self,
        vector: Vector,
        survey: &Survey<'_, A>,
        prunings: &[(Prune, Arc<Vec<u64>>)],
    ) -> Mask<A::Real> {
        let n = survey.inputs.len() as u64;
        match self {
            Self::Everything => Mask::Everything,
            Self::Nothing => Mask::Nothing,
            Self::Random { density, stream } => {
                // mergekit draws in bfloat16 where that is the dtype, in 32 bits everywhere else.
                let narrow = A::STEPS && survey.inputs.working == Dtype::Bf16;
                Mask::random(stream, if narrow { A::stepped(density) } else { density })
            }
            Self::Magprune { .. } => {
                let wanted = self.prune(vector);
                let known = prunings.iter().find(|(prune, _)| Some(prune) == wanted.as_ref());
                known.map_or(Mask::Nothing, |(_, bits)| Mask::Bits(bits.clone()))
            }
            Self::Magnitude { .. } | Self::Outliers { .. } => self.between(vector, survey, n),
        }
    }

    fn between<A: Arithmetic>(self, vector: Vector, survey: &Survey<'_, A>, n: u64) -> Mask<A::Real> {
        let Some((first, end)) = self.kept_ranks(n) else { return Mask::Nothing };
        let Some(at_first) = survey.magnitude_at(vector, first) else { return Mask::Nothing };
        let low = A::Real::from_magnitude_key(at_first.key);
        if let Self::Magnitude { .. } = self {
            // Counted from the largest down, so that the earliest of equal ones stay.
            // Statistics that were stopped know too little for anything; nothing is then written.
            let taken = (at_first.below + at_first.n_equal()).saturating_sub(first);
            if A::STEPS
                && matters(at_first)
                && taken < at_first.n_equal()
                && let Some(mask) = self.unstable(vector, survey, n - end..n - first, [at_first.key, Key::MAX])
            {
                return mask;
            }
            let low_at = 0..survey.position(vector, at_first, taken);
            return Mask::Between { low, low_at, high: A::Real::of(f64::INFINITY), high_at: 0..usize::MAX };
        }
        let Some(at_last) = survey.magnitude_at(vector, end - 1) else { return Mask::Nothing };
        let cuts_low = matters(at_first) && first > at_first.below;
        let cuts_high = matters(at_last) && end < at_last.below + at_last.n_equal();
        if A::STEPS
            && (cuts_low || cuts_high)
            && let Some(mask) = self.unstable(vector, survey, first..end, [at_first.key, at_last.key])
        {
            return mask;
        }
        let low_at = survey.position(vector, at_first, first.saturating_sub(at_first.below))..usize::MAX;
        let high_at = 0..survey.position(vector, at_last, end.saturating_sub(at_last.below));
        Mask::Between { low, low_at, high: A::Real::from_magnitude_key(at_last.key), high_at }
    }

    /// What stays where a cut goes through equal magnitudes, as mergekit has it: `ranks` of the order that an unstable sort
    /// leaves, from the largest down for the magnitude, from the smallest up for outliers. The cuts are at two magnitudes.
    fn unstable<A: Arithmetic>(
        self,
        vector: Vector,
        survey: &Survey<'_, A>,
        ranks: Range<u64>,
        [low, high]: [<A::Real as Real>::Key; 2],
    ) -> Option<Mask<A::Real>> {
        let ranks = ranks.start as usize..ranks.end as usize;
        let falls = matches!(self, Self::Magnitude { .. });
        if let Some(keys) = survey.short_magnitudes(vector) {
            let short = |key| A::short_key(A::Real::from_magnitude_key(key)).unwrap_or(u16::MAX);
            // Of zeros it does not matter which stay.
            let cuts: Vec<u16> = [low, high].map(short).into_iter().filter(|key| *key != 0).collect();
            let followed = Followed::new(keys, &cuts);
            let at_cuts = if falls {
                followed.at(ranks, |left, right| left > right)
            } else {
                followed.at(ranks, |left, right| left < right)
            };
            let mut bits = survey.bits(vector, |key| low < key && key < high);
            at_cuts.into_iter().for_each(|position| bits[position as usize / 64] |= 1 << (position % 64));
            return Some(Mask::Bits(Arc::new(bits)));
        }
        let mut pairs = survey.magnitudes(vector)?;
        if falls {
            introsort::sort(&mut pairs, &ranks, |left, right| left.0 > right.0);
        } else {
            introsort::sort(&mut pairs, &ranks, |left, right| left.0 < right.0);
        }
        Some(Mask::at(pairs.len(), pairs[ranks].iter().map(|(_, position)| *position)))
    }
}

/// Whether it matters which of the elements with that magnitude stay.
fn matters<K: Key>(statistic: &Statistic<K>) -> bool {
    statistic.key.wide() != 0
}

/// Whether a mask leaves something to be rescaled.
fn thins<R: Real>(mask: &Mask<R>) -> bool {
    !matches!(mask, Mask::Everything | Mask::Nothing)
}

/// The sums that rescaling needs.
pub fn rescale_sums<R: Real>(vector: Vector, mask: &Mask<R>) -> Vec<Sum<R>> {
    if thins(mask) { vec![Sum::Magnitude(vector), Sum::Kept(vector, mask.clone())] } else { Vec::new() }
}

impl Sparsity {
    /// |delta|_1 / |kept|_1, where something was lost.
    pub fn rescale_factor<A: Arithmetic>(
        self,
        vector: Vector,
        mask: &Mask<A::Real>,
        survey: &Survey<'_, A>,
    ) -> A::Real {
        let draws = matches!(self, Self::Random { .. } | Self::Magprune { .. });
        let step = |value| if draws { draw_step::<A>(survey.inputs.working, value) } else { A::stepped(value) };
        let [full, kept] = match rescale_sums(vector, mask).as_slice() {
            [full, kept] => [survey.sum(full), survey.sum(kept)].map(step),
            _ => return A::Real::of(1.0),
        };
        A::Real::of(if full < SMALLEST_NORM || kept < SMALLEST_NORM { 1.0 } else { step(full / kept) })
    }
}

/// The result of one step of a random sparsifier. mergekit computes those in 32 bits where the dtype is float16, for which
/// PyTorch draws no numbers on a CPU, and rounds what comes of them once.
pub fn draw_step<A: Arithmetic>(working: Dtype, value: f64) -> f64 {
    if working == Dtype::F16 { A::held(value) } else { A::stepped(value) }
}
