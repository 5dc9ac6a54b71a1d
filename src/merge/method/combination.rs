//! Methods whose result is one linear combination of whole tensors, with coefficients that depend on the tensors through
//! their dot products alone: multislerp, karcher and model_stock. Everything that these methods do with directions and
//! angles happens in the few dimensions that the inputs span, in 64 bits, on the matrix of their dot products.

use super::{Block, MethodError};
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::pair_sum;
use crate::merge::real::Real;
use crate::merge::survey::{Sum, Survey, Vector};

/// Dot products of vectors, each with each.
#[derive(Debug)]
pub struct Gram(Vec<Vec<f64>>);

impl Gram {
    /// The sums it is made of.
    pub fn sums<A: Arithmetic>(vectors: &[Vector]) -> Vec<Sum<A::Real>> {
        let pairs = vectors
            .iter()
            .enumerate()
            .flat_map(|(index, left)| vectors[index..].iter().map(move |right| (left, right)));
        pairs.map(|(left, right)| Self::sum::<A>(*left, *right)).collect()
    }

    /// A norm is PyTorch's, in registers; the products of two vectors are a tensor of their own to mergekit.
    fn sum<A: Arithmetic>(left: Vector, right: Vector) -> Sum<A::Real> {
        if A::STEPS && left != right { Sum::Steps(left.min(right), left.max(right)) } else { Sum::product(left, right) }
    }

    /// From sums that were taken.
    pub fn new<A: Arithmetic>(vectors: &[Vector], survey: &Survey<'_, A>) -> Self {
        let row = |left: &Vector| vectors.iter().map(|right| survey.sum(&Self::sum::<A>(*left, *right))).collect();
        Self(vectors.iter().map(row).collect())
    }

