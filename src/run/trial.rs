//! The lane in which models are evaluated: a slot takes the next model that is there, asks the harness for what is
//! missing, and lets the model go.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::board::{Board, Failure, Stop};
use super::claim::{Claim, Claimed};
use super::decide::{self, StaleTask};
use super::event::RunEvent;
use super::fingerprint::digest;
use super::journal::{Evaluation, Stage, TaskEvaluation, What};
use super::retention::{Scored, superfluous};
use super::state::TrialState;
use super::{Outcome, RunError, Slot, store};
use crate::config::Scalar;
use crate::eval::command::{self, Call, KnownTasks};
use crate::eval::failure::{Cause, EvalFailure};
use crate::eval::harness::{self, Evaluated, HarnessEvent};
use crate::eval::sandbox::Visible;
use crate::eval::warm::Warm;
use crate::eval::{Score, Settings, task};
use crate::plan::{Subject, Trial};
use crate::spec::Keep;

/// Time before the first retry; every further one waits four times as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// A trial being worked on.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub board: &'a Board<'a>,
    pub index: usize,
    pub trial: &'a Trial,
    pub redo: bool,
}

/// A slot with the harness process that stays there.
pub(super) struct Seat<'a> {
    number: usize,
    slot: &'a Slot,
    warm: Warm,
}

impl<'a> Seat<'a> {
    /// With no process yet.
    pub fn new(number: usize, slot: &'a Slot) -> Self {
        Self { number, slot, warm: Warm::default() }
    }

    /// Ends its process.
    pub async fn end(&mut self) {
        std::mem::take(&mut self.warm).end().await;
    }
}

