//! Verification: every output tensor computed a second time, slowly and in f64, and compared with what lies in the files.
//!
//! A difference is measured in *ulps*: units in the last place of the format that was written, at the expected value. A
//! kernel computes in 32 bits (64 under `dtype: float64`), so where a result is small beside what it was added up from,
//! the unit is one in the last place of that format at the sum of the magnitudes of the terms, if that is larger: no
//! 32-bit computation knows more. To the unit of a half format is added what 32 bits may be off before the last rounding,
//! which counts where terms cancel. A value that is rounded once from the exact one is half an ulp away at most.
//!
//! | worked in or written | [`limit`] | why |
//! |---|---|---|
//! | bfloat16, float16 | 1 | half for each rounding: to the format worked in, and to the one written |
//! | float32 | 4, and 2 for every input | half for each rounding: of difference, weight, product and sum of every input, and of divisor, factor, base and result; up to 3.1 for a base and three models is what tests find |
//! | float64 | 65536 | the oracle is no better: sums over a tensor are off by a rounding for every element at worst |
//!
//! Some methods compare (a cut, an elected sign, a threshold). Where the two sides are closer than 32-bit rounding, either
//! answer is right, and the result may differ by a whole change: such elements are counted as *flipped*, apart from
//! those that are beyond the limit without that excuse.

pub mod oracle;
mod sphere;
mod task_vector;

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use serde::Serialize;

use super::Progress;
use super::adapter::AdapterError;
use super::checkpoint::{Checkpoint, CheckpointError};
use super::recipe::Recipe;
use super::source::Source;
use crate::config::Dtype;

/// Why a merge could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An output that is not sound.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An adapter that cannot be applied.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// An input that is not there, or not as the recipe says.
    #[error("verifying `{tensor}`: expected `{input}` of `{model}` as it was merged; has the model changed since?")]
    Input {
        /// Output tensor.
        tensor: String,
        /// The model.
        model: String,
        /// The tensor looked for.
        input: String,
    },
    /// An output tensor that is not there, or not as the recipe says.
    #[error("verifying `{tensor}`: expected {expected}, found {found}")]
    Output {
        /// The tensor.
        tensor: String,
        /// What the recipe says.
        expected: String,
        /// What is in the files.
        found: String,
    },
    /// An operation that candle refuses.
    #[error("verifying `{tensor}`")]
    Candle {
        /// Output tensor.
        tensor: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
    /// Stopped by the caller.
    #[error("cancelled")]
    Cancelled,
}

/// What a tensor should hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Every element before it is rounded.
    pub values: Vec<f64>,
    /// Sums of the magnitudes that every element was made from.
    pub terms: Vec<f64>,
    /// Whether a comparison behind an element is closer than rounding.
    pub near: Vec<bool>,
}

/// One tensor compared with what it should hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// Its name.
    pub tensor: String,
    /// The format of the numbers.
    pub dtype: &'static str,
    /// Elements.
    pub n_elements: usize,
    /// Largest difference in ulps, without flipped elements; not finite (`null` in JSON) where one of the two is no number.
    pub ulps: f64,
    /// Up to how many ulps are expected.
    pub limit: f64,
    /// Elements beyond the limit, without flipped ones.
    pub n_beyond: usize,
    /// Elements behind which a comparison is as close as rounding.
    pub n_near: usize,
    /// Those of them that are beyond the limit: the comparison went the other way.
    pub n_flipped: usize,
    /// The largest difference.
    pub largest: Option<Difference>,
}

/// The two values of one element.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Its place in the flattened tensor.
    pub element: usize,
    /// What it should be, before rounding.
    pub expected: f64,
    /// What it is.
    pub found: f64,
}

/// A merge compared with what it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Tensors compared.
    pub n_verified: usize,
    /// Tensors of the output.
    pub n_tensors: usize,
    /// Wall time.
    pub seconds: f64,
    /// Every tensor compared, in the order of the recipes.
    pub tensors: Vec<Verified>,
}

