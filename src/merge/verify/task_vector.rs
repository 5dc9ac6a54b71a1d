//! The methods that add up task vectors: the family of [`TaskVector`], sce and ram.

use candle_core::{DType, Device, Result, Tensor};

use super::oracle::{Operands, Outcome, magnitudes, sum, weighted};
use crate::merge::method::stream::threshold;
use crate::merge::method::{Sparsity, TaskVector, UniqueScale};

/// `y = b + lambda (sum m_j w_j delta_j) / D`: see `method::task_vector`.
pub fn task_vector(x: &Operands, parameters: &TaskVector) -> Result<Outcome> {
    let (base, models) = (&x.inputs[0], &x.inputs[1..]);
    if models.is_empty() {
        return Outcome::copy(base);
    }
    let mut near = no(base)?;
    let mut votes = Vec::new();
    for (model, task) in models.iter().zip(&parameters.models) {
        let (delta, tipped) = thinned(x, &(model - base)?, task.sparsity, parameters.rescale)?;
        near = either(&near, &tipped)?;
        votes.push((delta * task.weight)?);
    }
    let weights: Vec<f64> = parameters.models.iter().map(|task| task.weight).collect();
    let (members, tipped) = if parameters.consensus { elect(x, &votes)? } else { everyone(&votes)? };
    near = either(&near, &tipped)?;

    let members_votes: Vec<Tensor> = members.iter().zip(&votes).map(|(m, vote)| m * vote).collect::<Result<_>>()?;
    let ones = vec![1.0; weights.len()];
    let mut change = weighted(&ones, &members_votes)?;
    let mut terms = magnitudes(&ones, &members_votes)?;
    if parameters.normalize {
        let divisor = weighted(&weights, &members)?;
        let magnitude = magnitudes(&weights, &members)?;
        // Without consensus the guard is against small sums, with it against zeros alone.
        let smallest = if parameters.consensus { 0.0 } else { 1e-8 };
        let guarded = if parameters.consensus { divisor.eq(0.0)? } else { divisor.abs()?.lt(smallest)? };
        let off = (&magnitude * rounding(x, weights.len()))?;
        let close = ((divisor.abs()? - smallest)?.abs()?.le(&off)? * magnitude.gt(0.0)?)?;
        near = either(&near, &close)?;
        let divisor = guarded.where_cond(&base.ones_like()?, &divisor)?;
        // What is known of the divisor is relative to the weights in it, not to their sum.
        let known = (magnitude / divisor.abs()?)?.maximum(1.0)?;
        terms = ((terms / divisor.abs()?)? * known)?;
        change = (change / divisor)?;
    }
    let values = (base + (change * parameters.lambda)?)?;
    Ok(Outcome { values, terms: (base.abs()? + terms * parameters.lambda.abs())?, near: Some(near) })
}

/// `y = b + (sum m_j omega_j delta_j) / max(sum m_j omega_j, 1e-6)` with omega_j the share of energy of what is left of
/// delta_j after selection by variance.
pub fn sce(x: &Operands, select_topk: f64) -> Result<Outcome> {
    let (base, models) = (&x.inputs[0], &x.inputs[1..]);
    if models.is_empty() {
        return Outcome::copy(base);
    }
    let mut deltas: Vec<Tensor> = models.iter().map(|model| model - base).collect::<Result<_>>()?;
    let mut near = no(base)?;
    if select_topk < 1.0 {
        let (selected, tipped) = select(x, models, &deltas, select_topk)?;
        deltas = deltas.iter().map(|delta| kept(&selected, delta)).collect::<Result<_>>()?;
        near = tipped;
    }
    let (members, tipped) = elect(x, &deltas)?;
    let energies: Vec<f64> = deltas.iter().map(|delta| delta.sqr()?.mean_all()?.to_scalar()).collect::<Result<_>>()?;
    let total: f64 = energies.iter().sum();
    let share = |energy: &f64| if total < 1e-6 { 1.0 / energies.len() as f64 } else { energy / total };
    let weights: Vec<f64> = energies.iter().map(share).collect();
    let votes: Vec<Tensor> = members.iter().zip(&deltas).map(|(m, delta)| m * delta).collect::<Result<_>>()?;
    let divisor = weighted(&weights, &members)?.maximum(1e-6)?;
    let values = (base + weighted(&weights, &votes)? / &divisor)?;
    let terms = (base.abs()? + magnitudes(&weights, &votes)? / &divisor)?;
    Ok(Outcome { values, terms, near: Some(either(&near, &tipped)?) })
}

