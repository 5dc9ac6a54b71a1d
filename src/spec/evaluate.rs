//! `evaluate` and `limits`: what the harness is asked, and the guards around it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::resources::{Keep, keep};
use super::{Limits, keys};
use crate::config::Scalar;
use crate::document::read::Field;
use crate::document::{Code, Problems, Value};
use crate::eval::secrets::is_secret;
use crate::eval::{ChatTemplate, CodeEval, ColumnRequest, HarnessMode, Settings, TaskRequest};

/// The harness's own default seeds: random, numpy, torch, few-shot.
const SEEDS: [u64; 4] = [0, 1234, 1234, 1234];

/// What is asked where nothing is said.
pub fn defaults() -> Settings {
    Settings {
        tasks: Vec::new(),
        model: "hf".to_owned(),
        model_args: BTreeMap::new(),
        batch_size: Scalar::Int(1),
        device: None,
        limit: None,
        seeds: SEEDS,
        include_path: None,
        num_fewshot: None,
        gen_kwargs: BTreeMap::new(),
        chat_template: ChatTemplate::Off,
        system_instruction: None,
        python: PathBuf::from("python3"),
        environment: BTreeMap::new(),
        mode: HarnessMode::default(),
        allow_code_eval: CodeEval::Off,
        timeout: None,
        packages: Vec::new(),
    }
}

/// Reads `evaluate`. `root` is the folder relative paths start at.
pub fn settings(field: &Field<'_>, root: &Path, problems: &mut Problems) -> Settings {
    let mut settings = defaults();
    let Some(mut table) = field.table(&keys::EVALUATE, problems) else { return settings };
    if let Some(field) = table.required("tasks", problems) {
        settings.tasks = tasks(&field, problems);
    }
    if let Some(field) = table.optional("model") {
        settings.model = field.text(problems).unwrap_or("hf").to_owned();
    }
    if let Some(field) = table.optional("model_args") {
        settings.model_args = model_args(&field, problems);
    }
    if let Some(field) = table.optional("batch_size") {
        settings.batch_size = batch_size(&field, problems);
    }
    let text = |field: Option<Field<'_>>, problems: &mut Problems| {
        field.and_then(|field| field.text(problems)).map(str::to_owned)
    };
    settings.device = text(table.optional("device"), problems);
    settings.limit = table.optional("limit").and_then(|field| field.whole(1, problems));
    if let Some(field) = table.optional("seeds") {
        settings.seeds = seeds(&field, problems);
    }
    if let Some(path) = text(table.optional("include_path"), problems) {
        let path = root.join(path);
        settings.include_path = Some(std::path::absolute(&path).unwrap_or(path));
    }
    settings.num_fewshot = table.optional("num_fewshot").and_then(|field| field.whole(0, problems));
    if let Some(field) = table.optional("gen_kwargs") {
        settings.gen_kwargs = scalars(&field, problems);
    }
    if let Some(field) = table.optional("apply_chat_template") {
        settings.chat_template = chat_template(&field, problems);
    }
    if let Some(field) = table.optional("system_instruction") {
        if settings.chat_template == ChatTemplate::Off {
            let hint = Some("add `apply_chat_template = true`".to_owned());
            field.problem(Code::Needs, "a system instruction needs the chat template", hint, problems);
        }
        settings.system_instruction = field.text(problems).map(str::to_owned);
    }
    if let Some(python) = text(table.optional("python"), problems) {
        // A bare name is looked up by the system, a path starts at the spec's folder.
        settings.python = if python.contains('/') { root.join(python) } else { PathBuf::from(python) };
    }
    if let Some(field) = table.optional("environment") {
        let pairs = scalars(&field, problems);
        refuse_secrets(&field, &pairs, problems);
        settings.environment = pairs.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    }
    if let Some(field) = table.optional("harness") {
        settings.mode = harness_mode(&field, problems);
    }
    if let Some(field) = table.optional("allow_code_eval") {
        settings.allow_code_eval = code_eval(&field, problems);
    }
    table.finish(problems);
    settings
}

