//! Where a search stands by what is recorded of it: the first thing in its order that is missing. Nothing but the state is looked
//! at.

use super::pieces::{Draw, Pieces};
use super::points::rounds;
use super::{decided, parted, round, survivors};
use crate::run::Request;
use crate::run::state::SweepState;
use crate::spec::{Search, Way};

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// Answers of these trials: to the documents of a rung, from 0, or (none) to what is asked at the end.
    Asks(Option<usize>, Vec<usize>),
    /// A decision.
    Decides,
    /// Nothing.
    Over,
}

/// Whether it is decided after a rung before the last one who goes on. Points that a search placed are set beside the best of
/// those that went through before them; the first ones have nobody.
pub(super) fn is_due(search: &Search, alive: &[usize], through: &[usize]) -> bool {
    !alive.is_empty() && (search.way == Way::Race || !through.is_empty())
}

/// Goes through a search; `is_left` says whether anything is left to do of a part of it.
pub fn stand(
    request: &Request,
    search: &Search,
    draw: &Draw,
    state: &SweepState,
    is_left: &dyn Fn(&Request) -> bool,
) -> Stand {
    let pieces = Pieces::of(draw, &request.settings);
    let (beside, alive) = parted(request);
    let last = pieces.rungs.len().saturating_sub(1);
    let is_asked = |rung, alive: &[usize]| is_left(&round(request, &pieces, rung, alive, &beside));
    let left = |rung, alive: &[usize], through: &[usize]| {
        let key = decided::key(search, request, &pieces, rung, alive, through, state);
        let decided = state.decisions.iter().find(|decided| decided.key == key)?;
        Some(survivors(request, decided, alive))
    };
    let mut through = Vec::new();
    for mut alive in rounds(request, search, state, &alive) {
        for rung in 0..=last {
            if is_asked(Some(rung), &alive) {
                return Stand::Asks(Some(rung), alive);
            }
            if rung < last && is_due(search, &alive, &through) {
                let Some(left) = left(rung, &alive, &through) else { return Stand::Decides };
                alive = left;
            }
        }
        through.append(&mut alive);
    }
    through.sort_unstable();
    if !through.is_empty() {
        let Some(left) = left(last, &through, &[]) else { return Stand::Decides };
        through = left;
    }
    if is_asked(None, &through) { Stand::Asks(None, through) } else { Stand::Over }
}
