//! Places in a document, as a text: `slices[0].sources[1].parameters.weight`.

use std::fmt;

use super::parse::MAX_DEPTH;
use super::{Entry, Node, Span, Value};

/// A place, from the top of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DocumentPath(pub Vec<Step>);

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list, counted from 0.
    Index(usize),
}

/// Why nothing can be put at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// A list is too short.
    #[error("`{path}` does not exist: the list has {length} entries, counted from 0")]
    TooShort {
        /// The place that does not exist.
        path: DocumentPath,
        /// Length of the list.
        length: usize,
    },
    /// A step goes into something that has no such parts.
    #[error("`{path}` does not exist: `{parent}` is {found}, not {expected}")]
    NotThatKind {
        /// The place that does not exist.
        path: DocumentPath,
        /// The place above it.
        parent: DocumentPath,
        /// What stands there.
        found: &'static str,
        /// What would have to.
        expected: &'static str,
    },
}

impl DocumentPath {
    /// Reads `a.b[0].c`; `None` where the text is no path, or one that leads deeper than any document.
    pub fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (key, mut indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
            // `parameters.t[1][0]` is fine, `[1]` alone only behind a key.
            if key.is_empty() {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            while !indexes.is_empty() {
                let (index, rest) = indexes.strip_prefix('[')?.split_once(']')?;
                steps.push(Step::Index(index.parse().ok()?));
                indexes = rest;
            }
        }
        (steps.len() <= MAX_DEPTH).then_some(Self(steps))
    }

    /// The place of a key below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(self.0.iter().cloned().chain([Step::Key(key.to_owned())]).collect())
    }

    /// The place of a list entry below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(self.0.iter().cloned().chain([Step::Index(index)]).collect())
    }

    /// The place that further steps lead to.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
    }
}

impl fmt::Display for DocumentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// Puts a value at a place. Keys on the way are created, list entries are not.
    ///
    /// # Errors
    /// [`PutError`] where the place cannot exist.
    pub fn put(&mut self, path: &DocumentPath, value: Self) -> Result<(), PutError> {
        let mut here = self;
        for (depth, step) in path.0.iter().enumerate() {
            let upto = |n: usize| DocumentPath(path.0[..n].to_vec());
            let found = here.value.kind();
            let wrong =
                |expected| PutError::NotThatKind { path: upto(depth + 1), parent: upto(depth), found, expected };
            here = match step {
                Step::Key(key) => {
                    if matches!(here.value, Value::Null) {
                        here.value = Value::Map(Vec::new());
                    }
                    let Value::Map(entries) = &mut here.value else { return Err(wrong("a table")) };
                    let position = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
                        let below = Self { value: Value::Null, span: value.span.clone() };
                        entries.push(Entry { key: key.clone(), key_span: value.span.clone(), value: below });
                        entries.len() - 1
                    });
                    &mut entries[position].value
                }
                Step::Index(index) => {
                    let Value::List(items) = &mut here.value else { return Err(wrong("a list")) };
                    let length = items.len();
                    let Some(item) = items.get_mut(*index) else {
                        return Err(PutError::TooShort { path: upto(depth + 1), length });
                    };
                    item
                }
            };
        }
        *here = value;
        Ok(())
    }

    /// The place in this document of the key or value that covers exactly this stretch of its source.
    pub fn path_of(&self, span: &Span) -> Option<DocumentPath> {
        let mut steps = Vec::new();
        self.find(span, &mut steps).then_some(DocumentPath(steps))
    }

    fn find(&self, span: &Span, steps: &mut Vec<Step>) -> bool {
        // What stands deeper is the better answer: TOML gives a table the span of its header or first key.
        match &self.value {
            Value::Map(entries) => {
                for entry in entries {
                    steps.push(Step::Key(entry.key.clone()));
                    if entry.value.find(span, steps) || entry.key_span.same_as(span) {
                        return true;
                    }
                    steps.pop();
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    steps.push(Step::Index(index));
                    if item.find(span, steps) {
                        return true;
                    }
                    steps.pop();
                }
            }
            _ => {}
        }
        self.span.same_as(span)
    }
}
