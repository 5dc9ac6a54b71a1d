//! Running a plan: every trial merged, evaluated and recorded, and nothing done twice.
//!
//! `run` always resumes: the journal is replayed, what is fresh is kept, what was in flight is done again. A trial that
//! fails is recorded and the sweep goes on; an error from [`run`] is what makes the whole sweep meaningless.

mod board;
mod claim;
pub mod clean;
mod dealing;
pub mod decide;
mod elsewhere;
pub mod event;
pub mod fingerprint;
pub mod foresight;
pub mod hardware;
pub mod imported;
pub mod journal;
mod merging;
pub mod outputs;
mod pace;
pub mod pass;
mod resume;
pub mod retention;
pub mod search;
pub mod select;
pub mod slurm;
pub mod state;
pub mod store;
pub mod timeline;
mod trial;
mod twins;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Numerics, Scalar, Tokenizer};
use crate::document::Problems;
use crate::eval::preflight::{self, Folders, VISIBLE_GPUS};
use crate::eval::results::ResultsError;
use crate::eval::samples::SamplesError;
use crate::eval::secrets::Secrets;
use crate::eval::{Settings, command, task_files};
use crate::files::write_atomically;
use crate::merge::{MergeOptions, TokenizerFiles};
use crate::model::ModelRef;
use crate::model::identity::{IdentityError, identity};
use crate::model::locate::{LocateError, Locator};
use crate::plan::{self, Plan, Subject, Trial, TrialId};
use crate::process::{Cancel, ProcessError};
use crate::spec::{Keep, Search, TwinEvaluation};
use board::Board;
use decide::HarnessIdentity;
use elsewhere::Elsewhere;
use event::RunEvent;
use hardware::Hardware;
use journal::{Journal, JournalError, Stage, What};
use state::{SweepState, TrialState};
use store::{Lock, Store, StoreError};
use trial::Work;

/// Listens to a run.
pub type Listener = Arc<dyn Fn(RunEvent) + Send + Sync>;

/// Everything a run needs to know.
#[derive(Debug, Clone)]
pub struct Request {
    /// The whole plan.
    pub plan: Plan,
    /// Trials to work on, by position in the plan.
    pub selected: Vec<usize>,
    /// Trials to do again from scratch, by position in the plan.
    pub redo: Vec<usize>,
    /// Whether another task has just made the merges of those again: only the evaluations are left.
    pub merges_redone: bool,
    /// How models are evaluated.
    pub settings: Settings,
    /// This program, which makes merges in processes of its own.
    pub program: PathBuf,
    /// Which merged models stay once they are scored.
    pub keep: Keep,
    /// How trials are evaluated that are one merge but for rounding.
    pub twins: TwinEvaluation,
    /// Which trials go on, decided on a growing part of the documents; none: all are asked everything.
    pub search: Option<Search>,
    /// How the plan grows where the search places points of its own.
    pub grow: Option<search::Grow>,
    /// Whether models stay once they are scored, as long as there is room: another rung asks them more.
    pub holds: bool,
    /// Where evaluations run: one at a time in each. Without any, merges are made and nothing is evaluated.
    pub slots: Vec<Slot>,
    /// Merges that are made in one pass at most. Passes are made one at a time.
    pub merges_per_pass: usize,
    /// Threads of a merge; one for every core otherwise.
    pub merge_threads: Option<usize>,
    /// Bytes of memory that a pass of merges may take, beside the files it reads.
    pub merge_memory: Option<u64>,
    /// Longest time a pass of merges may take.
    pub merge_timeout: Option<Duration>,
    /// Bytes that merged models may take.
    pub disk: Option<u64>,
    /// How often what may pass is tried again.
    pub retries: u32,
    /// Whether the first failure keeps what is not begun from beginning.
    pub fail_fast: bool,
    /// Where everything goes.
    pub store: Store,
    /// Where models are.
    pub locator: Locator,
    /// The user's tokens and keys, which go to the harness and nowhere else.
    pub secrets: Secrets,
}

/// A place for one evaluation at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its GPUs, by number or UUID; none: the CPU.
    pub gpus: Vec<String>,
    /// GPUs that an evaluation needs besides, and that are not here: nothing can run in it.
    pub n_lacking: usize,
    /// Threads on the CPU.
    pub threads: Option<usize>,
}

