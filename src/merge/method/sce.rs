//! sce (FuseChat, arXiv:2408.07990): *select* the elements whose task vectors vary most between the models, *calculate*
//! a weight for every model from the mean square of what is left of its task vector, *erase* what goes against the
//! elected sign.
//!
//! `y = b + sum m_j omega_j delta_j / max(sum m_j omega_j, 1e-6)`, with m_j as in [`super::task_vector`] and
//! `omega_j = mean(delta_j^2) / sum_i mean(delta_i^2)`, equal where the sum is below 1e-6. The variance is that of the
//! population; of the elements that vary at all, `floor(select_topk * count)` stay, the earlier of equal ones (in mergekit's
//! numerics those that its selection leaves: [`introsort`]). Steps: the differences, their squares, the means and their
//! sum, the weights, the products, the sums.

use std::sync::Arc;

use super::Block;
use super::mask::Mask;
use super::task_vector;
use crate::merge::arithmetic::Arithmetic;
use crate::merge::followed::Followed;
use crate::merge::inputs::pair_sum;
use crate::merge::introsort;
use crate::merge::real::Real;
use crate::merge::select::Keys;
use crate::merge::survey::{Survey, Vector};
use crate::merge::vector::vectorised;

const SMALLEST: f64 = 1e-6;

type KeyOf<A> = <<A as Arithmetic>::Real as Real>::Key;

type VarianceKeys<'a, A, F> = Keys<'a, <A as Arithmetic>::Real, F>;

/// Ready to be applied block by block.
#[derive(Debug)]
pub struct Kernel<A: Arithmetic> {
    /// Of the variance.
    mask: Mask<A::Real>,
    weights: Vec<A::Real>,
}

/// Variance over the models of every element's change, as the mean square of all differences between two models: it is
/// zero exactly where all agree, which is what counts as varying. The variance is a step.
#[inline(always)]
fn variances<A: Arithmetic>(inputs: &[usize], blocks: &[Vec<A::Real>], out: &mut Vec<A::Real>) {
    let (base, models) = (&blocks[inputs[0]], &inputs[1..]);
    let squared_count = A::Real::of((models.len() * models.len()) as f64);
    let len = base.len();
    if A::STEPS {
        // Welford's running variance in 64 bits, which is PyTorch's.
        out.clear();
        out.extend((0..len).map(|index| {
            let (mut mean, mut squares) = (0.0, 0.0);
            for (number, model) in models.iter().enumerate() {
                let delta = A::step(blocks[*model][index] - base[index]).wide();
                let off = delta - mean;
                mean += off / (number + 1) as f64;
                squares += off * (delta - mean);
            }
            A::step_wide(squares / models.len() as f64)
        }));
        return;
    }
    let delta = |model: usize, index: usize| A::step(blocks[model][index] - base[index]);
    out.clear();
    out.extend((0..len).map(|index| {
        let mut sum = A::Real::of(0.0);
        for (number, model) in models.iter().enumerate() {
            for other in &models[..number] {
                let difference = delta(*model, index) - delta(*other, index);
                sum = sum + difference * difference;
            }
        }
        A::step(sum / squared_count)
    }));
}

impl<A: Arithmetic> Kernel<A> {
    /// Takes variances and energies. Input 0 is the base.
    pub fn new(select_topk: f64, inputs: &[usize], survey: &Survey<'_, A>) -> Self {
        let vectors: Vec<Vector> = task_vector::vectors(inputs).collect();
        let mask = if select_topk >= 1.0 || vectors.is_empty() {
            Mask::Everything
        } else {
            selection(select_topk, inputs, survey)
        };
        let n = survey.inputs.len() as f64;
        let pieces = survey.inputs.fold::<A::Real, Vec<f64>>(
            inputs,
            2,
            || vec![0.0; vectors.len()],
            |sums, start, blocks, scratch| {
                vectorised(|| {
                    let [kept, delta] = scratch else { return };
                    keep::<A>(&mask, inputs, start, blocks, delta, kept);
                    for (sum, vector) in sums.iter_mut().zip(&vectors) {
                        vector.fill::<A>(blocks, delta);
                        *sum += if A::STEPS {
                            pair_sum(delta, kept, |delta, kept| A::step(delta * kept * (delta * kept)).wide())
                        } else {
                            pair_sum(delta, kept, |delta, kept| (delta * kept).wide().powi(2))
                        };
                    }
                });
            },
        );
        let held = |value: f64| if A::STEPS { A::held(value) } else { value };
        let energy = |model: usize| held(pieces.iter().map(|piece| piece[model]).sum::<f64>()) / n;
        let energies: Vec<f64> = (0..vectors.len()).map(energy).map(A::stepped).collect();
        let total = energies.iter().fold(0.0, |sum, energy| held(sum + energy));
        let total = if A::STEPS { A::stepped(total) } else { total };
        let weight = |energy: f64| if total < SMALLEST { 1.0 / energies.len() as f64 } else { energy / total };
        Self { mask, weights: energies.iter().map(|energy| A::step_wide(weight(*energy))).collect() }
    }

    /// Buffers that [`Kernel::apply`] works in.
    pub fn n_scratch(&self) -> usize {
        self.weights.len() + 3
    }

