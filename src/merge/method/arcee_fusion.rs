//! arcee_fusion: takes over from a second model c what matters most, and keeps the base a elsewhere.
//!
//! With `p = softmax(c) + 1e-8`, `q = softmax(a) + 1e-8` along the last axis, the divergence of a row
//! `K = sum p ln(p / q)` and the importance `I = |c - a| K`, an element is taken over where
//! `I >= q(.5) + 1.5 (q(.75) - q(.25))`; `q(f)` is the element of rank floor(f (N - 1)) of all importances of the tensor.
//!
//! The terms of a row nearly cancel, so which elements are taken over hangs on how they are rounded: to 32 bits one by
//! one, as mergekit's are where the dtype is float32. In mergekit's numerics every operation is a step, which leaves of a
//! half-precision divergence little but noise, and the result is not rounded to such a working dtype: mergekit's mask is
//! a 32-bit tensor.
//!
//! Invariants: the quantiles are exact at any size (mergekit samples above 10^6 elements); an unchanged tensor stays as
//! it is.

use num_traits::Float;

use super::Block;
use super::exponential::{NEAR_ONE, NEAR_ZERO, exp, exp_near_zero, ln, ln_near_one};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::{Key, Real};
use crate::merge::select::Keys;
use crate::merge::survey::Survey;
use crate::merge::vector::{Loop, vectorised};

/// Added to every probability.
const FLOOR: f64 = 1e-8;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    row_len: usize,
    divergences: Vec<A::Real>,
    threshold: A::Real,
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes the divergences and the quantiles. Input 0 is the base, input 1 the other.
    pub fn new(inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let tensors = survey.inputs;
        let groups = tensors.fold_rows::<A::Real, (Vec<A::Real>, [Vec<A::Real>; 2])>(
            inputs,
            || (Vec::new(), [Vec::new(), Vec::new()]),
            |(found, scratch), _, blocks| {
                let (a, c) = (&blocks[inputs[0]], &blocks[inputs[1]]);
                let divergence = if A::STEPS { stepped::<A>(c, a) } else { vectorised(Divergence { c, a, scratch }) };
                found.push(divergence);
            },
        );
        let divergences = groups.into_iter().flat_map(|(found, _)| found).collect();
        let mut kernel = Self { row_len: tensors.rows().len.max(1), divergences, threshold: A::Real::of(0.0) };
        let last = tensors.len().saturating_sub(1) as f64;
        let ranks = [0.25, 0.5, 0.75].map(|share| (share * last) as u64).to_vec();
        let fill = |start: usize, blocks: &[Vec<A::Real>], _: usize, out: &mut Vec<<A::Real as Real>::Key>| {
            vectorised(|| {
                out.resize(blocks[inputs[0]].len(), Default::default());
                let mut rest = out.as_mut_slice();
                kernel.rows(Block { start, blocks, inputs }, |divergence, a, c| {
                    let (stretch, after) = std::mem::take(&mut rest).split_at_mut(a.len());
                    for ((key, a), c) in stretch.iter_mut().zip(a).zip(c) {
                        *key = importance::<A>(divergence, *a, *c).order_key();
                    }
                    rest = after;
                });
            });
        };
        let found = Keys::<A::Real, _>::new(tensors, inputs, fill).at(&[ranks]);
        let quartile =
            |index: usize| found[0].get(index).map_or(A::Real::of(0.0), |found| A::Real::from_order_key(found.key));
        let spread = A::step(A::Real::of(1.5) * A::step(quartile(2) - quartile(0)));
        kernel.threshold = A::step(quartile(1) + spread);
        kernel
    }

    /// Calls `visit` with every row's part of a block: its divergence, the base, the other.
    #[inline(always)]
    fn rows<'b>(&self, block: Block<'b, A::Real>, mut visit: impl FnMut(A::Real, &'b [A::Real], &'b [A::Real])) {
        let (a, c) = (block.input(0), block.input(1));
        let mut position = 0;
        while position < a.len() {
            let start = block.start + position;
            let end = a.len().min(position + self.row_len - start % self.row_len);
            visit(self.divergences[start / self.row_len], &a[position..end], &c[position..end]);
            position = end;
        }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        let mut rest = out;
        self.rows(block, |divergence, a, c| {
            let (stretch, after) = std::mem::take(&mut rest).split_at_mut(a.len());
            for ((y, a), c) in stretch.iter_mut().zip(a).zip(c) {
                let taken = importance::<A>(divergence, *a, *c) >= self.threshold;
                *y = if taken { *a + A::step(*c - *a) } else { *a };
            }
            rest = after;
        });
    }
}

#[inline(always)]
fn importance<A: Arithmetic>(divergence: A::Real, a: A::Real, c: A::Real) -> A::Real {
    A::step(A::step(c - a).abs() * divergence)
}

/// The divergence of `c` from `a` over one row.
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
