//! `freeze` and `check` by the program itself: what passes, what fails, what cannot be told, and with which exit code.
//!
//! The stand-in harness answers 100 documents by the model's weights: a model of zeroes gets half of them wrong.

use std::fs;
use std::process::Output;

use crate::sweep_support::{Sweep, TINY, text};

const GATE: &str = "\n[report]\nreference = \"Base\"\n\n[gate]\nmargin = 0.08\nadvisory = [\"sums\"]\n";

/// The tiny sweep with a back end that is handed the model.
fn tiny_without_gate() -> String {
    TINY.replace("\"dummy\"", "\"hf\"")
}

fn tiny() -> String {
    format!("{}{GATE}", tiny_without_gate())
}

/// A sweep that has run and is frozen.
fn frozen(spec: &str) -> Option<Sweep> {
    let sweep = Sweep::of(spec)?;
    let run = with(&sweep, &["run", "sweep.toml"], "10", "0");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let freeze = with(&sweep, &["freeze", "sweep.toml", "-o", "base"], "10", "0");
    assert_eq!(freeze.status.code(), Some(0), "{}", text(&freeze.stderr));
    Some(sweep)
}

/// The program with a harness that gets so many documents wrong, and so many more at the end.
fn with(sweep: &Sweep, args: &[&str], wrong: &str, noise: &str) -> Output {
    let mut command = sweep.command(args, "ok");
    command.env("FAKE_LM_EVAL_WRONG", wrong).env("FAKE_LM_EVAL_NOISE", noise).env_remove("GITHUB_ACTIONS");
    command.output().unwrap()
}

const CHECK: [&str; 4] = ["check", "sweep.toml", "--against", "base"];

