//! Every trial beside one reference: the tests of a table, corrected for how many there are.
//!
//! The family of a correction is every distinct trial that is compared in a column. Trials with equal weights are one trial;
//! the later ones show the first one's comparison and are not counted.

use std::collections::HashMap;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::align::align;
use super::outcomes::Outcomes;
use crate::stats::multiple::{expected_best, holm};
use crate::stats::permutation::{DRAWS, Draws, overall};
use crate::stats::{Comparison, LEVEL, compare};

/// A trial as it goes into comparisons.
#[derive(Debug, Clone, Default)]
pub struct Entrant {
    /// Its name.
    pub name: String,
    /// Names the bytes of its model: trials with the same are twins.
    pub weights: Option<String>,
    /// What it scored, column by column; none where there is no score or no samples.
    pub outcomes: Vec<Option<Outcomes>>,
    /// The samples files that these come from, for their texts; none for stored outcomes.
    pub files: Vec<Option<PathBuf>>,
}

/// All trials beside the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// Name of the reference.
    pub reference: String,
    /// One per trial, in their order.
    pub standings: Vec<Standing>,
    /// Column by column, how far the best of the distinct trials is expected to stand above their mean by chance alone,
    /// in units of the score; none where nothing is known of their spread.
    pub selection_excess: Vec<Option<f64>>,
}

/// One trial beside the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Its name.
    pub trial: String,
    /// An earlier trial with the same weights.
    pub twin_of: Option<String>,
    /// Column by column.
    pub cells: Vec<Cell>,
    /// One test over all tasks, one column each.
    pub overall: Option<Overall>,
}

/// The test across tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Overall {
    /// Sum over tasks of the difference in units of its spread; positive is better than the reference.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// Corrected for the number of trials (Holm).
    pub p_adjusted: f64,
    /// Tasks in it.
    pub n_tasks: usize,
}

/// A trial and the reference in one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// This is the reference.
    Reference,
    /// Compared.
    Compared(Compared),
    /// Not comparable, for this reason.
    Apart(String),
    /// One of the two has no score or no samples.
    Absent,
}

/// A comparison in its table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Trial minus reference.
    pub comparison: Comparison,
    /// The p-value corrected within the column (Holm).
    pub p_adjusted: f64,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Whether this row is the best of its column: it was picked on these very documents.
    pub is_best: bool,
}

impl Compared {
    /// Whether the difference is significant at .05 after correction, and if so whether the trial is better.
    pub fn significance(&self) -> Option<bool> {
        let better = (self.comparison.difference > 0.0) == self.higher_is_better;
        (self.p_adjusted < LEVEL && self.comparison.difference != 0.0).then_some(better)
    }
}

/// Sets every entrant beside the one at `reference`. `tasks` names the task of each column.
pub fn against(tasks: &[&str], entrants: &[Entrant], reference: usize, seed: u64) -> Option<Against> {
    let base = entrants.get(reference)?;
    let originals = originals(entrants, reference);
    let cells: Vec<Vec<Cell>> = entrants
        .par_iter()
        .enumerate()
        .map(|(index, entrant)| {
            let column = |column: usize| match (entrant.outcomes.get(column), base.outcomes.get(column)) {
                _ if index == reference => Cell::Reference,
                (Some(Some(one)), Some(Some(other))) => cell(one, other, seed),
                _ => Cell::Absent,
            };
            (0..tasks.len()).map(column).collect()
        })
        .collect();
    let overalls: Vec<Option<(Draws, usize)>> = entrants
        .par_iter()
        .enumerate()
        .map(|(index, entrant)| (index != reference).then(|| across(tasks, entrant, base, seed)).flatten())
        .collect();
    let mut standings: Vec<Standing> = entrants
        .iter()
        .zip(cells)
        .enumerate()
        .map(|(index, (entrant, cells))| Standing {
            trial: entrant.name.clone(),
            twin_of: (originals[index] != index).then(|| entrants[originals[index]].name.clone()),
            cells,
            overall: overalls[index].as_ref().map(|(draws, n_tasks)| Overall {
                statistic: draws.observed,
                p: draws.p(),
                p_adjusted: draws.p(),
                n_tasks: *n_tasks,
            }),
        })
        .collect();
    for column in 0..tasks.len() {
        correct(&mut standings, &originals, column);
        mark_best(&mut standings, &originals, entrants, column);
    }
    correct_overall(&mut standings, &originals);
    let excess = |column| selection_excess(entrants, &originals, column);
    Some(Against { reference: base.name.clone(), standings, selection_excess: (0..tasks.len()).map(excess).collect() })
}

