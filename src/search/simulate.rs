//! Made-up siblings in a race by the real rule: what it costs and what it misses. Chooses the defaults
//! (`tests/it/race_simulation.rs`) and tells `plan` what to expect.
//!
//! Trials answer items of very different difficulty (Rasch), so that two equal ones agree as siblings do: outcomes are
//! correlated .9, which at 60 % right means that 1 answer of 21 differs. Their true scores are spread around 60 %.

use super::draw;
use super::objective::{Measure, Objective};
use super::race::{Contender, Decision, Rule, decide, estimated};
use crate::stats::Items;
use crate::stats::distribution::normal_quantile;
use crate::stats::random::word;

/// Standard deviation of the items' difficulty in logits: outcomes are then correlated .9.
const DIFFICULTY: f64 = 16.0;

/// Mean of the trials' true scores.
const CENTRE: f64 = 0.6;

/// Spreads of true scores that are gone through: 1, 2 and 4 points.
pub const SPREADS: [f64; 3] = [0.01, 0.02, 0.04];

/// Trials that are expected to be asked at each rung, of `n_trials` on `n_items`: means over [`SPREADS`]. Of points that are placed
/// one after the other, `n_grid` are those of the grid.
pub fn expected(rule: &Rule, n_trials: usize, n_items: usize, n_grid: Option<usize>) -> Vec<f64> {
    /// More say nothing else, and take long.
    const MOST: (usize, usize, u64) = (60, 2_000, 12);
    let (few_trials, few_items, n_studies) = (n_trials.min(MOST.0), n_items.min(MOST.1), MOST.2);
    let mut asked = vec![0.0; rule.rungs.len()];
    if few_trials == 0 || few_items == 0 {
        return asked;
    }
    for (place, spread) in SPREADS.iter().enumerate() {
        for study in 0..n_studies {
            let study = Study::new(1_000 * place as u64 + study, few_trials, few_items, *spread);
            let outcome = match n_grid {
                Some(n_grid) => study.place(rule, n_grid).outcome,
                None => study.race(rule),
            };
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

/// Points one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// What it cost and found.
    pub outcome: Outcome,
    /// Of every point that dropped out: its score on all items, what is told of it, and its score on the items that it answered.
    pub estimates: Vec<(f64, f64, f64)>,
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
        let mut alive: Vec<usize> = (0..self.answers.len()).collect();
        let (mut asked, mut n_asked, mut items) = (Vec::new(), 0, Vec::new());
        for portion in self.portions(rule) {
            asked.push(alive.len());
            n_asked += alive.len() * portion.len();
            items.extend(portion);
            let Some(decision) = self.decide(rule, &alive, None, &items) else { break };
            alive = decision.survivors();
        }
        self.outcome(asked, n_asked, &alive)
    }

    /// Sets its trials beside the best of those before them, one after the other, as a search does with points that it places: those
    /// of the grid, the first `n_grid`, answer everything.
    pub fn place(&self, rule: &Rule, n_grid: usize) -> Placed {
        let portions = self.portions(rule);
        let mut asked = vec![0; portions.len()];
        let (mut n_asked, mut through, mut estimates) = (0, Vec::new(), Vec::new());
        for trial in 0..self.answers.len() {
            let best = self.best(through.iter().copied());
            let (mut items, mut is_out) = (Vec::new(), false);
            for (rung, portion) in portions.iter().enumerate() {
                asked[rung] += 1;
                n_asked += portion.len();
                items.extend(portion);
                let decision = best
                    .filter(|_| trial >= n_grid && rung + 1 < portions.len())
                    .and_then(|best| Some((best, self.decide(rule, &[best, trial], Some(best), &items)?)));
                if let Some((best, decision)) = decision
                    && !decision.survivors().contains(&trial)
                {
                    let on = |trial: usize| vec![self.score_on(trial, &items)];
                    let estimated = estimated(&on(trial), &on(best), &[self.score(best)]);
                    estimates.push((self.score(trial), estimated[0], on(trial)[0]));
                    is_out = true;
                    break;
                }
            }
            if !is_out {
                through.push(trial);
            }
        }
        let first: Vec<usize> = self.best(through.iter().copied()).into_iter().collect();
        Placed { outcome: self.outcome(asked, n_asked, &first), estimates }
    }

    fn portions(&self, rule: &Rule) -> Vec<Vec<usize>> {
        let n_items = self.answers.first().map_or(0, Vec::len);
        let portions = draw::portions(1, "items", n_items as u64, &rule.rungs, 0.0).rungs;
        portions.into_iter().map(|portion| portion.into_iter().map(|item| item as usize).collect()).collect()
    }

    fn decide(&self, rule: &Rule, trials: &[usize], leader: Option<usize>, items: &[usize]) -> Option<Decision> {
        let measure = Measure { column: String::new(), task: String::new(), higher_is_better: true };
        let contender = |trial: &usize| Contender {
            trial: *trial,
            columns: vec![Items::Binary(items.iter().map(|item| self.answers[*trial][*item]).collect())],
        };
        let contenders: Vec<Contender> = trials.iter().map(contender).collect();
        decide(rule, std::slice::from_ref(&measure), &Objective::Weighted(vec![1.0]), &contenders, leader, 1)
    }

    fn score(&self, trial: usize) -> f64 {
        let right = self.answers[trial].iter().filter(|right| **right).count();
        right as f64 / self.answers[trial].len() as f64
    }

    fn score_on(&self, trial: usize, items: &[usize]) -> f64 {
        items.iter().filter(|item| self.answers[trial][**item]).count() as f64 / items.len() as f64
    }

    /// The one with the best score, the first of equal ones.
    fn best(&self, trials: impl Iterator<Item = usize>) -> Option<usize> {
        trials.fold(None, |best, trial| match best {
            Some(best) if self.score(best) >= self.score(trial) => Some(best),
            _ => Some(trial),
        })
    }

    /// What came of it, where `left` are those that are left, the winner first.
    fn outcome(&self, asked: Vec<usize>, n_asked: usize, left: &[usize]) -> Outcome {
        let n_items = self.answers.first().map_or(0, Vec::len);
        let best = self.best(0..self.answers.len()).unwrap_or_default();
        let winner = left.first().copied().unwrap_or_default();
        let highest = self.score(best);
        Outcome {
            asked,
            used: n_asked as f64 / (self.answers.len() * n_items) as f64,
            agrees: self.score(winner) >= highest,
            keeps_best: left.iter().any(|trial| self.score(*trial) >= highest),
            regret: highest - self.score(winner),
            true_regret: self.truth[best] - self.truth[winner],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::race::POINT_RUNGS;
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

    #[test]
    fn points_that_drop_out_are_told_nearer_to_their_score_than_by_their_own_answers() {
        let rule = Rule { rungs: POINT_RUNGS.to_vec(), ..Rule::default() };
        let placed: Vec<Placed> = (0..20).map(|study| Study::new(study, 20, 1000, 0.03).place(&rule, 2)).collect();
        let estimates: Vec<_> = placed.iter().flat_map(|placed| &placed.estimates).collect();
        let error = |of: &dyn Fn(&(f64, f64, f64)) -> f64| {
            (estimates.iter().map(|one| of(one).powi(2)).sum::<f64>() / estimates.len() as f64).sqrt()
        };
        let (told, alone) = (error(&|one| one.1 - one.0), error(&|one| one.2 - one.0));
        assert!(estimates.len() > 50 && told < 0.8 * alone, "{} {told} {alone}", estimates.len());
        let mean = |of: &dyn Fn(&Outcome) -> f64| placed.iter().map(|placed| of(&placed.outcome)).sum::<f64>() / 20.0;
        assert!(mean(&|outcome| outcome.used) < 0.8 && mean(&|outcome| outcome.regret) < 0.005);
    }
}
