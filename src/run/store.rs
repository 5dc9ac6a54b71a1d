//! Where a sweep lies on disk, and who holds it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::merge::sample::Sample;
use crate::plan::{Trial, TrialId};

/// The folder of one sweep, `RESULTS/<sweep>/`, or of one unit of it, `RESULTS/<sweep>/units/<id>/`, which has a journal and a
/// lock of its own.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// The folder of the sweep, where this is one of a unit: trials lie there, since no two units share one.
    sweep: Option<PathBuf>,
    /// Where merged models lie, if not in the folders of their trials.
    work: Option<PathBuf>,
}

/// Held while a run owns the folder; the lock goes with the process, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another run holds it.
    #[error("{}: {holder} holds this sweep (wait for it, or stop it; `mergesweep status` only reads)", .path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Which process on which machine.
        holder: String,
    },
}

/// Removes a folder with all that is in it, if it is there.
///
/// # Errors
/// [`StoreError::Io`] where it does not go away.
pub fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// The folders in a folder, in order.
pub fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The folder of a pass of merges in that of a trial.
pub fn merge_files_in(trial: &Path) -> PathBuf {
    trial.join("merge")
}

/// The identity in the name of a trial's folder, as [`TrialId::short`] has it.
pub fn id_in(folder: &Path) -> Option<&str> {
    Some(folder.file_name()?.to_str()?.rsplit_once('-')?.1)
}

/// The folder of an identity below a folder of such folders.
fn folder_of(parent: &Path, id: &TrialId) -> Option<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).find(|path| id_in(path) == Some(id.short()))
}

/// The folder of a trial below a folder of such folders: that of its name, else the one that it had under another name, else
/// that of its name, which is still to be made.
fn folder_in(parent: &Path, trial: &Trial) -> PathBuf {
    let named = parent.join(trial.folder());
    if named.is_dir() { named } else { folder_of(parent, &trial.id).unwrap_or(named) }
}

/// Wraps an I/O error with the path it is about.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

impl Store {
    /// The store of a sweep under a results folder. Touches nothing.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the current directory is gone.
    pub fn new(results: &Path, sweep: &str) -> Result<Self, StoreError> {
        // Absolute, because the harness runs in a directory of its own.
        let root = std::path::absolute(results.join(sweep)).map_err(at(results))?;
        Ok(Self { root, sweep: None, work: None })
    }

    /// With merged models under `work` (a larger or faster disk), in a folder that names the sweep and where its results are: a
    /// sweep of the same name with its results elsewhere has models of its own.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the working directory is gone.
    pub fn with_models_in(self, work: &Path) -> Result<Self, StoreError> {
        let name = self.root.file_name().unwrap_or_default().to_string_lossy();
        let place = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        let place: String = place.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let work = std::path::absolute(work.join(format!("{name}-{place}"))).map_err(at(work))?;
        Ok(Self { work: Some(work), ..self })
    }

    /// The store of a unit of this sweep.
    pub fn unit(&self, id: &str) -> Self {
        Self { root: self.root.join("units").join(id), sweep: Some(self.root.clone()), work: self.work.clone() }
    }

    /// Folders of all units that there ever were.
    pub fn units(&self) -> Vec<PathBuf> {
        folders(&self.root.join("units"))
    }

    /// The folder of the sweep, whether this is its store or that of a unit.
    fn sweep(&self) -> &Path {
        self.sweep.as_ref().unwrap_or(&self.root)
    }

    /// The folder that holds the results of this sweep and of others.
    pub fn results(&self) -> &Path {
        self.sweep().parent().unwrap_or(self.sweep())
    }

    /// Evaluations that somebody is at now, of all sweeps that are beside each other: `RESULTS/.evaluating/`.
    pub fn claims(&self) -> PathBuf {
        self.results().join(".evaluating")
    }

    /// Files of a submission to Slurm: `slurm/<number>/`.
    pub fn submission(&self, number: u32) -> PathBuf {
        self.root.join("slurm").join(number.to_string())
    }

