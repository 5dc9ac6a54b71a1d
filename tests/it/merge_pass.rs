//! A pass of merges in a process of its own: what becomes of it when that process does not live to answer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mergesweep::process::Cancel;
use mergesweep::run::pass::{PassError, Request, run};

/// A program that does what a line of shell says.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("program");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn failure(script: &str, timeout: Option<Duration>) -> PassError {
    let folder = tempfile::tempdir().unwrap();
    let program = program(folder.path(), script);
    let request = Request { models: BTreeMap::new(), merges: Vec::new(), threads: None, memory: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = Vec::new();
    let mut on_progress = |done, total| seen.push((done, total));
    let (pass, cancel) = (folder.path().join("pass"), Cancel::never());
    let error = runtime.block_on(run(&program, &request, &pass, timeout, &cancel, &mut on_progress)).unwrap_err();
    assert!(seen.is_empty() || seen == [(1, 2)], "{seen:?}");
    error
}

#[test]
fn a_pass_that_is_killed_says_what_that_means() {
    let cut_short = failure("kill -BUS $$", None).to_string();
    assert_eq!(
        cut_short,
        "the merge was killed by SIGBUS (signal 7): a file it was reading was cut short, or its disk could not be read"
    );
    let memory = failure("echo 'progress 1 2' >&2; kill -KILL $$", None).to_string();
    assert!(memory.contains("SIGKILL") && memory.contains("out of memory"), "{memory}");
    let slow = failure("sleep 60", Some(Duration::from_millis(200)));
    assert!(matches!(slow, PassError::TimedOut(_)), "{slow}");
}

#[test]
fn a_pass_without_an_answer_says_its_last_words() {
    let panicked =
        failure("echo \"thread 'main' panicked at engine.rs:1\" >&2; echo note >&2; exit 101", None).to_string();
    assert_eq!(panicked, "the merge ended with exit code 101 and no answer: thread 'main' panicked at engine.rs:1");
    let nonsense = failure("echo nonsense", None);
    assert!(matches!(nonsense, PassError::NoAnswer { .. }), "{nonsense}");
    let failed = failure("echo '{\"failed\": \"shapes differ\"}'", None);
    assert_eq!(failed.to_string(), "shapes differ");
}