    /// One block. Input 0 is the base.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, scratch: &mut [Vec<A::Real>], out: &mut [A::Real]) {
        let (zero, one, smallest) = (A::Real::of(0.0), A::Real::of(1.0), A::step_wide(SMALLEST));
        let Some((deltas, [kept, signs, divisors])) = scratch.split_last_chunk_mut::<3>() else { return };
        if block.inputs.len() == 1 {
            out.copy_from_slice(block.input(0));
            return;
        }
        keep::<A>(&self.mask, block.inputs, block.start, block.blocks, signs, kept);
        out.fill(zero);
        for (vector, delta) in task_vector::vectors(block.inputs).zip(&mut *deltas) {
            vector.fill::<A>(block.blocks, delta);
            for ((sum, delta), kept) in out.iter_mut().zip(delta).zip(&*kept) {
                *delta = *delta * *kept;
                *sum = *sum + *delta;
            }
        }
        signs.clear();
        signs.extend(out.iter().map(|sum| if A::step(*sum) >= zero { one } else { -one }));
        divisors.clear();
        divisors.resize(out.len(), zero);
        out.fill(zero);
        for (weight, delta) in self.weights.iter().zip(deltas) {
            for (((sum, divisor), sign), delta) in out.iter_mut().zip(&mut *divisors).zip(&*signs).zip(&*delta) {
                let agrees = *delta * *sign > zero;
                *sum = *sum + if agrees { A::step(*delta * *weight) } else { zero };
                *divisor = *divisor + if agrees { *weight } else { zero };
            }
        }
        for ((sum, divisor), base) in out.iter_mut().zip(divisors).zip(block.input(0)) {
            let divisor = A::step(*divisor);
            let divisor = if divisor < smallest { smallest } else { divisor };
            *sum = *base + A::step(A::step(*sum) / divisor);
        }
    }
}

/// 1 for every element that stays, 0 for every other.
#[inline(always)]
fn keep<A: Arithmetic>(
    mask: &Mask<A::Real>,
    inputs: &[usize],
    start: usize,
    blocks: &[Vec<A::Real>],
    scratch: &mut Vec<A::Real>,
    kept: &mut Vec<A::Real>,
) {
    let (zero, one) = (A::Real::of(0.0), A::Real::of(1.0));
    variances::<A>(inputs, blocks, scratch);
    kept.resize(scratch.len(), zero);
    match mask {
        Mask::Everything => kept.fill(one),
        mask => {
            mask.apply::<A>(start, scratch, kept, one);
            kept.iter_mut().for_each(|value| *value = if *value > zero { one } else { zero });
        }
    }
}

/// The largest `kept` as PyTorch's `topk` chooses them, where the last of them equal others: at the magnitude `cut`.
fn unstable<A: Arithmetic, F>(keys: &VarianceKeys<'_, A, F>, cut: KeyOf<A>, kept: usize) -> Option<Mask<A::Real>>
where
    F: Fn(usize, &[Vec<A::Real>], usize, &mut Vec<KeyOf<A>>) + Sync,
{
    let short = |key| A::short_key(A::Real::from_magnitude_key(key));
    if let Some(short_cut) = short(cut) {
        let followed = Followed::new(keys.in_16_bits(0, |key| short(key).unwrap_or_default())?, &[short_cut]);
        let at_cut = followed.top(kept, |left, right| left > right);
        let mut bits = keys.bits(0, |key| key > cut);
        at_cut.into_iter().for_each(|position| bits[position as usize / 64] |= 1 << (position % 64));
        return Some(Mask::Bits(Arc::new(bits)));
    }
    let mut pairs = keys.with_positions(0)?;
    introsort::top(&mut pairs, kept, |left, right| left.0 > right.0);
    Some(Mask::at(pairs.len(), pairs[..kept].iter().map(|(_, position)| *position)))
}

fn selection<A: Arithmetic>(share: f64, inputs: &[usize], survey: &Survey<'_, A>) -> Mask<A::Real> {
    let pieces = survey.inputs.fold::<A::Real, u64>(
        inputs,
        1,
        || 0,
        |count, _, blocks, scratch| {
            let Some(variance) = scratch.first_mut() else { return };
            vectorised(|| variances::<A>(inputs, blocks, variance));
            *count += variance.iter().filter(|value| **value != A::Real::of(0.0)).count() as u64;
        },
    );
    let varying: u64 = pieces.iter().sum();
    let n = survey.inputs.len() as u64;
    // A 32-bit product, as in PyTorch: how many stay must not hang on the numerics. The cast to an integer saturates, so
    // that negative shares give 0.
    let kept = ((share as f32 * varying as f32) as u64).min(varying);
    if kept == 0 {
        return Mask::Nothing;
    }
    let fill = |_: usize, blocks: &[Vec<A::Real>], _: usize, out: &mut Vec<<A::Real as Real>::Key>| {
        let mut variance = Vec::new();
        vectorised(|| variances::<A>(inputs, blocks, &mut variance));
        out.clear();
        out.extend(variance.iter().map(|value| value.magnitude_key()));
    };
    let keys = Keys::<A::Real, _>::new(survey.inputs, inputs, fill);
    let found = keys.at(&[vec![n - kept]]);
    let Some(cut) = found.first().and_then(|found| found.first()) else { return Mask::Nothing };
    let taken = cut.below + cut.n_equal() - (n - kept);
    if A::STEPS
        && taken < cut.n_equal()
        && let Some(mask) = unstable::<A, _>(&keys, cut.key, kept as usize)
    {
        return mask;
    }
    let low_at = 0..keys.position(0, cut, taken);
    let low = A::Real::from_magnitude_key(cut.key);
    Mask::Between { low, low_at, high: A::Real::of(f64::INFINITY), high_at: 0..usize::MAX }
}
