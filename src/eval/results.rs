//! Did the evaluation succeed, and what did it say: the harness' results file, found, read and checked.
//!
//! Exit code 0 says little: results count only if one file exists, parses, and holds every requested task with every
//! requested number over the documents that were asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::command::KnownTasks;
use super::consistency::{self, Contradiction};
use super::samples::{self, SamplesError};
use super::{Score, TaskRequest};

/// What a results file says beside its scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HarnessFacts {
    /// Release of the harness.
    pub lm_eval_version: Option<String>,
    /// Release of transformers; none where the harness ran without.
    pub transformers_version: Option<String>,
    /// Release of torch; none where the harness ran without.
    pub torch_version: Option<String>,
    /// Back end.
    pub backend: Option<String>,
    /// Dtype the model had in memory, without `torch.`.
    pub model_dtype: Option<String>,
    /// Device the model ran on, as the harness logged it; else the one asked for, if it was there.
    pub device: Option<String>,
    /// Batch size as it was asked for.
    pub batch_size: Option<String>,
    /// Batch sizes found by `auto`.
    pub batch_sizes: Vec<u64>,
    /// Parameters of the model.
    pub n_parameters: Option<u64>,
    /// Digest of the chat template, where one was applied.
    pub chat_template_sha: Option<String>,
    /// Seconds the harness took by its own count.
    pub seconds: Option<f64>,
}

/// An accepted results file.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The file.
    pub path: PathBuf,
    /// Every number in it, tasks in the order of the file.
    pub scores: Vec<Score>,
    /// What else it says.
    pub facts: HarnessFacts,
    /// Sample files beside it.
    pub samples: Vec<PathBuf>,
    /// Of these, that of each task that has one.
    pub samples_of: BTreeMap<String, PathBuf>,
    /// The file whole.
    pub document: Value,
}

/// Results that cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The folder or file cannot be read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No results file.
    #[error("the harness ended with exit code 0 and left no results file in `{}`", .folder.display())]
    Absent {
        /// The folder.
        folder: PathBuf,
    },
    /// More than one.
    #[error("`{}` holds {n_files} results files, expected one", .folder.display())]
    Several {
        /// The folder.
        folder: PathBuf,
        /// How many.
        n_files: usize,
    },
    /// Not JSON.
    #[error("`{}` is not JSON: {source}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// JSON without a table of results.
    #[error("`{}` has no `results`", .path.display())]
    NoResults {
        /// The file.
        path: PathBuf,
    },
    /// A task is missing.
    #[error("the results hold no task `{task}`, only {}", quoted(.found))]
    MissingTask {
        /// The task.
        task: String,
        /// Those that are there.
        found: Vec<String>,
    },
    /// A task without numbers.
    #[error("task `{task}` reports no number")]
    NoNumbers {
        /// The task.
        task: String,
    },
    /// A requested number is missing.
    #[error("task `{task}` reports no `{metric}` with filter `{filter}`, only {}", quoted(.found))]
    MissingMetric {
        /// The task.
        task: String,
        /// The metric.
        metric: String,
        /// The filter.
        filter: String,
        /// The `metric,filter` pairs that are there.
        found: Vec<String>,
    },
    /// The file contradicts itself or the samples beside it.
    #[error("`{}` contradicts itself: {source}", .path.display())]
    Contradiction {
        /// The results file.
        path: PathBuf,
        /// How.
        source: Box<Contradiction>,
    },
    /// Samples that cannot be read.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// Another number of documents than asked for.
    #[error("task `{task}` answered {found} documents, expected {expected}")]
    Documents {
        /// The task.
        task: String,
        /// Documents answered.
        found: u64,
        /// Documents asked for.
        expected: u64,
    },
}

