//! magprune (DELLA, arXiv:2406.11617): each row along the last axis is ranked by |delta|; the element at share r of the
//! ranks stays with probability (d - epsilon) + 2 epsilon r, so large changes stay more often.
//!
//! Invariants: equal magnitudes are ranked by position; a row's ranks are found once for all merges that ask for them; a
//! row is ranked by distributing it over buckets of rising magnitude, so the time is linear in its length.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sparsify::draw_step;
use super::stream::Stream;
use crate::config::Dtype;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::{Inputs, block_sum};
use crate::merge::real::Real;
use crate::merge::survey::Vector;
use crate::merge::vector::{Loop, vectorised};

/// A task vector, and with which probabilities its elements stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prune {
    /// What is ranked.
    pub vector: Vector,
    /// Mean probability.
    pub density: f64,
    /// Half-width of the probabilities.
    pub epsilon: f64,
    /// The random numbers.
    pub stream: Stream,
}

/// Buckets of a row reach up to so many times its mean magnitude; what is larger shares the last one.
const REACH: f64 = 4.0;

/// Which elements stay, one bit an element, for every pruning.
pub fn prune<A: Arithmetic>(inputs: &Inputs<'_>, wanted: &[Prune]) -> Vec<(Prune, Arc<Vec<u64>>)> {
    let mut prunes: Vec<Prune> = Vec::new();
    for prune in wanted {
        if !prunes.contains(prune) {
            prunes.push(*prune);
        }
    }
    let mut vectors: Vec<Vector> = prunes.iter().map(|prune| prune.vector).collect();
    vectors.sort_unstable();
    vectors.dedup();
    let mut kept: Vec<(Prune, Arc<Vec<u64>>)> = Vec::new();
    for vector in vectors {
        let of_vector: Vec<Prune> = prunes.iter().filter(|prune| prune.vector == vector).copied().collect();
        let bits = prune_vector::<A>(inputs, vector, &of_vector);
        kept.extend(of_vector.into_iter().zip(bits.into_iter().map(Arc::new)));
    }
    kept
}

fn prune_vector<A: Arithmetic>(inputs: &Inputs<'_>, vector: Vector, prunes: &[Prune]) -> Vec<Vec<u64>> {
    // Rows do not start at multiples of 64, so two threads may set bits of one word.
    let words = || (0..inputs.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let bits: Vec<Vec<AtomicU64>> = prunes.iter().map(|_| words()).collect();
    let (row_len, working) = (inputs.rows().len, inputs.working);
    let which: Vec<usize> = [Some(vector.input), vector.minus].into_iter().flatten().collect();
    inputs.fold_rows::<A::Real, (Vec<A::Real>, Ranker<A::Real>)>(
        &which,
        || (Vec::new(), Ranker::default()),
        |(delta, ranker), row, blocks| {
            vectorised(|| vector.fill::<A>(blocks, delta));
            ranker.rank(delta);
            let (first, ranks) = (row * row_len, &*ranker.ranks);
            for (prune, bits) in prunes.iter().zip(&bits) {
                vectorised(Draw::<A> { prune, first, ranks, bits, working, arithmetic: PhantomData });
            }
        },
    );
    bits.into_iter().map(|bits| bits.into_iter().map(AtomicU64::into_inner).collect()).collect()
}

/// The drawing of one row's bits.
struct Draw<'a, A> {
    prune: &'a Prune,
    first: usize,
    ranks: &'a [u32],
    bits: &'a [AtomicU64],
    working: Dtype,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Loop for Draw<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { prune, first, ranks, bits, working, .. } = self;
        let last_rank = ranks.len().saturating_sub(1).max(1) as f64;
        let lowest = prune.density - prune.epsilon;
        prune.stream.for_batches(first, ranks.len(), |range, numbers| {
            let start = first + range.start;
            let mut kept = 0u64;
            for ((offset, number), rank) in (0..).zip(numbers).zip(&ranks[range]) {
                let probability = if A::STEPS {
                    // Ranks are numbers of the dtype it is drawn in to mergekit.
                    let step = |value| draw_step::<A>(working, value);
                    let rank = step(step(f64::from(*rank) + 1.0) - 1.0);
                    let share = step(rank / last_rank).clamp(0.0, 1.0);
                    step(lowest + 2.0 * prune.epsilon * share)
                } else {
                    lowest + 2.0 * prune.epsilon * (f64::from(*rank) / last_rank)
                };
                // A whole number below the nearest whole number of probability * 2^32.
                let hit = f64::from(*number) + 0.5 <= probability * 4_294_967_296.0;
                kept |= u64::from(hit) << offset;
            }
            // A batch is one word, or the part of it that is in the row.
            bits[start / 64].fetch_or(kept << (start % 64), Ordering::Relaxed);
        });
    }
}

