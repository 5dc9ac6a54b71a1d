//! Tests of gp-IRT estimates themselves, where they were made: an estimate is no mean of its answers.

use std::collections::HashMap;

use serde::Serialize;

use super::against::Entrant;
use super::align::{Pair, align};

/// Two estimates and their swap test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Estimate of the first.
    pub first: f64,
    /// Estimate of the second.
    pub second: f64,
    /// First minus second.
    pub difference: f64,
    /// Two-sided p-value of the swap test.
    pub p: f64,
}

/// Tests by entrant and column, all against one reference.
pub type Estimates = HashMap<(usize, usize), Estimate>;

/// Two models' answers in the order of the documents, to be tested.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Entrant and column.
    pub place: (usize, usize),
    /// Harness task.
    pub task: String,
    /// The entrant's answers.
    pub first: Vec<f64>,
    /// The reference's.
    pub second: Vec<f64>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Asked {
    /// A pair's answers; none where its scores are no estimates.
    pub fn of(pair: &Pair<'_>, place: (usize, usize), seed: u64) -> Option<Self> {
        pair.first.is_estimate.then_some(())?;
        let (first, second) = (pair.first.in_file_order()?, pair.second.in_file_order()?);
        Some(Self { place, task: pair.first.task.clone(), first, second, seed: pair.seed(seed) })
    }
}

/// Every estimate that can be tested against the entrant at `reference`.
pub fn asked(n_columns: usize, entrants: &[Entrant], reference: usize, seed: u64) -> Vec<Asked> {
    let places = (0..entrants.len()).filter(|index| *index != reference);
    let places = places.flat_map(|index| (0..n_columns).map(move |column| (index, column)));
    let of = |index: usize, column: usize| entrants.get(index)?.outcomes.get(column)?.as_ref();
    let one = |place: (usize, usize)| {
        let pair = align(of(place.0, place.1)?, of(reference, place.1)?, false).ok()?;
        Asked::of(&pair, place, seed)
    };
    places.filter_map(one).collect()
}
