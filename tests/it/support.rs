//! What several tests need: fixtures, settings, and outside programs that may be missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mergesweep::config::Scalar;
use mergesweep::eval::{ChatTemplate, CodeEval, HarnessMode, Settings, TaskRequest};

/// A path below `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A Python without anything installed, for the stand-in of the harness. None, with the reason printed, where there is
/// none; a panic where skips are failures.
pub fn plain_python() -> Option<PathBuf> {
    let python = PathBuf::from("python3");
    let runs = Command::new(&python).args(["-c", ""]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if runs.is_ok_and(|status| status.success()) { Some(python) } else { skip("`python3` is not installed") }
}

/// The interpreter with lm_eval and huggingface_hub. None, with the reason printed, where none is named; a panic where
/// skips are failures.
pub fn require_python() -> Option<PathBuf> {
    match std::env::var_os("MERGESWEEP_PYTHON") {
        Some(python) if !python.is_empty() => Some(python.into()),
        _ => skip("`MERGESWEEP_PYTHON` does not name an interpreter that has lm_eval"),
    }
}

/// The small real model. None, with the reason printed, where it was not fetched; a panic where skips are failures.
pub fn require_model() -> Option<PathBuf> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join(".models/SmolLM2-135M-Instruct");
    if model.is_dir() { Some(model) } else { skip("`scripts/setup` has not fetched SmolLM2-135M-Instruct to .models") }
}

/// Prints why a test is skipped; a panic where skips are failures.
pub fn skip<T>(reason: &str) -> Option<T> {
    assert!(std::env::var("MERGESWEEP_REQUIRE_PROGRAMS").as_deref() != Ok("1"), "skips are failures here: {reason}");
    eprintln!("skipped: {reason}");
    None
}

/// A task without settings of its own.
pub fn task(name: &str) -> TaskRequest {
    TaskRequest::named(name)
}

/// Settings as a short spec gives them.
pub fn settings(python: &Path, tasks: &[&str]) -> Settings {
    Settings {
        tasks: tasks.iter().map(|name| task(name)).collect(),
        model: "dummy".to_owned(),
        model_args: BTreeMap::new(),
        batch_size: Scalar::Int(4),
        device: None,
        limit: None,
        seeds: [0, 1234, 1234, 1234],
        include_path: None,
        num_fewshot: None,
        gen_kwargs: BTreeMap::new(),
        chat_template: ChatTemplate::Off,
        system_instruction: None,
        python: python.to_owned(),
        environment: BTreeMap::new(),
        mode: HarnessMode::default(),
        allow_code_eval: CodeEval::Off,
        timeout: None,
        packages: Vec::new(),
    }
}

/// Settings whose harness is the stand-in, which ends as `outcome` says.
pub fn fake_settings(python: &Path, tasks: &[&str], outcome: &str) -> Settings {
    let mut settings = settings(python, tasks);
    let folder = fixture("fake_lm_eval").to_string_lossy().into_owned();
    settings.environment =
        [("PYTHONPATH", folder.as_str()), ("FAKE_LM_EVAL", outcome), ("PYTHONDONTWRITEBYTECODE", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    settings
}
