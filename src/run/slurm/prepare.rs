//! From a request to a submission: which units there are, how many tasks may run at once, and what each is told.

use std::collections::BTreeSet;
use std::fs;

use super::super::Request;
use super::super::journal::{Journal, Record, What};
use super::super::search::Turn;
use super::super::state::SweepState;
use super::super::store::{at, remove_folder};
use super::collect;
use super::manifest::{Manifest, Portion, asked};
use super::sizes::Sizes;
use super::submission::{Place, Step};
use super::unit::{Unit, deal};
use super::{Options, SlurmError};
use crate::plan::{Plan, Trial};
use crate::spec::Keep;

/// Deals work out to units: those of the trials of a request that are wanted. Of a search, `search` says which part of it the
/// request is, with which run.
pub(super) fn prepare(
    request: &Request,
    options: &Options,
    is_wanted: &dyn Fn(usize) -> bool,
    state: &SweepState,
    number: u32,
    search: Option<(&Turn, Place)>,
) -> Result<Manifest, SlurmError> {
    let (limit, split) = (room(request, options), options.slurm.split);
    let sizes = Sizes::new(request, limit.is_some());
    // What is merged before any of it is evaluated must fit as a whole.
    let per_unit = options.slurm.trials_per_job;
    let units = deal(request, per_unit, limit.filter(|_| split), &sizes, is_wanted);
    // Of a search, what stayed of the others has made room; where nothing is to stay, it is gone.
    let is_beside = search.is_none() && request.keep != Keep::Nothing;
    let others = if is_beside { held_beside(request, &units, state) } else { 0 };
    let all: u64 = units.iter().map(|unit| unit.bytes).sum::<u64>() + others;
    let fits = limit.is_none_or(|disk| all <= disk);
    if let Some(disk) = limit.filter(|_| search.is_none() && request.keep != Keep::Nothing && !fits) {
        return Err(SlurmError::Keeps { needed: all, disk });
    }
    let limit = limit.map(|disk| disk.saturating_sub(others));
    let holds = fits && options.slurm.work_dir.is_none();
    let asked_at_once = options.slurm.tasks_at_once;
    // What stays is there beside all else: tasks that took turns would have a part of the room for all of theirs.
    let stays = holds && (search.is_some() || request.keep != Keep::Nothing);
    let needs_turns = !split && !stays;
    let (at_once, disk) = match limit.filter(|_| needs_turns) {
        Some(limit) => share(request, asked_at_once, limit, &units, &sizes),
        None => (asked_at_once, limit.or(request.disk)),
    };
    let run = search.map_or(request, |(turn, _)| &turn.whole);
    let names = |trials: &[usize]| trials.iter().map(|index| run.plan.trials[*index].name.clone()).collect();
    Ok(Manifest {
        submission: number,
        spec: options.spec.clone(),
        results: options.results.clone(),
        python: Some(request.settings.python.clone()).filter(|python| python.components().count() > 1),
        limit: options.limit,
        redo: names(&run.redo),
        asked: asked(&request.settings),
        disk,
        at_once,
        split,
        work_dir: options.slurm.work_dir.clone(),
        search: search.map(|(turn, place)| Portion {
            place,
            draw: turn.draw.clone(),
            holds,
            selected: names(&run.selected),
        }),
        units,
    })
}

/// Bytes that merged models may take on the disk that all nodes share.
fn room(request: &Request, options: &Options) -> Option<u64> {
    request.disk.filter(|_| options.slurm.work_dir.is_none())
}

/// Bytes of the merged models that are there of trials of no unit.
fn held_beside(request: &Request, units: &[Unit], state: &SweepState) -> u64 {
    let own: BTreeSet<usize> = units.iter().filter_map(|unit| unit.positions(&request.plan)).flatten().collect();
    held(&request.plan, state, &|index| !own.contains(&index)).into_iter().map(|(_, bytes)| bytes).sum()
}

/// Trials of a plan, of those that are meant, whose merged model is there, with its bytes.
fn held<'p>(plan: &'p Plan, state: &SweepState, is_meant: &dyn Fn(usize) -> bool) -> Vec<(&'p Trial, u64)> {
    let meant = plan.trials.iter().enumerate().filter(|(index, _)| is_meant(*index));
    let held = meant.filter_map(|(_, trial)| {
        let state = state.of(&trial.id);
        let merged = state.merged.filter(|_| state.model_present)?;
        Some((trial, merged.merge.n_bytes))
    });
    held.collect()
}

/// Deletes the models that stayed of the other trials of a search, where they leave too little room for those that are asked next.
/// They are merged again if they are needed once more.
pub(super) fn make_room(
    turn: &Turn,
    options: &Options,
    state: &SweepState,
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let Some(disk) = room(&turn.whole, options) else { return Ok(()) };
    let Turn { whole, round, .. } = turn;
    let all: u64 = Sizes::new(round, true).of_merges(round.selected.iter().copied()).into_iter().sum();
    let held = held(&whole.plan, state, &|index| !round.selected.contains(&index));
    if all + held.iter().map(|(_, bytes)| bytes).sum::<u64>() <= disk {
        return Ok(());
    }
    for (trial, _) in held {
        journal.append(Some(&trial.id), What::ModelDeleted)?;
        remove_folder(&whole.store.model(trial))?;
    }
    Ok(())
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
    let search = manifest.search.as_ref().map(|portion| portion.place);
    journal.append(None, What::Slurm(Step::Opened { submission, units, search }))?;
    Ok(())
}
