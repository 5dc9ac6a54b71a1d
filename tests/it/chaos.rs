//! A run that is killed over and over loses nothing but the step in flight: a sweep of twenty trials under SIGKILL at
//! random moments, on tiny checkpoints and a stand-in for the harness.
//!
//! `MERGESWEEP_KILLS` says how many kills must land (50 here, 500 in `scripts/soak`), `MERGESWEEP_KILL_SEED` when.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sweep_support::{Sweep, walk};

const SPEC: &str = r#"
name = "chaos"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = ["facts", "sums"]
model = "hf"
batch_size = 4
device = "cpu"

[resources]
cpu_slots = 2

[[baseline]]
name = "Math"
model = "math"

[[merge]]
name = "SLERP (t={t})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
grid.t = { from = 0, to = 1, step = 0.1 }

[[merge]]
name = "DARE (density={density}, seed={seed})"
method = "dare_linear"
base_model = "base"
models = { math = { weight = 0.5 }, code = { weight = 0.5 } }
grid = { density = [0.2, 0.4, 0.6, 0.8], seed = [1, 2] }
"#;

const N_TRIALS: usize = 20;

struct Chaos(Sweep);

impl Chaos {
    fn command(&self) -> Command {
        let mut command = self.0.command(&["run", "sweep.toml", "--quiet"], "ok");
        command.stdout(Stdio::null()).env("FAKE_LM_EVAL_LOG", self.0.path("evaluated.log"));
        command
    }

    /// Runs until killed after `patience` (true) or through (false).
    fn run_for(&self, patience: Duration) -> bool {
        let stderr = fs::File::create(self.0.path("stderr.log")).unwrap();
        let mut child = self.command().stderr(stderr).spawn().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", fs::read_to_string(self.0.path("stderr.log")).unwrap());
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        true
    }

    /// What must hold once a sweep is through, however often it was killed.
    fn check(&self, undisturbed: &str) {
        assert_eq!(self.0.table(), undisturbed, "the table");
        let journal = self.0.journal();
        let mut answered: BTreeMap<String, usize> = BTreeMap::new();
        for line in journal.lines().skip(1) {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let tasks = match record["event"].as_str().unwrap() {
                "evaluated" => record["tasks"].as_array().unwrap().clone(),
                "shared" => vec![record["task"].clone()],
                _ => Vec::new(),
            };
            for task in tasks {
                let of = format!("{} {}", record["trial"].as_str().unwrap(), task["task"].as_str().unwrap());
                *answered.entry(of).or_default() += 1;
            }
        }
        assert_eq!(answered.len(), 2 * N_TRIALS, "every trial and task is there: {answered:#?}");
        assert!(answered.values().all(|count| *count == 1), "and once: {answered:#?}");

        let log = fs::read_to_string(self.0.path("evaluated.log")).unwrap();
        let mut finished: BTreeMap<&str, usize> = BTreeMap::new();
        log.lines().for_each(|line| *finished.entry(line).or_default() += 1);
        // SLERP with t = 0 has the weights of Math and is never evaluated itself, if its merge writes them in one dtype.
        assert!(finished.values().all(|count| *count == 1), "a finished evaluation was repeated: {finished:#?}");

        let left: Vec<PathBuf> = walk(&self.0.results()).into_iter().filter(|path| is_unfinished(path)).collect();
        assert!(left.is_empty(), "{left:#?}");
    }
}

/// Temporary and half-written things: folders of merges that were not completed, files before their renaming, kept
/// answers, attempts without results.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    let in_folder = |folder: &str| path.parent().is_some_and(|parent| parent.ends_with(folder));
    let is_attempt = in_folder("evaluations")
        && !walk(&path.join("output")).iter().any(|file| file.extension().is_some_and(|end| end == "json"));
    name.contains(".partial") || name.starts_with(".model") || name == "model" || in_folder("answers") || is_attempt
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: `{text}`")))
}

#[test]
fn a_run_killed_at_random_moments_loses_and_repeats_nothing() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let n_kills = setting("MERGESWEEP_KILLS", 50);
    let mut seed = setting("MERGESWEEP_KILL_SEED", 1);
    let reference = Chaos(sweep);
    let begun = Instant::now();
    assert!(!reference.run_for(Duration::from_secs(300)), "the undisturbed run takes no five minutes");
    let whole = begun.elapsed();
    let undisturbed = reference.0.table();
    reference.check(&undisturbed);

    let (mut n_landed, mut n_sweeps) = (0, 0);
    while n_landed < n_kills {
        let chaos = Chaos(Sweep::of(SPEC).unwrap());
        loop {
            // A linear congruential generator, of which the upper bits are good enough to choose a moment.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (seed >> 40) as f64 / (1u64 << 24) as f64;
            // Half of a whole run at most: every sweep is killed several times.
            let patience = if n_landed < n_kills { whole.mul_f64(0.5 * share) } else { Duration::from_secs(300) };
            if !chaos.run_for(patience) {
                break;
            }
            n_landed += 1;
        }
        chaos.check(&undisturbed);
        n_sweeps += 1;
    }
    println!("{n_landed} kills in {n_sweeps} sweeps of {N_TRIALS} trials; an undisturbed one took {whole:.1?}");
}
