//! Made-up siblings in a race by the real rule: what it costs and what it misses. Chooses the defaults
//! (`tests/it/race_simulation.rs`) and tells `plan` what to expect.
//!
//! Trials answer items of very different difficulty (Rasch), so that two equal ones agree as siblings do: outcomes are
//! correlated .9, which at 60 % right means that 1 answer of 21 differs. Their true scores are spread around 60 %.

use super::draw;
use super::objective::{Measure, Objective};
use super::race::{Contender, Rule, decide};
use crate::stats::Items;
use crate::stats::distribution::normal_quantile;
use crate::stats::random::word;

/// Standard deviation of the items' difficulty in logits: outcomes are then correlated .9.
const DIFFICULTY: f64 = 16.0;

/// Mean of the trials' true scores.
const CENTRE: f64 = 0.6;

/// Spreads of true scores that are gone through: 1, 2 and 4 points.
pub const SPREADS: [f64; 3] = [0.01, 0.02, 0.04];

/// Trials that are expected to be asked at each rung, of `n_trials` on `n_items`: means over [`SPREADS`].
pub fn expected(rule: &Rule, n_trials: usize, n_items: usize) -> Vec<f64> {
    /// More say nothing else, and take long.
    const MOST: (usize, usize, u64) = (60, 2_000, 12);
    let (few_trials, few_items, n_studies) = (n_trials.min(MOST.0), n_items.min(MOST.1), MOST.2);
    let mut asked = vec![0.0; rule.rungs.len()];
    if few_trials == 0 || few_items == 0 {
        return asked;
    }
    for (place, spread) in SPREADS.iter().enumerate() {
        for study in 0..n_studies {
            let outcome = Study::new(1_000 * place as u64 + study, few_trials, few_items, *spread).race(rule);
            asked.iter_mut().zip(&outcome.asked).for_each(|(sum, n)| *sum += *n as f64);
        }
    }
    let scale = n_trials as f64 / few_trials as f64 / (n_studies as f64 * SPREADS.len() as f64);
    asked.iter().map(|sum| sum * scale).collect()
}

/// One race.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Trials that were asked at each rung.
    pub asked: Vec<usize>,
    /// Share of all (trial, item) pairs that was asked.
    pub used: f64,
    /// Whether the winner has the best score of all items.
    pub agrees: bool,
    /// Whether the best by all items is among the survivors.
    pub keeps_best: bool,
    /// Score of the best by all items minus that of the winner, on all items.
    pub regret: f64,
    /// The same of the true scores.
    pub true_regret: f64,
}

/// A study of `n_trials` on `n_items`, true scores spread by `spread` (0.02: 2 points). A function of `study`.
pub struct Study {
    truth: Vec<f64>,
    answers: Vec<Vec<bool>>,
}

/// Uniform numbers of a study.
fn uniform(study: u64, draw: u64, place: usize) -> f64 {
    ((word(study, draw, place as u64) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

impl Study {
    /// Draws it.
    pub fn new(study: u64, n_trials: usize, n_items: usize, spread: f64) -> Self {
        let normal = |draw: u64, place: usize| {
            // Box and Muller.
            let radius = (-2.0 * uniform(study, draw, 2 * place).ln()).sqrt();
            radius * (std::f64::consts::TAU * uniform(study, draw, 2 * place + 1)).cos()
        };
        let difficulty: Vec<f64> = (0..n_items).map(|item| DIFFICULTY * normal(0, item)).collect();
        let truth: Vec<f64> =
            (0..n_trials).map(|trial| (CENTRE + spread * normal(1, trial)).clamp(0.02, 0.98)).collect();
        // A logistic is near a normal of SD 1.7: the two together give the share that is right.
        let width = DIFFICULTY.hypot(1.7);
        let answers = truth.iter().enumerate().map(|(trial, truth)| {
            let ability = width * normal_quantile(*truth);
            let right = |(item, difficulty): (usize, &f64)| {
                let chance = 1.0 / (1.0 + (difficulty - ability).exp());
                uniform(study, 2 + trial as u64, item) < chance
            };
            difficulty.iter().enumerate().map(right).collect()
        });
        let answers = answers.collect();
        Self { truth, answers }
    }

    /// Races it.
    pub fn race(&self, rule: &Rule) -> Outcome {
        let n_items = self.answers.first().map_or(0, Vec::len);
        let score = |trial: usize| self.answers[trial].iter().filter(|right| **right).count() as f64 / n_items as f64;
        let portions = draw::portions(1, "items", n_items as u64, &rule.rungs, 0.0);
        let measure = Measure { column: String::new(), task: String::new(), higher_is_better: true };
        let objective = Objective::Weighted(vec![1.0]);
        let mut alive: Vec<usize> = (0..self.answers.len()).collect();
        let (mut asked, mut n_asked, mut items) = (Vec::new(), 0, Vec::new());
        for portion in &portions.rungs {
            asked.push(alive.len());
            n_asked += alive.len() * portion.len();
            items.extend(portion.iter().map(|item| *item as usize));
            let contender = |trial: &usize| Contender {
                trial: *trial,
                columns: vec![Items::Binary(items.iter().map(|item| self.answers[*trial][*item]).collect())],
            };
            let contenders: Vec<Contender> = alive.iter().map(contender).collect();
            let Some(decision) = decide(rule, std::slice::from_ref(&measure), &objective, &contenders, 1) else {
                break;
            };
            alive = decision.survivors();
        }
        let best_of = |trials: &mut dyn Iterator<Item = usize>| {
            trials.fold(
                (0, f64::NEG_INFINITY),
                |best, trial| {
                    if score(trial) > best.1 { (trial, score(trial)) } else { best }
                },
            )
        };
        let best = best_of(&mut (0..self.answers.len()));
        // Survivors come best first.
        let winner = alive.first().copied().unwrap_or_default();
        Outcome {
            asked,
            used: n_asked as f64 / (self.answers.len() * n_items) as f64,
            agrees: score(winner) >= best.1,
            keeps_best: alive.iter().any(|trial| score(*trial) >= best.1),
            regret: best.1 - score(winner),
            true_regret: self.truth[best.0] - self.truth[winner],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_siblings_agree_as_is_said() {
        let Study { answers, .. } = Study::new(3, 2, 40_000, 0.0);
        let right = answers[0].iter().filter(|right| **right).count() as f64 / 4e4;
        let differ = answers[0].iter().zip(&answers[1]).filter(|(a, b)| a != b).count() as f64 / 4e4;
        assert!((right - 0.6).abs() < 0.01, "{right}");
        let correlation = 1.0 - differ / (2.0 * right * (1.0 - right));
        assert!((correlation - 0.9).abs() < 0.01, "{correlation}");
    }

    #[test]
    fn a_race_is_much_cheaper_and_nearly_as_good() {
        let outcomes: Vec<Outcome> =
            (0..20).map(|study| Study::new(study, 30, 1000, 0.03).race(&Rule::default())).collect();
        let mean = |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / 20.0;
        assert!(mean(&|outcome| outcome.used) < 0.35);
        assert!(mean(&|outcome| outcome.regret) < 0.005);
    }
}
