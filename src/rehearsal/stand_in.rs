//! Tiny random models and adapters in place of the real ones: same architecture, layers, heads, names and dtypes of tensors,
//! vocabulary, tokenizer and chat template.
//!
//! Of a model its config and tokenizer files are enough. transformers of the configured interpreter makes the tensors: it
//! knows the architectures, and the harness will load the models with it anyway.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::narrow::{Config, Heads, narrowed};
use crate::merge::checkpoint::{self, Checkpoint, CheckpointError};
use crate::model::{LocateError, Located, Location, Locator, ModelRef};
use crate::process::{self, Cancel, Exit, Invocation, ProcessError};

/// Makes the tensors; see the file.
const PROGRAM: &str = include_str!("stand_in.py");

/// Mark of the answer among whatever else a Python program may print.
const ANSWER: &str = "mergesweep-answer ";

/// Importing torch on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A model whose weights take no more is used as it is.
const SMALL: u64 = 32 << 20;

/// Files of weights, which are not copied.
const WEIGHTS: &[&str] =
    &[".safetensors", ".index.json", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt"];

/// How stand-ins are made.
#[derive(Clone, Copy)]
pub struct Making<'a> {
    /// Where the real models are.
    pub locator: &'a Locator,
    /// The interpreter with transformers.
    pub python: &'a Path,
    /// Its environment, on top of the caller's.
    pub environment: &'a BTreeMap<String, String>,
    /// What becomes of heads.
    pub heads: Heads,
    /// Whether code that comes with a model may run (`trust_remote_code`).
    pub trust_remote_code: bool,
    /// Folders with the files of models that are not here; that of the empty name is for all others.
    pub files: &'a BTreeMap<String, PathBuf>,
    /// What the spec calls models.
    pub naming: &'a dyn Fn(&ModelRef) -> String,
    /// Where stand-ins go.
    pub folder: &'a Path,
    /// Asks to stop.
    pub cancel: &'a Cancel,
}

/// What was made.
#[derive(Debug, Default)]
pub struct StandIns {
    /// By the reference of the real model.
    pub located: BTreeMap<ModelRef, Located>,
    /// Those that are small enough to be used as they are.
    pub n_as_they_are: usize,
    /// Models that are not here, with the folder whose files they were made from.
    pub assumed: Vec<(ModelRef, PathBuf)>,
    /// Models without a stand-in, and what is wrong with those that have one all the same.
    pub problems: Vec<(ModelRef, Unmade)>,
}

/// Why a model has no stand-in.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    /// Its files cannot be had.
    #[error(transparent)]
    Files(#[from] LocateError),
    /// Its config or weights are not sound.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// transformers does not make it.
    #[error("transformers of `{}` makes no model of this config: {message}", .python.display())]
    Transformers {
        /// The interpreter.
        python: PathBuf,
        /// Its words.
        message: String,
    },
    /// The interpreter did not answer.
    #[error("`{}` ended with {exit} and no answer: {line}", .python.display())]
    NoAnswer {
        /// The interpreter.
        python: PathBuf,
        /// How it ended.
        exit: Exit,
        /// The last line it wrote to standard error.
        line: String,
    },
    /// The interpreter cannot be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The disk.
    #[error("cannot copy the files of `{}`: {source}", .folder.display())]
    Copy {
        /// The model's folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Unmade {
    /// What to do, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files(error) => error.hint(),
            Self::Transformers { message, .. } if message.contains("trust_remote_code") => {
                Some("look at the model's code, then set `model_args = { trust_remote_code = true }`".to_owned())
            }
            Self::Transformers { message, .. } if message.contains("No module named") => Some(
                "pip install \"lm_eval[hf]\", or name the interpreter that has it (`python` in `evaluate`)".to_owned(),
            ),
            _ => None,
        }
    }
}

/// One folder that Python is to fill with tensors.
struct Job {
    folder: PathBuf,
    question: Value,
}

