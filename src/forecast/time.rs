//! How long what is left would take at the rates that were measured: as long as the merges or the evaluations, whichever take
//! longer, since both go on at once.

use std::collections::HashMap;

use super::Calls;
use super::rates::{Origin, Rates, Spread, asked};
use super::volume::Volume;
use crate::eval::TaskRequest;
use crate::eval::command::Call;
use crate::run::Request;
use crate::run::fingerprint::evaluation_key;
use crate::run::foresight::Foresight;

/// Seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Time {
    /// Of all merges; none where no rate or not every size is known.
    pub merges: Option<Spread>,
    /// Of all evaluations, spread over the slots; none where one of the calls was never timed.
    pub evaluations: Option<Spread>,
    /// Where the times of evaluations come from.
    pub origin: Origin,
    /// Of both; none where one of the two is not known.
    pub all: Option<Spread>,
}

impl Time {
    /// Of what is left.
    pub fn of(request: &Request, foresight: &Foresight, volume: &Volume, rates: &Rates) -> Self {
        let merges = merges(volume, rates);
        let (evaluations, origin) = match evaluations(request, foresight, rates) {
            Some((spread, origin)) => (Some(spread), origin),
            None => (None, Origin::None),
        };
        let all = merges.zip(evaluations).map(|(merges, evaluations)| {
            // The first model is merged before anything can be evaluated.
            let first = merges.times(1.0 / volume.n_passes.max(1) as f64);
            merges.or(if volume.n_merges > 0 { evaluations.and(first) } else { evaluations })
        });
        Self { merges, evaluations, origin, all }
    }
}

const NOTHING: Spread = Spread { low: 0.0, mean: 0.0, high: 0.0 };

fn merges(volume: &Volume, rates: &Rates) -> Option<Spread> {
    if volume.n_merges == 0 {
        return Some(NOTHING);
    }
    let seconds: Vec<f64> = rates.merges.passes.iter().map(|pass| pass.seconds / pass.bytes as f64).collect();
    volume.is_known().then(|| Spread::of(&seconds)).flatten().map(|spread| spread.times(volume.written as f64))
}

fn evaluations(request: &Request, foresight: &Foresight, rates: &Rates) -> Option<(Spread, Origin)> {
    let mut calls = Calls::new(request);
    let mut times: HashMap<Vec<String>, (Spread, Origin)> = HashMap::new();
    let (mut sum, mut origin) = (NOTHING, Origin::None);
    for trial in &foresight.trials {
        for call in calls.of(&trial.tasks) {
            let names: Vec<String> = call.tasks.iter().map(|task| task.name.clone()).collect();
            if !times.contains_key(&names) {
                times.insert(names.clone(), time_of(request, call, rates)?);
            }
            let (spread, from) = times[&names];
            sum = sum.and(spread);
            origin = from;
        }
    }
    Some((sum.times(1.0 / request.slots.len().max(1) as f64), origin))
}

/// How long calls took that were asked the same.
fn time_of(request: &Request, call: &Call, rates: &Rates) -> Option<(Spread, Origin)> {
    let asked = asked_together(request, &call.tasks);
    match rates.calls.get(&asked) {
        Some((times, from)) => Some((Spread::of(times)?, *from)),
        None => rates.calibrated.get(&asked).map(|spread| (*spread, Origin::Calibration)),
    }
}

/// What the tasks of a call are asked, as calls are told apart.
pub(super) fn asked_together(request: &Request, tasks: &[TaskRequest]) -> Vec<String> {
    let asked_of = |task: &TaskRequest| asked(&evaluation_key("", &request.settings, task, "", None), &task.name);
    let mut asked: Vec<String> = tasks.iter().map(asked_of).collect();
    asked.sort();
    asked
}
