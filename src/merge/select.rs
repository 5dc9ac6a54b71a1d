//! Exact order statistics of a tensor of any size, without a copy of it.
//!
//! A histogram of the upper 16 bits of every key finds the bin a rank falls into; a second pass over the next 16 bits,
//! inside that bin only, and so on to the last bit. Nothing is sampled. Counts are whole numbers, so the result does not
//! depend on the order in which pieces are scanned.

use rayon::prelude::*;

use super::inputs::Inputs;
use super::real::Real;

/// Below this many elements the keys are sorted instead.
const SORT_BELOW: usize = 1 << 15;

const BINS: usize = 1 << 16;

/// The key at one rank, and how it lies among equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistic {
    /// The key at that rank of the ascending order.
    pub key: u64,
    /// Elements with a smaller key.
    pub below: u64,
    /// Elements with this key.
    pub equal: u64,
}

/// A rank on its way to its key.
#[derive(Debug, Clone, Copy)]
struct Search {
    stream: usize,
    /// Bits found so far.
    prefix: u64,
    /// Elements known to be smaller.
    below: u64,
    rank: u64,
    equal: u64,
}

/// The keys at ascending `ranks[stream]` (from 0) of every stream of keys. `keys(start, blocks, stream, out)` fills
/// `out` with the keys of one block of one stream.
pub fn order_statistics<R: Real>(
    inputs: &Inputs<'_>,
    ranks: &[Vec<u64>],
    keys: impl Fn(usize, &[Vec<R>], usize, &mut Vec<u64>) + Sync,
) -> Vec<Vec<Statistic>> {
    if inputs.len() < SORT_BELOW { by_sorting(inputs, ranks, keys) } else { by_histogram(inputs, ranks, keys) }
}

fn by_sorting<R: Real>(
    inputs: &Inputs<'_>,
    ranks: &[Vec<u64>],
    keys: impl Fn(usize, &[Vec<R>], usize, &mut Vec<u64>) + Sync,
) -> Vec<Vec<Statistic>> {
    let statistics = |(stream, ranks): (usize, &Vec<u64>)| {
        if ranks.is_empty() {
            return Vec::new();
        }
        let mut sorted = Vec::with_capacity(inputs.len());
        let mut block_keys = Vec::new();
        inputs.walk(0..inputs.len(), |start, blocks| {
            keys(start, blocks, stream, &mut block_keys);
            sorted.extend_from_slice(&block_keys);
        });
        sorted.sort_unstable();
        let statistic = |rank: &u64| {
            let key = sorted[*rank as usize];
            let below = sorted.partition_point(|other| *other < key);
            let equal = sorted[below..].partition_point(|other| *other == key);
            Statistic { key, below: below as u64, equal: equal as u64 }
        };
        ranks.iter().map(statistic).collect()
    };
    ranks.iter().enumerate().map(statistics).collect()
}

fn by_histogram<R: Real>(
    inputs: &Inputs<'_>,
    ranks: &[Vec<u64>],
    keys: impl Fn(usize, &[Vec<R>], usize, &mut Vec<u64>) + Sync,
) -> Vec<Vec<Statistic>> {
    let mut searches: Vec<Search> = Vec::new();
    for (stream, ranks) in ranks.iter().enumerate() {
        searches.extend(ranks.iter().map(|rank| Search { stream, prefix: 0, below: 0, rank: *rank, equal: 0 }));
    }
    for shift in (0..R::KEY_BITS / 16).rev().map(|level| 16 * level) {
        // Ranks of one stream that fell into the same bin so far share a histogram.
        let mut wanted: Vec<(usize, u64)> = searches.iter().map(|search| (search.stream, search.prefix)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let histograms = scan(inputs, &wanted, shift, &keys);
        for search in &mut searches {
            let Ok(index) = wanted.binary_search(&(search.stream, search.prefix)) else { continue };
            let mut before = 0;
            for (bin, count) in histograms[index * BINS..(index + 1) * BINS].iter().enumerate() {
                if search.below + before + count > search.rank {
                    search.prefix = (search.prefix << 16) | bin as u64;
                    search.equal = *count;
                    break;
                }
                before += count;
            }
            search.below += before;
        }
    }
    let mut statistics: Vec<Vec<Statistic>> = ranks.iter().map(|_| Vec::new()).collect();
    for Search { stream, prefix, below, equal, .. } in searches {
        statistics[stream].push(Statistic { key: prefix, below, equal });
    }
    statistics
}

/// One histogram for every wanted (stream, prefix), one after the other.
fn scan<R: Real>(
    inputs: &Inputs<'_>,
    wanted: &[(usize, u64)],
    shift: u32,
    keys: &(impl Fn(usize, &[Vec<R>], usize, &mut Vec<u64>) + Sync),
) -> Vec<u64> {
    // A histogram is half a megabyte, so one for every thread, not one for every piece.
    let n_tasks = rayon::current_num_threads().min(inputs.n_pieces()).max(1);
    let task = |task: usize| {
        let mut histograms = vec![0u64; wanted.len() * BINS];
        let mut block_keys = Vec::new();
        for piece in (task..inputs.n_pieces()).step_by(n_tasks) {
            inputs.walk(inputs.piece(piece), |start, blocks| {
                let mut filled = usize::MAX;
                for ((stream, prefix), histogram) in wanted.iter().zip(histograms.chunks_exact_mut(BINS)) {
                    if filled != *stream {
                        keys(start, blocks, *stream, &mut block_keys);
                        filled = *stream;
                    }
                    count(&block_keys, shift, R::KEY_BITS, *prefix, histogram);
                }
            });
        }
        histograms
    };
    let add = |mut sum: Vec<u64>, other: Vec<u64>| {
        sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
        sum
    };
    (0..n_tasks).into_par_iter().map(task).reduce_with(add).unwrap_or_default()
}

fn count(keys: &[u64], shift: u32, key_bits: u32, prefix: u64, histogram: &mut [u64]) {
    if shift + 16 == key_bits {
        for key in keys {
            histogram[(key >> shift) as usize & (BINS - 1)] += 1;
        }
    } else {
        for key in keys.iter().filter(|key| **key >> (shift + 16) == prefix) {
            histogram[(key >> shift) as usize & (BINS - 1)] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::config::Dtype;
    use crate::merge::inputs::Input;

    #[test]
    fn both_ways_agree() {
        let numbers: Vec<f32> = (0..70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 18) as f32 - 9000.0).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let inputs = Inputs {
            inputs: vec![Input { bytes: Cow::Borrowed(&bytes), stored: Dtype::F32 }],
            shape: vec![numbers.len()],
            working: Dtype::F32,
        };
        fn keys<R: Real>(_: usize, blocks: &[Vec<R>], stream: usize, out: &mut Vec<u64>) {
            out.clear();
            out.extend(blocks[0].iter().map(|x| if stream == 0 { x.magnitude_key() } else { x.order_key() }));
        }
        let ranks = [vec![0, 5, 35_000, 69_999], vec![17, 52_500]];
        assert_eq!(by_sorting::<f32>(&inputs, &ranks, keys), by_histogram::<f32>(&inputs, &ranks, keys));
        assert_eq!(by_sorting::<f64>(&inputs, &ranks, keys), by_histogram::<f64>(&inputs, &ranks, keys));
    }
}
