//! What an axis sets: the name or path that a spec gives it, turned into places of the merge's document.

use super::{ModelNames, Target};
use crate::config::parse::Reading as _;
use crate::document::read::{listed, nearest};
use crate::document::{DocumentPath, Node, Step, Value};
use crate::model::ModelRef;

/// A name or path that sets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Keys of the document that an axis of the same name sets; any other name is a parameter.
const TOP_KEYS: [(&str, &str); 8] = [
    ("method", "merge_method"),
    ("merge_method", "merge_method"),
    ("base_model", "base_model"),
    ("dtype", "dtype"),
    ("out_dtype", "out_dtype"),
    ("tokenizer_source", "tokenizer_source"),
    ("chat_template", "chat_template"),
    ("parameters", "parameters"),
];

const FORMS: &str = "a parameter (`t`), `MODEL.PARAMETER` (`code.weight`) or a place in the mergekit document \
                     (`slices[0].sources[1].parameters.weight`)";

/// Finds what an axis of that name or path sets in a document.
///
/// # Errors
/// [`TargetError`] where it sets nothing.
pub fn target(text: &str, document: &Node, names: &ModelNames<'_>) -> Result<Target, TargetError> {
    if text == "seed" {
        return Ok(Target::Seed);
    }
    if let Some((_, key)) = TOP_KEYS.iter().find(|(name, _)| *name == text) {
        return Ok(Target::Places(vec![DocumentPath(vec![Step::Key((*key).to_owned())])]));
    }
    let malformed =
        || TargetError { message: format!("`{text}` is not a place in a merge"), hint: format!("expected {FORMS}") };
    // `models.math.weight` is how the place reads in the spec.
    let by_model = text.strip_prefix("models.").unwrap_or(text);
    if let Some(places) = on_model(by_model, document, names).transpose()? {
        return Ok(Target::Places(places));
    }
    let path = DocumentPath::parse(text).ok_or_else(malformed)?;
    let Some(Step::Key(first)) = path.0.first() else { return Err(malformed()) };
    if !text.contains('.') && !matches!(first.as_str(), "models" | "slices" | "modules") {
        // `t`, or `t[1]` for one value of a gradient.
        return Ok(Target::Places(vec![DocumentPath(vec![Step::Key("parameters".to_owned())]).join(&path)]));
    }
    const PLACES: [&str; 5] = ["parameters", "models", "slices", "modules", "tokenizer"];
    if !PLACES.contains(&first.as_str()) {
        let words: Vec<&str> = names.models.iter().map(|(short, _)| short.as_str()).chain(PLACES).collect();
        let left = text.rsplit_once('.').map_or(first.as_str(), |(left, _)| left);
        let hint = match nearest(left, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected {FORMS}"),
        };
        return Err(TargetError { message: format!("`{left}` is neither a model nor a part of a merge"), hint });
    }
    // Trying it out on a copy tells whether the place can exist.
    let probe = Node { value: Value::Null, span: document.span.clone() };
    document
        .clone()
        .put(&path, probe)
        .map_err(|error| TargetError { message: error.to_string(), hint: format!("expected {FORMS}") })?;
    Ok(Target::Places(vec![path]))
}

/// `MODEL.PARAMETER`: the parameter on every source that is that model. `None` where the text starts with no model.
fn on_model(text: &str, document: &Node, names: &ModelNames<'_>) -> Option<Result<Vec<DocumentPath>, TargetError>> {
    // References hold dots, parameters do not.
    let (left, parameter) = text.rsplit_once('.')?;
    let left = left.strip_suffix(".parameters").unwrap_or(left);
    let parameter = DocumentPath::parse(parameter)?;
    let sources = sources(document, names);
    let short = names.models.iter().find(|(short, _)| short == left).map(|(_, model)| model);
    let model = short.or_else(|| sources.iter().map(|(_, model)| model).find(|model| model.to_string() == left))?;
    let places: Vec<_> = sources
        .iter()
        .filter(|(_, source)| source == model)
        .map(|(place, _)| place.key("parameters").join(&parameter))
        .collect();
    if places.is_empty() {
        let call = |model: &ModelRef| {
            let short = names.models.iter().find(|(_, other)| other == model);
            short.map_or_else(|| model.to_string(), |(short, _)| short.clone())
        };
        let mut own: Vec<String> = Vec::new();
        for (_, model) in &sources {
            let name = call(model);
            if !own.contains(&name) {
                own.push(name);
            }
        }
        return Some(Err(TargetError {
            message: format!("`{left}` is not a source of this merge"),
            hint: format!("its sources are {}", listed(own.iter().map(String::as_str))),
        }));
    }
    Some(Ok(places))
}

/// Every source of a document in any of its forms, with its place.
fn sources(document: &Node, names: &ModelNames<'_>) -> Vec<(DocumentPath, ModelRef)> {
    let mut found = Vec::new();
    let top = DocumentPath(Vec::new());
    collect(document, &top, names, &mut found);
    if let Some(modules) = document.get("modules") {
        for entry in modules.entries() {
            collect(&entry.value, &top.key("modules").key(&entry.key), names, &mut found);
        }
    }
    found
}

fn collect(node: &Node, place: &DocumentPath, names: &ModelNames<'_>, found: &mut Vec<(DocumentPath, ModelRef)>) {
    let items = |node: &Node, key: &str| match node.get(key).map(|node| &node.value) {
        Some(Value::List(items)) => items.clone(),
        _ => Vec::new(),
    };
    let mut add = |source: &Node, place: DocumentPath| {
        let Some(model) = source.get("model") else { return };
        // What is no model here is reported where the document is read.
        if let Some(model) = model.as_text().and_then(|text| names.model(text, &model.span).ok()) {
            found.push((place, model));
        }
    };
    for (index, source) in items(node, "models").iter().enumerate() {
        add(source, place.key("models").index(index));
    }
    for (index, slice) in items(node, "slices").iter().enumerate() {
        let place = place.key("slices").index(index).key("sources");
        for (index, source) in items(slice, "sources").iter().enumerate() {
            add(source, place.index(index));
        }
    }
}

impl Target {
    /// The parameters that it sets, by name; nothing for the seed and for other keys.
    pub fn parameters(&self) -> Vec<&str> {
        let Self::Places(places) = self else { return Vec::new() };
        let parameter = |place: &'_ DocumentPath| -> Option<usize> {
            place.0.iter().rposition(|step| matches!(step, Step::Key(key) if key == "parameters"))
        };
        places
            .iter()
            .filter_map(|place| match place.0.get(parameter(place)? + 1) {
                Some(Step::Key(name)) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }
}
