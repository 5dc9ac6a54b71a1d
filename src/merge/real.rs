//! Numbers as they lie in files (bytes of a [`Dtype`]) and as kernels see them (`f32`, or `f64` where the working dtype
//! is float64).
//!
//! Every conversion rounds to nearest even. Bytes need no alignment: the safetensors format promises none.

use std::cell::RefCell;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::config::Dtype;

/// What a kernel computes in.
pub trait Real: num_traits::Float + Default + Send + Sync + 'static {
    /// Bits of a key: selection walks them 16 at a time.
    const KEY_BITS: u32;

    /// Nearest value.
    fn of(value: f64) -> Self;

    /// Exact value.
    fn wide(self) -> f64;

    /// A key whose order is the order of magnitudes (a NaN comes last).
    fn magnitude_key(self) -> u64;

    /// The number of that magnitude key.
    fn from_magnitude_key(key: u64) -> Self;

    /// A key whose order is the numbers' own order.
    fn order_key(self) -> u64;

    /// The number of that order key.
    fn from_order_key(key: u64) -> Self;

    /// Reads `out.len()` numbers of dtype `stored`.
    fn decode(bytes: &[u8], stored: Dtype, out: &mut [Self]);

    /// Rounds every number to one that `dtype` can hold.
    fn round_to(block: &mut [Self], dtype: Dtype);

    /// Writes the numbers as `dtype`.
    fn encode(block: &[Self], dtype: Dtype, out: &mut [u8]);

    /// Runs `work` on `count` buffers of this thread, whose contents are left over from earlier work.
    fn with_blocks<T>(count: usize, work: impl FnOnce(&mut [Vec<Self>]) -> T) -> T;
}

/// Numbers converted at a time where a conversion goes through an aligned stretch of `f16`.
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

fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Adding 0x7fff and the lowest kept bit carries exactly where nearest-even rounds up; only NaN must not carry.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; HALVES];
    for (bytes, out) in bytes.chunks(2 * HALVES).zip(out.chunks_mut(HALVES)) {
        let halves = &mut halves[..out.len()];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_bits(u16::from_le_bytes(*bytes));
        }
        halves.convert_to_f32_slice(out);
    }
}

fn f32_to_f16(block: &[f32], out: &mut [u8]) {
    let mut halves = [f16::ZERO; HALVES];
    for (block, out) in block.chunks(HALVES).zip(out.chunks_mut(2 * HALVES)) {
        let halves = &mut halves[..block.len()];
        halves.convert_from_f32_slice(block);
        for (half, bytes) in halves.iter().zip(out.as_chunks_mut::<2>().0) {
            *bytes = half.to_bits().to_le_bytes();
        }
    }
}

impl Real for f32 {
    const KEY_BITS: u32 = 32;

    fn of(value: f64) -> Self {
        value as Self
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn magnitude_key(self) -> u64 {
        u64::from(self.to_bits() & 0x7fff_ffff)
    }

    fn from_magnitude_key(key: u64) -> Self {
        Self::from_bits(key as u32)
    }

    fn order_key(self) -> u64 {
        let bits = self.to_bits();
        u64::from(if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 })
    }

    fn from_order_key(key: u64) -> Self {
        let key = key as u32;
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
            Dtype::Bf16 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = bf16_to_f32(*bytes);
                }
            }
            Dtype::F16 => f16_to_f32(bytes, out),
        }
    }

    fn round_to(block: &mut [Self], dtype: Dtype) {
        match dtype {
            Dtype::F32 | Dtype::F64 => {}
            Dtype::Bf16 => {
                for value in block {
                    *value = Self::from_bits(u32::from(f32_to_bf16(*value)) << 16);
                }
            }
            Dtype::F16 => {
                let mut halves = [f16::ZERO; HALVES];
                for block in block.chunks_mut(HALVES) {
                    let halves = &mut halves[..block.len()];
                    halves.convert_from_f32_slice(block);
                    halves.convert_to_f32_slice(block);
                }
            }
        }
    }

    fn encode(block: &[Self], dtype: Dtype, out: &mut [u8]) {
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
            Dtype::Bf16 => {
                for (value, bytes) in block.iter().zip(out.as_chunks_mut::<2>().0) {
                    *bytes = f32_to_bf16(*value).to_le_bytes();
                }
            }
            Dtype::F16 => f32_to_f16(block, out),
        }
    }

    fn with_blocks<T>(count: usize, work: impl FnOnce(&mut [Vec<Self>]) -> T) -> T {
        F32_BLOCKS.with(|pool| with_pool(pool, count, work))
    }
}

impl Real for f64 {
    const KEY_BITS: u32 = 64;

    fn of(value: f64) -> Self {
        value
    }

    fn wide(self) -> f64 {
        self
    }

    fn magnitude_key(self) -> u64 {
        self.to_bits() & (u64::MAX >> 1)
    }

    fn from_magnitude_key(key: u64) -> Self {
        Self::from_bits(key)
    }

    fn order_key(self) -> u64 {
        let bits = self.to_bits();
        if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
    }

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

    fn encode(block: &[Self], dtype: Dtype, out: &mut [u8]) {
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
            f32::encode(narrow, dtype, out);
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
    fn bf16_rounds_as_the_half_crate_does() {
        for bits in (0..=u32::MAX).step_by(4_093) {
            let value = f32::from_bits(bits);
            let expected = bf16::from_f32(value);
            let found = bf16::from_bits(f32_to_bf16(value));
            assert!(found == expected || (found.is_nan() && expected.is_nan()), "{value}: {found} {expected}");
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
