//! Why an evaluation failed, told in plain words with what to do about it.
//!
//! The harness is a Python program: whatever goes wrong is exit code 1 and a traceback, whose last line says why. That
//! line is matched here. Three failures come only after all inference, and one leaves exit code 0.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::results::ResultsError;
use crate::process::{Exit, Finished, ProcessError};

/// A failed call of the harness.
#[derive(Debug)]
pub struct EvalFailure {
    /// Why.
    pub cause: Cause,
    /// Standard error of the harness, where it got so far.
    pub log: Option<PathBuf>,
    /// Last lines of it.
    pub tail: Vec<String>,
    /// Wall time.
    pub duration: Duration,
}

/// Why a call of the harness failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
    /// It took longer than it may.
    #[error("the harness was stopped after the time limit of {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// A signal ended it.
    #[error("the harness was {0}")]
    Killed(Exit),
    /// It could not be started or followed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A folder or file of the call cannot be made.
    #[error("cannot write `{}`: {source}", .path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Tasks that the harness does not know.
    #[error("the harness knows no task `{0}`")]
    UnknownTask(String),
    /// A back end that the harness does not know.
    #[error("the harness knows no back end `{0}`")]
    UnknownBackend(String),
    /// A Python package is missing.
    #[error("the Python package `{0}` is not installed beside the harness")]
    MissingPackage(String),
    /// A data set can neither be found nor downloaded.
    #[error("data set `{0}` is neither in the cache nor reachable")]
    DatasetUnreachable(String),
    /// A data file of a task is missing.
    #[error("data file `{0}` of a task does not exist")]
    DataFile(String),
    /// The IRT parameters of tinyBenchmarks can neither be found nor downloaded.
    #[error("`tinyBenchmarks.pkl` is neither in the working directory of the harness nor reachable")]
    TinyParameters,
    /// A tiny task was run on part of its documents.
    #[error("a tinyBenchmarks task was run on part of its documents; its estimate needs all 100")]
    TinyLimited,
    /// A metric can neither be found nor downloaded.
    #[error("metric `{0}` is neither in the cache nor reachable")]
    MetricUnreachable(String),
    /// A code task without the opt-in.
    #[error("task `{0}` runs code that the model wrote, which this sweep does not allow")]
    CodeNotAllowed(String),
    /// The metric's own switch is off.
    #[error("the metric `code_eval` refuses to run code that the model wrote")]
    CodeMetricNotAllowed,
    /// The server behind an HTTP back end does not answer.
    #[error("the model server does not answer: {0}")]
    ServerDown(String),
    /// The server behind an HTTP back end answers with an error.
    #[error("the model server answered with an error: {0}")]
    ServerError(String),
    /// A log-likelihood task without a tokenizer.
    #[error("log-likelihood tasks need a tokenizer, and the back end has none")]
    NoTokenizer,
    /// The model's folder is missing or no model.
    #[error("`{0}` cannot be loaded as a model")]
    ModelFolder(String),
    /// An argument that the back end does not take.
    #[error("the back end takes no argument `{0}`")]
    ModelArgument(String),
    /// A setting that this release of the harness does not know.
    #[error("this release of the harness knows no setting `{0}`")]
    UnknownSetting(String),
    /// More documents asked for than the task has.
    #[error("a limit is larger than the {0} documents of its task")]
    LimitBeyondDocuments(u64),
    /// The disk is full.
    #[error("no space left on the disk")]
    DiskFull,
    /// The memory of the GPU is full.
    #[error("out of GPU memory")]
    OutOfGpuMemory,
    /// The memory of the machine is full.
    #[error("out of memory")]
    OutOfMemory,
    /// It said that all went well and saved nothing.
    #[error("the harness ended with exit code 0 and could not save its results")]
    NotSaved,
    /// The results cannot be accepted.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Anything else.
    #[error("the harness ended with {exit}: {line}")]
    Other {
        /// How it ended.
        exit: Exit,
        /// The line of standard error that says most.
        line: String,
    },
}

