//! Before the first merge: is everything there that an evaluation needs? Every problem is found in one pass, since each
//! would otherwise cost a merge and a load of the model, some a whole evaluation.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::command::{self, KnownTask, KnownTasks, limit_of};
use super::failure::{CODE_HINT, Cause, TINY_PARAMETERS_HINT, cause_of, install_hint};
use super::gp_irt::{self, GpIrtError};
use super::task::{is_stock_code_task, is_tiny};
use super::task_files::{self, TaskFile};
use super::{CodeEval, Settings, TaskRequest, sandbox};
use crate::config::Scalar;
use crate::process::{self, Cancel, Exit, Invocation, ProcessError};

/// Asks the harness; see the file.
const PROBE: &str = include_str!("probe.py");

/// Mark of the answer among whatever else a Python program may print.
const ANSWER: &str = "mergesweep-answer ";

/// Data sets may be downloaded meanwhile.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The variable that says which GPUs a program sees.
pub const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// The release whose behaviour is known here.
pub const KNOWN_VERSION: &str = "0.4.13";

/// Folders of a run that the harness uses, both absolute and made where absent.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// The prepared working directory.
    pub home: &'a Path,
    /// The harness' cache of prompts.
    pub cache: &'a Path,
}

/// What preflight learned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preflight {
    /// Release of Python.
    pub python_version: String,
    /// Release of the harness.
    pub lm_eval_version: String,
    /// Releases of the packages that numbers depend on, by name: torch, transformers, …
    pub versions: BTreeMap<String, String>,
    /// What each requested task stands for.
    pub known: KnownTasks,
    /// Name of the GPU, where one was looked for and found.
    pub gpu: Option<String>,
    /// Things the user should know that stop nothing.
    pub notes: Vec<String>,
}

/// Something that an evaluation would fail on.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No interpreter.
    #[error(transparent)]
    Interpreter(#[from] ProcessError),
    /// The interpreter gave no answer.
    #[error("`{}` ended with {exit} and no answer: {line}", .python.display())]
    NoAnswer {
        /// The interpreter.
        python: PathBuf,
        /// How it ended.
        exit: Exit,
        /// The last line it wrote to standard error.
        line: String,
    },
    /// The user stopped it.
    #[error("cancelled")]
    Cancelled,
    /// A folder cannot be made.
    #[error("cannot make the folder `{}`: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The include path is no folder.
    #[error("`include_path` is no folder: `{}`", .path.display())]
    IncludePath {
        /// The path.
        path: PathBuf,
    },
    /// The interpreter has no harness, or lacks a package that the back end or a task needs.
    #[error("`{}` has no package `{package}`{}", .python.display(), for_what(.needed_by.as_deref()))]
    MissingPackage {
        /// The interpreter.
        python: PathBuf,
        /// The package.
        package: String,
        /// The back end or task that needs it.
        needed_by: Option<String>,
    },
    /// The harness cannot be loaded.
    #[error("the harness cannot be loaded: {line}")]
    Harness {
        /// The exception.
        line: String,
    },
    /// A back end that the harness does not know.
    #[error("the harness knows no back end `{backend}`")]
    UnknownBackend {
        /// As written.
        backend: String,
    },
    /// A back end that cannot be handed a model folder.
    #[error("back end `{backend}` asks a running server, which cannot be handed the model of a trial")]
    ServerBackend {
        /// The back end.
        backend: String,
    },
    /// A task that the harness does not know.
    #[error("the harness knows no task `{task}`")]
    UnknownTask {
        /// As written.
        task: String,
        /// The nearest known name.
        near: Option<String>,
    },
    /// A pattern or file instead of a name.
    #[error("`{task}` is no task name: patterns and files are not taken, since rows must agree on their columns")]
    NoTaskName {
        /// As written.
        task: String,
    },
    /// A task that cannot be loaded.
    #[error("task `{task}` cannot be loaded: {cause}")]
    Task {
        /// The task.
        task: String,
        /// Why.
        cause: Cause,
    },
    /// A code task without the opt-in.
    #[error("task `{task}` runs programs that the model wrote, and `allow_code_eval` is not set")]
    CodeNotAllowed {
        /// The task.
        task: String,
    },
    /// No sandbox for a code task.
    #[error("task `{task}` runs programs that the model wrote, and they cannot be shut in: {why}")]
    NoSandbox {
        /// The task.
        task: String,
        /// What the sandbox says.
        why: String,
    },
    /// A limit on a task that needs all of its documents.
    #[error("task `{task}` has a limit of {limit} documents, and its estimate needs all 100")]
    TinyLimited {
        /// The task.
        task: String,
        /// The limit.
        limit: u64,
    },
    /// The parameters of tinyBenchmarks are others than earlier scores were made with.
    #[error(transparent)]
    OtherParameters(#[from] GpIrtError),
    /// The parameters of tinyBenchmarks are missing.
    #[error("`tinyBenchmarks.pkl` is not in `{}` and cannot be downloaded: {reason}", .home.display())]
    TinyParameters {
        /// The harness' working directory.
        home: PathBuf,
        /// Why.
        reason: String,
    },
    /// GPUs are asked for and not there.
    #[error(
        "{asked_by} asks for {}, and PyTorch of `{}` sees {}",
        if *.n_asked == 1 { "a GPU".to_owned() } else { format!("{} GPUs", .n_asked) },
        .python.display(),
        if *.n_seen == 0 { "none".to_owned() } else { format!("only {}", .n_seen) }
    )]
    NoGpu {
        /// The setting that asks.
        asked_by: String,
        /// How many.
        n_asked: usize,
        /// How many there are.
        n_seen: usize,
        /// The interpreter.
        python: PathBuf,
    },
}

