//! Several merge seeds of one recipe: how far the seed moves the score, and the standard error that counts it.
//!
//! A merge seed is a new model each; a repeated generation is not, and is averaged within its item before it comes here.

use serde::Serialize;

use super::distribution::{t_cdf, t_quantile};
use super::{Interval, mean, variance};

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
    /// Degrees of freedom of that, those of the items and those of the seeds weighed as Satterthwaite (1946) does: K − 1
    /// where the seed makes all of it, near n − 1 where it makes nothing.
    pub freedom: Option<f64>,
}

impl SeedSummary {
    /// 95 % interval of the mean, by Student's t: few seeds say little of their spread.
    pub fn interval(&self) -> Option<Interval> {
        let half = t_quantile(0.975, self.freedom?) * self.stderr?;
        Some(Interval::around(self.mean, half))
    }

    /// Two-sided p-value, by Student's t, of a mean as far from zero where there is nothing to find: of a summary of differences.
    pub fn p(&self) -> Option<f64> {
        let (stderr, freedom) = self.stderr.zip(self.freedom)?;
        if self.mean == 0.0 || stderr == 0.0 {
            return Some(if self.mean == 0.0 { 1.0 } else { 0.0 });
        }
        Some((2.0 * t_cdf(-self.mean.abs() / stderr, freedom)).min(1.0))
    }
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
    let between = variance(&means);
    let seed_variance = between.zip(within).map(|(between, within)| (between - mean(&within) / n as f64).max(0.0));
    let of_items = variance(&item_means).map(|variance| variance / n as f64);
    let square = of_items.zip(seed_variance).map(|(items, seeds)| items + seeds / k as f64);
    let freedom = square.zip(of_items).zip(between).map(|((square, items), between)| {
        // The estimate of the seeds' part is as uncertain as the variance of seed means that it is made from.
        let unsure = items * items / (n - 1) as f64 + (between / k as f64).powi(2) / (k - 1) as f64;
        (square * square / unsure).clamp((k - 1) as f64, 1e6)
    });
    Some(SeedSummary {
        k,
        mean: mean(&means),
        min: means.iter().copied().fold(f64::INFINITY, f64::min),
        max: means.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        seed_sd: seed_variance.map(f64::sqrt),
        stderr: square.map(f64::sqrt),
        freedom,
    })
}
