//! A sweep over tiny checkpoints and a stand-in for the harness, run by the program itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::{fixture, plain_python};

/// One baseline, two merges, two tasks.
pub const TINY: &str = r#"
name = "tiny"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = ["facts", "sums"]
model = "dummy"
batch_size = 4

[[baseline]]
name = "Base"
model = "base"

[[merge]]
name = "SLERP (t={t})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
grid.t = [0.25, 0.5]
"#;

/// A folder with a spec over the parity fixtures' checkpoints.
pub struct Sweep {
    folder: tempfile::TempDir,
    python: PathBuf,
    name: String,
}

impl Sweep {
    /// The sweep of [`TINY`]; none, with the reason printed, where there is no Python.
    pub fn new() -> Option<Self> {
        Self::of(TINY)
    }

    /// The sweep of a spec that names its models' folder `INPUTS`.
    pub fn of(spec: &str) -> Option<Self> {
        let python = plain_python()?;
        let name = spec.split_once("name = \"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0.to_owned();
        let sweep = Self { folder: tempfile::tempdir().unwrap(), python, name };
        sweep.write(spec);
        Some(sweep)
    }

    pub fn write(&self, spec: &str) {
        let inputs = fixture("mergekit-parity/inputs");
        fs::write(self.path("sweep.toml"), spec.replace("INPUTS", &inputs.to_string_lossy())).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn results(&self) -> PathBuf {
        self.path("results").join(&self.name)
    }

    /// The program in the sweep's folder, with a harness that ends as `outcome` says.
    pub fn command(&self, args: &[&str], outcome: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
        command.args(args);
        self.surround(&mut command, outcome);
        command
    }

    /// Gives any command the folder and the environment.
    pub fn surround(&self, command: &mut Command, outcome: &str) {
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("MERGESWEEP_PYTHON", &self.python)
            .env("PYTHONPATH", std::env::join_paths([fixture("fake_lm_eval"), fixture("fake_packages")]).unwrap())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("FAKE_LM_EVAL", outcome);
    }

    pub fn run(&self, args: &[&str], outcome: &str) -> Output {
        self.command(args, outcome).output().unwrap()
    }

    pub fn journal(&self) -> String {
        fs::read_to_string(self.results().join("journal.jsonl")).unwrap()
    }

    pub fn table(&self) -> String {
        fs::read_to_string(self.results().join("table.csv")).unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Everything below a folder.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.path().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

/// Waits up to a minute, which is long enough on the busiest machine.
pub fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited a minute in vain");
}
