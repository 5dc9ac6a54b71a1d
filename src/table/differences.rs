//! Comparisons for people: differences, intervals, counts and p-values as text, and the marks of a table.

use super::ResultsTable;
use super::render::{Cells, value};
use crate::paired::outcomes::is_estimate;
use crate::paired::{Against, Cell, Compared};
use crate::stats::{Comparison, Test, power};

/// Better than the reference after correction.
pub const BETTER: &str = "▲";
/// Worse than the reference after correction.
pub const WORSE: &str = "▼";
/// The best of several rows, picked on the documents it is shown for.
pub const SELECTED: &str = "†";
/// Rests on something else than the other rows of its column.
pub const ODD: &str = "‡";

/// A difference with its sign: in points of a hundred where the scores are shares, else in the score's own unit.
pub fn difference(comparison: &Comparison) -> String {
    signed(comparison.difference, comparison)
}

/// The difference that the p-value is of: of the estimates where they were tested.
pub fn decisive(compared: &Compared) -> String {
    match compared.estimate {
        Some(estimate) => format!("{:+.1}", 100.0 * estimate.difference),
        None => difference(&compared.comparison),
    }
}

/// The 95 % interval of a difference.
pub fn interval(comparison: &Comparison) -> String {
    match comparison.interval {
        Some(interval) => format!("[{}, {}]", signed(interval.low, comparison), signed(interval.high, comparison)),
        None => "–".to_owned(),
    }
}

/// The unit of a difference.
pub fn unit(comparison: &Comparison) -> &'static str {
    if is_share(comparison) { "points" } else { "" }
}

fn is_share(comparison: &Comparison) -> bool {
    comparison.test != Test::Swap
        && [comparison.first, comparison.second].into_iter().all(|score| (0.0..=1.0).contains(&score))
}

fn signed(difference: f64, comparison: &Comparison) -> String {
    signed_points(difference, is_share(comparison))
}

/// A difference with its sign: of shares in points of a hundred.
pub fn signed_points(difference: f64, is_share: bool) -> String {
    if is_share { format!("{:+.1}", 100.0 * difference) } else { format!("{difference:+.4}") }
}

/// Documents that only the one or only the other got right; else those that scored differently.
pub fn counts(comparison: &Comparison) -> String {
    match comparison.discordant {
        Some(discordant) => format!("{}:{}", discordant.b, discordant.c),
        None => format!("{} differ", comparison.n_changed),
    }
}

/// A p-value as tables show it.
pub fn p_value(p: f64) -> String {
    if p < 0.001 { "<.001".to_owned() } else { format!("{p:.3}").trim_start_matches('0').to_owned() }
}

/// What a single comparison says, beside its p-value.
pub fn remark(comparison: &Comparison) -> &'static str {
    match comparison.n_changed {
        0 => "identical answers",
        _ if comparison.cannot_be_significant() => "cannot be significant",
        _ => "",
    }
}

/// The marks of a cell in the table of scores, after a space; empty where there is none.
pub fn marks(cell: &Cell) -> String {
    let Cell::Compared(compared) = cell else { return String::new() };
    let significance = match compared.significance() {
        Some(true) => BETTER,
        Some(false) => WORSE,
        None => "",
    };
    let selected = if compared.is_best { SELECTED } else { "" };
    if significance.is_empty() && selected.is_empty() { String::new() } else { format!(" {significance}{selected}") }
}

/// The table of differences: one row per trial, one column per number, and the test across tasks.
pub fn table(table: &ResultsTable, against: &Against) -> Cells {
    let mut head = vec![format!("− {}", against.reference)];
    head.extend(table.columns.iter().map(|column| column.name.clone()));
    head.push("all tasks".to_owned());
    let rows = against.standings.iter().filter(|standing| standing.trial != against.reference).map(|standing| {
        let mut row = vec![standing.trial.clone()];
        if let Some(twin) = &standing.twin_of {
            row.extend(standing.cells.iter().map(|_| "–".to_owned()));
            row.push(format!("twin of {twin}"));
            return row;
        }
        row.extend(standing.cells.iter().map(cell));
        row.push(standing.overall.map_or_else(value_none, |overall| format!("p {}", p_value(overall.p_adjusted))));
        row
    });
    Cells { head, rows: rows.collect() }
}

fn value_none() -> String {
    value(None)
}

/// `+3.0 (5:2) p .453`; a cell that cannot be significant says so instead of a p-value.
fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Compared(Compared { comparison, .. }) if comparison.n_changed == 0 => "same answers".to_owned(),
        Cell::Compared(compared) => {
            let test = if compared.cannot_be_significant() {
                "c.n.s.".to_owned()
            } else {
                format!("p {}", p_value(compared.p_adjusted))
            };
            let of = if compared.estimate.is_some() { " est." } else { "" };
            format!("{}{of} ({}) {test}", decisive(compared), counts(&compared.comparison))
        }
        Cell::Apart(_) => "not comparable".to_owned(),
        Cell::Reference | Cell::Absent => value(None),
    }
}

