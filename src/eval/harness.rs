//! One call of the harness from its folders to accepted results: files written, process followed, output checked.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::command::{self, Call, KnownTasks, Paths, limit_of};
use super::failure::{Cause, EvalFailure, cause_of};
use super::results::{self, HarnessFacts};
use super::sandbox::{self, Visible};
use super::warm::Warm;
use super::{Score, Settings};
use crate::process::{self, Cancel, Logs};

/// One call to make.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// How models are evaluated: the settings that hold for the tasks of this call.
    pub settings: &'a Settings,
    /// The tasks of this call.
    pub call: &'a Call,
    /// What preflight learned of the tasks.
    pub known: &'a KnownTasks,
    /// Folder of the model, absolute.
    pub model: &'a Path,
    /// Folder of this attempt, absolute; must not exist or be empty. Gets the config file, both logs and the output.
    pub attempt: &'a Path,
    /// The prepared working directory, absolute; made where absent.
    pub home: &'a Path,
    /// The harness' cache of prompts, absolute.
    pub cache: &'a Path,
    /// Answers that an earlier attempt of this very call left behind, and where this one puts its own.
    pub answers: &'a Path,
    /// What code that a model wrote may see.
    pub visible: &'a Visible,
    /// Threads of the numeric libraries, where they are counted.
    pub n_threads: Option<usize>,
}

/// Where in its work the harness is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Imports and the index of tasks.
    Starting,
    /// Loading the model.
    LoadingModel,
    /// Reading documents and building prompts.
    BuildingPrompts,
    /// Rating given answers.
    Loglikelihood,
    /// Writing answers.
    Generating,
    /// Computing metrics and writing files.
    Saving,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting the harness",
            Self::LoadingModel => "loading the model",
            Self::BuildingPrompts => "building prompts",
            Self::Loglikelihood => "rating answers",
            Self::Generating => "writing answers",
            Self::Saving => "saving",
        })
    }
}

/// What a running harness tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HarnessEvent {
    /// A new stage.
    Stage(Stage),
    /// Requests of the stage that are done.
    Progress {
        /// The stage.
        stage: Stage,
        /// Done.
        n_done: u64,
        /// Of so many.
        n_total: u64,
        /// Time left as the harness estimates it.
        left: Option<Duration>,
    },
}

/// An accepted evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Every number.
    pub scores: Vec<Score>,
    /// Versions and settings that the harness reports.
    pub facts: HarnessFacts,
    /// The results file of the harness.
    pub results: PathBuf,
    /// Its sample files.
    pub samples: Vec<PathBuf>,
    /// Standard error of the harness.
    pub log: PathBuf,
    /// Wall time.
    pub duration: Duration,
    /// Things the user should know: numbers that are NaN, a CPU where a GPU was asked for.
    pub notes: Vec<String>,
}

