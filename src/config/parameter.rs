//! The value of a parameter for a tensor: scalars, gradients, filtered conditionals, and mergekit's look-up order.
//!
//! A look-up says at which [`Level`] it found the value, so that a report of read, dead and shadowed settings can be
//! made from the very code the engine uses.

use std::collections::BTreeMap;
use std::fmt;

use super::method::{Kind, ParameterSpec, Scope};
use super::{MergeConfig, Slice, SourceModel};

/// A plain value. Texts appear because YAML readers disagree on what is a number (`1e-4` is a text to PyYAML).
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number. Its shortest decimal form is what it is written as.
    Float(f64),
    /// Text.
    Text(String),
}

/// The value of a parameter as written at one level.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// One value for every tensor.
    Scalar(Scalar),
    /// Values spread evenly over the layers of a slice and interpolated between.
    Gradient(Vec<Scalar>),
    /// Tried in order; the first whose filter is a substring of the tensor's name wins.
    Conditional(Vec<Case>),
}

/// One `{filter, value}` of a conditional.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Plain substring of the tensor name; `None` and `*` match every tensor.
    pub filter: Option<String>,
    /// A scalar or a gradient (never a conditional).
    pub value: Setting,
}

/// The parameters written at one level, by name.
pub type Parameters = BTreeMap<String, Setting>;

/// Where a value was found, innermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// On the entry of the model in the slice.
    Source,
    /// On the slice.
    Slice,
    /// On the module.
    Module,
    /// At top level.
    Top,
    /// Nowhere: the method's default.
    Default,
}

/// The tensor a parameter is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Output tensor name for shared parameters, the input's own name for per-input parameters.
    pub tensor: &'a str,
    /// Position of the tensor in the layers of its slice, 0..=1; 0 for every tensor outside the layers.
    pub t: f64,
}

/// A parameter that cannot be given a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// Required and absent.
    #[error("missing required parameter `{name}` for `{tensor}`{}", of_model(.model.as_deref()))]
    Missing {
        /// The parameter.
        name: &'static str,
        /// The tensor it was asked for.
        tensor: String,
        /// The model, for per-input parameters.
        model: Option<String>,
    },
    /// Present and of a type that cannot be read.
    #[error("parameter `{name}` for `{tensor}`: expected {expected}, found `{found}`")]
    Type {
        /// The parameter.
        name: &'static str,
        /// The tensor it was asked for.
        tensor: String,
        /// What would do.
        expected: &'static str,
        /// What stands there.
        found: Scalar,
    },
}

fn of_model(model: Option<&str>) -> String {
    model.map(|model| format!(" of `{model}`")).unwrap_or_default()
}

impl Scalar {
    /// The number this is to mergekit: ints, floats, and texts that spell one.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Text(text) => text.trim().parse().ok(),
            // pydantic reads true as 1.0 in float fields.
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
        }
    }

    /// The switch this is to mergekit: booleans, 0 and 1, and the usual words for them.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Int(0) => Some(false),
            Self::Int(1) => Some(true),
            Self::Float(value) if *value == 0.0 => Some(false),
            Self::Float(value) if *value == 1.0 => Some(true),
            Self::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
                "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Float(_))
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Setting {
    /// The value for one tensor, if this setting speaks about it.
    ///
    /// An empty gradient and a conditional without a matching case are absent: look-up goes on at the next level.
    pub fn value_at(&self, site: Site<'_>) -> Option<Scalar> {
        match self {
            Self::Scalar(value) => Some(value.clone()),
            Self::Gradient(values) => interpolate(values, site.t),
            Self::Conditional(cases) => cases
                .iter()
                .find(|case| match case.filter.as_deref() {
                    None | Some("*") => true,
                    Some(filter) => site.tensor.contains(filter),
                })
                .and_then(|case| case.value.value_at(site)),
        }
    }
}

