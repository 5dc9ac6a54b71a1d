//! A cluster in which everything is killed: units, node daemons, the controller, the client that follows them, at random
//! moments of a sweep of stand-in work. The table is that of a sweep that nobody disturbed, and nothing was lost or done twice.
//!
//! Once with units that are worked on by a task each, once split in waves; the disk has room for four models. And searches, part by
//! part: the same decisions and points, and no document is asked twice.
//!
//! `MERGESWEEP_SLURM_UNITS` says how many units the sweep has (12 here, 40 in `scripts/soak`), `MERGESWEEP_SLURM_KILLS` how many
//! kills must land (10; 60 there), `MERGESWEEP_KILL_SEED` when.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::search_support::{assert_asked_once, decisions};
use crate::slurm_search::{command, with};
use crate::slurm_support::{Cluster, kill, model_bytes, n_models};
use crate::support::require_python;
use crate::sweep_support::Sweep;
use crate::{optuna, race, refine};

fn spec(n_units: u64, engine: &str) -> String {
    format!(
        r#"
name = "chaos"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = ["facts", "sums"]
model = "hf"
batch_size = 4
device = "cpu"

[engine]
kind = "slurm"
trials_per_job = 1
cpus = 1
poll = 1
max_resubmissions = 1000
{engine}

[[baseline]]
name = "Math"
model = "math"

[[merge]]
name = "DARE (seed={{seed}})"
method = "dare_linear"
base_model = "base"
parameters = {{ density = 0.5 }}
models = {{ math = {{ weight = 0.5 }}, code = {{ weight = 0.5 }} }}
grid = {{ seed = {{ from = 1, to = {}, step = 1 }} }}
"#,
        n_units - 1
    )
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: `{text}`")))
}

/// A linear congruential generator, whose upper bits are good enough to choose a victim and a moment.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn client(cluster: &Cluster, sweep: &Sweep) -> Child {
    let log = fs::File::options().create(true).append(true).open(sweep.path("client.log")).unwrap();
    command(cluster, sweep, &["run", "sweep.toml"], "ok").stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// The same sweep here, undisturbed.
fn undisturbed(cluster: &Cluster, spec: &str) -> Sweep {
    let sweep = Sweep::of(spec).unwrap();
    let here = command(cluster, &sweep, &["run", "sweep.toml", "--engine", "local", "--quiet"], "ok").output().unwrap();
    assert!(here.status.success(), "{}", String::from_utf8_lossy(&here.stderr));
    sweep
}

