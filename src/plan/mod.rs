//! The sweep expanded: every trial, in order, with its resolved settings. Making and printing a plan runs nothing.

pub mod expand;
pub mod trial;

pub use expand::expand;
pub use trial::TrialId;

use crate::config::{MergeConfig, Scalar};
use crate::model::ModelRef;

/// Ordered trials: baselines first, then merges, each in the order of the spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name of the sweep.
    pub sweep: String,
    /// The trials. Names are unique.
    pub trials: Vec<Trial>,
}

/// One row of the study.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Identity: a digest of the subject, not of the name.
    pub id: TrialId,
    /// Name of its row.
    pub name: String,
    /// What is evaluated.
    pub subject: Subject,
    /// Axis values, in the order of the axes.
    pub axes: Vec<(String, Scalar)>,
}

/// What a trial evaluates.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// An unmerged model.
    Checkpoint(ModelRef),
    /// The result of a merge. Random methods draw with `seed`; it is recorded for all.
    Merge {
        /// The config.
        config: Box<MergeConfig>,
        /// The seed of random masks.
        seed: u64,
    },
}
