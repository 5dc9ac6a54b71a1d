//! The value of a parameter for a tensor: scalars, gradients, filtered conditionals, and mergekit's look-up order.
//!
//! Every look-up can be recorded ([`LookUp`]): which settings it met from the inside out, which of them gave the value and
//! which were not asked any more. The report of read, dead and shadowed settings is made from these records, and so from the
//! very code the engine uses.

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

impl Case {
    /// Whether it speaks about the tensor of that name.
    pub fn matches(&self, tensor: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| filter == "*" || tensor.contains(filter))
    }
}

impl fmt::Display for Setting {
    /// On one line: `0.5`, `[0, 1]`, `[mlp: 0.5, 1]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(value) => value.fmt(f),
            Self::Gradient(values) => list(values, f),
            Self::Conditional(cases) => list(cases, f),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.iter().try_for_each(|filter| write!(f, "{filter}: "))?;
        self.value.fmt(f)
    }
}

fn list(items: &[impl fmt::Display], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("[")?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    f.write_str("]")
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

/// How a setting fared when a value was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fared {
    /// It gave the value: of a conditional, its case of that number did.
    Answered {
        /// Number of the case, 0 where there are none.
        case: usize,
    },
    /// It has no value for the tensor (no case matches it, or a gradient is empty): look-up went on.
    Silent,
    /// A setting further in had answered.
    Overridden,
}

/// One look-up of a parameter.
#[derive(Debug)]
pub struct LookUp<'a> {
    /// What was looked for.
    pub row: &'static ParameterSpec,
    /// The input it was asked for; none for shared parameters.
    pub source: Option<&'a SourceModel>,
    /// The tensor.
    pub site: Site<'a>,
    /// Every setting of that name on the levels that are looked at, from the inside out, with how it fared.
    pub met: Vec<(Level, &'a Setting, Fared)>,
    /// What came of it (switches as 0 and 1); none where an optional parameter is absent.
    pub value: Option<f64>,
}

impl LookUp<'_> {
    /// Whether no setting answered: the value is the method's default.
    pub fn is_default(&self) -> bool {
        !self.met.iter().any(|(_, _, fared)| matches!(fared, Fared::Answered { .. }))
    }
}

/// Hears of look-ups.
pub type Recorder<'r> = dyn Fn(&LookUp<'_>) + 'r;

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

    /// Itself as a value of that kind.
    fn read(&self, kind: Kind) -> Option<Self> {
        match kind {
            Kind::Float => self.as_float().map(Self::Float),
            Kind::Bool => self.as_bool().map(Self::Bool),
        }
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
    pub fn value_at(&self, kind: Kind, site: Site<'_>) -> Option<Scalar> {
        self.answer_at(kind, site).map(|(value, _)| value)
    }

    /// The value for one tensor with the number of the case that gives it.
    fn answer_at(&self, kind: Kind, site: Site<'_>) -> Option<(Scalar, usize)> {
        match self {
            Self::Scalar(value) => Some((value.clone(), 0)),
            Self::Gradient(values) => interpolate(values, kind, site.t).map(|value| (value, 0)),
            Self::Conditional(cases) => {
                let number = cases.iter().position(|case| case.matches(site.tensor))?;
                cases[number].value.value_at(kind, site).map(|value| (value, number))
            }
        }
    }
}

/// The value of a gradient at `t` in 0..=1: numbers are interpolated between, switches are picked. Which they are is the
/// parameter's business and not that of their spelling. A value that is neither is the answer, for the caller to refuse.
fn interpolate(values: &[Scalar], kind: Kind, t: f64) -> Option<Scalar> {
    let last = values.len().checked_sub(1)?;
    let read = |value: &Scalar| value.read(kind).ok_or_else(|| value.clone());
    let values: Vec<Scalar> = match values.iter().map(read).collect() {
        Ok(values) => values,
        Err(odd) => return Some(odd),
    };
    let position = t * last as f64;
    let below = (position.floor() as usize).min(last);
    match (&values[below], &values[(below + 1).min(last)]) {
        (Scalar::Float(low), Scalar::Float(high)) => {
            let fraction = position - position.floor();
            Some(Scalar::Float((1.0 - fraction) * low + fraction * high))
        }
        (picked, _) => Some(picked.clone()),
    }
}

