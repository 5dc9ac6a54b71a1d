//! The Hugging Face hub: its cache on disk, read natively, and downloads through `huggingface_hub`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Location;
use super::locate::Role;
use crate::process::{self, Cancel, Exit, Invocation, ProcessError};

/// Asks `huggingface_hub` for a snapshot and answers with one line of JSON.
const DOWNLOAD: &str = include_str!("download.py");

/// Mark of the answer among whatever else a Python program may print.
const ANSWER: &str = "mergesweep-answer ";

/// Time before a download that a busy or silent hub refused is tried again; four times as much before each further one.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the user stops a wait.
const LOOK: Duration = Duration::from_millis(50);

/// Told a line of the download's progress.
pub type OnProgress = Arc<dyn Fn(&str) + Send + Sync>;

/// The hub as it is seen from here.
#[derive(Clone)]
pub struct Hub {
    /// The cache folder (`models--owner--name` folders).
    pub cache: PathBuf,
    /// Whether nothing may be downloaded.
    pub offline: bool,
    /// Whether weights are wanted; without, config and tokenizer files are enough, and nothing else is downloaded.
    pub weights: bool,
    /// The Python interpreter that has `huggingface_hub`.
    pub python: PathBuf,
    /// Variables for the download on top of the caller's (`HF_ENDPOINT`, `HF_TOKEN` of the caller are seen anyway).
    pub environment: BTreeMap<String, String>,
    /// How often a download is tried again after what may pass by itself.
    pub retries: u32,
    /// Asks a running download to stop.
    pub cancel: Cancel,
    /// Told the progress of downloads.
    pub on_progress: Option<OnProgress>,
}

/// What the hub cannot give.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Not in the cache, and not to be downloaded.
    #[error("not in the hub cache `{}`{}, and downloads are off", .cache.display(), but(.incomplete.as_ref()))]
    Offline {
        /// The cache.
        cache: PathBuf,
        /// What is missing from the snapshot that is there.
        incomplete: Option<Incomplete>,
    },
    /// The repository exists only for those who accepted its terms.
    #[error("access is restricted: {message}")]
    Gated {
        /// The hub's words.
        message: String,
    },
    /// No such repository, or a private one.
    #[error("no such repository on the hub (or a private one that the token does not open)")]
    NoRepository,
    /// No such branch, tag or commit.
    #[error("the repository has no revision `{revision}`")]
    NoRevision {
        /// The revision.
        revision: String,
    },
    /// The hub does not answer.
    #[error("the hub cannot be reached: {message}")]
    Unreachable {
        /// The library's words.
        message: String,
    },
    /// The hub has too much to do, or too much to do for this user.
    #[error("the hub turns the download away for now: {message}")]
    Busy {
        /// The hub's words.
        message: String,
    },
    /// The download fills the disk.
    #[error("no space left for the download in `{}`", .cache.display())]
    DiskFull {
        /// The cache.
        cache: PathBuf,
    },
    /// Any other failure of the download.
    #[error("download failed: {message}")]
    Download {
        /// The library's words.
        message: String,
    },
    /// Downloaded, and not what is needed.
    #[error("the repository is not usable{}", but(Some(.incomplete)))]
    Unusable {
        /// What is missing.
        incomplete: Incomplete,
    },
    /// The interpreter lacks the library.
    #[error("`{}` has no `huggingface_hub`, which downloads need", .python.display())]
    NoLibrary {
        /// The interpreter.
        python: PathBuf,
    },
    /// The interpreter did not answer.
    #[error("`{}` ended with {exit} and no answer: {line}", .python.display())]
    NoAnswer {
        /// The interpreter.
        python: PathBuf,
        /// How it ended.
        exit: Exit,
        /// The last line it wrote to standard error.
        line: String,
    },
    /// The user stopped it.
    #[error("download cancelled")]
    Cancelled,
    /// The interpreter cannot be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// What a folder lacks to be a model or an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incomplete {
    /// A file.
    File(String),
    /// Weights as safetensors; these are there in another format.
    OnlyPickles,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => write!(f, "`{name}` is missing"),
            Self::OnlyPickles => f.write_str("its weights are PyTorch pickles, expected safetensors"),
        }
    }
}

fn but(incomplete: Option<&Incomplete>) -> String {
    incomplete.map(|incomplete| format!(": {incomplete}")).unwrap_or_default()
}