impl Slot {
    /// Settings of the harness that say where it runs. They are no part of a key: where something runs does not decide
    /// what comes out.
    fn fit(&self, settings: &mut Settings) {
        if self.gpus.is_empty() {
            return;
        }
        settings.environment.insert(VISIBLE_GPUS.to_owned(), self.gpus.join(","));
        let n_gpus = i64::try_from(self.gpus.len()).unwrap_or(1);
        let spread = match settings.model.as_str() {
            _ if n_gpus < 2 => None,
            "vllm" => Some(("tensor_parallel_size", Scalar::Int(n_gpus))),
            "sglang" => Some(("tp_size", Scalar::Int(n_gpus))),
            "hf" | "hf-auto" | "huggingface" => Some(("parallelize", Scalar::Bool(true))),
            _ => None,
        };
        if let Some((name, value)) = spread {
            settings.model_args.entry(name.to_owned()).or_insert(value);
        }
    }
}

/// The settings of a request with the GPUs of all slots: whether the harness sees these is asked once.
fn on_all_slots(request: &Request) -> Settings {
    let mut gpus: Vec<String> = Vec::new();
    for gpu in request.slots.iter().flat_map(|slot| &slot.gpus) {
        if !gpus.contains(gpu) {
            gpus.push(gpu.clone());
        }
    }
    let mut settings = request.settings.clone();
    if !gpus.is_empty() {
        settings.environment.insert(VISIBLE_GPUS.to_owned(), gpus.join(","));
    }
    settings
}

/// What is asked for by slots that nothing can run in.
fn short_of_gpus(request: &Request) -> Option<preflight::Problem> {
    let Slot { gpus, n_lacking, .. } = request.slots.iter().find(|slot| slot.n_lacking > 0)?;
    Some(preflight::Problem::NoGpu {
        asked_by: "`gpus_per_evaluation`".to_owned(),
        n_asked: gpus.len() + n_lacking,
        n_seen: gpus.len(),
        python: request.settings.python.clone(),
    })
}

/// How the work on a trial ended.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// Nothing had to be done.
    Reused,
    /// It has all its scores.
    Done,
    /// A stage failed.
    Failed(Failed),
    /// The user stopped it.
    Interrupted,
}

/// A stage that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// Name of the trial.
    pub trial: String,
    /// The stage.
    pub stage: Stage,
    /// Why, in words.
    pub reason: String,
    /// Where to read more.
    pub log: Option<PathBuf>,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Trials with all their scores.
    pub n_done: usize,
    /// Of these, trials for which nothing had to be done.
    pub n_reused: usize,
    /// Trials that failed.
    pub failed: Vec<Failed>,
    /// Trials that were not begun, since the run was stopped or another one failed.
    pub n_left: usize,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
    /// The most bytes that merged models had on disk at any time.
    pub disk_peak: u64,
}

/// What makes a whole run meaningless.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder of the sweep.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A model cannot be found.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// A model's files cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Task definitions cannot be read.
    #[error(transparent)]
    Folder(#[from] fingerprint::FolderError),
    /// Its units are with Slurm.
    #[error(
        "submission {0} of this sweep is on Slurm (`mergesweep run --engine slurm` follows it, `mergesweep cancel` ends it)"
    )]
    Submitted(u32),
    /// A task cannot be asked in portions.
    #[error("task `{task}` cannot be raced: {why}")]
    NotRaced {
        /// The task.
        task: String,
        /// Why.
        why: String,
    },
    /// Points that a search placed do not make a plan.
    #[error("the points that the search placed are no merges:\n{0}")]
    Grow(Problems),
    /// Optuna does not do its part.
    #[error("Optuna: {0}")]
    Optuna(String),
    /// A process that stays cannot be started or followed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Samples that a decision needs.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Samples that cannot be read.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// Work goes on after an error that took the journal along.
    #[error("the journal is gone with the error before this one")]
    JournalGone,
    /// Something that a run needs is not there.
    #[error("{}", listed(.0))]
    Lacks(Vec<Lack>),
    /// The user stopped it before anything was begun.
    #[error("interrupted")]
    Interrupted,
    /// The plan cannot be written down.
    #[error("writing the plan: {0}")]
    Plan(#[from] serde_json::Error),
}

/// Something that a run needs and does not find.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    /// A model.
    #[error("{source}")]
    Model {
        /// Its reference.
        model: ModelRef,
        /// Why it is not there.
        source: LocateError,
    },
    /// Part of the evaluation.
    #[error(transparent)]
    Evaluation(#[from] preflight::Problem),
}

impl Lack {
    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model { source, .. } => source.hint(),
            Self::Evaluation(problem) => problem.hint(),
        }
    }
}

impl From<preflight::Problems> for RunError {
    /// What else a question found that was stopped says nothing.
    fn from(problems: preflight::Problems) -> Self {
        match problems.is_cancelled() {
            true => Self::Interrupted,
            false => Self::Lacks(problems.0.into_iter().map(Lack::from).collect()),
        }
    }
}

