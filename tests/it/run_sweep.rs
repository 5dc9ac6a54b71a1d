//! The whole loop by the program itself, on tiny checkpoints and a stand-in for the harness: what is done, what is reused,
//! what a failure, a kill and a redo leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::{fixture, plain_python};

/// A folder with a spec over the parity fixtures' checkpoints.
struct Sweep {
    folder: tempfile::TempDir,
    python: PathBuf,
}

const SPEC: &str = r#"
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

impl Sweep {
    fn new() -> Option<Self> {
        let python = plain_python()?;
        let sweep = Self { folder: tempfile::tempdir().unwrap(), python };
        sweep.write(SPEC);
        Some(sweep)
    }

    fn write(&self, spec: &str) {
        let inputs = fixture("mergekit-parity/inputs");
        fs::write(self.path("sweep.toml"), spec.replace("INPUTS", &inputs.to_string_lossy())).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str], outcome: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("MERGESWEEP_PYTHON", &self.python)
            .env("PYTHONPATH", fixture("fake_lm_eval"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("FAKE_LM_EVAL", outcome);
        command
    }

    fn run(&self, args: &[&str], outcome: &str) -> Output {
        self.command(args, outcome).output().unwrap()
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.path("results/tiny/journal.jsonl")).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_run_merges_evaluates_and_prints_the_table_and_a_second_one_reuses_it_all() {
    let Some(sweep) = Sweep::new() else { return };
    let first = sweep.run(&["run", "sweep.toml"], "ok");
    let stderr = text(&first.stderr);
    assert_eq!(first.status.code(), Some(0), "{stderr}");
    let table = text(&first.stdout);
    for row in ["| Base ", "| SLERP (t=0.25) ", "| SLERP (t=0.5) "] {
        assert!(table.contains(row), "{table}");
    }
    assert!(table.contains("0.7500 ± 0.1250"), "{table}");
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 3);
    // Not kept: a merged model goes once it is scored.
    assert_eq!(count(&sweep.journal(), r#""event":"model-deleted""#), 2);
    for file in ["table.csv", "table.parquet", "scores.csv", "scores.parquet", "table.md", "plan.json"] {
        assert!(sweep.path("results/tiny").join(file).is_file(), "{file}");
    }

    let before = sweep.journal();
    let second = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    assert_eq!(text(&second.stdout), table);
    assert_eq!(sweep.journal(), before, "nothing was done");
    assert_eq!(count(&text(&second.stderr), "reused"), 4, "three trials and the summary: {}", text(&second.stderr));
}

#[test]
fn a_new_task_or_grid_point_runs_only_itself() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    sweep.write(&SPEC.replace("[0.25, 0.5]", "[0.25, 0.5, 0.75]"));
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 3);
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 4);

    sweep.write(&SPEC.replace("\"sums\"]", "\"sums\", \"more\"]"));
    let dry = text(&sweep.run(&["run", "sweep.toml", "--dry-run"], "ok").stdout);
    assert!(dry.contains("evaluate more: not done yet") && !dry.contains("evaluate sums"), "{dry}");
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    // The models were deleted after scoring, so they are merged again; only the new task is asked.
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 5);
    assert_eq!(count(&sweep.journal(), r#""tasks":["more"]"#), 3);
}

#[test]
fn a_failing_evaluation_is_recorded_and_the_next_run_does_it_again() {
    let Some(sweep) = Sweep::new() else { return };
    let failed = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(failed.status.code(), Some(3), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("3 failed"), "{}", text(&failed.stderr));
    let status = text(&sweep.run(&["status", "sweep.toml"], "ok").stdout);
    assert_eq!(count(&status, "| failed"), 3, "{status}");

    let done = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    // The merges held: only the evaluations were done again.
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);
    let status = text(&sweep.run(&["status", "sweep.toml"], "ok").stdout);
    assert_eq!(count(&status, "| scored"), 3, "{status}");
}

