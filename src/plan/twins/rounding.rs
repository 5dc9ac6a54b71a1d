//! When two computations are equal in exact arithmetic: operations brought to a form in which algebra has been done. Most
//! merges of whole tensors are one [`Form::Combination`]; what depends on the numbers in the tensors stays itself, with its
//! weights folded and its models in order.

use crate::merge::method::{Axis, Operation, Sparsity, TaskVector, nuslerp};

/// Differences of coefficients that are rounding of decimals.
const SMALLEST: f64 = 1e-9;

/// What an operation is in exact arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// The sum of inputs times coefficients, by number of the input; those of zero are left out.
    Combination(Vec<(usize, f64)>),
    /// Something else: what, and of which inputs, in an order that means the same whatever the config's.
    Other(String),
}

impl Form {
    /// The input that comes out unchanged.
    pub fn only_input(&self) -> Option<usize> {
        match self {
            Self::Combination(terms) => match terms.as_slice() {
                [(input, coefficient)] if (coefficient - 1.0).abs() < SMALLEST => Some(*input),
                _ => None,
            },
            Self::Other(_) => None,
        }
    }

    /// As a text, with the names of the inputs.
    pub fn text(&self, names: &[String]) -> String {
        match self {
            Self::Combination(terms) => {
                let mut terms: Vec<String> = terms
                    .iter()
                    .map(|(input, coefficient)| format!("{} {}", number(*coefficient), names[*input]))
                    .collect();
                terms.sort();
                format!("sum of {}", terms.join(" + "))
            }
            Self::Other(text) => text.clone(),
        }
    }
}

