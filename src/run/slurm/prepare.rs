//! From a request to a submission: which units there are, how many tasks may run at once, and what each is told.

use std::collections::BTreeSet;
use std::fs;

use super::super::journal::{Journal, Record, What};
use super::super::state::SweepState;
use super::super::store::at;
use super::super::{Facts, Request, is_work_left, twins};
use super::collect;
use super::manifest::{Manifest, asked};
use super::sizes::Sizes;
use super::submission::Step;
use super::unit::{Unit, deal};
use super::{Options, SlurmError};
use crate::plan::TrialId;
use crate::spec::Keep;

/// Deals the work that is left out to units. Without facts, all selected trials count as left.
pub(super) fn prepare(
    request: &Request,
    options: &Options,
    facts: Option<&Facts>,
    state: &SweepState,
    number: u32,
    attempted: &BTreeSet<TrialId>,
) -> Result<Manifest, SlurmError> {
    let followers = twins::followers(request);
    let is_wanted = |index: usize| {
        let is_left = facts.is_none_or(|facts| is_work_left(request, facts, state, &followers, index));
        is_left && !attempted.contains(&request.plan.trials[index].id)
    };
    let (limit, split) = (request.disk.filter(|_| options.slurm.work_dir.is_none()), options.slurm.split);
    let sizes = Sizes::new(request, limit.is_some());
    // What is merged before any of it is evaluated must fit as a whole.
    let room = limit.filter(|_| split);
    let units = deal(request, options.slurm.trials_per_job, room, &sizes, &is_wanted);
    let all: u64 = units.iter().map(|unit| unit.bytes).sum();
    if let Some(disk) = limit.filter(|disk| request.keep != Keep::Nothing && all > *disk) {
        return Err(SlurmError::Keeps { needed: all, disk });
    }
    let asked_at_once = options.slurm.tasks_at_once;
    let (at_once, disk) = match limit {
        Some(limit) if !split => share(request, asked_at_once, limit, &units, &sizes),
        _ => (asked_at_once, request.disk),
    };
    Ok(Manifest {
        submission: number,
        spec: options.spec.clone(),
        results: options.results.clone(),
        python: Some(request.settings.python.clone()).filter(|python| python.components().count() > 1),
        limit: options.limit,
        redo: request.redo.iter().map(|index| request.plan.trials[*index].name.clone()).collect(),
        asked: asked(&request.settings),
        disk,
        at_once,
        split,
        work_dir: options.slurm.work_dir.clone(),
        units,
    })
}

/// How many tasks may run at once, and how much disk each may take: together no more than the limit. Where models lie on the
/// nodes, every task has a disk of its own.
fn share(
    request: &Request,
    asked: Option<usize>,
    limit: u64,
    units: &[Unit],
    sizes: &Sizes<'_>,
) -> (Option<usize>, Option<u64>) {
    let pass = |unit: &Unit| {
        let mut sizes = sizes.of_merges(unit.positions(&request.plan).into_iter().flatten());
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(request.merges_per_pass).sum::<u64>()
    };
    let largest = units.iter().map(pass).max().filter(|bytes| *bytes > 0);
    let fitting = largest.map(|bytes| usize::try_from((limit / bytes).max(1)).unwrap_or(usize::MAX));
    let at_once = match (fitting, asked) {
        (Some(fitting), Some(asked)) => Some(fitting.min(asked)),
        (fitting, asked) => fitting.or(asked),
    };
    let share = at_once.map_or(limit, |at_once| limit / at_once.min(units.len()).max(1) as u64);
    (at_once.filter(|at_once| *at_once < units.len() || asked.is_some()), Some(share))
}

/// Makes what the tasks need, and the record that there is a submission. The journal is the sweep's, whose lock is held.
pub(super) fn open(
    request: &Request,
    manifest: &Manifest,
    records: &[Record],
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let folder = request.store.submission(manifest.submission);
    let logs = folder.join("logs");
    fs::create_dir_all(&logs).map_err(at(&logs))?;
    for unit in &manifest.units {
        collect::seed(&request.store, unit, records)?;
    }
    manifest.write(&folder.join("manifest.json"))?;
    let (submission, units) = (manifest.submission, manifest.units.clone());
    journal.append(None, What::Slurm(Step::Opened { submission, units }))?;
    Ok(())
}
