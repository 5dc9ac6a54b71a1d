//! A spec file into a [`Sweep`], with every mistake in it.

use std::path::Path;

use super::engine::engine;
use super::evaluate::{self, limits};
use super::gate;
use super::merge::merge_entry;
use super::resources::resources;
use super::search::{Search, search};
use super::{Baseline, Keep, ModelNames, Sweep, TwinEvaluation, keys, lint, tasks};
use crate::config::parse::other_readings;
use crate::document::read::{Field, Table, listed};
use crate::document::{Code, Node, Problem, Problems, Value, parse};
use crate::eval::Settings;
use crate::eval::task;
use crate::model::{Location, ModelRef};

/// Longest name of a sweep: it becomes the name of a folder.
const MAX_NAME: usize = 100;

/// Reads a spec.
///
/// # Errors
/// Every mistake in it. (Those that only show once trials are made of it come from `plan::expand`; `plan::open` reports
/// both kinds together.)
pub fn load(path: &Path) -> Result<Sweep, Problems> {
    match read(path) {
        (Some(sweep), problems) if !problems.has_errors() => Ok(sweep),
        (_, problems) => Err(problems),
    }
}

/// Reads as much of a spec as can be made sense of, and everything that is wrong or odd in it.
pub fn read(path: &Path) -> (Option<Sweep>, Problems) {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    let document = match parse::file(path) {
        Ok(document) => document,
        Err(problems) => return (None, problems),
    };
    let mut problems = Problems::default();
    if !matches!(ending.as_deref(), Some("toml" | "yml" | "yaml" | "json")) {
        let hint = Some("name the file `.toml`, `.yml` or `.yaml`".to_owned());
        problems.push(Code::WrongFile, document.span.clone(), "", "cannot tell whether this is TOML or YAML", hint);
        return (None, problems);
    }
    let sweep = sweep(&document, path, &mut problems);
    problems.sort();
    (sweep, problems)
}

fn sweep(document: &Node, path: &Path, problems: &mut Problems) -> Option<Sweep> {
    if let Some(problem) = mergekit_config(document, path) {
        problems.0.push(problem);
        return None;
    }
    let mut top = Field::new(document, "").table(&keys::SWEEP, problems)?;
    let root = path.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let name = top.required("name", problems).and_then(|field| name(&field, problems));
    let models = top.optional("models").map(|field| models(&field, problems)).unwrap_or_default();
    let names = ModelNames { models: &models, spec: &document.span.source, complete: true };
    let baselines = items(&mut top, "baseline", "a list of baselines", problems)
        .iter()
        .filter_map(|field| baseline(field, &names, problems))
        .collect::<Vec<_>>();
    let entries = items(&mut top, "merge", "a list of merges", problems);
    let merges: Vec<_> = entries.iter().filter_map(|field| merge_entry(field, names, &root, problems)).collect();
    let mut settings = match top.required("evaluate", problems) {
        Some(field) => {
            let settings = evaluate::settings(&field, &root, problems);
            tasks::check(document, &settings, problems);
            settings
        }
        None => evaluate::defaults(),
    };
    let limits = limits(top.optional("limits").as_ref(), problems);
    settings.timeout = limits.evaluation_timeout;
    let resources = resources(top.optional("resources").as_ref(), &root, problems);
    let engine = engine(top.optional("engine").as_ref(), problems);
    let search = search(top.optional("search").as_ref(), &settings, problems);
    settings.packages = search.as_ref().map(Search::packages).unwrap_or_default();
    if search.is_some()
        && matches!(limits.keep, Keep::Pareto | Keep::Best { column: Some(_), .. })
        && let Some(node) = document.get("limits").and_then(|limits| limits.get("keep"))
    {
        let message = "a search keeps models by its own objective only";
        let hint = Some("write `best:K` without a column, `all` or `none`".to_owned());
        problems.0.push(Problem::error(Code::SearchKeep, node.span.clone(), "limits.keep", message, hint));
    } else {
        keep_known(document, &limits.keep, &settings, problems);
    }
    let report = gate::report(top.optional("report").as_ref(), problems);
    let gate = gate::gate(top.optional("gate").as_ref(), problems);
    gate::check(document, &settings, problems);
    let lint = lint::lint(top.optional("lint").as_ref(), problems);
    let twins = top.optional("twins").and_then(|field| field.one_of(TwinEvaluation::NAMES, problems));
    let is_empty = |key: &str| {
        top.entry(key).is_none_or(|entry| matches!(&entry.value.value, Value::List(items) if items.is_empty()))
    };
    if is_empty("baseline") && is_empty("merge") {
        top.problem(Code::Empty, "nothing to evaluate, expected at least one `baseline` or `merge`", None, problems);
    }
    top.finish(problems);
    other_readings(document, &names, problems);
    for Problem { span, key_path, .. } in &mut problems.0 {
        // The rewritten documents have places of their own: speak of those in the file.
        if names.in_spec(span)
            && let Some(place) = document.path_of(span)
        {
            *key_path = place.to_string();
        }
    }
    Some(Sweep {
        name: name.unwrap_or_default(),
        path: path.to_owned(),
        root,
        baselines,
        merges,
        evaluate: settings,
        limits,
        resources,
        engine,
        search,
        report,
        gate,
        lint,
        twins: twins.unwrap_or_default(),
        document: document.clone(),
        models,
    })
}

