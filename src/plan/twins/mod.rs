//! Trials that are one merge under several names, found before anything is merged.
//!
//! *Exact twins* have equal bytes by construction ([`exact`]): they are merged and evaluated once. *Rounding twins* are
//! equal in exact arithmetic ([`rounding`]) and round once: their scores differ by what rounding does to an evaluation, which
//! makes them a measure of its noise. Where every step is rounded as mergekit does, equal algebra may end several units apart,
//! and only exact twins are twins. Twins that only the numbers in the tensors can show are found by digest after merging.

pub mod exact;
pub mod rounding;

use std::collections::HashMap;
use std::fmt::Write as _;

use super::resolution::Resolution;
use super::sites::{Class, Origin, levels};
use crate::config::{Numerics, Setting, SourceModel};
use crate::merge::method::Operation;
use rounding::Form;

/// Names a computation; equal for twins.
pub type Digest = [u8; 16];

/// A trial's computation under both readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canonical {
    /// Equal: equal bytes.
    pub exact: Digest,
    /// Equal: equal in exact arithmetic.
    pub algebra: Digest,
    /// Equal: equal in exact arithmetic, and at most two units in the last place apart.
    pub rounding: Digest,
}

/// Groups of trials, by number in the plan; each of two or more, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Twins {
    /// Equal bytes by construction.
    pub exact: Vec<Vec<usize>>,
    /// Equal in exact arithmetic, and not all of them exact twins.
    pub rounding: Vec<Vec<usize>>,
}

/// Names of the inputs of an operation: the model and its layers.
pub fn names(resolution: &Resolution<'_>, class: &Class) -> Vec<String> {
    resolution.sources(class).map(|source| name(resolution, source)).collect()
}

fn name(resolution: &Resolution<'_>, source: &SourceModel) -> String {
    let all = (resolution.sites.origin == Origin::Headers).then_some((0, resolution.sites.n_layers));
    match source.layer_range.or(all) {
        Some((start, end)) => format!("{}[{start}..{end}]", source.model),
        None => source.model.to_string(),
    }
}

/// The forms of all classes of tensors in exact arithmetic.
pub fn forms(resolution: &Resolution<'_>) -> Vec<Form> {
    let classes = resolution.sites.classes.iter().zip(&resolution.operations);
    classes.map(|(class, operation)| rounding::form(operation, &names(resolution, class))).collect()
}

/// The exact texts of all classes of tensors.
pub fn exact_texts(resolution: &Resolution<'_>) -> Vec<String> {
    let text = |(class, operation): (&Class, &Operation)| {
        let keys: Vec<&str> = resolution.sources(class).map(|source| resolution.key_of(&source.model)).collect();
        exact::text(operation, &names(resolution, class), &keys, resolution)
    };
    resolution.sites.classes.iter().zip(&resolution.operations).map(text).collect()
}

/// Names what a merge computes.
pub fn canonical(resolution: &Resolution<'_>) -> Canonical {
    canonical_of(resolution, &forms(resolution), &exact_texts(resolution))
}

/// The same from [`forms`] and [`exact_texts`].
pub fn canonical_of(resolution: &Resolution<'_>, forms: &[Form], exact_texts: &[String]) -> Canonical {
    // Seed and names decide where random numbers are left in the form.
    let draws = |(form, operation): (&Form, _)| matches!(form, Form::Other(_)) && exact::is_random(operation);
    let is_random = forms.iter().zip(&resolution.operations).any(draws);
    let forms = forms.iter().zip(&resolution.sites.classes);
    let rounding: Vec<String> = forms.map(|(form, class)| form.text(&names(resolution, class))).collect();
    let exact = digest(&exact_header(resolution), resolution, exact_texts);
    let algebra = digest(&rounding_header(resolution, is_random), resolution, &rounding);
    let rounding = match resolution.numerics {
        Numerics::F32 => algebra,
        Numerics::Mergekit => exact,
    };
    Canonical { exact, algebra, rounding }
}

/// What decides about the output beside the operations.
fn header(resolution: &Resolution<'_>) -> String {
    let config = resolution.config;
    let wide = resolution.numerics == Numerics::Mergekit && config.method.has_wide_result();
    // A dtype that the result has anyway is no cast.
    let out = config.out_dtype.filter(|out| wide || Some(*out) != config.dtype);
    format!("{:?} {wide} {out:?} {:?} {:?}\n", config.dtype, config.tokenizer, config.chat_template)
}

