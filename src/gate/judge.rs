//! A run at the gate: every frozen number, judged.

use serde::Serialize;

use super::baseline::{Baseline, Frozen};
use super::margins::n_critical;
use crate::eval::task::Column;
use crate::paired::{Entrant, Outcomes, align};
use crate::spec::Gate;
use crate::stats::compare::n_changed;
use crate::stats::gate::{self, GateResult, Verdict};

/// One number of one trial at the gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// The trial.
    pub trial: String,
    /// The column.
    pub column: String,
    /// Whether it decides.
    pub critical: bool,
    /// How much worse it may be; none of a column without a margin, which only shows.
    pub margin: Option<f64>,
    /// The verdict; none without a margin.
    pub verdict: Option<Verdict>,
    /// Documents.
    pub n: usize,
    /// Score now and then.
    pub scores: Option<(f64, f64)>,
    /// The numbers behind the verdict.
    pub result: Option<GateResult>,
    /// Documents that scored differently.
    pub n_changed: u64,
    /// Whether the weights are those of the baseline, byte for byte; none where one of the two does not tell.
    pub equal_weights: Option<bool>,
    /// Why there is nothing to compare.
    pub reason: Option<String>,
}

/// A whole run at the gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// FAIL where any critical number fails, else INCONCLUSIVE where any is, else PASS.
    pub verdict: Verdict,
    /// Every frozen number.
    pub judged: Vec<Judged>,
    /// Trials of the run that the baseline does not have.
    pub new_trials: Vec<String>,
    /// Whether results from before were taken instead of evaluating afresh.
    pub reused: bool,
}

/// Judges a run. `columns` are those of `entrants`.
pub fn judge(baseline: &Baseline, columns: &[Column], entrants: &[Entrant], gate: &Gate, seed: u64) -> Judgement {
    let n_tests = n_critical(&baseline.columns, gate).max(1);
    let mut judged = Vec::new();
    for frozen in &baseline.trials {
        let now = entrants.iter().find(|entrant| entrant.name == frozen.entrant.name);
        for (place, column) in baseline.columns.iter().enumerate() {
            let before = frozen.entrant.outcomes.get(place).and_then(Option::as_ref);
            let score = frozen.scores.get(place).and_then(Option::as_ref);
            if before.is_none() && score.is_none_or(|score| score.value.is_none()) {
                continue;
            }
            let there = columns.iter().position(|other| {
                (&other.task, &other.metric, &other.filter) == (&column.task, &column.metric, &column.filter)
            });
            let found = now.zip(there).and_then(|(entrant, place)| entrant.outcomes.get(place)?.as_ref());
            let weights = now.and_then(|now| Some(now.weights.as_ref()? == frozen.entrant.weights.as_ref()?));
            let one = One { frozen, column, before, gate, n_tests, seed };
            judged.push(one.judged(now.is_some(), found, weights));
        }
    }
    let critical = judged.iter().filter(|judged| judged.critical).filter_map(|judged| judged.verdict);
    let is_known = |name: &String| baseline.trials.iter().any(|frozen| frozen.entrant.name == *name);
    Judgement {
        // Where nothing was judged nothing has passed.
        verdict: critical.max().unwrap_or(Verdict::Fail),
        new_trials: entrants.iter().map(|entrant| entrant.name.clone()).filter(|name| !is_known(name)).collect(),
        judged,
        reused: false,
    }
}

/// A frozen number on its way to a verdict.
struct One<'a> {
    frozen: &'a Frozen,
    column: &'a Column,
    before: Option<&'a Outcomes>,
    gate: &'a Gate,
    n_tests: usize,
    seed: u64,
}

impl One<'_> {
    fn judged(&self, has_trial: bool, now: Option<&Outcomes>, equal_weights: Option<bool>) -> Judged {
        let Column { name, task, .. } = self.column;
        let margin = self.gate.margin_of(name, task);
        let mut judged = Judged {
            trial: self.frozen.entrant.name.clone(),
            column: name.clone(),
            critical: self.gate.is_critical(name, task),
            margin,
            // Nothing to compare is a failure: a task that silently went missing must not pass.
            verdict: margin.map(|_| Verdict::Fail),
            n: self.before.map_or(0, |before| before.docs.len()),
            scores: None,
            result: None,
            n_changed: 0,
            equal_weights,
            reason: None,
        };
        let Some(before) = self.before else {
            judged.reason = Some("the baseline has no documents for its score (freeze again)".to_owned());
            return judged;
        };
        let Some(now) = now else {
            let missing =
                if has_trial { "the run has no such number, or no samples" } else { "the run has no such trial" };
            judged.reason = Some(missing.to_owned());
            return judged;
        };
        let pair = match align(now, before, false) {
            Ok(pair) => pair,
            Err(reason) => {
                judged.reason = Some(reason.to_string());
                return judged;
            }
        };
        let (items, before) = (&pair.first.items, &pair.second.items);
        judged.scores = Some((items.score(), before.score()));
        judged.n_changed = n_changed(items, before);
        // Without a margin the difference is shown all the same.
        let up = now.higher_is_better;
        let seed = pair.seed(self.seed);
        judged.result = gate::judge(items, before, margin.unwrap_or(f64::INFINITY), up, self.n_tests, seed);
        judged.verdict = margin.and(judged.result.map(|result| result.verdict));
        judged
    }
}