fn for_what(needed_by: Option<&str>) -> String {
    needed_by.map(|needed_by| format!(", which {needed_by} needs")).unwrap_or_default()
}

impl Problem {
    /// The task it is about, if it is about one.
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::UnknownTask { task, .. }
            | Self::NoTaskName { task }
            | Self::Task { task, .. }
            | Self::CodeNotAllowed { task }
            | Self::NoSandbox { task, .. }
            | Self::TinyLimited { task, .. } => Some(task),
            _ => None,
        }
    }

    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Interpreter(_) => "name the interpreter that has the harness (`python` in `evaluate`)".to_owned(),
            Self::MissingPackage { package, .. } => install_hint(package),
            Self::UnknownBackend { .. } => "`hf`, `vllm` and `dummy` are the usual ones".to_owned(),
            Self::ServerBackend { .. } => "use `hf` or `vllm`".to_owned(),
            Self::UnknownTask { near: Some(near), .. } => {
                format!("did you mean `{near}`? Tasks of one's own need `include_path`")
            }
            Self::UnknownTask { near: None, .. } | Self::NoTaskName { .. } => {
                "`python -m lm_eval ls tasks` lists the stock ones; own ones need `include_path`".to_owned()
            }
            Self::Task { cause, .. } => return cause.hint(),
            Self::NoSandbox { .. } => {
                "install bubblewrap (`apt-get install bubblewrap`) on a machine that allows user namespaces; nothing runs bare \
                 unless `allow_code_eval = true` says so"
                    .to_owned()
            }
            Self::CodeNotAllowed { .. } => CODE_HINT.to_owned(),
            Self::TinyLimited { .. } => "leave the limit out for tiny tasks, or take another task".to_owned(),
            Self::TinyParameters { .. } => TINY_PARAMETERS_HINT.to_owned(),
            Self::IncludePath { .. } => "a relative path starts at the spec's folder".to_owned(),
            Self::NoGpu { n_seen: 1.., .. } => {
                "name those that are there (`gpus` in `resources`), with as many for an evaluation at most".to_owned()
            }
            Self::NoGpu { .. } => {
                "set `device = \"cpu\"`, or correct the driver: the harness would run on the CPU without a word"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

/// Every problem found in one pass. As an error it is never empty.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}error: {problem}")?;
            problem.hint().iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problems {
    /// Whether the user stopped the question.
    pub fn is_cancelled(&self) -> bool {
        self.0.iter().any(|problem| matches!(problem, Problem::Cancelled))
    }
}

/// The release of the harness that an interpreter has, none where it has none. Quick: nothing of the harness is loaded.
///
/// # Errors
/// [`Problem`] where the interpreter cannot be asked.
pub fn harness_version(python: &Path, cancel: &Cancel) -> Result<Option<String>, Problem> {
    let program = "import importlib.metadata as m\ntry: print('mergesweep-answer ' + m.version('lm_eval'))\nexcept m.PackageNotFoundError: print('mergesweep-answer ')";
    let invocation = Invocation::new(python, ["-c", program]);
    let answer = ask(python, &invocation, Duration::from_secs(60), cancel)?;
    Ok(Some(answer.trim().to_owned()).filter(|version| !version.is_empty()))
}

/// Looks at everything that an evaluation with these settings needs. Blocks; may download data sets.
///
/// # Errors
/// [`Problems`], all of them.
pub fn preflight(settings: &Settings, folders: Folders<'_>, cancel: &Cancel) -> Result<Preflight, Problems> {
    let (preflight, problems) = look(settings, folders, cancel);
    if problems.is_empty() { Ok(preflight) } else { Err(Problems(problems)) }
}

/// Like [`preflight`], with what was learned beside the problems.
pub fn look(settings: &Settings, folders: Folders<'_>, cancel: &Cancel) -> (Preflight, Vec<Problem>) {
    let own = settings.include_path.as_deref().map(task_files::read).unwrap_or_default();
    let mut problems = told_by_settings(settings, &own);
    problems.extend(without_sandbox(settings, &own));
    for folder in [folders.home, folders.cache] {
        if let Err(source) = std::fs::create_dir_all(folder) {
            problems.push(Problem::Folder { path: folder.to_owned(), source });
        }
    }
    let answer = probe(settings, folders, &own, cancel);
    let preflight = match answer {
        Ok(answer) => told_by_harness(settings, folders, answer, &mut problems),
        Err(problem) => {
            problems.push(problem);
            Preflight::default()
        }
    };
    (preflight, problems)
}

/// Whether a requested task runs code that the model wrote, without asking Python. Own tasks override stock ones.
pub fn runs_code(own: &BTreeMap<String, TaskFile>, task: &str) -> bool {
    own.get(task).map_or_else(|| is_stock_code_task(task), |file| file.runs_code)
}

/// Problems that need no process to see. `own` are the definitions of the include path.
pub fn told_by_settings(settings: &Settings, own: &BTreeMap<String, TaskFile>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(path) = settings.include_path.as_ref().filter(|path| !path.is_dir()) {
        problems.push(Problem::IncludePath { path: path.clone() });
    }
    if command::is_server(&settings.model) {
        problems.push(Problem::ServerBackend { backend: settings.model.clone() });
    }
    for TaskRequest { name, .. } in settings.tasks.iter().filter(|task| is_pattern(&task.name)) {
        problems.push(Problem::NoTaskName { task: name.clone() });
    }
    for task in &settings.tasks {
        if runs_code(own, &task.name) && settings.allow_code_eval == CodeEval::Off {
            problems.push(Problem::CodeNotAllowed { task: task.name.clone() });
        }
        if let Some(limit) = limit_of(settings, task).filter(|limit| is_tiny(&task.name) && *limit < 100) {
            problems.push(Problem::TinyLimited { task: task.name.clone(), limit });
        }
    }
    problems
}

/// Code tasks that are to be shut in where that cannot be done.
fn without_sandbox(settings: &Settings, own: &BTreeMap<String, TaskFile>) -> Vec<Problem> {
    let shut_in: Vec<&TaskRequest> = settings
        .tasks
        .iter()
        .filter(|task| settings.allow_code_eval == CodeEval::Sandboxed && runs_code(own, &task.name))
        .collect();
    if shut_in.is_empty() {
        return Vec::new();
    }
    let Err(why) = try_sandbox() else { return Vec::new() };
    shut_in.into_iter().map(|task| Problem::NoSandbox { task: task.name.clone(), why: why.clone() }).collect()
}

/// Whether programs can be shut in on this machine, or why not.
///
/// # Errors
/// What the sandbox says.
pub fn try_sandbox() -> Result<(), String> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let tried = process::capture(&sandbox::trial(), Some(PATIENCE), &Cancel::never(), &mut |_| {});
    match tried {
        Ok(tried) if tried.exit.is_success() => Ok(()),
        Ok(tried) => Err(tried.stderr.lines().next_back().map_or_else(|| tried.exit.to_string(), str::to_owned)),
        Err(error) => Err(error.to_string()),
    }
}

