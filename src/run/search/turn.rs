//! Searches whose documents are asked elsewhere, by jobs that answer while nobody looks: what is to be asked next, by what is
//! recorded. Whoever looks takes the decisions that are due; a run on this machine takes the same ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pieces::{Draw, Pieces};
use super::points::refreshed;
use super::stand::{Stand, stand};
use super::{Going, parted, round};
use crate::plan::TrialId;
use crate::run::explanation::explain;
use crate::run::facts::Facts;
use crate::run::journal::Stage;
use crate::run::state::SweepState;
use crate::run::{Failed, Outcome, Request, RunError, Session, Summary, twins};
use crate::spec::Search;

/// What was asked since a run began: which rung (none: what is asked at the end) of which trial. Done or failed, it is not asked
/// again in that run.
pub type Attempted = BTreeSet<(Option<usize>, TrialId)>;

/// A part of a search that is asked as a whole, between two decisions.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The whole run, with the points that were placed.
    pub whole: Arc<Request>,
    /// What of it is asked.
    pub round: Request,
    /// The rung, from 0; none: what is asked of those that are left at the end.
    pub rung: Option<usize>,
    /// How the documents were drawn.
    pub draw: Draw,
}

/// How far a search can go by what is recorded.
#[derive(Debug)]
pub enum Advanced {
    /// This is to be asked.
    Asks(Box<Turn>),
    /// It is over.
    Over(Summary),
}

/// Takes every decision that is due, until something is to be asked that was not `attempted`.
pub(in crate::run) async fn advance(
    session: &mut Session<'_>,
    search: &Search,
    attempted: Attempted,
) -> Result<Advanced, RunError> {
    let mut going = Going::begin(session, search, attempted, true)?;
    going.follow().await?;
    Ok(match going.turn.take() {
        Some(turn) => Advanced::Asks(turn),
        None => Advanced::Over(going.summary()),
    })
}

/// What would be asked next if nothing were decided before it: none where a decision comes first, or nothing is left.
pub(in crate::run) fn foreseen(
    request: &Request,
    search: &Search,
    facts: Option<&Facts>,
    state: &SweepState,
) -> Result<Option<Turn>, RunError> {
    let request = refreshed(request, state)?;
    let recorded = state.draw.as_ref().filter(|draw| draw.fits(search));
    let (beside, alive) = parted(&request);
    let (draw, stands) = match (facts, recorded) {
        (Some(facts), Some(draw)) => {
            let is_left = |round: &Request| !left(round, facts, state).is_empty();
            (draw.clone(), stand(&request, search, draw, state, &is_left))
        }
        // How many documents there are only the harness knows.
        _ => (Draw::default(), Stand::Asks(Some(0), alive)),
    };
    let Stand::Asks(rung, alive) = stands else { return Ok(None) };
    let beside = if recorded.is_none() && search.confirmation > 0.0 { Vec::new() } else { beside };
    let round = round(&request, &Pieces::of(&draw, &request.settings), rung, &alive, &beside);
    Ok(Some(Turn { whole: Arc::new(request), round, rung, draw }))
}

/// The selected trials of which something is left to do, by number in the plan. A failure alone is not: it may be of a later turn.
pub(in crate::run) fn left(request: &Request, facts: &Facts, state: &SweepState) -> BTreeSet<usize> {
    let followers = twins::followers(request);
    let is_left = |index: &usize| {
        let left = explain(request, &request.settings, facts, state, &followers, *index);
        left.merge.is_some() || !left.tasks.is_empty()
    };
    request.selected.iter().copied().filter(is_left).collect()
}

impl Going<'_, '_> {
    /// Leaves a part of the search to others, but for the trials that failed there since the run began: they are out.
    pub(super) fn hand_over(&mut self, rung: Option<usize>, mut round: Request) {
        let request = Arc::clone(&self.request);
        let trial = |index: &usize| &request.plan.trials[*index];
        let asked = self.asked.clone();
        let was_asked = |index: &usize| asked.contains(&(rung, trial(index).id.clone()));
        let mut left = left(&round, &self.session.facts, &self.session.state);
        for index in round.selected.iter().filter(|index| !left.contains(index)) {
            let was_here = asked.iter().any(|(_, id)| *id == trial(index).id);
            self.outcomes.insert(*index, if was_here { Outcome::Done } else { Outcome::Reused });
        }
        for index in left.iter().filter(|index| was_asked(index)) {
            let name = trial(index).name.clone();
            let (stage, reason) = self.session.state.of(&trial(index).id).failure.unwrap_or_else(|| {
                (Stage::Evaluate, "it was asked, and nothing is recorded of it (run again)".to_owned())
            });
            self.outcomes.insert(*index, Outcome::Failed(Failed { trial: name, stage, reason, log: None }));
            self.alive.retain(|alive| alive != index);
            self.beside.retain(|beside| beside != index);
            round.selected.retain(|selected| selected != index);
        }
        left.retain(|index| !was_asked(index));
        if left.is_empty() {
            return;
        }
        // Not through, whatever they had before.
        left.iter().for_each(|index| _ = self.outcomes.remove(index));
        self.tell_of(rung, &round);
        self.turn = Some(Box::new(Turn { whole: request.clone(), round, rung, draw: self.draw.clone() }));
    }
}
