//! The swap test of gp-IRT estimates, with a stand-in for the tinyBenchmarks package and synthetic parameters. The real
//! package and its parameters need the network; it was not run on them.

use std::fs;
use std::path::Path;
use std::process::Command;

use mergesweep::eval::gp_irt::{GpIrtError, benchmark_of, swap_test};
use mergesweep::stats::permutation::sign_flip;

use crate::support::{fixture, require_python};
use crate::sweep_support::{Sweep, TINY, text};

/// Weights of the stand-in: uneven, as those of the real anchors are.
fn weight(item: usize) -> f64 {
    1.0 + (item % 7) as f64
}

fn parameters(python: &Path, home: &Path, bench: &str) {
    let program = format!(
        "import pickle; pickle.dump({{{bench:?}: [1.0 + i % 7 for i in range(100)]}}, open('tinyBenchmarks.pkl', 'wb'))"
    );
    assert!(Command::new(python).args(["-c", &program]).current_dir(home).status().unwrap().success());
}

/// An interpreter that finds the stand-in: a script, since the environment of a test is shared.
fn with_stand_in(python: &Path, folder: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("python");
    let stand_in = fixture("fake_tiny");
    let script = format!("#!/bin/sh\nPYTHONPATH='{}' exec '{}' \"$@\"\n", stand_in.display(), python.display());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn the_packages_estimates_are_tested_by_exchange() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    parameters(&python, home, "arc");
    let python = with_stand_in(&python, home);
    let a: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 3 != 0))).collect();
    let b: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 3 != 0 && i % 11 != 1))).collect();
    let test = swap_test(&python, home, "tinyArc", (&a, &b), 99, 5).unwrap();
    // Of a weighted mean, exchanging answers is flipping the signs of weighted differences.
    let total: f64 = (0..100).map(weight).sum();
    let differences: Vec<f64> = (0..100).map(|i| weight(i) * (a[i] - b[i]) * 100.0 / total).collect();
    let expected = sign_flip(&differences, 99, 5);
    assert!((test.draws.observed - expected.observed).abs() < 1e-12);
    assert_eq!(test.draws.p(), expected.p());
    assert_eq!(test.parameters.len(), 64);

    // Another file under the same name is not taken.
    parameters(&python, home, "mmlu");
    let changed = swap_test(&python, home, "tinyArc", (&a, &b), 9, 5).unwrap_err();
    assert!(matches!(changed, GpIrtError::Changed { .. }), "{changed}");
    assert!(changed.to_string().contains("the file changed"), "{changed}");
}

#[test]
fn what_cannot_be_estimated_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let few = [1.0; 99];
    let python = Path::new("python3");
    let refused = |task, answers| swap_test(python, folder.path(), task, answers, 9, 1).unwrap_err().to_string();
    assert!(refused("tinyArc", (&few[..], &few[..])).contains("needs all 100 answers, found 99"));
    assert!(refused("arc_easy", (&few[..], &few[..])).contains("no task of tinyBenchmarks"));
    let all = [1.0; 100];
    assert!(refused("tinyArc", (&all[..], &all[..])).contains("tinyBenchmarks.pkl"));
    assert_eq!(benchmark_of("tinyGSM8k"), Some("gsm8k"));
}

#[test]
fn a_run_records_the_parameters_and_is_refused_with_others() {
    let spec = TINY
        .replace(r#"["facts", "sums"]"#, r#"[{ task = "tinyArc", columns = { tiny = "acc,none" } }]"#)
        .replace("\"dummy\"", "\"hf\"");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let home = sweep.results().join("harness");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("tinyBenchmarks.pkl"), "one").unwrap();
    let run = |args: &[&str]| sweep.command(args, "ok").env("FAKE_LM_EVAL_WRONG", "10").output().unwrap();
    let first = run(&["run", "sweep.toml", "--only", "Base"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let recorded = fs::read_to_string(home.join("tinyBenchmarks.pkl.sha256")).unwrap();
    assert_eq!(recorded.trim().len(), 64);

    // Scores made with another file would stand beside those of the first.
    fs::write(home.join("tinyBenchmarks.pkl"), "other").unwrap();
    let refused = run(&["run", "sweep.toml"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("the file changed"), "{}", text(&refused.stderr));
    assert_eq!(sweep.journal().matches("evaluation-started").count(), 1);
    fs::write(home.join("tinyBenchmarks.pkl"), "one").unwrap();
    assert_eq!(run(&["run", "sweep.toml"]).status.code(), Some(0));
}
