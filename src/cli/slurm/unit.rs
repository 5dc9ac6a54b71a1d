//! `mergesweep slurm-unit`: one unit of a submission, in a task of a job. Not listed: see `run::slurm::task`.

use std::path::PathBuf;

use clap::Args;

use super::{arguments, sort, work_dir};
use crate::cli::{Failure, run, usage, warn};
use crate::exit_code::Exit;
use crate::process::Cancel;
use crate::run::slurm::task::{self, Done};
use crate::run::slurm::{Manifest, SlurmError};
use crate::run::store::Store;
use crate::run::{Listener, Request};
use crate::spec::Sweep;

/// Arguments.
#[derive(Debug, Args)]
pub(in crate::cli) struct UnitArgs {
    /// What was submitted
    manifest: PathBuf,
    /// Which unit of it
    index: usize,
    /// Make its merges, and leave the evaluations to another task
    #[arg(long)]
    merges: bool,
}

pub(in crate::cli) fn run(args: &UnitArgs) -> Result<Exit, Failure> {
    let manifest = Manifest::read(&args.manifest).map_err(usage)?;
    let (path, index) = (args.manifest.clone(), args.index);
    let unit = manifest.units.get(index).ok_or_else(|| usage(SlurmError::NoSuchUnit { path, index }))?;
    let variable = |name: &str| std::env::var(name).ok();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let node = variable("SLURMD_NODENAME").unwrap_or_else(|| host.trim().to_owned());
    warn(&format!("unit {index}: {} on {node}", unit.label()));
    let sweep_args = arguments(&manifest);
    let (mut request, mut sweep) = run::request(&sweep_args, &[], &[])?;
    let (home, number) = (Store::new(&manifest.results, &sweep.name)?, manifest.submission);
    task::refuse_over(&home, number).map_err(|error| sort(error, &sweep))?;
    give(&mut request, &mut sweep, &variable);
    let work = manifest.work_dir.as_deref().map(|text| work_dir(text, &variable)).transpose();
    if let Some(name) = variable("SLURM_JOB_NAME").filter(|_| args.merges || !manifest.split) {
        task::make_room(&request, &manifest, index, &name).map_err(|error| sort(error, &sweep))?;
    }
    let narrowed = work.and_then(|work| task::narrow(&request, &manifest, unit, args.merges, work.as_ref()));
    let job = match (variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")) {
        (Some(job), Some(task)) => format!("{job}_{task}"),
        _ => variable("SLURM_JOB_ID").unwrap_or_default(),
    };
    let work = async |listener: &Listener, cancel: &Cancel| {
        task::work(narrowed, &home, number, unit, &job, listener, cancel).await
    };
    let (done, _) = run::followed(false, false, "what is finished is recorded", work)?;
    Ok(match done.map_err(|error| sort(error, &sweep))? {
        Done::Interrupted => Exit::Interrupted,
        Done::Impossible(reason) => {
            warn(&format!("error: {}", reason.trim_start_matches("error: ")));
            Exit::Usage
        }
        // The evaluations of the others depend on this task's end.
        Done::Ended(summary) if !summary.failed.is_empty() && !args.merges => Exit::TrialsFailed,
        Done::Ended(_) => Exit::Ok,
    })
}

/// What the job has, not what the spec says of the machine where it was written.
fn give(request: &mut Request, sweep: &mut Sweep, variable: &dyn Fn(&str) -> Option<String>) {
    sweep.resources.gpus = None;
    let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
    if let Some(cpus) = number("SLURM_CPUS_ON_NODE") {
        sweep.resources.threads.get_or_insert((cpus / sweep.resources.cpu_slots).max(1));
        request.merge_threads.get_or_insert(cpus);
    }
    request.slots = run::slots(sweep);
}
