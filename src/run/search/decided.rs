//! The record of a decision: what it rested on, and what became of every contender.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pieces::Pieces;
use crate::plan::{Plan, TrialId};
use crate::run::Request;
use crate::run::fingerprint::digest;
use crate::run::state::SweepState;
use crate::search::{Decision, Evidence};
use crate::spec::{Search, Way};

/// What was decided after a rung.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Names everything that the decision rests on: the rule, and who had answered what. While it is the same, the decision
    /// stands.
    pub key: String,
    /// Which of the points that a search placed a few at a time it is about, from 0: those of the grid.
    #[serde(default)]
    pub round: usize,
    /// The rung, from 0.
    pub rung: usize,
    /// Rungs in all.
    pub n_rungs: usize,
    /// Documents that everybody had answered by then, task by task.
    pub documents: BTreeMap<String, u64>,
    /// The trial that leads.
    pub leader: TrialId,
    /// Columns that decided.
    pub columns: Vec<String>,
    /// Every contender, best first.
    pub standings: Vec<Standing>,
}

/// What a rung says of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The trial.
    pub trial: TrialId,
    /// The evidence; the number in it is that of the plan of the run that decided.
    #[serde(flatten)]
    pub evidence: Evidence,
}

impl Decided {
    /// As it is recorded.
    pub fn new(
        key: String,
        (round, rung): (usize, usize),
        search: &Search,
        documents: BTreeMap<String, u64>,
        plan: &Plan,
        decision: Decision,
    ) -> Self {
        let id = |trial: usize| plan.trials[trial].id.clone();
        let standing = |evidence: Evidence| Standing { trial: id(evidence.trial), evidence };
        Self {
            key,
            round,
            rung,
            n_rungs: search.rule.rungs.len(),
            documents,
            leader: id(decision.leader),
            columns: search.columns.iter().map(|column| column.name.clone()).collect(),
            standings: decision.evidence.into_iter().map(standing).collect(),
        }
    }

    /// Its place among the decisions of a search: what comes after it rests on it. The last one is about all points.
    pub fn place(&self) -> (bool, usize, usize) {
        (self.rung + 1 >= self.n_rungs, self.round, self.rung)
    }

    /// What it says of a trial.
    pub fn of(&self, trial: &TrialId) -> Option<&Standing> {
        self.standings.iter().find(|standing| standing.trial == *trial)
    }

    /// Those that go on, best first.
    pub fn survivors(&self) -> impl Iterator<Item = &TrialId> {
        self.standings.iter().filter(|standing| standing.evidence.survives).map(|standing| &standing.trial)
    }
}

/// Names what a decision after `rung` rests on: who of those that are `alive` had answered what, and who went `through` every rung
/// before. The scores are in it: an evaluation that is done again may come out otherwise.
pub(super) fn key(
    search: &Search,
    request: &Request,
    pieces: &Pieces,
    rung: usize,
    alive: &[usize],
    through: &[usize],
    state: &SweepState,
) -> String {
    let last = pieces.rungs.len().saturating_sub(1);
    let of_trial = |index: &usize, rung: usize| {
        let id = &request.plan.trials[*index].id;
        let of_trial = state.of(id);
        let asked = pieces.rungs.iter().take(rung + 1).flatten();
        let answered: Vec<_> = asked
            .map(|asked| {
                let done = of_trial.current(&request.settings, asked).map(|(done, _)| done);
                let scores =
                    done.map(|done| done.scores.iter().map(|score| (&score.metric, &score.filter, score.value)));
                (
                    done.map(|done| done.key.clone()),
                    scores.map(Iterator::collect::<Vec<_>>).map(|scores| format!("{scores:?}")),
                )
            })
            .collect();
        (id.clone(), answered)
    };
    let Search { columns, objective, rule, way, seed, .. } = search;
    let columns: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let alive = alive.iter().map(|index| of_trial(index, rung));
    let trials: Vec<_> = alive.chain(through.iter().map(|index| of_trial(index, last))).collect();
    // How many points there are to be says nothing about those that are there.
    let way = match way {
        Way::Optuna(sampling) if rung < last => format!("{:?}", sampling.floors),
        way => format!("{way:?}"),
    };
    let whole = (way, columns, objective, rule.confidence, rule.min_survivors, seed, rung, trials);
    // Texts under texts are always JSON.
    digest(&serde_json::to_vec(&whole).unwrap_or_default())
}
