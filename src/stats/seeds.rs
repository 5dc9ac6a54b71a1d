//! Several merge seeds of one recipe: how far the seed moves the score, and the standard error that counts it.
//!
//! A merge seed is a new model each; a repeated generation is not, and is averaged within its item before it comes here.

use serde::Serialize;

use super::{mean, variance};

/// Scores of one recipe over its merge seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SeedSummary {
    /// Seeds.
    pub k: usize,
    /// Mean of the seed means.
    pub mean: f64,
    /// Lowest seed mean.
    pub min: f64,
    /// Highest seed mean.
    pub max: f64,
    /// Standard deviation due to the seed alone, what items add taken off; none with one seed ("single draw").
    pub seed_sd: Option<f64>,
    /// Standard error of the mean, over items and over seeds; none with one item or one seed.
    pub stderr: Option<f64>,
}

/// Sums up `scores[k][i]`: seed k, item i. None of nothing, or where seeds have unequal numbers of items.
///
/// `V_items = Var_i(ȳ_i)/n`, `s_b²` the variance of seed means, `w` the mean variance within an item over seeds,
/// `σ̂² = max(0, s_b² − w/n)`, `SE = √(V_items + σ̂²/K)`.
pub fn summarise(scores: &[Vec<f64>]) -> Option<SeedSummary> {
    let (k, n) = (scores.len(), scores.first()?.len());
    if n == 0 || scores.iter().any(|items| items.len() != n) {
        return None;
    }
    let means: Vec<f64> = scores.iter().map(|items| mean(items)).collect();
    let of_item = |item: usize| scores.iter().map(|items| items[item]).collect::<Vec<f64>>();
    let item_means: Vec<f64> = (0..n).map(|item| mean(&of_item(item))).collect();
    let within: Option<Vec<f64>> = (0..n).map(|item| variance(&of_item(item))).collect();
    let seed_variance =
        variance(&means).zip(within).map(|(between, within)| (between - mean(&within) / n as f64).max(0.0));
    let of_items = variance(&item_means).map(|variance| variance / n as f64);
    Some(SeedSummary {
        k,
        mean: mean(&means),
        min: means.iter().copied().fold(f64::INFINITY, f64::min),
        max: means.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        seed_sd: seed_variance.map(f64::sqrt),
        stderr: of_items.zip(seed_variance).map(|(items, seeds)| (items + seeds / k as f64).sqrt()),
    })
}
