//! One trial from start to scores: merge if its merge is stale, evaluate the tasks that are stale, record every step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::decide::{self, StaleTask};
use super::event::RunEvent;
use super::journal::{Evaluation, Stage, TaskEvaluation, What};
use super::merging::Lane;
use super::state::TrialState;
use super::store;
use super::{Facts, Ledger, Listener, Request, RunError, relative};
use crate::eval::Score;
use crate::eval::command::{self, KnownTasks};
use crate::eval::failure::Cause;
use crate::eval::harness::{self, HarnessEvent};
use crate::plan::{Subject, Trial};
use crate::process::Cancel;

/// A trial being worked on.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub request: &'a Request,
    pub facts: &'a Facts,
    pub trial: &'a Trial,
    pub redo: bool,
    pub ledger: &'a Mutex<Ledger>,
    /// Held while merges are made.
    pub merging: &'a tokio::sync::Mutex<Lane>,
    pub listener: &'a Listener,
    pub cancel: &'a Cancel,
}

/// How the work on a trial ended.
pub(super) enum Outcome {
    /// Nothing had to be done.
    Reused,
    /// It has all its scores.
    Done,
    /// A stage failed, for this reason.
    Failed(Stage, String),
    /// The user stopped it.
    Interrupted,
}

/// Why a stage ended early.
pub(super) enum Stop {
    Failed { stage: Stage, reason: String, log: Option<PathBuf> },
    Interrupted,
    Fatal(RunError),
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        Self::Fatal(error)
    }
}

impl From<store::StoreError> for Stop {
    fn from(error: store::StoreError) -> Self {
        Self::Fatal(error.into())
    }
}

