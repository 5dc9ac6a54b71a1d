//! Two models on the same right-or-wrong items.

use serde::{Deserialize, Serialize};

use super::Interval;
use super::distribution::fair_binomial_up_to;

/// Items on which two models differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Discordant {
    /// The first model right, the second wrong.
    pub b: u64,
    /// The first model wrong, the second right.
    pub c: u64,
}

impl Discordant {
    /// Counts them.
    pub fn of(first: &[bool], second: &[bool]) -> Self {
        let count = |wanted: (bool, bool)| {
            first.iter().zip(second).filter(|(first, second)| (**first, **second) == wanted).count() as u64
        };
        Self { b: count((true, false)), c: count((false, true)) }
    }

    /// `m = b + c`.
    pub fn total(self) -> u64 {
        self.b + self.c
    }
}

/// McNemar's exact two-sided p-value (McNemar 1947): `min(1, 2·P[X ≤ min(b, c)])`, X ~ Binomial(b + c, ½).
pub fn mcnemar(Discordant { b, c }: Discordant) -> f64 {
    (2.0 * fair_binomial_up_to(b.min(c), b + c)).min(1.0)
}

/// One-sided p-value of "the first is worse": `P[X ≥ c]`, X ~ Binomial(b + c, ½).
pub fn mcnemar_worse(Discordant { b, c }: Discordant) -> f64 {
    // P[X ≥ c] = P[X ≤ m − c] = P[X ≤ b], the coin being fair.
    fair_binomial_up_to(b, b + c)
}

/// The smallest two-sided p-value that a net difference of `k` items can have, whatever the items: `2^(1−k)`.
pub fn smallest_p(k: u64) -> f64 {
    if k == 0 { 1.0 } else { 2.0_f64.powf(1.0 - k as f64).min(1.0) }
}

/// Interval of the difference of two shares over the same `n` items, with a given z (Bonett and Price 2012).
pub fn bonett_price(Discordant { b, c }: Discordant, n: u64, z: f64) -> Interval {
    let (p1, p2) = ((b + 1) as f64 / (n + 2) as f64, (c + 1) as f64 / (n + 2) as f64);
    let difference = p1 - p2;
    Interval::around(difference, z * ((p1 + p2 - difference * difference) / (n + 2) as f64).sqrt())
}
