//! Columns: which metric and filter of which task is shown, and under which name.
//!
//! One table, [`PRESETS`], maps the study's columns and those of the offline task pack. Tasks outside it get a column
//! for every number they report.

use std::fmt;

use super::{Score, TaskRequest};

/// How a number was made from the documents: two numbers of one benchmark compare only if this agrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Estimator {
    /// Share of documents answered right.
    Accuracy,
    /// gp-IRT estimate of the whole benchmark from 100 of its documents (tinyBenchmarks).
    GpIrt,
    /// Mean probability mass on the true answers.
    ProbabilityMass,
    /// Share of problems whose first program passes the tests.
    PassAt1,
    /// Bits needed per byte of the answer.
    BitsPerByte,
    /// As the task reports it; nothing else is known.
    Reported,
}

/// A row of the mapping table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Name of the column.
    pub column: &'static str,
    /// Harness task.
    pub task: &'static str,
    /// Metric.
    pub metric: &'static str,
    /// Filter.
    pub filter: &'static str,
    /// How the number is made.
    pub estimator: Estimator,
    /// Column with the same documents and another task or estimator: what a reader would compare it with.
    pub counterpart: Option<&'static str>,
}

/// A column of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Harness task.
    pub task: String,
    /// Metric.
    pub metric: String,
    /// Filter.
    pub filter: String,
    /// How the number is made.
    pub estimator: Estimator,
}

const fn row(
    column: &'static str,
    task: &'static str,
    metric: &'static str,
    filter: &'static str,
    estimator: Estimator,
    counterpart: Option<&'static str>,
) -> Preset {
    Preset { column, task, metric, filter, estimator, counterpart }
}

/// The mapping table: the study's eight columns, then those of the offline task pack.
///
/// The tiny tasks call their gp-IRT estimate by the metric it is fed with (`acc_norm`); only the task's name tells.
pub const PRESETS: &[Preset] = {
    use Estimator::{Accuracy, BitsPerByte, GpIrt, PassAt1, ProbabilityMass};
    &[
        row("humaneval", "humaneval", "pass@1", "create_test", PassAt1, Some("humaneval_local")),
        row("tinyArc", "tinyArc", "acc_norm", "none", GpIrt, Some("arc100_acc")),
        row("tinyGSM8k_flexible", "tinyGSM8k", "exact_match", "flexible-extract", GpIrt, Some("gsm8k100_flexible")),
        row("tinyGSM8k_strict", "tinyGSM8k", "exact_match", "strict-match", GpIrt, Some("gsm8k100_strict")),
        row("tinyHellaswag", "tinyHellaswag", "acc_norm", "none", GpIrt, Some("hellaswag100_acc")),
        row("tinyMMLU", "tinyMMLU", "acc_norm", "none", GpIrt, Some("mmlu100_acc")),
        row("tinyTruthfulQA", "tinyTruthfulQA", "acc", "none", GpIrt, Some("truthfulqa100_mc2")),
        row("tinyWinogrande", "tinyWinogrande", "acc_norm", "none", GpIrt, Some("winogrande100_acc")),
        row("humaneval_local", "humaneval_local", "pass@1", "create_test", PassAt1, Some("humaneval")),
        row("arc100_acc", "arc100_acc", "acc_norm", "none", Accuracy, Some("tinyArc")),
        row("gsm8k100_flexible", "gsm8k100", "exact_match", "flexible-extract", Accuracy, Some("tinyGSM8k_flexible")),
        row("gsm8k100_strict", "gsm8k100", "exact_match", "strict-match", Accuracy, Some("tinyGSM8k_strict")),
        row("hellaswag100_acc", "hellaswag100_acc", "acc_norm", "none", Accuracy, Some("tinyHellaswag")),
        row("mmlu100_acc", "mmlu100_acc", "acc_norm", "none", Accuracy, Some("tinyMMLU")),
        row("truthfulqa100_mc2", "truthfulqa100_mc2", "acc", "none", ProbabilityMass, Some("tinyTruthfulQA")),
        row("winogrande100_acc", "winogrande100_acc", "acc_norm", "none", Accuracy, Some("tinyWinogrande")),
        row("math_bpb", "math_bpb", "bits_per_byte", "none", BitsPerByte, None),
        row("code_bpb", "code_bpb", "bits_per_byte", "none", BitsPerByte, None),
    ]
};

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accuracy => "accuracy",
            Self::GpIrt => "gp-IRT estimate",
            Self::ProbabilityMass => "probability mass",
            Self::PassAt1 => "pass@1",
            Self::BitsPerByte => "bits per byte",
            Self::Reported => "as reported",
        })
    }
}

impl Estimator {
    /// Whether a larger number is better, where the estimator settles it.
    pub fn higher_is_better(self) -> Option<bool> {
        match self {
            Self::BitsPerByte => Some(false),
            Self::Reported => None,
            _ => Some(true),
        }
    }
}

impl Column {
    /// Whether this column shows that score.
    pub fn shows(&self, score: &Score) -> bool {
        self.task == score.task && self.metric == score.metric && self.filter == score.filter
    }