/// Makes one call of the harness and gives back its scores: in the process that stays where one is given, else in a fresh
/// one.
///
/// # Errors
/// [`EvalFailure`] with the cause in plain words. The folder of the attempt keeps config, logs and whatever was written.
pub async fn evaluate(
    request: &Request<'_>,
    warm: Option<&mut Warm>,
    on_event: &mut (dyn FnMut(HarnessEvent) + Send),
    cancel: &Cancel,
) -> Result<Evaluated, EvalFailure> {
    let Request { settings, call, .. } = *request;
    let start = Instant::now();
    let output = request.attempt.join("output");
    // Answers are read as pickles: those that were written under the eyes of a model's code are read there only.
    let is_shut_in = call.is_shut_in(settings);
    let answers = if is_shut_in { request.answers.join("shut-in") } else { request.answers.to_owned() };
    // The harness makes the folder of its answers itself, unless it is shut in: then it must be there to be bound.
    let bound = is_shut_in.then_some(answers.as_path());
    for folder in [request.attempt, &output, request.home, request.cache].into_iter().chain(bound) {
        fs::create_dir_all(folder).map_err(|source| unwritable(folder, source))?;
    }
    let own_cache = is_shut_in.then(|| sandbox::copy_of(request.cache, request.attempt));
    let own_cache = own_cache.transpose().map_err(|source| unwritable(request.attempt, source))?;
    let config = request.attempt.join("lm_eval.yaml");
    let paths = Paths {
        model: request.model,
        config: &config,
        output: &output.join("results.json"),
        home: request.home,
        cache: request.cache,
        own_cache: own_cache.as_ref().map(TempDir::path),
        answers: &answers.join("requests"),
    };
    let text = command::config_text(settings, call, request.known, &paths);
    fs::write(&config, text).map_err(|source| unwritable(&config, source))?;
    let invocation = command::invocation(settings, call, &paths, request.visible, request.n_threads);
    let logs = Logs::of(request.attempt);

    let mut reader = StderrReader::default();
    on_event(HarnessEvent::Stage(Stage::Starting));
    let mut on_line = |line: &str| reader.read(line, on_event);
    let mut warm = warm;
    let finished = match warm.as_deref_mut() {
        Some(warm) => warm.run(&invocation, &config, &logs, settings.timeout, cancel, &mut on_line).await,
        None => process::run(&invocation, &logs, settings.timeout, process::GRACE, cancel, &mut on_line).await,
    };
    drop(own_cache);
    // However it ended: a log may be shown around.
    let secrets = &request.visible.secrets;
    secrets.blot_out(request.attempt).map_err(|source| unwritable(request.attempt, source))?;
    let mut finished = finished.map_err(|error| EvalFailure::before_start(error.into()))?;
    finished.tail.iter_mut().for_each(|line| *line = secrets.hide(line));
    if let Some(cause) = cause_of(finished.exit, &finished.tail) {
        return Err(EvalFailure::after(finished, cause, &logs.stderr));
    }
    let results = match results::read(&output, &call.tasks, &|task| limit_of(settings, task), request.known) {
        Ok(results) => results,
        Err(error) => return Err(EvalFailure::after(finished, error.into(), &logs.stderr)),
    };
    if let Some(warm) = warm {
        warm.praise();
    }
    let mut facts = results.facts;
    let notes = notes(settings, call, &results.scores, reader.device.as_deref());
    facts.device = reader.device.or(facts.device);
    Ok(Evaluated {
        scores: results.scores,
        facts,
        results: results.path,
        samples: results.samples,
        log: logs.stderr,
        duration: start.elapsed(),
        notes,
    })
}

fn unwritable(path: &Path, source: std::io::Error) -> EvalFailure {
    EvalFailure::before_start(Cause::Folder { path: path.to_owned(), source })
}

fn notes(settings: &Settings, call: &Call, scores: &[Score], device: Option<&str>) -> Vec<String> {
    let mut notes: Vec<String> = scores
        .iter()
        .filter(|score| score.value.is_none())
        .map(|score| format!("task `{}`: `{}` (filter `{}`) is not a number", score.task, score.metric, score.filter))
        .collect();
    // The harness passes over the number where a definition says 0.
    for task in &call.tasks {
        let used = scores.iter().find(|score| score.task == task.name).and_then(|score| score.num_fewshot);
        if let (Some(asked), Some(used)) = (settings.num_fewshot, used)
            && asked != used
        {
            notes.push(format!(
                "task `{}` ran with {used} few-shot examples: its definition holds against {asked}",
                task.name
            ));
        }
    }
    let asked = settings.device.as_deref().unwrap_or_default();
    if let Some(device) = device.filter(|device| asked.starts_with("cuda") && !device.starts_with("cuda")) {
        notes.push(format!("device `{asked}` was asked for, and the model ran on `{device}`"));
    }
    notes
}

/// Reads stages, progress and the device from standard error.
#[derive(Default)]
struct StderrReader {
    stage: Option<Stage>,
    device: Option<String>,
}

/// Marks in the log lines of the harness, and the stage that begins with each.
const MARKS: [(&str, Stage); 7] = [
    ("Initializing ", Stage::LoadingModel),
    ("Building contexts for ", Stage::BuildingPrompts),
    ("Running loglikelihood requests", Stage::Loglikelihood),
    ("Running loglikelihood_rolling requests", Stage::Loglikelihood),
    ("Running generate_until requests", Stage::Generating),
    ("Running multiple_choice requests", Stage::Loglikelihood),
    ("Saving results aggregated", Stage::Saving),
];

