//! The table as polars frames, long and wide, and their files.
//!
//! CSV goes through the csv crate with full precision and empty cells for nulls: naive printing of frame cells shortens
//! floats and writes the word "null".

use std::path::{Path, PathBuf};

use polars::prelude::{AnyValue, Column as Series, DataFrame, PolarsError};
use polars_io::parquet::write::ParquetWriter;

use super::{ResultsTable, Row};
use crate::config::Scalar;
use crate::eval::Score;
use crate::eval::results::HarnessFacts;
use crate::eval::task::{self, Estimator};
use crate::files::write_atomically;
use crate::paired::{Against, Cell, Compared};
use crate::stats::interval::wilson;

/// A table that cannot be laid out or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// polars refused.
    #[error("laying out the table: {0}")]
    Polars(#[from] PolarsError),
    /// The file cannot be written.
    #[error("{}: {source}", .path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: csv::Error,
    },
    /// The file cannot be made.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// One row of the long form.
type Line<'a> = (&'a Row, &'a Score, &'a HarnessFacts);

/// A cell of such a row.
type Of<'a, T> = &'a dyn Fn(&Line<'_>) -> Option<T>;

/// One row per score: trial, kind, method, seed, axis values, task, metric, filter, n, value, stderr, interval, versions;
/// with a reference also the paired comparison with it.
///
/// # Errors
/// [`FrameError::Polars`] when polars refuses the columns (two axes of one name cannot happen: the spec is checked).
pub fn long(table: &ResultsTable, against: Option<&Against>) -> Result<DataFrame, FrameError> {
    let lines: Vec<Line<'_>> =
        table.rows.iter().flat_map(|row| row.scores.iter().map(move |(score, facts)| (row, score, facts))).collect();
    let text = |name: &str, of: Of<'_, String>| {
        Series::new(name.into(), lines.iter().map(of).collect::<Vec<Option<String>>>())
    };
    let number =
        |name: &str, of: Of<'_, f64>| Series::new(name.into(), lines.iter().map(of).collect::<Vec<Option<f64>>>());
    let count =
        |name: &str, of: Of<'_, u64>| Series::new(name.into(), lines.iter().map(of).collect::<Vec<Option<u64>>>());
    let mut columns = vec![
        text("trial", &|(row, ..)| Some(row.trial.clone())),
        text("trial_id", &|(row, ..)| Some(row.id.to_string())),
        text("kind", &|(row, ..)| Some(row.kind.to_owned())),
        text("method", &|(row, ..)| row.method.map(str::to_owned)),
    ];
    let axes = axes(table);
    if !axes.contains(&"seed") {
        columns.push(count("seed", &|(row, ..)| row.seed));
    }
    columns.extend(axes.iter().map(|axis| axis_column(axis, lines.iter().map(|(row, ..)| row.axis(axis)))));
    columns.extend([
        text("task", &|(_, score, _)| Some(score.task.clone())),
        text("metric", &|(_, score, _)| Some(score.metric.clone())),
        text("filter", &|(_, score, _)| Some(score.filter.clone())),
        count("n", &|(_, score, _)| score.n),
        count("n_total", &|(_, score, _)| score.n_total),
        number("value", &|(_, score, _)| score.value),
        number("stderr", &|(_, score, _)| score.stderr),
        Series::new(
            "higher_is_better".into(),
            lines.iter().map(|(_, score, _)| score.higher_is_better).collect::<Vec<Option<bool>>>(),
        ),
        count("num_fewshot", &|(_, score, _)| score.num_fewshot),
        text("task_version", &|(_, score, _)| score.task_version.clone()),
        text("task_hash", &|(_, score, _)| score.task_hash.clone()),
        text("lm_eval_version", &|(.., facts)| facts.lm_eval_version.clone()),
        text("transformers_version", &|(.., facts)| facts.transformers_version.clone()),
        text("torch_version", &|(.., facts)| facts.torch_version.clone()),
    ]);
    let column_of = |score: &Score| table.columns.iter().find(|column| column.shows(score));
    let interval = |score: &Score| {
        let (right, n) = column_of(score)?.right_answers(score)?;
        wilson(right, n, 0.95)
    };
    columns.extend([
        number("wilson_low", &|(_, score, _)| interval(score).map(|interval| interval.low)),
        number("wilson_high", &|(_, score, _)| interval(score).map(|interval| interval.high)),
        text("estimator", &|(_, score, _)| column_of(score).map(|column| column.estimator.to_string())),
        number("typical_deviation", &|(_, score, _)| {
            let column = column_of(score)?;
            task::typical_deviation(&column.task).filter(|_| column.estimator == Estimator::GpIrt)
        }),
    ]);
    columns.extend(near_twins(table, &lines.iter().map(|(row, ..)| *row).collect::<Vec<_>>()));
    if let Some(race) = &table.race {
        let entry = |line: &Line<'_>| race.entry(&line.0.trial).filter(|_| race.decides(&line.1.task));
        columns.extend([
            count("race_rung", &|line| entry(line).map(|entry| entry.rung as u64)),
            Series::new(
                "race_survives".into(),
                lines.iter().map(|line| entry(line).map(|entry| entry.survives)).collect::<Vec<Option<bool>>>(),
            ),
        ]);
    }
    if let Some(against) = against {
        let compared = |line: &Line<'_>| compared(table, against, line);
        columns.extend([
            text("reference", &|_| Some(against.reference.clone())),
            text("twin_of", &|(row, ..)| {
                against.standings.iter().find(|standing| standing.trial == row.trial)?.twin_of.clone()
            }),
            number("difference", &|line| compared(line).map(|found| found.comparison.difference)),
            number("difference_low", &|line| Some(compared(line)?.comparison.interval?.low)),
            number("difference_high", &|line| Some(compared(line)?.comparison.interval?.high)),
            count("only_trial_right", &|line| Some(compared(line)?.comparison.discordant?.b)),
            count("only_reference_right", &|line| Some(compared(line)?.comparison.discordant?.c)),
            count("n_changed", &|line| compared(line).map(|found| found.comparison.n_changed)),
            number("p", &|line| compared(line).map(|found| found.comparison.p)),
            number("p_holm", &|line| compared(line).map(|found| found.p_adjusted)),
            number("q_bh", &|line| compared(line).map(|found| found.q)),
            number("estimate_difference", &|line| Some(compared(line)?.estimate?.difference)),
            number("p_estimate", &|line| Some(compared(line)?.estimate?.p)),
        ]);
    }
    Ok(DataFrame::new(lines.len(), columns)?)
}