impl Cause {
    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::TimedOut(_) => "raise `limits.evaluation_timeout`, or set a `limit` of documents".to_owned(),
            Self::Killed(Exit::Signal(9)) => {
                "SIGKILL without a word is usually the kernel short of memory: lower `batch_size`, or use a smaller dtype"
                    .to_owned()
            }
            Self::UnknownTask(_) => "`python -m lm_eval ls tasks` lists the stock ones; own ones need `include_path`".to_owned(),
            Self::UnknownBackend(_) => "`model` in `evaluate` is `hf`, `vllm`, `dummy` or another back end of the harness".to_owned(),
            Self::MissingPackage(package) => install_hint(package),
            Self::MetricUnreachable(_) => {
                "run once with network, or put the metric's folder into the working directory of the harness".to_owned()
            }
            Self::DatasetUnreachable(_) => {
                "run once with network and without the offline variables, so that the caches fill".to_owned()
            }
            Self::DataFile(_) => "relative `data_files` start at the working directory of the harness: write absolute ones".to_owned(),
            Self::TinyParameters => TINY_PARAMETERS_HINT.to_owned(),
            Self::TinyLimited => "leave `limit` out for tiny tasks".to_owned(),
            Self::CodeNotAllowed(_) | Self::CodeMetricNotAllowed => CODE_HINT.to_owned(),
            Self::ServerDown(_) => "start the server, or correct `base_url` in `model_args`".to_owned(),
            Self::NoTokenizer => "set `tokenizer_backend` in `model_args`".to_owned(),
            Self::ModelFolder(_) => "a model folder holds `config.json`, weights and tokenizer files".to_owned(),
            Self::ModelArgument(_) => "correct `model_args` in `evaluate`".to_owned(),
            Self::UnknownSetting(_) => "this program is made for lm_eval 0.4.13".to_owned(),
            Self::LimitBeyondDocuments(n_documents) => format!("set its `limit` to {n_documents} or leave it out"),
            Self::OutOfGpuMemory => "lower `batch_size` (and `gpu_memory_utilization` with vllm), or use a smaller dtype".to_owned(),
            Self::DiskFull => "make room, or set `HF_HOME` and the results folder to another disk".to_owned(),
            Self::OutOfMemory => "lower `batch_size`, or use a smaller dtype".to_owned(),
            Self::NotSaved => "the disk may be full, or the results folder not writable".to_owned(),
            _ => return None,
        })
    }

    /// Whether it may pass by itself: the next attempt may find the server there.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::ServerDown(_) | Self::ServerError(_) | Self::DatasetUnreachable(_) | Self::MetricUnreachable(_)
        )
    }

    /// Whether a smaller batch may help. A SIGKILL that was not sent from here (which would be a time limit or the user) is the
    /// kernel's, which is short of memory, or that of a batch system, whose limit on memory was met.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfGpuMemory | Self::OutOfMemory | Self::Killed(Exit::Signal(9)))
    }
}

/// What `allow_code_eval` means.
pub(super) const CODE_HINT: &str = "`allow_code_eval = \"sandboxed\"` in `evaluate` runs programs that a model wrote under bubblewrap, without network and \
     with nothing to write to; `true` runs them with your rights: set that only where it is acceptable, for example in a container";

pub(super) const TINY_PARAMETERS_HINT: &str = "download `tinyBenchmarks.pkl` from github.com/felipemaiapolo/tinyBenchmarks into the harness folder of the results";

/// How a package of the harness is installed.
pub(super) fn install_hint(package: &str) -> String {
    match package {
        "tinyBenchmarks" => "pip install git+https://github.com/felipemaiapolo/tinyBenchmarks".to_owned(),
        "torch" | "transformers" | "accelerate" => "pip install \"lm-eval[hf]==0.4.13\"".to_owned(),
        "vllm" => "pip install \"lm-eval[vllm]==0.4.13\"".to_owned(),
        "lm_eval" => "pip install \"lm-eval[hf]==0.4.13\"".to_owned(),
        package => format!("pip install {package}"),
    }
}

impl fmt::Display for EvalFailure {
    /// The cause, then where the log is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)?;
        self.log.iter().try_for_each(|log| write!(f, " (log: `{}`)", log.display()))
    }
}

impl std::error::Error for EvalFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.cause)
    }
}

impl EvalFailure {
    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        self.cause.hint()
    }

    /// A failure before the harness ran.
    pub(super) fn before_start(cause: Cause) -> Self {
        Self { cause, log: None, tail: Vec::new(), duration: Duration::ZERO }
    }

    /// A failure of a harness that ran.
    pub(super) fn after(finished: Finished, cause: Cause, log: &Path) -> Self {
        Self { cause, log: Some(log.to_owned()), tail: finished.tail, duration: finished.duration }
    }
}

/// Why the harness ended other than well; `None` where it ended with code 0 and did not say that it saved nothing.
pub fn cause_of(exit: Exit, tail: &[String]) -> Option<Cause> {
    match exit {
        Exit::Cancelled => return Some(Cause::Cancelled),
        Exit::TimedOut(limit) => return Some(Cause::TimedOut(limit)),
        Exit::Signal(_) => return Some(Cause::Killed(exit)),
        Exit::Code(0) => return any(tail, "Could not save results aggregated").map(|_| Cause::NotSaved),
        Exit::Code(_) => {}
    }
    let line = telling_line(tail);
    // What a server logs of itself (out of memory, for example) is no failure of this machine: it comes first.
    Some(
        of_server(line)
            .or_else(|| in_tail(tail))
            .or_else(|| in_line(line))
            .unwrap_or_else(|| Cause::Other { exit, line: shortened(line) }),
    )
}

fn any<'a>(tail: &'a [String], part: &str) -> Option<&'a String> {
    tail.iter().rev().find(|line| line.contains(part))
}

