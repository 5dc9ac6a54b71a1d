//! The expected tensor of a recipe: every method a second time, on whole tensors, with candle's operations in f64.
//!
//! Shares no arithmetic with `method`: only the random numbers are the same, and an adapter is applied by the same code.
//! Written to be compared with the formulas of mergekit at a glance, not to be fast or small: a tensor takes 8 bytes an
//! element for every input and a dozen intermediate results.
//!
//! Beside the value of an element stand two things without which a difference cannot be judged. Its *terms*: the sum of
//! the magnitudes that were added to make it, since a 32-bit sum is known to that much and no better. And whether it is
//! *near* a comparison (a cut, an elected sign, a threshold) that 32-bit rounding may decide the other way.

use candle_core::{DType, Device, Result, Tensor};

use super::sphere;
use super::task_vector;
use super::{Expected, VerifyError};
use crate::config::Dtype;
use crate::merge::method::Operation;
use crate::merge::recipe::{Recipe, RecipeInput};
use crate::merge::rows::{Place, Row};
use crate::merge::source::Source;

/// The inputs of an operation, each flattened and in f64, after the cast to the working dtype.
#[derive(Debug)]
pub struct Operands {
    /// In the order of the recipe.
    pub inputs: Vec<Tensor>,
    /// Shape of each before it was flattened.
    pub shape: Vec<usize>,
    /// What the kernels compute in: the smallest relative step of a rounding there.
    pub roundoff: f64,
}

/// An expected tensor, flattened, with what is needed to judge a difference from it.
#[derive(Debug)]
pub struct Outcome {
    /// The values.
    pub values: Tensor,
    /// Sums of the magnitudes that went into them.
    pub terms: Tensor,
    /// 1 where a comparison is closer than rounding, if there is any comparison.
    pub near: Option<Tensor>,
}

impl Outcome {
    /// A result that no comparison decides.
    pub fn plain(values: Tensor, terms: Tensor) -> Self {
        Self { values, terms, near: None }
    }

    /// A copy of a tensor.
    pub fn copy(of: &Tensor) -> Result<Self> {
        Ok(Self::plain(of.clone(), of.abs()?))
    }
}

impl Operands {
    /// The base, where there is one, and the other inputs.
    pub fn split(&self, has_base: bool) -> (Option<&Tensor>, &[Tensor]) {
        match self.inputs.split_first() {
            Some((base, models)) if has_base => (Some(base), models),
            _ => (None, &self.inputs),
        }
    }

    /// Elements of a row along the last axis.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// What a kernel holds in its registers for these exact values.
    pub fn in_registers(&self, exact: &Tensor) -> Result<Tensor> {
        if self.is_double() { Ok(exact.clone()) } else { exact.to_dtype(DType::F32)?.to_dtype(DType::F64) }
    }

    /// What a kernel holds for this parameter.
    pub fn parameter(&self, exact: f64) -> f64 {
        if self.is_double() { exact } else { f64::from(exact as f32) }
    }

    fn is_double(&self) -> bool {
        self.roundoff < F32_ROUNDOFF
    }
}

const F32_ROUNDOFF: f64 = 1.0 / (1u64 << 24) as f64;
const F64_ROUNDOFF: f64 = 1.0 / (1u64 << 53) as f64;

/// Computes a recipe.
///
/// # Errors
/// [`VerifyError`] where an input is missing or candle refuses an operation.
pub fn oracle(recipe: &Recipe, sources: &[Source]) -> std::result::Result<Expected, VerifyError> {
    if recipe.n_elements() == 0 {
        return Ok(Expected { values: Vec::new(), terms: Vec::new(), near: Vec::new() });
    }
    let mut inputs: Vec<Tensor> =
        recipe.inputs.iter().map(|input| read(recipe, input, sources)).collect::<std::result::Result<_, _>>()?;
    if recipe.is_laid_out() {
        inputs = laid_out(recipe, &inputs)
            .map_err(|source| VerifyError::Candle { tensor: recipe.name.clone(), source: Box::new(source) })?;
    }
    let roundoff = if recipe.working == Dtype::F64 { F64_ROUNDOFF } else { F32_ROUNDOFF };
    let operands = Operands { inputs, shape: recipe.shape.clone(), roundoff };
    let computed = outcome(&recipe.operation, &operands).and_then(|outcome| {
        let near = match outcome.near {
            Some(near) => near.to_vec1::<u8>()?.into_iter().map(|near| near != 0).collect(),
            None => vec![false; recipe.n_elements()],
        };
        Ok(Expected { values: outcome.values.to_vec1()?, terms: outcome.terms.to_vec1()?, near })
    });
    computed.map_err(|source| VerifyError::Candle { tensor: recipe.name.clone(), source: Box::new(source) })
}