    /// Right answers and documents of a score that is a share of right answers: of a metric that is one, where their
    /// number is whole.
    pub fn right_answers(&self, score: &Score) -> Option<(u64, u64)> {
        let may_be = match self.estimator {
            Estimator::Accuracy | Estimator::PassAt1 => true,
            Estimator::Reported => is_share(&self.metric) && !is_tiny(&self.task),
            Estimator::GpIrt | Estimator::ProbabilityMass | Estimator::BitsPerByte => false,
        };
        let (value, n) = (score.value?, score.n.filter(|n| may_be && *n > 0)?);
        let right = value * n as f64;
        let is_whole = (right - right.round()).abs() < 1e-6 && (0.0..=1.0).contains(&value);
        is_whole.then_some((right.round() as u64, n))
    }

    /// The row of the mapping table that shows the same documents by another task or estimator, so that a comparison
    /// can say why there is none.
    pub fn counterpart(&self) -> Option<&'static Preset> {
        let preset = preset_of(&self.task, &self.metric, &self.filter)?;
        preset_named(preset.counterpart?)
    }
}

impl From<&Preset> for Column {
    fn from(preset: &Preset) -> Self {
        Self {
            name: preset.column.to_owned(),
            task: preset.task.to_owned(),
            metric: preset.metric.to_owned(),
            filter: preset.filter.to_owned(),
            estimator: preset.estimator,
        }
    }
}

/// The row of a column name.
pub fn preset_named(column: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.column == column)
}

/// The row of a metric and filter of a task.
pub fn preset_of(task: &str, metric: &str, filter: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.task == task && preset.metric == metric && preset.filter == filter)
}

/// Whether the task is one of tinyBenchmarks, whose estimate needs all of its 100 documents.
pub fn is_tiny(task: &str) -> bool {
    matches!(
        task,
        "tinyArc"
            | "tinyGSM8k"
            | "tinyHellaswag"
            | "tinyMMLU"
            | "tinyTruthfulQA"
            | "tinyTruthfulQA_mc1"
            | "tinyWinogrande"
            | "tinyBenchmarks"
    )
}

/// Documents of a column of the mapping table that is a share of right answers.
pub fn documents(column: &Column) -> Option<u64> {
    let preset = preset_of(&column.task, &column.metric, &column.filter)?;
    match preset.estimator {
        Estimator::PassAt1 => Some(164),
        Estimator::Accuracy => Some(100),
        _ => None,
    }
}

/// How far a gp-IRT estimate is typically from the full benchmark: root of mean² + SD² of the absolute error over the
/// leaderboard models of 2024 (tinyBenchmarks, arXiv 2402.14992). A property of the method, no standard error of a model.
pub fn typical_deviation(task: &str) -> Option<f64> {
    match task {
        "tinyTruthfulQA" => Some(0.014),
        "tinyGSM8k" => Some(0.026),
        "tinyWinogrande" => Some(0.020),
        "tinyArc" => Some(0.021),
        "tinyHellaswag" => Some(0.019),
        "tinyMMLU" => Some(0.022),
        _ => None,
    }
}

/// Whether a metric is a share of right answers whatever the task, as far as its name tells.
pub fn is_share(metric: &str) -> bool {
    ["acc", "exact_match", "pass@"].iter().any(|family| metric.starts_with(family))
}

