//! What a run says while it runs. The display, and whoever else listens, are consumers; nothing here prints.

use std::path::PathBuf;
use std::time::Duration;

use super::journal::Stage;

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEvent {
    /// The harness is asked whether everything needed is there.
    Preflight,
    /// The run is about to start on its trials.
    Started {
        /// Trials selected.
        n_trials: usize,
    },
    /// A remark that a user should read.
    Note(String),
    /// Nothing to do for this trial: everything it needs was done before.
    Reused {
        /// Name of the trial.
        trial: String,
        /// What was reused: `merge and 3 evaluations`.
        what: String,
    },
    /// A stage began.
    StageStarted {
        /// Name of the trial.
        trial: String,
        /// The stage.
        stage: Stage,
        /// Why it is done, and on what: `3 tasks; not done yet`.
        why: String,
    },
    /// A stage moved on.
    StageProgress {
        /// Name of the trial.
        trial: String,
        /// Units done.
        done: u64,
        /// Units in all, 0 while unknown.
        total: u64,
        /// What is going on now.
        doing: String,
    },
    /// A stage ended well.
    StageFinished {
        /// Name of the trial.
        trial: String,
        /// The stage.
        stage: Stage,
        /// Wall time.
        elapsed: Duration,
        /// What came of it: `272 tensors, 269 MB`.
        what: String,
    },
    /// A stage failed; the sweep goes on.
    Failed {
        /// Name of the trial.
        trial: String,
        /// The stage.
        stage: Stage,
        /// Why.
        reason: String,
        /// Where to read more.
        log: Option<PathBuf>,
    },
    /// The trial has all its scores.
    TrialDone {
        /// Name of the trial.
        trial: String,
    },
}
