//! How findings look: drawn with their line and a caret for people, as JSON for tools.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use super::{Problem, Problems, Severity};

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// With escape sequences for colours.
    pub colour: bool,
    /// Columns; longer source lines are cut around the place.
    pub width: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, width: 120 }
    }
}

/// Every finding, with an empty line between.
pub fn all(problems: &Problems, style: Style) -> String {
    let drawn: Vec<String> = problems.0.iter().map(|problem| one(problem, style)).collect();
    drawn.join("\n\n")
}

/// One finding: severity and code, message, file with line and column, the line, the hint.
pub fn one(problem: &Problem, style: Style) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let group = level.primary_title(problem.message.as_str()).id(problem.code.id());
    let path = problem.span.source.path.display().to_string();
    let text = &problem.span.source.text;
    let mut group = if text.is_empty() {
        group.element(Origin::path(path))
    } else {
        let (start, end) = problem.span.shown();
        let start = start.min(text.len());
        let line_start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let line = text.get(line_start..).and_then(|rest| rest.split('\n').next()).unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let end = (end - line_start).min(line.len());
        let mark = AnnotationKind::Primary.span((start - line_start).min(end)..end);
        let label = (!problem.key_path.is_empty()).then(|| problem.key_path.clone());
        let (line_number, _) = problem.span.line_column();
        group.element(Snippet::source(line).path(path).line_start(line_number).annotation(mark.label(label)))
    };
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
    }
    render(group, style)
}

/// Findings of one kind in one file as one: a title, every line with its caret and what is to be said about it, and each hint
/// once. `labels` has a text for every finding.
pub fn together(title: &str, problems: &[Problem], labels: &[&str], style: Style) -> String {
    let Some(first) = problems.first() else { return String::new() };
    let level = match first.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let source = &first.span.source;
    let mut snippet = Snippet::source(source.text.as_str()).path(source.path.display().to_string());
    for (index, (problem, label)) in problems.iter().zip(labels).enumerate() {
        let (start, end) = problem.span.shown();
        let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
        let end = end.min(source.text.len());
        snippet = snippet.annotation(kind.span(start.min(end)..end).label(*label));
    }
    let mut group = level.primary_title(title).id(first.code.id()).element(snippet);
    let mut told: Vec<&str> = Vec::new();
    for hint in problems.iter().filter_map(|problem| problem.hint.as_deref()) {
        if !told.contains(&hint) {
            told.push(hint);
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
    }
    render(group, style)
}

fn render(group: Group<'_>, style: Style) -> String {
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(style.width).render(&[group])
}

/// A finding as JSON. Lines and columns count from 1, columns in characters; `end` is behind the last one.
pub fn to_json(problem: &Problem) -> Json {
    let (line, column) = problem.span.line_column();
    let (end_line, end_column) = problem.span.shown_end();
    json!({
        "severity": problem.severity.name(),
        "code": problem.code.id(),
        "message": problem.message,
        "hint": problem.hint,
        "file": problem.span.source.path,
        "line": line,
        "column": column,
        "end": { "line": end_line, "column": end_column },
        "key": (!problem.key_path.is_empty()).then_some(&problem.key_path),
    })
}

/// All findings as a JSON list.
pub fn list_json(problems: &Problems) -> Json {
    problems.0.iter().map(to_json).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::document::{Code, Format, Source, Span, parse};

    fn at(text: &str, word: &str) -> Problem {
        let node = parse::text_of(Path::new("s.toml"), text.to_owned()).unwrap();
        let start = text.find(word).unwrap();
        let span = Span { start, end: start + word.len(), ..node.span };
        let hint = Some("did you mean `tasks`?".to_owned());
        Problem::error(Code::UnknownKey, span, "evaluate.taks", "unknown key `taks`", hint)
    }

    #[test]
    fn a_finding_shows_its_line_and_points_at_the_place() {
        let drawn = one(&at("# é\n[evaluate]\ntaks = []\n", "taks"), Style::default());
        assert_eq!(
            drawn,
            "error[E0101]: unknown key `taks`\n --> s.toml:3:1\n  |\n3 | taks = []\n  | ^^^^ evaluate.taks\n  |\n  = \
             hint: did you mean `tasks`?"
        );
    }

    #[test]
    fn findings_of_one_file_are_drawn_together_with_each_hint_once() {
        let text = "# é\n[evaluate]\ntaks = []\nlimt = 1\n";
        let problems = [at(text, "taks").as_warning(), at(text, "limt").as_warning()];
        assert_eq!(
            together("two slips", &problems, &["one", "another"], Style::default()),
            "warning[E0101]: two slips\n --> s.toml:3:1\n  |\n3 | taks = []\n  | ^^^^ one\n4 | limt = 1\n  | ---- another\n  |\n  = \
             hint: did you mean `tasks`?"
        );
    }

    #[test]
    fn lines_are_cut_and_control_characters_shown_not_sent() {
        let text = format!("a = '{}\u{1b}[31m'\r\nb = 1", "x".repeat(100_000));
        let source = Source { path: "s.toml".into(), text, format: Format::Toml };
        let source = std::sync::Arc::new(source);
        let span = Span { source, start: 100_004, end: 100_012 };
        let drawn = one(&Problem::error(Code::Syntax, span, "", "x", None), Style::default());
        assert!(!drawn.contains('\u{1b}') && drawn.lines().all(|line| line.chars().count() < 200), "{drawn}");
    }

    #[test]
    fn json_counts_characters_from_one() {
        let json = to_json(&at("x = 1\ntaks = 1", "taks"));
        assert_eq!((json["line"].as_u64(), json["column"].as_u64()), (Some(2), Some(1)));
        assert_eq!(json["end"]["column"], 5);
        assert_eq!(json["code"], "E0101");
    }
}
