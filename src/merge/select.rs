//! Exact order statistics of a tensor of any size, without a copy of it.
//!
//! A sample of the keys tells between which two keys the one of a wanted rank must lie; one pass over all of them then
//! counts what is below, and collects what lies between. Nothing rests on the sample: should the rank turn out to lie
//! elsewhere, histograms of 16 bits at a time find it. Counts are whole numbers, so no result depends on the order in
//! which pieces are scanned.

use rayon::prelude::*;

use super::inputs::{Inputs, PIECE};
use super::real::{Key, Real};
use super::vector::{Loop, vectorised};

/// Elements of the sample at least; a smaller tensor is its own sample.
const SMALLEST_SAMPLE: usize = 1 << 16;

/// One element in so many is sampled of larger tensors.
const SAMPLED: usize = 64;

/// Neighbours that are sampled together.
const RUN: usize = 64;

/// How far to both sides of the wanted rank the sample is trusted, in standard deviations of a random sample.
const SLACK: f64 = 8.0;

const BINS: usize = 1 << 16;

/// The key at one rank, and how it lies among equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistic<K> {
    /// The key at that rank of the ascending order.
    pub key: K,
    /// Elements with a smaller key.
    pub below: u64,
    /// Elements with this key, of every piece.
    pub equal: Vec<u32>,
}

impl<K> Statistic<K> {
    /// Elements with this key.
    pub fn n_equal(&self) -> u64 {
        self.equal.iter().map(|count| u64::from(*count)).sum()
    }
}

/// What is ranked: `fill(start, blocks, stream, out)` puts the keys of one block of one stream into `out`, from the
/// blocks of the inputs `which`.
pub struct Keys<'a, R: Real, F> {
    /// The tensors.
    pub inputs: &'a Inputs<'a>,
    /// The inputs it reads.
    pub which: &'a [usize],
    /// Makes keys.
    pub fill: F,
    real: std::marker::PhantomData<R>,
}

/// One rank of one stream on its way to its key.
#[derive(Debug, Clone, Copy)]
struct Search<K> {
    stream: usize,
    rank: u64,
    low: K,
    high: K,
}

/// What one piece has to say about a search.
#[derive(Debug, Default)]
struct Found<K> {
    below: u64,
    low: u32,
    high: u32,
    between: Vec<K>,
}

impl<'a, R: Real, F: Fn(usize, &[Vec<R>], usize, &mut Vec<R::Key>) + Sync> Keys<'a, R, F> {
    /// Keys made by `fill`.
    pub fn new(inputs: &'a Inputs<'a>, which: &'a [usize], fill: F) -> Self {
        Self { inputs, which, fill, real: std::marker::PhantomData }
    }

    /// The keys at the ranks (from 0) `ranks[stream]` of the ascending orders.
    pub fn at(&self, ranks: &[Vec<u64>]) -> Vec<Vec<Statistic<R::Key>>> {
        if ranks.iter().all(Vec::is_empty) {
            return vec![Vec::new(); ranks.len()];
        }
        let searches = self.searches(ranks);
        let found = self.scan(&searches);
        let mut statistics: Vec<Vec<Statistic<R::Key>>> = ranks.iter().map(|_| Vec::new()).collect();
        for (index, search) in searches.iter().enumerate() {
            let pieces: Vec<&Found<R::Key>> = found.iter().map(|piece| &piece[index]).collect();
            let statistic = resolve(*search, &pieces).unwrap_or_else(|| self.by_histogram(search.stream, search.rank));
            statistics[search.stream].push(statistic);
        }
        statistics
    }

    /// The position of the `ordinal`th (from 0) of the elements with a statistic's key; beyond the last, the end.
    pub fn position(&self, stream: usize, statistic: &Statistic<R::Key>, ordinal: u64) -> usize {
        let mut left = ordinal;
        let piece = statistic.equal.iter().position(|count| {
            let here = left < u64::from(*count);
            if !here {
                left -= u64::from(*count);
            }
            here
        });
        let Some(piece) = piece else { return self.inputs.len() };
        let mut position = self.inputs.len();
        let mut keys = Vec::new();
        self.inputs.walk(self.which, 0, self.inputs.piece(piece), |start, blocks, _| {
            if position < self.inputs.len() {
                return;
            }
            (self.fill)(start, blocks, stream, &mut keys);
            for index in (0..keys.len()).filter(|index| keys[*index] == statistic.key) {
                if left == 0 {
                    position = start + index;
                    return;
                }
                left -= 1;
            }
        });
        position
    }

