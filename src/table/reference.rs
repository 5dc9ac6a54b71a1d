//! A stored table beside a run: difference by difference, where the numbers mean the same thing.
//!
//! A column is compared only if task, metric and estimator agree and the run used every document. Otherwise both numbers
//! are shown without a difference and the reason is said: a gp-IRT estimate and a plain accuracy over the same items are
//! not the same quantity.

use std::path::{Path, PathBuf};

use super::render::{Cells, value};
use super::{ResultsTable, Row};
use crate::eval::task::{self, Column};

/// A table of expected results.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The file.
    pub path: PathBuf,
    /// Columns of scores, by the names of the mapping table.
    pub columns: Vec<String>,
    /// Row name and its values, in the order of `columns`.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

/// A reference that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Not readable as CSV.
    #[error("{}: {source}", .path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: csv::Error,
    },
    /// A cell that is no number.
    #[error("{}:{line}: column `{column}`: expected a number or an empty cell, found `{found}`", .path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column head.
        column: String,
        /// What stands there.
        found: String,
    },
    /// No column of the file is known.
    #[error("{}:1: no column of scores: expected a first column of row names, then columns such as `{example}`", .path.display())]
    NoColumns {
        /// The file.
        path: PathBuf,
        /// A name that would do.
        example: &'static str,
    },
}

/// Heads that say something of a row and are no scores.
const DESCRIPTIONS: &[&str] = &["kind", "method", "seed"];

/// Reads a reference: a CSV with row names in its first column.
///
/// # Errors
/// [`ReferenceError`], naming file, line and column.
pub fn read(path: &Path) -> Result<Reference, ReferenceError> {
    let csv_error = |source| ReferenceError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(csv_error)?;
    let head: Vec<String> = reader.headers().map_err(csv_error)?.iter().map(|head| head.trim().to_owned()).collect();
    let wanted: Vec<usize> = (1..head.len()).filter(|index| !DESCRIPTIONS.contains(&head[*index].as_str())).collect();
    if wanted.is_empty() {
        return Err(ReferenceError::NoColumns { path: path.to_owned(), example: "humaneval" });
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        let line = record.position().map_or(0, csv::Position::line);
        let values = wanted
            .iter()
            .map(|index| match record.get(*index).unwrap_or_default().trim() {
                "" => Ok(None),
                cell => cell.parse().map(Some).map_err(|_| ReferenceError::Cell {
                    path: path.to_owned(),
                    line,
                    column: head[*index].clone(),
                    found: cell.to_owned(),
                }),
            })
            .collect::<Result<_, _>>()?;
        rows.push((record.get(0).unwrap_or_default().to_owned(), values));
    }
    let columns = wanted.iter().map(|index| head[*index].clone()).collect();
    Ok(Reference { path: path.to_owned(), columns, rows })
}

/// How a column of the reference stands to the run.
#[derive(Debug, Clone, PartialEq)]
enum Pairing<'a> {
    /// The same quantity: differences are shown.
    Same(&'a Column),
    /// Shown side by side, without a difference, for this reason.
    Apart(&'a Column, String),
    /// The run has nothing to set beside it.
    Alone(String),
}

/// The comparison: cells for the table, and the reasons why columns are not compared.
pub fn compare(table: &ResultsTable, reference: &Reference) -> (Cells, Vec<String>) {
    // A table that this program wrote has columns of axis values too.
    let axes = table.axes();
    let wanted: Vec<usize> =
        (0..reference.columns.len()).filter(|index| !axes.contains(&reference.columns[*index].as_str())).collect();
    let pairings: Vec<Pairing<'_>> = wanted.iter().map(|index| pair(table, &reference.columns[*index])).collect();
    let mut cells = Cells { head: vec!["trial".to_owned()], rows: Vec::new() };
    let mut reasons = Vec::new();
    for (name, pairing) in wanted.iter().map(|index| &reference.columns[*index]).zip(&pairings) {
        match pairing {
            Pairing::Same(_) => {
                cells.head.extend([name.clone(), format!("{name} (reference)"), "difference".to_owned()]);
            }
            Pairing::Apart(column, reason) => {
                cells.head.extend([column.name.clone(), format!("{name} (reference)")]);
                reasons.push(format!("`{name}` is not compared: {reason}"));
            }
            Pairing::Alone(reason) => {
                cells.head.push(format!("{name} (reference)"));
                reasons.push(format!("`{name}` is not compared: {reason}"));
            }
        }
    }
    let names: Vec<&str> = table
        .rows
        .iter()
        .map(|row| row.trial.as_str())
        .chain(reference.rows.iter().map(|(name, _)| name.as_str()).filter(|name| row_of(table, name).is_none()))
        .collect();
    for name in names {
        let row = row_of(table, name);
        let expected = reference.rows.iter().find(|(expected, _)| expected == name).map(|(_, values)| values);
        let mut line = vec![name.to_owned()];
        for (index, pairing) in wanted.iter().zip(&pairings) {
            let expected = expected.and_then(|values| values[*index]);
            let got = |column: &Column| row.and_then(|row| row.score(column)).and_then(|score| score.value);
            match pairing {
                Pairing::Same(column) => {
                    let got = got(column);
                    let difference = got.zip(expected).map(|(got, expected)| got - expected);
                    let shown = difference.map_or_else(|| value(None), |difference| format!("{difference:+.4}"));
                    line.extend([value(got), value(expected), shown]);
                }
                Pairing::Apart(column, _) => line.extend([value(got(column)), value(expected)]),
                Pairing::Alone(_) => line.push(value(expected)),
            }
        }
        cells.rows.push(line);
    }
    (cells, reasons)
}

fn row_of<'a>(table: &'a ResultsTable, name: &str) -> Option<&'a Row> {
    table.rows.iter().find(|row| row.trial == name)
}

fn pair<'a>(table: &'a ResultsTable, name: &str) -> Pairing<'a> {
    let Some(expected) = task::preset_named(name).map(Column::from) else {
        let reason = "its name is not in the table of columns, so the file does not say which task and metric it holds";
        return match table.columns.iter().find(|column| column.name == name) {
            Some(column) => Pairing::Apart(column, reason.to_owned()),
            None => Pairing::Alone(reason.to_owned()),
        };
    };
    let same = |column: &&Column| {
        column.task == expected.task && column.metric == expected.metric && column.filter == expected.filter
    };
    if let Some(column) = table.columns.iter().find(same) {
        let mut scores = table.rows.iter().filter_map(|row| row.score(column));
        return match scores.find(|score| score.is_limited()) {
            Some(score) => {
                let (n, of) = (score.n.unwrap_or_default(), score.n_total.unwrap_or_default());
                Pairing::Apart(column, format!("the run answered {n} of its {of} documents"))
            }
            None => Pairing::Same(column),
        };
    }
    let counterpart = |column: &&Column| column.counterpart().is_some_and(|stock| stock.column == name);
    match table.columns.iter().find(counterpart) {
        Some(column) => Pairing::Apart(
            column,
            format!(
                "the run has `{}`, {} over the same items; the reference holds {}",
                column.name, column.estimator, expected.estimator
            ),
        ),
        None => Pairing::Alone(format!("the run has no column of task `{}`", expected.task)),
    }
}
