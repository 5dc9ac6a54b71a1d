//! What can be said about the inputs of a merge before any model is opened: their number, the base among them, and
//! parameters that are required and stand nowhere.

use super::method::{Inputs, Method, Scope};
use super::{MergeConfig, ModelRef, Setting, Slice, SourceModel};
use crate::document::read::Field;
use crate::document::{Code, Problems, Value};

/// Reports every slice whose inputs the method cannot take. `sources` is the field of `models` or `slices`, `base_field` that of
/// the base; where
/// `parameters_unclear`, none is called missing.
pub(super) fn inputs(
    config: &MergeConfig,
    sources: &Field<'_>,
    base_field: Option<&Field<'_>>,
    parameters_unclear: bool,
    problems: &mut Problems,
) {
    let models_form = config.slices.iter().all(|slice| slice.sources.iter().all(|source| source.layer_range.is_none()));
    for (index, slice) in config.slices.iter().enumerate() {
        let place = if models_form { sources.clone() } else { slice_field(sources, index) };
        if slice.sources.is_empty() {
            place.problem(Code::Empty, "expected at least one source, found none", None, problems);
            continue;
        }
        let base = config.base_of(slice);
        let mistake = arity(config, slice, base, models_form);
        match mistake {
            // A base that makes a third model is the odd one out, not the two that are listed.
            Some((message, hint)) => {
                let at = base_field.filter(|_| models_form && hint.is_some()).unwrap_or(&place);
                at.problem(Code::Inputs, message, hint, problems);
            }
            None => {
                if !parameters_unclear {
                    required(config, slice, base, &place, problems);
                }
                keep_probabilities(config, slice, base, &place, problems);
            }
        }
    }
}

fn slice_field<'a>(sources: &Field<'a>, index: usize) -> Field<'a> {
    match &sources.node.value {
        Value::List(items) if index < items.len() => Field::new(&items[index], format!("{}[{index}]", sources.path)),
        _ => sources.clone(),
    }
}

fn arity(
    config: &MergeConfig,
    slice: &Slice,
    base: Option<&ModelRef>,
    models_form: bool,
) -> Option<(String, Option<String>)> {
    let method = config.method;
    let n_sources = slice.sources.len();
    let has_base = base.is_some_and(|base| slice.sources.iter().any(|source| source.model == *base));
    let n_others = n_sources - usize::from(has_base);
    let needs_base = method.spec().inputs.need_base();
    if needs_base {
        let Some(base) = base else {
            return Some((format!("`{method}` needs a `base_model`, found none"), None));
        };
        if !has_base {
            let hint = "list the base model among the sources of every slice".to_owned();
            return Some((
                format!("base model `{base}` is not a source of this slice, `{method}` needs it there"),
                Some(hint),
            ));
        }
    }
    match method.spec().inputs {
        Inputs::Any | Inputs::BaseAndAny => None,
        Inputs::BaseAndOne if n_sources != 2 => {
            let message = format!("`{method}` takes exactly 2 models, the base among them, found {n_sources}");
            let hint = (models_form && n_sources == 3)
                .then(|| "a `base_model` that is not one of the two listed models counts as a third".to_owned());
            Some((message, hint))
        }
        Inputs::TwoAndOptionalBase if n_others != 2 => {
            Some((format!("`{method}` takes exactly 2 models besides the base, found {n_others}"), None))
        }
        Inputs::SomeAndOptionalBase if n_others == 0 => {
            Some((format!("`{method}` takes at least 1 model besides the base, found none"), None))
        }
        Inputs::BaseAndTwoOrMore if n_others < 2 => {
            Some((format!("`{method}` takes at least 2 models besides the base, found {n_others}"), None))
        }
        Inputs::One if n_sources != 1 => {
            let hint = (has_base && n_sources == 2).then(|| {
                if models_form { "leave `base_model` out: it counts as a second model" } else { "keep one source" }
                    .to_owned()
            });
            Some((format!("`{method}` takes exactly 1 model, found {n_sources}"), hint))
        }
        _ => None,
    }
}

/// Reports required parameters that stand at no level at all.
fn required(config: &MergeConfig, slice: &Slice, base: Option<&ModelRef>, place: &Field<'_>, problems: &mut Problems) {
    // A slice without layers is asked for nothing unless it is the first or the last.
    let empty = slice.sources.iter().all(|source| source.layer_range.is_some_and(|(start, end)| start == end));
    if empty {
        return;
    }
    let method = config.method;
    for row in method.spec().parameters.iter().filter(|row| row.default.is_none() && !row.optional) {
        let outside = [&slice.parameters, &config.module_parameters, &config.parameters];
        if outside.iter().any(|parameters| parameters.contains_key(row.name)) {
            continue;
        }
        if row.scope == Scope::Shared {
            let dead = slice.sources.iter().any(|source| source.parameters.contains_key(row.name));
            let hint = dead
                .then(|| format!("`{}` on a source is never read: put it under `parameters` at top level", row.name));
            place.problem(
                Code::MissingParameter,
                format!("`{method}` needs the parameter `{}`, found none", row.name),
                hint,
                problems,
            );
            continue;
        }
        let asked = |source: &&SourceModel| row.scope == Scope::EveryInput || Some(&source.model) != base;
        for source in slice.sources.iter().filter(asked).filter(|source| !source.parameters.contains_key(row.name)) {
            let message = format!("`{method}` needs the parameter `{}` for `{}`, found none", row.name, source.model);
            let hint = if row.scope == Scope::EveryInput && Some(&source.model) == base {
                format!("to `{method}` the base model is an input like any other")
            } else {
                format!("set `{}` on the model, or for all under `parameters`", row.name)
            };
            place.problem(Code::MissingParameter, message, Some(hint), problems);
        }
    }
}

/// Reports densities of della that epsilon carries beyond a probability. mergekit fails on them once it merges; values that
/// differ between tensors are left to that moment.
fn keep_probabilities(
    config: &MergeConfig,
    slice: &Slice,
    base: Option<&ModelRef>,
    place: &Field<'_>,
    problems: &mut Problems,
) {
    if !matches!(config.method, Method::Della | Method::DellaLinear) {
        return;
    }
    for source in slice.sources.iter().filter(|source| Some(&source.model) != base) {
        let value = |name| constant(config, slice, source, name);
        let (Some(density), Some(epsilon)) = (value("density"), value("epsilon")) else { continue };
        if !(0.0 < density && density < 1.0) || (density - epsilon > 0.0 && density + epsilon < 1.0) {
            continue;
        }
        let message = format!(
            "`{}` would keep changes of `{}` with probabilities from {} to {}: density {density} and epsilon {epsilon}",
            config.method,
            source.model,
            density - epsilon,
            density + epsilon
        );
        let hint =
            "density - epsilon must be above 0, and density + epsilon below 1; epsilon is 0.15 where it is not set";
        place.problem(Code::OutOfRange, message, Some(hint.to_owned()), problems);
    }
}

/// The value of a parameter where it is the same for every tensor.
fn constant(config: &MergeConfig, slice: &Slice, source: &SourceModel, name: &str) -> Option<f64> {
    let levels = [&source.parameters, &slice.parameters, &config.module_parameters, &config.parameters];
    match levels.into_iter().find_map(|parameters| parameters.get(name)) {
        Some(Setting::Scalar(value)) => value.as_float(),
        Some(_) => None,
        None => config.method.parameter(name)?.default,
    }
}