fn is_pattern(task: &str) -> bool {
    task.contains(['*', '?', '[', '/', ',']) || task.ends_with(".yaml")
}

/// The answer of the probe.
#[derive(Debug, Deserialize)]
struct Answer {
    python: String,
    versions: BTreeMap<String, Option<String>>,
    missing: Vec<String>,
    tasks: BTreeMap<String, TaskAnswer>,
    backends: Option<Vec<String>>,
    /// Empty where there is none; none where not asked.
    gpu: Option<String>,
    n_gpus: usize,
    error: Option<String>,
    tiny_parameters: Option<String>,
}

/// What the probe says of a task: unknown with near names, not to be loaded, loaded, or failed to load.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TaskAnswer {
    near: Option<Vec<String>>,
    error: Option<String>,
    members: Option<Vec<MemberAnswer>>,
}

#[derive(Debug, Deserialize)]
struct MemberAnswer {
    name: String,
    n_documents: Option<u64>,
    runs_code: bool,
}

/// Packages that a back end needs.
fn packages(backend: &str) -> &'static [&'static str] {
    match backend {
        "hf" | "huggingface" | "hf-auto" => &["torch", "transformers", "accelerate"],
        "vllm" => &["vllm"],
        "sglang" | "sglang-generate" => &["sglang"],
        _ => &[],
    }
}

