//! The same sweep on a Slurm cluster: its trials are dealt out to units, each of which is worked on by this very program in a
//! task of an array job, with a journal of its own; whoever looks gathers what the units recorded.
//!
//! There is no process of ours that must live: a submission goes on by [`step`]s, which an attached run takes, or the job
//! that depends on all others, or a run from another login. Slurm is believed about what lives; results come from the
//! records on disk.

pub mod collect;
mod jobs;
mod manifest;
mod prepare;
pub mod queue;
pub mod script;
mod session;
mod sizes;
mod step;
pub mod submission;
pub mod task;
pub mod unit;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::board::Board;
use super::event::RunEvent;
use super::journal::{self, Journal, JournalError};
use super::state::SweepState;
use super::store::StoreError;
use super::{Facts, Lack, Listener, Request, RunError, Summary, look_around, trial, with_settings};
use crate::eval::preflight::{self, Folders};
use crate::plan::TrialId;
use crate::process::Cancel;
use crate::spec::Keep;
use crate::spec::engine::Slurm;

pub use manifest::Manifest;
use queue::Unanswered;
use session::Session;
use submission::Submission;

/// How long `cancel` waits for jobs to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a run through Slurm is told beside its request.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is asked of Slurm.
    pub slurm: Slurm,
    /// The spec, from the root.
    pub spec: PathBuf,
    /// The folder of all results, from the root.
    pub results: PathBuf,
    /// Documents per task, over the spec's.
    pub limit: Option<u64>,
    /// The folder that jobs start in.
    pub here: PathBuf,
    /// Whether to leave once everything is handed over.
    pub detach: bool,
}

/// Why a sweep cannot run on Slurm.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// As a run on one machine.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The folder of the sweep.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A unit.
    #[error(transparent)]
    Seed(#[from] collect::SeedError),
    /// There is no Slurm here.
    #[error("{0} (is this a login node of a cluster?)")]
    Absent(Unanswered),
    /// Slurm does not answer where its answer is needed.
    #[error(
        "{0}; whether jobs of this sweep still run is not known (try again; `mergesweep cancel --abandon` gives them up)"
    )]
    Unanswered(Unanswered),
    /// Slurm does not want a job.
    #[error("{}: Slurm refuses it: {why} (see `engine` of the spec)", .script.display())]
    Refused {
        /// The script.
        script: PathBuf,
        /// What `sbatch` said.
        why: String,
    },
    /// Models that are to stay do not fit.
    #[error(
        "all models that `limits.keep` may keep take {:.2} GB until the last one is scored, and `resources.disk` is {:.2} GB",
        *.needed as f64 / 1e9, *.disk as f64 / 1e9
    )]
    Keeps {
        /// Bytes of all merges.
        needed: u64,
        /// Bytes allowed.
        disk: u64,
    },
    /// Models that are to stay would lie on a node.
    #[error(
        "`limits.keep` keeps models, and `engine.work_dir` puts them where a job's files are deleted: set one of them only"
    )]
    KeptOnNode,
    /// Merges and evaluations would not see the same models.
    #[error(
        "`engine.split` makes models in one job and evaluates them in another, and `engine.work_dir` puts them where only \
         one of them sees them: set one of them only (`resources.work_dir` is for a disk that all nodes share)"
    )]
    SplitOnNode,
    /// A path that cannot stand in a script.
    #[error("`{}`: a path with a line break cannot stand in a job script", .0.display())]
    Path(PathBuf),
    /// A manifest that is none.
    #[error("{}: {source}", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A task that a manifest does not know.
    #[error("{}: there is no unit {index} in it", .path.display())]
    NoSuchUnit {
        /// The manifest.
        path: PathBuf,
        /// The number asked for.
        index: usize,
    },
    /// Jobs did not end when they were told to.
    #[error("the jobs of submission {0} have not ended yet (`squeue` shows them; run `mergesweep cancel` again)")]
    StillThere(u32),
    /// Somebody works on a unit.
    #[error("a task still works on `{0}`: it cannot be abandoned (end its process first)")]
    StillWorking(String),
}

