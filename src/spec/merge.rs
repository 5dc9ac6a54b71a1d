//! One `merge` entry: rewritten into a mergekit document, whether its sources stand in the spec or in a file, with the
//! combinations of axis values to put into it.

use std::path::Path;

use super::axis::Context;
use super::combine::combinations;
use super::{MergeEntry, ModelNames, keys};
use crate::config::{Numerics, Scalar};
use crate::document::read::{Field, Table, listed};
use crate::document::{Code, Entry, Node, Problems, Span, Value, parse};

/// Keys of an entry that go into the mergekit document as they are.
const PASSED_ON: [&str; 9] = [
    "base_model",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer",
    "tokenizer_source",
    "chat_template",
];

/// Reads one entry. What stands in the document itself is checked where trials are made of it.
pub fn merge_entry(
    field: &Field<'_>,
    names: ModelNames<'_>,
    root: &Path,
    problems: &mut Problems,
) -> Option<MergeEntry> {
    let mut table = field.table(&keys::MERGE, problems)?;
    let name = table.required("name", problems);
    let seed_field = table.optional("seed");
    let seed = seed_field.as_ref().map_or(Some(0), |field| field.whole(0, problems));
    let numerics = match table.optional("numerics") {
        Some(field) => field.one_of(Numerics::NAMES, problems),
        None => Some(Numerics::default()),
    };
    let document = document(&mut table, names, root, problems);
    let n_mistakes = problems.n_errors();
    // Without a document axes have nothing to be put into; the keys still count as known.
    let axes = match &document {
        Some(document) => combinations(&mut table, Context { document, names }, problems),
        None => {
            for key in ["grid", "zip", "settings", "exclude", "sample"] {
                table.optional(key);
            }
            Default::default()
        }
    };
    // A method that is missing here is told here, in the words of a spec.
    let has_method = table.entry("config").is_some() || table.entry("method").is_some() || varies(&table, "method");
    let complete = has_method && problems.n_errors() == n_mistakes;
    table.finish(problems);
    let name_field = name?;
    let name = name_field.text(problems)?;
    Some(MergeEntry {
        name: name.to_owned(),
        name_span: name_field.span(),
        key_path: field.path.clone(),
        document: document?,
        axes: axes.axes,
        settings: axes.settings,
        seed: seed?,
        seed_span: seed_field.map(|field| field.span()),
        numerics: numerics?,
        complete,
    })
}

/// The entry as a mergekit document.
fn document(table: &mut Table<'_>, names: ModelNames<'_>, root: &Path, problems: &mut Problems) -> Option<Node> {
    let config = table.optional("config");
    let method = table.optional("method");
    let models = table.optional("models");
    let passed: Vec<_> = PASSED_ON.into_iter().filter_map(|key| Some((key, table.optional(key)?))).collect();
    match config {
        Some(config) => {
            let own = passed.iter().filter(|(key, _)| matches!(*key, "slices" | "modules")).map(|(_, field)| field);
            let mut fits = true;
            for field in own.chain(&models).chain(&method) {
                let hint = Some("an axis can set single values of the file".to_owned());
                field.problem(Code::Conflict, "cannot stand beside `config`, which brings its own", hint, problems);
                fits = false;
            }
            let document = from_file(&config, root, problems)?;
            fits.then(|| overridden(document, passed))
        }
        None => inline(table, method, models, passed, names, problems),
    }
}

fn from_file(config: &Field<'_>, root: &Path, problems: &mut Problems) -> Option<Node> {
    let path = root.join(config.text(problems)?);
    if !path.is_file() {
        let hint = Some("the path starts at the folder of the spec".to_owned());
        config.problem(Code::Unreadable, format!("no such file: `{}`", path.display()), hint, problems);
        return None;
    }
    match parse::file(&path) {
        Ok(document) if matches!(document.value, Value::Map(_)) => Some(document),
        Ok(document) => {
            Field::new(&document, "").expected("a mergekit config (a mapping)", problems);
            None
        }
        Err(mistakes) => {
            problems.extend(mistakes);
            None
        }
    }
}

/// A file's document with the keys of the entry over its own; `parameters` are taken over one by one.
fn overridden(mut document: Node, passed: Vec<(&'static str, Field<'_>)>) -> Node {
    for (key, field) in passed {
        let mut value = field.node.clone();
        if key == "parameters"
            && let (Some(Value::Map(old)), Value::Map(new)) =
                (document.get(key).map(|node| node.value.clone()), &mut value.value)
        {
            let kept = old.into_iter().filter(|old| new.iter().all(|new| new.key != old.key)).collect::<Vec<_>>();
            new.splice(0..0, kept);
        }
        set(&mut document, key, value);
    }
    document
}

fn set(document: &mut Node, key: &str, value: Node) {
    let Value::Map(entries) = &mut document.value else { return };
    match entries.iter_mut().find(|entry| entry.key == key) {
        Some(entry) => entry.value = value,
        None => entries.push(Entry { key: key.to_owned(), key_span: value.span.clone(), value }),
    }
}

