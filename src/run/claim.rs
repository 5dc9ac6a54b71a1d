//! Evaluations that somebody is at now, for all sweeps with their results in the same place: one that a live process is at is not
//! begun a second time.
//!
//! Each is a file, locked as long as the process lives that works on it, and removed when it is through; the lock goes with the
//! process, however it ends, and what it leaves of the file is in nobody's way. Several are taken in one order and all or none, so
//! nobody waits with something in hand, and of those that want the same somebody gets it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::decide::StaleTask;
use super::fingerprint::digest;
use super::store::{Store, StoreError, at};
use crate::files::is_at;

/// Evaluations that nobody else begins while this is there.
#[derive(Debug, Default)]
pub(super) struct Claim {
    files: Vec<(PathBuf, File)>,
}

/// What came of asking for some.
#[derive(Debug)]
pub(super) enum Claimed {
    /// Nobody was at any of them.
    Here(Claim),
    /// Somebody is at one of them, and will record it in this folder.
    Elsewhere(PathBuf),
}

impl Claimed {
    /// Where somebody else will record one of them.
    pub fn holder(&self) -> Option<&Path> {
        match self {
            Self::Here(_) => None,
            Self::Elsewhere(folder) => Some(folder),
        }
    }
}

impl Claim {
    /// Takes the evaluations of some tasks.
    ///
    /// # Errors
    /// [`StoreError`] where the disk is full or knows no locks.
    pub fn take(store: &Store, tasks: &[StaleTask]) -> Result<Claimed, StoreError> {
        match Self::all(store, tasks) {
            // The results beside these are another user's, who lets nobody write there: nothing can be claimed or waited for.
            Err(StoreError::Io { source, .. }) if is_closed(&source) => Ok(Claimed::Here(Self::default())),
            claimed => claimed,
        }
    }

    fn all(store: &Store, tasks: &[StaleTask]) -> Result<Claimed, StoreError> {
        let folder = store.claims();
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let mut paths: Vec<PathBuf> = tasks.iter().map(|task| folder.join(name(task))).collect();
        paths.sort();
        paths.dedup();
        let mut claim = Self::default();
        for path in paths {
            let Some(mut file) = lock(&path).map_err(at(&path))? else {
                // Who has just taken it may not have said so yet, and who has just finished no longer does.
                let holder = fs::read_to_string(&path).unwrap_or_default();
                return Ok(Claimed::Elsewhere(store.results().join(holder)));
            };
            let own = store.root().strip_prefix(store.results()).unwrap_or(store.root());
            file.set_len(0).and_then(|()| file.write_all(own.as_os_str().as_encoded_bytes())).map_err(at(&path))?;
            claim.files.push((path, file));
        }
        Ok(Claimed::Here(claim))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        for (path, _locked) in self.files.drain(..) {
            // One that stays is taken by whoever wants it next.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes what killed runs left of theirs.
pub(super) fn clear(store: &Store) {
    for entry in fs::read_dir(store.claims()).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Ok(Some(file)) = lock(&path) {
            drop(Claim { files: vec![(path, file)] });
        }
    }
}

/// Names an evaluation: what the answers rest on, and the task.
fn name(task: &StaleTask) -> String {
    // Texts under texts are always JSON.
    digest(&serde_json::to_vec(&(&task.request.name, &task.key)).unwrap_or_default())
}

/// Makes and locks a file; none where somebody else has it locked.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) if is_at(&file, path)? => return Ok(Some(file)),
            // Who had it removed it after it was opened here: what was locked is no longer what others see.
            Ok(()) => {}
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::eval::TaskRequest;
    use crate::run::fingerprint::{Key, StaleReason};

    fn tasks(names: &[&str]) -> Vec<StaleTask> {
        let task = |name: &&str| StaleTask {
            request: TaskRequest::named(name),
            key: Key::default(),
            reason: StaleReason::NeverDone,
        };
        names.iter().map(task).collect()
    }

    fn take(store: &Store, names: &[&str]) -> Option<Claim> {
        match Claim::take(store, &tasks(names)).unwrap() {
            Claimed::Here(claim) => Some(claim),
            Claimed::Elsewhere(_) => None,
        }
    }

    #[test]
    fn what_one_sweep_is_at_another_is_not_given_and_all_or_none_is() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| Store::new(folder.path(), name).unwrap());
        let claim = take(&one, &["a", "b"]).unwrap();
        let Claimed::Elsewhere(holder) = Claim::take(&two.unit("u"), &tasks(&["c", "b"])).unwrap() else {
            panic!("given twice")
        };
        assert_eq!(holder, one.root());
        assert!(take(&one, &["c"]).is_some(), "nothing is kept of what was not given whole");
        assert!(take(&two, &[]).is_some());
        drop(claim);
        let claim = take(&two.unit("u"), &["c", "b"]).unwrap();
        assert!(
            matches!(Claim::take(&one, &tasks(&["b"])).unwrap(), Claimed::Elsewhere(path) if path == two.unit("u").root())
        );
        drop(claim);
        assert_eq!(fs::read_dir(one.claims()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_leaves_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "one").unwrap();
        fs::create_dir(store.claims()).unwrap();
        for task in tasks(&["a", "b"]) {
            fs::write(store.claims().join(name(&task)), "two").unwrap();
        }
        let claim = take(&store, &["a"]).unwrap();
        clear(&store);
        assert_eq!(fs::read_dir(store.claims()).unwrap().count(), 1, "what is held stays");
        assert!(take(&store, &["a"]).is_none());
        drop(claim);
    }

    #[test]
    fn where_nobody_may_write_nothing_is_claimed_and_nothing_waited_for() {
        // Nobody makes a folder there, whatever his rights.
        let store = Store::new(Path::new("/sys"), "one").unwrap();
        assert!(take(&store, &["a"]).is_some() && take(&store, &["a"]).is_some());
    }

    #[test]
    fn of_many_that_want_the_same_one_has_it_at_a_time_and_all_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let (n_holders, n_taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (folder, n_holders, n_taken) = (folder.path(), &n_holders, &n_taken);
                scope.spawn(move || {
                    let store = Store::new(folder, &format!("sweep{thread}")).unwrap();
                    let wanted = if thread % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
                    for _ in 0..50 {
                        let claim = loop {
                            match take(&store, &wanted) {
                                Some(claim) => break claim,
                                None => std::thread::yield_now(),
                            }
                        };
                        assert_eq!(n_holders.fetch_add(1, Ordering::SeqCst), 0);
                        n_taken.fetch_add(1, Ordering::SeqCst);
                        n_holders.fetch_sub(1, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert_eq!(n_taken.load(Ordering::SeqCst), 400);
    }
}
