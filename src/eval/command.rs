//! How the harness is called: which tasks share a process, and its config file, arguments and environment. Pure
//! functions; nothing is started here.
//!
//! Everything goes through `--config FILE`: no quoting of commas or `=` in paths and stop strings, and the file is the
//! record of the call.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::sandbox::{self, Visible};
use super::{ChatTemplate, CodeEval, Score, Settings, TaskRequest};
use crate::config::Scalar;
use crate::process::Invocation;

/// One call of the harness: tasks that can share a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tasks, in the order of the spec.
    pub tasks: Vec<TaskRequest>,
    /// Whether its tasks run code that the model wrote.
    pub runs_code: bool,
}

/// What is known of the tasks that a requested name stands for: itself, or the members of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTask {
    /// Harness name.
    pub name: String,
    /// Documents of its test split.
    pub n_documents: Option<u64>,
    /// Whether it runs code that the model wrote.
    pub runs_code: bool,
}

/// By requested name, the tasks it stands for.
pub type KnownTasks = BTreeMap<String, Vec<KnownTask>>;

/// The paths of one call. All absolute: the harness runs in a folder of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paths<'a> {
    /// The model.
    pub model: &'a Path,
    /// The config file.
    pub config: &'a Path,
    /// `output_path`, ending in `.json`: the harness adds a time stamp before the ending.
    pub output: &'a Path,
    /// Working directory: holds `tinyBenchmarks.pkl` and, where wanted, `code_eval/`.
    pub home: &'a Path,
    /// The harness' cache of built prompts; the default is inside its installed package.
    pub cache: &'a Path,
    /// The copy of it that a call which is shut in works with.
    pub own_cache: Option<&'a Path>,
    /// Beginning of the name of its file of answers, which knows nothing of the model: it belongs to one call.
    pub answers: &'a Path,
}

impl Call {
    /// Whether it is shut in.
    pub fn is_shut_in(&self, settings: &Settings) -> bool {
        self.runs_code && settings.allow_code_eval == CodeEval::Sandboxed
    }

    /// The settings that hold for its tasks, which agree on them.
    pub fn settings(&self, sweep: &Settings) -> Settings {
        self.tasks.first().map_or_else(|| sweep.clone(), |task| sweep.of(task))
    }
}

/// Shares tasks out to as few processes as can be: tasks with the same settings together (the harness takes one few-shot
/// number, one batch size and one set of arguments a process), code tasks apart, since they can fail after everything else
/// is done. A process costs a start of the interpreter and a load of the model.
pub fn calls(settings: &Settings, tasks: &[TaskRequest], runs_code: &dyn Fn(&str) -> bool) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for task in tasks {
        let runs_code = runs_code(&task.name);
        let own = settings.of(task);
        let fits = |call: &&mut Call| call.runs_code == runs_code && call.settings(settings) == own;
        match calls.iter_mut().find(fits) {
            Some(call) => call.tasks.push(task.clone()),
            None => calls.push(Call { tasks: vec![task.clone()], runs_code }),
        }
    }
    // Code last: it is the most likely to fail, and the other scores are worth having first.
    calls.sort_by_key(|call| call.runs_code);
    calls
}

/// Whether a requested task runs code that the model wrote, from what is known or else from its name.
pub fn runs_code(known: &KnownTasks, task: &str) -> bool {
    match known.get(task) {
        Some(members) => members.iter().any(|member| member.runs_code),
        None => super::task::is_stock_code_task(task),
    }
}

/// The scores that a requested task brought: its own, and those of its members where it is a group or a tag.
pub fn scores_of(known: &KnownTasks, task: &str, scores: &[Score]) -> Vec<Score> {
    let members = known.get(task).map(Vec::as_slice).unwrap_or_default();
    let belongs = |score: &&Score| score.task == task || members.iter().any(|member| member.name == score.task);
    scores.iter().filter(belongs).cloned().collect()
}

/// The argument of a back end that takes the path of the model.
pub fn model_argument(backend: &str) -> Option<&'static str> {
    match backend {
        "dummy" => None,
        "nemo_lm" => Some("path"),
        "trtllm" | "winml" => Some("model"),
        _ => Some("pretrained"),
    }
}

/// Whether a back end asks a running server, which cannot be handed a folder.
pub fn is_server(backend: &str) -> bool {
    backend.starts_with("local-")
        || backend.starts_with("openai-")
        || backend.starts_with("anthropic")
        || backend.starts_with("litellm")
        || matches!(backend, "gguf" | "ggml" | "textsynth" | "watsonx_llm")
}

