//! Walking a document: typed readers that note every mistake and go on.
//!
//! A [`Field`] is a value with its key path; a [`Table`] is a mapping that remembers which of its keys were asked for,
//! so that what is left over is reported with the nearest key that would have been read.

use super::{Entry, Node, Problems, Span, Value};
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
    known: Vec<&'static str>,
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

/// Reports a key that nobody reads, with the nearest one that somebody would.
pub fn unknown_key(entry: &Entry, path: &str, known: &[&str], problems: &mut Problems) {
    let message = format!("unknown key `{}`", entry.key);
    let hint = match nearest(&entry.key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no keys are read here".to_owned(),
        None => format!("known keys here: {}", listed(known.iter().copied())),
    };
    problems.push(entry.key_span.clone(), below(path, &entry.key), message, Some(hint));
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
        self.problem(format!("expected {expected}, found {found}"), None, problems);
    }

    /// Notes a mistake at this place.
    pub fn problem(&self, message: impl Into<String>, hint: Option<String>, problems: &mut Problems) {
        problems.push(self.span(), self.path.clone(), message, hint);
    }

    /// A text that is not empty.
    pub fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar(Scalar::Text(text)) if !text.trim().is_empty() => return Some(text),
            Value::Scalar(Scalar::Text(_)) => self.problem("expected a text, found an empty one", None, problems),
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
            self.problem(format!("expected one of {words}, found `{}`", shortened(text)), hint, problems);
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
    pub fn table(&self, expected: &str, problems: &mut Problems) -> Option<Table<'a>> {
        match &self.node.value {
            Value::Map(_) => Some(Table { node: self.node, path: self.path.clone(), known: Vec::new() }),
            _ => {
                self.expected(expected, problems);
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
        self.known.push(key);
        let node = self.node.get(key).filter(|node| !matches!(node.value, Value::Null))?;
        Some(Field::new(node, below(&self.path, key)))
    }

    /// The value of a key that must be there.
    pub fn required(&mut self, key: &'static str, expected: &str, problems: &mut Problems) -> Option<Field<'a>> {
        let field = self.optional(key);
        if field.is_none() {
            self.problem(format!("missing key `{key}`, expected {expected}"), None, problems);
        }
        field
    }

    /// The key itself, for messages about its being there.
    pub fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.node.entries().iter().find(|entry| entry.key == key)
    }

    /// Notes a mistake that concerns the whole mapping.
    pub fn problem(&self, message: impl Into<String>, hint: Option<String>, problems: &mut Problems) {
        problems.push(self.node.span.clone(), self.path.clone(), message, hint);
    }

    /// Its key path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where it stands.
    pub fn span(&self) -> Span {
        self.node.span.clone()
    }

    /// Keys that were never asked for.
    pub fn left_over(&self) -> impl Iterator<Item = &'a Entry> + use<'a, '_> {
        self.node.entries().iter().filter(|entry| !self.known.contains(&entry.key.as_str()))
    }

    /// Reports every key that was never asked for.
    pub fn finish(self, problems: &mut Problems) {
        for entry in self.left_over() {
            unknown_key(entry, &self.path, &self.known, problems);
        }
    }

    /// The keys that were asked for.
    pub fn known(&self) -> &[&'static str] {
        &self.known
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
pub fn is_private(key: &str) -> bool {
    key.starts_with("x-") || key.starts_with("x_")
}
