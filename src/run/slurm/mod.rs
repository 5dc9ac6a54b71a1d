//! The same sweep on a Slurm cluster: its trials are dealt out to units, each of which is worked on by this very program in a
//! task of an array job, with a journal of its own; whoever looks gathers what the units recorded.
//!
//! There is no process of ours that must live: a submission goes on by [`step`]s, which an attached run takes, or the job
//! that depends on all others, or a run from another login. Slurm is believed about what lives; results come from the
//! records on disk.
//!
//! A search has a submission for every part that is asked between two decisions; whoever finds one over takes the decision and
//! opens the next.

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
use super::explanation::is_work_left;
use super::facts::{Facts, look_around, with_settings};
use super::journal::{self, Journal, JournalError};
use super::search::{self, Advanced, Attempted};
use super::session::{ask_harness, write_plan};
use super::state::SweepState;
use super::store::StoreError;
use super::{Lack, Listener, Request, RunError, Summary, trial, twins};
use crate::process::Cancel;
use crate::spec::engine::Slurm;
use crate::spec::{Keep, Search};

pub use manifest::Manifest;
use queue::Unanswered;
use session::Session;
use submission::{Place, Submission};

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
    /// A task began after its submission was over.
    #[error("submission {submission} {how}: its units are no longer worked on (`mergesweep run` submits what is left)")]
    Over {
        /// The submission.
        submission: u32,
        /// What became of it.
        how: &'static str,
    },
    /// Jobs did not end when they were told to.
    #[error("the jobs of submission {0} have not ended yet (`squeue` shows them; run `mergesweep cancel` again)")]
    StillThere(u32),
    /// Somebody works on a unit.
    #[error("a task still works on `{0}`: it cannot be abandoned (end its process first)")]
    StillWorking(String),
}

