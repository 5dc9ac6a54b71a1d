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
    /// Values that make sense.
    pub range: Range,
    /// What it is, in which unit: a noun phrase.
    pub about: &'static str,
}

impl ParameterSpec {
    /// Whether it only bounds an iteration, which may come to rest before: the tensors decide whether it decides.
    pub fn is_bound(&self) -> bool {
        self.name == "max_iter"
    }
}

/// Values of a parameter that make sense: between two limits, which belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least.
    pub least: Option<Limit>,
    /// The greatest.
    pub most: Option<Limit>,
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The last value that is fine.
    pub at: f64,
    /// Whether what lies beyond is refused: mergekit fails on it, or it has no meaning. Otherwise it is computed as mergekit
    /// does, with a warning.
    pub refused: bool,
    /// What happens beyond.
    pub beyond: &'static str,
}

impl Range {
    /// The limit that a value is beyond of.
    pub fn broken_by(&self, value: f64) -> Option<&Limit> {
        let below = self.least.as_ref().filter(|least| value < least.at);
        below.or_else(|| self.most.as_ref().filter(|most| value > most.at))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.least, &self.most) {
            (None, None) => f.write_str("any number"),
            (Some(least), None) => write!(f, "from {}", least.at),
            (None, Some(most)) => write!(f, "up to {}", most.at),
            (Some(least), Some(most)) => write!(f, "{} to {}", least.at, most.at),
        }
    }
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

const ANY: Range = Range { least: None, most: None };

const fn refuse(at: f64, beyond: &'static str) -> Option<Limit> {
    Some(Limit { at, refused: true, beyond })
}

const fn warn(at: f64, beyond: &'static str) -> Option<Limit> {
    Some(Limit { at, refused: false, beyond })
}

const fn shared(name: &'static str, default: Option<f64>, range: Range, about: &'static str) -> ParameterSpec {
    ParameterSpec { name, scope: Scope::Shared, kind: Kind::Float, default, optional: false, range, about }
}

const fn switch(name: &'static str, on: bool, about: &'static str) -> ParameterSpec {
    let default = Some(if on { 1.0 } else { 0.0 });
    ParameterSpec { name, scope: Scope::Shared, kind: Kind::Bool, default, optional: false, range: ANY, about }
}

const fn non_base(name: &'static str, default: Option<f64>, range: Range, about: &'static str) -> ParameterSpec {
    ParameterSpec { name, scope: Scope::NonBaseInputs, kind: Kind::Float, default, optional: false, range, about }
}

const fn every(name: &'static str, optional: bool, about: &'static str) -> ParameterSpec {
    let scope = Scope::EveryInput;
    ParameterSpec { name, scope, kind: Kind::Float, default: None, optional, range: ANY, about }
}

const NORMALIZE: &str = "whether the sum is divided by the sum of the weights";
const NORMALIZE_ON: ParameterSpec = switch("normalize", true, NORMALIZE);
const NORMALIZE_OFF: ParameterSpec = switch("normalize", false, NORMALIZE);
const RESCALE: &str = "whether what is kept of a task vector is scaled up to the L1 norm of the whole";
const RESCALE_ON: ParameterSpec = switch("rescale", true, RESCALE);
const RESCALE_OFF: ParameterSpec = switch("rescale", false, RESCALE);
const LAMBDA: ParameterSpec = shared("lambda", Some(1.0), ANY, "factor of the merged task vector");
const INT8_MASK: ParameterSpec = switch("int8_mask", false, "format of mergekit's sign mask; changes no number");
const WEIGHT: ParameterSpec = non_base("weight", None, ANY, "factor of the model");
/// mergekit: a Bernoulli probability for dare_* (below 0 an error); elsewhere 0 and less drop all; 1 and more keep all.
const DENSITY: ParameterSpec = non_base(
    "density",
    Some(1.0),
    Range {
        least: refuse(0.0, "a share cannot be negative"),
        most: warn(1.0, "more than everything cannot be kept: it counts as 1"),
    },
    "share of the changes that is kept",
);
/// mergekit: the floor(gamma N) largest changes go, as far as the density leaves room for that.
const GAMMA: ParameterSpec = non_base(
    "gamma",
    Some(0.01),
    Range {
        least: refuse(0.0, "a share cannot be negative"),
        most: warn(1.0, "a share of more than everything: the density alone decides"),
    },
    "share of the changes that is dropped for being the largest",
);
/// mergekit: keep probability of the ranks, (d - epsilon) to (d + epsilon); what of that lies outside 0..1 is refused
/// where the density is known (`config::check`).
const EPSILON: ParameterSpec = non_base(
    "epsilon",
    Some(0.15),
    Range { least: warn(0.0, "large changes are then dropped more often than small ones"), most: None },
    "half the spread of the probability to keep a change, by its rank",
);
const RAM_EPSILON: ParameterSpec = shared(
    "epsilon",
    Some(1e-5),
    Range { least: warn(0.0, "every element then counts as changed"), most: None },
    "size above which an element counts as changed",
);

