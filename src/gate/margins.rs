//! Margins that are too small to be judged: identical answers on n documents leave the difference uncertain by
//! `z·√2/(n+2)`, with z at the level that each of the deciding columns has.

use crate::eval::task::{Column, Estimator, documents, is_share};
use crate::spec::Gate;
use crate::stats::gate::{items_for_margin, smallest_margin};

/// A margin that is smaller than what identical answers can show.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "the margin {margin} of `{column}` is smaller than what identical answers can show: {n} documents bound the difference to \
     ±{floor:.4} (use at least {needed} documents, or a margin above {floor:.4})"
)]
pub struct TooSmall {
    /// The column.
    pub column: String,
    /// Its margin.
    pub margin: f64,
    /// Documents.
    pub n: u64,
    /// What they can show.
    pub floor: f64,
    /// Documents with which the margin could be passed.
    pub needed: u64,
}

/// Columns that decide: each of them is tested for FAIL at its share of the level.
pub fn n_critical(columns: &[Column], gate: &Gate) -> usize {
    columns.iter().filter(|column| gate.is_critical(&column.name, &column.task)).count()
}

/// Every margin that is too small. `n_of` tells the documents of a right-or-wrong column; none where they are unknown or
/// its scores are no shares, whose bounds shrink to nothing on identical answers.
pub fn too_small(columns: &[Column], gate: &Gate, n_of: &dyn Fn(&Column) -> Option<u64>) -> Vec<TooSmall> {
    let n_tests = n_critical(columns, gate);
    let critical = columns.iter().filter(|column| gate.is_critical(&column.name, &column.task));
    critical
        .filter_map(|column| {
            let (margin, n) = (gate.margin_of(&column.name, &column.task)?, n_of(column)?);
            let floor = smallest_margin(n, n_tests);
            (margin <= floor).then(|| TooSmall {
                column: column.name.clone(),
                margin,
                n,
                floor,
                needed: items_for_margin(margin, n_tests),
            })
        })
        .collect()
}

/// Documents that a column is to rest on, where they are known: those of a task of the mapping table, else those that its task
/// is expected to be asked. None of scores that are no shares of right answers.
pub fn planned_documents(column: &Column, asked: Option<u64>) -> Option<u64> {
    if let Some(n) = documents(column) {
        return Some(asked.unwrap_or(n).min(n));
    }
    match column.estimator {
        Estimator::GpIrt => (column.task != "tinyTruthfulQA").then_some(100),
        Estimator::Reported => asked.filter(|_| is_share(&column.metric)),
        _ => None,
    }
}