/// The elements of largest variance over the models, and those that rounding could move over the cut.
fn select(x: &Operands, models: &[Tensor], deltas: &[Tensor], share: f64) -> Result<(Tensor, Tensor)> {
    let n = models.len() as f64;
    // The mean square of all differences between two models: exactly zero where all agree, whatever the base.
    let pairs = (0..models.len()).flat_map(|i| (0..i).map(move |j| (&models[i] - &models[j])?.sqr()));
    let variance = (sum(pairs, &models[0])? / (n * n))?;
    let values = variance.to_vec1::<f64>()?;
    let varying = values.iter().filter(|value| **value != 0.0).count();
    let count = ((share as f32 * varying as f32).max(0.0) as usize).min(varying);
    let order = descending(&values);
    let mut selected = vec![0u8; values.len()];
    order[..count].iter().for_each(|index| selected[*index] = 1);
    let selected = Tensor::from_vec(selected, values.len(), &Device::Cpu)?;
    if count == 0 {
        return Ok((selected, no(&variance)?));
    }
    let squares = sum(deltas.iter().map(Tensor::sqr), &deltas[0])?;
    let off = (squares * rounding(x, models.len()))?;
    let (low, high) = ((&variance - &off)?, (&variance + &off)?);
    let cut = |bound: &Tensor| {
        let values = bound.to_vec1::<f64>()?;
        Ok::<_, candle_core::Error>(values[descending(&values)[count - 1]])
    };
    let near = (high.ge(cut(&low)?)? * low.le(cut(&high)?)?)?;
    Ok((selected, near))
}

/// `y = b + delta` of the one model that changed an element, `b +` the mean of those that did where there are more; what
/// one alone changed is multiplied by `1 + r clip(shared / unique, 0, alpha)` for ramplus_tl.
pub fn ram(x: &Operands, epsilon: f64, unique: Option<UniqueScale>) -> Result<Outcome> {
    let (base, models) = (&x.inputs[0], &x.inputs[1..]);
    if models.is_empty() {
        return Outcome::copy(base);
    }
    let deltas: Vec<Tensor> = models.iter().map(|model| model - base).collect::<Result<_>>()?;
    let mut near = no(base)?;
    let mut changed = Vec::new();
    for delta in &deltas {
        let exact = delta.abs()?.gt(epsilon)?;
        let rounded = x.in_registers(delta)?.abs()?.gt(x.parameter(epsilon))?;
        near = either(&near, &exact.ne(&rounded)?)?;
        changed.push(exact.to_dtype(DType::F64)?);
    }
    let count = sum(changed.iter().cloned().map(Ok), base)?;
    let (alone, shared) = (count.eq(1.0)?.to_dtype(DType::F64)?, count.gt(1.0)?.to_dtype(DType::F64)?);
    let mut change = base.zeros_like()?;
    let mut terms = base.abs()?;
    // PyTorch's clamp, which lets an upper bound below the lower one win.
    let clamped = |ratio: f64, most: f64| ratio.max(0.0).min(most);
    for (changed, delta) in changed.iter().zip(&deltas) {
        let number = |of: &Tensor| (changed * of)?.sum_all()?.to_scalar::<f64>();
        let factor = match unique {
            Some(scale) => 1.0 + scale.r * clamped(number(&shared)? / number(&alone)?.max(epsilon), scale.alpha),
            None => 1.0,
        };
        let part = ((&alone * factor)? + &shared / count.maximum(1.0)?)?;
        let part = (part * changed * delta)?;
        terms = (terms + part.abs()?)?;
        change = (change + part)?;
    }
    Ok(Outcome { values: (base + change)?, terms, near: Some(near) })
}

