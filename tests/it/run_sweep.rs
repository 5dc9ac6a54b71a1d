//! The whole loop by the program itself, on tiny checkpoints and a stand-in for the harness: what is done, what is reused,
//! what a failure, a kill and a redo leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::support::fixture;
use crate::sweep_support::{Sweep, TINY as SPEC, count, text, wait_for, walk};

#[test]
fn a_run_merges_evaluates_and_prints_the_table_and_a_second_one_reuses_it_all() {
    let Some(sweep) = Sweep::new() else { return };
    let first = sweep.run(&["run", "sweep.toml"], "ok");
    let stderr = text(&first.stderr);
    assert_eq!(first.status.code(), Some(0), "{stderr}");
    let table = text(&first.stdout);
    for row in ["| Base ", "| SLERP (t=0.25) ", "| SLERP (t=0.5) "] {
        assert!(table.contains(row), "{table}");
    }
    assert!(table.contains("0.7500 [.47, .91]"), "{table}");
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 3);
    // Not kept: a merged model goes once it is scored.
    assert_eq!(count(&sweep.journal(), r#""event":"model-deleted""#), 2);
    for file in ["table.csv", "table.parquet", "scores.csv", "scores.parquet", "table.md", "plan.json"] {
        assert!(sweep.path("results/tiny").join(file).is_file(), "{file}");
    }

    let before = sweep.journal();
    let second = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    assert_eq!(text(&second.stdout), table);
    assert_eq!(sweep.journal(), before, "nothing was done");
    assert_eq!(count(&text(&second.stderr), "reused"), 4, "three trials and the summary: {}", text(&second.stderr));
}

#[test]
fn a_run_is_reported_as_a_page_and_as_plots() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    let report = sweep.run(&["report", "sweep.toml", "--html", "page.html", "--plots", "plots"], "killed");
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    assert_eq!(text(&report.stdout), "");
    let page = fs::read_to_string(sweep.path("page.html")).unwrap();
    for part in ["SLERP (t=0.5)", "<tr data-r=\"0\" data-method=\"model\" class=\"reference\"", "spec digest", "0.4.13"]
    {
        assert!(page.contains(part), "{part}");
    }
    for plot in ["line_slerp_t_facts_acc.svg", "line_slerp_t_facts_acc.png"] {
        assert!(sweep.path("plots").join(plot).is_file(), "{plot}");
    }
    let again = sweep.run(&["report", "sweep.toml", "--html", "again.html"], "ok");
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(fs::read_to_string(sweep.path("again.html")).unwrap(), page);
    let alone = sweep.run(&["report", "sweep.toml", "--with-items"], "ok");
    assert_eq!(alone.status.code(), Some(2), "there is no page to put them in");
}

#[test]
fn a_new_task_or_grid_point_runs_only_itself() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    sweep.write(&SPEC.replace("[0.25, 0.5]", "[0.25, 0.5, 0.75]"));
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 3);
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 4);

    sweep.write(&SPEC.replace("\"sums\"]", "\"sums\", \"more\"]"));
    let dry = text(&sweep.run(&["run", "sweep.toml", "--dry-run"], "ok").stdout);
    assert!(dry.contains("evaluate more: not done yet") && !dry.contains("evaluate sums"), "{dry}");
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    // The models were deleted after scoring, so they are merged again; only the new task is asked.
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 5);
    assert_eq!(count(&sweep.journal(), r#""tasks":["more"]"#), 3);
}

#[test]
fn a_failing_evaluation_is_recorded_and_the_next_run_does_it_again() {
    let Some(sweep) = Sweep::new() else { return };
    let failed = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(failed.status.code(), Some(3), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("3 failed"), "{}", text(&failed.stderr));
    let summed_up =
        text(&failed.stderr).lines().filter(|line| line.starts_with("failed: ")).map(str::to_owned).collect::<Vec<_>>();
    assert!(summed_up.len() == 3 && summed_up.iter().all(|line| line.contains(" (log: ")), "{summed_up:?}");
    let status = text(&sweep.run(&["status", "sweep.toml"], "ok").stdout);
    assert_eq!(count(&status, "| failed"), 3, "{status}");

    let done = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    // The merges held: only the evaluations were done again.
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);
    let status = text(&sweep.run(&["status", "sweep.toml"], "ok").stdout);
    assert_eq!(count(&status, "| scored"), 3, "{status}");
}