    /// Every key of a stream with its position, in order of position: for what looks at the whole tensor at once. None
    /// where positions have more than 32 bits.
    pub fn with_positions(&self, stream: usize) -> Option<Vec<(R::Key, u32)>> {
        u32::try_from(self.inputs.len()).ok()?;
        let mut pairs = vec![(R::Key::default(), 0u32); self.inputs.len()];
        pairs.par_chunks_mut(PIECE).enumerate().for_each(|(piece, pairs)| {
            let mut keys = Vec::new();
            let range = self.inputs.piece(piece);
            self.inputs.walk(self.which, 0, range.clone(), |start, blocks, _| {
                (self.fill)(start, blocks, stream, &mut keys);
                let block = &mut pairs[start - range.start..][..keys.len()];
                for ((pair, key), position) in block.iter_mut().zip(&keys).zip(start as u32..) {
                    *pair = (*key, position);
                }
            });
        });
        Some(pairs)
    }

    /// Every key of a stream in 16 bits, in order of position: for what looks at the whole tensor at once. None where positions
    /// have more than 32.
    pub fn in_16_bits(&self, stream: usize, short: impl Fn(R::Key) -> u16 + Sync) -> Option<Vec<u16>> {
        u32::try_from(self.inputs.len()).ok()?;
        let mut shorts = vec![0u16; self.inputs.len()];
        shorts.par_chunks_mut(PIECE).enumerate().for_each(|(piece, shorts)| {
            let mut keys = Vec::new();
            let range = self.inputs.piece(piece);
            self.inputs.walk(self.which, 0, range.clone(), |start, blocks, _| {
                (self.fill)(start, blocks, stream, &mut keys);
                let shorts = &mut shorts[start - range.start..];
                shorts.iter_mut().zip(&keys).for_each(|(place, key)| *place = short(*key));
            });
        });
        Some(shorts)
    }

    /// One bit for every element of a stream, lowest first: whether its key is one of those.
    pub fn bits(&self, stream: usize, has: impl Fn(R::Key) -> bool + Sync) -> Vec<u64> {
        let mut bits = vec![0u64; self.inputs.len().div_ceil(64)];
        bits.par_chunks_mut(PIECE / 64).enumerate().for_each(|(piece, bits)| {
            let mut keys = Vec::new();
            let range = self.inputs.piece(piece);
            self.inputs.walk(self.which, 0, range.clone(), |start, blocks, _| {
                (self.fill)(start, blocks, stream, &mut keys);
                for (word, keys) in bits[(start - range.start) / 64..].iter_mut().zip(keys.chunks(64)) {
                    *word = (0..).zip(keys).fold(0, |word, (bit, key)| word | u64::from(has(*key)) << bit);
                }
            });
        });
        bits
    }

    fn searches(&self, ranks: &[Vec<u64>]) -> Vec<Search<R::Key>> {
        let n = self.inputs.len();
        let streams: Vec<usize> = (0..ranks.len()).filter(|stream| !ranks[*stream].is_empty()).collect();
        let mut samples = self.sample(&streams);
        let mut searches = Vec::new();
        for (stream, sample) in streams.into_iter().zip(&mut samples) {
            let size = sample.len() as f64;
            for rank in &ranks[stream] {
                let share = *rank as f64 / n as f64;
                let slack =
                    if sample.len() == n { 0.0 } else { SLACK * (size * share * (1.0 - share)).sqrt() + RUN as f64 };
                let (first, last) = (share * size - slack, share * size + slack);
                let low = if first < 0.0 { R::Key::default() } else { nth(sample, first as usize) };
                let high = if last >= size { R::Key::MAX } else { nth(sample, last.ceil() as usize) };
                searches.push(Search { stream, rank: *rank, low, high });
            }
        }
        searches
    }

    /// Keys of evenly spread elements.
    fn sample(&self, streams: &[usize]) -> Vec<Vec<R::Key>> {
        let n = self.inputs.len();
        let size = SMALLEST_SAMPLE.max(n / SAMPLED);
        // A small tensor is sampled as a whole, piece by piece.
        let (run, spacing) = if n <= size { (PIECE, PIECE) } else { (RUN, n / size * RUN) };
        let starts: Vec<usize> = (0..n).step_by(spacing).collect();
        let part = |starts: &[usize]| {
            let mut samples = vec![Vec::new(); streams.len()];
            let mut keys = Vec::new();
            for start in starts {
                self.inputs.walk(self.which, 0, *start..n.min(start + run), |start, blocks, _| {
                    for (stream, sample) in streams.iter().zip(&mut samples) {
                        (self.fill)(start, blocks, *stream, &mut keys);
                        sample.extend_from_slice(&keys);
                    }
                });
            }
            samples
        };
        let parts: Vec<Vec<Vec<R::Key>>> = starts.par_chunks(256).map(part).collect();
        (0..streams.len()).map(|stream| parts.iter().flat_map(|part| &part[stream]).copied().collect()).collect()
    }