/// Whether a stock task runs code that the model wrote (harness: `unsafe_code: true`), told by its name.
pub fn is_stock_code_task(task: &str) -> bool {
    ["humaneval", "mbpp", "cruxeval", "longproc"]
        .iter()
        .any(|family| task.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// The columns of a table, in the order of the tasks: those asked for, else those of the mapping table, else one for
/// every number that any trial reports. A requested task may be a group: its own numbers come first, then those of its
/// tasks.
pub fn columns(tasks: &[TaskRequest], scores: &[Score]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    let mut asked: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    for task in tasks {
        for column in columns_of(task, scores) {
            add(&mut columns, column);
        }
    }
    // What is left are tasks that came with a group.
    for score in scores {
        if asked.contains(&score.task.as_str()) {
            continue;
        }
        asked.push(&score.task);
        let task = TaskRequest::named(&score.task);
        for column in columns_of(&task, scores) {
            add(&mut columns, column);
        }
    }
    columns
}

/// Adds a column under a name of its own.
fn add(columns: &mut Vec<Column>, mut column: Column) {
    if columns.contains(&column) {
        return;
    }
    while columns.iter().any(|known| known.name == column.name) {
        column.name.push('_');
    }
    columns.push(column);
}

fn columns_of(task: &TaskRequest, scores: &[Score]) -> Vec<Column> {
    if !task.columns.is_empty() {
        let asked = task.columns.iter().map(|column| Column {
            name: column.name.clone(),
            task: task.name.clone(),
            metric: column.metric.clone(),
            filter: column.filter.clone(),
            estimator: preset_of(&task.name, &column.metric, &column.filter)
                .map_or(Estimator::Reported, |preset| preset.estimator),
        });
        return asked.collect();
    }
    let presets: Vec<Column> = PRESETS.iter().filter(|preset| preset.task == task.name).map(Column::from).collect();
    if presets.is_empty() { reported(&task.name, scores) } else { presets }
}

/// A column for every number a task reports, with as short a name as is unique within the task.
fn reported(task: &str, scores: &[Score]) -> Vec<Column> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for score in scores.iter().filter(|score| score.task == task) {
        if !kinds.contains(&(&score.metric, &score.filter)) {
            kinds.push((&score.metric, &score.filter));
        }
    }
    let name = |metric: &str, filter: &str| {
        let n_of_metric = kinds.iter().filter(|(other, _)| *other == metric).count();
        match (kinds.len(), n_of_metric) {
            (1, _) => task.to_owned(),
            (_, 1) => format!("{task}_{metric}"),
            _ => format!("{task}_{metric}_{filter}"),
        }
    };
    let column = |&(metric, filter): &(&str, &str)| Column {
        name: name(metric, filter),
        task: task.to_owned(),
        metric: metric.to_owned(),
        filter: filter.to_owned(),
        estimator: Estimator::Reported,
    };
    kinds.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::ColumnRequest;

    fn task(name: &str) -> TaskRequest {
        TaskRequest::named(name)
    }

    fn score(task: &str, metric: &str, filter: &str) -> Score {
        Score {
            task: task.to_owned(),
            metric: metric.to_owned(),
            filter: filter.to_owned(),
            n: None,
            n_total: None,
            value: Some(0.5),
            stderr: None,
            higher_is_better: None,
            task_version: None,
            num_fewshot: None,
            task_hash: None,
        }
    }

    fn names(columns: &[Column]) -> Vec<&str> {
        columns.iter().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn the_tasks_of_the_study_make_its_eight_columns() {
        let tasks =
            ["humaneval", "tinyArc", "tinyGSM8k", "tinyHellaswag", "tinyMMLU", "tinyTruthfulQA", "tinyWinogrande"];
        let columns = columns(&tasks.map(task), &[]);
        assert_eq!(
            names(&columns),
            [
                "humaneval",
                "tinyArc",
                "tinyGSM8k_flexible",
                "tinyGSM8k_strict",
                "tinyHellaswag",
                "tinyMMLU",
                "tinyTruthfulQA",
                "tinyWinogrande"
            ]
        );
    }

    #[test]
    fn rows_of_the_table_are_unique_and_counterparts_point_at_each_other() {
        for preset in PRESETS {
            assert_eq!(preset_named(preset.column), Some(preset));
            assert_eq!(preset_of(preset.task, preset.metric, preset.filter), Some(preset));
            if let Some(counterpart) = preset.counterpart {
                assert_eq!(preset_named(counterpart).and_then(|row| row.counterpart), Some(preset.column));
            }
        }
    }

    #[test]
    fn a_task_outside_the_table_gets_a_column_for_every_number() {
        let scores = [
            score("facts", "acc", "none"),
            score("sums", "exact_match", "strict"),
            score("facts", "acc_norm", "none"),
            score("sums", "exact_match", "loose"),
            score("one", "acc", "none"),
            score("facts", "acc", "none"),
        ];
        let columns = columns(&["sums", "facts", "one"].map(task), &scores);
        assert_eq!(
            names(&columns),
            ["sums_exact_match_strict", "sums_exact_match_loose", "facts_acc", "facts_acc_norm", "one"]
        );
    }

    #[test]
    fn a_group_brings_the_columns_of_its_tasks() {
        let scores = [score("tinyArc", "acc_norm", "none"), score("tinyMMLU", "acc_norm", "none")];
        assert_eq!(names(&columns(&[task("tinyBenchmarks")], &scores)), ["tinyArc", "tinyMMLU"]);
    }

    #[test]
    fn columns_asked_for_win_and_know_their_estimator() {
        let column = |name: &str, metric: &str| ColumnRequest {
            name: name.to_owned(),
            metric: metric.to_owned(),
            filter: "none".to_owned(),
        };
        let request = TaskRequest { columns: vec![column("arc", "acc_norm"), column("x", "acc")], ..task("tinyArc") };
        let columns = columns(&[request], &[]);
        assert_eq!(names(&columns), ["arc", "x"]);
        assert_eq!(
            columns.iter().map(|column| column.estimator).collect::<Vec<_>>(),
            [Estimator::GpIrt, Estimator::Reported]
        );
        assert_eq!(columns[0].counterpart().map(|preset| preset.column), Some("arc100_acc"));
    }

    #[test]
    fn code_tasks_are_known_by_name() {
        for task in ["humaneval", "humaneval_plus", "humaneval_instruct", "mbpp", "mbpp_plus", "cruxeval_i"] {
            assert!(is_stock_code_task(task), "{task}");
        }
        assert!(!is_stock_code_task("humanevalish") && !is_stock_code_task("gsm8k"));
    }
}
