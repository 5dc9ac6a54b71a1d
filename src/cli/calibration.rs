//! `plan --calibrate`: merges parts of the models, and asks a model a few documents, to know how long a run takes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::interrupt::Session;
use super::{Failure, rehearse, run, usage, warn};
use crate::eval::TaskRequest;
use crate::eval::command::limit_of;
use crate::eval::task::is_tiny;
use crate::forecast::calibrate::calibrate;
use crate::forecast::rates::Pass;
use crate::forecast::timed::Short;
use crate::plan::Subject;
use crate::run::foresight::{Foreseen, foresee};
use crate::run::journal;
use crate::run::store::Store;
use crate::run::{Listener, Request};
use crate::spec::Sweep;

/// The most documents of every task in the two calls that time the harness: enough more that it shows beside what a call takes
/// anyway.
const DOCUMENTS: [u64; 2] = [2, 16];

/// Longest time of one call of the harness.
const LONGEST: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Default)]
pub(super) struct Measured {
    pub passes: Vec<Pass>,
    pub short: Option<[Short; 2]>,
}

/// Measures, in a folder that goes at the end.
pub(super) fn measure(request: &Request, sweep: &Sweep) -> Result<Measured, Failure> {
    let session = Session::begin("the calibration ends, and its folder goes")?;
    warn("calibrating: merging parts of the models for at most 20 s");
    let folder = request.store.root().ancestors().find(|folder| folder.is_dir()).unwrap_or(request.store.root());
    let place = tempfile::Builder::new().prefix(".mergesweep-calibration-").tempdir_in(folder);
    let place = place.with_context(|| format!("making a folder in `{}`", folder.display()))?;
    let passes = calibrate(request, place.path(), &|| !session.cancel.is_cancelled()).context("calibrating")?;
    if session.cancel.is_cancelled() {
        return Err(Failure::Interrupted);
    }
    if passes.is_empty() {
        warn("no merge to calibrate by: none is left to be made, or its models are not on this machine");
    }
    let short = short(request, sweep, &session, place.path());
    if session.cancel.is_cancelled() {
        return Err(Failure::Interrupted);
    }
    Ok(Measured { passes, short })
}

/// Asks the first model that is to be evaluated as it is and is here. What cannot be asked of few documents, or fails, is not
/// timed, and it is said why.
fn short(request: &Request, sweep: &Sweep, session: &Session, folder: &Path) -> Option<[Short; 2]> {
    let Some(model) = first_model(request) else {
        warn("evaluations are not timed: no plain model is left to be evaluated, or it is not on this machine");
        return None;
    };
    let tasks: Vec<TaskRequest> = model.tasks.iter().filter(|task| !is_tiny(&task.name)).cloned().collect();
    if tasks.len() < model.tasks.len() {
        warn("tinyBenchmarks are not timed: their scores need all of their documents");
    }
    if tasks.is_empty() {
        return None;
    }
    let [few, more] = DOCUMENTS;
    let name = &request.plan.trials[model.index].name;
    warn(&format!(
        "calibrating: asking {name} {few} and {more} documents of every task, {} s a call of the harness at most",
        LONGEST.as_secs()
    ));
    let ask = |limit: u64| -> Result<Short, Failure> {
        let store = Store::new(&folder.join(limit.to_string()), &sweep.name)?;
        rehearse::link_home(&request.store, &store)?;
        let asked = asking(request, model.index, &tasks, limit, store);
        // What becomes of it is told below, in the words of a calibration.
        let quiet: Listener = Arc::new(|_| {});
        let summary = session.runtime.block_on(crate::run::run(&asked, &quiet, &session.cancel));
        let summary = summary.map_err(|error| run::sort(error, sweep))?;
        match summary.failed.first() {
            Some(failed) => Err(usage(anyhow!("{}", failed.reason))),
            None => Ok((limit, journal::read(&asked.store.journal())?)),
        }
    };
    match ask(few).and_then(|few| Ok([few, ask(more)?])) {
        Ok(short) => Some(short),
        Err(failure) => {
            warn(&format!("evaluations are not timed: {}", failure.in_words()));
            None
        }
    }
}

fn first_model(request: &Request) -> Option<Foreseen> {
    // What the journal or the models do not tell is told by the forecast.
    let is_plain = |trial: &Foreseen| match &request.plan.trials[trial.index].subject {
        Subject::Checkpoint(model) => matches!(request.locator.locate_on_disk(model), Ok(Some(_))),
        Subject::Merge { .. } => false,
    };
    foresee(request).ok()?.trials.into_iter().find(|trial| !trial.tasks.is_empty() && is_plain(trial))
}

/// The evaluation of one model on few documents, in one slot.
fn asking(request: &Request, index: usize, tasks: &[TaskRequest], limit: u64, store: Store) -> Request {
    let mut asking = Request {
        selected: vec![index],
        redo: Vec::new(),
        search: None,
        grow: None,
        retries: 0,
        store,
        ..request.clone()
    };
    asking.slots.truncate(1);
    asking.settings.tasks = tasks.to_vec();
    for task in &mut asking.settings.tasks {
        task.limit = Some(limit_of(&request.settings, task).map_or(limit, |own| own.min(limit)));
    }
    asking.settings.timeout = Some(request.settings.timeout.map_or(LONGEST, |own| own.min(LONGEST)));
    asking
}
