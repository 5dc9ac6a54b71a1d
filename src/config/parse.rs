//! A document in mergekit's dialect into a [`MergeConfig`]: one reading of the dialect, whoever wrote it.
//!
//! What mergekit refuses is refused here, with all mistakes at once. What mergekit ignores without a word (unknown keys
//! and parameter names) is an error where the text was written for this program and a warning where it was written for
//! mergekit; a [`Reading`] knows which is which, and what models are called.

use std::path::Path;

use super::check;
use super::keys;
use super::method::METHODS;
use super::value::parameters;
use super::{Dtype, MergeConfig, Method, Parameters, Scalar, Slice, SourceModel, Tokenizer, tokenizer};
use crate::document::read::{Field, Table, below, listed, nearest};
use crate::document::{Code, Format, Node, Problem, Problems, Span, Value, parse as document, pyyaml};
use crate::model::{ModelRef, ModelRefError};

/// Layers that are looked at one by one at most; a slip of the finger must not fill the memory.
const MOST_LAYERS: u64 = 10_000;

/// How a document's texts are understood.
pub trait Reading {
    /// The model that a text names.
    ///
    /// # Errors
    /// Why it names none.
    fn model(&self, text: &str, span: &Span) -> Result<ModelRef, ModelNameError>;

    /// Whether an unknown key or parameter at that place is an error rather than a warning.
    fn refuses_unknown(&self, span: &Span) -> bool;

    /// Whether the document is all there. Where values are still to be put in, what is missing is no mistake.
    fn is_complete(&self) -> bool {
        true
    }
}

/// A file written for mergekit: model texts are references, and what mergekit ignores is only warned of.
#[derive(Debug, Clone, Copy)]
pub struct Mergekit;

impl Reading for Mergekit {
    fn model(&self, text: &str, _: &Span) -> Result<ModelRef, ModelNameError> {
        Ok(text.parse()?)
    }

    fn refuses_unknown(&self, _: &Span) -> bool {
        false
    }
}

/// A text that names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelNameError {
    /// Not a reference.
    #[error(transparent)]
    Malformed(#[from] ModelRefError),
    /// Not one of the short names that are declared.
    #[error("unknown model `{name}`")]
    Unknown {
        /// The text.
        name: String,
        /// The closest short name.
        nearest: Option<String>,
        /// Every short name.
        known: Vec<String>,
    },
}

impl ModelNameError {
    /// What kind of mistake it is.
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed(_) => Code::BadReference,
            Self::Unknown { .. } => Code::UnknownModel,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed(_) => None,
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { known, .. } if known.is_empty() => Some("declare it under `models`".to_owned()),
            Self::Unknown { known, .. } => {
                Some(format!("declared models: {}; a path starts with `./`", listed(known.iter().map(String::as_str))))
            }
        }
    }
}

/// A config with what is odd about its text.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The config.
    pub config: MergeConfig,
    /// What mergekit would pass over in silence, or read otherwise.
    pub warnings: Problems,
}

/// Reads a mergekit file.
///
/// # Errors
/// Every mistake in it.
pub fn file(path: &Path) -> Result<Parsed, Problems> {
    parse(&document::file(path)?, &Mergekit)
}

/// Reads a document in mergekit's dialect.
///
/// # Errors
/// Every mistake in it.
pub fn parse(document: &Node, reading: &dyn Reading) -> Result<Parsed, Problems> {
    let problems = Problems::default();
    let mut parser = Parser { reading, problems, inputs_unclear: !reading.is_complete(), parameters_unclear: false };
    if let Some(problem) = sweep_spec(document) {
        return Err(Problems(vec![problem]));
    }
    let config = parser.document(document);
    other_readings(document, reading, &mut parser.problems);
    let mut problems = parser.problems;
    problems.sort();
    match problems.unless_errors(config)? {
        (Some(config), warnings) => Ok(Parsed { config, warnings }),
        // What is not made into a config has a mistake.
        (None, problems) => Err(problems),
    }
}