#[test]
fn redo_and_only_touch_only_what_they_name() {
    let Some(sweep) = Sweep::new() else { return };
    let only = sweep.run(&["run", "sweep.toml", "--only", "slerp*0.5*"], "ok");
    assert_eq!(only.status.code(), Some(0), "{}", text(&only.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 1);
    let redo = sweep.run(&["run", "sweep.toml", "--only", "slerp*0.5*", "--redo", "SLERP (t=0.5)"], "ok");
    assert_eq!(redo.status.code(), Some(0), "{}", text(&redo.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 2);
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);
    let unknown = sweep.run(&["run", "sweep.toml", "--only", "nosuch"], "ok");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no trial matches `nosuch`"), "{}", text(&unknown.stderr));
}

#[test]
fn an_interrupted_run_says_so_leaves_no_process_and_goes_on_later() {
    let Some(sweep) = Sweep::new() else { return };
    let mut child =
        sweep.command(&["run", "sweep.toml"], "hang").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let journal = sweep.path("results/tiny/journal.jsonl");
    wait_for(|| fs::read_to_string(&journal).is_ok_and(|text| text.contains("evaluation-started")));
    // The stand-in names its own child once it hangs: that one must go too.
    let log = find(&sweep.path("results/tiny/trials"), "stderr.log", "child ");
    wait_for(|| log().is_some());
    let grandchild: i32 =
        log().unwrap().split("child ").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();

    // While a run holds the sweep, another is refused and `status` reads.
    let second = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(second.status.code(), Some(75));
    assert!(text(&second.stderr).contains("holds this sweep"), "{}", text(&second.stderr));
    assert!(text(&sweep.run(&["status", "sweep.toml"], "ok").stdout).contains("| evaluating"));

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    wait_for(|| !Path::new(&format!("/proc/{grandchild}/cmdline")).exists() || is_zombie(grandchild));
    assert!(text(&sweep.run(&["status", "sweep.toml"], "ok").stdout).contains("| interrupted"));

    let done = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
}

#[test]
fn a_harness_that_the_kernel_kills_is_tried_with_a_smaller_batch() {
    let Some(sweep) = Sweep::new() else { return };
    let run = sweep.run(&["run", "sweep.toml"], "killed-above:2");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(
        text(&run.stdout).contains("`facts` ran with batches of 2 instead of 4: out of memory"),
        "{}",
        text(&run.stdout)
    );
}

#[test]
fn a_missing_model_or_harness_is_told_before_anything_is_run() {
    let Some(sweep) = Sweep::new() else { return };
    sweep.write(&SPEC.replace("INPUTS/code", "./nowhere"));
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("`./nowhere` does not exist"), "{}", text(&run.stderr));

    sweep.write(SPEC);
    let run = sweep.command(&["run", "sweep.toml"], "ok").env_remove("PYTHONPATH").output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("has no package `lm_eval`"), "{}", text(&run.stderr));
    assert!(!sweep.path("results/tiny/trials").exists());
}

#[test]
fn a_reference_is_compared_only_where_the_numbers_mean_the_same() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    fs::write(sweep.path("reference.csv"), "run,kind,facts,tinyArc\nBase,model,0.5,0.6\nOther,model,,0.7\n").unwrap();
    let report = sweep.run(&["report", "sweep.toml", "--reference", "reference.csv"], "ok");
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    let report = text(&report.stdout);
    assert!(report.contains("`facts` is not compared") && report.contains("`tinyArc` is not compared"), "{report}");
    assert!(report.contains("| Other "), "{report}");
    fs::write(sweep.path("reference.csv"), "run,tinyArc\nBase,high\n").unwrap();
    let broken = sweep.run(&["report", "sweep.toml", "--reference", "reference.csv"], "ok");
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken.stderr).contains("reference.csv:2: column `tinyArc`"), "{}", text(&broken.stderr));
}

