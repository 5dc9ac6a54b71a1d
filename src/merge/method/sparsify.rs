//! Sparsifiers: which elements of a task vector delta = x - base stay, and what the kept ones are multiplied by.
//!
//! For N elements and density d, with floor written as truncation:
//!
//! - *magnitude* (TIES, arXiv:2306.01708): the max(1, floor(dN)) largest |delta|;
//! - *outliers* (Breadcrumbs, arXiv:2312.06795): n = floor(dN) stay, the floor(gamma N) largest and max(0, N - n - top)
//!   smallest go; the density wins, so fewer large ones go where gamma > 1 - d;
//! - *random* (DARE, arXiv:2311.03099): each with probability d;
//! - *magprune* (DELLA, arXiv:2406.11617): each row along the last axis is ranked by |delta|; the element at share r of
//!   the ranks stays with probability (d - epsilon) + 2 epsilon r, so large changes stay more often.
//!
//! *Rescale* is mergekit's, not the papers': the kept elements are multiplied by |delta|_1 / |kept|_1 over the whole
//! tensor, which preserves its L1 norm exactly.
//!
//! Invariants: density 1 keeps everything untouched and density 0 nothing (both are settled before this module is asked);
//! equal magnitudes at a cut are told apart by position, the earlier first; nothing depends on threads.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::mask::Mask;
use super::stream::{Stream, threshold};
use crate::merge::inputs::{BLOCK, Inputs, block_sum};
use crate::merge::real::Real;
use crate::merge::select::{Statistic, order_statistics};

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

/// The elements of equal magnitude, by position, that stay at the two ends of the kept range of ranks.
#[derive(Debug, Clone)]
struct Cut {
    low: u64,
    low_ties: std::ops::Range<u64>,
    high: u64,
    high_ties: std::ops::Range<u64>,
    /// Whether every element of both magnitudes stays.
    clean: bool,
}

/// The mask of every model. Input 0 is the base, input j + 1 the model of `sparsities[j]`.
pub fn sparsify<R: Real>(inputs: &Inputs<'_>, sparsities: &[Sparsity], rescale: bool) -> Vec<Sparse<R>> {
    let n = inputs.len() as u64;
    let ranks: Vec<Vec<u64>> = sparsities.iter().map(|sparsity| cut_ranks(*sparsity, n)).collect();
    let statistics = if ranks.iter().all(Vec::is_empty) {
        vec![Vec::new(); ranks.len()]
    } else {
        order_statistics(inputs, &ranks, |_, blocks: &[Vec<R>], stream, out| {
            let (base, model) = (&blocks[0], &blocks[stream + 1]);
            out.clear();
            out.extend(model.iter().zip(base).map(|(x, base)| (*x - *base).magnitude_key()));
        })
    };
    let cuts: Vec<Option<Cut>> =
        sparsities.iter().zip(&statistics).map(|(sparsity, found)| cut::<R>(*sparsity, found, n)).collect();
    let mut tied = tied_bits::<R>(inputs, &cuts).into_iter();
    let masks = sparsities.iter().zip(&cuts).enumerate().map(|(model, (sparsity, cut))| match (*sparsity, cut) {
        (_, Some(cut)) if cut.clean => {
            Mask::Between { low: R::from_magnitude_key(cut.low), high: R::from_magnitude_key(cut.high) }
        }
        (_, Some(_)) => Mask::Bits(tied.next().unwrap_or_default()),
        (Sparsity::Everything, None) => Mask::Everything,
        (Sparsity::Random { density, stream }, None) => Mask::random(stream, density),
        (Sparsity::Magprune { density, epsilon, stream }, None) => {
            Mask::Bits(magprune_bits::<R>(inputs, model + 1, density, epsilon, &stream))
        }
        (Sparsity::Nothing | Sparsity::Magnitude { .. } | Sparsity::Outliers { .. }, None) => Mask::Nothing,
    });
    let masks: Vec<Mask<R>> = masks.collect();
    let factors = if rescale { rescale_factors(inputs, &masks) } else { vec![R::one(); masks.len()] };
    masks.into_iter().zip(factors).map(|(mask, factor)| Sparse { mask, factor }).collect()
}