/// The last line that opens with the name of an exception (its text may run over several lines), else the last one.
fn telling_line(tail: &[String]) -> &str {
    let names_exception = |line: &&String| {
        let name = line.split(':').next().unwrap_or_default();
        !name.is_empty()
            && name.chars().all(|character| character.is_alphanumeric() || matches!(character, '.' | '_'))
            && (name.ends_with("Error") || name.ends_with("Exception") || name.ends_with("Interrupt"))
    };
    tail.iter().rev().find(names_exception).or_else(|| tail.last()).map_or("", String::as_str)
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.trim().to_owned(),
    }
}

/// The part of a line between two marks.
fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &line[line.find(before)? + before.len()..];
    Some(rest.split(after).next().unwrap_or(rest).trim())
}

fn of_server(line: &str) -> Option<Cause> {
    let answered = line.contains("HTTPError:") || line.contains("ClientResponseError");
    answered.then(|| Cause::ServerError(shortened(line)))
}

/// Failures that more lines than one tell.
fn in_tail(tail: &[String]) -> Option<Cause> {
    if any(tail, "OutOfMemoryError").is_some() || any(tail, "CUDA out of memory").is_some() {
        return Some(Cause::OutOfGpuMemory);
    }
    if any(tail, "HF_ALLOW_CODE_EVAL").is_some() {
        return Some(Cause::CodeMetricNotAllowed);
    }
    if any(tail, "can't allocate memory").is_some() {
        return Some(Cause::OutOfMemory);
    }
    if any(tail, "No space left on device").is_some() {
        return Some(Cause::DiskFull);
    }
    if any(tail, "agg_gpirt").is_some() && any(tail, "IndexError").is_some() {
        return Some(Cause::TinyLimited);
    }
    if any(tail, "tinyBenchmarks.pkl").is_some() {
        return Some(Cause::TinyParameters);
    }
    None
}

/// Failures that one line tells.
fn in_line(line: &str) -> Option<Cause> {
    let text = |part: &str| part.trim().trim_matches(['\'', '"', '`', '.']).to_owned();
    let found = |before: &str, after: &str| between(line, before, after).map(text);
    if line.starts_with("MemoryError") {
        return Some(Cause::OutOfMemory);
    }
    if line.contains("requests.exceptions.ConnectionError") || line.contains("ClientConnectorError") {
        return Some(Cause::ServerDown(shortened(line)));
    }
    if line.contains("Tokenizer is required for loglikelihood") {
        return Some(Cause::NoTokenizer);
    }
    if line.contains("EvaluatorConfig.__init__()") {
        return found("unexpected keyword argument '", "'").map(Cause::UnknownSetting);
    }
    found("Tasks not found: ", "\n")
        .map(Cause::UnknownTask)
        .or_else(|| line.contains("No tasks specified").then(|| Cause::UnknownTask(String::new())))
        .or_else(|| found("Attempted to load model '", "'").map(Cause::UnknownBackend))
        .or_else(|| found("No module named ", ";").map(|name| package(&name)))
        .or_else(|| found("ModuleNotFoundError: `", "` is required").map(|name| package(&name)))
        .or_else(|| found("LM type, but package `", "`").map(|name| package(&name)))
        .or_else(|| found("attempted to use '", "' LM type").map(|name| package(&name)))
        .or_else(|| found("Couldn't reach '", "' on the Hub").map(Cause::DatasetUnreachable))
        .or_else(|| found("Couldn't find any data file at ", ". ").map(Cause::DatasetUnreachable))
        .or_else(|| found("Dataset '", "' doesn't exist on the Hub").map(Cause::DatasetUnreachable))
        .or_else(|| found("Unable to find '", "'").map(Cause::DataFile))
        .or_else(|| found("Module '", "' doesn't exist on the Hugging Face Hub").map(Cause::MetricUnreachable))
        .or_else(|| found("Attempted to run task: ", " which is marked as unsafe").map(Cause::CodeNotAllowed))
        .or_else(|| {
            found("Repo id must be in the form 'repo_name' or 'namespace/repo_name': ", ". Use").map(Cause::ModelFolder)
        })
        .or_else(|| {
            found("no file named ", " found in directory")
                .and_then(|_| found("in directory ", ". "))
                .map(Cause::ModelFolder)
        })
        .or_else(|| found("Can't load tokenizer for '", "'").map(Cause::ModelFolder))
        .or_else(|| found("Unrecognized model in ", ". Should have").map(Cause::ModelFolder))
        .or_else(|| found("OSError: ", " does not appear to have a file named").map(Cause::ModelFolder))
        .or_else(|| found("__init__() got an unexpected keyword argument '", "'").map(Cause::ModelArgument))
        .or_else(|| found("In this case, k=", ".").and_then(|n| n.parse().ok()).map(Cause::LimitBeyondDocuments))
}

/// The package of a missing module (`tinyBenchmarks.x` is in `tinyBenchmarks`).
fn package(module: &str) -> Cause {
    Cause::MissingPackage(module.split('.').next().unwrap_or(module).to_owned())
}
