//! A stored table beside a run: difference by difference, where the numbers mean the same thing.
//!
//! A column is compared only if task, metric and estimator agree and both rest on as many documents. Otherwise both numbers
//! are shown without a difference and the reason is said: a gp-IRT estimate and a plain accuracy over the same items are
//! not the same quantity. What all rows of a column differ by in common is told apart: it comes from settings, not merges.

use super::reference::{Reference, ReferenceCell, ReferenceColumn};
use super::render::{Cells, value};
use super::{ResultsTable, Row};
use crate::eval::Score;
use crate::eval::task::{self, Column, Estimator};

/// How a column of the reference stands to the run.
#[derive(Debug, Clone, PartialEq)]
enum Pairing<'a> {
    /// The same quantity: differences are shown.
    Same(&'a Column),
    /// The same quantity over as many documents of a task that were not all: differences are shown, with a mark.
    Limited(&'a Column, u64, u64),
    /// Shown side by side, without a difference, for this reason.
    Apart(&'a Column, String),
    /// The run has nothing to set beside it.
    Alone(String),
}

/// The comparison: cells for the table, and what must be said of its columns.
pub fn compare(table: &ResultsTable, reference: &Reference) -> (Cells, Vec<String>) {
    // A table that this program wrote has columns of axis values too.
    let axes = table.axes();
    let wanted: Vec<usize> =
        (0..reference.columns.len()).filter(|place| !axes.contains(&reference.columns[*place].name.as_str())).collect();
    let pairings: Vec<Pairing<'_>> = wanted.iter().map(|place| pair(table, reference, *place)).collect();
    let mut cells = Cells { head: vec!["trial".to_owned()], rows: Vec::new() };
    let mut remarks = Vec::new();
    for (name, pairing) in wanted.iter().map(|place| &reference.columns[*place].name).zip(&pairings) {
        head(name, pairing, &mut cells.head, &mut remarks);
    }
    let names: Vec<&str> = table
        .rows
        .iter()
        .map(|row| row.trial.as_str())
        .chain(reference.rows.iter().map(|(name, _)| name.as_str()).filter(|name| row_of(table, name).is_none()))
        .collect();
    for name in names {
        let row = row_of(table, name);
        let expected = reference.rows.iter().find(|(expected, _)| expected == name).map(|(_, cells)| cells);
        let mut line = vec![name.to_owned()];
        for (place, pairing) in wanted.iter().zip(&pairings) {
            let expected = expected.and_then(|cells| cells[*place]);
            let shown = value(expected.map(|cell| cell.value));
            let score = |column: &Column| row.and_then(|row| row.score(column));
            let got = |column: &Column| score(column).and_then(|score| score.value);
            match pairing {
                Pairing::Same(column) | Pairing::Limited(column, ..) => {
                    let difference =
                        score(column).zip(expected).and_then(|(score, cell)| difference(column, score, cell));
                    line.extend([value(got(column)), shown, difference.unwrap_or_else(|| value(None))]);
                }
                Pairing::Apart(column, _) => line.extend([value(got(column)), shown]),
                Pairing::Alone(_) => line.push(shown),
            }
        }
        cells.rows.push(line);
    }
    for (place, pairing) in wanted.iter().zip(&pairings) {
        if let Pairing::Same(column) | Pairing::Limited(column, ..) = pairing {
            remarks.extend(offset(table, reference, *place, column));
        }
    }
    (cells, remarks)
}

fn head(name: &str, pairing: &Pairing<'_>, head: &mut Vec<String>, remarks: &mut Vec<String>) {
    match pairing {
        Pairing::Same(column) => {
            head.extend([column.name.clone(), format!("{name} (reference)"), "difference".to_owned()]);
        }
        Pairing::Limited(column, n, of) => {
            head.extend([
                format!("{} (n={n}) ‡", column.name),
                format!("{name} (reference, n={n})"),
                "difference".to_owned(),
            ]);
            remarks.push(format!("‡ `{}`: both rest on {n} of {of} documents only", column.name));
        }
        Pairing::Apart(column, reason) => {
            head.extend([column.name.clone(), format!("{name} (reference)")]);
            remarks.push(format!("`{name}` is not compared: {reason}"));
        }
        Pairing::Alone(reason) => {
            head.push(format!("{name} (reference)"));
            remarks.push(format!("`{name}` is not compared: {reason}"));
        }
    }
}

/// `+0.0244 (0.6 SE)`: in standard errors of the run's score; in typical deviations of a gp-IRT estimate.
fn difference(column: &Column, score: &Score, expected: ReferenceCell) -> Option<String> {
    let difference = score.value? - expected.value;
    let unit = if column.estimator == Estimator::GpIrt {
        task::typical_deviation(&column.task).map(|deviation| (deviation, "td"))
    } else {
        score.stderr.or(expected.stderr).filter(|stderr| *stderr > 0.0).map(|stderr| (stderr, "SE"))
    };
    Some(match unit {
        Some((unit, name)) => format!("{difference:+.4} ({:.1} {name})", difference.abs() / unit),
        None => format!("{difference:+.4}"),
    })
}

/// What the rows of a column differ by in common: the median, where there are three or more.
fn offset(table: &ResultsTable, reference: &Reference, place: usize, column: &Column) -> Option<String> {
    let mut differences: Vec<f64> = reference
        .rows
        .iter()
        .filter_map(|(name, cells)| Some(row_of(table, name)?.score(column)?.value? - cells[place]?.value))
        .collect();
    if differences.len() < 3 {
        return None;
    }
    differences.sort_by(f64::total_cmp);
    let middle = differences.len() / 2;
    let median = if differences.len() % 2 == 1 {
        differences[middle]
    } else {
        (differences[middle - 1] + differences[middle]) / 2.0
    };
    let same_side = differences.iter().filter(|difference| **difference * median > 0.0).count();
    let (n, name) = (differences.len(), &column.name);
    Some(if median != 0.0 && same_side * 5 >= n * 4 {
        format!(
            "`{name}`: {same_side} of {n} rows lie on one side, {median:+.4} in the median: an offset common to all rows \
             is a matter of settings (harness, prompt, dtype, items) rather than of merging"
        )
    } else {
        format!("`{name}`: offset common to all rows {median:+.4} (median of {n})")
    })
}

fn row_of<'a>(table: &'a ResultsTable, name: &str) -> Option<&'a Row> {
    table.rows.iter().find(|row| row.trial == name)
}

