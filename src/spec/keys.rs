//! Keys of a spec, table by table, as the readers ask for them; the JSON Schema and the reference of keys are made from them.

use serde_json::Value as Json;

use super::engine::EngineKind;
use super::lint::{Dead, TwinEvaluation};
use super::search::{Combining, SAMPLERS, Strategy};
use crate::config::keys as dialect;
use crate::document::shape::{self, Shape, TableShape, key, must};
use crate::eval::HarnessMode;

const MODEL_TEXT: Shape = Shape::Text;
const TASK_SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::Table(&TASK)]);
const BASELINE_SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::Table(&BASELINE)]);
const MODEL_SHAPE: Shape = Shape::Either(&[Shape::Text, Shape::Table(&MODEL)]);
const MERGE_SHAPE: Shape = Shape::Table(&MERGE);
const SCALARS: Shape = Shape::Named(&Shape::Scalar);
const TIME: Shape = Shape::Either(&[
    Shape::Whole(1),
    Shape::Form(
        r"^\s*(([0-9]+\s*[dhms]\s*)+|[0-9]+\s*)$",
        "time with units (`\"6h\"`, `\"1h30m\"`, `\"90s\"`), or seconds",
    ),
]);
const SIZE: Shape = Shape::Either(&[
    Shape::Whole(1),
    Shape::Form(r"^\s*[0-9]*\.?[0-9]+\s*([KMGT]i?B)\s*$", "size with its unit (`\"200GB\"`, `\"512MiB\"`), or bytes"),
]);
/// Models of a merge: names, mergekit's own entries, or names with their parameters.
const MERGED: Shape = Shape::Either(&[
    Shape::List(&Shape::Either(&[MODEL_TEXT, Shape::Table(&dialect::SOURCE)])),
    Shape::Named(&Shape::Either(&[Shape::Nothing, dialect::PARAMETERS])),
]);
/// Axes by name. A table that defines none is a prefix of names, so what is in it is not told apart here.
const AXES: Shape =
    Shape::Named(&Shape::Either(&[Shape::Some(&Shape::Anything), Shape::Table(&AXIS), Shape::Named(&Shape::Anything)]));
const SETTINGS: Shape = Shape::List(&Shape::Named(&Shape::Anything));
const BATCH_SIZE: Shape = Shape::Either(&[Shape::Whole(1), Shape::Form("^auto(:[0-9]+)?$", "`\"auto\"`")]);
const SEEDS: Shape = Shape::Either(&[Shape::Whole(0), Shape::Exactly(4, &Shape::Whole(0))]);
const CODE_EVAL: Shape = Shape::Either(&[Shape::Switch, Shape::OneOf(|| vec!["sandboxed"])]);
const COLUMNS: Shape = Shape::Either(&[Shape::List(&Shape::Text), Shape::Named(&Shape::Text)]);
const METRIC: Shape = Shape::Either(&[Shape::Text, Shape::Some(&Shape::Text), Shape::Named(&Shape::Number)]);
const FLOORS: Shape = Shape::Named(&Shape::Number);
const GPUS: Shape = Shape::Either(&[Shape::OneOf(|| vec!["auto"]), Shape::List(&Shape::Scalar)]);
const KEEP: Shape = Shape::Either(&[
    Shape::OneOf(|| vec!["none", "all", "pareto"]),
    Shape::Form("^best:\\+?0*[1-9][0-9]*(:.*)?$", "`\"best:3\"` (by mean rank) or `\"best:3:COLUMN\"`"),
]);
const SLURM_NAME: Shape = Shape::Form(r"^[A-Za-z0-9_.,:@+-]+$", "name of Slurm (letters, digits, `_.,:@+-`)");
const SBATCH: Shape =
    Shape::List(&Shape::Form(r"^--?[A-Za-z][^\n\r]*$", "option of `sbatch` (`\"--constraint=a100\"`)"));
const NAME: Shape = Shape::Form(r"^[^./\\\s-]([^/\\]*[^/\\\s])?$", "text that can be the name of a folder");

