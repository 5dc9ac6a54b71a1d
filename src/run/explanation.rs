//! Why a trial would be worked on, in words.

use super::error::RunError;
use super::facts::{Facts, look_around, models_of, with_settings};
use super::journal;
use super::state::SweepState;
use super::{Request, decide, search, twins};
use crate::eval::Settings;
use crate::model::ModelRef;
use crate::plan::Subject;

/// What is left to do for a trial, in words.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Explanation {
    /// Why its merge must be made.
    pub merge: Option<String>,
    /// Why tasks must be evaluated, by task.
    pub tasks: Vec<(String, String)>,
}

impl Explanation {
    /// Of a trial that reads a model which is not on disk.
    fn once_there(request: &Request, model: &ModelRef) -> Self {
        let tasks = request.settings.tasks.iter();
        let reason = format!("decided once `{model}` is downloaded");
        Self { merge: None, tasks: tasks.map(|task| (task.name.clone(), reason.clone())).collect() }
    }
}

/// The same of a trial whose models are known.
pub(super) fn explain(
    request: &Request,
    settings: &Settings,
    facts: &Facts,
    state: &SweepState,
    followers: &twins::Followers,
    index: usize,
) -> Explanation {
    let trial = &request.plan.trials[index];
    let state = state.of(&trial.id);
    let redo = request.redo.contains(&index);
    let inputs = facts.inputs_of(trial, &state);
    let merge = decide::merge(&trial.subject, &state, &inputs, redo);
    if let Some(reason) = merge.as_ref().and_then(|merge| merge.stale.as_ref()) {
        let leader = followers.get(&index).map(|leader| request.plan.trials[*leader].name.clone());
        let with = leader.map(|leader| format!("; taken over from its twin `{leader}`")).unwrap_or_default();
        return Explanation {
            merge: Some(format!("{reason}{with}")),
            tasks: settings
                .tasks
                .iter()
                .map(|task| (task.name.clone(), "decided once the merge is made".to_owned()))
                .collect(),
        };
    }
    let model = match (&trial.subject, &state.merged) {
        (Subject::Checkpoint(model), _) => facts.content_of(model),
        (Subject::Merge { .. }, Some(merged)) => merged.identity.clone(),
        (Subject::Merge { .. }, None) => String::new(),
    };
    let tasks = decide::tasks(settings, &facts.harness, &model, &state, redo);
    Explanation {
        merge: None,
        tasks: tasks.into_iter().map(|task| (task.request.name, task.reason.to_string())).collect(),
    }
}

/// Whether a run has anything to do for a trial.
pub(super) fn is_work_left(
    request: &Request,
    facts: &Facts,
    state: &SweepState,
    followers: &twins::Followers,
    index: usize,
) -> bool {
    let trial = &request.plan.trials[index];
    let decision = explain(request, &request.settings, facts, state, followers, index);
    decision.merge.is_some() || !decision.tasks.is_empty() || state.of(&trial.id).failure.is_some()
}

/// Why each selected trial would be worked on now, and which models a run would download first. Runs nothing, downloads
/// nothing and writes nothing.
///
/// # Errors
/// [`RunError`] when the journal, a model or the harness cannot be read, or when a run could not begin.
pub fn why(request: &Request) -> Result<(Vec<Explanation>, Vec<ModelRef>), RunError> {
    let state = SweepState::replay(&journal::read(&request.store.journal())?);
    let (facts, lacks) = look_around(request, None)?;
    let followers = twins::followers(request);
    let mut absent: Vec<ModelRef> = Vec::new();
    let mut explanations = Vec::new();
    for index in &request.selected {
        let missing: Vec<ModelRef> = models_of(&request.plan.trials[*index])
            .into_iter()
            .filter(|model| !facts.models.contains_key(model))
            .collect();
        explanations.push(match missing.first() {
            Some(model) => Explanation::once_there(request, model),
            None => {
                let settings = search::settings_of(request, &state, *index);
                explain(request, &settings, &facts, &state, &followers, *index)
            }
        });
        absent.extend(missing.into_iter().filter(|model| !absent.contains(model)).collect::<Vec<_>>());
    }
    let idle = explanations.iter().all(|explanation| explanation.merge.is_none() && explanation.tasks.is_empty());
    let lacks = if idle && lacks.is_empty() { lacks } else { with_settings(request, lacks) };
    if lacks.is_empty() { Ok((explanations, absent)) } else { Err(RunError::Lacks(lacks)) }
}