    /// `RESULTS/<sweep>/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `journal.jsonl`.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.jsonl")
    }

    fn trials(&self) -> PathBuf {
        self.sweep().join("trials")
    }

    /// Folder of a trial: `trials/<slug>-<id8>/`. A trial that got another name keeps the folder that it has.
    pub fn trial(&self, trial: &Trial) -> PathBuf {
        folder_in(&self.trials(), trial)
    }

    /// Folder of the trial of an identity, where it has one.
    pub fn trial_of(&self, id: &TrialId) -> Option<PathBuf> {
        folder_of(&self.trials(), id)
    }

    /// The sample of a trial's merge, beside its config: it stays when the model goes.
    pub fn sample(&self, trial: &Trial) -> PathBuf {
        self.trial(trial).join("sample.json")
    }

    /// What was kept of a merge with this digest of its weights; none of one that was made before samples were kept, or where the
    /// file is of another merge.
    pub fn sample_of(&self, trial: &Trial, weights: &str) -> Option<Sample> {
        let sample: Sample = serde_json::from_slice(&fs::read(self.sample(trial)).ok()?).ok()?;
        (sample.weights == weights).then_some(sample)
    }

    /// Where the merged model of a trial lies while it is kept. Present only when the journal says so.
    pub fn model(&self, trial: &Trial) -> PathBuf {
        self.models(trial).join("model")
    }

    /// The folder that a trial's merged model is in, and beside it the unfinished one.
    fn models(&self, trial: &Trial) -> PathBuf {
        self.work.as_ref().map_or_else(|| self.trial(trial), |work| folder_in(work, trial))
    }

    /// Folders of the models of all trials that there ever were, where these lie elsewhere than the trials.
    pub fn model_folders(&self) -> Vec<PathBuf> {
        self.work.as_deref().map(folders).unwrap_or_default()
    }

    /// Folders of all trials that there ever were.
    pub fn trial_folders(&self) -> Vec<PathBuf> {
        folders(&self.trials())
    }

    /// Free bytes where merged models go; none where the file system does not tell.
    pub fn free_bytes(&self) -> Option<u64> {
        let place = self.work.as_ref().unwrap_or(&self.root);
        let folder = place.ancestors().find(|folder| folder.is_dir())?;
        let space = rustix::fs::statvfs(folder).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Request, answer and log of a pass of merges, under the first of its trials.
    pub fn merge_files(&self, trial: &Trial) -> PathBuf {
        merge_files_in(&self.trial(trial))
    }

    /// The prepared working directory of the harness, shared by all trials: a node may have no network to prepare one.
    pub fn harness_home(&self) -> PathBuf {
        self.sweep().join("harness")
    }

    /// Where the harness keeps built prompts, shared by all trials: they depend on tasks, not on models.
    pub fn harness_cache(&self) -> PathBuf {
        self.harness_home().join("cache")
    }

    /// Answers of evaluations in flight, by what they rest on: an evaluation that is killed goes on from them. A unit has its own.
    pub fn harness_answers(&self) -> PathBuf {
        self.root.join("harness").join("answers")
    }

    /// The folders of the other sweeps with their results in the same place; for a unit, that of its own sweep too.
    pub fn other_sweeps(&self) -> Vec<PathBuf> {
        folders(self.results())
            .into_iter()
            .filter(|path| *path != self.root && path.join("journal.jsonl").is_file())
            .collect()
    }

    /// Makes the folder and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Held`] when another run has it.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        // A killed run's children hold its lock until they have become other programs: an instant.
        self.lock_within(Duration::from_secs(1))
    }

    /// Makes the folder and takes its lock, as soon as another holder lets go of it.
    ///
    /// # Errors
    /// [`StoreError::Held`] when another run still has it after `patience`.
    pub fn lock_within(&self, patience: Duration) -> Result<Lock, StoreError> {
        const STEP: Duration = Duration::from_millis(20);
        fs::create_dir_all(&self.root).map_err(at(&self.root))?;
        let path = self.root.join("lock");
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(at(&path))?;
        let asked = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if asked.elapsed() < patience => {
                    std::thread::sleep(STEP);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(&path).unwrap_or_default();
                    return Err(StoreError::Held { path, holder: holder.trim().to_owned() });
                }
                Err(fs::TryLockError::Error(source)) => return Err(StoreError::Io { path, source }),
            }
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let holder = format!("process {} on {}\n", std::process::id(), host.trim());
        file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).map_err(at(&path))?;
        Ok(Lock { _file: file })
    }

    /// Whether a run holds the folder now.
    pub fn is_held(&self) -> bool {
        let Ok(file) = File::open(self.root.join("lock")) else { return false };
        matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    }

    /// Whether a merged model of a trial lies here, whole or half-written.
    pub fn has_models(&self, trial: &Trial) -> bool {
        let mut entries = fs::read_dir(self.models(trial)).into_iter().flatten().flatten();
        entries.any(|entry| {
            let name = entry.file_name();
            name == "model" || name.to_string_lossy().starts_with(".model.")
        })
    }

    /// Removes what a merge of this trial left half-written when it was killed. Only for the holder of the lock.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn clear_partial_models(&self, trial: &Trial) -> Result<(), StoreError> {
        for entry in fs::read_dir(self.models(trial)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".model.") {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    /// The first attempt folder of a trial that neither is there nor ever was, by what is `known` of those that were: `evaluations/<n>/`.
    /// It is made once the journal knows of it, so that a run which is killed in between leaves none that nobody knows.
    pub fn next_attempt(&self, trial: &Trial, known: &BTreeSet<String>) -> PathBuf {
        let trial = self.trial(trial);
        let mut number = 1_u64;
        loop {
            let folder = format!("evaluations/{number}");
            let path = trial.join(&folder);
            // A journal may have come without the folders it speaks of.
            if !path.exists() && !known.contains(&folder) {
                return path;
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_the_lock_goes_with_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "s").unwrap();
        assert!(!store.is_held());
        let lock = store.lock().unwrap();
        assert!(store.is_held());
        assert!(matches!(store.lock(), Err(StoreError::Held { .. })));
        drop(lock);
        assert!(!store.is_held());
        store.lock().unwrap();
    }
}
