//! The evaluation of a rehearsal: the same tasks, metrics, prompts and back end, on a few documents.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::Scalar;
use crate::eval::task::is_tiny;
use crate::eval::{ChatTemplate, Settings, TaskRequest};

/// The most tokens that a model writes for a document: that it writes is seen from the first on.
const MOST_TOKENS: i64 = 8;

/// Documents at a time: two show whether prompts of different lengths go together.
const BATCH: i64 = 2;

/// The task that stands in where none of the sweep's can be rehearsed on the models.
pub const MADE_UP: &str = "mergesweep_rehearsal";

/// Settings of the harness's `dummy`, which answers at random and needs no model: for tasks whose scores need all of their
/// documents.
pub fn by_dummy(settings: &Settings) -> Settings {
    Settings {
        model: "dummy".to_owned(),
        model_args: Default::default(),
        device: None,
        // It has no tokenizer to take a template from.
        chat_template: ChatTemplate::Off,
        system_instruction: None,
        ..settings.clone()
    }
}

/// Settings for at most `limit` documents of every task, but for tasks that need all of theirs.
pub fn few(settings: &Settings, limit: u64) -> Settings {
    let mut few = settings.clone();
    few.limit = None;
    for task in few.tasks.iter_mut().filter(|task| !is_tiny(&task.name)) {
        task.limit = Some(task.limit.or(settings.limit).map_or(limit, |asked| asked.min(limit)));
    }
    few.batch_size = match settings.batch_size {
        Scalar::Int(size) => Scalar::Int(size.min(BATCH)),
        _ => Scalar::Int(BATCH),
    };
    let tokens = few.gen_kwargs.entry("max_gen_toks".to_owned()).or_insert(Scalar::Int(MOST_TOKENS));
    if let Scalar::Int(tokens) = tokens {
        *tokens = (*tokens).min(MOST_TOKENS);
    }
    few
}

/// The tasks that can be asked of few documents, and those that need all of theirs.
pub fn parted(tasks: &[TaskRequest]) -> (Vec<TaskRequest>, Vec<TaskRequest>) {
    tasks.iter().cloned().partition(|task| !is_tiny(&task.name))
}

/// Writes the definition of [`MADE_UP`] with its documents: two questions with two answers each.
///
/// # Errors
/// Where the folder cannot be written.
pub fn made_up(folder: &Path) -> io::Result<(TaskRequest, PathBuf)> {
    let folder = folder.join("tasks");
    fs::create_dir_all(&folder)?;
    let documents = folder.join("documents.jsonl");
    let lines = ["Is a rehearsal a performance?", "Does it show what is missing?"];
    let lines: Vec<String> = lines.iter().map(|question| json!({ "question": question }).to_string()).collect();
    fs::write(&documents, lines.join("\n") + "\n")?;
    let definition = json!({
        "task": MADE_UP,
        "dataset_path": "json",
        "dataset_kwargs": { "data_files": { "test": documents } },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["yes", "no"],
        "doc_to_target": 0,
        "metadata": { "version": 1.0 },
    });
    // JSON is YAML.
    fs::write(folder.join(format!("{MADE_UP}.yaml")), definition.to_string())?;
    Ok((TaskRequest::named(MADE_UP), folder))
}
