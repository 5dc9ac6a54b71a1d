//! float16 to float32 and back: with the processor's own instructions where it has AVX-512, and otherwise by arithmetic on bits
//! that the compiler vectorises. The bits are those of IEEE 754 either way: nearest even, and a NaN that keeps its sign and the
//! upper bits of its payload and is quiet.

use super::vector::vectorised;

/// Reads float16 numbers, two bytes each.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    let (bytes, out) = wide::decode(bytes.as_chunks::<2>().0, out);
    vectorised(|| out.iter_mut().zip(bytes).for_each(|(out, bytes)| *out = widen(*bytes)));
}

/// Rounds every number to one that float16 has.
pub fn round(block: &mut [f32]) {
    let rest = wide::round(block);
    vectorised(|| rest.iter_mut().for_each(|value| *value = round_to_f16(*value)));
}

/// Writes numbers that float16 has.
pub fn store(block: &[f32], out: &mut [u8]) {
    let (block, out) = wide::store(block, out.as_chunks_mut::<2>().0);
    vectorised(|| {
        for (value, bytes) in block.iter().zip(out) {
            *bytes = narrow(*value).to_le_bytes();
        }
    });
}

/// Sixteen numbers at a time by AVX-512's conversions. Each function does as much as it can and gives back the rest: all of it
/// where the processor has no such instructions.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::__m256i;

    use pulp::bytemuck::cast;
    use pulp::x86::V4;
    use pulp::{Arch, NullaryFnOnce};

    const LANES: usize = 16;

    /// Rounding to nearest even, whatever the processor is set to.
    const NEAREST: i32 = 0;

    pub fn decode<'a>(bytes: &'a [[u8; 2]], out: &'a mut [f32]) -> (&'a [[u8; 2]], &'a mut [f32]) {
        let Arch::V4(simd) = Arch::new() else { return (bytes, out) };
        let done = bytes.len().min(out.len()) / LANES * LANES;
        let ((bytes, bytes_left), (out, out_left)) = (bytes.split_at(done), out.split_at_mut(done));
        simd.vectorize(Decode { simd, bytes: bytes.as_chunks().0, out: out.as_chunks_mut().0 });
        (bytes_left, out_left)
    }

    pub fn round(block: &mut [f32]) -> &mut [f32] {
        let Arch::V4(simd) = Arch::new() else { return block };
        let (block, rest) = block.as_chunks_mut();
        simd.vectorize(Round { simd, block });
        rest
    }

    pub fn store<'a>(block: &'a [f32], out: &'a mut [[u8; 2]]) -> (&'a [f32], &'a mut [[u8; 2]]) {
        let Arch::V4(simd) = Arch::new() else { return (block, out) };
        let done = block.len().min(out.len()) / LANES * LANES;
        let ((block, block_left), (out, out_left)) = (block.split_at(done), out.split_at_mut(done));
        simd.vectorize(Store { simd, block: block.as_chunks().0, out: out.as_chunks_mut().0 });
        (block_left, out_left)
    }

    struct Decode<'a> {
        simd: V4,
        bytes: &'a [[[u8; 2]; LANES]],
        out: &'a mut [[f32; LANES]],
    }

    struct Round<'a> {
        simd: V4,
        block: &'a mut [[f32; LANES]],
    }

    struct Store<'a> {
        simd: V4,
        block: &'a [[f32; LANES]],
        out: &'a mut [[[u8; 2]; LANES]],
    }

    #[inline(always)]
    fn widened(simd: V4, halves: __m256i) -> [f32; LANES] {
        cast(simd.avx512f._mm512_cvtph_ps(halves))
    }

    #[inline(always)]
    fn narrowed(simd: V4, numbers: [f32; LANES]) -> __m256i {
        simd.avx512f._mm512_cvtps_ph::<NEAREST>(cast(numbers))
    }

    impl NullaryFnOnce for Decode<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, bytes, out } = self;
            out.iter_mut().zip(bytes).for_each(|(out, bytes)| *out = widened(simd, cast(*bytes)));
        }
    }

    impl NullaryFnOnce for Round<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, block } = self;
            block.iter_mut().for_each(|numbers| *numbers = widened(simd, narrowed(simd, *numbers)));
        }
    }

    impl NullaryFnOnce for Store<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, block, out } = self;
            out.iter_mut().zip(block).for_each(|(out, numbers)| *out = cast(narrowed(simd, *numbers)));
        }
    }
}

