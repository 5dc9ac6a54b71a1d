//! multislerp step by step, as mergekit computes it. Rounding every element of every vector on the way makes the result
//! something else than a linear combination (see [`super::combination`]), so every norm and dot product takes a pass in which
//! the vectors are made again from the inputs up to that point: nothing of a tensor's size is kept.
//!
//! With `X_i = x_i - b` or `x_i`, `u_i = X_i / (|X_i| + eps)` and `m = sum w_i u_i`, which is then divided by its norm:
//! `T = sum w_i (u_i - (u_i m) m)`, `tau = |T| + eps`, `y = (m cos tau + T (sin tau / tau)) sum w_i |X_i|`, and the base
//! again. Every operation is a step; a sum over the models is one.

use super::{Block, MethodError};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::pair_sum;
use crate::merge::real::Real;
use crate::merge::survey::{Sum, Survey, Vector};
use crate::merge::vector::vectorised;

/// Ready to be applied block by block, or as far as that is known.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    vectors: Vec<Vector>,
    base: Option<usize>,
    weights: Vec<A::Real>,
    /// What the vectors are divided by.
    lengths: Vec<A::Real>,
    /// What their mean is divided by.
    mean_length: A::Real,
    /// Parts of the unit vectors along the mean.
    along: Vec<A::Real>,
    end: End<A::Real>,
}

/// What the result is made of in the end.
#[derive(Debug)]
enum End<R> {
    /// The mean and the tangent.
    Sphere { cos: R, tangent: R, radius: R },
    /// Of two vectors that are opposite: the vectors themselves.
    Line,
}

