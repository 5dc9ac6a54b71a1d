//! The samples files of the harness: what a model answered, document by document, and what it scored.
//!
//! One line per (document, filter). Releases before 0.4.3 wrote one JSON list instead and no hashes; these are made up for
//! here in the harness' own way, so that old answers align with new ones.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// What a metric says of one document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// A number; right is 1.
    Number(f64),
    /// Log-likelihood (nats) and the units it is spread over (bytes, words), which the task sums before dividing.
    LogLikelihood(f64, f64),
}

/// One line of a samples file.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Position in the task's test split.
    pub doc_id: u64,
    /// SHA-256 of the document.
    pub doc_hash: String,
    /// SHA-256 of the prompt.
    pub prompt_hash: String,
    /// Filter.
    pub filter: String,
    /// By metric.
    pub measured: BTreeMap<String, Measured>,
}

/// What a reader wants to see of a line.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Texts {
    /// The prompt, without the answer.
    pub prompt: String,
    /// The model's answer: what it wrote, or which choice it held for the likeliest (which `acc_norm` may not: it counts
    /// per byte).
    pub answer: String,
    /// What would have been right.
    pub target: String,
}

/// A samples file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// Not readable.
    #[error("cannot read `{}`: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line that is no sample.
    #[error("{}:{line}: not a sample of the harness: {source}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The same document twice under one filter.
    #[error("{}: document {doc_id} comes twice with filter `{filter}`", .path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The document.
        doc_id: u64,
        /// The filter.
        filter: String,
    },
}

/// A line as the harness writes it.
#[derive(Deserialize)]
struct Line {
    doc_id: u64,
    #[serde(default)]
    doc: Value,
    #[serde(default)]
    target: Value,
    #[serde(default)]
    arguments: Value,
    #[serde(default)]
    filtered_resps: Value,
    #[serde(default)]
    resps: Value,
    filter: Option<String>,
    metrics: Option<Vec<String>>,
    doc_hash: Option<String>,
    prompt_hash: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Reads a samples file.
///
/// # Errors
/// [`SamplesError`], naming the line.
pub fn read(path: &Path) -> Result<Vec<Sample>, SamplesError> {
    let samples: Vec<Sample> = lines(path)?.into_iter().map(sample).collect();
    let mut seen = HashSet::new();
    match samples.iter().find(|sample| !seen.insert((sample.doc_id, sample.filter.as_str()))) {
        Some(twice) => {
            Err(SamplesError::Duplicate { path: path.to_owned(), doc_id: twice.doc_id, filter: twice.filter.clone() })
        }
        None => Ok(samples),
    }
}

/// Prompt, answer and target of some documents, by their hash.
///
/// # Errors
/// [`SamplesError`], naming the line.
pub fn texts(path: &Path, filter: &str, wanted: &HashSet<String>) -> Result<BTreeMap<String, Texts>, SamplesError> {
    let lines = lines(path)?.into_iter().filter(|line| line.filter.as_deref().unwrap_or("none") == filter);
    let found = lines.map(|line| (doc_hash(&line), line)).filter(|(hash, _)| wanted.contains(hash));
    Ok(found.map(|(hash, line)| (hash, texts_of(&line))).collect())
}

/// The task of a samples file, by its name: `samples_<task>_<time>.jsonl`. None where the name is another.
pub fn task_of(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?;
    let rest = name.strip_prefix("samples_").unwrap_or(name);
    let stamp = |(place, _): &(usize, &str)| {
        let time = &rest[place + 1..];
        time.len() >= 10 && time.as_bytes()[..4].iter().all(u8::is_ascii_digit) && time.as_bytes()[4] == b'-'
    };
    match rest.match_indices('_').find(stamp) {
        Some((place, _)) => Some(&rest[..place]),
        None => Some(rest),
    }
}

/// Which of these tasks a samples file is of. Releases 0.4.0 to 0.4.2 named it after the model's arguments and the task
/// (`pretrained__owner__model_arc_easy.jsonl`), which only those who know the tasks can tell apart.
pub fn task_among<'a>(path: &Path, tasks: &[&'a str]) -> Option<&'a str> {
    let name = task_of(path)?;
    let ends_so = |task: &&str| name.strip_suffix(*task).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
    tasks.iter().copied().filter(ends_so).max_by_key(|task| task.len())
}

fn lines(path: &Path) -> Result<Vec<Line>, SamplesError> {
    let text = fs::read_to_string(path).map_err(|source| SamplesError::Read { path: path.to_owned(), source })?;
    let error = |line, source| SamplesError::Line { path: path.to_owned(), line, source };
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&super::results::without_bare_numbers(&text)).map_err(|source| error(1, source));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let read = |line: &str| serde_json::from_str(line);
            // Python's bare NaN is rare: only a line that does not parse is looked through for it.
            read(line)
                .or_else(|_| read(&super::results::without_bare_numbers(line)))
                .map_err(|source| error(index + 1, source))
        })
        .collect()
}