/// Submits what is left of a sweep, or joins the submission that is there, and follows it to its end.
///
/// # Errors
/// [`SlurmError`] before anything is submitted, or where a job is refused. Failures of trials are part of the [`Summary`].
pub async fn run(
    request: &Request,
    options: &Options,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<Summary, SlurmError> {
    check(request, options)?;
    let mut session = Session::new(request, options, listener, cancel, None);
    let (mut attempted, mut own) = (BTreeSet::new(), None);
    // Once: what is asked of the harness before that is a step of its own.
    let mut started = Some(RunEvent::Started { n_trials: request.selected.len() });
    loop {
        let open = Submission::open(&journal::read(&request.store.journal())?);
        if let Some(open) = open {
            started.take().into_iter().for_each(|event| session.say(event));
            if own != Some(open.number) {
                session.note(format!("submission {} of this sweep is on Slurm already: joining it", open.number));
            }
            attempted.extend(open.units.iter().flat_map(|unit| &unit.trials).map(|trial| trial.id.clone()));
            session.join(&open)?;
            if !session.follow(options.detach).await? {
                break;
            }
        } else {
            own = match submit(&session, &attempted) {
                // Whoever stopped it asks for no reasons why a question had no answer.
                Err(SlurmError::Run(RunError::Interrupted) | SlurmError::Absent(_)) if cancel.is_cancelled() => break,
                submitted => submitted?,
            };
            if own.is_none() {
                started.take().into_iter().for_each(|event| session.say(event));
                break;
            }
        }
    }
    let records = journal::read(&request.store.journal())?;
    let open = Submission::open(&records);
    if open.is_none() {
        prune(&session)?;
    }
    Ok(session.summary(&SweepState::replay(&records), &attempted, open.as_ref()))
}

/// What a run would submit now: lines of the shell, each with the script that it names. Submits and writes nothing.
///
/// # Errors
/// [`SlurmError`].
pub fn preview(request: &Request, options: &Options, cancel: &Cancel) -> Result<Preview, SlurmError> {
    let silent: Listener = std::sync::Arc::new(|_| {});
    check(request, options)?;
    let mut session = Session::new(request, options, &silent, cancel, None);
    let records = journal::read(&request.store.journal())?;
    let (facts, lacks) = look_around(request, None)?;
    let number = next_number(&records);
    let facts = Some(facts).filter(|_| lacks.is_empty());
    let manifest =
        prepare::prepare(request, options, facts.as_ref(), &SweepState::replay(&records), number, &BTreeSet::new())?;
    let (scripts, is_cluster) = session.preview(&manifest);
    let open = Submission::open(&records).map(|open| open.number);
    let notes = lacks.iter().map(ToString::to_string).collect();
    Ok(Preview { scripts, n_units: manifest.units.len(), is_cluster, open, notes })
}

/// What would be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Commands with their scripts.
    pub scripts: Vec<(String, String)>,
    /// Units in all.
    pub n_units: usize,
    /// Whether a cluster answered.
    pub is_cluster: bool,
    /// A submission that would be joined first.
    pub open: Option<u32>,
    /// What a run would lack here.
    pub notes: Vec<String>,
}

