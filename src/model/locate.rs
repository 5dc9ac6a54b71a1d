//! Finding the folders of a model reference: a local path, the hub cache, or a download.
//!
//! The cache is read natively, so a model that is there needs neither Python nor network. A download is left to
//! `huggingface_hub` of the configured interpreter: token, endpoint, resuming and progress come with it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hub::{self, Hub, HubError};
use super::{Location, ModelRef};

/// Owner of hub ids that stand for models which are still to be named: never looked for.
const PLACEHOLDER: &str = "PLACEHOLDER/";

/// The folders of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// Folder of the full model.
    pub base: PathBuf,
    /// Folder of the adapter.
    pub adapter: Option<PathBuf>,
}

/// Where models are looked for.
#[derive(Debug, Clone)]
pub struct Locator {
    /// Where relative paths start.
    pub root: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// The hub and its cache.
    pub hub: Hub,
    /// Models that others stand in for, whatever their references say: a rehearsal's.
    pub stand_ins: BTreeMap<ModelRef, Located>,
}

/// Which half of a reference a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A full model.
    Model,
    /// A PEFT adapter.
    Adapter,
}

/// A reference whose folder cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// A path that does not exist.
    #[error("{role} `{written}` does not exist (looked for `{}`)", .path.display())]
    Absent {
        /// Which half of the reference.
        role: Role,
        /// As written.
        written: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A path that is no folder.
    #[error("{role} `{written}` is a file, expected a folder: `{}`", .path.display())]
    NoFolder {
        /// Which half of the reference.
        role: Role,
        /// As written.
        written: String,
        /// The file.
        path: PathBuf,
    },
    /// A revision on a local path.
    #[error("{role} `{written}` is a local path, which has no revisions")]
    RevisionOfPath {
        /// Which half of the reference.
        role: Role,
        /// As written.
        written: String,
    },
    /// Neither a path that exists nor a hub id.
    #[error("{role} `{written}` is neither an existing folder under `{}` nor a hub id of the form `owner/name`", .root.display())]
    Neither {
        /// Which half of the reference.
        role: Role,
        /// As written.
        written: String,
        /// Where relative paths start.
        root: PathBuf,
    },
    /// A reference that is still to be filled in.
    #[error("{role} `{written}` is a placeholder")]
    Placeholder {
        /// Which half of the reference.
        role: Role,
        /// As written.
        written: String,
    },
    /// The hub cannot give it.
    #[error("{role} `{written}` is no folder (looked for `{}`), and the hub does not give it: {source}", .path.display())]
    Hub {
        /// Which half of the reference.
        role: Role,
        /// As written.
        written: String,
        /// Where it was looked for on disk.
        path: PathBuf,
        /// Why.
        source: HubError,
    },
}

impl LocateError {
    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Absent { .. } => {
                Some("relative paths start at the folder of the spec file, or where `merge` is run".to_owned())
            }
            Self::Hub { source, .. } => source.hint(),
            Self::Placeholder { .. } => {
                Some("write a folder or a hub id in its place, or delete the rows that use it".to_owned())
            }
            _ => None,
        }
    }

    /// Whether the user stopped the download, which is no fault of the reference.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Hub { source: HubError::Cancelled, .. })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Adapter => "adapter",
        })
    }
}

impl Located {
    /// The folders with the half of the reference that each is.
    pub fn folders(&self) -> impl Iterator<Item = (Role, &Path)> {
        let adapter = self.adapter.iter().map(|adapter| (Role::Adapter, adapter.as_path()));
        std::iter::once((Role::Model, self.base.as_path())).chain(adapter)
    }
}

impl Locator {
    /// A text for what may be published: whose home folder it was is nobody's business.
    pub fn without_home(&self, text: &str) -> String {
        match &self.home {
            Some(home) if home.components().count() > 1 => text.replace(&*home.to_string_lossy(), "~"),
            _ => text.to_owned(),
        }
    }

    /// The folders of a reference; downloads what is neither on disk nor in the hub cache, unless offline. Blocks.
    ///
    /// # Errors
    /// [`LocateError`] where a folder cannot be found or had.
    pub fn locate(&self, model: &ModelRef) -> Result<Located, LocateError> {
        if let Some(stand_in) = self.stand_ins.get(model) {
            return Ok(stand_in.clone());
        }
        let base = self.folder(&model.base, Role::Model)?;
        let adapter = model.adapter.as_ref().map(|adapter| self.folder(adapter, Role::Adapter)).transpose()?;
        Ok(Located { base, adapter })
    }

    /// Like [`Locator::locate`], but never downloads: none where something would have to be.
    ///
    /// # Errors
    /// [`LocateError`] where a local path does not exist.
    pub fn locate_on_disk(&self, model: &ModelRef) -> Result<Option<Located>, LocateError> {
        let locator = Self { hub: Hub { offline: true, ..self.hub.clone() }, ..self.clone() };
        match locator.locate(model) {
            Ok(located) => Ok(Some(located)),
            Err(LocateError::Hub { source: HubError::Offline { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A locator that is content with the small files of a model: config and tokenizer.
    #[must_use]
    pub fn without_weights(&self) -> Self {
        Self { hub: Hub { weights: false, ..self.hub.clone() }, ..self.clone() }
    }

    /// The folder of one half of a reference.
    ///
    /// # Errors
    /// [`LocateError`] where it cannot be found or had.
    pub fn folder(&self, location: &Location, role: Role) -> Result<PathBuf, LocateError> {
        let written = location.to_string();
        let path = self.path(&location.path);
        let looks_like_a_path = location.path.starts_with(['.', '/', '~']);
        if looks_like_a_path || (location.revision.is_none() && path.exists()) {
            if location.revision.is_some() {
                return Err(LocateError::RevisionOfPath { role, written });
            }
            return match fs::metadata(&path) {
                Err(_) => Err(LocateError::Absent { role, written, path }),
                Ok(metadata) if !metadata.is_dir() => Err(LocateError::NoFolder { role, written, path }),
                // Absolute and without links: the harness runs in a folder of its own.
                Ok(_) => Ok(fs::canonicalize(&path).unwrap_or(path)),
            };
        }
        if location.path.starts_with(PLACEHOLDER) {
            return Err(LocateError::Placeholder { role, written });
        }
        if !hub::is_id(&location.path) {
            return Err(LocateError::Neither { role, written, root: self.root.clone() });
        }
        self.hub.folder(location, role).map_err(|source| LocateError::Hub { role, written, path, source })
    }

    /// The reference as it is written for other programs, which start elsewhere: local paths absolute, hub ids as they are.
    pub fn written(&self, model: &ModelRef) -> String {
        let written = |location: &Location| {
            let path = self.path(&location.path);
            let is_local = location.path.starts_with(['.', '/', '~']) || (location.revision.is_none() && path.exists());
            match is_local {
                true => {
                    Location { path: fs::canonicalize(&path).unwrap_or(path).display().to_string(), ..location.clone() }
                }
                false => location.clone(),
            }
        };
        ModelRef { base: written(&model.base), adapter: model.adapter.as_ref().map(written) }.to_string()
    }

    fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix('~'), &self.home) {
            (Some(""), Some(home)) => home.clone(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => self.root.join(text),
        }
    }
}
