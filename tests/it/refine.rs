//! A refinement of an axis: which points it places, what it says of the optimum, and what a kill leaves.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::Value as Json;

use crate::search_support::{assert_asked_once, decisions, kill_often};
use crate::sweep_support::{Sweep, text, walk};

pub const SPEC: &str = r#"
name = "refine"

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
strategy = "refine"
metric = "loss"

[report]
reference = "Math"

[[baseline]]
name = "Math"
model = "math"

[[merge]]
name = "SLERP (t={t})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
grid.t = [0, 0.5, 1]
"#;

const PEAK: f64 = 0.37;

fn command(sweep: &Sweep, args: &[&str]) -> Command {
    let mut command = sweep.command(args, "ok");
    command
        .env("FAKE_LM_EVAL_SIBLINGS", "1")
        .env("FAKE_LM_EVAL_PEAK", PEAK.to_string())
        .env("FAKE_LM_EVAL_LOG", sweep.path("evaluated.log"));
    command
}

fn through(sweep: &Sweep, args: &[&str]) -> String {
    let output = command(sweep, args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What was seen of the optimum, without the moments at which it was.
fn refinements(sweep: &Sweep) -> Vec<Json> {
    decisions(sweep).into_iter().filter(|record| record["event"] == "search-refined").collect()
}

#[test]
fn the_optimum_is_found_with_few_merges_and_told_with_its_interval() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let table = through(&sweep, &["run", "sweep.toml"]);
    let refined = refinements(&sweep);
    let last = refined.last().unwrap();
    let found = last["optimum"][0].as_f64().unwrap();
    assert!((found - PEAK).abs() <= 0.05 && last["n_points"].as_u64().unwrap() < 7, "{refined:#?}");
    let [low, high] = [0, 1].map(|end| last["intervals"][0][end].as_f64().unwrap());
    assert!(low <= PEAK && PEAK <= high && high - low < 0.5, "{last}");
    assert!(table.contains("Refinement on loss: best at t = ") && table.contains("selected on these items"), "{table}");
    let n_rows = table.lines().filter(|line| line.starts_with("| SLERP (t=")).count();
    // In the table of scores, and in that of the refinement.
    assert_eq!(n_rows as u64, 2 * last["n_points"].as_u64().unwrap(), "{table}");
    assert!(walk(&sweep.results()).iter().all(|path| path.file_name().unwrap() != "model"));
    assert_asked_once(&sweep);

    let before = sweep.journal();
    assert_eq!(through(&sweep, &["run", "sweep.toml"]), table);
    assert_eq!(sweep.journal(), before, "a second run does nothing");
    through(&sweep, &["report", "sweep.toml", "--html", "page.html"]);
    let page = fs::read_to_string(sweep.path("page.html")).unwrap();
    assert!(page.contains("<h2 id=\"race\">Search</h2>") && !page.contains("dropped out"));
    assert!(page.contains("Objective (loss), point by point") && page.contains("points over t\""), "history and slice");
    let plan = through(&sweep, &["plan", "sweep.toml"]);
    assert!(plan.contains("A search on loss") && plan.contains("none to be made"), "{plan}");
    let status = through(&sweep, &["status", "sweep.toml"]);
    assert_eq!(status.matches("SLERP (t=").count() as u64, last["n_points"].as_u64().unwrap(), "{status}");
}

#[test]
fn the_chosen_are_told_by_documents_set_aside() {
    let spec = SPEC
        .replace("metric = \"loss\"", "metric = { loss = 1, quiz = 0.5 }\nconfirmation = 0.4\nbatch = 2\ntrials = 6");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let table = through(&sweep, &["run", "sweep.toml"]);
    assert!(table.contains("are those of documents that no decision saw"), "{table}");
    assert!(refinements(&sweep).last().unwrap()["n_points"].as_u64().unwrap() <= 6);
    assert_asked_once(&sweep);
}

/// Points that are not asked are not placed either, however good they might be.
#[test]
fn what_is_left_out_stays_out_and_the_refinement_ends() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    through(&sweep, &["run", "sweep.toml", "--only", "SLERP (t=0.5)", "--only", "SLERP (t=1)"]);
    let points: Vec<Json> =
        refinements(&sweep).iter().flat_map(|one| one["next"].as_array().unwrap().clone()).collect();
    assert!(!points.is_empty() && points.len() < 10, "{points:?}");
    assert!(points.iter().all(|point| point[0].as_f64().unwrap() > 0.02), "{points:?}");
    assert_asked_once(&sweep);
    through(&sweep, &["run", "sweep.toml"]);
    assert_asked_once(&sweep);
}

#[test]
fn a_refinement_that_is_killed_places_the_same_points() {
    let Some(reference) = Sweep::of(SPEC) else { return };
    let begun = Instant::now();
    let undisturbed = through(&reference, &["run", "sweep.toml"]);
    let whole = begun.elapsed();
    let expected = decisions(&reference);
    let run = |sweep: &Sweep| command(sweep, &["run", "sweep.toml", "--quiet"]);
    let told = kill_often(whole, &|| Sweep::of(SPEC).unwrap(), &run, &|sweep| {
        assert_eq!(decisions(sweep), expected);
        assert_asked_once(sweep);
        assert_eq!(through(sweep, &["run", "sweep.toml"]), undisturbed);
    });
    println!("{told}");
}

#[test]
fn what_cannot_be_refined_is_refused_with_the_reason() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    for (from, to, code, why) in [
        ("[0, 0.5, 1]", "[0.5]", "E0908", "has one value"),
        (
            "grid.t = [0, 0.5, 1]",
            "parameters = { t = 0.5 }\ngrid.dtype = [\"float16\", \"bfloat16\"]",
            "E0908",
            "no axis of numbers",
        ),
        ("metric = \"loss\"", "metric = \"loss\"\nrungs = [0.5, 1]", "E0907", "but of `race`"),
        ("metric = \"loss\"", "metric = [\"loss\", \"quiz\"]\nobjective = \"worst-rank\"", "E0907", "ranks jump"),
        ("metric = \"loss\"", "metric = \"loss\"\nwidth = 2", "E0903", "below 1"),
    ] {
        sweep.write(&SPEC.replace(from, to).replace("SLERP (t={t})", "Merge"));
        let output = command(&sweep, &["plan", "sweep.toml"]).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{to}: {stderr}");
        assert!(stderr.contains(code) && stderr.contains(why), "{to}: {stderr}");
    }
}