    /// Of vectors that are at hand.
    #[inline(always)]
    pub fn of_rows<A: Arithmetic>(rows: &[Vec<A::Real>]) -> Self {
        let dot = |index: usize, other: usize| {
            let (left, right) = (&rows[index], &rows[other]);
            if A::STEPS && index != other {
                pair_sum(left, right, |left, right| A::step(left * right).wide())
            } else {
                pair_sum(left, right, |left, right| left.wide() * right.wide())
            }
        };
        Self((0..rows.len()).map(|index| (0..rows.len()).map(|other| dot(index, other)).collect()).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn norm(&self, vector: usize) -> f64 {
        let square = self.0[vector][vector];
        // Below zero is rounding; a NaN stays one.
        if square < 0.0 { 0.0 } else { square.sqrt() }
    }

    /// Dot product of a vector with a combination of all.
    fn dot(&self, vector: usize, combination: &[f64]) -> f64 {
        self.0[vector].iter().zip(combination).map(|(product, factor)| product * factor).sum()
    }

    /// Norm of a combination.
    fn norm_of(&self, combination: &[f64]) -> f64 {
        let square: f64 =
            combination.iter().enumerate().map(|(index, factor)| factor * self.dot(index, combination)).sum();
        if square < 0.0 { 0.0 } else { square.sqrt() }
    }
}

/// multislerp: the weighted mean of the directions of the vectors, found in the tangent space of their normalised mean,
/// times the weighted mean of their norms.
///
/// # Errors
/// [`MethodError`] where the directions of more than two vectors cancel out.
pub fn multislerp(gram: &Gram, weights: &[f64], normalize: bool, eps: f64) -> Result<Vec<f64>, MethodError> {
    let sum: f64 = if normalize { weights.iter().sum() } else { 1.0 };
    let weights: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let norms: Vec<f64> = (0..gram.len()).map(|index| gram.norm(index)).collect();
    // Factors of the vectors in the mean of their unit vectors.
    let mean: Vec<f64> = weights.iter().zip(&norms).map(|(weight, norm)| weight / (norm + eps)).collect();
    let length = gram.norm_of(&mean);
    if length < eps {
        return if gram.len() == 2 { Ok(weights) } else { Err(MethodError::DirectionsCancel) };
    }
    let mean: Vec<f64> = mean.into_iter().map(|factor| factor / length).collect();
    let mut tangent = vec![0.0; gram.len()];
    for (index, (weight, norm)) in weights.iter().zip(&norms).enumerate() {
        let unit = 1.0 / (norm + eps);
        let along = gram.dot(index, &mean) * unit;
        tangent[index] += weight * unit;
        tangent.iter_mut().zip(&mean).for_each(|(tangent, mean)| *tangent -= weight * along * mean);
    }
    let angle = gram.norm_of(&tangent) + eps;
    let scale: f64 = weights.iter().zip(&norms).map(|(weight, norm)| weight * norm).sum();
    let combine = |(mean, tangent): (&f64, &f64)| (mean * angle.cos() + tangent * angle.sin() / angle) * scale;
    Ok(mean.iter().zip(&tangent).map(combine).collect())
}

/// karcher: the point on the sphere with the smallest sum of squared angles to the inputs' directions, found by at most
/// `max_iter` steps along the mean of the tangents, times the mean of the inputs' norms. Inputs of norm up to `tol` have
/// no direction, but count in the mean of norms.
pub fn karcher(gram: &Gram, max_iter: usize, tol: f64) -> Vec<f64> {
    if gram.len() == 1 {
        return vec![1.0];
    }
    let n = gram.len();
    let norms: Vec<f64> = (0..n).map(|index| gram.norm(index)).collect();
    // A norm that is NaN counts: what it stands for must not vanish.
    let members: Vec<usize> = (0..n).filter(|index| norms[*index] > tol || norms[*index].is_nan()).collect();
    let Some(first) = members.first() else { return vec![0.0; n] };
    let share = 1.0 / members.len() as f64;
    let mut mean = vec![0.0; n];
    members.iter().for_each(|index| mean[*index] = share / norms[*index]);
    let length = gram.norm_of(&mean);
    if length < tol {
        mean = vec![0.0; n];
        mean[*first] = 1.0 / norms[*first];
    } else {
        mean.iter_mut().for_each(|factor| *factor /= length);
    }
    for _ in 0..max_iter {
        let mut tangent = vec![0.0; n];
        for index in &members {
            let cos = (gram.dot(*index, &mean) / norms[*index]).clamp(-1.0, 1.0);
            let angle = cos.acos();
            if angle < tol {
                continue;
            }
            let factor = share * angle / angle.sin();
            tangent[*index] += factor / norms[*index];
            tangent.iter_mut().zip(&mean).for_each(|(tangent, mean)| *tangent -= factor * cos * mean);
        }
        let length = gram.norm_of(&tangent);
        if length < tol {
            break;
        }
        for (mean, tangent) in mean.iter_mut().zip(&tangent) {
            *mean = length.cos() * *mean + length.sin() * tangent / length;
        }
        let length = gram.norm_of(&mean);
        mean.iter_mut().for_each(|factor| *factor /= length);
    }
    let scale = norms.iter().sum::<f64>() / n as f64;
    mean.into_iter().map(|factor| factor * scale).collect()
}

/// model_stock: how far to go from the base towards the average of the others, by the mean cosine between their task
/// vectors (arXiv:2403.19522). Every operation is a step.
pub fn model_stock<A: Arithmetic>(gram: &Gram) -> f64 {
    /// Smallest product of norms that is divided by.
    const SMALLEST: f64 = 1e-6;
    let step = |value: f64| if A::STEPS { A::stepped(value) } else { value };
    let held = |value: f64| if A::STEPS { A::held(value) } else { value };
    let n = gram.len();
    let mut cosines = Vec::new();
    for left in 0..n {
        for right in left + 1..n {
            let norms = step(step(gram.norm(left)) * step(gram.norm(right))).max(step(SMALLEST));
            cosines.push(step(step(gram.0[left][right]) / norms).clamp(-1.0, 1.0));
        }
    }
    let sum = cosines.iter().fold(0.0, |sum, cos| held(sum + cos));
    let cos = step(sum / cosines.len().max(1) as f64);
    let n = n as f64;
    let divisor = step(1.0 + step((n - 1.0) * cos));
    if divisor.abs() < step(SMALLEST) { 0.0 } else { step(step(n * cos) / divisor) }
}

/// `y = sum c_i x_i`, or `y = b + sum c_i (x_i - b)`. Steps: the differences, the coefficients, the products, the sum.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    has_base: bool,
    coefficients: Vec<A::Real>,
}

impl<A: Arithmetic> Kernel<A> {
    /// With a base it is input 0.
    pub fn new(has_base: bool, coefficients: &[f64]) -> Self {
        Self { has_base, coefficients: coefficients.iter().map(|factor| A::step_wide(*factor)).collect() }
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, out: &mut [A::Real]) {
        out.fill(A::Real::of(0.0));
        for (index, factor) in self.coefficients.iter().enumerate() {
            let x = block.input(index + usize::from(self.has_base));
            if self.has_base {
                for ((sum, x), base) in out.iter_mut().zip(x).zip(block.input(0)) {
                    *sum = *sum + A::step(*factor * A::step(*x - *base));
                }
            } else {
                out.iter_mut().zip(x).for_each(|(sum, x)| *sum = *sum + A::step(*factor * *x));
            }
        }
        if self.has_base {
            out.iter_mut().zip(block.input(0)).for_each(|(sum, base)| *sum = *base + A::step(*sum));
        }
    }
}