/// The program to start.
pub fn invocation(
    settings: &Settings,
    call: &Call,
    paths: &Paths<'_>,
    visible: &Visible,
    n_threads: Option<usize>,
) -> Invocation {
    let args = ["-m", "lm_eval", "run", "--config"].map(str::to_owned).into_iter();
    let args = args.chain([paths.config.to_string_lossy().into_owned()]);
    let mut invocation = Invocation::new(&settings.python, args);
    invocation.folder = Some(paths.home.to_owned());
    let cache = paths.own_cache.unwrap_or(paths.cache);
    (invocation.environment, invocation.without) = environment(settings, call.runs_code, cache, n_threads);
    if call.is_shut_in(settings) {
        return sandbox::shut_in(invocation, settings, paths, visible);
    }
    invocation
}

/// Variables on top of the caller's, and those taken from it. The spec's own come last, so that they win.
pub fn environment(
    settings: &Settings,
    runs_code: bool,
    cache: &Path,
    n_threads: Option<usize>,
) -> (Vec<(String, String)>, Vec<String>) {
    let allow_code = runs_code && settings.allow_code_eval != CodeEval::Off;
    let mut set: Vec<(String, String)> = vec![
        ("LMEVAL_LOG_LEVEL".into(), "INFO".into()),
        ("LM_HARNESS_CACHE_PATH".into(), cache.to_string_lossy().into_owned()),
        ("PYTHONHASHSEED".into(), "0".into()),
        ("PYTHONUNBUFFERED".into(), "1".into()),
        ("TOKENIZERS_PARALLELISM".into(), "false".into()),
    ];
    if allow_code {
        set.push(("HF_ALLOW_CODE_EVAL".into(), "1".into()));
    }
    set.extend(n_threads.map(|n_threads| ("OMP_NUM_THREADS".to_owned(), n_threads.to_string())));
    if settings.allow_code_eval == CodeEval::Sandboxed {
        set.extend(sandbox::cache_variables(settings, cache));
    }
    set.extend(settings.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    // A switch left on in the user's shell is no opt-in of this sweep.
    let without = if allow_code { Vec::new() } else { vec!["HF_ALLOW_CODE_EVAL".to_owned()] };
    (set, without)
}

/// The text of the config file: YAML in flow style, which PyYAML reads with the types meant here.
///
/// An unknown key stops the harness at once, so only what is set is written. `use_cache` never is: the harness keys
/// that cache by the prompt alone, and one model would be given the answers of another. `settings` are those of the call.
pub fn config_text(settings: &Settings, call: &Call, known: &KnownTasks, paths: &Paths<'_>) -> String {
    let mut model_args: BTreeMap<&str, Yaml> =
        settings.model_args.iter().map(|(name, value)| (name.as_str(), Yaml::from(value))).collect();
    if let Some(argument) = model_argument(&settings.model) {
        model_args.insert(argument, path(paths.model));
    }
    let mut lines = Config(String::new());
    lines.put("model", &text(&settings.model));
    lines.put("model_args", &map(model_args));
    lines.put("tasks", &list(call.tasks.iter().map(|task| text(&task.name))));
    // Never overrides a task whose definition says 0.
    lines.put_some("num_fewshot", settings.num_fewshot.map(number));
    lines.put("batch_size", &Yaml::from(&settings.batch_size));
    lines.put_some("device", settings.device.as_deref().map(text));
    match limits(settings, call, known) {
        Limits::All => {}
        Limits::First(limit) => lines.put("limit", &number(limit)),
        Limits::Each(each) => {
            lines.put(
                "samples",
                &map(each.into_iter().map(|(task, which)| (task, list(which.into_iter().map(number))))),
            );
        }
    }
    lines.put("seed", &list(settings.seeds.map(number)));
    if !settings.gen_kwargs.is_empty() {
        lines.put("gen_kwargs", &map(settings.gen_kwargs.iter().map(|(name, value)| (name, Yaml::from(value)))));
    }
    match &settings.chat_template {
        ChatTemplate::Off => {}
        ChatTemplate::On => lines.put("apply_chat_template", &Yaml("true".to_owned())),
        ChatTemplate::Named(name) => lines.put("apply_chat_template", &text(name)),
    }
    lines.put_some("system_instruction", settings.system_instruction.as_deref().map(text));
    lines.put_some("include_path", settings.include_path.as_deref().map(path));
    if call.runs_code && settings.allow_code_eval != CodeEval::Off {
        lines.put("confirm_run_unsafe_code", &Yaml("true".to_owned()));
    }
    lines.put("use_cache", &path(paths.answers));
    lines.put("log_samples", &Yaml("true".to_owned()));
    lines.put("output_path", &path(paths.output));
    lines.0
}

/// Which documents a call asks for.
enum Limits {
    /// All.
    All,
    /// The first so many of every task.
    First(u64),
    /// These, task by task; all of the tasks not named.
    Each(BTreeMap<String, Vec<u64>>),
}

/// How many documents of a task are asked; none: all.
pub fn limit_of(settings: &Settings, task: &TaskRequest) -> Option<u64> {
    let picked = task.documents.as_ref().map(|documents| documents.len() as u64);
    picked.or(task.limit).or(settings.limit)
}

/// The harness has one `limit` for all tasks; where they differ, or documents were picked, `samples` names those of each. It
/// knows no groups and refuses a document beyond the last, so both are resolved here.
fn limits(settings: &Settings, call: &Call, known: &KnownTasks) -> Limits {
    let mut limits = call.tasks.iter().map(|task| limit_of(settings, task));
    let first = limits.next().flatten();
    if limits.all(|limit| limit == first) && call.tasks.iter().all(|task| task.documents.is_none()) {
        return first.map_or(Limits::All, Limits::First);
    }
    let mut each = BTreeMap::new();
    for task in &call.tasks {
        let Some(limit) = limit_of(settings, task) else { continue };
        let which = || task.documents.as_ref().map_or_else(|| (0..limit).collect(), |documents| documents.to_vec());
        match known.get(&task.name) {
            None => _ = each.insert(task.name.clone(), which()),
            Some(members) => {
                let cut = members.iter().filter(|member| member.n_documents.is_none_or(|n| limit < n));
                each.extend(cut.map(|member| (member.name.clone(), which())));
            }
        }
    }
    if each.is_empty() { Limits::All } else { Limits::Each(each) }
}

/// A config file in the making.
struct Config(String);

impl Config {
    fn put(&mut self, key: &str, value: &Yaml) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key}: {}", value.0);
    }

    fn put_some(&mut self, key: &str, value: Option<Yaml>) {
        value.iter().for_each(|value| self.put(key, value));
    }
}

