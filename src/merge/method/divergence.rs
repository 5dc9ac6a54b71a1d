//! The divergence of one row from another, `sum p ln(p / q)` with `p = softmax(c) + 1e-8` and `q = softmax(a) + 1e-8`.
//!
//! Its terms nearly cancel, so that what comes out hangs on how they are rounded:
//!
//! - where the working dtype is float32, to 32 bits one by one and added up in PyTorch's order, as mergekit's are;
//! - where it has 16 bits and rows are near each other, as those of fine-tunes are, not at all: with `p = q (1 + u)` and since
//!   both sum to the same, the divergence is also `sum q ((1 + u) ln(1 + u) - u)`, whose terms cannot cancel. They are
//!   computed from the differences of the rows, to about seven digits;
//! - in mergekit's numerics every operation is a step, which leaves of a half-precision divergence little but noise.

use num_traits::Float;

use super::exponential::{NEAR_ONE, NEAR_ZERO, exp, exp_near_zero, ln, ln_near_one};
use crate::config::Dtype;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::{pair_sum, pair_sums};
use crate::merge::real::{Key, Real};
use crate::merge::vector::{Loop, vectorised};

/// Added to every probability.
const FLOOR: f64 = 1e-8;

/// The divergence of `c` from `a`, which are of some working dtype. What is in `scratch` is left over from earlier work.
pub fn of_row<A: Arithmetic>(c: &[A::Real], a: &[A::Real], working: Dtype, scratch: &mut [Vec<A::Real>; 2]) -> A::Real {
    if A::STEPS {
        return stepped::<A>(c, a);
    }
    let near = match working {
        Dtype::Bf16 | Dtype::F16 => vectorised(Near { c, a, scratch }),
        Dtype::F32 | Dtype::F64 => None,
    };
    near.unwrap_or_else(|| vectorised(Divergence { c, a, scratch }))
}

/// The divergence of rows that are near each other, in 32 bits; none of others.
struct Near<'a, R> {
    c: &'a [R],
    a: &'a [R],
    scratch: &'a mut [Vec<R>; 2],
}

/// Largest difference between elements of near rows.
const LARGEST_DIFFERENCE: f64 = 1.0 / 8.0;

/// Largest relative difference between the sums of their exponentials.
const LARGEST_CHANGE: f64 = 1.0 / 64.0;

impl<R: Real> Loop for Near<'_, R> {
    type Output = Option<R>;

    #[inline(always)]
    fn call(self) -> Option<R> {
        let Self { c, a, scratch: [q, change] } = self;
        change.resize(a.len(), R::of(0.0));
        change.iter_mut().zip(c).zip(a).for_each(|((change, c), a)| *change = *c - *a);
        let [smallest, largest] = extremes(change).map(Real::wide);
        if smallest < -LARGEST_DIFFERENCE || largest > LARGEST_DIFFERENCE {
            return None;
        }
        change.iter_mut().for_each(|change| *change = *change * exponential_less_one(*change));
        short_exponentials(a, q);
        // Exponentials of `c` are those of `a` and what they change by.
        let [q_sum, changed] = pair_sums(q, change, |q, change| [q.wide(), q.wide() * change.wide()]);
        let p_sum = q_sum + changed;
        let change_of_all = -changed / p_sum;
        if change_of_all.is_nan() || change_of_all.abs() > LARGEST_CHANGE {
            return None;
        }
        let (ratio, change_of_all) = (R::of(q_sum / p_sum), R::of(change_of_all));
        let (share, floor) = (R::of(1.0 / q_sum), R::of(FLOOR));
        for (q, change) in q.iter_mut().zip(&mut *change) {
            let own = *q * share;
            *q = own + floor;
            *change = change.mul_add(ratio, change_of_all) * own / *q;
        }
        for change in &mut *change {
            *change = *change * *change * curvature(*change);
        }
        Some(R::of(pair_sum(q, change, |q, term| q.wide() * term.wide())))
    }
}