/// Submits what is left of a sweep, or joins the submission that is there, and follows it to its end. A search is submitted part by
/// part: whoever finds one over decides who goes on, and submits the next.
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
    // The submission with which this run began, and the last one that is known to be its own.
    let (mut first, mut own) = (None, None);
    // Once: what is asked of the harness before that is a step of its own. A search says it of every part that it submits.
    let mut started = Some(RunEvent::Started { n_trials: request.selected.len() }).filter(|_| request.search.is_none());
    let mut found = None;
    loop {
        let open = Submission::open(&journal::read(&request.store.journal())?);
        if let Some(open) = open {
            started.take().into_iter().for_each(|event| session.say(event));
            if own != Some(open.number) && first != Some(open.first()) {
                session.note(format!("submission {} of this sweep is on Slurm already: joining it", open.number));
                if !request.redo.is_empty() {
                    session.note(
                        "`--redo` does nothing to what was submitted: ask it again when this is through".to_owned(),
                    );
                }
            }
            if own != Some(open.number) && open.search.is_some() {
                session.say(RunEvent::Started { n_trials: open.units.iter().map(|unit| unit.trials.len()).sum() });
            }
            first.get_or_insert(open.first());
            session.join(&open)?;
            if !session.follow(options.detach).await? {
                break;
            }
        } else {
            let submitted = match submit(&session, first).await {
                // Whoever stopped it asks for no reasons why a question had no answer.
                Err(SlurmError::Run(RunError::Interrupted) | SlurmError::Absent(_)) if cancel.is_cancelled() => break,
                submitted => submitted?,
            };
            match submitted {
                Submitted::As(number) => {
                    own = Some(number);
                    first.get_or_insert(number);
                }
                Submitted::ByAnother => {}
                Submitted::Nothing(summary) => {
                    started.take().into_iter().for_each(|event| session.say(event));
                    found = summary;
                    break;
                }
            }
        }
    }
    let records = journal::read(&request.store.journal())?;
    prune(&session)?;
    let whole = search::refreshed(request, &SweepState::replay(&records))?;
    Ok(found.unwrap_or_else(|| session.summary(&whole, &records, first)))
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
    let state = SweepState::replay(&records);
    let lacking =
        |lack: &Lack| format!("{lack}: every trial counts as left to do, and a throttle by disk may be missing");
    let mut notes: Vec<String> = lacks.iter().map(lacking).collect();
    let manifest = match &request.search {
        None => {
            let wanted = wanted(request, facts.as_ref(), &state, &Attempted::new());
            Some(prepare::prepare(request, options, &wanted, &state, number, None)?)
        }
        Some(search) => {
            let turn = search::foreseen(request, search, facts.as_ref(), &state)?;
            let manifest = turn.map(|turn| {
                let left = facts.as_ref().filter(|_| state.draw.is_some());
                let left = left.map(|facts| search::left(&turn.round, facts, &state));
                let wanted = |index: usize| left.as_ref().is_none_or(|left| left.contains(&index));
                let place = Place { first: number, rung: turn.rung };
                prepare::prepare(&turn.round, options, &wanted, &state, number, Some((&turn, place)))
            });
            manifest.transpose()?
        }
    };
    if request.search.is_some() {
        notes.push(match &manifest {
            Some(_) => "this is the next part of the search; what comes after it depends on the answers".to_owned(),
            None => {
                "nothing is left to ask, or a decision comes first, on which it depends what is submitted".to_owned()
            }
        });
    }
    let n_units = manifest.as_ref().map_or(0, |manifest| manifest.units.len());
    let (scripts, is_cluster) = match &manifest {
        Some(manifest) => session.preview(manifest),
        None => (Vec::new(), queue::max_array_size(cancel).is_some()),
    };
    let open = Submission::open(&records).map(|open| open.number);
    Ok(Preview { scripts, n_units, is_cluster, open, notes })
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
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// Gathers what there is of a submission, in its last job: until nothing more is to come, or another job like it waits for the rest.
/// Of a search, it decides then who goes on, and submits the next part, which has such a job of its own.
///
/// # Errors
/// [`SlurmError`].
pub async fn finish(
    request: &Request,
    options: &Options,
    manifest: &Manifest,
    own_job: Option<String>,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<(), SlurmError> {
    let own = manifest.submission;
    let mut session = Session::new(request, options, listener, cancel, own_job);
    loop {
        match Submission::open(&journal::read(&request.store.journal())?) {
            Some(open) if open.number == own => {
                session.join(&open)?;
                if !session.follow(false).await? {
                    return Ok(());
                }
            }
            Some(next) => {
                // Whoever submitted it may have been killed before its jobs were handed over.
                let mut session = Session::new(request, options, listener, cancel, None);
                session.join(&next)?;
                session.follow(true).await?;
                return Ok(());
            }
            None => match &manifest.search {
                Some(portion) => match submit(&session, Some(portion.place.first)).await? {
                    Submitted::As(_) | Submitted::ByAnother => {}
                    Submitted::Nothing(_) => return Ok(()),
                },
                None => return prune(&session),
            },
        }
    }
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

/// Where the tasks of an open submission stand that work on units, in one question to Slurm: pending, running, over.
///
/// # Errors
/// [`Unanswered`].
pub fn tally(submission: &Submission, cancel: &Cancel) -> Result<(usize, usize, usize), Unanswered> {
    let of_units = submission.jobs.iter().filter(|job| !job.is_table());
    let names: Vec<&str> = of_units.map(|job| job.name.as_str()).collect();
    let tasks = queue::tasks(&names, cancel)?;
    let count = |wanted: fn(&queue::TaskState) -> bool| tasks.iter().filter(|task| wanted(&task.state)).count();
    Ok((
        count(|state| *state == queue::TaskState::Pending),
        count(|state| *state == queue::TaskState::Running),
        count(|state| matches!(state, queue::TaskState::Ended(_))),
    ))
}

/// What came of an attempt to submit something.
enum Submitted {
    /// There is a submission of this number now.
    As(u32),
    /// Another run was faster: its submission is to be joined.
    ByAnother,
    /// Nothing is left, or the user wants no more. Of a search that is over, how it ended.
    Nothing(Option<Summary>),
}

/// Opens a submission of what is left but for what was attempted since the `first` submission of this run; none where this one
/// would be the first.
async fn submit(session: &Session<'_>, first: Option<u32>) -> Result<Submitted, SlurmError> {
    match &session.request.search {
        Some(search) => submit_part(session, search, first).await,
        None => submit_rest(session, first),
    }
}

fn submit_rest(session: &Session<'_>, first: Option<u32>) -> Result<Submitted, SlurmError> {
    let request = session.request;
    prune(session)?;
    let facts = match look_around(request, Some(session.cancel))? {
        (facts, lacks) if lacks.is_empty() => facts,
        (_, lacks) => return Err(RunError::Lacks(with_settings(request, lacks)).into()),
    };
    let planned = |records: &[journal::Record]| {
        let attempted = first.map(|first| Submission::attempted(records, first)).unwrap_or_default();
        let state = SweepState::replay(records);
        let wanted = wanted(request, Some(&facts), &state, &attempted);
        prepare::prepare(request, session.options, &wanted, &state, next_number(records), None)
    };
    if planned(&journal::read(&request.store.journal())?)?.units.is_empty() {
        return Ok(Submitted::Nothing(None));
    }
    queue::is_there(session.cancel).map_err(SlurmError::Absent)?;
    // Where there may be a network, for all the tasks that will ask for it again on their nodes.
    ask_harness(request, &request.settings, session.listener, session.cancel)?;
    let _lock = request.store.lock()?;
    let (mut journal, records) = Journal::open(&request.store.journal())?;
    if is_opened_meanwhile(session, &records) {
        return Ok(Submitted::ByAnother);
    }
    let manifest = planned(&records)?;
    write_plan(request)?;
    prepare::open(request, &manifest, &records, &mut journal)?;
    Ok(Submitted::As(manifest.submission))
}

/// Decides who goes on in a search, as far as that is due, and opens a submission of what is to be asked next. The lock is held from
/// the first to the last: nobody else finds anything in between.
async fn submit_part(session: &Session<'_>, search: &Search, first: Option<u32>) -> Result<Submitted, SlurmError> {
    let request = session.request;
    let _lock = tokio::task::block_in_place(|| request.store.lock_within(session.patience()))?;
    let records = journal::read(&request.store.journal())?;
    if is_opened_meanwhile(session, &records) {
        return Ok(Submitted::ByAnother);
    }
    let submissions = Submission::all(&records);
    let last = submissions.last().filter(|_| first.is_some());
    // The user wants no more of it, or another run has begun since.
    if last.is_some_and(|last| last.is_cancelled || Some(last.first()) != first) {
        return Ok(Submitted::Nothing(None));
    }
    let mut whole = search::refreshed(request, &SweepState::replay(&records))?;
    if let Some(last) = last {
        // Whoever looks goes on with the trials that the run began with.
        let manifest = session.manifest(last.number)?;
        let selected = manifest.search.map(|portion| portion.selected).unwrap_or_default();
        let among = |names: &[String]| {
            let trials = whole.plan.trials.iter().enumerate();
            trials.filter(|(_, trial)| names.contains(&trial.name)).map(|(index, _)| index).collect()
        };
        (whole.selected, whole.redo) = (among(&selected), among(&manifest.redo));
    }
    let attempted = first.map(|first| Submission::attempted(&records, first)).unwrap_or_default();
    let mut run = super::Session::open(&whole, session.listener, session.cancel)?;
    let turn = match search::advance(&mut run, search, attempted).await? {
        Advanced::Asks(turn) => turn,
        Advanced::Over(summary) => {
            run.end().await?;
            return Ok(Submitted::Nothing(Some(summary)));
        }
    };
    queue::is_there(session.cancel).map_err(SlurmError::Absent)?;
    let number = next_number(&records);
    let place = Place { first: first.unwrap_or(number), rung: turn.rung };
    let left = search::left(&turn.round, &run.facts, &run.state);
    let wanted = |index: usize| left.contains(&index);
    drop(run);
    let (mut journal, records) = Journal::open(&request.store.journal())?;
    let state = SweepState::replay(&records);
    prepare::make_room(&turn, session.options, &state, &mut journal)?;
    let manifest = prepare::prepare(&turn.round, session.options, &wanted, &state, number, Some((&*turn, place)))?;
    let records = journal::read(&request.store.journal())?;
    prepare::open(&turn.round, &manifest, &records, &mut journal)?;
    Ok(Submitted::As(number))
}

fn is_opened_meanwhile(session: &Session<'_>, records: &[journal::Record]) -> bool {
    let open = Submission::open(records);
    if let Some(open) = &open {
        session.note(format!("submission {} was made meanwhile", open.number));
    }
    open.is_some()
}

/// Which trials of a sweep have something left to do and were not attempted. Without facts, all do.
fn wanted(
    request: &Request,
    facts: Option<&Facts>,
    state: &SweepState,
    attempted: &Attempted,
) -> impl Fn(usize) -> bool + use<> {
    let followers = twins::followers(request);
    let is_left = |index: &usize| {
        let is_left = facts.is_none_or(|facts| is_work_left(request, facts, state, &followers, *index));
        is_left && !attempted.contains(&(None, request.plan.trials[*index].id.clone()))
    };
    let wanted: BTreeSet<usize> = request.selected.iter().copied().filter(is_left).collect();
    move |index| wanted.contains(&index)
}

/// Lets go of the models that need not stay by the scores that are known, unless a submission is open: a unit cannot know which are
/// the best, or that an earlier run kept more.
fn prune(session: &Session<'_>) -> Result<(), SlurmError> {
    let request = session.request;
    let records = journal::read(&request.store.journal())?;
    let state = SweepState::replay(&records);
    let is_there = |index: &usize| state.of(&request.plan.trials[*index].id).model_present;
    // A search has done so by itself.
    let stays = request.search.is_some() || request.keep == Keep::All || !request.selected.iter().any(is_there);
    if stays || Submission::open(&records).is_some() {
        return Ok(());
    }
    let (facts, lacks): (Facts, Vec<Lack>) = look_around(request, None)?;
    if !lacks.is_empty() {
        return Ok(());
    }
    let _lock = match request.store.lock_within(session.patience()) {
        Err(StoreError::Held { holder, .. }) => {
            session.note(format!("{holder} holds this sweep; models that need not stay are deleted by the next run"));
            return Ok(());
        }
        lock => lock?,
    };
    let (journal, records) = Journal::open(&request.store.journal())?;
    if Submission::open(&records).is_some() {
        return Ok(());
    }
    let state = SweepState::replay(&records);
    let board = Board::new(request, &facts, session.listener, session.cancel, journal, state);
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