impl MergeConfig {
    /// The levels at which a parameter of one input of a slice is looked for, from the inside out; of a shared parameter
    /// where there is no `source`.
    fn levels<'a>(
        &'a self,
        slice: &'a Slice,
        source: Option<&'a SourceModel>,
    ) -> impl Iterator<Item = (Level, &'a Parameters)> {
        let levels = [
            (Level::Source, source.map(|source| &source.parameters)),
            (Level::Slice, Some(&slice.parameters)),
            (Level::Module, Some(&self.module_parameters)),
            (Level::Top, Some(&self.parameters)),
        ];
        levels.into_iter().filter_map(|(level, parameters)| Some((level, parameters?)))
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
        recorder: Option<&Recorder<'_>>,
    ) -> Result<Option<f64>, ParameterError> {
        let source = if row.scope == Scope::Shared { None } else { source };
        let mut found = None;
        let mut met = Vec::new();
        for (level, parameters) in self.levels(slice, source) {
            let Some(setting) = parameters.get(row.name) else { continue };
            let fared = match setting.answer_at(row.kind, site) {
                _ if found.is_some() => Fared::Overridden,
                Some((value, case)) => {
                    found = Some(value);
                    Fared::Answered { case }
                }
                None => Fared::Silent,
            };
            if recorder.is_some() {
                met.push((level, setting, fared));
            } else if found.is_some() {
                break;
            }
        }
        let value = match found {
            Some(found) => Some(row.read(found, site)?),
            None if row.default.is_none() && !row.optional => {
                return Err(ParameterError::Missing {
                    name: row.name,
                    tensor: site.tensor.to_owned(),
                    model: source.map(|source| source.model.to_string()),
                });
            }
            None => row.default,
        };
        if let Some(recorder) = recorder {
            recorder(&LookUp { row, source, site, met, value });
        }
        Ok(value)
    }
}

impl ParameterSpec {
    /// A value of it as a config has it.
    pub fn shown(&self, value: f64) -> String {
        match self.kind {
            Kind::Bool => (value != 0.0).to_string(),
            Kind::Float => value.to_string(),
        }
    }

    fn read(&self, found: Scalar, site: Site<'_>) -> Result<f64, ParameterError> {
        let (value, expected) = match self.kind {
            Kind::Float => (found.as_float(), "a number"),
            Kind::Bool => (found.as_bool().map(|on| f64::from(u8::from(on))), "true or false"),
        };
        let tensor = || site.tensor.to_owned();
        value.ok_or_else(|| ParameterError::Type { name: self.name, tensor: tensor(), expected, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(values: &[f64]) -> Setting {
        Setting::Gradient(values.iter().map(|value| Scalar::Float(*value)).collect())
    }

    fn at(setting: &Setting, tensor: &str, t: f64) -> Option<f64> {
        setting.value_at(Kind::Float, Site { tensor, t }).and_then(|value| value.as_float())
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
        let spellings = [
            [Scalar::Bool(true), Scalar::Bool(false)],
            [Scalar::Int(1), Scalar::Int(0)],
            [Scalar::Float(1.0), Scalar::Text("no".to_owned())],
        ];
        for values in spellings {
            let setting = Setting::Gradient(values.to_vec());
            let at = |t| setting.value_at(Kind::Bool, Site { tensor: "x", t });
            assert_eq!((at(0.99), at(1.0)), (Some(Scalar::Bool(true)), Some(Scalar::Bool(false))), "{setting}");
        }
    }

    #[test]
    fn numbers_in_a_gradient_are_numbers_however_they_are_spelled() {
        let setting = Setting::Gradient(vec![Scalar::Text("2e-1".to_owned()), Scalar::Bool(true)]);
        assert_eq!(at(&setting, "x", 0.5), Some(0.6));
        let odd = Setting::Gradient(vec![Scalar::Int(1), Scalar::Text("much".to_owned())]);
        assert_eq!(odd.value_at(Kind::Float, Site { tensor: "x", t: 0.0 }), Some(Scalar::Text("much".to_owned())));
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