impl Verification {
    /// The tensor with the largest difference, measured by its limit.
    pub fn worst(&self) -> Option<&Verified> {
        let share = |tensor: &&Verified| tensor.ulps / tensor.limit;
        self.tensors.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
    }

    /// Elements that a close comparison put on the other side.
    pub fn n_flipped(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.n_flipped).sum()
    }

    /// Elements beyond the limit.
    pub fn n_beyond(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.n_beyond).sum()
    }
}

/// The expected tensor of a recipe, before it is rounded.
///
/// # Errors
/// [`VerifyError`] where an input is missing or candle refuses an operation.
pub fn expected(recipe: &Recipe, sources: &[Source]) -> Result<Vec<f64>, VerifyError> {
    Ok(oracle::oracle(recipe, sources)?.values)
}

/// Compares the weights in a folder with what the recipes say: all of them, or `sample` of them, chosen by `seed`.
///
/// # Errors
/// [`VerifyError`]. Differences are no error: they are in the answer.
pub fn verify(
    recipes: &[Recipe],
    sources: &[Source],
    folder: &Path,
    sample: Option<usize>,
    seed: u64,
    progress: &Progress<'_>,
) -> Result<Verification, VerifyError> {
    let started = Instant::now();
    let output = Checkpoint::open_weights_of(folder)?;
    let chosen = choose(recipes, sample, seed);
    let total = chosen.iter().map(|recipe| recipe.n_bytes()).sum();
    let (mut done, mut tensors) = (0, Vec::with_capacity(chosen.len()));
    for recipe in chosen {
        if !progress(done, total) {
            return Err(VerifyError::Cancelled);
        }
        let found = read(recipe, &output)?;
        tensors.push(oracle::oracle(recipe, sources)?.compare(recipe, &found));
        done += recipe.n_bytes();
    }
    progress(done, total);
    Ok(Verification {
        n_verified: tensors.len(),
        n_tensors: recipes.len(),
        seconds: started.elapsed().as_secs_f64(),
        tensors,
    })
}

fn choose(recipes: &[Recipe], sample: Option<usize>, seed: u64) -> Vec<&Recipe> {
    let Some(sample) = sample else { return recipes.iter().collect() };
    let lot = |recipe: &Recipe| blake3::hash(format!("{seed} {}", recipe.name).as_bytes());
    let mut order: Vec<usize> = (0..recipes.len()).collect();
    order.sort_by_cached_key(|index| *lot(&recipes[*index]).as_bytes());
    order.truncate(sample);
    order.sort_unstable();
    order.into_iter().map(|index| &recipes[index]).collect()
}

fn read(recipe: &Recipe, output: &Checkpoint) -> Result<Vec<f64>, VerifyError> {
    let wrong = |found: String| VerifyError::Output {
        tensor: recipe.name.clone(),
        expected: format!("{} {:?}", recipe.out, recipe.shape),
        found,
    };
    let tensor = output.tensor(&recipe.name).ok_or_else(|| wrong("no such tensor".to_owned()))?;
    if tensor.dtype() != Some(recipe.out) || tensor.shape != recipe.shape {
        return Err(wrong(format!("{:?} {:?}", tensor.stored, tensor.shape)));
    }
    Tensor::from_raw_buffer(output.bytes(tensor), oracle::dtype(recipe.out), &[recipe.n_elements()], &Device::Cpu)
        .and_then(|numbers| numbers.to_dtype(DType::F64)?.to_vec1())
        .map_err(|source| VerifyError::Candle { tensor: recipe.name.clone(), source: Box::new(source) })
}