/// floor(share * n), at most `n`.
fn share_of(share: f64, n: u64) -> u64 {
    // A float to integer cast saturates: negative shares give 0.
    ((share * n as f64) as u64).min(n)
}

/// The ascending ranks first..end that stay.
fn kept_ranks(sparsity: Sparsity, n: u64) -> Option<(u64, u64)> {
    let (first, end) = match sparsity {
        Sparsity::Magnitude { density } => (n - share_of(density, n).max(1).min(n), n),
        Sparsity::Outliers { density, gamma } => {
            let kept = share_of(density, n);
            let bottom = (n - kept).saturating_sub(share_of(gamma, n));
            (bottom, bottom + kept)
        }
        _ => return None,
    };
    (first < end).then_some((first, end))
}

fn cut_ranks(sparsity: Sparsity, n: u64) -> Vec<u64> {
    match (sparsity, kept_ranks(sparsity, n)) {
        (Sparsity::Magnitude { .. }, Some((first, _))) => vec![first],
        (_, Some((first, end))) => vec![first, end - 1],
        (_, None) => Vec::new(),
    }
}

fn cut<R: Real>(sparsity: Sparsity, found: &[Statistic], n: u64) -> Option<Cut> {
    let (first, end) = kept_ranks(sparsity, n)?;
    match (sparsity, found) {
        (Sparsity::Magnitude { .. }, [at]) => {
            // Counted from the largest down, so that the earliest of equal ones stay.
            let kept = at.below + at.equal - first;
            let high = R::infinity().magnitude_key();
            Some(Cut { low: at.key, low_ties: 0..kept, high, high_ties: 0..u64::MAX, clean: kept == at.equal })
        }
        (_, [low, high]) => {
            let (skipped, taken) = (first - low.below, end - high.below);
            let clean = skipped == 0 && taken == high.equal;
            Some(Cut { low: low.key, low_ties: skipped..u64::MAX, high: high.key, high_ties: 0..taken, clean })
        }
        _ => None,
    }
}

impl Cut {
    /// Whether an element stays; `low_seen` and `high_seen` count the earlier elements of the two magnitudes.
    fn keeps(&self, key: u64, low_seen: &mut u64, high_seen: &mut u64) -> bool {
        if key < self.low || key > self.high {
            return false;
        }
        let mut kept = true;
        if key == self.low {
            kept &= self.low_ties.contains(low_seen);
            *low_seen += 1;
        }
        if key == self.high {
            kept &= self.high_ties.contains(high_seen);
            *high_seen += 1;
        }
        kept
    }
}

/// Bits of the models whose cut falls among equal magnitudes, in model order.
fn tied_bits<R: Real>(inputs: &Inputs<'_>, cuts: &[Option<Cut>]) -> Vec<Vec<u64>> {
    let tied: Vec<(usize, &Cut)> = cuts
        .iter()
        .enumerate()
        .filter_map(|(model, cut)| Some((model + 1, cut.as_ref().filter(|cut| !cut.clean)?)))
        .collect();
    if tied.is_empty() {
        return Vec::new();
    }
    // A piece has to know how many equal ones came before it.
    let counts = inputs.fold::<R, Vec<[u64; 2]>>(
        || vec![[0; 2]; tied.len()],
        |counts, _, blocks| {
            for (counts, (input, cut)) in counts.iter_mut().zip(&tied) {
                for key in magnitude_keys(blocks, *input) {
                    counts[0] += u64::from(key == cut.low);
                    counts[1] += u64::from(key == cut.high);
                }
            }
        },
    );
    let mut seen = vec![[0u64; 2]; tied.len()];
    let mut seen_before = Vec::with_capacity(counts.len());
    for counts in counts {
        seen_before.push(seen.clone());
        for (seen, counts) in seen.iter_mut().zip(counts) {
            seen[0] += counts[0];
            seen[1] += counts[1];
        }
    }
    let piece_bits = |piece: usize| {
        let mut seen = seen_before[piece].clone();
        let mut bits = vec![vec![0u64; inputs.piece(piece).len().div_ceil(64)]; tied.len()];
        let first = inputs.piece(piece).start;
        inputs.walk::<R>(inputs.piece(piece), |start, blocks| {
            for ((bits, seen), (input, cut)) in bits.iter_mut().zip(&mut seen).zip(&tied) {
                let [low_seen, high_seen] = seen;
                for (index, key) in (start - first..).zip(magnitude_keys(blocks, *input)) {
                    bits[index / 64] |= u64::from(cut.keeps(key, low_seen, high_seen)) << (index % 64);
                }
            }
        });
        bits
    };
    // Pieces start at multiples of 64 elements, so their words are joined as they are.
    let pieces: Vec<Vec<Vec<u64>>> = (0..inputs.n_pieces()).into_par_iter().map(piece_bits).collect();
    let mut bits = vec![Vec::with_capacity(inputs.len().div_ceil(64)); tied.len()];
    for piece in pieces {
        for (bits, piece) in bits.iter_mut().zip(piece) {
            bits.extend(piece);
        }
    }
    bits
}

