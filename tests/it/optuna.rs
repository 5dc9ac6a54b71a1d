//! A search by Optuna, the real one, over answers of a stand-in: what it asks, what it says, and what a kill leaves.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::require_python;
use crate::sweep_support::{Sweep, count, text, walk};

const SPEC: &str = r#"
name = "optuna"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = [{ task = "quiz", columns = { quiz = "acc,none" } }, { task = "reading", columns = { loss = "bits_per_byte,none" } }]
model = "hf"
batch_size = 4
device = "cpu"

[search]
strategy = "optuna"
metric = "quiz"
trials = 9
batch = 2
seed = 3

[report]
reference = "Math"

[[baseline]]
name = "Math"
model = "math"

[[merge]]
name = "Merge {t} {rescale} {math.weight}"
method = "dare_ties"
base_model = "base"
models = { math = { weight = 1.0 }, code = { weight = 0.5 } }
zip = { t = { path = "models.code.density", values = [0.1, 0.9] }, rescale = [true, false], "math.weight" = [0.2, 1.4] }
"#;

fn command(sweep: &Sweep, args: &[&str]) -> Command {
    let mut command = sweep.command(args, "ok");
    command
        .args(["--python", &require_python().unwrap().to_string_lossy()])
        .env("FAKE_LM_EVAL_SIBLINGS", "1")
        .env("FAKE_LM_EVAL_LOG", sweep.path("evaluated.log"));
    command
}

