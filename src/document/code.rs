//! The one table of diagnostics: every kind of mistake or oddity that a spec, a config or the machine can have, with a stable
//! code that messages show, `mergesweep explain CODE` tells about and `sweeps/DIAGNOSTICS.md` lists.
//!
//! A code says what is wrong, not how bad it is: the same finding can be an error in a spec and a warning in a file written
//! for mergekit. Codes are never given to another kind once published.

use std::fmt::{self, Write as _};

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// A file that cannot be read as text.
    Unreadable,
    /// Text that is no TOML or YAML.
    Syntax,
    /// A key that stands twice.
    DuplicateKey,
    /// Nesting, aliases or keys beyond what any document needs.
    TooLarge,
    /// A file for another command.
    WrongFile,
    /// A scalar that YAML 1.1 readers, such as mergekit's, read otherwise.
    OtherReading,
    /// A key that nobody reads.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A value of another type, or none of the words that are known.
    WrongValue,
    /// A list, table or text without content.
    Empty,
    /// Keys that exclude each other.
    Conflict,
    /// The same thing listed twice.
    ListedTwice,
    /// A model that is not declared.
    UnknownModel,
    /// A text that is no model reference.
    BadReference,
    /// A name that a sweep or a model cannot have.
    BadName,
    /// A merge method that does not exist.
    UnknownMethod,
    /// Models that the method cannot take.
    Inputs,
    /// A parameter that the method does not read.
    UnreadParameter,
    /// A parameter that the method needs.
    MissingParameter,
    /// A parameter outside the values that make sense.
    OutOfRange,
    /// Layers that do not fit together.
    Layers,
    /// A part of mergekit's dialect that is not supported.
    Unsupported,
    /// A key that is accepted and changes nothing.
    NoEffect,
    /// An axis that sets nothing.
    NoPlace,
    /// A range that does not meet its end.
    Range,
    /// Axes or settings that must be of one length or set the same.
    Uneven,
    /// Axes that set the same.
    AxesCollide,
    /// An axis that does not exist.
    UnknownAxis,
    /// An exclusion that excludes nothing, or everything.
    Exclusion,
    /// More trials or combinations than are allowed.
    TooMany,
    /// An axis that the method does not read.
    AxisUnread,
    /// A name template that cannot be filled.
    Template,
    /// Two trials of one name.
    SameName,
    /// Settings that give the same merge.
    SameMerge,
    /// Two rows that are the same trial.
    SameTrial,
    /// A setting that nobody reads.
    DeadSetting,
    /// A setting that others override for every tensor.
    ShadowedSetting,
    /// A filter that matches no tensor.
    UnmatchedFilter,
    /// A merge that cannot be resolved for some tensor.
    UnresolvedMerge,
    /// A setting that is read and changes nothing.
    IdleSetting,
    /// A trial to compare with that does not exist.
    Reference,
    /// A setting that the program makes itself.
    OwnSetting,
    /// A setting that needs another one.
    Needs,
    /// A task that runs model-written code, without the opt-in.
    CodeNotAllowed,
    /// A pattern or file where a task is expected.
    TaskPattern,
    /// A task that does not exist.
    UnknownTask,
    /// A limit on a task that needs all its documents.
    TinyLimited,
    /// A back end that does not exist or cannot be used.
    Backend,
    /// A folder of task definitions that is none.
    IncludePath,
    /// A token or key in a spec.
    Secret,
    /// A column or task of the gate that does not exist.
    GateColumn,
    /// A margin that nothing could pass.
    GateMargin,
    /// A model that is neither on disk nor to be had.
    ModelNotFound,
    /// The interpreter, the harness or one of its packages.
    Harness,
    /// A task that the harness cannot load.
    TaskNotLoaded,
    /// No sandbox for model-written code.
    NoSandbox,
    /// A GPU that is asked for and not there.
    NoGpu,
    /// A folder that cannot be made.
    Folder,
    /// Models that the engine cannot merge.
    Unmergeable,
    /// Weights with infinities or NaN.
    NotFinite,
    /// Models that are no kin.
    NoDescendant,
    /// A model that is equal to its base or to another one.
    NoChange,
    /// A layer that differs from the base by far more than the others.
    OddLayer,
    /// Tokenizers that differ.
    OtherTokenizer,
    /// Chat templates that differ.
    OtherTemplate,
    /// A head that one model ties and the other does not.
    TiedHead,
    /// A model that a rehearsal can put nothing in the place of.
    NoStandIn,
    /// A merge that fails in a rehearsal.
    RehearsedMerge,
    /// An evaluation that fails in a rehearsal.
    RehearsedEvaluation,
    /// A column that a search cannot decide by.
    SearchColumn,
    /// A column that needs all documents of its task.
    SearchWhole,
    /// Rungs, a confidence or a share outside their range.
    SearchShare,
    /// A search without trials to choose from.
    SearchTrials,
    /// A rule of which models stay that a search does not have.
    SearchKeep,
    /// A setting that the strategy of a search does not read, or cannot follow.
    SearchSetting,
    /// Axes that a search cannot refine.
    SearchAxes,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct CodeSpec {
    /// The kind.
    pub code: Code,
    /// Its stable code.
    pub id: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// Why it matters and what to do, in a few sentences.
    pub text: &'static str,
    /// Wrong and right, as it would stand in a file; may be empty.
    pub example: &'static str,
}

