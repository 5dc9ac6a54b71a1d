//! A real Slurm with pretend nodes, and sweeps on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::skip;
use crate::sweep_support::{Sweep, text};

/// A cluster of three nodes; it goes with this.
pub struct Cluster {
    pub conf: PathBuf,
}

/// Bytes of a merged model of a sweep that ran.
pub fn model_bytes(sweep: &Sweep) -> u64 {
    let journal = sweep.journal();
    let (_, bytes) = journal.split_once("\"n_bytes\":").unwrap();
    bytes.split_once([',', '}']).unwrap().0.parse().unwrap()
}

/// Merged models of a sweep that are there or being made.
pub fn n_models(sweep: &Sweep) -> usize {
    let trials = fs::read_dir(sweep.results().join("trials")).into_iter().flatten().flatten();
    let inside = trials.flat_map(|trial| fs::read_dir(trial.path()).into_iter().flatten().flatten());
    let is_model = |name: &str| name == "model" || name.starts_with(".model.");
    inside.filter(|entry| is_model(&entry.file_name().to_string_lossy())).count()
}

/// Kills a process; false where it is gone.
pub fn kill(pid: i32) -> bool {
    Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)
}

impl Cluster {
    /// Starts one. None, with the reason printed, where Slurm is not installed; a panic where skips are failures.
    pub fn start(nodes: usize, cpus: usize) -> Option<Self> {
        Self::start_with(nodes, cpus, "")
    }

    /// The same, with a line more in `slurm.conf`.
    pub fn start_with(nodes: usize, cpus: usize, extra: &str) -> Option<Self> {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let is_there = |program: &str| path.split(':').any(|folder| Path::new(folder).join(program).exists());
        if let Some(missing) = ["slurmctld", "slurmd", "sbatch", "munged"].into_iter().find(|name| !is_there(name)) {
            return skip(&format!("`{missing}` is not installed"));
        }
        let up = Command::new(script("slurm-up"))
            .env("MERGESWEEP_SLURM_NODES", nodes.to_string())
            .env("MERGESWEEP_SLURM_CPUS", cpus.to_string())
            .env("MERGESWEEP_SLURM_EXTRA", extra)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(up.status.success(), "{}", text(&up.stderr));
        let line = text(&up.stdout);
        let conf = line.trim().strip_prefix("export SLURM_CONF=").unwrap();
        Some(Self { conf: conf.into() })
    }

    /// One of Slurm's commands.
    pub fn slurm(&self, program: &str, args: &[&str]) -> Output {
        Command::new(program).args(args).env("SLURM_CONF", &self.conf).stdin(Stdio::null()).output().unwrap()
    }

    /// The program in a sweep's folder, on this cluster.
    pub fn command(&self, sweep: &Sweep, args: &[&str], outcome: &str) -> Command {
        let mut command = sweep.command(args, outcome);
        command
            .env("SLURM_CONF", &self.conf)
            .env("FAKE_LM_EVAL_LOG", sweep.path("evaluated.log"))
            .env("FAKE_LM_EVAL_ONCE", sweep.path("once"));
        command
    }

    pub fn run(&self, sweep: &Sweep, args: &[&str], outcome: &str) -> Output {
        self.command(sweep, args, outcome).output().unwrap()
    }

    /// Numbers of the tasks of a sweep that run now.
    pub fn running(&self, sweep: &Sweep) -> Vec<String> {
        let listed = text(&self.slurm("squeue", &["-h", "-r", "-t", "R", "-o", "%i|%Z"]).stdout);
        let folder = fs::canonicalize(sweep.path("")).unwrap();
        let ids = listed.lines().filter_map(|line| line.split_once('|'));
        let own = ids.filter(|(_, at)| fs::canonicalize(at).is_ok_and(|at| at == folder));
        own.map(|(id, _)| id.to_owned()).collect()
    }

    /// The processes of jobs of a sweep that work now: on units, or on what comes after them.
    pub fn units(&self, sweep: &Sweep) -> Vec<i32> {
        [self.doing(sweep, "slurm-unit"), self.doing(sweep, "slurm-table")].concat()
    }

    /// The processes of jobs of a sweep that carry out a hidden command now.
    pub fn doing(&self, sweep: &Sweep, command: &str) -> Vec<i32> {
        let folder = sweep.path("").to_string_lossy().into_owned();
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_it = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains(&format!("{command}\0")) && line.contains(&folder)
        };
        pids.filter(is_it).collect()
    }

    /// The number in a file that a daemon left.
    pub fn pid(&self, daemon: &str) -> Option<i32> {
        let file = self.conf.with_file_name(format!("{daemon}.pid"));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down =
            Command::new(script("slurm-down")).env("SLURM_CONF", &self.conf).stdin(Stdio::null()).output().unwrap();
        if !down.status.success() && !std::thread::panicking() {
            panic!("{}", text(&down.stderr));
        }
    }
}
