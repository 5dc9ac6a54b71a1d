//! Records between the journal of the sweep and those of its units. Both ways are the same: what the one journal has about
//! some trials and the other lacks is appended to it as it is, so that doing it again changes nothing.

use std::collections::{BTreeSet, HashSet};

use super::super::journal::{self, Journal, JournalError, Record, Stage, What};
use super::super::state::SweepState;
use super::super::store::{Store, StoreError};
use super::submission::Step;
use super::unit::Unit;
use crate::eval::Settings;
use crate::plan::TrialId;

/// Records about trials of the unit that are not among `known`.
pub(super) fn missing(from: &[Record], known: &HashSet<String>, unit: &Unit) -> Vec<Record> {
    about(&unit.trials.iter().map(|trial| &trial.id).collect(), from, known)
}

/// Records about trials that are not among `known`.
fn about(trials: &BTreeSet<&TrialId>, from: &[Record], known: &HashSet<String>) -> Vec<Record> {
    let is_wanted = |record: &&Record| {
        record.trial.as_ref().is_some_and(|trial| trials.contains(trial)) && !known.contains(&line(record))
    };
    from.iter().filter(is_wanted).cloned().collect()
}

/// Records as they are told apart.
pub(super) fn lines(records: &[Record]) -> HashSet<String> {
    records.iter().filter(|record| record.trial.is_some()).map(line).collect()
}

fn line(record: &Record) -> String {
    // What was read from JSON can be written as such.
    serde_json::to_string(record).unwrap_or_default()
}

/// What the journal of a unit holds now. A line that is being written is not there yet.
pub(super) fn of_unit(store: &Store, unit: &Unit) -> Result<Vec<Record>, JournalError> {
    journal::read(&store.unit(&unit.id).journal())
}

/// How a unit ended in a submission, if it has: why it could not be worked on, or nothing.
pub(super) fn ended(records: &[Record], number: u32) -> Option<Option<String>> {
    records.iter().rev().find_map(|record| match &record.what {
        What::Slurm(Step::UnitEnded { submission, reason, .. }) if *submission == number => Some(reason.clone()),
        _ => None,
    })
}

/// Gives the journal of a unit what the sweep knows of its trials, so that it is not done again.
///
/// # Errors
/// [`StoreError::Held`] where a task works on the unit, and whatever the disk says.
pub(super) fn seed(store: &Store, unit: &Unit, records: &[Record]) -> Result<(), SeedError> {
    let own = store.unit(&unit.id);
    let its = journal::read(&own.journal())?;
    // Also of trials that dropped out of a search since it worked on them: their models are gone.
    let worked_on = its.iter().filter_map(|record| record.trial.as_ref());
    let trials = unit.trials.iter().map(|trial| &trial.id).chain(worked_on).collect();
    let missing = about(&trials, records, &lines(&its));
    if missing.is_empty() {
        return Ok(());
    }
    let _lock = own.lock()?;
    let (mut journal, _) = Journal::open(&own.journal())?;
    Ok(journal.take_over(&missing, Vec::new())?)
}

/// Why a unit cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Its folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Failures of the trials of a unit that nobody can work on any more: those that have not all their scores.
pub(super) fn failures(records: &[Record], unit: &Unit, settings: &Settings, reason: &str) -> Vec<Record> {
    let state = SweepState::replay(records);
    let mut told = BTreeSet::new();
    let failed = unit.trials.iter().filter(|trial| told.insert(&trial.id)).filter_map(|trial| {
        let state = state.of(&trial.id);
        let is_done = settings.tasks.iter().all(|task| state.current(settings, task).is_some());
        let stage = match (state.in_flight, &state.merged) {
            (Some(stage), _) => stage,
            (None, Some(_)) => Stage::Evaluate,
            (None, None) => Stage::Merge,
        };
        let what = What::Failed { stage, reason: reason.to_owned() };
        (!is_done).then(|| Record { time: journal::now(), trial: Some(trial.id.clone()), what })
    });
    failed.collect()
}

/// The journal of a sweep with what the units of an open submission have recorded since, for whoever only looks.
///
/// # Errors
/// [`JournalError`] of any of them.
pub fn overlaid(store: &Store) -> Result<Vec<Record>, JournalError> {
    let mut records = journal::read(&store.journal())?;
    let Some(open) = super::submission::Submission::open(&records) else { return Ok(records) };
    let known = lines(&records);
    for unit in open.unsettled().map(|unit| &open.units[unit]) {
        records.extend(missing(&of_unit(store, unit)?, &known, unit));
    }
    Ok(records)
}