/// No such instructions: everything is left.
#[cfg(not(target_arch = "x86_64"))]
mod wide {
    pub fn decode<'a>(bytes: &'a [[u8; 2]], out: &'a mut [f32]) -> (&'a [[u8; 2]], &'a mut [f32]) {
        (bytes, out)
    }

    pub fn round(block: &mut [f32]) -> &mut [f32] {
        block
    }

    pub fn store<'a>(block: &'a [f32], out: &'a mut [[u8; 2]]) -> (&'a [f32], &'a mut [[u8; 2]]) {
        (block, out)
    }
}

/// The nearest float16. Above its subnormals the bits that go are rounded away as for bfloat16, with 10 bits kept; below,
/// adding and taking off a number whose last bit weighs 2^-24 leaves a multiple of that, rounded to nearest even by the
/// addition itself.
#[inline(always)]
pub fn round_to_f16(value: f32) -> f32 {
    const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;
    const SHIFT: f32 = 0.75;
    const TOO_LARGE: f32 = 65520.0;
    let bits = value.to_bits();
    let magnitude = value.abs();
    let normal = f32::from_bits(bits.wrapping_add(0x0fff + ((bits >> 13) & 1)) & !0x1fff);
    let small = ((magnitude + SHIFT) - SHIFT).copysign(value);
    let rounded = if magnitude < SMALLEST_NORMAL { small } else { normal };
    let rounded = if magnitude >= TOO_LARGE { f32::INFINITY.copysign(value) } else { rounded };
    let nan = f32::from_bits(bits & !0x1fff | QUIET);
    if value.is_nan() { nan } else { rounded }
}

/// The bit of a float32 that makes a NaN a quiet one.
const QUIET: u32 = 0x0040_0000;

/// Shifting the bits of a float16 into place gives a float32 that is 2^112 times too small, subnormals included.
#[inline(always)]
fn widen(bytes: [u8; 2]) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITY: u32 = 0x0f80_0000;
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * SCALE).to_bits();
    let special = magnitude | 0x7f80_0000 | if magnitude > INFINITY { QUIET } else { 0 };
    f32::from_bits((if magnitude >= INFINITY { special } else { finite }) | (bits & 0x8000) << 16)
}

/// The other way round, for a number that float16 has.
#[inline(always)]
pub fn narrow(value: f32) -> u16 {
    const SCALE: f32 = f32::from_bits((127 - 112) << 23);
    let bits = value.to_bits();
    let finite = (value.abs() * SCALE).to_bits() >> 13;
    // The payload of a NaN; nothing of an infinity.
    let special = 0x7c00 | (bits >> 13) & 0x03ff;
    let magnitude = if value.is_finite() { finite } else { special };
    (magnitude | (bits >> 16) & 0x8000) as u16
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_half_crate_does() {
        let values: Vec<f32> = (0..=u32::MAX).step_by(1_021).map(f32::from_bits).collect();
        let mut rounded = values.clone();
        round(&mut rounded);
        let mut stored = vec![0; 2 * values.len()];
        store(&rounded, &mut stored);
        for ((value, found), stored) in values.iter().zip(&rounded).zip(stored.as_chunks::<2>().0) {
            let expected = f16::from_f32(*value);
            let one_by_one = round_to_f16(*value);
            assert!(one_by_one == expected.to_f32() || value.is_nan() && one_by_one.is_nan(), "{value:e}");
            assert_eq!(found.to_bits(), one_by_one.to_bits(), "{value:e}, many at once");
            assert_eq!(u16::from_le_bytes(*stored), narrow(one_by_one), "{value:e}, many at once");
            assert!(narrow(one_by_one) == expected.to_bits() || value.is_nan(), "{value:e}");
        }
    }

    #[test]
    fn every_float16_is_read() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut numbers = vec![0f32; 1 << 16];
        decode(&bytes, &mut numbers);
        for (found, bytes) in numbers.iter().zip(bytes.as_chunks::<2>().0) {
            let expected = f16::from_le_bytes(*bytes);
            assert_eq!(found.to_bits(), widen(*bytes).to_bits(), "{expected:?}, many at once");
            assert!(*found == expected.to_f32() || expected.is_nan() && found.is_nan(), "{expected:?}");
        }
    }
}
