//! A race over a grid: who is asked what, what is decided and told, and what a kill leaves.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value as Json;

use crate::search_support::{self, asked, assert_asked_once, kill_often, records};
use crate::sweep_support::{Sweep, count, text, walk};

pub const SPEC: &str = r#"
name = "race"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = [{ task = "quiz", columns = { quiz = "acc,none" } }, { task = "reading", columns = { loss = "bits_per_byte,none" } }]
model = "hf"
batch_size = 4
device = "cpu"

[resources]
cpu_slots = 2

[search]
strategy = "race"
metric = "quiz"

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
grid.t = { from = 0.05, to = 0.95, step = 0.1 }

[[merge]]
name = "Linear"
method = "linear"
models = { math = { weight = 0.5 }, code = { weight = 0.5 } }

[[merge]]
name = "Linear again"
method = "linear"
models = { math = { weight = 0.25 }, code = { weight = 0.25 } }
"#;

fn command(sweep: &Sweep, args: &[&str]) -> Command {
    let mut command = sweep.command(args, "ok");
    command.env("FAKE_LM_EVAL_SIBLINGS", "1").env("FAKE_LM_EVAL_LOG", sweep.path("evaluated.log"));
    command
}

fn run(sweep: &Sweep, args: &[&str]) -> Output {
    command(sweep, args).output().unwrap()
}

