//! Sweeps on a real Slurm: what it does, and what becomes of a sweep when jobs, nodes or people do something else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use crate::slurm_support::{Cluster, kill, model_bytes, n_models};
use crate::support::{require_model, require_python};
use crate::sweep_support::{Sweep, TINY, count, text, wait_for, walk};

/// What the tiny sweep asks of Slurm: a trial a task.
pub const ENGINE: &str = r#"
[engine]
kind = "slurm"
trials_per_job = 1
gpus = 1
cpus = 1
poll = 1
"#;

/// The tiny sweep whose scores depend on the weights, which the stand-in reads only for this back end.
pub fn spec() -> String {
    TINY.replace("model = \"dummy\"", "model = \"hf\"\ndevice = \"cpu\"")
}

fn tiny(name: &str, engine: &str) -> Sweep {
    let (head, merges) = spec().replacen("tiny", name, 1).split_once("[[baseline]]").map(own).unwrap();
    Sweep::of(&format!("{head}{engine}[[baseline]]{merges}")).unwrap()
}

pub fn own((head, tail): (&str, &str)) -> (String, String) {
    (head.to_owned(), tail.to_owned())
}

/// A sweep that ran here, undisturbed.
pub fn undisturbed(spec: &str) -> Sweep {
    let sweep = Sweep::of(spec).unwrap();
    let mut run = sweep.command(&["run", "sweep.toml", "--engine", "local"], "ok");
    let run = run.env("FAKE_LM_EVAL_LOG", sweep.path("evaluated.log")).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    sweep
}

pub fn assert_code(output: &Output, code: i32) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
}

/// Every finished evaluation, with how often it was made.
fn evaluated(sweep: &Sweep) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(sweep.path("evaluated.log")).unwrap_or_default();
    let mut counts = BTreeMap::new();
    log.lines().for_each(|line| *counts.entry(line.to_owned()).or_default() += 1);
    counts
}

pub fn assert_each_once(sweep: &Sweep) {
    let evaluated = evaluated(sweep);
    assert!(evaluated.values().all(|count| *count == 1), "{evaluated:#?}");
}

/// What the jobs of the first submission printed.
fn logs(sweep: &Sweep) -> String {
    walk(&sweep.results().join("slurm/1/logs")).iter().map(|log| fs::read_to_string(log).unwrap()).collect()
}

