//! `mergesweep merge-pass`: one pass of merges for a run, in a process of its own. Not listed: see `run::pass`.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, warn};
use crate::exit_code::Exit;
use crate::run::pass;

/// Arguments.
#[derive(Debug, Args)]
pub(super) struct MergePassArgs {
    /// What is to be merged
    request: PathBuf,
}

pub(super) fn run(args: &MergePassArgs) -> Result<Exit, Failure> {
    // Whoever asked is gone when the parent is another one.
    let parent = rustix::process::getppid();
    let is_wanted = || rustix::process::getppid() == parent;
    pass::answer(&args.request, &mut io::stdout().lock(), &warn, &is_wanted)?;
    Ok(Exit::Ok)
}