fn magnitude_keys<R: Real>(blocks: &[Vec<R>], input: usize) -> impl Iterator<Item = u64> {
    blocks[input].iter().zip(&blocks[0]).map(|(x, base)| (*x - *base).magnitude_key())
}

/// Draws every row's bits with probabilities that rise with the rank of the magnitude in the row.
fn magprune_bits<R: Real>(inputs: &Inputs<'_>, input: usize, density: f64, epsilon: f64, stream: &Stream) -> Vec<u64> {
    // Rows do not start at multiples of 64, so two threads may set bits of one word.
    let bits: Vec<AtomicU64> = (0..inputs.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    let row_len = inputs.rows().len;
    let last_rank = row_len.saturating_sub(1).max(1) as f64;
    inputs.fold_rows::<R, (Vec<(u64, u32)>, Vec<u64>)>(
        || (Vec::with_capacity(row_len), vec![0; row_len]),
        |(ranked, thresholds), row, blocks| {
            ranked.clear();
            ranked.extend(magnitude_keys(blocks, input).zip(0u32..));
            ranked.sort_unstable();
            for (rank, (_, column)) in ranked.iter().enumerate() {
                let share = rank as f64 / last_rank;
                thresholds[*column as usize] = threshold(density - epsilon + 2.0 * epsilon * share);
            }
            let first = row * row_len;
            stream.for_each(first, row_len, |column, number| {
                if u64::from(number) < thresholds[column] {
                    let index = first + column;
                    bits[index / 64].fetch_or(1 << (index % 64), Ordering::Relaxed);
                }
            });
        },
    );
    bits.into_iter().map(AtomicU64::into_inner).collect()
}

/// |delta|_1 / |kept|_1 of every model that loses something.
fn rescale_factors<R: Real>(inputs: &Inputs<'_>, masks: &[Mask<R>]) -> Vec<R> {
    let thinned: Vec<bool> = masks.iter().map(|mask| !matches!(mask, Mask::Everything | Mask::Nothing)).collect();
    if !thinned.contains(&true) {
        return vec![R::one(); masks.len()];
    }
    let norms = inputs.fold::<R, Vec<[f64; 2]>>(
        || vec![[0.0; 2]; masks.len()],
        |norms, start, blocks| {
            let (base, models) = blocks.split_at_mut(1);
            for (((norms, mask), thinned), delta) in norms.iter_mut().zip(masks).zip(&thinned).zip(models) {
                if !thinned {
                    continue;
                }
                delta.iter_mut().zip(&base[0]).for_each(|(x, base)| *x = *x - *base);
                norms[0] += block_sum(delta.len(), |index| delta[index].wide().abs());
                mask.apply(start, delta, R::one());
                norms[1] += block_sum(delta.len(), |index| delta[index].wide().abs());
            }
        },
    );
    let factor = |model: usize| {
        let [full, kept] =
            norms.iter().fold([0.0; 2], |sum, piece| [sum[0] + piece[model][0], sum[1] + piece[model][1]]);
        if !thinned[model] || full < SMALLEST_NORM || kept < SMALLEST_NORM { R::one() } else { R::of(full / kept) }
    };
    (0..masks.len()).map(factor).collect()
}

const _: () = assert!(BLOCK.is_multiple_of(64), "words of bits must not straddle blocks");