/// By entrant, the first one with its weights; a twin of the reference is the reference.
fn originals(entrants: &[Entrant], reference: usize) -> Vec<usize> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let order = std::iter::once(reference).chain((0..entrants.len()).filter(|index| *index != reference));
    let mut originals = vec![0; entrants.len()];
    for index in order {
        originals[index] = match &entrants[index].weights {
            Some(weights) => *first.entry(weights).or_insert(index),
            None => index,
        };
    }
    originals
}

fn cell(trial: &Outcomes, reference: &Outcomes, seed: u64) -> Cell {
    let pair = match align(trial, reference, false) {
        Ok(pair) => pair,
        Err(reason) => return Cell::Apart(reason.to_string()),
    };
    match pair.compare(seed) {
        Some(comparison) => Cell::Compared(Compared {
            p_adjusted: comparison.p,
            comparison,
            higher_is_better: trial.higher_is_better,
            is_best: false,
        }),
        None => Cell::Absent,
    }
}

/// The first comparable column of every task, tested together, up meaning better.
fn across(tasks: &[&str], entrant: &Entrant, base: &Entrant, seed: u64) -> Option<(Draws, usize)> {
    let mut done: Vec<&str> = Vec::new();
    let mut draws = Vec::new();
    for (column, task) in tasks.iter().enumerate() {
        let (Some(Some(one)), Some(Some(other))) = (entrant.outcomes.get(column), base.outcomes.get(column)) else {
            continue;
        };
        if done.contains(task) {
            continue;
        }
        let Ok(pair) = align(one, other, false) else { continue };
        let Some(mut of_task) = compare::draws(&one.items, &other.items, DRAWS, pair.seed(seed)) else { continue };
        if !one.higher_is_better {
            of_task.observed = -of_task.observed;
            of_task.drawn.iter_mut().for_each(|drawn| *drawn = -*drawn);
        }
        done.push(task);
        draws.push(of_task);
    }
    Some((overall(&draws)?, draws.len()))
}

fn compared(standing: &mut Standing, column: usize) -> Option<&mut Compared> {
    match standing.cells.get_mut(column) {
        Some(Cell::Compared(compared)) => Some(compared),
        _ => None,
    }
}

/// Holm over the distinct trials of a column; a twin has the value of its original.
fn correct(standings: &mut [Standing], originals: &[usize], column: usize) {
    let distinct: Vec<usize> = (0..standings.len())
        .filter(|index| originals[*index] == *index && compared(&mut standings[*index], column).is_some())
        .collect();
    let p: Vec<f64> = distinct
        .iter()
        .filter_map(|index| compared(&mut standings[*index], column).map(|compared| compared.comparison.p))
        .collect();
    let adjusted: HashMap<usize, f64> = distinct.into_iter().zip(holm(&p)).collect();
    for (index, standing) in standings.iter_mut().enumerate() {
        if let Some(compared) = compared(standing, column) {
            // A twin of the reference is in no family: whatever it differs by is noise.
            compared.p_adjusted = adjusted.get(&originals[index]).copied().unwrap_or(1.0);
        }
    }
}

