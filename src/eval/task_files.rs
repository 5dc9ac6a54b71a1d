//! Task definitions of an include path, read without starting Python: which tasks there are, and which of them run code.
//!
//! Read as loosely as can be: a file that is no task, or that only Python understands, is passed over, since the harness
//! has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

/// How deep `include` chains are followed.
const DEEPEST_INCLUDE: usize = 8;

/// One definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFile {
    /// The file.
    pub path: PathBuf,
    /// Whether it is a group of tasks.
    pub is_group: bool,
    /// `unsafe_code`: runs code that the model wrote. Of a group: whether one of its tasks in this folder does.
    pub runs_code: bool,
    /// `output_type`.
    pub output_type: Option<String>,
    /// `num_fewshot`.
    pub num_fewshot: Option<u64>,
    /// `metadata.version`, as text.
    pub version: Option<String>,
    /// `generation_kwargs.max_gen_toks`.
    pub max_gen_toks: Option<u64>,
    /// The JSON Lines file of its test split, where it is one on this machine.
    pub documents: Option<PathBuf>,
}

/// Reads every definition of a folder and its subfolders, by name.
pub fn read(folder: &Path) -> BTreeMap<String, TaskFile> {
    let mut tasks = BTreeMap::new();
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in definitions(folder) {
        let Some(definition) = resolved(&path, 0) else { continue };
        let get = |key: &str| definition.get(key);
        let name_of = |key: &str| get(key).and_then(Value::as_str).map(str::to_owned);
        let group = name_of("group").filter(|_| get("task").is_some_and(Value::is_sequence));
        let is_group = group.is_some();
        let Some(name) = group.or_else(|| name_of("task")) else { continue };
        if is_group {
            let listed = get("task").and_then(Value::as_sequence).into_iter().flatten();
            let listed = listed.filter_map(|member| member.as_str().or_else(|| member.get("task")?.as_str()));
            members.insert(name.clone(), listed.map(str::to_owned).collect());
        }
        let max_gen_toks = get("generation_kwargs").and_then(|settings| settings.get("max_gen_toks")?.as_u64());
        let documents = documents(&definition, &path);
        let file = TaskFile {
            path,
            max_gen_toks,
            documents,
            is_group,
            runs_code: get("unsafe_code").and_then(Value::as_bool).unwrap_or(false),
            output_type: name_of("output_type"),
            num_fewshot: get("num_fewshot").and_then(Value::as_u64),
            version: get("metadata").and_then(|metadata| metadata.get("version")).and_then(text),
        };
        tasks.insert(name, file);
    }
    let code: BTreeSet<String> =
        tasks.iter().filter(|(_, file)| file.runs_code).map(|(name, _)| name.clone()).collect();
    for (group, members) in &members {
        if let Some(file) = tasks.get_mut(group) {
            file.runs_code |= !members.is_disjoint(&code);
        }
    }
    tasks
}

/// The file of the test split: `data_files` of a local `json` data set, whose path is taken as it is, or a split of the
/// offline task pack.
fn documents(definition: &Mapping, path: &Path) -> Option<PathBuf> {
    let settings = definition.get("dataset_kwargs")?;
    let split = ["test_split", "validation_split"].iter().find_map(|key| definition.get(*key)?.as_str())?;
    let of_split = |files: &Value| files.as_str().or_else(|| files.get(split)?.as_str()).map(PathBuf::from);
    let file = match settings.get("pack_folder").and_then(Value::as_str) {
        Some(folder) => path.parent()?.join("data").join(folder).join(of_split(settings.get("pack_splits")?)?),
        None => of_split(settings.get("data_files")?)?,
    };
    (file.extension()? == "jsonl" && file.is_file()).then_some(file)
}

/// Documents in a JSON Lines file: lines that are not empty.
///
/// # Errors
/// Where it cannot be read.
pub fn count_documents(file: &Path) -> io::Result<u64> {
    let mut n = 0;
    for line in io::BufReader::new(fs::File::open(file)?).lines() {
        n += u64::from(!line?.trim().is_empty());
    }
    Ok(n)
}

/// The `.yaml` files below a folder (the harness reads no `.yml`), in order.
fn definitions(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // A link could lead back up.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A definition with its `include` files below it: what the file itself says wins.
fn resolved(path: &Path, depth: usize) -> Option<Mapping> {
    let definition: Value = serde_yaml::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let definition = match definition {
        Value::Mapping(definition) => definition,
        _ => return None,
    };
    let includes: Vec<&str> = match definition.get("include") {
        Some(Value::String(include)) => vec![include],
        Some(Value::Sequence(includes)) => includes.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut merged = Mapping::new();
    for include in includes {
        let beside = path.parent().unwrap_or(Path::new("")).join(include);
        if depth < DEEPEST_INCLUDE
            && let Some(included) = resolved(&beside, depth + 1)
        {
            merged.extend(included);
        }
    }
    merged.extend(definition);
    Some(merged)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
