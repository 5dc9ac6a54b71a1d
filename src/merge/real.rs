//! Numbers as they lie in files (bytes of a [`Dtype`]) and as kernels see them (`f32`, or `f64` where the working dtype
//! is float64).
//!
//! Every conversion rounds to nearest even. Bytes need no alignment: the safetensors format promises none.

use std::cell::RefCell;

use super::float16;
use super::vector::vectorised;
use crate::config::Dtype;

/// What a kernel computes in.
pub trait Real: num_traits::Float + Default + Send + Sync + 'static {
    /// An unsigned number that orders values: see [`Real::magnitude_key`].
    type Key: Key;

    /// Nearest value.
    fn of(value: f64) -> Self;

    /// Exact value.
    fn wide(self) -> f64;

    /// Itself where `keep` has all bits set, zero where it has none: no branch, whatever the value.
    fn masked(self, keep: u32) -> Self;

    /// A key whose order is the order of magnitudes (a NaN comes last).
    fn magnitude_key(self) -> Self::Key;

    /// The number of that magnitude key.
    fn from_magnitude_key(key: Self::Key) -> Self;

    /// A key whose order is the numbers' own order.
    fn order_key(self) -> Self::Key;

    /// The number of that order key.
    fn from_order_key(key: Self::Key) -> Self;

    /// Reads `out.len()` numbers of dtype `stored`.
    fn decode(bytes: &[u8], stored: Dtype, out: &mut [Self]);

    /// Rounds every number to one that `dtype` can hold.
    fn round_to(block: &mut [Self], dtype: Dtype);

    /// Writes numbers that `dtype` can hold.
    fn store(block: &[Self], dtype: Dtype, out: &mut [u8]);

    /// Rounds numbers and writes them as `dtype`.
    fn encode(block: &[Self], dtype: Dtype, out: &mut [u8]) {
        let mut rounded = [Self::default(); HALVES];
        for (block, out) in block.chunks(HALVES).zip(out.chunks_mut(dtype.size() * HALVES)) {
            let rounded = &mut rounded[..block.len()];
            rounded.copy_from_slice(block);
            Self::round_to(rounded, dtype);
            Self::store(rounded, dtype, out);
        }
    }

    /// Runs `work` on `count` buffers of this thread, whose contents are left over from earlier work.
    fn with_blocks<T>(count: usize, work: impl FnOnce(&mut [Vec<Self>]) -> T) -> T;
}

/// A key as selection sees it.
pub trait Key: Copy + Ord + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Its width.
    const BITS: u32;
    /// The largest one.
    const MAX: Self;

    /// As a wide number.
    fn wide(self) -> u64;

    /// From a wide number that is one.
    fn of(wide: u64) -> Self;
}

impl Key for u32 {
    const BITS: u32 = 32;
    const MAX: Self = Self::MAX;

    #[inline(always)]
    fn wide(self) -> u64 {
        u64::from(self)
    }

    #[inline(always)]
    fn of(wide: u64) -> Self {
        wide as Self
    }
}

impl Key for u64 {
    const BITS: u32 = 64;
    const MAX: Self = Self::MAX;

    #[inline(always)]
    fn wide(self) -> u64 {
        self
    }

    #[inline(always)]
    fn of(wide: u64) -> Self {
        wide
    }
}

/// Numbers converted at a time where a conversion goes through 32 bits.
const HALVES: usize = 256;

thread_local! {
    static F32_BLOCKS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    static F64_BLOCKS: RefCell<Vec<Vec<f64>>> = const { RefCell::new(Vec::new()) };
}

/// Takes the pool out while `work` runs, so that work which comes back here on the same thread finds a fresh pool
/// instead of a borrowed one.
fn with_pool<R, T>(pool: &RefCell<Vec<Vec<R>>>, count: usize, work: impl FnOnce(&mut [Vec<R>]) -> T) -> T {
    let mut blocks = pool.take();
    if blocks.len() < count {
        blocks.resize_with(count, Vec::new);
    }
    let result = work(&mut blocks[..count]);
    pool.replace(blocks);
    result
}

#[inline(always)]
fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// The nearest bfloat16. Adding 0x7fff and the lowest kept bit carries exactly where nearest-even rounds up; only NaN
/// must not carry.
#[inline(always)]
pub fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    let nan = (bits | 0x0040_0000) & 0xffff_0000;
    f32::from_bits(if value.is_nan() { nan } else { rounded })
}

#[inline(always)]
fn f32_to_bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

impl Real for f32 {
    type Key = u32;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn masked(self, keep: u32) -> Self {
        Self::from_bits(self.to_bits() & keep)
    }

    #[inline(always)]
    fn magnitude_key(self) -> u32 {
        self.to_bits() & 0x7fff_ffff
    }

    #[inline(always)]
    fn from_magnitude_key(key: u32) -> Self {
        Self::from_bits(key)
    }

    #[inline(always)]
    fn order_key(self) -> u32 {
        let bits = self.to_bits();
        if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
    }

    #[inline(always)]
    fn from_order_key(key: u32) -> Self {
        Self::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
    }

