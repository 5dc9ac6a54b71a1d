//! What keeps a run from going on, and what it lacks.

use super::fingerprint;
use super::journal::JournalError;
use super::store::StoreError;
use crate::document::Problems;
use crate::eval::preflight;
use crate::eval::results::ResultsError;
use crate::eval::samples::SamplesError;
use crate::model::ModelRef;
use crate::model::identity::IdentityError;
use crate::model::locate::LocateError;
use crate::process::ProcessError;

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