    /// Every piece's part in every search.
    fn scan(&self, searches: &[Search<R::Key>]) -> Vec<Vec<Found<R::Key>>> {
        self.inputs
            .fold(
                self.which,
                0,
                || (searches.iter().map(|_| Found::default()).collect::<Vec<_>>(), Vec::new()),
                |(found, keys), start, blocks, _| {
                    let mut filled = usize::MAX;
                    for (search, found) in searches.iter().zip(found.iter_mut()) {
                        if filled != search.stream {
                            (self.fill)(start, blocks, search.stream, keys);
                            filled = search.stream;
                        }
                        vectorised(Count { search, keys, found });
                    }
                },
            )
            .into_iter()
            .map(|(found, _)| found)
            .collect()
    }

    /// Without any help from a sample: the upper 16 bits of every key first, then the next 16 of those that share them.
    fn by_histogram(&self, stream: usize, rank: u64) -> Statistic<R::Key> {
        let (mut prefix, mut below) = (0u64, 0u64);
        for shift in (0..R::Key::BITS / 16).rev().map(|level| 16 * level) {
            let histogram = self.histogram(stream, shift, prefix);
            for (bin, count) in (0u64..).zip(&histogram) {
                if below + count > rank {
                    prefix = (prefix << 16) | bin;
                    break;
                }
                below += count;
            }
        }
        let key = R::Key::of(prefix);
        let equal = self.inputs.fold(
            self.which,
            0,
            || (0u32, Vec::new()),
            |(equal, keys), start, blocks, _| {
                (self.fill)(start, blocks, stream, keys);
                *equal += keys.iter().filter(|other| **other == key).count() as u32;
            },
        );
        Statistic { key, below, equal: equal.into_iter().map(|(equal, _)| equal).collect() }
    }

    fn histogram(&self, stream: usize, shift: u32, prefix: u64) -> Vec<u64> {
        // A histogram is half a megabyte, so one for every thread, not one for every piece.
        let n_tasks = rayon::current_num_threads().min(self.inputs.n_pieces()).max(1);
        let task = |task: usize| {
            let mut histogram = vec![0u64; BINS];
            let mut keys = Vec::new();
            for piece in (task..self.inputs.n_pieces()).step_by(n_tasks) {
                self.inputs.walk(self.which, 0, self.inputs.piece(piece), |start, blocks, _| {
                    (self.fill)(start, blocks, stream, &mut keys);
                    let upper = |key: u64| key.checked_shr(shift + 16).unwrap_or_default();
                    for key in keys.iter().map(|key| key.wide()).filter(|key| upper(*key) == prefix) {
                        histogram[(key >> shift) as usize & (BINS - 1)] += 1;
                    }
                });
            }
            histogram
        };
        let add = |mut sum: Vec<u64>, other: Vec<u64>| {
            sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
            sum
        };
        (0..n_tasks).into_par_iter().map(task).reduce_with(add).unwrap_or_default()
    }
}

fn nth<K: Key>(sample: &mut [K], index: usize) -> K {
    // Empty only where the walk that filled it was stopped.
    let Some(last) = sample.len().checked_sub(1) else { return K::default() };
    *sample.select_nth_unstable(index.min(last)).1
}

/// One block's part in a search.
struct Count<'a, K> {
    search: &'a Search<K>,
    keys: &'a [K],
    found: &'a mut Found<K>,
}

impl<K: Key> Loop for Count<'_, K> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.found.add(self.search, self.keys);
    }
}

impl<K: Key> Found<K> {
    #[inline(always)]
    fn add(&mut self, search: &Search<K>, keys: &[K]) {
        /// Elements that are looked at together: most hold nothing that is to be collected.
        const GROUP: usize = 16;
        let Search { low, high, .. } = *search;
        let (mut below, mut at_low, mut at_high) = (0u32, 0u32, 0u32);
        for key in keys {
            below += u32::from(*key < low);
            at_low += u32::from(*key == low);
            at_high += u32::from(*key == high);
        }
        self.below += u64::from(below);
        self.low += at_low;
        self.high += at_high;
        if below + at_low + at_high < keys.len() as u32 && low < high {
            for group in keys.chunks(GROUP) {
                let any = group.iter().fold(false, |any, key| any | ((*key > low) & (*key < high)));
                if any {
                    // Without a branch for each of them, which could not be foreseen.
                    let (mut inside, mut count) = ([K::default(); GROUP], 0);
                    for key in group {
                        inside[count % GROUP] = *key;
                        count += usize::from((*key > low) & (*key < high));
                    }
                    self.between.extend_from_slice(&inside[..count]);
                }
            }
        }
    }
}

