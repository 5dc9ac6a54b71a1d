//! The noise floor of an evaluation: how far the scores of merges are apart that differ by rounding alone. A difference
//! between two other rows that is no larger says nothing about them.

use super::{ResultsTable, render};

/// A line for every group of such trials, given by number of their rows, that has scores to compare.
pub fn floor(table: &ResultsTable, groups: &[Vec<usize>]) -> Vec<String> {
    groups.iter().filter_map(|group| of_group(table, group)).collect()
}

fn of_group(table: &ResultsTable, group: &[usize]) -> Option<String> {
    let rows: Vec<_> = group.iter().filter_map(|row| table.rows.get(*row)).collect();
    let spreads: Vec<String> = table
        .columns
        .iter()
        .filter_map(|column| {
            let scores = rows.iter().filter_map(|row| row.score(column)?.value);
            let scores: Vec<f64> = scores.collect();
            let lowest = scores.iter().copied().reduce(f64::min)?;
            let highest = scores.iter().copied().reduce(f64::max)?;
            (scores.len() > 1).then(|| format!("{} {}", column.name, render::value(Some(highest - lowest))))
        })
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row.trial.as_str()).collect();
    (!spreads.is_empty()).then(|| {
        format!(
            "noise floor: {} are one merge but for rounding; their scores are apart by {}",
            names.join(", "),
            spreads.join(", ")
        )
    })
}
