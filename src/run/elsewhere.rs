//! The evaluations of other sweeps with their results in the same place, which hold here too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;

use super::fingerprint::Key;
use super::journal::{self, TaskEvaluation};
use super::state::SweepState;
use super::store::Store;
use crate::eval::results::HarnessFacts;

/// What other sweeps have evaluated, as far as their journals were read.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Name of the sweep that asks.
    own: String,
    /// By the folder of their journal.
    neighbours: Mutex<BTreeMap<PathBuf, Neighbour>>,
}

/// Another sweep, or a unit of one.
#[derive(Debug)]
struct Neighbour {
    /// Name of the sweep.
    sweep: String,
    plan: Json,
    state: SweepState,
    /// Length of the journal that this was read from.
    n_bytes: u64,
}

impl Elsewhere {
    /// Reads the journals beside that of a sweep.
    pub fn read(store: &Store, own: &str) -> Self {
        let elsewhere = Self { own: own.to_owned(), ..Self::default() };
        elsewhere.read_again(store, None);
        elsewhere
    }

    /// Reads the journals beside that of a sweep as far as they have changed, and that of a `holder` of evaluations, which may be
    /// a unit. One that cannot be read has nothing to give.
    pub fn read_again(&self, store: &Store, holder: Option<&Path>) {
        let mut neighbours = self.neighbours();
        let known = neighbours.keys().cloned();
        let folders: BTreeSet<PathBuf> = known.chain(store.other_sweeps()).chain(holder.map(Path::to_owned)).collect();
        for folder in folders.into_iter().filter(|folder| folder != store.root()) {
            let known = neighbours.get(&folder).map(|neighbour| neighbour.n_bytes);
            if let Some(neighbour) = Neighbour::read(store, &folder, known) {
                neighbours.insert(folder, neighbour);
            }
        }
    }

    /// The version of the harness that an evaluation was last made with.
    pub fn recorded_version(&self) -> Option<String> {
        self.neighbours().values().filter_map(|neighbour| neighbour.state.recorded_version()).next_back()
    }

    /// An evaluation of a task with that key, and whose it is.
    pub fn evaluation_with(&self, task: &str, key: &Key) -> Option<(String, TaskEvaluation, HarnessFacts)> {
        self.neighbours().values().find_map(|Neighbour { sweep, plan, state, .. }| {
            let (id, done, harness) = state.evaluation_with(task, key)?;
            let trials = plan["trials"].as_array().into_iter().flatten();
            let name = trials.filter(|trial| trial["id"] == id.0.as_str()).find_map(|trial| trial["name"].as_str());
            let name = name.unwrap_or(&id.0);
            // To a unit, its own sweep is another one; to a reader it is not.
            let from = if self.own == *sweep { name.to_owned() } else { format!("{sweep}/{name}") };
            Some((from, done, harness))
        })
    }

    fn neighbours(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Neighbour>> {
        // A panic elsewhere leaves every neighbour as it was read.
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbour {
    /// Reads the journal in a folder, unless it has its `known` length.
    fn read(store: &Store, folder: &Path, known: Option<u64>) -> Option<Self> {
        let path = folder.join("journal.jsonl");
        // Opened first: what a network file system remembers of the length may be old.
        let n_bytes = File::open(&path).and_then(|file| file.metadata()).ok()?.len();
        if known == Some(n_bytes) {
            return None;
        }
        let state = SweepState::replay(&journal::read(&path).ok()?);
        let plan = fs::read(folder.join("plan.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let sweep = folder.strip_prefix(store.results()).unwrap_or(folder).iter().next()?;
        Some(Self { sweep: sweep.to_string_lossy().into_owned(), plan: plan.unwrap_or_default(), state, n_bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::plan::TrialId;
    use crate::run::journal::{Evaluation, Journal, What};

    fn key(weights: &str) -> Key {
        Key([("weights".to_owned(), weights.to_owned())].into())
    }

    /// Records that a trial was asked `facts`.
    fn evaluated(store: &Store, trial: &str, weights: &str) {
        fs::create_dir_all(store.root()).unwrap();
        let (mut journal, _) = Journal::open(&store.journal()).unwrap();
        let task = TaskEvaluation { task: "facts".to_owned(), key: key(weights), scores: Vec::new() };
        let (tasks, harness, folder) = (vec![task], HarnessFacts::default(), "evaluations/1".to_owned());
        let what = What::Evaluated(Evaluation { tasks, harness, folder, seconds: 1.0, batch_size: None });
        journal.append(Some(&TrialId(trial.to_owned())), what).unwrap();
    }

    #[test]
    fn what_neighbours_record_is_known_once_it_is_looked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| Store::new(folder.path(), name).unwrap());
        let elsewhere = Elsewhere::read(&own, "own");
        let from = |weights: &str| elsewhere.evaluation_with("facts", &key(weights)).map(|(from, ..)| from);
        evaluated(&other, "a", "one");
        assert_eq!(from("one"), None);
        elsewhere.read_again(&own, None);
        assert_eq!(from("one").as_deref(), Some("other/a"));

        // A line that is being written is not there yet.
        let mut journal = File::options().append(true).open(other.journal()).unwrap();
        journal.write_all(b"{\"time\":1.0").unwrap();
        elsewhere.read_again(&own, None);
        assert_eq!(from("one").as_deref(), Some("other/a"));
        evaluated(&other, "b", "two");
        elsewhere.read_again(&own, None);
        assert_eq!(from("two").as_deref(), Some("other/b"));
    }

    #[test]
    fn a_unit_is_known_by_what_it_was_seen_to_be_at() {
        let folder = tempfile::tempdir().unwrap();
        let sweep = Store::new(folder.path(), "own").unwrap();
        let [unit, other] = ["1", "2"].map(|id| sweep.unit(id));
        let elsewhere = Elsewhere::read(&unit, "own");
        evaluated(&other, "a", "one");
        elsewhere.read_again(&unit, None);
        assert!(elsewhere.evaluation_with("facts", &key("one")).is_none());
        elsewhere.read_again(&unit, Some(other.root()));
        // The trial is one of the same sweep.
        assert_eq!(elsewhere.evaluation_with("facts", &key("one")).unwrap().0, "a");
        evaluated(&other, "b", "two");
        elsewhere.read_again(&unit, None);
        assert_eq!(elsewhere.evaluation_with("facts", &key("two")).unwrap().0, "b");
    }
}