/// Kills a daemon and starts it again. False where it was not there.
fn restart(cluster: &Cluster, daemon: &str, args: &[&str], pid: &str) -> bool {
    let Some(number) = cluster.pid(pid).filter(|number| kill(*number)) else { return false };
    while std::path::Path::new(&format!("/proc/{number}")).exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let started = Command::new("sh")
        .args(["-c", "exec \"$@\"", "sh", daemon])
        .args(args)
        .env("PATH", path)
        .env("SLURM_CONF", &cluster.conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    started.unwrap().success()
}

#[test]
fn a_cluster_in_which_everything_is_killed_loses_and_repeats_nothing() {
    println!("{}", chaos(12, 10, false));
}

#[test]
fn a_split_sweep_in_which_everything_is_killed_loses_and_repeats_nothing() {
    println!("{}", chaos(9, 6, true));
}

/// Models that the disk has room for.
const MOST: usize = 4;

/// Kills until enough was hit, and tells what.
fn chaos(n_units: u64, n_kills: u64, is_split: bool) -> String {
    let n_units = setting("MERGESWEEP_SLURM_UNITS", n_units);
    let Some(cluster) = Cluster::start(3, 2) else { return String::new() };
    let reference = undisturbed(&cluster, &spec(n_units, ""));
    let split = "split = true\npartition = \"gpu\"\nmerge = { partition = \"cpu\" }\n";
    let disk = model_bytes(&reference) * MOST as u64;
    let engine = format!("{}\n[resources]\ndisk = {disk}", if is_split { split } else { "" });
    let check = |sweep: &Sweep| check(sweep, &reference.table(), n_units as usize);
    let told = kill_all(&cluster, &spec(n_units, &engine), n_kills, Some(MOST), &check);
    let how = if is_split { "split sweeps" } else { "sweeps" };
    format!("{told} {how} of {n_units} units")
}

#[test]
fn a_race_on_a_cluster_in_which_everything_is_killed_decides_the_same_and_asks_nothing_twice() {
    println!(
        "{} races",
        search_chaos(&race::SPEC.replace("metric = \"quiz\"", "metric = \"quiz\"\nrungs = [0.2, 0.5, 1]"), 8)
    );
}

#[test]
fn searches_for_points_on_a_cluster_in_which_everything_is_killed_place_the_same() {
    let Some(_) = require_python() else { return };
    println!("{} refinements", search_chaos(refine::SPEC, 5));
    println!("{} searches by Optuna", search_chaos(&optuna::SPEC.replace("trials = 9", "trials = 6"), 5));
}

/// Kills while a search goes on, and tells what.
fn search_chaos(spec: &str, n_kills: u64) -> String {
    let Some(cluster) = Cluster::start(3, 2) else { return String::new() };
    let reference = undisturbed(&cluster, spec);
    let engine = "[engine]\nkind = \"slurm\"\ntrials_per_job = 2\ncpus = 1\npoll = 1\nmax_resubmissions = 1000\n";
    let check = |sweep: &Sweep| {
        let told = || fs::read_to_string(sweep.path("client.log")).unwrap();
        assert_eq!(decisions(sweep), decisions(&reference), "{}", told());
        assert_eq!(sweep.table(), reference.table(), "{}", told());
        assert_asked_once(sweep);
    };
    kill_all(&cluster, &with(spec, engine), n_kills, None, &check)
}

/// Kills whatever has to do with sweeps of a spec until enough was hit, looks at each once it is through, and tells what was killed.
fn kill_all(cluster: &Cluster, spec: &str, n_kills: u64, most: Option<usize>, check: &dyn Fn(&Sweep)) -> String {
    let n_kills = setting("MERGESWEEP_SLURM_KILLS", n_kills);
    let mut dice = Dice(setting("MERGESWEEP_KILL_SEED", 1));
    let begun = Instant::now();
    let mut landed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut n_sweeps = 0;
    while landed.values().sum::<u64>() < n_kills {
        let sweep = Sweep::of(spec).unwrap();
        let mut child = client(cluster, &sweep);
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < Duration::from_secs(900),
                "{}",
                fs::read_to_string(sweep.path("client.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(100 + dice.below(900)));
            // A controller that was killed gives numbers of jobs out again; a node that still has such a job takes itself out of
            // service ("Duplicate jobid") until somebody who looks after the cluster puts it back.
            cluster.slurm("scontrol", &["update", "nodename=n[1-3]", "state=resume"]);
            let n_models = n_models(&sweep);
            assert!(most.is_none_or(|most| n_models <= most), "{n_models} models at once");
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{}", fs::read_to_string(sweep.path("client.log")).unwrap());
                break;
            }
            if landed.values().sum::<u64>() >= n_kills {
                continue;
            }
            let victim = match dice.below(8) {
                0..=3 => {
                    let units = cluster.units(&sweep);
                    let chosen = units.get(dice.below(units.len().max(1) as u64) as usize).copied();
                    chosen.filter(|pid| kill(*pid)).map(|_| "job")
                }
                4 => {
                    let node = format!("n{}", dice.below(3) + 1);
                    restart(cluster, "slurmd", &["-N", &node], &format!("slurmd-{node}")).then_some("node")
                }
                5 => restart(cluster, "slurmctld", &[], "slurmctld").then_some("controller"),
                _ => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    child = client(cluster, &sweep);
                    Some("client")
                }
            };
            victim.into_iter().for_each(|victim| *landed.entry(victim).or_default() += 1);
        }
        check(&sweep);
        n_sweeps += 1;
    }
    format!("{landed:?} killed in {} s, in {n_sweeps}", begun.elapsed().as_secs())
}

/// What must hold once a sweep is through.
fn check(sweep: &Sweep, undisturbed: &str, n_units: usize) {
    let told = || fs::read_to_string(sweep.path("client.log")).unwrap();
    assert_eq!(sweep.table(), undisturbed, "{}", told());
    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    for line in sweep.journal().lines().skip(1) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let tasks = match record["event"].as_str().unwrap() {
            "evaluated" => record["tasks"].as_array().unwrap().clone(),
            _ => Vec::new(),
        };
        for task in tasks {
            let of = format!("{} {}", record["trial"].as_str().unwrap(), task["task"].as_str().unwrap());
            *answered.entry(of).or_default() += 1;
        }
    }
    assert_eq!(answered.len(), 2 * n_units, "every trial and task is there: {answered:#?}\n{}", told());
    assert!(answered.values().all(|count| *count == 1), "and once: {answered:#?}\n{}", told());
    let log = fs::read_to_string(sweep.path("evaluated.log")).unwrap();
    let mut finished: BTreeMap<&str, usize> = BTreeMap::new();
    log.lines().for_each(|line| *finished.entry(line).or_default() += 1);
    assert!(
        finished.values().all(|count| *count == 1),
        "a finished evaluation was repeated: {finished:#?}\n{}",
        told()
    );
}
