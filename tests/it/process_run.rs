//! Programs started, followed and stopped.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mergesweep::process::{Cancel, Exit, Finished, GRACE, Invocation, Logs, ProcessError, cancellation, capture, run};

use crate::eval_harness::assert_ended;

fn shell(script: &str) -> Invocation {
    Invocation::new("sh", ["-c", script])
}

fn logs(folder: &Path) -> Logs {
    Logs::of(folder)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn run_to_end(script: &str, timeout: Option<Duration>, grace: Duration) -> (Finished, Vec<String>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let logs = logs(folder.path());
    let mut lines = Vec::new();
    let mut on_line = |line: &str| lines.push(line.to_owned());
    let finished = block_on(run(&shell(script), &logs, timeout, grace, &Cancel::never(), &mut on_line)).unwrap();
    (finished, lines, fs::read_to_string(&logs.stdout).unwrap(), fs::read_to_string(&logs.stderr).unwrap())
}

#[test]
fn output_goes_to_logs_and_lines_to_the_callback() {
    let (finished, lines, out, err) = run_to_end("printf 'a\\rb\\nlast' >&2; echo out; exit 3", None, GRACE);
    assert_eq!((finished.exit, lines), (Exit::Code(3), vec!["a".to_owned(), "b".to_owned(), "last".to_owned()]));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "a\rb\nlast"));
    assert_eq!(finished.tail, ["b", "last"]);
}

#[test]
fn a_signal_is_told_apart_from_a_code() {
    assert_eq!(run_to_end("kill -SEGV $$", None, GRACE).0.exit, Exit::Signal(11));
}

#[test]
fn a_deaf_program_is_killed_after_the_grace_time() {
    let script = "trap '' TERM; echo up >&2; while :; do sleep 0.1; done";
    let (limit, grace) = (Duration::from_millis(600), Duration::from_millis(400));
    let start = Instant::now();
    let (finished, ..) = run_to_end(script, Some(limit), grace);
    assert_eq!(finished.exit, Exit::TimedOut(limit));
    assert!(start.elapsed() >= limit + grace);
}

#[test]
fn a_program_may_tidy_up_when_it_is_stopped() {
    let script = "trap 'echo tidied >&2; exit 0' TERM; while :; do sleep 0.05; done";
    let (finished, lines, ..) = run_to_end(script, Some(Duration::from_millis(500)), GRACE);
    // Some shells also say that the `sleep` was terminated.
    assert_eq!(finished.exit, Exit::TimedOut(Duration::from_millis(500)));
    assert_eq!(lines.last().map(String::as_str), Some("tidied"));
}

#[test]
fn children_left_behind_are_killed_and_do_not_hold_up_the_end() {
    let start = Instant::now();
    let (finished, lines, ..) = run_to_end("sleep 600 & echo $! >&2", None, GRACE);
    assert_eq!(finished.exit, Exit::Code(0));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_ended(&lines[0]);
}

#[test]
fn a_future_that_is_dropped_leaves_no_orphan() {
    let folder = tempfile::tempdir().unwrap();
    let logs = logs(folder.path());
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut on_line = |line: &str| sender.send(line.to_owned()).unwrap();
    let child = block_on(async {
        let invocation = shell("sleep 600 & echo $! >&2; wait");
        let cancel = Cancel::never();
        tokio::select! {
            _ = run(&invocation, &logs, None, GRACE, &cancel, &mut on_line) => panic!("it ended"),
            child = receiver.recv() => child.unwrap(),
        }
    });
    assert_ended(&child);
}

#[test]
fn cancellation_is_heard_before_and_during() {
    let folder = tempfile::tempdir().unwrap();
    let (canceller, cancel) = cancellation();
    canceller.cancel();
    let finished = block_on(run(&shell("sleep 600"), &logs(folder.path()), None, GRACE, &cancel, &mut |_| {})).unwrap();
    assert_eq!(finished.exit, Exit::Cancelled);
    assert_eq!(capture(&shell("sleep 600"), None, &cancel, &mut |_| {}).unwrap().exit, Exit::Cancelled);
}

#[test]
fn a_question_gets_its_answer() {
    let mut invocation =
        shell("echo \"$A-$B-$HOME\"; pwd; printf 'x\\ny' >&2; head -c 200000 /dev/zero | tr '\\0' z >&2");
    let folder = tempfile::tempdir().unwrap();
    invocation.folder = Some(folder.path().to_owned());
    invocation.environment = vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
    invocation.without = vec!["HOME".to_owned()];
    let mut lines = Vec::new();
    let captured = capture(&invocation, None, &Cancel::never(), &mut |line| lines.push(line.to_owned())).unwrap();
    let expected = format!("2--\n{}\n", fs::canonicalize(folder.path()).unwrap().display());
    assert_eq!((captured.exit, captured.stdout), (Exit::Code(0), expected));
    assert_eq!((captured.stderr.len(), lines[0].as_str()), (200_003, "x"));
}

#[test]
fn a_question_that_takes_too_long_is_stopped() {
    let limit = Duration::from_millis(200);
    let captured = capture(&shell("echo early; sleep 600"), Some(limit), &Cancel::never(), &mut |_| {}).unwrap();
    assert_eq!((captured.exit, captured.stdout.as_str()), (Exit::TimedOut(limit), "early\n"));
}

#[test]
fn a_program_that_does_not_exist_is_told() {
    let error = capture(&Invocation::new("/no/such", [""; 0]), None, &Cancel::never(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, ProcessError::Start { .. }) && error.to_string().starts_with("cannot start `/no/such`: "));
}
