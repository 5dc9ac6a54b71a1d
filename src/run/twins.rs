//! Trials that need no merge of their own: an exact twin that comes before them has the same bytes, or their twin but for
//! rounding is evaluated for them (`twins = "share"`). They wait for it, and take over its record and its scores.

use std::collections::{BTreeMap, BTreeSet};

use super::board::{Board, Failure};
use super::event::RunEvent;
use super::journal::{Stage, What};
use super::trial::Work;
use super::{Failed, Outcome, Request, RunError, decide};
use crate::plan::TrialId;
use crate::spec::TwinEvaluation;

/// The trials that follow another one, each with the one it follows, by number in the plan.
pub(super) type Followers = BTreeMap<usize, usize>;

/// A trial that waits for the work on its twin to end; both by number in the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub index: usize,
    pub leader: usize,
}

/// Who follows whom among the selected trials: the first of a group is merged, unless another one is to be done again.
pub(super) fn followers(request: &Request) -> Followers {
    let twins = &request.plan.review.twins;
    let shared = match request.twins {
        TwinEvaluation::Separate => &[],
        TwinEvaluation::Share => twins.rounding.as_slice(),
    };
    let mut followers = Followers::new();
    // What is equal in exact arithmetic takes in what is equal byte for byte.
    for group in shared.iter().chain(&twins.exact) {
        let members = group.iter().filter(|trial| request.selected.contains(trial) && !followers.contains_key(trial));
        let members: Vec<usize> = members.copied().collect();
        let Some((first, others)) = members.split_first() else { continue };
        let alike = others.iter().filter(|other| request.redo.contains(other) == request.redo.contains(first));
        followers.extend(alike.map(|other| (*other, *first)));
    }
    followers
}

/// The trials that may stand for each one since they are the same but for rounding and the spec says so: their names.
pub(super) fn rounded(request: &Request) -> BTreeMap<TrialId, BTreeSet<String>> {
    let Request { plan, twins: TwinEvaluation::Share, .. } = request else { return BTreeMap::new() };
    let mut rounded: BTreeMap<TrialId, BTreeSet<String>> = BTreeMap::new();
    for group in &plan.review.twins.rounding {
        for member in group {
            let others = group.iter().filter(|other| *other != member && !is_exact(request, *member, **other));
            let names = others.map(|other| plan.trials[*other].name.clone());
            rounded.entry(plan.trials[*member].id.clone()).or_default().extend(names);
        }
    }
    rounded
}

/// Whether a trial's twin has its very bytes.
fn is_exact(request: &Request, trial: usize, other: usize) -> bool {
    request.plan.review.twins.exact.iter().any(|group| group.contains(&trial) && group.contains(&other))
}

/// Settles those that waited, by how the work on their twins ended.
///
/// # Errors
/// [`RunError`] where the journal cannot be written.
pub(super) fn settle(board: &Board<'_>, waiting: &[Waiting]) -> Result<(), RunError> {
    for Waiting { index, leader } in waiting {
        match board.outcome_of(*leader) {
            Some(Outcome::Reused | Outcome::Done) => follow(board, *index, *leader)?,
            Some(Outcome::Failed(Failed { trial, stage, reason, log })) => {
                let reason = format!("its twin `{trial}` failed: {reason}");
                board.fail(*index, Failure { stage, reason, log })?;
            }
            Some(Outcome::Interrupted) | None => {}
        }
    }
    Ok(())
}

/// Takes over what came of a twin.
fn follow(board: &Board<'_>, index: usize, leader: usize) -> Result<(), RunError> {
    let (work, twin) = (Work::new(board, index), board.trial(leader));
    let state = work.state();
    let inputs = board.facts.inputs_of(work.trial, &state);
    let decision = decide::merge(&work.trial.subject, &state, &inputs, false);
    if let (Some(decision), Some(merged)) = (decision, board.state_of(&twin.id).merged)
        && work.trial.id != twin.id
    {
        let (merge, identity, from) = (merged.merge, merged.identity, twin.name.clone());
        let rounds_else = !is_exact(board.request, index, leader);
        let key = decision.key.with_twin(rounds_else.then_some(twin.name.as_str()));
        board.record(&work.trial.id, What::MergeShared { key, merge, identity, from })?;
    }
    if work.redo {
        // What it had under the same weights must not stand for what the twin has now.
        let settings = &board.request.settings;
        let state = board.state_of(&twin.id);
        for (task, harness) in settings.tasks.iter().filter_map(|task| state.current(settings, task).cloned()) {
            board.record(&work.trial.id, What::Shared { task, harness, from: twin.name.clone() })?;
        }
    }
    board.mark_redone(index);
    let work = Work::new(board, index);
    work.share()?;
    if let Some(stale) = work.stale_tasks().first() {
        let reason = format!("its twin `{}` has no scores of `{}` to share", twin.name, stale.request.name);
        return board.fail(index, Failure { stage: Stage::Evaluate, reason, log: None });
    }
    board.say(RunEvent::TrialDone { trial: work.name() });
    board.settle(index, Outcome::Done);
    Ok(())
}
