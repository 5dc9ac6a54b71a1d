//! Whether a setting can change what comes out: it is changed, the merge resolved anew, and the canonical forms compared.

use std::sync::Arc;

use crate::config::method::{Kind, ParameterSpec};
use crate::config::{MergeConfig, Numerics, Parameters, Scalar, Setting};
use crate::plan::resolution::resolve;
use crate::plan::sites::{Sites, Stand};
use crate::plan::twins::{self, Canonical};

/// What other values of a setting would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The same bytes, whatever the value.
    None,
    /// The same in exact arithmetic: other bytes by rounding alone.
    Rounding,
    /// Another merge.
    Some,
}

/// A merge to try changes on.
#[derive(Debug, Clone)]
pub struct Trial<'a> {
    /// Its config.
    pub config: &'a MergeConfig,
    /// Its seed.
    pub seed: u64,
    /// How intermediate results are rounded.
    pub numerics: Numerics,
    /// Its tensors.
    pub sites: Arc<Sites>,
    /// What it computes as it is.
    pub canonical: Canonical,
}

impl Trial<'_> {
    /// What other values of a setting would do; `value` is one that it has.
    pub fn of_setting(&self, stand: Stand, row: &ParameterSpec, value: f64) -> Effect {
        self.of_values(stand, row, others(row, value))
    }

    /// What a value other than the default would do.
    pub fn of_default(&self, row: &ParameterSpec, value: Option<f64>) -> Effect {
        // What stands at top level is looked at last.
        self.of_values(Stand::Top, row, others(row, value.unwrap_or(1.0)))
    }

    fn of_values(&self, stand: Stand, row: &ParameterSpec, values: Vec<Scalar>) -> Effect {
        let mut config = self.config.clone();
        let mut effect = Effect::None;
        for value in values {
            let Some(parameters) = parameters_at(&mut config, stand) else { continue };
            let old = parameters.get(row.name).cloned();
            let new = replaced(old.as_ref(), &value);
            parameters.insert(row.name.to_owned(), new);
            effect = effect.max(self.compared(&config, self.seed));
        }
        effect
    }

    /// What another seed would do.
    pub fn of_seed(&self) -> Effect {
        self.compared(self.config, self.seed.wrapping_add(1))
    }

    fn compared(&self, config: &MergeConfig, seed: u64) -> Effect {
        // A value that cannot be is at least asked for.
        let Ok(resolution) = resolve(config, seed, self.numerics, self.sites.clone(), None) else {
            return Effect::Some;
        };
        let other = twins::canonical(&resolution);
        match other {
            _ if other.exact == self.canonical.exact => Effect::None,
            _ if other.algebra == self.canonical.algebra => Effect::Rounding,
            _ => Effect::Some,
        }
    }
}

/// Values that are as different as can be from one.
fn others(row: &ParameterSpec, value: f64) -> Vec<Scalar> {
    match row.kind {
        Kind::Bool => vec![Scalar::Bool(value == 0.0)],
        Kind::Float => vec![Scalar::Float(value + 1.0), Scalar::Float(0.37 * value + 0.11)],
    }
}

/// A setting of the same form that has one value wherever the old one had any.
fn replaced(old: Option<&Setting>, value: &Scalar) -> Setting {
    match old {
        Some(Setting::Conditional(cases)) => {
            let mut cases = cases.clone();
            for case in &mut cases {
                case.value = replaced(Some(&case.value), value);
            }
            Setting::Conditional(cases)
        }
        Some(Setting::Gradient(values)) if values.is_empty() => Setting::Gradient(Vec::new()),
        _ => Setting::Scalar(value.clone()),
    }
}

/// The parameters of a level.
pub fn parameters_at(config: &mut MergeConfig, stand: Stand) -> Option<&mut Parameters> {
    match stand {
        Stand::Source { slice, source } => Some(&mut config.slices.get_mut(slice)?.sources.get_mut(source)?.parameters),
        Stand::Slice { slice } => Some(&mut config.slices.get_mut(slice)?.parameters),
        Stand::Module => Some(&mut config.module_parameters),
        Stand::Top => Some(&mut config.parameters),
    }
}
