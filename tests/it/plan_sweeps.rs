//! The plans of the sweeps that are committed here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use mergesweep::config::write;
use mergesweep::eval::CodeEval;
use mergesweep::plan::lint::Kind;
use mergesweep::plan::{self, Plan, Subject};
use mergesweep::spec::Sweep;

/// A file under `sweeps/`.
fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps").join(name)
}

fn open(name: &str) -> (Sweep, Plan) {
    plan::open(&committed(name)).unwrap_or_else(|problems| panic!("{problems}"))
}

/// One line for each trial: name, settings, seed and what is merged, in canonical form.
fn lines(plan: &Plan) -> String {
    let line = |trial: &plan::Trial| {
        let subject = match &trial.subject {
            Subject::Checkpoint(model) => model.to_string(),
            Subject::Merge { config, seed, .. } => format!("seed {seed} {}", write::canonical(config)),
        };
        format!("{} | {} | {}\n    {subject}\n", trial.name, trial.settings_text(), trial.folder())
    };
    plan.trials.iter().map(line).collect()
}

#[test]
fn the_study_has_its_nineteen_rows_under_their_published_names() {
    let (sweep, plan) = open("study.toml");
    let published = std::fs::read_to_string(committed("../results/reference/study.csv")).unwrap();
    let rows: Vec<&str> = published.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    let names: Vec<&str> = plan.trials.iter().map(|trial| trial.name.as_str()).collect();
    assert_eq!(names, rows);
    assert_eq!(names.len(), 19);
    assert_eq!(sweep.evaluate.tasks.len(), 7);
    assert_eq!(sweep.evaluate.allow_code_eval, CodeEval::Off);
    // The study leaves it to its reader whether model-written code may run.
    let warnings = plan.warnings.to_string();
    assert!(warnings.starts_with("warning[E0503]: ") && plan.warnings.0.len() == 1, "{warnings}");
    insta::assert_snapshot!("study", lines(&plan));
}

/// Method, base, sources with their parameters, parameters of all and dtype of a merge over whole models. Models by their short
/// names.
fn essence(sweep: &Sweep, subject: &Subject) -> Vec<Value> {
    let Subject::Merge { config, .. } = subject else { return Vec::new() };
    let mut text = write::canonical(config);
    for (short, model) in &sweep.models {
        text =
            text.replace(&format!("\"{model}\""), &format!("\"{}\"", if short == "instruct" { "base" } else { short }));
    }
    let config: Value = serde_json::from_str(&text).unwrap();
    let slice = &config["modules"]["default"]["slices"][0];
    let sources = [&slice["sources"], &config["slices"][0]["sources"], &config["models"]];
    let mut sources = sources.into_iter().find(|sources| sources.is_array()).unwrap().clone();
    for source in sources.as_array_mut().unwrap() {
        source.as_object_mut().unwrap().remove("layer_range");
    }
    let [method, base, of_all, dtype] =
        ["merge_method", "base_model", "parameters", "dtype"].map(|key| config[key].clone());
    vec![method, base, sources, of_all, dtype]
}

#[test]
fn the_desk_study_has_the_settings_of_the_study_and_four_rows_as_intended() {
    let ((study, study_plan), (desk, desk_plan)) = (open("study.toml"), open("desk-study.toml"));
    let (intended, written): (Vec<_>, Vec<_>) =
        desk_plan.trials.iter().partition(|trial| trial.name.ends_with(", as intended"));
    assert_eq!((intended.len(), written.len()), (4, 19));
    for (ours, theirs) in written.iter().zip(&study_plan.trials) {
        assert_eq!((&ours.name, ours.baseline), (&theirs.name, theirs.baseline));
        // A model with an adapter is put together by a merge, a baseline or not.
        if !ours.baseline {
            assert_eq!(essence(&desk, &ours.subject), essence(&study, &theirs.subject), "{}", ours.name);
        }
    }
    // What nobody reads is as dead here as there, and the rows as intended have nothing of it.
    let dead = |plan: &Plan| {
        let dead = plan.review.findings.iter().filter(|finding| finding.kind == Kind::Dead);
        dead.flat_map(|finding| {
            finding.trials.iter().map(|trial| (plan.trials[*trial].name.clone(), finding.message.clone()))
        })
        .collect::<BTreeSet<_>>()
    };
    assert_eq!(dead(&desk_plan), dead(&study_plan));
    assert_eq!(dead(&study_plan).len(), 9);
}

#[test]
fn the_grids_have_their_points() {
    assert_eq!(open("slerp-t.toml").1.trials.len(), 1 + 11);
    assert_eq!(open("dare-density.toml").1.trials.len(), 1 + 5 * 5 + 1);
    assert_eq!(open("slerp-race.toml").1.trials.len(), 11);
    assert_eq!(open("dare-race.toml").1.trials.len(), 6 * 4);
    // The plain points of the search, the same in all layers.
    assert_eq!(open("layers-optuna.toml").1.trials.len(), 4);
}

