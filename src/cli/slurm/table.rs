//! `mergesweep slurm-table`: gathers what the units of a submission left and writes the table, in a job that depends on
//! theirs. Not listed: see `run::slurm`.

use std::path::PathBuf;

use clap::Args;

use super::{arguments, options, sort};
use crate::cli::recorded::{self, Recorded};
use crate::cli::{Failure, report, run, usage};
use crate::exit_code::Exit;
use crate::process::Cancel;
use crate::run::Listener;
use crate::run::slurm::{self, Manifest};

/// Arguments.
#[derive(Debug, Args)]
pub(in crate::cli) struct TableArgs {
    /// What was submitted
    manifest: PathBuf,
}

pub(in crate::cli) fn run(args: &TableArgs) -> Result<Exit, Failure> {
    let manifest = Manifest::read(&args.manifest).map_err(usage)?;
    let sweep_args = arguments(&manifest);
    let (request, sweep) = run::request(&sweep_args, &[], &[])?;
    let options = options(&sweep_args, &sweep, false)?;
    let own_job = std::env::var("SLURM_JOB_NAME").ok();
    let work = async |listener: &Listener, cancel: &Cancel| {
        slurm::finish(&request, &options, &manifest, own_job, listener, cancel).await
    };
    let (done, is_stopped) = run::followed(false, false, "the next `mergesweep run` gathers the rest", work)?;
    done.map_err(|error| sort(error, &sweep))?;
    // With the points that a search has placed meanwhile.
    let (sweep, plan) = if request.grow.is_some() { sweep_args.read()? } else { (sweep, request.plan) };
    let Recorded { table, .. } = recorded::collect_with_near(&plan, &sweep, &request.store)?;
    report::write_files(&table, &request.store);
    Ok(if is_stopped { Exit::Interrupted } else { Exit::Ok })
}
