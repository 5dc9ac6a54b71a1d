//! What a task does: one unit of a manifest, or the merges of one, by the code of a run, with the unit's own lock and journal.
//!
//! A task of evaluations does all that is left of its unit, whoever was to do it; but a merge that has failed is not tried
//! again there.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::journal::{self, Journal, Stage, What};
use super::super::state::SweepState;
use super::super::store::{Lock, Store, StoreError, remove_folder};
use super::super::{Listener, Request, Summary, run_held};
use super::manifest::{Manifest, asked};
use super::submission::{Step, Submission};
use super::unit::Unit;
use super::{SlurmError, collect};
use crate::process::Cancel;
use crate::spec::Keep;

/// How long a task waits for another one to let go of its unit: a file system may need minutes to notice that a node is dead.
const PATIENCE: Duration = Duration::from_secs(180);

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// It did what it could.
    Ended(Summary),
    /// It was told to stop; the next attempt goes on from there.
    Interrupted,
    /// It cannot work on its unit, for this reason, which is recorded.
    Impossible(String),
}

/// Makes the request for a sweep one for a unit of it, or for its merges only. `work_dir` is where models lie, if not in the
/// results.
///
/// # Errors
/// Why the unit cannot be worked on: the spec is no longer the one that was submitted.
pub fn narrow(
    request: &Request,
    manifest: &Manifest,
    unit: &Unit,
    merges_only: bool,
    work_dir: Option<&PathBuf>,
) -> Result<Request, String> {
    let changed = "the spec has changed since it was submitted";
    let request = &manifest.asking(request);
    let positions = unit.positions(&request.plan).ok_or_else(|| {
        format!("{changed}: a trial of `{}` is no longer in it\nhint: cancel, and run again", unit.label())
    })?;
    if asked(&request.settings) != manifest.asked {
        return Err(format!("{changed}: it asks something else of the harness\nhint: cancel, and run again"));
    }
    let plan = request.plan.only(&positions);
    let home = &request.store;
    let store = store(home, unit, work_dir).map_err(|error| error.to_string())?;
    let read = |store: &Store| journal::read(&store.journal()).map_err(|error| error.to_string());
    let own = read(&store)?;
    // What the sweep does not know yet was done for this submission: it is not done again a second time.
    let since = SweepState::replay(&collect::missing(&own, &collect::lines(&read(home)?), unit));
    let is_redone = |index: &usize| {
        let (trial, settings) = (&plan.trials[*index], &request.settings);
        let is_done = || settings.tasks.iter().all(|task| since.of(&trial.id).current(settings, task).is_some());
        manifest.redo.contains(&trial.name) && !is_done()
    };
    let mut selected: Vec<usize> = (0..plan.trials.len()).collect();
    if manifest.split && !merges_only {
        let state = SweepState::replay(&own);
        let is_hopeless = |index: usize| matches!(state.of(&plan.trials[index].id).failure, Some((Stage::Merge, _)));
        selected.retain(|index| !is_hopeless(*index));
    }
    Ok(Request {
        redo: selected.iter().copied().filter(is_redone).collect(),
        merges_redone: request.merges_redone || (manifest.split && !merges_only),
        selected,
        disk: manifest.disk,
        slots: if merges_only { Vec::new() } else { request.slots.clone() },
        store,
        plan,
        ..request.clone()
    })
}

/// Where a unit has its journal and, on a node, its models.
fn store(sweep: &Store, unit: &Unit, work_dir: Option<&PathBuf>) -> Result<Store, StoreError> {
    let store = sweep.unit(&unit.id);
    match work_dir {
        Some(work) => store.with_models_in(work),
        None => Ok(store),
    }
}