/// Why a folder has no tensors.
enum Failed {
    Transformers(String),
    NoAnswer(Exit, String),
}

impl Failed {
    fn unmade(&self, making: &Making<'_>) -> Unmade {
        let python = making.python.to_owned();
        match self {
            Self::Transformers(message) => Unmade::Transformers { python, message: message.clone() },
            Self::NoAnswer(exit, line) => Unmade::NoAnswer { python, exit: *exit, line: line.clone() },
        }
    }
}

/// Makes a stand-in for every model, as far as its files can be had. Blocks; downloads config and tokenizer files that are
/// not here.
pub fn make(models: &[ModelRef], making: &Making<'_>) -> StandIns {
    let (mut made, mut jobs) = (StandIns::default(), Vec::new());
    let locator = making.locator.without_weights();
    for model in models {
        match prepare(model, making, &locator, &mut made) {
            Ok((located, of_model)) => {
                made.located.insert(model.clone(), located);
                jobs.extend(of_model);
            }
            Err(error) => made.problems.push((model.clone(), error)),
        }
    }
    let failed = fill(jobs, making);
    for model in models {
        let folders = made.located.get(model).map(|located| located.folders().map(|(_, path)| path.to_owned()));
        let error =
            folders.into_iter().flatten().find_map(|folder| failed.get(&folder).map(|failed| failed.unmade(making)));
        if let Some(error) = error {
            made.located.remove(model);
            made.problems.push((model.clone(), error));
        }
    }
    made
}

/// The folders of a stand-in with everything but the tensors, and what is to be asked of Python.
fn prepare(
    model: &ModelRef,
    making: &Making<'_>,
    locator: &Locator,
    made: &mut StandIns,
) -> Result<(Located, Vec<Job>), Unmade> {
    let real = match locator.locate(model) {
        Ok(real) => real,
        Err(error) => {
            let Some(folder) = files_for(model, making) else { return Err(error.into()) };
            // Whoever names other files knows that these are not here; a reference that leads nowhere is still a mistake.
            if !matches!(error, LocateError::Hub { .. }) {
                made.problems.push((model.clone(), error.into()));
            }
            made.assumed.push((model.clone(), folder.clone()));
            Located { base: folder, adapter: None }
        }
    };
    // Python reads names and dtypes alone: what is wrong with files that a run would use as they are is found here.
    if matches!(making.locator.locate_on_disk(model), Ok(Some(_))) && weights(&real.base, "model") > 0 {
        Checkpoint::open(&real.base)?;
    }
    let is_small = |folder: &Path, stem| (1..=SMALL).contains(&weights(folder, stem));
    let small = is_small(&real.base, "model");
    if small && real.adapter.as_ref().is_none_or(|adapter| is_small(adapter, "adapter_model")) {
        made.n_as_they_are += 1;
        return Ok((real, Vec::new()));
    }
    let name = model.to_string();
    let seed = u32::from_le_bytes(first_four(blake3::hash(name.as_bytes()).as_bytes()));
    let folder = making.folder.join(slug(&model.base));
    let mut jobs = Vec::new();
    let base = if small { real.base.clone() } else { folder };
    // The same base is part of many references.
    if !small && !base.exists() {
        copy(&real.base, &base)?;
        let config: Config = checkpoint::read_json(&real.base.join(checkpoint::CONFIG))?;
        let text = Value::Object(narrowed(&config, making.heads)).to_string();
        write(&base.join(checkpoint::CONFIG), &text)?;
        let question = json!({
            "kind": "model", "folder": base, "real": real.base, "seed": seed,
            "trust_remote_code": making.trust_remote_code,
        });
        jobs.push(Job { folder: base.clone(), question });
    }
    let adapter = match (&real.adapter, &model.adapter) {
        (Some(real), Some(location)) => {
            let folder = making.folder.join(format!("{}+{}", slug(&model.base), slug(location)));
            copy(real, &folder)?;
            let question = json!({"kind": "adapter", "folder": folder, "real": real, "base": base, "seed": seed});
            jobs.push(Job { folder: folder.clone(), question });
            Some(folder)
        }
        _ => None,
    };
    Ok((Located { base, adapter }, jobs))
}

