//! Which elements of a task vector stay.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::stream::{Stream, threshold};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;
use crate::merge::vector::{Loop, vectorised};

/// A choice of elements of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Mask<R> {
    /// All of them, untouched.
    Everything,
    /// None.
    Nothing,
    /// Those whose magnitude lies between two values; of the elements that have one of the two values, those at some
    /// positions.
    Between {
        /// Smallest magnitude kept.
        low: R,
        /// Where that stays.
        low_at: Range<usize>,
        /// Largest magnitude kept.
        high: R,
        /// Where that stays.
        high_at: Range<usize>,
    },
    /// One bit an element, lowest bit first.
    Bits(Arc<Vec<u64>>),
    /// Each with the same probability, drawn where it is needed.
    Random {
        /// The numbers.
        stream: Stream,
        /// Numbers below it are kept.
        below: u64,
    },
}

/// Numbers of a stream turned into bits.
struct Draw<'a> {
    stream: &'a Stream,
    below: u64,
    start: usize,
    bits: &'a mut [u64],
}

impl Loop for Draw<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { stream, below, start, bits } = self;
        stream.for_hits(start, 64 * bits.len(), below, |range, word| bits[range.start / 64] = word);
    }
}

impl<R: Real> Mask<R> {
    /// Keeps every element with that probability.
    pub fn random(stream: Stream, probability: f64) -> Self {
        Self::Random { stream, below: threshold(probability) }
    }

    /// Keeps the elements at some positions of a tensor of `len`.
    pub fn at(len: usize, positions: impl Iterator<Item = u32>) -> Self {
        let mut bits = vec![0u64; len.div_ceil(64)];
        positions.for_each(|position| bits[position as usize / 64] |= 1 << (position % 64));
        Self::Bits(Arc::new(bits))
    }

    /// The same choice of the elements of a tensor, with random ones drawn for good: worth it where they are asked for
    /// more than once.
    pub fn drawn(self, len: usize) -> Self {
        /// Words that one task draws.
        const WORDS: usize = 1 << 12;
        let Self::Random { stream, below } = self else { return self };
        let mut bits = vec![0u64; len.div_ceil(64)];
        bits.par_chunks_mut(WORDS).enumerate().for_each(|(chunk, bits)| {
            vectorised(Draw { stream: &stream, below, start: 64 * WORDS * chunk, bits });
        });
        Self::Bits(Arc::new(bits))
    }

    /// What is kept of a stretch from element `start`, multiplied by `factor`, and zero elsewhere.
    #[inline(always)]
    pub fn apply<A: Arithmetic<Real = R>>(&self, start: usize, from: &[R], to: &mut [R], factor: R) {
        match self {
            Self::Everything => to.copy_from_slice(from),
            Self::Nothing => to.fill(R::zero()),
            Self::Between { low, low_at, high, high_at } => {
                let (low, high) = (*low, *high);
                // All elements of a stretch are on the same side of every boundary, so the two comparisons settle it.
                let mut rest = (from, to);
                let mut first = start;
                while !rest.0.is_empty() {
                    let boundaries = [low_at.start, low_at.end, high_at.start, high_at.end];
                    let next = boundaries.into_iter().filter(|boundary| *boundary > first).min();
                    let len = next.map_or(rest.0.len(), |next| rest.0.len().min(next - first));
                    let ((from, after), (to, to_after)) = (rest.0.split_at(len), rest.1.split_at_mut(len));
                    let (with_low, with_high) = (low_at.contains(&first), high_at.contains(&first));
                    for (value, to) in from.iter().zip(to) {
                        let magnitude = value.abs();
                        let above = (magnitude > low) | (with_low & (magnitude == low));
                        let under = (magnitude < high) | (with_high & (magnitude == high));
                        // Where both are one value, its elements stay where both say so.
                        *to = if above & under { A::step(*value * factor) } else { R::zero() };
                    }
                    (rest, first) = ((after, to_after), first + len);
                }
            }
            Self::Bits(bits) => {
                for (position, (from, to)) in (start..).step_by(64).zip(from.chunks(64).zip(to.chunks_mut(64))) {
                    // A stretch starts at a multiple of 64.
                    keep::<A>(bits[position / 64], from, to, factor);
                }
            }
            Self::Random { stream, below } => stream.for_hits(start, from.len(), *below, |range, bits| {
                keep::<A>(bits, &from[range.clone()], &mut to[range], factor);
            }),
        }
    }
}

/// Up to 64 values: those of set bits times `factor`, zero for the others.
#[inline(always)]
fn keep<A: Arithmetic>(bits: u64, from: &[A::Real], to: &mut [A::Real], factor: A::Real) {
    let halves = [bits as u32, (bits >> 32) as u32];
    for (half, (from, to)) in halves.into_iter().zip(from.chunks(32).zip(to.chunks_mut(32))) {
        for (index, (value, to)) in (0u32..).zip(from.iter().zip(to)) {
            *to = A::step(*value * factor).masked(((half >> index) & 1).wrapping_neg());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::arithmetic::Once;

    #[test]
    fn every_mask_keeps_what_it_says() {
        let kept = |mask: Mask<f32>| {
            let mut kept = [7.0; 5];
            mask.apply::<Once<f32>>(0, &[1.0, -2.0, 3.0, -4.0, 2.0], &mut kept, 2.0);
            kept
        };
        let all = 0..usize::MAX;
        let between = |low, low_at, high, high_at| Mask::Between { low, low_at, high, high_at };
        assert_eq!(kept(Mask::Everything), [1.0, -2.0, 3.0, -4.0, 2.0], "untouched");
        assert_eq!(kept(Mask::Nothing), [0.0; 5]);
        assert_eq!(kept(between(2.0, all.clone(), 3.0, all.clone())), [0.0, -4.0, 6.0, 0.0, 4.0]);
        assert_eq!(kept(between(2.0, 2..9, 3.0, all.clone())), [0.0, 0.0, 6.0, 0.0, 4.0]);
        assert_eq!(kept(between(1.0, all.clone(), 2.0, 0..2)), [2.0, -4.0, 0.0, 0.0, 0.0]);
        assert_eq!(kept(between(2.0, 0..4, 2.0, all)), [0.0, -4.0, 0.0, 0.0, 0.0]);
        assert_eq!(kept(Mask::Bits(Arc::new(vec![0b1001]))), [2.0, 0.0, 0.0, -8.0, 0.0]);
    }
}
