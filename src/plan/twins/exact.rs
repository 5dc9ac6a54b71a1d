//! When two computations give equal bytes by construction: a text that is the same for operations which the engine's
//! kernels cannot tell apart, in whichever numerics.
//!
//! Rests on what the kernels do, not on algebra: a mask that keeps everything leaves nothing to rescale; a weight of zero
//! adds a zero; a division by one, a factor of one, a sign election of one are no steps; sums of two do not depend on their
//! order (longer ones are taken in the order in which the engine adds). Holds for inputs without infinities and NaN: zero times those is not
//! zero.

use std::fmt::Write as _;

use crate::config::{Dtype, MergeConfig, Numerics};
use crate::merge::arithmetic::{Arithmetic, Work, with_arithmetic};
use crate::merge::method::{Operation, Sparsity, TaskVector, linear, nuslerp};
use crate::merge::real::Real as _;
use crate::plan::resolution::Resolution;

/// Whether every step is rounded as mergekit does; the other numerics may compute wider even where that is no narrower.
fn has_steps(resolution: &Resolution<'_>) -> bool {
    resolution.numerics == Numerics::Mergekit
}

/// The working dtypes that are possible before the models are known.
fn dtypes(config: &MergeConfig) -> Vec<Dtype> {
    config.dtype.map_or_else(|| vec![Dtype::Bf16, Dtype::F16, Dtype::F32, Dtype::F64], |dtype| vec![dtype])
}

/// A divisor, in any arithmetic.
struct Divisor<'a>(&'a Operation);

impl Work for Divisor<'_> {
    type Output = f64;

    fn run<A: Arithmetic>(self) -> f64 {
        match self.0 {
            Operation::Linear { weights, normalize: true } => linear::divisor::<A>(weights).wide(),
            Operation::TaskVector(task_vector) if task_vector.normalize => task_vector.divisor::<A>().wide(),
            _ => 1.0,
        }
    }
}

/// Whether a sum of weights is divided by, which one of 1 is not.
fn divides(operation: &Operation, resolution: &Resolution<'_>) -> bool {
    dtypes(resolution.config)
        .into_iter()
        .any(|dtype| with_arithmetic(resolution.numerics, dtype, operation.is_wide(), Divisor(operation)) != 1.0)
}

/// Whether the random numbers of a seed take part at all.
pub fn is_random(operation: &Operation) -> bool {
    let Operation::TaskVector(task_vector) = operation else { return false };
    let draws = |sparsity| matches!(sparsity, Sparsity::Random { .. } | Sparsity::Magprune { .. });
    task_vector.models.iter().any(|model| model.weight != 0.0 && draws(model.sparsity))
}

