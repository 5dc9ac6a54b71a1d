//! YAML 1.2 into nodes, by `saphyr-parser`'s events: aliases written out, `<<` merge keys applied, plain scalars
//! resolved by the core schema.
//!
//! Where PyYAML would read a plain scalar differently is for `document::pyyaml` to say.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::parse::{MAX_DEPTH, MAX_NODES, check_key};
use super::{Code, Entry, Node, Problems, Source, Span, Value};
use crate::config::Scalar;

/// Reads a YAML file of one document. An empty file is `Null`.
pub(super) fn parse(source: &Arc<Source>) -> Result<Node, Problems> {
    let mut reader = Reader::new(source);
    let mut parser = Parser::new_from_str(&source.text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                reader.syntax_error(&error);
                break;
            }
        };
        let span = reader.span(span);
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                reader.problems.push(Code::Syntax, span, "", "a second document starts here, expected one", None);
                break;
            }
        } else if !reader.event(event, span) {
            break;
        }
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let span = Span { source: source.clone(), start: 0, end: 0 };
    Ok(reader.root.unwrap_or(Node { value: Value::Null, span }))
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    span: Span,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Values of plain `<<` keys, taken in once the mapping is whole: own keys win wherever they stand.
        merged: Vec<Node>,
        key: Option<Key>,
    },
}