fn listed(lacks: &[Lack]) -> String {
    let line = |lack: &Lack| {
        let hint = lack.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("error: {lack}{hint}")
    };
    lacks.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What is known of the models and the harness before the first trial.
#[derive(Debug)]
struct Facts {
    harness: HarnessIdentity,
    /// Content of every model of the selected trials.
    models: Contents,
    known_tasks: command::KnownTasks,
    elsewhere: Elsewhere,
    /// The trials that may stand for a trial since they are the same but for rounding: their names. What is selected has no
    /// part in it.
    rounded: BTreeMap<TrialId, BTreeSet<String>>,
}

/// Runs the selected trials of a plan.
///
/// # Errors
/// [`RunError`] before anything is merged, or when the journal cannot be written. Failures of single trials are part of
/// the [`Summary`].
pub async fn run(request: &Request, listener: &Listener, cancel: &Cancel) -> Result<Summary, RunError> {
    let lock = request.store.lock()?;
    run_held(request, &lock, listener, cancel).await
}

/// Runs the selected trials where the lock is held already.
async fn run_held(request: &Request, _: &Lock, listener: &Listener, cancel: &Cancel) -> Result<Summary, RunError> {
    match go(request, listener, cancel).await {
        Err(RunError::Interrupted) => {
            Ok(Summary { n_left: request.selected.len(), interrupted: true, ..Summary::default() })
        }
        done => done,
    }
}

async fn go(request: &Request, listener: &Listener, cancel: &Cancel) -> Result<Summary, RunError> {
    let mut session = Session::open(request, listener, cancel)?;
    let summary = match &request.search {
        Some(search) => search::run(&mut session, search).await?,
        None => {
            if session.is_work_left(request) {
                session.begin()?;
            }
            listener(RunEvent::Started { n_trials: request.selected.len() });
            let worked = session.work(request, listener).await?;
            summary(request, &worked.outcomes, worked.disk_peak, cancel.is_cancelled())
        }
    };
    session.end().await?;
    Ok(summary)
}

/// One run: what it knows, and what lives as long as it does.
struct Session<'a> {
    request: &'a Request,
    listener: &'a Listener,
    cancel: &'a Cancel,
    facts: Facts,
    /// None while a board has it.
    journal: Option<Journal>,
    state: SweepState,
    seats: Vec<trial::Seat<'a>>,
    /// When it began to look around, in UNIX seconds.
    since: f64,
    /// Whether the harness was asked, as there is something to do.
    has_begun: bool,
}

/// What came of the work on the trials of a request.
struct Worked {
    outcomes: BTreeMap<usize, Outcome>,
    disk_peak: u64,
}

impl<'a> Session<'a> {
    /// Reads the journal, clears up what earlier runs left behind, and looks at models and harness.
    fn open(request: &'a Request, listener: &'a Listener, cancel: &'a Cancel) -> Result<Self, RunError> {
        let since = journal::now();
        let (journal, records) = Journal::open(&request.store.journal())?;
        refuse_submitted(&records)?;
        let state = SweepState::replay(&records);
        write_plan(request)?;

        let n_orphans = tokio::task::block_in_place(|| resume::end_orphans(request, &state));
        if n_orphans > 0 {
            listener(RunEvent::Note(format!("ended {n_orphans} processes that outlived an earlier run")));
        }
        resume::remove_stray_models(request, &state)?;
        let facts = match look_around(request, Some(cancel))? {
            (facts, lacks) if lacks.is_empty() => facts,
            (_, lacks) => return Err(RunError::Lacks(with_settings(request, lacks))),
        };
        let seats = request.slots.iter().enumerate().map(|(number, slot)| trial::Seat::new(number, slot)).collect();
        let journal = Some(journal);
        Ok(Self { request, listener, cancel, facts, journal, state, seats, since, has_begun: false })
    }

    /// Whether anything is left to do for the selected trials of a request.
    fn is_work_left(&self, request: &Request) -> bool {
        let followers = twins::followers(request);
        request.selected.iter().any(|index| is_work_left(request, &self.facts, &self.state, &followers, *index))
    }

