//! One trial from start to scores: merge if its merge is stale, evaluate the tasks that are stale, record every step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::decide::{self, StaleTask};
use super::event::RunEvent;
use super::fingerprint::{Key, StaleReason, digest};
use super::journal::{Evaluation, Stage, TaskEvaluation, What};
use super::state::TrialState;
use super::store;
use super::{Facts, Ledger, Listener, Request, RunError, merge_options, relative};
use crate::config::{MergeConfig, write};
use crate::eval::Score;
use crate::eval::command::{self, KnownTasks};
use crate::eval::failure::Cause;
use crate::eval::harness::{self, HarnessEvent};
use crate::merge::{self, Merge, MergeError};
use crate::plan::{Subject, Trial};
use crate::process::Cancel;

/// A trial being worked on.
pub(super) struct Work<'a> {
    pub request: &'a Request,
    pub facts: &'a Facts,
    pub trial: &'a Trial,
    pub redo: bool,
    pub ledger: &'a Mutex<Ledger>,
    /// Held while a merge is made: two at once would only share the cores and the disk.
    pub merging: &'a tokio::sync::Mutex<()>,
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
enum Stop {
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
        let inputs = self.facts.inputs_of(self.trial);
        let mut worked = false;
        let model = match (&self.trial.subject, decide::merge(&self.trial.subject, &self.now(), &inputs, self.redo)) {
            (Subject::Merge { config, seed }, Some(decision)) => {
                let (config, seed) = (config.as_ref().clone(), *seed);
                let stale = self.stale_tasks(decision.stale.is_some());
                let reason = decision.stale.or_else(|| {
                    let is_gone = !self.is_model_present();
                    (!stale.is_empty() && is_gone).then_some(StaleReason::ModelGone)
                });
                if let Some(reason) = reason {
                    self.merge(config, seed, decision.key, &reason).await?;
                    worked = true;
                }
                self.request.store.model(self.trial)
            }
            (Subject::Checkpoint(model), _) => self.request.locator.locate(model).map_err(RunError::from)?.base,
            (Subject::Merge { .. }, None) => PathBuf::new(),
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
    fn stale_tasks(&self, merge_is_stale: bool) -> Vec<StaleTask> {
        let state = self.now();
        let identity = match &self.trial.subject {
            Subject::Checkpoint(model) => Some(self.facts.content_of(model)),
            Subject::Merge { .. } if merge_is_stale => None,
            Subject::Merge { .. } => state.merged.as_ref().map(|merged| merged.identity.clone()),
        };
        let Some(identity) = identity else { return Vec::new() };
        decide::tasks(&self.request.settings, &self.facts.harness, &identity, &state, self.redo)
    }

    async fn merge(&self, config: MergeConfig, seed: u64, key: Key, reason: &StaleReason) -> Result<(), Stop> {
        let _lane = self.merging.lock().await;
        if self.cancel.is_cancelled() {
            return Err(Stop::Interrupted);
        }
        let begun = Instant::now();
        let out = self.request.store.model(self.trial);
        // The files beside the model are for other programs, which start elsewhere.
        let text = write::yaml(&config, &|model| self.request.locator.written(model));
        store::write_atomically(&self.request.store.trial(self.trial).join("config.yml"), text.as_bytes())?;
        self.request.store.clear_partial_models(self.trial)?;
        self.record(What::MergeStarted)?;
        self.say(RunEvent::StageStarted { trial: self.name(), stage: Stage::Merge, why: reason.to_string() });

        let locator = self.request.locator.clone();
        let (listener, cancel, name) = (self.listener.clone(), self.cancel.clone(), self.name());
        let merging = tokio::task::spawn_blocking(move || {
            let progress = |done: u64, total: u64| {
                let doing = String::new();
                listener(RunEvent::StageProgress { trial: name.clone(), done, total, doing });
                !cancel.is_cancelled()
            };
            let locate = |model: &crate::model::ModelRef| locator.locate(model).map_err(Into::into);
            let options = merge_options(seed);
            let job = merge::Job { config: &config, config_text: &text, out: &out, options: &options };
            merge::merge(&[job], &locate, &progress)
        });
        let merge = match merging.await {
            Ok(Ok(merges)) => merges,
            Ok(Err(MergeError::Cancelled)) => return Err(Stop::Interrupted),
            Ok(Err(error)) => return Err(failed(Stage::Merge, &error)),
            Err(error) => return Err(failed(Stage::Merge, &error)),
        };
        let Some(merge) = merge.into_iter().next() else { return Ok(()) };
        let identity = identity_of(&merge, &self.request.store.model(self.trial));
        for note in &merge.notes {
            self.say(RunEvent::Note(format!("{}: {note}", self.trial.name)));
        }
        let what = format!("{} tensors, {:.0} MB", merge.n_tensors, merge.n_bytes as f64 / 1e6);
        self.record(What::Merged { key, merge, identity })?;
        self.say(RunEvent::StageFinished { trial: self.name(), stage: Stage::Merge, elapsed: begun.elapsed(), what });
        Ok(())
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

    fn is_model_present(&self) -> bool {
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

    fn now(&self) -> TrialState {
        self.ledger().state.of(&self.trial.id)
    }

    fn name(&self) -> String {
        self.trial.name.clone()
    }

    fn record(&self, what: What) -> Result<(), RunError> {
        self.ledger().record(&self.trial.id, what)?;
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves journal and state in step: the journal is written first.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, event: RunEvent) {
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

fn failed(stage: Stage, error: &dyn std::error::Error) -> Stop {
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

/// Names what answers depend on: the weights, and the small files beside them (config, tokenizer, template).
fn identity_of(merge: &Merge, model: &Path) -> String {
    let mut small: Vec<(String, String)> = fs::read_dir(model)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let decides = [".json", ".jinja", ".model", ".txt"].iter().any(|end| name.ends_with(end));
            decides && !name.ends_with(".safetensors.index.json")
        })
        .filter_map(|entry| {
            let bytes = fs::read(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), digest(&bytes)))
        })
        .collect();
    small.sort();
    let text: String = small.iter().map(|(name, digest)| format!("{name}={digest}\n")).collect();
    format!("{}+{}", merge.weights_digest, digest(text.as_bytes()))
}
