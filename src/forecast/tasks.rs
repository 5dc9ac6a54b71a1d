//! Documents and generated tokens, task by task: from the limit, the task's own file of documents, the mapping table, or
//! earlier results; unknown where none of them tells.

use crate::config::Scalar;
use crate::eval::task::{Column, columns, documents};
use crate::eval::task_files::{self, TaskFile, count_documents};
use crate::eval::{Score, Settings, TaskRequest, command};
use crate::run::foresight::Foresight;
use crate::run::journal::{Record, What};

/// Tokens that the harness lets a model generate where a task does not say (harness: `max_gen_toks` of the `hf` back end).
const USUAL_TOKENS: u64 = 256;

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Documents of one evaluation; of a group, of all its tasks.
    pub n_documents: Option<u64>,
    /// Documents of the whole test split.
    pub n_total: Option<u64>,
    /// Where the number comes from.
    pub source: Source,
    /// Tokens generated for a document at most; 0 where answers are only rated.
    pub max_tokens: Option<u64>,
    /// Models that are to be evaluated on it.
    pub n_models: usize,
}

/// Where a number of documents comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The task's own file.
    File,
    /// Earlier results.
    Results,
    /// The mapping table.
    Table,
    /// The limit; the task may have fewer.
    Limit,
    /// Nothing tells.
    Unknown,
}

impl Source {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Results => "results",
            Self::Table => "table",
            Self::Limit => "limit",
            Self::Unknown => "unknown",
        }
    }
}

/// Every task of the settings.
pub fn tasks(settings: &Settings, foresight: &Foresight, own: &[Record], others: &[Vec<Record>]) -> Vec<Task> {
    let files = settings.include_path.as_deref().map(task_files::read).unwrap_or_default();
    let recorded: Vec<&Score> = others.iter().map(Vec::as_slice).chain([own]).flat_map(scores).collect();
    settings
        .tasks
        .iter()
        .map(|request| task(settings, request, files.get(&request.name), &recorded, foresight))
        .collect()
}

/// Scores in a journal, oldest first.
fn scores(records: &[Record]) -> impl Iterator<Item = &Score> {
    records.iter().flat_map(|record| match &record.what {
        What::Evaluated(evaluation) => evaluation.tasks.iter().flat_map(|task| &task.scores).collect::<Vec<_>>(),
        _ => Vec::new(),
    })
}

fn task(
    settings: &Settings,
    request: &TaskRequest,
    file: Option<&TaskFile>,
    recorded: &[&Score],
    foresight: &Foresight,
) -> Task {
    let name = &request.name;
    let limit = command::limit_of(settings, request);
    let of_file = || file.and_then(|file| count_documents(file.documents.as_ref()?).ok());
    let of_results = || {
        let last = recorded.iter().rev().find(|score| score.task == *name)?;
        last.n_total.or(last.n.filter(|n| limit.is_none_or(|limit| *n < limit)))
    };
    let of_table = || columns(std::slice::from_ref(request), &[]).iter().find_map(known_documents);
    let total = of_file()
        .map(|n| (n, Source::File))
        .or_else(|| of_results().map(|n| (n, Source::Results)))
        .or_else(|| of_table().map(|n| (n, Source::Table)));
    let (n_documents, source) = match (total, limit) {
        (Some((n, source)), limit) => (Some(limit.map_or(n, |limit| limit.min(n))), source),
        (None, Some(limit)) => (Some(limit), Source::Limit),
        (None, None) => (None, Source::Unknown),
    };
    let asks = |tasks: &[TaskRequest]| tasks.iter().any(|task| task.name == *name);
    Task {
        name: name.clone(),
        n_documents,
        n_total: total.map(|(n, _)| n),
        source,
        max_tokens: max_tokens(&settings.of(request), name, file),
        n_models: foresight.trials.iter().filter(|trial| asks(&trial.tasks)).count(),
    }
}

/// Documents of a column whose task has a fixed number of them.
fn known_documents(column: &Column) -> Option<u64> {
    documents(column).or_else(|| crate::eval::task::is_tiny(&column.task).then_some(100))
}

fn max_tokens(settings: &Settings, name: &str, file: Option<&TaskFile>) -> Option<u64> {
    let generates = match file.and_then(|file| file.output_type.as_deref()) {
        Some(kind) => Some(kind == "generate_until"),
        None => stock_generates(name),
    };
    if !generates? {
        return Some(0);
    }
    let asked = ["max_gen_toks", "max_new_tokens"].iter().find_map(|key| match settings.gen_kwargs.get(*key)? {
        Scalar::Int(tokens) => u64::try_from(*tokens).ok(),
        _ => None,
    });
    asked.or_else(|| file.map(|file| file.max_gen_toks.unwrap_or(USUAL_TOKENS))).or_else(|| stock_tokens(name))
}

/// Whether a stock task that is in the mapping table lets the model write.
fn stock_generates(name: &str) -> Option<bool> {
    let preset = crate::eval::task::PRESETS.iter().find(|preset| preset.task == name)?;
    Some(matches!(preset.metric, "pass@1" | "exact_match"))
}

/// What stock tasks of the mapping table say (lm-evaluation-harness 0.4.13: `humaneval.yaml`, `tinyGSM8k.yaml`).
fn stock_tokens(name: &str) -> Option<u64> {
    match name {
        "humaneval" => Some(1024),
        "tinyGSM8k" => Some(USUAL_TOKENS),
        _ => None,
    }
}
