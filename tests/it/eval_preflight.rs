//! Preflight against a stand-in of the harness: every problem in one pass.

use std::path::Path;

use mergesweep::eval::preflight::{Folders, Preflight, Problem, Problems, harness_version, preflight};
use mergesweep::eval::{CodeEval, Settings};
use mergesweep::process::Cancel;

use crate::support::{fake_settings, plain_python, settings};

fn look(settings: &Settings) -> Result<Preflight, Problems> {
    let folder = tempfile::tempdir().unwrap();
    let (home, cache) = (folder.path().join("home"), folder.path().join("cache"));
    preflight(settings, Folders { home: &home, cache: &cache }, &Cancel::never())
}

fn told(settings: &Settings) -> Vec<String> {
    look(settings).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_there_is_learned() {
    let Some(python) = plain_python() else { return };
    let found = look(&fake_settings(&python, &["facts", "both"], "ok")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(found.lm_eval_version, "0.4.13");
    assert!(found.python_version.starts_with("3."));
    let both: Vec<_> = found.known["both"].iter().map(|task| (task.name.as_str(), task.n_documents)).collect();
    assert_eq!(both, [("facts", Some(12)), ("sums", Some(20))]);
    assert_eq!(found.notes, [""; 0]);
}

#[test]
fn all_problems_are_told_in_one_pass() {
    let Some(python) = plain_python() else { return };
    let mut settings =
        fake_settings(&python, &["factz", "unreachable", "coded", "humaneval", "tinyArc", "mmlu_*", "facts"], "ok");
    settings.environment.insert("HF_HUB_OFFLINE".to_owned(), "1".to_owned());
    settings.model = "hff".to_owned();
    settings.limit = Some(10);
    settings.include_path = Some("/no/such/folder".into());
    let problems = look(&settings).unwrap_err();
    let told: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
    let expected = [
        "`include_path` is no folder: `/no/such/folder`",
        "`mmlu_*` is no task name: patterns and files are not taken, since rows must agree on their columns",
        "task `humaneval` runs programs that the model wrote, and `allow_code_eval` is not set",
        "task `tinyArc` has a limit of 10 documents, and its estimate needs all 100",
        "the harness knows no back end `hff`",
        "the harness knows no task `factz`",
        "task `unreachable` cannot be loaded: data set `owner/data` is neither in the cache nor reachable",
        "task `coded` runs programs that the model wrote, and `allow_code_eval` is not set",
    ];
    assert_eq!(told[..expected.len()], expected);
    assert!(told[8].contains("`tinyBenchmarks.pkl` is not in") && told[8].ends_with("downloads are off"), "{told:?}");
    assert_eq!(told.len(), 9);
    let hint =
        |part: &str| problems.0.iter().find(|problem| problem.to_string().contains(part)).and_then(Problem::hint);
    assert_eq!(hint("factz").as_deref(), Some("did you mean `facts`? Tasks of one's own need `include_path`"));
    assert!(hint("`coded`").unwrap().contains("bubblewrap"));
    assert!(problems.to_string().starts_with("error: `include_path` is no folder"));
}

#[test]
fn a_back_end_that_asks_a_server_is_refused() {
    let Some(python) = plain_python() else { return };
    let mut settings = fake_settings(&python, &["facts"], "ok");
    settings.model = "local-completions".to_owned();
    assert_eq!(
        told(&settings),
        ["back end `local-completions` asks a running server, which cannot be handed the model of a trial"]
    );
}

#[test]
fn an_interpreter_without_the_harness_or_a_package_is_told() {
    let Some(python) = plain_python() else { return };
    let mut settings = fake_settings(&python, &["facts"], "ok");
    settings.model = "sglang".to_owned();
    let told = told(&settings);
    assert!(told[0].contains("has no package `sglang`, which back end `sglang` needs"), "{told:?}");
    // An empty folder in place of the interpreter's packages: -S would be needed to hide an installed harness.
    let mut settings = fake_settings(&python, &["facts"], "ok");
    settings.environment.remove("PYTHONPATH");
    if harness_version(&python, &Cancel::never()).unwrap().is_none() {
        let told = self::told(&settings);
        assert_eq!(told, ["`python3` has no package `lm_eval`"]);
    }
}

#[test]
fn a_missing_interpreter_is_told() {
    let python = Path::new("/no/such/python");
    assert!(told(&settings(python, &["facts"]))[0].starts_with("cannot start `/no/such/python`: "));
    assert!(harness_version(python, &Cancel::never()).is_err());
}

#[test]
fn an_opt_in_without_a_code_task_is_noted_and_with_one_is_enough() {
    let Some(python) = plain_python() else { return };
    let mut settings = fake_settings(&python, &["facts"], "ok");
    settings.allow_code_eval = CodeEval::Bare;
    assert_eq!(look(&settings).unwrap().notes, ["`allow_code_eval` has no effect: no task runs code"]);
    let mut settings = fake_settings(&python, &["coded"], "ok");
    settings.allow_code_eval = CodeEval::Bare;
    let found = look(&settings).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(found.known["coded"][0].runs_code && found.notes.is_empty());
}
