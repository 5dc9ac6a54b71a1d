//! A [`MergeConfig`] as YAML that mergekit reads back as the same merge.
//!
//! PyYAML takes many plain texts for something else (`no`, `1:30`, `1e-7`), so every text is quoted the JSON way and
//! floats are written with a point and a signed exponent. The result is stable: same config, same bytes.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::parameter::Case;
use super::tokenizer::{self, json_scalar};
use super::{MergeConfig, Parameters, Scalar, Setting, Slice, SourceModel, Tokenizer};
use crate::model::ModelRef;

/// The config as YAML, every model called what `naming` says.
pub fn yaml(config: &MergeConfig, naming: &dyn Fn(&ModelRef) -> String) -> String {
    let mut text = String::new();
    block(&json(config, naming), 0, &mut text);
    text
}

/// The config as mergekit's document: `models` form where every layer of every model takes part, `slices` otherwise, and
/// `modules` only where the module has parameters of its own.
pub fn json(config: &MergeConfig, naming: &dyn Fn(&ModelRef) -> String) -> Json {
    let mut top = Map::new();
    top.insert("merge_method".to_owned(), Json::from(config.method.name()));
    if let Some(base) = &config.base_model {
        top.insert("base_model".to_owned(), Json::from(naming(base)));
    }
    let (key, sources) = match config.slices.as_slice() {
        [slice] if slice.sources.iter().all(|source| source.layer_range.is_none()) => {
            ("models", Json::Array(slice.sources.iter().map(|source| source_json(source, naming)).collect()))
        }
        slices => ("slices", Json::Array(slices.iter().map(|slice| slice_json(slice, naming)).collect())),
    };
    if config.module_parameters.is_empty() {
        top.insert(key.to_owned(), sources);
    } else {
        let mut module = Map::new();
        module.insert(key.to_owned(), sources);
        put_parameters(&mut module, &config.module_parameters);
        top.insert("modules".to_owned(), Json::Object(Map::from_iter([("default".to_owned(), Json::Object(module))])));
    }
    put_parameters(&mut top, &config.parameters);
    for (key, dtype) in [("dtype", config.dtype), ("out_dtype", config.out_dtype)] {
        if let Some(dtype) = dtype {
            top.insert(key.to_owned(), Json::from(dtype.name()));
        }
    }
    match &config.tokenizer {
        Some(Tokenizer::Source(word)) => {
            top.insert("tokenizer_source".to_owned(), Json::from(tokenizer::named(word, naming)));
        }
        Some(Tokenizer::Detailed(text)) => {
            top.insert("tokenizer".to_owned(), tokenizer::renamed(text, naming));
        }
        None => {}
    }
    if let Some(template) = &config.chat_template {
        top.insert("chat_template".to_owned(), Json::from(template.as_str()));
    }
    Json::Object(top)
}

fn slice_json(slice: &Slice, naming: &dyn Fn(&ModelRef) -> String) -> Json {
    let mut map = Map::new();
    let sources = slice.sources.iter().map(|source| source_json(source, naming)).collect();
    map.insert("sources".to_owned(), Json::Array(sources));
    if let Some(base) = &slice.base_model {
        map.insert("base_model".to_owned(), Json::from(naming(base)));
    }
    put_parameters(&mut map, &slice.parameters);
    Json::Object(map)
}

fn source_json(source: &SourceModel, naming: &dyn Fn(&ModelRef) -> String) -> Json {
    let mut map = Map::new();
    map.insert("model".to_owned(), Json::from(naming(&source.model)));
    if let Some((start, end)) = source.layer_range {
        map.insert("layer_range".to_owned(), Json::from(vec![start, end]));
    }
    put_parameters(&mut map, &source.parameters);
    Json::Object(map)
}

fn put_parameters(map: &mut Map<String, Json>, parameters: &Parameters) {
    if !parameters.is_empty() {
        let settings = parameters.iter().map(|(name, setting)| (name.clone(), setting_json(setting))).collect();
        map.insert("parameters".to_owned(), Json::Object(settings));
    }
}

