//! What a spec asks for reaches the jobs of a real Slurm, and tasks that work through several trials leave what a run here leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value as Json;

use crate::search_support::records;
use crate::slurm::{ENGINE, assert_code, assert_each_once, own, spec, undisturbed};
use crate::slurm_support::{Cluster, model_bytes};
use crate::sweep_support::{Sweep, count, text, wait_for, walk};

/// Three baselines and five merges whose scores depend on the weights.
fn several(asks: &str) -> String {
    let spec = spec().replacen("tiny", "several", 1).replace("[0.25, 0.5]", "[0.1, 0.3, 0.5, 0.7, 0.9]");
    let (head, rest) = spec.split_once("[[baseline]]").map(own).unwrap();
    let more = ["math", "code"].map(|model| format!("[[baseline]]\nname = \"{model}\"\nmodel = \"{model}\"\n\n"));
    format!("{head}{asks}\n{}[[baseline]]{rest}", more.concat())
}

fn trials_a_task(n: usize) -> String {
    ENGINE.replace("trials_per_job = 1", &format!("trials_per_job = {n}"))
}

/// The folder that a trial of an identity has.
fn trial_folder(id: &Json) -> String {
    format!("-{}", &id.as_str().unwrap()[..8])
}

/// Who made the evaluations of every unit of the first submission: as many texts as processes.
fn processes(sweep: &Sweep) -> Vec<BTreeSet<String>> {
    let written = walk(&sweep.results().join("trials"));
    let of_trial = |trial: &Json| {
        let folder = trial_folder(&trial["id"]);
        let is_its = |path: &&std::path::PathBuf| {
            let place = path.strip_prefix(sweep.results().join("trials")).unwrap();
            place.iter().next().unwrap().to_string_lossy().ends_with(&folder)
                && path.ends_with("process.json")
                && path.iter().any(|part| part == "evaluations")
        };
        written.iter().filter(is_its).map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>()
    };
    let records = records(sweep);
    let opened = records.iter().find(|record| record["step"] == "opened").unwrap();
    let trials = |unit: &Json| unit["trials"].as_array().unwrap().iter().flat_map(of_trial).collect();
    opened["units"].as_array().unwrap().iter().map(trials).collect()
}

/// One process of the harness stays for all trials of a task, whatever they are.
#[test]
fn a_task_works_through_several_trials_with_one_process() {
    let Some(cluster) = Cluster::start(3, 4) else { return };
    let sweep = Sweep::of(&several(&trials_a_task(3))).unwrap();
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(sweep.table(), undisturbed(&several("")).table());
    assert_each_once(&sweep);
    let processes = processes(&sweep);
    assert!(processes.len() == 3 && processes.iter().all(|of_unit| of_unit.len() == 1), "{processes:#?}");
    assert_eq!(processes.iter().flatten().collect::<BTreeSet<_>>().len(), 3, "{processes:#?}");
    assert_eq!(count(&sweep.journal(), "\"event\":\"evaluated\""), 8);

    // What is done again is so alone, whoever shares its unit.
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml", "--redo", "SLERP (t=0.3)"], "ok"), 0);
    assert_eq!(count(&sweep.journal(), "\"event\":\"evaluated\""), 9);
    assert_eq!(count(&sweep.journal(), "\"event\":\"merged\""), 6);
}