fn correct_overall(standings: &mut [Standing], originals: &[usize]) {
    // A trial that was compared and differs nowhere is one of the family too.
    let is_compared = |standing: &Standing| standing.cells.iter().any(|cell| matches!(cell, Cell::Compared(_)));
    let distinct: Vec<usize> =
        (0..standings.len()).filter(|index| originals[*index] == *index && is_compared(&standings[*index])).collect();
    let p: Vec<f64> = distinct.iter().map(|index| standings[*index].overall.map_or(1.0, |overall| overall.p)).collect();
    let adjusted: HashMap<usize, f64> = distinct.into_iter().zip(holm(&p)).collect();
    for (index, standing) in standings.iter_mut().enumerate() {
        if let Some(overall) = &mut standing.overall {
            overall.p_adjusted = adjusted.get(&originals[index]).copied().unwrap_or(1.0);
        }
    }
}

/// The best score of a column by what is reported, where there are several distinct ones. The reference may be it, and
/// then no row is marked: it was named before.
fn mark_best(standings: &mut [Standing], originals: &[usize], entrants: &[Entrant], column: usize) {
    let oriented = |index: usize| {
        let outcomes = entrants[index].outcomes.get(column)?.as_ref()?;
        Some(if outcomes.higher_is_better { outcomes.reported? } else { -outcomes.reported? })
    };
    let distinct = || (0..entrants.len()).filter(|index| originals[*index] == *index);
    let best = distinct().filter_map(oriented).fold(f64::NEG_INFINITY, f64::max);
    // Of several that are equally good none was picked.
    if distinct().count() < 2 || distinct().filter(|index| oriented(*index) == Some(best)).count() != 1 {
        return;
    }
    for (index, standing) in standings.iter_mut().enumerate() {
        let is_best = oriented(index) == Some(best);
        if let Some(compared) = compared(standing, column) {
            compared.is_best = is_best;
        }
    }
}

/// Equal models that share most answers vary by half the variance of their differences; the best of k of them stands
/// [`expected_best`] standard deviations above the mean.
fn selection_excess(entrants: &[Entrant], originals: &[usize], column: usize) -> Option<f64> {
    let distinct: Vec<&Outcomes> = (0..entrants.len())
        .filter(|index| originals[*index] == *index)
        .filter_map(|index| entrants[index].outcomes.get(column)?.as_ref())
        .collect();
    let mut variances = Vec::new();
    for (place, one) in distinct.iter().enumerate() {
        for other in &distinct[place + 1..] {
            let pair = align(one, other, false).ok()?;
            variances.push(compare::paired_standard_error(&pair.first.items, &pair.second.items)?.powi(2));
        }
    }
    (!variances.is_empty()).then(|| expected_best(distinct.len()) * (crate::stats::mean(&variances) / 2.0).sqrt())
}

/// Column by column, the trial that is significantly better (Holm, .05) than every other distinct one; most often there
/// is none.
pub fn winners(tasks: &[&str], entrants: &[Entrant], seed: u64) -> Vec<Option<String>> {
    let originals = originals(entrants, 0);
    let distinct: Vec<usize> = (0..entrants.len()).filter(|index| originals[*index] == *index).collect();
    let winner = |column: usize| {
        let of = |index: usize| entrants[index].outcomes.get(column)?.as_ref();
        let score = |index: &usize| of(*index).and_then(|one| Some((one.reported?, one.higher_is_better)));
        let oriented = |index: &usize| score(index).map(|(value, up)| if up { value } else { -value });
        let scored: Vec<usize> = distinct.iter().copied().filter(|index| oriented(index).is_some()).collect();
        let best = *scored.iter().max_by(|a, b| oriented(a).unwrap_or(0.0).total_cmp(&oriented(b).unwrap_or(0.0)))?;
        let mut p = Vec::new();
        for other in scored.iter().filter(|other| **other != best) {
            match cell(of(best)?, of(*other)?, seed) {
                Cell::Compared(compared) if compared.significance() == Some(true) => p.push(compared.comparison.p),
                _ => return None,
            }
        }
        let is_sure = !p.is_empty() && holm(&p).into_iter().all(|p| p < LEVEL);
        is_sure.then(|| entrants[best].name.clone())
    };
    (0..tasks.len()).into_par_iter().map(winner).collect()
}