#[test]
fn redo_and_only_touch_only_what_they_name() {
    let Some(sweep) = Sweep::new() else { return };
    let only = sweep.run(&["run", "sweep.toml", "--only", "slerp*0.5*"], "ok");
    assert_eq!(only.status.code(), Some(0), "{}", text(&only.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 1);
    let redo = sweep.run(&["run", "sweep.toml", "--only", "slerp*0.5*", "--redo", "SLERP (t=0.5)"], "ok");
    assert_eq!(redo.status.code(), Some(0), "{}", text(&redo.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 2);
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);
    let unknown = sweep.run(&["run", "sweep.toml", "--only", "nosuch"], "ok");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no trial matches `nosuch`"), "{}", text(&unknown.stderr));
}

#[test]
fn an_interrupted_run_says_so_leaves_no_process_and_goes_on_later() {
    let Some(sweep) = Sweep::new() else { return };
    let mut child =
        sweep.command(&["run", "sweep.toml"], "hang").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let journal = sweep.path("results/tiny/journal.jsonl");
    wait_for(|| fs::read_to_string(&journal).is_ok_and(|text| text.contains("evaluation-started")));
    // The stand-in names its own child once it hangs: that one must go too.
    let log = find(&sweep.path("results/tiny/trials"), "stderr.log");
    wait_for(|| log().is_some_and(|log| log.contains("child ")));
    let grandchild: i32 =
        log().unwrap().split("child ").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();

    // While a run holds the sweep, another is refused and `status` reads.
    let second = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another run holds this sweep"), "{}", text(&second.stderr));
    assert!(text(&sweep.run(&["status", "sweep.toml"], "ok").stdout).contains("| evaluating"));

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    wait_for(|| !Path::new(&format!("/proc/{grandchild}/cmdline")).exists() || is_zombie(grandchild));
    assert!(text(&sweep.run(&["status", "sweep.toml"], "ok").stdout).contains("| interrupted"));

    let done = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
}

#[test]
fn a_missing_model_or_harness_is_told_before_anything_is_run() {
    let Some(sweep) = Sweep::new() else { return };
    sweep.write(&SPEC.replace("INPUTS/code", "./nowhere"));
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("`./nowhere` does not exist"), "{}", text(&run.stderr));

    sweep.write(SPEC);
    let run = sweep.command(&["run", "sweep.toml"], "ok").env_remove("PYTHONPATH").output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("has no lm_eval"), "{}", text(&run.stderr));
    assert!(!sweep.path("results/tiny/trials").exists());
}

#[test]
fn a_reference_is_compared_only_where_the_numbers_mean_the_same() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    fs::write(sweep.path("reference.csv"), "run,kind,facts,tinyArc\nBase,model,0.5,0.6\nOther,model,,0.7\n").unwrap();
    let report = sweep.run(&["report", "sweep.toml", "--reference", "reference.csv"], "ok");
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    let report = text(&report.stdout);
    assert!(report.contains("`facts` is not compared") && report.contains("`tinyArc` is not compared"), "{report}");
    assert!(report.contains("| Other "), "{report}");
    fs::write(sweep.path("reference.csv"), "run,tinyArc\nBase,high\n").unwrap();
    let broken = sweep.run(&["report", "sweep.toml", "--reference", "reference.csv"], "ok");
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken.stderr).contains("reference.csv:2: column `tinyArc`"), "{}", text(&broken.stderr));
}

/// Waits up to a minute, which is long enough on the busiest machine.
fn wait_for(mut done: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited a minute in vain");
}

/// Reads the first file of that name below a folder, once there is one.
fn find(folder: &Path, name: &str) -> impl Fn() -> Option<String> + use<> {
    let (folder, name) = (folder.to_owned(), name.to_owned());
    move || {
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|file| file.to_string_lossy() == name) {
                    return fs::read_to_string(path).ok();
                }
            }
        }
        None
    }
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
