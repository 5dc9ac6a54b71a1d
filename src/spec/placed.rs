//! What is found out about the surroundings of a sweep, told at its place in the spec: the model or the setting that asks for
//! what is not there.

use super::{MergeEntry, Sweep};
use crate::document::{Code, Node, Problem, Span, Value};
use crate::eval::preflight;
use crate::model::{LocateError, ModelRef};

/// A model that cannot be found, where it is declared, else where it is named.
pub fn model(sweep: &Sweep, model: &ModelRef, error: &LocateError) -> Problem {
    at_model(sweep, model, Code::ModelNotFound, error.to_string(), error.hint())
}

/// What is wrong with a model, where it is declared, else where it is named.
pub fn at_model(sweep: &Sweep, model: &ModelRef, code: Code, message: String, hint: Option<String>) -> Problem {
    let short = sweep.models.iter().find(|(_, reference)| reference == model);
    let declared = short.and_then(|(short, _)| sweep.document.get("models")?.get(short));
    let text = model.to_string();
    let documents = || std::iter::once(&sweep.document).chain(sweep.merges.iter().map(|merge| &merge.document));
    let node = declared.or_else(|| documents().find_map(|document| document.find_text(&text)));
    let span = node.map_or_else(|| top(sweep), |node| node.span.clone());
    placed(sweep, Problem::error(code, span, "", message, hint))
}

/// What is wrong with a trial, where the name of its row or of its merge stands. Trials count as in the plan.
pub fn trial(sweep: &Sweep, number: usize, code: Code, message: &str, hint: Option<String>) -> Problem {
    let baselines = sweep.baselines.iter().map(|baseline| &baseline.name_span);
    fn of_entry(entry: &MergeEntry) -> impl Iterator<Item = &Span> {
        std::iter::repeat_n(&entry.name_span, entry.settings.len())
    }
    let span = baselines.chain(sweep.merges.iter().flat_map(of_entry)).nth(number);
    placed(sweep, Problem::error(code, span.cloned().unwrap_or_else(|| top(sweep)), "", message, hint))
}

/// What is wrong with the evaluation of a task, at the task; of all, at `evaluate`. `document` is the whole spec.
pub fn task(document: &Node, task: Option<&str>, code: Code, message: &str, hint: Option<String>) -> Problem {
    let settings = document.get("evaluate").unwrap_or(document);
    let node = task.and_then(|task| task_node(settings.get("tasks")?, task)).or(settings.get("tasks"));
    let span = node.unwrap_or(settings).span.clone();
    let path = document.path_of(&span).map(|path| path.to_string()).unwrap_or_default();
    Problem::error(code, span, path, message, hint)
}

/// A mistake in how models are evaluated, at its task or key. `document` is the whole spec.
pub fn evaluation(document: &Node, problem: &preflight::Problem) -> Problem {
    let settings = document.get("evaluate").unwrap_or(document);
    let of_resources = |key| document.get("resources").and_then(|resources: &Node| resources.get(key));
    let node = match problem.task() {
        Some(task) => settings.get("tasks").and_then(|tasks| task_node(tasks, task)),
        None if matches!(problem, preflight::Problem::NoGpu { .. }) => {
            settings.get("device").or_else(|| of_resources("gpus")).or_else(|| of_resources("gpus_per_evaluation"))
        }
        None => key_of(problem).and_then(|key| settings.get(key)),
    };
    let span = node.unwrap_or(settings).span.clone();
    let path = document.path_of(&span).map(|path| path.to_string()).unwrap_or_default();
    Problem::error(code_of(problem), span, path, problem.to_string(), problem.hint())
}

fn placed(sweep: &Sweep, problem: Problem) -> Problem {
    let key_path = sweep.document.path_of(&problem.span).map(|path| path.to_string()).unwrap_or_default();
    Problem { key_path, ..problem }
}

fn top(sweep: &Sweep) -> Span {
    Span { end: 0, start: 0, ..sweep.document.span.clone() }
}

fn task_node<'a>(tasks: &'a Node, name: &str) -> Option<&'a Node> {
    let Value::List(items) = &tasks.value else { return None };
    items.iter().map(|item| item.get("task").unwrap_or(item)).find(|item| item.as_text() == Some(name))
}

/// The key of `evaluate` that a mistake is about.
fn key_of(problem: &preflight::Problem) -> Option<&'static str> {
    use preflight::Problem as P;
    match problem {
        P::Interpreter(_) | P::NoAnswer { .. } | P::Harness { .. } | P::MissingPackage { .. } => Some("python"),
        P::IncludePath { .. } => Some("include_path"),
        P::UnknownBackend { .. } | P::ServerBackend { .. } => Some("model"),
        _ => None,
    }
}

fn code_of(problem: &preflight::Problem) -> Code {
    use preflight::Problem as P;
    match problem {
        P::Interpreter(_) | P::NoAnswer { .. } | P::Harness { .. } | P::MissingPackage { .. } => Code::Harness,
        P::TinyParameters { .. } | P::OtherParameters(_) | P::Task { .. } => Code::TaskNotLoaded,
        P::Cancelled | P::Folder { .. } => Code::Folder,
        P::IncludePath { .. } => Code::IncludePath,
        P::UnknownBackend { .. } | P::ServerBackend { .. } => Code::Backend,
        P::UnknownTask { .. } => Code::UnknownTask,
        P::NoTaskName { .. } => Code::TaskPattern,
        P::CodeNotAllowed { .. } => Code::CodeNotAllowed,
        P::NoSandbox { .. } => Code::NoSandbox,
        P::TinyLimited { .. } => Code::TinyLimited,
        P::NoGpu { .. } => Code::NoGpu,
    }
}
