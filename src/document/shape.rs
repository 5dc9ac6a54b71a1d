//! What a table may hold, key by key: the one list that the readers ask by, that unknown keys are measured against, and that
//! the JSON Schema and the reference of keys are made from.
//!
//! A reader opens a table with its [`TableShape`]; asking for a key that the shape lacks, or leaving one unasked, fails every
//! test that reads such a table ([`super::read::Table`]).

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

/// A table with its keys.
#[derive(Debug)]
pub struct TableShape {
    /// Name of its definition in the schema, and of its section in the reference.
    pub name: &'static str,
    /// What it is, for messages and the reference: `limits (a table)`.
    pub expected: &'static str,
    /// Its keys, in the order in which they are listed.
    pub keys: &'static [Key],
    /// Whether keys that start with `x-` are the author's own.
    pub private_keys: bool,
    /// Keys that are easily written here and belong elsewhere, with a hint.
    pub elsewhere: &'static [(&'static str, &'static str)],
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What its value may be.
    pub holds: Shape,
    /// What it is and, for quantities, in which unit: a noun phrase.
    pub about: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What holds where it is absent, in words; may be empty.
    pub default: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Nothing (YAML's null).
    Nothing,
    /// A text that is not empty.
    Text,
    /// `true` or `false`.
    Switch,
    /// A whole number of at least so much.
    Whole(u64),
    /// A number.
    Number,
    /// A number above 0.
    Positive,
    /// A text, a number or a switch.
    Scalar,
    /// Whatever stands there; checked where it is known what it is for.
    Anything,
    /// One of these words.
    OneOf(fn() -> Vec<&'static str>),
    /// A text of this form: a regular expression, and how it is told of.
    Form(&'static str, &'static str),
    /// A list.
    List(&'static Shape),
    /// A list with at least one entry.
    Some(&'static Shape),
    /// A list of exactly so many.
    Exactly(usize, &'static Shape),
    /// A table with free keys.
    Named(&'static Shape),
    /// A table with these keys, which the program knows: each with what is told about it, all with values of one shape.
    Known(fn() -> Vec<(&'static str, String)>, &'static Shape),
    /// A table.
    Table(&'static TableShape),
    /// A shape that stands in many places, with the name of its definition.
    Shared(&'static str, &'static Shape),
    /// One of several.
    Either(&'static [Shape]),
}

/// A key that may be absent.
pub const fn key(name: &'static str, holds: Shape, default: &'static str, about: &'static str) -> Key {
    Key { name, holds, about, required: false, default }
}

/// A key that must be there.
pub const fn must(name: &'static str, holds: Shape, about: &'static str) -> Key {
    Key { name, holds, about, required: true, default: "" }
}

impl TableShape {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of its keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }

    /// Itself and every table that it leads to, each once, outer ones first.
    fn all(&'static self) -> Vec<&'static Self> {
        let mut definitions = Vec::new();
        definitions_of(&Shape::Table(self), &mut definitions);
        let table = |shape| if let Shape::Table(table) = shape { Some(table) } else { None };
        definitions.into_iter().filter_map(|(_, shape)| table(shape)).collect()
    }
}

/// Every table and shared shape that a shape leads to, by name, each once, outer ones first.
fn definitions_of(shape: &Shape, found: &mut Vec<(&'static str, Shape)>) {
    let is_new = |name: &str, found: &[(&'static str, Shape)]| found.iter().all(|(known, _)| *known != name);
    match shape {
        Shape::Table(table) if is_new(table.name, found) => {
            found.push((table.name, *shape));
            table.keys.iter().for_each(|key| definitions_of(&key.holds, found));
        }
        Shape::Shared(name, inner) if is_new(name, found) => {
            found.push((name, *shape));
            definitions_of(inner, found);
        }
        Shape::List(item) | Shape::Some(item) | Shape::Exactly(_, item) => definitions_of(item, found),
        Shape::Named(item) | Shape::Known(_, item) => definitions_of(item, found),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| definitions_of(shape, found)),
        _ => {}
    }
}

/// The JSON Schema (draft 7, which the language servers for TOML and YAML read) of documents with this table at the top.
pub fn schema(top: &'static TableShape, title: &str) -> Json {
    let mut found = Vec::new();
    definitions_of(&Shape::Table(top), &mut found);
    let definition = |shape: &Shape| match shape {
        Shape::Table(table) => table_schema(table),
        Shape::Shared(_, inner) => value_schema(inner),
        other => value_schema(other),
    };
    let definitions: Map<String, Json> =
        found.iter().map(|(name, shape)| ((*name).to_owned(), definition(shape))).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "$ref": format!("#/definitions/{}", top.name),
        "definitions": definitions,
    })
}

fn table_schema(table: &TableShape) -> Json {
    let properties: Map<String, Json> =
        table.keys.iter().map(|key| (key.name.to_owned(), described(&key.holds, &told(key)))).collect();
    let required: Vec<&str> = table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.expected,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if table.private_keys {
        schema["patternProperties"] = json!({ "^x[-_]": true });
    }
    schema
}

/// What a key is, with its default.
fn told(key: &Key) -> String {
    if key.default.is_empty() { key.about.to_owned() } else { format!("{} (default: {})", key.about, key.default) }
}

fn described(shape: &Shape, about: &str) -> Json {
    let mut schema = match shape {
        // Draft 7 takes no notice of what stands beside `$ref`.
        Shape::Table(_) | Shape::Shared(..) => json!({ "allOf": [value_schema(shape)] }),
        _ => value_schema(shape),
    };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), Json::from(about));
    }
    schema
}

fn value_schema(shape: &Shape) -> Json {
    match shape {
        Shape::Nothing => json!({ "type": "null" }),
        Shape::Text => json!({ "type": "string", "pattern": "\\S" }),
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Whole(least) => json!({ "type": "integer", "minimum": least }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Positive => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Anything => json!({}),
        Shape::OneOf(words) => json!({ "enum": words() }),
        Shape::Form(pattern, _) => json!({ "type": "string", "pattern": pattern }),
        Shape::List(item) => json!({ "type": "array", "items": value_schema(item) }),
        Shape::Some(item) => json!({ "type": "array", "items": value_schema(item), "minItems": 1 }),
        Shape::Exactly(n, item) => {
            json!({ "type": "array", "items": value_schema(item), "minItems": n, "maxItems": n })
        }
        Shape::Named(item) => json!({ "type": "object", "additionalProperties": value_schema(item) }),
        Shape::Known(keys, item) => {
            let properties: Map<String, Json> =
                keys().into_iter().map(|(name, about)| (name.to_owned(), described(item, &about))).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false })
        }
        Shape::Table(TableShape { name, .. }) | Shape::Shared(name, _) => {
            json!({ "$ref": format!("#/definitions/{name}") })
        }
        Shape::Either(shapes) => json!({ "anyOf": shapes.iter().map(value_schema).collect::<Vec<_>>() }),
    }
}

/// Every table as a section of a Markdown document: key, what it holds, default, meaning.
pub fn reference(top: &'static TableShape) -> String {
    let mut text = String::new();
    for table in top.all() {
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            "\n## {}\n\n{}\n\n| key | holds | default | meaning |\n|---|---|---|---|\n",
            table.name, table.expected
        );
        for key in table.keys {
            let default = if key.required { "**required**" } else { key.default };
            let _ = writeln!(text, "| `{}` | {} | {} | {} |", key.name, in_words(&key.holds), default, key.about);
        }
    }
    text
}

/// A shape in words, for a cell of the reference.
fn in_words(shape: &Shape) -> String {
    match shape {
        Shape::Nothing => "nothing".to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Switch => "`true` or `false`".to_owned(),
        Shape::Whole(least) => format!("whole number from {least}"),
        Shape::Number => "number".to_owned(),
        Shape::Positive => "number above 0".to_owned(),
        Shape::Scalar => "text, number or switch".to_owned(),
        Shape::Anything => "any value".to_owned(),
        Shape::OneOf(words) => {
            let words: Vec<String> = words().iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Shape::Form(_, told) => (*told).to_owned(),
        Shape::List(item) | Shape::Some(item) => format!("list of {}", in_words(item)),
        Shape::Exactly(n, item) => format!("list of {n}: {}", in_words(item)),
        Shape::Named(item) => format!("table: name = {}", in_words(item)),
        Shape::Known(_, item) => format!("table: parameter = {}", in_words(item)),
        Shape::Table(table) => {
            let anchor: String = table.name.chars().map(|letter| if letter == ' ' { '-' } else { letter }).collect();
            format!("[{}](#{anchor})", table.name)
        }
        Shape::Shared(_, inner) => in_words(inner),
        Shape::Either(shapes) => shapes.iter().map(in_words).collect::<Vec<_>>().join(" or "),
    }
}
