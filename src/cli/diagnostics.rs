//! Findings on their way out: drawn on standard error for people, as JSON on standard output for tools.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use serde_json::{Value as Json, json};

use super::{Failure, print};
use crate::document::draw::{self, Style};
use crate::document::{Problem, Problems};

/// Findings that are drawn at most; JSON has all of them.
const MOST_SHOWN: usize = 100;

/// How to draw on standard error.
pub(super) fn style() -> Style {
    style_of(&io::stderr())
}

/// How to draw on standard output, where findings are what was asked for.
pub(super) fn style_of_stdout() -> Style {
    style_of(&io::stdout())
}

/// In colour on a terminal, unless NO_COLOR is set.
fn style_of(stream: &(impl IsTerminal + AsFd)) -> Style {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let width = rustix::termios::tcgetwinsize(stream).ok().map(|size| usize::from(size.ws_col));
    Style {
        colour: stream.is_terminal() && !no_colour,
        width: width.filter(|width| *width >= 40).unwrap_or(Style::default().width),
    }
}

/// Draws findings, and says where more is told about them.
pub(super) fn show(problems: &Problems) {
    if problems.is_empty() {
        return;
    }
    let mut text = draw::all(&Problems(problems.0.iter().take(MOST_SHOWN).cloned().collect()), style());
    if problems.0.len() > MOST_SHOWN {
        text += &format!("\n\n... and {} more", problems.0.len() - MOST_SHOWN);
    }
    if problems.has_errors() {
        let code = problems.errors().next().map(|problem| problem.code.id()).unwrap_or_default();
        text += &format!("\n\n{}; `mergesweep explain {code}` says more about a code", summary(problems));
    }
    // An empty line keeps warnings apart from what follows. Nothing can be done about a closed standard error.
    let gap = if problems.has_errors() { "" } else { "\n" };
    let _ = writeln!(io::stderr(), "{text}{gap}");
}

fn summary(problems: &Problems) -> String {
    let n_errors = problems.n_errors();
    let n_warnings = problems.0.len() - n_errors;
    let errors = super::counted(n_errors, "error");
    if n_warnings == 0 { errors } else { format!("{errors}, {}", super::counted(n_warnings, "warning")) }
}

/// The findings that made a command fail.
pub(super) fn of(failure: &Failure) -> Option<&Problems> {
    match failure {
        Failure::Usage(error) | Failure::Internal(error) | Failure::Busy(error) => error.downcast_ref(),
        Failure::Interrupted => None,
    }
}

/// Findings as a JSON document.
pub(super) fn document(problems: &Problems) -> Json {
    json!({ "diagnostics": draw::list_json(problems) })
}

/// Findings as events, one a line.
pub(super) fn events(problems: &Problems) -> io::Result<()> {
    problems.0.iter().try_for_each(|problem| print(&event(problem).to_string()))
}

fn event(problem: &Problem) -> Json {
    let mut event = draw::to_json(problem);
    if let Some(fields) = event.as_object_mut() {
        fields.shift_insert(0, "event".to_owned(), Json::from("diagnostic"));
    }
    event
}
