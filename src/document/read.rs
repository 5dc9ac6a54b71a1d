//! Walking a document: typed readers that note every mistake and go on.
//!
//! A [`Field`] is a value with its key path; a [`Table`] is a mapping that is read by its [`TableShape`], so that what is no
//! key of it is reported with the nearest one that is.

use super::shape::TableShape;
use super::{Code, Entry, Node, Problem, Problems, Span, Value};
use crate::config::Scalar;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// The value.
    pub node: &'a Node,
    /// Key path from the top: `merge[2].grid.t`.
    pub path: String,
}

/// A mapping being read.
#[derive(Debug)]
pub struct Table<'a> {
    node: &'a Node,
    path: String,
    shape: &'static TableShape,
    asked: Vec<&'static str>,
}

/// The key path of a key below another.
pub fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The word of a list that is closest to a text, if any is close enough to have been meant.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = text.to_lowercase();
    let scored = known.into_iter().filter_map(|word| {
        let other = word.to_lowercase();
        let (length, other_length) = (lower.chars().count(), other.chars().count());
        let (longest, least) = (length.max(other_length), length.abs_diff(other_length));
        // A third of the letters may be wrong; a word that only adds to the other counts as close.
        let is_close = |distance: usize| distance * 3 <= longest + 1;
        // The table of distances is as large as both lengths multiplied, so it is made only where it can matter. Of
        // lengths that differ so much only a part is close, and that is as far away as it is shorter.
        let distance = if is_close(least) { strsim::damerau_levenshtein(&lower, &other) } else { least };
        let part = other.len() >= 4 && lower.len() >= 4 && (other.contains(&lower) || lower.contains(&other));
        (is_close(distance) || part).then_some((distance, word))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// Words in backticks, with commas.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A key that nobody reads, with the nearest one that somebody would.
fn unknown_key(entry: &Entry, path: &str, shape: &TableShape) -> Problem {
    let message = format!("unknown key `{}`", entry.key);
    let elsewhere = shape.elsewhere.iter().find(|(key, _)| *key == entry.key).map(|(_, hint)| *hint);
    let hint = match (elsewhere, nearest(&entry.key, shape.names())) {
        (Some(hint), _) => hint.to_owned(),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => format!("known keys here: {}", listed(shape.names())),
    };
    Problem::error(Code::UnknownKey, entry.key_span.clone(), below(path, &entry.key), message, Some(hint))
}

impl<'a> Field<'a> {
    /// A value at a key path.
    pub fn new(node: &'a Node, path: impl Into<String>) -> Self {
        Self { node, path: path.into() }
    }

    /// Where it stands.
    pub fn span(&self) -> Span {
        self.node.span.clone()
    }

    /// Notes that something else was expected.
    pub fn expected(&self, expected: &str, problems: &mut Problems) {
        let found = match &self.node.value {
            Value::Scalar(Scalar::Text(text)) => format!("the text `{}`", shortened(text)),
            Value::Scalar(scalar @ (Scalar::Int(_) | Scalar::Float(_) | Scalar::Bool(_))) => format!("`{scalar}`"),
            other => other.kind().to_owned(),
        };
        self.problem(Code::WrongValue, format!("expected {expected}, found {found}"), None, problems);
    }

    /// Notes a mistake at this place.
    pub fn problem(&self, code: Code, message: impl Into<String>, hint: Option<String>, problems: &mut Problems) {
        problems.push(code, self.span(), self.path.clone(), message, hint);
    }

    /// Notes something odd at this place.
    pub fn warning(&self, code: Code, message: impl Into<String>, hint: Option<String>, problems: &mut Problems) {
        problems.warn(code, self.span(), self.path.clone(), message, hint);
    }

    /// A text that is not empty.
    pub fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar(Scalar::Text(text)) if !text.trim().is_empty() => return Some(text),
            Value::Scalar(Scalar::Text(_)) => {
                self.problem(Code::Empty, "expected a text, found an empty one", None, problems)
            }
            _ => self.expected("a text", problems),
        }
        None
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let text = self.text(problems)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let near = nearest(text, words.iter().map(|(word, _)| *word));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let words = listed(words.iter().map(|(word, _)| *word));
            self.problem(
                Code::WrongValue,
                format!("expected one of {words}, found `{}`", shortened(text)),
                hint,
                problems,
            );
        }
        found
    }

    /// `true` or `false`.
    pub fn switch(&self, problems: &mut Problems) -> Option<bool> {
        match self.node.value {
            Value::Scalar(Scalar::Bool(value)) => Some(value),
            _ => {
                self.expected("`true` or `false`", problems);
                None
            }
        }
    }

    /// A whole number of at least `least`.
    pub fn whole(&self, least: u64, problems: &mut Problems) -> Option<u64> {
        let value = match self.node.value {
            Value::Scalar(Scalar::Int(value)) => u64::try_from(value).ok(),
            // 3.0 says 3: YAML and TOML writers of other programs produce it.
            Value::Scalar(Scalar::Float(value)) if value.fract() == 0.0 && (0.0..1e15).contains(&value) => {
                Some(value as u64)
            }
            _ => None,
        };
        let value = value.filter(|value| *value >= least);
        if value.is_none() {
            self.expected(&format!("a whole number of at least {least}"), problems);
        }
        value
    }

    /// A text, a number or a switch.
    pub fn scalar(&self, problems: &mut Problems) -> Option<&'a Scalar> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => {
                self.expected("a single value", problems);
                None
            }
        }
    }

    /// The entries of a list, each with its key path.
    pub fn list(&self, expected: &str, problems: &mut Problems) -> Option<Vec<Field<'a>>> {
        match &self.node.value {
            Value::List(items) => Some(self.items(items)),
            _ => {
                self.expected(expected, problems);
                None
            }
        }
    }

    fn items(&self, items: &'a [Node]) -> Vec<Self> {
        items.iter().enumerate().map(|(index, item)| Self::new(item, format!("{}[{index}]", self.path))).collect()
    }

    /// A mapping, to be read key by key.
    pub fn table(&self, shape: &'static TableShape, problems: &mut Problems) -> Option<Table<'a>> {
        match &self.node.value {
            Value::Map(_) => Some(Table { node: self.node, path: self.path.clone(), shape, asked: Vec::new() }),
            _ => {
                self.expected(shape.expected, problems);
                None
            }
        }
    }

    /// The entries of a mapping whose keys are free, each with its value.
    pub fn entries(&self, expected: &str, problems: &mut Problems) -> Option<Vec<(&'a Entry, Self)>> {
        match &self.node.value {
            Value::Map(entries) => Some(
                entries.iter().map(|entry| (entry, Self::new(&entry.value, below(&self.path, &entry.key)))).collect(),
            ),
            _ => {
                self.expected(expected, problems);
                None
            }
        }
    }
}

