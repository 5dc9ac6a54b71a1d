//! What `plan` says a run would cost, held against what the run then does; and what its documents can show.

use std::fs;

use mergesweep::run::foresight::passes;
use mergesweep::stats::power::{detectable, detectable_at, mcnemar_power};
use serde_json::Value as Json;

use crate::sweep_support::{Sweep, text};

/// Two baselines, five merges of which two are one, three tasks.
const SPEC: &str = r#"
name = "costs"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = ["facts", "sums"]
model = "dummy"
batch_size = 4

[limits]
merges_per_pass = 2

[[baseline]]
name = "Base"
model = "base"

[[merge]]
name = "SLERP ({t})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
grid.t = [0.25, 0.5, 0.75]

[[merge]]
name = "TA"
method = "task_arithmetic"
base_model = "base"
models = { math = { weight = 0.5 }, code = { weight = 0.5 } }
out_dtype = "bfloat16"

[[merge]]
name = "TA again"
method = "breadcrumbs"
base_model = "base"
models = { math = { weight = 0.5 }, code = { weight = 0.5 } }
parameters = { density = 1.0, gamma = 0.0 }
out_dtype = "bfloat16"
"#;

fn forecast(sweep: &Sweep, more: &[&str]) -> Json {
    let args: Vec<&str> = ["plan", "sweep.toml", "--json"].iter().chain(more).copied().collect();
    let told = sweep.run(&args, "ok");
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    serde_json::from_slice::<Json>(&told.stdout).unwrap()["forecast"].take()
}

fn events(sweep: &Sweep, event: &str) -> Vec<Json> {
    let records = sweep.journal();
    let records = records.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    records.filter(|record| record["event"] == event).collect()
}

fn count(value: &Json) -> usize {
    usize::try_from(value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))).unwrap()
}

#[test]
fn a_forecast_is_what_the_run_then_does() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let told = forecast(&sweep, &[]);
    assert!(!sweep.results().exists(), "a look made a folder of results");
    assert!(told["seconds"]["all"].is_null() && told["seconds"]["evaluations"].is_null(), "{told}");
    let ran = sweep.run(&["run", "sweep.toml", "--json"], "ok");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));

    let merged = events(&sweep, "merged");
    assert_eq!((count(&told["merges"]), count(&told["twins"])), (merged.len(), events(&sweep, "merge-shared").len()));
    assert_eq!((merged.len(), count(&told["trials"])), (4, 6));
    let written: u64 = merged.iter().map(|record| record["merge"]["n_bytes"].as_u64().unwrap()).sum();
    assert_eq!(told["bytes"]["written"].as_u64(), Some(written));
    // Every pass leaves its request beside the first of its trials.
    let requests: Vec<Json> = fs::read_dir(sweep.results().join("trials"))
        .unwrap()
        .filter_map(|trial| fs::read(trial.unwrap().path().join("merge/request.json")).ok())
        .map(|request| serde_json::from_slice(&request).unwrap())
        .collect();
    assert_eq!(count(&told["bytes"]["passes"]), requests.len());
    let read: u64 = requests
        .iter()
        .flat_map(|request| request["models"].as_object().unwrap().values().cloned().collect::<Vec<_>>())
        .map(|located| {
            let file = std::path::Path::new(located["base"].as_str().unwrap()).join("model.safetensors");
            let checkpoint = mergesweep::merge::checkpoint::Checkpoint::open_file(&file).unwrap();
            checkpoint.tensors().values().map(|tensor| checkpoint.bytes(tensor).len() as u64).sum::<u64>()
        })
        .sum();
    assert_eq!(told["bytes"]["read"].as_u64(), Some(read));

    let evaluated = events(&sweep, "evaluated");
    assert_eq!(count(&told["harness_calls"]), evaluated.len());
    let n: usize = evaluated.iter().map(|record| record["tasks"].as_array().unwrap().len()).sum();
    assert_eq!(count(&told["evaluations"]), n);
    assert_eq!(count(&told["evaluations_reused"]), 0);
    let summary: Json = serde_json::from_str(text(&ran.stdout).lines().last().unwrap()).unwrap();
    let peak = summary["disk_peak"].as_u64().unwrap();
    assert!(peak > 0 && told["bytes"]["disk_peak"].as_u64().unwrap() >= peak, "{told} {peak}");

    // Afterwards nothing is left, and documents and times are known.
    let after = forecast(&sweep, &[]);
    assert_eq!((count(&after["merges"]), count(&after["evaluations"])), (0, 0), "{after}");
    assert_eq!(count(&after["evaluations_reused"]), 12);
    assert_eq!(count(&after["merges_reused"]), 5);
    assert!(after["tasks"].as_array().unwrap().iter().all(|task| task["known_from"] == "results"), "{after}");
}