/// Folders of the trials whose merged model is there.
fn kept(sweep: &Sweep) -> BTreeSet<String> {
    let models = walk(&sweep.results().join("trials")).into_iter().filter(|path| path.ends_with("model/config.json"));
    models.map(|path| name_of(path.ancestors().nth(2).unwrap())).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Which models are the best is known at the end only, to whoever is there then.
#[test]
fn models_stay_as_they_do_here_and_any_is_made_again() {
    let Some(cluster) = Cluster::start(3, 4) else { return };
    let (best, split) = ("best:2:facts_acc", format!("{}split = true\n", trials_a_task(2)));
    for (keep, n_kept, engine, detaches) in [
        ("all", 5, &trials_a_task(2), true),
        (best, 2, &trials_a_task(2), false),
        (best, 2, &trials_a_task(2), true),
        (best, 2, &split, false),
    ] {
        let limits = format!("[limits]\nkeep = \"{keep}\"\n");
        let here = undisturbed(&several(&limits));
        let sweep = Sweep::of(&several(&format!("{limits}{engine}"))).unwrap();
        let detach: &[&str] = if detaches { &["--detach"] } else { &[] };
        assert_code(&cluster.run(&sweep, &[&["run", "sweep.toml"], detach].concat(), "ok"), 0);
        wait_for(|| sweep.journal().contains("\"closed\"") && kept(&sweep) == kept(&here));
        wait_for(|| fs::read_to_string(sweep.results().join("table.csv")).is_ok_and(|table| table == here.table()));
        assert_eq!(kept(&sweep).len(), n_kept);
        let again = cluster.run(&sweep, &["run", "sweep.toml"], "ok");
        assert_code(&again, 0);
        assert!(text(&again.stderr).contains("8 of them reused"), "{}", text(&again.stderr));
        assert_eq!(kept(&sweep), kept(&here), "a second run changes nothing");
        assert_each_once(&sweep);
        for t in ["0.1", "0.3", "0.5", "0.7", "0.9"] {
            let made = cluster.run(&sweep, &["materialize", "sweep.toml", &format!("SLERP (t={t})"), "again"], "ok");
            assert_code(&made, 0);
            assert!(text(&made.stderr).contains("the same that were evaluated"), "{}", text(&made.stderr));
        }
    }
}

/// Where all models stay there is room for all of them: no task gets a part of it only, and none waits for another.
#[test]
fn models_that_all_stay_take_no_turns() {
    let Some(cluster) = Cluster::start(3, 4) else { return };
    let limits = "[limits]\nkeep = \"all\"\nmerges_per_pass = 1\n";
    let here = undisturbed(&several(limits));
    let disk = format!("[resources]\ndisk = {}\n", 5 * model_bytes(&here));
    let sweep = Sweep::of(&several(&format!("{limits}{disk}{}", trials_a_task(3)))).unwrap();
    let plan = cluster.run(&sweep, &["plan", "sweep.toml", "--engine", "slurm"], "ok");
    assert!(text(&plan.stdout).contains("--array=0-2\n"), "{}", text(&plan.stdout));
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(sweep.table(), here.table());
    assert_eq!(kept(&sweep), kept(&here));
}

/// What an earlier run kept takes its room, or goes if it need not stay.
#[test]
fn models_of_an_earlier_run_take_room_or_go() {
    let asks = |keep: &str, n: u64| format!("[limits]\nkeep = \"{keep}\"\n[resources]\ndisk = {n}\n{ENGINE}");
    let sweep = undisturbed(&several(&asks("all", 1 << 30)).replace(", 0.7, 0.9]", "]"));
    let bytes = model_bytes(&sweep);
    let plan = |keep: &str, n: u64| {
        sweep.write(&several(&asks(keep, n)));
        sweep.run(&["plan", "sweep.toml", "--engine", "slurm"], "ok")
    };
    assert_code(&plan("all", 5 * bytes), 0);
    let refused = plan("all", 5 * bytes - 1);
    assert_code(&refused, 2);
    assert!(text(&refused.stderr).contains("all models that `limits.keep` may keep take"), "{}", text(&refused.stderr));
    let Some(cluster) = Cluster::start(1, 4) else { return };
    assert_code(&plan("none", bytes), 0);
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(kept(&sweep), BTreeSet::new());
    assert_eq!(sweep.table(), undisturbed(&several("")).table());
}

/// What Slurm knows of the tasks of a job: `Key=Value` by `Key`.
fn shown(cluster: &Cluster, id: &str) -> Vec<BTreeMap<String, String>> {
    let shown = cluster.slurm("scontrol", &["--oneliner", "show", "job", id]);
    assert_code(&shown, 0);
    let pairs = |line: &str| {
        let pairs = line.split(' ').filter_map(|word| word.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    text(&shown.stdout).lines().map(pairs).collect()
}

#[test]
fn what_a_spec_asks_of_slurm_arrives_there() {
    let Some(cluster) = Cluster::start(2, 4) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (wrapper, log) = (folder.path().join("in 'it'"), folder.path().join("log"));
    // As the command of a container does: its own options first, then the program, which takes its place.
    let script = format!("#!/bin/sh\necho \"$1|$3\" >> '{}'\nshift\nexec \"$@\"\n", log.display());
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let asks = format!(
        r#"
[engine]
kind = "slurm"
trials_per_job = 4
poll = 1
partition = "gpu"
account = "lab-7"
qos = "high"
time = "1h30m"
gpus = 1
cpus = 2
memory = "512MiB"
sbatch = ["--nice=7", "--mail-user=it's \"me\" $HOME"]
container = ["{}", "--bind=a b:$HOME"]
table = {{ partition = "cpu", sbatch = ["--nice=8"] }}
"#,
        wrapper.display()
    );
    let sweep = Sweep::of(&several(&asks)).unwrap();
    let plan = cluster.run(&sweep, &["plan", "sweep.toml", "--engine", "slurm"], "ok");
    assert_code(&plan, 0);
    for (line, n) in [("--account=lab-7", 2), ("--qos=high", 2), ("--nice=7", 1), ("--nice=8", 1)] {
        assert_eq!(count(&text(&plan.stdout), &format!("\n#SBATCH {line}\n")), n, "{line}: {}", text(&plan.stdout));
    }
    assert_code(&cluster.run(&sweep, &["run", "sweep.toml"], "ok"), 0);
    assert_eq!(sweep.table(), undisturbed(&several("")).table());

    let submitted: Vec<Json> = records(&sweep).into_iter().filter(|record| record["step"] == "submitted").collect();
    let job = |is_table: bool| {
        let is_it = |job: &&Json| job["name"].as_str().unwrap().ends_with(".table") == is_table;
        shown(&cluster, submitted.iter().find(is_it).unwrap()["job"].as_str().unwrap())
    };
    // Without accounting Slurm takes any QoS, and shows none.
    let of_units = [
        ("Account", "lab-7"),
        ("Partition", "gpu"),
        ("TimeLimit", "01:30:00"),
        ("TresPerNode", "gres:gpu:1"),
        ("CPUs/Task", "2"),
        ("MinMemoryNode", "512M"),
        ("Nice", "7"),
    ];
    let of_table =
        [("Account", "lab-7"), ("Partition", "cpu"), ("TimeLimit", "00:15:00"), ("CPUs/Task", "1"), ("Nice", "8")];
    for (tasks, asked) in [(job(false), &of_units[..]), (job(true), &of_table)] {
        for (key, value) in asked {
            assert!(tasks.iter().all(|task| task.get(*key).is_some_and(|found| found == value)), "{key}: {tasks:#?}");
        }
    }
    let called = fs::read_to_string(&log).unwrap();
    assert_eq!(count(&called, "--bind=a b:$HOME|slurm-unit\n"), 3, "{called}");
    wait_for(|| fs::read_to_string(&log).unwrap().contains("--bind=a b:$HOME|slurm-table\n"));
}
