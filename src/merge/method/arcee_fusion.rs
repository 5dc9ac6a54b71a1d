//! arcee_fusion: takes over from a second model c what matters most, and keeps the base a elsewhere.
//!
//! With `p = softmax(c) + 1e-8`, `q = softmax(a) + 1e-8` along the last axis, the divergence of a row
//! `K = sum p ln(p / q)` and the importance `I = |c - a| K`, an element is taken over where
//! `I >= q(.5) + 1.5 (q(.75) - q(.25))`; `q(f)` is the element of rank floor(f (N - 1)) of all importances of the tensor.
//!
//! The terms of a row nearly cancel, so which elements are taken over hangs on how they are rounded: see [`divergence`]. In
//! mergekit's numerics the result is not rounded to a working dtype of 16 bits: mergekit's mask is a 32-bit tensor.
//!
//! Invariants: the quantiles are exact at any size (mergekit samples above 10^6 elements); an unchanged tensor stays as
//! it is.

use num_traits::Float;

use super::{Block, divergence};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;
use crate::merge::select::Keys;
use crate::merge::survey::Survey;
use crate::merge::vector::{Loop, vectorised};

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
                found.push(divergence::of_row::<A>(c, a, tensors.working, scratch));
            },
        );
        let divergences = groups.into_iter().flat_map(|(found, _)| found).collect();
        let mut kernel = Self { row_len: tensors.rows().len.max(1), divergences, threshold: A::Real::of(0.0) };
        let last = tensors.len().saturating_sub(1) as f64;
        let ranks = [0.25, 0.5, 0.75].map(|share| (share * last) as u64).to_vec();
        let fill = |start: usize, blocks: &[Vec<A::Real>], _: usize, out: &mut Vec<<A::Real as Real>::Key>| {
            vectorised(Importances { kernel: &kernel, block: Block { start, blocks, inputs }, out });
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

/// The keys of one block's importances.
struct Importances<'a, A: Arithmetic> {
    kernel: &'a Kernel<A>,
    block: Block<'a, A::Real>,
    out: &'a mut Vec<<A::Real as Real>::Key>,
}

impl<A: Arithmetic> Loop for Importances<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { kernel, block, out } = self;
        out.resize(block.input(0).len(), Default::default());
        let mut rest = out.as_mut_slice();
        kernel.rows(block, |divergence, a, c| {
            let (stretch, after) = std::mem::take(&mut rest).split_at_mut(a.len());
            for ((key, a), c) in stretch.iter_mut().zip(a).zip(c) {
                *key = importance::<A>(divergence, *a, *c).order_key();
            }
            rest = after;
        });
    }
}

#[inline(always)]
fn importance<A: Arithmetic>(divergence: A::Real, a: A::Real, c: A::Real) -> A::Real {
    A::step(A::step(c - a).abs() * divergence)
}