/// The setting that asks for GPUs, if one does, and for how many.
fn asks_for_gpu(settings: &Settings) -> Option<(String, usize)> {
    let shown = settings.environment.get(VISIBLE_GPUS).map(String::as_str).unwrap_or_default();
    let named: Vec<&str> = shown.split(',').filter(|gpu| !gpu.is_empty()).collect();
    // Of several parts of GPUs (MIG), a process is only ever shown one.
    let n_named = if named.iter().any(|gpu| gpu.starts_with("MIG")) { 1 } else { named.len() };
    match settings.device.as_deref() {
        _ if settings.model == "dummy" => None,
        Some(device) if device.starts_with("cuda") => Some((format!("device `{device}`"), n_named.max(1))),
        Some(_) => None,
        None if n_named > 0 => Some((format!("the list of GPUs `{shown}`"), n_named)),
        None => {
            matches!(settings.model.as_str(), "vllm" | "sglang").then(|| (format!("back end `{}`", settings.model), 1))
        }
    }
}

fn probe(
    settings: &Settings,
    folders: Folders<'_>,
    own: &BTreeMap<String, TaskFile>,
    cancel: &Cancel,
) -> Result<Answer, Problem> {
    let names: Vec<&str> =
        settings.tasks.iter().map(|task| task.name.as_str()).filter(|task| !is_pattern(task)).collect();
    // Loading a code task already runs its metric once; without the opt-in it stays closed.
    let no_load: Vec<&str> = names
        .iter()
        .filter(|task| runs_code(own, task) && settings.allow_code_eval == CodeEval::Off)
        .copied()
        .collect();
    // The index of the stock tasks costs 14,000 files: not read where no stock task is asked for. A group may name some.
    let all_own = names.iter().all(|task| own.get(*task).is_some_and(|file| !file.is_group));
    let metadata: serde_json::Map<String, serde_json::Value> =
        settings.model_args.iter().map(|(name, value)| (name.clone(), json_of(value))).collect();
    let question = json!({
        "tasks": names,
        "no_load": no_load,
        "include_path": settings.include_path,
        "stock_tasks": !all_own,
        "metadata": metadata,
        "versions": ["lm_eval", "torch", "transformers", "tokenizers", "datasets", "vllm", "tinyBenchmarks"],
        "modules": packages(&settings.model).iter().chain(&settings.packages).collect::<Vec<_>>(),
        "backend": settings.model,
        "gpu": asks_for_gpu(settings).is_some() || packages(&settings.model).contains(&"torch"),
        "tiny": names.iter().any(|task| is_tiny(task)),
    });
    let mut invocation = Invocation::new(&settings.python, ["-c", PROBE, &question.to_string()]);
    invocation.folder = Some(folders.home.to_owned());
    let runs_code = names.iter().any(|task| runs_code(own, task));
    (invocation.environment, invocation.without) = command::environment(settings, runs_code, folders.cache, None);
    let answer = ask(&settings.python, &invocation, PROBE_TIMEOUT, cancel)?;
    let no_answer = || Problem::NoAnswer { python: settings.python.clone(), exit: Exit::Code(0), line: answer.clone() };
    serde_json::from_str(&answer).map_err(|_| no_answer())
}

fn json_of(value: &Scalar) -> serde_json::Value {
    match value {
        Scalar::Bool(value) => json!(value),
        Scalar::Int(value) => json!(value),
        Scalar::Float(value) => json!(value),
        Scalar::Text(value) => json!(value),
    }
}

/// Runs a program and gives back its line of answer.
fn ask(python: &Path, invocation: &Invocation, timeout: Duration, cancel: &Cancel) -> Result<String, Problem> {
    let captured = process::capture(invocation, Some(timeout), cancel, &mut |_| {})?;
    if captured.exit == Exit::Cancelled {
        return Err(Problem::Cancelled);
    }
    match captured.stdout.lines().rev().find_map(|line| line.strip_prefix(ANSWER)) {
        Some(answer) => Ok(answer.to_owned()),
        None => {
            let line = captured.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(Problem::NoAnswer { python: python.to_owned(), exit: captured.exit, line: line.to_owned() })
        }
    }
}