/// Ranks of the magnitudes of a row, with buffers that are used again.
#[derive(Debug)]
struct Ranker<R: Real> {
    /// From 0, by position.
    ranks: Vec<u32>,
    buckets: Vec<u32>,
    /// First rank of every bucket, then of the next.
    starts: Vec<u32>,
    ordered: Vec<(R::Key, u32)>,
}

impl<R: Real> Default for Ranker<R> {
    fn default() -> Self {
        Self { ranks: Vec::new(), buckets: Vec::new(), starts: Vec::new(), ordered: Vec::new() }
    }
}

impl<R: Real> Ranker<R> {
    fn rank(&mut self, row: &[R]) {
        let Self { ranks, buckets, starts, ordered } = self;
        let n = row.len();
        let mean = block_sum(row, |x| x.wide().abs()) / n.max(1) as f64;
        let n_buckets = n.max(1) as u32;
        // Each of these operations keeps the order. The root spreads the many small magnitudes. Infinities and NaN end up
        // in the last bucket.
        let reach = (REACH * mean).max(f64::from(f32::MIN_POSITIVE));
        let scale = R::of(f64::from(n_buckets) * f64::from(n_buckets) / reach);
        let last = R::of(f64::from(n_buckets - 1));
        buckets.resize(n, 0);
        vectorised(|| {
            for (bucket, value) in buckets.iter_mut().zip(row) {
                let place = (value.abs() * scale).sqrt();
                *bucket = (if place < last { place } else { last }).wide() as u32;
            }
        });
        starts.clear();
        starts.resize(n_buckets as usize + 1, 0);
        for bucket in &*buckets {
            starts[*bucket as usize + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        ordered.resize(n, (R::Key::default(), 0));
        for ((position, bucket), value) in (0u32..).zip(&*buckets).zip(row) {
            let place = &mut starts[*bucket as usize];
            ordered[*place as usize] = (value.magnitude_key(), position);
            *place += 1;
        }
        // Every start has moved to the next bucket's.
        let mut from = 0;
        for end in starts.iter().take(n_buckets as usize) {
            let bucket = &mut ordered[from..*end as usize];
            if bucket.len() > 1 {
                bucket.sort_unstable();
            }
            from = *end as usize;
        }
        ranks.resize(n, 0);
        for (rank, (_, position)) in (0u32..).zip(&*ordered) {
            ranks[*position as usize] = rank;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_stable_sort() {
        let hash = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 8.0;
        let rows: [Vec<f32>; 5] = [
            (0..1000).map(hash).collect(),
            (0..1000).map(|i| hash(i).powi(9)).collect(),
            (0..1000).map(|i| hash(i).round()).collect(),
            vec![0.0; 64],
            vec![1.0, f32::INFINITY, -0.0, 1e-40, f32::NAN],
        ];
        let mut ranker = Ranker::default();
        for row in rows {
            ranker.rank(&row);
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by_key(|index| row[*index].magnitude_key());
            for (rank, position) in order.into_iter().enumerate() {
                assert_eq!(ranker.ranks[position] as usize, rank);
            }
        }
    }
}
