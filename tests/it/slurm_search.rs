//! Searches on a real Slurm: part by part, whoever looks, with the decisions of a run here and no document asked twice.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::search_support::{asked, assert_asked_once, decisions, records};
use crate::slurm_support::{Cluster, kill, model_bytes, n_models};
use crate::support::require_python;
use crate::sweep_support::{Sweep, count, text, wait_for};
use crate::{optuna, race, refine};

const ENGINE: &str = "[engine]\nkind = \"slurm\"\ntrials_per_job = 4\ncpus = 1\npoll = 1\n";

/// A race of fewer rungs, with documents set aside.
fn raced() -> String {
    race::SPEC.replace("metric = \"quiz\"", "metric = \"quiz\"\nrungs = [0.2, 0.5, 1]\nconfirmation = 0.2")
}

pub fn with(spec: &str, engine: &str) -> String {
    spec.replace("[report]", &format!("{engine}\n[report]"))
}

/// The program on a cluster, with answers as siblings give them and the interpreter that has what a search needs.
pub fn command(cluster: &Cluster, sweep: &Sweep, args: &[&str], outcome: &str) -> Command {
    let mut command = cluster.command(sweep, args, outcome);
    command.env("FAKE_LM_EVAL_SIBLINGS", "1").env("FAKE_LM_EVAL_PEAK", "0.37");
    if let Some(python) = require_python() {
        command.args(["--python", &python.to_string_lossy()]);
    }
    command
}

fn run(cluster: &Cluster, sweep: &Sweep, args: &[&str]) -> Output {
    let output = command(cluster, sweep, args, "ok").output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "stdout: {out}\nstderr: {err}");
    output
}

/// The same here, undisturbed.
fn here(cluster: &Cluster, spec: &str) -> Sweep {
    let sweep = Sweep::of(spec).unwrap();
    run(cluster, &sweep, &["run", "sweep.toml", "--engine", "local"]);
    sweep
}

fn assert_same(sweep: &Sweep, here: &Sweep) {
    assert_eq!(decisions(sweep), decisions(here));
    assert_eq!(sweep.table(), here.table());
    assert_asked_once(sweep);
    assert_eq!(asked(sweep), asked(here));
}

/// Steps of submissions of one kind.
fn steps(sweep: &Sweep, step: &str) -> Vec<Json> {
    records(sweep).into_iter().filter(|record| record["step"] == step).collect()
}

/// Waits for five minutes at most.
fn wait_long(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(300) {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited five minutes in vain");
}

fn is_over(sweep: &Sweep, here: &Sweep) -> bool {
    let journal = sweep.journal();
    count(&journal, "\"closed\"") == count(&journal, "\"opened\"")
        && decisions(sweep).len() == decisions(here).len()
        && fs::read_to_string(sweep.results().join("table.csv")).is_ok_and(|table| table == here.table())
}

#[test]
fn a_race_on_slurm_decides_as_here_whoever_looks() {
    let Some(cluster) = Cluster::start(3, 4) else { return };
    let here = here(&cluster, &raced());
    for scenario in [attached, detached, last_job_lost, cancelled, little_disk, lost] {
        scenario(&cluster, &here);
    }
}

/// A run that stays: a submission for every rung and one for the end, each with an array and a job after it.
fn attached(cluster: &Cluster, here: &Sweep) {
    let sweep = Sweep::of(&with(&raced(), ENGINE)).unwrap();
    let plan = run(cluster, &sweep, &["plan", "sweep.toml", "--engine", "slurm"]);
    assert!(text(&plan.stdout).contains("--array=0-2") && text(&plan.stderr).contains("the next part of the search"));
    let told = run(cluster, &sweep, &["run", "sweep.toml"]);
    assert_same(&sweep, here);
    assert_eq!(steps(&sweep, "opened").len(), 4);
    assert_eq!(steps(&sweep, "submitting").len(), 8, "as long as an array holds all units");
    assert!(text(&told.stdout).contains("leads"), "{}", text(&told.stdout));
    let before = sweep.journal();
    let again = run(cluster, &sweep, &["run", "sweep.toml"]);
    assert_eq!(sweep.journal(), before, "a second run does nothing");
    assert!(text(&again.stderr).contains("13 of them reused"), "{}", text(&again.stderr));
    // Models stayed from rung to rung, and went with their trials.
    assert_eq!(count(&before, "\"event\":\"merged\""), 12);
    assert_eq!(n_models(&sweep), 0);
}

/// Nobody stays: the last job of every part submits the next one.
fn detached(cluster: &Cluster, here: &Sweep) {
    let sweep = Sweep::of(&with(&raced(), ENGINE)).unwrap();
    let left = run(cluster, &sweep, &["run", "sweep.toml", "--detach"]);
    assert!(text(&left.stderr).contains("with Slurm"), "{}", text(&left.stderr));
    let status = run(cluster, &sweep, &["status", "sweep.toml"]);
    assert!(text(&status.stderr).contains("submission 1 (rung 1)"), "{}", text(&status.stderr));
    wait_long(|| is_over(&sweep, here));
    assert_same(&sweep, here);
    assert_eq!(steps(&sweep, "opened").len(), 4);
}

/// Nobody stays, and the first task of the last job of two parts is lost, at work and before: the second one does what is due.
fn last_job_lost(cluster: &Cluster, here: &Sweep) {
    let sweep = Sweep::of(&with(&raced(), ENGINE)).unwrap();
    run(cluster, &sweep, &["run", "sweep.toml", "--detach"]);
    let lock = fs::File::open(sweep.results().join("lock")).unwrap();
    lock.lock().unwrap();
    wait_long(|| !cluster.doing(&sweep, "slurm-table").is_empty());
    cluster.doing(&sweep, "slurm-table").into_iter().for_each(|pid| _ = kill(pid));
    lock.unlock().unwrap();
    let second = || {
        let tables =
            steps(&sweep, "submitted").into_iter().filter(|job| job["name"].as_str().unwrap().ends_with(".table"));
        tables.filter(|job| job["submission"] == 2).find_map(|job| Some(job["job"].as_str()?.to_owned()))
    };
    wait_long(|| second().is_some());
    let listed = text(&cluster.slurm("squeue", &["-h", "-r", "-o", "%i", "-j", &second().unwrap()]).stdout);
    let first = listed.lines().min().unwrap();
    assert!(cluster.slurm("scancel", &[first]).status.success());
    wait_long(|| is_over(&sweep, here));
    assert_same(&sweep, here);
    assert_eq!(steps(&sweep, "opened").len(), 4);
}

/// Cancelled in the middle, no further part is submitted; a run goes on, here or there.
fn cancelled(cluster: &Cluster, here: &Sweep) {
    let sweep = Sweep::of(&with(&raced(), ENGINE)).unwrap();
    run(cluster, &sweep, &["run", "sweep.toml", "--detach"]);
    wait_long(|| decisions(&sweep).len() > 1 || steps(&sweep, "closed").len() > 1);
    run(cluster, &sweep, &["cancel", "sweep.toml"]);
    let before = sweep.journal();
    // The last job of the part before this one may still write its table.
    wait_for(|| cluster.running(&sweep).is_empty());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sweep.journal(), before, "nothing goes on");
    run(cluster, &sweep, &["run", "sweep.toml", "--engine", "local"]);
    assert_same(&sweep, here);
}

