//! Freshness: what a finished stage was made from, and why it must be done again.
//!
//! A [`Key`] names every input of a stage as readable text, so that a changed one can be told with its old and new value.
//! Identity (which trial) is `plan::TrialId`'s business and changes with neither files nor versions.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::write;
use crate::config::{MergeConfig, Numerics};
use crate::eval;
use crate::merge;

/// Every input of a stage, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub BTreeMap<String, String>);

/// The part of an evaluation's key that names its documents, where they were picked.
const DOCUMENTS: &str = "documents";

/// The part of a merge's key that names its twin.
const TWIN: &str = "input twin";

/// Why a stage is done (again).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaleReason {
    /// It was never finished.
    NeverDone,
    /// An input changed.
    Changed {
        /// The input.
        what: String,
        /// Its value when the stage was done; `None` where the input is new.
        old: Option<String>,
        /// Its value now; `None` where it is gone.
        new: Option<String>,
    },
    /// The merged model is needed again and was deleted after scoring.
    ModelGone,
    /// The user asked for it.
    Asked,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Self::NeverDone => f.write_str("not done yet"),
            Self::Changed { what, old, new } => write!(f, "`{what}` changed from {} to {}", shown(old), shown(new)),
            Self::ModelGone => f.write_str("its model was deleted after scoring and is needed again"),
            Self::Asked => f.write_str("redo was asked for"),
        }
    }
}

impl Key {
    /// The first input, by name, in which this key differs from the one a stage was done with.
    pub fn stale_since(&self, done: Option<&Self>) -> Option<StaleReason> {
        let Some(done) = done else { return Some(StaleReason::NeverDone) };
        let names = self.0.keys().chain(done.0.keys());
        names.into_iter().find(|name| self.0.get(*name) != done.0.get(*name)).map(|name| StaleReason::Changed {
            what: name.clone(),
            old: done.0.get(name).cloned(),
            new: self.0.get(name).cloned(),
        })
    }

    /// The trial whose merge stands for this one, equal but for rounding.
    pub fn twin(&self) -> Option<&str> {
        self.0.get(TWIN).map(String::as_str)
    }

    /// The key of a merge that a twin's stands for; with none, of one that is made itself.
    #[must_use]
    pub fn with_twin(mut self, twin: Option<&str>) -> Self {
        self.0.remove(TWIN);
        self.0.extend(twin.map(|twin| (TWIN.to_owned(), twin.to_owned())));
        self
    }

    /// What names the weights that an evaluation rests on.
    pub fn weights(&self) -> Option<&str> {
        self.0.get("weights").map(String::as_str)
    }

    /// Whether two evaluations were asked alike, whatever model, harness and task files they rest on.
    pub fn asks_as(&self, other: &Self) -> bool {
        let asked = |key: &Self| {
            let mut key = key.0.clone();
            ["weights", "harness", "task files"].iter().for_each(|name| _ = key.remove(*name));
            key
        };
        asked(self) == asked(other)
    }

    fn put(&mut self, name: &str, value: impl fmt::Display) {
        self.0.insert(name.to_owned(), value.to_string());
    }
}

/// What a merge is made from: the config in normal form, the seed where it matters, the engine, the input files.
pub fn merge_key(config: &MergeConfig, seed: u64, numerics: Numerics, inputs: &BTreeMap<String, String>) -> Key {
    let mut key = Key::default();
    key.put("config", digest(write::canonical(config).as_bytes()));
    if config.method.spec().random {
        key.put("seed", seed);
    }
    key.put("numerics", numerics);
    key.put("engine", merge::ENGINE);
    for (name, identity) in inputs {
        key.put(&format!("input {name}"), identity);
    }
    key
}

/// What an evaluation of one task rests on. `weights` names the model's bytes, tokenizer and template included.
///
/// Paths, device index and time limits are left out: they change no answer. Batch size is in: it does.
pub fn evaluation_key(
    weights: &str,
    settings: &eval::Settings,
    request: &eval::TaskRequest,
    harness_version: &str,
    task_files: Option<&str>,
) -> Key {
    let settings = &settings.of(request);
    let mut key = Key::default();
    key.put("weights", weights);
    key.put("harness", harness_version);
    key.put("back end", &settings.model);
    for (name, value) in &settings.model_args {
        key.put(&format!("model_args.{name}"), value);
    }
    for (name, value) in &settings.gen_kwargs {
        key.put(&format!("gen_kwargs.{name}"), value);
    }
    key.put("batch_size", &settings.batch_size);
    if let Some(device) = settings.device.as_deref() {
        key.put("device", device.split(':').next().unwrap_or(device));
    }
    match &request.documents {
        Some(documents) => key.put(DOCUMENTS, picked(documents)),
        None => put_some(&mut key, "limit", request.limit.or(settings.limit)),
    }
    put_some(&mut key, "num_fewshot", settings.num_fewshot);
    key.put("seeds", settings.seeds.map(|seed| seed.to_string()).join(","));
    match &settings.chat_template {
        eval::ChatTemplate::Off => {}
        eval::ChatTemplate::On => key.put("apply_chat_template", true),
        eval::ChatTemplate::Named(name) => key.put("apply_chat_template", name),
    }
    put_some(&mut key, "system_instruction", settings.system_instruction.as_ref());
    put_some(&mut key, "task files", task_files);
    key
}

/// Names picked documents: how many, and a digest of their places.
fn picked(documents: &[u64]) -> String {
    let places: Vec<u8> = documents.iter().flat_map(|document| document.to_le_bytes()).collect();
    format!("{} picked, {}", documents.len(), digest(&places))
}

fn put_some(key: &mut Key, name: &str, value: Option<impl fmt::Display>) {
    if let Some(value) = value {
        key.put(name, value);
    }
}

/// A folder that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct FolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Digest of the names and bytes of every file in a folder, Python's caches aside.
///
/// # Errors
/// [`FolderError`], naming what cannot be read.
pub fn folder_digest(folder: &Path) -> Result<String, FolderError> {
    let mut hasher = blake3::Hasher::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let failed = |source| FolderError { path: next.clone(), source };
        let mut entries = fs::read_dir(&next).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != "__pycache__" {
                    folders.push(path);
                }
                continue;
            }
            let bytes = fs::read(&path).map_err(|source| FolderError { path: path.clone(), source })?;
            let name = path.strip_prefix(folder).unwrap_or(&path);
            hasher.update(format!("{}\0{}\0", name.display(), bytes.len()).as_bytes()).update(&bytes);
        }
    }
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// Short digest of some bytes, for keys.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pairs: &[(&str, &str)]) -> Key {
        Key(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_stale_reason_carries_the_old_and_the_new_value() {
        let old = key(&[("seed", "1"), ("engine", "1")]);
        assert_eq!(old.stale_since(Some(&old)), None);
        assert_eq!(old.stale_since(None), Some(StaleReason::NeverDone));
        let new = key(&[("seed", "2"), ("engine", "1")]);
        let reason = new.stale_since(Some(&old)).unwrap();
        assert_eq!(reason.to_string(), "`seed` changed from 1 to 2");
        let gone = key(&[("engine", "1")]);
        assert_eq!(gone.stale_since(Some(&old)).unwrap().to_string(), "`seed` changed from 1 to nothing");
    }
}