/// For equal bytes also which models are read at all, since the tensors, dtypes and tokens that they have decide too, and
/// from which one the small files come.
fn exact_header(resolution: &Resolution<'_>) -> String {
    let config = resolution.config;
    let mut models: Vec<String> = config.models().iter().map(ToString::to_string).collect();
    let donor = config.base_model.as_ref().map_or_else(|| models.first().cloned(), |base| Some(base.to_string()));
    models.sort();
    let mut text = header(resolution) + &format!("{donor:?} {models:?}\n");
    for slice in &config.slices {
        let mut names: Vec<String> = slice.sources.iter().map(|source| name(resolution, source)).collect();
        names.sort();
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{names:?}");
    }
    if resolution.sites.origin == Origin::LlamaLike {
        // The model may have tensors that the list has not, and a setting with filters or layers may be for them.
        for (stand, parameters) in levels(config) {
            for (name, setting) in parameters.iter().filter(|(_, setting)| !matches!(setting, Setting::Scalar(_))) {
                let _ = writeln!(text, "{stand:?} {name} {setting}");
            }
        }
    }
    text
}

/// For equality in exact arithmetic also how it is computed, and what random numbers come from.
fn rounding_header(resolution: &Resolution<'_>, is_random: bool) -> String {
    let mut text = header(resolution) + resolution.numerics.name();
    if is_random {
        let models = resolution.config.models();
        let mut keys: Vec<&str> = models.into_iter().map(|model| resolution.key_of(model)).collect();
        keys.sort_unstable();
        // Writing to a text cannot fail.
        let _ = write!(text, " {} {keys:?}", resolution.seed);
    }
    text
}

/// Digest of what is done with every tensor; alike for slices whose classes all do the same, however many there are.
fn digest(header: &str, resolution: &Resolution<'_>, texts: &[String]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header.as_bytes());
    let classes = || resolution.sites.classes.iter().zip(texts);
    for slice in 0..resolution.config.slices.len() {
        let mut of_slice = classes().filter(|(class, _)| class.slice == slice);
        let depth = resolution.config.slices[slice].sources.first().and_then(|source| source.layer_range);
        hasher.update(format!("slice {slice} {:?}\n", depth.map(|(start, end)| end - start)).as_bytes());
        let Some((_, first)) = of_slice.next() else { continue };
        if of_slice.all(|(_, text)| text == first) {
            hasher.update(first.as_bytes());
            continue;
        }
        let mut of_tensors: Vec<(&str, &str)> = classes()
            .filter(|(class, _)| class.slice == slice)
            .flat_map(|(class, text)| {
                class.members.iter().map(move |member| (resolution.sites.sites[*member].name.as_str(), text.as_str()))
            })
            .collect();
        of_tensors.sort_unstable();
        for (tensor, text) in of_tensors {
            for part in [tensor, ": ", text, "\n"] {
                hasher.update(part.as_bytes());
            }
        }
    }
    let whole = *hasher.finalize().as_bytes();
    std::array::from_fn(|index| whole[index])
}

impl Twins {
    /// From the computations of a plan's trials; trials that are no merges have none.
    pub fn of(computations: &[Option<Canonical>]) -> Self {
        let exact = groups(computations.iter().map(|of| of.map(|of| of.exact)));
        let rounding = groups(computations.iter().map(|of| of.map(|of| of.rounding)));
        let differ = |group: &Vec<usize>| {
            let exact = |trial: &usize| computations[*trial].map(|of| of.exact);
            group.iter().any(|trial| exact(trial) != exact(&group[0]))
        };
        Self { exact, rounding: rounding.into_iter().filter(differ).collect() }
    }

    /// The trial whose merge and scores stand for this one as well: the first of its exact twins.
    pub fn leader(&self, trial: usize) -> Option<usize> {
        let group = self.exact.iter().find(|group| group.contains(&trial))?;
        Some(group[0]).filter(|leader| *leader != trial)
    }
}

fn groups(keys: impl Iterator<Item = Option<Digest>>) -> Vec<Vec<usize>> {
    let mut numbers = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (trial, key) in keys.enumerate() {
        let Some(key) = key else { continue };
        let number = *numbers.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[number].push(trial);
    }
    groups.retain(|group| group.len() > 1);
    groups
}
