//! Has the candidate become worse than the baseline by more than a margin? Yes, no, or not to be told from these items.
//!
//! Every difference here is oriented: candidate minus baseline, positive is better. Bounds are one-sided. The whole gate
//! fails if any of its critical tasks does, so each of `T` is tested at .05/T for FAIL; it passes only if all of them do,
//! which needs no correction, so each is tested at .05 for PASS.

use serde::Serialize;

use super::binary::{Discordant, mcnemar_worse};
use super::distribution::normal_quantile;
use super::items::Items;
use super::multiple::corrected_z;
use super::{Interval, LEVEL, compare};

/// What the gate says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// The lower bound is above the margin, or all answers are the same.
    Pass,
    /// Neither: more items are needed.
    Inconclusive,
    /// The upper bound is below the margin, or there is nothing to compare.
    Fail,
}

/// A task at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GateResult {
    /// The verdict.
    pub verdict: Verdict,
    /// Candidate minus baseline, positive is better.
    pub difference: f64,
    /// One-sided bounds of it: the lower one at .05, the upper one at .05 over the number of critical tasks. None where
    /// there are too few items for any.
    pub bounds: Option<Interval>,
    /// One-sided exact p-value of "the candidate is worse at all", whatever the margin (McNemar); of right or wrong only.
    pub p_worse: Option<f64>,
    /// Whether every item has the same score in both.
    pub identical: bool,
    /// Items with which a verdict could be expected (power .8) if the difference is as it looks; only where there is none
    /// yet, and not where the difference lies on the margin.
    pub items_needed: Option<u64>,
}

/// Compares candidate with baseline. `higher_is_better` orients; `n_tests` critical tasks share the level. None where the
/// two cannot be compared.
pub fn judge(
    candidate: &Items,
    baseline: &Items,
    margin: f64,
    higher_is_better: bool,
    n_tests: usize,
    seed: u64,
) -> Option<GateResult> {
    if candidate.is_empty() || candidate.len() != baseline.len() {
        return None;
    }
    let raw = candidate.score() - baseline.score();
    let difference = if higher_is_better { raw } else { -raw };
    let at = |n_tests: usize| {
        let upper = 1.0 - LEVEL / n_tests.max(1) as f64;
        let bounds = compare::bounds(candidate, baseline, corrected_z(n_tests), upper, seed);
        if higher_is_better { bounds } else { bounds.map(Interval::negated) }
    };
    let bounds = at(1).zip(at(n_tests)).map(|(pass, fail)| Interval { low: pass.low, high: fail.high });
    let identical = compare::n_changed(candidate, baseline) == 0;
    let verdict = match bounds {
        _ if identical => Verdict::Pass,
        Some(bounds) if bounds.low > -margin => Verdict::Pass,
        Some(bounds) if bounds.high < -margin => Verdict::Fail,
        _ => Verdict::Inconclusive,
    };
    let items_needed = (verdict == Verdict::Inconclusive)
        .then(|| {
            // What it would take to pass, where it looks as if it should, else to fail.
            let n_tests = if difference > -margin { 1 } else { n_tests };
            items_to_decide(candidate, baseline, difference + margin, corrected_z(n_tests))
        })
        .flatten();
    let p_worse = match (candidate, baseline) {
        (Items::Binary(now), Items::Binary(before)) => {
            let Discordant { b, c } = Discordant::of(now, before);
            Some(mcnemar_worse(if higher_is_better { Discordant { b, c } } else { Discordant { b: c, c: b } }))
        }
        _ => None,
    };
    Some(GateResult { verdict, difference, bounds, p_worse, identical, items_needed })
}

/// `(z₁ + z₂)²·ω² / δ²` with δ the distance from the margin; never fewer than there are.
fn items_to_decide(candidate: &Items, baseline: &Items, distance: f64, z: f64) -> Option<u64> {
    let n = candidate.len() as f64;
    // One more item of each kind, as in the interval: few discordant items say little of their share.
    let smoothing = if matches!(candidate, Items::Binary(_)) { 2.0 / (n + 2.0) } else { 0.0 };
    let variance = compare::paired_variance(candidate, baseline)? + smoothing;
    let needed = ((z + normal_quantile(super::power::POWER)).powi(2) * variance / (distance * distance)).ceil();
    (needed.is_finite() && needed < 1e9).then(|| (needed as u64).max(candidate.len() as u64 + 1))
}

/// The smallest margin that right-or-wrong items can judge at all: identical answers on `n` of them have the bounds
/// `±z·√2/(n+2)`, at the level that a task has for FAIL. The lower one, which decides about PASS, is never wider.
pub fn smallest_margin(n: u64, n_tests: usize) -> f64 {
    corrected_z(n_tests) * std::f64::consts::SQRT_2 / (n + 2) as f64
}

/// Items with which identical answers would pass a margin.
pub fn items_for_margin(margin: f64, n_tests: usize) -> u64 {
    let needed = (corrected_z(n_tests) * std::f64::consts::SQRT_2 / margin - 2.0).floor() + 1.0;
    if needed.is_finite() { needed.max(1.0) as u64 } else { u64::MAX }
}