/// A sweep spec where a config is expected: one sentence instead of a mistake for each key.
fn sweep_spec(document: &Node) -> Option<Problem> {
    let entry =
        document.entries().iter().find(|entry| matches!(entry.key.as_str(), "evaluate" | "merge" | "baseline"))?;
    let is_config = ["merge_method", "slices", "modules"].iter().any(|key| document.get(key).is_some());
    let message = format!("this is a sweep spec (it has `{}`), expected a mergekit config", entry.key);
    let hint =
        "`mergesweep plan` shows its merges, `run` makes and evaluates them, `plan --write-configs DIR` writes them \
                as mergekit configs"
            .to_owned();
    (!is_config).then(|| Problem::error(Code::WrongFile, entry.key_span.clone(), "", message, Some(hint)))
}

pub(super) struct Parser<'r> {
    pub reading: &'r dyn Reading,
    pub problems: Problems,
    /// Whether some model or source could not be read, so that counting them would only repeat the mistake.
    inputs_unclear: bool,
    /// Whether some parameter was refused for its name: it may be the one that would be missed.
    pub parameters_unclear: bool,
}

/// The three spellings of the sources.
enum Form<'a> {
    Models(Field<'a>),
    Slices(Field<'a>),
}

impl Parser<'_> {
    fn document(&mut self, document: &Node) -> Option<MergeConfig> {
        let mut top = Field::new(document, "").table(&keys::CONFIG, &mut self.problems)?;
        let method = if self.reading.is_complete() {
            top.required("merge_method", &mut self.problems)
        } else {
            top.optional("merge_method")
        };
        let method = method.and_then(|field| self.method(&field));
        let base_field = top.optional("base_model");
        let base_model = base_field.as_ref().and_then(|field| self.model(field));
        let form = self.form(&mut top);
        let module = match &form {
            Some((_, Some(module))) => self.parameters(module.clone(), method),
            _ => Parameters::new(),
        };
        let top_parameters = top.optional("parameters");
        let parameters = top_parameters.map(|field| self.parameters(field, method)).unwrap_or_default();
        let dtype = top.optional("dtype").filter(|field| !self.is_blank(field)).and_then(|field| self.dtype(&field));
        let out_dtype = top.optional("out_dtype").filter(|field| !self.is_blank(field));
        let out_dtype = out_dtype.and_then(|field| self.dtype(&field));
        let tokenizer = self.tokenizer(&mut top);
        let chat_template = top.optional("chat_template").filter(|field| !self.is_blank(field));
        let chat_template = chat_template.and_then(|field| field.text(&mut self.problems)).map(str::to_owned);
        self.finish(top);
        let (form, _) = form?;
        let method = method?;
        let slices = match &form {
            Form::Models(field) => vec![self.models_form(field, base_model.as_ref(), method)],
            Form::Slices(field) => self.slices_form(field, method),
        };
        let config = MergeConfig {
            method,
            base_model,
            slices,
            module_parameters: module,
            parameters,
            dtype,
            out_dtype,
            tokenizer,
            chat_template,
        };
        if !self.inputs_unclear {
            let (Form::Models(field) | Form::Slices(field)) = &form;
            check::inputs(&config, field, base_field.as_ref(), self.parameters_unclear, &mut self.problems);
        }
        Some(config)
    }

    /// Whether a value was written for mergekit, whose reader turns texts into numbers and switches where such are wanted.
    pub(super) fn is_lax(&self, field: &Field<'_>) -> bool {
        !self.reading.refuses_unknown(&field.node.span)
    }

    /// Whether it is an empty text, which mergekit takes for nothing at all.
    pub(super) fn is_blank(&self, field: &Field<'_>) -> bool {
        field.node.as_text() == Some("") && self.is_lax(field)
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, field: &Field<'_>) -> Option<bool> {
        match &field.node.value {
            Value::Scalar(scalar) if self.is_lax(field) && scalar.as_bool().is_some() => scalar.as_bool(),
            _ => field.switch(&mut self.problems),
        }
    }

    /// A whole number of at least `least`.
    pub(super) fn whole(&mut self, field: &Field<'_>, least: u64) -> Option<u64> {
        let spelled = field.node.as_text().filter(|_| self.is_lax(field)).and_then(|text| text.trim().parse().ok());
        spelled.filter(|number| *number >= least).or_else(|| field.whole(least, &mut self.problems))
    }

    /// Reports something that mergekit passes over in silence.
    pub(super) fn stray(&mut self, problem: Problem) {
        let refuse = self.reading.refuses_unknown(&problem.span);
        self.problems.0.push(if refuse { problem } else { problem.as_warning() });
    }

    /// Reports the keys of a table that it does not have.
    pub(super) fn finish(&mut self, table: Table<'_>) {
        table.unknown().into_iter().for_each(|problem| self.stray(problem));
    }

    fn method(&mut self, field: &Field<'_>) -> Option<Method> {
        let name = field.text(&mut self.problems)?;
        let method = Method::from_name(name);
        if method.is_none() {
            let known = METHODS.iter().map(|row| row.name);
            let hint = match nearest(name, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("methods: {}", listed(known)),
            };
            field.problem(
                Code::UnknownMethod,
                format!("unknown merge method `{name}`"),
                Some(hint),
                &mut self.problems,
            );
        }
        method
    }

    /// The sources in whichever of the three forms, and the field of the module's parameters.
    fn form<'a>(&mut self, top: &mut Table<'a>) -> Option<(Form<'a>, Option<Field<'a>>)> {
        let models = top.optional("models");
        let slices = top.optional("slices");
        let modules = top.optional("modules");
        match (models, slices, modules) {
            (Some(models), None, None) => Some((Form::Models(models), None)),
            (None, Some(slices), None) => Some((Form::Slices(slices), None)),
            (None, None, Some(modules)) => self.modules_form(&modules),
            (None, None, None) => {
                let message = "missing sources, expected one of `models`, `slices`, `modules`";
                top.problem(Code::MissingKey, message, None, &mut self.problems);
                None
            }
            (models, slices, modules) => {
                let found = [models, slices, modules];
                let names = found.iter().flatten().map(|field| field.path.as_str());
                let message = format!("expected one of `models`, `slices`, `modules`, found {}", listed(names));
                // The last of them is the one to delete, as often as not.
                if let Some(last) = found.iter().flatten().next_back() {
                    last.problem(Code::Conflict, message, Some("keep one of them".to_owned()), &mut self.problems);
                }
                None
            }
        }
    }

    fn modules_form<'a>(&mut self, field: &Field<'a>) -> Option<(Form<'a>, Option<Field<'a>>)> {
        let modules = field.entries("a mapping of modules", &mut self.problems)?;
        let [(entry, module)] = modules.as_slice() else {
            let names = listed(modules.iter().map(|(entry, _)| entry.key.as_str()));
            let found = if modules.is_empty() { "none".to_owned() } else { names };
            let message = format!("expected the one module `default`, found {found}");
            let hint = Some("models of several modules are not supported".to_owned());
            field.problem(Code::Unsupported, message, hint, &mut self.problems);
            return None;
        };
        if entry.key != "default" {
            let message = format!("unknown module `{}`, expected `default`", entry.key);
            self.problems.push(Code::Unsupported, entry.key_span.clone(), module.path.clone(), message, None);
        }
        let mut table = module.table(&keys::MODULE, &mut self.problems)?;
        let (models, slices) = (table.optional("models"), table.optional("slices"));
        let parameters = table.optional("parameters");
        let form = match (models, slices) {
            (Some(models), None) => Some(Form::Models(models)),
            (None, Some(slices)) => Some(Form::Slices(slices)),
            (None, None) => {
                table.problem(
                    Code::MissingKey,
                    "missing sources, expected one of `models`, `slices`",
                    None,
                    &mut self.problems,
                );
                None
            }
            (Some(_), Some(slices)) => {
                slices.problem(
                    Code::Conflict,
                    "expected one of `models`, `slices`, found both",
                    None,
                    &mut self.problems,
                );
                None
            }
        };
        self.finish(table);
        form.map(|form| (form, parameters))
    }

    /// All layers of every model. The base joins in as the last source where it is not listed.
    fn models_form(&mut self, field: &Field<'_>, base: Option<&ModelRef>, method: Method) -> Slice {
        let entries = self.list(field, "a list of models");
        let mut sources = self.sources(&entries, method, false);
        let joins = |base: &&ModelRef| sources.iter().all(|source| source.model != **base);
        // mergekit takes an empty list for none.
        if let Some(base) = base.filter(|_| !entries.is_empty()).filter(joins) {
            sources.push(SourceModel { model: base.clone(), layer_range: None, parameters: Parameters::new() });
        }
        Slice { sources, base_model: None, parameters: Parameters::new() }
    }

    fn slices_form(&mut self, field: &Field<'_>, method: Method) -> Vec<Slice> {
        let entries = self.list(field, "a list of slices");
        if entries.is_empty() && matches!(field.node.value, Value::List(_)) {
            field.problem(Code::Empty, "expected at least one slice, found none", None, &mut self.problems);
        }
        let slices: Vec<_> = entries.iter().map(|entry| self.slice(entry, method)).collect();
        self.inputs_unclear |= slices.iter().any(Option::is_none);
        slices.into_iter().flatten().collect()
    }

    fn list<'a>(&mut self, field: &Field<'a>, expected: &str) -> Vec<Field<'a>> {
        let entries = field.list(expected, &mut self.problems);
        self.inputs_unclear |= entries.is_none();
        entries.unwrap_or_default()
    }

    fn slice(&mut self, field: &Field<'_>, method: Method) -> Option<Slice> {
        let mut table = field.table(&keys::SLICE, &mut self.problems)?;
        let sources = table.required("sources", &mut self.problems);
        let base_model = table.optional("base_model").and_then(|field| self.model(&field));
        let parameters = table.optional("parameters");
        // mergekit accepts the key and reads it nowhere.
        if let Some(dead) = table.optional("residual_weight") {
            let is_number = matches!(&dead.node.value, Value::Scalar(scalar) if scalar.as_float().is_some());
            if is_number || !self.is_lax(&dead) {
                let message = "`residual_weight` has no effect: no merge method reads it";
                dead.warning(Code::NoEffect, message, None, &mut self.problems);
            } else {
                dead.expected("a number", &mut self.problems);
            }
        }
        self.finish(table);
        let parameters = parameters.map(|field| self.parameters(field, Some(method))).unwrap_or_default();
        let sources_field = sources?;
        let entries = sources_field.list("a list of sources", &mut self.problems)?;
        let sources = self.sources(&entries, method, true);
        let depth = |source: &SourceModel| source.layer_range.map(|(start, end)| end - start);
        if let Some(odd) = sources.iter().position(|source| depth(source) != sources.first().and_then(depth))
            && sources.len() == entries.len()
        {
            let layers = |source: &SourceModel| depth(source).unwrap_or_default();
            let message = format!(
                "sources of a slice must have the same number of layers: {} of `{}`, {} of `{}`",
                layers(&sources[0]),
                sources[0].model,
                layers(&sources[odd]),
                sources[odd].model
            );
            entries[odd].problem(Code::Layers, message, None, &mut self.problems);
        }
        Some(Slice { sources, base_model, parameters })
    }

    fn sources(&mut self, entries: &[Field<'_>], method: Method, ranges: bool) -> Vec<SourceModel> {
        let mut sources: Vec<SourceModel> = Vec::new();
        for entry in entries {
            let Some(source) = self.source(entry, method, ranges) else {
                self.inputs_unclear = true;
                continue;
            };
            if sources.iter().any(|earlier| earlier.model == source.model) {
                let message = format!("model `{}` is listed twice", source.model);
                entry.problem(
                    Code::ListedTwice,
                    message,
                    Some("each model may stand once in a slice".to_owned()),
                    &mut self.problems,
                );
            }
            sources.push(source);
        }
        sources
    }

    fn source(&mut self, field: &Field<'_>, method: Method, ranges: bool) -> Option<SourceModel> {
        let mut table = field.table(&keys::SOURCE, &mut self.problems)?;
        let model = table.required("model", &mut self.problems);
        let model = model.and_then(|field| self.model(&field));
        let layer_range = if ranges {
            let range = table.required("layer_range", &mut self.problems);
            Some(range.and_then(|field| self.layer_range(&field)))
        } else {
            None
        };
        let parameters = table.optional("parameters");
        if !ranges
            && table.optional("layer_range").is_some()
            && let Some(entry) = table.entry("layer_range")
        {
            // In `models` form mergekit takes every layer, whatever stands here.
            let hint = Some("layer ranges belong into the `slices` form".to_owned());
            let (span, path) = (entry.key_span.clone(), below(&field.path, "layer_range"));
            let message = "`layer_range` has no effect under `models`";
            self.stray(Problem::error(Code::NoEffect, span, path, message, hint));
        }
        self.finish(table);
        let parameters = parameters.map(|field| self.parameters(field, Some(method))).unwrap_or_default();
        let layer_range = match layer_range {
            None => None,
            Some(range) => Some(range?),
        };
        Some(SourceModel { model: model?, layer_range, parameters })
    }

    fn layer_range(&mut self, field: &Field<'_>) -> Option<(usize, usize)> {
        let items = field.list("a list of two layer numbers", &mut self.problems)?;
        let [start, end] = items.as_slice() else {
            let message = format!("expected two layer numbers (first, one after the last), found {}", items.len());
            field.problem(Code::Layers, message, None, &mut self.problems);
            return None;
        };
        let (start, end) = (self.whole(start, 0)?, self.whole(end, 0)?);
        if start > end {
            let message = format!("layer range ends before it starts: [{start}, {end}]");
            field.problem(
                Code::Layers,
                message,
                Some("the end is one after the last layer".to_owned()),
                &mut self.problems,
            );
            return None;
        }
        if end > MOST_LAYERS {
            let message = format!("no model has {end} layers: expected at most {MOST_LAYERS}");
            field.problem(Code::Layers, message, None, &mut self.problems);
            return None;
        }
        Some((start as usize, end as usize))
    }

    /// A model, as text or as mergekit's mapping of its parts.
    pub(super) fn model(&mut self, field: &Field<'_>) -> Option<ModelRef> {
        if !matches!(field.node.value, Value::Map(_)) {
            let text = field.text(&mut self.problems)?;
            return self.named(text, field);
        }
        let mut table = field.table(&keys::MODEL_IN_PARTS, &mut self.problems)?;
        let model = table.required("model", &mut self.problems);
        let lora = table.optional("lora");
        if let Some(architecture) = table.optional("override_architecture") {
            architecture.problem(
                Code::Unsupported,
                "`override_architecture` is not supported",
                None,
                &mut self.problems,
            );
        }
        self.finish(table);
        let base = self.location(&model?)?;
        let text = match lora {
            Some(lora) => format!("{base}+{}", self.location(&lora)?),
            None => base,
        };
        self.named(&text, field)
    }

    fn named(&mut self, text: &str, field: &Field<'_>) -> Option<ModelRef> {
        match self.reading.model(text, &field.node.span) {
            Ok(model) => Some(model),
            Err(error) => {
                field.problem(error.code(), error.to_string(), error.hint(), &mut self.problems);
                self.inputs_unclear = true;
                None
            }
        }
    }

    /// `PATH[@REVISION]`, as text or as a mapping.
    fn location(&mut self, field: &Field<'_>) -> Option<String> {
        if !matches!(field.node.value, Value::Map(_)) {
            return field.text(&mut self.problems).map(str::to_owned);
        }
        let mut table = field.table(&keys::PATH, &mut self.problems)?;
        let path = table.required("path", &mut self.problems);
        let revision = table.optional("revision");
        self.finish(table);
        let path = path?.text(&mut self.problems)?;
        match revision {
            Some(revision) => Some(format!("{path}@{}", revision.text(&mut self.problems)?)),
            None => Some(path.to_owned()),
        }
    }

    fn dtype(&mut self, field: &Field<'_>) -> Option<Dtype> {
        let text = field.text(&mut self.problems)?;
        let dtype = text.parse().ok();
        if dtype.is_none() {
            let meant = match text {
                "bf16" => Some("bfloat16"),
                "fp16" | "f16" | "half" => Some("float16"),
                "fp32" | "f32" | "float" => Some("float32"),
                "fp64" | "f64" | "double" => Some("float64"),
                _ => nearest(text, Dtype::NAMES),
            };
            let hint = meant.map(|meant| format!("did you mean `{meant}`?"));
            let message = format!("unknown dtype `{text}`, expected one of {}", listed(Dtype::NAMES));
            field.problem(Code::WrongValue, message, hint, &mut self.problems);
        }
        dtype
    }

    fn tokenizer(&mut self, top: &mut Table<'_>) -> Option<Tokenizer> {
        match (top.optional("tokenizer_source"), top.optional("tokenizer")) {
            (Some(_), Some(detailed)) => {
                let message = "expected one of `tokenizer_source`, `tokenizer`, found both";
                detailed.problem(Code::Conflict, message, Some("keep one of them".to_owned()), &mut self.problems);
                None
            }
            (Some(source), None) => tokenizer::source(self, &source).map(Tokenizer::Source),
            (None, Some(detailed)) => tokenizer::detailed(self, &detailed),
            (None, None) => None,
        }
    }

    fn parameters(&mut self, field: Field<'_>, method: Option<Method>) -> Parameters {
        parameters(self, &field, method)
    }
}

