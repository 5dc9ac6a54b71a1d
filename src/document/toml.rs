//! TOML into nodes, by the `toml` crate's spanned tables.

use std::ops::Range;
use std::sync::Arc;

use ::toml::Spanned;
use ::toml::de::{DeString, DeTable, DeValue};

use super::{Entry, Node, Problems, Source, Span, Value};
use crate::config::Scalar;

/// Reads a TOML document. Syntax errors are recovered from, so that all of them are reported.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Problems> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let mut reader = Reader { source, problems: Problems::default() };
    for error in &errors {
        let span = reader.span(error.span().unwrap_or_default());
        // One slip often trips the parser again on the same line; the first message is the telling one.
        let line = |span: &Span| span.line_column().0;
        if reader.problems.0.iter().any(|seen| line(&seen.span) == line(&span)) {
            continue;
        }
        reader.problems.push(span, "", error.message(), None);
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let node = reader.table(document.span(), document.into_inner());
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

    fn table(&mut self, range: Range<usize>, table: DeTable<'_>) -> Node {
        let entries = table.into_iter().map(|(key, value)| self.entry(&key, value)).collect();
        Node { value: Value::Map(entries), span: self.span(range) }
    }

    fn entry(&mut self, key: &Spanned<DeString<'_>>, value: Spanned<DeValue<'_>>) -> Entry {
        Entry { key: key.get_ref().to_string(), key_span: self.span(key.span()), value: self.value(value) }
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let range = value.span();
        let span = self.span(range.clone());
        let scalar = match value.into_inner() {
            DeValue::Table(table) => return self.table(range, table),
            DeValue::Array(array) => {
                let items = array.into_iter().map(|item| self.value(item)).collect();
                return Node { value: Value::List(items), span };
            }
            DeValue::String(text) => Scalar::Text(text.into_owned()),
            DeValue::Boolean(value) => Scalar::Bool(value),
            // Nothing here is a date: whoever writes one meant a text, and is told so by what expects something else.
            DeValue::Datetime(date) => Scalar::Text(date.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Scalar::Int(value),
                Err(_) => {
                    self.problems.push(span.clone(), "", "whole number does not fit in 64 bits", None);
                    Scalar::Int(0)
                }
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => Scalar::Float(value),
                Err(_) => {
                    self.problems.push(span.clone(), "", "number cannot be read", None);
                    Scalar::Float(0.0)
                }
            },
        };
        Node { value: Value::Scalar(scalar), span }
    }
}
