//! Where every trial stands: a fold over the journal's records, by one transition function.

use std::collections::{BTreeMap, BTreeSet};

use super::fingerprint::{Key, evaluation_key};
use super::journal::{Evaluation, Record, Stage, TaskEvaluation, What};
use super::search::{Decided, Draw, Refined, Sampled};
use crate::eval::results::HarnessFacts;
use crate::eval::{Score, Settings, TaskRequest};
use crate::merge::Merge;
use crate::plan::TrialId;

/// What is known of one trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrialState {
    /// The last finished merge.
    pub merged: Option<Merged>,
    /// Whether its output is on disk.
    pub model_present: bool,
    /// Every accepted evaluation, oldest first, with what the harness said of itself.
    pub evaluations: Vec<(TaskEvaluation, HarnessFacts)>,
    /// The stage in flight when the journal ends: interrupted, if no run holds the lock.
    pub in_flight: Option<Stage>,
    /// The last failure, unless something succeeded after it.
    pub failure: Option<(Stage, String)>,
    /// Seconds spent on accepted work.
    pub seconds: f64,
    /// Harness processes that began and were neither accepted nor failed, by their folders.
    pub unfinished: BTreeMap<String, Unfinished>,
    /// Folders of all harness processes that ever began.
    pub attempts: BTreeSet<String>,
    /// The trial whose merge stands for its own.
    pub twin: Option<String>,
    /// Whose scores were taken over, by task.
    pub shared: BTreeMap<String, String>,
    /// Batch sizes that were taken instead of the one asked for, by task.
    pub batch_sizes: BTreeMap<String, String>,
}

/// A harness process that began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unfinished {
    /// What its answers rest on, by task.
    pub keys: BTreeMap<String, Key>,
    /// The batch size it takes, where that is not the one asked for.
    pub batch_size: Option<String>,
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
pub struct SweepState {
    trials: BTreeMap<TrialId, TrialState>,
    /// Trials with an evaluation of some weights, by what names these: a twin is looked for at every step of every trial.
    by_weights: BTreeMap<String, BTreeSet<TrialId>>,
    /// How the search of the sweep drew its documents, where it has one.
    pub draw: Option<Draw>,
    /// What it decided, in order.
    pub decisions: Vec<Decided>,
    /// What it saw of the optimum, round by round.
    pub refinements: Vec<Refined>,
    /// What Optuna placed, round by round.
    pub samples: Vec<Sampled>,
}

impl SweepState {
    /// The state after all of `records`.
    pub fn replay(records: &[Record]) -> Self {
        let mut state = Self::default();
        records.iter().for_each(|record| state.apply(record));
        state
    }

    /// Takes one more record in.
    pub fn apply(&mut self, record: &Record) {
        match &record.what {
            What::SearchDrawn(draw) => {
                self.draw = Some(draw.clone());
                self.decisions.clear();
            }
            What::SearchDecided(decided) => {
                // What was decided after it rested on another decision.
                self.decisions.retain(|earlier| earlier.place() < decided.place());
                self.decisions.push(decided.clone());
            }
            What::SearchRefined(refined) => self.refinements.push(refined.clone()),
            What::SearchSampled(sampled) => self.samples.push(sampled.clone()),
            _ => {}
        }
        if let Some(trial) = &record.trial {
            self.trials.entry(trial.clone()).or_default().apply(&record.what);
            let answered: &[TaskEvaluation] = match &record.what {
                What::Evaluated(evaluation) => &evaluation.tasks,
                What::Shared { task, .. } => std::slice::from_ref(task),
                _ => &[],
            };
            for weights in answered.iter().filter_map(|task| task.key.weights()) {
                self.by_weights.entry(weights.to_owned()).or_default().insert(trial.clone());
            }
        }
    }

    /// Every trial that the journal speaks of, also those that the spec no longer has.
    pub fn trials(&self) -> impl Iterator<Item = &TrialId> {
        self.trials.keys()
    }

    /// The state of one trial.
    pub fn of(&self, trial: &TrialId) -> TrialState {
        self.trials.get(trial).cloned().unwrap_or_default()
    }

    /// The version of the harness that some evaluation was made with, of the last trial that has one.
    pub fn recorded_version(&self) -> Option<String> {
        let evaluated = self.trials.values().filter_map(|trial| trial.evaluations.last());
        evaluated.filter_map(|(done, _)| done.key.0.get("harness").cloned()).next_back()
    }