fn read(recipe: &Recipe, input: &RecipeInput, sources: &[Source]) -> std::result::Result<Tensor, VerifyError> {
    let source = &sources[input.source];
    let missing = || VerifyError::Input {
        tensor: recipe.name.clone(),
        model: source.model.to_string(),
        input: input.tensor.clone(),
    };
    let tensor = source.checkpoint.tensor(&input.tensor).ok_or_else(missing)?;
    let stored = source.dtype(tensor).ok_or_else(missing)?;
    let bytes = source.bytes(&input.tensor, tensor)?;
    // A vocabulary may have been cut to its first rows; one that is laid out anew is needed whole.
    let bytes = match recipe.is_laid_out() {
        true => &bytes,
        false => bytes.get(..recipe.n_elements() * stored.size()).ok_or_else(missing)?,
    };
    cast(bytes, stored, recipe.working)
        .map_err(|source| VerifyError::Candle { tensor: recipe.name.clone(), source: Box::new(source) })
}

/// Inputs in the rows of another vocabulary; padding is the mean of all other rows.
fn laid_out(recipe: &Recipe, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let n_rows = recipe.shape.first().copied().unwrap_or_default();
    let len = recipe.n_elements() / n_rows.max(1);
    let tables = inputs.iter().map(|input| input.reshape(((), len))).collect::<Result<Vec<Tensor>>>()?;
    let at = |place: &Place| tables[place.input].get(place.row);
    let zero = || Tensor::zeros(len, DType::F64, &Device::Cpu);
    let lay_out = |(input, table): (&RecipeInput, &Tensor)| {
        let Some(rows) = &input.rows else { return table.narrow(0, 0, n_rows)?.flatten_all() };
        let row = |row: &Row| match row {
            Row::Zero => zero(),
            Row::At(place) => at(place),
            Row::Mean(places) => {
                let mean = (sum(places.iter().map(at), &zero()?)? / places.len() as f64)?;
                round(&mean, recipe.working)
            }
        };
        let mut rows = rows.iter().map(row).collect::<Result<Vec<Tensor>>>()?;
        if rows.len() < n_rows {
            let mean = round(&(sum(rows.iter().cloned().map(Ok), &zero()?)? / rows.len() as f64)?, recipe.working)?;
            rows.resize(n_rows, mean);
        }
        Tensor::stack(&rows, 0)?.flatten_all()
    };
    recipe.inputs.iter().zip(&tables).map(lay_out).collect()
}

/// Rounded to a working dtype.
fn round(values: &Tensor, working: Dtype) -> Result<Tensor> {
    let narrow = if working == Dtype::F64 { values.clone() } else { values.to_dtype(DType::F32)? };
    narrow.to_dtype(dtype(working))?.to_dtype(DType::F64)
}

fn cast(bytes: &[u8], stored: Dtype, working: Dtype) -> Result<Tensor> {
    let n = bytes.len() / stored.size();
    let read = Tensor::from_raw_buffer(bytes, dtype(stored), &[n], &Device::Cpu)?;
    // torch goes from double to the half formats through single.
    let read = if working == Dtype::F64 { read } else { read.to_dtype(DType::F32)? };
    read.to_dtype(dtype(working))?.to_dtype(DType::F64)
}

/// candle's name of a number format.
pub fn dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::Bf16 => DType::BF16,
        Dtype::F16 => DType::F16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
    }
}

fn outcome(operation: &Operation, x: &Operands) -> Result<Outcome> {
    match operation {
        Operation::Passthrough { scale: None } => Outcome::copy(&x.inputs[0]),
        Operation::Passthrough { scale: Some(scale) } => Outcome::copy(&(&x.inputs[0] * *scale)?),
        Operation::Linear { weights, normalize } => linear(x, weights, *normalize),
        Operation::Nearswap { t } => nearswap(x, *t),
        Operation::ArceeFusion => arcee_fusion(x),
        Operation::TaskVector(parameters) => task_vector::task_vector(x, parameters),
        Operation::Sce { select_topk } => task_vector::sce(x, *select_topk),
        Operation::Ram { epsilon, unique } => task_vector::ram(x, *epsilon, *unique),
        Operation::Slerp { t } => sphere::slerp(x, *t),
        Operation::Nuslerp { weights, has_base, axis } => sphere::nuslerp(x, *weights, *has_base, *axis),
        Operation::Multislerp { weights, has_base, normalize_weights, eps } => {
            sphere::multislerp(x, weights, *has_base, *normalize_weights, *eps)
        }
        Operation::Karcher { max_iter, tol } => sphere::karcher(x, *max_iter, *tol),
        Operation::ModelStock { filter_wise } => sphere::model_stock(x, *filter_wise),
    }
}