/// What a reader of the marks must know, and why cells are not compared.
pub fn footnotes(table: &ResultsTable, against: &Against) -> Vec<String> {
    let mut lines = vec![format!(
        "Paired with {} document by document. {BETTER} better, {WORSE} worse: p < .05 after Holm's correction for the \
         trials of its column. Differences in points (of losses in their unit); in brackets the documents that only this \
         trial : only {} got right. c.n.s.: too few differ, cannot be significant",
        against.reference, against.reference
    )];
    let has_best = against.standings.iter().flat_map(|standing| &standing.cells);
    if has_best.clone().any(|cell| matches!(cell, Cell::Compared(compared) if compared.is_best)) {
        let excess: Vec<String> = table
            .columns
            .iter()
            .zip(&against.selection_excess)
            .filter_map(|(column, excess)| excess.map(|excess| format!("{} {excess:.4}", column.name)))
            .collect();
        lines.push(format!(
            "{SELECTED} selected on these items: the best of several equal rows is expected this far above their mean by \
             chance: {}",
            excess.join(", ")
        ));
    }
    lines.extend(detectable(table, against));
    lines.extend(of_estimates(table, against));
    let mut reasons: Vec<String> = Vec::new();
    for standing in &against.standings {
        for (column, cell) in table.columns.iter().zip(&standing.cells) {
            if let Cell::Apart(reason) = cell {
                reasons.push(format!("{}: `{}` is not compared: {reason}", standing.trial, column.name));
            }
        }
        if let Some(twin) = &standing.twin_of {
            reasons.push(format!("{}: the same weights as {twin}, counted once", standing.trial));
        }
    }
    lines.extend(reasons);
    lines
}

/// What is compared in columns of gp-IRT estimates.
pub fn of_estimates(table: &ResultsTable, against: &Against) -> Vec<String> {
    let places = (0..table.columns.len()).filter(|place| is_estimate(&table.columns[*place]));
    let is_tested = |place: &usize| {
        let mut cells = against.standings.iter().filter_map(|standing| standing.cells.get(*place));
        cells.any(|cell| matches!(cell, Cell::Compared(compared) if compared.estimate.is_some()))
    };
    let (tested, answers): (Vec<usize>, Vec<usize>) = places.partition(is_tested);
    let names = |places: &[usize]| {
        places.iter().map(|place| table.columns[*place].name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    if !tested.is_empty() {
        lines.push(format!(
            "est.: difference and p-value are those of the gp-IRT estimates (swap test), the counts those of the answers: {}",
            names(&tested)
        ));
    }
    if !answers.is_empty() {
        lines.push(format!(
            "gp-IRT columns: compared are the answers that the estimates are made from, not the estimates (`--gp-irt` tests \
             these): {}",
            names(&answers)
        ));
    }
    lines
}

/// What the documents of right-or-wrong columns could show at all, given how many of them differ between these trials.
fn detectable(table: &ResultsTable, against: &Against) -> Option<String> {
    let mut columns = Vec::new();
    for (place, column) in table.columns.iter().enumerate() {
        let compared = against.standings.iter().filter_map(|standing| match standing.cells.get(place) {
            Some(Cell::Compared(compared)) => Some((compared.comparison.discordant?.total(), compared.comparison.n)),
            _ => None,
        });
        let compared: Vec<(u64, usize)> = compared.collect();
        let (differ, all) = compared.iter().fold((0, 0), |(differ, all), (m, n)| (differ + m, all + n));
        if let Some(n) = compared.first().map(|(_, n)| *n as u64).filter(|_| all > 0) {
            let found = power::detectable(n, differ as f64 / all as f64);
            let found = found.map_or_else(|| "none".to_owned(), |delta| format!("{:.1} points", 100.0 * delta));
            columns.push(format!("{} {found}", column.name));
        }
    }
    (!columns.is_empty()).then(|| {
        format!(
            "smallest true difference that these documents show four times of five, before correction, with as many of them \
             changing as here: {}",
            columns.join(", ")
        )
    })
}

/// The comparison of two rows, a line per column.
pub fn pair(names: (&str, &str), comparisons: &[(String, Comparison)]) -> Cells {
    let head = ["column", "n", names.0, names.1, "difference", "95 % interval", "only one right", "p", "Holm p", ""];
    let p: Vec<f64> = comparisons.iter().map(|(_, comparison)| comparison.p).collect();
    let adjusted = crate::stats::multiple::holm(&p);
    let rows = comparisons.iter().zip(adjusted).map(|((column, comparison), adjusted)| {
        vec![
            column.clone(),
            comparison.n.to_string(),
            value(Some(comparison.first)),
            value(Some(comparison.second)),
            format!("{} {}", difference(comparison), unit(comparison)).trim_end().to_owned(),
            interval(comparison),
            counts(comparison),
            p_value(comparison.p),
            p_value(adjusted),
            remark(comparison).to_owned(),
        ]
    });
    Cells { head: head.map(str::to_owned).to_vec(), rows: rows.collect() }
}
