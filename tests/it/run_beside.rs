//! Two sweeps at once with their results in one place: what both need is evaluated by one of them, and what that one does not
//! bring to an end by the other.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::fixture;
use crate::sweep_support::{Sweep, TINY, count, text, wait_for, walk};

/// Two sweeps of a baseline that both have, and of merges that the other has not.
fn both() -> Option<Sweep> {
    let spec = TINY.replace("\"dummy\"", "\"hf\"\nharness.mode = \"command\"");
    let sweep = Sweep::of(&spec)?;
    let inputs = fixture("mergekit-parity/inputs");
    let other = spec.replace("\"tiny\"", "\"other\"").replace("[0.25, 0.5]", "[0.6, 0.75]");
    fs::write(sweep.path("other.toml"), other.replace("INPUTS", &inputs.to_string_lossy())).unwrap();
    Some(sweep)
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn done(run: Child) -> Output {
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    output
}

fn journal_of(sweep: &Sweep, name: &str) -> String {
    fs::read_to_string(sweep.path("results").join(name).join("journal.jsonl")).unwrap_or_default()
}

/// What is left of evaluations that somebody was at.
fn n_claims(sweep: &Sweep) -> usize {
    walk(&sweep.path("results/.evaluating")).len()
}

#[test]
fn a_baseline_that_two_sweeps_share_is_evaluated_by_one_of_them() {
    let Some(sweep) = both() else { return };
    let runs = ["sweep.toml", "other.toml"].map(|spec| {
        let mut command = sweep.command(&["run", spec], "ok");
        command.env("FAKE_LM_EVAL_SECONDS", "2").env("FAKE_LM_EVAL_LOG", sweep.path("evaluated.log"));
        start(command)
    });
    let told: String = runs.into_iter().map(|run| text(&done(run).stderr)).collect();
    let log = fs::read_to_string(sweep.path("evaluated.log")).unwrap();
    let mut evaluated: Vec<&str> = log.lines().collect();
    evaluated.sort_unstable();
    evaluated.dedup();
    assert_eq!((evaluated.len(), log.lines().count()), (5, 5), "the baseline, and two merges each: {log}");
    let journals = ["tiny", "other"].map(|name| journal_of(&sweep, name)).concat();
    assert_eq!(count(&journals, r#""event":"evaluation-started""#), 5);
    assert_eq!(count(&journals, r#""event":"shared""#), 2, "one for each task");
    assert_eq!(count(&told, "Base: another sweep is evaluating these weights"), 1, "{told}");
    assert_eq!(n_claims(&sweep), 0);
}

#[test]
fn what_a_killed_sweep_was_at_is_evaluated_by_the_other_once_nothing_else_is_left() {
    let Some(sweep) = both() else { return };
    let once = sweep.path("hangs");
    let mut command = sweep.command(&["run", "sweep.toml"], "hang-once");
    command.env("FAKE_LM_EVAL_ONCE", &once);
    let mut killed = start(command);
    wait_for(|| once.exists());
    let mut other = start(sweep.command(&["run", "other.toml"], "ok"));
    wait_for(|| count(&journal_of(&sweep, "other"), r#""event":"evaluated""#) == 2);
    // It has looked again meanwhile.
    std::thread::sleep(Duration::from_secs(3));
    assert!(other.try_wait().unwrap().is_none());
    assert_eq!(count(&journal_of(&sweep, "other"), r#""event":"evaluation-started""#), 2, "the merges come first");

    killed.kill().unwrap();
    killed.wait().unwrap();
    done(other);
    assert_eq!(count(&journal_of(&sweep, "other"), r#""event":"evaluated""#), 3);
    // What was killed goes on with it.
    let again = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"shared""#), 2, "{}", sweep.journal());
    assert_eq!(n_claims(&sweep), 0);
}

#[test]
fn what_fails_in_one_sweep_is_evaluated_by_the_other() {
    let Some(sweep) = both() else { return };
    let mut command = sweep.command(&["run", "sweep.toml", "--only", "Base"], "missing-task");
    command.env("FAKE_LM_EVAL_SECONDS", "3");
    let failing = start(command);
    wait_for(|| journal_of(&sweep, "tiny").contains("evaluation-started"));
    let run = sweep.run(&["run", "other.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("Base: another sweep is evaluating these weights"), "{}", text(&run.stderr));
    assert_eq!(failing.wait_with_output().unwrap().status.code(), Some(3));
    assert_eq!(count(&journal_of(&sweep, "other"), r#""event":"evaluated""#), 3);
}

#[test]
fn what_is_to_be_done_again_waits_for_nobody() {
    let Some(sweep) = both() else { return };
    let once = sweep.path("hangs");
    let mut command = sweep.command(&["run", "sweep.toml"], "hang-once");
    command.env("FAKE_LM_EVAL_ONCE", &once);
    let mut hanging = start(command);
    wait_for(|| once.exists());
    let run = sweep.run(&["run", "other.toml", "--only", "Base", "--redo", "Base"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    // Its harness is still there.
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
}
