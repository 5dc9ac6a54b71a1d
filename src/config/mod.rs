//! The mergekit dialect in normal form: what a merge computes, free of spellings, files and sweeps.
//!
//! [`MergeConfig`] is what every spelling (`models`, `slices`, `modules`) is brought to by [`parse`]; [`write`] turns it
//! back into YAML that mergekit reads the same way. The table of methods is [`method`], the value of a parameter for a
//! tensor is decided in [`parameter`]. This module opens no model and knows no tensor bytes.

pub mod about;
mod check;
pub mod dtype;
pub mod keys;
pub mod method;
pub mod numerics;
pub mod parameter;
pub mod parse;
mod tokenizer;
pub(crate) mod value;
pub mod write;

pub use dtype::Dtype;
pub use method::Method;
pub use numerics::Numerics;
pub use parameter::{Parameters, Scalar, Setting};
pub use tokenizer::{TokenSettings, TokenSource, VocabularySettings, VocabularySource};

use crate::model::ModelRef;

/// A merge in normal form (mergekit: one YAML document).
///
/// The `models` form becomes one slice whose sources have no layer range, with an unlisted base model appended as the
/// last source (mergekit's rule, `models` form only). The `modules` form must have exactly one module.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeConfig {
    /// `merge_method`.
    pub method: Method,
    /// `base_model`.
    pub base_model: Option<ModelRef>,
    /// Output slices, stacked in this order. Never empty.
    pub slices: Vec<Slice>,
    /// `parameters` of the one module in `modules` form, empty otherwise.
    pub module_parameters: Parameters,
    /// Top-level `parameters`.
    pub parameters: Parameters,
    /// `dtype`: inputs are cast to it on reading, and the result has it.
    pub dtype: Option<Dtype>,
    /// `out_dtype`: applied just before writing.
    pub out_dtype: Option<Dtype>,
    /// `tokenizer_source` or `tokenizer`.
    pub tokenizer: Option<Tokenizer>,
    /// `chat_template`.
    pub chat_template: Option<String>,
}

/// One output slice: layers of the same depth, taken from every source.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Sources in listing order: the order matters to nuslerp and to the order of summation.
    pub sources: Vec<SourceModel>,
    /// `base_model` of the slice, which overrides the global one.
    pub base_model: Option<ModelRef>,
    /// `parameters` of the slice.
    pub parameters: Parameters,
}

/// One model of a slice.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceModel {
    /// The model.
    pub model: ModelRef,
    /// Half-open range of its layers; `None` in `models` form means all of them.
    pub layer_range: Option<(usize, usize)>,
    /// `parameters` of the entry: read for per-input parameters of this model only.
    pub parameters: Parameters,
}

/// What to do about the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub enum Tokenizer {
    /// `tokenizer_source: base | union | MODEL`, or the same word under `tokenizer.source`.
    Source(String),
    /// A `tokenizer` mapping with per-token settings or padding, kept as its canonical text (compact JSON).
    Detailed(String),
}

impl MergeConfig {
    /// Every model that is merged, each once, in order of first mention (slices first, then the global base).
    pub fn models(&self) -> Vec<&ModelRef> {
        let mut models: Vec<&ModelRef> = Vec::new();
        let sources = self
            .slices
            .iter()
            .flat_map(|slice| slice.sources.iter().map(|source| &source.model).chain(slice.base_model.as_ref()));
        for model in sources.chain(self.base_model.as_ref()) {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }

    /// The base model that is in force for a slice.
    pub fn base_of<'a>(&'a self, slice: &'a Slice) -> Option<&'a ModelRef> {
        slice.base_model.as_ref().or(self.base_model.as_ref())
    }
}
