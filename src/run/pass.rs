//! One pass of merges in a process of its own: a file cut short beneath a mapping (SIGBUS), the kernel's out-of-memory
//! killer or a panic then ends that process, and for the sweep it is a failed trial with its reason.
//!
//! The runner writes a [`Request`] to a file and starts this very program on it (`mergesweep merge-pass FILE`, a command
//! that `--help` does not list). That reports its progress on standard error and puts an [`Answer`] on standard output.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::merge_options;
use crate::config::parse::{self, Mergekit};
use crate::config::{MergeConfig, Numerics, write};
use crate::document;
use crate::files::write_atomically;
use crate::merge::{self, Merge, MergeOptions};
use crate::model::{Located, ModelRef};
use crate::process::{self, Cancel, Exit, Invocation, Logs, ProcessError};

/// The hidden command.
pub const COMMAND: &str = "merge-pass";

/// What a line of progress begins with.
const PROGRESS: &str = "progress ";

/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_millis(100);

/// What is to be merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Folders of every model, by reference.
    pub models: BTreeMap<String, Located>,
    /// The merges.
    pub merges: Vec<Job>,
    /// Threads; one for every core otherwise.
    pub threads: Option<usize>,
    /// Bytes of memory that it may take, beside the files it reads.
    #[serde(default)]
    pub memory: Option<u64>,
}

/// One merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The config, with models as the spec has them: their names decide random masks.
    config: String,
    /// The config as it is written beside the model, for other programs.
    written: String,
    /// The folder.
    out: PathBuf,
    /// The file that a sample of the merge goes to.
    sample: PathBuf,
    seed: u64,
    numerics: Numerics,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The records, in the order asked for.
    Merged(Vec<Merge>),
    /// Why nothing was made.
    Failed(String),
}

/// Why a pass made nothing.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
    /// It took longer than it may.
    #[error("the merge was stopped after the time limit of {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// It asked for more memory than it may take, or than there is.
    #[error(
        "the merge ran out of memory{} (fewer `resources.merge_threads` and `limits.merges_per_pass` need less)",
        .0.map(|limit| format!(": `resources.merge_memory` is {} MB", limit / 1_000_000)).unwrap_or_default()
    )]
    Memory(Option<u64>),
    /// The engine's own words.
    #[error("{0}")]
    Merge(String),
    /// Its process was ended from outside.
    #[error("the merge was {exit}: {}", cause(*.exit))]
    Killed {
        /// How it ended.
        exit: Exit,
    },
    /// Its process ended without an answer.
    #[error("the merge ended with {exit} and no answer: {line}")]
    NoAnswer {
        /// How it ended.
        exit: Exit,
        /// Its last words.
        line: String,
    },
    /// It could not be started or followed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of the pass.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of the pass that says something else.
    #[error("{}: not a pass of merges: {why}", .path.display())]
    Request {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        why: String,
    },
}

fn cause(exit: Exit) -> &'static str {
    match exit {
        Exit::Signal(7) => "a file it was reading was cut short, or its disk could not be read",
        Exit::Signal(9) => "the machine may be out of memory (see `dmesg`), or someone ended it",
        _ => "this is a bug worth reporting, with its log",
    }
}

impl Job {
    /// A merge of a trial: the config, how it is written for others, the folder and the file of the sample.
    pub fn new(
        config: &MergeConfig,
        written: String,
        [out, sample]: [PathBuf; 2],
        seed: u64,
        numerics: Numerics,
    ) -> Self {
        Self { config: write::yaml(config, &ModelRef::to_string), written, out, sample, seed, numerics }
    }
}

/// Runs a pass in a process of its own, whose files go to `folder`.
///
/// # Errors
/// [`PassError`]; what the process left unfinished is not removed here.
pub async fn run(
    program: &Path,
    request: &Request,
    folder: &Path,
    timeout: Option<Duration>,
    cancel: &Cancel,
    on_progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Vec<Merge>, PassError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| PassError::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    let file = folder.join("request.json");
    let text = serde_json::to_vec_pretty(request).map_err(|source| io_error(&file)(source.into()))?;
    fs::write(&file, text).map_err(io_error(&file))?;
    let invocation = Invocation::new(program, [COMMAND.to_owned(), file.to_string_lossy().into_owned()]);
    let logs = Logs::of(folder);
    let mut on_line = |line: &str| {
        let numbers = line.strip_prefix(PROGRESS).and_then(|numbers| numbers.split_once(' '));
        if let Some((Ok(done), Ok(total))) = numbers.map(|(done, total)| (done.parse(), total.parse())) {
            on_progress(done, total);
        }
    };
    let finished = process::run(&invocation, &logs, timeout, process::GRACE, cancel, &mut on_line).await?;
    let answer = fs::read(&logs.stdout).map_err(io_error(&logs.stdout))?;
    let is_out_of_memory = finished.tail.iter().any(|line| is_about_memory(line));
    match (finished.exit, serde_json::from_slice(&answer)) {
        (Exit::Cancelled, _) => Err(PassError::Cancelled),
        (Exit::TimedOut(limit), _) => Err(PassError::TimedOut(limit)),
        (_, Ok(Answer::Failed(reason))) if is_about_memory(&reason) => Err(PassError::Memory(request.memory)),
        (_, Err(_)) if is_out_of_memory => Err(PassError::Memory(request.memory)),
        (exit @ Exit::Signal(_), _) => Err(PassError::Killed { exit }),
        (_, Ok(Answer::Merged(merges))) if merges.len() == request.merges.len() => Ok(merges),
        (_, Ok(Answer::Failed(reason))) => Err(PassError::Merge(reason)),
        (exit, _) => {
            let said = finished.tail.iter().find(|line| line.contains("panicked")).or(finished.tail.last());
            Err(PassError::NoAnswer { exit, line: said.cloned().unwrap_or_default() })
        }
    }
}

