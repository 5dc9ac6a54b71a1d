//! The one table of merge methods: which parameters each reads, at which scope, with which default, and what inputs it
//! takes. The engine, the validation of specs and the help texts are all derived from these rows.

use std::fmt;

/// A merge method (mergekit: `merge_method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Weighted average of all inputs (model soups, arXiv:2203.05482).
    Linear,
    /// Base plus weighted task vectors (arXiv:2212.04089).
    TaskArithmetic,
    /// Trim by magnitude, elect sign, disjoint sum (arXiv:2306.01708).
    Ties,
    /// Random drop and rescale (arXiv:2311.03099).
    DareLinear,
    /// Random drop and rescale, then sign consensus (arXiv:2311.03099).
    DareTies,
    /// Drop both the smallest and the largest changes (arXiv:2312.06795).
    Breadcrumbs,
    /// Breadcrumbs with sign consensus.
    BreadcrumbsTies,
    /// Magnitude-ranked random drop with sign consensus (arXiv:2406.11617).
    Della,
    /// Magnitude-ranked random drop without consensus.
    DellaLinear,
    /// Spherical interpolation of whole tensors.
    Slerp,
    /// Spherical interpolation of task vectors, or of tensors where there is no base.
    Nuslerp,
    /// One input, copied or scaled.
    Passthrough,
    /// Importance-masked transfer from a second model (Arcee Fusion).
    ArceeFusion,
    /// Weighted spherical mean of task vectors or tensors in one tangent space.
    Multislerp,
    /// Riemannian (Karcher) mean on the sphere.
    Karcher,
    /// Interpolation towards the average by the angle between task vectors (arXiv:2403.19522).
    ModelStock,
    /// Pulls the base towards the other where the two are near.
    Nearswap,
    /// Select by variance, calculate weights, erase minority signs (arXiv:2408.07990).
    Sce,
    /// Mean of task vectors over the models that changed an element.
    Ram,
    /// Ram, with elements that one model alone changed scaled up.
    RamplusTl,
}

/// How a parameter's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Float,
    /// A switch.
    Bool,
}

/// Where a parameter is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Slice, module, top level: never on a source.
    Shared,
    /// On the source of the model itself first, then as [`Scope::Shared`]; asked for every input.
    EveryInput,
    /// As [`Scope::EveryInput`], but never asked for the base model.
    NonBaseInputs,
}

/// One parameter of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterSpec {
    /// Its key.
    pub name: &'static str,
    /// Where it is looked up.
    pub scope: Scope,
    /// How its values are read.
    pub kind: Kind,
    /// Value where it is absent (booleans as 0 and 1); `None`: required, unless [`ParameterSpec::optional`].
    pub default: Option<f64>,
    /// May be absent although it has no default (passthrough's `scale`).
    pub optional: bool,
}

/// Which inputs a method takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// Any number; `base_model` plays no part.
    Any,
    /// The base and any number of others.
    BaseAndAny,
    /// Exactly two, one of them the base.
    BaseAndOne,
    /// Exactly two besides the base, which is optional.
    TwoAndOptionalBase,
    /// At least one besides the base, which is optional.
    SomeAndOptionalBase,
    /// The base and at least two others.
    BaseAndTwoOrMore,
    /// Exactly one.
    One,
}

impl Inputs {
    /// Whether there is no merge without a base.
    pub fn need_base(self) -> bool {
        matches!(self, Self::BaseAndAny | Self::BaseAndOne | Self::BaseAndTwoOrMore)
    }

