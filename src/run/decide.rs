//! What is left to do for a trial, and why: keys as they are now against keys as they were.

use std::collections::BTreeMap;

use super::fingerprint::{Key, StaleReason, evaluation_key, merge_key};
use super::state::TrialState;
use crate::eval::{Settings, TaskRequest};
use crate::plan::Subject;

/// A task to evaluate.
#[derive(Debug, Clone, PartialEq)]
pub struct StaleTask {
    /// The task.
    pub request: TaskRequest,
    /// What its answers will rest on.
    pub key: Key,
    /// Why.
    pub reason: StaleReason,
}

/// The merge of a trial, when it has one: the key it has now, and why it must be made (again).
#[derive(Debug, Clone, PartialEq)]
pub struct MergeDecision {
    /// Every input, as it is now.
    pub key: Key,
    /// `None`: the last merge still holds.
    pub stale: Option<StaleReason>,
}

/// What evaluations rest on beside the model and the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct HarnessIdentity {
    /// Version of the harness.
    pub version: String,
    /// Digest of the include path's files.
    pub task_files: Option<String>,
}

/// Decides about the merge; `None` for a checkpoint taken as it is. `inputs` names the content of every model it reads.
pub fn merge(
    subject: &Subject,
    state: &TrialState,
    inputs: &BTreeMap<String, String>,
    redo: bool,
) -> Option<MergeDecision> {
    let Subject::Merge { config, seed, numerics } = subject else { return None };
    let key = merge_key(config, *seed, *numerics, inputs);
    let stale =
        if redo { Some(StaleReason::Asked) } else { key.stale_since(state.merged.as_ref().map(|merged| &merged.key)) };
    Some(MergeDecision { key, stale })
}

/// The tasks whose last evaluation does not hold for a model of this identity, in the order of the spec.
pub fn tasks(
    settings: &Settings,
    harness: &HarnessIdentity,
    model: &str,
    state: &TrialState,
    redo: bool,
) -> Vec<StaleTask> {
    settings
        .tasks
        .iter()
        .filter_map(|request| {
            let key = evaluation_key(model, settings, request, &harness.version, harness.task_files.as_deref());
            let reason = if redo {
                Some(StaleReason::Asked)
            } else if state.evaluated(&request.name, &key).is_some() {
                None
            } else {
                key.stale_since(state.last_evaluation(&request.name).map(|done| &done.key))
            };
            reason.map(|reason| StaleTask { request: request.clone(), key, reason })
        })
        .collect()
}
