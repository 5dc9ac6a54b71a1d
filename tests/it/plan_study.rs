//! What a plan finds out about the study's own configs, held to what was measured with mergekit.

use std::path::PathBuf;
use std::process::Command;

use mergesweep::plan::lint::{Finding, Kind};
use mergesweep::plan::{self, Plan};

use crate::support::fixture;

fn sweep() -> PathBuf {
    fixture("study/sweep.toml")
}

fn open() -> Plan {
    plan::open(&sweep()).unwrap_or_else(|problems| panic!("{problems}")).1
}

fn names(plan: &Plan, trials: &[usize]) -> Vec<String> {
    trials.iter().map(|trial| plan.trials[*trial].name.clone()).collect()
}

/// Findings of a kind: file, last key of the path, trials.
fn found(plan: &Plan, kind: Kind) -> Vec<(String, String, Vec<String>)> {
    let of_kind = plan.review.findings.iter().filter(|finding| finding.kind == kind);
    of_kind
        .map(|Finding { span, key_path, trials, .. }| {
            let file = span.as_ref().map(|span| span.source.path.file_name().unwrap().to_string_lossy().into_owned());
            let key = key_path.rsplit('.').next().unwrap().to_owned();
            (file.unwrap_or_default(), key, names(plan, trials))
        })
        .collect()
}

#[test]
fn every_dead_setting_of_the_study_is_found_and_no_other() {
    let plan = open();
    let mut dead = found(&plan, Kind::Dead);
    dead.sort();
    let expected = [
        ("breadcrumbs.yml", "density", "Breadcrumbs"),
        ("breadcrumbs.yml", "gamma", "Breadcrumbs"),
        ("breadcrumbs.yml", "normalize", "Breadcrumbs"),
        ("breadcrumbs_ties.yml", "normalize", "Breadcrumbs TIES"),
        ("dare_ties.yml", "normalize", "Dare Ties"),
        ("della.yml", "epsilon", "DELLA"),
        ("della.yml", "lambda", "DELLA"),
        ("della.yml", "normalize", "DELLA"),
        ("ties.yml", "normalize", "TIES"),
    ];
    let expected = expected.map(|(file, key, trial)| (file.to_owned(), key.to_owned(), vec![trial.to_owned()]));
    assert_eq!(dead, expected);
    for kind in [Kind::Shadowed, Kind::Unmatched, Kind::Unresolved] {
        assert_eq!(found(&plan, kind), []);
    }
}

#[test]
fn the_twins_and_disguises_of_the_study_are_found_and_no_others() {
    let plan = open();
    let groups = |groups: &[Vec<usize>]| groups.iter().map(|group| names(&plan, group)).collect::<Vec<_>>();
    assert_eq!(groups(&plan.review.twins.exact), Vec::<Vec<String>>::new());
    assert_eq!(groups(&plan.review.twins.rounding), [["Linear", "Dare Linear"]]);
    let reduced = plan.review.findings.iter().filter(|finding| finding.kind == Kind::Reduces);
    let reduced: Vec<String> =
        reduced.map(|finding| format!("{} {}", names(&plan, &finding.trials).join(), finding.message)).collect();
    assert_eq!(
        reduced,
        [
            "Dare Linear is plain task_arithmetic, with these weights the average 0.5 code + 0.5 math",
            "Breadcrumbs is plain task_arithmetic, instruct + 0.8 (code - instruct) + 0.8 (math - instruct)",
        ]
    );
}

trait Join {
    fn join(self) -> String;
}

impl Join for Vec<String> {
    fn join(self) -> String {
        self.as_slice().join(", ")
    }
}

#[test]
fn dead_settings_refuse_a_sweep_unless_it_says_otherwise() {
    let text = std::fs::read_to_string(sweep()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let strict =
        text.replace("dead = \"warn\"", "").replace("configs/", &format!("{}/", fixture("study/configs").display()));
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, &strict).unwrap();
    let problems = plan::open(&path).unwrap_err();
    assert_eq!(problems.0.len(), 9, "{problems}");
    let first = problems.to_string().replace(&fixture("study").display().to_string(), "STUDY");
    assert!(
        first.starts_with(
            "error[E0404]: STUDY/configs/breadcrumbs.yml:19:11: `modules.default.slices[0].sources[2].parameters.density`: \
             `density: 0.9` is never read: `breadcrumbs` asks the other models for `density`, not the base; in force is the \
             default, 1 (`lint.dead = \"warn\"` lets it pass)\nhint: put it under `parameters` at top level, or on the other \
             models\n"
        ),
        "{first}"
    );
    std::fs::write(&path, strict.replace("[lint]\n", "[lint]\ndead = \"allow\"\n")).unwrap();
    assert_eq!(plan::open(&path).unwrap().1.trials.len(), 13);
}

/// What a command prints about the study.
fn printed(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    command.current_dir(fixture("study")).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_plan_of_the_study_tells_what_it_really_does() {
    // What a run would cost depends on the machine.
    let told = printed(&["plan", "sweep.toml"]);
    let (told, cost) = told.split_once("\nA run:\n").unwrap();
    insta::assert_snapshot!("study-plan", told);
    assert!(cost.contains("merges        13 to be made") || cost.contains("merges        12 to be made"), "{cost}");
}

#[test]
fn the_study_as_its_author_meant_it() {
    insta::assert_snapshot!("study-as-intended", printed(&["plan", "sweep.toml", "--as-intended"]));
}

#[test]
fn trials_of_the_study_are_explained() {
    for (name, args) in [
        ("breadcrumbs", &["Breadcrumbs"] as &[&str]),
        ("della", &["DELLA", "--tensor", "mlp.up_proj"]),
        ("slerp", &["SLERP (t=0.3)", "--tensor", "model.layers.3.mlp.up_proj.weight"]),
        ("linear", &["Linear"]),
    ] {
        let args = [&["explain", "sweep.toml"], args].concat();
        insta::assert_snapshot!(format!("explain-{name}"), printed(&args));
    }
}

#[test]
fn json_holds_every_setting_and_default_of_every_merge() {
    let json: serde_json::Value = serde_json::from_str(&printed(&["plan", "sweep.toml", "--json"])).unwrap();
    let trial = |name: &str| {
        let trials = json["trials"].as_array().unwrap();
        trials.iter().find(|trial| trial["name"] == name).unwrap()["parameters"].clone()
    };
    let verdicts = |name: &str| -> Vec<String> {
        let settings = trial(name)["settings"].as_array().unwrap().clone();
        settings.iter().map(|setting| format!("{} {}", setting["name"], setting["verdict"]).replace('"', "")).collect()
    };
    assert_eq!(verdicts("Breadcrumbs"), ["weight read", "weight read", "density dead", "gamma dead", "normalize dead"]);
    assert_eq!(verdicts("SLERP (t=0.5)"), ["t read"]);
    let defaults = trial("DELLA")["defaults"].as_array().unwrap().clone();
    let epsilon: Vec<_> = defaults.iter().filter(|default| default["name"] == "epsilon").collect();
    assert_eq!(epsilon.len(), 2, "one for each model");
    assert!(epsilon.iter().all(|default| default["value"] == 0.15 && default["decides"] == true));
    assert_eq!(json["twins"]["rounding"], serde_json::json!([["Linear", "Dare Linear"]]));
    assert_eq!(json["findings"].as_array().unwrap().iter().filter(|one| one["kind"] == "dead-setting").count(), 9);
}