fn quoted(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// Reads the one results file of a fresh output folder and checks it against what was asked for. `limit` is the number
/// of documents asked of a requested task, none for all.
///
/// # Errors
/// [`ResultsError`] where the results cannot be accepted. A number that is NaN is accepted: its [`Score::value`] is none.
pub fn read(
    folder: &Path,
    tasks: &[TaskRequest],
    limit: &dyn Fn(&TaskRequest) -> Option<u64>,
    known: &KnownTasks,
) -> Result<Results, ResultsError> {
    let results = parse(&find(folder)?)?;
    for task in tasks {
        let members = known.get(&task.name).map(|members| members.iter().map(|member| member.name.as_str()).collect());
        check(&results.document, task, limit(task), members, &results.scores)?;
    }
    Ok(results)
}

/// One results file and the samples files beside it, which must agree with it.
///
/// # Errors
/// [`ResultsError`].
pub fn parse((path, samples): &(PathBuf, Vec<PathBuf>)) -> Result<Results, ResultsError> {
    let path = path.clone();
    let text = fs::read(&path).map_err(|source| ResultsError::Read { path: path.clone(), source })?;
    let text = without_bare_numbers(&String::from_utf8_lossy(&text));
    let document: Value =
        serde_json::from_str(&text).map_err(|source| ResultsError::Syntax { path: path.clone(), source })?;
    let Some(by_task) = document.get("results").and_then(Value::as_object) else {
        return Err(ResultsError::NoResults { path });
    };
    let scores: Vec<Score> =
        by_task.iter().flat_map(|(task, entry)| scores_of(&document, task, entry.as_object())).collect();
    let contradiction = |source| ResultsError::Contradiction { path: path.clone(), source: Box::new(source) };
    scores.iter().try_for_each(|score| consistency::check_alone(&document, score)).map_err(contradiction)?;
    let tasks: Vec<&str> = by_task.keys().map(String::as_str).collect();
    let mut samples_of = BTreeMap::new();
    for file in samples {
        let Some(task) = samples::task_among(file, &tasks) else { continue };
        let read = samples::read(file)?;
        let mut of_task = scores.iter().filter(|score| score.task == task);
        of_task.try_for_each(|score| consistency::check(&document, score, &read)).map_err(contradiction)?;
        samples_of.entry(task.to_owned()).or_insert_with(|| file.clone());
    }
    Ok(Results { facts: facts(&document), path, scores, samples: samples.clone(), samples_of, document })
}

/// The results file and the sample files of a folder, in both layouts of the harness: in the folder itself, or one
/// level down in a folder named after the model.
///
/// # Errors
/// [`ResultsError`] unless there is exactly one results file.
pub fn find(folder: &Path) -> Result<(PathBuf, Vec<PathBuf>), ResultsError> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>, ResultsError> {
        let entries = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        entries.map_err(|source| ResultsError::Read { path: folder.to_owned(), source })
    };
    let mut files = Vec::new();
    if folder.exists() {
        for path in list(folder)? {
            if path.is_dir() { files.extend(list(&path)?) } else { files.push(path) }
        }
    }
    files.sort();
    let is = |path: &Path, extension: &str| path.extension().is_some_and(|found| found == extension);
    let samples = files.iter().filter(|path| is(path, "jsonl")).cloned().collect();
    let mut results: Vec<PathBuf> = files.into_iter().filter(|path| is(path, "json")).collect();
    match results.len() {
        0 => Err(ResultsError::Absent { folder: folder.to_owned() }),
        1 => Ok((results.remove(0), samples)),
        n_files => Err(ResultsError::Several { folder: folder.to_owned(), n_files }),
    }
}

/// Python writes `NaN`, `Infinity` and `-Infinity` bare, which is not JSON: they become `null` outside of texts.
pub(super) fn without_bare_numbers(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let (mut in_text, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let bare = ["NaN", "-Infinity", "Infinity"].into_iter().find(|bare| !in_text && rest.starts_with(bare));
        if let Some(bare) = bare {
            clean.push_str("null");
            rest = &rest[bare.len()..];
            continue;
        }
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            _ => {}
        }
        clean.push(character);
        rest = &rest[character.len_utf8()..];
    }
    clean
}

/// What stands beside the metrics of a task.
const NO_METRICS: [&str; 4] = ["name", "alias", "sample_len", "sample_count"];

/// The numbers of one task: keys of the form `metric,filter`, cut at the last comma.
fn scores_of(document: &Value, task: &str, entry: Option<&Map<String, Value>>) -> Vec<Score> {
    let Some(entry) = entry else { return Vec::new() };
    let of_task = |key: &str| document.get(key).and_then(|by_task| by_task.get(task));
    let counts = of_task("n-samples");
    let count = |key: &str| counts.and_then(|counts| counts.get(key)).and_then(Value::as_u64);
    let mut scores = Vec::new();
    // Releases before 0.4 knew no filters: `acc`, `acc_stderr`.
    let has_filters = entry.keys().any(|key| key.contains(','));
    let key_of = |metric: &str, filter: &str| {
        if has_filters { format!("{metric},{filter}") } else { metric.to_owned() }
    };
    for (key, value) in entry {
        let (metric, filter) = match key.rsplit_once(',') {
            Some(parts) => parts,
            None if !has_filters && !NO_METRICS.contains(&key.as_str()) => (key.as_str(), "none"),
            None => continue,
        };
        let is_stderr = metric.strip_suffix("_stderr").is_some_and(|of| entry.contains_key(&key_of(of, filter)));
        if is_stderr || !(value.is_number() || value.is_null()) {
            continue;
        }
        // A group has no `n-samples`; it counts documents per number.
        let of_group = || entry.get("sample_count").and_then(|counts| counts.get(key)).and_then(Value::as_u64);
        scores.push(Score {
            task: task.to_owned(),
            metric: metric.to_owned(),
            filter: filter.to_owned(),
            n: count("effective").or_else(of_group),
            n_total: count("original"),
            value: value.as_f64(),
            stderr: entry.get(&key_of(&format!("{metric}_stderr"), filter)).and_then(Value::as_f64),
            higher_is_better: of_task("higher_is_better")
                .and_then(|by_metric| by_metric.get(metric))
                .and_then(Value::as_bool),
            task_version: of_task("versions").and_then(text_of),
            num_fewshot: of_task("n-shot").and_then(Value::as_u64),
            task_hash: of_task("task_hashes").and_then(text_of),
        });
    }
    scores
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    }
}

