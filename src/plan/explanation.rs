//! One merge in words: what is done with its tensors, with which values, and what that comes down to.

use std::sync::Arc;

use super::lint::{self, Report};
use super::sites::Sites;
use super::values::{InForce, in_force};
use super::words::{self, Naming};
use super::{twins, values};
use crate::config::{MergeConfig, Numerics};
use crate::merge::recipe::RecipeError;

/// A merge explained.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Formulas, each with the tensors that it holds for.
    pub formulas: Vec<(String, Vec<String>)>,
    /// Parameters in force.
    pub values: Vec<InForce>,
    /// What the merge comes down to.
    pub reduction: Option<String>,
    /// How its settings fare.
    pub report: Report,
}

/// Why a merge is not explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// It cannot be resolved.
    #[error(transparent)]
    Recipe(#[from] Box<RecipeError>),
    /// It has no such tensor.
    #[error("the merge has no tensor `{name}` ({among})")]
    NoTensor {
        /// What was asked for.
        name: String,
        /// What it was looked for in.
        among: &'static str,
    },
}

/// Explains a merge: all of it, or the tensors whose names are or contain a text.
///
/// # Errors
/// [`ExplainError`].
pub fn explain(
    config: &MergeConfig,
    seed: u64,
    numerics: Numerics,
    sites: &Arc<Sites>,
    tensor: Option<&str>,
    naming: &Naming<'_>,
) -> Result<Explanation, ExplainError> {
    let whole = tensor.is_some_and(|tensor| is_whole(sites, tensor));
    let is_asked = |member: &usize| {
        let name = &sites.sites[*member].name;
        tensor.is_none_or(|tensor| name == tensor || (!whole && name.contains(tensor)))
    };
    let asked: Vec<Vec<usize>> = sites
        .classes
        .iter()
        .map(|class| class.members.iter().copied().filter(|member| is_asked(member)).collect())
        .collect();
    if asked.iter().all(Vec::is_empty) {
        let (name, among) = (tensor.unwrap_or_default().to_owned(), sites.origin.in_words());
        return Err(ExplainError::NoTensor { name, among });
    }
    let is_class_asked = |class: usize| !asked[class].is_empty();
    let (resolution, values) = in_force(config, seed, numerics, sites.clone(), &is_class_asked).map_err(Box::new)?;
    let mut formulas: Vec<(String, Vec<String>)> = Vec::new();
    for ((class, operation), members) in sites.classes.iter().zip(&resolution.operations).zip(&asked) {
        if members.is_empty() {
            continue;
        }
        let formula = words::formula(operation, &words::inputs(&resolution, class, naming));
        let names = members.iter().map(|member| sites.sites[*member].name.clone());
        match formulas.iter_mut().find(|(known, _)| *known == formula) {
            Some((_, tensors)) => tensors.extend(names),
            None => formulas.push((formula, names.collect())),
        }
    }
    let reduction = words::reduction(&resolution, &twins::forms(&resolution), naming);
    let report = lint::report_on(config, seed, numerics, sites.clone()).map_err(Box::new)?.report;
    Ok(Explanation { formulas, values, reduction, report })
}

/// Whether a text is the name of a tensor, and not only a part of one.
fn is_whole(sites: &Sites, tensor: &str) -> bool {
    sites.sites.iter().any(|site| site.name == tensor)
}

/// Values of one parameter, model by model: `code 0.8, math 1 (default)`.
pub fn by_model(values: &[values::InForce], name: &str, naming: &Naming<'_>) -> String {
    let of_name = values.iter().filter(|value| value.row.name == name);
    let shown = of_name.map(|value| match &value.model {
        Some(model) => format!("{} {}", naming(model), value.shown()),
        None => value.shown(),
    });
    shown.collect::<Vec<_>>().join(", ")
}
