//! The table for a paper: LaTeX with booktabs. Needs `\usepackage{booktabs}`.

use std::fmt::Write;

use super::differences::{BETTER, WORSE, marks};
use super::render::value;
use super::{ResultsTable, Row};
use crate::eval::task::Column;
use crate::paired::Against;

/// The table as LaTeX. Bold only where the best row of a column is significantly better than every other one: `winners`
/// holds its name, column by column. Marks of significance become superscripts.
pub fn latex(table: &ResultsTable, against: Option<&Against>, winners: &[Option<String>], notes: &[String]) -> String {
    // Writing to a String cannot fail.
    let mut text = format!("\\begin{{tabular}}{{l{}}}\n\\toprule\n", "r".repeat(table.columns.len()));
    let heads = table.columns.iter().map(|column| heading(table, column));
    let _ = writeln!(
        text,
        "{} \\\\\n\\midrule",
        std::iter::once("trial".to_owned()).chain(heads).collect::<Vec<_>>().join(" & ")
    );
    for row in &table.rows {
        let standing = against.and_then(|against| against.standings.iter().find(|found| found.trial == row.trial));
        let mut cells = vec![escaped(&row.trial)];
        for (place, column) in table.columns.iter().enumerate() {
            let number = number(row, column);
            let is_winner = winners.get(place).is_some_and(|winner| winner.as_deref() == Some(row.trial.as_str()));
            let number = if is_winner { format!("\\textbf{{{number}}}") } else { number };
            let marks = standing.and_then(|standing| standing.cells.get(place)).map(marks).unwrap_or_default();
            let mark = if marks.contains(BETTER) {
                "$^{\\blacktriangle}$"
            } else if marks.contains(WORSE) {
                "$^{\\blacktriangledown}$"
            } else {
                ""
            };
            cells.push(format!("{number}{mark}"));
        }
        let _ = writeln!(text, "{} \\\\", cells.join(" & "));
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    for note in notes {
        let _ = writeln!(text, "% {}", note.replace('\n', " "));
    }
    text
}

fn heading(table: &ResultsTable, column: &Column) -> String {
    let is_down =
        table.rows.iter().filter_map(|row| row.score(column)).any(|score| score.higher_is_better == Some(false));
    format!("{}{}", escaped(&column.name), if is_down { " $\\downarrow$" } else { "" })
}

fn number(row: &Row, column: &Column) -> String {
    match row.score(column).and_then(|score| score.value) {
        Some(number) => value(Some(number)),
        None => "--".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                safe.push('\\');
                safe.push(character);
            }
            '\\' => safe.push_str("\\textbackslash{}"),
            '~' => safe.push_str("\\textasciitilde{}"),
            '^' => safe.push_str("\\textasciicircum{}"),
            '→' => safe.push_str("$\\rightarrow$"),
            character if character.is_control() => safe.push(' '),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe() {
        assert_eq!(escaped("A_B & 50 % → {x}"), "A\\_B \\& 50 \\% $\\rightarrow$ \\{x\\}");
    }
}