/// Arguments of the back end; the model is not among them.
fn model_args(field: &Field<'_>, problems: &mut Problems) -> BTreeMap<String, Scalar> {
    let args = scalars(field, problems);
    refuse_secrets(field, &args, problems);
    for owned in ["pretrained", "path"].into_iter().filter(|owned| args.contains_key(*owned)) {
        let hint = Some("leave it out".to_owned());
        field.problem(Code::OwnSetting, format!("`{owned}` is set for each trial"), hint, problems);
    }
    args
}

/// A spec is copied, committed and published. A switch (`token = true`) is no secret.
fn refuse_secrets(field: &Field<'_>, pairs: &BTreeMap<String, Scalar>, problems: &mut Problems) {
    let held = |value: &Scalar| matches!(value, Scalar::Text(text) if !text.is_empty());
    if let Some((name, _)) = pairs.iter().find(|(name, value)| is_secret(name) && held(value)) {
        refuse_secret(field, name, problems);
    }
}

/// Tells that a secret of this name stands here.
pub(super) fn refuse_secret(field: &Field<'_>, name: &str, problems: &mut Problems) {
    let hint = "set it in the environment of mergesweep, which hands it on".to_owned();
    field.problem(
        Code::Secret,
        format!("`{name}` looks like a secret, which does not belong into a spec"),
        Some(hint),
        problems,
    );
}

/// `harness = { mode = "warm" }`.
fn harness_mode(field: &Field<'_>, problems: &mut Problems) -> HarnessMode {
    let Some(mut table) = field.table(&keys::HARNESS, problems) else { return HarnessMode::default() };
    let mode = table.optional("mode");
    table.finish(problems);
    let mode = mode.and_then(|field| field.one_of(HarnessMode::NAMES, problems));
    mode.unwrap_or_default()
}

fn code_eval(field: &Field<'_>, problems: &mut Problems) -> CodeEval {
    match &field.node.value {
        Value::Scalar(Scalar::Bool(true)) => CodeEval::Bare,
        Value::Scalar(Scalar::Bool(false)) => CodeEval::Off,
        _ if field.node.as_text() == Some("sandboxed") => CodeEval::Sandboxed,
        _ => {
            field.expected("`true`, `false` or `\"sandboxed\"`", problems);
            CodeEval::Off
        }
    }
}

/// Reads `limits`.
pub fn limits(field: Option<&Field<'_>>, problems: &mut Problems) -> Limits {
    let mut limits = Limits {
        trials: 1000,
        evaluation_timeout: None,
        merge_timeout: None,
        retries: 2,
        merges_per_pass: 4,
        keep: Keep::Nothing,
    };
    let Some(mut table) = field.and_then(|field| field.table(&keys::LIMITS, problems)) else { return limits };
    if let Some(trials) = table.optional("trials").and_then(|field| field.whole(1, problems)) {
        limits.trials = usize::try_from(trials).unwrap_or(usize::MAX);
    }
    if let Some(field) = table.optional("evaluation_timeout") {
        limits.evaluation_timeout = duration(&field, problems);
    }
    if let Some(field) = table.optional("merge_timeout") {
        limits.merge_timeout = duration(&field, problems);
    }
    if let Some(retries) = table.optional("retries").and_then(|field| field.whole(0, problems)) {
        limits.retries = u32::try_from(retries).unwrap_or(u32::MAX);
    }
    if let Some(per_pass) = table.optional("merges_per_pass").and_then(|field| field.whole(1, problems)) {
        limits.merges_per_pass = usize::try_from(per_pass).unwrap_or(usize::MAX);
    }
    if let Some(field) = table.optional("keep") {
        limits.keep = keep(&field, problems);
    }
    table.finish(problems);
    limits
}