/// A value as text.
struct Yaml(String);

impl From<&Scalar> for Yaml {
    fn from(value: &Scalar) -> Self {
        match value {
            Scalar::Bool(value) => Self(value.to_string()),
            Scalar::Int(value) => Self(value.to_string()),
            Scalar::Float(value) => float(*value),
            Scalar::Text(value) => text(value),
        }
    }
}

/// PyYAML takes `1e-05` for a text and `1` for an integer: no exponents, always a point.
fn float(value: f64) -> Yaml {
    Yaml(match value {
        value if value.is_nan() => ".nan".to_owned(),
        f64::INFINITY => ".inf".to_owned(),
        f64::NEG_INFINITY => "-.inf".to_owned(),
        value => {
            let digits = value.to_string();
            if digits.contains('.') { digits } else { format!("{digits}.0") }
        }
    })
}

fn number(value: u64) -> Yaml {
    Yaml(value.to_string())
}

fn path(value: &Path) -> Yaml {
    text(&value.to_string_lossy())
}

/// Double-quoted always (`no`, `1e3` and `~` are no texts to YAML), in ASCII: PyYAML refuses some characters as they are.
fn text(value: &str) -> Yaml {
    let mut quoted = String::from('"');
    for character in value.chars() {
        let code = u32::from(character);
        // Writing to a String cannot fail.
        let _ = match character {
            '"' | '\\' => write!(quoted, "\\{character}"),
            '\n' => write!(quoted, "\\n"),
            '\t' => write!(quoted, "\\t"),
            ' '..='~' => write!(quoted, "{character}"),
            _ if code <= 0xFFFF => write!(quoted, "\\u{code:04X}"),
            _ => write!(quoted, "\\U{code:08X}"),
        };
    }
    quoted.push('"');
    Yaml(quoted)
}

fn list(values: impl IntoIterator<Item = Yaml>) -> Yaml {
    let values: Vec<String> = values.into_iter().map(|value| value.0).collect();
    Yaml(format!("[{}]", values.join(", ")))
}

fn map(entries: impl IntoIterator<Item = (impl AsRef<str>, Yaml)>) -> Yaml {
    let entries: Vec<String> =
        entries.into_iter().map(|(key, value)| format!("{}: {}", text(key.as_ref()).0, value.0)).collect();
    Yaml(format!("{{{}}}", entries.join(", ")))
}
