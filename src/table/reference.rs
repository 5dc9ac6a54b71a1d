//! Stored tables: a CSV with one row per trial and a column per score (`table.csv`, a study's table), or with one row per
//! score (`scores.csv`), read into one form.

use std::path::{Path, PathBuf};

use crate::eval::task::{self, Column};

/// A table of expected results.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The file.
    pub path: PathBuf,
    /// Columns of scores.
    pub columns: Vec<ReferenceColumn>,
    /// Row name and its cells, in the order of `columns`.
    pub rows: Vec<(String, Vec<Option<ReferenceCell>>)>,
}

/// A column of a stored table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceColumn {
    /// Its head; `task metric filter` of a file with one row per score.
    pub name: String,
    /// Task, metric and filter, where the file or the mapping table tells.
    pub number: Option<(String, String, String)>,
}

/// A stored score.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReferenceCell {
    /// The value.
    pub value: f64,
    /// Documents, where the file says.
    pub n: Option<u64>,
    /// Standard error, where the file says.
    pub stderr: Option<f64>,
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
const DESCRIPTIONS: &[&str] = &["kind", "method", "seed", "near_twins", "near_share"];

/// The heads of a file with one row per score.
const LONG: [&str; 4] = ["task", "metric", "filter", "value"];

/// A CSV file in memory, whose cells know their place.
struct Sheet {
    path: PathBuf,
    head: Vec<String>,
    lines: Vec<(u64, Vec<String>)>,
}

impl Sheet {
    fn read(path: &Path) -> Result<Self, ReferenceError> {
        let csv_error = |source| ReferenceError::Csv { path: path.to_owned(), source };
        let mut reader = csv::Reader::from_path(path).map_err(csv_error)?;
        let head = reader.headers().map_err(csv_error)?.iter().map(|head| head.trim().to_owned()).collect();
        let lines = reader
            .records()
            .map(|record| {
                let record = record.map_err(csv_error)?;
                let line = record.position().map_or(0, csv::Position::line);
                Ok((line, record.iter().map(|cell| cell.trim().to_owned()).collect()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), head, lines })
    }

    fn place(&self, head: &str) -> Option<usize> {
        self.head.iter().position(|found| found == head)
    }

    /// The number in a cell; none where it is empty or the column is not there.
    fn number<T: std::str::FromStr>(
        &self,
        line: &(u64, Vec<String>),
        place: Option<usize>,
    ) -> Result<Option<T>, ReferenceError> {
        let Some(place) = place else { return Ok(None) };
        match line.1.get(place).map(String::as_str).unwrap_or_default() {
            "" => Ok(None),
            cell => cell.parse().map(Some).map_err(|_| ReferenceError::Cell {
                path: self.path.clone(),
                line: line.0,
                column: self.head[place].clone(),
                found: cell.to_owned(),
            }),
        }
    }
}

/// Reads a reference.
///
/// # Errors
/// [`ReferenceError`], naming file, line and column.
pub fn read(path: &Path) -> Result<Reference, ReferenceError> {
    let sheet = Sheet::read(path)?;
    if LONG.iter().all(|head| sheet.place(head).is_some()) { long(&sheet) } else { wide(&sheet) }
}

fn wide(sheet: &Sheet) -> Result<Reference, ReferenceError> {
    let wanted: Vec<usize> =
        (1..sheet.head.len()).filter(|place| !DESCRIPTIONS.contains(&sheet.head[*place].as_str())).collect();
    if wanted.is_empty() {
        return Err(ReferenceError::NoColumns { path: sheet.path.clone(), example: "humaneval" });
    }
    let columns = wanted
        .iter()
        .map(|place| {
            let name = sheet.head[*place].clone();
            let number = task::preset_named(&name).map(Column::from);
            ReferenceColumn { number: number.map(|column| (column.task, column.metric, column.filter)), name }
        })
        .collect();
    let mut rows = Vec::new();
    for line in &sheet.lines {
        let cells = wanted.iter().map(|place| {
            let value = sheet.number(line, Some(*place))?;
            Ok(value.map(|value| ReferenceCell { value, ..ReferenceCell::default() }))
        });
        let name = line.1.first().cloned().unwrap_or_default();
        rows.push((name, cells.collect::<Result<_, ReferenceError>>()?));
    }
    Ok(Reference { path: sheet.path.clone(), columns, rows })
}

fn long(sheet: &Sheet) -> Result<Reference, ReferenceError> {
    let [task, metric, filter, value] = LONG.map(|head| sheet.place(head));
    let mut reference = Reference { path: sheet.path.clone(), columns: Vec::new(), rows: Vec::new() };
    let text = |line: &(u64, Vec<String>), place: Option<usize>| {
        place.and_then(|place| line.1.get(place)).cloned().unwrap_or_default()
    };
    for line in &sheet.lines {
        let number = (text(line, task), text(line, metric), text(line, filter));
        let is_same = |column: &ReferenceColumn| column.number.as_ref() == Some(&number);
        let column = match reference.columns.iter().position(is_same) {
            Some(column) => column,
            None => {
                let name = format!("{} {} {}", number.0, number.1, number.2);
                reference.columns.push(ReferenceColumn { name, number: Some(number) });
                reference.columns.len() - 1
            }
        };
        let cell = sheet.number(line, value)?.map(|value| ReferenceCell { value, ..ReferenceCell::default() });
        let cell = match cell {
            Some(cell) => Some(ReferenceCell {
                n: sheet.number(line, sheet.place("n"))?,
                stderr: sheet.number(line, sheet.place("stderr"))?,
                ..cell
            }),
            None => None,
        };
        let name = text(line, Some(0));
        if reference.rows.last().is_none_or(|(last, _)| *last != name) {
            reference.rows.push((name, Vec::new()));
        }
        if let Some((_, cells)) = reference.rows.last_mut() {
            cells.resize(cells.len().max(column + 1), None);
            cells[column] = cell;
        }
    }
    let n_columns = reference.columns.len();
    reference.rows.iter_mut().for_each(|(_, cells)| cells.resize(n_columns, None));
    Ok(reference)
}
