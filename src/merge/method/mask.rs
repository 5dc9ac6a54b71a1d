//! Which elements of a task vector stay.

use super::stream::{Stream, threshold};
use crate::merge::real::Real;

/// A choice of elements of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Mask<R> {
    /// All of them, untouched.
    Everything,
    /// None.
    Nothing,
    /// Those whose magnitude lies between two values, both included.
    Between {
        /// Smallest magnitude kept.
        low: R,
        /// Largest magnitude kept.
        high: R,
    },
    /// One bit an element, lowest bit first.
    Bits(Vec<u64>),
    /// Each with the same probability, drawn where it is needed.
    Random {
        /// The numbers.
        stream: Stream,
        /// Numbers below it are kept.
        below: u64,
    },
}

impl<R: Real> Mask<R> {
    /// Keeps every element with that probability.
    pub fn random(stream: Stream, probability: f64) -> Self {
        Self::Random { stream, below: threshold(probability) }
    }

    /// Zeroes what is not kept of a stretch from element `start`, and multiplies the rest by `factor`.
    pub fn apply(&self, start: usize, block: &mut [R], factor: R) {
        match self {
            Self::Everything => {}
            Self::Nothing => block.fill(R::zero()),
            Self::Between { low, high } => {
                for value in block {
                    let magnitude = value.abs();
                    let kept = magnitude >= *low && magnitude <= *high;
                    *value = if kept { *value * factor } else { R::zero() };
                }
            }
            Self::Bits(bits) => {
                for (index, value) in (start..).zip(block) {
                    let kept = bits[index / 64] >> (index % 64) & 1 == 1;
                    *value = if kept { *value * factor } else { R::zero() };
                }
            }
            Self::Random { stream, below } => {
                stream.for_each(start, block.len(), |index, number| {
                    let value = block[index];
                    block[index] = if u64::from(number) < *below { value * factor } else { R::zero() };
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mask_keeps_what_it_says() {
        let kept = |mask: Mask<f32>| {
            let mut block = [1.0, -2.0, 3.0, -4.0];
            mask.apply(0, &mut block, 2.0);
            block
        };
        assert_eq!(kept(Mask::Everything), [1.0, -2.0, 3.0, -4.0]);
        assert_eq!(kept(Mask::Nothing), [0.0; 4]);
        assert_eq!(kept(Mask::Between { low: 2.0, high: 3.0 }), [0.0, -4.0, 6.0, 0.0]);
        assert_eq!(kept(Mask::Bits(vec![0b1001])), [2.0, 0.0, 0.0, -8.0]);
    }
}