/// The near twins of the trial of every row, and how far they are apart as a share of what their models differ by; no columns
/// where there are none.
fn near_twins(table: &ResultsTable, rows: &[&Row]) -> Vec<Series> {
    if table.near.is_empty() {
        return Vec::new();
    }
    let near = || rows.iter().map(|row| table.near_twins(&row.trial));
    let names = near().map(|near| near.map(|(names, _)| names.join("; ")));
    vec![
        Series::new("near_twins".into(), names.collect::<Vec<Option<String>>>()),
        Series::new("near_share".into(), near().map(|near| near.map(|(_, share)| share)).collect::<Vec<Option<f64>>>()),
    ]
}

/// The comparison of a row's score with the reference.
fn compared<'a>(table: &ResultsTable, against: &'a Against, (row, score, _): &Line<'_>) -> Option<&'a Compared> {
    let column = table.columns.iter().position(|column| column.shows(score))?;
    let standing = against.standings.iter().find(|standing| standing.trial == row.trial)?;
    match standing.cells.get(column)? {
        Cell::Compared(compared) => Some(compared),
        _ => None,
    }
}

/// Names of the axes that have a column of their own: the method has one already.
fn axes(table: &ResultsTable) -> Vec<&str> {
    table.axes().into_iter().filter(|axis| *axis != "method").collect()
}

