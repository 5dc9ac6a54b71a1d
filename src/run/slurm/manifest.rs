//! What the tasks of a submission are told: which sweep, which units, and what a task may use.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::Request;
use super::super::fingerprint::{digest, evaluation_key};
use super::super::search::{Draw, Pieces, asking};
use super::super::store::{StoreError, at};
use super::SlurmError;
use super::submission::Place;
use super::unit::Unit;
use crate::eval::Settings;
use crate::spec::Keep;

/// `slurm/<number>/manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Number of the submission.
    pub submission: u32,
    /// The spec. It is read again by every task: [`Manifest::asked`] must still be what it asks.
    pub spec: PathBuf,
    /// The folder of all results.
    pub results: PathBuf,
    /// The interpreter with the harness, where it is a path; a name is looked up by the task.
    pub python: Option<PathBuf>,
    /// Documents per task, over the spec's.
    pub limit: Option<u64>,
    /// Names of trials to do again from scratch.
    pub redo: Vec<String>,
    /// Digest of what is asked of the harness.
    pub asked: String,
    /// Bytes that the models of one task may take at any time; where it is split, those of a wave.
    pub disk: Option<u64>,
    /// Tasks at once; as many as Slurm likes otherwise.
    pub at_once: Option<usize>,
    /// Whether merges have jobs of their own.
    #[serde(default)]
    pub split: bool,
    /// Where the models of a task lie, if not in the results; may begin with a variable of the job.
    pub work_dir: Option<String>,
    /// Which part of a search this is; none: all that the spec asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Portion>,
    /// The units.
    pub units: Vec<Unit>,
}

/// A part of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Portion {
    /// Which.
    #[serde(flatten)]
    pub place: Place,
    /// How the documents were drawn.
    pub draw: Draw,
    /// Whether models stay for the next part: there is room for all of them.
    pub holds: bool,
    /// Names of all trials that the run is about.
    pub selected: Vec<String>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`SlurmError`], naming the file.
    pub fn read(path: &Path) -> Result<Self, SlurmError> {
        let text = fs::read(path).map_err(at(path))?;
        serde_json::from_slice(&text).map_err(|source| SlurmError::Manifest { path: path.to_owned(), source })
    }

    /// What a request asks in this submission. Which models are the best is only known once all are scored, so they stay or do
    /// not.
    pub fn asking(&self, request: &Request) -> Request {
        match &self.search {
            None => {
                let keep = if request.keep == Keep::Nothing { Keep::Nothing } else { Keep::All };
                Request { keep, ..request.clone() }
            }
            Some(Portion { place, draw, holds, .. }) => {
                let asking = asking(request, &Pieces::of(draw, &request.settings), place.rung);
                let keep = if *holds { Keep::All } else { Keep::Nothing };
                Request { search: None, grow: None, holds: *holds, keep, ..asking }
            }
        }
    }

    /// Writes it whole.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        // Texts and numbers are always JSON.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        crate::files::write_atomically(path, &text).map_err(at(path))
    }
}

/// Digest of what settings ask of the harness, whatever the model, its version and the files.
pub fn asked(settings: &Settings) -> String {
    let keys: Vec<_> =
        settings.tasks.iter().map(|task| (&task.name, evaluation_key("", settings, task, "", None))).collect();
    digest(&serde_json::to_vec(&keys).unwrap_or_default())
}
