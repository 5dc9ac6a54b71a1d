//! A refinement in a run: the grid is asked, then points between its own, a few at a time, where [`crate::search::refine`] says
//! that the optimum can still be.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::points::Grow;
use super::{Going, outcomes};
use crate::run::RunError;
use crate::run::event::RunEvent;
use crate::run::journal::What;
use crate::search::Objective;
use crate::search::refine::{Aim, Outlook, Point, Verdict, outlook};

/// What was seen of the optimum, and which points were placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refined {
    /// Names the axes and their bounds; points that were placed between others are none of this space.
    pub space: String,
    /// Names of the axes.
    pub axes: Vec<String>,
    /// Points that had answered.
    pub n_points: usize,
    /// Where the expected objective is highest, axis by axis.
    pub optimum: Vec<f64>,
    /// Where the optimum lies, with this confidence.
    pub intervals: Vec<[f64; 2]>,
    /// See [`Refined::intervals`].
    pub confidence: f64,
    /// What the next point is expected to gain in the objective.
    pub gain: f64,
    /// Why it goes on, or why not.
    pub verdict: Verdict,
    /// Points that were placed.
    pub next: Vec<Vec<f64>>,
}

impl Refined {
    /// In words: `t = 0.43 (0.4 to 0.46)`.
    pub fn in_words(&self) -> String {
        let axes = self.axes.iter().zip(&self.optimum).zip(&self.intervals);
        let axes = axes.map(|((name, at), [low, high])| format!("{name} = {at} ({low} to {high})"));
        axes.collect::<Vec<_>>().join(", ")
    }
}

impl Going<'_, '_> {
    /// Asks the points that there are, and places further ones, until that is over.
    pub(super) async fn refine(&mut self, aim: &Aim) -> Result<(), RunError> {
        loop {
            self.ask(Some(0)).await?;
            if self.is_over() {
                return Ok(());
            }
            let Some(refined) = self.look(aim)? else { break };
            // Points that make no plan would keep every later run from reading it.
            let grown = self.grown(&refined.next)?;
            if self.session.state.refinements.last() != Some(&refined) {
                self.session.record(None, What::SearchRefined(refined.clone()))?;
            }
            (self.session.listener)(RunEvent::Refined(refined));
            match grown {
                Some(grown) if grown.trials.len() > self.request.plan.trials.len() => {
                    let new = self.take(grown)?;
                    self.alive.extend(new);
                }
                _ => break,
            }
        }
        self.end(0).await
    }

    /// What the answers say of the optimum; none where too few points have answered.
    fn look(&mut self, aim: &Aim) -> Result<Option<Refined>, RunError> {
        let request = Arc::clone(&self.request);
        let (Some(Grow { space, .. }), Objective::Weighted(weights)) = (&request.grow, &self.search.objective) else {
            return Ok(None);
        };
        let scored = self.scored(0, &self.alive.clone())?;
        let Some((_, first)) = scored.first() else { return Ok(None) };
        let measures = outcomes::measures(&self.search.columns, first);
        let point = |(index, outcomes): &(usize, outcomes::Scored)| {
            let at = space.place(&space.point(&request.plan.trials[*index].axes)?);
            Some(Point { at, columns: outcomes.iter().map(|outcomes| outcomes.items.clone()).collect() })
        };
        let points: Vec<Point> = scored.iter().filter_map(point).collect();
        // Those that failed, or are not among the selected ones.
        let is_closed = |index: &usize| scored.iter().all(|(scored, _)| scored != index);
        let closed = self.points().into_iter().filter(|(index, ..)| is_closed(index));
        let closed: Vec<Vec<f64>> = closed.map(|(_, point, _)| space.place(&point)).collect();
        let Some(Outlook { optimum, intervals, gain, next, verdict }) =
            outlook(aim, &measures, weights, &points, &closed, self.search.seed)
        else {
            return Ok(None);
        };
        let (low, high): (Vec<f64>, Vec<f64>) = intervals.iter().map(|interval| (interval.low, interval.high)).unzip();
        let point = |place: &[f64]| space.tidy(&space.point_at(place));
        let bounds = point(&low).into_iter().zip(point(&high));
        Ok(Some(Refined {
            space: space.key(),
            axes: space.axes.iter().map(|axis| axis.name.clone()).collect(),
            n_points: points.len(),
            optimum: point(&optimum),
            intervals: bounds.map(|(low, high)| [low, high]).collect(),
            confidence: aim.confidence,
            gain,
            verdict,
            next: next.iter().map(|place| point(place)).collect(),
        }))
    }
}
