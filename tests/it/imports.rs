//! Old output of the harness as rows of a sweep: what is taken, what is refused, and what of it is published.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::sweep_support::{Sweep, TINY, text, walk};

fn import(sweep: &Sweep, args: &[&str]) -> Output {
    sweep.run(&[&["import", "sweep.toml"], args].concat(), "ok")
}

/// A group of one task that is all right and one that is all wrong.
const GROUP: &str = r#"{
    "results": {
        "both": {"alias": "both", "acc,none": 0.5, "acc_stderr,none": 0.0},
        "a": {"acc,none": 1.0, "acc_stderr,none": 0.0},
        "b": {"acc,none": 0.0, "acc_stderr,none": 0.0}
    },
    "group_subtasks": {"both": ["a", "b"], "a": []},
    "n-samples": {"a": {"original": 9, "effective": 2}, "b": {"original": 9, "effective": 2}},
    "config": {"model": "hf", "model_args": {"pretrained": "x/y"}}
}"#;

#[test]
fn a_group_whose_tasks_are_all_right_and_all_wrong_contradicts_nothing() {
    let Some(sweep) = Sweep::new() else { return };
    fs::write(sweep.path("results_2026-01-01T00-00-00.json"), GROUP).unwrap();
    let taken = import(&sweep, &["results_2026-01-01T00-00-00.json"]);
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken.stderr));
    // Of a plain task it is a contradiction still.
    fs::write(sweep.path("results_2026-01-01T00-00-00.json"), GROUP.replace("\"acc,none\": 1.0", "\"acc,none\": 0.25"))
        .unwrap();
    let refused = import(&sweep, &["results_2026-01-01T00-00-00.json", "--name", "other"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("task `a`: `acc` is 0.25 with a standard error of 0"),
        "{}",
        text(&refused.stderr)
    );
}

/// Output of a release from 0.4.0 to 0.4.2: two documents, of which the second is wrong.
fn old(folder: &Path) {
    let results = r#"{"results": {"facts": {"acc,none": 0.5, "acc_stderr,none": 0.5, "alias": "facts"}},
        "versions": {"facts": 1.0}, "n-shot": {"facts": 0},
        "config": {"model": "hf", "model_args": "pretrained=x/old", "limit": null}}"#;
    let sample = |doc: u8, acc: u8| {
        format!(
            r#"{{"doc_id": {doc}, "doc": {{"q": "{doc}"}}, "target": "x", "arguments": [["p{doc}", "c"]],
            "resps": [[[-1, true]]], "filtered_resps": [[-1, true]], "acc": {acc}.0}}"#
        )
    };
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("results.json"), results).unwrap();
    let samples = format!("[{},{}]", sample(0, 1), sample(1, 0));
    fs::write(folder.join("pretrained__x__old_facts.jsonl"), samples).unwrap();
}

#[test]
fn samples_that_are_named_after_model_and_task_are_those_of_the_task() {
    let Some(sweep) = Sweep::new() else { return };
    let folder = sweep.path("old");
    old(&folder);
    let taken = import(&sweep, &["old"]);
    assert_eq!(
        (taken.status.code(), text(&taken.stderr).contains("note:")),
        (Some(0), false),
        "{}",
        text(&taken.stderr)
    );
    let compared = sweep.run(&["compare", "old", "old"], "ok");
    assert_eq!(compared.status.code(), Some(0), "{}", text(&compared.stderr));

    let samples = folder.join("pretrained__x__old_facts.jsonl");
    fs::copy(&samples, folder.join("pretrained__x__old_sums.jsonl")).unwrap();
    let noted = import(&sweep, &["old", "--name", "second"]);
    assert!(
        text(&noted.stderr).contains("pretrained__x__old_sums.jsonl: of no task of the results beside it"),
        "{}",
        text(&noted.stderr)
    );
    let wrong = fs::read_to_string(&samples).unwrap().replace("\"acc\": 0.0", "\"acc\": 1.0");
    fs::write(&samples, wrong).unwrap();
    let refused = import(&sweep, &["old", "--name", "third"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stdout));
    assert!(text(&refused.stderr).contains("its samples give 1"), "{}", text(&refused.stderr));
}

#[test]
fn what_is_published_of_an_import_names_no_home_folder() {
    let Some(sweep) = Sweep::of(&TINY.replace("\"dummy\"", "\"hf\"")) else { return };
    let home = sweep.path("home");
    old(&home.join("old"));
    let at_home = |args: &[&str]| {
        let mut command = sweep.command(args, "ok");
        let done = command.env("HOME", &home).env("FAKE_LM_EVAL_WRONG", "10").output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{args:?}: {}", text(&done.stderr));
        text(&done.stdout)
    };
    at_home(&["run", "sweep.toml"]);
    at_home(&["import", "sweep.toml", "home/old"]);
    let names_it = |text: &str| text.contains(&*home.to_string_lossy());
    let record = walk(&sweep.results()).into_iter().find(|path| path.ends_with("import.json")).unwrap();
    let recorded = fs::read_to_string(&record).unwrap();
    assert!(recorded.contains("\"~/old/results.json\"") && !names_it(&recorded), "{recorded}");
    // A record of an earlier release.
    fs::write(&record, recorded.replace("~/old", &format!("{}/old", home.display()))).unwrap();
    at_home(&["report", "sweep.toml", "--html", "page.html"]);
    let table = at_home(&["report", "sweep.toml"]);
    assert!(table.contains("old: imported from ~/old/results.json") && !names_it(&table), "{table}");
    let page = fs::read_to_string(sweep.path("page.html")).unwrap();
    assert!(page.contains("imported from ~/old/results.json") && !names_it(&page));
}