const fn row(code: Code, id: &'static str, title: &'static str, text: &'static str, example: &'static str) -> CodeSpec {
    CodeSpec { code, id, title, text, example }
}

/// Sections of the document, by the first digits of their codes.
const SECTIONS: [(&str, &str); 10] = [
    ("E00", "Files and syntax"),
    ("E01", "Keys and values"),
    ("E02", "Models, methods and parameters"),
    ("E03", "Axes and grids"),
    ("E04", "Trials"),
    ("E05", "Evaluation"),
    ("E06", "What a run needs"),
    ("E07", "Health of the models (`plan --probe`, `doctor SPEC`)"),
    ("E08", "What a rehearsal finds"),
    ("E09", "Searches"),
];

/// Every kind, in the order of the codes.
pub const CODES: &[CodeSpec] = &[
    row(
        Code::Unreadable,
        "E0001",
        "a file cannot be read",
        "The file does not exist, is a folder, cannot be opened, or is not UTF-8. Check the path: it starts at the folder \
         you are in on the command line, and at the spec's folder inside a spec.",
        "",
    ),
    row(
        Code::Syntax,
        "E0002",
        "the text is no valid TOML or YAML",
        "Reading stopped being possible here. TOML puts texts in quotes and repeats `[[merge]]` before every merge; YAML \
         indents with spaces, never tabs, and wants a space behind `:`. Tags (`!name`) and several documents in one file \
         are not taken.",
        "name = slerp # wrong: a text without quotes\nname = \"slerp\"      # right",
    ),
    row(
        Code::DuplicateKey,
        "E0003",
        "a key stands twice",
        "Many readers keep the last value without a word, so one of the two would be lost. Keep one.",
        "",
    ),
    row(
        Code::TooLarge,
        "E0004",
        "the document is larger than any spec",
        "Nesting, keys and the values that YAML aliases expand to are limited, so that a few lines cannot fill the memory.",
        "",
    ),
    row(
        Code::WrongFile,
        "E0005",
        "the file is for another command",
        "`plan`, `run` and the other commands that take SPEC read a sweep: `name`, `models`, `evaluate`, and `baseline` or \
         `merge`, in a file that ends in .toml, .yml, .yaml or .json. `merge` reads a mergekit config: `merge_method` and \
         `models` or `slices`. A spec takes mergekit files in with `config = \"file.yml\"`; `init --from` writes such a spec.",
        "",
    ),
    row(
        Code::OtherReading,
        "E0006",
        "YAML readers disagree on this value",
        "YAML 1.2 and PyYAML, with which mergekit and the harness read, disagree on some plain values: `no` and `off` are \
         false there, `010` is eight, `1e-3` is a text, `1:30` is ninety. Write the value so that both agree.",
        "weight: 1e-3        # a text to PyYAML\nweight: 1.0e-3      # a number to both",
    ),
    row(
        Code::UnknownKey,
        "E0101",
        "nobody reads this key",
        "In a spec every key is read or refused, so that a slip of the hand does not run the wrong study. mergekit ignores \
         unknown keys at every level; in a file written for it they are warned of. Top-level keys that start with `x-` are \
         yours. `mergesweep schema --markdown` lists every key.",
        "batchsize = 8       # wrong\nbatch_size = 8      # right",
    ),
    row(Code::MissingKey, "E0102", "a key is missing", "Without it there is nothing sensible to do.", ""),
    row(
        Code::WrongValue,
        "E0103",
        "the value is not of the kind that is expected",
        "The message says what is expected and what stands there. Numbers are written without quotes, times and sizes with \
         a unit and in quotes.",
        "limit = \"32\"        # wrong\nlimit = 32\nmerge_timeout = 1h   # wrong\nmerge_timeout = \"1h\"",
    ),
    row(
        Code::Empty,
        "E0104",
        "nothing stands here",
        "A list, table or text is there and has no content. Fill it, or leave the key out.",
        "",
    ),
    row(
        Code::Conflict,
        "E0105",
        "two keys say the same in different ways",
        "Only one of them can count. Keep one.",
        "models = [\"math\", \"code\"]\nslices = [...]      # one of the two",
    ),
    row(
        Code::ListedTwice,
        "E0106",
        "the same thing is listed twice",
        "A model may stand once in a slice, a task once in `tasks`, a value once in an axis.",
        "",
    ),
    row(
        Code::UnknownModel,
        "E0201",
        "no model of this name is declared",
        "Models are called by the short names under `models`, by a path (which starts with `./`, `../`, `/` or `~`) or by a \
         hub id `owner/name`. A short name may be followed by `+ADAPTER`.",
        "[models]\nmath = \"owner/name\"\n\n[[baseline]]\nmodel = \"maths\"       # wrong: declared is `math`",
    ),
    row(
        Code::BadReference,
        "E0202",
        "the text is no model reference",
        "A reference is `PATH[@REVISION][+ADAPTER[@REVISION]]`, where a path is a folder or a hub id.",
        "",
    ),
    row(
        Code::BadName,
        "E0203",
        "the name cannot be used",
        "The name of a sweep becomes a folder: no slashes, no leading point or hyphen, at most 100 bytes. Short names of \
         models hold no `/`, `+` or `@`, with which references are written.",
        "",
    ),
    row(
        Code::UnknownMethod,
        "E0211",
        "there is no such merge method",
        "Methods have mergekit's names: linear, task_arithmetic, ties, dare_linear, dare_ties, breadcrumbs, \
         breadcrumbs_ties, della, della_linear, slerp, nuslerp, multislerp, karcher, model_stock, nearswap, sce, ram, \
         ramplus_tl, passthrough, arcee_fusion.",
        "",
    ),
    row(
        Code::Inputs,
        "E0212",
        "the method cannot take these models",
        "slerp, nearswap and arcee_fusion take two models, one of them the base; nuslerp two besides an optional base; \
         model_stock at least two besides the base; passthrough one; task-vector methods, sce and ram need a base. Under \
         `models` a base that is not listed joins in as a further model; under `slices` it must be a source of every slice.",
        "method = \"slerp\"\nbase_model = \"base\"           # a third model: wrong\nmodels = [\"math\", \"code\"]",
    ),
    row(
        Code::UnreadParameter,
        "E0213",
        "the method does not read this parameter",
        "mergekit ignores it in silence, and the study is not the one that was meant. `mergesweep schema --markdown` lists \
         the parameters of every method.",
        "method = \"slerp\"\nparameters = { t = 0.5, density = 0.5 }   # slerp takes t",
    ),
    row(
        Code::MissingParameter,
        "E0214",
        "the method needs a parameter",
        "It has no default. Parameters of single models (`weight`) stand on the model or further out; shared ones (`t`, \
         `normalize`) are never read on a model: they stand under `parameters` of the merge or of the slice.",
        "",
    ),
    row(
        Code::OutOfRange,
        "E0215",
        "the parameter is outside the values that make sense",
        "An error where mergekit fails on the value or where it has no meaning; a warning where it is computed but probably \
         not meant: slerp at t = 1.5 extrapolates, a density above 1 counts as 1. The ranges are those of \
         `mergesweep schema --markdown`.",
        "density = -0.5      # wrong: a share of the changes to keep\ndensity = 0.5",
    ),
    row(
        Code::Layers,
        "E0216",
        "layers do not fit together",
        "`layer_range` is `[first, behind the last]`, and every source of a slice has the same number of layers.",
        "layer_range: [0, 16]",
    ),
    row(
        Code::Unsupported,
        "E0217",
        "this part of mergekit's dialect is not supported",
        "Models of several modules and overridden architectures cannot be merged here.",
        "",
    ),
    row(
        Code::NoEffect,
        "E0218",
        "the key has no effect",
        "It is part of the dialect, and nothing reads it in this place.",
        "",
    ),
    row(
        Code::NoPlace,
        "E0301",
        "the axis sets no place of the merge",
        "An axis is named after what it sets: a parameter (`t`), a model's parameter (`code.weight`), `seed`, `method`, \
         `dtype`, or it names a place with `path`.",
        "grid.cdoe.weight = [0.5, 0.7]     # wrong: no such model\ngrid.w = { path = \"code.weight\", values = [0.5, 0.7] }",
    ),
    row(
        Code::Range,
        "E0302",
        "the range cannot be laid out",
        "Ranges include both ends and are exact decimals: `step` must lead from `from` to `to` without a rest.",
        "grid.t = { from = 0, to = 1, step = 0.3 }    # wrong: 0.9, then 1.2\ngrid.t = { from = 0, to = 0.9, step = 0.3 }",
    ),
    row(
        Code::Uneven,
        "E0303",
        "axes or settings do not match each other",
        "Axes of a `zip` vary in lock-step and have the same number of values; every entry of `settings` sets the same axes.",
        "",
    ),
    row(
        Code::AxesCollide,
        "E0304",
        "two axes set the same",
        "The later one would always win. Give one of them up, or name another place with `path`.",
        "",
    ),
    row(Code::UnknownAxis, "E0305", "there is no such axis", "`exclude` speaks of the axes of its own merge.", ""),
    row(
        Code::Exclusion,
        "E0306",
        "an exclusion does not do what it seems to",
        "It excludes nothing, because its values never occur together in a combination that is left (a warning), or it \
         leaves no trial at all.",
        "",
    ),
    row(
        Code::TooMany,
        "E0307",
        "the sweep has more trials than allowed",
        "A guard against slips: raise `limits.trials` if they are meant, or thin out with `sample = { n = 100 }`.",
        "",
    ),
    row(
        Code::AxisUnread,
        "E0308",
        "the axis has no effect on a method",
        "All its trials would be the same model. Put the axis under the methods that read it, or exclude the pair.",
        "",
    ),
    row(
        Code::Template,
        "E0309",
        "the name cannot be filled in",
        "`{axis}` stands for the value of an axis of the merge; a brace of its own is written twice.",
        "name = \"SLERP ({tt})\"   # wrong: the axis is `t`\nname = \"SLERP ({t})\"",
    ),
    row(
        Code::SameName,
        "E0401",
        "two trials have the same name",
        "Names are the rows of the table. Put the axes into the name.",
        "name = \"SLERP\"\nname = \"SLERP (t={t})\"",
    ),
    row(
        Code::SameMerge,
        "E0402",
        "settings that differ give the same merge",
        "An axis sets a place that is overridden or never read, so that it makes no difference. Name the place with `path`.",
        "",
    ),
    row(
        Code::SameTrial,
        "E0403",
        "two rows are the same trial",
        "They are merged and evaluated once, and both are shown.",
        "",
    ),
    row(
        Code::DeadSetting,
        "E0404",
        "a setting is read by nothing",
        "It stands where the method does not look for it, so another value is in force and the study is not the one that was \
         meant. mergekit says nothing of it. Move it to where the message says, delete it, or write `lint.dead = \"warn\"` \
         where configs are to be taken as they were published. `plan --as-intended` shows what was probably meant.",
        "models = { base = { density = 0.5 } }   # the base has no task vector\nparameters = { density = 0.5 }          # read",
    ),
    row(
        Code::ShadowedSetting,
        "E0405",
        "a setting is overridden everywhere",
        "It stands where the method looks for it, and for every tensor a setting further in (on the model, or on the slice) \
         answers first. Delete it, or those that override it.",
        "parameters: { weight: 0.4 }      # decides nothing: both models have their own\nmodels:\n- { model: a, parameters: { \
         weight: 0.3 } }\n- { model: b, parameters: { weight: 0.6 } }",
    ),
    row(
        Code::UnmatchedFilter,
        "E0406",
        "a filter matches no tensor",
        "A filter is a part of the name of a tensor as the model has it, such as `self_attn` or `mlp.down_proj`; none of the \
         merge's tensors has it in its name, or an earlier case answers for all that do.",
        "t: [ { filter: attention.q, value: 0.2 }, { value: 0.6 } ]      # wrong: self_attn.q_proj",
    ),
    row(
        Code::UnresolvedMerge,
        "E0407",
        "a merge cannot be resolved",
        "For some tensor the method has no value, or one that it cannot work with. The merge would fail on it.",
        "",
    ),
    row(
        Code::IdleSetting,
        "E0408",
        "a setting changes nothing",
        "It is read, and whatever its value the result has the same bytes, or differs in rounding alone: the default written \
         out, `gamma` where nothing is thinned out, `int8_mask`, a seed where nothing is drawn. No mistake; listed by `plan`.",
        "",
    ),
    row(
        Code::Reference,
        "E0409",
        "the trial to compare with does not exist",
        "`report.reference` is the name of a baseline or merge, as `mergesweep plan` lists it: with the values of its axes.",
        "reference = \"SLERP\"            # wrong: the merge is called \"SLERP (t={t})\"\nreference = \"SLERP (t=0.5)\"",
    ),
    row(Code::OwnSetting, "E0501", "the program sets this itself", "`pretrained` is the model of each trial.", ""),
    row(Code::Needs, "E0502", "the setting needs another one", "The message says which.", ""),
    row(
        Code::CodeNotAllowed,
        "E0503",
        "a task runs programs that the model wrote",
        "HumanEval, MBPP and their kin run what the model answers. Nothing is run until you say so: `allow_code_eval = \
         \"sandboxed\"` runs it under bubblewrap without network or access to your files, `true` runs it with your rights. \
         `plan` warns, `run` refuses.",
        "[evaluate]\ntasks = [\"humaneval\"]\nallow_code_eval = \"sandboxed\"",
    ),
    row(
        Code::TaskPattern,
        "E0504",
        "a task is called by its name",
        "Patterns and files are not taken, since all rows must have the same columns. Name every task, or a group.",
        "",
    ),
    row(
        Code::UnknownTask,
        "E0505",
        "there is no such task",
        "Neither the harness nor `include_path` has a task, group or tag of this name. `python -m lm_eval ls tasks` lists \
         those of the harness. `plan` asks no harness: it warns where a name is nearly one it knows.",
        "",
    ),
    row(
        Code::TinyLimited,
        "E0506",
        "the task needs all of its documents",
        "The estimate of a tinyBenchmarks task is made from exactly 100 documents.",
        "tasks = [{ task = \"tinyArc\", limit = 10 }]   # wrong\ntasks = [\"tinyArc\"]",
    ),
    row(
        Code::Backend,
        "E0507",
        "the back end cannot be used",
        "`evaluate.model` is a back end of the harness that loads a model folder: hf, vllm, sglang, dummy.",
        "",
    ),
    row(
        Code::IncludePath,
        "E0508",
        "the folder of task definitions does not exist",
        "`include_path` starts at the spec's folder.",
        "",
    ),
    row(
        Code::Secret,
        "E0509",
        "a token or key stands in a spec",
        "A spec is copied, committed and published. Set the variable (a name that ends in TOKEN, KEY, SECRET or PASSWORD) in the \
         environment of mergesweep, which hands it on to the harness (on Slurm too) and keeps it out of every log; lines of \
         `engine.prologue` may look it up: `export HF_TOKEN=$(cat ~/.token)`.",
        "HF_TOKEN=... mergesweep run sweep.toml",
    ),
    row(
        Code::GateColumn,
        "E0510",
        "the gate names no column or task",
        "A misspelt name would decide nothing. `gate.margins` and `gate.advisory` name columns of the table, or tasks for all of \
         their columns. Columns of tasks that are not in the mapping table are known once there are results; until then a name \
         that may be one of them is only warned of.",
        "margins = { arc100 = 0.05 }       # wrong\nmargins = { arc100_acc = 0.05 }   # right",
    ),
    row(
        Code::GateMargin,
        "E0511",
        "nothing could pass the margin",
        "Even identical answers on so few documents leave the difference as uncertain as that. Ask more documents, or allow more.",
        "",
    ),
    row(
        Code::ModelNotFound,
        "E0601",
        "a model is not there",
        "A path must be an existing folder (relative ones start at the spec's folder); anything else is a hub id \
         `owner/name`, looked up in the cache and then on the hub. Gated models need a token.",
        "",
    ),
    row(
        Code::Harness,
        "E0602",
        "the harness or a package is missing",
        "The interpreter is the spec's `evaluate.python`, else MERGESWEEP_PYTHON, else the active virtual environment's. \
         `mergesweep doctor` shows what it has.",
        "",
    ),
    row(
        Code::TaskNotLoaded,
        "E0603",
        "a task cannot be loaded",
        "Its definition, data set or metric fails. Data sets are fetched before the first merge; `HF_DATASETS_OFFLINE=1` \
         keeps to what is in the cache.",
        "",
    ),
    row(
        Code::NoSandbox,
        "E0604",
        "model-written programs cannot be shut in",
        "`allow_code_eval = \"sandboxed\"` needs bubblewrap (`apt-get install bubblewrap`) and a machine that allows user \
         namespaces.",
        "",
    ),
    row(
        Code::NoGpu,
        "E0605",
        "there are not enough GPUs",
        "A device, a back end or `resources` asks for more GPUs than PyTorch sees. The harness would run on the CPU, or on fewer \
         GPUs than an evaluation needs, without a word.",
        "",
    ),
    row(Code::Folder, "E0606", "a folder cannot be made", "Check rights and free space where results go.", ""),
    row(
        Code::Unmergeable,
        "E0701",
        "the models cannot be merged",
        "Architectures, shapes, tensors or an adapter do not fit, or a file is damaged; the message is what the merge would say. A warning where a config contradicts its tensors and the tensors are merged.",
        "",
    ),
    row(
        Code::NotFinite,
        "E0702",
        "a model has infinities or NaN",
        "They spread through every sum, and a merge of them answers nothing sensible. A training run that diverged or a file that was damaged are the usual causes.",
        "",
    ),
    row(
        Code::NoDescendant,
        "E0703",
        "models that are merged are no kin",
        "Merging rests on fine-tunes of one base. Their weights are then a few hundredths of the base's size away from it; weights of models that were trained apart are about √2 of it apart. A wrong base makes every task vector the difference of two unrelated models.",
        "base_model = \"owner/Base-v1\"      # the fine-tunes are of Base-v2",
    ),
    row(
        Code::NoChange,
        "E0704",
        "a model is the same as another one",
        "A fine-tune that equals its base adds nothing: perhaps the adapter was never trained, or the wrong folder is named.",
        "",
    ),
    row(
        Code::OddLayer,
        "E0705",
        "a layer differs far more than the others",
        "Fine-tuning moves layers by similar amounts. A layer that is far away was replaced, initialised anew or damaged.",
        "",
    ),
    row(
        Code::OtherTokenizer,
        "E0706",
        "tokenizers differ",
        "Rows of the embedding are merged by their number. Where the tokenizers give a number to different tokens, unrelated rows are mixed, without a word from mergekit. `tokenizer_source` brings them together by token.",
        "tokenizer_source: union",
    ),
    row(
        Code::OtherTemplate,
        "E0707",
        "chat templates differ",
        "A merge has the template of its base, or of its first model; the other model was trained with another one.",
        "chat_template: chatml",
    ),
    row(
        Code::TiedHead,
        "E0708",
        "one model ties its head to the embedding, another does not",
        "The embedding of the one is merged into the head of the other. If config.json of the result says that the head is tied, loaders ignore what was merged.",
        "",
    ),
    row(
        Code::NoStandIn,
        "E0801",
        "a model cannot be rehearsed",
        "`rehearse` makes a tiny model from config.json and tokenizer files with transformers of the configured interpreter, and \
         that fails, or the weights on disk are not sound. The message says why; the real model would hardly load either.",
        "",
    ),
    row(
        Code::RehearsedMerge,
        "E0802",
        "a merge fails in the rehearsal",
        "The same merge of tiny models with the same tensors, dtypes and tokenizers fails; that of the real ones would too.",
        "",
    ),
    row(
        Code::RehearsedEvaluation,
        "E0803",
        "an evaluation fails in the rehearsal",
        "The real harness fails on tiny models with the same tokenizers, tasks and settings. Names of metrics, chat templates, \
         packages and data are the usual reasons; the message has the harness's words.",
        "tasks = [{ task = \"arc_easy\", columns = [\"acc_nrom\"] }]   # wrong: acc_norm",
    ),
    row(
        Code::SearchColumn,
        "E0901",
        "a search cannot decide by this column",
        "`search.metric` names columns of the table. Those of the mapping table (`gsm8k100_flexible`, `math_bpb`) are known by \
         their tasks; for any other task the column is named in `evaluate`, with metric and filter.",
        "tasks = [{ task = \"gsm8k\", columns = { gsm8k = \"exact_match,flexible-extract\" } }]\nsearch = { strategy = \"race\", \
         metric = \"gsm8k\" }",
    ),
    row(
        Code::SearchWhole,
        "E0902",
        "the score needs all documents of its task",
        "A race asks a part of the documents first. The scores of tinyBenchmarks are estimates made from all of their 100 \
         documents, so nothing can be said after some of them. Race on another task; those that do not decide are \
         evaluated whole, on the trials that are left.",
        "",
    ),
    row(
        Code::SearchShare,
        "E0903",
        "a share or a confidence is outside its range",
        "Rungs are shares of the documents that rise to 1, such as 0.1, 0.25, 0.5, 1. `confidence` is two-sided: 0.9 drops a \
         trial when the 90 % interval of its difference from the leader lies below 0. `confirmation` is the share of the \
         documents that is set aside for the chosen trials.",
        "rungs = [10, 25, 50, 100]      # wrong: not percent\nrungs = [0.1, 0.25, 0.5, 1]",
    ),
    row(
        Code::SearchTrials,
        "E0905",
        "there is nothing to choose from",
        "A race needs at least two merges. Baselines do not race: they are asked the same documents, to be compared with.",
        "",
    ),
    row(
        Code::SearchKeep,
        "E0906",
        "a search does not keep models by that rule",
        "Trials that drop out have scores of fewer documents than the others, so a search keeps models by what it is after: \
         `limits.keep` is `none`, `all` or `best:K`, the best ones of those that are left. One column or the Pareto front \
         are rules for grids that are evaluated whole.",
        "",
    ),
    row(
        Code::SearchSetting,
        "E0907",
        "the strategy of the search has no such setting",
        "`min_survivors` belongs to a race, `width` to a refinement, `sampler`, `floors` and the objective `pareto` to Optuna, \
         `trials` and `batch` to both of these, `rungs` to a race and to Optuna. Searches for points need an objective that \
         changes smoothly along the axes: weighted columns, no ranks. Points of a Pareto front have no best one to be set beside \
         rung by rung.",
        "search = { strategy = \"refine\", metric = \"math_bpb\", width = 0.1 }",
    ),
    row(
        Code::SearchAxes,
        "E0908",
        "the grid has no axes that can be searched",
        "A search for points adds to those of one merge with axes, each of at least two values: the first and the last number \
         bound the search, anything else is a choice. A refinement looks at one or two axes of numbers. Other merges of the \
         sweep have no axes; they are asked the same.",
        "grid.t = [0, 0.5, 1]",
    ),
];

