//! The sweep spec: one file, TOML or YAML, that says which models are merged how and evaluated on what.
//!
//! [`load`] reads the file into a [`Sweep`], or reports every mistake in it at once. What the sweep expands to is
//! `plan`'s business.

pub mod axis;
pub mod evaluate;
pub mod load;
pub mod merge;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Scalar;
use crate::document::Node;
use crate::eval;
use crate::model::ModelRef;

pub use load::load;

/// One spec file.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// `name`: names the folder of its results.
    pub name: String,
    /// Path of the spec file.
    pub path: PathBuf,
    /// Folder of the spec file: relative model paths, configs and include paths start here.
    pub root: PathBuf,
    /// `models`: short name to reference, in the order of the file.
    pub models: Vec<(String, ModelRef)>,
    /// `baseline`: models evaluated unmerged.
    pub baselines: Vec<Baseline>,
    /// `merge`: what is merged, not yet expanded.
    pub merges: Vec<MergeEntry>,
    /// `evaluate`.
    pub evaluate: eval::Settings,
    /// `limits`.
    pub limits: Limits,
}

/// A model evaluated as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Name of its row.
    pub name: String,
    /// The model.
    pub model: ModelRef,
}

/// One `[[merge]]`: a config with axes.
#[derive(Debug, Clone)]
pub struct MergeEntry {
    /// Template of the trial names: `SLERP (t={t})`.
    pub name: String,
    /// Position of the entry, for messages.
    pub node: Node,
    /// The mergekit document before axes are put in, whether written in the spec or read from `config`.
    pub document: Node,
    /// Every combination of axis values to run, in order, after product, zip, lists, exclusions and sampling.
    pub settings: Vec<Setting>,
    /// `seed` where it is not an axis.
    pub seed: Option<u64>,
}

/// One combination of axis values: axis name to value, in the order of the axes.
pub type Setting = Vec<AxisValue>;

/// The value of one axis in one trial.
#[derive(Debug, Clone)]
pub struct AxisValue {
    /// Name of the axis: its placeholder in the template, and its column.
    pub axis: String,
    /// Where it goes in the document; `None` for `seed`.
    pub path: Option<String>,
    /// The value, with its position in the spec.
    pub value: Node,
    /// The value as the table shows it.
    pub shown: Scalar,
}

/// `limits`: guards against runaway sweeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most trials a plan may have (default 1000).
    pub trials: usize,
    /// Longest time one harness process may take (default: none).
    pub evaluation_timeout: Option<Duration>,
    /// Whether merged models stay on disk once they are scored (default: false).
    pub keep_models: bool,
}

/// Environment variables for the harness, by name.
pub type Environment = BTreeMap<String, String>;
