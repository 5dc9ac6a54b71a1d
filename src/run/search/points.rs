//! Searches that place points of their own: how the plan grows, and what is recorded of it. Points that were placed belong to the
//! plan from then on.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Going;
use crate::document::Problems;
use crate::plan::Plan;
use crate::run::session::write_plan;
use crate::run::state::SweepState;
use crate::run::{Request, RunError, twins};
use crate::spec::{Search, Space, Way};

/// How a plan grows.
#[derive(Clone)]
pub struct Grow {
    /// The axes.
    pub space: Space,
    /// The plan with these points too. The trials before them stay where they are.
    pub plan: Arc<Grown>,
}

/// Makes a plan with further points.
type Grown = dyn Fn(&[Vec<f64>]) -> Result<Plan, Problems> + Send + Sync;

impl fmt::Debug for Grow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grow").field("space", &self.space).finish_non_exhaustive()
    }
}

/// Points that Optuna placed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// Names the axes and their bounds; points that were placed between others are none of this space.
    pub space: String,
    /// Names what was wanted of them.
    pub study: String,
    /// The points, each with its number among the trials of Optuna's study of that name.
    pub next: Vec<(u64, Vec<f64>)>,
    /// Points that it chose and that were there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeated: Vec<(u64, Vec<f64>)>,
}

impl Sampled {
    /// Everything that Optuna chose.
    pub fn chosen(&self) -> impl Iterator<Item = &(u64, Vec<f64>)> {
        self.next.iter().chain(&self.repeated)
    }
}

/// Every point that was placed in a space, in order.
pub fn placed(state: &SweepState, space: &Space) -> Vec<Vec<f64>> {
    let key = space.key();
    let refined = state.refinements.iter().filter(|refined| refined.space == key).flat_map(|refined| &refined.next);
    let sampled = state.samples.iter().filter(|sampled| sampled.space == key).flat_map(|sampled| &sampled.next);
    refined.chain(sampled.map(|(_, point)| point)).cloned().collect()
}

/// The request with the points that were placed since it was made, by whoever took the decision.
pub(in crate::run) fn refreshed(request: &Request, state: &SweepState) -> Result<Request, RunError> {
    let mut request = request.clone();
    if let Some(grow) = &request.grow {
        let grown = (grow.plan)(&placed(state, &grow.space)).map_err(RunError::Grow)?;
        request.selected.extend(request.plan.trials.len()..grown.trials.len());
        request.plan = grown;
    }
    Ok(request)
}

/// Trials that race beside each other: points that Optuna placed at one time, after those of the grid; all where it places none.
pub(super) fn rounds(request: &Request, search: &Search, state: &SweepState, trials: &[usize]) -> Vec<Vec<usize>> {
    let (Way::Optuna(_), Some(Grow { space, .. })) = (&search.way, &request.grow) else { return vec![trials.to_vec()] };
    let key = space.key();
    let samples: Vec<&Sampled> = state.samples.iter().filter(|sampled| sampled.space == key).collect();
    let mut rounds = vec![Vec::new(); samples.len() + 1];
    for index in trials {
        let point = space.point(&request.plan.trials[*index].axes);
        let is_placed = |sampled: &&Sampled| sampled.next.iter().any(|(_, placed)| Some(placed) == point.as_ref());
        rounds[samples.iter().position(is_placed).map_or(0, |place| place + 1)].push(*index);
    }
    rounds
}

impl Going<'_, '_> {
    /// The plan with further points; none where there are none.
    pub(super) fn grown(&self, next: &[Vec<f64>]) -> Result<Option<Plan>, RunError> {
        let Some(grow) = self.request.grow.as_ref().filter(|_| !next.is_empty()) else { return Ok(None) };
        let mut points = placed(&self.session.state, &grow.space);
        points.extend(next.iter().cloned());
        (grow.plan)(&points).map(Some).map_err(RunError::Grow)
    }

    /// Goes on with a plan that has further trials at its end, and says which these are.
    pub(super) fn take(&mut self, plan: Plan) -> Result<Vec<usize>, RunError> {
        let mut request = (*self.request).clone();
        let new = request.plan.trials.len()..plan.trials.len();
        request.plan = plan;
        request.selected.extend(new.clone());
        self.session.facts.rounded = twins::rounded(&request);
        write_plan(&request)?;
        self.request = Arc::new(request);
        Ok(new.collect())
    }

    /// Numbers of the trials that are points, with their places in the space; and whether each is of the grid.
    pub(super) fn points(&self) -> Vec<(usize, Vec<f64>, bool)> {
        let Some(grow) = &self.request.grow else { return Vec::new() };
        let placed = placed(&self.session.state, &grow.space);
        let trials = self.request.plan.trials.iter().enumerate();
        let points = trials.filter_map(|(index, trial)| Some((index, grow.space.point(&trial.axes)?)));
        points.map(|(index, point)| (index, point.clone(), !placed.contains(&point))).collect()
    }
}
