//! Keys of mergekit's dialect, table by table, as the reader asks for them and editors offer them.

use super::method::{Inputs, Kind, METHODS, Scope};
use super::{Dtype, Numerics};
use crate::document::shape::{Key, Shape, TableShape, key, must};

/// A model: its reference as text, or in parts.
pub const MODEL: Shape = Shape::Either(&[Shape::Text, Shape::Table(&MODEL_IN_PARTS)]);

/// Any number of models that are merged.
pub const SOURCES: Shape = Shape::List(&Shape::Table(&SOURCE));

/// `parameters`, wherever it stands.
pub const PARAMETERS: Shape = Shape::Shared("parameters", &Shape::Known(parameters, &SETTING));

/// The value of one parameter.
pub const SETTING: Shape = Shape::Shared(
    "setting",
    &Shape::Either(&[
        Shape::Scalar,
        Shape::List(&Shape::Either(&[Shape::Scalar, Shape::Table(&CASE)])),
        Shape::Table(&CASE),
    ]),
);

/// A number format.
pub const DTYPE: Shape = Shape::Either(&[
    Shape::OneOf(|| Dtype::NAMES.to_vec()),
    Shape::Form(r"^torch\.(bfloat16|float16|float32|float64)$", "the same behind `torch.`"),
]);

/// Parameters that are easily written one level too far out.
pub const PARAMETER_KEYS: &[(&str, &str)] = {
    const HINT: &str = "parameters stand under `parameters`";
    &[
        ("t", HINT),
        ("weight", HINT),
        ("density", HINT),
        ("normalize", HINT),
        ("lambda", HINT),
        ("epsilon", HINT),
        ("gamma", HINT),
    ]
};

const SLICE_SHAPE: Shape = Shape::Table(&SLICE);
const MODULE_SHAPE: Shape = Shape::Table(&MODULE);

/// The names of the merge methods.
pub fn methods() -> Vec<&'static str> {
    METHODS.iter().map(|row| row.name).collect()
}

/// The words for how intermediate results are rounded.
pub fn numerics() -> Vec<&'static str> {
    Numerics::NAMES.iter().map(|(name, _)| *name).collect()
}

// Keys that the merge of a spec shares with a config.
pub(crate) const TOKENIZER_SOURCE: Key = key(
    "tokenizer_source",
    MODEL,
    "the base's tokenizer is copied",
    "the vocabulary of the output: `base`, `union` or a model",
);
pub(crate) const TOKENIZER_KEY: Key =
    key("tokenizer", Shape::Table(&TOKENIZER), "", "the vocabulary of the output, with settings for single tokens");
pub(crate) const CHAT_TEMPLATE: Key = key(
    "chat_template",
    Shape::Text,
    "the base's",
    "the chat template of the output: `auto`, a name (`chatml`, `llama3`, ...) or Jinja",
);
pub(crate) const DTYPE_KEY: Key =
    key("dtype", DTYPE, "that of each tensor's inputs", "the number format that inputs are cast to and the result has");
pub(crate) const OUT_DTYPE: Key = key("out_dtype", DTYPE, "`dtype`", "the number format that is written");
pub(crate) const SLICES: Key =
    key("slices", Shape::Some(&SLICE_SHAPE), "", "stretches of layers, stacked in this order, each with its sources");
pub(crate) const MODULES: Key =
    key("modules", Shape::Named(&MODULE_SHAPE), "", "mergekit's outermost form: the one module `default`");
pub(crate) const BASE_MODEL: Key =
    key("base_model", MODEL, "none", "the model that task vectors start at, or that interpolation starts from");

/// A whole config.
pub static CONFIG: TableShape = TableShape {
    name: "mergekit config",
    expected: "a mergekit config (a mapping)",
    keys: &[
        must("merge_method", Shape::OneOf(methods), "the name of a merge method"),
        BASE_MODEL,
        key("models", SOURCES, "", "the models, each with all its layers"),
        SLICES,
        MODULES,
        key("parameters", PARAMETERS, "none", "parameters for all models and layers"),
        DTYPE_KEY,
        OUT_DTYPE,
        TOKENIZER_SOURCE,
        TOKENIZER_KEY,
        CHAT_TEMPLATE,
    ],
    private_keys: true,
    elsewhere: PARAMETER_KEYS,
};

