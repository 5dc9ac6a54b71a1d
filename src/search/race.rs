//! Who goes on from a rung: every contender is set beside the leader, and those that are worse by a paired test drop out.
//!
//! A column of right and wrong answers has the interval of Bonett and Price around the difference; losses, graded scores and
//! objectives of several columns have the exchange test. Whoever drops out is never asked again.

use serde::{Deserialize, Serialize};

use super::exchange;
use super::objective::{Measure, Objective};
use crate::stats::binary::{Discordant, bonett_price};
use crate::stats::interval::two_sided_z;
use crate::stats::{Interval, Items};

/// When a trial drops out.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Shares of the documents after which it is decided, rising to 1.
    pub rungs: Vec<f64>,
    /// Two-sided confidence with which a trial must be worse than the leader to drop out.
    pub confidence: f64,
    /// Trials that go on at least, the best ones.
    pub min_survivors: usize,
}

/// Rungs where the spec names none; with [`CONFIDENCE`] and [`MIN_SURVIVORS`] chosen by
/// `tests/it/race_simulation.rs`.
pub const RUNGS: &[f64] = &[0.1, 0.2, 0.35, 0.5, 0.75, 1.0];
/// See [`RUNGS`].
pub const CONFIDENCE: f64 = 0.9;
/// See [`RUNGS`].
pub const MIN_SURVIVORS: usize = 1;

/// Rungs of points that a search places a few at a time, beside the best so far: fewer, since each is asked by itself.
pub const POINT_RUNGS: &[f64] = &[0.2, 0.5, 1.0];

impl Default for Rule {
    fn default() -> Self {
        Self { rungs: RUNGS.to_vec(), confidence: CONFIDENCE, min_survivors: MIN_SURVIVORS }
    }
}

/// A trial in the race: what it scored in every column that decides, on the documents so far, in one order for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// Number of the trial in the plan.
    pub trial: usize,
    /// Column by column.
    pub columns: Vec<Items>,
}

impl Contender {
    /// Its scores, column by column.
    pub fn scores(&self) -> Vec<f64> {
        self.columns.iter().map(Items::score).collect()
    }
}

/// What a rung says of a contender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Number of the trial in the plan; where it is kept, its identity stands beside it.
    #[serde(skip)]
    pub trial: usize,
    /// Its scores, column by column.
    pub scores: Vec<f64>,
    /// Its objective.
    pub value: f64,
    /// Objective minus that of the leader; 0 of the leader.
    pub difference: f64,
    /// The interval of it, at the confidence of the rule, where the test has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// The two-sided p-value, where the test has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// Whether it goes on.
    pub survives: bool,
}

/// What was decided after a rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Number of the trial that leads, in the plan.
    pub leader: usize,
    /// Every contender, best first.
    pub evidence: Vec<Evidence>,
}

impl Decision {
    /// Numbers of the trials that go on, best first.
    pub fn survivors(&self) -> Vec<usize> {
        self.evidence.iter().filter(|evidence| evidence.survives).map(|evidence| evidence.trial).collect()
    }
}

/// Decides after a rung. The others are set beside the best of them, unless a `leader` is given. None where there is no
/// contender, or where the contenders hold different things.
pub fn decide(
    rule: &Rule,
    measures: &[Measure],
    objective: &Objective,
    contenders: &[Contender],
    leader: Option<usize>,
    seed: u64,
) -> Option<Decision> {
    let turned: Vec<Vec<f64>> = contenders.iter().map(|contender| turned(measures, &contender.columns)).collect();
    let without = |places: &[usize]| -> Vec<Vec<f64>> {
        let others = turned.iter().enumerate().filter(|(place, _)| !places.contains(place));
        others.map(|(_, scores)| scores.clone()).collect()
    };
    let values: Vec<f64> =
        turned.iter().enumerate().map(|(place, own)| objective.value(own, &without(&[place]))).collect();
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    // Of equal ones the earlier in the plan.
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(contenders[*a].trial.cmp(&contenders[*b].trial)));
    let leader = match leader {
        Some(trial) => contenders.iter().position(|contender| contender.trial == trial)?,
        None => *order.first()?,
    };
    let mut evidence = Vec::new();
    for place in &order {
        let (own, best) = (&contenders[*place], &contenders[leader]);
        let (interval, p) = if *place == leader {
            (None, None)
        } else {
            beside(rule, measures, objective, own, best, &without(&[*place, leader]), seed)?
        };
        let is_worse = interval.is_some_and(|interval: Interval| interval.high < 0.0)
            || p.is_some_and(|p: f64| p < 1.0 - rule.confidence && values[*place] < values[leader]);
        evidence.push(Evidence {
            trial: own.trial,
            scores: own.scores(),
            value: values[*place],
            difference: values[*place] - values[leader],
            interval,
            p,
            survives: !is_worse,
        });
    }
    let n_left = |evidence: &[Evidence]| evidence.iter().filter(|evidence| evidence.survives).count();
    while n_left(&evidence) < rule.min_survivors.min(evidence.len()) {
        evidence.iter_mut().find(|evidence| !evidence.survives).into_iter().for_each(|best| best.survives = true);
    }
    Some(Decision { leader: contenders[leader].trial, evidence })
}

/// What a contender that dropped out would score on all documents, column by column, as far as those that it answered tell: as
/// the leader does, and as far from it as there. Which documents they were changes both alike.
pub fn estimated(own: &[f64], leader: &[f64], leader_on_all: &[f64]) -> Vec<f64> {
    own.iter().zip(leader).zip(leader_on_all).map(|((own, leader), on_all)| on_all + own - leader).collect()
}

