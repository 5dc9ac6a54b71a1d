//! `report` and `gate`: which trial the others are compared with, and how much worse a nightly run may be.

use super::keys;
use crate::config::Scalar;
use crate::document::read::Field;
use crate::document::{Problems, Value};

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

    /// A margin that nothing could pass whatever its column: one that is not above 0.
    pub fn without_room(&self) -> Option<(&str, f64)> {
        let all = self.margins.iter().map(|(name, margin)| (name.as_str(), *margin));
        let mut all = all.chain(self.margin.map(|margin| ("margin", margin)));
        all.find(|(_, margin)| !(*margin > 0.0 && margin.is_finite()))
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
    if value.is_none() {
        field.expected("a number, in the unit of the score (0.05 of an accuracy is 5 points)", problems);
    }
    value
}