#[test]
fn more_of_the_same_is_timed_by_what_was_measured_and_reuses_what_is_there() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml", "--quiet"], "ok").status.code(), Some(0));
    sweep.write(&SPEC.replace("[0.25, 0.5, 0.75]", "[0.25, 0.4, 0.5, 0.75]"));
    let told = forecast(&sweep, &[]);
    assert_eq!((count(&told["merges"]), count(&told["evaluations"])), (1, 2), "{told}");
    assert_eq!((count(&told["merges_reused"]), count(&told["evaluations_reused"])), (5, 12));
    let all = &told["seconds"]["all"];
    let [low, mean, high] = ["low", "mean", "high"].map(|key| all[key].as_f64().unwrap());
    assert!(0.0 < low && low <= mean && mean <= high, "{all}");
    // Another sweep beside it takes the scores of the model that both have.
    let own = fs::read_to_string(sweep.path("sweep.toml")).unwrap();
    fs::write(sweep.path("beside.toml"), own.replace("\"costs\"", "\"beside\"")).unwrap();
    let told = sweep.run(&["plan", "beside.toml", "--json"], "ok");
    let told: Json = serde_json::from_slice(&told.stdout).unwrap();
    let told = &told["forecast"];
    assert_eq!((count(&told["evaluations_reused"]), count(&told["merges"])), (2, 5), "{told}");
    assert_eq!(told["seconds"]["evaluations_from"], "other sweeps in the same results folder");
}

#[test]
fn a_budget_and_what_is_kept_bound_the_disk() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let all = forecast(&sweep, &[])["bytes"]["written"].as_u64().unwrap();
    sweep.write(&SPEC.replace("[limits]", "[limits]\nkeep = \"all\""));
    assert_eq!(forecast(&sweep, &[])["bytes"]["disk_peak"].as_u64(), Some(all));
    let ran = sweep.run(&["run", "sweep.toml", "--json"], "ok");
    let summary: Json = serde_json::from_str(text(&ran.stdout).lines().last().unwrap()).unwrap();
    assert_eq!(summary["disk_peak"].as_u64(), Some(all));
    sweep.write(&SPEC.replace("[limits]", "[resources]\ndisk = 1000\n\n[limits]").replace("\"costs\"", "\"other\""));
    let told = forecast(&sweep, &[]);
    assert!(told["bytes"]["shortage"].as_str().unwrap().contains("no merge fits"), "{told}");
}

#[test]
fn calibration_measures_and_leaves_nothing() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    fs::create_dir(sweep.path("results")).unwrap();
    let told = forecast(&sweep, &["--calibrate"]);
    assert_eq!(told["merge_rate"]["from"], "a calibration just now");
    assert!(told["merge_rate"]["bytes_per_second"]["low"].as_f64().unwrap() > 0.0);
    assert!(told["seconds"]["merges"]["mean"].as_f64().unwrap() > 0.0);
    assert_eq!(fs::read_dir(sweep.path("results")).unwrap().count(), 0, "something was left behind");
}

