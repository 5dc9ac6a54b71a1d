//! The models of a plan that are on this machine, each opened once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Request;
use super::health::Findings;
use crate::config::Dtype;
use crate::merge::arch::{EMBEDDING, HEAD};
use crate::merge::sidecar::own_chat_template;
use crate::merge::source::{self, Source};
use crate::merge::tokenizer::Tokenizer;
use crate::merge::{BoxError, MergeOptions, Pool};
use crate::model::{Located, ModelRef};
use crate::plan::{Plan, Subject};

/// A model that is here.
#[derive(Debug)]
pub struct Model {
    /// Its reference.
    pub model: ModelRef,
    /// What the spec calls it.
    pub name: String,
    /// Its files.
    pub source: Source,
    /// Its tokenizer, where it has one that can be read.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Its chat template.
    pub template: Option<String>,
}

/// Those that are here, and the names of those that are not.
#[derive(Debug, Default)]
pub struct Models(pub Vec<Model>, pub Vec<String>);

impl Model {
    /// Numbers in all its tensors.
    pub fn n_parameters(&self) -> u64 {
        let tensors = self.source.checkpoint.tensors().values();
        tensors.map(|tensor| tensor.shape.iter().map(|side| *side as u64).product::<u64>()).sum()
    }

    /// Number formats of its tensors.
    pub fn dtypes(&self) -> BTreeSet<Dtype> {
        let tensors = self.source.checkpoint.tensors().values();
        tensors.filter_map(|tensor| self.source.dtype(tensor)).collect()
    }

    /// Rows of its embedding.
    pub fn n_rows(&self) -> Option<usize> {
        self.source.checkpoint.tensor(EMBEDDING)?.shape.first().copied()
    }

    /// Whether it has a head of its own; none where it has no embedding of a usual name either.
    pub fn has_head(&self) -> Option<bool> {
        self.n_rows().map(|_| self.source.checkpoint.tensor(HEAD).is_some())
    }
}

impl Models {
    /// Opens every model that a trial reads.
    pub fn open(request: &Request<'_>, findings: &mut Findings<'_>) -> Self {
        let references = references(request.plan);
        let keys = source::keys(&references.iter().collect::<Vec<_>>());
        let mut pool = Pool::default();
        let mut models = Self::default();
        let mut tokenizers: Vec<(std::path::PathBuf, Option<Arc<Tokenizer>>)> = Vec::new();
        for (model, key) in references.into_iter().zip(keys) {
            let name = request.sweep.short_name(&model);
            let Some(located) = (request.locate)(&model) else {
                models.1.push(name);
                continue;
            };
            let found = |_: &ModelRef| -> Result<Located, BoxError> { Ok(located.clone()) };
            let source = match pool.open(&model, key, &found, &MergeOptions::default()) {
                Ok(source) => source,
                Err(error) => {
                    findings.unmergeable(&[&model], &error.to_string());
                    continue;
                }
            };
            let folder = source.checkpoint.folder.clone();
            let known = tokenizers.iter().find(|(known, _)| *known == folder).map(|(_, tokenizer)| tokenizer.clone());
            let tokenizer = known.unwrap_or_else(|| {
                // Only other formats and damaged files are not read: a run says more of them.
                let tokenizer = Tokenizer::open(&folder, None).ok().flatten().map(Arc::new);
                tokenizers.push((folder.clone(), tokenizer.clone()));
                tokenizer
            });
            let template = own_chat_template(&folder).ok().flatten();
            models.0.push(Model { model, name, source, tokenizer, template });
        }
        models
    }

    /// The first one.
    pub fn first(&self) -> Option<&Model> {
        self.0.first()
    }

    /// Its number here.
    pub fn place(&self, model: &ModelRef) -> Option<usize> {
        self.0.iter().position(|one| one.model == *model)
    }

    /// How the engine finds them.
    pub fn locate<'a>(request: &Request<'a>) -> impl Fn(&ModelRef) -> Result<Located, BoxError> + use<'a> {
        let locate = request.locate;
        move |model: &ModelRef| locate(model).ok_or_else(|| format!("`{model}` is not on this machine").into())
    }
}

/// Every model that a trial reads, those of merges first: what they have in common is looked at.
fn references(plan: &Plan) -> Vec<ModelRef> {
    let mut found: Vec<ModelRef> = Vec::new();
    let mut add = |model: &ModelRef| {
        if !found.contains(model) {
            found.push(model.clone());
        }
    };
    let configs = plan.trials.iter().filter_map(|trial| match &trial.subject {
        Subject::Merge { config, .. } => Some(config),
        Subject::Checkpoint(_) => None,
    });
    for config in configs {
        // A base before its fine-tunes.
        config.base_model.iter().for_each(&mut add);
        config.models().into_iter().for_each(&mut add);
    }
    for trial in &plan.trials {
        if let Subject::Checkpoint(model) = &trial.subject {
            add(model);
        }
    }
    found
}