/// A coefficient to nine decimals, without what rounding added.
pub fn number(value: f64) -> String {
    let text = format!("{value:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The form of an operation; `names` are those of its inputs.
pub fn form(operation: &Operation, names: &[String]) -> Form {
    let ordered = |from: usize| {
        let mut others = names[from..].to_vec();
        others.sort();
        [&names[..from], &others].concat().join(", ")
    };
    match operation {
        Operation::Passthrough { scale } => combination(vec![(0, scale.unwrap_or(1.0))]),
        Operation::Linear { weights, normalize } => {
            let sum: f64 = if *normalize { weights.iter().sum() } else { 1.0 };
            if sum.abs() < SMALLEST {
                return Form::Other(format!("linear {weights:?} of {}", names.join(", ")));
            }
            combination(weights.iter().map(|weight| weight / sum).enumerate().collect())
        }
        Operation::TaskVector(task_vector) => of_task_vectors(task_vector, names),
        Operation::Slerp { t } => match ends(*t, 0, 1) {
            Some(end) => end,
            None => Form::Other(format!("slerp {}", between(*t, &names[0], &names[1]))),
        },
        Operation::Nuslerp { weights, has_base, axis } => {
            let t = nuslerp::share(*weights);
            let from = usize::from(*has_base);
            let base = if *has_base { names[0].as_str() } else { "nothing" };
            let axis = match axis {
                Axis::Whole => "whole",
                Axis::Last => "rows",
                Axis::First => "columns",
            };
            let other =
                || Form::Other(format!("nuslerp {axis} on {base} {}", between(t, &names[from], &names[from + 1])));
            ends(t, from, from + 1).unwrap_or_else(other)
        }
        Operation::ArceeFusion => Form::Other(format!("arcee_fusion of {}", names.join(", "))),
        Operation::Multislerp { weights, has_base, .. } if weights.len() == 1 => {
            combination(vec![(usize::from(*has_base), 1.0)])
        }
        Operation::Multislerp { weights, has_base, normalize_weights, eps } => {
            let sum: f64 = if *normalize_weights { weights.iter().sum() } else { 1.0 };
            let from = usize::from(*has_base);
            let named = weights.iter().zip(&names[from..]);
            let mut terms: Vec<String> =
                named.map(|(weight, name)| format!("{} {name}", number(weight / sum))).collect();
            terms.sort();
            Form::Other(format!("multislerp {eps:?} on {} of {}", names[..from].join(""), terms.join(" + ")))
        }
        Operation::Karcher { .. } if names.len() == 1 => combination(vec![(0, 1.0)]),
        Operation::Karcher { max_iter, tol } => Form::Other(format!("karcher {max_iter} {tol:?} of {}", ordered(0))),
        Operation::ModelStock { filter_wise } => Form::Other(format!("model_stock {filter_wise} of {}", ordered(1))),
        Operation::Nearswap { t } => Form::Other(format!("nearswap {t:?} of {}", names.join(", "))),
        Operation::Sce { select_topk } => Form::Other(format!("sce {:?} of {}", select_topk.min(1.0), ordered(1))),
        Operation::Ram { epsilon, .. } if names.len() == 2 => Form::Other(format!("ram {epsilon:?} of {}", ordered(1))),
        Operation::Ram { epsilon, unique } => Form::Other(format!("ram {epsilon:?} {unique:?} of {}", ordered(1))),
    }
}

fn combination(terms: Vec<(usize, f64)>) -> Form {
    Form::Combination(terms.into_iter().filter(|(_, coefficient)| coefficient.abs() >= SMALLEST).collect())
}

/// The ends of an interpolation.
fn ends(t: f64, first: usize, second: usize) -> Option<Form> {
    match t {
        _ if t.abs() < SMALLEST => Some(combination(vec![(first, 1.0)])),
        _ if (t - 1.0).abs() < SMALLEST => Some(combination(vec![(second, 1.0)])),
        _ => None,
    }
}

/// An interpolation is the same from either end.
fn between(t: f64, first: &str, second: &str) -> String {
    if first <= second {
        format!("{} from {first} to {second}", number(t))
    } else {
        format!("{} from {second} to {first}", number(1.0 - t))
    }
}

/// What stays of a task vector. Seed and names, which decide about random numbers, are the caller's to compare.
fn kept(sparsity: Sparsity) -> String {
    match sparsity {
        Sparsity::Everything => "all of".to_owned(),
        Sparsity::Nothing => "nothing of".to_owned(),
        Sparsity::Magnitude { density } => format!("largest {density:?} of"),
        Sparsity::Outliers { density, gamma } => format!("middle {density:?} below {gamma:?} of"),
        Sparsity::Random { density, .. } => format!("random {density:?} of"),
        Sparsity::Magprune { density, epsilon, .. } => format!("magprune {density:?} {epsilon:?} of"),
    }
}

fn of_task_vectors(task_vector: &TaskVector, names: &[String]) -> Form {
    let TaskVector { consensus, normalize, rescale, lambda, models } = task_vector;
    let sum: f64 = models.iter().map(|model| model.weight).sum();
    let counts: Vec<usize> = (0..models.len())
        .filter(|index| models[*index].weight != 0.0 && models[*index].sparsity != Sparsity::Nothing)
        .collect();
    // A sign is elected among two, and a single model is divided by its own weight.
    let elects = *consensus && counts.len() > 1;
    let divisor = match (normalize, consensus, counts.as_slice()) {
        (false, ..) => 1.0,
        (true, true, [only]) => models[*only].weight,
        (true, true, _) => 1.0,
        (true, false, _) if sum.abs() < 1e-8 => 1.0,
        (true, false, _) => sum,
    };
    let thins = counts.iter().any(|index| models[*index].sparsity != Sparsity::Everything);
    // A positive factor goes through an election, and weights that are divided by may have any scale.
    let (mut inside, mut outside) = (1.0 / divisor, *lambda);
    if !elects || (!*normalize && *lambda > 0.0) {
        (inside, outside) = (inside * lambda, 1.0);
    } else if *normalize {
        inside /= counts.iter().map(|index| models[*index].weight.abs()).sum::<f64>();
    }
    if *lambda == 0.0 || counts.is_empty() {
        return combination(vec![(0, 1.0)]);
    }
    if !elects && !thins {
        let changes: Vec<(usize, f64)> =
            counts.iter().map(|index| (index + 1, inside * models[*index].weight)).collect();
        let rest = 1.0 - changes.iter().map(|(_, coefficient)| coefficient).sum::<f64>();
        return combination(std::iter::once((0, rest)).chain(changes).collect());
    }
    let mut terms: Vec<String> = counts
        .iter()
        .map(|index| {
            let weight = number(inside * models[*index].weight);
            format!("{weight} {} {}", kept(models[*index].sparsity), names[index + 1])
        })
        .collect();
    terms.sort();
    let divided = *normalize && elects;
    let rescaled = *rescale && thins;
    Form::Other(format!(
        "{} + {outside:?} task vectors, elected {elects}, divided {divided}, rescaled {rescaled}, of {}",
        names[0],
        terms.join(" + ")
    ))
}
