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
        return stepped::<A>(c, a, working, scratch);
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
        let one = R::of(1.0);
        let (of_p, of_q) = (one / exponentials(c, p), one / exponentials(a, q));
        let floor = R::of(FLOOR);
        // First all terms, then their sum: a loop that does both is not vectorised.
        for (p, q) in p.iter_mut().zip(&mut *q) {
            let (share, other) = (*p * of_p + floor, *q * of_q + floor);
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
    sum_by_halves(out)
}

/// A sum in the order in which PyTorch adds up a row of float32. The terms nearly cancel, so that another order takes other
/// elements over.
#[inline(always)]
fn sum<R: Real>(terms: &[R]) -> R {
    if terms.len() < 8 { sum_in_lanes::<1, R>(terms) } else { sum_in_lanes::<8, R>(terms) }
}

/// The same with so many lanes: four accumulators of them side by side, emptied into the next of four levels whenever they
/// have taken a number of vectors that grows with the row. What is left of the row comes before the lanes.
#[inline(always)]
fn sum_in_lanes<const LANES: usize, R: Real>(terms: &[R]) -> R {
    const LEVELS: usize = 4;
    let zero = R::of(0.0);
    let (vectors, tail) = terms.as_chunks::<LANES>();
    let (groups, rest) = vectors.as_chunks::<4>();
    let power = (groups.len().next_power_of_two().ilog2() / LEVELS as u32).max(4);
    let step = 1usize << power;
    let mut levels = [[[zero; LANES]; 4]; LEVELS];
    for (number, groups) in (1..).zip(groups.chunks(step)) {
        let mut sums = [[zero; LANES]; 4];
        for group in groups {
            sums.iter_mut().zip(group).for_each(|(sums, vector)| add(sums, vector));
        }
        levels[0] = sums;
        if groups.len() < step {
            break;
        }
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [[zero; LANES]; 4]);
            levels[level].iter_mut().zip(&below).for_each(|(sums, vector)| add(sums, vector));
            if (number * step) & ((step - 1) << (level as u32 * power)) != 0 {
                break;
            }
        }
    }
    let [mut sums, above @ ..] = levels;
    for level in &above {
        sums.iter_mut().zip(level).for_each(|(sums, vector)| add(sums, vector));
    }
    let [mut sum, others @ ..] = sums;
    rest.iter().chain(&others).for_each(|vector| add(&mut sum, vector));
    tail.iter().chain(&sum).fold(zero, |total, term| total + *term)
}

#[inline(always)]
fn add<const LANES: usize, R: Real>(sums: &mut [R; LANES], vector: &[R; LANES]) {
    sums.iter_mut().zip(vector).for_each(|(sum, term)| *sum = *sum + *term);
}

/// A sum in the order in which PyTorch's softmax adds up exponentials: sixteen lanes, folded by halves.
#[inline(always)]
fn sum_by_halves<R: Real>(terms: &[R]) -> R {
    let (chunks, rest) = terms.as_chunks::<16>();
    let Some((first, chunks)) = chunks.split_first() else {
        return rest.iter().fold(R::of(0.0), |sum, term| sum + *term);
    };
    let mut lanes = *first;
    chunks.iter().for_each(|chunk| add(&mut lanes, chunk));
    lanes.iter_mut().zip(rest).for_each(|(lane, term)| *lane = *lane + *term);
    for width in [8, 4, 2, 1] {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(low, high)| *low = *low + *high);
    }
    lanes[0]
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
fn stepped<A: Arithmetic>(c: &[A::Real], a: &[A::Real], working: Dtype, [p, q]: &mut [Vec<A::Real>; 2]) -> A::Real {
    stepped_softmax::<A>(c, p);
    stepped_softmax::<A>(a, q);
    let floor = A::Real::of(FLOOR);
    for (p, q) in p.iter_mut().zip(&*q) {
        let (share, other) = (A::step(*p + floor), A::step(*q + floor));
        *p = A::step(share * A::step(A::step(share / other).ln()));
    }
    A::step(match working {
        Dtype::Bf16 | Dtype::F16 => p.iter().fold(A::Real::of(0.0), |sum, term| sum + *term),
        Dtype::F32 | Dtype::F64 => sum(p),
    })
}

/// PyTorch's softmax multiplies by the reciprocal of the sum.
fn stepped_softmax<A: Arithmetic>(row: &[A::Real], out: &mut Vec<A::Real>) {
    let largest = row.iter().fold(A::Real::of(f64::NEG_INFINITY), |largest, x| largest.max(*x));
    out.clear();
    out.extend(row.iter().map(|x| (*x - largest).exp()));
    let share = A::Real::of(1.0) / sum_by_halves(out);
    out.iter_mut().for_each(|x| *x = A::step(*x * share));
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
    fn sums_take_every_term_once_at_any_length() {
        for n in [0, 1, 7, 8, 31, 33, 64, 300, 2049, 5000, 70_000] {
            let ones = vec![1.0f32; n];
            assert_eq!((sum(&ones), sum_by_halves(&ones)), (n as f32, n as f32));
        }
        // The tail comes first, then lane after lane: here the large ones meet before the small one is added.
        let mut terms = vec![0.0f32; 33];
        (terms[0], terms[1], terms[32]) = (-1e8, 1.0, 1e8);
        assert_eq!(sum(&terms), 1.0);
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