/// Exponentials of a row without its largest value, to about seven digits: weights of terms that do not cancel.
#[inline(always)]
fn short_exponentials<R: Real>(row: &[R], out: &mut Vec<R>) {
    let [smallest, largest] = extremes(row);
    out.resize(row.len(), R::of(0.0));
    if (largest - smallest).wide() <= NEAR_ZERO {
        for (y, x) in out.iter_mut().zip(row) {
            let x = *x - largest;
            *y = x.mul_add(exponential_less_one(x), R::of(1.0));
        }
    } else {
        out.iter_mut().zip(row).for_each(|(y, x)| *y = exponential(*x - largest));
    }
}

/// `(exp(x) - 1) / x` for x within [`NEAR_ZERO`], with a relative error below 2^-26; below 2^-36 within
/// [`LARGEST_DIFFERENCE`].
#[inline(always)]
fn exponential_less_one<R: Real>(x: R) -> R {
    polynomial(&[1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0], x)
}

/// `((1 + u) ln(1 + u) - u) / u^2` for the u that come of near rows, which are below 0.152: with a relative error below
/// 2^-26.
#[inline(always)]
fn curvature<R: Real>(u: R) -> R {
    let factors = [-1.0 / 72.0, 1.0 / 56.0, -1.0 / 42.0, 1.0 / 30.0, -1.0 / 20.0, 1.0 / 12.0, -1.0 / 6.0, 1.0 / 2.0];
    polynomial(&factors, u)
}

/// Value of a polynomial by its coefficients from the highest power down.
#[inline(always)]
fn polynomial<const N: usize, R: Real>(coefficients: &[f64; N], x: R) -> R {
    coefficients[1..].iter().fold(R::of(coefficients[0]), |sum, coefficient| sum.mul_add(x, R::of(*coefficient)))
}

/// The divergence of `c` from `a`, term by term.
struct Divergence<'a, R> {
    c: &'a [R],
    a: &'a [R],
    scratch: &'a mut [Vec<R>; 2],
}

impl<R: Real> Loop for Divergence<'_, R> {
    type Output = R;

    #[inline(always)]
    fn call(self) -> R {
        let Self { c, a, scratch: [p, q] } = self;
        let (p_sum, q_sum) = (exponentials(c, p), exponentials(a, q));
        let floor = R::of(FLOOR);
        // First all terms, then their sum: a loop that does both is not vectorised.
        for (p, q) in p.iter_mut().zip(&mut *q) {
            let (share, other) = (*p / p_sum + floor, *q / q_sum + floor);
            (*p, *q) = (share, share / other);
        }
        let [smallest, largest] = extremes(q).map(Real::wide);
        if 1.0 - smallest <= NEAR_ONE && largest - 1.0 <= NEAR_ONE {
            p.iter_mut().zip(&*q).for_each(|(p, ratio)| *p = *p * logarithm_near_one(*ratio));
        } else {
            p.iter_mut().zip(&*q).for_each(|(p, ratio)| *p = *p * logarithm(*ratio));
        }
        sum(p)
    }
}

/// Exponentials of a row without its largest value, and their sum.
#[inline(always)]
fn exponentials<R: Real>(row: &[R], out: &mut Vec<R>) -> R {
    let [smallest, largest] = extremes(row);
    out.resize(row.len(), R::of(0.0));
    if (largest - smallest).wide() <= NEAR_ZERO {
        out.iter_mut().zip(row).for_each(|(y, x)| *y = exponential_near_zero(*x - largest));
    } else {
        out.iter_mut().zip(row).for_each(|(y, x)| *y = exponential(*x - largest));
    }
    sum(out)
}

/// Eight sums side by side and then in pairs: the order in which PyTorch adds up a short row of float32. The terms nearly cancel,
/// so that another order takes other elements over.
#[inline(always)]
fn sum<R: Real>(terms: &[R]) -> R {
    let (chunks, rest) = terms.as_chunks::<8>();
    let mut lanes = [R::of(0.0); 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, term)| *lane = *lane + *term);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().fold(sum, |sum, term| sum + *term)
}

// As many terms as the number format needs.

#[inline(always)]
fn exponential<R: Real>(x: R) -> R {
    R::of(if R::Key::BITS == 32 { exp::<9>(x.wide()) } else { exp::<13>(x.wide()) })
}