impl Expected {
    /// Measures the numbers of a tensor against it.
    pub fn compare(&self, recipe: &Recipe, found: &[f64]) -> Verified {
        let limit = limit(recipe);
        let mut verified = Verified {
            tensor: recipe.name.clone(),
            dtype: recipe.out.name(),
            n_elements: found.len(),
            ulps: 0.0,
            limit,
            n_beyond: 0,
            n_near: self.near.iter().filter(|near| **near).count(),
            n_flipped: 0,
            largest: None,
        };
        for (element, found) in found.iter().enumerate() {
            let (expected, terms) = (self.values[element], self.terms[element]);
            let ulps = ulps(recipe, expected, terms, *found);
            if ulps > limit && self.near[element] {
                verified.n_flipped += 1;
                continue;
            }
            verified.n_beyond += usize::from(ulps > limit);
            if ulps > verified.ulps {
                verified.ulps = ulps;
                verified.largest = Some(Difference { element, expected, found: *found });
            }
        }
        verified
    }
}

/// Ulps up to which a kernel is taken to be right: see the table above.
pub fn limit(recipe: &Recipe) -> f64 {
    match (recipe.working, recipe.out) {
        _ if is_half(recipe) => 1.0,
        (Dtype::F64, Dtype::F64) => 65536.0,
        _ => limit_of_32_bits(recipe),
    }
}

fn limit_of_32_bits(recipe: &Recipe) -> f64 {
    4.0 + 2.0 * recipe.inputs.len() as f64
}

fn is_half(recipe: &Recipe) -> bool {
    [recipe.working, recipe.out].iter().any(|dtype| matches!(dtype, Dtype::Bf16 | Dtype::F16))
}

fn ulps(recipe: &Recipe, expected: f64, terms: f64, found: f64) -> f64 {
    if found == expected || (found.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    // Rounded to infinity, which is as it should be; the two formats may differ in where that begins.
    let largest = Format::of(recipe.working).largest.min(Format::of(recipe.out).largest);
    if found.is_infinite() && expected.abs() > largest && found.signum() == expected.signum() {
        return 0.0;
    }
    let computed = if recipe.working == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
    let written = Format::of(recipe.working).spacing(expected).max(Format::of(recipe.out).spacing(expected));
    let computed = Format::of(computed).spacing(terms);
    let unit = if is_half(recipe) { written + limit_of_32_bits(recipe) * computed } else { written.max(computed) };
    let ulps = (found - expected).abs() / unit;
    if ulps.is_nan() { f64::INFINITY } else { ulps }
}

/// What there is to know of a number format.
struct Format {
    /// Bits after the leading one.
    mantissa: i32,
    /// Exponent of the smallest normal number.
    smallest: i32,
    /// The largest number.
    largest: f64,
}

impl Format {
    fn of(dtype: Dtype) -> Self {
        let (mantissa, smallest, largest) = match dtype {
            Dtype::Bf16 => (7, -126, f64::from(half::bf16::MAX)),
            Dtype::F16 => (10, -14, f64::from(half::f16::MAX)),
            Dtype::F32 => (23, -126, f64::from(f32::MAX)),
            Dtype::F64 => (52, -1022, f64::MAX),
        };
        Self { mantissa, smallest, largest }
    }

    /// From a number to the next larger of the format.
    fn spacing(&self, at: f64) -> f64 {
        // The exponent as it stands in the bits; a subnormal f64 has the smallest of all formats.
        let exponent = ((at.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(self.smallest);
        f64::from(exponent - self.mantissa).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacings_are_those_of_the_formats() {
        let next = |value: f32| f64::from(f32::from_bits(value.to_bits() + 1)) - f64::from(value);
        for value in [1.0f32, 1.99, 3e-5, 7e30, 1e-40] {
            assert_eq!(Format::of(Dtype::F32).spacing(f64::from(value)), next(value), "{value}");
        }
        assert_eq!(Format::of(Dtype::F64).spacing(-1.5), f64::EPSILON);
        assert_eq!(Format::of(Dtype::F64).spacing(0.0), 5e-324);
        assert_eq!(Format::of(Dtype::Bf16).spacing(1.0), 2f64.powi(-7));
        assert_eq!(Format::of(Dtype::F16).spacing(1e-9), 2f64.powi(-24));
    }
}
