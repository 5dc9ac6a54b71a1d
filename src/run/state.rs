//! Where every trial stands: a fold over the journal's records, by one transition function.

use std::collections::BTreeMap;

use super::fingerprint::Key;
use super::journal::{Evaluation, Record, Stage, TaskEvaluation, What};
use crate::eval::Score;
use crate::eval::results::HarnessFacts;
use crate::merge::Merge;
use crate::plan::TrialId;

/// What is known of one trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrialState {
    /// The last finished merge.
    pub merged: Option<Merged>,
    /// Whether its output is on disk.
    pub model_present: bool,
    /// The last accepted evaluation of every task, with what the harness said of itself.
    pub tasks: BTreeMap<String, (TaskEvaluation, HarnessFacts)>,
    /// The stage in flight when the journal ends: interrupted, if no run holds the lock.
    pub in_flight: Option<Stage>,
    /// The last failure, unless something succeeded after it.
    pub failure: Option<(Stage, String)>,
    /// Seconds spent on accepted work.
    pub seconds: f64,
}

/// A finished merge, what it was made from and what came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Every input.
    pub key: Key,
    /// The record.
    pub merge: Merge,
    /// Names what was written: weights, config, tokenizer, template.
    pub identity: String,
}

/// What is known of every trial that the journal speaks of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SweepState(BTreeMap<TrialId, TrialState>);

impl SweepState {
    /// The state after all of `records`.
    pub fn replay(records: &[Record]) -> Self {
        let mut state = Self::default();
        records.iter().for_each(|record| state.apply(record));
        state
    }

    /// Takes one more record in.
    pub fn apply(&mut self, record: &Record) {
        self.0.entry(record.trial.clone()).or_default().apply(&record.what);
    }

    /// The state of one trial.
    pub fn of(&self, trial: &TrialId) -> TrialState {
        self.0.get(trial).cloned().unwrap_or_default()
    }
}

impl TrialState {
    /// Every accepted score, task by task.
    pub fn scores(&self) -> Vec<(Score, HarnessFacts)> {
        let of_task = |(done, facts): &(TaskEvaluation, HarnessFacts)| {
            done.scores.iter().map(|score| (score.clone(), facts.clone())).collect::<Vec<_>>()
        };
        self.tasks.values().flat_map(of_task).collect()
    }

    fn apply(&mut self, what: &What) {
        match what {
            What::MergeStarted => {
                // The old output is replaced by the new merge: until that is complete there is none to rely on.
                self.model_present = false;
                self.in_flight = Some(Stage::Merge);
            }
            What::Merged { key, merge, identity } => {
                self.seconds += merge.seconds;
                self.merged = Some(Merged { key: key.clone(), merge: merge.clone(), identity: identity.clone() });
                self.model_present = true;
                self.settle();
            }
            What::EvaluationStarted { .. } => self.in_flight = Some(Stage::Evaluate),
            What::Evaluated(Evaluation { tasks, seconds, harness, .. }) => {
                self.seconds += seconds;
                self.tasks.extend(tasks.iter().map(|task| (task.task.clone(), (task.clone(), harness.clone()))));
                self.settle();
            }
            What::ModelDeleted => self.model_present = false,
            What::Failed { stage, reason } => {
                self.in_flight = None;
                self.failure = Some((*stage, reason.clone()));
            }
        }
    }

    fn settle(&mut self) {
        self.in_flight = None;
        self.failure = None;
    }
}
