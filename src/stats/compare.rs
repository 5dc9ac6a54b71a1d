//! Two models on the same items: which test, which interval.

use serde::Serialize;

use super::binary::{Discordant, bonett_price, mcnemar};
use super::distribution::t_quantile;
use super::items::Items;
use super::permutation::{self, Draws};
use super::{FEWEST_DISCORDANT, Interval, bootstrap, interval, mean, ratio, variance};

/// Which test gave the p-value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// McNemar's exact test, for right or wrong.
    McNemar,
    /// Sign flips of the item differences, for graded scores.
    SignFlip,
    /// Exchange of each item's answers, for scores that are no mean.
    Swap,
}

/// Two models compared; every difference is first minus second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Items of both.
    pub n: usize,
    /// Score of the first.
    pub first: f64,
    /// Score of the second.
    pub second: f64,
    /// First minus second.
    pub difference: f64,
    /// Paired standard error of the difference; none of fewer than two items.
    pub stderr: Option<f64>,
    /// 95 % interval of the difference; none where there are too few items for one.
    pub interval: Option<Interval>,
    /// Items that only one of the two has right, for right or wrong.
    pub discordant: Option<Discordant>,
    /// Items whose scores differ at all.
    pub n_changed: u64,
    /// Two-sided p-value.
    pub p: f64,
    /// Of which test.
    pub test: Test,
}

impl Comparison {
    /// Whether no outcome on so few differing items could be significant, even before any correction.
    pub fn cannot_be_significant(&self) -> bool {
        self.n_changed < FEWEST_DISCORDANT
    }
}

/// Compares two models. None where they have no items, unequally many, or items of different kinds.
pub fn compare(first: &Items, second: &Items, seed: u64) -> Option<Comparison> {
    let n = first.len();
    if n == 0 || second.len() != n {
        return None;
    }
    let (discordant, p, test) = match (first, second) {
        (Items::Binary(a), Items::Binary(b)) => {
            let discordant = Discordant::of(a, b);
            (Some(discordant), mcnemar(discordant), Test::McNemar)
        }
        (Items::Ratio(_, one), Items::Ratio(_, other)) => {
            (*one == *other).then_some(())?;
            (None, swap_p(first, second, seed)?, Test::Swap)
        }
        _ => (None, permutation::sign_flip_p(&differences(first, second)?, seed), Test::SignFlip),
    };
    let (score, other) = (first.score(), second.score());
    Some(Comparison {
        n,
        first: score,
        second: other,
        difference: score - other,
        stderr: paired_standard_error(first, second),
        interval: bounds(first, second, interval::two_sided_z(0.95), 0.975, seed),
        discordant,
        n_changed: n_changed(first, second),
        p,
        test,
    })
}

/// Item differences; none of ratios.
fn differences(first: &Items, second: &Items) -> Option<Vec<f64>> {
    let (first, second) = (first.values()?, second.values()?);
    Some(first.iter().zip(&second).map(|(a, b)| a - b).collect())
}

/// Items whose scores differ.
pub fn n_changed(first: &Items, second: &Items) -> u64 {
    let count = |pairs: &mut dyn Iterator<Item = bool>| pairs.filter(|differs| *differs).count() as u64;
    match (first, second) {
        (Items::Ratio(a, _), Items::Ratio(b, _)) => count(&mut a.iter().zip(b).map(|(a, b)| a != b)),
        _ => count(&mut differences(first, second).unwrap_or_default().iter().map(|d| *d != 0.0)),
    }
}

/// Standard error of the difference from the items' paired influence: `s_d / √n` of plain means.
pub fn paired_standard_error(first: &Items, second: &Items) -> Option<f64> {
    Some((paired_variance(first, second)? / first.len() as f64).sqrt())
}

/// Variance of one item's paired influence on the difference.
pub fn paired_variance(first: &Items, second: &Items) -> Option<f64> {
    let pairs: Vec<f64> = first.influence().iter().zip(second.influence()).map(|(a, b)| a - b).collect();
    variance(&pairs)
}

/// The exchange draws of the difference, for tests across tasks.
pub fn draws(first: &Items, second: &Items, n_draws: usize, seed: u64) -> Option<Draws> {
    match (first, second) {
        (Items::Ratio(a, scale), Items::Ratio(b, _)) => {
            Some(permutation::swap(|exchanged| exchanged_difference(a, b, *scale, exchanged), n_draws, seed))
        }
        _ => Some(permutation::sign_flip(&differences(first, second)?, n_draws, seed)),
    }
}

fn swap_p(first: &Items, second: &Items, seed: u64) -> Option<f64> {
    let (Items::Ratio(a, scale), Items::Ratio(b, _)) = (first, second) else { return None };
    let changed: Vec<usize> = (0..a.len()).filter(|item| a[*item] != b[*item]).collect();
    Some(permutation::swap_p(|exchanged| exchanged_difference(a, b, *scale, exchanged), &changed, seed))
}

/// Difference of two ratios, the answers to some items exchanged.
fn exchanged_difference(
    a: &[(f64, f64)],
    b: &[(f64, f64)],
    scale: ratio::Scale,
    exchanged: Option<&dyn Fn(usize) -> bool>,
) -> f64 {
    let places: Vec<bool> = (0..a.len()).map(|item| exchanged.is_some_and(|exchanged| exchanged(item))).collect();
    let score = |own: &[(f64, f64)], other: &[(f64, f64)]| {
        let chosen = places.iter().enumerate().map(|(item, swapped)| if *swapped { other[item] } else { own[item] });
        ratio::score_of(chosen, scale)
    };
    score(a, b) - score(b, a)
}

/// Bounds of the difference: Bonett and Price with `z` for right or wrong; otherwise percentiles of a paired bootstrap
/// from 200 items and 20 different ones up, and Student's t on fewer. `upper` is the cumulative level of the upper bound (.975, .95), the lower
/// one being its mirror.
pub fn bounds(first: &Items, second: &Items, z: f64, upper: f64, seed: u64) -> Option<Interval> {
    let n = first.len();
    if let (Items::Binary(a), Items::Binary(b)) = (first, second) {
        return Some(bonett_price(Discordant::of(a, b), n as u64, z));
    }
    if n < bootstrap::FEWEST_ITEMS || n_changed(first, second) < bootstrap::FEWEST_CHANGED {
        let half =
            t_quantile(upper, n.checked_sub(1).filter(|df| *df > 0)? as f64) * paired_standard_error(first, second)?;
        return Some(Interval::around(first.score() - second.score(), half));
    }
    let drawn = match (first, second) {
        (Items::Ratio(a, scale), Items::Ratio(b, _)) => bootstrap::resample(n, bootstrap::DRAWS, seed, |items| {
            let score = |of: &[(f64, f64)]| ratio::score_of(items.iter().map(|i| of[*i]), *scale);
            score(a) - score(b)
        }),
        _ => {
            let differences = differences(first, second)?;
            bootstrap::resample(n, bootstrap::DRAWS, seed, |items| {
                mean(&items.iter().map(|i| differences[*i]).collect::<Vec<f64>>())
            })
        }
    };
    bootstrap::percentile_interval(&drawn, 1.0 - upper, upper)
}
