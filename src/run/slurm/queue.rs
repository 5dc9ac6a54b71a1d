//! Slurm's own commands: what is asked, and what the answers mean. Slurm is believed about what lives and what does not,
//! and about nothing else; a question without an answer leaves everything as it was.

use std::path::Path;
use std::time::Duration;

use crate::process::{Cancel, Captured, Exit, Invocation, capture};

/// How long a command may take. A controller that is being restarted answers late.
const PATIENCE: Duration = Duration::from_secs(60);

/// Slurm as it is set up almost everywhere.
const MAX_ARRAY_SIZE: usize = 1001;

/// Why a task never begins whose dependency cannot be met.
const UNMET: &str = "DependencyNeverSatisfied";

/// Why a task waits that could not be started where Slurm wanted it to run, as on a node whose prologue failed. Newer
/// releases have `_` for the blanks.
const NOT_LAUNCHED: &str = "launch failed requeued held";

/// A command that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{command}` does not answer: {why}")]
pub struct Unanswered {
    /// The command.
    pub command: String,
    /// What it said, or why it was not there.
    pub why: String,
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Slurm refuses it, and would refuse it again.
    #[error("Slurm refuses the job: {0}")]
    Refused(String),
    /// Whether it was taken is not known: it is to be looked for by its name.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// A task as Slurm tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Name of its job.
    pub name: String,
    /// Number of its job.
    pub job: String,
    /// Its index, where the job is an array.
    pub index: Option<usize>,
    /// Its state.
    pub state: TaskState,
    /// Why it waits, where it does.
    pub reason: String,
    /// Where it runs.
    pub node: String,
}

impl Task {
    /// As Slurm's commands take it.
    pub fn id(&self) -> String {
        let index = self.index.map(|index| format!("_{index}")).unwrap_or_default();
        format!("{}{index}", self.job)
    }

    /// Whether it could not be started and is held for that: it stays so until its owner lets it try again.
    pub fn is_held_after_launch(&self) -> bool {
        self.state == TaskState::Pending && self.reason.replace('_', " ") == NOT_LAUNCHED
    }
}

/// What a task is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// It has not begun, or will begin again.
    Pending,
    /// It runs, or is on its way in or out.
    Running,
    /// It is over.
    Ended(Ending),
}

/// How a task ended, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By itself, and well.
    Completed,
    /// By itself, and not well.
    ByItself,
    /// Before it could begin: what it waited for did not end well.
    Unmet,
    /// Its time was over.
    TimedOut,
    /// Its node failed, or it had to make room for another job.
    Lost(String),
    /// It used more memory than it had.
    OutOfMemory,
    /// Somebody cancelled it; the number of that user, where Slurm tells.
    Cancelled(Option<String>),
    /// Nobody knows.
    Unknown,
}

impl TaskState {
    /// Reads a state of `squeue` or `sacct`: `CANCELLED by 0` is `CANCELLED`.
    pub fn of(text: &str) -> Self {
        let word = text.split([' ', '+']).next().unwrap_or_default();
        match word {
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "SPECIAL_EXIT"
            | "RESV_DEL_HOLD" => Self::Pending,
            "COMPLETED" => Self::Ended(Ending::Completed),
            "FAILED" => Self::Ended(Ending::ByItself),
            "TIMEOUT" | "DEADLINE" => Self::Ended(Ending::TimedOut),
            "NODE_FAIL" | "BOOT_FAIL" | "PREEMPTED" | "REVOKED" => Self::Ended(Ending::Lost(word.to_owned())),
            "OUT_OF_MEMORY" => Self::Ended(Ending::OutOfMemory),
            "CANCELLED" => {
                Self::Ended(Ending::Cancelled(text.split_once(" by ").map(|(_, user)| user.trim().to_owned())))
            }
            // COMPLETING, STAGE_OUT, SIGNALING, STOPPED, SUSPENDED, RESIZING and what later releases invent: not over.
            _ => Self::Running,
        }
    }
}

/// The tasks of all jobs with these names that Slurm remembers, in one question.
///
/// # Errors
/// [`Unanswered`].
pub fn tasks(names: &[&str], cancel: &Cancel) -> Result<Vec<Task>, Unanswered> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let args = ["-h", "-r", "-t", "all", "-o", "%i|%j|%T|%r|%N", "--name", &names.join(",")];
    let answer = ask("squeue", &args, cancel)?;
    Ok(listed(&answer.stdout))
}

/// The lines of `squeue`.
pub fn listed(text: &str) -> Vec<Task> {
    let task = |line: &str| {
        let parts: Vec<&str> = line.split('|').collect();
        let [id, name, state, reason, node] = parts.as_slice() else { return None };
        let (job, index) = task_id(id);
        let (job, name) = (job.to_owned(), (*name).to_owned());
        let (reason, node) = ((*reason).to_owned(), (*node).to_owned());
        // It is cancelled in a moment, if it is not yet.
        let state = if reason == UNMET { TaskState::Ended(Ending::Unmet) } else { TaskState::of(state) };
        Some(Task { name, job, index, state, reason, node })
    };
    text.lines().filter_map(task).collect()
}

fn task_id(id: &str) -> (&str, Option<usize>) {
    id.split_once('_').map_or((id, None), |(job, index)| (job, index.parse().ok()))
}

