//! model_stock (arXiv:2403.19522): `y = t mean(x) + (1 - t) b`, with `t = n cos / (1 + (n - 1) cos)` of the mean cosine
//! between the n task vectors: of the whole tensor, or of every row (mergekit: `filter_wise`). Steps: the differences,
//! the sums of the mean, the mean, everything that t is made of, the products.

use super::Block;
use super::combination::{Gram, model_stock};
use super::task_vector;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::real::Real;
use crate::merge::survey::{Survey, Vector};
use crate::merge::vector::vectorised;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    /// Elements that share a `t`.
    stretch: usize,
    t: Vec<A::Real>,
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes the angles. Input 0 is the base.
    pub fn new(filter_wise: bool, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let vectors: Vec<Vector> = task_vector::vectors(inputs).collect();
        let t = |gram: &Gram| A::step_wide(model_stock::<A>(gram));
        if !filter_wise {
            return Self { stretch: usize::MAX, t: vec![t(&Gram::new(&vectors, survey))] };
        }
        let groups = survey.inputs.fold_rows::<A::Real, (Vec<A::Real>, Vec<Vec<A::Real>>)>(
            inputs,
            || (Vec::new(), vec![Vec::new(); vectors.len()]),
            |(found, rows), _, blocks| {
                vectorised(|| {
                    vectors.iter().zip(&mut *rows).for_each(|(vector, row)| vector.fill::<A>(blocks, row));
                    found.push(t(&Gram::of_rows::<A>(rows)));
                });
            },
        );
        Self { stretch: survey.inputs.rows().len, t: groups.into_iter().flat_map(|(found, _)| found).collect() }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        let n = block.inputs.len() - 1;
        let count = A::Real::of(n as f64);
        out.fill(A::Real::of(0.0));
        for index in 1..=n {
            out.iter_mut().zip(block.input(index)).for_each(|(sum, x)| *sum = A::step(*sum + *x));
        }
        let mut position = 0;
        while position < out.len() {
            let start = block.start + position;
            let left = self.stretch - start % self.stretch;
            let end = position.saturating_add(left).min(out.len());
            let t = self.t[start / self.stretch];
            let rest = A::step(A::Real::of(1.0) - t);
            for (y, base) in out[position..end].iter_mut().zip(&block.input(0)[position..end]) {
                *y = A::step(t * A::step(*y / count)) + A::step(rest * *base);
            }
            position = end;
        }
    }
}