#[test]
fn an_untouched_rerun_passes_and_is_told_to_be_identical() {
    let Some(sweep) = frozen(&tiny()) else { return };
    let merges = || sweep.journal().matches(r#""event":"merged""#).count();
    assert_eq!(merges(), 2);
    let check = with(&sweep, &[&CHECK[..], &["--junit", "junit.xml", "--github"]].concat(), "10", "0");
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let told = text(&check.stdout);
    assert!(told.starts_with("**PASS** against `base`: 3 passed, 0 failed, 0 inconclusive\n"), "{told}");
    assert!(told.contains("identical: 0.9000 on 100 documents, equal weights"), "{told}");
    assert!(told.contains("::notice title=mergesweep check::PASS against base"), "{told}");
    assert_eq!(merges(), 4, "merged afresh");
    assert!(fs::read_to_string(sweep.path("junit.xml")).unwrap().contains("tests=\"6\" failures=\"0\" errors=\"0\""));

    let reused = with(&sweep, &[&CHECK[..], &["--reuse"]].concat(), "10", "0");
    assert_eq!(reused.status.code(), Some(0));
    assert!(text(&reused.stdout).contains("REUSED, nothing was evaluated afresh"));
    assert_eq!(merges(), 4, "nothing was made");
}

#[test]
fn a_spoiled_merge_fails_and_a_missing_trial_fails() {
    let Some(sweep) = frozen(&tiny()) else { return };
    // The base model in the place of the merge, scaled to nothing.
    let spoiled = tiny_without_gate().replace("grid.t = [0.25, 0.5]", "grid.t = [0.25]")
        + r#"
[[merge]]
name = "SLERP (t=0.5)"
method = "linear"
models = { math = { weight = 0.0 }, code = { weight = 0.0 } }
parameters = { normalize = false }
"#;
    sweep.write(&format!("{spoiled}{GATE}"));
    let check = with(&sweep, &[&CHECK[..], &["--junit", "junit.xml", "--github"]].concat(), "10", "0");
    let told = text(&check.stdout);
    assert_eq!(check.status.code(), Some(5), "{told}{}", text(&check.stderr));
    assert!(told.starts_with("**FAIL** against `base`: 2 passed, 1 failed, 0 inconclusive\n"), "{told}");
    assert!(told.contains("| FAIL | SLERP (t=0.5) | facts | 0.4000 was 0.9000, 50 of 100 documents changed"), "{told}");
    assert!(told.contains("| fail (advisory) | SLERP (t=0.5) | sums |"), "{told}");
    assert!(told.contains("::error title=SLERP (t=0.5)%3A facts::0.4000 was 0.9000"), "{told}");
    let junit = fs::read_to_string(sweep.path("junit.xml")).unwrap();
    assert!(junit.contains("<failure message=\"0.4000 was 0.9000"), "{junit}");

    sweep.write(&format!("{}{GATE}", tiny_without_gate().replace("[0.25, 0.5]", "[0.25]")));
    let missing = with(&sweep, &[&CHECK[..], &["--reuse"]].concat(), "10", "0");
    assert_eq!(missing.status.code(), Some(5));
    assert!(text(&missing.stdout).contains("nothing to compare: the run has no such trial"));
    sweep.write(&format!("{}{GATE}", tiny_without_gate().replace("\"facts\", ", "")));
    let missing = with(&sweep, &[&CHECK[..], &["--reuse"]].concat(), "10", "0");
    assert_eq!(missing.status.code(), Some(5));
    assert!(text(&missing.stdout).contains("nothing to compare: the run has no such number"));
}

#[test]
fn a_small_change_is_inconclusive_and_says_how_many_documents_would_decide() {
    let Some(sweep) = frozen(&tiny()) else { return };
    // Equal weights, six answers changed: noise of the evaluation, which 100 documents cannot tell from a loss.
    let check = with(&sweep, &CHECK, "10", "6");
    let told = text(&check.stdout);
    assert_eq!(check.status.code(), Some(6), "{told}{}", text(&check.stderr));
    assert!(told.starts_with("**INCONCLUSIVE** against `base`: 0 passed, 0 failed, 3 inconclusive\n"), "{told}");
    assert!(told.contains("6 of 100 documents changed"), "{told}");
    assert!(told.contains("this is the noise of the evaluation; about"), "{told}");
    assert!(told.contains("documents would decide"), "{told}");
}

#[test]
fn margins_that_nothing_could_pass_are_refused_with_the_number_of_documents() {
    let spec = tiny().replace("margin = 0.08", "margin = 0.02");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let run = with(&sweep, &["run", "sweep.toml"], "10", "0");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let freeze = with(&sweep, &["freeze", "sweep.toml", "-o", "base"], "10", "0");
    assert_eq!(freeze.status.code(), Some(2));
    let told = text(&freeze.stderr);
    assert!(
        told.contains("the margin 0.02 of `facts` is smaller than what identical answers can show: 100 documents"),
        "{told}"
    );
    assert!(told.contains("use at least 115 documents"), "{told}");
    assert!(!sweep.path("base").exists());

    // What earlier results tell of the documents is known to a plan.
    let plan = with(&sweep, &["plan", "sweep.toml", "--json"], "10", "0");
    assert_eq!(plan.status.code(), Some(2), "{}", text(&plan.stderr));
    let json: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(
        (&json["diagnostics"][0]["code"], &json["diagnostics"][0]["key"]),
        (&"E0511".into(), &"gate.margin".into())
    );
    assert!(text(&plan.stderr).contains("the margin 0.02 of `facts` is smaller"), "{}", text(&plan.stderr));

    // A task of the mapping table is known before anything has run.
    sweep.write(
        &spec.replace("\"facts\", \"sums\"", "{ task = \"arc100_acc\", limit = 40 }").replace("[\"sums\"]", "[]"),
    );
    let plan = with(&sweep, &["plan", "sweep.toml"], "10", "0");
    assert_eq!(plan.status.code(), Some(2), "{}", text(&plan.stdout));
    assert!(text(&plan.stderr).contains("40 documents bound the difference to ±0.0554"), "{}", text(&plan.stderr));

    sweep.write(&spec.replace("margin = 0.02", ""));
    let freeze = with(&sweep, &["freeze", "sweep.toml", "-o", "base"], "10", "0");
    assert_eq!(freeze.status.code(), Some(2));
    assert!(text(&freeze.stderr).contains("no margin decides"), "{}", text(&freeze.stderr));
}

#[test]
fn freezing_evaluates_twice_where_asked_and_stores_the_noise() {
    let Some(sweep) = Sweep::of(&tiny()) else { return };
    assert_eq!(with(&sweep, &["run", "sweep.toml"], "10", "1").status.code(), Some(0));
    let freeze = with(&sweep, &["freeze", "sweep.toml", "-o", "base", "--null"], "10", "0");
    assert_eq!(freeze.status.code(), Some(0), "{}", text(&freeze.stderr));
    assert!(text(&freeze.stderr).contains("answers changed in 6 numbers; stored as the noise floor"));
    let check = with(&sweep, &[&CHECK[..], &["--reuse"]].concat(), "10", "0");
    assert!(text(&check.stdout).contains("the baseline evaluated twice changed 1 of 100 documents"));
    let again = with(&sweep, &["freeze", "sweep.toml", "-o", "base"], "10", "0");
    assert_eq!(again.status.code(), Some(2), "a baseline is not replaced by accident");
    let record = fs::read_to_string(sweep.path("base/baseline.json")).unwrap();
    let items = fs::read(sweep.path("base/items.parquet")).unwrap();
    let holds = |text: &str| String::from_utf8_lossy(&items).contains(text) || record.contains(text);
    assert!(!holds("facts 1?") && !holds("Answer:"), "no texts");
}

#[test]
fn scores_of_an_earlier_run_do_not_pass_for_trials_that_fail_now() {
    let Some(sweep) = frozen(&tiny()) else { return };
    let mut command = sweep.command(&CHECK, "killed");
    let check = command.env("FAKE_LM_EVAL_WRONG", "10").env("FAKE_LM_EVAL_NOISE", "0").output().unwrap();
    let told = text(&check.stdout);
    assert_eq!(check.status.code(), Some(5), "{told}{}", text(&check.stderr));
    assert!(told.starts_with("**FAIL** against `base`: 0 passed, 3 failed"), "{told}");
    assert!(text(&check.stderr).contains("failed: Base: evaluate"), "{}", text(&check.stderr));
}

#[test]
fn a_misspelt_column_of_the_gate_is_refused_by_check_too() {
    let Some(sweep) = frozen(&tiny()) else { return };
    sweep.write(&tiny().replace("advisory = [\"sums\"]", "advisory = [\"sum\"]"));
    let check = with(&sweep, &CHECK, "10", "0");
    assert_eq!(check.status.code(), Some(2), "{}", text(&check.stdout));
    assert!(text(&check.stderr).contains("`gate` names `sum`, which is no column or task"), "{}", text(&check.stderr));
}