/// Reads the first file of that name below a folder that holds the text, once there is one: merges have logs too.
fn find(folder: &Path, name: &str, text: &str) -> impl Fn() -> Option<String> + use<> {
    let (folder, name, text) = (folder.to_owned(), name.to_owned(), text.to_owned());
    move || {
        let files = walk(&folder).into_iter().filter(|path| path.ends_with(&name));
        files.filter_map(|path| fs::read_to_string(path).ok()).find(|found| found.contains(&text))
    }
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn models_with_equal_weights_share_one_evaluation_here_and_across_sweeps() {
    let Some(sweep) = Sweep::new() else { return };
    let twins = SPEC.replace("grid.t = [0.25, 0.5]", "grid.t = [0.0, 0.5]");
    let linear = "\n[[merge]]\nname = \"Math alone\"\nmethod = \"linear\"\nmodels = { math = { weight = 2.0 } }\n";
    sweep.write(&format!("{twins}{linear}"));
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 3, "{}", sweep.journal());
    assert_eq!(count(&sweep.journal(), r#""event":"shared""#), 2, "one for each task");
    let table = text(&run.stdout);
    let remark = "`facts`, `sums` were not evaluated again: the weights are those of ";
    assert!(table.contains(remark), "{table}");

    // Another sweep with the same baseline and results in the same place.
    sweep.write(&SPEC.replace("\"tiny\"", "\"other\"").replace("[0.25, 0.5]", "[0.75]"));
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let journal = fs::read_to_string(sweep.path("results/other/journal.jsonl")).unwrap();
    assert_eq!(count(&journal, r#""event":"evaluated""#), 1, "the merge's");
    assert!(text(&run.stdout).contains(&format!("Base: {remark}tiny/Base")), "{}", text(&run.stdout));
}

#[test]
fn merged_models_stay_within_the_disk_budget() {
    let Some(sweep) = Sweep::new() else { return };
    let grid = SPEC.replace("[0.25, 0.5]", "{ from = 0.05, to = 0.95, step = 0.05 }");
    sweep.write(&grid);
    let free = sweep.run(&["run", "sweep.toml", "--json"], "ok");
    assert_eq!(free.status.code(), Some(0), "{}", text(&free.stderr));
    let summary = |output: &Output| -> serde_json::Value {
        serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
    };
    let merged: serde_json::Value = sweep
        .journal()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|line: &serde_json::Value| line["event"] == "merged")
        .unwrap();
    let bytes = merged["merge"]["n_bytes"].as_u64().unwrap();
    assert!(summary(&free)["disk_peak"].as_u64().unwrap() > 2 * bytes, "merges run ahead");

    // A tenth of what all nineteen need.
    fs::remove_dir_all(sweep.path("results")).unwrap();
    let budget = bytes * 19 / 10;
    sweep.write(&format!("{grid}\n[resources]\ndisk = {budget}\nwork_dir = \"work\"\n"));
    let tight = sweep.run(&["run", "sweep.toml", "--json"], "ok");
    assert_eq!(tight.status.code(), Some(0), "{}", text(&tight.stderr));
    let peak = summary(&tight)["disk_peak"].as_u64().unwrap();
    assert!(peak <= budget, "{peak} of {budget}");
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 20);
    let work = fs::read_dir(sweep.path("work")).unwrap().flatten().next().unwrap().file_name();
    assert!(work.to_string_lossy().starts_with("tiny-"), "models were made where they were asked to be");

    // A model that stays makes room for its own new version.
    fs::remove_dir_all(sweep.path("results")).unwrap();
    let one =
        format!("{}\n[resources]\ndisk = {budget}\n[limits]\nkeep = \"all\"\n", SPEC.replace("[0.25, 0.5]", "[0.25]"));
    sweep.write(&one);
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    let again = sweep.run(&["run", "sweep.toml", "--redo", "*", "--json"], "ok");
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(summary(&again)["disk_peak"].as_u64().unwrap(), bytes);
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 2);

    // Less than one model: each merge fails and says what to do, the baseline is evaluated.
    fs::remove_dir_all(sweep.path("results")).unwrap();
    sweep.write(&format!("{SPEC}\n[resources]\ndisk = {}\n", bytes / 2));
    let too_tight = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(too_tight.status.code(), Some(3), "{}", text(&too_tight.stderr));
    assert!(text(&too_tight.stderr).contains("raise `resources.disk`"), "{}", text(&too_tight.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"evaluated""#), 1);
}

#[test]
fn models_whose_evaluation_failed_make_room_for_the_next_ones() {
    let Some(sweep) = Sweep::new() else { return };
    let grid = SPEC.replace("[0.25, 0.5]", "[0.2, 0.4, 0.6]");
    sweep.write(&grid);
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    let journal = sweep.journal();
    let bytes: u64 = journal.split_once("\"n_bytes\":").unwrap().1.split(',').next().unwrap().parse().unwrap();
    fs::remove_dir_all(sweep.path("results")).unwrap();
    sweep.write(&format!("{grid}\n[resources]\ndisk = {}\n", bytes + 1));
    let failed = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(failed.status.code(), Some(3), "{}", text(&failed.stderr));
    assert!(!text(&failed.stderr).contains("resources.disk"), "{}", text(&failed.stderr));
    assert_eq!(count(&sweep.journal(), r#""event":"merged""#), 3);
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
}

#[test]
fn a_trial_with_another_name_keeps_its_folder_and_its_answers() {
    let Some(sweep) = Sweep::new() else { return };
    let spec = SPEC.replace("\"dummy\"", "\"hf\"");
    sweep.write(&spec);
    let run = |args: &[&str], wrong: &str| {
        let output = sweep.command(args, "ok").env("FAKE_LM_EVAL_WRONG", wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    run(&["run", "sweep.toml"], "20");
    let folders = || fs::read_dir(sweep.results().join("trials")).unwrap().count();
    let n_folders = folders();
    sweep.write(&spec.replace("SLERP", "Zlerp"));
    let compared = run(&["compare", "sweep.toml:Zlerp (t=0.25)", "Base", "--json"], "20");
    assert!(!compared.contains("-0.4"), "{compared}");
    run(&["run", "sweep.toml", "--redo", "Zlerp*"], "60");
    assert_eq!(folders(), n_folders);
    let json = run(&["compare", "sweep.toml:Zlerp (t=0.25)", "Base", "--json"], "60");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json.to_string().contains("-0.4"), "{json}");
    // Nothing of them is anything that the spec no longer has.
    assert!(!run(&["clean", "sweep.toml"], "60").contains("no longer has"));
}

#[test]
fn a_journal_that_came_without_its_folders_gives_none_of_their_numbers_again() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml"], "ok").status.code(), Some(0));
    fs::remove_dir_all(sweep.results().join("trials")).unwrap();
    let redone = sweep.run(&["run", "sweep.toml", "--redo", "Base"], "ok");
    assert_eq!(redone.status.code(), Some(0), "{}", text(&redone.stderr));
    let attempts = walk(&sweep.results().join("trials"));
    assert!(attempts.iter().any(|path| path.ends_with("evaluations/2")), "{attempts:?}");
    assert!(!attempts.iter().any(|path| path.ends_with("evaluations/1")), "{attempts:?}");
}

#[test]
fn a_sweep_of_the_same_name_with_other_results_has_models_of_its_own() {
    let Some(sweep) = Sweep::new() else { return };
    let spec = format!("{SPEC}\n[limits]\nkeep = \"all\"\n[resources]\nwork_dir = \"work\"\n");
    sweep.write(&spec);
    let n_models = || walk(&sweep.path("work")).iter().filter(|path| path.ends_with("config.json")).count();
    assert_eq!(sweep.run(&["run", "sweep.toml", "--results", "one"], "ok").status.code(), Some(0));
    assert_eq!(n_models(), 2);
    sweep.write(&spec.replace("\"all\"", "\"none\""));
    assert_eq!(sweep.run(&["run", "sweep.toml", "--results", "other"], "ok").status.code(), Some(0));
    assert_eq!(n_models(), 2);

    // A trial that the spec no longer has leaves a model there, which can be cleaned up.
    sweep.write(&spec.replace("[0.25, 0.5]", "[0.25]"));
    let clean = sweep.run(&["clean", "sweep.toml", "--results", "one", "--apply"], "ok");
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stderr));
    assert_eq!(n_models(), 0);
    let again = sweep.run(&["run", "sweep.toml", "--results", "one"], "ok");
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
}

#[test]
fn the_best_models_are_kept_and_any_other_is_made_again_and_checked() {
    let Some(sweep) = Sweep::new() else { return };
    let spec = SPEC.replace("\"dummy\"", "\"hf\"").replace("[0.25, 0.5]", "[0.2, 0.4, 0.6, 0.8]");
    sweep.write(&format!("{spec}\n[limits]\nkeep = \"best:1:facts_acc\"\n"));
    let run = |args: &[&str]| {
        let log = sweep.path("evaluated.log");
        sweep.command(args, "ok").env("FAKE_LM_EVAL_LOG", log).output().unwrap()
    };
    let table = run(&["run", "sweep.toml", "--quiet"]);
    assert_eq!(table.status.code(), Some(0), "{}", text(&table.stderr));
    let rows: serde_json::Value =
        serde_json::from_str(&text(&run(&["report", "sweep.toml", "--format", "json"]).stdout)).unwrap();
    let merges = rows.as_array().unwrap().iter().filter(|row| row["kind"] == "merge");
    let best =
        merges.max_by(|a, b| a["facts_acc"].as_f64().unwrap().total_cmp(&b["facts_acc"].as_f64().unwrap())).unwrap();
    let status: serde_json::Value =
        serde_json::from_str(&text(&run(&["status", "sweep.toml", "--json"]).stdout)).unwrap();
    let trials = || status["trials"].as_array().unwrap().iter();
    let kept: Vec<&serde_json::Value> = trials().filter(|trial| trial["model"].is_string()).collect();
    assert_eq!(kept.len(), 1, "{status:#}");
    assert_eq!(kept[0]["trial"], best["trial"]);
    assert!(Path::new(kept[0]["model"].as_str().unwrap()).join("model.safetensors").is_file());

    let gone = trials().find(|trial| trial["model"].is_null() && trial["trial"] != "Base").unwrap();
    let name = gone["trial"].as_str().unwrap();
    let made = run(&["materialize", "sweep.toml", name, "again"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert!(text(&made.stderr).contains("the same that were evaluated"), "{}", text(&made.stderr));
    assert!(sweep.path("again/model.safetensors").is_file());
    let listed = run(&["clean", "sweep.toml"]);
    assert!(text(&listed.stdout).contains("merged model of SLERP"), "{}", text(&listed.stdout));
    let kept = PathBuf::from(kept[0]["model"].as_str().unwrap());
    assert!(kept.is_dir(), "dry unless told otherwise");
    assert_eq!(count(&text(&run(&["clean", "sweep.toml", "--older-than", "1d", "--apply"]).stderr), "0 folders"), 1);
    assert_eq!(run(&["clean", "sweep.toml", "--apply"]).status.code(), Some(0));
    assert!(!kept.exists());
    assert_eq!(text(&run(&["clean", "sweep.toml"]).stdout), "");
    let why = run(&["status", "sweep.toml", "--why", name]);
    assert!(text(&why.stdout).contains("nothing: all is done"), "{}", text(&why.stdout));
}

#[test]
fn a_full_gpu_halves_the_batches_and_the_table_says_so() {
    let Some(sweep) = Sweep::new() else { return };
    let run = sweep.run(&["run", "sweep.toml"], "memory:1");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("out of GPU memory; again with batches of 2"), "{}", text(&run.stderr));
    let remark = "Base: `facts` ran with batches of 1 instead of 4: out of memory";
    assert!(text(&run.stdout).contains(remark), "{}", text(&run.stdout));
    // What was asked for is what the key holds: it is not done again.
    let second = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    // Killed between the results and their record: they are taken over as what they are.
    let journal = sweep.journal();
    let unrecorded = journal.rfind("\"event\":\"evaluated\"").unwrap();
    let unrecorded = journal[..unrecorded].rfind('\n').unwrap() + 1;
    fs::write(sweep.results().join("journal.jsonl"), &journal[..unrecorded]).unwrap();
    let adopted = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(adopted.status.code(), Some(0), "{}", text(&adopted.stderr));
    assert!(text(&adopted.stderr).contains("were complete when the last run ended"), "{}", text(&adopted.stderr));
    assert_eq!(text(&adopted.stdout), text(&run.stdout));
    let hopeless = sweep.run(&["run", "sweep.toml", "--redo", "Base"], "memory:0");
    assert_eq!(hopeless.status.code(), Some(3), "{}", text(&hopeless.stderr));
}

#[test]
fn a_merge_that_wants_more_memory_than_it_may_take_fails_alone_and_says_so() {
    let Some(sweep) = Sweep::new() else { return };
    let limited = |memory: &str| sweep.write(&format!("{SPEC}\n[resources]\nmerge_memory = \"{memory}\"\n"));
    limited("1MB");
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("ran out of memory: `resources.merge_memory` is 1 MB"), "{}", text(&run.stderr));
    assert!(text(&run.stdout).contains("| Base "), "{}", text(&run.stdout));
    limited("1GB");
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
}

#[test]
fn fail_fast_begins_nothing_after_the_first_failure() {
    let Some(sweep) = Sweep::new() else { return };
    let run = sweep.run(&["run", "sweep.toml", "--fail-fast"], "killed");
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("1 failed: Base, 2 not begun"), "{}", text(&run.stderr));
}

#[test]
fn processes_that_outlive_a_killed_run_are_ended_by_the_next() {
    let Some(sweep) = Sweep::new() else { return };
    let mut killed = sweep.command(&["run", "sweep.toml", "--quiet"], "hang").stderr(Stdio::null()).spawn().unwrap();
    let log = || {
        let trials = fs::read_dir(sweep.path("results/tiny/trials")).into_iter().flatten().flatten();
        let logs =
            trials.map(|trial| fs::read_to_string(trial.path().join("evaluations/1/stderr.log")).unwrap_or_default());
        logs.collect::<String>()
    };
    let mut child = None;
    for _ in 0..600 {
        child = log().lines().find_map(|line| line.strip_prefix("child ")?.parse::<u32>().ok());
        if child.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let child = child.expect("the harness has started");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let lives = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(lives(), "killing the run alone leaves the harness");
    // Whether the spec still has the trial or not.
    sweep.write(&SPEC.replace("[[baseline]]\nname = \"Base\"\nmodel = \"base\"\n", ""));
    let run = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("outlived an earlier run"), "{}", text(&run.stderr));
    assert!(!lives(), "and its children are gone");
}

#[test]
fn a_report_under_other_settings_leaves_the_files_of_the_run_alone() {
    let Some(sweep) = Sweep::new() else { return };
    assert_eq!(sweep.run(&["run", "sweep.toml", "--limit", "4"], "ok").status.code(), Some(0));
    let table = fs::read_to_string(sweep.path("results/tiny/table.csv")).unwrap();
    let report = sweep.run(&["report", "sweep.toml"], "ok");
    assert_eq!(report.status.code(), Some(0));
    assert!(text(&report.stderr).contains("no scores under these settings"), "{}", text(&report.stderr));
    assert_eq!(fs::read_to_string(sweep.path("results/tiny/table.csv")).unwrap(), table);
    assert!(text(&sweep.run(&["report", "sweep.toml", "--limit", "4"], "ok").stdout).contains("0.7500"));
}

#[test]
fn the_config_of_a_trial_says_which_seed_it_was_merged_with() {
    let Some(sweep) = Sweep::new() else { return };
    let dare = "\n[[merge]]\nname = \"DARE\"\nmethod = \"dare_linear\"\nbase_model = \"base\"\nmodels = [\"math\"]\nseed = 7\n\
                parameters = { weight = 1.0, density = 0.5 }\n[limits]\nkeep = \"all\"\n";
    sweep.write(&format!("{SPEC}{dare}"));
    let run = sweep.run(&["run", "sweep.toml", "--only", "DARE"], "ok");
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let trials = fs::read_dir(sweep.path("results/tiny/trials")).unwrap().flatten();
    let trial = trials.map(|entry| entry.path()).find(|path| path.join("config.yml").is_file()).unwrap();
    let config = trial.join("config.yml");
    assert!(fs::read_to_string(&config).unwrap().contains("# seed 7 (merge with --random-seed 7;"));
    let by_hand = sweep.run(&["merge", &config.to_string_lossy(), "by-hand", "--random-seed", "7"], "ok");
    assert_eq!(by_hand.status.code(), Some(0), "{}", text(&by_hand.stderr));
    let same = sweep.run(&["diff", "by-hand", &trial.join("model").to_string_lossy()], "ok");
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stdout));
}

