//! What a run says while it runs. The display, and whoever else listens, are consumers; nothing here prints.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::journal::Stage;
use super::search::Refined;

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
        /// Where an evaluation runs, from 0.
        slot: Option<usize>,
        /// Why it is done, and on what: `3 tasks; not done yet`.
        why: String,
    },
    /// A stage moved on.
    StageProgress {
        /// Name of the trial.
        trial: String,
        /// Units done: bytes of a merge, requests of an evaluation.
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
    /// The scores of a task were taken over from a trial with the same weights.
    Shared {
        /// The trial.
        trial: String,
        /// The task.
        task: String,
        /// Whose scores they are.
        from: String,
    },
    /// A search asks the trials that are left more documents.
    Rung {
        /// Where it stands: `rung 2 of 6`.
        place: String,
        /// Trials that are asked.
        n_trials: usize,
        /// Documents, task by task: `132 documents of gsm8k`.
        documents: String,
    },
    /// A search decided who goes on.
    Decided {
        /// The rung, from 1.
        rung: usize,
        /// Rungs in all.
        n_rungs: usize,
        /// Name of the trial that leads.
        leader: String,
        /// Trials that go on.
        n_left: usize,
        /// Names of the trials that drop out.
        out: Vec<String>,
    },
    /// A refinement looked for the optimum, and placed points or none.
    Refined(Refined),
    /// Where the whole run stands, whenever a trial is through.
    Tally {
        /// Trials with all their scores.
        n_done: usize,
        /// Of these, trials for which nothing had to be done.
        n_reused: usize,
        /// Trials that failed.
        n_failed: usize,
        /// Trials that are not through.
        n_left: usize,
        /// Time left, from how long steps took so far.
        left: Option<Duration>,
    },
    /// Merged models on disk.
    Disk {
        /// Their bytes.
        used: u64,
        /// How many they may have.
        budget: Option<u64>,
    },
    /// A trial has all its scores.
    TrialDone {
        /// Name of the trial.
        trial: String,
    },
}

impl RunEvent {
    /// For programs that follow a run: an object with the name of the event.
    pub fn json(&self) -> Json {
        match self {
            Self::Preflight => json!({ "event": "preflight" }),
            Self::Started { n_trials } => json!({ "event": "started", "trials": n_trials }),
            Self::Note(text) => json!({ "event": "note", "text": text }),
            Self::Reused { trial, what } => json!({ "event": "reused", "trial": trial, "what": what }),
            Self::StageStarted { trial, stage, slot, why } => {
                json!({ "event": "stage-started", "trial": trial, "stage": stage, "slot": slot, "why": why })
            }
            Self::StageProgress { trial, done, total, doing } => {
                json!({ "event": "stage-progress", "trial": trial, "done": done, "total": total, "doing": doing })
            }
            Self::StageFinished { trial, stage, elapsed, what } => json!({
                "event": "stage-finished", "trial": trial, "stage": stage, "seconds": elapsed.as_secs_f64(), "what": what
            }),
            Self::Failed { trial, stage, reason, log } => {
                json!({ "event": "failed", "trial": trial, "stage": stage, "reason": reason, "log": log })
            }
            Self::Shared { trial, task, from } => {
                json!({ "event": "shared", "trial": trial, "task": task, "from": from })
            }
            Self::Tally { n_done, n_reused, n_failed, n_left, left } => json!({
                "event": "tally", "done": n_done, "reused": n_reused, "failed": n_failed, "left": n_left,
                "seconds_left": left.map(|left| left.as_secs_f64().round()),
            }),
            Self::Rung { place, n_trials, documents } => {
                json!({ "event": "rung", "place": place, "trials": n_trials, "documents": documents })
            }
            Self::Decided { rung, n_rungs, leader, n_left, out } => json!({
                "event": "decided", "rung": rung, "rungs": n_rungs, "leader": leader, "left": n_left, "out": out,
            }),
            Self::Refined(Refined { axes, optimum, intervals, gain, verdict, next, .. }) => json!({
                "event": "refined", "axes": axes, "optimum": optimum, "gain": gain, "verdict": verdict, "next": next,
                "intervals": intervals,
            }),
            Self::Disk { used, budget } => json!({ "event": "disk", "used": used, "budget": budget }),
            Self::TrialDone { trial } => json!({ "event": "trial-done", "trial": trial }),
        }
    }
}
