//! Recipes that were drawn with several merge seeds: one summary a recipe and column.

use serde::Serialize;

use super::against::Entrant;
use super::align::align;
use super::outcomes::Outcomes;
use crate::stats::Items;
use crate::stats::seeds::{SeedSummary, summarise};

/// A recipe of a random method over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeedGroup {
    /// What its trials share in their names.
    pub name: String,
    /// Names of its trials.
    pub trials: Vec<String>,
    /// Column by column: the scores; none where a seed has no samples, other documents, or the column is no plain mean.
    pub summaries: Vec<Option<SeedSummary>>,
    /// Column by column: the difference from the reference, by the same formula on the item differences.
    pub differences: Vec<Option<SeedSummary>>,
}

/// Sums up recipes. `groups` holds their names and the places of their trials among the entrants.
pub fn seed_groups(
    groups: &[(String, Vec<usize>)],
    entrants: &[Entrant],
    n_columns: usize,
    reference: Option<&Entrant>,
) -> Vec<SeedGroup> {
    groups
        .iter()
        .map(|(name, places)| {
            let members: Vec<&Entrant> = places.iter().filter_map(|place| entrants.get(*place)).collect();
            SeedGroup {
                name: name.clone(),
                trials: members.iter().map(|entrant| entrant.name.clone()).collect(),
                summaries: (0..n_columns).map(|column| summary(&members, column)).collect(),
                differences: (0..n_columns)
                    .map(|column| difference(&members, &vec![reference?; members.len()], (column, column)))
                    .collect(),
            }
        })
        .collect()
}

/// One column of a recipe over its seeds.
///
/// Losses are no means of documents: their summary is over the influences, shifted to the score.
pub fn summary(members: &[&Entrant], column: usize) -> Option<SeedSummary> {
    let first = outcomes(members.first()?, column)?;
    let scores = members.iter().map(|member| {
        let pair = align(outcomes(member, column)?, first, false).ok()?;
        Some(linear(&pair.first.items))
    });
    summarise(&scores.collect::<Option<Vec<_>>>()?)
}

/// What a recipe scores more than another one, `others[k]` with the seed of `members[k]` (or the same trial each time), in
/// columns of the numbers `columns`: the same summary of the item differences.
pub fn difference(members: &[&Entrant], others: &[&Entrant], columns: (usize, usize)) -> Option<SeedSummary> {
    let first = outcomes(members.first()?, columns.0)?;
    let scores = members.iter().zip(others).map(|(member, other)| {
        let (own, other) = (outcomes(member, columns.0)?, outcomes(other, columns.1)?);
        align(own, first, false).ok()?;
        let pair = align(own, other, false).ok()?;
        let (own, other) = (linear(&pair.first.items), linear(&pair.second.items));
        Some(own.iter().zip(other).map(|(own, other)| own - other).collect())
    });
    summarise(&scores.collect::<Option<Vec<Vec<f64>>>>()?)
}

/// What a trial scored in a column that is a mean or a ratio of documents.
fn outcomes(entrant: &Entrant, column: usize) -> Option<&Outcomes> {
    entrant.outcomes.get(column)?.as_ref().filter(|outcomes| !outcomes.is_estimate)
}

/// Numbers per document whose mean is the score, exactly for means and to first order for ratios.
fn linear(items: &Items) -> Vec<f64> {
    match items.values() {
        Some(values) => values,
        None => items.influence().into_iter().map(|influence| items.score() + influence).collect(),
    }
}