/// Writes the sample of a merge. Nothing rests on it but what is told of near twins, so a disk that refuses is only noted.
fn keep_sample((mut merge, job): (Merge, &Job)) -> Merge {
    let text = serde_json::to_vec(&merge.sample).map_err(io::Error::from);
    if let Err(error) = text.and_then(|text| write_atomically(&job.sample, &text)) {
        merge.notes.push(format!("no sample of the weights was kept, for near twins: {error}"));
    }
    merge
}

/// Rust's words where an allocation fails, and the system's where a thread or a mapping does.
fn is_about_memory(line: &str) -> bool {
    ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"]
        .iter()
        .any(|words| line.contains(words))
}

/// An error with all that led to it: only words cross to the other process.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors repeat their cause in their own words.
        if !text.ends_with(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    text
}

/// The other side: does what the file asks for and writes the answer to `out`, progress to `progress`. `is_wanted` says
/// whether the program that asked is still there.
///
/// # Errors
/// [`PassError`] where the request cannot be read or the answer not be written.
pub fn answer(
    file: &Path,
    out: &mut dyn Write,
    progress: &(dyn Fn(&str) + Sync),
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<(), PassError> {
    let io_error = |source| PassError::Io { path: file.to_owned(), source };
    let request_error = |why: String| PassError::Request { path: file.to_owned(), why };
    let text = fs::read(file).map_err(io_error)?;
    let request: Request = serde_json::from_slice(&text).map_err(|error| request_error(error.to_string()))?;
    if let Some(bytes) = request.memory {
        // Private memory only: the mapped files are the page cache's, which gives way by itself.
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        setrlimit(Resource::Data, limit).map_err(|error| io_error(error.into()))?;
    }
    let mut owned: Vec<(MergeConfig, &Job, MergeOptions)> = Vec::new();
    for job in &request.merges {
        let document = document::parse::text_of(file, job.config.clone());
        let parsed = document.and_then(|document| parse::parse(&document, &Mergekit));
        let parsed = parsed.map_err(|problems| request_error(problems.to_string()))?;
        owned.push((parsed.config, job, merge_options(job.seed, job.numerics)));
    }
    let jobs: Vec<merge::Job<'_>> = owned
        .iter()
        .map(|(config, job, options)| merge::Job { config, config_text: &job.written, out: &job.out, options })
        .collect();
    let locate = |model: &ModelRef| {
        let located = request.models.get(&model.to_string()).cloned();
        located.ok_or_else(|| format!("`{model}` is not among the models of the pass").into())
    };
    let (done, said) = (AtomicU64::new(0), Mutex::new(Instant::now()));
    let on_bytes = |now: u64, total: u64| {
        done.fetch_max(now, Ordering::Relaxed);
        // Threads that find it held need not wait: another one is telling.
        if let Ok(mut said) = said.try_lock()
            && (said.elapsed() >= INTERVAL || now == total)
        {
            *said = Instant::now();
            progress(&format!("{PROGRESS}{} {total}", done.load(Ordering::Relaxed)));
        }
        is_wanted()
    };
    // None means as many as there are cores.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads.unwrap_or(0)).build();
    let merged = pool.map(|pool| pool.install(|| merge::merge(&jobs, &locate, &on_bytes)));
    let answer = match merged {
        Ok(Ok(merges)) => Answer::Merged(merges.into_iter().zip(&request.merges).map(keep_sample).collect()),
        Ok(Err(error)) => Answer::Failed(with_causes(&error)),
        Err(error) => Answer::Failed(with_causes(&error)),
    };
    let text = serde_json::to_vec(&answer).map_err(|error| request_error(error.to_string()))?;
    out.write_all(&text).and_then(|()| out.flush()).map_err(io_error)
}