fn through(sweep: &Sweep) -> String {
    let output = run(sweep, &["run", "sweep.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Decisions without the moment at which they were made.
fn decisions(sweep: &Sweep) -> Vec<Json> {
    let all = search_support::decisions(sweep).into_iter();
    all.filter(|record| record["event"] == "search-decided").collect()
}

#[test]
fn a_race_asks_less_finds_the_best_and_says_what_each_score_rests_on() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let plan = text(&run(&sweep, &["plan", "sweep.toml"]).stdout);
    assert!(plan.contains("A search on quiz: what it costs is known once the first run"), "{plan}");
    let table = through(&sweep);
    let asked_once = asked(&sweep);
    assert!(asked_once.values().all(|n| *n == 1), "no document is asked twice");
    let n_quiz = asked_once.keys().filter(|line| line.contains(" quiz ")).count();
    assert!(n_quiz < 11 * 200 * 6 / 10, "{n_quiz} of {}", 12 * 200);

    let decided = decisions(&sweep);
    assert_eq!(decided.len(), 6);
    let survivors = |decision: &Json| -> BTreeSet<String> {
        let standings = decision["standings"].as_array().unwrap().iter();
        let left = standings.filter(|standing| standing["survives"] == true);
        left.map(|standing| standing["trial"].as_str().unwrap().to_owned()).collect()
    };
    assert!(decided.windows(2).all(|pair| survivors(&pair[1]).is_subset(&survivors(&pair[0]))));
    let last = &decided[5];
    assert_eq!(last["documents"]["quiz"], 200);

    // The same grid without a race: the best there is the one that the race leaves.
    let whole = Sweep::of(&SPEC.replace("[search]\nstrategy = \"race\"\nmetric = \"quiz\"\n", "")).unwrap();
    through(&whole);
    let best = best_merge(&whole);
    assert!(table.contains("leads"), "{table}");
    let leader = table.lines().find(|line| line.contains("leads")).unwrap();
    assert!(leader.contains(&best), "{leader}: {best}");
    // Only who is left answers the other task, and a score of fewer documents says so.
    let row = |name: &str| table.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
    assert!(table.contains("(n=") && row(&best).matches("–").count() == 0, "{table}");
    assert!(table.contains("selected on these items among 12"), "{table}");
    assert!(table.contains("answers were asked"), "{table}");
    // Models go with their trials.
    assert!(walk(&sweep.results()).iter().all(|path| path.file_name().unwrap() != "model"));
    let scores = fs::read_to_string(sweep.results().join("scores.csv")).unwrap();
    assert!(scores.lines().next().unwrap().contains("race_rung"), "{scores}");

    let page = run(&sweep, &["report", "sweep.toml", "--html", "page.html", "--plots", "plots"]);
    assert_eq!(page.status.code(), Some(0), "{}", text(&page.stderr));
    let page = fs::read_to_string(sweep.path("page.html")).unwrap();
    assert!(page.contains("<h2 id=\"race\">Race</h2>") && sweep.path("plots/race.svg").is_file());
    // A score of fewer documents says so, and stands beside no other.
    let out: Vec<&str> = table.lines().filter(|line| line.contains(", out |")).collect();
    let out: Vec<&str> = out.iter().map(|line| line.split('|').nth(1).unwrap().trim()).collect();
    assert!(!out.is_empty() && page.contains("<small>(n="), "{table}");
    let strip = fs::read_to_string(sweep.path("plots/strip_quiz.svg")).unwrap();
    assert!(strip.contains(&format!("<title>{best}: ")), "{strip}");
    assert!(out.iter().all(|name| !strip.contains(&format!("<title>{name}: "))), "{out:?} {strip}");
    let report = text(&run(&sweep, &["report", "sweep.toml"]).stdout);
    let line = report.lines().find(|line| line.contains("quiz over t"));
    let drawn = |line: &str| line.chars().take_while(|block| *block != 'q').filter(|block| *block > '▀').count();
    assert!(line.map_or(0, drawn) <= 10 - out.iter().filter(|name| name.starts_with("SLERP")).count(), "{report}");
    let plan = text(&run(&sweep, &["plan", "sweep.toml"]).stdout);
    assert!(
        plan.contains("rung 1 of 6  20 documents more; 12.0 of 12 trials, 240 answers expected, 240 at most"),
        "{plan}"
    );
    assert!(plan.contains("then    reading whole, of the trials that are left and the baselines"), "{plan}");

    assert!(plan.contains("none to be made"), "nothing is left to do: {plan}");
    let before = sweep.journal();
    let again = run(&sweep, &["run", "sweep.toml"]);
    assert_eq!((text(&again.stdout), sweep.journal()), (table, before), "a second run does nothing");
    let status = text(&run(&sweep, &["status", "sweep.toml"]).stdout);
    assert!(status.contains("out after rung") && status.contains("scored"), "{status}");
}

#[test]
fn scores_of_portions_are_those_of_all_documents_at_once() {
    let raced = "metric = [\"quiz\", \"loss\"]\nrungs = [0.3, 1]\nmin_survivors = 12";
    let Some(raced) = Sweep::of(&SPEC.replace("metric = \"quiz\"", raced)) else { return };
    through(&raced);
    let whole = Sweep::of(&SPEC.replace("[search]\nstrategy = \"race\"\nmetric = \"quiz\"\n", "")).unwrap();
    through(&whole);
    let numbers = |sweep: &Sweep| -> Vec<f64> {
        let table = sweep.table();
        let cells = table.lines().skip(1).flat_map(|line| line.rsplit(',').take(2).collect::<Vec<_>>());
        cells.map(|cell| cell.parse().unwrap()).collect()
    };
    let (raced, whole) = (numbers(&raced), numbers(&whole));
    assert_eq!(raced.len(), 26);
    assert!(raced.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-9), "{raced:?} {whole:?}");
}

/// The merge with the best score of a table.
fn best_merge(sweep: &Sweep) -> String {
    let table = sweep.table();
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let heads = rows.headers().unwrap().clone();
    let place = |name: &str| heads.iter().position(|head| head == name).unwrap();
    let (trial, kind, quiz) = (place("trial"), place("kind"), place("quiz"));
    let scores = rows.records().map(Result::unwrap).filter(|row| &row[kind] == "merge");
    let scores = scores.map(|row| (row[trial].to_owned(), row[quiz].parse::<f64>().unwrap()));
    scores.fold((String::new(), -1.0), |best, row| if row.1 > best.1 { row } else { best }).0
}

#[test]
fn the_chosen_are_told_by_documents_that_no_decision_saw() {
    let spec =
        SPEC.replace("metric = \"quiz\"", "metric = { quiz = 1, loss = 2 }\nconfirmation = 0.4\nmin_survivors = 2");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let table = through(&sweep);
    assert!(table.contains("are those of documents that no decision saw"), "{table}");
    // 200 documents: 120 to decide by, 80 set aside.
    let decided = decisions(&sweep);
    assert_eq!(decided.last().unwrap()["documents"]["quiz"], 120);
    let decided_by: BTreeSet<u64> = portions(&sweep, |record| record["trial"].is_string());
    assert!(decided_by.len() <= 200);
    assert!(table.contains("quiz (n=80)"), "{table}");
    // Baselines answer what they are compared on, and nothing else.
    let math = table.lines().find(|line| line.starts_with("| Math ")).unwrap();
    assert!(!math.contains("(n="), "{math}");
    // The objective of several columns has the exchange test.
    assert!(table.contains(" p "), "{table}");
    let p_values = decided[0]["standings"].as_array().unwrap().iter().filter(|standing| standing["p"].is_number());
    assert!(p_values.count() > 5);
}

/// Numbers of documents of the evaluations that a filter of records lets through.
fn portions(sweep: &Sweep, is_meant: impl Fn(&Json) -> bool) -> BTreeSet<u64> {
    let evaluated = records(sweep).into_iter().filter(|record| record["event"] == "evaluated" && is_meant(record));
    evaluated
        .flat_map(|record| record["tasks"].as_array().unwrap().clone())
        .filter_map(|task| task["scores"][0]["n"].as_u64())
        .collect()
}

#[test]
fn a_race_that_is_killed_decides_the_same_and_asks_nothing_twice() {
    let Some(reference) = Sweep::of(SPEC) else { return };
    let begun = Instant::now();
    let undisturbed = through(&reference);
    let whole = begun.elapsed();
    let expected = decisions(&reference);
    let run = |sweep: &Sweep| command(sweep, &["run", "sweep.toml", "--quiet"]);
    let told = kill_often(whole, &|| Sweep::of(SPEC).unwrap(), &run, &|sweep| {
        assert_eq!(decisions(sweep), expected);
        assert_asked_once(sweep);
        assert_eq!(through(sweep), undisturbed);
    });
    println!("{told}");
}

#[test]
fn little_disk_makes_merges_again_and_decides_the_same() {
    let Some(plenty) = Sweep::of(SPEC) else { return };
    through(&plenty);
    let bytes = records(&plenty).into_iter().find(|record| record["event"] == "merged").unwrap()["merge"]["n_bytes"]
        .as_u64()
        .unwrap();
    let spec = SPEC.replace("cpu_slots = 2", &format!("cpu_slots = 2\ndisk = {}", 3 * bytes));
    let little = Sweep::of(&spec).unwrap();
    through(&little);
    assert_eq!(decisions(&little), decisions(&plenty));
    let n_merged = |sweep: &Sweep| count(&sweep.journal(), "\"event\":\"merged\"");
    assert_eq!(n_merged(&plenty), 12);
    assert!(n_merged(&little) > 12);
}

#[test]
fn what_cannot_be_raced_is_refused_with_the_reason() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    for (from, to, code, why) in [
        ("metric = \"quiz\"", "metric = \"quizz\"", "E0901", "did you mean `quiz`?"),
        ("metric = \"quiz\"", "metric = \"tinyArc\"", "E0902", "estimate made from all 100 documents"),
        ("metric = \"quiz\"", "metric = \"quiz\"\nrungs = [10, 50, 100]", "E0903", "rise to 1"),
        ("metric = \"quiz\"", "metric = \"quiz\"\nrungs = [0.5, 0.2, 1]", "E0903", "rise to 1"),
        ("metric = \"quiz\"", "metric = \"quiz\"\nconfidence = 90", "E0903", "below 1"),
        ("metric = \"quiz\"", "metric = \"quiz\"\nconfirmation = 1.5", "E0903", "below 1"),
        ("metric = \"quiz\"", "metric = { quiz = -1 }", "E0103", "a weight above 0"),
        ("[resources]", "[limits]\nkeep = \"best:2:quiz\"\n\n[resources]", "E0906", "its own objective only"),
    ] {
        let spec = SPEC.replace(from, to).replace("tasks = [", "tasks = [\"tinyArc\", ");
        sweep.write(&spec);
        let output = run(&sweep, &["plan", "sweep.toml"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{to}: {stderr}");
        assert!(stderr.contains(code) && stderr.contains(why), "{to}: {stderr}");
    }
    sweep.write(&SPEC.replace(
        "{ task = \"quiz\", columns = { quiz = \"acc,none\" } }",
        "{ task = \"both\", columns = { quiz = \"acc,none\" } }",
    ));
    let output = run(&sweep, &["run", "sweep.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("task `both` cannot be raced: it is a group"), "{}", text(&output.stderr));
}