/// The statistic of a search, where its rank lies between the two keys.
fn resolve<K: Key>(search: Search<K>, pieces: &[&Found<K>]) -> Option<Statistic<K>> {
    let Search { rank, low, high, .. } = search;
    let sum = |count: fn(&Found<K>) -> u64| pieces.iter().map(|piece| count(piece)).sum::<u64>();
    let below = sum(|piece| piece.below);
    let at_low = sum(|piece| u64::from(piece.low));
    let between = sum(|piece| piece.between.len() as u64);
    // Where both are one key, its elements were counted twice.
    let at_high = if low == high { 0 } else { sum(|piece| u64::from(piece.high)) };
    let rank = rank.checked_sub(below)?;
    if rank < at_low {
        return Some(Statistic { key: low, below, equal: pieces.iter().map(|piece| piece.low).collect() });
    }
    if rank < at_low + between {
        let mut keys: Vec<K> = pieces.iter().flat_map(|piece| &piece.between).copied().collect();
        let key = nth(&mut keys, (rank - at_low) as usize);
        let less = |piece: &&Found<K>| piece.between.iter().filter(|other| **other < key).count() as u64;
        let equal = |piece: &&Found<K>| piece.between.iter().filter(|other| **other == key).count() as u32;
        return Some(Statistic {
            key,
            below: below + at_low + pieces.iter().map(less).sum::<u64>(),
            equal: pieces.iter().map(equal).collect(),
        });
    }
    (rank < at_low + between + at_high).then(|| Statistic {
        key: high,
        below: below + at_low + between,
        equal: pieces.iter().map(|piece| piece.high).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::config::Dtype;
    use crate::merge::inputs::Input;

    fn check<R: Real>(numbers: &[f32], ranks: &[u64]) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let inputs = Inputs {
            inputs: vec![Input { bytes: Cow::Borrowed(&bytes), stored: Dtype::F32, rows: None }],
            shape: vec![numbers.len()],
            working: Dtype::F32,
            stop: Default::default(),
        };
        let fill = |_: usize, blocks: &[Vec<R>], stream: usize, out: &mut Vec<R::Key>| {
            out.clear();
            out.extend(blocks[0].iter().map(|x| if stream == 0 { x.magnitude_key() } else { x.order_key() }));
        };
        let keys = Keys::new(&inputs, &[0], fill);
        let mut all = [Vec::new(), Vec::new()];
        inputs.walk(&[0], 0, 0..numbers.len(), |start, blocks, _| {
            for (stream, all) in all.iter_mut().enumerate() {
                let mut block = Vec::new();
                fill(start, blocks, stream, &mut block);
                all.extend(block);
            }
        });
        let found = keys.at(&[ranks.to_vec(), ranks.to_vec()]);
        for (stream, all) in all.iter().enumerate() {
            let mut sorted = all.clone();
            sorted.sort_unstable();
            for (rank, statistic) in ranks.iter().zip(&found[stream]) {
                let key = sorted[*rank as usize];
                assert_eq!(statistic.key, key);
                assert_eq!(statistic.below, sorted.partition_point(|other| *other < key) as u64);
                let positions: Vec<usize> = (0..all.len()).filter(|index| all[*index] == key).collect();
                assert_eq!(statistic.n_equal(), positions.len() as u64);
                assert_eq!(keys.position(stream, statistic, 0), positions[0]);
                let last = positions.len() - 1;
                assert_eq!(keys.position(stream, statistic, last as u64), positions[last]);
                assert_eq!(keys.position(stream, statistic, last as u64 + 1), all.len());
                assert_eq!(*statistic, keys.by_histogram(stream, *rank));
            }
        }
    }

    #[test]
    fn every_rank_is_exact() {
        let spread = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 - 8e6;
        let many_equal = |i: u32| (i.wrapping_mul(2_654_435_761) >> 27) as f32 - 16.0;
        // Where samples are taken, something else than everywhere.
        let deceptive = |i: u32| if (i as usize / RUN).is_multiple_of(9) { 1.0 } else { i as f32 };
        for n in [1, 70_000, 600_000] {
            let ranks = [0, n / 3, n / 2, n - 1].map(u64::from);
            check::<f32>(&(0..n).map(spread).collect::<Vec<_>>(), &ranks);
            check::<f64>(&(0..n).map(many_equal).collect::<Vec<_>>(), &ranks);
            check::<f32>(&(0..n).map(many_equal).collect::<Vec<_>>(), &ranks);
            check::<f32>(&(0..n).map(deceptive).collect::<Vec<_>>(), &ranks);
            check::<f32>(&vec![0.0; n as usize], &ranks);
        }
    }
}