/// Every method, in the order in which help texts list them.
pub const METHODS: &[MethodSpec] = &[
    MethodSpec {
        method: Method::Linear,
        name: "linear",
        inputs: Inputs::Any,
        parameters: &[every("weight", false, "factor of the model"), NORMALIZE_ON],
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
        // t is not clamped (mergekit extrapolates).
        parameters: &[shared(
            "t",
            None,
            Range {
                least: warn(0.0, "the result is extrapolated beyond the base"),
                most: warn(1.0, "the result is extrapolated beyond the other model"),
            },
            "position from the base (0) to the other model (1)",
        )],
        random: false,
    },
    MethodSpec {
        method: Method::Nuslerp,
        name: "nuslerp",
        inputs: Inputs::TwoAndOptionalBase,
        parameters: &[
            WEIGHT,
            switch(
                "nuslerp_row_wise",
                false,
                "whether vectors are columns rather than rows of a matrix; read without flatten",
            ),
            switch("nuslerp_flatten", true, "whether a tensor is one vector"),
        ],
        random: false,
    },
    MethodSpec {
        method: Method::Passthrough,
        name: "passthrough",
        inputs: Inputs::One,
        parameters: &[every("scale", true, "factor of the tensor")],
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
            switch("normalize_weights", true, "whether weights are divided by their sum"),
            shared(
                "eps",
                Some(1e-8),
                Range { least: refuse(0.0, "it is added to norms, which it would make smaller"), most: None },
                "guard that is added to norms",
            ),
        ],
        random: false,
    },
    MethodSpec {
        method: Method::Karcher,
        name: "karcher",
        inputs: Inputs::Any,
        parameters: &[
            shared(
                "max_iter",
                Some(10.0),
                Range {
                    least: warn(1.0, "the mean is then never refined"),
                    most: refuse(1000.0, "what has not come to rest by then does not, and every step reads all inputs"),
                },
                "most steps of the iteration",
            ),
            shared(
                "tol",
                Some(1e-5),
                Range { least: warn(0.0, "the iteration then never stops early"), most: None },
                "length of a step, and norm of an input, that counts as nothing",
            ),
        ],
        random: false,
    },
    MethodSpec {
        method: Method::ModelStock,
        name: "model_stock",
        inputs: Inputs::BaseAndTwoOrMore,
        parameters: &[switch("filter_wise", false, "whether every row is interpolated by itself")],
        random: false,
    },
    MethodSpec {
        method: Method::Nearswap,
        name: "nearswap",
        inputs: Inputs::BaseAndOne,
        parameters: &[shared(
            "t",
            None,
            Range { least: warn(0.0, "the result is the base, as at 0"), most: None },
            "difference up to which the other model is taken over whole",
        )],
        random: false,
    },
    MethodSpec {
        method: Method::Sce,
        name: "sce",
        inputs: Inputs::BaseAndAny,
        parameters: &[
            INT8_MASK,
            shared(
                "select_topk",
                Some(1.0),
                Range {
                    least: warn(0.0, "nothing is selected: the result is the base"),
                    most: warn(1.0, "more than everything cannot be selected: it counts as 1"),
                },
                "share of the elements that is kept for varying most",
            ),
        ],
        random: false,
    },
    MethodSpec {
        method: Method::Ram,
        name: "ram",
        inputs: Inputs::BaseAndAny,
        parameters: &[RAM_EPSILON],
        random: false,
    },
    MethodSpec {
        method: Method::RamplusTl,
        name: "ramplus_tl",
        inputs: Inputs::BaseAndAny,
        parameters: &[
            shared(
                "r",
                Some(0.1),
                Range { least: warn(0.0, "what one model alone changed is then scaled down"), most: None },
                "strength of the scaling of what one model alone changed",
            ),
            shared(
                "alpha",
                Some(0.2),
                Range { least: warn(0.0, "the scaling then has the other sign"), most: None },
                "greatest overlap that counts in that scaling",
            ),
            RAM_EPSILON,
        ],
        random: false,
    },
];

const fn task_vector(method: Method, name: &'static str, parameters: &'static [ParameterSpec]) -> MethodSpec {
    let random = matches!(method, Method::DareLinear | Method::DareTies | Method::Della | Method::DellaLinear);
    MethodSpec { method, name, inputs: Inputs::BaseAndAny, parameters, random }
}

impl Method {
    /// Whether mergekit's result is a 32-bit tensor whatever the working dtype: its mask or its factors are such.
    pub fn has_wide_result(self) -> bool {
        matches!(self, Self::ArceeFusion | Self::RamplusTl)
    }

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
