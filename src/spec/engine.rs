//! `engine`: where a run works, on this machine or through Slurm, and what it asks of Slurm.

use std::time::Duration;

use super::evaluate::{duration, refuse_secret};
use super::keys;
use super::resources::bytes;
use crate::document::read::{Field, Table};
use crate::document::shape::TableShape;
use crate::document::{Code, Problems};
use crate::eval::secrets::spelt_out;

/// Where a run works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// In the process that was started, and its children.
    #[default]
    Local,
    /// In jobs of a Slurm cluster.
    Slurm,
}

impl EngineKind {
    /// The words of a spec.
    pub const NAMES: &'static [(&'static str, Self)] = &[("local", Self::Local), ("slurm", Self::Slurm)];
}

/// `engine`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engine {
    /// `kind` (default: local).
    pub kind: EngineKind,
    /// Everything else: it is only read where the engine is Slurm.
    pub slurm: Slurm,
}

/// What Slurm is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slurm {
    /// What a job of a unit gets; where it is split, that of its evaluations.
    pub unit: JobRequest,
    /// Whether merges have jobs of their own.
    pub split: bool,
    /// What such a job gets (default: no GPUs, no further options, and otherwise what the others get).
    pub merge: JobRequest,
    /// What the job gets that writes the table (default: one CPU for a quarter of an hour, partition, account and QoS as the
    /// others; where it is split, as the merges).
    pub table: JobRequest,
    /// Shell lines before the program: modules, a virtual environment. The only text of a spec that a shell reads.
    pub prologue: Option<String>,
    /// Where merged models lie while they are needed: a folder, or one that a variable of the job names
    /// (`$SLURM_TMPDIR/models`).
    pub work_dir: Option<String>,
    /// A command that the program is put behind: `["apptainer", "exec", "--nv", "image.sif"]`.
    pub container: Vec<String>,
    /// Trials of one unit (default: merges of one pass; a model that is not merged has a unit of its own).
    pub trials_per_job: Option<usize>,
    /// Most tasks at once.
    pub tasks_at_once: Option<usize>,
    /// How often a unit is submitted again whose job timed out or was lost (default: 3).
    pub max_resubmissions: usize,
    /// Time between two questions to Slurm (default: 15 s).
    pub poll: Duration,
}

/// What one kind of job asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRequest {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--time`.
    pub time: Option<Duration>,
    /// `--gres=gpu:N`.
    pub gpus: Option<usize>,
    /// `--cpus-per-task`.
    pub cpus: Option<usize>,
    /// `--mem`, in bytes.
    pub memory: Option<u64>,
    /// Further options of `sbatch`, one an item.
    pub sbatch: Vec<String>,
}

impl Default for Slurm {
    fn default() -> Self {
        Self {
            unit: JobRequest::default(),
            split: false,
            merge: JobRequest::default(),
            table: table_of(&JobRequest::default()),
            prologue: None,
            work_dir: None,
            container: Vec::new(),
            trials_per_job: None,
            tasks_at_once: None,
            max_resubmissions: 3,
            poll: Duration::from_secs(15),
        }
    }
}

/// What the job that writes the table gets where nothing is said of it.
fn table_of(unit: &JobRequest) -> JobRequest {
    let JobRequest { partition, account, qos, .. } = unit.clone();
    let time = Some(Duration::from_secs(900));
    JobRequest { partition, account, qos, time, cpus: Some(1), ..JobRequest::default() }
}

/// What a job that only merges gets where nothing is said of it.
fn merge_of(unit: &JobRequest) -> JobRequest {
    JobRequest { gpus: None, sbatch: Vec::new(), ..unit.clone() }
}

