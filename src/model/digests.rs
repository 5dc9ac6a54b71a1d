//! Digests of large files. Reading a model takes a while, so what was read is remembered with the size and the time of change
//! of the file, and each is read once.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::identity::short;
use crate::files::write_atomically;

/// Bytes that are read at a time.
const PIECE: usize = 8 << 20;

/// What is remembered, and where.
#[derive(Debug)]
pub struct Digests {
    file: PathBuf,
    known: Mutex<Known>,
}

/// By the digest of the path: nothing in a folder of results tells where its models lay.
type Known = BTreeMap<String, Entry>;

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    n_bytes: u64,
    /// Nanoseconds since 1970.
    changed: u64,
    digest: String,
}

impl Digests {
    /// Remembered in a folder. Nothing is lost with what cannot be read there but time.
    pub fn remembered_in(folder: &Path) -> Self {
        let file = folder.join(".digests.json");
        let known = Mutex::new(read(&file));
        Self { file, known }
    }

    /// The digest of a file's content.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn of(&self, path: &Path) -> io::Result<String> {
        let path = path.canonicalize()?;
        let name = short(&blake3::hash(path.as_os_str().as_encoded_bytes()));
        let now = || Ok::<_, io::Error>(Entry::of(&fs::metadata(&path)?));
        let before = now()?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(known) = known
            && known.is_of(&before)
        {
            return Ok(known.digest);
        }
        let digest = digest(&path)?;
        // That of a file which is being written would not hold.
        if before == now()? {
            self.remember(name, Entry { digest: digest.clone(), ..before });
        }
        Ok(digest)
    }

    fn remember(&self, name: String, entry: Entry) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have read other files in the meantime.
        known.extend(read(&self.file));
        known.insert(name, entry);
        let has_place = self.file.parent().is_some_and(Path::is_dir);
        if let Some(text) = serde_json::to_vec_pretty(&*known).ok().filter(|_| has_place) {
            let _ = write_atomically(&self.file, &text);
        }
    }
}

impl Entry {
    /// Of a file that was not read yet.
    fn of(metadata: &Metadata) -> Self {
        let changed =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let changed = u64::try_from(changed.as_nanos()).unwrap_or_default();
        Self { n_bytes: metadata.len(), changed, digest: String::new() }
    }

    fn is_of(&self, now: &Self) -> bool {
        (self.n_bytes, self.changed) == (now.n_bytes, now.changed)
    }
}

fn read(file: &Path) -> Known {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut piece) = (File::open(path)?, blake3::Hasher::new(), vec![0; PIECE]);
    loop {
        let n_read = file.read(&mut piece)?;
        if n_read == 0 {
            return Ok(short(&hasher.finalize()));
        }
        hasher.update_rayon(&piece[..n_read]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_is_read_once_and_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |content: &[u8], time: SystemTime| {
            fs::write(&path, content).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        write(b"weights", old);
        let digests = Digests::remembered_in(folder.path());
        let first = digests.of(&path).unwrap();
        assert_eq!(first, short(&blake3::hash(b"weights")));
        // Told from memory, also by whoever comes later.
        write(b"WEIGHTS", old);
        assert_eq!(digests.of(&path).unwrap(), first);
        assert_eq!(Digests::remembered_in(folder.path()).of(&path).unwrap(), first);
        write(b"WEIGHTS", old + Duration::from_nanos(1));
        let second = digests.of(&path).unwrap();
        assert_ne!(second, first);
        // Another time of change is not another content.
        write(b"WEIGHTS", SystemTime::now());
        assert_eq!(Digests::remembered_in(folder.path()).of(&path).unwrap(), second);
    }

    #[test]
    fn what_cannot_be_remembered_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, b"weights").unwrap();
        fs::write(folder.path().join(".digests.json"), "no JSON").unwrap();
        let nowhere = Digests::remembered_in(&folder.path().join("absent"));
        assert_eq!(nowhere.of(&path).unwrap(), Digests::remembered_in(folder.path()).of(&path).unwrap());
        assert!(!folder.path().join("absent").exists());
        assert!(nowhere.of(&folder.path().join("nothing")).is_err());
    }
}