    /// Whether a base that is set must be among the sources.
    pub fn know_base(self) -> bool {
        self.need_base() || matches!(self, Self::TwoAndOptionalBase | Self::SomeAndOptionalBase)
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MethodSpec {
    /// The method.
    pub method: Method,
    /// Its mergekit name.
    pub name: &'static str,
    /// What it takes.
    pub inputs: Inputs,
    /// Every parameter it reads.
    pub parameters: &'static [ParameterSpec],
    /// Whether its result depends on the seed.
    pub random: bool,
}

impl MethodSpec {
    /// Whether it is one of the family that adds task vectors to the base, whose methods differ in a few switches.
    pub fn is_of_task_vectors(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.name == DENSITY.name)
    }
}

const fn shared(name: &'static str, kind: Kind, default: Option<f64>) -> ParameterSpec {
    ParameterSpec { name, scope: Scope::Shared, kind, default, optional: false }
}

const fn non_base(name: &'static str, default: Option<f64>) -> ParameterSpec {
    ParameterSpec { name, scope: Scope::NonBaseInputs, kind: Kind::Float, default, optional: false }
}

const NORMALIZE_ON: ParameterSpec = shared("normalize", Kind::Bool, Some(1.0));
const NORMALIZE_OFF: ParameterSpec = shared("normalize", Kind::Bool, Some(0.0));
const RESCALE_ON: ParameterSpec = shared("rescale", Kind::Bool, Some(1.0));
const RESCALE_OFF: ParameterSpec = shared("rescale", Kind::Bool, Some(0.0));
const LAMBDA: ParameterSpec = shared("lambda", Kind::Float, Some(1.0));
const INT8_MASK: ParameterSpec = shared("int8_mask", Kind::Bool, Some(0.0));
const WEIGHT: ParameterSpec = non_base("weight", None);
const DENSITY: ParameterSpec = non_base("density", Some(1.0));
const GAMMA: ParameterSpec = non_base("gamma", Some(0.01));
const EPSILON: ParameterSpec = non_base("epsilon", Some(0.15));

/// Every method, in the order in which help texts list them.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        method: Method::Linear,
        name: "linear",
        inputs: Inputs::Any,
        parameters: &[
            ParameterSpec {
                name: "weight",
                scope: Scope::EveryInput,
                kind: Kind::Float,
                default: None,
                optional: false,
            },
            NORMALIZE_ON,
        ],
        random: false,
    },
    task_vector(
        Method::TaskArithmetic,
        "task_arithmetic",
        &[WEIGHT, DENSITY, NORMALIZE_OFF, RESCALE_OFF, LAMBDA, INT8_MASK],
    ),
    task_vector(Method::Ties, "ties", &[WEIGHT, DENSITY, NORMALIZE_ON, RESCALE_OFF, LAMBDA, INT8_MASK]),
    task_vector(Method::DareLinear, "dare_linear", &[WEIGHT, DENSITY, NORMALIZE_OFF, RESCALE_ON, LAMBDA, INT8_MASK]),
    task_vector(Method::DareTies, "dare_ties", &[WEIGHT, DENSITY, NORMALIZE_OFF, RESCALE_ON, LAMBDA, INT8_MASK]),
    task_vector(
        Method::Breadcrumbs,
        "breadcrumbs",
        &[WEIGHT, DENSITY, GAMMA, NORMALIZE_OFF, RESCALE_OFF, LAMBDA, INT8_MASK],
    ),
    task_vector(
        Method::BreadcrumbsTies,
        "breadcrumbs_ties",
        &[WEIGHT, DENSITY, GAMMA, NORMALIZE_OFF, RESCALE_OFF, LAMBDA, INT8_MASK],
    ),
    task_vector(Method::Della, "della", &[WEIGHT, DENSITY, EPSILON, NORMALIZE_ON, RESCALE_ON, LAMBDA, INT8_MASK]),
    task_vector(
        Method::DellaLinear,
        "della_linear",
        &[WEIGHT, DENSITY, EPSILON, NORMALIZE_OFF, RESCALE_ON, LAMBDA, INT8_MASK],
    ),
    MethodSpec {
        method: Method::Slerp,
        name: "slerp",
        inputs: Inputs::BaseAndOne,
        parameters: &[shared("t", Kind::Float, None)],
        random: false,
    },
    MethodSpec {
        method: Method::Nuslerp,
        name: "nuslerp",
        inputs: Inputs::TwoAndOptionalBase,
        parameters: &[
            WEIGHT,
            shared("nuslerp_row_wise", Kind::Bool, Some(0.0)),
            shared("nuslerp_flatten", Kind::Bool, Some(1.0)),
        ],
        random: false,
    },
    MethodSpec {
        method: Method::Passthrough,
        name: "passthrough",
        inputs: Inputs::One,
        parameters: &[ParameterSpec {
            name: "scale",
            scope: Scope::EveryInput,
            kind: Kind::Float,
            default: None,
            optional: true,
        }],
        random: false,
    },
    MethodSpec {
        method: Method::ArceeFusion,
        name: "arcee_fusion",
        inputs: Inputs::BaseAndOne,
        parameters: &[],
        random: false,
    },
    MethodSpec {
        method: Method::Multislerp,
        name: "multislerp",
        inputs: Inputs::SomeAndOptionalBase,
        parameters: &[
            WEIGHT,
            shared("normalize_weights", Kind::Bool, Some(1.0)),
            shared("eps", Kind::Float, Some(1e-8)),
        ],
        random: false,
    },
    MethodSpec {
        method: Method::Karcher,
        name: "karcher",
        inputs: Inputs::Any,
        parameters: &[shared("max_iter", Kind::Float, Some(10.0)), shared("tol", Kind::Float, Some(1e-5))],
        random: false,
    },
    MethodSpec {
        method: Method::ModelStock,
        name: "model_stock",
        inputs: Inputs::BaseAndTwoOrMore,
        parameters: &[shared("filter_wise", Kind::Bool, Some(0.0))],
        random: false,
    },
    MethodSpec {
        method: Method::Nearswap,
        name: "nearswap",
        inputs: Inputs::BaseAndOne,
        parameters: &[shared("t", Kind::Float, None)],
        random: false,
    },
    MethodSpec {
        method: Method::Sce,
        name: "sce",
        inputs: Inputs::BaseAndAny,
        parameters: &[INT8_MASK, shared("select_topk", Kind::Float, Some(1.0))],
        random: false,
    },
    MethodSpec {
        method: Method::Ram,
        name: "ram",
        inputs: Inputs::BaseAndAny,
        parameters: &[shared("epsilon", Kind::Float, Some(1e-5))],
        random: false,
    },
    MethodSpec {
        method: Method::RamplusTl,
        name: "ramplus_tl",
        inputs: Inputs::BaseAndAny,
        parameters: &[
            shared("r", Kind::Float, Some(0.1)),
            shared("alpha", Kind::Float, Some(0.2)),
            shared("epsilon", Kind::Float, Some(1e-5)),
        ],
        random: false,
    },
];