/// The sum of tensors, and zeros in the shape of `like` for none.
pub fn sum(terms: impl IntoIterator<Item = Result<Tensor>>, like: &Tensor) -> Result<Tensor> {
    terms.into_iter().try_fold(like.zeros_like()?, |sum, term| sum + term)
}

/// `sum w_i x_i`.
pub fn weighted(weights: &[f64], tensors: &[Tensor]) -> Result<Tensor> {
    sum(weights.iter().zip(tensors).map(|(weight, x)| x * *weight), &tensors[0])
}

/// `sum |w_i x_i|`.
pub fn magnitudes(weights: &[f64], tensors: &[Tensor]) -> Result<Tensor> {
    sum(weights.iter().zip(tensors).map(|(weight, x)| x.abs()? * weight.abs()), &tensors[0])
}

/// `y = sum w_i x_i`, over `sum w_i` if normalized.
fn linear(x: &Operands, weights: &[f64], normalize: bool) -> Result<Outcome> {
    let (sum, terms) = (weighted(weights, &x.inputs)?, magnitudes(weights, &x.inputs)?);
    if !normalize {
        return Ok(Outcome::plain(sum, terms));
    }
    let divisor: f64 = weights.iter().sum();
    // What is known of the divisor is relative to the weights in it, not to their sum.
    let known = weights.iter().map(|weight| weight.abs()).sum::<f64>() / divisor.abs();
    Ok(Outcome::plain((sum / divisor)?, (terms * (known / divisor.abs()))?))
}

/// `w = clip(t / max(|b - x|, 1e-6), 0, 1)`, `y = w x + (1 - w) b`.
fn nearswap(x: &Operands, t: f64) -> Result<Outcome> {
    let (base, other) = (&x.inputs[0], &x.inputs[1]);
    let distance = (base - other)?.abs()?.maximum(1e-6)?;
    let weight = (distance.recip()? * t)?.clamp(0.0, 1.0)?;
    let (theirs, ours) = ((&weight * other)?, (weight.affine(-1.0, 1.0)? * base)?);
    // 1 - w is off by a rounding of 1, however small it is itself.
    let terms = (theirs.abs()? + base.abs()?)?;
    Ok(Outcome::plain((theirs + ours)?, terms))
}

/// `y = c` where `|c - a| K >= threshold`, else `a`, with the divergence `K` of every row of `c` from that of `a`.
fn arcee_fusion(x: &Operands) -> Result<Outcome> {
    let (base, other) = (&x.inputs[0], &x.inputs[1]);
    let len = x.row_len();
    let rows = |flat: &Tensor| flat.reshape((flat.elem_count() / len, len));
    let probabilities = |flat: &Tensor| {
        let row = rows(flat)?;
        let powers = row.broadcast_sub(&row.max_keepdim(1)?)?.exp()?;
        powers.broadcast_div(&powers.sum_keepdim(1)?)? + 1e-8
    };
    let (p, q) = (probabilities(other)?, probabilities(base)?);
    let divergence = (&p * (&p / &q)?.log()?)?.sum_keepdim(1)?;
    let change = rows(&(other - base)?.abs()?)?;
    let importance = change.broadcast_mul(&divergence)?.flatten_all()?;
    let taken = importance.ge(threshold(&importance, &importance)?)?;

    // Probabilities sum to 1, and a sum of them in registers is off by a rounding for every term at worst: that much in
    // the divergence, and with it in every importance of the row and in the threshold.
    let off = (change * (x.roundoff * (len as f64 + 16.0)))?.flatten_all()?;
    let (low, high) = ((&importance - &off)?, (&importance + &off)?);
    let near = (high.ge(threshold(&low, &high)?)? * low.lt(threshold(&high, &low)?)?)?;

    let terms = base.abs()?.maximum(&other.abs()?)?;
    Ok(Outcome { values: taken.where_cond(other, base)?, terms, near: Some(near) })
}

/// Median plus one and a half times the distance of the quartiles. The lower quartile is that of `lower`: with bounds of
/// the importances for the two, a bound of the threshold comes out.
fn threshold(importance: &Tensor, lower: &Tensor) -> Result<f64> {
    let sorted = |values: &Tensor| {
        let mut values = values.to_vec1::<f64>()?;
        values.sort_by(f64::total_cmp);
        Ok::<_, candle_core::Error>(values)
    };
    let (values, lower) = (sorted(importance)?, sorted(lower)?);
    let rank = |share: f64| (share * (values.len() - 1) as f64).floor() as usize;
    Ok(values[rank(0.5)] + 1.5 * (values[rank(0.75)] - lower[rank(0.25)]))
}
