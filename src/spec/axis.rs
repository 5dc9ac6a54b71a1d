//! Axes: lists of values and decimal ranges, with what they set.

use super::decimal::range;
use super::target::target;
use super::{AxisHead, AxisValue, ModelNames, Target, keys};
use crate::config::Scalar;
use crate::document::read::Field;
use crate::document::{Code, Entry, Node, Problems, Value};

/// An axis with its values.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Name and target.
    pub head: AxisHead,
    /// Values, at least one, each once.
    pub values: Vec<AxisValue>,
}

/// What axes are read against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The document they put values into.
    pub document: &'a Node,
    /// What models are called.
    pub names: ModelNames<'a>,
}

const VALUES: &str = "a list of values or `{ from, to, step }`";

/// Reads a table of axes (`grid`, `zip`). A table that defines no axis is a prefix of names: `grid.code.weight`.
pub fn axes(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Vec<Axis> {
    let mut found = Vec::new();
    collect(field, "", context, &mut found, problems);
    found
}

fn collect(field: &Field<'_>, prefix: &str, context: Context<'_>, found: &mut Vec<Axis>, problems: &mut Problems) {
    let entries = field.entries("a table of axes, such as `t = [0.3, 0.5]`", problems).unwrap_or_default();
    if entries.is_empty() && matches!(field.node.value, Value::Map(_)) {
        field.problem(Code::Empty, "expected at least one axis, found none", None, problems);
    }
    for (entry, field) in entries {
        let name = if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
        let defines = field.node.entries().iter().any(|entry| keys::AXIS.key(&entry.key).is_some());
        if matches!(field.node.value, Value::Map(_)) && !defines {
            collect(&field, &name, context, found, problems);
        } else if let Some(axis) = axis(entry, name, &field, context, problems) {
            found.push(axis);
        }
    }
}

fn axis(entry: &Entry, name: String, field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Axis> {
    let (values, path) = match &field.node.value {
        Value::List(_) => (listed_values(field, problems), None),
        Value::Map(_) => defined(field, problems)?,
        _ => {
            let hint = Some("a value that does not vary belongs into the merge itself".to_owned());
            let found = field.node.value.kind();
            field.problem(Code::WrongValue, format!("expected {VALUES}, found {found}"), hint, problems);
            return None;
        }
    };
    let paths = path.as_ref().map_or_else(Vec::new, |path| texts(path, problems));
    let named = head(entry, name, &field.path, context, &paths, problems);
    let values = values?;
    let head = named?;
    // A range has each value once, and may have many.
    let listed = field.node.get("from").is_none();
    let mut kept: Vec<AxisValue> = Vec::new();
    for value in values {
        if head.target == Target::Seed && Field::new(&value.value, field.path.clone()).whole(0, problems).is_none() {
            continue;
        }
        if listed && kept.iter().any(|earlier| same(&earlier.value, &value.value)) {
            let message = format!("value `{}` stands twice in axis `{}`", value.shown, head.name);
            let hint = Some("keep one: the same value gives the same merge".to_owned());
            problems.push(Code::ListedTwice, value.value.span.clone(), field.path.clone(), message, hint);
        } else {
            kept.push(value);
        }
    }
    Some(Axis { head, values: kept })
}

/// Resolves what an axis sets.
pub fn head(
    entry: &Entry,
    name: String,
    key_path: &str,
    context: Context<'_>,
    paths: &[Field<'_>],
    problems: &mut Problems,
) -> Option<AxisHead> {
    let mut targets = Vec::new();
    let own = Field::new(&entry.value, key_path);
    let name_only = paths.is_empty().then_some((name.as_str(), &own));
    let given = paths.iter().filter_map(|field| Some((field.node.as_text()?, field)));
    for (text, field) in name_only.into_iter().chain(given) {
        match target(text, context.document, &context.names) {
            Ok(target) => targets.push(target),
            Err(error) => {
                let span = if paths.is_empty() { entry.key_span.clone() } else { field.span() };
                problems.push(Code::NoPlace, span, field.path.clone(), error.message, Some(error.hint));
                return None;
            }
        }
    }
    let target = if targets.contains(&Target::Seed) {
        Target::Seed
    } else {
        Target::Places(
            targets
                .into_iter()
                .flat_map(|target| match target {
                    Target::Places(places) => places,
                    Target::Seed => Vec::new(),
                })
                .collect(),
        )
    };
    Some(AxisHead { name, span: entry.key_span.clone(), key_path: key_path.to_owned(), target })
}

/// One text, or several.
fn texts<'a>(field: &Field<'a>, problems: &mut Problems) -> Vec<Field<'a>> {
    let fields = match &field.node.value {
        Value::List(_) => field.list("a path", problems).unwrap_or_default(),
        _ => vec![field.clone()],
    };
    fields.into_iter().filter(|field| field.text(problems).is_some()).collect()
}

fn listed_values(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<AxisValue>> {
    let items = field.list(VALUES, problems)?;
    if items.is_empty() {
        field.problem(Code::Empty, "expected at least one value, found an empty list", None, problems);
        return None;
    }
    Some(items.iter().map(|item| value(item.node)).collect())
}

/// `{ path?, values }` or `{ path?, from, to, step }`.
fn defined<'a>(field: &Field<'a>, problems: &mut Problems) -> Option<(Option<Vec<AxisValue>>, Option<Field<'a>>)> {
    let mut table = field.table(&keys::AXIS, problems)?;
    let path = table.optional("path");
    let values = table.optional("values");
    let bounds = [table.optional("from"), table.optional("to"), table.optional("step")];
    let ranged = bounds.iter().any(Option::is_some);
    let missing: Vec<&str> = ["from", "to", "step"]
        .into_iter()
        .zip(&bounds)
        .filter(|(_, bound)| bound.is_none())
        .map(|(name, _)| name)
        .collect();
    table.finish(problems);
    let values = match (values, bounds) {
        (Some(values), _) if ranged => {
            values.problem(Code::Conflict, "expected `values` or `from`, `to`, `step`, found both", None, problems);
            None
        }
        (Some(values), _) => listed_values(&values, problems),
        (None, [Some(from), Some(to), Some(step)]) => ranged_values(field, [&from, &to, &step], problems),
        (None, _) if ranged => {
            let missing = crate::document::read::listed(missing);
            let hint = Some("for example `{ from = 0.1, to = 0.9, step = 0.1 }`; both ends are included".to_owned());
            let message = format!("a range has `from`, `to` and `step`, missing {missing}");
            field.problem(Code::MissingKey, message, hint, problems);
            None
        }
        (None, _) => {
            field.problem(Code::MissingKey, format!("missing values, expected {VALUES}"), None, problems);
            None
        }
    };
    Some((values, path))
}

fn ranged_values(field: &Field<'_>, bounds: [&Field<'_>; 3], problems: &mut Problems) -> Option<Vec<AxisValue>> {
    let numbers = bounds.map(|bound| match &bound.node.value {
        Value::Scalar(number @ (Scalar::Int(_) | Scalar::Float(_))) => Some(number),
        _ => {
            bound.expected("a number", problems);
            None
        }
    });
    let [Some(from), Some(to), Some(step)] = numbers else { return None };
    match range(from, to, step) {
        Ok(values) => Some(values.into_iter().map(|number| spanned(number, field.node)).collect()),
        Err(error) => {
            let hint = match &error {
                super::decimal::RangeError::Missed { last, next, .. } => {
                    Some(format!("end at {last} or {next}, or choose a step that divides the range"))
                }
                super::decimal::RangeError::Away { .. } => {
                    Some("swap `from` and `to`, or change the sign of `step`".to_owned())
                }
                _ => None,
            };
            field.problem(Code::Range, error.to_string(), hint, problems);
            None
        }
    }
}

fn spanned(number: Scalar, range: &Node) -> AxisValue {
    AxisValue { value: Node { value: Value::Scalar(number.clone()), span: range.span.clone() }, shown: number }
}

/// A value of an axis, as it stands.
pub fn value(node: &Node) -> AxisValue {
    let shown = match &node.value {
        Value::Scalar(scalar) => scalar.clone(),
        _ => Scalar::Text(shown(node)),
    };
    AxisValue { value: node.clone(), shown }
}

/// A gradient or conditional on one line.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar(scalar) => scalar.to_string(),
        Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|entry| format!("{}: {}", entry.key, shown(&entry.value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Whether two values are the same, however their numbers are written.
pub fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(a), Value::Scalar(b)) => match (a, b) {
            (Scalar::Int(_) | Scalar::Float(_), Scalar::Int(_) | Scalar::Float(_)) => a.as_float() == b.as_float(),
            _ => a == b,
        },
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.value, &b.value))
        }
        _ => false,
    }
}