#[test]
fn what_is_published_names_no_home_folder() {
    let Some(sweep) = Sweep::new() else { return };
    let inputs = sweep.path("inputs");
    for file in walk(&fixture("mergekit-parity/inputs")) {
        let copy = inputs.join(file.strip_prefix(fixture("mergekit-parity/inputs")).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        if file.is_file() {
            fs::copy(&file, &copy).unwrap();
        }
    }
    // One that cannot be merged, for a reason that names a file.
    fs::remove_file(inputs.join("chat/config.json")).unwrap();
    let broken =
        "\n[[merge]]\nname = \"Broken\"\nmethod = \"linear\"\nmodels = { \"./inputs/chat\" = { weight = 1.0 } }\n";
    sweep.write(&format!("{}{broken}", SPEC.replace("INPUTS", "./inputs")));
    let home = sweep.path("");
    let home = home.to_str().unwrap().trim_end_matches('/');
    let run = sweep.command(&["run", "sweep.toml"], "ok").env("HOME", home).output().unwrap();
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    let journal = sweep.journal();
    assert!(journal.contains("~/inputs/chat"), "{journal}");
    for file in fs::read_dir(sweep.results()).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_file())
    {
        let written = text(&fs::read(&file).unwrap());
        assert!(!written.contains(home), "{}: {written}", file.display());
    }
}