/// Scores with larger ones better.
fn turned(measures: &[Measure], columns: &[Items]) -> Vec<f64> {
    measures.iter().zip(columns).map(|(measure, items)| measure.turned(items.score())).collect()
}

/// Interval or p-value of a contender's difference from the leader. None where they hold different things.
fn beside(
    rule: &Rule,
    measures: &[Measure],
    objective: &Objective,
    trial: &Contender,
    leader: &Contender,
    others: &[Vec<f64>],
    seed: u64,
) -> Option<(Option<Interval>, Option<f64>)> {
    if let ([measure], Objective::Weighted(weights)) = (measures, objective)
        && let ([Items::Binary(own)], [Items::Binary(best)]) = (trial.columns.as_slice(), leader.columns.as_slice())
    {
        (own.len() == best.len()).then_some(())?;
        let discordant = Discordant::of(own, best);
        let interval = bonett_price(discordant, own.len() as u64, two_sided_z(rule.confidence));
        let interval = if measure.higher_is_better { interval } else { interval.negated() };
        let weight = weights.first().copied().unwrap_or(1.0);
        return Some((Some(Interval { low: interval.low * weight, high: interval.high * weight }), None));
    }
    let draws = exchange::difference(measures, objective, &trial.columns, &leader.columns, others, seed)?;
    Some((None, Some(draws.p())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ratio::Scale;

    fn measure() -> Measure {
        Measure { column: "acc".to_owned(), task: "t".to_owned(), higher_is_better: true }
    }

    /// The first `right` of `n` right.
    fn contender(trial: usize, right: usize, n: usize) -> Contender {
        Contender { trial, columns: vec![Items::Binary((0..n).map(|item| item < right).collect())] }
    }

    fn one_column() -> Objective {
        Objective::Weighted(vec![1.0])
    }

    #[test]
    fn who_is_clearly_behind_drops_out_and_who_may_be_equal_goes_on() {
        let contenders = [contender(0, 60, 100), contender(1, 70, 100), contender(2, 69, 100), contender(3, 40, 100)];
        let decision = decide(&Rule::default(), &[measure()], &one_column(), &contenders, None, 1).unwrap();
        assert_eq!((decision.leader, decision.survivors()), (1, vec![1, 2]));
        let behind = &decision.evidence[3];
        assert_eq!((behind.trial, behind.survives), (3, false));
        assert!((behind.difference + 0.3).abs() < 1e-12 && behind.interval.unwrap().high < -0.2);
    }

    #[test]
    fn the_best_go_on_however_far_behind_and_equal_ones_in_the_order_of_the_plan() {
        let contenders = [contender(0, 10, 100), contender(1, 20, 100), contender(2, 90, 100), contender(3, 20, 100)];
        let rule = Rule { min_survivors: 3, ..Rule::default() };
        let decision = decide(&rule, &[measure()], &one_column(), &contenders, None, 1).unwrap();
        assert_eq!(decision.survivors(), [2, 1, 3]);
        assert_eq!(decide(&rule, &[measure()], &one_column(), &[], None, 1), None);
    }

    #[test]
    fn losses_race_by_the_exchange_test_and_lower_is_better() {
        let losses = |shift: f64| {
            let item = |i: usize| ((0.8 + shift + 0.02 * ((i * 7 % 11) as f64 - 5.0) * shift) * 100.0, 100.0);
            vec![Items::Ratio((0..80).map(item).collect(), Scale::Bits)]
        };
        let measure = Measure { higher_is_better: false, ..measure() };
        let contenders = [
            Contender { trial: 0, columns: losses(0.05) },
            Contender { trial: 1, columns: losses(0.0) },
            Contender { trial: 2, columns: losses(0.0) },
        ];
        let decision = decide(&Rule::default(), &[measure], &one_column(), &contenders, None, 1).unwrap();
        assert_eq!((decision.leader, decision.survivors()), (1, vec![1, 2]));
        assert!(decision.evidence[2].p.unwrap() < 0.01, "{decision:?}");
        assert_eq!(decision.evidence[1].p, Some(1.0), "the same answers");
    }

    #[test]
    fn whoever_is_given_is_what_the_others_are_set_beside() {
        let contenders = [contender(0, 60, 100), contender(1, 90, 100), contender(2, 40, 100), contender(3, 58, 100)];
        let decision = decide(&Rule::default(), &[measure()], &one_column(), &contenders, Some(0), 1).unwrap();
        assert_eq!((decision.leader, decision.survivors()), (0, vec![1, 0, 3]));
        assert_eq!(decide(&Rule::default(), &[measure()], &one_column(), &contenders, Some(9), 1), None);
        assert_eq!(estimated(&[0.5, 2.0], &[0.6, 1.5], &[0.7, 1.25]), [0.6, 1.75]);
    }

    #[test]
    fn by_worst_rank_the_even_one_leads() {
        let two = |trial, a, b| Contender {
            trial,
            columns: [a, b].map(|right| Items::Binary((0..200).map(|item| item < right).collect())).to_vec(),
        };
        let measures = [measure(), Measure { task: "other".to_owned(), ..measure() }];
        let contenders = [two(0, 190, 20), two(1, 20, 190), two(2, 150, 150)];
        let decision = decide(&Rule::default(), &measures, &Objective::WorstRank, &contenders, None, 1).unwrap();
        assert_eq!(decision.leader, 2);
        let weighted = Objective::Weighted(vec![1.0, 0.0]);
        assert_eq!(decide(&Rule::default(), &measures, &weighted, &contenders, None, 1).unwrap().survivors(), [0]);
    }
}