#[test]
fn the_nightly_check_decides_on_enough_documents() {
    let (sweep, _) = open("nightly.toml");
    let margins = &sweep.gate.margins;
    assert!(sweep.evaluate.tasks.iter().all(|task| margins.iter().any(|(column, _)| *column == task.name)));
    // Both loss tasks have 200 documents.
    assert!(sweep.evaluate.tasks.iter().all(|task| task.limit.unwrap_or(200) >= 150));
}

#[test]
fn the_quickstart_has_nine_rows() {
    let (sweep, plan) = open("quickstart.toml");
    assert_eq!(plan.trials.len(), 9);
    assert!(
        sweep.evaluate.include_path.as_ref().is_some_and(|path| path.is_absolute() && path.ends_with("sweeps/tasks"))
    );
    assert!(sweep.evaluate.python.ends_with("sweeps/../.venv/bin/python"));
    assert_eq!(sweep.limits.keep, mergesweep::spec::Keep::All);
    insta::assert_snapshot!("quickstart", lines(&plan));
}

#[test]
fn the_quickstart_with_code_differs_only_in_one_task_and_its_opt_in() {
    let (plain, plain_plan) = open("quickstart.toml");
    let (mut code, code_plan) = open("quickstart-code.toml");
    assert_eq!(plain_plan.trials, code_plan.trials);
    // Of one name they would share results, and the plain one would drop the other's column from the table.
    assert_ne!(plain_plan.sweep, code_plan.sweep);
    assert_eq!(code.evaluate.allow_code_eval, CodeEval::Bare);
    code.evaluate.allow_code_eval = CodeEval::Off;
    assert_eq!(code.evaluate.tasks.pop().unwrap().name, "humaneval_local");
    assert_eq!(plain.evaluate, code.evaluate);
}

#[test]
fn the_example_gives_the_same_plan_in_both_languages() {
    let (toml, toml_plan) = open("examples/slerp-and-dare.toml");
    let (yaml, yaml_plan) = open("examples/slerp-and-dare.yml");
    assert_eq!(toml_plan, yaml_plan);
    assert_eq!((toml.models, toml.evaluate, toml.limits), (yaml.models, yaml.evaluate, yaml.limits));
    insta::assert_snapshot!("example", lines(&toml_plan));
}

#[test]
fn every_committed_sweep_is_tested_here() {
    let mut found = Vec::new();
    for folder in ["", "examples"] {
        for entry in std::fs::read_dir(committed(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.extension().is_some_and(|ending| ending == "toml" || ending == "yml") {
                plan::open(&path).unwrap_or_else(|problems| panic!("{problems}"));
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "dare-density.toml",
            "dare-race-arc.toml",
            "dare-race.toml",
            "desk-study.toml",
            "layers-optuna.toml",
            "nightly.toml",
            "quickstart-code.toml",
            "quickstart.toml",
            "slerp-and-dare.toml",
            "slerp-and-dare.yml",
            "slerp-race-arc.toml",
            "slerp-race-gsm8k.toml",
            "slerp-race.toml",
            "slerp-refine.toml",
            "slerp-t.toml",
            "study.toml"
        ]
    );
}

#[test]
fn json_holds_every_trial_with_its_config() {
    let (_, plan) = open("quickstart.toml");
    let json = plan::json::plan(&plan);
    let trials = json["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 9);
    assert_eq!(trials[0]["model"], "../.models/SmolLM2-135M-Instruct");
    assert_eq!(trials[3]["axes"]["t"], 0.25);
    assert_eq!(trials[3]["config"]["merge_method"], "slerp");
    assert_eq!(trials[8]["seed"], 42);
}

#[test]
fn configs_are_written_for_every_merge_and_read_back() {
    let (_, plan) = open("study.toml");
    let folder = tempfile::tempdir().unwrap();
    let written = plan::configs::write_configs(&plan, folder.path(), &|model| model.to_string()).unwrap();
    assert_eq!(written.len(), 13);
    assert!(written[8].ends_with("15-slerp-t-0.3.yml"), "{}", written[8].display());
    let merges = plan.trials.iter().filter_map(|trial| match &trial.subject {
        Subject::Merge { config, .. } => Some(config.as_ref().clone()),
        Subject::Checkpoint(_) => None,
    });
    for (path, config) in written.iter().zip(merges) {
        let parsed = mergesweep::config::parse::file(path).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(parsed.config, config);
        assert!(parsed.warnings.is_empty());
    }
}
