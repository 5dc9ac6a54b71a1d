//! Captured results files of the real harness: what is read from each, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use mergesweep::eval::command::{KnownTask, KnownTasks};
use mergesweep::eval::results::{Results, ResultsError, read};
use mergesweep::eval::{ColumnRequest, Score, TaskRequest};

use crate::support::{fixture, task};

fn folder(name: &str) -> PathBuf {
    fixture("lm-eval-output").join(name)
}

fn read_fixture(name: &str, tasks: &[&str], limit: Option<u64>) -> Result<Results, ResultsError> {
    let tasks: Vec<TaskRequest> = tasks.iter().map(|name| task(name)).collect();
    read(&folder(name), &tasks, &|_| limit, &KnownTasks::new())
}

fn find<'a>(results: &'a Results, task: &str, metric: &str, filter: &str) -> &'a Score {
    let found = results
        .scores
        .iter()
        .find(|score| (score.task.as_str(), score.metric.as_str(), score.filter.as_str()) == (task, metric, filter));
    found.unwrap_or_else(|| panic!("no {task} {metric} {filter}"))
}

#[test]
fn the_normal_case_gives_values_errors_counts_and_versions() {
    let results = read_fixture("hf-bf16-two-tasks", &["facts_mini", "sums_mini"], None).unwrap();
    assert_eq!(results.scores.len(), 4);
    let expected = Score {
        task: "sums_mini".to_owned(),
        metric: "exact_match".to_owned(),
        filter: "flexible-extract".to_owned(),
        n: Some(12),
        n_total: Some(12),
        value: Some(0.25),
        stderr: Some(0.130_558_241_966_773_4),
        higher_is_better: Some(true),
        task_version: Some("1.0".to_owned()),
        num_fewshot: Some(2),
        task_hash: Some("ec9e18847fcbd1ea19d58e45a647de99944e50c8251976b0d309a7c2498cf55c".to_owned()),
    };
    assert_eq!(find(&results, "sums_mini", "exact_match", "flexible-extract"), &expected);
    let facts = &results.facts;
    assert_eq!(facts.lm_eval_version.as_deref(), Some("0.4.13"));
    assert_eq!(facts.transformers_version.as_deref(), Some("5.23.0"));
    assert_eq!((facts.model_dtype.as_deref(), facts.device.as_deref()), (Some("bfloat16"), Some("cpu")));
    assert_eq!(facts.batch_size.as_deref(), Some("4"));
    assert_eq!(results.samples.len(), 2);
}

/// A folder, its tasks and limit; then one of its numbers: task, metric and filter.
type Row = (&'static str, &'static [&'static str], Option<u64>, (&'static str, &'static str, &'static str), f64);

#[test]
fn every_captured_folder_is_read() {
    let facts: &'static [&str] = &["facts_mini"];
    let tiny: &'static [&str] = &[
        "tinyArc_local",
        "tinyGSM8k_local",
        "tinyMMLU_local",
        "tinyHellaswag_local",
        "tinyTruthfulQA_local",
        "tinyWinogrande_local",
    ];
    let expected: &[Row] = &[
        ("hf-fp32-choice", facts, None, ("facts_mini", "acc_norm", "none"), 0.916_666_666_666_666_6),
        ("http-remote-tokenizer-choice", facts, None, ("facts_mini", "acc", "none"), 0.833_333_333_333_333_4),
        (
            "hf-fp32-humaneval-local-limit3",
            &["humaneval_local"],
            Some(3),
            ("humaneval_local", "pass@1", "create_test"),
            0.0,
        ),
        ("hf-fp32-chat-template-limit2", &["facts_mini", "sums_mini"], Some(2), ("facts_mini", "acc", "none"), 0.5),
        ("hf-fp32-batch-auto-limit2", facts, Some(2), ("facts_mini", "acc", "none"), 0.5),
        ("hf-cuda-asked-no-gpu-limit1", facts, Some(1), ("facts_mini", "acc", "none"), 1.0),
        ("hf-answered-from-another-models-cache", facts, None, ("facts_mini", "acc", "none"), 0.166_666_666_666_666_66),
        ("dummy-tiny-six-tasks", tiny, None, ("tinyWinogrande_local", "acc_norm", "none"), 0.532_077_802_704_549_9),
        (
            "dummy-humaneval-stock-limit3",
            &["humaneval_stock_local"],
            Some(3),
            ("humaneval_stock_local", "pass@1", "create_test"),
            0.0,
        ),
        ("dummy-output-path-json", facts, None, ("facts_mini", "acc_norm", "none"), 0.333_333_333_333_333_3),
        (
            "dummy-config-file-limit3",
            &["facts_mini", "sums_mini"],
            Some(3),
            ("sums_mini", "exact_match", "strict-match"),
            0.0,
        ),
    ];
    for (folder, tasks, limit, (task, metric, filter), value) in expected {
        let results = read_fixture(folder, tasks, *limit).unwrap_or_else(|error| panic!("{folder}: {error}"));
        assert_eq!(find(&results, task, metric, filter).value, Some(*value), "{folder}");
        assert!(results.scores.iter().all(|score| !score.metric.contains("stderr")), "{folder}");
    }
}

