//! Losses that are a ratio of two sums: bits per byte, perplexity per word. Lower is better.
//!
//! The score is `f(Σ loss / Σ units)`, not a mean over items: long documents count for more. Its standard error comes from
//! the delta method (the ratio estimator of survey sampling), with `r = Σx / Σw` and influence `(x_i − r·w_i) / w̄`.

use super::variance;

/// From nats per unit to what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Bits per unit: nats / ln 2 (harness: `bits_per_byte`).
    Bits,
    /// `exp` of nats per unit (harness: `byte_perplexity`, `word_perplexity`).
    Perplexity,
}

impl Scale {
    /// What is shown of so many nats per unit.
    pub fn of(self, nats: f64) -> f64 {
        match self {
            Self::Bits => nats / std::f64::consts::LN_2,
            Self::Perplexity => nats.exp(),
        }
    }

    /// Its slope there.
    fn slope(self, nats: f64) -> f64 {
        match self {
            Self::Bits => std::f64::consts::LN_2.recip(),
            Self::Perplexity => nats.exp(),
        }
    }
}

/// `Σ nats / Σ units` of (nats, units).
fn nats_per_unit(items: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (nats, units) = items.fold((0.0, 0.0), |(nats, units), item| (nats + item.0, units + item.1));
    nats / units
}

/// The score of some items.
pub fn score(items: &[(f64, f64)], scale: Scale) -> f64 {
    score_of(items.iter().copied(), scale)
}

/// The score of items that are chosen one by one.
pub fn score_of(items: impl Iterator<Item = (f64, f64)>, scale: Scale) -> f64 {
    scale.of(nats_per_unit(items))
}

/// The influence of each item on the score; their mean is 0.
pub fn influence(items: &[(f64, f64)], scale: Scale) -> Vec<f64> {
    let ratio = nats_per_unit(items.iter().copied());
    let mean_units = items.iter().map(|item| item.1).sum::<f64>() / items.len() as f64;
    let slope = scale.slope(ratio);
    items.iter().map(|(nats, units)| slope * (nats - ratio * units) / mean_units).collect()
}

/// Standard error by the delta method: that of the mean influence.
pub fn standard_error(items: &[(f64, f64)], scale: Scale) -> Option<f64> {
    Some((variance(&influence(items, scale))? / items.len() as f64).sqrt())
}
