//! Events of a run as progress bars and lines on standard error.
//!
//! On a terminal one bar shows the sweep, with what is left below it, and one each stage in flight; elsewhere only finished things are printed, a line
//! each, and now and then how much is left. No colours, so there is nothing for `NO_COLOR` to switch off.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::run::event::RunEvent;
use crate::run::journal::Stage;

/// The display of one run.
#[derive(Debug)]
pub struct Console {
    bars: MultiProgress,
    sweep: ProgressBar,
    stages: Mutex<BTreeMap<String, Bar>>,
    /// How much is left, and the disk, in words.
    remarks: Mutex<Remarks>,
    quiet: bool,
}

/// The bar of a stage in flight, and how it looks once it is known how much there is to do.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    template: &'static str,
    is_measured: bool,
}

/// What stands below the bar of the sweep.
#[derive(Debug, Default)]
struct Remarks {
    tally: String,
    disk: String,
    /// When the tally was last printed as a line.
    said: Option<Instant>,
}

/// Between two lines that say how much is left, where there are no bars.
const INTERVAL: Duration = Duration::from_secs(60);

impl Console {
    /// A display on standard error; `quiet` leaves only failures and notes.
    pub fn new(quiet: bool) -> Self {
        let draw = !quiet && io::stderr().is_terminal();
        let target = if draw { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        let sweep = bars.add(ProgressBar::new(0).with_style(style(SWEEP)));
        Self { bars, sweep, stages: Mutex::default(), remarks: Mutex::default(), quiet }
    }

    /// Shows an event.
    pub fn show(&self, event: &RunEvent) {
        match event {
            RunEvent::Preflight => self.begin_stage("", "check", "the harness and its tasks", WAITING),
            RunEvent::Started { n_trials } => {
                self.end_stage("");
                self.sweep.set_length(*n_trials as u64);
                // Its clock goes on while nothing ends.
                self.sweep.enable_steady_tick(Duration::from_secs(1));
            }
            RunEvent::Note(text) => self.say(&format!("note: {text}")),
            RunEvent::Reused { trial, what } => {
                self.line("reused", trial, what, None);
            }
            RunEvent::StageStarted { trial, stage, slot, why } => {
                let (place, template) = match slot {
                    Some(slot) => (format!("slot {slot}"), EVALUATING),
                    None => (stage.name().to_owned(), MERGING),
                };
                self.begin_stage(trial, &place, &format!("{trial}: {why}"), template);
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
            }
            RunEvent::Shared { trial, task, from } => {
                self.line("shared", trial, &format!("{task}: the weights are those of {from}"), None);
            }
            RunEvent::Rung { place, n_trials, documents } => {
                let trials = if *n_trials == 1 { "1 trial".to_owned() } else { format!("{n_trials} trials") };
                self.line("race", place, &format!("{trials}, {documents}"), None);
            }
            RunEvent::Decided { rung, n_rungs, leader, n_left, out } => {
                let out = if out.is_empty() { "nobody".to_owned() } else { out.join(", ") };
                let what = format!("{leader} leads, {n_left} left; out: {out}");
                self.line("decided", &format!("rung {rung} of {n_rungs}"), &what, None);
            }
            RunEvent::Refined(refined) => {
                let what = match refined.next.len() {
                    0 => format!("nothing: {}", refined.verdict.in_words()),
                    1 => "1 point more".to_owned(),
                    n => format!("{n} points more"),
                };
                let points = format!("{} points", refined.n_points);
                self.line("refined", &points, &format!("best at {}; {what}", refined.in_words()), None);
            }
            RunEvent::Disk { used, budget } => {
                let of = budget.map(|budget| format!(" of {:.1}", budget as f64 / 1e9)).unwrap_or_default();
                let disk = format!("{:.1}{of} GB of models", *used as f64 / 1e9);
                self.remark(false, |remarks| remarks.disk = disk);
            }
            RunEvent::Tally { n_done, n_reused, n_failed, n_left, left } => {
                self.sweep.set_position((n_done + n_failed) as u64);
                let words = tally(*n_done, *n_reused, *n_failed, *n_left, *left);
                self.remark(*n_left > 0, |remarks| remarks.tally = words);
            }
            RunEvent::TrialDone { .. } => {}
        }
    }

    /// Says something that is no event of the run, above the bars.
    pub fn tell(&self, line: &str) {
        self.say(line);
    }

    /// Takes the bars away.
    pub fn finish(&self) {
        std::mem::take(&mut *self.held()).values().for_each(|stage| stage.bar.finish_and_clear());
        self.sweep.finish_and_clear();
    }

    /// Changes what stands behind the bar of the sweep; where there is none, says it from time to time, if it is news.
    fn remark(&self, is_news: bool, change: impl FnOnce(&mut Remarks)) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut remarks);
        let parts = [&remarks.tally, &remarks.disk].map(String::as_str);
        let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        let is_due = remarks.said.is_none_or(|said| said.elapsed() >= INTERVAL);
        if self.bars.is_hidden() && !self.quiet && is_due && is_news {
            // The first one comes with the first trial, when there is little to say yet.
            let is_first = remarks.said.replace(Instant::now()).is_none();
            if !is_first {
                self.say(&format!("{:>9}  {text}", "progress"));
            }
        }
        self.sweep.set_message(text);
    }

    fn begin_stage(&self, trial: &str, place: &str, message: &str, template: &'static str) {
        self.end_stage(trial);
        let bar = self.bars.insert_before(&self.sweep, ProgressBar::new(0).with_style(style(WAITING)));
        bar.set_prefix(place.to_owned());
        bar.set_message(message.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.held().insert(trial.to_owned(), Bar { bar, template, is_measured: false });
    }

    fn move_stage(&self, trial: &str, done: u64, total: u64, doing: &str) {
        if let Some(Bar { bar, template, is_measured }) = self.held().get_mut(trial) {
            // A bar without a length, or a time left of it, would be made up.
            if *is_measured != (total > 0) {
                *is_measured = total > 0;
                bar.set_style(style(if *is_measured { template } else { WAITING }));
                // Each step of a stage has a speed of its own.
                bar.reset_eta();
            }
            bar.set_length(total);
            bar.set_position(done);
            if !doing.is_empty() {
                bar.set_message(doing.to_owned());
            }
        }
    }

    fn end_stage(&self, trial: &str) {
        let ended = self.held().remove(trial);
        if let Some(stage) = ended {
            stage.bar.finish_and_clear();
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Bar>> {
        // A panic while drawing leaves a usable bar behind.
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Looks of a bar: with bytes and their speed, with requests, with neither. Messages are cut where the line would be too
/// long: one that wraps is drawn all over the screen.
const MERGING: &str =
    "{spinner} {prefix:7} {wide_msg} {bar:12} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta:>4}";
const EVALUATING: &str = "{spinner} {prefix:7} {wide_msg} {bar:12} {pos}/{len} {eta:>4}";
const WAITING: &str = "{spinner} {prefix:7} {wide_msg} {elapsed:>4}";
const SWEEP: &str = "{pos}/{len} trials {wide_bar} {elapsed_precise}\n{wide_msg}";

/// `3 done, 1 failed, 2 reused, 4 left, about 12 min`.
fn tally(n_done: usize, n_reused: usize, n_failed: usize, n_left: usize, left: Option<Duration>) -> String {
    let reused = if n_reused > 0 { format!(" ({n_reused} of them reused)") } else { String::new() };
    let counts = [(n_done, "done", reused.as_str()), (n_failed, "failed", ""), (n_left, "left", "")];
    let counts = counts.iter().filter(|(count, ..)| *count > 0);
    let mut parts: Vec<String> = counts.map(|(count, what, more)| format!("{count} {what}{more}")).collect();
    if let Some(left) = left.filter(|_| n_left > 0) {
        let seconds = left.as_secs();
        parts.push(match seconds {
            0..90 => format!("about {seconds} s"),
            90..5400 => format!("about {} min", seconds.div_ceil(60)),
            _ => format!("about {:.1} h", left.as_secs_f64() / 3600.0),
        });
    }
    parts.join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_words() {
        assert_eq!(
            tally(3, 2, 1, 4, Some(Duration::from_secs(700))),
            "3 done (2 of them reused), 1 failed, 4 left, about 12 min"
        );
        assert_eq!(tally(0, 0, 0, 4, None), "4 left");
        assert_eq!(tally(2, 0, 0, 1, Some(Duration::from_secs(9000))), "2 done, 1 left, about 2.5 h");
        assert_eq!(tally(9, 0, 0, 0, Some(Duration::ZERO)), "9 done");
    }
}
