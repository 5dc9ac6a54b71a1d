//! TOML into nodes, by the `toml` crate's spanned tables.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use ::toml::Spanned;
use ::toml::de::{DeString, DeTable, DeValue};

use super::parse::{MAX_DEPTH, check_key};
use super::{Code, Entry, Node, Problems, Source, Span, Value};
use crate::config::Scalar;

/// Reads a TOML document. Syntax errors are recovered from, so that all of them are reported.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Problems> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader { source, problems: Problems::default() };
    let mut lines = HashSet::new();
    for error in &errors {
        let span = reader.span(error.span().unwrap_or_default());
        // One slip often trips the parser again on the same line; the first message is the telling one.
        if lines.insert(span.line_column().0) {
            // The crate has no other mark of it than its words.
            let (code, hint) = match error.message() {
                "duplicate key" => (Code::DuplicateKey, Some("keep one of the two".to_owned())),
                _ => (Code::Syntax, None),
            };
            reader.problems.push(code, span, "", error.message(), hint);
        }
    }
    if !reader.problems.is_empty() {
        dismantle(DeValue::Table(document.into_inner()));
        return Err(reader.problems);
    }
    let node = reader.table(document.span(), document.into_inner(), 0);
    if reader.problems.is_empty() { Ok(node) } else { Err(reader.problems) }
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    problems: Problems,
}

impl Reader<'_> {
    fn span(&self, range: Range<usize>) -> Span {
        Span { source: self.source.clone(), start: range.start, end: range.end }
    }

    /// `depth` counts the collections around it.
    fn table(&mut self, range: Range<usize>, table: DeTable<'_>, depth: usize) -> Node {
        let entries = table.into_iter().map(|(key, value)| self.entry(&key, value, depth + 1)).collect();
        Node { value: Value::Map(entries), span: self.span(range) }
    }

    fn entry(&mut self, key: &Spanned<DeString<'_>>, value: Spanned<DeValue<'_>>, depth: usize) -> Entry {
        let key_span = self.span(key.span());
        check_key(key.get_ref(), &key_span, &mut self.problems);
        Entry { key: key.get_ref().to_string(), key_span, value: self.value(value, depth) }
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>, depth: usize) -> Node {
        let range = value.span();
        let span = self.span(range.clone());
        let scalar = match value.into_inner() {
            // The parser limits brackets and dotted keys each by itself, not what both make of each other.
            deep @ (DeValue::Table(_) | DeValue::Array(_)) if depth >= MAX_DEPTH => {
                self.problems.push(
                    Code::TooLarge,
                    span.clone(),
                    "",
                    format!("nested deeper than {MAX_DEPTH} levels"),
                    None,
                );
                dismantle(deep);
                return Node { value: Value::Null, span };
            }
            DeValue::Table(table) => return self.table(range, table, depth),
            DeValue::Array(array) => {
                let items = array.into_iter().map(|item| self.value(item, depth + 1)).collect();
                return Node { value: Value::List(items), span };
            }
            DeValue::String(text) => Scalar::Text(text.into_owned()),
            DeValue::Boolean(value) => Scalar::Bool(value),
            // Nothing here is a date: whoever writes one meant a text, and is told so by what expects something else.
            DeValue::Datetime(date) => Scalar::Text(date.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Scalar::Int(value),
                Err(_) => {
                    self.problems.push(Code::Syntax, span.clone(), "", "whole number does not fit in 64 bits", None);
                    Scalar::Int(0)
                }
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => Scalar::Float(value),
                Err(_) => {
                    self.problems.push(Code::Syntax, span.clone(), "", "number cannot be read", None);
                    Scalar::Float(0.0)
                }
            },
        };
        Node { value: Value::Scalar(scalar), span }
    }
}

/// Takes a value apart level by level: dropped whole, it would take stack for each level.
fn dismantle(value: DeValue<'_>) {
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            DeValue::Table(table) => rest.extend(table.into_iter().map(|(_, value)| value.into_inner())),
            DeValue::Array(items) => rest.extend(items.into_iter().map(Spanned::into_inner)),
            _ => {}
        }
    }
}
