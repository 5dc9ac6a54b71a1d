//! model_stock (arXiv:2403.19522): `y = t mean(x) + (1 - t) b`, with `t = n cos / (1 + (n - 1) cos)` of the mean cosine
//! between the n task vectors: of the whole tensor, or of every row (mergekit: `filter_wise`). Steps: the differences,
//! the mean, t, the products.

use super::Block;
use super::combination::{Gram, model_stock};
use super::task_vector;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::pair_sum;
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
        let t = |gram: &Gram| A::step_wide(model_stock(gram));
        if !filter_wise {
            return Self { stretch: usize::MAX, t: vec![t(&Gram::new(&vectors, survey))] };
        }
        let groups = survey.inputs.fold_rows::<A::Real, (Vec<A::Real>, Vec<Vec<A::Real>>)>(
            inputs,
            || (Vec::new(), vec![Vec::new(); vectors.len()]),
            |(found, rows), _, blocks| {
                vectorised(|| {
                    vectors.iter().zip(&mut *rows).for_each(|(vector, row)| vector.fill::<A>(blocks, row));
                    let dot = |left: &Vec<A::Real>, right: &Vec<A::Real>| {
                        pair_sum(left, right, |left, right| left.wide() * right.wide())
                    };
                    let products = |left| rows.iter().map(|right| dot(left, right)).collect();
                    found.push(t(&Gram::from_rows(rows.iter().map(products).collect())));
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
            out.iter_mut().zip(block.input(index)).for_each(|(sum, x)| *sum = *sum + *x);
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