#[test]
fn calibration_times_evaluations_on_a_few_documents_and_counts_the_others() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    fs::create_dir(sweep.path("results")).unwrap();
    let told = forecast(&sweep, &["--calibrate"]);
    assert_eq!(told["seconds"]["evaluations_from"], "a calibration just now", "{told}");
    let of = |key: &str| told["seconds"]["evaluations"][key].as_f64().unwrap();
    assert!(of("low") <= of("mean") && 0.0 < of("mean") && of("mean") <= of("high"), "{told}");
    assert!(told["seconds"]["all"]["mean"].as_f64().unwrap() > 0.0, "{told}");
    assert!(told["tasks"].as_array().unwrap().iter().all(|task| task["known_from"] == "results"), "{told}");

    // What fails is said, and the plan is there all the same.
    let failing = sweep.run(&["plan", "sweep.toml", "--calibrate"], "killed");
    assert_eq!(failing.status.code(), Some(0), "{}", text(&failing.stderr));
    assert!(text(&failing.stderr).contains("evaluations are not timed: "), "{}", text(&failing.stderr));
    assert!(text(&failing.stdout).contains("evaluations unknown"), "{}", text(&failing.stdout));
    sweep.write(&SPEC.replace("[[baseline]]\nname = \"Base\"\nmodel = \"base\"\n", ""));
    let without = sweep.run(&["plan", "sweep.toml", "--calibrate"], "ok");
    assert!(text(&without.stderr).contains("no plain model"), "{}", text(&without.stderr));

    // What was measured in earnest counts more.
    sweep.write(SPEC);
    assert_eq!(sweep.run(&["run", "sweep.toml", "--quiet"], "ok").status.code(), Some(0));
    sweep.write(&SPEC.replace("[0.25, 0.5, 0.75]", "[0.25, 0.4, 0.5, 0.75]"));
    let told = forecast(&sweep, &["--calibrate"]);
    assert_eq!(told["seconds"]["evaluations_from"], "earlier trials of this sweep", "{told}");
}

#[test]
fn passes_are_those_of_the_merge_lane() {
    // Even ones share a model, and odd ones.
    let shares = |one: usize, other: usize| one % 2 == other % 2;
    assert_eq!(passes(&[0, 1, 2, 3, 4, 5, 6], 3, &shares), [vec![0, 2, 4], vec![1, 3, 5], vec![6]]);
    assert_eq!(passes(&[0, 1], 0, &shares), [vec![0], vec![1]]);
}

#[test]
fn detectable_differences_are_those_of_the_reference_sheet() {
    let table = [(100, [None, Some(0.088), Some(0.128)]), (164, [Some(0.049), Some(0.070), Some(0.101)])];
    for (n, row) in table {
        for (psi, expected) in [0.05, 0.10, 0.20].into_iter().zip(row) {
            let found = detectable(n, psi);
            match (found, expected) {
                (Some(found), Some(expected)) => assert!((found - expected).abs() < 0.0011, "{n} {psi}: {found}"),
                (found, expected) => assert_eq!(found, expected, "{n} {psi}"),
            }
        }
    }
    // The power at what is called detectable is what is promised, and a level shared by many finds less.
    let delta = detectable(600, 0.1).unwrap();
    assert!((mcnemar_power(600, 0.1, delta) - 0.8).abs() < 1e-9);
    let shared = detectable_at(600, 0.1, 0.05 / 13.0).unwrap();
    assert!(shared > delta && shared < 2.0 * delta, "{delta} {shared}");
    // The exact test and the formula meet where one takes over from the other.
    let (exact, formula) = (detectable_at(3000, 0.1, 0.01).unwrap(), detectable_at(3001, 0.1, 0.01).unwrap());
    assert!((exact - formula).abs() < 0.0006, "{exact} {formula}");
}

#[test]
fn what_documents_can_show_is_told_task_by_task() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    sweep.write(&SPEC.replace("[\"facts\", \"sums\"]", "[\"humaneval\", \"math_bpb\", \"unheard_of\"]"));
    let told = sweep.run(&["plan", "sweep.toml"], "ok");
    let told = text(&told.stdout);
    // Four merges beside the reference: twins count once.
    assert!(told.contains("level 5 % shared by 4 comparisons"), "{told}");
    let line = |column: &str| {
        let (_, rest) = told.split_once("Smallest differences").unwrap();
        rest.lines().find(|line| line.trim_start().starts_with(column)).unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    let points = (100.0 * detectable_at(164, 0.1, 0.05 / 4.0).unwrap()).ceil();
    assert!(line("humaneval").contains(&format!("164 documents: {points} points where 10 %")), "{told}");
    assert!(line("math_bpb").contains("unknown"), "{told}");
    assert!(told.contains("humaneval: 164 documents, up to 168 thousand tokens generated; 5 models"), "{told}");
    assert!(told.contains("unheard_of: unknown number of documents, generated tokens unknown; 5 models"), "{told}");
}
