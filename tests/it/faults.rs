//! Disks and clocks that fail beneath a run: a model that is cut short or cannot be read while it is merged, a disk that
//! is full at any point, a clock that is set back. Each costs the step in flight, says why, and the next run completes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{fixture, skip};
use crate::sweep_support::{Sweep, TINY, count, text, wait_for, walk};

/// The tiny sweep with models of its own, which may be harmed.
fn sweep_with_own_models() -> Option<Sweep> {
    let sweep = Sweep::new()?;
    restore_models(&sweep);
    sweep.write(&TINY.replace("INPUTS", "./inputs"));
    Some(sweep)
}

fn restore_models(sweep: &Sweep) {
    for model in ["base", "math", "code"] {
        let (from, to) = (fixture("mergekit-parity/inputs").join(model), sweep.path("inputs").join(model));
        fs::create_dir_all(&to).unwrap();
        for file in walk(&from) {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
}

/// The scores of a sweep that nothing disturbed.
fn undisturbed() -> String {
    let sweep = sweep_with_own_models().unwrap();
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    sweep.table()
}

fn assert_nothing_unfinished(files: &[PathBuf]) {
    let is_unfinished = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.contains(".partial") || name.starts_with(".model")
    };
    assert_eq!(files.iter().filter(is_unfinished).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

/// Builds the library of faults. None, with the reason printed, without a C compiler.
fn shim(folder: &Path) -> Option<PathBuf> {
    let library = folder.join("shim.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(fixture("faults/shim.c"))
        .arg("-ldl")
        .stdin(Stdio::null())
        .output();
    match built {
        Ok(built) if built.status.success() => Some(library),
        Ok(built) => panic!("{}", text(&built.stderr)),
        Err(_) => skip("there is no C compiler (`cc`)"),
    }
}

#[test]
fn a_model_that_fails_beneath_a_running_merge_costs_the_merges_that_read_it() {
    let Some(sweep) = sweep_with_own_models() else { return };
    let Some(shim) = shim(&sweep.path("")) else { return };
    let expected = undisturbed();
    for fault in ["unreadable", "cut"] {
        let mut run = sweep.command(&["run", "sweep.toml"], "ok");
        run.env("LD_PRELOAD", &shim).env("FAULT", fault).env("FAULT_FILE", "/code/model.safetensors");
        let run = run.output().unwrap();
        let stderr = text(&run.stderr);
        assert_eq!(run.status.code(), Some(3), "{fault}: {stderr}");
        assert!(stderr.contains("2 failed: SLERP (t=0.25), SLERP (t=0.5)"), "{fault}: {stderr}");
        // Whoever looks at the file first sees it too short; whoever has mapped it already is ended by the kernel.
        let reasons = ["a file it was reading was cut short, or its disk could not be read", "code/model.safetensors"];
        assert!(reasons.iter().any(|reason| stderr.contains(reason)), "{fault}: {stderr}");
        assert!(fault == "cut" || stderr.contains("SIGBUS"), "{stderr}");
        assert!(text(&run.stdout).contains("| Base "), "the rest of the sweep goes on");
        assert_nothing_unfinished(&walk(&sweep.results()));

        restore_models(&sweep);
        let again = sweep.run(&["run", "sweep.toml"], "ok");
        assert_eq!(again.status.code(), Some(0), "{fault}: {}", text(&again.stderr));
        assert_eq!(sweep.table(), expected, "{fault}");
        fs::remove_dir_all(sweep.path("results")).unwrap();
    }
}

#[test]
fn a_merge_that_hangs_is_ended_after_its_time_and_costs_no_other() {
    let Some(sweep) = sweep_with_own_models() else { return };
    let Some(shim) = shim(&sweep.path("")) else { return };
    let alone = "\n[[merge]]\nname = \"Math alone\"\nmethod = \"linear\"\nmodels = { math = { weight = 2.0 } }\n";
    sweep.write(&format!("{}{alone}\n[limits]\nmerge_timeout = \"2s\"\n", TINY.replace("INPUTS", "./inputs")));
    let mut run = sweep.command(&["run", "sweep.toml"], "ok");
    run.env("LD_PRELOAD", &shim).env("FAULT", "stuck").env("FAULT_FILE", "/code/model.safetensors");
    let run = run.output().unwrap();
    let stderr = text(&run.stderr);
    assert_eq!(run.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("2 failed: SLERP (t=0.25), SLERP (t=0.5)"), "{stderr}");
    assert!(stderr.contains("the merge was stopped after the time limit of 2 s"), "{stderr}");
    let table = text(&run.stdout);
    assert!(table.contains("| Base ") && count(&sweep.journal(), r#""event":"evaluated""#) == 2, "{table}");
    assert!(table.lines().any(|line| line.starts_with("| Math alone ") && line.contains("0.7500")), "{table}");
    assert_nothing_unfinished(&walk(&sweep.results()));

    let again = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 4);
}

#[test]
fn a_model_that_fails_beneath_a_single_merge_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let Some(shim) = shim(folder.path()) else { return };
    let merge = |fault: &str, skipped: u32| {
        for model in ["math", "code"] {
            crate::merge_support::copy_model(model, &folder.path().join(model));
        }
        let config = "{merge_method: linear, models: [{model: math, parameters: {weight: 1}}, {model: code, parameters: {weight: 1}}]}";
        fs::write(folder.path().join("linear.yml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
        command.args(["merge", "linear.yml", "out/merged"]).current_dir(folder.path()).stdin(Stdio::null());
        command.env("LD_PRELOAD", &shim).env("FAULT", fault).env("FAULT_FILE", "/code/model.safetensors");
        command.env("FAULT_SKIP", skipped.to_string());
        let run = command.output().unwrap();
        (run.status.code(), text(&run.stderr))
    };
    for fault in ["unreadable", "cut"] {
        let mut n_killed = 0;
        // The file is mapped a few times: it fails after the first, the second, ... until it does not fail any more.
        for skipped in 0.. {
            assert!(skipped < 20, "the merge always fails");
            let (code, stderr) = merge(fault, skipped);
            if code == Some(0) {
                assert!(folder.path().join("out/merged/model.safetensors").is_file());
                break;
            }
            let killed = stderr.contains("killed by SIGBUS");
            n_killed += usize::from(killed);
            assert_eq!(code, Some(if killed { 1 } else { 2 }), "{fault}, {skipped}: {stderr}");
            assert!(
                !killed || stderr.contains("cut short, or its disk could not be read"),
                "{fault}, {skipped}: {stderr}"
            );
            assert!(fault == "unreadable" || stderr.contains("code/model.safetensors"), "{skipped}: {stderr}");
            assert!(fault == "cut" || stderr.contains("all files have the size"), "{skipped}: {stderr}");
            assert_nothing_unfinished(&walk(folder.path()));
            assert!(!folder.path().join("out/merged").exists());
        }
        assert!(n_killed > 0, "{fault}: the kernel ended no merge");
        fs::remove_dir_all(folder.path().join("out")).unwrap();
    }
}

/// Fills the disk of the results but for some KiB, runs, makes room again and runs once more.
const FULL_DISK: &str = r#"
free=$(df -k --output=avail results | tail -1)
head -c $(((free - LEFT) * 1024)) /dev/zero > results/filler
"$PROGRAM" run sweep.toml --quiet > first.out 2> first.err
echo $? > first.code
find results > first.left
rm results/filler
"$PROGRAM" run sweep.toml --quiet > second.out 2> second.err
echo $? > second.code
find results > second.left
cp results/tiny/table.csv results/tiny/journal.jsonl .
"#;

#[test]
fn a_disk_that_is_full_at_any_point_costs_the_step_in_flight() {
    let Some(sweep) = sweep_with_own_models() else { return };
    fs::create_dir(sweep.path("results")).unwrap();
    let shut_in = |script: &str| {
        let mut command = Command::new("bwrap");
        command.args(["--dev-bind", "/", "/", "--size", "4194304", "--tmpfs"]).arg(sweep.path("results"));
        command.args(["--", "sh", "-c", script]);
        sweep.surround(&mut command, "ok");
        command.env("PROGRAM", env!("CARGO_BIN_EXE_mergesweep"));
        command
    };
    if !shut_in("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skip("`bwrap` cannot mount a small disk here").unwrap_or_default();
    }
    let expected = undisturbed();
    let read = |name: &str| fs::read_to_string(sweep.path(name)).unwrap();
    let files = |name: &str| read(name).lines().map(PathBuf::from).collect::<Vec<_>>();
    let mut n_stopped = 0;
    for left in [0, 4, 8, 16, 24, 40, 80, 120, 160, 200, 240, 320, 400, 1000] {
        let status = shut_in(FULL_DISK).env("LEFT", left.to_string()).status().unwrap();
        assert!(status.success(), "{left} KiB: {}", read("second.err"));
        let (code, stderr) = (read("first.code"), read("first.err"));
        let is_told = stderr.contains("No space left on device") || stderr.contains("GB are left for it");
        assert!(code.trim() == "0" || is_told, "{left} KiB: exit {code}: {stderr}");
        assert!(!stderr.contains("panicked"), "{left} KiB: {stderr}");
        n_stopped += usize::from(code.trim() != "0");
        assert_nothing_unfinished(&files("first.left"));

        assert_eq!(read("second.code").trim(), "0", "{left} KiB: {}", read("second.err"));
        assert_eq!(read("table.csv"), expected, "{left} KiB");
        assert_nothing_unfinished(&files("second.left"));
        let evaluated = count(&read("journal.jsonl"), r#""event":"evaluated""#);
        assert_eq!(evaluated, 3, "{left} KiB: every evaluation is recorded once");
    }
    assert!((5..14).contains(&n_stopped), "{n_stopped} of 14 sizes stopped the run");
}

/// libfaketime as Debian installs it. None, with the reason printed, where it is not.
fn faketime() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|path| path.is_file()).or_else(|| skip("libfaketime is not installed"))
}

#[test]
fn a_clock_that_is_set_back_changes_nothing() {
    let (Some(sweep), Some(faketime)) = (sweep_with_own_models(), faketime()) else { return };
    let expected = undisturbed();
    let clock = sweep.path("clock");
    let command = |outcome: &str| {
        let mut command = sweep.command(&["run", "sweep.toml"], outcome);
        command.env("LD_PRELOAD", &faketime).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    };
    let set = |clock_says: &str| fs::write(&clock, format!("{clock_says}\n")).unwrap();
    let has =
        |event: &str| fs::read_to_string(sweep.results().join("journal.jsonl")).is_ok_and(|text| text.contains(event));

    // Killed while the harness hangs, and gone on with a week before: its processes are still known for what they are.
    set("+0");
    let mut killed = command("hang").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| has("evaluation-started"));
    let identity = || walk(&sweep.results()).into_iter().any(|path| path.ends_with("evaluations/1/process.json"));
    wait_for(identity);
    killed.kill().unwrap();
    killed.wait().unwrap();
    set("-7d");
    // And set back by a year while it runs.
    let running = command("ok").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| has(r#""event":"evaluated""#));
    set("-365d");
    let run = running.wait_with_output().unwrap();
    let stderr = text(&run.stderr);
    assert_eq!(run.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("outlived an earlier run"), "{stderr}");
    assert_eq!(sweep.table(), expected);
    let times: Vec<f64> = sweep
        .journal()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["time"].as_f64())
        .collect();
    assert!(times.windows(2).any(|pair| pair[1] < pair[0] - 86400.0), "the clock did go back: {times:?}");

    let journal = sweep.journal();
    let second = command("killed").output().unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    assert_eq!(sweep.journal(), journal, "nothing was done");
}
