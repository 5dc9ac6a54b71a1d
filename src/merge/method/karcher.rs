//! karcher step by step, as mergekit computes it: see [`super::multislerp`] for why it is not a linear combination then.
//! Every pass makes the vectors again from the inputs, through all rounds so far.
//!
//! With unit vectors `u_i = x_i / |x_i|` of the inputs whose norm is above `tol`, the mean starts as their normalised
//! average and moves, round by round, along `T = sum a theta_i / sin theta_i (u_i - (u_i mean) mean)`:
//! `mean = cos |T| mean + sin |T| (T / |T|)`, normalised. Steps are the operations on tensors, dot products and angles; norms
//! are 32-bit numbers, of which a factor in front of a tensor is rounded like one of its elements and a divisor is not.

use super::Block;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::inputs::pair_sum;
use crate::merge::real::Real;
use crate::merge::survey::{Sum, Survey, Vector};
use crate::merge::vector::vectorised;

/// Ready to be applied block by block, or as far as that is known.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    /// Numbers of the inputs that have a direction, and their norms.
    members: Vec<(usize, A::Real)>,
    start: Start<A::Real>,
    rounds: Vec<Round<A::Real>>,
    scale: A::Real,
}

/// Where the mean starts.
#[derive(Debug)]
enum Start<R> {
    /// At the average of the unit vectors, by their share in it and its norm.
    Average { share: R, length: R },
    /// At the first of them, where they cancel out.
    First,
}

/// One move of the mean.
#[derive(Debug)]
struct Round<R> {
    /// For every member: its part along the mean and the factor of the rest of it, if it is not at the mean already.
    pulls: Vec<Option<[R; 2]>>,
    /// Of the mean, then of the tangent.
    cos: R,
    sin: R,
    /// Norm of the tangent.
    angle: R,
    /// Norm of their sum.
    length: R,
}