/// `keep = "best:K:COLUMN"` of a column that the table will not have keeps nothing. Columns of tasks that are not in the
/// mapping table are known once there are results.
fn keep_known(document: &Node, keep: &Keep, settings: &Settings, problems: &mut Problems) {
    let Keep::Best { column: Some(column), .. } = keep else { return };
    let columns = task::columns(&settings.tasks, &[]);
    let is_open = settings.tasks.iter().any(|task| !columns.iter().any(|column| column.task == task.name));
    if is_open || columns.iter().any(|known| known.name == *column) {
        return;
    }
    if let Some(node) = document.get("limits").and_then(|limits| limits.get("keep")) {
        let message = format!("no column `{column}`");
        let hint = Some(format!("there is {}", listed(columns.iter().map(|column| column.name.as_str()))));
        problems.0.push(Problem::error(Code::WrongValue, node.span.clone(), "limits.keep", message, hint));
    }
}

/// A mergekit config where a spec is expected: one sentence instead of a mistake for each key.
fn mergekit_config(document: &Node, path: &Path) -> Option<Problem> {
    let entry = document.entries().iter().find(|entry| entry.key == "merge_method")?;
    let is_sweep = ["evaluate", "merge", "baseline"].iter().any(|key| document.get(key).is_some());
    let path = path.display();
    let message = "this is a mergekit config (it has `merge_method`), expected a sweep spec";
    let hint = format!(
        "`mergesweep merge {path} OUT` merges it; `mergesweep init --from {path}` writes a spec that merges and evaluates it"
    );
    (!is_sweep).then(|| Problem::error(Code::WrongFile, entry.key_span.clone(), "", message, Some(hint)))
}

/// The entries of a list under a key. A single table is a list of one.
fn items<'a>(top: &mut Table<'a>, key: &'static str, expected: &str, problems: &mut Problems) -> Vec<Field<'a>> {
    let Some(field) = top.optional(key) else { return Vec::new() };
    match field.node.value {
        Value::Map(_) => vec![field],
        _ => field.list(expected, problems).unwrap_or_default(),
    }
}

fn name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let name = field.text(problems)?;
    let mistake = if name.contains(['/', '\\']) || name.chars().any(char::is_control) {
        "has a character that no folder name may have"
    } else if name.starts_with(['.', '-']) || name.trim() != name {
        "starts or ends with a character that a folder name should not"
    } else if name.len() > MAX_NAME {
        "is too long for the name of a folder"
    } else {
        return Some(name.to_owned());
    };
    let message = format!("the name `{}` {mistake}", crate::document::read::shortened(name));
    let hint = Some("it names the folder of the results: letters, digits and hyphens are safe".to_owned());
    field.problem(Code::BadName, message, hint, problems);
    None
}

fn models(field: &Field<'_>, problems: &mut Problems) -> Vec<(String, ModelRef)> {
    let entries = field.entries("a table of models: `math = \"owner/name\"`", problems).unwrap_or_default();
    let mut models = Vec::new();
    for (entry, field) in entries {
        let short = entry.key.as_str();
        // `base` and `union` are words of `tokenizer_source`, where they win; everywhere else they are names like others.
        let mistake = match short {
            _ if short.trim().is_empty() => Some("is empty"),
            _ if short.contains(['/', '+', '@']) => Some("looks like a reference"),
            _ => None,
        };
        if let Some(mistake) = mistake {
            let message = format!("the short name `{short}` {mistake}");
            let hint = Some("choose a word without `/`, `+` and `@`, with which references are written".to_owned());
            problems.push(Code::BadName, entry.key_span.clone(), field.path.clone(), message, hint);
        }
        // A name whose reference is broken is known all the same: it is not to be called unknown where it is used.
        let broken = || ModelRef { base: Location { path: short.to_owned(), revision: None }, adapter: None };
        models.push((short.to_owned(), reference(&field, problems).unwrap_or_else(broken)));
    }
    models
}

/// A reference as text, or `{ path, revision?, adapter? }`.
fn reference(field: &Field<'_>, problems: &mut Problems) -> Option<ModelRef> {
    let text = if matches!(field.node.value, Value::Map(_)) {
        let mut table = field.table(&keys::MODEL, problems)?;
        let path = table.required("path", problems).and_then(|field| field.text(problems));
        let revision = table.optional("revision").map(|field| field.text(problems));
        let adapter = table.optional("adapter").map(|field| field.text(problems));
        table.finish(problems);
        let mut text = path?.to_owned();
        for (mark, part) in [('@', revision), ('+', adapter)] {
            if let Some(part) = part {
                text = format!("{text}{mark}{}", part?);
            }
        }
        text
    } else {
        field.text(problems)?.to_owned()
    };
    match text.parse::<ModelRef>() {
        Ok(model) => Some(model),
        Err(error) => {
            field.problem(Code::BadReference, error.to_string(), None, problems);
            None
        }
    }
}

fn baseline(field: &Field<'_>, names: &ModelNames<'_>, problems: &mut Problems) -> Option<Baseline> {
    let (name, model_field) = if field.node.as_text().is_some() {
        // A model alone says it all: its row bears its name.
        (None, field.clone())
    } else {
        let mut table = field.table(&keys::BASELINE, problems)?;
        let name = table.optional("name");
        let model = table.required("model", problems);
        table.finish(problems);
        (name, model?)
    };
    let text = model_field.text(problems)?;
    // A row without a name of its own bears that of its model.
    let name_field = name.unwrap_or_else(|| model_field.clone());
    let name = name_field.text(problems)?;
    match names.named(text) {
        Ok(model) => Some(Baseline { name: name.to_owned(), name_span: name_field.span(), model }),
        Err(error) => {
            model_field.problem(error.code(), error.to_string(), error.hint(), problems);
            None
        }
    }
}
