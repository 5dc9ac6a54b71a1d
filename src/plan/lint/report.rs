//! The parameter report of one merge: every setting of its config as read, dead, shadowed or without effect, and every
//! parameter that was left to its default.

use std::collections::BTreeSet;

use super::effect::{Effect, Trial};
use super::recording::{Default, Recording, Tally};
use crate::config::method::{METHODS, Method, ParameterSpec, Scope};
use crate::config::{MergeConfig, Setting};
use crate::plan::resolution::{Resolution, base_of};
use crate::plan::sites::{Sites, Stand, levels};

/// How a setting fares in a merge as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It decides about some tensors.
    Read,
    /// It is read as the bound of an iteration, and decides where that does not come to rest before.
    Bound,
    /// It is read and changes nothing.
    NoEffect(Idle),
    /// A setting further in answers wherever it could.
    Shadowed,
    /// It is looked at and has no value for any tensor.
    Unmatched,
    /// Nobody looks at it.
    Dead(Why),
}

/// Why a setting that is read changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It says what is so without it.
    Default,
    /// Nothing that is done uses it.
    Unused,
    /// Any other value would change the rounding alone.
    Rounding,
}

/// Why nobody looks at a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The method has no such parameter.
    Unknown,
    /// A parameter that is shared by all inputs is not looked up on a source.
    SharedOnSource,
    /// A parameter of the other inputs is not asked of the base.
    OfBase,
    /// The slice gives no tensor.
    NoTensors,
}

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingReport {
    /// Where it stands.
    pub stand: Stand,
    /// Its name.
    pub name: String,
    /// What stands there.
    pub setting: Setting,
    /// How it fares.
    pub verdict: Verdict,
    /// The values that are read from it, each with its number of tensors.
    pub values: Vec<(f64, usize)>,
    /// Numbers of its cases that answer for no tensor, where others do.
    pub idle_cases: Vec<usize>,
}

/// One parameter that was left to its default.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultReport {
    /// What was looked up.
    pub default: Default,
    /// For how many tensors.
    pub n_tensors: usize,
    /// Whether another value would change what comes out.
    pub effect: Effect,
    /// Methods of the same family with another default, and what that is.
    pub differing: Vec<(Method, f64)>,
}

/// The report of one merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Every setting, in the order source, slice, module, top level.
    pub settings: Vec<SettingReport>,
    /// Every default in force.
    pub defaults: Vec<DefaultReport>,
}

/// Makes the report of a merge from what its resolution looked up.
pub fn report(trial: &Trial<'_>, resolution: &Resolution<'_>, recording: &Recording) -> Report {
    let settings = levels(trial.config).flat_map(|(stand, parameters)| {
        parameters.iter().map(move |(name, setting)| of_setting(trial, recording, stand, name, setting))
    });
    let defaults = recording.defaults().into_iter().map(|default| DefaultReport {
        n_tensors: n_tensors(&resolution.sites, &default.classes),
        effect: trial.of_default(default.row, default.value),
        differing: differing(trial.config.method, default.row),
        default,
    });
    Report { settings: settings.collect(), defaults: defaults.collect() }
}

fn n_tensors(sites: &Sites, classes: &BTreeSet<usize>) -> usize {
    classes.iter().map(|class| sites.classes[*class].members.len()).sum()
}

fn of_setting(trial: &Trial<'_>, recording: &Recording, stand: Stand, name: &str, setting: &Setting) -> SettingReport {
    let tally = recording.of(setting);
    let values: Vec<(f64, usize)> =
        tally.values.iter().map(|(value, classes)| (*value, n_tensors(&trial.sites, classes))).collect();
    let n_cases = match setting {
        Setting::Conditional(cases) if !values.is_empty() => cases.len(),
        _ => 0,
    };
    let idle_cases = (0..n_cases).filter(|case| !tally.cases.contains(case)).collect();
    let verdict = verdict(trial, &tally, stand, name, setting);
    SettingReport { stand, name: name.to_owned(), setting: setting.clone(), verdict, values, idle_cases }
}

fn verdict(trial: &Trial<'_>, tally: &Tally, stand: Stand, name: &str, setting: &Setting) -> Verdict {
    let row = trial.config.method.parameter(name);
    if let ([(first, _), ..], Some(row)) = (tally.values.as_slice(), row) {
        let alone = tally.overridden.is_empty() && tally.silent.is_empty();
        let says_default = matches!(setting, Setting::Scalar(_)) && alone && row.default == Some(*first);
        return match trial.of_setting(stand, row, *first) {
            Effect::None => Verdict::NoEffect(Idle::Unused),
            Effect::Rounding => Verdict::NoEffect(Idle::Rounding),
            _ if says_default && !is_answered_outside(trial.config, stand, row) => Verdict::NoEffect(Idle::Default),
            _ if row.is_bound() => Verdict::Bound,
            _ => Verdict::Read,
        };
    }
    if !tally.overridden.is_empty() {
        Verdict::Shadowed
    } else if !tally.silent.is_empty() {
        Verdict::Unmatched
    } else {
        Verdict::Dead(why(trial.config, stand, row))
    }
}

/// Whether something further out would answer if a setting were not there.
fn is_answered_outside(config: &MergeConfig, stand: Stand, row: &ParameterSpec) -> bool {
    let further_out = |other: Stand| match (stand, other) {
        (Stand::Source { slice, .. }, Stand::Slice { slice: other }) => slice == other,
        (Stand::Source { .. } | Stand::Slice { .. }, Stand::Module | Stand::Top) | (Stand::Module, Stand::Top) => true,
        _ => false,
    };
    levels(config).any(|(other, parameters)| further_out(other) && parameters.contains_key(row.name))
}

fn why(config: &MergeConfig, stand: Stand, row: Option<&ParameterSpec>) -> Why {
    match (row, stand) {
        (None, _) => Why::Unknown,
        (Some(row), Stand::Source { .. }) if row.scope == Scope::Shared => Why::SharedOnSource,
        (Some(row), Stand::Source { slice, source })
            if row.scope == Scope::NonBaseInputs && base_of(config, &config.slices[slice]) == Some(source) =>
        {
            Why::OfBase
        }
        _ => Why::NoTensors,
    }
}

/// Methods of the family that have another default for a parameter.
fn differing(method: Method, row: &ParameterSpec) -> Vec<(Method, f64)> {
    if !method.spec().is_of_task_vectors() {
        return Vec::new();
    }
    let family = METHODS.iter().filter(|other| other.is_of_task_vectors());
    let others = family.filter_map(|other| {
        let default = other.method.parameter(row.name)?.default?;
        (row.default != Some(default)).then_some((other.method, default))
    });
    others.collect()
}
