//! Units: trials that one task of a job works through. Those of a unit are merged in one pass where they can be, and twins
//! lie in one unit, so that what a run shares between trials is shared within it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;

use serde::{Deserialize, Serialize};

use super::super::dealing::{self, Turn};
use super::super::fingerprint::digest;
use super::super::{Request, models_of, twins};
use super::sizes::Sizes;
use crate::model::ModelRef;
use crate::plan::{Plan, Subject, TrialId};

/// Trials that one task works through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Names its folder: the same trials have the same one in every submission.
    pub id: String,
    /// Its trials, in the order of the plan.
    pub trials: Vec<Member>,
    /// Bytes of its merges, where the disk is limited.
    #[serde(default)]
    pub bytes: u64,
}

/// A trial of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it is.
    pub id: TrialId,
}

impl Unit {
    /// What a reader recognises it by.
    pub fn label(&self) -> String {
        let first = self.trials.first().map(|trial| trial.name.as_str()).unwrap_or_default();
        match self.trials.len() {
            0 | 1 => first.to_owned(),
            n => format!("{first} and {} more", n - 1),
        }
    }

    /// Its trials by number in the plan. None where the plan has other trials now.
    pub fn positions(&self, plan: &Plan) -> Option<Vec<usize>> {
        let position =
            |member: &Member| plan.trials.iter().position(|trial| trial.name == member.name && trial.id == member.id);
        self.trials.iter().map(position).collect()
    }
}

/// Deals all trials of a plan out to units, of so many trials at most that are merged (or evaluated as they are) and, where
/// `room` says so, no more bytes of merges than that; keeps the units of which a trial is wanted, with the trials that are
/// selected. The units of a plan do not depend on what is selected or done.
pub(super) fn deal(
    request: &Request,
    per_unit: Option<usize>,
    room: Option<u64>,
    sizes: &Sizes<'_>,
    is_wanted: &dyn Fn(usize) -> bool,
) -> Vec<Unit> {
    let trials = &request.plan.trials;
    let selected: BTreeSet<usize> = request.selected.iter().copied().collect();
    let unit = |group: Vec<usize>| {
        let all: Vec<String> =
            group.iter().map(|index| format!("{} {}", trials[*index].id, trials[*index].name)).collect();
        let own = || group.iter().copied().filter(|index| selected.contains(index));
        let members = own().map(|index| Member { name: trials[index].name.clone(), id: trials[index].id.clone() });
        let bytes = sizes.of_merges(own()).into_iter().sum();
        Unit { id: digest(all.join("\n").as_bytes())[..12].to_owned(), trials: members.collect(), bytes }
    };
    let wanted = |group: &Vec<usize>| group.iter().any(|index| selected.contains(index) && is_wanted(*index));
    groups(request, per_unit, room, sizes).into_iter().filter(wanted).map(unit).collect()
}

fn groups(request: &Request, per_unit: Option<usize>, room: Option<u64>, sizes: &Sizes<'_>) -> Vec<Vec<usize>> {
    let whole = Request { selected: (0..request.plan.trials.len()).collect(), redo: Vec::new(), ..request.clone() };
    let mut followers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let leaders = twins::followers(&whole);
    for (follower, leader) in &leaders {
        followers.entry(*leader).or_default().push(*follower);
    }
    let trials = &request.plan.trials;
    let models: Vec<BTreeSet<ModelRef>> = trials.iter().map(|trial| models_of(trial).into_iter().collect()).collect();
    let joins = |group: &[usize], next: &usize| {
        let (first, next) = (group[0], *next);
        let alike = match (&trials[first].subject, &trials[next].subject) {
            (Subject::Merge { .. }, Subject::Merge { .. }) => {
                group.len() < per_unit.unwrap_or(request.merges_per_pass) && !models[next].is_disjoint(&models[first])
            }
            (Subject::Checkpoint(_), Subject::Checkpoint(_)) => group.len() < per_unit.unwrap_or(1),
            _ => false,
        };
        let bytes = || group.iter().chain([&next]).map(|index| sizes.of(*index)).sum::<u64>();
        // What has one identity has one state: it must not be worked on in two places.
        let is_same = group.iter().any(|index| trials[*index].id == trials[next].id);
        let is_taken = is_same || (alike && room.is_none_or(|room| bytes() <= room));
        Ok::<_, Infallible>(if is_taken { Turn::Joins } else { Turn::Waits })
    };
    let mut left: VecDeque<usize> =
        whole.selected.iter().filter(|index| !leaders.contains_key(index)).copied().collect();
    let next = || {
        let Ok(mut group) = dealing::take(&mut left, joins);
        let others: Vec<usize> = group.iter().filter_map(|index| followers.get(index)).flatten().copied().collect();
        group.extend(others);
        group.sort_unstable();
        Some(group).filter(|group| !group.is_empty())
    };
    std::iter::from_fn(next).collect()
}