fn inline(
    table: &Table<'_>,
    method: Option<Field<'_>>,
    models: Option<Field<'_>>,
    passed: Vec<(&'static str, Field<'_>)>,
    names: ModelNames<'_>,
    problems: &mut Problems,
) -> Option<Node> {
    let mut document = Node { value: Value::Map(Vec::new()), span: table.span() };
    if let Some(method) = &method {
        set(&mut document, "merge_method", method.node.clone());
    } else if !varies(table, "method") {
        let hint = Some("or start from a mergekit file with `config`".to_owned());
        table.problem(Code::MissingKey, "missing key `method`, expected the name of a merge method", hint, problems);
    }
    let listed_in = ["slices", "modules"].iter().filter(|key| passed.iter().any(|(passed, _)| passed == *key)).count();
    if models.is_none() && listed_in == 0 {
        table.problem(Code::MissingKey, "missing key `models`, expected the models to merge", None, problems);
        return None;
    }
    if let Some(models) = &models {
        set(&mut document, "models", sources(models, names, problems)?);
    }
    for (key, field) in passed {
        set(&mut document, key, field.node.clone());
        if let Some(entry) = table.entry(key)
            && let Value::Map(entries) = &mut document.value
            && let Some(last) = entries.last_mut()
        {
            last.key_span = entry.key_span.clone();
        }
    }
    Some(document)
}

/// Whether an axis bears that name or path.
fn varies(table: &Table<'_>, name: &str) -> bool {
    let sets = |node: &Node| {
        node.get(name).is_some()
            || node.entries().iter().any(|entry| entry.value.get("path").and_then(Node::as_text) == Some(name))
    };
    ["grid", "zip", "settings"].iter().filter_map(|group| table.entry(group)).any(|entry| match &entry.value.value {
        Value::List(items) => items.iter().any(sets),
        _ => sets(&entry.value),
    })
}

/// `models` as mergekit's list: from a list of names (or of mergekit's own entries), or from a table of names with their
/// parameters.
fn sources(field: &Field<'_>, names: ModelNames<'_>, problems: &mut Problems) -> Option<Node> {
    const EXPECTED: &str = "a list of models, or a table such as `{ math = { weight = 0.7 } }`";
    let n_mistakes = problems.n_errors();
    let items = match &field.node.value {
        Value::List(_) => field
            .list(EXPECTED, problems)?
            .iter()
            .filter_map(|item| match &item.node.value {
                Value::Scalar(Scalar::Text(_)) => Some(source(item.node.clone(), None)),
                Value::Map(_) => Some(item.node.clone()),
                _ => {
                    item.expected("a model, or `{ model, parameters }`", problems);
                    None
                }
            })
            .collect(),
        Value::Map(_) => field
            .entries(EXPECTED, problems)?
            .into_iter()
            .filter_map(|(entry, parameters)| {
                let name = Node { value: Value::Scalar(Scalar::Text(entry.key.clone())), span: entry.key_span.clone() };
                match &parameters.node.value {
                    Value::Null => Some(source(name, None)),
                    Value::Map(entries) => {
                        if let Some(nested) = entries.iter().find(|entry| entry.key == "parameters") {
                            nested_parameters(&nested.key_span, &parameters, problems);
                            return None;
                        }
                        Some(source(name, Some(parameters.node.clone())))
                    }
                    _ => {
                        parameters.expected("parameters of the model, such as `{ weight = 0.7 }`", problems);
                        None
                    }
                }
            })
            .collect(),
        _ => {
            field.expected(EXPECTED, problems);
            return None;
        }
    };
    let node = Node { value: Value::List(items), span: field.span() };
    // Names are looked at here already, so that one unknown model is told once and not for each trial.
    let Value::List(items) = &node.value else { return None };
    let is_sound = problems.n_errors() == n_mistakes;
    for model in items.iter().filter_map(|item| item.get("model")) {
        let Some(Err(error)) = model.as_text().map(|text| names.named(text)) else { continue };
        Field::new(model, field.path.clone()).problem(error.code(), error.to_string(), error.hint(), problems);
    }
    // An unknown model hides no other mistake: the rest of the document is looked at all the same.
    is_sound.then_some(node)
}

fn nested_parameters(span: &Span, field: &Field<'_>, problems: &mut Problems) {
    let hint = "parameters stand directly under the name: `math = { weight = 0.7 }`".to_owned();
    problems.push(
        Code::UnreadParameter,
        span.clone(),
        field.path.clone(),
        format!("unknown parameter {}", listed(["parameters"])),
        Some(hint),
    );
}

fn source(model: Node, parameters: Option<Node>) -> Node {
    let span = model.span.clone();
    let entry = |key: &str, value: Node| Entry { key: key.to_owned(), key_span: value.span.clone(), value };
    let mut entries = vec![entry("model", model)];
    entries.extend(parameters.map(|parameters| entry("parameters", parameters)));
    Node { value: Value::Map(entries), span }
}
