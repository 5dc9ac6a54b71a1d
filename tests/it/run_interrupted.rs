//! Ctrl-C before anything is begun, and in commands that work for long: an exit code of its own, and nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::fixture;
use crate::sweep_support::{Sweep, TINY, text, wait_for, walk};

/// An interpreter that takes forever over a program with this word in it, and says so in a file beside it.
fn stuck_at(sweep: &Sweep, word: &str) -> PathBuf {
    let path = sweep.path("stuck");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *{word}*) echo > '{}'; exec sleep 600;; esac\nexec python3 \"$@\"\n",
        sweep.path("is-stuck").display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Interrupts a command once `is_there`, and gives what it said.
fn interrupted(mut command: Command, is_there: impl FnMut() -> bool) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(is_there);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_run_that_is_stopped_while_it_looks_around_is_interrupted() {
    let Some(sweep) = Sweep::new() else { return };
    let hub = TINY.replace("INPUTS/base", "someone/model");
    // The question to the harness, and a download.
    for (word, spec) in [("difflib", TINY), ("snapshot_download", hub.as_str())] {
        sweep.write(spec);
        let _ = fs::remove_file(sweep.path("is-stuck"));
        let mut command = sweep.command(&["run", "sweep.toml", "--json"], "ok");
        command.env("MERGESWEEP_PYTHON", stuck_at(&sweep, word)).env("HF_HUB_OFFLINE", "0");
        command.env("HF_HOME", sweep.path("hf"));
        let told = interrupted(command, || sweep.path("is-stuck").exists());
        let stderr = text(&told.stderr);
        assert_eq!(told.status.code(), Some(130), "{word}: {stderr}");
        assert!(!stderr.contains("error"), "{word}: {stderr}");
        let stdout = text(&told.stdout);
        let summary: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        assert_eq!((&summary["interrupted"], &summary["left"]), (&true.into(), &3.into()), "{word}");
    }
    sweep.write(TINY);
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0), "it goes on later");
}

#[test]
fn a_second_interrupt_ends_a_run_at_once_and_what_is_finished_stays() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml", "--only", "Base"], "ok").status.code(), Some(0));
    // A harness that does not listen would be given ten seconds.
    let log = fs::File::create(sweep.path("run.log")).unwrap();
    let mut run = sweep.command(&["run", "sweep.toml"], "deaf");
    let mut run = run.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let said = |file: &Path, words: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(words));
    let mut harness = None;
    wait_for(|| {
        let logs = walk(&sweep.results()).into_iter().filter(|path| path.ends_with("stderr.log"));
        harness = logs.into_iter().find(|log| said(log, "deaf")).map(|log| log.with_file_name("process.json"));
        harness.is_some()
    });
    let identity: serde_json::Value = serde_json::from_slice(&fs::read(harness.unwrap()).unwrap()).unwrap();
    let interrupt = |run: &std::process::Child| {
        rustix::process::kill_process(rustix::process::Pid::from_child(run), rustix::process::Signal::INT).unwrap();
    };
    interrupt(&run);
    wait_for(|| said(&sweep.path("run.log"), "again to stop at once"));
    assert!(run.try_wait().unwrap().is_none(), "it waits for the harness");
    let begun = Instant::now();
    interrupt(&run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let stat = format!("/proc/{}/stat", identity["pid"]);
    wait_for(|| !fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")));

    let done = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let count = |event: &str| sweep.journal().matches(&format!(r#""event":"{event}""#)).count();
    assert_eq!((count("merged"), count("evaluated")), (2, 3), "nothing that was finished is done again");
}

#[test]
fn a_download_for_a_merge_that_is_stopped_is_an_interruption() {
    let Some(sweep) = Sweep::new() else { return };
    fs::write(sweep.path("c.yml"), "merge_method: passthrough\nmodels:\n- model: someone/model\n").unwrap();
    let mut command = sweep.command(&["merge", "c.yml", "out"], "ok");
    command.env("MERGESWEEP_PYTHON", stuck_at(&sweep, "snapshot_download")).env("HF_HUB_OFFLINE", "0");
    command.env("HF_HOME", sweep.path("hf"));
    let told = interrupted(command, || sweep.path("is-stuck").exists());
    assert_eq!(told.status.code(), Some(130), "{}", text(&told.stderr));
    assert!(!text(&told.stderr).contains("error"), "{}", text(&told.stderr));
}

#[test]
fn a_null_comparison_that_is_stopped_is_an_interruption_and_no_failed_gate() {
    let Some(sweep) = Sweep::of(&format!("{}\n[gate]\nmargin = 0.2\n", TINY.replace("\"dummy\"", "\"hf\""))) else {
        return;
    };
    let run = sweep.command(&["run", "sweep.toml"], "ok").env("FAKE_LM_EVAL_WRONG", "10").output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let before = sweep.journal().matches("evaluation-started").count();
    let command = sweep.command(&["freeze", "sweep.toml", "-o", "base", "--null"], "hang");
    let told = interrupted(command, || sweep.journal().matches("evaluation-started").count() > before);
    assert_eq!(told.status.code(), Some(130), "{}", text(&told.stderr));
    assert!(!sweep.path("base").exists());
}

/// A model of the fixtures' form with many tokens, whose weights take no room on disk.
fn large(folder: &Path) {
    const TOKENS: usize = 1 << 20;
    let small = fixture("mergekit-parity/inputs/base");
    fs::create_dir(folder).unwrap();
    let config = fs::read_to_string(small.join("config.json")).unwrap();
    let config = config.replace("\"vocab_size\": 128", &format!("\"vocab_size\": {TOKENS}"));
    fs::write(folder.join("config.json"), config).unwrap();
    let weights = fs::read(small.join("model.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(weights[..8].try_into().unwrap())).unwrap();
    let mut header: serde_json::Value = serde_json::from_slice(&weights[8..8 + length]).unwrap();
    let mut end = 0;
    for (name, tensor) in header.as_object_mut().unwrap().iter_mut().filter(|(name, _)| *name != "__metadata__") {
        if name.contains("embed") || name.contains("lm_head") {
            tensor["shape"][0] = TOKENS.into();
        }
        let n: u64 = tensor["shape"].as_array().unwrap().iter().map(|side| side.as_u64().unwrap()).product();
        tensor["data_offsets"] = serde_json::json!([end, end + 4 * n]);
        end += 4 * n;
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let start = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    fs::write(folder.join("model.safetensors"), &start).unwrap();
    let file = fs::File::options().write(true).open(folder.join("model.safetensors")).unwrap();
    file.set_len(start.len() as u64 + end).unwrap();
}

#[test]
fn a_calibration_that_is_stopped_leaves_nothing() {
    let spec = TINY.replace("INPUTS/math", "./large-math").replace("INPUTS/code", "./large-code");
    let spec =
        spec.replace("method = \"slerp\"\nbase_model = \"math\"", "method = \"linear\"\nparameters.weight = 0.5");
    let Some(sweep) = Sweep::of(&spec.replace("grid.t = [0.25, 0.5]", "").replace(" (t={t})", "")) else { return };
    ["large-math", "large-code"].iter().for_each(|name| large(&sweep.path(name)));
    fs::create_dir(sweep.path("results")).unwrap();
    let left = || {
        let entries = fs::read_dir(sweep.path("results")).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let command = sweep.command(&["plan", "sweep.toml", "--calibrate"], "ok");
    let told = interrupted(command, || left().iter().any(|name| name.starts_with(".mergesweep-calibration-")));
    assert_eq!(told.status.code(), Some(130), "{}", text(&told.stderr));
    assert_eq!(left(), [""; 0]);
}