/// The sums of whole vectors that it needs.
pub fn sums<R: Real>(vectors: &[Vector]) -> Vec<Sum<R>> {
    vectors.iter().map(|vector| Sum::square(*vector)).collect()
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes norms and dot products, one after the other. A base is the first of the inputs.
    ///
    /// # Errors
    /// [`MethodError`] where the directions of more than two vectors cancel out.
    pub fn new(
        vectors: Vec<Vector>,
        weights: &[f64],
        normalize: bool,
        eps: f64,
        inputs: &[usize],
        survey: &Survey<'_, A>,
    ) -> Result<Self, MethodError> {
        let (step, wide) = (A::stepped, |value: &A::Real| value.wide());
        let weights: Vec<f64> = weights.iter().map(|weight| step(*weight)).collect();
        let sum = if normalize { step(weights.iter().fold(0.0, |sum, weight| A::held(sum + weight))) } else { 1.0 };
        let weights: Vec<A::Real> = weights.into_iter().map(|weight| A::step_wide(weight / sum)).collect();
        let norms: Vec<f64> = vectors.iter().map(|vector| step(survey.sum(&Sum::square(*vector)).sqrt())).collect();
        let lengths = norms.iter().map(|norm| A::step_wide(norm + A::held(eps))).collect();
        let n = vectors.len();
        let (zero, one) = (A::Real::of(0.0), A::Real::of(1.0));
        let base = (inputs.len() > n).then(|| inputs[0]);
        let mut kernel =
            Self { vectors, base, weights, lengths, mean_length: one, along: vec![zero; n], end: End::Line };
        let [square] = kernel.measure(inputs, survey, |kernel, blocks, [mean, ..], vectors| {
            kernel.units(blocks, vectors);
            kernel.mean(vectors, mean);
            [pair_sum(mean, mean, |x, y| x.wide() * y.wide())]
        })[..] else { return Ok(kernel) };
        let length = step(square.sqrt());
        if length < step(eps) {
            return if n == 2 { Ok(kernel) } else { Err(MethodError::DirectionsCancel) };
        }
        kernel.mean_length = A::Real::of(length);
        let along = kernel.measure(inputs, survey, |kernel, blocks, [mean, ..], vectors| {
            kernel.units(blocks, vectors);
            kernel.mean(vectors, mean);
            vectors.iter().map(|unit| pair_sum(unit, mean, |u, m| A::step(u * m).wide())).collect::<Vec<f64>>()
        });
        kernel.along = along.into_iter().map(A::step_wide).collect();
        let [square] = kernel.measure(inputs, survey, |kernel, blocks, [mean, tangent], vectors| {
            kernel.units(blocks, vectors);
            kernel.mean(vectors, mean);
            kernel.tangent(vectors, mean, tangent);
            [pair_sum(tangent, tangent, |x, y| x.wide() * y.wide())]
        })[..] else { return Ok(kernel) };
        let tau = step(step(square.sqrt()) + A::held(eps));
        let parts = kernel.weights.iter().map(wide).zip(norms).map(|(weight, norm)| step(weight * norm));
        kernel.end = End::Sphere {
            cos: A::step_wide(tau.cos()),
            tangent: A::step_wide(step(tau.sin()) / tau),
            radius: A::step_wide(parts.fold(0.0, |sum, part| A::held(sum + part))),
        };
        Ok(kernel)
    }

    /// Buffers that [`Kernel::apply`] works in.
    pub fn n_scratch(&self) -> usize {
        self.vectors.len() + 2
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, scratch: &mut [Vec<A::Real>], out: &mut [A::Real]) {
        let Some((vectors, [mean, tangents])) = scratch.split_last_chunk_mut() else { return };
        let vectors = &mut vectors[..self.vectors.len()];
        match &self.end {
            End::Sphere { cos, tangent, radius } => {
                self.units(block.blocks, vectors);
                self.mean(vectors, mean);
                self.tangent(vectors, mean, tangents);
                for ((y, mean), part) in out.iter_mut().zip(&*mean).zip(&*tangents) {
                    let sum = A::step(A::step(*mean * *cos) + A::step(*part * *tangent));
                    *y = A::step(sum * *radius);
                }
            }
            End::Line => {
                for (vector, out) in self.vectors.iter().zip(&mut *vectors) {
                    vector.fill::<A>(block.blocks, out);
                }
                self.weighted(vectors, mean);
                out.copy_from_slice(mean);
            }
        }
        if let Some(base) = self.base {
            out.iter_mut().zip(&block.blocks[base]).for_each(|(y, base)| *y = *base + *y);
        }
    }

    #[inline(always)]
    fn units(&self, blocks: &[Vec<A::Real>], units: &mut [Vec<A::Real>]) {
        for ((vector, length), unit) in self.vectors.iter().zip(&self.lengths).zip(units) {
            vector.fill::<A>(blocks, unit);
            unit.iter_mut().for_each(|u| *u = A::step(*u / *length));
        }
    }

    /// `sum w_i v_i`
    #[inline(always)]
    fn weighted(&self, vectors: &[Vec<A::Real>], sum: &mut Vec<A::Real>) {
        sum.clear();
        sum.resize(vectors[0].len(), A::Real::of(0.0));
        for (vector, weight) in vectors.iter().zip(&self.weights) {
            sum.iter_mut().zip(vector).for_each(|(sum, v)| *sum = *sum + A::step(*v * *weight));
        }
        sum.iter_mut().for_each(|sum| *sum = A::step(*sum));
    }

    #[inline(always)]
    fn mean(&self, units: &[Vec<A::Real>], mean: &mut Vec<A::Real>) {
        self.weighted(units, mean);
        mean.iter_mut().for_each(|m| *m = A::step(*m / self.mean_length));
    }

    #[inline(always)]
    fn tangent(&self, units: &mut [Vec<A::Real>], mean: &[A::Real], tangent: &mut Vec<A::Real>) {
        for (unit, along) in units.iter_mut().zip(&self.along) {
            unit.iter_mut().zip(mean).for_each(|(u, m)| *u = A::step(*u - A::step(*along * *m)));
        }
        self.weighted(units, tangent);
    }

    /// Sums of what `terms` makes of every block; it gets two buffers, and one for every vector.
    fn measure<T: AsRef<[f64]>>(
        &self,
        inputs: &[usize],
        survey: &Survey<'_, A>,
        terms: impl Fn(&Self, &[Vec<A::Real>], &mut [Vec<A::Real>; 2], &mut [Vec<A::Real>]) -> T + Sync,
    ) -> Vec<f64> {
        let pieces = survey.inputs.fold::<A::Real, Vec<f64>>(inputs, self.n_scratch(), Vec::new, |sums, _, blocks, scratch| {
            vectorised(|| {
                let Some((vectors, buffers)) = scratch.split_last_chunk_mut() else { return };
                let terms = terms(self, blocks, buffers, vectors);
                sums.resize(terms.as_ref().len(), 0.0);
                sums.iter_mut().zip(terms.as_ref()).for_each(|(sum, term)| *sum += term);
            });
        });
        let n = pieces.iter().map(Vec::len).max().unwrap_or_default();
        let at = |index: usize| pieces.iter().filter_map(|piece| piece.get(index)).sum();
        (0..n).map(at).collect()
    }
}