    fn decode(bytes: &[u8], stored: Dtype, out: &mut [Self]) {
        match stored {
            Dtype::F32 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = Self::from_le_bytes(*bytes);
                }
            }
            Dtype::F64 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *out = f64::from_le_bytes(*bytes) as Self;
                }
            }
            Dtype::Bf16 => vectorised(|| {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = bf16_to_f32(*bytes);
                }
            }),
            Dtype::F16 => float16::decode(bytes, out),
        }
    }

    fn round_to(block: &mut [Self], dtype: Dtype) {
        match dtype {
            Dtype::F32 | Dtype::F64 => {}
            Dtype::Bf16 => vectorised(|| block.iter_mut().for_each(|value| *value = round_to_bf16(*value))),
            Dtype::F16 => float16::round(block),
        }
    }

    fn store(block: &[Self], dtype: Dtype, out: &mut [u8]) {
        match dtype {
            Dtype::F32 => {
                for (value, bytes) in block.iter().zip(out.as_chunks_mut::<4>().0) {
                    *bytes = value.to_le_bytes();
                }
            }
            Dtype::F64 => {
                for (value, bytes) in block.iter().zip(out.as_chunks_mut::<8>().0) {
                    *bytes = f64::from(*value).to_le_bytes();
                }
            }
            Dtype::Bf16 => vectorised(|| {
                for (value, bytes) in block.iter().zip(out.as_chunks_mut::<2>().0) {
                    *bytes = f32_to_bf16(*value).to_le_bytes();
                }
            }),
            Dtype::F16 => float16::store(block, out),
        }
    }

    fn with_blocks<T>(count: usize, work: impl FnOnce(&mut [Vec<Self>]) -> T) -> T {
        F32_BLOCKS.with(|pool| with_pool(pool, count, work))
    }
}

impl Real for f64 {
    type Key = u64;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn masked(self, keep: u32) -> Self {
        Self::from_bits(self.to_bits() & (u64::from(keep) << 32 | u64::from(keep)))
    }

    #[inline(always)]
    fn magnitude_key(self) -> u64 {
        self.to_bits() & (u64::MAX >> 1)
    }

    #[inline(always)]
    fn from_magnitude_key(key: u64) -> Self {
        Self::from_bits(key)
    }

    #[inline(always)]
    fn order_key(self) -> u64 {
        let bits = self.to_bits();
        if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
    }

    #[inline(always)]
    fn from_order_key(key: u64) -> Self {
        Self::from_bits(if key >> 63 == 1 { key & (u64::MAX >> 1) } else { !key })
    }

    fn decode(bytes: &[u8], stored: Dtype, out: &mut [Self]) {
        if stored == Dtype::F64 {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *out = Self::from_le_bytes(*bytes);
            }
            return;
        }
        let mut narrow = [0f32; HALVES];
        for (bytes, out) in bytes.chunks(stored.size() * HALVES).zip(out.chunks_mut(HALVES)) {
            let narrow = &mut narrow[..out.len()];
            f32::decode(bytes, stored, narrow);
            for (out, value) in out.iter_mut().zip(narrow) {
                *out = Self::from(*value);
            }
        }
    }

    fn round_to(block: &mut [Self], dtype: Dtype) {
        if dtype == Dtype::F64 {
            return;
        }
        // Through f32, as torch goes from double to the half formats.
        let mut narrow = [0f32; HALVES];
        for block in block.chunks_mut(HALVES) {
            let narrow = &mut narrow[..block.len()];
            for (narrow, value) in narrow.iter_mut().zip(&*block) {
                *narrow = *value as f32;
            }
            f32::round_to(narrow, dtype);
            for (value, narrow) in block.iter_mut().zip(narrow) {
                *value = Self::from(*narrow);
            }
        }
    }

    fn store(block: &[Self], dtype: Dtype, out: &mut [u8]) {
        if dtype == Dtype::F64 {
            for (value, bytes) in block.iter().zip(out.as_chunks_mut::<8>().0) {
                *bytes = value.to_le_bytes();
            }
            return;
        }
        let mut narrow = [0f32; HALVES];
        for (block, out) in block.chunks(HALVES).zip(out.chunks_mut(dtype.size() * HALVES)) {
            let narrow = &mut narrow[..block.len()];
            for (narrow, value) in narrow.iter_mut().zip(block) {
                *narrow = *value as f32;
            }
            f32::store(narrow, dtype, out);
        }
    }

    fn with_blocks<T>(count: usize, work: impl FnOnce(&mut [Vec<Self>]) -> T) -> T {
        F64_BLOCKS.with(|pool| with_pool(pool, count, work))
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn bfloat16_is_rounded_as_the_half_crate_does() {
        for bits in (0..=u32::MAX).step_by(1_021) {
            let (found, expected) =
                (round_to_bf16(f32::from_bits(bits)), bf16::from_f32(f32::from_bits(bits)).to_f32());
            assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{bits:x}");
        }
    }

    #[test]
    fn every_dtype_survives_the_round_trip() {
        let numbers: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) / 8.0).collect();
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32, Dtype::F64] {
            let mut rounded = numbers.clone();
            f32::round_to(&mut rounded, dtype);
            let mut bytes = vec![0; numbers.len() * dtype.size()];
            f32::encode(&numbers, dtype, &mut bytes);
            let mut back = vec![0f32; numbers.len()];
            f32::decode(&bytes, dtype, &mut back);
            assert_eq!(back, rounded, "{dtype}");
            let mut wide = vec![0f64; numbers.len()];
            f64::decode(&bytes, dtype, &mut wide);
            assert!(wide.iter().zip(&back).all(|(wide, back)| *wide == f64::from(*back)), "{dtype}");
        }
    }

    #[test]
    fn keys_are_ordered_as_numbers_are() {
        let numbers = [f32::NEG_INFINITY, -3.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, f32::INFINITY];
        assert!(numbers.windows(2).all(|pair| pair[0].order_key() < pair[1].order_key()));
        assert!(numbers.iter().all(|n| f32::from_order_key(n.order_key()).to_bits() == n.to_bits()));
        assert!(numbers.iter().all(|n| f64::from_order_key(n.wide().order_key()).to_bits() == n.wide().to_bits()));
        assert_eq!((-2.5f32).magnitude_key(), 2.5f32.magnitude_key());
    }
}
