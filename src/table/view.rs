//! What of a table is shown, and in which order: columns by name, rows by what is known of them, sorted by a column.

use super::{ResultsTable, Row};
use crate::eval::task::Column;
use crate::paired::outcomes::is_higher_better;
use crate::paired::{Against, Cell};

/// A choice of rows and columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Names of columns, in the order to show them; none: all.
    pub columns: Vec<String>,
    /// Column to sort by, best first; with a `-` before it worst first. `trial` sorts by name.
    pub sort: Option<String>,
    /// `KEY=PATTERN` of rows to show; all must hold. Keys: `trial`, `kind`, `method`, `seed` and axes.
    pub filter: Vec<(String, String)>,
}

/// A name that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// No such column.
    #[error("no column `{name}`, only {known}")]
    Column {
        /// As asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No row has it.
    #[error("no row has `{key}={pattern}`; there is {known}")]
    Nothing {
        /// Key as asked for.
        key: String,
        /// Pattern as asked for.
        pattern: String,
        /// What rows have there.
        known: String,
    },
    /// No such key of rows.
    #[error("rows have no `{name}`, only {known}")]
    Key {
        /// As asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

impl View {
    /// The table and its comparisons as chosen. Comparisons were corrected for all rows before: what is shown changes no
    /// p-value.
    ///
    /// # Errors
    /// [`ViewError`] where a name is not in the table.
    pub fn of(
        &self,
        table: &ResultsTable,
        against: Option<&Against>,
    ) -> Result<(ResultsTable, Option<Against>), ViewError> {
        let columns: Vec<usize> = if self.columns.is_empty() {
            (0..table.columns.len()).collect()
        } else {
            self.columns.iter().map(|name| place(table, name)).collect::<Result<_, _>>()?
        };
        let mut keys = vec!["trial", "kind", "method", "seed"];
        keys.extend(table.axes().into_iter().filter(|axis| *axis != "seed"));
        if let Some((name, _)) = self.filter.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            return Err(ViewError::Key { name: name.clone(), known: keys.join(", ") });
        }
        for (key, pattern) in &self.filter {
            let values: Vec<String> = table.rows.iter().filter_map(|row| value_of(row, key)).collect();
            if !values.iter().any(|value| matches(pattern, value)) {
                let (key, pattern) = (key.clone(), pattern.clone());
                return Err(ViewError::Nothing { key, pattern, known: distinct(values).join(", ") });
            }
        }
        let mut rows: Vec<&Row> = table.rows.iter().filter(|row| self.shows(row)).collect();
        if let Some(sort) = &self.sort {
            let (name, reversed) = sort.strip_prefix('-').map_or((sort.as_str(), false), |name| (name, true));
            if name == "trial" {
                rows.sort_by(|a, b| a.trial.cmp(&b.trial));
            } else {
                let column = &table.columns[place(table, name)?];
                // Stable, and rows without the number last in either order.
                rows.sort_by(|a, b| match (oriented(a, column), oriented(b, column)) {
                    (Some(a), Some(b)) if reversed => a.total_cmp(&b),
                    (Some(a), Some(b)) => b.total_cmp(&a),
                    (a, b) => b.is_some().cmp(&a.is_some()),
                });
            }
            if name == "trial" && reversed {
                rows.reverse();
            }
        }
        let shown = ResultsTable {
            sweep: table.sweep.clone(),
            columns: columns.iter().map(|place| table.columns[*place].clone()).collect(),
            rows: rows.into_iter().cloned().collect(),
            race: table.race.clone(),
            near: table.near.clone(),
        };
        let against = against.map(|against| seen(against, &shown, &columns));
        Ok((shown, against))
    }

    fn shows(&self, row: &Row) -> bool {
        self.filter.iter().all(|(key, pattern)| value_of(row, key).is_some_and(|value| matches(pattern, &value)))
    }
}

/// What a row has under a key of a filter.
fn value_of(row: &Row, key: &str) -> Option<String> {
    match key {
        "trial" => Some(row.trial.clone()),
        "kind" => Some(row.kind.to_owned()),
        "method" => row.method.map(str::to_owned),
        "seed" if row.axis("seed").is_none() => row.seed.map(|seed| seed.to_string()),
        axis => row.axis(axis).map(ToString::to_string),
    }
}

fn distinct(values: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    values.into_iter().filter(|value| seen.insert(value.clone())).collect()
}

fn place(table: &ResultsTable, name: &str) -> Result<usize, ViewError> {
    let known = || table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = table.columns.iter().position(|column| column.name == name);
    found.ok_or_else(|| ViewError::Column { name: name.to_owned(), known: known() })
}

fn oriented(row: &Row, column: &Column) -> Option<f64> {
    let score = row.score(column)?;
    score.value.map(|value| if is_higher_better(column, score) { value } else { -value })
}

/// Comparisons of the rows and columns that are shown.
fn seen(against: &Against, shown: &ResultsTable, columns: &[usize]) -> Against {
    let standing = |row: &Row| against.standings.iter().find(|standing| standing.trial == row.trial).cloned();
    let mut seen = Against {
        reference: against.reference.clone(),
        standings: shown.rows.iter().filter_map(standing).collect(),
        selection_excess: columns.iter().map(|place| against.selection_excess.get(*place).copied().flatten()).collect(),
    };
    for standing in &mut seen.standings {
        standing.cells =
            columns.iter().map(|place| standing.cells.get(*place).cloned().unwrap_or(Cell::Absent)).collect();
    }
    seen
}

/// `*` stands for any text, `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pattern_letters = pattern.chars();
    match pattern_letters.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = pattern_letters.as_str();
            text.char_indices().map(|(place, _)| place).chain([text.len()]).any(|place| matches(rest, &text[place..]))
        }
        Some(letter) => {
            let mut letters = text.chars();
            let first = letters.next();
            first.is_some_and(|first| letter == '?' || first == letter)
                && matches(pattern_letters.as_str(), letters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_values() {
        for (pattern, text, expected) in [
            ("slerp", "slerp", true),
            ("sl*", "slerp", true),
            ("*", "", true),
            ("s?erp", "slerp", true),
            ("sl", "slerp", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
