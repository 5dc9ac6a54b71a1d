//! The output folder: filled under a temporary name beside its final one, renamed when complete, and gone without a
//! trace when the merge fails or is cancelled.
//!
//! An existing folder is replaced as a whole, by swapping, and only if every file in it is one that a model folder has:
//! whatever else lies there was not written by a merge and is not ours to delete.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};

/// An output folder that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Something else is in its place.
    #[error("`{}`: expected a new folder or the output of a merge, found `{found}` there", .out.display())]
    Occupied {
        /// The folder.
        out: PathBuf,
        /// What is in the way.
        found: String,
    },
    /// It holds a model that the merge reads.
    #[error("`{}` is one of the models being merged", .out.display())]
    IsInput {
        /// The folder.
        out: PathBuf,
    },
    /// Too little room for what is to be written.
    #[error("`{}`: {needed} bytes are to be written, {free} are free on its disk", .folder.display())]
    NoSpace {
        /// A folder on the disk.
        folder: PathBuf,
        /// Bytes of all outputs there.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The disk is full, or refuses.
    #[error("`{}`: cannot be written", .file.display())]
    Write {
        /// File or folder.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing to write with.
    #[error("no threads can be started to write the output")]
    Threads {
        /// Why.
        source: io::Error,
    },
    /// A shard's header that does not come out right.
    #[error("`{}`: the header cannot be laid out", .file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// Text that is no JSON.
    #[error("`{}`: cannot be written as JSON", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl OutputError {
    /// For `map_err` of an operation on a file.
    pub fn write(file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { file: file.to_owned(), source }
    }
}

/// Refuses outputs for which their disks have no room, before any of them is begun.
///
/// # Errors
/// [`OutputError::NoSpace`].
pub fn check_space<'a>(outputs: impl Iterator<Item = (&'a Path, u64)>) -> Result<(), OutputError> {
    let mut disks: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for (out, n_bytes) in outputs {
        // The folder may not be there yet; one above it is.
        let Some(folder) = out.ancestors().skip(1).map(or_here).find(|folder| folder.is_dir()) else { continue };
        let Ok(metadata) = fs::metadata(folder) else { continue };
        let (_, needed) = disks.entry(metadata.dev()).or_insert_with(|| (folder.to_owned(), 0));
        *needed += n_bytes;
    }
    for (folder, needed) in disks.into_values() {
        // A file system that does not tell is tried.
        let Ok(space) = statvfs(&folder) else { continue };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if needed > free {
            return Err(OutputError::NoSpace { folder, needed, free });
        }
    }
    Ok(())
}

fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// A folder on its way.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    out: PathBuf,
    complete: bool,
}

/// Tells the merges of one process apart.
static STAGINGS: AtomicU32 = AtomicU32::new(0);

impl Staging {
    /// Makes the temporary folder, once it is clear that it may become `out`.
    ///
    /// # Errors
    /// [`OutputError::Occupied`] and [`OutputError::Write`].
    pub fn new(out: &Path) -> Result<Self, OutputError> {
        check_replaceable(out)?;
        let parent = or_here(out.parent().unwrap_or(Path::new("")));
        fs::create_dir_all(parent).map_err(OutputError::write(parent))?;
        remove_abandoned(out);
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let count = STAGINGS.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!(".{name}.partial-{}-{count}", std::process::id()));
        fs::create_dir(&folder).map_err(OutputError::write(&folder))?;
        Ok(Self { folder, out: out.to_owned(), complete: false })
    }

    /// Where files are written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a small file, synced.
    ///
    /// # Errors
    /// [`OutputError::Write`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), OutputError> {
        let file = self.folder.join(name);
        let write = || {
            let mut open = File::create(&file)?;
            io::Write::write_all(&mut open, bytes)?;
            open.sync_data()
        };
        write().map_err(OutputError::write(&file))
    }

    /// Gives the folder its final name. What was there before is gone afterwards.
    ///
    /// # Errors
    /// [`OutputError`] when the disk refuses or someone put something in the way meanwhile.
    pub fn commit(mut self) -> Result<(), OutputError> {
        let write = OutputError::write(&self.out);
        sync_folder(&self.folder).map_err(OutputError::write(&self.folder))?;
        check_replaceable(&self.out)?;
        if self.out.exists() {
            self.exchange().map_err(write)?;
            // The old folder has the temporary name now, and goes the way of an unfinished one.
        } else {
            fs::rename(&self.folder, &self.out).map_err(write)?;
            self.complete = true;
        }
        let parent = self.folder.parent().unwrap_or(Path::new("."));
        sync_folder(parent).map_err(OutputError::write(parent))
    }

    fn exchange(&self) -> io::Result<()> {
        match renameat_with(CWD, &self.folder, CWD, &self.out, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // Not every file system can swap: then there is a moment without either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                let aside = self.folder.with_extension("old");
                fs::rename(&self.out, &aside)?;
                fs::rename(&self.folder, &self.out)?;
                fs::rename(&aside, &self.folder)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.complete {
            // Nothing can be done here about a folder that does not go away.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Removes what merges to that place left behind that were killed: the process in the name is gone.
pub fn remove_abandoned(out: &Path) {
    let parent = or_here(out.parent().unwrap_or(Path::new("")));
    let prefix = format!(".{}.partial-", out.file_name().unwrap_or_default().to_string_lossy());
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // What does not go away now is tried again by the next merge.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn check_replaceable(out: &Path) -> Result<(), OutputError> {
    let occupied = |found: String| OutputError::Occupied { out: out.to_owned(), found };
    match fs::symlink_metadata(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OutputError::write(out)(error)),
        Ok(metadata) if !metadata.is_dir() => return Err(occupied("something that is no folder".to_owned())),
        Ok(_) => {}
    }
    for entry in fs::read_dir(out).map_err(OutputError::write(out))? {
        let entry = entry.map_err(OutputError::write(out))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_model_file(&name) {
            return Err(occupied(name));
        }
    }
    Ok(())
}

fn is_model_file(name: &str) -> bool {
    const NAMES: &[&str] = &["README.md", "mergekit_config.yml", "merges.txt", "vocab.txt", "tokenizer.model"];
    const ENDS: &[&str] = &[".safetensors", ".json", ".jinja"];
    NAMES.contains(&name) || ENDS.iter().any(|end| name.ends_with(end))
}
