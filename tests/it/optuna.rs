//! A search by Optuna, the real one, over answers of a stand-in: what it asks, what it says, and what a kill leaves.

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::Value as Json;

use crate::search_support::{asked, assert_asked_once, decisions, kill_often};
use crate::support::require_python;
use crate::sweep_support::{Sweep, count, text, walk};

pub const SPEC: &str = r#"
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
    let sampled = decisions(sweep).into_iter().filter(|record| record["event"] == "search-sampled");
    sampled.flat_map(|record| record["next"].as_array().unwrap().clone()).collect()
}

/// What was decided before the last rung, and at the end.
fn decided(sweep: &Sweep) -> (Vec<Json>, Json) {
    let decided = decisions(sweep).into_iter().filter(|record| record["event"] == "search-decided");
    let is_last = |record: &Json| record["rung"].as_u64().unwrap() + 1 == record["n_rungs"].as_u64().unwrap();
    let (mut last, before): (Vec<Json>, Vec<Json>) = decided.partition(is_last);
    (before, last.pop().unwrap())
}

/// Trials that a decision lets drop out.
fn out(decided: &Json) -> Vec<&Json> {
    decided["standings"].as_array().unwrap().iter().filter(|standing| standing["survives"] == false).collect()
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
fn a_search_that_is_killed_places_the_same_points_and_drops_the_same() {
    let Some(_) = require_python() else { return };
    let Some(reference) = Sweep::of(SPEC) else { return };
    let begun = Instant::now();
    let undisturbed = through(&reference, &["run", "sweep.toml"]);
    let whole = begun.elapsed();
    let expected = decisions(&reference);
    assert_eq!(sampled(&reference).len(), 7, "nine points, two of them of the grid");
    let before = reference.journal();
    assert_eq!(through(&reference, &["run", "sweep.toml"]), undisturbed);
    assert_eq!(reference.journal(), before, "a second run does nothing");
    let run = |sweep: &Sweep| command(sweep, &["run", "sweep.toml", "--quiet"]);
    let told = kill_often(whole, &|| Sweep::of(SPEC).unwrap(), &run, &|sweep| {
        assert_eq!(decisions(sweep), expected);
        assert_asked_once(sweep);
        assert_eq!(through(sweep, &["run", "sweep.toml"]), undisturbed);
    });
    println!("{told}");
}

/// Prints number, state and value of every trial of the one study.
const STUDY: &str = "
import sys, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
storage = JournalStorage(JournalFileBackend(sys.argv[1]))
(study,) = storage.get_all_studies()
for trial in storage.get_all_trials(study._study_id):
    print(trial.number, trial.state.name, trial.value, max(trial.intermediate_values, default=None))
";

/// What Optuna knows: state, value and rung by number.
fn known(sweep: &Sweep) -> Vec<(String, f64, String)> {
    let storage = sweep.results().join("optuna/storage.jsonl");
    let output = Command::new(require_python().unwrap()).args(["-c", STUDY]).arg(storage).output().unwrap();
    let known = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let word = |line: &str, place: usize| line.split(' ').nth(place).unwrap().to_owned();
    let of_line = |line: &str| (word(line, 1), word(line, 2).parse().unwrap_or(f64::NAN), word(line, 3));
    known.lines().filter(|line| !line.contains("RUNNING")).map(of_line).collect()
}

/// Points that are behind the best so far are asked no more, and Optuna is told what they would score.
#[test]
fn points_that_are_behind_drop_out_and_the_sampler_is_told_so() {
    let Some(_) = require_python() else { return };
    for sampler in ["tpe", "cmaes", "nsga2"] {
        let spec = SPEC.replace("trials = 9", &format!("trials = 14\nsampler = \"{sampler}\""));
        let Some(sweep) = Sweep::of(&spec) else { return };
        let table = through(&sweep, &["run", "sweep.toml"]);
        assert_asked_once(&sweep);
        let (before, last) = decided(&sweep);
        assert!(before.iter().all(|decided| decided["round"].as_u64().unwrap() > 0), "the grid answers everything");
        let dropped: Vec<(&Json, &Json)> =
            before.iter().flat_map(|decided| out(decided).into_iter().map(move |out| (decided, out))).collect();
        assert!(!dropped.is_empty(), "{before:#?}");
        let n_quiz = asked(&sweep).keys().filter(|line| line.contains(" quiz ")).count();
        assert!(n_quiz < 15 * 200, "{n_quiz}");
        assert!(table.contains(&format!("{} dropped out on the way", dropped.len())), "{table}");
        assert!(table.contains(", out") && table.contains("(n="), "{table}");
        let n_through = last["standings"].as_array().unwrap().len();
        assert_eq!(n_through + dropped.len(), 14);

        // As far from the best so far as on the documents that both answered.
        let value = |decided: &Json, trial: &Json| {
            let standings = decided["standings"].as_array().unwrap();
            standings.iter().find(|standing| standing["trial"] == *trial).unwrap()["value"].as_f64().unwrap()
        };
        let mut told: Vec<f64> = dropped
            .iter()
            .map(|(decided, out)| {
                let leader = &decided["leader"];
                value(&last, leader) + out["value"].as_f64().unwrap() - value(decided, leader)
            })
            .collect();
        // The last ones are told nobody any more.
        let known = known(&sweep);
        let state = if sampler == "nsga2" { "COMPLETE" } else { "PRUNED" };
        let mut heard: Vec<f64> = known.iter().filter(|known| known.0 == "PRUNED").map(|known| known.1).collect();
        if sampler == "nsga2" {
            assert!(heard.is_empty());
            heard = known
                .iter()
                .filter(|(_, value, _)| told.iter().any(|told| (told - value).abs() < 1e-9))
                .map(|known| known.1)
                .collect();
        }
        assert!(!heard.is_empty() && known.iter().any(|known| known.0 == state), "{known:?} {told:?}");
        told.sort_by(f64::total_cmp);
        let is_told = |heard: &f64| told.iter().any(|told| (told - heard).abs() < 1e-9);
        assert!(heard.iter().all(is_told), "{heard:?} {told:?}");

        through(&sweep, &["report", "sweep.toml", "--html", "page.html", "--plots", "plots"]);
        let page = fs::read_to_string(sweep.path("page.html")).unwrap();
        assert!(page.contains("Objective (quiz), point by point") && page.contains("dropped out: estimated"));
        assert!(sweep.path("plots/race.svg").is_file() && sweep.path("plots/history_objective-quiz.svg").is_file());
        assert!(sweep.path("plots/slice_objective-quiz_t.svg").is_file(), "{:?}", walk(&sweep.path("plots")));
        let status = through(&sweep, &["status", "sweep.toml"]);
        assert!(status.contains("out after rung"), "{status}");
        let plan = through(&sweep, &["plan", "sweep.toml"]);
        assert!(plan.contains("2 points of the grid, 14 at most") && plan.contains("none to be made"), "{plan}");
        assert!(plan.contains("rung 1 of 3  40 documents more; 14.0 of 14 points"), "{plan}");
    }
}

/// A point that is behind may be the first to keep the floor.
#[test]
fn nobody_drops_out_as_long_as_all_miss_a_floor() {
    let Some(_) = require_python() else { return };
    let Some(sweep) = Sweep::of(&SPEC.replace("metric = \"quiz\"", "metric = \"quiz\"\nfloors = { loss = 0.01 }"))
    else {
        return;
    };
    through(&sweep, &["run", "sweep.toml"]);
    let (before, last) = decided(&sweep);
    assert!(!before.is_empty() && before.iter().all(|decided| out(decided).is_empty()), "{before:#?}");
    assert_eq!(last["standings"].as_array().unwrap().len(), 9);
    assert_asked_once(&sweep);
}

/// More points change nothing about those that there are.
#[test]
fn further_points_leave_the_decisions_before_them_alone() {
    let Some(_) = require_python() else { return };
    let Some(sweep) = Sweep::of(&SPEC.replace("trials = 9", "trials = 7")) else { return };
    through(&sweep, &["run", "sweep.toml"]);
    let (before, _) = decided(&sweep);
    sweep.write(SPEC);
    through(&sweep, &["run", "sweep.toml"]);
    let (after, last) = decided(&sweep);
    assert_eq!(after[..before.len()], before);
    assert_eq!(sampled(&sweep).len(), 7);
    assert_eq!(last["round"], 5, "the grid, two and two points and one, and then two more");
    assert_asked_once(&sweep);
}

#[test]
fn rungs_of_a_front_are_refused() {
    let Some(sweep) = Sweep::of(
        &SPEC.replace("metric = \"quiz\"", "metric = [\"quiz\", \"loss\"]\nobjective = \"pareto\"\nrungs = [0.5, 1]"),
    ) else {
        return;
    };
    let output = sweep.command(&["plan", "sweep.toml"], "ok").output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("E0907") && stderr.contains("no best one to set others beside"), "{stderr}");
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
    assert!(!table.contains("| set aside"), "a front has no best one: {table}");

    // One objective of both: the best beside the best of the grid and the reference, column by column and in all.
    let both = "metric = { quiz = 1, loss = 2 }\nconfirmation = 0.4\nrungs = [1]";
    let sweep = Sweep::of(&SPEC.replace("metric = \"quiz\"", both)).unwrap();
    let table = through(&sweep, &["run", "sweep.toml"]);
    let set_aside: Vec<&str> = table.lines().skip_while(|line| !line.starts_with("| set aside")).skip(2).collect();
    let set_aside: Vec<Vec<&str>> = set_aside
        .iter()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let (_, last) = decided(&sweep);
    let n_left = last["standings"].as_array().unwrap().iter().filter(|standing| standing["survives"] == true).count();
    assert_eq!(set_aside.len(), n_left, "the others that are left, and the reference: {table}");
    assert_eq!(set_aside.last().unwrap()[2], "Math", "{table}");
    for row in &set_aside {
        assert!(row[3..6].iter().all(|cell| cell.contains("] p ")), "{table}");
        let first = |cell: &str| cell.split(' ').next().unwrap().parse::<f64>().unwrap();
        let objective = first(row[3]) / 100.0 - 2.0 * first(row[4]);
        assert!((first(row[5]) - objective).abs() < 1e-3, "{row:?}");
    }
    let best = set_aside[0][1];
    assert!(best != "Math" && through(&sweep, &["report", "sweep.toml"]).contains("| set aside"), "{table}");
    // Points that were placed are trials like those of the spec.
    let placed = table.lines().map(|line| line.split('|').nth(1).unwrap_or_default().trim());
    let placed = placed.filter(|name| name.starts_with("Merge")).nth(2).unwrap();
    let beside = format!("sweep.toml:{best}");
    for (args, told) in [(["explain", "sweep.toml", placed], "dare_ties"), (["compare", &beside, "Math"], "loss")] {
        let output = sweep.command(&args, "ok").output().unwrap();
        assert!(output.status.success() && text(&output.stdout).contains(told), "{}", text(&output.stderr));
    }

    let sweep =
        Sweep::of(&SPEC.replace("metric = \"quiz\"", "metric = \"quiz\"\nrungs = [1]\nfloors = { loss = 1.76 }"))
            .unwrap();
    through(&sweep, &["run", "sweep.toml"]);
    let (_, decided) = decided(&sweep);
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