#[test]
fn a_group_has_its_own_score_and_those_of_its_tasks() {
    let results = read_fixture("hf-fp32-group-limit4", &["mini_group"], Some(4)).unwrap();
    let group = find(&results, "mini_group", "acc", "none");
    assert_eq!((group.value, group.n, group.n_total), (Some(0.75), Some(4), None));
    assert_eq!(group.task_version.as_deref(), Some("2.0"));
    assert_eq!(find(&results, "sums_mini", "exact_match", "strict-match").n_total, Some(12));
}

#[test]
fn a_tag_stands_for_the_tasks_that_preflight_found() {
    let member = |name: &str| KnownTask { name: name.to_owned(), n_documents: Some(12), runs_code: false };
    let known = |names: &[&str]| -> KnownTasks {
        [("mini_tag".to_owned(), names.iter().map(|name| member(name)).collect())].into()
    };
    let read = |known: &KnownTasks| read(&folder("hf-bf16-two-tasks"), &[task("mini_tag")], &|_| None, known);
    assert!(read(&known(&["facts_mini", "sums_mini"])).is_ok());
    assert!(
        matches!(read(&known(&["facts_mini", "other"])), Err(ResultsError::MissingTask { task, .. }) if task == "other")
    );
}

#[test]
fn a_number_that_is_none_is_no_parse_error() {
    let results = read_fixture("dummy-nan-metric", &["nan_task"], Some(3)).unwrap();
    assert_eq!(find(&results, "nan_task", "weird", "none").value, None);
    assert_eq!(results.scores.len(), 1);
}

#[test]
fn the_errors_of_irt_estimates_are_none() {
    let results = read_fixture("dummy-tiny-six-tasks", &["tinyArc_local"], None).unwrap();
    let score = find(&results, "tinyArc_local", "acc_norm", "none");
    assert_eq!((score.stderr, score.n, score.num_fewshot), (None, Some(100), Some(25)));
}

#[test]
fn a_chat_template_leaves_its_digest() {
    let facts = read_fixture("hf-fp32-chat-template-limit2", &["facts_mini"], Some(2)).unwrap().facts;
    assert!(facts.chat_template_sha.unwrap().starts_with("872be49dbb638044"));
    let facts = read_fixture("hf-fp32-batch-auto-limit2", &["facts_mini"], Some(2)).unwrap().facts;
    assert_eq!((facts.batch_size.as_deref(), facts.batch_sizes), (Some("auto"), vec![4]));
}

fn refused(name: &str, tasks: &[&str], limit: Option<u64>) -> String {
    let error = read_fixture(name, tasks, limit).map(|results| results.scores).unwrap_err().to_string();
    error.replace(&folder(name).to_string_lossy().into_owned(), "FOLDER")
}

