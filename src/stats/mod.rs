//! Statistics of paired scores: intervals, tests, corrections, detectable effects and gate verdicts.
//!
//! Pure functions on item vectors. Knows no files, no models and no tasks; every random draw comes from a counter
//! ([`random`]), so the same items and seed give the same number on any machine and at any thread count.
//!
//! One score: [`interval`]. Two models on the same items: [`compare`], which picks the test by the kind of [`Items`]. Many
//! comparisons: [`multiple`]. What could be seen at all: [`power`]. A nightly gate: [`gate`]. Several merge seeds: [`seeds`].

pub mod binary;
pub mod bootstrap;
pub mod compare;
pub mod distribution;
pub mod gate;
pub mod interval;
pub mod items;
pub mod multiple;
pub mod permutation;
pub mod power;
pub mod random;
pub mod ratio;
pub mod seeds;

pub use compare::{Comparison, Test, compare};
pub use items::Items;

/// Seed of every permutation and bootstrap, unless the caller names another: fixed, so that a table can be made again.
pub const SEED: u64 = 20_261_124;

/// Level below which a corrected p-value is called a difference.
pub const LEVEL: f64 = 0.05;

/// Fewest discordant items with which the exact test can reach [`LEVEL`]: with 5, the smallest p is .0625.
pub const FEWEST_DISCORDANT: u64 = 6;

/// A range of values.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// `centre ± half`.
    pub fn around(centre: f64, half: f64) -> Self {
        Self { low: centre - half, high: centre + half }
    }

    /// The interval of the negated quantity.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { low: -self.high, high: -self.low }
    }
}

/// Arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample variance `Σ(x − x̄)² / (n − 1)`; none of fewer than two values.
pub fn variance(values: &[f64]) -> Option<f64> {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    (values.len() > 1).then(|| squares / (values.len() - 1) as f64)
}
