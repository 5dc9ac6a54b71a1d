//! The sweep spec: one file, TOML or YAML, that says which models are merged how and evaluated on what.
//!
//! [`load`] reads the file into a [`Sweep`], or reports every mistake in it at once. What the sweep expands to is
//! `plan`'s business.

pub mod axis;
pub mod combine;
pub mod decimal;
pub mod engine;
pub mod evaluate;
pub mod gate;
pub mod keys;
pub mod lint;
pub mod load;
pub mod merge;
pub mod names;
pub mod placed;
pub mod resources;
pub mod search;
pub mod space;
pub mod target;
mod tasks;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Numerics, Scalar};
use crate::document::{DocumentPath, Node, Span};
use crate::eval;
use crate::model::ModelRef;

pub use engine::{Engine, EngineKind};
pub use gate::{Gate, Report};
pub use lint::{Dead, Lint, TwinEvaluation};
pub use load::{load, read};
pub use names::ModelNames;
pub use resources::{Keep, Resources};
pub use search::{Sampling, Search, Way};
pub use space::Space;

/// One spec file.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// `name`: names the folder of its results.
    pub name: String,
    /// Path of the spec file.
    pub path: PathBuf,
    /// Folder of the spec file: relative model paths, configs and include paths start here. Each part of a
    /// `BASE+ADAPTER` reference does.
    pub root: PathBuf,
    /// `models`: short name to reference, in the order of the file.
    pub models: Vec<(String, ModelRef)>,
    /// `baseline`: models evaluated unmerged.
    pub baselines: Vec<Baseline>,
    /// `merge`: what is merged, with its settings listed but not yet made into configs.
    pub merges: Vec<MergeEntry>,
    /// `evaluate`.
    pub evaluate: eval::Settings,
    /// `limits`.
    pub limits: Limits,
    /// `resources`.
    pub resources: Resources,
    /// `engine`.
    pub engine: Engine,
    /// `search`.
    pub search: Option<Search>,
    /// `report`.
    pub report: Report,
    /// `gate`.
    pub gate: Gate,
    /// `lint`.
    pub lint: Lint,
    /// `twins`.
    pub twins: TwinEvaluation,
    /// The file, for key paths in messages.
    pub document: Node,
}

impl Sweep {
    /// What the spec calls a model: its short name, or its reference where it has none.
    pub fn short_name(&self, model: &ModelRef) -> String {
        let short = self.models.iter().find(|(_, reference)| reference == model);
        short.map_or_else(|| model.to_string(), |(name, _)| name.clone())
    }
}

/// A model evaluated as it is.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// Name of its row.
    pub name: String,
    /// Where the name stands, for messages.
    pub name_span: Span,
    /// The model.
    pub model: ModelRef,
}

/// One `[[merge]]`: a config with axes.
#[derive(Debug, Clone)]
pub struct MergeEntry {
    /// Template of the trial names: `SLERP (t={t})`.
    pub name: String,
    /// Where the template stands.
    pub name_span: Span,
    /// Key path of the entry: `merge[2]`.
    pub key_path: String,
    /// The mergekit document before axes are put in, whether written in the spec or read from `config`.
    pub document: Node,
    /// The axes, in the order in which they vary: the last one fastest.
    pub axes: Vec<AxisHead>,
    /// Every combination of axis values to run, in order, after product, zip, lists, exclusions and sampling.
    pub settings: Vec<Setting>,
    /// `seed`, in force where it is no axis.
    pub seed: u64,
    /// Where `seed` stands, if it is written.
    pub seed_span: Option<Span>,
    /// `numerics`: how intermediate results are rounded (default: `f32`).
    pub numerics: Numerics,
    /// Whether all axes could be read. Where not, what misses them is no further mistake.
    pub complete: bool,
}

/// What an axis sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The seed of the trial.
    Seed,
    /// Places of the mergekit document: one, or the same parameter on several sources.
    Places(Vec<DocumentPath>),
}

/// An axis without its values.
#[derive(Debug, Clone)]
pub struct AxisHead {
    /// Its name: its placeholder in the template, and its column.
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// Key path of the axis: `merge[2].grid.t`.
    pub key_path: String,
    /// What it sets.
    pub target: Target,
}

/// One combination of axis values, in the order of the entry's axes.
pub type Setting = Vec<AxisValue>;

/// The value of one axis in one trial.
#[derive(Debug, Clone)]
pub struct AxisValue {
    /// The value, with its position in the spec.
    pub value: Node,
    /// The value as names and tables show it.
    pub shown: Scalar,
}

/// `limits`: guards against runaway sweeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most trials a plan may have (default 1000).
    pub trials: usize,
    /// Longest time one harness process may take (default: none). `evaluate` gets the same.
    pub evaluation_timeout: Option<Duration>,
    /// Longest time one pass of merges may take (default: none).
    pub merge_timeout: Option<Duration>,
    /// How often what may pass (a server or hub that does not answer) is tried again (default: 2).
    pub retries: u32,
    /// Merges that are made in one pass at most, where they read the same models and the disk has room (default: 4).
    pub merges_per_pass: usize,
    /// Which merged models stay on disk once they are scored (default: none).
    pub keep: Keep,
}
