//! exp and ln in 64 bits as plain arithmetic without branches, which the compiler turns into vector instructions; the
//! library's are called one by one. How many terms of a series are summed is up to the caller: all of them for 64 bits, fewer
//! for a result that is rounded to 32. Largest error of all: 2 units in the last place, checked below against the library.
//!
//! Multiplications and additions are fused, on every processor. Near zero, and near one, a plain polynomial is enough: whether
//! all numbers of a row are there is for the caller to find out.

use std::f64::consts::{LOG2_E, SQRT_2};

/// exp of numbers up to this magnitude needs no reduction: [`exp_near_zero`] has the same bits.
pub const NEAR_ZERO: f64 = 0.34;

/// [`ln_near_one`] takes numbers that differ from 1 by up to this.
pub const NEAR_ONE: f64 = 1.0 / 32.0;

/// Upper part of ln 2, with enough zeros at its end for exact multiples, and what is left.
const LN_2: [f64; 2] = [f64::from_bits(0x3fe6_2e42_fee0_0000), 1.908_214_929_270_587_7e-10];

/// Adding this leaves a number rounded to a whole one, which then stands in the lowest bits.
const TO_WHOLE: f64 = 6_755_399_441_055_744.0;

/// e to the power of `x`, for x up to 700; what is below -700 counts as that. At most 13 terms; with 9 the relative error
/// is below 2^-36.
#[inline(always)]
pub fn exp<const TERMS: usize>(x: f64) -> f64 {
    let x = if x < -700.0 { -700.0 } else { x };
    let shifted = x.mul_add(LOG2_E, TO_WHOLE);
    let whole = shifted - TO_WHOLE;
    let rest = (-whole).mul_add(LN_2[1], (-whole).mul_add(LN_2[0], x));
    exp_near_zero::<TERMS>(rest) * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52))
}

/// The same for `x` within [`NEAR_ZERO`], with the same bits.
#[inline(always)]
pub fn exp_near_zero<const TERMS: usize>(x: f64) -> f64 {
    /// 1 / k! from the highest power down.
    const FACTORS: [f64; 13] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
    ];
    polynomial(&FACTORS[FACTORS.len() - TERMS..], x).mul_add(x, 1.0)
}

/// Value of a polynomial by its coefficients from the highest power down.
#[inline(always)]
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients[1..].iter().fold(coefficients[0], |sum, coefficient| sum.mul_add(x, *coefficient))
}

/// Natural logarithm of a normal positive number. At most 11 terms; with 7 the relative error is below 2^-36.
#[inline(always)]
pub fn ln<const TERMS: usize>(x: f64) -> f64 {
    /// 1 / (2k + 1) from the highest power down.
    const FACTORS: [f64; 11] = [
        1.0 / 21.0,
        1.0 / 19.0,
        1.0 / 17.0,
        1.0 / 15.0,
        1.0 / 13.0,
        1.0 / 11.0,
        1.0 / 9.0,
        1.0 / 7.0,
        1.0 / 5.0,
        1.0 / 3.0,
        1.0,
    ];
    const ONE: u64 = 1023 << 52;
    // The exponent as a number: put below 2^52 and taken off again.
    const BELOW: u64 = 0x4330_0000_0000_0000;
    let bits = x.to_bits();
    let exponent = f64::from_bits((bits >> 52) | BELOW) - (f64::from_bits(BELOW) + 1023.0);
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | ONE);
    let large = mantissa > SQRT_2;
    let (mantissa, exponent) =
        (if large { mantissa * 0.5 } else { mantissa }, if large { exponent + 1.0 } else { exponent });
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = polynomial(&FACTORS[FACTORS.len() - TERMS..], square);
    exponent.mul_add(LN_2[0], (2.0 * s).mul_add(series, exponent * LN_2[1]))
}

/// Natural logarithm of `1 + x`, for `x` within [`NEAR_ONE`]. At most 11 terms; with 7 the relative error is below 2^-36.
#[inline(always)]
pub fn ln_near_one<const TERMS: usize>(x: f64) -> f64 {
    /// 1 / k with alternating signs from the highest power down.
    const FACTORS: [f64; 11] = [
        1.0 / 11.0,
        -1.0 / 10.0,
        1.0 / 9.0,
        -1.0 / 8.0,
        1.0 / 7.0,
        -1.0 / 6.0,
        1.0 / 5.0,
        -1.0 / 4.0,
        1.0 / 3.0,
        -1.0 / 2.0,
        1.0,
    ];
    polynomial(&FACTORS[FACTORS.len() - TERMS..], x) * x
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: f64 = 1.0 / (1u64 << 36) as f64;

    fn ulps(found: f64, expected: f64) -> u64 {
        (found.to_bits() as i64 - expected.to_bits() as i64).unsigned_abs()
    }

    #[test]
    fn both_are_as_good_as_the_library() {
        for i in 0..200_000 {
            let x = -f64::from(i) / 300.0;
            let found = exp::<13>(x);
            assert!(ulps(found, x.exp()) <= 2, "exp({x}) = {found:e}, library {:e}", x.exp());
            assert!((exp::<9>(x) / x.exp() - 1.0).abs() < SHORT, "exp({x})");
            let y = (f64::from(i - 100_000) / 3000.0).exp();
            let (found, expected) = (ln::<11>(y), y.ln());
            assert!(ulps(found, expected) <= 2 || (found - expected).abs() < 1e-16, "ln({y}) {found:e} {expected:e}");
            let off = (ln::<7>(y) - expected).abs();
            assert!(off < SHORT * expected.abs() || off < 1e-16, "ln({y}) is {off:e} off");
        }
        assert_eq!((exp::<9>(0.0), ln::<7>(1.0)), (1.0, 0.0));
    }

    #[test]
    fn short_cuts_are_as_good() {
        for i in -100_000..=100_000 {
            let x = NEAR_ZERO * f64::from(i) / 100_000.0;
            assert_eq!(exp_near_zero::<9>(x), exp::<9>(x), "exp({x})");
            assert_eq!(exp_near_zero::<13>(x), exp::<13>(x), "exp({x})");
            let x = NEAR_ONE * f64::from(i) / 100_000.0;
            let (found, expected) = (ln_near_one::<11>(x), x.ln_1p());
            assert!(ulps(found, expected) <= 2, "ln(1 + {x}) {found:e} {expected:e}");
            let off = (ln_near_one::<7>(x) - expected).abs();
            assert!(off <= SHORT * expected.abs(), "ln(1 + {x}) is {off:e} off");
        }
    }
}