/// Reports plain scalars that PyYAML, and so mergekit, reads as something else: an oddity in a file written for mergekit. In
/// a spec mergekit reads nothing, and only what one of the two readers takes for another number or a switch is a mistake.
pub(crate) fn other_readings(node: &Node, reading: &dyn Reading, problems: &mut Problems) {
    match &node.value {
        Value::Map(entries) => {
            entries.iter().for_each(|entry| other_readings(&entry.value, reading, problems));
        }
        Value::List(items) => items.iter().for_each(|item| other_readings(item, reading, problems)),
        Value::Scalar(scalar) if node.span.source.format == Format::Yaml => {
            let text = node.span.text().trim_end();
            let Some(other) = pyyaml::other_reading(text) else { return };
            if reading.refuses_unknown(&node.span) {
                let is_text = matches!(scalar, Scalar::Text(_));
                if matches!(other.as_str(), "true" | "false") {
                    let message = format!("`{text}` is a text in YAML 1.2 and {other} in YAML 1.1");
                    let hint = Some(format!("write `{other}`, or put the text in quotes"));
                    problems.push(Code::OtherReading, node.span.clone(), "", message, hint);
                } else if !is_text && other != "a text" {
                    let message = format!("`{text}` is {scalar} in YAML 1.2 and {other} in YAML 1.1");
                    let hint = Some(format!("write `{scalar}`, if that is meant"));
                    problems.push(Code::OtherReading, node.span.clone(), "", message, hint);
                }
                return;
            }
            // mergekit takes a text that spells a number for that number.
            if other == "a text" {
                return;
            }
            let hint = Some("write it in a form that both read alike, for example with a point: `1.0e-3`".to_owned());
            let message = format!("mergekit reads `{text}` as {other}");
            problems.warn(Code::OtherReading, node.span.clone(), "", message, hint);
        }
        _ => {}
    }
}