    /// Records that there is something to do, and asks the harness whether it can be done.
    fn begin(&mut self) -> Result<(), RunError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        let Self { request, since, .. } = *self;
        let hardware = Some(tokio::task::block_in_place(|| Hardware::of(&request.slots)));
        self.record(None, What::RunStarted { since, n_slots: request.slots.len(), hardware })?;
        if request.slots.is_empty() {
            return Ok(());
        }
        let asked = ask_harness(request, &on_all_slots(request), self.listener, self.cancel);
        self.facts.known_tasks = match (asked, short_of_gpus(request)) {
            (Err(RunError::Lacks(mut lacks)), Some(short)) => {
                lacks.push(short.into());
                return Err(RunError::Lacks(lacks));
            }
            (Ok(_), Some(short)) => return Err(RunError::Lacks(vec![short.into()])),
            (asked, _) => asked?,
        };
        claim::clear(&request.store);
        self.facts.elsewhere = Elsewhere::read(&request.store, &request.plan.sweep);
        Ok(())
    }

    /// Asks the harness what it knows of the tasks.
    fn ask_harness(&mut self) -> Result<(), RunError> {
        let Self { request, listener, cancel, .. } = self;
        self.facts.known_tasks = ask_harness(request, &request.settings, listener, cancel)?;
        Ok(())
    }

    /// Appends a record and applies it.
    fn record(&mut self, trial: Option<&TrialId>, what: What) -> Result<(), RunError> {
        if let Some(journal) = &mut self.journal {
            let record = journal.append(trial, what)?;
            self.state.apply(&record);
        }
        Ok(())
    }

    /// Works on the selected trials of a request, which is the session's own or a part of it.
    async fn work(&mut self, request: &Request, listener: &Listener) -> Result<Worked, RunError> {
        let Some(journal) = self.journal.take() else { return Err(RunError::JournalGone) };
        let state = std::mem::take(&mut self.state);
        let board = Board::new(request, &self.facts, listener, self.cancel, journal, state);
        let followers = twins::followers(request);
        if !request.slots.is_empty() {
            resume::adopt(&board)?;
        }
        let (merges, waiting) = distribute(&board, &followers)?;
        let merging = async {
            let done = merging::lane(&board, merges).await;
            board.complete();
            done
        };
        let (merged, evaluated) = tokio::join!(stopping(&board, merging), async {
            let lanes = self.seats.iter_mut().map(|seat| stopping(&board, trial::lane(&board, seat)));
            futures_util::future::join_all(lanes).await
        });
        merged?;
        evaluated.into_iter().collect::<Result<(), RunError>>()?;
        twins::settle(&board, &waiting)?;
        trial::release_models(&board, None)?;
        let (journal, state, outcomes, disk_peak) = board.into_parts();
        self.journal = Some(journal);
        self.state = state;
        Ok(Worked { outcomes, disk_peak })
    }

    /// Ends the processes that stayed, and records that the run is over.
    async fn end(mut self) -> Result<(), RunError> {
        for seat in &mut self.seats {
            seat.end().await;
        }
        if self.has_begun {
            self.record(None, What::RunEnded)?;
        }
        Ok(())
    }
}