/// Evaluates models in one slot until there are none left.
///
/// # Errors
/// [`RunError`] where the journal or the folder of the sweep cannot be written.
pub(super) async fn lane(board: &Board<'_>, seat: &mut Seat<'_>) -> Result<(), RunError> {
    while let Some(index) = board.take().await {
        let work = Work::new(board, index);
        let Some(_claim) = work.claim()? else {
            board.put_back(index);
            continue;
        };
        match work.evaluate(seat).await {
            Ok(()) => {
                board.mark_redone(index);
                let work = Work::new(board, index);
                release_models(board, Some(&work))?;
                board.say(RunEvent::TrialDone { trial: work.name() });
                board.settle(index, Outcome::Done);
            }
            Err(Stop::Failed(failure)) => board.fail(index, failure)?,
            Err(Stop::Interrupted) => board.settle(index, Outcome::Interrupted),
            Err(Stop::Fatal(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Puts a trial whose merge holds into the queue, or settles it where nothing is to be evaluated.
pub(super) fn settle_if_done(work: &Work<'_>, outcome: Outcome) -> Result<(), RunError> {
    work.share()?;
    let stale = work.stale_tasks();
    if stale.is_empty() {
        release_models(work.board, Some(work))?;
        match outcome {
            Outcome::Reused => work.board.say(RunEvent::Reused { trial: work.name(), what: work.reused() }),
            _ => work.board.say(RunEvent::TrialDone { trial: work.name() }),
        }
        work.board.settle(work.index, outcome);
    } else {
        work.board.make_ready(work.index, &stale);
    }
    Ok(())
}

/// Deletes the merged models that need not stay: scored ones that the rule does not keep.
pub(super) fn release_models(board: &Board<'_>, just_scored: Option<&Work<'_>>) -> Result<(), RunError> {
    let keep = &board.request.keep;
    if board.request.holds {
        return match just_scored {
            Some(work) if work.is_model_present() && !has_room_to_hold(board) => work.delete_model_of_merge(),
            _ => Ok(()),
        };
    }
    if matches!(keep, Keep::All) {
        return Ok(());
    }
    let candidates: Vec<Work<'_>> = match (keep, just_scored) {
        (Keep::Nothing, Some(work)) => vec![*work],
        _ => board.request.selected.iter().map(|index| Work::new(board, *index)).collect(),
    };
    let scored: Vec<(Work<'_>, TrialState)> = candidates
        .into_iter()
        .filter(|work| matches!(work.trial.subject, Subject::Merge { .. }) && work.is_model_present())
        .filter(|work| work.stale_tasks().is_empty())
        .map(|work| (work, work.state()))
        .collect();
    let settings = &board.request.settings;
    let scores: Vec<Vec<Score>> =
        scored.iter().map(|(_, state)| state.scores(settings).into_iter().map(|(score, _)| score).collect()).collect();
    let columns = task::columns(&settings.tasks, &scores.concat());
    let rows: Vec<Scored> = scored
        .iter()
        .zip(&scores)
        .map(|((work, _), scores)| Scored {
            index: work.index,
            scores: columns.iter().map(|column| oriented(column, scores)).collect(),
        })
        .collect();
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    if let (Keep::Best { column: Some(column), .. }, None) = (keep, just_scored)
        && !names.is_empty()
        && !names.contains(column)
    {
        let columns = names.join(", ");
        board.say(RunEvent::Note(format!(
            "`limits.keep`: no column `{column}`, so all models stay (columns: {columns})"
        )));
    }
    superfluous(keep, &names, &rows).into_iter().try_for_each(|index| Work::new(board, index).delete_model())
}

/// Whether models may stay for the next rung: under `resources.disk` until another one needs the room, else as long as they
/// take no more than what is still free.
fn has_room_to_hold(board: &Board<'_>) -> bool {
    let free = board.request.store.free_bytes();
    board.request.disk.is_some() || free.is_none_or(|free| board.held() <= free)
}

/// Deletes a model that stayed for the next rung, or because its evaluation failed and may be asked for again, so that there is
/// room for another one; whether there was one.
///
/// # Errors
/// [`RunError`] where the journal or the folder of the sweep cannot be written.
pub(super) fn make_room(board: &Board<'_>) -> Result<bool, RunError> {
    let may_go = |outcome: &Outcome| board.request.holds || matches!(outcome, Outcome::Failed(_));
    let settled = board.request.selected.iter().filter(|index| board.outcome_of(**index).as_ref().is_some_and(may_go));
    // The last of them: it is needed last.
    let last = settled.map(|index| Work::new(board, *index)).filter(Work::is_merge_present).last();
    last.map_or(Ok(false), |work| work.delete_model().map(|()| true))
}

/// A score with larger ones better.
fn oriented(column: &task::Column, scores: &[Score]) -> Option<f64> {
    let score = scores.iter().find(|score| column.shows(score))?;
    let higher = column.estimator.higher_is_better().or(score.higher_is_better).unwrap_or(true);
    score.value.map(|value| if higher { value } else { -value })
}

impl<'a> Work<'a> {
    pub fn new(board: &'a Board<'a>, index: usize) -> Self {
        // What was asked to be done again is done again once.
        let redo = board.request.redo.contains(&index) && !board.is_redone(index);
        Self { board, index, trial: board.trial(index), redo }
    }

    pub fn state(&self) -> TrialState {
        self.board.state_of(&self.trial.id)
    }

    pub fn name(&self) -> String {
        self.trial.name.clone()
    }

    /// Tasks whose evaluation does not hold; none while there is no merge that they would rest on.
    pub fn stale_tasks(&self) -> Vec<StaleTask> {
        let state = self.state();
        let identity = match &self.trial.subject {
            Subject::Checkpoint(model) => Some(self.board.facts.content_of(model)),
            Subject::Merge { .. } => state.merged.as_ref().map(|merged| merged.identity.clone()),
        };
        let Some(identity) = identity else { return Vec::new() };
        let (request, facts) = (self.board.request, self.board.facts);
        decide::tasks(&request.settings, &facts.harness, &identity, &state, self.redo)
    }

    pub fn is_model_present(&self) -> bool {
        self.state().model_present && self.board.request.store.model(self.trial).join("config.json").exists()
    }

    fn is_merge_present(&self) -> bool {
        matches!(self.trial.subject, Subject::Merge { .. }) && self.is_model_present()
    }

    fn delete_model_of_merge(&self) -> Result<(), RunError> {
        if self.is_merge_present() { self.delete_model() } else { Ok(()) }
    }

    /// Deletes the merged model. The journal says so first: a half-deleted folder must never count as present.
    pub fn delete_model(&self) -> Result<(), RunError> {
        self.board.record(&self.trial.id, What::ModelDeleted)?;
        store::remove_folder(&self.board.request.store.model(self.trial))?;
        self.board.release(&self.trial.id);
        Ok(())
    }

    /// Takes over evaluations of the same weights under the same settings, from a twin in this sweep or from another
    /// sweep with its results in the same place.
    pub fn share(&self) -> Result<(), RunError> {
        if self.redo {
            return Ok(());
        }
        for StaleTask { request, key, .. } in self.stale_tasks() {
            let of_this_sweep = self.board.evaluation_with(&request.name, &key).map(|(id, task, harness)| {
                let trials = &self.board.request.plan.trials;
                let name = trials.iter().find(|trial| trial.id == id).map_or(id.0.clone(), |trial| trial.name.clone());
                (name, task, harness)
            });
            let elsewhere = || self.board.facts.elsewhere.evaluation_with(&request.name, &key);
            let Some((from, task, harness)) = of_this_sweep.or_else(elsewhere) else { continue };
            self.board.record(&self.trial.id, What::Shared { task, harness, from: from.clone() })?;
            self.board.say(RunEvent::Shared { trial: self.name(), task: request.name, from });
        }
        Ok(())
    }

    /// Takes care that no other run begins what is evaluated here; none where one is at it already. What others have recorded
    /// meanwhile is taken over.
    fn claim(&self) -> Result<Option<Claim>, RunError> {
        let (store, elsewhere) = (&self.board.request.store, &self.board.facts.elsewhere);
        let claimed = Claim::take(store, &self.stale_tasks())?;
        // Only now is nothing recorded between the look and the beginning.
        elsewhere.read_again(store, claimed.holder());
        self.share()?;
        Ok(match claimed {
            Claimed::Here(claim) => Some(claim),
            // What was asked to be done again is not answered by others.
            Claimed::Elsewhere(_) => (self.redo || self.stale_tasks().is_empty()).then(Claim::default),
        })
    }

    /// Evaluates what is missing, one call of the harness after the other.
    async fn evaluate(&self, seat: &mut Seat<'_>) -> Result<(), Stop> {
        let request = self.board.request;
        let model = match &self.trial.subject {
            Subject::Checkpoint(model) => request.locator.locate(model).map_err(RunError::from)?.base,
            Subject::Merge { .. } => request.store.model(self.trial),
        };
        let stale = self.stale_tasks();
        let requests: Vec<_> = stale.iter().map(|task| task.request.clone()).collect();
        let known = &self.board.facts.known_tasks;
        let calls = command::calls(&request.settings, &requests, &|task| command::runs_code(known, task));
        for call in calls {
            let asked: Vec<&StaleTask> =
                stale.iter().filter(|task| call.tasks.iter().any(|asked| asked.name == task.request.name)).collect();
            self.evaluate_call(&call, &asked, &model, seat).await?;
        }
        Ok(())
    }

    /// One call: tried again where the cause may pass, with smaller batches where the memory is full, and by the command
    /// where the process that stays failed.
    async fn evaluate_call(
        &self,
        call: &Call,
        asked: &[&StaleTask],
        model: &Path,
        seat: &mut Seat<'_>,
    ) -> Result<(), Stop> {
        let mut settings = call.settings(&self.board.request.settings);
        seat.slot.fit(&mut settings);
        let (mut waits, mut is_warm) = (waits(self.board.request.retries), seat.warm.takes(&settings, call));
        loop {
            let (failure, folder) = match self.attempt(&settings, call, asked, model, seat, is_warm).await {
                Ok(()) => return Ok(()),
                Err(Attempt::Stop(stop)) => return Err(stop),
                Err(Attempt::Failed(failure, folder)) => (failure, folder),
            };
            let Some(again) = again(&failure.cause, &settings.batch_size, is_warm, &mut waits) else {
                let hint = failure.cause.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                let reason = format!("{}{hint}", failure.cause);
                return Err(Stop::Failed(Failure { stage: Stage::Evaluate, reason, log: failure.log }));
            };
            let (reason, how) = (self.board.without_home(&failure.cause.to_string()), again.to_string());
            self.board.say(RunEvent::Note(format!("{}: {reason}; again {how}", self.trial.name)));
            self.board.record(&self.trial.id, What::EvaluationRetried { folder, reason, how })?;
            match again {
                Again::Smaller(batch_size) => settings.batch_size = batch_size,
                Again::Fresh => {
                    seat.warm.blame();
                    is_warm = false;
                }
                Again::Later(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.board.cancel.cancelled() => return Err(Stop::Interrupted),
                },
            }
        }
    }

    async fn attempt(
        &self,
        settings: &Settings,
        call: &Call,
        asked: &[&StaleTask],
        model: &Path,
        seat: &mut Seat<'_>,
        is_warm: bool,
    ) -> Result<(), Attempt> {
        let request = self.board.request;
        let begun = Instant::now();
        let folder = request.store.next_attempt(self.trial, &self.state().attempts);
        let relative_folder = self.relative(&folder);
        let tasks: Vec<String> = call.tasks.iter().map(|task| task.name.clone()).collect();
        let keys = asked.iter().map(|task| (task.request.name.clone(), task.key.clone())).collect();
        let unasked = call.settings(&request.settings).batch_size;
        let batch_size = (settings.batch_size != unasked).then(|| settings.batch_size.to_string());
        let started = What::EvaluationStarted {
            tasks: tasks.clone(),
            folder: relative_folder.clone(),
            keys,
            slot: seat.number,
            warm: is_warm,
            batch_size: batch_size.clone(),
        };
        self.board.record(&self.trial.id, started)?;
        std::fs::create_dir_all(&folder).map_err(store::at(&folder))?;
        let why = asked.first().map(|task| task.reason.to_string()).unwrap_or_default();
        self.say_stage(|trial, stage| RunEvent::StageStarted {
            trial,
            stage,
            slot: Some(seat.number),
            why: format!("{}; {why}", tasks.join(", ")),
        });
        let answers = request.store.harness_answers().join(answers_key(asked));
        let job = harness::Request {
            settings,
            call,
            known: &self.board.facts.known_tasks,
            model,
            attempt: &folder,
            home: &request.store.harness_home(),
            cache: &request.store.harness_cache(),
            answers: &answers,
            visible: &Visible {
                home: request.locator.home.clone(),
                caches: vec![request.locator.hub.cache.clone()],
                secrets: request.secrets.clone(),
            },
            n_threads: seat.slot.threads,
        };
        let name = self.name();
        let mut on_event = |event: HarnessEvent| self.board.say(progress(&name, event));
        let evaluated =
            match harness::evaluate(&job, is_warm.then_some(&mut seat.warm), &mut on_event, self.board.cancel).await {
                Ok(evaluated) => evaluated,
                Err(failure) if matches!(failure.cause, Cause::Cancelled) => {
                    return Err(Attempt::Stop(Stop::Interrupted));
                }
                Err(failure) => return Err(Attempt::Failed(failure, relative_folder)),
            };
        for note in &evaluated.notes {
            self.board.say(RunEvent::Note(format!("{}: {note}", self.trial.name)));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let Evaluated { scores, facts: harness, .. } = evaluated;
        let tasks_done = task_evaluations(asked, &self.board.facts.known_tasks, &scores);
        self.accept(asked, Evaluation { tasks: tasks_done, harness, folder: relative_folder, seconds, batch_size })?;
        let elapsed = begun.elapsed();
        self.board.took(Stage::Evaluate, elapsed);
        self.say_stage(|trial, stage| RunEvent::StageFinished { trial, stage, elapsed, what: tasks.join(", ") });
        Ok(())
    }

    /// Records results that were verified. The answers that were kept for a resume are no longer needed, and go first:
    /// a run that is killed in between finds the results complete.
    pub fn accept(&self, asked: &[&StaleTask], evaluation: Evaluation) -> Result<(), RunError> {
        store::remove_folder(&self.board.request.store.harness_answers().join(answers_key(asked)))?;
        Ok(self.board.record(&self.trial.id, What::Evaluated(evaluation))?)
    }

    /// The path of a folder of this trial as records show it.
    fn relative(&self, path: &Path) -> String {
        let root = self.board.request.store.trial(self.trial);
        path.strip_prefix(root).unwrap_or(path).display().to_string()
    }

    fn say_stage(&self, event: impl FnOnce(String, Stage) -> RunEvent) {
        self.board.say(event(self.name(), Stage::Evaluate));
    }

    fn reused(&self) -> String {
        let n_tasks = self.board.request.settings.tasks.len();
        let evaluations = format!("{n_tasks} evaluation{}", if n_tasks == 1 { "" } else { "s" });
        match self.trial.subject {
            Subject::Checkpoint(_) => evaluations,
            Subject::Merge { .. } => format!("merge and {evaluations}"),
        }
    }
}

/// Why an attempt gave no scores; its folder where it failed.
enum Attempt {
    Failed(EvalFailure, String),
    Stop(Stop),
}

impl<E: Into<RunError>> From<E> for Attempt {
    fn from(error: E) -> Self {
        Self::Stop(error.into().into())
    }
}

/// Names the answers of one call: they depend on everything that the keys of its tasks hold.
pub(super) fn answers_key(asked: &[&StaleTask]) -> PathBuf {
    let keys: Vec<_> = asked.iter().map(|task| (&task.request.name, &task.key)).collect();
    // Texts under texts are always JSON.
    PathBuf::from(digest(&serde_json::to_vec(&keys).unwrap_or_default()))
}

/// How a call that failed is tried again.
enum Again {
    /// With batches of this size.
    Smaller(Scalar),
    /// In a process that has seen no other model.
    Fresh,
    /// After this time.
    Later(Duration),
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smaller(batch_size) => write!(f, "with batches of {batch_size}"),
            Self::Fresh => f.write_str("in a fresh process"),
            Self::Later(wait) => write!(f, "in {} s", wait.as_secs()),
        }
    }
}

/// Times to wait before what may pass is tried again.
fn waits(retries: u32) -> impl Iterator<Item = Duration> {
    (0..retries).map(|n| FIRST_WAIT * 4_u32.saturating_pow(n))
}

/// What may help against a failure, if anything.
fn again(
    cause: &Cause,
    batch_size: &Scalar,
    is_warm: bool,
    waits: &mut impl Iterator<Item = Duration>,
) -> Option<Again> {
    let smaller = smaller_batch(batch_size).filter(|_| cause.is_out_of_memory());
    match smaller {
        Some(batch_size) => Some(Again::Smaller(batch_size)),
        None if is_warm && !matches!(cause, Cause::TimedOut(_)) => Some(Again::Fresh),
        None if cause.is_transient() => waits.next().map(Again::Later),
        None => None,
    }
}

/// Half a batch size, where that is a number above 1.
fn smaller_batch(batch_size: &Scalar) -> Option<Scalar> {
    match batch_size {
        Scalar::Int(size) if *size > 1 => Some(Scalar::Int(size / 2)),
        _ => None,
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

/// Deals the scores of one harness process out to its tasks.
pub(super) fn task_evaluations(asked: &[&StaleTask], known: &KnownTasks, scores: &[Score]) -> Vec<TaskEvaluation> {
    asked
        .iter()
        .map(|task| TaskEvaluation {
            task: task.request.name.clone(),
            key: task.key.clone(),
            scores: command::scores_of(known, &task.request.name, scores),
        })
        .collect()
}
