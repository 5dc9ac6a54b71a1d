//! What a run knows before its first trial: the content of every model, the harness, what other sweeps have evaluated.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::HarnessIdentity;
use super::elsewhere::Elsewhere;
use super::error::{Lack, RunError};
use super::state::TrialState;
use super::{Request, fingerprint, twins};
use crate::config::Tokenizer;
use crate::eval::{command, preflight, task_files};
use crate::model::Digests;
use crate::model::ModelRef;
use crate::model::identity::identity;
use crate::plan::{Subject, Trial, TrialId};
use crate::process::Cancel;

/// What is known of the models and the harness before the first trial.
#[derive(Debug)]
pub(super) struct Facts {
    pub harness: HarnessIdentity,
    /// Content of every model of the selected trials.
    pub models: Contents,
    pub known_tasks: command::KnownTasks,
    pub elsewhere: Elsewhere,
    /// The trials that may stand for a trial since they are the same but for rounding: their names. What is selected has no
    /// part in it.
    pub rounded: BTreeMap<TrialId, BTreeSet<String>>,
}

impl Facts {
    /// Named parts of every model a trial reads: `code weights`; and the twin whose merge stands for its own, as long as the
    /// spec says that it may.
    pub fn inputs_of(&self, trial: &Trial, state: &TrialState) -> BTreeMap<String, String> {
        let parts = |model: &ModelRef| self.models.get(model).cloned().unwrap_or_default();
        let named = |model: ModelRef| {
            parts(&model).into_iter().map(|(part, value)| (format!("{model} {part}"), value)).collect::<Vec<_>>()
        };
        let twins = self.rounded.get(&trial.id);
        let twin = state.merged.as_ref().and_then(|merged| merged.key.twin());
        let twin = twin.filter(|twin| twins.is_some_and(|twins| twins.contains(*twin)));
        let twin = twin.map(|twin| ("twin".to_owned(), twin.to_owned()));
        models_of(trial).into_iter().flat_map(named).chain(twin).collect()
    }

    /// The content of a model that is evaluated as it is, as one text.
    pub fn content_of(&self, model: &ModelRef) -> String {
        let parts = self.models.get(model).into_iter().flatten();
        parts.map(|(part, value)| format!("{part} {value}")).collect::<Vec<_>>().join("; ")
    }
}

/// Finds every model, names its content, and asks the harness for its version. Weights of local models
/// are read where that was not done before. Everything that is lacking is told together. Models of the hub that are not on disk are downloaded until the user stops that, or left out of
/// the facts.
pub(super) fn look_around(request: &Request, download: Option<&Cancel>) -> Result<(Facts, Vec<Lack>), RunError> {
    let digests = Digests::remembered_in(request.store.results());
    let (models, mut lacks) = models_here(request, download, Some(&digests))?;
    let python = &request.settings.python;
    let cancel = download.cloned().unwrap_or_else(Cancel::never);
    let version = match preflight::harness_version(python, &cancel) {
        Ok(Some(version)) => version,
        Err(preflight::Problem::Cancelled) => return Err(RunError::Interrupted),
        Ok(None) => {
            let (python, package) = (python.clone(), "lm_eval".to_owned());
            lacks.push(preflight::Problem::MissingPackage { python, package, needed_by: None }.into());
            String::new()
        }
        Err(problem) => {
            lacks.push(problem.into());
            String::new()
        }
    };
    Ok((facts_of(request, models, version)?, lacks))
}

/// Content of models, by reference: named parts.
pub(super) type Contents = BTreeMap<ModelRef, BTreeMap<String, String>>;

/// The content of every model that the selected trials read, by `digests` or without a look at their weights, and those that are
/// lacking.
pub(super) fn models_here(
    request: &Request,
    download: Option<&Cancel>,
    digests: Option<&Digests>,
) -> Result<(Contents, Vec<Lack>), RunError> {
    let mut locator = request.locator.clone();
    locator.hub.cancel = download.cloned().unwrap_or_else(Cancel::never);
    let (mut models, mut lacks, mut seen) = (Contents::new(), Vec::new(), BTreeSet::new());
    for model in request.selected.iter().flat_map(|index| models_of(&request.plan.trials[*index])) {
        if !seen.insert(model.clone()) {
            continue;
        }
        let located =
            if download.is_some() { locator.locate(&model).map(Some) } else { locator.locate_on_disk(&model) };
        match located {
            Ok(Some(located)) => {
                models.insert(model, identity(&located, digests)?);
            }
            Ok(None) => {}
            Err(source) if source.is_cancelled() => return Err(RunError::Interrupted),
            Err(source) => lacks.push(Lack::Model { model, source }),
        }
    }
    Ok((models, lacks))
}

/// Facts with these models and a harness of this version.
pub(super) fn facts_of(request: &Request, models: Contents, version: String) -> Result<Facts, RunError> {
    let task_files = match request.settings.include_path.as_deref() {
        // What is no folder is told by the settings.
        Some(path) if path.is_dir() => Some(fingerprint::folder_digest(path)?),
        _ => None,
    };
    let harness = HarnessIdentity { version, task_files };
    let rounded = twins::rounded(request);
    let (known_tasks, elsewhere) = (command::KnownTasks::new(), Elsewhere::default());
    Ok(Facts { harness, models, known_tasks, elsewhere, rounded })
}

/// What is lacking, with what the settings alone tell.
pub(super) fn with_settings(request: &Request, mut lacks: Vec<Lack>) -> Vec<Lack> {
    let settings = &request.settings;
    let own = settings.include_path.as_deref().map(task_files::read).unwrap_or_default();
    lacks.extend(preflight::told_by_settings(settings, &own).into_iter().map(Lack::from));
    lacks
}

/// The models a trial reads.
pub fn models_of(trial: &Trial) -> Vec<ModelRef> {
    match &trial.subject {
        Subject::Checkpoint(model) => vec![model.clone()],
        Subject::Merge { config, .. } => {
            let mut models: Vec<ModelRef> = config.models().into_iter().cloned().collect();
            let tokenizer = config.tokenizer.as_ref().and_then(Tokenizer::model);
            models.extend(tokenizer.filter(|model| !config.models().contains(&model)));
            models
        }
    }
}