/// The sums of whole vectors that it needs.
pub fn sums<R: Real>(inputs: &[usize]) -> Vec<Sum<R>> {
    inputs.iter().map(|input| Sum::square(Vector::of(*input))).collect()
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes norms and dot products, round after round.
    pub fn new(max_iter: usize, tol: f64, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let one = A::Real::of(1.0);
        let norms: Vec<f64> =
            inputs.iter().map(|input| A::held(survey.sum(&Sum::square(Vector::of(*input))).sqrt())).collect();
        // A norm that is NaN counts: what it stands for must not vanish.
        let counts = |norm: f64| norm > tol || norm.is_nan();
        let members: Vec<(usize, A::Real)> =
            inputs.iter().zip(&norms).filter(|(_, n)| counts(**n)).map(|(i, n)| (*i, A::Real::of(*n))).collect();
        let share = A::held(1.0 / inputs.len() as f64);
        let scale = norms.iter().fold(0.0, |sum, norm| A::held(sum + A::held(norm * share)));
        let share = A::Real::of(1.0 / members.len().max(1) as f64);
        let start = Start::Average { share, length: one };
        let mut kernel = Self { members, start, rounds: Vec::new(), scale: A::step_wide(scale) };
        if kernel.members.is_empty() {
            return kernel;
        }
        let square = kernel.measure(inputs, survey, |mean, _| vec![pair_sum(mean, mean, product)]);
        let length = A::held(sum_of(&square).sqrt());
        kernel.start = if length < tol { Start::First } else { Start::Average { share, length: A::Real::of(length) } };
        for _ in 0..max_iter {
            let dots = kernel.measure(inputs, survey, |mean, units| {
                units.iter().map(|unit| pair_sum(mean, unit, product)).collect()
            });
            // The walk was stopped, and so is the merge.
            if dots.is_empty() {
                break;
            }
            let pulls = dots.into_iter().map(|dot| pull::<A>(dot, share.wide(), tol)).collect();
            kernel.rounds.push(Round { pulls, cos: A::Real::of(0.0), sin: one, angle: one, length: one });
            // As it stands, the round leaves the tangent in place of the mean.
            let square = kernel.measure(inputs, survey, |mean, _| vec![pair_sum(mean, mean, product)]);
            let angle = A::held(sum_of(&square).sqrt());
            if angle < tol {
                kernel.rounds.pop();
                break;
            }
            if let Some(round) = kernel.rounds.last_mut() {
                let [cos, sin] = [angle.cos(), angle.sin()].map(A::step_wide);
                *round =
                    Round { cos, sin, angle: A::Real::of(angle), length: one, pulls: std::mem::take(&mut round.pulls) };
            }
            let square = kernel.measure(inputs, survey, |mean, _| vec![pair_sum(mean, mean, product)]);
            if let Some(round) = kernel.rounds.last_mut() {
                round.length = A::Real::of(A::held(sum_of(&square).sqrt()));
            }
        }
        kernel
    }

    /// Buffers that [`Kernel::apply`] works in.
    pub fn n_scratch(&self) -> usize {
        self.members.len() + 2
    }

    /// One block.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, scratch: &mut [Vec<A::Real>], out: &mut [A::Real]) {
        let Some((units, [mean, tangent])) = scratch.split_last_chunk_mut() else { return };
        let units = &mut units[..self.members.len()];
        if units.is_empty() {
            out.fill(A::Real::of(0.0));
            return;
        }
        self.mean(block.blocks, units, mean, tangent);
        out.iter_mut().zip(mean).for_each(|(y, mean)| *y = self.scale * *mean);
    }

    /// The mean after all rounds.
    #[inline(always)]
    fn mean(
        &self,
        blocks: &[Vec<A::Real>],
        units: &mut [Vec<A::Real>],
        mean: &mut Vec<A::Real>,
        tangent: &mut Vec<A::Real>,
    ) {
        let zero = A::Real::of(0.0);
        for ((input, norm), unit) in self.members.iter().zip(&mut *units) {
            unit.clear();
            unit.extend(blocks[*input].iter().map(|x| A::step(*x / *norm)));
        }
        [&mut *mean, &mut *tangent].into_iter().for_each(|buffer| buffer.resize(units[0].len(), zero));
        match self.start {
            Start::First => mean.copy_from_slice(&units[0]),
            Start::Average { share, length } => {
                mean.fill(zero);
                for unit in &*units {
                    mean.iter_mut().zip(unit).for_each(|(sum, u)| *sum = A::step(*sum + A::step(*u * share)));
                }
                mean.iter_mut().for_each(|mean| *mean = A::step(*mean / length));
            }
        }
        for Round { pulls, cos, sin, angle, length } in &self.rounds {
            tangent.fill(zero);
            for (unit, pull) in units.iter().zip(pulls) {
                let Some([along, factor]) = pull else { continue };
                for ((sum, u), mean) in tangent.iter_mut().zip(unit).zip(&*mean) {
                    let rest = A::step(*u - A::step(*along * *mean));
                    *sum = A::step(*sum + A::step(*factor * rest));
                }
            }
            for (mean, tangent) in mean.iter_mut().zip(&*tangent) {
                let sum = A::step(*cos * *mean) + A::step(*sin * A::step(*tangent / *angle));
                *mean = A::step(A::step(sum) / *length);
            }
        }
    }

    /// Sums of what `terms` makes of the mean and the unit vectors of every block.
    fn measure(
        &self,
        inputs: &[usize],
        survey: &Survey<'_, A>,
        terms: impl Fn(&[A::Real], &[Vec<A::Real>]) -> Vec<f64> + Sync,
    ) -> Vec<f64> {
        let step = |sums: &mut Vec<f64>, _: usize, blocks: &[Vec<A::Real>], scratch: &mut [Vec<A::Real>]| {
            vectorised(|| {
                let Some((units, [mean, tangent])) = scratch.split_last_chunk_mut() else { return };
                self.mean(blocks, units, mean, tangent);
                let terms = terms(mean, units);
                sums.resize(terms.len(), 0.0);
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            });
        };
        let pieces = survey.inputs.fold::<A::Real, Vec<f64>>(inputs, self.n_scratch(), Vec::new, step);
        let n = pieces.iter().map(Vec::len).max().unwrap_or_default();
        let at = |index: usize| pieces.iter().filter_map(|piece| piece.get(index)).sum();
        (0..n).map(at).collect()
    }
}

/// The only sum there is; none where the walk was stopped.
fn sum_of(sums: &[f64]) -> f64 {
    sums.first().copied().unwrap_or_default()
}

fn product<R: Real>(x: R, y: R) -> f64 {
    x.wide() * y.wide()
}

/// How a member pulls the mean, from their dot product.
fn pull<A: Arithmetic>(dot: f64, share: f64, tol: f64) -> Option<[A::Real; 2]> {
    let step = A::stepped;
    let dot = step(dot).clamp(-1.0, 1.0);
    let angle = step(dot.acos());
    if angle < tol {
        return None;
    }
    let factor = step(step(angle / step(angle.sin())) * share);
    Some([dot, factor].map(A::Real::of))
}