const fn task_vector(method: Method, name: &'static str, parameters: &'static [ParameterSpec]) -> MethodSpec {
    let random = matches!(method, Method::DareLinear | Method::DareTies | Method::Della | Method::DellaLinear);
    MethodSpec { method, name, inputs: Inputs::BaseAndAny, parameters, random }
}

impl Method {
    /// The method of that mergekit name.
    pub fn from_name(name: &str) -> Option<Self> {
        METHODS.iter().find(|row| row.name == name).map(|row| row.method)
    }

    /// The method's row of the table.
    pub fn spec(self) -> &'static MethodSpec {
        // Every variant has a row: `every_method_has_exactly_one_row` holds the table to it.
        &METHODS[METHODS.iter().position(|row| row.method == self).unwrap_or_default()]
    }

    /// mergekit's name.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The parameter of that name, if the method reads it.
    pub fn parameter(self, name: &str) -> Option<&'static ParameterSpec> {
        self.spec().parameters.iter().find(|parameter| parameter.name == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_exactly_one_row() {
        for row in METHODS {
            assert_eq!(row.method.spec().name, row.name);
            assert_eq!(Method::from_name(row.name), Some(row.method));
        }
        assert_eq!(METHODS.len(), Method::RamplusTl as usize + 1);
    }
}