impl StderrReader {
    fn read(&mut self, line: &str, on_event: &mut (dyn FnMut(HarnessEvent) + Send)) {
        let bar = bar(line);
        // A log line has a source in brackets; anything else that is no bar is a warning of some library.
        if bar.is_none() && line.contains("] ") {
            let message = line.split_once("] ").map_or(line, |(_, message)| message);
            let begun = MARKS.iter().find(|(mark, _)| message.starts_with(mark)).map(|(_, stage)| *stage);
            if let Some(stage) = begun.filter(|stage| self.stage != Some(*stage)) {
                self.stage = Some(stage);
                on_event(HarnessEvent::Stage(stage));
            }
            if let Some(device) = message.strip_prefix("Using device ") {
                self.device = Some(device.trim().trim_matches('\'').to_owned());
            } else if message.starts_with("Device not specified") || message.starts_with("Cuda Available? False") {
                self.device = Some("cpu".to_owned());
            }
        }
        if let (Some(bar), Some(stage)) = (bar, self.stage) {
            let counts = match stage {
                Stage::Loglikelihood | Stage::Generating => {
                    bar.title.starts_with("Running ")
                        || bar.title.starts_with("Requesting API")
                        || bar.title == "Processed prompts"
                }
                Stage::LoadingModel => bar.title.starts_with("Loading "),
                Stage::BuildingPrompts => true,
                Stage::Starting | Stage::Saving => false,
            };
            if counts {
                let (n_done, n_total, left) = (bar.n_done, bar.n_total, bar.left);
                on_event(HarnessEvent::Progress { stage, n_done, n_total, left });
            }
        }
    }
}

/// One drawing of a tqdm bar.
#[derive(Debug, PartialEq)]
struct Bar<'a> {
    title: &'a str,
    n_done: u64,
    n_total: u64,
    left: Option<Duration>,
}

/// `Running loglikelihood requests:  52%|█████▏    | 25/48 [00:10<00:06,  3.58it/s]`
fn bar(line: &str) -> Option<Bar<'_>> {
    let (head, rest) = line.split_once("%|")?;
    let (_, rest) = rest.split_once('|')?;
    let title =
        head.trim_end_matches(|character: char| character.is_ascii_digit() || character == ' ').trim_end_matches(':');
    let (counts, times) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    let (n_done, n_total) = counts.split_once('/')?;
    let left = times.split_once('<').and_then(|(_, left)| clock(left.split([',', ']']).next()?));
    Some(Bar { title, n_done: n_done.parse().ok()?, n_total: n_total.parse().ok()?, left })
}

/// `01:31`, `1:01:31`; `?` is none.
fn clock(text: &str) -> Option<Duration> {
    let seconds =
        text.trim().split(':').try_fold(0_u64, |total, part| total.checked_mul(60)?.checked_add(part.parse().ok()?));
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_bar_is_read() {
        let line = "Running generate_until requests:  75%|███████▌  | 9/12 [04:37<01:31, 30.49s/it]";
        let expected = Bar {
            title: "Running generate_until requests",
            n_done: 9,
            n_total: 12,
            left: Some(Duration::from_secs(91)),
        };
        assert_eq!(bar(line), Some(expected));
        let first = "  0%|          | 0/12 [00:00<?, ?it/s]";
        assert_eq!(bar(first), Some(Bar { title: "", n_done: 0, n_total: 12, left: None }));
        assert_eq!(bar("Generating test split: 12 examples [00:00, 3033.31 examples/s]"), None);
        assert_eq!(bar("100%|x"), None);
    }

    #[test]
    fn the_stream_of_a_real_run_gives_stages_progress_and_the_device() {
        let stream = include_str!("../../tests/fixtures/lm-eval-output/streams/ok-hf.stderr");
        let (mut reader, mut stages, mut last) = (StderrReader::default(), Vec::new(), None);
        for line in stream.split(['\r', '\n']) {
            reader.read(line, &mut |event| match event {
                HarnessEvent::Stage(stage) => stages.push(stage),
                progress => last = Some(progress),
            });
        }
        assert_eq!(
            stages,
            [Stage::LoadingModel, Stage::BuildingPrompts, Stage::Loglikelihood, Stage::Generating, Stage::Saving]
        );
        let end =
            HarnessEvent::Progress { stage: Stage::Generating, n_done: 12, n_total: 12, left: Some(Duration::ZERO) };
        assert_eq!((last, reader.device.as_deref()), (Some(end), Some("cpu")));
    }
}
