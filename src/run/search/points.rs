//! Searches that place points of their own: how the plan grows, and what is recorded of it. Points that were placed belong to the
//! plan from then on.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Going;
use crate::document::Problems;
use crate::plan::Plan;
use crate::run::state::SweepState;
use crate::run::{RunError, twins, write_plan};
use crate::spec::Space;

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

impl Going<'_, '_> {
    /// The plan with further points; none where there are none.
    pub(super) fn grown(&self, next: &[Vec<f64>]) -> Result<Option<Plan>, RunError> {
        let Some(grow) = self.request.grow.as_ref().filter(|_| !next.is_empty()) else { return Ok(None) };
        let mut points = placed(&self.session.state, &grow.space);
        points.extend(next.iter().cloned());
        (grow.plan)(&points).map(Some).map_err(RunError::Grow)
    }

    /// Goes on with a plan that has further trials at its end.
    pub(super) fn take(&mut self, plan: Plan) -> Result<(), RunError> {
        let mut request = (*self.request).clone();
        let new = request.plan.trials.len()..plan.trials.len();
        request.plan = plan;
        request.selected.extend(new.clone());
        self.session.facts.rounded = twins::rounded(&request);
        write_plan(&request)?;
        self.alive.extend(new);
        self.request = Arc::new(request);
        Ok(())
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
