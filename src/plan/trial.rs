//! A trial and its identity.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Subject;
use crate::config::{MergeConfig, Method, Numerics, Parameters, Scalar, Slice, SourceModel, write};
use crate::model::ModelRef;

/// One row of the study.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Identity: a digest of the subject, not of the name.
    pub id: TrialId,
    /// Name of its row.
    pub name: String,
    /// What is evaluated.
    pub subject: Subject,
    /// Axis values, in the order of the axes.
    pub axes: Vec<(String, Scalar)>,
    /// Whether it comes from `baseline` rather than `merge`.
    pub baseline: bool,
}

/// Digest of what a trial evaluates: 16 hexadecimal digits over the config in normal form with its references as
/// written, or the reference of the checkpoint. The seed is part of it where the method draws random numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrialId(pub String);

/// Longest readable part of a folder name.
const MAX_SLUG: usize = 60;

impl TrialId {
    /// The identity of a subject.
    pub fn of(subject: &Subject) -> Self {
        let text = match subject {
            Subject::Checkpoint(model) => format!("checkpoint\n{model}"),
            Subject::Merge { config, seed, numerics } => {
                let mut text = format!("merge\n{}", write::canonical(config));
                if config.method.spec().random {
                    text += &format!("\nseed {seed}");
                }
                if *numerics != Numerics::default() {
                    text += &format!("\nnumerics {numerics}");
                }
                text
            }
        };
        Self(blake3::hash(text.as_bytes()).to_hex()[..16].to_owned())
    }

    /// The first eight digits.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for TrialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Subject {
    /// A model as it is. One with an adapter has to be put together first: a passthrough merge like any other.
    pub fn unmerged(model: &ModelRef) -> Self {
        if model.adapter.is_none() {
            return Self::Checkpoint(model.clone());
        }
        let source = SourceModel { model: model.clone(), layer_range: None, parameters: Parameters::new() };
        let config = MergeConfig {
            method: Method::Passthrough,
            base_model: None,
            slices: vec![Slice { sources: vec![source], base_model: None, parameters: Parameters::new() }],
            module_parameters: Parameters::new(),
            parameters: Parameters::new(),
            dtype: None,
            out_dtype: None,
            tokenizer: None,
            chat_template: None,
        };
        Self::Merge { config: Box::new(config), seed: 0, numerics: Numerics::default() }
    }
}

impl Trial {
    /// The axis values on one line: `t=0.3, seed=1`; empty without axes.
    pub fn settings_text(&self) -> String {
        settings_text(&self.axes)
    }

    /// The name as part of a file name: lower-case ASCII letters, digits, points and single hyphens.
    pub fn slug(&self) -> String {
        slug(&self.name)
    }

    /// Name of its folder: readable, and unique by its identity.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.slug(), self.id.short())
    }

    /// `model` for a row of a model as it is, `merge` otherwise.
    pub fn kind(&self) -> &'static str {
        if self.baseline { "model" } else { "merge" }
    }
}

/// Axis values on one line.
pub(super) fn settings_text(axes: &[(String, Scalar)]) -> String {
    axes.iter().map(|(axis, value)| format!("{axis}={value}")).collect::<Vec<_>>().join(", ")
}

/// A name as part of a file name.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_alphanumeric() || letter == '.' || letter == '_' {
            slug.push(letter);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= MAX_SLUG {
            break;
        }
    }
    let slug = slug.trim_matches(['-', '.']);
    if slug.is_empty() { "trial".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_readable_and_plain() {
        for (name, expected) in [
            ("SLERP (t=0.3)", "slerp-t-0.3"),
            ("Math → Code", "math-code"),
            ("DARE-TIES (density=0.2, seed=1)", "dare-ties-density-0.2-seed-1"),
            ("→", "trial"),
            ("../../etc", "etc"),
        ] {
            assert_eq!(slug(name), expected);
        }
    }

    #[test]
    fn a_model_with_an_adapter_is_a_passthrough_merge() {
        let model = |text: &str| text.parse::<ModelRef>().map(|model| Subject::unmerged(&model));
        assert!(matches!(model("a/b"), Ok(Subject::Checkpoint(_))));
        assert!(matches!(model("a/b+c"), Ok(Subject::Merge { config, .. }) if config.method == Method::Passthrough));
    }
}