fn first_four(bytes: &[u8; 32]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

/// The folder that was named for the files of a model.
fn files_for(model: &ModelRef, making: &Making<'_>) -> Option<PathBuf> {
    let names = [(making.naming)(model), model.to_string(), model.base.to_string(), String::new()];
    names.iter().find_map(|name| making.files.get(name).cloned())
}

/// Bytes of a folder's weights.
fn weights(folder: &Path, stem: &str) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_of = |name: &str| name.starts_with(stem) && name.ends_with(".safetensors");
    let files = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_of));
    files.filter_map(|entry| fs::metadata(entry.path()).ok()).map(|metadata| metadata.len()).sum()
}

/// A reference as the name of a folder.
fn slug(location: &Location) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let text = location.to_string();
    let tail: String = text.chars().map(|letter| if plain(letter) { letter } else { '-' }).collect();
    format!("{}-{}", tail.trim_matches(['.', '-']), &blake3::hash(text.as_bytes()).to_hex()[..8])
}

/// Copies the small files of a model.
fn copy(from: &Path, to: &Path) -> Result<(), Unmade> {
    let failed = |source| Unmade::Copy { folder: from.to_owned(), source };
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let metadata = fs::metadata(&path).map_err(failed)?;
        let is_weights = WEIGHTS.iter().any(|ending| name.ends_with(ending));
        if metadata.is_file() && metadata.len() <= SMALL && !is_weights {
            fs::copy(&path, to.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Unmade> {
    let failed = |source| Unmade::Copy { folder: file.to_owned(), source };
    // A copy keeps the rights of the original, which may be read-only.
    match fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    fs::write(file, text).map_err(failed)
}

/// Has the tensors made, all in one process; gives back the folders without them.
fn fill(jobs: Vec<Job>, making: &Making<'_>) -> BTreeMap<PathBuf, Failed> {
    if jobs.is_empty() {
        return BTreeMap::new();
    }
    match ask(&jobs, making) {
        Ok(answers) => {
            let failed = jobs.into_iter().zip(answers);
            failed.filter_map(|(job, answer)| Some((job.folder, Failed::Transformers(answer?)))).collect()
        }
        Err(error) => {
            let (exit, line) = match error {
                Unmade::NoAnswer { exit, line, .. } => (exit, line),
                other => (Exit::Code(1), other.to_string()),
            };
            jobs.into_iter().map(|job| (job.folder, Failed::NoAnswer(exit, line.clone()))).collect()
        }
    }
}

fn ask(jobs: &[Job], making: &Making<'_>) -> Result<Vec<Option<String>>, Unmade> {
    let questions: Vec<&Value> = jobs.iter().map(|job| &job.question).collect();
    let file = making.folder.join("questions.json");
    write(&file, &json!(questions).to_string())?;
    let file = file.to_string_lossy().into_owned();
    let mut invocation = Invocation::new(making.python, ["-c", PROGRAM, &file]);
    // Everything that is needed is in the folders.
    let offline = [("HF_HUB_OFFLINE".to_owned(), "1".to_owned())];
    invocation.environment = making.environment.clone().into_iter().chain(offline).collect();
    let captured = process::capture(&invocation, Some(PATIENCE), making.cancel, &mut |_| {})?;
    let answer = captured.stdout.lines().rev().find_map(|line| line.strip_prefix(ANSWER));
    answer.and_then(|answer| serde_json::from_str(answer).ok()).ok_or_else(|| {
        let line = captured.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Unmade::NoAnswer { python: making.python.to_owned(), exit: captured.exit, line: line.to_owned() }
    })
}