#[test]
fn results_that_do_not_hold_what_was_asked_are_refused() {
    assert_eq!(
        refused("hf-fp32-choice", &["facts_mini", "sums_mini"], None),
        "the results hold no task `sums_mini`, only `facts_mini`"
    );
    assert_eq!(
        refused("hf-fp32-choice", &["facts_mini"], Some(4)),
        "task `facts_mini` answered 12 documents, expected 4"
    );
    assert_eq!(
        refused("dummy-config-file-limit3", &["facts_mini"], None),
        "task `facts_mini` answered 3 documents, expected 12"
    );
    assert_eq!(refused("dummy-predict-only", &["facts_mini"], None), "task `facts_mini` reports no number");
    let column = ColumnRequest { name: "x".to_owned(), metric: "f1".to_owned(), filter: "none".to_owned() };
    let request = TaskRequest { columns: vec![column], ..task("facts_mini") };
    let error = read(&folder("hf-fp32-choice"), &[request], &|_| None, &KnownTasks::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task `facts_mini` reports no `f1` with filter `none`, only `acc,none`, `acc_norm,none`"
    );
}

#[test]
fn a_folder_without_exactly_one_sound_results_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &Path| read(path, &[], &|_| None, &KnownTasks::new()).map(|_| ());
    assert!(matches!(read(&folder.path().join("absent")), Err(ResultsError::Absent { .. })));
    assert!(matches!(read(folder.path()), Err(ResultsError::Absent { .. })));
    fs::write(folder.path().join("a.json"), "{\"results\": {").unwrap();
    assert!(matches!(read(folder.path()), Err(ResultsError::Syntax { .. })));
    fs::write(folder.path().join("a.json"), "{\"results\": 3}").unwrap();
    assert!(matches!(read(folder.path()), Err(ResultsError::NoResults { .. })));
    fs::write(folder.path().join("b.json"), "{}").unwrap();
    assert!(matches!(read(folder.path()), Err(ResultsError::Several { n_files: 2, .. })));
}

/// A copy of a captured folder, to be spoiled.
fn spoiled(name: &str, spoil: impl Fn(&std::path::Path, String) -> String) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("lm-eval-output").join(name);
    for model in std::fs::read_dir(from).unwrap() {
        for file in std::fs::read_dir(model.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let text = spoil(&path, std::fs::read_to_string(&path).unwrap());
            std::fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    let none = mergesweep::eval::command::KnownTasks::new();
    mergesweep::eval::results::read(folder.path(), &[], &|_| None, &none).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn results_that_contradict_their_own_samples_are_refused() {
    let is_samples = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "jsonl");
    let choice = "hf-fp32-choice";
    assert_eq!(spoiled(choice, |_, text| text), Ok(()));
    let refused = |spoil: &dyn Fn(&str, bool) -> String, expected: &str| {
        let error = spoiled(choice, |path, text| spoil(&text, is_samples(path))).unwrap_err();
        assert!(error.contains("contradicts itself") && error.contains(expected), "{error}");
    };
    let first = |text: &str, n: usize| text.lines().take(n).collect::<Vec<_>>().join("\n");
    refused(
        &|text, samples| if samples { first(text, 5) } else { text.to_owned() },
        "12 documents, the samples file holds 5",
    );
    // One right answer turned wrong.
    refused(
        &|text, samples| if samples { text.replacen("\"acc\": 1.0", "\"acc\": 0.0", 1) } else { text.to_owned() },
        "`acc` (filter `none`) has a score of",
    );
    refused(&|text, _| text.replace("\"acc_stderr,none\": 0.", "\"acc_stderr,none\": 0.0"), "a standard error of");
    let error = spoiled(choice, |path, text| {
        let twice = text.lines().next().unwrap_or_default().to_owned();
        if is_samples(path) { format!("{twice}\n{text}") } else { text }
    });
    assert!(error.unwrap_err().contains("document 0 comes twice with filter `none`"));
}

#[test]
fn a_standard_error_of_nothing_is_refused_without_samples_too() {
    let spoil = |path: &std::path::Path, text: String| {
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            return "[]".to_owned();
        }
        let place = text.find("\"acc_stderr,none\": ").unwrap() + 19;
        let end = place + text[place..].find([',', '\n', '}']).unwrap();
        format!("{}0.0{}", &text[..place], &text[end..])
    };
    let error = spoiled("hf-fp32-choice", spoil).unwrap_err();
    assert!(error.contains("a standard error of 0, which only 0 or 1 can have"), "{error}");
}
