//! `mergesweep cancel`: a submission ended.

use clap::Args;

use super::{options, sort};
use crate::cli::{Failure, SweepArgs, run, warn};
use crate::exit_code::{self, Exit};
use crate::process::Cancel;
use crate::run::Listener;
use crate::run::slurm;

/// End the jobs of a sweep on Slurm; what they have finished is kept
///
/// Works from any login. Running tasks get SIGTERM, record what they have, and end; the next
/// `mergesweep run` goes on from there, here or on Slurm.
///
/// Examples:
///   mergesweep cancel sweeps/quickstart.toml
///   mergesweep cancel sweeps/quickstart.toml --abandon
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(in crate::cli) struct CancelArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Give the jobs up without asking Slurm: for a cluster that no longer answers. Refused while a task is seen to work
    #[arg(long)]
    abandon: bool,
}

pub(in crate::cli) fn run(args: &CancelArgs) -> Result<Exit, Failure> {
    let (request, sweep) = run::request(&args.sweep, &[], &[])?;
    let options = options(&args.sweep, &sweep, false)?;
    let work = async |listener: &Listener, cancel: &Cancel| {
        slurm::end(&request, &options, args.abandon, listener, cancel).await
    };
    let (ended, _) = run::followed(false, false, "the jobs may not have ended yet", work)?;
    match ended.map_err(|error| sort(error, &sweep))? {
        Some(number) => warn(&format!("submission {number} of {} is cancelled; `mergesweep run` goes on", sweep.name)),
        None => warn(&format!("{} has nothing on Slurm", sweep.name)),
    }
    Ok(Exit::Ok)
}