fn setting_json(setting: &Setting) -> Json {
    match setting {
        Setting::Scalar(scalar) => json_scalar(scalar),
        Setting::Gradient(values) => Json::Array(values.iter().map(json_scalar).collect()),
        Setting::Conditional(cases) => Json::Array(cases.iter().map(case_json).collect()),
    }
}

fn case_json(case: &Case) -> Json {
    let mut map = Map::new();
    if let Some(filter) = &case.filter {
        map.insert("filter".to_owned(), Json::from(filter.as_str()));
    }
    map.insert("value".to_owned(), setting_json(&case.value));
    Json::Object(map)
}

/// Block style for mappings and for lists of them, one line for everything else.
fn block(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(map) => {
            for (position, (key, value)) in map.iter().enumerate() {
                if position > 0 {
                    pad(indent, out);
                }
                out.push_str(&key_text(key));
                out.push(':');
                below(value, indent, out);
            }
        }
        Json::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    pad(indent, out);
                }
                out.push('-');
                if is_block(item) {
                    out.push(' ');
                    block(item, indent + 2, out);
                } else {
                    below(item, indent, out);
                }
            }
        }
        scalar => {
            out.push_str(&flow(scalar));
            out.push('\n');
        }
    }
}

/// What stands behind a key: on the same line, or indented on the next ones.
fn below(value: &Json, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        pad(indent + 2, out);
        block(value, indent + 2, out);
    } else {
        out.push(' ');
        out.push_str(&flow(value));
        out.push('\n');
    }
}

fn is_block(value: &Json) -> bool {
    match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(items) => items.iter().any(|item| matches!(item, Json::Object(_) | Json::Array(_))),
        _ => false,
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A value on one line.
fn flow(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => match number.as_f64() {
            Some(value) if number.is_f64() => float(value),
            _ => number.to_string(),
        },
        Json::String(text) => quoted(text),
        Json::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            let entries: Vec<_> =
                map.iter().map(|(key, value)| format!("{}: {}", key_text(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// A key without quotes where no YAML reader could take it for anything but that text.
fn key_text(key: &str) -> String {
    let word = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let letter = key.starts_with(|first: char| first.is_ascii_lowercase());
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if word && letter && !reserved.contains(&key) { key.to_owned() } else { quoted(key) }
}

/// A float that every YAML reader takes for one: with a point, and a sign in the exponent. Shortest digits that read
/// back as the same number.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        let text = value.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// A text in double quotes, with everything escaped that is not plainly printable.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        let code = u32::from(character);
        // Writing to a text cannot fail.
        let _ = match character {
            '"' | '\\' => write!(out, "\\{character}"),
            '\n' => write!(out, "\\n"),
            '\t' => write!(out, "\\t"),
            '\r' => write!(out, "\\r"),
            ' '..='~' => write!(out, "{character}"),
            // Control characters, line separators that YAML folds, byte order marks, and what no reader accepts.
            '\u{0}'..='\u{a0}' => write!(out, "\\x{code:02x}"),
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => write!(out, "\\u{code:04x}"),
            '\u{10000}'.. => write!(out, "\\U{code:08x}"),
            _ => write!(out, "{character}"),
        };
    }
    out.push('"');
    out
}

/// A text that is the same for configs that mean the same numbers (`1` and `1.0`), whatever they were written as: what
/// identities are made from.
pub fn canonical(config: &MergeConfig) -> String {
    let mut document = json(config, &ModelRef::to_string);
    plain_numbers(&mut document);
    document.to_string()
}

/// A setting as JSON, numbers in the same manner.
pub fn plain_setting(setting: &Setting) -> Json {
    let mut value = setting_json(setting);
    plain_numbers(&mut value);
    value
}

fn plain_numbers(value: &mut Json) {
    match value {
        Json::Number(number) => {
            // Floats beyond 2^53 are no exact whole numbers: they keep their own form.
            if let Some(float) =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15)
            {
                *value = Json::from(float as i64);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(plain_numbers),
        Json::Object(map) => map.values_mut().for_each(plain_numbers),
        _ => {}
    }
}

/// A scalar as JSON.
pub fn scalar_json(scalar: &Scalar) -> Json {
    json_scalar(scalar)
}