impl HubError {
    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Offline { .. } => {
                "unset `HF_HUB_OFFLINE` (or leave out the offline option) to download it".to_owned()
            }
            Self::Gated { .. } => {
                "accept the terms on the model's page and set `HF_TOKEN`, or run `hf auth login`".to_owned()
            }
            Self::NoRepository => "check the spelling; for a private repository set `HF_TOKEN`".to_owned(),
            Self::Unreachable { .. } => "check the network and `HF_ENDPOINT`, or name a local folder".to_owned(),
            Self::Busy { .. } => "try again later; with `HF_TOKEN` set the hub lets more through".to_owned(),
            Self::NoLibrary { .. } => "pip install huggingface_hub, or name the interpreter that has it".to_owned(),
            Self::Unusable { .. } => {
                "only safetensors are read: convert the weights, or choose a revision that has them".to_owned()
            }
            _ => return None,
        })
    }

    /// Whether it may pass by itself.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, offline, python, .. } = self;
        f.debug_struct("Hub")
            .field("cache", cache)
            .field("offline", offline)
            .field("python", python)
            .finish_non_exhaustive()
    }
}

/// Whether a text has the form of a hub id, `owner/name`.
pub fn is_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && part.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-'))
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

impl Hub {
    /// The hub that the usual variables describe, with `huggingface_hub`'s own defaults. `variable` gives the value of a
    /// variable.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>, python: PathBuf) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let on = |name: &str| {
            set(name).is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let tilde = |path: String| match (path.strip_prefix("~/"), set("HOME")) {
            (Some(rest), Some(home)) => Path::new(&home).join(rest),
            _ => PathBuf::from(path),
        };
        let caches = || set("XDG_CACHE_HOME").map(tilde).or_else(|| Some(Path::new(&set("HOME")?).join(".cache")));
        let home = || set("HF_HOME").map(tilde).or_else(|| Some(caches()?.join("huggingface")));
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(tilde);
        Self {
            cache: cache
                .or_else(|| Some(home()?.join("hub")))
                .unwrap_or_else(|| PathBuf::from(".cache/huggingface/hub")),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            weights: true,
            python,
            environment: BTreeMap::new(),
            retries: 0,
            cancel: Cancel::never(),
            on_progress: None,
        }
    }

    /// The folder of a repository: a complete snapshot in the cache, else a download.
    pub(super) fn folder(&self, location: &Location, role: Role) -> Result<PathBuf, HubError> {
        let cached = self.cached(location);
        let missing = cached.as_ref().map(|snapshot| self.missing(snapshot, role));
        match (cached, missing) {
            (Some(snapshot), Some(None)) => Ok(snapshot),
            (_, missing) if self.offline => {
                Err(HubError::Offline { cache: self.cache.clone(), incomplete: missing.flatten() })
            }
            _ => self.download(location, role),
        }
    }

    /// The snapshot of a revision in the cache, complete or not.
    fn cached(&self, location: &Location) -> Option<PathBuf> {
        let folder = self.cache.join(format!("models--{}", location.path.replace('/', "--")));
        let revision = location.revision.as_deref().unwrap_or("main");
        let of_ref = fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = of_ref.as_deref().map(str::trim).or_else(|| is_commit(revision).then_some(revision))?;
        let snapshot = folder.join("snapshots").join(commit);
        // A commit comes from a file: it must not lead out of the cache.
        (is_commit(commit) && snapshot.is_dir()).then_some(snapshot)
    }

    /// Downloads a snapshot. What a failed attempt has of it already stays in the cache, and the next one goes on from there.
    fn download(&self, location: &Location, role: Role) -> Result<PathBuf, HubError> {
        let mut waits = (0..self.retries).map(|n| FIRST_WAIT.saturating_mul(4_u32.saturating_pow(n)));
        loop {
            let error = match self.attempt(location, role) {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            let line = format!("{error}; trying again in {} s", wait.as_secs());
            self.on_progress.iter().for_each(|on_progress| on_progress(&line));
            let begun = Instant::now();
            while begun.elapsed() < wait {
                if self.cancel.is_cancelled() {
                    return Err(HubError::Cancelled);
                }
                std::thread::sleep(LOOK);
            }
        }
    }

    fn attempt(&self, location: &Location, role: Role) -> Result<PathBuf, HubError> {
        let question = serde_json::json!({
            "repository": location.path,
            "revision": location.revision,
            "cache": self.cache,
            "weights": self.weights,
        });
        let mut invocation = Invocation::new(&self.python, ["-c", DOWNLOAD, &question.to_string()]);
        invocation.environment = self.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut on_line = |line: &str| self.on_progress.iter().for_each(|on_progress| on_progress(line));
        let captured = process::capture(&invocation, None, &self.cancel, &mut on_line)?;
        if captured.exit == Exit::Cancelled {
            return Err(HubError::Cancelled);
        }
        let answer = captured.stdout.lines().rev().find_map(|line| line.strip_prefix(ANSWER));
        let answer = answer.and_then(|answer| serde_json::from_str::<Answer>(answer).ok());
        let Some(answer) = answer else {
            let line = captured.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            return Err(HubError::NoAnswer { python: self.python.clone(), exit: captured.exit, line: line.to_owned() });
        };
        let Answer { kind, message } = answer;
        match kind.as_str() {
            "folder" => {
                let folder = PathBuf::from(message);
                match self.missing(&folder, role) {
                    None => Ok(folder),
                    Some(incomplete) => Err(HubError::Unusable { incomplete }),
                }
            }
            "gated" => Err(HubError::Gated { message }),
            "repository" => Err(HubError::NoRepository),
            "revision" => {
                Err(HubError::NoRevision { revision: location.revision.clone().unwrap_or_else(|| "main".to_owned()) })
            }
            "network" => Err(HubError::Unreachable { message }),
            "busy" => Err(HubError::Busy { message }),
            "disk" => Err(HubError::DiskFull { cache: self.cache.clone() }),
            "library" => Err(HubError::NoLibrary { python: self.python.clone() }),
            _ => Err(HubError::Download { message }),
        }
    }

    /// What a snapshot lacks of what is wanted.
    fn missing(&self, folder: &Path, role: Role) -> Option<Incomplete> {
        missing(folder, role).filter(|lack| self.weights || *lack == Incomplete::File(config_of(role).to_owned()))
    }
}

