//! The harness as a process that stays: its modules are imported and its tasks indexed once for many models. See
//! `worker.py`, which runs the harness's own command again and again.
//!
//! Whoever asks decides what a failure means: a process that has seen other models before is no witness against a model.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::command::Call;
use super::{HarnessMode, Settings};
use crate::process::{Cancel, Exit, Finished, GRACE, Invocation, Logs, ProcessError, Worker};

/// The process; see the file.
const PROGRAM: &str = include_str!("worker.py");

/// Failures in a row after which it is not tried again.
const PATIENCE: u32 = 2;

/// The harness process of one slot. It lives from its first evaluation on, and goes with this.
#[derive(Default)]
pub struct Warm {
    worker: Option<Worker>,
    n_failures: u32,
}

/// What the process says of an evaluation.
#[derive(Debug, Deserialize)]
struct Answer {
    /// As the command would have exited.
    exit: i32,
    /// Parameters of models that are still in its memory.
    n_parameters: u64,
}

impl Warm {
    /// Whether a call may be made here: the back end gives its memory back, no program that a model wrote is run, and
    /// earlier calls went well.
    pub fn takes(&self, settings: &Settings, call: &Call) -> bool {
        let frees_memory = matches!(settings.model.as_str(), "hf" | "hf-auto" | "huggingface");
        settings.mode == HarnessMode::Warm && frees_memory && !call.runs_code && self.n_failures < PATIENCE
    }

    /// Remembers that a call failed here which the command is to make now. What that leaves in memory is not known.
    pub fn blame(&mut self) {
        self.n_failures += 1;
        self.worker = None;
    }

    /// Remembers that the results of a call made here were accepted.
    pub(super) fn praise(&mut self) {
        self.n_failures = 0;
    }

    /// Ends the process, if there is one, and waits until it is gone.
    pub async fn end(self) {
        if let Some(worker) = self.worker {
            worker.end().await;
        }
    }

    /// Makes a call of the harness as [`crate::process::run`] would. `invocation` is that of the command; of it the
    /// interpreter, its folder and its environment are used.
    ///
    /// # Errors
    /// [`ProcessError`] where the process cannot be started or followed, or gives an answer that is none.
    pub(super) async fn run(
        &mut self,
        invocation: &Invocation,
        config: &Path,
        logs: &Logs,
        timeout: Option<Duration>,
        cancel: &Cancel,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Finished, ProcessError> {
        let finished = self.ask(invocation, config, logs, timeout, cancel, on_line).await;
        if !finished.as_ref().is_ok_and(|finished| finished.exit.is_success()) {
            // What a failure leaves in its memory is not known.
            self.worker = None;
        }
        finished
    }

    async fn ask(
        &mut self,
        invocation: &Invocation,
        config: &Path,
        logs: &Logs,
        timeout: Option<Duration>,
        cancel: &Cancel,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Finished, ProcessError> {
        let wanted = Invocation { args: vec!["-c".to_owned(), PROGRAM.to_owned()], ..invocation.clone() };
        // Another folder or environment, and a process that stays cannot be given them.
        let mut worker = match self.worker.take().filter(|worker| *worker.invocation() == wanted) {
            Some(worker) => worker,
            None => Worker::start(&wanted, &logs.stderr)?,
        };
        let question = json!({ "config": config, "stdout": logs.stdout, "stderr": logs.stderr }).to_string();
        let reply = worker.ask(&question, logs, timeout, GRACE, cancel, on_line).await?;
        let exit = match reply.answer {
            Err(exit) => exit,
            Ok(line) => {
                let answer: Answer = serde_json::from_str(&line)
                    .map_err(|_| ProcessError::Answer { program: wanted.program.clone(), line })?;
                // A model that something holds on to would take the memory of the next one.
                self.worker = Some(worker).filter(|_| answer.n_parameters == 0);
                Exit::Code(answer.exit)
            }
        };
        Ok(Finished { exit, tail: reply.tail, duration: reply.duration })
    }
}