/// Waves of merges and evaluations, on a disk for four models: more are merged again for every rung.
fn little_disk(cluster: &Cluster, here: &Sweep) {
    let split = "split = true\npartition = \"gpu\"\nmerge = { partition = \"cpu\" }\n";
    let disk = format!("cpu_slots = 2\ndisk = {}", 4 * model_bytes(here));
    let engine = ENGINE.replace("trials_per_job = 4", "trials_per_job = 2");
    let sweep = Sweep::of(&with(&raced(), &format!("{engine}{split}")).replace("cpu_slots = 2", &disk)).unwrap();
    let told = fs::File::create(sweep.path("told")).unwrap();
    let mut run = command(cluster, &sweep, &["run", "sweep.toml"], "ok");
    let mut run = run.stdout(Stdio::null()).stderr(told).spawn().unwrap();
    while run.try_wait().unwrap().is_none() {
        let n_models = n_models(&sweep);
        assert!(n_models <= 4, "{n_models} models at once");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(run.wait().unwrap().success(), "{}", fs::read_to_string(sweep.path("told")).unwrap());
    assert_same(&sweep, here);
}

/// Trials of a task that is lost for good are out for this run; the next one asks them.
fn lost(cluster: &Cluster, here: &Sweep) {
    let engine = format!("{ENGINE}max_resubmissions = 0\n");
    let sweep = Sweep::of(&with(&raced(), &engine)).unwrap();
    let told = fs::File::create(sweep.path("told")).unwrap();
    let mut first = command(cluster, &sweep, &["run", "sweep.toml"], "hang-once");
    let mut first = first.stdout(Stdio::null()).stderr(told).spawn().unwrap();
    wait_for(|| sweep.path("once").exists() && cluster.running(&sweep).len() == 1);
    cluster.units(&sweep).into_iter().for_each(|pid| _ = kill(pid));
    let status = first.wait().unwrap();
    assert_eq!(status.code(), Some(3), "{}", fs::read_to_string(sweep.path("told")).unwrap());
    assert_ne!(decisions(&sweep), decisions(here));
    run(cluster, &sweep, &["run", "sweep.toml"]);
    assert_eq!(decisions(&sweep).last(), decisions(here).last());
    assert_eq!(sweep.table(), here.table());
    assert_asked_once(&sweep);
}

#[test]
fn searches_for_points_on_slurm_place_the_same_points() {
    let Some(_) = require_python() else { return };
    let Some(cluster) = Cluster::start(2, 4) else { return };
    let optuna = optuna::SPEC.replace("trials = 9", "trials = 6");
    for (spec, detaches) in [(refine::SPEC, false), (&optuna, false), (&optuna, true)] {
        let here = here(&cluster, spec);
        let sweep = Sweep::of(&with(spec, ENGINE)).unwrap();
        if detaches {
            run(&cluster, &sweep, &["run", "sweep.toml", "--detach"]);
            wait_long(|| is_over(&sweep, &here));
        } else {
            run(&cluster, &sweep, &["run", "sweep.toml"]);
        }
        assert_same(&sweep, &here);
    }
}