/// The value of a gradient at `t` in 0..=1. Anything that is not a number is picked, not interpolated.
fn interpolate(values: &[Scalar], t: f64) -> Option<Scalar> {
    let last = values.len().checked_sub(1)?;
    let position = t * last as f64;
    let below = (position.floor() as usize).min(last);
    if !values.iter().all(Scalar::is_number) {
        return Some(values[below].clone());
    }
    let fraction = position - position.floor();
    let low = values[below].as_float()?;
    let high = values[(below + 1).min(last)].as_float()?;
    Some(Scalar::Float((1.0 - fraction) * low + fraction * high))
}

impl MergeConfig {
    /// The raw value of a parameter for one tensor, and the level it was found at.
    ///
    /// `source` is the input a per-input parameter is asked for; a shared parameter never looks at a source.
    pub fn look_up(
        &self,
        slice: &Slice,
        source: Option<&SourceModel>,
        name: &str,
        site: Site<'_>,
    ) -> Option<(Scalar, Level)> {
        let levels = [
            (Level::Source, source.map(|source| &source.parameters)),
            (Level::Slice, Some(&slice.parameters)),
            (Level::Module, Some(&self.module_parameters)),
            (Level::Top, Some(&self.parameters)),
        ];
        levels.into_iter().find_map(|(level, parameters)| {
            let value = parameters?.get(name)?.value_at(site)?;
            Some((value, level))
        })
    }

    /// A parameter as a number (switches as 0 and 1), its default where it is absent, `None` where it is optional.
    ///
    /// # Errors
    /// [`ParameterError`] when a required parameter is absent or a value cannot be read as the row's [`Kind`].
    pub fn parameter(
        &self,
        row: &'static ParameterSpec,
        slice: &Slice,
        source: Option<&SourceModel>,
        site: Site<'_>,
    ) -> Result<Option<f64>, ParameterError> {
        let source = if row.scope == Scope::Shared { None } else { source };
        let Some((found, _)) = self.look_up(slice, source, row.name, site) else {
            return match row.default {
                None if !row.optional => Err(ParameterError::Missing {
                    name: row.name,
                    tensor: site.tensor.to_owned(),
                    model: source.map(|source| source.model.to_string()),
                }),
                default => Ok(default),
            };
        };
        let (value, expected) = match row.kind {
            Kind::Float => (found.as_float(), "a number"),
            Kind::Bool => (found.as_bool().map(|on| f64::from(u8::from(on))), "true or false"),
        };
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(ParameterError::Type { name: row.name, tensor: site.tensor.to_owned(), expected, found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(values: &[f64]) -> Setting {
        Setting::Gradient(values.iter().map(|value| Scalar::Float(*value)).collect())
    }

    fn at(setting: &Setting, tensor: &str, t: f64) -> Option<f64> {
        setting.value_at(Site { tensor, t }).and_then(|value| value.as_float())
    }

    #[test]
    fn a_gradient_is_interpolated_between_its_values() {
        let setting = gradient(&[0.0, 1.0, 3.0]);
        assert_eq!(at(&setting, "x", 0.0), Some(0.0));
        assert_eq!(at(&setting, "x", 0.25), Some(0.5));
        assert_eq!(at(&setting, "x", 0.75), Some(2.0));
        assert_eq!(at(&setting, "x", 1.0), Some(3.0));
        assert_eq!(at(&gradient(&[]), "x", 0.5), None);
    }

    #[test]
    fn switches_in_a_gradient_are_picked() {
        let setting = Setting::Gradient(vec![Scalar::Bool(true), Scalar::Bool(false)]);
        assert_eq!(setting.value_at(Site { tensor: "x", t: 0.99 }), Some(Scalar::Bool(true)));
        assert_eq!(setting.value_at(Site { tensor: "x", t: 1.0 }), Some(Scalar::Bool(false)));
    }

    #[test]
    fn the_first_matching_case_wins_and_no_match_is_absent() {
        let case = |filter: Option<&str>, value: f64| Case {
            filter: filter.map(str::to_owned),
            value: Setting::Scalar(Scalar::Float(value)),
        };
        let setting = Setting::Conditional(vec![case(Some("mlp"), 1.0), case(Some("attn"), 2.0)]);
        assert_eq!(at(&setting, "model.layers.0.mlp.up_proj.weight", 0.0), Some(1.0));
        assert_eq!(at(&setting, "model.norm.weight", 0.0), None);
    }
}