/// Gathers what there is, in the job that is to write the table: until nothing more is to come, or another job like it
/// waits for the rest.
///
/// # Errors
/// [`SlurmError`].
pub async fn finish(
    request: &Request,
    options: &Options,
    own_job: Option<String>,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<(), SlurmError> {
    let mut session = Session::new(request, options, listener, cancel, own_job);
    if let Some(open) = Submission::open(&journal::read(&request.store.journal())?) {
        session.join(&open)?;
        session.follow(false).await?;
    }
    if Submission::open(&journal::read(&request.store.journal())?).is_none() {
        prune(&session)?;
    }
    Ok(())
}

/// Ends the submission of a sweep, gathers what its tasks recorded, and says which one it was; none where there is none.
/// Abandoned, it is ended without a word with Slurm.
///
/// # Errors
/// [`SlurmError`] where Slurm does not answer or jobs do not end.
pub async fn end(
    request: &Request,
    options: &Options,
    abandon: bool,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<Option<u32>, SlurmError> {
    let mut session = Session::new(request, options, listener, cancel, None);
    let Some(open) = step::mark_cancelled(&session)? else { return Ok(None) };
    session.join(&open)?;
    if abandon {
        step::abandon(&session)?;
        return Ok(Some(open.number));
    }
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && !cancel.is_cancelled() {
        session.cancel_jobs().map_err(SlurmError::Unanswered)?;
        if session.advance()?.is_none_or(|submission| submission.is_closed) {
            return Ok(Some(open.number));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(SlurmError::StillThere(open.number))
}

/// Where the tasks of an open submission stand, in one question to Slurm: pending, running, over.
///
/// # Errors
/// [`Unanswered`].
pub fn tally(submission: &Submission, cancel: &Cancel) -> Result<(usize, usize, usize), Unanswered> {
    let names: Vec<&str> = submission.jobs.iter().map(|job| job.name.as_str()).collect();
    let tasks = queue::tasks(&names, cancel)?;
    let count = |wanted: fn(&queue::TaskState) -> bool| {
        tasks.iter().filter(|task| task.index.is_some() && wanted(&task.state)).count()
    };
    Ok((
        count(|state| *state == queue::TaskState::Pending),
        count(|state| *state == queue::TaskState::Running),
        count(|state| matches!(state, queue::TaskState::Ended(_))),
    ))
}

/// Opens a submission of what is left but for what was attempted, and gives its number; none where nothing is left.
fn submit(session: &Session<'_>, attempted: &BTreeSet<TrialId>) -> Result<Option<u32>, SlurmError> {
    let request = session.request;
    let facts = match look_around(request, Some(session.cancel))? {
        (facts, lacks) if lacks.is_empty() => facts,
        (_, lacks) => return Err(RunError::Lacks(with_settings(request, lacks)).into()),
    };
    let planned = |records: &[journal::Record]| {
        let state = SweepState::replay(records);
        prepare::prepare(request, session.options, Some(&facts), &state, next_number(records), attempted)
    };
    if planned(&journal::read(&request.store.journal())?)?.units.is_empty() {
        return Ok(None);
    }
    queue::is_there(session.cancel).map_err(SlurmError::Absent)?;
    session.say(RunEvent::Preflight);
    look_at_harness(session)?;
    let _lock = request.store.lock()?;
    let (mut journal, records) = Journal::open(&request.store.journal())?;
    if let Some(open) = Submission::open(&records) {
        // Another run was faster: it is joined.
        session.note(format!("submission {} was made meanwhile", open.number));
        return Ok(Some(0));
    }
    let manifest = planned(&records)?;
    let plan = serde_json::to_vec_pretty(&crate::plan::json::plan(&request.plan)).map_err(RunError::from)?;
    let file = request.store.root().join("plan.json");
    crate::files::write_atomically(&file, &plan).map_err(super::store::at(&file))?;
    prepare::open(request, &manifest, &records, &mut journal)?;
    Ok(Some(manifest.submission))
}

/// Asks the harness once, where there may be a network, for all the tasks that will ask for it again on their nodes.
fn look_at_harness(session: &Session<'_>) -> Result<(), SlurmError> {
    let request = session.request;
    let (home, cache) = (request.store.harness_home(), request.store.harness_cache());
    let folders = Folders { home: &home, cache: &cache };
    let found = tokio::task::block_in_place(|| preflight::preflight(&request.settings, folders, session.cancel));
    found.map_err(RunError::from)?.notes.into_iter().for_each(|note| session.note(note));
    Ok(())
}

/// Lets go of the models that need not stay now that all scores are known: a unit cannot know which are the best.
fn prune(session: &Session<'_>) -> Result<(), SlurmError> {
    if matches!(session.request.keep, Keep::Nothing | Keep::All) {
        return Ok(());
    }
    let (facts, lacks): (Facts, Vec<Lack>) = look_around(session.request, None)?;
    if !lacks.is_empty() {
        return Ok(());
    }
    let _lock = session.request.store.lock_within(Duration::from_secs(30))?;
    let (journal, records) = Journal::open(&session.request.store.journal())?;
    let state = SweepState::replay(&records);
    let board = Board::new(session.request, &facts, session.listener, session.cancel, journal, state);
    Ok(trial::release_models(&board, None)?)
}

fn next_number(records: &[journal::Record]) -> u32 {
    Submission::all(records).last().map_or(1, |last| last.number + 1)
}

fn check(request: &Request, options: &Options) -> Result<(), SlurmError> {
    if request.keep != Keep::Nothing && options.slurm.work_dir.is_some() {
        return Err(SlurmError::KeptOnNode);
    }
    if options.slurm.split && options.slurm.work_dir.is_some() {
        return Err(SlurmError::SplitOnNode);
    }
    let root = request.store.root().to_owned();
    let paths = [&options.spec, &options.results, &options.here, &request.program, &root];
    let broken = paths.into_iter().find(|path| path.to_string_lossy().contains(['\n', '\r']));
    broken.map_or(Ok(()), |path| Err(SlurmError::Path(path.clone())))
}

/// A number of things: `1 unit`, `2 units`.
fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