/// Asks the harness whether everything that is asked can be, and what it knows of the tasks.
fn ask_harness(
    request: &Request,
    settings: &Settings,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<command::KnownTasks, RunError> {
    listener(RunEvent::Preflight);
    let (home, cache) = (request.store.harness_home(), request.store.harness_cache());
    let folders = Folders { home: &home, cache: &cache };
    let preflight = tokio::task::block_in_place(|| preflight::preflight(settings, folders, cancel))?;
    preflight.notes.into_iter().for_each(|note| listener(RunEvent::Note(note)));
    Ok(preflight.known)
}

/// Writes the plan down beside the journal.
fn write_plan(request: &Request) -> Result<(), RunError> {
    let plan = serde_json::to_vec_pretty(&plan::json::plan(&request.plan))?;
    let file = request.store.root().join("plan.json");
    Ok(write_atomically(&file, &plan).map_err(store::at(&file))?)
}

/// Refuses to touch a sweep whose units are with Slurm.
fn refuse_submitted(records: &[journal::Record]) -> Result<(), RunError> {
    let open = slurm::submission::Submission::open(records);
    open.map_or(Ok(()), |open| Err(RunError::Submitted(open.number)))
}

/// Gives every selected trial its place: in the queue where its model is there, settled where nothing is left to do,
/// among the merges to be made, or among those that wait for a twin.
fn distribute(
    board: &Board<'_>,
    followers: &twins::Followers,
) -> Result<(Vec<merging::Wanted>, Vec<twins::Waiting>), RunError> {
    let (mut merges, mut waiting) = (Vec::new(), Vec::new());
    for index in &board.request.selected {
        let work = Work::new(board, *index);
        work.share()?;
        match (merging::wanted(&work), followers.get(index)) {
            (Some(_), Some(leader)) => waiting.push(twins::Waiting { index: *index, leader: *leader }),
            (Some(wanted), None) => merges.push(wanted),
            (None, _) => trial::settle_if_done(&work, Outcome::Reused)?,
        }
    }
    Ok((merges, waiting))
}

/// A lane whose error ends the others too.
async fn stopping(board: &Board<'_>, lane: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    let done = lane.await;
    if done.is_err() {
        board.halt();
    }
    done
}

/// How the selected trials of a request ended.
fn summary(request: &Request, outcomes: &BTreeMap<usize, Outcome>, disk_peak: u64, is_cancelled: bool) -> Summary {
    let mut summary = Summary { disk_peak, ..Summary::default() };
    for index in &request.selected {
        match outcomes.get(index) {
            Some(Outcome::Reused) => {
                summary.n_reused += 1;
                summary.n_done += 1;
            }
            Some(Outcome::Done) => summary.n_done += 1,
            Some(Outcome::Failed(failed)) => summary.failed.push(failed.clone()),
            Some(Outcome::Interrupted) => summary.interrupted = true,
            None => summary.n_left += 1,
        }
    }
    summary.interrupted |= is_cancelled && summary.n_left > 0;
    summary
}

/// Finds every model, names its content, and asks the harness for its version. Cheap: no weights are read. Everything that
/// is lacking is told together. Models of the hub that are not on disk are downloaded until the user stops that, or left out of
/// the facts.
fn look_around(request: &Request, download: Option<&Cancel>) -> Result<(Facts, Vec<Lack>), RunError> {
    let (models, mut lacks) = models_here(request, download)?;
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
type Contents = BTreeMap<ModelRef, BTreeMap<String, String>>;

/// The content of every model that the selected trials read, and those that are lacking.
fn models_here(request: &Request, download: Option<&Cancel>) -> Result<(Contents, Vec<Lack>), RunError> {
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
                models.insert(model, identity(&located)?);
            }
            Ok(None) => {}
            Err(source) if source.is_cancelled() => return Err(RunError::Interrupted),
            Err(source) => lacks.push(Lack::Model { model, source }),
        }
    }
    Ok((models, lacks))
}

/// Facts with these models and a harness of this version.
fn facts_of(request: &Request, models: Contents, version: String) -> Result<Facts, RunError> {
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
fn with_settings(request: &Request, mut lacks: Vec<Lack>) -> Vec<Lack> {
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

fn is_work_left(
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

fn explain(
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

impl Facts {
    /// Named parts of every model a trial reads: `code weights`; and the twin whose merge stands for its own, as long as the
    /// spec says that it may.
    fn inputs_of(&self, trial: &Trial, state: &TrialState) -> BTreeMap<String, String> {
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
    fn content_of(&self, model: &ModelRef) -> String {
        let parts = self.models.get(model).into_iter().flatten();
        parts.map(|(part, value)| format!("{part} {value}")).collect::<Vec<_>>().join("; ")
    }
}

/// Options of every merge of a sweep: its output is evaluated, so it must have a tokenizer.
pub fn merge_options(seed: u64, numerics: Numerics) -> MergeOptions {
    MergeOptions { seed, numerics, tokenizer: TokenizerFiles::Required, ..MergeOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(model: &str, gpus: &[&str], args: &[(&str, Scalar)]) -> (Option<String>, Vec<String>) {
        let mut settings = crate::spec::evaluate::defaults();
        model.clone_into(&mut settings.model);
        settings.model_args = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let gpus = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
        Slot { gpus, ..Slot::default() }.fit(&mut settings);
        let args = settings.model_args.iter().map(|(name, value)| format!("{name}={value}"));
        (settings.environment.get("CUDA_VISIBLE_DEVICES").cloned(), args.collect())
    }

    #[test]
    fn a_slot_shows_an_evaluation_its_own_gpus_and_spreads_the_model_over_them() {
        assert_eq!(fitted("hf", &[], &[]), (None, vec![]));
        assert_eq!(fitted("hf", &["3"], &[]), (Some("3".to_owned()), vec![]));
        for (model, expected) in [
            ("hf", vec!["parallelize=true"]),
            ("vllm", vec!["tensor_parallel_size=2"]),
            ("sglang", vec!["tp_size=2"]),
            ("dummy", vec![]),
        ] {
            let (gpus, args) = fitted(model, &["2", "GPU-7"], &[]);
            assert_eq!((gpus.as_deref(), args), (Some("2,GPU-7"), expected.into_iter().map(str::to_owned).collect()));
        }
        let own = fitted("vllm", &["0", "1"], &[("tensor_parallel_size", Scalar::Int(1))]);
        assert_eq!(own.1, ["tensor_parallel_size=1"], "what the spec says stays");
    }
}