fn through(sweep: &Sweep, args: &[&str]) -> String {
    let output = command(sweep, args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The points that were placed, in order.
fn sampled(sweep: &Sweep) -> Vec<Json> {
    let journal = sweep.journal();
    let records = journal.lines().skip(1).map(|line| serde_json::from_str::<Json>(line).unwrap());
    let sampled = records.filter(|record| record["event"] == "search-sampled");
    sampled.flat_map(|record| record["next"].as_array().unwrap().clone()).collect()
}

fn assert_asked_once(sweep: &Sweep) {
    let log = fs::read_to_string(sweep.path("evaluated.log")).unwrap();
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    log.lines().filter(|line| line.starts_with("asked ")).for_each(|line| *asked.entry(line).or_default() += 1);
    assert!(asked.values().all(|n| *n == 1), "{:?}", asked.iter().find(|(_, n)| **n > 1));
}

#[test]
fn every_sampler_places_points_of_all_kinds_of_axes() {
    let Some(_) = require_python() else { return };
    for sampler in ["tpe", "cmaes", "nsga2", "qmc", "random"] {
        let Some(sweep) = Sweep::of(&SPEC.replace("trials = 9", &format!("trials = 5\nsampler = \"{sampler}\"")))
        else {
            return;
        };
        let table = through(&sweep, &["run", "sweep.toml"]);
        let points = sampled(&sweep);
        assert_eq!(points.len(), 3, "{sampler}: {points:?}");
        for point in &points {
            let values = point[1].as_array().unwrap();
            let [density, rescale, weight] = [0, 1, 2].map(|axis| values[axis].as_f64().unwrap());
            assert!((0.1..=0.9).contains(&density) && (0.2..=1.4).contains(&weight), "{point}");
            assert!(rescale == 0.0 || rescale == 1.0, "{point}");
        }
        assert!(table.contains(&format!("3 of them placed by Optuna ({sampler})")), "{table}");
        assert_asked_once(&sweep);
    }
}

#[test]
fn a_search_that_is_killed_places_the_same_points() {
    let Some(_) = require_python() else { return };
    let Some(reference) = Sweep::of(SPEC) else { return };
    let begun = Instant::now();
    let undisturbed = through(&reference, &["run", "sweep.toml"]);
    let whole = begun.elapsed();
    let expected = sampled(&reference);
    assert_eq!(expected.len(), 7, "nine points, two of them of the grid");
    assert_eq!(through(&reference, &["run", "sweep.toml"]), undisturbed);
    let sweep = Sweep::of(SPEC).unwrap();
    for attempt in 0_u32.. {
        let mut run = command(&sweep, &["run", "sweep.toml", "--quiet"]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let share = f64::from(attempt * 29 % 64) / 64.0;
        let until = if attempt < 6 { whole.mul_f64(0.7 * share) } else { Duration::from_secs(300) };
        let since = Instant::now();
        while run.try_wait().unwrap().is_none() && since.elapsed() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(status) = run.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        run.kill().unwrap();
        run.wait().unwrap();
    }
    assert_eq!(sampled(&sweep), expected);
    assert_asked_once(&sweep);
    assert_eq!(through(&sweep, &["run", "sweep.toml"]), undisturbed);
}

/// What Optuna has forgotten it is told anew.
#[test]
fn a_storage_that_is_gone_is_made_again_from_the_journal() {
    let Some(_) = require_python() else { return };
    let Some(sweep) = Sweep::of(&SPEC.replace("trials = 9", "trials = 4")) else { return };
    through(&sweep, &["run", "sweep.toml"]);
    fs::remove_dir_all(sweep.results().join("optuna")).unwrap();
    sweep.write(&SPEC.replace("trials = 9", "trials = 6"));
    through(&sweep, &["run", "sweep.toml"]);
    assert_eq!(sampled(&sweep).len(), 4);
    assert_asked_once(&sweep);
}

/// Methods are an axis like others; of few points, all are found.
#[test]
fn methods_and_dtypes_are_searched_too() {
    let Some(_) = require_python() else { return };
    let (head, _) = SPEC.split_once("[[merge]]").unwrap();
    let merge = r#"[[merge]]
name = "{method} {dtype}"
method = "ties"
base_model = "base"
models = { math = { weight = 1.0 }, code = { weight = 0.5 } }
zip = { method = ["ties", "task_arithmetic"], dtype = ["float16", "float32"] }
"#;
    let spec = format!("{head}{merge}").replace("trials = 9", "trials = 4\nsampler = \"random\"");
    let Some(sweep) = Sweep::of(&spec) else { return };
    through(&sweep, &["run", "sweep.toml"]);
    assert!(!sampled(&sweep).is_empty());
    let table = sweep.table();
    assert!(table.starts_with("trial,kind,method,dtype,"), "{table}");
    assert!(table.lines().count() > 4, "{table}");
}

/// Four points in all: what is chosen again is not asked again, and the search ends.
#[test]
fn a_space_of_few_points_is_used_up() {
    let Some(_) = require_python() else { return };
    let (head, _) = SPEC.split_once("zip = ").unwrap();
    let spec = format!(
        "{head}zip = {{ rescale = [true, false], t = {{ path = \"parameters.normalize\", values = [true, false] }}, \"math.weight\" = [1, 2] }}\n"
    );
    let Some(sweep) = Sweep::of(&spec.replace("trials = 9", "trials = 12\nsampler = \"random\"")) else { return };
    through(&sweep, &["run", "sweep.toml"]);
    let journal = sweep.journal();
    assert!(journal.contains("\"repeated\""), "{journal}");
    assert!(count(&journal, "\"event\":\"merged\"") <= 9, "two by two by two points, and the baseline");
    assert_asked_once(&sweep);
}

#[test]
fn two_objectives_give_a_front_floors_hold_and_the_chosen_are_told_by_documents_set_aside() {
    let Some(_) = require_python() else { return };
    let pareto = "metric = [\"quiz\", \"loss\"]\nobjective = \"pareto\"\nsampler = \"nsga2\"\nconfirmation = 0.4";
    let Some(sweep) = Sweep::of(&SPEC.replace("metric = \"quiz\"", pareto)) else { return };
    let table = through(&sweep, &["run", "sweep.toml"]);
    assert!(table.contains("no other beats in every column") && table.contains("no decision saw"), "{table}");
    assert!(table.contains("quiz (n=80)"), "{table}");

    let sweep = Sweep::of(&SPEC.replace("metric = \"quiz\"", "metric = \"quiz\"\nfloors = { loss = 1.76 }")).unwrap();
    through(&sweep, &["run", "sweep.toml"]);
    let decided = sweep.journal();
    let decided = decided.lines().find(|line| line.contains("search-decided")).unwrap();
    let decided: Json = serde_json::from_str(decided).unwrap();
    let standings = decided["standings"].as_array().unwrap();
    assert_eq!(standings.len(), 9);
    let keeps = |standing: &Json| standing["scores"][1].as_f64().unwrap() <= 1.76;
    assert!(standings.iter().any(keeps) && !standings.iter().all(keeps), "the floor splits them: {standings:#?}");
    assert!(keeps(&standings[0]), "the leader keeps the floor: {standings:#?}");
    assert!(standings.iter().all(|standing| keeps(standing) || standing["survives"] == false));
    assert!(walk(&sweep.results()).iter().all(|path| path.file_name().unwrap() != "model"));
}

#[test]
fn without_optuna_the_run_says_so_before_anything_is_merged() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let args = ["run", "sweep.toml"];
    let output = sweep.command(&args, "ok").env("FAKE_LM_EVAL_SIBLINGS", "1").output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("has no package `optuna`, which `search` needs") && stderr.contains("pip install"),
        "{stderr}"
    );
    assert_eq!(count(&sweep.journal(), "merge-started"), 0);
    let doctor = text(&sweep.command(&["doctor", "sweep.toml"], "ok").output().unwrap().stdout);
    assert!(doctor.contains("`optuna`"), "{doctor}");
}
