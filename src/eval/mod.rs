//! Evaluation by lm-evaluation-harness, run as a subprocess: what is asked ([`Settings`]), how it is called
//! ([`command`]; [`warm`] for many models in one process), whether it succeeded and what it said ([`results`]), and which score makes which column ([`task`]).
//!
//! Knows no sweep, no merge and no table: a folder with a model goes in, [`Score`]s come out.

pub mod command;
pub mod consistency;
pub mod failure;
pub mod gp_irt;
pub mod harness;
pub mod preflight;
pub mod results;
pub mod samples;
pub mod sandbox;
pub mod secrets;
pub mod task;
pub mod task_files;
pub mod warm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Scalar;

/// Everything that decides how models are evaluated (harness: the flags of `lm_eval run`).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Tasks in the order of the spec.
    pub tasks: Vec<TaskRequest>,
    /// Harness back end: `hf` by default, `vllm`, `dummy`, …
    pub model: String,
    /// Arguments of the back end, without the path of the model.
    pub model_args: BTreeMap<String, Scalar>,
    /// A number or `auto`.
    pub batch_size: Scalar,
    /// `device`, where given (`cpu`, `cuda:0`).
    pub device: Option<String>,
    /// Documents per task, for tasks without a limit of their own.
    pub limit: Option<u64>,
    /// Random, numpy, torch and few-shot seed.
    pub seeds: [u64; 4],
    /// Folder of task definitions beside the stock ones, absolute.
    pub include_path: Option<PathBuf>,
    /// Few-shot examples, for tasks without a number of their own.
    pub num_fewshot: Option<u64>,
    /// Generation settings that override those of the tasks.
    pub gen_kwargs: BTreeMap<String, Scalar>,
    /// Whether prompts go through the chat template, and which one where it is named.
    pub chat_template: ChatTemplate,
    /// System instruction, with a chat template.
    pub system_instruction: Option<String>,
    /// The Python interpreter that has the harness.
    pub python: PathBuf,
    /// Environment of the harness, on top of the caller's.
    pub environment: BTreeMap<String, String>,
    /// Whether the harness stays for many models.
    pub mode: HarnessMode,
    /// Opt-in to running code that a model wrote.
    pub allow_code_eval: CodeEval,
    /// Longest time one harness process may take.
    pub timeout: Option<Duration>,
    /// Packages that the search needs in the interpreter.
    pub packages: Vec<&'static str>,
}

/// Whether code that a model wrote may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodeEval {
    /// No.
    #[default]
    Off,
    /// Under bubblewrap: see [`sandbox`].
    Sandboxed,
    /// With the user's rights.
    Bare,
}

/// How the harness is run where both ways are open. The answers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HarnessMode {
    /// One process stays for all models of a slot: see [`warm`].
    #[default]
    Warm,
    /// A fresh process for every call.
    Command,
}

impl HarnessMode {
    /// Every choice with its name.
    pub const NAMES: &'static [(&'static str, Self)] = &[("warm", Self::Warm), ("command", Self::Command)];
}

/// Chat template switch (harness: `apply_chat_template`).
#[derive(Debug, Clone, PartialEq)]
pub enum ChatTemplate {
    /// Plain prompts.
    Off,
    /// The tokenizer's own template.
    On,
    /// A named one of several.
    Named(String),
}

/// One task to run.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRequest {
    /// Harness name, spelled exactly.
    pub name: String,
    /// Documents, over the sweep-wide limit.
    pub limit: Option<u64>,
    /// These documents and no others, by their place in the test split, rising; over any limit (harness: `samples`).
    pub documents: Option<Arc<[u64]>>,
    /// Few-shot examples, over the sweep-wide number.
    pub num_fewshot: Option<u64>,
    /// A batch size, over the sweep-wide one.
    pub batch_size: Option<Scalar>,
    /// Arguments of the back end, beside and over the sweep-wide ones.
    pub model_args: BTreeMap<String, Scalar>,
    /// Generation settings, beside and over the sweep-wide ones.
    pub gen_kwargs: BTreeMap<String, Scalar>,
    /// Columns asked for; empty: the preset of the mapping table, else every metric the task reports.
    pub columns: Vec<ColumnRequest>,
}

impl TaskRequest {
    /// A task with nothing of its own.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            limit: None,
            documents: None,
            num_fewshot: None,
            batch_size: None,
            model_args: BTreeMap::new(),
            gen_kwargs: BTreeMap::new(),
            columns: Vec::new(),
        }
    }
}

impl Settings {
    /// The settings that hold for a task: its own over those of the sweep.
    pub fn of(&self, task: &TaskRequest) -> Self {
        let mut settings = self.clone();
        settings.num_fewshot = task.num_fewshot.or(self.num_fewshot);
        settings.batch_size = task.batch_size.clone().unwrap_or_else(|| self.batch_size.clone());
        settings.model_args.extend(task.model_args.clone());
        settings.gen_kwargs.extend(task.gen_kwargs.clone());
        settings
    }
}

/// One column asked for in the spec.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnRequest {
    /// Its name in the table.
    pub name: String,
    /// Metric, for example `exact_match`.
    pub metric: String,
    /// Filter, `none` where the task has none.
    pub filter: String,
}

/// One number of one evaluation (harness: a `metric,filter` entry of `results`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Harness task.
    pub task: String,
    /// Metric.
    pub metric: String,
    /// Filter, `none` where the task has none.
    pub filter: String,
    /// Documents answered.
    pub n: Option<u64>,
    /// Documents of the task, when a limit left some out more than `n`.
    pub n_total: Option<u64>,
    /// The value; `None` where the harness wrote NaN.
    pub value: Option<f64>,
    /// Its standard error; `None` where the harness says `N/A`.
    pub stderr: Option<f64>,
    /// Whether more is better, where the task says.
    pub higher_is_better: Option<bool>,
    /// Version of the task definition, as text.
    pub task_version: Option<String>,
    /// Few-shot examples used.
    pub num_fewshot: Option<u64>,
    /// Harness digest over documents, prompts and targets.
    pub task_hash: Option<String>,
}

impl Score {
    /// Whether a limit left some of the task's documents out.
    pub fn is_limited(&self) -> bool {
        matches!((self.n, self.n_total), (Some(n), Some(total)) if n < total)
    }
}
