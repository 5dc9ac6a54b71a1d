//! The exchange test of an objective: if a trial and the leader were alike, which of the two gave which answers to a document
//! would be a coin toss. In every draw the answers to a document change sides in all columns of its task together, and the
//! difference of the objective is computed anew.
//!
//! It is exact for whatever the objective does with the scores. For one graded column it is the sign-flip test, for one loss
//! column the swap test of [`crate::stats::permutation`].

use super::objective::{Measure, Objective};
use crate::stats::Items;
use crate::stats::permutation::Draws;
use crate::stats::random::{stream, word};
use crate::stats::ratio::Scale;

/// Draws of a test: a p-value of .1 is known to ±.006.
const DRAWS: usize = 2_000;

/// A column of the two as sums that an exchange moves from one to the other.
struct Moved {
    /// Which coins its documents toss.
    stream: u64,
    /// Sums of the trial and of the leader: losses and units, or right answers and documents.
    sums: [(f64, f64); 2],
    /// What exchanging a document adds to the trial's sums, and takes from the leader's.
    steps: Vec<(usize, f64, f64)>,
    /// None of plain means.
    scale: Option<Scale>,
}

impl Moved {
    /// None where the two hold different things.
    fn of(stream: u64, trial: &Items, leader: &Items) -> Option<Self> {
        let (pairs, scale) = (parts(trial), scale_of(trial));
        let other = parts(leader);
        (pairs.len() == other.len() && scale == scale_of(leader)).then_some(())?;
        let sum = |of: &[(f64, f64)]| of.iter().fold((0.0, 0.0), |sum, item| (sum.0 + item.0, sum.1 + item.1));
        let both = pairs.iter().zip(&other).enumerate();
        let steps = both
            .map(|(document, (own, other))| (document, other.0 - own.0, other.1 - own.1))
            .filter(|(_, value, units)| *value != 0.0 || *units != 0.0)
            .collect();
        Some(Self { stream, sums: [sum(&pairs), sum(&other)], steps, scale })
    }

    /// Scores of the trial and of the leader in a draw; none: as they are.
    fn scores(&self, draw: Option<u64>) -> [f64; 2] {
        let mut moved = (0.0, 0.0);
        if let Some(draw) = draw {
            let (mut place, mut coins) = (u64::MAX, 0);
            for (document, value, units) in &self.steps {
                let at = (*document / 64) as u64;
                if at != place {
                    (place, coins) = (at, word(self.stream, draw, at));
                }
                if (coins >> (document % 64)) & 1 == 1 {
                    moved = (moved.0 + value, moved.1 + units);
                }
            }
        }
        let [trial, leader] = self.sums;
        let score = |value: f64, units: f64| self.scale.map_or(value / units, |scale| scale.of(value / units));
        [score(trial.0 + moved.0, trial.1 + moved.1), score(leader.0 - moved.0, leader.1 - moved.1)]
    }
}

/// Value and units of every document: of means, the score and 1.
fn parts(items: &Items) -> Vec<(f64, f64)> {
    match items {
        Items::Ratio(items, _) => items.clone(),
        _ => items.values().unwrap_or_default().into_iter().map(|value| (value, 1.0)).collect(),
    }
}

fn scale_of(items: &Items) -> Option<Scale> {
    if let Items::Ratio(_, scale) = items { Some(*scale) } else { None }
}

/// The difference of the objective, trial minus leader, as found and under exchange. `others` are the scores of the other
/// contenders, turned. None where the two cannot be set side by side.
pub fn difference(
    measures: &[Measure],
    objective: &Objective,
    trial: &[Items],
    leader: &[Items],
    others: &[Vec<f64>],
    seed: u64,
) -> Option<Draws> {
    let moved = measures.iter().zip(trial.iter().zip(leader));
    let moved: Vec<Moved> = moved
        .map(|(measure, (trial, leader))| Moved::of(stream(seed, &measure.task), trial, leader))
        .collect::<Option<_>>()?;
    let of = |draw: Option<u64>| {
        let scores: Vec<[f64; 2]> = moved.iter().map(|column| column.scores(draw)).collect();
        let turned = |side: usize| -> Vec<f64> {
            measures.iter().zip(&scores).map(|(measure, scores)| measure.turned(scores[side])).collect()
        };
        let (own, other) = (turned(0), turned(1));
        let value = |own: &[f64], rival: &[f64]| match objective {
            Objective::Weighted(_) => objective.value(own, &[]),
            Objective::WorstRank => {
                let rivals: Vec<Vec<f64>> = others.iter().cloned().chain([rival.to_vec()]).collect();
                objective.value(own, &rivals)
            }
        };
        value(&own, &other) - value(&other, &own)
    };
    Some(Draws { observed: of(None), drawn: (0..DRAWS as u64).map(|draw| of(Some(draw))).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(task: &str, higher_is_better: bool) -> Measure {
        Measure { column: task.to_owned(), task: task.to_owned(), higher_is_better }
    }

    fn losses(shift: f64) -> Items {
        let item = |i: usize| {
            let units = 50.0 + (i % 7) as f64 * 40.0;
            ((0.7 + 0.01 * (i % 5) as f64 + shift * (1.0 + (i % 3) as f64)) * units, units)
        };
        Items::Ratio((0..60).map(item).collect(), Scale::Bits)
    }

    #[test]
    fn one_column_has_the_p_value_of_its_own_test() {
        let (a, b) = (losses(0.001), losses(0.0));
        let objective = Objective::Weighted(vec![1.0]);
        let draws =
            difference(&[measure("t", false)], &objective, std::slice::from_ref(&a), std::slice::from_ref(&b), &[], 3)
                .unwrap();
        assert!((draws.observed - (b.score() - a.score())).abs() < 1e-12);
        // Every document got worse: next to no exchange looks like that.
        assert!(draws.p() < 0.001, "{}", draws.p());
        let graded = |shift: f64| {
            Items::Graded(
                (0..40).map(|i| 0.3 + f64::from(i % 4) * 0.1 + if i % 3 == 0 { -shift } else { shift }).collect(),
            )
        };
        let (a, b) = (graded(0.05), graded(0.0));
        let p =
            difference(&[measure("t", true)], &objective, std::slice::from_ref(&a), std::slice::from_ref(&b), &[], 3)
                .unwrap()
                .p();
        let expected = crate::stats::compare(&a, &b, 3).unwrap().p;
        assert!((p - expected).abs() < 0.03, "{p} {expected}");
    }

    #[test]
    fn columns_of_one_task_change_sides_together() {
        // What the one column wins on a document the other loses: their sum never differs, and no draw says otherwise.
        let a = Items::Binary((0..50).map(|i| i % 3 == 0).collect());
        let b = Items::Binary((0..50).map(|i| i % 3 != 0).collect());
        let objective = Objective::Weighted(vec![1.0, 1.0]);
        let measures = [measure("t", true), measure("t", true)];
        let draws = difference(&measures, &objective, &[a.clone(), b.clone()], &[b, a], &[], 1).unwrap();
        assert!(draws.drawn.iter().all(|drawn| drawn.abs() < 1e-12));
    }
}
