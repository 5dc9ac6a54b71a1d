//! Every trial beside one reference: the tests of a table, corrected for how many there are.
//!
//! The family of a correction is every distinct trial that is compared in a column. Trials with equal weights are one trial;
//! the later ones show the first one's comparison and are not counted.

use std::collections::HashMap;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::across::across;
use super::align::{Misaligned, Pair, align};
use super::estimates::{Estimate, Estimates};
use super::outcomes::Outcomes;
use crate::stats::multiple::{benjamini_hochberg, expected_best, holm};
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
    /// The samples files that these come from, for their texts; none for stored outcomes, several for documents that were
    /// asked in portions.
    pub files: Vec<Vec<PathBuf>>,
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
    /// Trial minus reference; of an estimate, that of the answers it is made from.
    pub comparison: Comparison,
    /// The swap test of a gp-IRT estimate, where it was made.
    pub estimate: Option<Estimate>,
    /// The p-value corrected within the column (Holm).
    pub p_adjusted: f64,
    /// The share of false discoveries among the trials of the column with p-values as small (Benjamini and Hochberg): for
    /// a first look at large grids, never for a claim about one trial.
    pub q: f64,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Whether this row is the best of its column: it was picked on these very documents.
    pub is_best: bool,
}

impl Compared {
    /// Whether the difference is significant at .05 after correction, and if so whether the trial is better.
    pub fn significance(&self) -> Option<bool> {
        let difference = self.estimate.map_or(self.comparison.difference, |estimate| estimate.difference);
        (self.p_adjusted < LEVEL && difference != 0.0).then_some((difference > 0.0) == self.higher_is_better)
    }

    /// The p-value that decides: of the estimates where they were tested, else of the answers.
    pub fn p(&self) -> f64 {
        self.estimate.map_or(self.comparison.p, |estimate| estimate.p)
    }

    /// Whether no outcome on so few differing documents could be significant; an estimate weighs them unevenly, and is asked
    /// itself.
    pub fn cannot_be_significant(&self) -> bool {
        self.estimate.is_none() && self.comparison.cannot_be_significant()
    }
}

/// Sets every entrant beside the one at `reference`. `tasks` names the task of each column; `estimates` are the tests of
/// gp-IRT estimates that were made, and decide where there are any.
pub fn against(
    tasks: &[&str],
    entrants: &[Entrant],
    reference: usize,
    estimates: &Estimates,
    seed: u64,
) -> Option<Against> {
    let base = entrants.get(reference)?;
    let originals = originals(entrants, reference);
    let mut standings: Vec<Standing> = entrants
        .par_iter()
        .enumerate()
        .map(|(index, entrant)| {
            let mut standing = if index == reference {
                let cells = tasks.iter().map(|_| Cell::Reference).collect();
                Standing { trial: entrant.name.clone(), twin_of: None, cells, overall: None }
            } else {
                standing(tasks.len(), entrant, base, seed)
            };
            for (column, cell) in standing.cells.iter_mut().enumerate() {
                if let (Cell::Compared(compared), Some(estimate)) = (cell, estimates.get(&(index, column))) {
                    compared.estimate = Some(*estimate);
                }
            }
            standing.twin_of = (originals[index] != index).then(|| entrants[originals[index]].name.clone());
            standing
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

/// One trial beside the reference, nothing corrected yet.
fn standing(n_columns: usize, entrant: &Entrant, base: &Entrant, seed: u64) -> Standing {
    let pairs: Vec<Option<Result<Pair<'_>, Misaligned>>> = (0..n_columns)
        .map(|column| match (entrant.outcomes.get(column), base.outcomes.get(column)) {
            (Some(Some(one)), Some(Some(other))) => Some(align(one, other, false)),
            _ => None,
        })
        .collect();
    let overall = across(pairs.iter().flatten().filter_map(|pair| pair.as_ref().ok().copied()), seed);
    Standing {
        trial: entrant.name.clone(),
        twin_of: None,
        cells: pairs.iter().map(|pair| cell(pair.as_ref(), seed)).collect(),
        overall: overall.map(|(draws, n_tasks)| Overall {
            statistic: draws.observed,
            p: draws.p(),
            p_adjusted: draws.p(),
            n_tasks,
        }),
    }
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

fn cell(pair: Option<&Result<Pair<'_>, Misaligned>>, seed: u64) -> Cell {
    let pair = match pair {
        Some(Ok(pair)) => pair,
        Some(Err(reason)) => return Cell::Apart(reason.to_string()),
        None => return Cell::Absent,
    };
    match pair.compare(seed) {
        Some(comparison) => Cell::Compared(Compared {
            p_adjusted: comparison.p,
            q: comparison.p,
            comparison,
            estimate: None,
            higher_is_better: pair.first.higher_is_better,
            is_best: false,
        }),
        None => Cell::Absent,
    }
}

fn compared(standing: &mut Standing, column: usize) -> Option<&mut Compared> {
    match standing.cells.get_mut(column) {
        Some(Cell::Compared(compared)) => Some(compared),
        _ => None,
    }
}

/// Corrects over the distinct trials of a column; a twin has the value of its original.
fn correct(standings: &mut [Standing], originals: &[usize], column: usize) {
    let distinct: Vec<usize> = (0..standings.len())
        .filter(|index| originals[*index] == *index && compared(&mut standings[*index], column).is_some())
        .collect();
    let p: Vec<f64> = distinct
        .iter()
        .filter_map(|index| compared(&mut standings[*index], column).map(|compared| compared.p()))
        .collect();
    let adjusted: HashMap<usize, (f64, f64)> =
        distinct.into_iter().zip(holm(&p).into_iter().zip(benjamini_hochberg(&p))).collect();
    for (index, standing) in standings.iter_mut().enumerate() {
        if let Some(compared) = compared(standing, column) {
            // A twin of the reference is in no family: whatever it differs by is noise.
            (compared.p_adjusted, compared.q) = adjusted.get(&originals[index]).copied().unwrap_or((1.0, 1.0));
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
            match cell(Some(&align(of(best)?, of(*other)?, false)), seed) {
                Cell::Compared(compared) if compared.significance() == Some(true) => p.push(compared.comparison.p),
                _ => return None,
            }
        }
        let is_sure = !p.is_empty() && holm(&p).into_iter().all(|p| p < LEVEL);
        is_sure.then(|| entrants[best].name.clone())
    };
    (0..tasks.len()).into_par_iter().map(winner).collect()
}