/// The whole spec.
pub static SWEEP: TableShape = TableShape {
    name: "sweep",
    expected: "a sweep (a table with `name`, `models`, `merge`, `evaluate`)",
    keys: &[
        must("name", NAME, "the name of the sweep, which is that of its folder of results"),
        key(
            "models",
            Shape::Named(&MODEL_SHAPE),
            "none",
            "models by short name: a folder, a hub id, `ID@REVISION` or `BASE+ADAPTER`",
        ),
        must("evaluate", Shape::Table(&EVALUATE), "what to evaluate (a table with `tasks`)"),
        key(
            "baseline",
            Shape::Either(&[Shape::List(&BASELINE_SHAPE), Shape::Table(&BASELINE)]),
            "none",
            "models that are evaluated as they are",
        ),
        key("merge", Shape::Either(&[Shape::List(&MERGE_SHAPE), MERGE_SHAPE]), "none", "merges, each with its axes"),
        key("limits", Shape::Table(&LIMITS), "", "guards against runaway sweeps, and what stays on disk"),
        key("resources", Shape::Table(&RESOURCES), "", "what a run may use of the machine"),
        key("engine", Shape::Table(&ENGINE), "", "where a run works: on this machine, or in jobs of a Slurm cluster"),
        key("lint", Shape::Table(&LINT), "", "what becomes of settings that nobody reads"),
        key(
            "twins",
            Shape::OneOf(|| TwinEvaluation::NAMES.iter().map(|(name, _)| *name).collect()),
            "`separate`",
            "whether trials that are equal but for rounding are evaluated each, or once for all of them",
        ),
        key("search", Shape::Table(&SEARCH), "", "which trials go on, decided on a growing part of the documents"),
        key("report", Shape::Table(&REPORT), "", "what `report` compares with"),
        key("gate", Shape::Table(&GATE), "", "how much worse `check` lets a later run be"),
    ],
    private_keys: true,
    elsewhere: &[("grid", "axes stand in a merge: `grid.t = [0.3, 0.5]` under `[[merge]]`")],
};

