//! Reading a file into nodes: bytes, text, document. Which values it may hold is the readers' business.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Code, Format, Node, Problem, Problems, Source, Span, toml, yaml};

/// Deepest nesting of a document: far beyond any spec, far below what recursion over it can take.
pub(super) const MAX_DEPTH: usize = 60;

/// Most nodes of a document once its aliases are written out, so that a few lines cannot fill the memory.
pub(super) const MAX_NODES: usize = 200_000;

/// Longest key in bytes: the key path of everything below repeats it.
const MAX_KEY: usize = 1_000;

/// Notes a key that is too long.
pub(super) fn check_key(key: &str, span: &Span, problems: &mut Problems) {
    if key.len() > MAX_KEY {
        problems.push(
            Code::TooLarge,
            span.clone(),
            "",
            format!("a key of {} bytes, expected at most {MAX_KEY}", key.len()),
            None,
        );
    }
}

/// Reads a document from a file, in the language its ending says.
///
/// # Errors
/// Every syntax error, or the reason why the file cannot be read.
pub fn file(path: &Path) -> Result<Node, Problems> {
    let unreadable = |message: String, hint: Option<&str>| {
        let source = Arc::new(Source { path: path.to_owned(), text: String::new(), format: Format::of(path) });
        let span = Span { source, start: 0, end: 0 };
        Problems(vec![Problem::error(Code::Unreadable, span, "", message, hint.map(str::to_owned))])
    };
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unreadable("no such file".to_owned(), None),
        io::ErrorKind::IsADirectory => unreadable("is a folder, expected a file".to_owned(), None),
        _ => unreadable(format!("cannot be read: {error}"), None),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        unreadable(format!("not UTF-8: the byte at offset {at} fits no character"), Some("save the file as UTF-8"))
    })?;
    text_of(path, text)
}

/// Reads a document from text that stands for a file of that name.
///
/// # Errors
/// Every syntax error.
pub fn text_of(path: &Path, text: String) -> Result<Node, Problems> {
    // A byte order mark is no part of either language's text.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    source(&Arc::new(Source { path: path.to_owned(), text, format: Format::of(path) }))
}

/// Reads a document from a source.
///
/// # Errors
/// Every syntax error.
pub fn source(source: &Arc<Source>) -> Result<Node, Problems> {
    match source.format {
        Format::Toml => toml::parse(source),
        Format::Yaml => yaml::parse(source),
    }
}
