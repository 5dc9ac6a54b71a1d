//! Random numbers of masks: a counter-based generator, so that element 7 of a tensor draws the same number whatever
//! was drawn before it, on whichever thread.
//!
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011). Its key and the
//! upper half of its counter come from a BLAKE3 digest of seed, model and tensor; the lower half counts elements, four to
//! a step. Neither the order of sources in the config nor the folder a model lies in changes a mask.

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
            self.steps(steps, out);
        }
    }

    #[inline(always)]
    fn steps(&self, first: u64, out: &mut [u32; 4 * LANES]) {
        let [third, fourth] = self.salt;
        let mut counter = [[0; LANES], [0; LANES], [third; LANES], [fourth; LANES]];
        for (lane, step) in (first..).take(LANES).enumerate() {
            counter[0][lane] = step as u32;
            counter[1][lane] = (step >> 32) as u32;
        }
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
        for lane in 0..LANES {
            for (word, counter) in counter.iter().enumerate() {
                out[4 * lane + word] = counter[lane];
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
    fn hits_are_as_frequent_as_asked() {
        let stream = Stream::new(1, "code", "lm_head.weight");
        let mut hits = 0u32;
        stream.for_batches(0, 1 << 20, |_, batch| {
            hits += batch.iter().filter(|number| u64::from(**number) < threshold(0.3)).count() as u32;
        });
        let share = f64::from(hits) / f64::from(1 << 20);
        assert!((share - 0.3).abs() < 0.002, "{share}");
    }
}