#[test]
fn a_sweep_on_slurm_survives_what_jobs_and_people_do() {
    let Some(cluster) = Cluster::start(3, 8) else { return };
    let expected = undisturbed(&spec()).table();
    std::thread::scope(|scope| {
        // The time limit of a job is a minute at least: everything else happens meanwhile.
        let time_out = scope.spawn(|| runs_out_of_time(&cluster, &expected));
        for scenario in [attached, detached, twice, refused, cancelled_by_somebody, cancelled, requeued, too_large] {
            scenario(&cluster, &expected);
        }
        time_out.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The run stays, and gives what a local one gives; `plan` prints what it submits; no secret is written.
fn attached(cluster: &Cluster, expected: &str) {
    let engine = format!("{ENGINE}prologue = \"export FROM_PROLOGUE='it is'\"\nsbatch = [\"--nice=7\"]\n");
    let sweep = tiny("with 'quotes' $(touch x)", &engine);
    let plan = cluster.run(&sweep, &["plan", "sweep.toml", "--engine", "slurm"], "ok");
    assert_code(&plan, 0);
    let mut run = cluster.command(&sweep, &["run", "sweep.toml"], "ok");
    let run = run.env("HF_TOKEN", "hf_a-secret-token").output().unwrap();
    assert_code(&run, 0);
    assert!(text(&run.stdout).contains("| SLERP (t=0.5)"), "{}", text(&run.stdout));
    assert_eq!(sweep.table(), expected);
    assert_each_once(&sweep);
    let samples = walk(&sweep.results()).into_iter().filter(|path| path.ends_with("sample.json"));
    assert_eq!(samples.count(), 2, "of every merge, in the folder of its trial");
    assert!(!sweep.path("x").exists(), "a name of the spec was run by a shell");

    let submission = sweep.results().join("slurm/1");
    let mut scripts: Vec<PathBuf> =
        walk(&submission).into_iter().filter(|path| path.extension().is_some_and(|end| end == "sh")).collect();
    scripts.sort();
    let plan = text(&plan.stdout);
    assert_eq!(scripts.len(), 2, "{scripts:?}");
    for script in &scripts {
        let script = fs::read_to_string(script).unwrap();
        assert!(plan.contains(&script), "{plan}\nmisses\n{script}");
        assert!(script.contains("#SBATCH --nice=7") || script.contains("slurm-table"), "{script}");
    }
    let written = walk(&sweep.results()).into_iter().filter(|path| path.is_file());
    let told: Vec<PathBuf> = written.filter(|path| text(&fs::read(path).unwrap()).contains("a-secret-token")).collect();
    assert_eq!(told, Vec::<PathBuf>::new());

    let again = cluster.run(&sweep, &["run", "sweep.toml"], "ok");
    assert_code(&again, 0);
    assert!(text(&again.stderr).contains("3 of them reused"), "{}", text(&again.stderr));
}

/// The run leaves, and the last job writes the table.
fn detached(cluster: &Cluster, expected: &str) {
    let sweep = tiny("detached", ENGINE);
    let run = cluster.run(&sweep, &["run", "sweep.toml", "--detach"], "ok");
    assert_code(&run, 0);
    wait_for(|| sweep.results().join("table.csv").exists() && sweep.journal().contains("\"closed\""));
    wait_for(|| fs::read_to_string(sweep.results().join("table.csv")).unwrap() == expected);
    assert_each_once(&sweep);
}

/// A sweep that is submitted again while it is with Slurm is joined, and a script that is submitted by hand finds its work
/// taken.
fn twice(cluster: &Cluster, expected: &str) {
    let sweep = tiny("twice", ENGINE);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml", "--detach"], "ok"), 0);
    let script =
        walk(&sweep.results().join("slurm/1")).into_iter().find(|path| path.to_string_lossy().ends_with(".1.sh"));
    let by_hand = cluster.slurm("sbatch", &[&script.unwrap().to_string_lossy()]);
    assert_code(&by_hand, 0);
    let second = cluster.run(&sweep, &["run", "sweep.toml"], "ok");
    assert_code(&second, 0);
    assert!(
        text(&second.stderr).contains("submission 1 of this sweep is on Slurm already"),
        "{}",
        text(&second.stderr)
    );
    assert_eq!(sweep.table(), expected);
    assert_each_once(&sweep);
    assert_eq!(count(&sweep.journal(), "\"opened\""), 1);
}

/// A job that Slurm refuses is told of, and nothing is left behind.
fn refused(cluster: &Cluster, expected: &str) {
    let sweep = tiny("refused", &ENGINE.replace("cpus = 1", "partition = \"nowhere\""));
    let run = cluster.run(&sweep, &["run", "sweep.toml"], "ok");
    assert_code(&run, 2);
    assert!(text(&run.stderr).to_lowercase().contains("invalid partition"), "{}", text(&run.stderr));
    let spec = fs::read_to_string(sweep.path("sweep.toml")).unwrap();
    fs::write(sweep.path("sweep.toml"), spec.replace("nowhere", "main")).unwrap();
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(sweep.table(), expected);
}

/// A task that somebody ends is a failed trial with that reason; the next run does it.
fn cancelled_by_somebody(cluster: &Cluster, expected: &str) {
    let sweep = tiny("somebody", ENGINE);
    let mut run = cluster.command(&sweep, &["run", "sweep.toml"], "hang-once");
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| sweep.path("once").exists() && cluster.running(&sweep).len() == 1);
    assert_code(&cluster.slurm("scancel", &[&cluster.running(&sweep)[0]]), 0);
    let run = run.wait_with_output().unwrap();
    assert_code(&run, 3);
    assert!(text(&run.stderr).contains("was cancelled on Slurm"), "{}", text(&run.stderr));
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(sweep.table(), expected);
    assert_each_once(&sweep);
}

/// `cancel` ends everything; before, no local run touches the sweep; after, one goes on.
fn cancelled(cluster: &Cluster, expected: &str) {
    let sweep = tiny("cancelled", ENGINE);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml", "--detach"], "hang-once"), 0);
    wait_for(|| sweep.path("once").exists());
    let status = cluster.run(&sweep, &["status", "sweep.toml"], "ok");
    assert_code(&status, 0);
    assert!(text(&status.stdout).contains("evaluating"), "{}", text(&status.stdout));
    assert!(text(&status.stderr).contains("Slurm: submission 1"), "{}", text(&status.stderr));
    let local = cluster.run(&sweep, &["run", "sweep.toml", "--engine", "local"], "ok");
    assert_code(&local, 75);
    let cancel = cluster.run(&sweep, &["cancel", "sweep.toml"], "ok");
    assert_code(&cancel, 0);
    assert_eq!(cluster.running(&sweep), Vec::<String>::new());
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml", "--engine", "local"], "ok"), 0);
    assert_eq!(sweep.table(), expected);
    assert_each_once(&sweep);
    let again = cluster.run(&sweep, &["cancel", "sweep.toml"], "ok");
    assert!(text(&again.stderr).contains("has nothing on Slurm"), "{}", text(&again.stderr));
}

/// A task that is put back into the queue, as by preemption, begins again and goes on where it was.
fn requeued(cluster: &Cluster, expected: &str) {
    let sweep = tiny("requeued", ENGINE);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml", "--detach"], "hang-once"), 0);
    wait_for(|| sweep.path("once").exists() && cluster.running(&sweep).len() == 1);
    assert_code(&cluster.slurm("scontrol", &["requeue", &cluster.running(&sweep)[0]]), 0);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(sweep.table(), expected);
    assert_each_once(&sweep);
    assert_eq!(count(&sweep.journal(), "\"submitting\""), 2, "an array and the table");
}

/// What a split sweep asks for: merges on the first node, evaluations on the others.
const SPLIT: &str = r#"
[engine]
kind = "slurm"
split = true
trials_per_job = 1
partition = "gpu"
gpus = 1
cpus = 1
poll = 1
merge = { partition = "cpu", cpus = 2 }
"#;

#[test]
fn a_split_sweep_goes_in_waves_and_survives_a_kill() {
    let Some(cluster) = &Cluster::start(3, 4) else { return };
    let spec = |engine: &str| {
        let spec = spec().replace("[0.25, 0.5]", "[0.2, 0.4, 0.6, 0.8]").replacen("tiny", "split", 1);
        let (head, merges) = spec.split_once("[[baseline]]").map(own).unwrap();
        format!("{head}{engine}[[baseline]]{merges}")
    };
    let here = undisturbed(&spec(""));
    let disk = format!("[resources]\ndisk = {}\n", 2 * model_bytes(&here) + 1);
    let sweep = Sweep::of(&spec(&format!("{disk}{SPLIT}"))).unwrap();
    let plan = cluster.run(&sweep, &["plan", "sweep.toml", "--engine", "slurm"], "ok");
    assert_code(&plan, 0);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml", "--detach"], "hang-once"), 0);
    assert_eq!(count(&sweep.journal(), "\"submitting\""), 5, "two a wave, and the table");
    let submission = sweep.results().join("slurm/1");
    let plan = text(&plan.stdout);
    for script in walk(&submission).into_iter().filter(|path| path.extension().is_some_and(|end| end == "sh")) {
        assert!(plan.contains(&fs::read_to_string(&script).unwrap()), "{plan}\nmisses\n{}", script.display());
    }
    wait_for(|| sweep.path("once").exists());
    let mut most = 0;
    let mut is_killed = false;
    let mut run = cluster.command(&sweep, &["run", "sweep.toml"], "ok");
    let mut run = run.stdout(Stdio::null()).stderr(fs::File::create(sweep.path("told")).unwrap()).spawn().unwrap();
    while run.try_wait().unwrap().is_none() {
        most = most.max(n_models(&sweep));
        // The evaluation that hangs.
        if !std::mem::replace(&mut is_killed, true) {
            cluster.units(&sweep).into_iter().for_each(|pid| _ = kill(pid));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let told = fs::read_to_string(sweep.path("told")).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0), "{told}");
    assert_eq!(sweep.table(), here.table());
    assert_each_once(&sweep);
    assert!((1..=2).contains(&most), "{most} models at once");
    let logs = |part: &str| -> String {
        let logs = walk(&submission.join("logs")).into_iter().filter(|log| log.to_string_lossy().contains(part));
        logs.map(|log| fs::read_to_string(log).unwrap()).collect()
    };
    assert!(logs(".merge-").contains("on n1") && !logs(".merge-").contains("on n2"), "{}", logs(".merge-"));
    assert!(logs(".eval-").contains("on n2") && !logs(".eval-").contains("on n1"), "{}", logs(".eval-"));
    assert!(!logs(".eval-").contains(" merging"), "{}", logs(".eval-"));
}

/// Four merges, one a unit, on a disk for one model: what a killed task leaves makes room for the next.
#[test]
fn a_killed_task_leaves_no_model_over_the_budget() {
    let Some(cluster) = &Cluster::start(2, 4) else { return };
    let spec = |engine: &str| {
        let spec = spec().replace("[0.25, 0.5]", "[0.2, 0.4, 0.6, 0.8]").replacen("tiny", "room", 1);
        let (head, rest) = spec.split_once("[[baseline]]").unwrap();
        let (_, merges) = rest.split_once("[[merge]]").unwrap();
        format!("{head}{engine}[[merge]]{merges}")
    };
    let here = undisturbed(&spec(""));
    let disk = format!("[resources]\ndisk = {}\n", model_bytes(&here) + 1);
    let sweep = Sweep::of(&spec(&format!("{disk}{ENGINE}"))).unwrap();
    let told = fs::File::create(sweep.path("told")).unwrap();
    let mut run = cluster.command(&sweep, &["run", "sweep.toml"], "hang");
    let mut run = run.stdout(Stdio::null()).stderr(told).spawn().unwrap();
    let mut most = 0;
    // Every task that got as far as a model is killed, once each: the next one must not find it there.
    let mut killed = std::collections::BTreeSet::new();
    while killed.len() < 3 {
        let n = n_models(&sweep);
        most = most.max(n);
        if n > 0 {
            killed.extend(cluster.units(&sweep).into_iter().filter(|pid| kill(*pid)));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert_code(&cluster.run(&sweep, &["cancel", "sweep.toml"], "ok"), 0);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(most, 1, "{} models at once\n{}", most, fs::read_to_string(sweep.path("told")).unwrap());
    assert_eq!(sweep.table(), here.table());
    assert_each_once(&sweep);
}

/// A job that could not be started is held by Slurm for good: it is let try again, on a node that is well.
#[test]
fn a_task_that_could_not_be_started_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (prologue, flag) = (folder.path().join("prologue"), folder.path().join("fails-once"));
    fs::write(&prologue, format!("#!/bin/sh\nif rm '{}' 2>/dev/null; then exit 1; fi\n", flag.display())).unwrap();
    fs::set_permissions(&prologue, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&flag, "").unwrap();
    let Some(cluster) = &Cluster::start_with(2, 4, &format!("Prolog={}", prologue.display())) else { return };
    let sweep = tiny("launch", ENGINE);
    let run = cluster.run(&sweep, &["run", "sweep.toml"], "ok");
    assert_code(&run, 0);
    assert!(!flag.exists());
    assert_eq!(count(&text(&run.stderr), "could not be started"), 1, "{}", text(&run.stderr));
    assert_eq!(sweep.table(), undisturbed(&spec()).table());
    assert_each_once(&sweep);
}

/// Merges that cannot be made fail in their own jobs, and nothing else does.
fn too_large(cluster: &Cluster, _: &str) {
    let sweep = tiny("large", &format!("[resources]\ndisk = \"1KB\"\n{SPLIT}"));
    let run = cluster.run(&sweep, &["run", "sweep.toml"], "ok");
    assert_code(&run, 3);
    assert!(text(&run.stderr).contains("1 trial done, 2 failed"), "{}", text(&run.stderr));
    assert_eq!(count(&sweep.journal(), "raise `resources.disk`"), 2, "{}", sweep.journal());
}

/// A task that runs out of time is submitted again and goes on.
fn runs_out_of_time(cluster: &Cluster, expected: &str) {
    let sweep = tiny("late", &format!("{ENGINE}time = \"1m\"\n"));
    let run = cluster.run(&sweep, &["run", "sweep.toml"], "hang-once");
    assert_code(&run, 0);
    assert_eq!(sweep.table(), expected);
    assert_each_once(&sweep);
    // Whoever looks first says so: the run, or the job that writes the table.
    let told = text(&run.stderr) + &logs(&sweep);
    assert!(told.contains("ran out of time: submitted again"), "{told}");
    assert_eq!(count(&sweep.journal(), "\"submitting\""), 4, "two arrays and two tables: {}", sweep.journal());
}

/// Two documents of one loss task, for three trials.
fn real(name: &str, model: &std::path::Path, python: &std::path::Path) -> String {
    let sweeps = crate::support::fixture("../../sweeps").canonicalize().unwrap();
    let (model, sweeps, python) = (model.display(), sweeps.display(), python.display());
    format!(
        r#"
name = "{name}"

[models]
base = "{model}"
math = "{model}+{sweeps}/adapters/math"
code = "{model}+{sweeps}/adapters/code"

[evaluate]
tasks = [{{ task = "math_bpb", limit = 2 }}]
include_path = "{sweeps}/tasks"
model_args = {{ dtype = "float32" }}
batch_size = 2
device = "cpu"
python = "{python}"
environment = {{ HF_HUB_OFFLINE = "1", HF_DATASETS_OFFLINE = "1" }}

[engine]
kind = "slurm"
trials_per_job = 1
cpus = 1
poll = 1
work_dir = "$TMPDIR"
prologue = "export TMPDIR=$(mktemp -d)"

[[baseline]]
name = "Base"
model = "base"

[[merge]]
name = "SLERP (t={{t}})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
dtype = "bfloat16"
grid.t = [0.3, 0.6]
"#
    )
}

/// What the harness wrote about every document, by trial.
fn items(sweep: &Sweep) -> BTreeMap<String, String> {
    let samples = walk(&sweep.results().join("trials"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("samples_")));
    let mut items = BTreeMap::new();
    for file in samples {
        let trial = file.strip_prefix(sweep.results().join("trials")).unwrap().iter().next().unwrap();
        items.insert(trial.to_string_lossy().into_owned(), fs::read_to_string(&file).unwrap());
    }
    items
}

#[test]
fn the_real_harness_answers_on_three_nodes_as_it_does_here() {
    let (Some(python), Some(model)) = (require_python(), require_model()) else { return };
    let Some(cluster) = Cluster::start(3, 1) else { return };
    // The stand-in is out of the way.
    let run = |sweep: &Sweep, args: &[&str]| {
        assert_code(&cluster.command(sweep, args, "ok").env_remove("PYTHONPATH").output().unwrap(), 0);
    };
    let on_slurm = Sweep::of(&real("real", &model, &python)).unwrap();
    run(&on_slurm, &["run", "sweep.toml"]);
    let here = Sweep::of(&real("real", &model, &python)).unwrap();
    run(&here, &["run", "sweep.toml", "--engine", "local"]);
    assert_eq!(on_slurm.table(), here.table());
    let answers = items(&on_slurm);
    assert_eq!(answers.len(), 3, "{:?}", answers.keys());
    assert_eq!(answers, items(&here));
    let logs = logs(&on_slurm);
    for node in ["on n1", "on n2", "on n3"] {
        assert!(logs.contains(node), "{node}: {logs}");
    }
}
