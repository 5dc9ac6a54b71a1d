//! One call of the harness from folders to scores: every outcome by a stand-in, one run of the real one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mergesweep::eval::command::{Call, KnownTasks};
use mergesweep::eval::failure::{Cause, EvalFailure};
use mergesweep::eval::harness::{Evaluated, HarnessEvent, Request, Stage, evaluate};
use mergesweep::eval::results::ResultsError;
use mergesweep::eval::sandbox::Visible;
use mergesweep::eval::task::columns;
use mergesweep::eval::{Settings, preflight};
use mergesweep::process::{Cancel, cancellation};

use crate::support::{fake_settings, plain_python, require_python, settings};

fn run(settings: &Settings, folder: &Path, cancel: &Cancel) -> (Result<Evaluated, EvalFailure>, Vec<HarnessEvent>) {
    let call = Call { tasks: settings.tasks.clone(), runs_code: false };
    let known = KnownTasks::new();
    let mut events = Vec::new();
    let request = Request {
        settings,
        call: &call,
        known: &known,
        model: Path::new("/models/none"),
        attempt: &folder.join("attempt-1"),
        home: &folder.join("home"),
        cache: &folder.join("cache"),
        answers: &folder.join("answers"),
        visible: &Visible::default(),
        n_threads: Some(1),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(evaluate(&request, None, &mut |event| events.push(event), cancel));
    (result, events)
}

fn fail(outcome: &str) -> Option<(Cause, String)> {
    let python = plain_python()?;
    let folder = tempfile::tempdir().unwrap();
    let (result, _) = run(&fake_settings(&python, &["facts", "sums"], outcome), folder.path(), &Cancel::never());
    let failure = result.expect_err(outcome);
    let log = failure.log.clone().unwrap();
    assert!(log.is_file(), "{outcome}: the log is kept");
    assert!(failure.to_string().ends_with(&format!(" (log: `{}`)", log.display())), "{failure}");
    let told = failure.cause.to_string();
    Some((failure.cause, told))
}

#[test]
fn a_good_call_gives_scores_facts_and_events() {
    let Some(python) = plain_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (result, events) = run(&fake_settings(&python, &["facts", "sums"], "ok"), folder.path(), &Cancel::never());
    let evaluated = result.unwrap();
    assert_eq!(evaluated.scores.len(), 4);
    assert_eq!((evaluated.scores[0].value, evaluated.scores[0].stderr), (Some(0.75), Some(0.125)));
    assert_eq!(evaluated.facts.torch_version.as_deref(), Some("2.15.0+cpu"));
    assert_eq!(evaluated.facts.device.as_deref(), Some("cpu"));
    assert_eq!(evaluated.notes, [""; 0]);
    let stage = HarnessEvent::Stage;
    let progress = |n_done| HarnessEvent::Progress {
        stage: Stage::Loglikelihood,
        n_done,
        n_total: 12,
        left: Some(Duration::from_secs(5)),
    };
    let expected = [
        stage(Stage::Starting),
        stage(Stage::LoadingModel),
        stage(Stage::Loglikelihood),
        progress(0),
        progress(6),
        progress(12),
        stage(Stage::Saving),
    ];
    assert_eq!(events, expected);
    // The harness ran in its prepared folder, with nothing allowed that was not asked for.
    let said = fs::read_to_string(folder.path().join("attempt-1/stdout.log")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let home = fs::canonicalize(folder.path().join("home")).unwrap();
    assert_eq!((said["cwd"].as_str(), said["code"].is_null()), (home.to_str(), true));
    assert_eq!(said["argv"][0], "run");
}

#[test]
fn a_gpu_asked_for_and_not_used_is_noted_with_a_number_that_is_none() {
    let Some(python) = plain_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut settings = fake_settings(&python, &["facts"], "nan");
    settings.device = Some("cuda:0".to_owned());
    let (result, _) = run(&settings, folder.path(), &Cancel::never());
    let evaluated = result.unwrap();
    let expected = [
        "task `facts`: `acc` (filter `none`) is not a number",
        "device `cuda:0` was asked for, and the model ran on `cpu`",
    ];
    assert_eq!(evaluated.notes, expected);
    assert_eq!((evaluated.scores[0].value, evaluated.facts.device.as_deref()), (None, Some("cpu")));
}

#[test]
fn a_few_shot_number_that_the_harness_passes_over_is_noted() {
    let Some(python) = plain_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut settings = fake_settings(&python, &["facts"], "zero-shot");
    settings.num_fewshot = Some(5);
    let (result, _) = run(&settings, folder.path(), &Cancel::never());
    assert_eq!(result.unwrap().notes, ["task `facts` ran with 0 few-shot examples: its definition holds against 5"]);
}

#[test]
fn exit_code_0_without_sound_results_is_a_failure() {
    let Some((cause, _)) = fail("no-results") else { return };
    assert!(matches!(cause, Cause::Results(ResultsError::Absent { .. })), "{cause:?}");
    for outcome in ["nonsense", "not-json"] {
        let Some((cause, _)) = fail(outcome) else { return };
        assert!(matches!(cause, Cause::Results(ResultsError::Syntax { .. })), "{outcome}: {cause:?}");
    }
    let Some((cause, _)) = fail("no-table") else { return };
    assert!(matches!(cause, Cause::Results(ResultsError::NoResults { .. })), "{cause:?}");
    let Some((cause, _)) = fail("twice") else { return };
    assert!(matches!(cause, Cause::Results(ResultsError::Several { n_files: 2, .. })), "{cause:?}");
    let Some((_, told)) = fail("missing-task") else { return };
    assert_eq!(told, "the results hold no task `sums`, only `facts`");
    let Some((_, told)) = fail("too-few") else { return };
    assert_eq!(told, "task `facts` answered 11 documents, expected 12");
    let Some((cause, _)) = fail("stream:results-not-written-exit-0:0") else { return };
    assert!(matches!(cause, Cause::NotSaved), "{cause:?}");
}

#[test]
fn a_python_error_is_told_by_its_cause() {
    let Some((_, told)) = fail("stream:vllm-missing:1") else { return };
    assert_eq!(told, "the Python package `vllm` is not installed beside the harness");
}

#[test]
fn a_kill_from_outside_is_told() {
    let Some((cause, told)) = fail("killed") else { return };
    assert_eq!(told, "the harness was killed by SIGKILL (signal 9)");
    assert!(cause.hint().unwrap().contains("memory"));
}

#[test]
fn a_harness_that_hangs_is_stopped_with_its_children() {
    let Some(python) = plain_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut settings = fake_settings(&python, &["facts"], "hang");
    settings.timeout = Some(Duration::from_secs(4));
    let (result, _) = run(&settings, folder.path(), &Cancel::never());
    let failure = result.unwrap_err();
    assert!(matches!(failure.cause, Cause::TimedOut(limit) if limit.as_secs() == 4), "{failure:?}");
    let child = failure.tail.iter().find_map(|line| line.strip_prefix("child ")).expect("the child is told of");
    assert_ended(child);
}

#[test]
fn a_cancelled_call_ends_at_once() {
    let Some(python) = plain_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (canceller, cancel) = cancellation();
    let start = Instant::now();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        canceller.cancel();
    });
    let (result, _) = run(&fake_settings(&python, &["facts"], "hang"), folder.path(), &cancel);
    waker.join().unwrap();
    assert!(matches!(result.unwrap_err().cause, Cause::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_missing_interpreter_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (result, _) = run(&settings(Path::new("/no/such/python"), &["facts"]), folder.path(), &Cancel::never());
    let told = result.unwrap_err().to_string();
    assert!(told.starts_with("cannot start `/no/such/python`: "), "{told}");
}

/// A killed process may wait a moment for its new parent.
pub fn assert_ended(id: &str) {
    let stat = format!("/proc/{id}/stat");
    for _ in 0..200 {
        let running = fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        if !running {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("process {id} still runs");
}

#[test]
fn the_real_harness_runs_own_tasks_with_limits_of_their_own() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tasks = folder.path().join("tasks");
    fs::create_dir(&tasks).unwrap();
    let rows: String =
        (0..6).map(|n| format!("{{\"q\": \"Is {n} even?\", \"c\": [\"yes\", \"no\"], \"l\": {}}}\n", n % 2)).collect();
    fs::write(tasks.join("rows.jsonl"), rows).unwrap();
    for name in ["even_a", "even_b"] {
        let text = format!(
            "task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {}}}}}\ntest_split: test\n\
             output_type: multiple_choice\ndoc_to_text: \"{{{{q}}}}\"\ndoc_to_choice: c\ndoc_to_target: l\n\
             num_fewshot: 0\nmetadata: {{version: 1.0}}\n",
            tasks.join("rows.jsonl").display()
        );
        fs::write(tasks.join(format!("{name}.yaml")), text).unwrap();
    }
    let mut settings = settings(&python, &["even_a", "even_b"]);
    settings.include_path = Some(tasks);
    settings.tasks[0].limit = Some(4);
    settings.tasks[1].limit = Some(100);
    // The dummy model asks the hub for a tokenizer it can do without.
    settings.environment = [
        ("HF_HUB_OFFLINE".to_owned(), "1".to_owned()),
        ("HF_HOME".to_owned(), folder.path().join("hf").to_string_lossy().into_owned()),
    ]
    .into();
    let (home, cache) = (folder.path().join("home"), folder.path().join("cache"));
    let folders = preflight::Folders { home: &home, cache: &cache };
    let found =
        preflight::preflight(&settings, folders, &Cancel::never()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(found.lm_eval_version, preflight::KNOWN_VERSION);
    assert_eq!(found.known["even_b"][0].n_documents, Some(6));

    let call = Call { tasks: settings.tasks.clone(), runs_code: false };
    let request = Request {
        settings: &settings,
        call: &call,
        known: &found.known,
        model: Path::new("/models/none"),
        attempt: &folder.path().join("attempt-1"),
        home: &home,
        cache: &cache,
        answers: &folder.path().join("answers"),
        visible: &Visible::default(),
        n_threads: Some(1),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(evaluate(&request, None, &mut |_| {}, &Cancel::never()));
    let evaluated = result.unwrap_or_else(|failure| panic!("{failure}\n{}", failure.tail.join("\n")));
    let counts: Vec<_> = evaluated.scores.iter().map(|score| (score.task.as_str(), score.n, score.n_total)).collect();
    assert!(
        counts.contains(&("even_a", Some(4), Some(6))) && counts.contains(&("even_b", Some(6), Some(6))),
        "{counts:?}"
    );
    let names: Vec<String> =
        columns(&settings.tasks, &evaluated.scores).into_iter().map(|column| column.name).collect();
    assert_eq!(names, ["even_a_acc", "even_a_acc_norm", "even_b_acc", "even_b_acc_norm"]);
    assert_eq!(evaluated.samples.len(), 2);
}