/// What stays of a task vector, and the elements that would change sides if it were rounded to what kernels compute in.
fn thinned(x: &Operands, delta: &Tensor, sparsity: Sparsity, rescale: bool) -> Result<(Tensor, Tensor)> {
    if sparsity == Sparsity::Everything {
        return Ok((delta.clone(), no(delta)?));
    }
    let mask = |delta: &Tensor| {
        let mask = mask(&delta.to_vec1::<f64>()?, sparsity, x.row_len());
        Tensor::from_vec(mask, delta.elem_count(), &Device::Cpu)
    };
    let exact = mask(delta)?;
    let near = exact.ne(&mask(&x.in_registers(delta)?)?)?;
    let left = kept(&exact, delta)?;
    let norm = |of: &Tensor| of.abs()?.sum_all()?.to_scalar::<f64>();
    let (before, after) = (norm(delta)?, norm(&left)?);
    let factor = if rescale && before >= 1e-7 && after >= 1e-7 { before / after } else { 1.0 };
    Ok(((left * factor)?, near))
}

/// 1 for every element that stays.
fn mask(delta: &[f64], sparsity: Sparsity, row_len: usize) -> Vec<u8> {
    let n = delta.len();
    let share = |share: f64| ((share * n as f64) as usize).min(n);
    let mut mask = vec![0; n];
    match sparsity {
        Sparsity::Everything => mask.fill(1),
        Sparsity::Nothing => {}
        Sparsity::Magnitude { density } => {
            descending_magnitudes(delta)[..share(density).max(1).min(n)].iter().for_each(|index| mask[*index] = 1);
        }
        Sparsity::Outliers { density, gamma } => {
            let count = share(density);
            let bottom = (n - count).saturating_sub(share(gamma));
            ascending_magnitudes(delta)[bottom..bottom + count].iter().for_each(|index| mask[*index] = 1);
        }
        Sparsity::Random { density, stream } => {
            stream.for_hits(0, n, threshold(density), |range, bits| {
                for (index, kept) in mask[range].iter_mut().enumerate() {
                    *kept = u8::from(bits >> index & 1 == 1);
                }
            });
        }
        Sparsity::Magprune { density, epsilon, stream } => {
            let mut thresholds = vec![0; n];
            for (delta, thresholds) in delta.chunks(row_len).zip(thresholds.chunks_mut(row_len)) {
                for (rank, index) in ascending_magnitudes(delta).into_iter().enumerate() {
                    let share = rank as f64 / (row_len - 1).max(1) as f64;
                    thresholds[index] = threshold(density - epsilon + 2.0 * epsilon * share);
                }
            }
            stream.for_batches(0, n, |range, numbers| {
                for ((kept, number), threshold) in mask[range.clone()].iter_mut().zip(numbers).zip(&thresholds[range]) {
                    *kept = u8::from(u64::from(*number) < *threshold);
                }
            });
        }
    }
    mask
}

/// Positions from the largest value to the smallest; of equal ones the earlier comes first.
fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

fn descending_magnitudes(values: &[f64]) -> Vec<usize> {
    descending(&values.iter().map(|value| value.abs()).collect::<Vec<f64>>())
}

/// Positions from the smallest magnitude to the largest; of equal ones the earlier comes first.
fn ascending_magnitudes(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
    order
}

/// Which votes have the sign of their sum (a sum of zero elects the positive), and where rounding could tip the sum.
fn elect(x: &Operands, votes: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
    let ones = vec![1.0; votes.len()];
    let (sum, total) = (weighted(&ones, votes)?, magnitudes(&ones, votes)?);
    let positive = sum.ge(0.0)?;
    let member = |vote: &Tensor| positive.where_cond(&vote.gt(0.0)?, &vote.lt(0.0)?)?.to_dtype(DType::F64);
    let near = (sum.abs()?.le(&(&total * rounding(x, votes.len()))?)? * total.gt(0.0)?)?;
    Ok((votes.iter().map(member).collect::<Result<_>>()?, near))
}

fn everyone(votes: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
    Ok((votes.iter().map(Tensor::ones_like).collect::<Result<_>>()?, no(&votes[0])?))
}

/// How far a sum of so many products may be off in registers, relative to the sum of their magnitudes: a rounding for
/// every addition, and one each for difference, weight, product and factor.
fn rounding(x: &Operands, n_terms: usize) -> f64 {
    x.roundoff * (n_terms as f64 + 4.0)
}

/// The values where the mask has 1, and zeros: also in the place of what is no number.
fn kept(mask: &Tensor, values: &Tensor) -> Result<Tensor> {
    mask.where_cond(values, &values.zeros_like()?)
}

fn no(like: &Tensor) -> Result<Tensor> {
    Tensor::zeros(like.elem_count(), DType::U8, &Device::Cpu)
}

fn either(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.maximum(b)
}