/// Works on a unit and records its end, unless it was to be merged only: then what is left is for another task. `job` names
/// the task for Slurm.
///
/// # Errors
/// [`SlurmError`] where another task holds the unit, the submission is over, or the end of the unit cannot be recorded.
pub async fn work(
    request: Result<Request, String>,
    home: &Store,
    number: u32,
    unit: &Unit,
    job: &str,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<Done, SlurmError> {
    let own = home.unit(&unit.id);
    let lock = hold(&own, cancel).await?;
    // It may have been given up while the lock was waited for.
    refuse_over(home, number)?;
    let done = match &request {
        Ok(request) => run_held(request, &lock, listener, cancel).await.map_err(|error| error.to_string()),
        Err(reason) => Err(reason.clone()),
    };
    let done = match done {
        Ok(summary) if summary.interrupted || cancel.is_cancelled() => return Ok(Done::Interrupted),
        Ok(summary) => Done::Ended(summary),
        // What it asked may have been ended a moment before it hears of its own end.
        Err(_) if is_stopping(cancel).await => return Ok(Done::Interrupted),
        Err(reason) => Done::Impossible(reason),
    };
    let reason = match &done {
        Done::Impossible(reason) => Some(reason.clone()),
        _ if request.is_ok_and(|request| request.slots.is_empty()) => return Ok(done),
        _ => None,
    };
    let (mut journal, _) = Journal::open(&own.journal())?;
    let ended = Step::UnitEnded { submission: number, job: job.to_owned(), reason };
    journal.append(None, What::Slurm(ended))?;
    Ok(done)
}

/// Refuses to work for a submission that was cancelled or is over: another run may have its trials. A journal that does not know
/// of it refuses nothing, since file systems show a node the past for a while.
///
/// # Errors
/// [`SlurmError::Over`], or that the journal of the sweep cannot be read.
pub fn refuse_over(home: &Store, number: u32) -> Result<(), SlurmError> {
    let submissions = Submission::all(&journal::read(&home.journal())?);
    let how = match submissions.iter().find(|submission| submission.number == number) {
        Some(submission) if submission.is_cancelled => "was cancelled",
        Some(submission) if submission.is_closed => "is over",
        _ => return Ok(()),
    };
    Err(SlurmError::Over { submission: number, how })
}

/// Lets go of the models that tasks left when they were lost or failed: their room is for those who work now. `own` is the unit
/// of this task, and `job` the name of its job. Split, it is the wave before this one that may have left some, and a task that
/// Slurm has lost sight of is waited for.
///
/// # Errors
/// [`SlurmError`] where a journal or a folder cannot be changed.
pub fn make_room(request: &Request, manifest: &Manifest, own: usize, job: &str) -> Result<(), SlurmError> {
    if manifest.asking(request).keep != Keep::Nothing || manifest.disk.is_none() {
        return Ok(());
    }
    let (others, patience) = if manifest.split {
        (wave_before(request, manifest, job)?, PATIENCE)
    } else {
        // Any of them may be at work, and will let go of its models by itself.
        ((0..manifest.units.len()).filter(|unit| *unit != own).collect(), Duration::ZERO)
    };
    let begun = Instant::now();
    for unit in others.into_iter().filter_map(|unit| manifest.units.get(unit)) {
        let trials = || unit.positions(&request.plan).into_iter().flatten().map(|index| &request.plan.trials[index]);
        let store = request.store.unit(&unit.id);
        if trials().all(|trial| !store.has_models(trial)) {
            continue;
        }
        let Ok(_lock) = store.lock_within(patience.saturating_sub(begun.elapsed())) else { continue };
        let (mut journal, records) = Journal::open(&store.journal())?;
        let state = SweepState::replay(&records);
        for trial in trials() {
            if state.of(&trial.id).model_present {
                journal.append(Some(&trial.id), What::ModelDeleted)?;
            }
            store.clear_partial_models(trial)?;
            remove_folder(&store.model(trial))?;
        }
    }
    Ok(())
}

/// The units of the jobs that a job waited for, but for its own.
fn wave_before(request: &Request, manifest: &Manifest, job: &str) -> Result<Vec<usize>, SlurmError> {
    let submissions = Submission::all(&journal::read(&request.store.journal())?);
    let submission = submissions.iter().find(|submission| submission.number == manifest.submission);
    let Some((submission, own)) = submission.and_then(|of| Some((of, of.job(job)?))) else { return Ok(Vec::new()) };
    let before = own.after.iter().filter_map(|name| submission.job(name)).flat_map(|job| job.units.iter().copied());
    Ok(before.filter(|unit| !own.units.contains(unit)).collect())
}

/// Whether the end of the job is heard within a moment.
async fn is_stopping(cancel: &Cancel) -> bool {
    tokio::time::timeout(Duration::from_secs(1), cancel.cancelled()).await.is_ok()
}

async fn hold(store: &Store, cancel: &Cancel) -> Result<Lock, SlurmError> {
    let asked = Instant::now();
    loop {
        match tokio::task::block_in_place(|| store.lock()) {
            Err(StoreError::Held { .. }) if asked.elapsed() < PATIENCE && !cancel.is_cancelled() => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            held => return Ok(held?),
        }
    }
}