fn pair<'a>(table: &'a ResultsTable, reference: &Reference, place: usize) -> Pairing<'a> {
    let ReferenceColumn { name, number } = &reference.columns[place];
    let Some((task, metric, filter)) = number else {
        let reason = "its name is not in the table of columns, so the file does not say which task and metric it holds";
        return match table.columns.iter().find(|column| column.name == *name) {
            Some(column) => Pairing::Apart(column, reason.to_owned()),
            None => Pairing::Alone(reason.to_owned()),
        };
    };
    let same = |column: &&Column| column.task == *task && column.metric == *metric && column.filter == *filter;
    if let Some(column) = table.columns.iter().find(same) {
        return documents(table, reference, place, column);
    }
    let preset = task::preset_of(task, metric, filter);
    let counterpart = |column: &&Column| column.counterpart().is_some_and(|stock| Some(stock) == preset);
    match (table.columns.iter().find(counterpart), preset) {
        (Some(column), Some(preset)) => Pairing::Apart(
            column,
            format!(
                "the run has `{}`, {} over the same items; the reference holds {}",
                column.name, column.estimator, preset.estimator
            ),
        ),
        _ if table.columns.iter().any(|column| column.task == *task) => {
            Pairing::Alone(format!("the run has no column of `{metric}` (filter `{filter}`) of task `{task}`"))
        }
        _ => Pairing::Alone(format!("the run has no column of task `{task}`")),
    }
}

/// Whether both rest on as many documents: the file says how many, or it is taken to hold all of them.
fn documents<'a>(table: &ResultsTable, reference: &Reference, place: usize, column: &'a Column) -> Pairing<'a> {
    let stored: Vec<u64> = reference.rows.iter().filter_map(|(_, cells)| cells[place]?.n).collect();
    let scores = || table.rows.iter().filter_map(|row| row.score(column));
    let odd = scores().filter_map(|score| score.n).find(|n| stored.iter().any(|stored| stored != n));
    if let Some(n) = odd {
        let stored: Vec<String> =
            stored.iter().collect::<std::collections::BTreeSet<_>>().iter().map(ToString::to_string).collect();
        return Pairing::Apart(column, format!("the run answered {n} documents, the reference {}", stored.join(", ")));
    }
    match scores().find(|score| score.is_limited()) {
        Some(score) => {
            let (n, of) = (score.n.unwrap_or_default(), score.n_total.unwrap_or_default());
            match stored.is_empty() {
                true => Pairing::Apart(column, format!("the run answered {n} of its {of} documents")),
                false => Pairing::Limited(column, n, of),
            }
        }
        None => Pairing::Same(column),
    }
}
