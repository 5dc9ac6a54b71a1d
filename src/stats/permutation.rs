//! Permutation tests: if two models are alike, which of the two gave which answer is a coin toss.
//!
//! [`sign_flip`] is for means; [`swap`] for any function of the two item vectors (ratios, estimators). Both keep their
//! draws, so that [`overall`] can combine tasks: draw r of every task belongs to the same toss of all coins.

use super::random::coin;

/// Draws of a test, unless the caller asks for another number.
pub const DRAWS: usize = 10_000;

/// Most items that differ for which all sign vectors are gone through.
const MOST_ENUMERATED: usize = 20;

/// What counts as "as large": differences that are equal but for the order of summation are.
const TOLERANCE: f64 = 1e-12;

/// A statistic, and what it was under random exchanges of the two models.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws {
    /// As found.
    pub observed: f64,
    /// Under each exchange.
    pub drawn: Vec<f64>,
}

impl Draws {
    /// Two-sided p-value `(1 + #{|T*| ≥ |T|}) / (R + 1)`.
    pub fn p(&self) -> f64 {
        let as_large = self.drawn.iter().filter(|drawn| drawn.abs() >= self.observed.abs() - TOLERANCE).count();
        (1 + as_large) as f64 / (self.drawn.len() + 1) as f64
    }
}

/// Sign-flip draws of the mean difference.
pub fn sign_flip(differences: &[f64], n_draws: usize, seed: u64) -> Draws {
    let n = differences.len().max(1) as f64;
    // Items without a difference need no coin: among siblings they are most.
    let moved: Vec<(usize, f64)> =
        differences.iter().copied().enumerate().filter(|(_, difference)| *difference != 0.0).collect();
    let draw = |draw: usize| {
        let signed = moved.iter().map(|(item, d)| if coin(seed, draw as u64, *item) { *d } else { -d });
        signed.sum::<f64>() / n
    };
    Draws { observed: differences.iter().sum::<f64>() / n, drawn: (0..n_draws).map(draw).collect() }
}

/// Two-sided p-value of the sign-flip test: all sign vectors where at most 20 items differ, [`DRAWS`] random ones
/// otherwise. Items without a difference change no statistic and need no sign.
pub fn sign_flip_p(differences: &[f64], seed: u64) -> f64 {
    let moved: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    if moved.len() > MOST_ENUMERATED {
        return sign_flip(differences, DRAWS, seed).p();
    }
    let observed = moved.iter().sum::<f64>().abs();
    // Sums of all sign vectors of each half; every whole vector is one of the left and one of the right.
    let (left, right) = moved.split_at(moved.len() / 2);
    let (left, right) = (signed_sums(left), signed_sums(right));
    let as_large = |sum: f64| sum.abs() >= observed - TOLERANCE * moved.len().max(1) as f64;
    let n_as_large: usize = left.iter().map(|a| right.iter().filter(|b| as_large(a + **b)).count()).sum();
    n_as_large as f64 / (left.len() * right.len()) as f64
}

fn signed_sums(values: &[f64]) -> Vec<f64> {
    values.iter().fold(vec![0.0], |sums, value| sums.iter().flat_map(|sum| [sum + value, sum - value]).collect())
}

/// Swap draws: in each, an item's answers change models with probability ½ and `statistic` is computed anew.
/// `statistic(None)` is the observed one; `statistic(Some(swapped))` asks item by item.
pub fn swap(statistic: impl Fn(Option<&dyn Fn(usize) -> bool>) -> f64, n_draws: usize, seed: u64) -> Draws {
    let drawn = (0..n_draws).map(|draw| statistic(Some(&|item| coin(seed, draw as u64, item)))).collect();
    Draws { observed: statistic(None), drawn }
}

/// Most items that differ for which every exchange is gone through by [`swap_p`]: 8,192, fewer than [`DRAWS`].
const MOST_SWAPPED: usize = 13;

/// Two-sided p-value of the swap test. `changed` are the items whose answers differ: the others change nothing.
pub fn swap_p(statistic: impl Fn(Option<&dyn Fn(usize) -> bool>) -> f64, changed: &[usize], seed: u64) -> f64 {
    if changed.len() > MOST_SWAPPED {
        return swap(statistic, DRAWS, seed).p();
    }
    let observed = statistic(None).abs();
    let n_patterns = 1_usize << changed.len();
    let is_as_large = |pattern: &usize| {
        let exchanged = |item: usize| changed.binary_search(&item).is_ok_and(|place| (pattern >> place) & 1 == 1);
        statistic(Some(&exchanged)).abs() >= observed - TOLERANCE
    };
    (0..n_patterns).filter(is_as_large).count() as f64 / n_patterns as f64
}

/// One test across tasks: the sum of every task's statistic in units of its own spread under exchange, tasks exchanged
/// together. None where no task has a difference, or their draws are not equally many.
///
/// The spread is that of the draws (of sign flips, `√Σd² / n`), which an exchange does not change: the test stays exact.
pub fn overall(tasks: &[Draws]) -> Option<Draws> {
    let n_draws = tasks.first()?.drawn.len();
    let mut sum = Draws { observed: 0.0, drawn: vec![0.0; n_draws] };
    let mut any = false;
    for task in tasks {
        if task.drawn.len() != n_draws {
            return None;
        }
        let squares = task.observed * task.observed + task.drawn.iter().map(|drawn| drawn * drawn).sum::<f64>();
        let spread = (squares / (n_draws + 1) as f64).sqrt();
        if spread > TOLERANCE {
            any = true;
            sum.observed += task.observed / spread;
            sum.drawn.iter_mut().zip(&task.drawn).for_each(|(sum, drawn)| *sum += drawn / spread);
        }
    }
    any.then_some(sum)
}