/// A key whose value has not come yet.
struct Key {
    text: String,
    span: Span,
    /// A plain `<<`.
    merge: bool,
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    /// Byte offset of every character; empty where they are the same (the parser counts characters).
    offsets: Vec<usize>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    /// Nodes made so far, the copies for anchors and aliases among them.
    n_nodes: usize,
    root: Option<Node>,
    problems: Problems,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Arc<Source>) -> Self {
        let text = &source.text;
        let offsets =
            if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(offset, _)| offset).collect() };
        let (open, anchors, problems) = (Vec::new(), HashMap::new(), Problems::default());
        Self { source, offsets, open, anchors, n_nodes: 0, root: None, problems }
    }

    fn offset(&self, character: usize) -> usize {
        let end = self.source.text.len();
        if self.offsets.is_empty() { character.min(end) } else { self.offsets.get(character).copied().unwrap_or(end) }
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, end) = (self.offset(span.start.index()), self.offset(span.end.index()));
        Span { source: self.source.clone(), start, end: end.max(start) }
    }

    fn syntax_error(&mut self, error: &ScanError) {
        let start = self.offset(error.marker().index());
        if let Some((at, colon, end)) = unspaced_colon(&self.source.text[..start]) {
            let span = Span { source: self.source.clone(), start: at, end };
            let (key, value) = (&self.source.text[at..colon], &self.source.text[colon + 1..end]);
            let hint = Some(format!("write `{key}: {value}`"));
            self.problems.push(Code::Syntax, span, "", "no space behind the colon of a key", hint);
            return;
        }
        let span = Span { source: self.source.clone(), start, end: start };
        let hint = self.source.text[..start]
            .rsplit('\n')
            .next()
            .is_some_and(|line| line.trim_start_matches(' ').starts_with('\t'));
        let hint = hint.then(|| "indent with spaces: YAML allows no tabs there".to_owned());
        let anchor =
            || "`*name` repeats what stands behind `&name` further up; a text that starts with `*` needs quotes";
        let hint = hint.or_else(|| error.info().contains("anchor").then(|| anchor().to_owned()));
        self.problems.push(Code::Syntax, span, "", error.info(), hint);
    }

    /// Takes one event; `false` where reading on makes no sense.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                let value = self.scalar(&text, style, tag.as_deref(), &span);
                if self.expects_key() {
                    self.key(&text, &value, span, merge)
                } else {
                    let node = Node { value, span };
                    self.grow(node.size(), &node.span) && self.finish(node, anchor)
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag, "seq", &span);
                self.start(anchor, span, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag, "map", &span);
                self.start(anchor, span, Content::Map { entries: Vec::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => true,
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn start(&mut self, anchor: usize, span: Span, content: Content) -> bool {
        if self.expects_key() {
            self.problems.push(Code::Syntax, span, "", "a list or mapping as a key, expected a text", None);
            return false;
        }
        if self.open.len() >= MAX_DEPTH {
            self.problems.push(Code::TooLarge, span, "", format!("nested deeper than {MAX_DEPTH} levels"), None);
            return false;
        }
        let has_room = self.grow(1, &span);
        self.open.push(Open { anchor, span, content });
        has_room
    }

    /// Counts nodes that are about to be made; `false` where they are too many.
    fn grow(&mut self, n_nodes: usize, span: &Span) -> bool {
        self.n_nodes += n_nodes;
        if self.n_nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values once aliases are written out");
            self.problems.push(Code::TooLarge, span.clone(), "", message, None);
        }
        self.n_nodes <= MAX_NODES
    }

    fn end(&mut self, end: Span) -> bool {
        let Some(Open { anchor, span, content }) = self.open.pop() else { return false };
        let (value, end) = match content {
            // A block collection ends where the next token starts; its last value is a better end.
            Content::List(items) => {
                let last = items.last().map(|item| item.span.end);
                (Value::List(items), last.unwrap_or(end.end))
            }
            Content::Map { entries, merged, .. } => {
                let last = entries.last().map(|entry| entry.value.span.end);
                (Value::Map(self.with_merged(merged, entries)), last.unwrap_or(end.end))
            }
        };
        let end = end.max(span.start);
        self.finish(Node { value, span: Span { end, ..span } }, anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> bool {
        let Some(n_nodes) = self.anchors.get(&anchor).map(Node::size) else {
            // The parser refuses names it does not know: this one is still open.
            self.problems.push(Code::Syntax, span, "", "an alias inside the very value it names", None);
            return false;
        };
        if !self.grow(n_nodes, &span) {
            return false;
        }
        let node = self.anchors[&anchor].clone();
        if !self.expects_key() {
            return self.finish(node, 0);
        }
        match &node.value {
            Value::Scalar(scalar) => {
                let text = scalar.to_string();
                self.key(&text, &node.value, span, false)
            }
            _ => {
                self.problems.push(Code::Syntax, span, "", "a list or mapping as a key, expected a text", None);
                false
            }
        }
    }

    fn key(&mut self, text: &str, value: &Value, span: Span, merge: bool) -> bool {
        if matches!(value, Value::Null) {
            self.problems.push(Code::Syntax, span.clone(), "", "an empty key, expected a text", None);
        }
        let Some(Open { content: Content::Map { entries, key, .. }, .. }) = self.open.last_mut() else { return false };
        if let Some(first) = entries.iter().find(|entry| entry.key == text) {
            let (line, _) = first.key_span.line_column();
            let message = format!("key `{text}` stands twice, first on line {line}");
            let hint = Some("keep one of the two".to_owned());
            self.problems.push(Code::DuplicateKey, span.clone(), "", message, hint);
        }
        check_key(text, &span, &mut self.problems);
        *key = Some(Key { text: text.to_owned(), span, merge });
        true
    }

    /// Puts a whole value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> bool {
        if anchor != 0 {
            if !self.grow(node.size(), &node.span) {
                return false;
            }
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return true;
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, merged, key } => {
                let Some(Key { text, span, merge }) = key.take() else { return false };
                if merge {
                    merged.push(node);
                } else {
                    entries.push(Entry { key: text, key_span: span, value: node });
                }
            }
        }
        true
    }

    /// The entries of a mapping behind those that its `<<` keys bring in.
    fn with_merged(&mut self, merged: Vec<Node>, own: Vec<Entry>) -> Vec<Entry> {
        let mut brought: Vec<Entry> = Vec::new();
        let tables = merged.into_iter().flat_map(|node| match node.value {
            Value::List(items) => items,
            _ => vec![node],
        });
        for table in tables {
            let Value::Map(entries) = table.value else {
                let message = format!("`<<` merges a mapping or a list of mappings, found {}", table.value.kind());
                self.problems.push(Code::Syntax, table.span, "", message, None);
                continue;
            };
            for entry in entries {
                if !own.iter().chain(&brought).any(|present| present.key == entry.key) {
                    brought.push(entry);
                }
            }
        }
        brought.extend(own);
        brought
    }

    fn collection_tag(&mut self, tag: Option<Cow<'_, Tag>>, expected: &str, span: &Span) {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == expected)) {
            self.unknown_tag(&tag, span);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, span: &Span) {
        let hint = Some("leave the tag out".to_owned());
        self.problems.push(Code::Syntax, span.clone(), "", format!("tag `{tag}` means nothing here"), hint);
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Value {
        let Some(tag) = tag else {
            return if style == ScalarStyle::Plain {
                resolve(text)
            } else {
                Value::Scalar(Scalar::Text(text.to_owned()))
            };
        };
        let resolved = resolve(text);
        // A lone `!` says that the scalar is a text.
        let core = tag.is_yaml_core_schema() || (tag.handle.is_empty() && tag.suffix == "!");
        let value = match tag.suffix.as_str() {
            _ if !core => None,
            "str" | "!" => Some(Value::Scalar(Scalar::Text(text.to_owned()))),
            "float" => match &resolved {
                Value::Scalar(Scalar::Int(value)) => Some(Value::Scalar(Scalar::Float(*value as f64))),
                Value::Scalar(Scalar::Float(_)) => Some(resolved),
                _ => None,
            },
            "int" => Some(resolved).filter(|value| matches!(value, Value::Scalar(Scalar::Int(_)))),
            "bool" => Some(resolved).filter(|value| matches!(value, Value::Scalar(Scalar::Bool(_)))),
            "null" => Some(resolved).filter(|value| matches!(value, Value::Null)),
            _ => None,
        };
        value.unwrap_or_else(|| {
            self.unknown_tag(tag, span);
            Value::Null
        })
    }
}

/// Start, colon and end of the last line before a syntax error, where it is a key whose colon has no space behind it: the
/// parser only stumbles over the line after.
fn unspaced_colon(before: &str) -> Option<(usize, usize, usize)> {
    let whole = before.trim_end();
    let line_start = whole.rfind('\n').map_or(0, |newline| newline + 1);
    let line = &whole[line_start..];
    let key_start = line_start + line.len() - line.trim_start_matches([' ', '-']).len();
    let line = &whole[key_start..];
    let colon = line.find(':')?;
    let is_key = line[..colon].chars().all(|letter| letter.is_alphanumeric() || letter == '_') && colon > 0;
    let is_unspaced = line[colon + 1..].starts_with(|letter: char| !letter.is_whitespace() && letter != '/');
    (is_key && is_unspaced && !line.contains(": ")).then_some((key_start, key_start + colon, whole.len()))
}

/// The value of a plain scalar in the core schema of YAML 1.2.
pub(super) fn resolve(text: &str) -> Value {
    let scalar = match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => Scalar::Bool(true),
        "false" | "False" | "FALSE" => Scalar::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        _ => number(text).unwrap_or_else(|| Scalar::Text(text.to_owned())),
    };
    Value::Scalar(scalar)
}

fn number(text: &str) -> Option<Scalar> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let all_digits = digits.chars().all(|digit| digit.is_digit(radix));
            return all_digits.then(|| i64::from_str_radix(digits, radix).ok()).flatten().map(Scalar::Int);
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        // A whole number beyond 64 bits is still a number.
        return Some(text.parse().map(Scalar::Int).unwrap_or(Scalar::Float(text.parse().ok()?)));
    }
    // What is left of the schema is what Rust reads as a float, without its words for infinity and NaN.
    let starts = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    starts.then(|| text.parse().ok()).flatten().map(Scalar::Float)
}
