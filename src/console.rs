//! Events of a run as progress bars and lines on standard error.
//!
//! On a terminal one bar shows the sweep and one each stage in flight; elsewhere only finished things are printed, a line
//! each. No colours, so there is nothing for `NO_COLOR` to switch off.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::event::RunEvent;
use crate::run::journal::Stage;

/// The display of one run.
#[derive(Debug)]
pub struct Console {
    bars: MultiProgress,
    sweep: ProgressBar,
    stages: Mutex<BTreeMap<String, ProgressBar>>,
    quiet: bool,
}

impl Console {
    /// A display on standard error; `quiet` leaves only failures and notes.
    pub fn new(quiet: bool) -> Self {
        let draw = !quiet && io::stderr().is_terminal();
        let target = if draw { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        let sweep = bars.add(
            ProgressBar::new(0).with_style(style("{pos}/{len} trials {wide_bar} {elapsed_precise}, {eta} left {msg}")),
        );
        Self { bars, sweep, stages: Mutex::new(BTreeMap::new()), quiet }
    }

    /// Shows an event.
    pub fn show(&self, event: &RunEvent) {
        match event {
            RunEvent::Preflight => self.begin_stage("", "checking the harness", false),
            RunEvent::Started { n_trials } => {
                self.end_stage("");
                self.sweep.set_length(*n_trials as u64);
            }
            RunEvent::Note(text) => self.say(&format!("note: {text}")),
            RunEvent::Reused { trial, what } => {
                self.line("reused", trial, what, None);
                self.sweep.inc(1);
            }
            RunEvent::StageStarted { trial, stage, why } => {
                self.begin_stage(trial, &format!("{} {trial}: {why}", stage.name()), true);
            }
            RunEvent::StageProgress { trial, done, total, doing } => self.move_stage(trial, *done, *total, doing),
            RunEvent::StageFinished { trial, stage, elapsed, what } => {
                self.end_stage(trial);
                self.line(past(*stage), trial, what, Some(*elapsed));
            }
            RunEvent::Failed { trial, stage, reason, log } => {
                self.end_stage(trial);
                self.say(&format!("error: {trial}: {} failed: {reason}", stage.name()));
                if let Some(log) = log {
                    self.say(&format!("hint: the whole log is in {}", log.display()));
                }
                self.sweep.inc(1);
            }
            RunEvent::Shared { trial, task, from } => {
                self.line("shared", trial, &format!("{task}: the weights are those of {from}"), None);
            }
            RunEvent::Disk { used, budget } => {
                let of = budget.map(|budget| format!(" of {:.1}", budget as f64 / 1e9)).unwrap_or_default();
                self.sweep.set_message(format!("{:.1}{of} GB of merged models", *used as f64 / 1e9));
            }
            RunEvent::TrialDone { .. } => self.sweep.inc(1),
        }
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        std::mem::take(&mut *self.held()).values().for_each(ProgressBar::finish_and_clear);
        self.sweep.finish_and_clear();
    }

    fn begin_stage(&self, trial: &str, message: &str, measured: bool) {
        self.end_stage(trial);
        let template =
            if measured { "{spinner} {msg} {bar:20} {pos}/{len} {eta}" } else { "{spinner} {msg} {elapsed}" };
        let bar = self.bars.insert_before(&self.sweep, ProgressBar::new(0).with_style(style(template)));
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.held().insert(trial.to_owned(), bar);
    }

    fn move_stage(&self, trial: &str, done: u64, total: u64, doing: &str) {
        if let Some(bar) = self.held().get(trial) {
            bar.set_length(total);
            bar.set_position(done);
            if !doing.is_empty() {
                bar.set_message(doing.to_owned());
            }
        }
    }

    fn end_stage(&self, trial: &str) {
        let ended = self.held().remove(trial);
        if let Some(bar) = ended {
            bar.finish_and_clear();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, ProgressBar>> {
        // A panic while drawing leaves a usable bar behind.
        self.stages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn line(&self, verb: &str, trial: &str, what: &str, elapsed: Option<Duration>) {
        if self.quiet {
            return;
        }
        let time = elapsed.map(|elapsed| format!("  {:.1} s", elapsed.as_secs_f64())).unwrap_or_default();
        self.say(&format!("{verb:>9}  {trial}  {what}{time}"));
    }

    fn say(&self, line: &str) {
        self.bars.suspend(|| {
            // A closed standard error is no reason to stop a sweep.
            let _ = writeln!(io::stderr(), "{line}");
        });
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; one that indicatif refuses falls back to its default look.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn past(stage: Stage) -> &'static str {
    match stage {
        Stage::Merge => "merged",
        Stage::Evaluate => "evaluated",
    }
}
