//! The sweep expanded: every trial, in order, with its resolved settings. Making and printing a plan runs nothing.

pub mod configs;
pub mod expand;
pub mod explanation;
pub mod intended;
pub mod json;
pub mod lint;
pub mod resolution;
pub mod sites;
pub mod template;
pub mod trial;
pub mod twins;
pub mod values;
pub mod words;

pub use expand::{check_reference, expand, expand_with, open, open_with};
pub use lint::{Finding, Review};
pub use trial::{Trial, TrialId};
pub use twins::Twins;

use crate::config::{MergeConfig, Numerics};
use crate::document::Problems;
use crate::model::ModelRef;

/// Ordered trials: baselines first, then merges, each in the order of the spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name of the sweep.
    pub sweep: String,
    /// The trials. Names are unique.
    pub trials: Vec<Trial>,
    /// What is odd but no mistake: keys of mergekit files that nobody reads, trials that are the same.
    pub warnings: Problems,
    /// What was found out about its merges: settings that nobody reads, twins.
    pub review: Review,
}

impl Plan {
    /// The plan of some of its trials, by number, in their order. What was found out about settings is left out.
    pub fn only(&self, positions: &[usize]) -> Self {
        let position = |old: &usize| positions.iter().position(|kept| kept == old);
        let kept = |groups: &[Vec<usize>]| {
            let groups = groups.iter().map(|group| group.iter().filter_map(position).collect::<Vec<_>>());
            groups.filter(|group| group.len() > 1).collect()
        };
        let Twins { exact, rounding } = &self.review.twins;
        let twins = Twins { exact: kept(exact), rounding: kept(rounding) };
        Self {
            sweep: self.sweep.clone(),
            trials: positions.iter().filter_map(|index| self.trials.get(*index).cloned()).collect(),
            warnings: Problems::default(),
            review: Review { findings: Vec::new(), twins, origin: self.review.origin },
        }
    }
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
        /// How intermediate results are rounded.
        numerics: Numerics,
    },
}