/// One row per trial, one column per task metric in the order of the spec.
///
/// # Errors
/// [`FrameError::Polars`] as for [`long`].
pub fn wide(table: &ResultsTable) -> Result<DataFrame, FrameError> {
    let rows = &table.rows;
    let near = near_twins(table, &rows.iter().collect::<Vec<_>>());
    let mut columns = vec![
        Series::new("trial".into(), rows.iter().map(|row| row.trial.as_str()).collect::<Vec<_>>()),
        Series::new("kind".into(), rows.iter().map(|row| row.kind).collect::<Vec<_>>()),
        Series::new("method".into(), rows.iter().map(|row| row.method).collect::<Vec<_>>()),
    ];
    columns.extend(axes(table).iter().map(|axis| axis_column(axis, rows.iter().map(|row| row.axis(axis)))));
    columns.extend(table.columns.iter().map(|column| {
        let values = rows.iter().map(|row| row.score(column).and_then(|score| score.value));
        Series::new(column.name.as_str().into(), values.collect::<Vec<Option<f64>>>())
    }));
    columns.extend(near);
    Ok(DataFrame::new(rows.len(), columns)?)
}

/// An axis is a column of numbers where all its values are, of texts otherwise.
fn axis_column<'a>(name: &str, values: impl Iterator<Item = Option<&'a Scalar>>) -> Series {
    let values: Vec<Option<&Scalar>> = values.collect();
    let whole = |value: &Scalar| match value {
        Scalar::Int(value) => Some(*value),
        _ => None,
    };
    let number = |value: &Scalar| match value {
        Scalar::Int(_) | Scalar::Float(_) => value.as_float(),
        _ => None,
    };
    if values.iter().flatten().all(|value| whole(value).is_some()) {
        Series::new(name.into(), values.iter().map(|value| value.and_then(whole)).collect::<Vec<Option<i64>>>())
    } else if values.iter().flatten().all(|value| number(value).is_some()) {
        Series::new(name.into(), values.iter().map(|value| value.and_then(number)).collect::<Vec<Option<f64>>>())
    } else {
        let texts = values.iter().map(|value| value.map(ToString::to_string));
        Series::new(name.into(), texts.collect::<Vec<Option<String>>>())
    }
}

/// Writes a frame as CSV: full precision, empty cells for nulls.
///
/// # Errors
/// [`FrameError::Csv`].
pub fn write_csv(frame: &DataFrame, path: &Path) -> Result<(), FrameError> {
    let text = to_csv(frame).map_err(|source| FrameError::Csv { path: path.to_owned(), source })?;
    write_whole(path, &text)
}

/// The frame as CSV text.
///
/// # Errors
/// The csv crate's, which writing to memory does not meet.
pub fn to_csv(frame: &DataFrame) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(frame.get_column_names().iter().map(|name| name.as_str()))?;
    for row in 0..frame.height() {
        writer.write_record(frame.columns().iter().map(|column| cell(&column.get(row).unwrap_or(AnyValue::Null))))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

/// Writes a frame as Parquet.
///
/// # Errors
/// [`FrameError`].
pub fn write_parquet(frame: &mut DataFrame, path: &Path) -> Result<(), FrameError> {
    write_whole(path, &to_parquet(frame)?)
}

/// The frame as the bytes of a Parquet file.
///
/// # Errors
/// [`FrameError::Polars`].
pub fn to_parquet(frame: &mut DataFrame) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(frame)?;
    Ok(bytes)
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FrameError> {
    write_atomically(path, bytes).map_err(|source| FrameError::Io { path: path.to_owned(), source })
}

fn cell(value: &AnyValue<'_>) -> String {
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Boolean(value) => value.to_string(),
        AnyValue::Float64(value) => value.to_string(),
        AnyValue::Int64(value) => value.to_string(),
        AnyValue::UInt64(value) => value.to_string(),
        AnyValue::String(text) => (*text).to_owned(),
        AnyValue::StringOwned(text) => text.to_string(),
        other => other.to_string(),
    }
}

/// The frame as JSON: one object a row.
pub fn to_json(frame: &DataFrame) -> serde_json::Value {
    let object = |row: usize| {
        let cells = frame.columns().iter().map(|column| {
            let value = match column.get(row).unwrap_or(AnyValue::Null) {
                AnyValue::Null => serde_json::Value::Null,
                AnyValue::Boolean(value) => value.into(),
                AnyValue::Float64(value) => value.into(),
                AnyValue::Int64(value) => value.into(),
                AnyValue::UInt64(value) => value.into(),
                other => cell(&other).into(),
            };
            (column.name().to_string(), value)
        });
        serde_json::Value::Object(cells.collect())
    };
    (0..frame.height()).map(object).collect()
}
