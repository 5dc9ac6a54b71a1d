//! What names the content of a model, wherever it lies and whenever it was copied there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::digests::Digests;
use super::hub::is_commit;
use super::locate::{Located, Role};

/// Files up to this size are read each time, digests of larger ones are remembered.
const LARGEST_READ: u64 = 32 << 20;

/// A file or folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {source}", .path.display())]
pub struct IdentityError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What names the content of a model: for a snapshot of the hub its commit, else every file by its content. Without `digests`
/// large files are not read and are named by their size. Keys are `model` or `adapter` with the file's name: no path of this machine is in it,
/// so a moved folder is the same model.
///
/// # Errors
/// [`IdentityError`] where a folder or file cannot be read.
pub fn identity(located: &Located, digests: Option<&Digests>) -> Result<BTreeMap<String, String>, IdentityError> {
    let mut identity = BTreeMap::new();
    for (role, folder) in located.folders() {
        match commit(folder) {
            Some(commit) => _ = identity.insert(format!("{role} commit"), commit),
            None => files(role, folder, digests, &mut identity)?,
        }
    }
    Ok(identity)
}

/// `owner/name@commit` of a snapshot folder of the hub cache.
fn commit(folder: &Path) -> Option<String> {
    let commit = folder.file_name()?.to_str()?;
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    let is_snapshot = is_commit(commit) && snapshots.file_name()? == "snapshots";
    is_snapshot.then(|| format!("{}@{commit}", repository.replacen("--", "/", 1)))
}

fn files(
    role: Role,
    folder: &Path,
    digests: Option<&Digests>,
    identity: &mut BTreeMap<String, String>,
) -> Result<(), IdentityError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError { path, source }
    };
    for entry in fs::read_dir(folder).map_err(error(folder))? {
        let path = entry.map_err(error(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let metadata = fs::metadata(&path).map_err(error(&path))?;
        if !metadata.is_file() || !matters(&name) {
            continue;
        }
        let text = match digests {
            _ if metadata.len() <= LARGEST_READ => {
                format!("blake3:{}", short(&blake3::hash(&fs::read(&path).map_err(error(&path))?)))
            }
            Some(digests) => format!("blake3:{}", digests.of(&path).map_err(error(&path))?),
            None => format!("{} bytes", metadata.len()),
        };
        identity.insert(format!("{role} {name}"), text);
    }
    Ok(())
}

/// A digest as it is recorded.
pub(super) fn short(digest: &blake3::Hash) -> String {
    digest.to_hex()[..32].to_owned()
}

/// Whether a file decides what a model answers.
fn matters(name: &str) -> bool {
    let endings = [".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken", ".bin", ".py"];
    !name.starts_with('.') && endings.iter().any(|ending| name.ends_with(ending))
}