#[inline(always)]
fn exponential_near_zero<R: Real>(x: R) -> R {
    R::of(if R::Key::BITS == 32 { exp_near_zero::<9>(x.wide()) } else { exp_near_zero::<13>(x.wide()) })
}

#[inline(always)]
fn logarithm<R: Real>(x: R) -> R {
    R::of(if R::Key::BITS == 32 { ln::<7>(x.wide()) } else { ln::<11>(x.wide()) })
}

#[inline(always)]
fn logarithm_near_one<R: Real>(x: R) -> R {
    let x = x.wide() - 1.0;
    R::of(if R::Key::BITS == 32 { ln_near_one::<7>(x) } else { ln_near_one::<11>(x) })
}

/// Smallest and largest of a row.
#[inline(always)]
fn extremes<R: Real>(row: &[R]) -> [R; 2] {
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [[R::of(f64::INFINITY); 16], [R::of(f64::NEG_INFINITY); 16]];
    for chunk in chunks {
        for (lane, x) in lanes[0].iter_mut().zip(chunk) {
            *lane = if *x < *lane { *x } else { *lane };
        }
        for (lane, x) in lanes[1].iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let rest = || rest.iter().copied();
    let [smallest, largest] = lanes;
    [
        smallest.into_iter().chain(rest()).fold(R::of(f64::INFINITY), |least, x| if x < least { x } else { least }),
        largest.into_iter().chain(rest()).fold(R::of(f64::NEG_INFINITY), |most, x| if x > most { x } else { most }),
    ]
}

/// The same, step by step.
fn stepped<A: Arithmetic>(c: &[A::Real], a: &[A::Real]) -> A::Real {
    let (p, q) = (stepped_softmax::<A>(c), stepped_softmax::<A>(a));
    let floor = A::Real::of(FLOOR);
    let term = |(p, q): (A::Real, A::Real)| {
        let (p, q) = (A::step(p + floor), A::step(q + floor));
        A::step(p * A::step(A::step(p / q).ln()))
    };
    A::step(p.zip(q).map(term).fold(A::Real::of(0.0), |sum, term| sum + term))
}

fn stepped_softmax<A: Arithmetic>(row: &[A::Real]) -> impl Iterator<Item = A::Real> {
    let largest = row.iter().fold(A::Real::of(f64::NEG_INFINITY), |largest, x| largest.max(*x));
    let sum = row.iter().fold(A::Real::of(0.0), |sum, x| sum + (*x - largest).exp());
    row.iter().map(move |x| A::step((*x - largest).exp() / sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::arithmetic::Once;

    fn exact(c: &[f32], a: &[f32]) -> f64 {
        let softmax = |row: &[f32]| {
            let exponentials: Vec<f64> = row.iter().map(|x| f64::from(*x).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            exponentials.into_iter().map(move |x| x / sum + FLOOR)
        };
        softmax(c).zip(softmax(a)).map(|(p, q)| p * (p / q).ln() - p + q).sum()
    }

    #[test]
    fn near_rows_have_seven_digits() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut scratch = [Vec::new(), Vec::new()];
        for change in [1e-3, 0.02, 0.24] {
            for spread in [0.1, 8.0] {
                let a: Vec<f32> = (0..3000).map(|_| spread * draw()).collect();
                let c: Vec<f32> = a.iter().map(|a| a + change * draw()).collect();
                let expected = exact(&c, &a);
                let found = vectorised(Near { c: &c, a: &a, scratch: &mut scratch }).unwrap();
                assert!((f64::from(found) / expected - 1.0).abs() < 1e-5, "{found:e} for {expected:e}");
            }
        }
    }

    #[test]
    fn an_unchanged_row_diverges_by_nothing_and_a_far_one_is_left_to_the_other_way() {
        let mut scratch = [Vec::new(), Vec::new()];
        let a: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
        for working in [Dtype::F16, Dtype::F32] {
            assert_eq!(of_row::<Once<f32>>(&a, &a, working, &mut scratch), 0.0);
        }
        let mut far = a.clone();
        for odd in [3.0, f32::INFINITY, f32::NAN] {
            far[7] = odd;
            assert!(vectorised(Near { c: &far, a: &a, scratch: &mut scratch }).is_none(), "{odd}");
        }
    }
}