/// The text of one operation. `models` are those of its inputs.
pub fn text(operation: &Operation, models: &[String], keys: &[&str], resolution: &Resolution<'_>) -> String {
    let steps = if has_steps(resolution) { " in steps" } else { "" };
    let others = &models[usize::from(operation.has_base())..];
    let listed = |models: &[String]| models.join(", ");
    match operation {
        Operation::Passthrough { scale: None } => format!("copy of {}", listed(models)),
        Operation::Passthrough { scale: Some(scale) } if *scale == 1.0 => format!("copy of {}", listed(models)),
        Operation::Passthrough { scale: Some(scale) } => format!("{scale:?} times {}{steps}", listed(models)),
        Operation::Linear { weights, .. } => {
            let mut terms = terms(weights, models);
            // In steps a product is not rounded before it is added: then the order of two counts too.
            if !has_steps(resolution) {
                sort(&mut terms);
            }
            let divided = if divides(operation, resolution) { ", divided" } else { "" };
            format!("sum of {}{divided}{steps}", terms.join(" + "))
        }
        Operation::TaskVector(task_vector) => {
            format!("{}{steps}", task_vector_text(task_vector, operation, models, keys, resolution))
        }
        Operation::Slerp { t } => format!("slerp {t:?} from {}{steps}", listed(models)),
        Operation::Nuslerp { weights, has_base, axis } => {
            let t = nuslerp::share(*weights);
            format!("nuslerp {t:?} {axis:?} base {has_base} of {}{steps}", listed(models))
        }
        Operation::ArceeFusion => format!("arcee_fusion of {}{steps}", listed(models)),
        Operation::Multislerp { weights, .. } if weights.len() == 1 => format!("copy of {}", listed(others)),
        // Weights are rounded before they are summed: only the numbers themselves tell what comes of that.
        Operation::Multislerp { weights, has_base, normalize_weights, eps } if has_steps(resolution) => format!(
            "multislerp {weights:?} normalized {normalize_weights} base {has_base} eps {eps:?} of {}{steps}",
            listed(models)
        ),
        Operation::Multislerp { weights, has_base, normalize_weights, eps } => {
            let sum: f64 = if *normalize_weights { weights.iter().sum() } else { 1.0 };
            let weights: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            format!("multislerp {weights:?} base {has_base} eps {eps:?} of {}{steps}", listed(models))
        }
        Operation::Karcher { .. } if models.len() == 1 => format!("mean of {} alone{steps}", listed(models)),
        Operation::Karcher { max_iter, tol } => format!("karcher {max_iter} {tol:?} of {}{steps}", listed(models)),
        Operation::ModelStock { filter_wise } => format!("model_stock {filter_wise} of {}{steps}", listed(models)),
        Operation::Nearswap { t } => format!("nearswap {t:?} of {}{steps}", listed(models)),
        Operation::Sce { select_topk } => format!("sce {:?} of {}{steps}", select_topk.min(1.0), listed(models)),
        // What one model changes is shared with no other, so that nothing is scaled.
        Operation::Ram { epsilon, .. } if others.len() == 1 => format!("ram {epsilon:?} of {}{steps}", listed(models)),
        Operation::Ram { epsilon, unique } => format!("ram {epsilon:?} {unique:?} of {}{steps}", listed(models)),
    }
}

/// Models with the weights that count.
fn terms(weights: &[f64], models: &[String]) -> Vec<String> {
    let weighted = weights.iter().zip(models).filter(|(weight, _)| **weight != 0.0);
    weighted.map(|(weight, model)| format!("{weight:?} {model}")).collect()
}

/// A sum of two is the same in either order. Longer ones are taken in the order of the inputs.
fn sort(terms: &mut [String]) {
    if terms.len() < 3 {
        terms.sort();
    }
}

fn task_vector_text(
    task_vector: &TaskVector,
    operation: &Operation,
    models: &[String],
    keys: &[&str],
    resolution: &Resolution<'_>,
) -> String {
    let TaskVector { consensus, normalize, rescale, lambda, models: of_models } = task_vector;
    let divided = if *consensus { *normalize } else { divides(operation, resolution) };
    let mut thins = false;
    let mut terms = Vec::new();
    for ((model, name), key) in of_models.iter().zip(&models[1..]).zip(&keys[1..]) {
        let sparsity = match model.sparsity {
            _ if model.weight == 0.0 => continue,
            Sparsity::Nothing if divided && !consensus => "nothing of ".to_owned(),
            Sparsity::Nothing => continue,
            Sparsity::Everything => String::new(),
            Sparsity::Magnitude { density } => format!("largest {density:?} of "),
            Sparsity::Outliers { density, gamma } => format!("middle {density:?} below {gamma:?} of "),
            Sparsity::Random { density, .. } => format!("random {density:?} ({}, {key}) of ", resolution.seed),
            Sparsity::Magprune { density, epsilon, .. } => {
                format!("magprune {density:?} {epsilon:?} ({}, {key}) of ", resolution.seed)
            }
        };
        thins |= !matches!(model.sparsity, Sparsity::Everything | Sparsity::Nothing);
        terms.push(format!("{:?} {sparsity}{name}", model.weight));
    }
    sort(&mut terms);
    let elects = *consensus && (terms.len() > 1 || *normalize);
    let mut text = format!("{} + task vectors of {}", models[0], terms.join(" + "));
    for (said, word) in [(elects, "elected"), (divided, "divided"), (*rescale && thins, "rescaled")] {
        if said {
            text += ", ";
            text += word;
        }
    }
    if *lambda != 1.0 {
        // Writing to a text cannot fail.
        let _ = write!(text, ", times {lambda:?}");
    }
    text
}