/// The file that says what a model or adapter is.
fn config_of(role: Role) -> &'static str {
    match role {
        Role::Model => "config.json",
        Role::Adapter => "adapter_config.json",
    }
}

/// The answer of the download script.
#[derive(Deserialize)]
struct Answer {
    /// `folder`, or which failure.
    kind: String,
    /// The folder, or the words of the failure.
    message: String,
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|character| character.is_ascii_hexdigit())
}

/// What a snapshot lacks. A file of the cache is a link to a blob: a link whose blob is gone counts as missing.
fn missing(folder: &Path, role: Role) -> Option<Incomplete> {
    let config = config_of(role);
    let weights = match role {
        Role::Model => "model.safetensors",
        Role::Adapter => "adapter_model.safetensors",
    };
    if !folder.join(config).exists() {
        return Some(Incomplete::File(config.to_owned()));
    }
    let index = folder.join(format!("{weights}.index.json"));
    if let Ok(text) = fs::read_to_string(&index) {
        let shards = serde_json::from_str::<Index>(&text).map(|index| index.weight_map).unwrap_or_default();
        return shards.into_values().find(|shard| !folder.join(shard).exists()).map(Incomplete::File);
    }
    if folder.join(weights).exists() {
        return None;
    }
    let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin"];
    let only_pickles = pickles.iter().any(|pickle| folder.join(pickle).exists());
    Some(if only_pickles { Incomplete::OnlyPickles } else { Incomplete::File(weights.to_owned()) })
}

/// The index of a sharded checkpoint.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    weight_map: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(variables: &[(&str, &str)]) -> (String, bool) {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let hub = Hub::from_environment(&variable, PathBuf::from("python"));
        (hub.cache.display().to_string(), hub.offline)
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        assert_eq!(cache(&[("HOME", "/h")]).0, "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).0, "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]).0, "/h/hf/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).0, "/c");
        assert!(cache(&[("HF_HUB_OFFLINE", "1")]).1 && cache(&[("HF_HUB_OFFLINE", "true")]).1);
        assert!(!cache(&[("HF_HUB_OFFLINE", "0")]).1 && !cache(&[]).1);
    }

    #[test]
    fn hub_ids_have_an_owner_and_a_name() {
        assert!(is_id("HuggingFaceTB/SmolLM2-135M-Instruct") && is_id("a/b.c_d-1"));
        for text in ["gpt2", "a/b/c", "a/", "/b", "../x", "a b/c", "a/b-", "a/.."] {
            assert!(!is_id(text), "{text}");
        }
    }
}