impl Code {
    /// The kind of that code, however it is written.
    pub fn from_id(id: &str) -> Option<Self> {
        CODES.iter().find(|row| row.id.eq_ignore_ascii_case(id)).map(|row| row.code)
    }

    /// The row of the table.
    pub fn spec(self) -> &'static CodeSpec {
        // Every variant has a row, in the order of the variants: a test holds the table to it.
        &CODES[self as usize]
    }

    /// The stable code: `E0101`.
    pub fn id(self) -> &'static str {
        self.spec().id
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl fmt::Display for CodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n\n{}\n", self.id, self.title, self.text)?;
        for line in self.example.lines() {
            write!(f, "\n    {line}")?;
        }
        if self.example.is_empty() { Ok(()) } else { f.write_char('\n') }
    }
}

/// The whole table as a document in Markdown: `sweeps/DIAGNOSTICS.md`.
pub fn document() -> String {
    let mut text = String::from(
        "# Diagnostics\n\n\
         Every error and warning about a spec, a config or what a run needs has a stable code. `mergesweep explain E0101` \
         tells about one of them. The same code can be an error in one place and a warning in another: unknown keys are \
         refused in a spec and warned of in a file written for mergekit.\n\n\
         `plan --json` and `run --json` give diagnostics as JSON: `severity`, `code`, `message`, `hint`, `file`, `line`, \
         `column`, `end` (line and column behind the last character; all count from 1), `key` (the path of the key).\n\n\
         This file is written by `mergesweep explain --all`; a test compares the two.\n",
    );
    for (prefix, title) in SECTIONS {
        // Writing to a text cannot fail.
        let _ = write!(text, "\n## {title}\n");
        for row in CODES.iter().filter(|row| row.id.starts_with(prefix)) {
            let _ = write!(text, "\n### {}: {}\n\n{}\n", row.id, row.title, row.text);
            if !row.example.is_empty() {
                let _ = write!(text, "\n```\n{}\n```\n", row.example);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row_and_a_place_in_the_document() {
        let text = document();
        for (index, row) in CODES.iter().enumerate() {
            assert_eq!(row.code as usize, index, "{}", row.id);
            assert_eq!(Code::from_id(&row.id.to_lowercase()), Some(row.code));
            assert!(text.contains(&format!("### {}: ", row.id)), "{} has no section", row.id);
        }
        assert_eq!(CODES.len(), Code::SearchAxes as usize + 1);
        assert!(CODES.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
}