/// Reads `engine`.
pub fn engine(field: Option<&Field<'_>>, problems: &mut Problems) -> Engine {
    let mut engine = Engine::default();
    let Some(mut table) = field.and_then(|field| field.table(&keys::ENGINE, problems)) else { return engine };
    if let Some(kind) = table.optional("kind").and_then(|field| field.one_of(EngineKind::NAMES, problems)) {
        engine.kind = kind;
    }
    let slurm = &mut engine.slurm;
    job(&mut table, &mut slurm.unit, problems);
    if let Some(split) = table.optional("split").and_then(|field| field.switch(problems)) {
        slurm.split = split;
    }
    slurm.merge = merge_of(&slurm.unit);
    if let Some(field) = table.optional("merge") {
        if !slurm.split {
            let hint = Some("add `split = true` to `engine`".to_owned());
            field.warning(Code::NoEffect, "has no effect: merges have no jobs of their own", hint, problems);
        }
        of_one_kind(&field, &keys::MERGE_JOB, &mut slurm.merge, problems);
    }
    slurm.table = table_of(if slurm.split { &slurm.merge } else { &slurm.unit });
    if let Some(field) = table.optional("table") {
        of_one_kind(&field, &keys::JOB, &mut slurm.table, problems);
    }
    slurm.prologue = table.optional("prologue").and_then(|field| line(&field, problems)).map(str::to_owned);
    slurm.work_dir = table.optional("work_dir").and_then(|field| field.text(problems)).map(str::to_owned);
    if let Some(field) = table.optional("container") {
        let items = field.list("a command as a list: `[\"apptainer\", \"exec\", \"image.sif\"]`", problems);
        slurm.container =
            items.unwrap_or_default().iter().filter_map(|item| line(item, problems)).map(str::to_owned).collect();
    }
    slurm.trials_per_job = count(table.optional("trials_per_job"), 1, problems);
    slurm.tasks_at_once = count(table.optional("tasks_at_once"), 1, problems);
    if let Some(most) = count(table.optional("max_resubmissions"), 0, problems) {
        slurm.max_resubmissions = most;
    }
    if let Some(poll) = table.optional("poll").and_then(|field| duration(&field, problems)) {
        slurm.poll = poll;
    }
    table.finish(problems);
    engine
}

/// Reads what one kind of job asks for beside what it has.
fn of_one_kind(field: &Field<'_>, shape: &'static TableShape, into: &mut JobRequest, problems: &mut Problems) {
    let Some(mut table) = field.table(shape, problems) else { return };
    job(&mut table, into, problems);
    table.finish(problems);
}

fn job(table: &mut Table<'_>, job: &mut JobRequest, problems: &mut Problems) {
    for (key, into) in [("partition", &mut job.partition), ("account", &mut job.account), ("qos", &mut job.qos)] {
        if let Some(found) = table.optional(key).and_then(|field| word(&field, problems)) {
            *into = Some(found);
        }
    }
    if let Some(time) = table.optional("time").and_then(|field| duration(&field, problems)) {
        job.time = Some(time);
    }
    for (key, least, into) in [("gpus", 0, &mut job.gpus), ("cpus", 1, &mut job.cpus)] {
        if let Some(found) = count(table.optional(key), least, problems) {
            *into = Some(found);
        }
    }
    if let Some(memory) = table.optional("memory").and_then(|field| bytes(&field, problems)) {
        job.memory = Some(memory);
    }
    if let Some(field) = table.optional("sbatch") {
        let items = field.list("a list of options: `[\"--constraint=a100\"]`", problems).unwrap_or_default();
        job.sbatch = items.iter().filter_map(|item| option(item, problems)).collect();
    }
}

fn count(field: Option<Field<'_>>, least: u64, problems: &mut Problems) -> Option<usize> {
    let found = field.and_then(|field| field.whole(least, problems))?;
    Some(usize::try_from(found).unwrap_or(usize::MAX))
}

/// A name as Slurm has them.
fn word(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    let is_word = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.,:@+-".contains(letter));
    if !is_word {
        let message = "a name of Slurm has letters, digits and `_.,:@+-` only";
        field.problem(Code::WrongValue, message, None, problems);
    }
    is_word.then(|| text.to_owned())
}

/// What a job script holds, and its log may show.
fn line<'a>(field: &Field<'a>, problems: &mut Problems) -> Option<&'a str> {
    let text = field.text(problems)?;
    if let Some(name) = spelt_out(text) {
        refuse_secret(field, name, problems);
    }
    Some(text)
}

/// An option of `sbatch`.
fn option(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or_default();
    let is_option = name.starts_with(|letter: char| letter.is_ascii_alphabetic()) && !text.contains(['\n', '\r']);
    if !is_option {
        field.expected("an option of `sbatch` such as `--constraint=a100`", problems);
    }
    // In its value: `--wckey` is a name like any other.
    if let Some(secret) = text.split_once(['=', ' ']).and_then(|(_, value)| spelt_out(value)) {
        refuse_secret(field, secret, problems);
    }
    is_option.then(|| text.to_owned())
}