/// `modules.default`.
pub static MODULE: TableShape = TableShape {
    name: "module",
    expected: "a module (a mapping)",
    keys: &[
        key("models", SOURCES, "", "the models, each with all its layers"),
        key("slices", Shape::List(&Shape::Table(&SLICE)), "", "stretches of layers"),
        key("parameters", PARAMETERS, "none", "parameters of the module"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// An entry of `slices`.
pub static SLICE: TableShape = TableShape {
    name: "slice",
    expected: "a slice (a mapping with `sources`)",
    keys: &[
        must("sources", SOURCES, "a list of sources"),
        key("base_model", MODEL, "that of the config", "the base model of this slice"),
        key("parameters", PARAMETERS, "none", "parameters of the slice"),
        key("residual_weight", Shape::Anything, "", "accepted by mergekit, and read by no method"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// An entry of `models` or of `sources`.
pub static SOURCE: TableShape = TableShape {
    name: "source",
    expected: "a source (a mapping with `model`)",
    keys: &[
        must("model", MODEL, "a model reference"),
        key(
            "layer_range",
            LAYER_RANGE,
            "",
            "a list of two layer numbers, the first layer and the one behind the last; needed under `sources`, without effect under `models`",
        ),
        key("parameters", PARAMETERS, "none", "parameters of this model: those that are read per model"),
    ],
    private_keys: false,
    elsewhere: PARAMETER_KEYS,
};

const LAYER_RANGE: Shape = Shape::Exactly(2, &Shape::Whole(0));

/// One case of a conditional parameter.
pub static CASE: TableShape = TableShape {
    name: "case",
    expected: "`{filter, value}`",
    keys: &[
        key("filter", Shape::Text, "every tensor", "a part of the names of the tensors that it is for"),
        must("value", Shape::Either(&[Shape::Scalar, Shape::List(&Shape::Scalar)]), "a value or a gradient"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// A model reference as mergekit's mapping of its parts.
pub static MODEL_IN_PARTS: TableShape = TableShape {
    name: "model in parts",
    expected: "a model reference",
    keys: &[
        must("model", PATH_SHAPE, "a path or hub id"),
        key("lora", PATH_SHAPE, "none", "a PEFT adapter to apply"),
        key("override_architecture", Shape::Anything, "", "not supported"),
    ],
    private_keys: false,
    elsewhere: &[],
};

const PATH_SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::Table(&PATH)]);

/// `PATH[@REVISION]` as a mapping.
pub static PATH: TableShape = TableShape {
    name: "path",
    expected: "a path",
    keys: &[
        must("path", Shape::Text, "a path or hub id"),
        key("revision", Shape::Text, "the newest", "a branch, tag or commit on the hub"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// The `tokenizer` mapping.
pub static TOKENIZER: TableShape = TableShape {
    name: "tokenizer",
    expected: "tokenizer settings (a mapping)",
    keys: &[
        key("source", MODEL, "`union`", "the vocabulary: `base`, `union` or a model"),
        key("pad_to_multiple_of", Shape::Whole(1), "none", "rows of the embedding are rounded up to a multiple of it"),
        key("tokens", Shape::Named(&Shape::Table(&TOKEN)), "none", "settings for single tokens, by token"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// An entry of `tokens`.
pub static TOKEN: TableShape = TableShape {
    name: "token",
    expected: "token settings (a mapping)",
    keys: &[
        key(
            "source",
            Shape::Either(&[MODEL, Shape::Table(&TOKEN_ROW)]),
            "none, which will do where every model has the token",
            "a model or a mapping with `kind`",
        ),
        key("force", Shape::Switch, "false", "whether models that have the token take it from there too"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// Where the row of a token is taken from.
pub static TOKEN_ROW: TableShape = TableShape {
    name: "token row",
    expected: "a model or a mapping with `kind`",
    keys: &[
        must("kind", Shape::OneOf(|| vec!["zero", "model_token"]), "`zero` or `model_token`"),
        key("model", MODEL, "", "the model of a `model_token`"),
        key("token", Shape::Text, "", "its token"),
        key("token_id", Shape::Whole(0), "", "or the number of its row"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// Every parameter of any method, with what is told about it.
fn parameters() -> Vec<(&'static str, String)> {
    let mut names: Vec<&'static str> = Vec::new();
    for row in METHODS.iter().flat_map(|method| method.parameters) {
        if !names.contains(&row.name) {
            names.push(row.name);
        }
    }
    names.into_iter().map(|name| (name, told(name))).collect()
}

/// What a parameter is to each method that reads it, methods with the same meaning and default together.
fn told(name: &str) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for method in METHODS {
        let Some(row) = method.method.parameter(name) else { continue };
        let default = match (row.default, row.kind) {
            (None, _) if row.optional => "optional".to_owned(),
            (None, _) => "required".to_owned(),
            (Some(value), Kind::Bool) => format!("default {}", value != 0.0),
            (Some(value), Kind::Float) => format!("default {value}"),
        };
        let range = if row.kind == Kind::Bool { "true or false".to_owned() } else { row.range.to_string() };
        let place = match row.scope {
            Scope::Shared => "for all models",
            Scope::EveryInput | Scope::NonBaseInputs => "per model",
        };
        let meaning = format!("{} ({range}, {default}, {place})", row.about);
        match groups.iter_mut().find(|(known, _)| *known == meaning) {
            Some((_, methods)) => methods.push(method.name),
            None => groups.push((meaning, vec![method.name])),
        }
    }
    groups.iter().map(|(meaning, methods)| format!("{meaning}: {}", methods.join(", "))).collect::<Vec<_>>().join("; ")
}

/// The table of methods and their parameters as Markdown.
pub fn reference() -> String {
    let mut text = "| method | models | parameters |\n|---|---|---|\n".to_owned();
    for method in METHODS {
        let inputs = match method.inputs {
            Inputs::Any => "any number",
            Inputs::BaseAndAny => "the base and any number of others",
            Inputs::BaseAndOne => "two, one of them the base",
            Inputs::TwoAndOptionalBase => "two besides the base, which is optional",
            Inputs::SomeAndOptionalBase => "at least one besides the base, which is optional",
            Inputs::BaseAndTwoOrMore => "the base and at least two others",
            Inputs::One => "one",
        };
        let names: Vec<String> = method.parameters.iter().map(|row| format!("`{}`", row.name)).collect();
        let random = if method.random { " (random: `seed`)" } else { "" };
        text += &format!("| `{}`{random} | {inputs} | {} |\n", method.name, names.join(", "));
    }
    text += "\n| parameter | meaning (range, default, place): methods |\n|---|---|\n";
    for (name, told) in parameters() {
        text += &format!("| `{name}` | {told} |\n");
    }
    text
}
