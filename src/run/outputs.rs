//! Where the harness' own files of an evaluation lie: found by what its answers rest on, here or in a sweep beside.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::fingerprint::Key;
use super::journal::{self, Evaluation, Record, What};
use super::store::{Store, folders, id_in};
use crate::eval::results::{self, ResultsError};
use crate::eval::samples;
use crate::plan::TrialId;

/// Output folders of accepted evaluations. The newest of equal ones counts.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    own: HashMap<(TrialId, String, Key), PathBuf>,
    any: HashMap<(String, Key), PathBuf>,
}

impl Outputs {
    /// From the records of a sweep, and the journals beside it: a twin's scores were taken over, its samples stay where they
    /// are. Journals of others that cannot be read have nothing to give.
    pub fn read(store: &Store, records: &[Record]) -> Self {
        let mut outputs = Self::default();
        for beside in store.other_sweeps() {
            if let Ok(records) = journal::read(&beside.join("journal.jsonl")) {
                outputs.add(&beside, &records);
            }
        }
        outputs.add(store.root(), records);
        outputs
    }

    fn add(&mut self, root: &Path, records: &[Record]) {
        let trials = folders(&root.join("trials"));
        let trials: HashMap<&str, &PathBuf> =
            trials.iter().filter_map(|folder| Some((id_in(folder)?, folder))).collect();
        for record in records {
            let Some(id) = &record.trial else { continue };
            match &record.what {
                What::Evaluated(Evaluation { tasks, folder, .. }) => {
                    let Some(trial) = trials.get(id.short()) else { continue };
                    let output = trial.join(folder).join("output");
                    for task in tasks {
                        let own = (id.clone(), task.task.clone(), task.key.clone());
                        self.own.insert(own, output.clone());
                        self.any.insert((task.task.clone(), task.key.clone()), output.clone());
                    }
                }
                // Its scores are a twin's from here on, whatever it once answered under the same key.
                What::Shared { task, .. } => {
                    if let Some(output) = self.any.get(&(task.task.clone(), task.key.clone())) {
                        self.own.insert((id.clone(), task.task.clone(), task.key.clone()), output.clone());
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether the harness' files of an evaluation are here: they may have been deleted, or the journal came without them.
    pub fn has(&self, trial: &TrialId, task: &str, key: &Key) -> bool {
        let found = self.folder(trial, task, key).map(|folder| results::find(folder));
        !matches!(found, None | Some(Err(ResultsError::Absent { .. })))
    }

    /// The samples file of a task (`of`, which may be a member of the task that was asked for), from an evaluation of
    /// `task` under `key`: the trial's own, else a twin's. None where there is none, or not any more.
    ///
    /// # Errors
    /// [`ResultsError`] where a folder that is there cannot be read.
    pub fn samples(&self, trial: &TrialId, task: &str, key: &Key, of: &str) -> Result<Option<PathBuf>, ResultsError> {
        let files = match self.folder(trial, task, key).map(|folder| results::find(folder)) {
            None | Some(Err(ResultsError::Absent { .. })) => Vec::new(),
            Some(found) => found?.1,
        };
        Ok(files.into_iter().find(|file| samples::task_of(file) == Some(of)))
    }

    fn folder(&self, trial: &TrialId, task: &str, key: &Key) -> Option<&PathBuf> {
        let own = self.own.get(&(trial.clone(), task.to_owned(), key.clone()));
        own.or_else(|| self.any.get(&(task.to_owned(), key.clone())))
    }
}
