//! What models are called in a spec: short names where it was written, references in the mergekit files it takes in.

use std::sync::Arc;

use crate::config::parse::{ModelNameError, Reading};
use crate::document::read::nearest;
use crate::document::{Source, Span};
use crate::model::ModelRef;

/// The declared models, as the reading of every document of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct ModelNames<'a> {
    /// Short name to reference.
    pub models: &'a [(String, ModelRef)],
    /// The spec itself: what stands in it is held to the short names and may hold nothing unknown.
    pub spec: &'a Arc<Source>,
    /// Whether documents have all their values.
    pub complete: bool,
}

impl ModelNames<'_> {
    fn short(&self, name: &str) -> Option<&ModelRef> {
        self.models.iter().find(|(short, _)| short == name).map(|(_, model)| model)
    }

    /// The model that a text of the spec names: a short name, a short name with an adapter, or a reference that cannot
    /// be a short name.
    ///
    /// # Errors
    /// [`ModelNameError`].
    pub fn named(&self, text: &str) -> Result<ModelRef, ModelNameError> {
        if let Some(model) = self.short(text) {
            return Ok(model.clone());
        }
        if let Some((base, adapter)) = text.split_once('+')
            && let Some(model) = self.short(base).filter(|model| model.adapter.is_none())
        {
            return Ok(format!("{model}+{adapter}").parse()?);
        }
        if text.contains('/') || text.starts_with(['.', '~']) {
            return Ok(text.parse()?);
        }
        let shorts = || self.models.iter().map(|(short, _)| short.as_str());
        Err(ModelNameError::Unknown {
            name: text.to_owned(),
            nearest: nearest(text, shorts()).map(str::to_owned),
            known: shorts().map(str::to_owned).collect(),
        })
    }

    /// Whether a text stands in the spec rather than in a file it takes in.
    pub fn in_spec(&self, span: &Span) -> bool {
        Arc::ptr_eq(&span.source, self.spec)
    }
}

impl Reading for ModelNames<'_> {
    fn model(&self, text: &str, span: &Span) -> Result<ModelRef, ModelNameError> {
        match self.short(text) {
            Some(model) => Ok(model.clone()),
            None if self.in_spec(span) => self.named(text),
            None => Ok(text.parse()?),
        }
    }

    fn refuses_unknown(&self, span: &Span) -> bool {
        self.in_spec(span)
    }

    fn is_complete(&self) -> bool {
        self.complete
    }
}
