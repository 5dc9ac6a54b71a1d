//! Random numbers of masks: a counter-based generator, so that element 7 of a tensor draws the same number whatever
//! was drawn before it, on whichever thread.
//!
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011). Its key and the
//! upper half of its counter come from a BLAKE3 digest of seed, model and tensor; the lower half counts elements: four to
//! a step where each needs a number of its own, 64 to a word of decisions where all have the same probability. Neither the order of sources in the config nor the folder a model lies in changes a mask.

use std::ops::Range;

/// Steps computed side by side: the loops over them become vector instructions.
const LANES: usize = 8;

/// Numbers of one batch.
pub const BATCH: usize = 64;

/// The random numbers of one model's part in one output tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    salt: [u32; 2],
}

impl Stream {
    /// The stream of a seed, a model's key and an output tensor's name.
    pub fn new(seed: u64, model: &str, tensor: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mergesweep 0.1 random mask: seed, model, tensor");
        hasher.update(&seed.to_le_bytes());
        for name in [model, tensor] {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        let digest = hasher.finalize();
        let words = digest.as_bytes().as_chunks::<4>().0;
        let word = |index: usize| u32::from_le_bytes(words[index]);
        Self { key: [word(0), word(1)], salt: [word(2), word(3)] }
    }

    /// Uniform numbers of the elements from `first`, which is a multiple of [`BATCH`].
    #[inline(always)]
    pub fn batch(&self, first: u64, out: &mut [u32; BATCH]) {
        for (steps, out) in (first / 4..).step_by(LANES).zip(out.as_chunks_mut::<{ 4 * LANES }>().0) {
            let counts = std::array::from_fn(|lane| steps + lane as u64);
            let words = self.steps(counts.map(|step| step as u32), counts.map(|step| (step >> 32) as u32));
            for lane in 0..LANES {
                for (word, of_lanes) in words.iter().enumerate() {
                    out[4 * lane + word] = of_lanes[lane];
                }
            }
        }
    }

    /// Ten rounds for counters side by side, given by their lower halves.
    #[inline(always)]
    fn steps(&self, first: [u32; LANES], second: [u32; LANES]) -> [[u32; LANES]; 4] {
        let [third, fourth] = self.salt;
        let mut counter = [first, second, [third; LANES], [fourth; LANES]];
        let mut key = self.key;
        for _ in 0..10 {
            let [a, b, c, d] = counter;
            for lane in 0..LANES {
                let low = u64::from(a[lane]) * 0xD251_1F53;
                let high = u64::from(c[lane]) * 0xCD9E_8D57;
                counter[0][lane] = (high >> 32) as u32 ^ b[lane] ^ key[0];
                counter[1][lane] = high as u32;
                counter[2][lane] = (low >> 32) as u32 ^ d[lane] ^ key[1];
                counter[3][lane] = low as u32;
            }
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        counter
    }

    /// Decisions for the 64 elements of every word from number `first`, one a bit: each is a hit with probability
    /// `below / 2^32`.
    ///
    /// An element's number is drawn bit by bit, from the highest, for 64 elements at once, and only until all of them are
    /// known to be below or not: about ten bits instead of 32.
    #[inline(always)]
    fn hits(&self, first: u64, below: u64) -> [u64; LANES] {
        if below > u64::from(u32::MAX) {
            return [u64::MAX; LANES];
        }
        let words: [u64; LANES] = std::array::from_fn(|lane| first + lane as u64);
        let mut rest = below as u32;
        // Elements whose bits so far are those of `below`, and those that are known to be below.
        let (mut open, mut hits) = ([u64::MAX; LANES], [0; LANES]);
        let mut step = 0;
        while rest != 0 && open.iter().fold(0, |any, open| any | open) != 0 {
            // Two bits a step; the number of the step stands above what a word's number can reach.
            let second = words.map(|word| (word >> 32) as u32 | (step << 16));
            let [a, b, c, d] = self.steps(words.map(|word| word as u32), second);
            for [upper, lower] in [[a, b], [c, d]] {
                let ones = 0u64.wrapping_sub(u64::from(rest >> 31));
                for lane in 0..LANES {
                    let bits = u64::from(upper[lane]) << 32 | u64::from(lower[lane]);
                    hits[lane] |= open[lane] & !bits & ones;
                    open[lane] &= !(bits ^ ones);
                }
                rest <<= 1;
            }
            step += 1;
        }
        hits
    }

    /// Calls `visit` with positions in a stretch of `len` elements from `start`, which is a multiple of 64, word after
    /// word, and the decisions for them, lowest bit first: a hit has probability `below / 2^32`.
    #[inline(always)]
    pub fn for_hits(&self, start: usize, len: usize, below: u64, mut visit: impl FnMut(Range<usize>, u64)) {
        for position in (0..len).step_by(64 * LANES) {
            let words = self.hits(((start + position) / 64) as u64, below);
            for (from, bits) in (position..len).step_by(64).zip(words) {
                visit(from..len.min(from + 64), bits);
            }
        }
    }

    /// Calls `visit` with positions in a stretch of `len` elements from `start`, batch after batch, and the numbers drawn
    /// for them.
    #[inline(always)]
    pub fn for_batches(&self, start: usize, len: usize, mut visit: impl FnMut(Range<usize>, &[u32])) {
        let mut numbers = [0u32; BATCH];
        let mut position = 0;
        while position < len {
            let offset = (start + position) % BATCH;
            self.batch((start + position - offset) as u64, &mut numbers);
            let n = (BATCH - offset).min(len - position);
            visit(position..position + n, &numbers[offset..offset + n]);
            position += n;
        }
    }
}

/// The number below which a draw counts as a hit of that probability.
pub fn threshold(probability: f64) -> u64 {
    (probability.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_reference_implementation() {
        let mut out = [0; BATCH];
        Stream { key: [0, 0], salt: [0, 0] }.batch(0, &mut out);
        assert_eq!(out[..4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn a_stretch_does_not_depend_on_where_it_is_cut() {
        let stream = Stream::new(7, "math", "model.norm.weight");
        let draw = |start, len| {
            let mut numbers: Vec<u32> = Vec::new();
            stream.for_batches(start, len, |_, batch| numbers.extend(batch));
            numbers
        };
        let whole = draw(0, 500);
        assert_eq!(whole[33..300], draw(33, 267));
        assert_ne!(whole, {
            let other = Stream::new(8, "math", "model.norm.weight");
            let mut numbers: Vec<u32> = Vec::new();
            other.for_batches(0, 500, |_, batch| numbers.extend(batch));
            numbers
        });
    }

    #[test]
    fn hits_are_as_frequent_as_asked_and_nested() {
        const N: usize = 1 << 20;
        let stream = Stream::new(1, "code", "lm_head.weight");
        let draw = |probability: f64| {
            let mut words: Vec<u64> = Vec::new();
            stream.for_hits(0, N, threshold(probability), |_, bits| words.push(bits));
            words
        };
        assert_eq!(draw(0.0), vec![0; N / 64]);
        assert_eq!(draw(1.0), vec![u64::MAX; N / 64]);
        let mut smaller = draw(0.0);
        for probability in [1e-3, 0.3, 0.5, 0.77, 0.999] {
            let words = draw(probability);
            let share = words.iter().map(|bits| bits.count_ones()).sum::<u32>() as f64 / N as f64;
            let sigma = (probability * (1.0 - probability) / N as f64).sqrt();
            assert!((share - probability).abs() < 4.0 * sigma, "{share} for {probability}");
            // One number an element, whatever it is compared with.
            assert!(smaller.iter().zip(&words).all(|(smaller, larger)| smaller & !larger == 0));
            // No element knows of its neighbours.
            let pairs = words.iter().map(|bits| (bits & (bits >> 1) & (u64::MAX >> 1)).count_ones()).sum::<u32>();
            let share = f64::from(pairs) / (N as f64 * 63.0 / 64.0);
            let square = probability * probability;
            assert!((share - square).abs() < 8.0 * (square * (1.0 - square) / N as f64).sqrt(), "{share} for {square}");
            smaller = words;
        }
    }

    #[test]
    fn decisions_do_not_depend_on_where_a_stretch_starts() {
        let stream = Stream::new(3, "math", "model.norm.weight");
        let draw = |start, len| {
            let mut words = Vec::new();
            stream.for_hits(start, len, threshold(0.3), |_, bits| words.push(bits));
            words
        };
        assert_eq!(draw(0, 2000)[3..], draw(192, 2000 - 192));
    }
}
