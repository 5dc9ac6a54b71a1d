//! `parameters` mappings: scalars, gradients and conditionals, checked against the method that will read them.

use super::method::{Kind, METHODS, Method, ParameterSpec};
use super::parse::Parser;
use super::{Parameters, Scalar, Setting, keys, parameter::Case};
use crate::document::read::{Field, listed, nearest};
use crate::document::{Code, Format, Problem, Value, pyyaml};

const SETTING: &str = "a value, a gradient (list of values) or `{filter, value}` entries";

/// Reads one `parameters` mapping.
pub(super) fn parameters(parser: &mut Parser<'_>, field: &Field<'_>, method: Option<Method>) -> Parameters {
    let entries = field.entries("parameters (a mapping)", &mut parser.problems).unwrap_or_default();
    let mut parameters = Parameters::new();
    for (entry, field) in entries {
        let row = method.and_then(|method| method.parameter(&entry.key));
        if let Some(method) = method.filter(|_| row.is_none()) {
            let (message, hint) = unread(&entry.key, method);
            parser.parameters_unclear |= parser.reading.refuses_unknown(&entry.key_span);
            let (span, path) = (entry.key_span.clone(), field.path.clone());
            parser.stray(Problem::error(Code::UnreadParameter, span, path, message, Some(hint)));
        }
        // A value that cannot be read still stands there: calling it missing as well would help nobody.
        let setting = setting(parser, &field, row).unwrap_or(Setting::Gradient(Vec::new()));
        parameters.insert(entry.key.clone(), setting);
    }
    parameters
}

/// Message and hint about a parameter that a method does not read.
pub(crate) fn unread(name: &str, method: Method) -> (String, String) {
    let own: Vec<&str> = method.spec().parameters.iter().map(|row| row.name).collect();
    let elsewhere = METHODS.iter().any(|row| row.method.parameter(name).is_some());
    let message = if elsewhere {
        format!("`{method}` does not read `{name}`")
    } else {
        format!("unknown parameter `{name}` for `{method}`")
    };
    let hint = match nearest(name, own.iter().copied()).filter(|_| !elsewhere) {
        Some(near) => format!("did you mean `{near}`?"),
        None if own.is_empty() => format!("`{method}` takes no parameters"),
        None => format!("`{method}` takes {}", listed(own)),
    };
    (message, hint)
}

fn setting(parser: &mut Parser<'_>, field: &Field<'_>, row: Option<&ParameterSpec>) -> Option<Setting> {
    match &field.node.value {
        Value::Map(_) => case(parser, field, row).map(|case| Setting::Conditional(vec![case])),
        Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Map(_))) => {
            let fields = field.list(SETTING, &mut parser.problems)?;
            let cases: Vec<_> = fields.iter().map(|field| case(parser, field, row)).collect();
            cases.into_iter().collect::<Option<_>>().map(Setting::Conditional)
        }
        _ => plain(parser, field, row),
    }
}

/// A scalar or a gradient.
fn plain(parser: &mut Parser<'_>, field: &Field<'_>, row: Option<&ParameterSpec>) -> Option<Setting> {
    match &field.node.value {
        Value::List(_) => {
            let items = field.list(SETTING, &mut parser.problems)?;
            let values: Vec<_> = items.iter().map(|item| scalar(parser, item, row)).collect();
            values.into_iter().collect::<Option<_>>().map(Setting::Gradient)
        }
        _ => scalar(parser, field, row).map(Setting::Scalar),
    }
}

fn case(parser: &mut Parser<'_>, field: &Field<'_>, row: Option<&ParameterSpec>) -> Option<Case> {
    let mut table = field.table(&keys::CASE, &mut parser.problems)?;
    let filter = table.optional("filter");
    let value = table.required("value", &mut parser.problems);
    parser.finish(table);
    let filter = match filter.filter(|filter| !parser.is_blank(filter)) {
        Some(filter) => Some(text(parser, &filter)?.to_owned()),
        None => None,
    };
    Some(Case { filter, value: plain(parser, &value?, row)? })
}

/// A text to mergekit as well, which stops at an unquoted `no`.
fn text<'a>(parser: &mut Parser<'_>, field: &Field<'a>) -> Option<&'a str> {
    let text = field.text(&mut parser.problems)?;
    let span = field.span();
    let other = Some(&span).filter(|span| span.source.format == Format::Yaml && parser.is_lax(field));
    match other.and_then(|span| pyyaml::other_reading(span.text().trim_end())) {
        Some(other) if other != "a text" => {
            let message = format!("expected a text, found `{text}`, which mergekit reads as {other}");
            field.problem(Code::WrongValue, message, Some("put it in quotes".to_owned()), &mut parser.problems);
            None
        }
        _ => Some(text),
    }
}

fn scalar(parser: &mut Parser<'_>, field: &Field<'_>, row: Option<&ParameterSpec>) -> Option<Scalar> {
    let expected = match row.map(|row| row.kind) {
        Some(Kind::Float) => "a number",
        Some(Kind::Bool) => "`true` or `false`",
        None => SETTING,
    };
    let Value::Scalar(scalar) = &field.node.value else {
        field.expected(expected, &mut parser.problems);
        return None;
    };
    let fits = match row.map(|row| row.kind) {
        Some(Kind::Float) => scalar.as_float().is_some_and(f64::is_finite),
        Some(Kind::Bool) => scalar.as_bool().is_some(),
        None => !matches!(scalar, Scalar::Float(value) if !value.is_finite()),
    };
    if !fits {
        let finite = if matches!(scalar, Scalar::Float(_)) { "a finite number" } else { expected };
        field.expected(finite, &mut parser.problems);
        return None;
    }
    if let Some(row) = row.filter(|row| row.kind == Kind::Float) {
        range(parser, field, row, scalar.as_float()?);
    }
    Some(scalar.clone())
}

/// Reports a number outside the range of its parameter.
fn range(parser: &mut Parser<'_>, field: &Field<'_>, row: &ParameterSpec, value: f64) {
    let Some(limit) = row.range.broken_by(value) else { return };
    let message = format!("`{}` is {value}, expected {}: {}", row.name, row.range, limit.beyond);
    let hint = Some(format!("`{}` is the {}", row.name, row.about));
    if limit.refused {
        field.problem(Code::OutOfRange, message, hint, &mut parser.problems);
    } else {
        field.warning(Code::OutOfRange, message, hint, &mut parser.problems);
    }
}