/// A model of `models`, in parts.
pub static MODEL: TableShape = TableShape {
    name: "model",
    expected: "a model",
    keys: &[
        must("path", Shape::Text, "a folder or hub id"),
        key("revision", Shape::Text, "the newest", "a branch, tag or commit on the hub"),
        key("adapter", Shape::Text, "none", "a PEFT LoRA adapter to apply while reading"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// An entry of `baseline`.
pub static BASELINE: TableShape = TableShape {
    name: "baseline",
    expected: "a model, or `{ name, model }`",
    keys: &[
        key("name", Shape::Text, "the model's", "the name of its row"),
        must("model", Shape::Text, "a model: its short name, path or hub id"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// An entry of `merge`.
pub static MERGE: TableShape = TableShape {
    name: "merge",
    expected: "a merge (a table)",
    keys: &[
        must("name", Shape::Text, "a name of its rows, with axes in braces: `SLERP (t={t})`"),
        key("config", Shape::Text, "", "a mergekit file to start from, instead of `method` and `models`"),
        key("method", Shape::OneOf(dialect::methods), "", "the merge method"),
        key("models", MERGED, "", "the models to merge: names, or `{ math = { weight = 0.7 } }`"),
        dialect::BASE_MODEL,
        key("parameters", dialect::PARAMETERS, "none", "parameters for all models and layers"),
        key("grid", AXES, "", "axes of which every combination is run: a list of values or `{ from, to, step }`"),
        key("zip", AXES, "", "axes that vary in lock-step"),
        key("settings", SETTINGS, "", "combinations listed one by one: `[{ t = 0.3 }, { t = 0.5 }]`"),
        key("exclude", SETTINGS, "none", "combinations to leave out: `[{ density = 0.2, seed = 3 }]`"),
        key("sample", Shape::Table(&SAMPLE), "all", "a random part of the combinations"),
        key("seed", Shape::Whole(0), "0", "the seed of random masks"),
        key(
            "numerics",
            Shape::OneOf(dialect::numerics),
            "`f32`",
            "how intermediate results are rounded: once at the end, or after every step as mergekit does",
        ),
        dialect::DTYPE_KEY,
        dialect::OUT_DTYPE,
        dialect::TOKENIZER_SOURCE,
        dialect::TOKENIZER_KEY,
        dialect::CHAT_TEMPLATE,
        dialect::SLICES,
        dialect::MODULES,
    ],
    private_keys: false,
    elsewhere: dialect::PARAMETER_KEYS,
};

/// An axis.
pub static AXIS: TableShape = TableShape {
    name: "axis",
    expected: "a list of values or `{ from, to, step }`",
    keys: &[
        key(
            "path",
            Shape::Either(&[Shape::Text, Shape::List(&Shape::Text)]),
            "the name of the axis",
            "what it sets: `code.weight`, `slices[0].sources[1].parameters.weight`, or several",
        ),
        key("values", Shape::Some(&Shape::Anything), "", "its values"),
        key("from", Shape::Number, "", "the first value of a range"),
        key("to", Shape::Number, "", "its last value, which is included"),
        key("step", Shape::Number, "", "the step, which must meet the end"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// `sample`.
pub static SAMPLE: TableShape = TableShape {
    name: "sample",
    expected: "`{ n, seed }`",
    keys: &[
        must("n", Shape::Whole(1), "how many combinations to keep"),
        key("seed", Shape::Whole(0), "0", "the seed of the draw"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// `evaluate`.
pub static EVALUATE: TableShape = TableShape {
    name: "evaluate",
    expected: "evaluation settings (a table)",
    keys: &[
        must("tasks", Shape::Some(&TASK_SHAPE), "a list of harness tasks"),
        key("model", Shape::Text, "`hf`", "the back end of the harness: `hf`, `vllm`, `sglang`, `dummy`"),
        key("model_args", SCALARS, "none", "arguments of the back end, such as `{ dtype = \"float16\" }`"),
        key("batch_size", BATCH_SIZE, "1", "documents at a time"),
        key("device", Shape::Text, "the harness's choice", "where models run: `cuda:0`, `cpu`"),
        key("limit", Shape::Whole(1), "all", "documents per task"),
        key("num_fewshot", Shape::Whole(0), "the task's", "examples in every prompt"),
        key("seeds", SEEDS, "0, 1234, 1234, 1234", "one seed, or four: random, numpy, torch, few-shot"),
        key(
            "include_path",
            Shape::Text,
            "none",
            "a folder of task definitions, such as the offline pack `sweeps/tasks`",
        ),
        key("gen_kwargs", SCALARS, "the task's", "settings of generation, such as `{ temperature = 0.2 }`"),
        key(
            "apply_chat_template",
            Shape::Either(&[Shape::Switch, Shape::Text]),
            "false",
            "whether prompts get the model's chat template, or the name of one",
        ),
        key("system_instruction", Shape::Text, "none", "a system message; needs the chat template"),
        key(
            "python",
            Shape::Text,
            "`$MERGESWEEP_PYTHON`, the active virtual environment, `python3`",
            "the interpreter that has the harness",
        ),
        key("environment", SCALARS, "none", "variables of the harness's environment"),
        key("harness", Shape::Table(&HARNESS), "", "how the harness is run"),
        key(
            "allow_code_eval",
            CODE_EVAL,
            "false",
            "whether tasks may run programs that the model wrote: shut in (`\"sandboxed\"`) or with your rights (`true`)",
        ),
    ],
    private_keys: false,
    elsewhere: &[("timeout", "write it as `evaluation_timeout` under `limits`")],
};

/// `evaluate.harness`.
pub static HARNESS: TableShape = TableShape {
    name: "harness",
    expected: "how the harness is run: `{ mode }`",
    keys: &[key(
        "mode",
        Shape::OneOf(|| HarnessMode::NAMES.iter().map(|(name, _)| *name).collect()),
        "`warm`",
        "whether one process stays for all models of a slot, or every call gets a fresh one",
    )],
    private_keys: false,
    elsewhere: &[],
};

/// `lint`.
pub static LINT: TableShape = TableShape {
    name: "lint",
    expected: "lint (a table)",
    keys: &[key(
        "dead",
        Shape::OneOf(|| Dead::NAMES.iter().map(|(name, _)| *name).collect()),
        "`error`",
        "what a setting that nobody reads is: an error, something to warn of, or nothing",
    )],
    private_keys: false,
    elsewhere: &[],
};

/// An entry of `tasks`.
pub static TASK: TableShape = TableShape {
    name: "task",
    expected: "a task: its name, or `{ task, limit, num_fewshot, columns, … }`",
    keys: &[
        must("task", Shape::Text, "the name of a harness task"),
        key("limit", Shape::Whole(1), "that of `evaluate`", "documents of the task"),
        key("num_fewshot", Shape::Whole(0), "that of `evaluate`", "examples in every prompt"),
        key("batch_size", BATCH_SIZE, "that of `evaluate`", "documents at a time"),
        key("model_args", SCALARS, "none", "arguments of the back end, beside and over those of `evaluate`"),
        key("gen_kwargs", SCALARS, "none", "settings of generation, beside and over those of `evaluate`"),
        key(
            "columns",
            COLUMNS,
            "the usual ones",
            "columns of the table: `{ name = \"metric,filter\" }`, or a list of metrics",
        ),
    ],
    private_keys: false,
    elsewhere: &[("name", "the task's name is its `task`; columns are named under `columns`")],
};

/// `limits`.
pub static LIMITS: TableShape = TableShape {
    name: "limits",
    expected: "limits (a table)",
    keys: &[
        key("trials", Shape::Whole(1), "1000", "the most trials a plan may have"),
        key("evaluation_timeout", TIME, "none", "the longest time of one evaluation"),
        key("merge_timeout", TIME, "none", "the longest time of one pass of merges"),
        key(
            "retries",
            Shape::Whole(0),
            "2",
            "how often what may pass (a server or hub that does not answer) is tried again",
        ),
        key(
            "merges_per_pass",
            Shape::Whole(1),
            "4",
            "merges made in one pass at most, where they read the same models",
        ),
        key("keep", KEEP, "`none`", "merged models that stay on disk once they are scored"),
    ],
    private_keys: false,
    elsewhere: &[("disk", "write it under `resources`"), ("limit", "documents per task are limited under `evaluate`")],
};

/// `resources`.
pub static RESOURCES: TableShape = TableShape {
    name: "resources",
    expected: "resources (a table)",
    keys: &[
        key("gpus", GPUS, "`auto`: those that are visible", "GPUs, by number or UUID"),
        key("gpus_per_evaluation", Shape::Whole(1), "1", "GPUs over which one model is spread"),
        key("slots_per_gpu", Shape::Whole(1), "1", "evaluations that share a GPU's memory"),
        key("cpu_slots", Shape::Whole(1), "1", "evaluations at once where there is no GPU"),
        key("threads", Shape::Whole(1), "the cores, divided by `cpu_slots`", "threads of one evaluation on a CPU"),
        key("merge_threads", Shape::Whole(1), "one for every core", "threads of a merge"),
        key("merge_memory", SIZE, "no limit", "the most memory that a merge takes, beside the files it reads"),
        key("disk", SIZE, "what is free", "the most that merged models take at any time"),
        key("work_dir", Shape::Text, "the results", "the folder in which merged models lie"),
    ],
    private_keys: false,
    elsewhere: &[("keep", "write it under `limits`")],
};

/// `engine`.
pub static ENGINE: TableShape = TableShape {
    name: "engine",
    expected: "an engine (a table)",
    keys: &[
        key(
            "kind",
            Shape::OneOf(|| EngineKind::NAMES.iter().map(|(name, _)| *name).collect()),
            "`local`",
            "where a run works; `--engine` overrides it",
        ),
        key("partition", SLURM_NAME, "the cluster's", "`--partition` of the job"),
        key("account", SLURM_NAME, "the cluster's", "`--account` of the job"),
        key("qos", SLURM_NAME, "the cluster's", "`--qos` of the job"),
        key("time", TIME, "the cluster's", "`--time` of the job; one that runs out of it goes on where it stopped"),
        key("gpus", Shape::Whole(0), "none", "GPUs of the job, asked for as `--gres=gpu:N`"),
        key("cpus", Shape::Whole(1), "the cluster's", "`--cpus-per-task` of the job"),
        key("memory", SIZE, "the cluster's", "`--mem` of the job"),
        key("sbatch", SBATCH, "none", "further options of `sbatch`, one an item"),
        key(
            "split",
            Shape::Switch,
            "`false`",
            "whether merges have jobs of their own (`merge`), in waves of as many models as `resources.disk` holds",
        ),
        key("merge", Shape::Table(&MERGE_JOB), "", "with `split`: what a job asks for that only merges"),
        key("table", Shape::Table(&JOB), "", "what the job asks for that writes the table"),
        key("prologue", Shape::Text, "none", "shell lines before the program: modules, a virtual environment"),
        key(
            "work_dir",
            Shape::Text,
            "the results",
            "where merged models lie while they are needed: a folder of the node, such as `$SLURM_TMPDIR`",
        ),
        key(
            "container",
            Shape::List(&Shape::Text),
            "none",
            "a command to run the program behind: `[\"apptainer\", \"exec\", \"--nv\", \"image.sif\"]`",
        ),
        key(
            "trials_per_job",
            Shape::Whole(1),
            "`limits.merges_per_pass`; 1 for models that are not merged",
            "trials that one task works through, with one harness process",
        ),
        key(
            "tasks_at_once",
            Shape::Whole(1),
            "what `resources.disk` allows",
            "tasks that run at the same time at most",
        ),
        key(
            "max_resubmissions",
            Shape::Whole(0),
            "3",
            "how often a unit is submitted again whose task timed out or was lost",
        ),
        key("poll", TIME, "15s", "time between two questions to Slurm"),
    ],
    private_keys: false,
    elsewhere: &[("disk", "write it under `resources`"), ("threads", "a job has as many as it has `cpus`")],
};

/// `engine.table`.
pub static JOB: TableShape = TableShape {
    name: "job",
    expected: "what a job asks for (a table)",
    keys: &[
        key("partition", SLURM_NAME, "that of the units; split, that of the merges", "`--partition` of the job"),
        key("account", SLURM_NAME, "that of the units; split, that of the merges", "`--account` of the job"),
        key("qos", SLURM_NAME, "that of the units; split, that of the merges", "`--qos` of the job"),
        key("time", TIME, "15m", "`--time` of the job; one that runs out of it goes on where it stopped"),
        key("gpus", Shape::Whole(0), "none", "GPUs of the job, asked for as `--gres=gpu:N`"),
        key("cpus", Shape::Whole(1), "1", "`--cpus-per-task` of the job"),
        key("memory", SIZE, "the cluster's", "`--mem` of the job"),
        key("sbatch", SBATCH, "none", "further options of `sbatch`, one an item"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// `merge` of `engine`.
pub static MERGE_JOB: TableShape = TableShape {
    name: "merge-job",
    expected: "what a job asks for (a table)",
    keys: &[
        key("partition", SLURM_NAME, "that of the units", "`--partition` of the job"),
        key("account", SLURM_NAME, "that of the units", "`--account` of the job"),
        key("qos", SLURM_NAME, "that of the units", "`--qos` of the job"),
        key("time", TIME, "that of the units", "`--time` of the job; one that runs out of it goes on where it stopped"),
        key("gpus", Shape::Whole(0), "none", "GPUs of the job, asked for as `--gres=gpu:N`"),
        key("cpus", Shape::Whole(1), "those of the units", "`--cpus-per-task` of the job"),
        key("memory", SIZE, "that of the units", "`--mem` of the job"),
        key("sbatch", SBATCH, "none", "further options of `sbatch`, one an item"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// `search`.
pub static SEARCH: TableShape = TableShape {
    name: "search",
    expected: "a search (a table)",
    keys: &[
        must(
            "strategy",
            Shape::OneOf(|| Strategy::NAMES.iter().map(|(name, _)| *name).collect()),
            "how it goes: `race` drops trials that are behind, `refine` adds points to the grid where the optimum can still be, `optuna` those that Optuna chooses",
        ),
        must("metric", METRIC, "the column that decides, or several, or `{ column = weight }`"),
        key(
            "objective",
            Shape::OneOf(|| Combining::NAMES.iter().map(|(name, _)| *name).collect()),
            "`weighted`",
            "how several columns decide: by the sum of their scores with weights, by a trial's worst rank, or (`optuna`) each for itself",
        ),
        key(
            "rungs",
            Shape::Some(&Shape::Number),
            "0.1, 0.2, 0.35, 0.5, 0.75, 1; of points that `optuna` places 0.2, 0.5, 1",
            "`race`: shares of the documents after which trials drop out, rising to 1; `optuna`: the same for points that it places, \
             beside the best so far (`[1]`: they answer everything)",
        ),
        key(
            "confidence",
            Shape::Number,
            "0.9",
            "two-sided confidence with which a trial must be worse than the leader to drop out, and of the interval of the optimum",
        ),
        key("min_survivors", Shape::Whole(1), "1", "`race`: how many trials go on at least, the best ones"),
        key(
            "width",
            Shape::Number,
            "0.1",
            "`refine`: how wide the interval of the optimum may be, as a share of the axis",
        ),
        key(
            "trials",
            Shape::Whole(1),
            "12, `optuna` 30",
            "`refine`, `optuna`: how many points are asked at most, those of the grid among them",
        ),
        key(
            "batch",
            Shape::Whole(1),
            "1",
            "`refine`, `optuna`: how many points are added at once, such as there are evaluations at once",
        ),
        key(
            "sampler",
            Shape::OneOf(|| SAMPLERS.iter().map(|(name, _)| *name).collect()),
            "`tpe`",
            "`optuna`: how points are chosen",
        ),
        key("floors", FLOORS, "none", "`optuna`: the worst score that is allowed, by column"),
        key(
            "confirmation",
            Shape::Number,
            "none",
            "share of the documents that no decision sees; the chosen trials are told by these",
        ),
        key("seed", Shape::Whole(0), "0", "the seed of the order in which documents are asked"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// `report`.
pub static REPORT: TableShape = TableShape {
    name: "report",
    expected: "report settings (a table)",
    keys: &[key("reference", Shape::Text, "none", "the trial that every other one is compared with")],
    private_keys: false,
    elsewhere: &[],
};

/// `gate`.
pub static GATE: TableShape = TableShape {
    name: "gate",
    expected: "gate settings (a table)",
    keys: &[
        key("margin", Shape::Positive, "none", "how much worse a column without a margin of its own may be"),
        key(
            "margins",
            Shape::Named(&Shape::Positive),
            "none",
            "margins by column or task, in the unit of the score: `{ arc100_acc = 0.05 }` is 5 points",
        ),
        key("advisory", Shape::List(&Shape::Text), "none", "columns or tasks that are shown and decide nothing"),
    ],
    private_keys: false,
    elsewhere: &[],
};

/// The JSON Schema of specs.
pub fn schema() -> Json {
    shape::schema(&SWEEP, "A sweep of mergesweep")
}

/// The reference of all keys, and of the methods with their parameters, in Markdown.
pub fn reference() -> String {
    format!(
        "# Keys of a sweep spec\n\n\
         Written by `mergesweep schema --markdown` from the same tables that specs are read by; a test compares the two. A spec \
         is TOML or YAML; relative paths start at its folder. Any other key is refused.\n\
         {}\n## Methods and parameters\n\nRanges say which values make sense; outside, a value is refused where mergekit fails on \
         it or it means nothing, and warned of otherwise.\n\n{}",
        shape::reference(&SWEEP),
        dialect::reference()
    )
}
