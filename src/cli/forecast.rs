//! What a run would cost and could show, below a plan.

use serde_json::Value as Json;

use super::calibration::{Measured, measure};
use super::recorded::{self, Recorded};
use super::{Failure, SweepArgs, run};
use crate::eval::task;
use crate::forecast::{self, Forecast, Known};
use crate::paired::Entrant;
use crate::plan::Plan;
use crate::run::Request;
use crate::spec::Sweep;

/// Rows whose earlier results tell how much answers differ, besides the reference.
const LOOKED_AT: usize = 4;

/// What lies ahead, and the columns of it as far as they are known.
pub(super) struct Ahead {
    pub forecast: Forecast,
    pub columns: Vec<task::Column>,
}

impl Ahead {
    /// As text.
    pub fn text(&self) -> String {
        forecast::words::text(&self.forecast)
    }

    /// As JSON.
    pub fn json(&self) -> Json {
        forecast::json::json(&self.forecast)
    }
}

/// Looks ahead; with `measures`, after a calibration.
pub(super) fn ahead(args: &SweepArgs, sweep: &Sweep, plan: &Plan, measures: bool) -> Result<Ahead, Failure> {
    let (request, sweep) = run::request_of(args, sweep.clone(), plan.clone(), &[], &[])?;
    let Measured { passes, short } = if measures { measure(&request, &sweep)? } else { Measured::default() };
    let (columns, entrants) = results(&request, &sweep)?;
    let known = Known { sweep: &sweep, entrants: &entrants, columns: &columns, calibrated: passes, short };
    Ok(Ahead { forecast: forecast::forecast(&request, known)?, columns })
}

/// The columns, and what the reference and the first other rows with results scored.
fn results(request: &Request, sweep: &Sweep) -> Result<(Vec<task::Column>, Vec<Entrant>), Failure> {
    let store = &request.store;
    if !store.journal().is_file() {
        return Ok((task::columns(&request.settings.tasks, &[]), Vec::new()));
    }
    let recorded = recorded::collect(&request.plan, sweep, store)?;
    let columns = recorded.table.columns.clone();
    // A reference that is no longer there compares with nothing.
    let first = recorded.reference(None, sweep).ok().flatten().or_else(|| has_scores(&recorded).next());
    let others = has_scores(&recorded).filter(|place| Some(*place) != first).take(LOOKED_AT);
    let places: Vec<usize> = first.into_iter().chain(others).collect();
    let entrants = places.into_iter().map(|place| recorded.entrant(place)).collect::<Result<_, _>>()?;
    Ok((columns, entrants))
}

fn has_scores(recorded: &Recorded) -> impl Iterator<Item = usize> {
    let rows = recorded.table.rows.iter().enumerate();
    rows.filter(|(_, row)| !row.scores.is_empty()).map(|(place, _)| place)
}