/// How tasks ended that `squeue` no longer knows. What the accounting does not know is left out; without accounting, that is
/// all.
pub fn accounted(jobs: &[&str], cancel: &Cancel) -> Vec<(String, Option<usize>, TaskState)> {
    if jobs.is_empty() {
        return Vec::new();
    }
    let args = ["-n", "-P", "-X", "-o", "JobID,State", "-j", &jobs.join(",")];
    ask("sacct", &args, cancel).map(|answer| accounts(&answer.stdout)).unwrap_or_default()
}

/// The lines of `sacct`.
pub fn accounts(text: &str) -> Vec<(String, Option<usize>, TaskState)> {
    let line = |line: &str| {
        let (id, state) = line.split_once('|')?;
        let (job, index) = task_id(id);
        Some((job.to_owned(), index, TaskState::of(state)))
    };
    text.lines().filter_map(line).collect()
}

/// Hands a script over and gives back the number of its job. `dependency` is empty where it waits for nothing.
///
/// # Errors
/// [`NotTaken`].
pub fn submit(script: &Path, dependency: &str, cancel: &Cancel) -> Result<String, NotTaken> {
    let args = submit_args(script, dependency);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let invocation = Invocation::new("sbatch", args.iter().copied());
    let unanswered = |why: String| Unanswered { command: "sbatch".to_owned(), why };
    let answer =
        capture(&invocation, Some(PATIENCE), cancel, &mut |_| {}).map_err(|error| unanswered(error.to_string()))?;
    let said = last_line(&answer);
    match answer.exit {
        Exit::Code(0) => {
            // `123` or `123;cluster`.
            let id = answer.stdout.trim().split(';').next().unwrap_or_default().to_owned();
            let is_number = !id.is_empty() && id.chars().all(|digit| digit.is_ascii_digit());
            if is_number { Ok(id) } else { Err(unanswered(format!("it printed `{}`", answer.stdout.trim())).into()) }
        }
        Exit::Code(_) if !is_transient(&answer.stderr) => Err(NotTaken::Refused(said)),
        exit => Err(unanswered(format!("{exit}: {said}")).into()),
    }
}

/// Arguments of `sbatch`.
pub fn submit_args(script: &Path, dependency: &str) -> Vec<String> {
    let mut args = vec!["--parsable".to_owned()];
    if !dependency.is_empty() {
        // Without the second, a job whose dependency cannot be met stays for ever.
        args.push(format!("--dependency={dependency}"));
        args.push("--kill-on-invalid-dep=yes".to_owned());
    }
    args.push(script.display().to_string());
    args
}

/// Whether a refusal of `sbatch` says nothing about the job.
pub fn is_transient(stderr: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "Unable to contact slurm controller",
        "Socket timed out",
        "Connection refused",
        "Connection timed out",
        "Zero Bytes were transmitted",
        "Communication connection failure",
        "Slurm temporarily unable to accept job",
        "Resource temporarily unavailable",
        // A controller that crashed has forgotten the other job; the next answer will say so.
        "Job dependency problem",
    ];
    SIGNS.iter().any(|sign| stderr.contains(sign))
}

/// Ends jobs, those that are gone included.
///
/// # Errors
/// [`Unanswered`].
pub fn cancel_jobs(jobs: &[&str], cancel: &Cancel) -> Result<(), Unanswered> {
    if jobs.is_empty() { Ok(()) } else { ask("scancel", jobs, cancel).map(|_| ()) }
}

/// Lets held tasks try again.
///
/// # Errors
/// [`Unanswered`].
pub fn release(tasks: &[String], cancel: &Cancel) -> Result<(), Unanswered> {
    let list = tasks.join(",");
    ask("scontrol", &["release", &list], cancel).map(|_| ())
}

/// The number of indices that an array may have here; `None` where Slurm does not answer.
pub fn max_array_size(cancel: &Cancel) -> Option<usize> {
    let answer = ask("scontrol", &["show", "config"], cancel).ok()?;
    array_size(&answer.stdout)
}

/// The setting of a cluster that answers.
pub fn array_size(config: &str) -> Option<usize> {
    let line = config.lines().find_map(|line| line.trim_start().strip_prefix("MaxArraySize"))?;
    line.trim_start_matches([' ', '=']).trim().parse().ok()
}

/// Asks whether there is a Slurm here.
///
/// # Errors
/// [`Unanswered`] where its programs are not installed.
pub fn is_there(cancel: &Cancel) -> Result<(), Unanswered> {
    ask("scontrol", &["--version"], cancel).map(|_| ())
}

/// What is assumed where no cluster answers.
pub fn usual_array_size() -> usize {
    MAX_ARRAY_SIZE
}

fn ask(command: &str, args: &[&str], cancel: &Cancel) -> Result<Captured, Unanswered> {
    let unanswered = |why: String| Unanswered { command: command.to_owned(), why };
    let invocation = Invocation::new(command, args.iter().copied());
    let answer =
        capture(&invocation, Some(PATIENCE), cancel, &mut |_| {}).map_err(|error| unanswered(error.to_string()))?;
    if answer.exit.is_success() {
        return Ok(answer);
    }
    let said = last_line(&answer);
    Err(unanswered(format!("{}: {said}", answer.exit)))
}

fn last_line(answer: &Captured) -> String {
    let line = answer.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim_start_matches("sbatch: error: ").trim_start_matches("Batch job submission failed: ").to_owned()
}