    /// An evaluation of a task with that key, of any trial.
    pub fn evaluation_with(&self, task: &str, key: &Key) -> Option<(TrialId, TaskEvaluation, HarnessFacts)> {
        self.by_weights.get(key.weights()?)?.iter().find_map(|id| {
            let (done, harness) = self.trials.get(id)?.of_task(task).find(|(done, _)| done.key == *key)?;
            Some((id.clone(), done.clone(), harness.clone()))
        })
    }
}

impl TrialState {
    /// The evaluation of a task that rests on exactly this.
    pub fn evaluated(&self, task: &str, key: &Key) -> Option<&TaskEvaluation> {
        self.of_task(task).map(|(done, _)| done).find(|done| done.key == *key)
    }

    /// The last evaluation of a task, whatever it rests on.
    pub fn last_evaluation(&self, task: &str) -> Option<&TaskEvaluation> {
        self.of_task(task).map(|(done, _)| done).next()
    }

    /// The last evaluation of a task that was asked as the settings ask, of the model the trial has now. What changed in
    /// models, tools and task files since then is for the next run to find.
    pub fn current(&self, settings: &Settings, request: &TaskRequest) -> Option<&(TaskEvaluation, HarnessFacts)> {
        if matches!(self.failure, Some((Stage::Merge, _))) {
            return None;
        }
        let key = evaluation_key("", settings, request, "", None);
        self.of_task(&request.name).find(|(done, _)| {
            let weights = done.key.weights();
            let is_of_merge = self.merged.as_ref().is_none_or(|merged| weights == Some(merged.identity.as_str()));
            is_of_merge && done.key.asks_as(&key)
        })
    }

    /// Every current score, task by task.
    pub fn scores(&self, settings: &Settings) -> Vec<(Score, HarnessFacts)> {
        let of_task = |(done, facts): &(TaskEvaluation, HarnessFacts)| {
            done.scores.iter().map(|score| (score.clone(), facts.clone())).collect::<Vec<_>>()
        };
        settings.tasks.iter().filter_map(|request| self.current(settings, request)).flat_map(of_task).collect()
    }

    /// Evaluations of one task, newest first.
    fn of_task(&self, task: &str) -> impl Iterator<Item = &(TaskEvaluation, HarnessFacts)> {
        self.evaluations.iter().rev().filter(move |(done, _)| done.task == task)
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
                self.twin = None;
                self.settle();
            }
            What::MergeShared { key, merge, identity, from } => {
                self.merged = Some(Merged { key: key.clone(), merge: merge.clone(), identity: identity.clone() });
                self.twin = Some(from.clone());
                self.settle();
            }
            What::EvaluationStarted { folder, keys, batch_size, .. } => {
                self.in_flight = Some(Stage::Evaluate);
                let begun = Unfinished { keys: keys.clone(), batch_size: batch_size.clone() };
                self.unfinished.insert(folder.clone(), begun);
                self.attempts.insert(folder.clone());
            }
            What::EvaluationRetried { folder, .. } => _ = self.unfinished.remove(folder),
            What::Shared { task, harness, from } => {
                self.shared.insert(task.task.clone(), from.clone());
                self.evaluations.push((task.clone(), harness.clone()));
                self.settle();
            }
            What::Evaluated(Evaluation { tasks, seconds, harness, folder, batch_size }) => {
                self.seconds += seconds;
                self.unfinished.remove(folder);
                for task in tasks {
                    self.shared.remove(&task.task);
                    match batch_size {
                        Some(size) => _ = self.batch_sizes.insert(task.task.clone(), size.clone()),
                        None => _ = self.batch_sizes.remove(&task.task),
                    }
                }
                self.evaluations.extend(tasks.iter().map(|task| (task.clone(), harness.clone())));
                self.settle();
            }
            What::RunStarted { .. }
            | What::RunEnded
            | What::Slurm(_)
            | What::SearchDrawn(_)
            | What::SearchDecided(_)
            | What::SearchRefined(_)
            | What::SearchSampled(_) => {}
            What::ModelDeleted => self.model_present = false,
            What::Failed { stage, reason } => {
                self.in_flight = None;
                // Their logs stay: they say why.
                self.unfinished.clear();
                self.failure = Some((*stage, reason.clone()));
            }
        }
    }

    fn settle(&mut self) {
        self.in_flight = None;
        self.failure = None;
    }
}
