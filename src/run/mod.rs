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
mod error;
pub mod event;
mod explanation;
mod facts;
pub mod fingerprint;
pub mod foresight;
pub mod hardware;
pub mod imported;
pub mod journal;
mod merging;
pub mod outputs;
mod pace;
pub mod pass;
mod request;
mod resume;
pub mod retention;
pub mod search;
pub mod select;
mod session;
pub mod slurm;
pub mod state;
pub mod store;
pub mod timeline;
mod trial;
mod twins;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Numerics;
use crate::merge::{MergeOptions, TokenizerFiles};
use crate::process::Cancel;
use event::RunEvent;
use journal::Stage;
use session::Session;
use store::Lock;

pub use error::{Lack, RunError};
pub use explanation::{Explanation, why};
pub use facts::models_of;
pub use request::{Request, Slot};

/// Listens to a run.
pub type Listener = Arc<dyn Fn(RunEvent) + Send + Sync>;

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
    /// Trials that were stopped midway.
    pub n_stopped: usize,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
    /// The most bytes that merged models had on disk at any time.
    pub disk_peak: u64,
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
            Some(Outcome::Interrupted) => summary.n_stopped += 1,
            None => summary.n_left += 1,
        }
    }
    summary.interrupted = summary.n_stopped > 0 || (is_cancelled && summary.n_left > 0);
    summary
}

/// Options of every merge of a sweep: its output is evaluated, so it must have a tokenizer.
pub fn merge_options(seed: u64, numerics: Numerics) -> MergeOptions {
    MergeOptions { seed, numerics, tokenizer: TokenizerFiles::Required, ..MergeOptions::default() }
}