/// Checks that a requested task is there in full. A group or a tag stands for its tasks: the file lists those of a group,
/// those of a tag are known from before.
fn check(
    document: &Value,
    task: &TaskRequest,
    limit: Option<u64>,
    known: Option<Vec<&str>>,
    scores: &[Score],
) -> Result<(), ResultsError> {
    let group = document.get("group_subtasks").and_then(|groups| groups.get(&task.name)).and_then(Value::as_array);
    let group = group.map(|members| members.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    let members = group.or(known).filter(|members| !matches!(members[..], [only] if only == task.name));
    if let Some(members) = members {
        for member in members {
            let member = TaskRequest { name: member.to_owned(), columns: Vec::new(), ..task.clone() };
            check(document, &member, limit, None, scores)?;
        }
    } else {
        let entry = document.get("results").and_then(|by_task| by_task.get(&task.name));
        if entry.is_none() {
            let found = document.get("results").and_then(Value::as_object);
            let found = found.map(|found| found.keys().cloned().collect()).unwrap_or_default();
            return Err(ResultsError::MissingTask { task: task.name.clone(), found });
        }
        if !scores.iter().any(|score| score.task == task.name) {
            return Err(ResultsError::NoNumbers { task: task.name.clone() });
        }
    }
    let of_task: Vec<&Score> = scores.iter().filter(|score| score.task == task.name).collect();
    let presets = super::task::PRESETS.iter().filter(|preset| preset.task == task.name && task.columns.is_empty());
    let asked = task.columns.iter().map(|column| (column.metric.as_str(), column.filter.as_str()));
    for (metric, filter) in asked.chain(presets.map(|preset| (preset.metric, preset.filter))) {
        if !of_task.iter().any(|score| score.metric == metric && score.filter == filter) {
            let found = of_task.iter().map(|score| format!("{},{}", score.metric, score.filter)).collect();
            let (task, metric, filter) = (task.name.clone(), metric.to_owned(), filter.to_owned());
            return Err(ResultsError::MissingMetric { task, metric, filter, found });
        }
    }
    for score in of_task {
        if let (Some(found), Some(n_total)) = (score.n, score.n_total) {
            let expected = limit.map_or(n_total, |limit| limit.min(n_total));
            if found != expected {
                return Err(ResultsError::Documents { task: task.name.clone(), found, expected });
            }
        }
    }
    Ok(())
}

fn facts(document: &Value) -> HarnessFacts {
    let at = |pointer: &str| document.pointer(pointer).and_then(text_of).filter(|text| text != "N/A");
    let environment = at("/pretty_env_info").unwrap_or_default();
    let torch = environment.lines().find_map(|line| line.strip_prefix("PyTorch version: "));
    // The file tells the device that was asked for, which is a GPU by default, also where there is none.
    let has_cuda = environment.lines().any(|line| line.trim() == "Is CUDA available: True");
    HarnessFacts {
        lm_eval_version: at("/lm_eval_version"),
        transformers_version: at("/transformers_version"),
        torch_version: torch.map(|version| version.trim().to_owned()),
        backend: at("/config/model"),
        model_dtype: at("/config/model_dtype").map(|dtype| dtype.trim_start_matches("torch.").to_owned()),
        device: at("/config/device").filter(|device| !device.starts_with("cuda") || has_cuda),
        batch_size: at("/config/batch_size"),
        batch_sizes: document
            .pointer("/config/batch_sizes")
            .and_then(Value::as_array)
            .map(|sizes| sizes.iter().filter_map(Value::as_u64).collect())
            .unwrap_or_default(),
        n_parameters: document.pointer("/config/model_num_parameters").and_then(Value::as_u64),
        chat_template_sha: at("/chat_template_sha"),
        seconds: at("/total_evaluation_time_seconds").and_then(|seconds| seconds.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_numbers_become_null_outside_of_texts_only() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN \" NaN": "NaN", "c\\": NaN}"#;
        let expected = r#"{"a": null, "b": [null, null], "NaN \" NaN": "NaN", "c\\": null}"#;
        assert_eq!(without_bare_numbers(text), expected);
    }
}
