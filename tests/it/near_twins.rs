//! Near twins after merging: merges whose weights came out nearly the same are told, by the samples that were kept of them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::probe::Bench;
use crate::sweep_support::{Sweep, text, walk};

const SPEC: &str = r#"
name = "near"

[models]
math = "BENCH/math"
code = "BENCH/code"

[evaluate]
tasks = ["facts", "sums"]
model = "dummy"
batch_size = 4

[report]
reference = "SLERP (0.3)"

[[merge]]
name = "SLERP ({t})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
dtype = "bfloat16"
grid.t = [0.3, 0.5, 0.7]

[[merge]]
name = "Linear"
method = "linear"
models = { math = { weight = 0.5 }, code = { weight = 0.5 } }
dtype = "bfloat16"
"#;

const TOLD: &str = "near twins, by samples of their weights: SLERP (0.5), Linear: relative distance";

fn sweep(bench: &Bench) -> Option<Sweep> {
    Sweep::of(&SPEC.replace("BENCH", &bench.path().to_string_lossy()))
}

fn samples(sweep: &Sweep) -> Vec<PathBuf> {
    walk(&sweep.results()).into_iter().filter(|path| path.ends_with("sample.json")).collect()
}

fn report(sweep: &Sweep, more: &[&str]) -> String {
    let args: Vec<&str> = ["report", "sweep.toml"].iter().chain(more).copied().collect();
    let report = sweep.run(&args, "killed");
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    text(&report.stdout)
}

fn rows(sweep: &Sweep, more: &[&str]) -> Vec<Json> {
    let args: Vec<&str> = ["--format", "json"].iter().chain(more).copied().collect();
    serde_json::from_str::<Json>(&report(sweep, &args)).unwrap().as_array().unwrap().clone()
}

#[test]
fn merges_that_came_out_nearly_the_same_are_told_and_stay_rows_of_their_own() {
    let bench = Bench::new();
    let Some(sweep) = sweep(&bench) else { return };
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let told = text(&run.stdout);
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("by samples of their weights")).collect();
    let [line] = lines[..] else { panic!("{told}") };
    assert!(line.starts_with(TOLD) && line.contains("; rounding alone moves each by"), "{line}");
    assert!(line.ends_with(": expect the same scores"), "{line}");
    assert_eq!(told.lines().filter(|line| line.starts_with("| SLERP") || line.starts_with("| Linear")).count(), 4);
    assert_eq!(samples(&sweep).len(), 4);
    assert!(!sweep.journal().contains("unrounded"), "samples are kept apart from the journal");

    // The same in every other form, and for a run that does nothing.
    let again = sweep.run(&["run", "sweep.toml", "--json"], "killed");
    let summary: Json = serde_json::from_str(text(&again.stdout).lines().last().unwrap()).unwrap();
    assert_eq!(summary["near_twins"][0]["trials"], serde_json::json!(["SLERP (0.5)", "Linear"]));
    assert!(report(&sweep, &[]).contains(line));
    let near: Vec<Json> = rows(&sweep, &[]).iter().map(|row| row["near_twins"].clone()).collect();
    assert_eq!(Json::from(near), serde_json::json!([null, "Linear", null, "SLERP (0.5)"]));
    let wide = rows(&sweep, &[]);
    let share = wide[1]["near_share"].as_f64().unwrap();
    assert!(share < 0.02 && summary["near_twins"][0]["share"] == share, "{share}");
    report(&sweep, &["--html", "page.html"]);
    let page = fs::read_to_string(sweep.path("page.html")).unwrap();
    assert!(page.contains("<h3 id=\"near-twins\">") && page.contains("<span class=\"tag\">≈ SLERP (0.5)</span>"));
    // A table with such columns is still one to compare with.
    let stored = sweep.results().join("table.csv");
    assert!(report(&sweep, &["--reference", &stored.to_string_lossy()]).contains("| Linear"));

    // Without samples nothing is compared, and nothing else changes.
    let compared = rows(&sweep, &["--long"]);
    samples(&sweep).iter().for_each(|sample| fs::remove_file(sample).unwrap());
    assert!(!report(&sweep, &[]).contains("near twins"));
    let without = rows(&sweep, &["--long"]);
    assert_eq!(without.len(), compared.len());
    for (with, without) in compared.iter().zip(&without) {
        assert!(without.get("near_twins").is_none());
        assert!(without.as_object().unwrap().iter().all(|(key, value)| with[key] == *value), "{with} {without}");
    }
}

#[test]
fn a_sample_of_other_weights_or_a_broken_one_is_not_compared() {
    let bench = Bench::new();
    let Some(sweep) = sweep(&bench) else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml", "--quiet"], "ok").status.code(), Some(0));
    let linear = samples(&sweep).into_iter().find(|path| path.to_string_lossy().contains("linear")).unwrap();
    let own = fs::read_to_string(&linear).unwrap();
    for other in [own.replace("\"weights\":\"", "\"weights\":\"0"), own[..own.len() / 2].to_owned()] {
        fs::write(&linear, other).unwrap();
        assert!(!report(&sweep, &[]).contains("near twins"));
    }
    fs::write(&linear, own).unwrap();
    assert!(report(&sweep, &[]).contains(TOLD));
}

#[test]
fn changes_of_the_size_of_rounding_are_said_to_be_within_it() {
    // A tenth of what rounding to bfloat16 moves.
    let bench = Bench::with_changes(1e-4);
    let Some(sweep) = Sweep::of(
        &SPEC.replace("BENCH", &bench.path().to_string_lossy()).replace("dtype =", "dtype = \"float32\"\nout_dtype ="),
    ) else {
        return;
    };
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let told = text(&run.stdout);
    assert!(told.contains(TOLD), "{told}");
    let blurred =
        "within rounding of each other, by samples of their weights: SLERP (0.3), SLERP (0.5), SLERP (0.7), Linear:";
    assert!(told.contains(blurred), "{told}");
}