fn tasks(field: &Field<'_>, problems: &mut Problems) -> Vec<TaskRequest> {
    let items = field.list("a list of harness tasks", problems).unwrap_or_default();
    if items.is_empty() && matches!(field.node.value, Value::List(_)) {
        field.problem(Code::Empty, "expected at least one task, found an empty list", None, problems);
    }
    let mut tasks: Vec<TaskRequest> = Vec::new();
    let mut columns = HashSet::new();
    for item in &items {
        let Some(task) = task(item, problems) else { continue };
        if tasks.iter().any(|earlier| earlier.name == task.name) {
            let hint = Some("its columns would be the same: keep one".to_owned());
            item.problem(Code::ListedTwice, format!("task `{}` is listed twice", task.name), hint, problems);
        }
        for column in &task.columns {
            if !columns.insert(column.name.clone()) {
                let hint = Some("give it another name under `columns`".to_owned());
                item.problem(Code::ListedTwice, format!("column `{}` is named twice", column.name), hint, problems);
            }
        }
        tasks.push(task);
    }
    tasks
}

fn task(field: &Field<'_>, problems: &mut Problems) -> Option<TaskRequest> {
    if matches!(field.node.value, Value::Scalar(_)) {
        let name = field.text(problems)?;
        return Some(TaskRequest::named(name));
    }
    let mut table = field.table(&keys::TASK, problems)?;
    let name = table.required("task", problems).and_then(|field| field.text(problems));
    let limit = table.optional("limit").and_then(|field| field.whole(1, problems));
    let num_fewshot = table.optional("num_fewshot").and_then(|field| field.whole(0, problems));
    let batch_size = table.optional("batch_size").map(|field| self::batch_size(&field, problems));
    let model_args = table.optional("model_args").map(|field| self::model_args(&field, problems)).unwrap_or_default();
    let gen_kwargs = table.optional("gen_kwargs").map(|field| scalars(&field, problems)).unwrap_or_default();
    let columns = table.optional("columns");
    table.finish(problems);
    let name = name?.to_owned();
    let columns = columns.map(|field| self::columns(&field, &name, problems)).unwrap_or_default();
    Some(TaskRequest { name, limit, documents: None, num_fewshot, batch_size, model_args, gen_kwargs, columns })
}

/// `{ name = "metric,filter" }`, or a list of metrics that are named after the task.
fn columns(field: &Field<'_>, task: &str, problems: &mut Problems) -> Vec<ColumnRequest> {
    const EXPECTED: &str = "columns: `{ name = \"metric,filter\" }`, or a list of metrics";
    // Cut as the harness' own names are: a metric may have a comma, a filter none.
    let split = |text: &str| match text.rsplit_once(',') {
        Some((metric, filter)) => (metric.trim().to_owned(), filter.trim().to_owned()),
        // The harness's word for a task without filters.
        None => (text.trim().to_owned(), "none".to_owned()),
    };
    if matches!(field.node.value, Value::List(_)) {
        let items = field.list(EXPECTED, problems).unwrap_or_default();
        let metrics = items.iter().filter_map(|item| item.text(problems));
        return metrics
            .map(|text| {
                let (metric, filter) = split(text);
                let suffix = if filter == "none" { String::new() } else { format!("_{filter}") };
                ColumnRequest { name: format!("{task}_{metric}{suffix}"), metric, filter }
            })
            .collect();
    }
    let entries = field.entries(EXPECTED, problems).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|(entry, field)| {
            let (metric, filter) = split(field.text(problems)?);
            Some(ColumnRequest { name: entry.key.clone(), metric, filter })
        })
        .collect()
}

fn scalars(field: &Field<'_>, problems: &mut Problems) -> BTreeMap<String, Scalar> {
    let entries = field.entries("a table of single values", problems).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|(entry, field)| Some((entry.key.clone(), field.scalar(problems)?.clone())))
        .collect()
}