fn sample(line: Line) -> Sample {
    let is_asked = |name: &String| line.metrics.as_ref().is_none_or(|metrics| metrics.contains(name));
    let measured = line
        .rest
        .iter()
        .filter(|(name, _)| is_asked(name))
        .filter_map(|(name, value)| Some((name.clone(), measured(value)?)))
        .collect();
    Sample {
        doc_id: line.doc_id,
        doc_hash: doc_hash(&line),
        prompt_hash: line.prompt_hash.clone().unwrap_or_else(|| sha256(prompt(&line.arguments).as_bytes())),
        filter: line.filter.unwrap_or_else(|| "none".to_owned()),
        measured,
    }
}

fn measured(value: &Value) -> Option<Measured> {
    match value {
        Value::Bool(right) => Some(Measured::Number(f64::from(u8::from(*right)))),
        Value::Number(number) => number.as_f64().map(Measured::Number),
        Value::Array(pair) => match pair.as_slice() {
            [nats, units] => Some(Measured::LogLikelihood(nats.as_f64()?, units.as_f64()?)),
            _ => None,
        },
        _ => None,
    }
}

/// The harness hashes the document as Python writes it with an indent of 2, which is serde_json's pretty form.
fn doc_hash(line: &Line) -> String {
    let made = || sha256(serde_json::to_string_pretty(&line.doc).unwrap_or_default().as_bytes());
    line.doc_hash.clone().unwrap_or_else(made)
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first argument of the first request: `{"gen_args_0": {"arg_0": …}}`, or `[[…]]` in older files.
fn prompt(arguments: &Value) -> String {
    let first = match arguments {
        Value::Object(requests) => requests.get("gen_args_0").and_then(|request| request.get("arg_0")),
        Value::Array(requests) => requests.first().and_then(|request| request.get(0)),
        _ => None,
    };
    first.map(shown).unwrap_or_default()
}

fn texts_of(line: &Line) -> Texts {
    let answers = if line.filtered_resps.is_null() { &line.resps } else { &line.filtered_resps };
    let answer = match choices(&line.arguments, answers) {
        Some(choice) => choice,
        None => first_text(answers),
    };
    Texts { prompt: prompt(&line.arguments), answer, target: shown(&line.target) }
}

/// Where several continuations were rated, the best of them.
fn choices(arguments: &Value, answers: &Value) -> Option<String> {
    let answers = answers.as_array()?;
    let likelihood = |answer: &Value| {
        let value = answer.get(0)?;
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    };
    let rated: Option<Vec<f64>> = answers.iter().map(likelihood).collect();
    let rated = rated.filter(|rated| rated.len() > 1)?;
    let (best, _) = rated.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    // Contexts may differ instead of continuations (WinoGrande).
    let text = |arg: &str| arguments.get(format!("gen_args_{best}"))?.get(arg).map(shown);
    let continuation = text("arg_1").unwrap_or_default();
    Some(format!("likeliest: choice {best}, {}", continuation.trim()))
}

fn first_text(answer: &Value) -> String {
    match answer {
        Value::Array(answers) => answers.first().map(first_text).unwrap_or_default(),
        other => shown(other),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_in_the_name() {
        for (name, task) in [
            ("samples_facts_mini_2026-11-24T03-04-08.912377.jsonl", "facts_mini"),
            ("samples_humaneval_2024-11-24T03-04-08.912377.jsonl", "humaneval"),
            ("samples_mmlu_2024_2026-11-24T03-04-08.912377.jsonl", "mmlu_2024"),
            ("arc_easy.jsonl", "arc_easy"),
        ] {
            assert_eq!(task_of(Path::new(name)), Some(task));
        }
    }

    #[test]
    fn older_names_end_with_the_task() {
        let tasks = ["arc_easy", "easy", "facts"];
        for (name, task) in [
            ("pretrained__x__old_facts.jsonl", Some("facts")),
            ("pretrained=x,dtype=float16_arc_easy.jsonl", Some("arc_easy")),
            ("samples_facts_2026-11-24T03-04-08.912377.jsonl", Some("facts")),
            ("pretrained__x_artifacts.jsonl", None),
        ] {
            assert_eq!(task_among(Path::new(name), &tasks), task, "{name}");
        }
    }

    #[test]
    fn a_missing_hash_is_the_harness_own() {
        let path = "tests/fixtures/lm-eval-output/hf-fp32-choice/__models__smollm2-135m/\
                    samples_facts_mini_2026-11-24T03-03-52.017300.jsonl";
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines() {
            let mut line: Line = serde_json::from_str(line).unwrap();
            let (doc, prompt) = (line.doc_hash.take().unwrap(), line.prompt_hash.take().unwrap());
            let made = sample(line);
            assert_eq!((made.doc_hash, made.prompt_hash), (doc, prompt));
        }
    }
}
