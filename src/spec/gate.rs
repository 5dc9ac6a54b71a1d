//! `report` and `gate`: which trial the others are compared with, and how much worse a nightly run may be.

use super::keys;
use crate::config::Scalar;
use crate::document::read::{Field, listed, nearest};
use crate::document::{Code, Node, Problem, Problems, Span, Value};
use crate::eval::Settings;
use crate::eval::task::{self, Column};

/// `report`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// `reference`: the trial that every other one is compared with, named before results are seen.
    pub reference: Option<String>,
}

/// `gate`: margins of `freeze` and `check`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gate {
    /// `margin`: how much worse any column without a margin of its own may be.
    pub margin: Option<f64>,
    /// `margins`, by column or task, in the unit of the score (0.05 of an accuracy is 5 points).
    pub margins: Vec<(String, f64)>,
    /// `advisory`: columns or tasks that are shown and decide nothing.
    pub advisory: Vec<String>,
}

impl Gate {
    /// The margin of a column of a task.
    pub fn margin_of(&self, column: &str, task: &str) -> Option<f64> {
        let named = |name: &str| self.margins.iter().find(|(of, _)| of == name).map(|(_, margin)| *margin);
        named(column).or_else(|| named(task)).or(self.margin)
    }

    /// Whether a column decides: it has a margin and is not advisory.
    pub fn is_critical(&self, column: &str, task: &str) -> bool {
        self.margin_of(column, task).is_some() && !self.advisory.iter().any(|name| name == column || name == task)
    }
}

/// Reads `report`.
pub fn report(field: Option<&Field<'_>>, problems: &mut Problems) -> Report {
    let mut report = Report::default();
    let Some(mut table) = field.and_then(|field| field.table(&keys::REPORT, problems)) else {
        return report;
    };
    if let Some(field) = table.optional("reference") {
        report.reference = field.text(problems).map(str::to_owned);
    }
    table.finish(problems);
    report
}

/// Reads `gate`.
pub fn gate(field: Option<&Field<'_>>, problems: &mut Problems) -> Gate {
    let mut gate = Gate::default();
    let Some(mut table) = field.and_then(|field| field.table(&keys::GATE, problems)) else {
        return gate;
    };
    if let Some(field) = table.optional("margin") {
        gate.margin = margin(&field, problems);
    }
    if let Some(field) = table.optional("margins") {
        let entries = field.entries("margins by column or task: `{ arc100_acc = 0.05 }`", problems);
        for (entry, field) in entries.unwrap_or_default() {
            if let Some(margin) = margin(&field, problems) {
                gate.margins.push((entry.key.clone(), margin));
            }
        }
    }
    if let Some(field) = table.optional("advisory") {
        let items = field.list("a list of columns or tasks", problems).unwrap_or_default();
        gate.advisory = items.iter().filter_map(|item| item.text(problems).map(str::to_owned)).collect();
    }
    table.finish(problems);
    gate
}

fn margin(field: &Field<'_>, problems: &mut Problems) -> Option<f64> {
    let value = match &field.node.value {
        Value::Scalar(number @ (Scalar::Int(_) | Scalar::Float(_))) => number.as_float(),
        _ => None,
    };
    // One that is not above 0 nothing could pass, whatever its column.
    let value = value.filter(|margin| *margin > 0.0 && margin.is_finite());
    if value.is_none() {
        field.expected("a number above 0, in the unit of the score (0.05 of an accuracy is 5 points)", problems);
    }
    value
}

/// Checks the names of a gate before anything has run. `document` is the whole spec.
pub fn check(document: &Node, settings: &Settings, problems: &mut Problems) {
    let columns = task::columns(&settings.tasks, &[]);
    let names = settings.tasks.iter().map(|task| task.name.as_str());
    // Whose columns only results tell: a name may be of one of these, or of a task of theirs where they are groups.
    let open: Vec<&str> = names.clone().filter(|name| !columns.iter().any(|column| column.task == *name)).collect();
    let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).chain(names).collect();
    for (name, problem) in unknown_names(document, &known) {
        let is_of_open = |task: &&str| name.strip_prefix(*task).is_some_and(|rest| rest.starts_with('_'));
        if open.iter().any(is_of_open) || known.is_empty() {
            continue;
        }
        let is_slip = open.is_empty() || nearest(name, known.iter().copied()).is_some();
        problems.0.push(if is_slip { problem } else { problem.as_warning() });
    }
}

/// What the gate names and is none of these columns and tasks: it would decide nothing.
pub fn unknown_names<'a>(document: &'a Node, known: &[&str]) -> Vec<(&'a str, Problem)> {
    let Some(gate) = document.get("gate") else { return Vec::new() };
    let margins = gate.get("margins").map(Node::entries).unwrap_or_default();
    let margins = margins.iter().map(|entry| (entry.key.as_str(), &entry.key_span));
    let advisory = match gate.get("advisory").map(|advisory| &advisory.value) {
        Some(Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    let advisory = advisory.iter().filter_map(|item| Some((item.as_text()?, &item.span)));
    let mut distinct: Vec<&str> = Vec::new();
    for name in known {
        if !distinct.contains(name) {
            distinct.push(name);
        }
    }
    let unknown = margins.chain(advisory).filter(|(name, _)| !known.contains(name));
    unknown
        .map(|(name, span)| {
            let message = format!("`gate` names `{name}`, which is no column or task");
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there is {}", listed(distinct.iter().copied())),
            };
            (name, Problem::error(Code::GateColumn, span.clone(), path_of(document, span), message, Some(hint)))
        })
        .collect()
}

/// What is wrong with the margin of a column, where it stands.
pub fn at_margin(document: &Node, column: &Column, message: String) -> Problem {
    let gate = document.get("gate").unwrap_or(document);
    let own = |name: &str| gate.get("margins")?.get(name);
    let node = own(&column.name).or_else(|| own(&column.task)).or_else(|| gate.get("margin")).unwrap_or(gate);
    Problem::error(Code::GateMargin, node.span.clone(), path_of(document, &node.span), message, None)
}

fn path_of(document: &Node, span: &Span) -> String {
    document.path_of(span).map(|path| path.to_string()).unwrap_or_default()
}