fn batch_size(field: &Field<'_>, problems: &mut Problems) -> Scalar {
    match &field.node.value {
        Value::Scalar(Scalar::Int(size)) if *size > 0 => Scalar::Int(*size),
        Value::Scalar(Scalar::Text(text))
            if text == "auto" || text.strip_prefix("auto:").is_some_and(|n| n.parse::<u32>().is_ok()) =>
        {
            Scalar::Text(text.clone())
        }
        _ => {
            field.expected("a whole number of at least 1, or `auto`", problems);
            Scalar::Int(1)
        }
    }
}

fn seeds(field: &Field<'_>, problems: &mut Problems) -> [u64; 4] {
    if matches!(field.node.value, Value::Scalar(_)) {
        return field.whole(0, problems).map_or(SEEDS, |seed| [seed; 4]);
    }
    const EXPECTED: &str = "one seed, or four (random, numpy, torch, few-shot)";
    let items = field.list(EXPECTED, problems).unwrap_or_default();
    let seeds: Vec<u64> = items.iter().filter_map(|item| item.whole(0, problems)).collect();
    if let (Ok(seeds), 4) = (seeds.try_into(), items.len()) {
        return seeds;
    }
    if matches!(field.node.value, Value::List(_)) && items.len() != 4 {
        field.problem(Code::WrongValue, format!("expected {EXPECTED}, found {}", items.len()), None, problems);
    }
    SEEDS
}

fn chat_template(field: &Field<'_>, problems: &mut Problems) -> ChatTemplate {
    match &field.node.value {
        Value::Scalar(Scalar::Bool(true)) => ChatTemplate::On,
        Value::Scalar(Scalar::Bool(false)) => ChatTemplate::Off,
        Value::Scalar(Scalar::Text(name)) if !name.trim().is_empty() => ChatTemplate::Named(name.clone()),
        _ => {
            field.expected("`true`, `false` or the name of a chat template", problems);
            ChatTemplate::Off
        }
    }
}

/// `6h`, `1h30m`, `90s`, or a number of seconds.
pub(super) fn duration(field: &Field<'_>, problems: &mut Problems) -> Option<Duration> {
    let seconds = match &field.node.value {
        Value::Scalar(Scalar::Int(seconds)) => u64::try_from(*seconds).ok(),
        Value::Scalar(Scalar::Text(text)) => seconds(text),
        _ => None,
    };
    let seconds = seconds.filter(|seconds| *seconds > 0);
    if seconds.is_none() {
        field.expected("a time such as `6h`, `30m` or `1h30m`", problems);
    }
    seconds.map(Duration::from_secs)
}

/// Seconds of a time such as `6h`, `30m` or `1h30m`.
pub fn seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut digits = String::new();
    for letter in text.trim().chars().filter(|letter| !letter.is_whitespace()) {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(std::mem::take(&mut digits).parse::<u64>().ok()?.checked_mul(unit)?)?;
    }
    if !digits.is_empty() {
        // A bare number, or one behind a unit, is seconds only where it stands alone.
        return (total == 0).then(|| digits.parse().ok()).flatten();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_cut_where_those_of_results_are() {
        let text = "columns = { a = \"f1(x,y),none\", b = \"acc\" }";
        let document = crate::document::parse::text_of(Path::new("s.toml"), text.to_owned()).unwrap();
        let field = Field::new(document.get("columns").unwrap(), "columns");
        let found = columns(&field, "task", &mut Problems::default());
        let found: Vec<_> = found.iter().map(|column| (column.metric.as_str(), column.filter.as_str())).collect();
        assert_eq!(found, [("f1(x,y)", "none"), ("acc", "none")]);
    }

    #[test]
    fn times_are_read_in_their_units() {
        for (text, expected) in [
            ("6h", Some(21_600)),
            ("1h30m", Some(5_400)),
            ("90s", Some(90)),
            ("45", Some(45)),
            ("1h30", None),
            ("h", None),
            ("soon", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
