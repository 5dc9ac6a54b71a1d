//! A table without samples: which of its differences could be significant at all.
//!
//! From two totals only the net difference k of right answers is known. Whatever the items, McNemar's exact p is at least
//! `2^(1−k)`; a row whose bound is above .05 is not a difference, however it was ranked. gp-IRT estimates leave no such
//! bound: they are set beside what the method typically is off by.

use super::differences::p_value;
use super::reference::Reference;
use super::render::{Cells, value};
use crate::eval::task::{self, Column, Estimator};
use crate::stats::LEVEL;
use crate::stats::binary::smallest_p;
use crate::stats::multiple::holm;

/// Every row beside the one named `against`: cells, and what they come to. None where there is no such row.
pub fn totals(reference: &Reference, against: &str) -> Option<(Cells, Vec<String>)> {
    let base = &reference.rows.iter().find(|(name, _)| name == against)?.1;
    let others: Vec<_> = reference.rows.iter().filter(|(name, _)| name != against).collect();
    let mut cells = Cells { head: vec![format!("− {against}")], rows: Vec::new() };
    cells.rows.extend(others.iter().map(|(name, _)| vec![name.clone()]));
    let mut remarks = Vec::new();
    for (place, head) in reference.columns.iter().enumerate() {
        cells.head.push(head.name.clone());
        let preset = head.number.as_ref().and_then(|(task, metric, filter)| task::preset_of(task, metric, filter));
        let column = preset.map(Column::from);
        let differences: Vec<Option<f64>> =
            others.iter().map(|(_, cells)| Some(cells[place]?.value - base[place]?.value)).collect();
        let names: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
        let (texts, remark) = match &column {
            Some(column) if column.estimator == Estimator::GpIrt => estimates(column, &differences, &names),
            Some(column) => match task::documents(column) {
                Some(n) => shares(column, n, &differences, &names),
                None => plain(&differences),
            },
            None => plain(&differences),
        };
        cells.rows.iter_mut().zip(texts).for_each(|(row, text)| row.push(text));
        remarks.extend(remark);
    }
    remarks.extend(near_equal(reference));
    Some((cells, remarks))
}

/// Texts of the cells, and the remark on their column.
type Told = (Vec<String>, Option<String>);

fn plain(differences: &[Option<f64>]) -> Told {
    let text =
        |difference: &Option<f64>| difference.map_or_else(|| value(None), |difference| format!("{difference:+.4}"));
    (differences.iter().map(text).collect(), None)
}

/// Net differences in documents, with the smallest p-value each could have.
fn shares(column: &Column, n: u64, differences: &[Option<f64>], names: &[&str]) -> Told {
    // Published tables are rounded: the nearest whole number of documents.
    let net = |difference: f64| (difference * n as f64).round();
    let bounds: Vec<f64> =
        differences.iter().map(|difference| difference.map_or(1.0, |d| smallest_p(net(d).abs() as u64))).collect();
    let adjusted = holm(&bounds);
    let texts = differences.iter().zip(&bounds).map(|(difference, bound)| match difference {
        Some(difference) => format!("{:+} of {n}, p ≥ {}", net(*difference), p_value(*bound).trim_start_matches('<')),
        None => value(None),
    });
    let named = |bounds: &[f64]| {
        let could = bounds.iter().zip(names).filter(|(bound, _)| **bound < LEVEL).map(|(_, name)| *name);
        let could: Vec<&str> = could.collect();
        if could.is_empty() { "none".to_owned() } else { could.join(", ") }
    };
    let n_rows = differences.iter().flatten().count();
    let remark = format!(
        "`{}`: of {n_rows} rows these could differ significantly, if every changed document changed the same way: {}; \
         after Holm's correction: {}. The others cannot, whatever the documents",
        column.name,
        named(&bounds),
        named(&adjusted)
    );
    (texts.collect(), Some(remark))
}

/// Differences of gp-IRT estimates in typical deviations.
fn estimates(column: &Column, differences: &[Option<f64>], names: &[&str]) -> Told {
    let Some(deviation) = task::typical_deviation(&column.task) else { return plain(differences) };
    let texts = differences.iter().map(|difference| match difference {
        Some(difference) => format!("{difference:+.4} ({:.1} td)", difference.abs() / deviation),
        None => value(None),
    });
    let beyond = differences.iter().zip(names).filter(|(d, _)| d.is_some_and(|d| d.abs() > 2.0 * deviation));
    let beyond: Vec<&str> = beyond.map(|(_, name)| *name).collect();
    let beyond = if beyond.is_empty() { "none".to_owned() } else { beyond.join(", ") };
    let remark = format!(
        "`{}`: estimates, typically {deviation:.3} (td) off the full benchmark; no test without the answers. More than 2 td \
         away: {beyond}",
        column.name
    );
    (texts.collect(), Some(remark))
}

/// Rows that agree in all columns or all but one: very probably one merge up to rounding.
fn near_equal(reference: &Reference) -> Option<String> {
    let mut pairs = Vec::new();
    for (place, (name, cells)) in reference.rows.iter().enumerate() {
        for (other, other_cells) in &reference.rows[place + 1..] {
            let n_equal = cells.iter().zip(other_cells).filter(|(a, b)| a.is_some() && a == b).count();
            if n_equal >= 3 && n_equal + 1 >= cells.len() {
                pairs.push(format!("{name} = {other} in {n_equal} of {}", cells.len()));
            }
        }
    }
    (!pairs.is_empty())
        .then(|| format!("rows that agree in all columns or all but one, and may be one model: {}", pairs.join("; ")))
}
