//! The swap test of gp-IRT estimates, by the `tinyBenchmarks` package that the harness itself uses.
//!
//! The estimate is no mean of its 100 answers, so tests of means do not apply; exchanging answers between two models and
//! estimating again does. The parameters are a pickle, which runs code when it is read: its digest is recorded at the first
//! use, by an evaluation or by a test, and another file is refused from then on.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::samples::sha256;
use crate::files::write_atomically;
use crate::process::{Cancel, Invocation, ProcessError, capture};
use crate::stats::permutation::Draws;
use crate::stats::random::coin;

/// Draws of a test: each costs two fits.
pub const DRAWS: usize = 999;

/// Answers that the estimate is made of.
const N_ANSWERS: usize = 100;

/// Two estimates and their swap test.
#[derive(Debug, Clone, PartialEq)]
pub struct SwapTest {
    /// Estimate of the first model.
    pub first: f64,
    /// Estimate of the second model.
    pub second: f64,
    /// The difference, and what it is with answers exchanged.
    pub draws: Draws,
    /// SHA-256 of the parameters.
    pub parameters: String,
}

/// Why there is no test.
#[derive(Debug, thiserror::Error)]
pub enum GpIrtError {
    /// No tiny task.
    #[error("`{0}` is no task of tinyBenchmarks")]
    Task(String),
    /// Another number of answers.
    #[error("a gp-IRT estimate needs all {N_ANSWERS} answers, found {0}")]
    Answers(usize),
    /// The parameters or a file of ours.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another parameter file than at the first use.
    #[error(
        "{}: its SHA-256 is {found}, and was {recorded} when it was first used: the file changed (put the old one back, or \
         delete `tinyBenchmarks.pkl.sha256` beside it if the change is meant)",
        .path.display()
    )]
    Changed {
        /// The parameters.
        path: PathBuf,
        /// As recorded.
        recorded: String,
        /// As it is.
        found: String,
    },
    /// The interpreter cannot be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The package did not answer.
    #[error("tinyBenchmarks gave no answer: {0}")]
    NoAnswer(String),
}

/// The name that the package gives to the benchmark of a tiny task.
pub fn benchmark_of(task: &str) -> Option<&'static str> {
    match task {
        "tinyArc" => Some("arc"),
        "tinyGSM8k" => Some("gsm8k"),
        "tinyHellaswag" => Some("hellaswag"),
        "tinyMMLU" => Some("mmlu"),
        "tinyTruthfulQA" => Some("truthfulqa"),
        "tinyWinogrande" => Some("winogrande"),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Answer {
    first: f64,
    second: f64,
    drawn: Vec<f64>,
}

/// Tests two models' answers, each 100 in the order of the documents. `home` holds `tinyBenchmarks.pkl`.
///
/// # Errors
/// [`GpIrtError`].
pub fn swap_test(
    python: &Path,
    home: &Path,
    task: &str,
    answers: (&[f64], &[f64]),
    n_draws: usize,
    seed: u64,
) -> Result<SwapTest, GpIrtError> {
    let benchmark = benchmark_of(task).ok_or_else(|| GpIrtError::Task(task.to_owned()))?;
    for answers in [answers.0, answers.1] {
        if answers.len() != N_ANSWERS {
            return Err(GpIrtError::Answers(answers.len()));
        }
    }
    let parameters = recorded_digest(home)?;
    let swaps: Vec<String> = (0..n_draws as u64)
        .map(|draw| (0..N_ANSWERS).map(|item| if coin(seed, draw, item) { '1' } else { '0' }).collect())
        .collect();
    let request = serde_json::json!({ "benchmark": benchmark, "a": answers.0, "b": answers.1, "swaps": swaps });
    let at_temporary = |source| GpIrtError::Io { path: std::env::temp_dir(), source };
    let mut file = tempfile::NamedTempFile::new().map_err(at_temporary)?;
    file.write_all(request.to_string().as_bytes()).map_err(at_temporary)?;
    let path = file.path().to_string_lossy().into_owned();
    let mut invocation = Invocation::new(python, ["-c", include_str!("gp_irt.py"), &path]);
    invocation.folder = Some(home.to_owned());
    let captured = capture(&invocation, None, &Cancel::never(), &mut |_| {})?;
    let line = captured.stdout.lines().find_map(|line| line.strip_prefix("mergesweep-answer "));
    let no_answer = || {
        let last = captured.stderr.lines().rfind(|line| !line.trim().is_empty());
        GpIrtError::NoAnswer(last.unwrap_or("it wrote nothing").to_owned())
    };
    let answer: Answer = line.and_then(|line| serde_json::from_str(line).ok()).ok_or_else(no_answer)?;
    let draws = Draws { observed: answer.first - answer.second, drawn: answer.drawn };
    Ok(SwapTest { first: answer.first, second: answer.second, draws, parameters })
}

/// The digest of the parameters in `home`, recorded beside them at the first use.
///
/// # Errors
/// [`GpIrtError`] where they cannot be read, or are others than were recorded.
pub(super) fn recorded_digest(home: &Path) -> Result<String, GpIrtError> {
    let path = home.join("tinyBenchmarks.pkl");
    let bytes = fs::read(&path).map_err(|source| GpIrtError::Io { path: path.clone(), source })?;
    let found = sha256(&bytes);
    let record = home.join("tinyBenchmarks.pkl.sha256");
    match fs::read_to_string(&record) {
        Ok(recorded) if recorded.trim() == found => Ok(found),
        Ok(recorded) => Err(GpIrtError::Changed { path, recorded: recorded.trim().to_owned(), found }),
        Err(_) => {
            write_atomically(&record, format!("{found}\n").as_bytes())
                .map_err(|source| GpIrtError::Io { path: record, source })?;
            Ok(found)
        }
    }
}
