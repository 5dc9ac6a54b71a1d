//! What can be deleted from the folder of a sweep without losing a score: merged models that stayed, folders of trials that
//! the spec no longer has, answers of evaluations that were given up.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::journal::{Journal, What};
use super::state::SweepState;
use super::store::{self, Store};
use super::{RunError, journal, session};
use crate::plan::{Plan, TrialId};

/// Something to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes in it.
    pub bytes: u64,
    /// What it is, in words.
    pub what: String,
    /// The trial whose merged model it is.
    model_of: Option<TrialId>,
}

/// Finds what can go and was not touched for `age`.
///
/// # Errors
/// [`RunError`] where the journal cannot be read.
pub fn find(store: &Store, plan: &Plan, age: Duration) -> Result<Vec<Item>, RunError> {
    let records = journal::read(&store.journal())?;
    let state = SweepState::replay(&records);
    let mut items = Vec::new();
    for trial in plan.trials.iter().filter(|trial| state.of(&trial.id).model_present) {
        let what = format!("merged model of {}: `materialize` makes it again", trial.name);
        items.push(item(store.model(trial), what, Some(trial.id.clone())));
    }
    // By identity: a trial with another name is in the folder that it had.
    let known: HashSet<&str> = plan.trials.iter().map(|trial| trial.id.short()).collect();
    let models: HashMap<&str, &TrialId> =
        state.trials().filter(|id| state.of(id).model_present).map(|id| (id.short(), id)).collect();
    let gone = |folder: PathBuf, what: &str| {
        let id = store::id_in(&folder);
        if id.is_some_and(|id| known.contains(id)) {
            return None;
        }
        let model_of = id.and_then(|id| models.get(id)).copied().cloned();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let what = what.replace("{}", &name);
        Some(item(folder, what, model_of))
    };
    let trials = store.trial_folders().into_iter();
    items.extend(trials.filter_map(|folder| gone(folder, "trial `{}`, which the spec no longer has: its logs go too")));
    let models = store.model_folders().into_iter();
    items.extend(models.filter_map(|folder| gone(folder, "merged model of `{}`, which the spec no longer has")));
    for folder in store::folders(&store.harness_answers()) {
        items.push(item(folder, "answers of an evaluation that was not finished".to_owned(), None));
    }
    if super::slurm::submission::Submission::open(&records).is_none() {
        for folder in store.units() {
            items.push(item(folder, "journal and answers of a unit on Slurm, all of it gathered".to_owned(), None));
        }
    }
    items.retain(|item| is_older(&item.path, age));
    Ok(items)
}

/// Finds what can go, while no run changes it, and deletes it. The journal says first that a model is gone.
///
/// # Errors
/// [`RunError`] where another run holds the sweep, or something cannot be deleted.
pub fn remove(store: &Store, plan: &Plan, age: Duration) -> Result<Vec<Item>, RunError> {
    if !store.journal().exists() {
        return Ok(Vec::new());
    }
    let _lock = store.lock()?;
    let (mut journal, records) = Journal::open(&store.journal())?;
    session::refuse_submitted(&records)?;
    let items = find(store, plan, age)?;
    for Item { path, model_of, .. } in &items {
        if let Some(trial) = model_of {
            journal.append(Some(trial), What::ModelDeleted)?;
        }
        store::remove_folder(path)?;
    }
    Ok(items)
}

fn item(path: PathBuf, what: String, model_of: Option<TrialId>) -> Item {
    Item { bytes: bytes_in(&path), path, what, model_of }
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// A folder of which the clock says nothing sensible is not old.
fn is_older(folder: &Path, age: Duration) -> bool {
    let modified = fs::metadata(folder).and_then(|metadata| metadata.modified());
    let passed = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_zero() || passed.is_some_and(|passed| passed >= age)
}
