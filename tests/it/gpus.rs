//! Which GPUs evaluations are shown, and what is said where there are too few. No GPU is needed: the stand-ins for torch and the
//! harness see as many as they are told.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::sweep_support::{Sweep, TINY, text};

fn spec(resources: &str) -> String {
    let spec = TINY.replace("\"dummy\"", "\"hf\"\nharness.mode = \"command\"");
    format!("{spec}\n[resources]\n{resources}\n")
}

#[test]
fn evaluations_are_shown_the_gpus_of_their_slot() {
    let Some(sweep) = Sweep::of(&spec("gpus = [0, 1, 2, 3]\ngpus_per_evaluation = 2\nslots_per_gpu = 2")) else {
        return;
    };
    let mut command = sweep.command(&["run", "sweep.toml"], "ok");
    command.env("FAKE_TORCH_GPUS", "4").env("FAKE_LM_EVAL_GPUS", sweep.path("gpus.log"));
    let run = command.output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(sweep.journal().contains(r#""n_slots":4"#), "{}", sweep.journal());
    let log = fs::read_to_string(sweep.path("gpus.log")).unwrap();
    let shown: BTreeSet<&str> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(log.lines().count() == 3 && shown.iter().all(|gpus| ["0,1", "2,3"].contains(gpus)), "{log}");
    assert!(log.lines().all(|line| line.contains(r#""parallelize": true"#)), "{log}");
}

#[test]
fn gpus_that_are_named_and_not_seen_keep_a_run_from_beginning() {
    let Some(sweep) = Sweep::of(&spec("gpus = [0, 1]")) else { return };
    for (there, seen) in [("0", "sees none"), ("1", "sees only 1")] {
        let run = sweep.command(&["run", "sweep.toml"], "ok").env("FAKE_TORCH_GPUS", there).output().unwrap();
        let told = text(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{told}");
        assert!(told.contains("error[E0605]: the list of GPUs `0,1` asks for 2 GPUs"), "{told}");
        assert!(told.contains(seen) && told.contains("resources.gpus"), "{told}");
    }
    assert!(!sweep.results().join("trials").exists());
}

#[test]
fn fewer_gpus_than_an_evaluation_needs_are_told_where_they_are_needed() {
    let Some(sweep) = Sweep::of(&spec("gpus = [0]\ngpus_per_evaluation = 2")) else { return };
    let plan = sweep.run(&["plan", "sweep.toml"], "ok");
    assert_eq!(plan.status.code(), Some(2));
    assert!(text(&plan.stderr).contains("an evaluation takes 2 GPUs, and `gpus` names 1"), "{}", text(&plan.stderr));

    // The GPUs of this machine are no matter of a plan, which may be for another.
    sweep.write(&spec("gpus_per_evaluation = 2"));
    let with_one = |args: &[&str]| {
        let mut command = sweep.command(args, "ok");
        command.env("CUDA_VISIBLE_DEVICES", "0").env("FAKE_TORCH_GPUS", "1").output().unwrap()
    };
    assert_eq!(with_one(&["plan", "sweep.toml"]).status.code(), Some(0));
    let run = with_one(&["run", "sweep.toml"]);
    let told = text(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{told}");
    assert!(told.contains("`gpus_per_evaluation` asks for 2 GPUs") && told.contains("sees only 1"), "{told}");
}

#[test]
fn a_run_records_what_it_works_on_and_the_page_shows_it() {
    let Some(sweep) = Sweep::of(&spec("gpus = [1]")) else { return };
    fs::create_dir(sweep.path("bin")).unwrap();
    let driver =
        "#!/bin/sh\necho '0, GPU-0aa, Fake One, 1000 MiB, 550.1'\necho '1, GPU-1bb, Fake Two, 2000 MiB, 550.1'\n";
    fs::write(sweep.path("bin/nvidia-smi"), driver).unwrap();
    fs::set_permissions(sweep.path("bin/nvidia-smi"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([sweep.path("bin")].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let run =
        sweep.command(&["run", "sweep.toml"], "ok").env("PATH", path).env("FAKE_TORCH_GPUS", "2").output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let journal = sweep.journal();
    let started = journal.lines().find(|line| line.contains("run-started")).unwrap();
    let started: serde_json::Value = serde_json::from_str(started).unwrap();
    let gpu = serde_json::json!({ "name": "Fake Two", "memory": "2000 MiB", "driver": "550.1" });
    assert_eq!(started["hardware"]["gpus"], serde_json::json!([gpu]));
    assert!(
        started["hardware"]["n_cores"].as_u64().unwrap() > 0 && started["hardware"]["memory"].is_u64(),
        "{started}"
    );
    assert!(!journal.contains("GPU-1bb"), "{journal}");

    let report = sweep.run(&["report", "sweep.toml", "--html", "page.html"], "ok");
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    let page = fs::read_to_string(sweep.path("page.html")).unwrap();
    assert!(page.contains("<dt>hardware</dt>") && page.contains("Fake Two (2000 MiB, driver 550.1)</dd>"), "{page}");
}