impl Work<'_> {
    /// Does what is left to do.
    ///
    /// # Errors
    /// [`RunError`] when the journal or the folder of the sweep cannot be written.
    pub async fn run(&self) -> Result<Outcome, RunError> {
        if self.cancel.is_cancelled() {
            return Ok(Outcome::Interrupted);
        }
        match self.stages().await {
            Ok(outcome) => Ok(outcome),
            Err(Stop::Interrupted) => Ok(Outcome::Interrupted),
            Err(Stop::Fatal(error)) => Err(error),
            Err(Stop::Failed { stage, reason, log }) => {
                self.record(What::Failed { stage, reason: reason.clone() })?;
                self.say(RunEvent::Failed { trial: self.name(), stage, reason: reason.clone(), log });
                Ok(Outcome::Failed(stage, reason))
            }
        }
    }

    async fn stages(&self) -> Result<Outcome, Stop> {
        let (model, mut worked) = match &self.trial.subject {
            Subject::Checkpoint(model) => (self.request.locator.locate(model).map_err(RunError::from)?.base, false),
            Subject::Merge { .. } => {
                let merged = self.merging.lock().await.merge(self).await?;
                (self.request.store.model(self.trial), merged)
            }
        };
        let stale = self.stale_tasks(false);
        if !stale.is_empty() {
            self.evaluate(&model, &stale).await?;
            worked = true;
        }
        self.delete_model_unless_kept()?;
        if worked {
            self.say(RunEvent::TrialDone { trial: self.name() });
            Ok(Outcome::Done)
        } else {
            self.say(RunEvent::Reused { trial: self.name(), what: self.reused() });
            Ok(Outcome::Reused)
        }
    }

    /// Tasks whose evaluation does not hold; none while the merge they would rest on is not made.
    pub(super) fn stale_tasks(&self, merge_is_stale: bool) -> Vec<StaleTask> {
        let state = self.now();
        let identity = match &self.trial.subject {
            Subject::Checkpoint(model) => Some(self.facts.content_of(model)),
            Subject::Merge { .. } if merge_is_stale => None,
            Subject::Merge { .. } => state.merged.as_ref().map(|merged| merged.identity.clone()),
        };
        let Some(identity) = identity else { return Vec::new() };
        decide::tasks(&self.request.settings, &self.facts.harness, &identity, &state, self.redo)
    }

    async fn evaluate(&self, model: &Path, stale: &[StaleTask]) -> Result<(), Stop> {
        let requests: Vec<_> = stale.iter().map(|task| task.request.clone()).collect();
        let known = &self.facts.known_tasks;
        let calls = command::calls(&self.request.settings, &requests, &|task| command::runs_code(known, task));
        for call in calls {
            let begun = Instant::now();
            let folder = self.request.store.new_attempt(self.trial)?;
            let relative_folder = relative(&self.request.store, self.trial, &folder).display().to_string();
            let tasks: Vec<String> = call.tasks.iter().map(|task| task.name.clone()).collect();
            let why = stale.iter().find(|task| tasks.contains(&task.request.name)).map(|task| task.reason.to_string());
            self.record(What::EvaluationStarted { tasks: tasks.clone(), folder: relative_folder.clone() })?;
            self.say(RunEvent::StageStarted {
                trial: self.name(),
                stage: Stage::Evaluate,
                why: format!("{}; {}", tasks.join(", "), why.unwrap_or_default()),
            });
            let job = harness::Request {
                settings: &self.request.settings,
                call: &call,
                known,
                model,
                attempt: &folder,
                home: &self.request.store.harness_home(),
                cache: &self.request.store.harness_cache(),
                n_threads: self.request.n_threads,
            };
            let (listener, name) = (self.listener.clone(), self.name());
            let mut on_event = move |event: HarnessEvent| listener(progress(&name, event));
            let evaluated = match harness::evaluate(&job, &mut on_event, self.cancel).await {
                Ok(evaluated) => evaluated,
                Err(failure) if matches!(failure.cause, Cause::Cancelled) => return Err(Stop::Interrupted),
                Err(failure) => {
                    let hint = failure.cause.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                    let reason = format!("{}{hint}", failure.cause);
                    return Err(Stop::Failed { stage: Stage::Evaluate, reason, log: failure.log });
                }
            };
            for note in &evaluated.notes {
                self.say(RunEvent::Note(format!("{}: {note}", self.trial.name)));
            }
            let seconds = begun.elapsed().as_secs_f64();
            let evaluation = Evaluation {
                tasks: task_evaluations(stale, &tasks, known, &evaluated.scores),
                harness: evaluated.facts,
                folder: relative_folder,
                seconds,
            };
            self.record(What::Evaluated(evaluation))?;
            self.say(RunEvent::StageFinished {
                trial: self.name(),
                stage: Stage::Evaluate,
                elapsed: Duration::from_secs_f64(seconds),
                what: tasks.join(", "),
            });
        }
        Ok(())
    }

    /// Deletes the merged model once it is scored. The journal says so first: a half-deleted folder must never count as
    /// present.
    fn delete_model_unless_kept(&self) -> Result<(), RunError> {
        if self.request.keep_models || !self.is_model_present() || !matches!(self.trial.subject, Subject::Merge { .. })
        {
            return Ok(());
        }
        self.record(What::ModelDeleted)?;
        let path = self.request.store.model(self.trial);
        fs::remove_dir_all(&path).map_err(store::at(&path))?;
        Ok(())
    }

    pub(super) fn is_model_present(&self) -> bool {
        self.now().model_present && self.request.store.model(self.trial).join("config.json").exists()
    }

    fn reused(&self) -> String {
        let n_tasks = self.request.settings.tasks.len();
        let evaluations = format!("{n_tasks} evaluation{}", if n_tasks == 1 { "" } else { "s" });
        match self.trial.subject {
            Subject::Checkpoint(_) => evaluations,
            Subject::Merge { .. } => format!("merge and {evaluations}"),
        }
    }

    pub(super) fn now(&self) -> TrialState {
        self.ledger().state.of(&self.trial.id)
    }

    pub(super) fn name(&self) -> String {
        self.trial.name.clone()
    }

    pub(super) fn record(&self, what: What) -> Result<(), RunError> {
        self.ledger().record(&self.trial.id, what)?;
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves journal and state in step: the journal is written first.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, event: RunEvent) {
        (self.listener)(event);
    }
}

/// What the harness is doing, as progress of the evaluate stage.
fn progress(trial: &str, event: HarnessEvent) -> RunEvent {
    let (done, total, doing) = match event {
        HarnessEvent::Stage(stage) => (0, 0, stage.to_string()),
        HarnessEvent::Progress { stage, n_done, n_total, .. } => (n_done, n_total, stage.to_string()),
    };
    RunEvent::StageProgress { trial: trial.to_owned(), done, total, doing: format!("{trial}: {doing}") }
}

pub(super) fn failed(stage: Stage, error: &dyn std::error::Error) -> Stop {
    Stop::Failed { stage, reason: error.to_string(), log: None }
}

/// Deals the scores of one harness process out to its tasks.
fn task_evaluations(
    stale: &[StaleTask],
    tasks: &[String],
    known: &KnownTasks,
    scores: &[Score],
) -> Vec<TaskEvaluation> {
    stale
        .iter()
        .filter(|task| tasks.contains(&task.request.name))
        .map(|task| TaskEvaluation {
            task: task.request.name.clone(),
            key: task.key.clone(),
            scores: command::scores_of(known, &task.request.name, scores),
        })
        .collect()
}
