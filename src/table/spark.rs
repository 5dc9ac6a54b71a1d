//! Scores along an axis as one line of blocks each: `math_bpb over t 0.25…0.75 ▁▄█`.

use super::{ResultsTable, Row};
use crate::config::Scalar;
use crate::eval::task::Column;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Fewest values that make a line.
const FEWEST: usize = 3;

/// One line per axis, group of rows that differ only in it, and column.
pub fn lines(table: &ResultsTable) -> Vec<String> {
    let in_race = |row: &Row, column: &Column| !table.is_out(row, column);
    let mut lines = Vec::new();
    for axis in table.axes() {
        for group in groups(table, axis) {
            let value = |row: &Row| row.axis(axis).map(ToString::to_string).unwrap_or_default();
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let method = first.method.unwrap_or(first.kind);
            let others: Vec<String> = first
                .axes
                .iter()
                .filter(|(name, _)| name != axis)
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
            for column in &table.columns {
                let scores: Vec<Option<f64>> =
                    group.iter().map(|row| in_race(row, column).then(|| row.score(column)?.value).flatten()).collect();
                if let Some(blocks) = blocks(&scores) {
                    let (from, to) = (value(first), value(last));
                    lines.push(format!("{blocks}  {} over {axis} {from}…{to}, {method}{others}", column.name));
                }
            }
        }
    }
    lines
}

/// Rows that are equal but for one axis of numbers, in its order.
fn groups<'a>(table: &'a ResultsTable, axis: &str) -> Vec<Vec<&'a Row>> {
    let number = |row: &Row| match row.axis(axis) {
        Some(value @ (Scalar::Int(_) | Scalar::Float(_))) => value.as_float(),
        _ => None,
    };
    let rest = |row: &Row| {
        let others = row.axes.iter().filter(|(name, _)| name != axis).map(|(name, value)| format!("{name}={value}"));
        (row.method, others.collect::<Vec<_>>())
    };
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in table.rows.iter().filter(|row| number(row).is_some()) {
        match groups.iter_mut().find(|group| rest(group[0]) == rest(row)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups.retain(|group| group.len() >= FEWEST);
    for group in &mut groups {
        group.sort_by(|a, b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)));
    }
    groups
}

fn blocks(scores: &[Option<f64>]) -> Option<String> {
    let known = || scores.iter().copied().flatten();
    if known().count() < FEWEST {
        return None;
    }
    let (low, high) = known().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let block = |score: &Option<f64>| match score {
        // All equal: a flat line in the middle, which shows no trend.
        Some(_) if high <= low => BLOCKS[3],
        Some(score) => BLOCKS[(((score - low) / (high - low)) * 7.0).round() as usize % 8],
        None => ' ',
    };
    Some(scores.iter().map(block).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_blocks_from_lowest_to_highest() {
        assert_eq!(blocks(&[Some(0.0), Some(0.5), None, Some(1.0)]).unwrap(), "▁▅ █");
        assert_eq!(blocks(&[Some(0.5), Some(0.5), Some(0.5)]).unwrap(), "▄▄▄");
        assert_eq!(blocks(&[Some(0.5), None, Some(0.5)]), None);
    }
}
