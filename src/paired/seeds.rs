//! Recipes that were drawn with several merge seeds: one summary a recipe and column.

use serde::Serialize;

use super::against::Entrant;
use super::align::align;
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
                summaries: (0..n_columns).map(|column| summary(&members, column, None)).collect(),
                differences: (0..n_columns)
                    .map(|column| reference.and_then(|reference| summary(&members, column, Some(reference))))
                    .collect(),
            }
        })
        .collect()
}

/// Losses are no means of documents: their summary is over the influences, shifted to the score.
fn summary(members: &[&Entrant], column: usize, reference: Option<&Entrant>) -> Option<SeedSummary> {
    let of = |entrant: &Entrant| entrant.outcomes.get(column)?.clone();
    let first = of(members.first()?)?;
    if first.is_estimate {
        return None;
    }
    let reference = match reference {
        Some(reference) => Some(of(reference)?),
        None => None,
    };
    let scores: Vec<Vec<f64>> = members
        .iter()
        .map(|member| {
            let outcomes = of(member)?;
            let pair = align(&outcomes, &first, false).ok()?;
            let own = linear(&pair.first.items);
            let Some(reference) = &reference else { return Some(own) };
            let pair = align(&outcomes, reference, false).ok()?;
            Some(own.iter().zip(linear(&pair.second.items)).map(|(own, other)| own - other).collect())
        })
        .collect::<Option<_>>()?;
    summarise(&scores)
}

/// Numbers per document whose mean is the score, exactly for means and to first order for ratios.
fn linear(items: &Items) -> Vec<f64> {
    match items.values() {
        Some(values) => values,
        None => items.influence().into_iter().map(|influence| items.score() + influence).collect(),
    }
}