fn told_by_harness(
    settings: &Settings,
    folders: Folders<'_>,
    answer: Answer,
    problems: &mut Vec<Problem>,
) -> Preflight {
    let python = || settings.python.clone();
    let mut preflight = Preflight { python_version: answer.python, ..Preflight::default() };
    preflight.versions =
        answer.versions.into_iter().filter_map(|(package, version)| Some((package, version?))).collect();
    match preflight.versions.remove("lm_eval") {
        Some(version) => preflight.lm_eval_version = version,
        None => {
            problems.push(Problem::MissingPackage { python: python(), package: "lm_eval".to_owned(), needed_by: None });
            return preflight;
        }
    }
    if preflight.lm_eval_version != KNOWN_VERSION {
        let version = &preflight.lm_eval_version;
        preflight.notes.push(format!("the harness is lm_eval {version}; this program is made for {KNOWN_VERSION}"));
    }
    for package in &answer.missing {
        let is_of_search = settings.packages.contains(&package.as_str());
        let needed_by = if is_of_search { "`search`".to_owned() } else { format!("back end `{}`", settings.model) };
        let (package, needed_by) = (package.clone(), Some(needed_by));
        problems.push(Problem::MissingPackage { python: python(), package, needed_by });
    }
    if let Some(line) = answer.error {
        problems.push(Problem::Harness { line });
    }
    if answer.backends.is_some_and(|backends| !backends.contains(&settings.model))
        && !command::is_server(&settings.model)
    {
        problems.push(Problem::UnknownBackend { backend: settings.model.clone() });
    }
    for task in &settings.tasks {
        if let Some(answer) = answer.tasks.get(&task.name) {
            told_of_task(settings, task, answer, &mut preflight, problems);
        }
    }
    let is_estimated = settings.tasks.iter().any(|task| is_tiny(&task.name));
    match answer.tiny_parameters {
        Some(reason) => problems.push(Problem::TinyParameters { home: folders.home.to_owned(), reason }),
        // Scores of one sweep are made with one file.
        None if is_estimated => problems.extend(gp_irt::recorded_digest(folders.home).err().map(Problem::from)),
        None => {}
    }
    preflight.gpu = answer.gpu.clone().filter(|gpu| !gpu.is_empty());
    match (answer.gpu, asks_for_gpu(settings)) {
        (Some(_), Some((asked_by, n_asked))) if answer.n_gpus < n_asked => {
            problems.push(Problem::NoGpu { asked_by, n_asked, n_seen: answer.n_gpus, python: python() });
        }
        (Some(_), None) if answer.n_gpus == 0 && settings.device.is_none() => {
            preflight.notes.push("no GPU: models run on the CPU".to_owned());
        }
        _ => {}
    }
    let any_code = preflight.known.keys().any(|task| command::runs_code(&preflight.known, task));
    if settings.allow_code_eval != CodeEval::Off && !any_code {
        preflight.notes.push("`allow_code_eval` has no effect: no task runs code".to_owned());
    }
    preflight
}

fn told_of_task(
    settings: &Settings,
    task: &TaskRequest,
    answer: &TaskAnswer,
    preflight: &mut Preflight,
    problems: &mut Vec<Problem>,
) {
    let name = || task.name.clone();
    if let Some(near) = &answer.near {
        problems.push(Problem::UnknownTask { task: name(), near: near.first().cloned() });
    } else if let Some(line) = &answer.error {
        let other = Cause::Other { exit: Exit::Code(1), line: line.clone() };
        let cause = cause_of(Exit::Code(1), std::slice::from_ref(line)).unwrap_or(other);
        problems.push(Problem::Task { task: name(), cause });
    } else if let Some(members) = &answer.members {
        let already =
            |problem: &Problem| matches!(problem, Problem::CodeNotAllowed { task: told } if *told == task.name);
        if members.iter().any(|member| member.runs_code)
            && settings.allow_code_eval == CodeEval::Off
            && !problems.iter().any(already)
        {
            problems.push(Problem::CodeNotAllowed { task: name() });
        }
        let members = members.iter().map(|member| KnownTask {
            name: member.name.clone(),
            n_documents: member.n_documents,
            runs_code: member.runs_code,
        });
        preflight.known.insert(name(), members.collect());
    }
}
