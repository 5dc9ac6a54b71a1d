//! The table for people: Markdown that fits a width, values rounded. The only place where numbers are rounded.

use super::differences::{ODD, marks};
use super::{ResultsTable, Row};
use crate::eval::Score;
use crate::eval::task::{self, Column, Estimator};
use crate::paired::Against;
use crate::stats::Interval;
use crate::stats::interval::wilson;

/// Cells of a Markdown table: a header line and rows of the same length. The first column names the row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cells {
    /// Column heads.
    pub head: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
}

/// A value as the table shows it: four decimals, an en dash where there is none.
pub fn value(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

/// The table as cells: one row per trial, one column per task metric. Shares of right answers have their Wilson interval,
/// other scores `± standard error` where the harness gives one, and gp-IRT estimates neither: their column says how far
/// they typically are off. Marks follow: the significance against a reference, and [`ODD`] for a cell that rests on
/// something else than the rest of its column.
pub fn wide(table: &ResultsTable, against: Option<&Against>) -> Cells {
    let mut head = vec!["trial".to_owned()];
    head.extend(table.columns.iter().map(|column| heading(column, table)));
    let mut rows = Vec::new();
    for (row, odd) in table.rows.iter().zip(table.odd()) {
        let standing = against.and_then(|against| against.standings.iter().find(|found| found.trial == row.trial));
        let mut cells = vec![row.trial.clone()];
        for (place, column) in table.columns.iter().enumerate() {
            let marks = standing.and_then(|standing| standing.cells.get(place)).map(marks).unwrap_or_default();
            let odd = if odd[place] { format!(" {ODD}") } else { String::new() };
            let out = row.score(column).filter(|_| table.is_out(row, column));
            let out = out.and_then(|score| score.n).map(|n| format!(" (n={n})")).unwrap_or_default();
            cells.push(format!("{}{marks}{odd}{out}", cell(row, column)));
        }
        rows.push(cells);
    }
    Cells { head, rows }
}

/// The column's name, how many documents it rests on where a limit left some out, and which way is better where it is
/// down.
fn heading(column: &Column, table: &ResultsTable) -> String {
    let in_race = table.rows.iter().filter(|row| !table.is_out(row, column));
    let scores: Vec<&Score> = in_race.filter_map(|row| row.score(column)).collect();
    let mut notes = Vec::new();
    let is_limited = scores.iter().any(|score| score.is_limited());
    let sizes: Vec<u64> = scores.iter().filter(|_| is_limited).filter_map(|score| score.n).collect();
    if let (Some(least), Some(most)) = (sizes.iter().min(), sizes.iter().max()) {
        notes.push(if least == most { format!("n={least}") } else { format!("n={least}–{most}") });
    }
    if scores.iter().any(|score| score.higher_is_better == Some(false)) {
        notes.push("↓".to_owned());
    }
    if let Some(deviation) = task::typical_deviation(&column.task).filter(|_| column.estimator == Estimator::GpIrt) {
        notes.push(format!("gp-IRT, typically off by {deviation:.3}"));
    }
    if notes.is_empty() { column.name.clone() } else { format!("{} ({})", column.name, notes.join(", ")) }
}

fn cell(row: &Row, column: &Column) -> String {
    let Some(score) = row.score(column) else { return "–".to_owned() };
    if let Some((right, n)) = column.right_answers(score)
        && let Some(Interval { low, high }) = wilson(right, n, 0.95)
    {
        return format!("{} [{}, {}]", value(score.value), short(low), short(high));
    }
    match score.stderr {
        // No spread in a handful of documents is no certainty.
        Some(stderr) if stderr > 0.0 => format!("{} ± {stderr:.4}", value(score.value)),
        _ => value(score.value),
    }
}

/// A share in two digits: `.05`, `1.0`.
fn short(share: f64) -> String {
    if share >= 0.995 { "1.0".to_owned() } else { format!("{share:.2}").trim_start_matches('0').to_owned() }
}

/// Lays cells out as Markdown. Where the whole is wider than `width` characters, the columns are dealt out over several
/// tables that each repeat the first column.
pub fn markdown(cells: &Cells, width: Option<usize>) -> String {
    let n_columns = cells.head.len();
    let widths: Vec<usize> = (0..n_columns)
        .map(|column| {
            let in_rows = cells.rows.iter().filter_map(|row| row.get(column)).map(|cell| columns_of(cell)).max();
            columns_of(&cells.head[column]).max(in_rows.unwrap_or(0)).max(3)
        })
        .collect();
    let Some(first) = widths.first() else { return String::new() };
    let mut blocks: Vec<Vec<usize>> = vec![vec![0]];
    let mut used = first + 4;
    for (column, needed) in widths.iter().enumerate().skip(1) {
        let is_full = width.is_some_and(|width| used + needed + 3 > width);
        if let Some(block) = blocks.last_mut() {
            // A column that fits nowhere still gets a table of its own.
            if is_full && block.len() > 1 {
                blocks.push(vec![0, column]);
                used = first + 4 + needed + 3;
            } else {
                block.push(column);
                used += needed + 3;
            }
        }
    }
    let tables: Vec<String> = blocks.iter().map(|block| block_of(cells, block, &widths)).collect();
    tables.join("\n")
}

fn block_of(cells: &Cells, block: &[usize], widths: &[usize]) -> String {
    // Numbers stand to the right, so that their points stand one above the other.
    let is_number =
        |cell: &String| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "+-–<.".contains(c));
    let cells_of = |column: usize| cells.rows.iter().filter_map(move |row| row.get(column));
    let is_text: Vec<bool> = (0..widths.len()).map(|column| column == 0 || !cells_of(column).all(is_number)).collect();
    let line = |texts: &dyn Fn(usize) -> String| {
        let padded = block.iter().map(|column| {
            let text = texts(*column);
            let fill = " ".repeat(widths[*column].saturating_sub(text.chars().count()));
            if is_text[*column] { format!("{text}{fill}") } else { format!("{fill}{text}") }
        });
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(&|column| escaped(&cells.head[column]));
    text.push_str(&line(&|column| {
        let dashes = "-".repeat(widths[column] - 1);
        if is_text[column] { format!("{dashes}-") } else { format!("{dashes}:") }
    }));
    for row in &cells.rows {
        text.push_str(&line(&|column| row.get(column).map_or_else(String::new, |cell| escaped(cell))));
    }
    text
}

/// A name without characters that would move a terminal's cursor or change its colours.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn escaped(text: &str) -> String {
    plain(text).replace('|', "\\|")
}

/// Terminal columns of a text: one per character is right for the scripts that trial names are written in.
fn columns_of(text: &str) -> usize {
    escaped(text).chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Cells {
        let row = |texts: [&str; 4]| texts.map(str::to_owned).to_vec();
        Cells { head: row(["trial", "a", "b", "c"]), rows: vec![row(["x|y", "0.1000", "0.2000", "0.3000"])] }
    }

    #[test]
    fn a_table_that_fits_is_one_table() {
        let expected = "\
| trial |      a |      b |      c |
| ----- | -----: | -----: | -----: |
| x\\|y  | 0.1000 | 0.2000 | 0.3000 |
";
        assert_eq!(markdown(&cells(), None), expected);
    }

    #[test]
    fn a_table_too_wide_is_dealt_out_and_repeats_its_first_column() {
        let text = markdown(&cells(), Some(30));
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
        assert_eq!(text.matches("x\\|y").count(), 2);
        assert!(markdown(&cells(), Some(1)).contains("0.3000"));
    }
}