#[test]
fn a_token_is_handed_on_and_written_nowhere() {
    let Some(sweep) = Sweep::new() else { return };
    let token = "hf_never_to_be_seen";
    let run = sweep.command(&["run", "sweep.toml"], "leak").env("HF_TOKEN", token).output().unwrap();
    assert_eq!(run.status.code(), Some(3), "{}", text(&run.stderr));
    assert!(text(&run.stderr).contains("the hub refused [hidden]"), "{}", text(&run.stderr));
    assert!(sweep.journal().contains("the hub refused [hidden]"));
    let files: Vec<PathBuf> = walk(&sweep.path("results")).into_iter().filter(|path| path.is_file()).collect();
    assert!(files.iter().any(|path| text(&fs::read(path).unwrap()).contains("my token is [hidden]")));
    for said in files.iter().map(|path| fs::read(path).unwrap()).chain([run.stdout, run.stderr]) {
        assert!(!text(&said).contains(token), "{}", text(&said));
    }

    let script = |lines: &str| format!("{SPEC}\n[engine]\n{lines}\n");
    for (spec, name) in [
        (SPEC.replace("batch_size = 4", "batch_size = 4\nmodel_args = { token = \"hf_never\" }"), "token"),
        (script("prologue = '''\nmodule load cuda\nexport HF_TOKEN=hf_never\n'''"), "HF_TOKEN"),
        (script("sbatch = [\"--export=ALL,HF_TOKEN=hf_never\"]"), "HF_TOKEN"),
        (script("merge.sbatch = [\"--export=ALL,A_KEY=hf_never\"]\nsplit = true"), "A_KEY"),
        (script("container = [\"apptainer\", \"exec\", \"--env\", \"HF_TOKEN=hf_never\"]"), "HF_TOKEN"),
    ] {
        sweep.write(&spec);
        let refused = sweep.run(&["plan", "sweep.toml"], "ok");
        assert_eq!(refused.status.code(), Some(2), "{spec}");
        assert!(text(&refused.stderr).contains(&format!("`{name}` looks like a secret")), "{}", text(&refused.stderr));
    }
    sweep.write(&script("sbatch = [\"--wckey=project\"]\nprologue = \"export HF_TOKEN=$(cat ~/.token)\""));
    assert_eq!(sweep.run(&["plan", "sweep.toml"], "ok").status.code(), Some(0));
}
