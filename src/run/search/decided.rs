//! The record of a decision: what it rested on, and what became of every contender.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pieces::Pieces;
use crate::eval::Settings;
use crate::plan::{Plan, TrialId};
use crate::run::fingerprint::digest;
use crate::run::state::SweepState;
use crate::search::{Decision, Evidence};
use crate::spec::Search;

/// What was decided after a rung.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Names everything that the decision rests on: the rule, and who had answered what. While it is the same, the decision
    /// stands.
    pub key: String,
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
        rung: usize,
        search: &Search,
        documents: BTreeMap<String, u64>,
        plan: &Plan,
        decision: Decision,
    ) -> Self {
        let id = |trial: usize| plan.trials[trial].id.clone();
        let standing = |evidence: Evidence| Standing { trial: id(evidence.trial), evidence };
        Self {
            key,
            rung,
            n_rungs: search.rule.rungs.len(),
            documents,
            leader: id(decision.leader),
            columns: search.columns.iter().map(|column| column.name.clone()).collect(),
            standings: decision.evidence.into_iter().map(standing).collect(),
        }
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

/// Names what a decision after `rung` rests on. The scores are in it: an evaluation that is done again may come out otherwise.
pub(super) fn key(
    search: &Search,
    settings: &Settings,
    pieces: &Pieces,
    rung: usize,
    plan: &Plan,
    contenders: &[usize],
    state: &SweepState,
) -> String {
    let of_trial = |index: &usize| {
        let id = &plan.trials[*index].id;
        let of_trial = state.of(id);
        let asked = pieces.rungs.iter().take(rung + 1).flatten();
        let answered: Vec<_> = asked
            .map(|request| {
                let done = of_trial.current(settings, request).map(|(done, _)| done);
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
    let trials: Vec<_> = contenders.iter().map(of_trial).collect();
    let whole = (format!("{way:?}"), columns, objective, rule.confidence, rule.min_survivors, seed, rung, trials);
    // Texts under texts are always JSON.
    digest(&serde_json::to_vec(&whole).unwrap_or_default())
}