impl<'a> Table<'a> {
    /// The value of a key, if it is there and not null.
    pub fn optional(&mut self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(self.shape.key(key).is_some(), "`{key}` is not in the shape of `{}`", self.shape.name);
        self.asked.push(key);
        let node = self.node.get(key).filter(|node| !matches!(node.value, Value::Null))?;
        Some(Field::new(node, below(&self.path, key)))
    }

    /// The value of a key that must be there.
    pub fn required(&mut self, key: &'static str, problems: &mut Problems) -> Option<Field<'a>> {
        let field = self.optional(key);
        if field.is_none() {
            let what = self.shape.key(key).map(|key| key.about).unwrap_or_default();
            self.problem(Code::MissingKey, format!("missing key `{key}`, expected {what}"), None, problems);
        }
        field
    }

    /// The key itself, for messages about its being there.
    pub fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.node.entries().iter().find(|entry| entry.key == key)
    }

    /// Notes a mistake that concerns the whole mapping.
    pub fn problem(&self, code: Code, message: impl Into<String>, hint: Option<String>, problems: &mut Problems) {
        problems.push(code, self.node.span.clone(), self.path.clone(), message, hint);
    }

    /// Where it stands.
    pub fn span(&self) -> Span {
        self.node.span.clone()
    }

    /// Keys that are no part of the shape, as mistakes.
    pub fn unknown(&self) -> Vec<Problem> {
        // What the shape promises must be read: a schema would offer it.
        debug_assert!(
            self.shape.names().all(|name| self.asked.contains(&name)),
            "not all keys of `{}` are read: {:?}",
            self.shape.name,
            self.asked
        );
        let known = |entry: &&Entry| {
            self.shape.key(&entry.key).is_some() || (self.shape.private_keys && is_private(&entry.key))
        };
        let entries = self.node.entries().iter().filter(|entry| !known(entry));
        entries.map(|entry| unknown_key(entry, &self.path, self.shape)).collect()
    }

    /// Reports every key that is no part of the shape.
    pub fn finish(self, problems: &mut Problems) {
        problems.0.extend(self.unknown());
    }
}

/// A text short enough for a message.
pub fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.escape_debug().collect::<String>().replace("\\'", "'").replace("\\\"", "\"");
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{}…", start.escape_debug())
}

/// Whether a top-level key is the author's own: a place for anchors, never read.
fn is_private(key: &str) -> bool {
    key.starts_with("x-") || key.starts_with("x_")
}
