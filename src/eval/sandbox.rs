//! Running programs that a model wrote where they can do no harm: the harness under bubblewrap (`bwrap`), for the calls
//! that have code tasks.
//!
//! Inside there is no network, no process but its own, and nothing to write to but the folders of the call and private
//! temporary ones. The home folder is empty but for what the harness must read: interpreter, model and data caches.
//! Caches that Python libraries write to while they read lie in the sweep's own folder instead of the user's, filled
//! before the first merge by preflight, which has a network. A call gets a copy of them that goes with it: they hold modules
//! and pickles, which programs outside load. Neither they nor the harness' working directory take anything from a call.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Settings;
use super::command::Paths;
use super::secrets::{Secrets, is_secret};
use crate::process::Invocation;

/// The program.
pub const PROGRAM: &str = "bwrap";

/// What a call may see of the user's, and what not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visible {
    /// The user's home folder, which is empty inside.
    pub home: Option<PathBuf>,
    /// Folders to read besides the model, such as the cache of the hub.
    pub caches: Vec<PathBuf>,
    /// Tokens and keys, which it does not see, and which no log of any call keeps.
    pub secrets: Secrets,
}

/// Caches that are written to while they are read, by variable.
const CACHES: [(&str, &str); 3] =
    [("HF_DATASETS_CACHE", "datasets"), ("HF_MODULES_CACHE", "modules"), ("HF_EVALUATE_CACHE", "metrics")];

/// Files of a cache up to this size are copied for a call.
const COPIED: u64 = 1 << 20;

/// A question to the machine: whether programs can be shut in here at all.
pub fn trial() -> Invocation {
    let mut args = isolation();
    args.extend(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true"].map(str::to_owned));
    Invocation::new(PROGRAM, args)
}

/// Where the caches of a sweep with a sandbox lie, unless the spec says otherwise.
pub fn cache_variables(settings: &Settings, cache: &Path) -> Vec<(String, String)> {
    let own = CACHES.iter().filter(|(name, _)| !settings.environment.contains_key(*name));
    own.map(|(name, folder)| ((*name).to_owned(), cache.join(folder).to_string_lossy().into_owned())).collect()
}

/// A copy of a cache for one call, below `folder`; it goes with what is given back. Small files are copied, since libraries open
/// some of them to write (locks, lists); for large ones there are links to where they can be read.
///
/// # Errors
/// What the file system says.
pub fn copy_of(cache: &Path, folder: &Path) -> io::Result<TempDir> {
    let copy = tempfile::Builder::new().prefix("cache-").tempdir_in(folder)?;
    copy_into(copy.path(), cache)?;
    Ok(copy)
}

fn copy_into(copy: &Path, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), copy.join(entry.file_name()));
        let copied = match entry.metadata() {
            Ok(found) if found.is_dir() => fs::create_dir(&copy).and_then(|()| copy_into(&copy, &path)),
            Ok(found) if found.is_file() && found.len() <= COPIED => fs::copy(&path, &copy).map(|_| ()),
            Ok(_) => symlink(&path, &copy),
            Err(error) => Err(error),
        };
        match copied {
            // A call of other tasks that is at work in there has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

/// The same call, shut in.
pub fn shut_in(call: Invocation, settings: &Settings, paths: &Paths<'_>, visible: &Visible) -> Invocation {
    let mut args = isolation();
    let mut add = |option: &str, at: &Path| args.extend([option.to_owned(), at.to_string_lossy().into_owned()]);
    let mut bind = Binds::default();
    add("--ro-bind", Path::new("/"));
    args.push("/".to_owned());
    args.extend(["--dev", "/dev", "--proc", "/proc"].map(str::to_owned));
    for device in devices() {
        bind.push("--dev-bind-try", &device);
    }
    // Empty first, then what is visible in there after all.
    for empty in ["/tmp", "/var/tmp", "/run"].map(Path::new).into_iter().chain(visible.home.as_deref()) {
        if empty.is_dir() {
            args.extend(["--tmpfs".to_owned(), empty.to_string_lossy().into_owned()]);
        }
    }
    for folder in python_folders(&settings.python) {
        bind.push("--ro-bind-try", &folder);
    }
    let readable = [
        Some(paths.model),
        settings.include_path.as_deref(),
        paths.config.parent(),
        Some(paths.home),
        Some(paths.cache),
    ];
    for folder in readable.into_iter().flatten().chain(visible.caches.iter().map(PathBuf::as_path)) {
        bind.push("--ro-bind-try", folder);
    }
    // Last, since they lie in what can be read.
    for folder in [paths.output.parent(), paths.own_cache, paths.answers.parent()] {
        folder.iter().for_each(|folder| bind.push("--bind", folder));
    }
    args.extend(bind.0);
    if let Some(folder) = &call.folder {
        args.extend(["--chdir".to_owned(), folder.to_string_lossy().into_owned()]);
    }
    args.push(call.program.to_string_lossy().into_owned());
    args.extend(call.args);
    let mut shut_in = Invocation { program: PathBuf::from(PROGRAM), args, ..call };
    shut_in.without.extend(visible.secrets.names().map(str::to_owned));
    shut_in.environment.retain(|(name, _)| !is_secret(name));
    shut_in
}

/// No network, no other processes, and an end with the program that started it.
fn isolation() -> Vec<String> {
    ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session"]
        .map(str::to_owned)
        .to_vec()
}

#[derive(Default)]
struct Binds(Vec<String>);

impl Binds {
    /// At the place where it lies.
    fn push(&mut self, option: &str, folder: &Path) {
        let folder = folder.to_string_lossy().into_owned();
        self.0.extend([option.to_owned(), folder.clone(), folder]);
    }
}

/// Device files of GPUs.
fn devices() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut devices: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nvidia"))
        .map(|entry| entry.path())
        .collect();
    devices.extend(["/dev/dri", "/dev/kfd"].map(PathBuf::from).into_iter().filter(|path| path.exists()));
    devices.sort();
    devices
}

/// Where an interpreter that is named by a path lies, and the one that a virtual environment rests on.
fn python_folders(python: &Path) -> Vec<PathBuf> {
    let prefix = |python: &Path| python.parent().and_then(Path::parent).map(Path::to_owned);
    let real = fs::canonicalize(python).ok();
    let folders = [prefix(python), real.as_deref().and_then(prefix)].into_iter().flatten();
    // Of `/usr/bin/python3` that is `/usr`, which is visible anyway.
    folders.filter(|folder| folder.components().count() > 2).collect()
}
