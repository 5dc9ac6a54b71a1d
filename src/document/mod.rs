//! A document with positions: what a TOML or YAML file says, and where it says it.
//!
//! Typed deserialising stops at the first mistake and loses positions, so a file is first read into [`Node`]s
//! ([`parse`]), then walked by a validator that collects every mistake as a [`Problem`] ([`read`]), and only then made
//! into types. Specs and mergekit configs come through here alike.

pub mod code;
pub mod draw;
pub mod parse;
pub mod path;
pub mod problem;
pub mod pyyaml;
pub mod read;
pub mod shape;
mod toml;
mod yaml;

pub use code::Code;
pub use path::{DocumentPath, Step};
pub use problem::{Problem, Problems, Severity};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Scalar;

/// Bytes of a text that weigh as much as one more value, where values are counted that get copies.
const TEXT_OF_A_VALUE: usize = 64;

/// The text a document was read from.
#[derive(Debug, PartialEq)]
pub struct Source {
    /// Path as the user gave it, for messages.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
    /// The language it is written in.
    pub format: Format,
}

/// Languages of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// YAML 1.2, core schema; JSON is a part of it.
    Yaml,
}

impl Format {
    /// The language a file of that name is taken to be in: TOML by its ending, YAML otherwise (as mergekit does).
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(ending) if ending.eq_ignore_ascii_case("toml") => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// A stretch of a source: byte offsets, end exclusive. A document may hold nodes of several sources (an axis value from
/// a spec put into a mergekit file), so every span knows its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The text.
    pub source: Arc<Source>,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

/// A value with its position.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it says.
    pub value: Value,
    /// Where it says it.
    pub span: Span,
}

/// What a node says.
#[derive(Debug, Clone)]
pub enum Value {
    /// YAML null.
    Null,
    /// A plain value.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Value {
    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(Scalar::Bool(_)) => "true/false",
            Self::Scalar(Scalar::Int(_)) => "a whole number",
            Self::Scalar(Scalar::Float(_)) => "a number",
            Self::Scalar(Scalar::Text(_)) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a table",
        }
    }
}

impl Span {
    /// The text it covers, empty where it covers nothing sensible.
    pub fn text(&self) -> &str {
        self.source.text.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether both are the same stretch of the same source.
    pub fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.start == other.start && self.end == other.end
    }
}

impl Node {
    /// The value of a key, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The entries, where this is a mapping; nothing otherwise.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// How many values this is: itself and all that are in it.
    pub fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
            Value::Scalar(Scalar::Text(text)) => text.len() / TEXT_OF_A_VALUE,
            Value::Null | Value::Scalar(_) => 0,
        }
    }

    /// The first value in it that is exactly this text.
    pub fn find_text(&self, text: &str) -> Option<&Self> {
        match &self.value {
            Value::List(items) => items.iter().find_map(|item| item.find_text(text)),
            Value::Map(entries) => entries.iter().find_map(|entry| entry.value.find_text(text)),
            _ => (self.as_text() == Some(text)).then_some(self),
        }
    }

    /// The text, where this is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }
}
