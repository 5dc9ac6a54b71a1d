//! Trials that need no merge of their own: an exact twin that comes before them has the same bytes, or their twin but for
//! rounding is evaluated for them (`twins = "share"`). They wait for it, and take over its record and its scores.

use std::collections::BTreeMap;

use super::board::{Board, Failure};
use super::event::RunEvent;
use super::journal::{Stage, What};
use super::trial::Work;
use super::{Outcome, Request, RunError, decide};
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

/// Followers that are not exact twins of the trial they follow, with its name.
pub(super) fn rounded(request: &Request) -> BTreeMap<TrialId, String> {
    let trials = &request.plan.trials;
    followers(request)
        .into_iter()
        .filter(|(index, leader)| !is_exact(request, *index, *leader))
        .map(|(index, leader)| (trials[index].id.clone(), trials[leader].name.clone()))
        .collect()
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
            Some(Outcome::Failed(stage, reason)) => {
                let reason = format!("its twin `{}` failed: {reason}", board.trial(*leader).name);
                board.fail(*index, Failure { stage, reason, log: None })?;
            }
            Some(Outcome::Interrupted) | None => {}
        }
    }
    Ok(())
}

/// Takes over what came of a twin.
fn follow(board: &Board<'_>, index: usize, leader: usize) -> Result<(), RunError> {
    let (work, twin) = (Work::new(board, index), board.trial(leader));
    let inputs = board.facts.inputs_of(work.trial);
    let decision = decide::merge(&work.trial.subject, &work.state(), &inputs, false);
    if let (Some(decision), Some(merged)) = (decision, board.state_of(&twin.id).merged)
        && work.trial.id != twin.id
    {
        let (merge, identity, from) = (merged.merge, merged.identity, twin.name.clone());
        board.record(&work.trial.id, What::MergeShared { key: decision.key, merge, identity, from })?;
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
