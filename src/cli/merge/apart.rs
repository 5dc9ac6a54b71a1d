//! Merges are made by a process of their own, which reads and writes where this one does: a model that is cut short beneath its
//! mapping, or a disk that cannot be read, ends that process with a signal, and this one is left to say so and to clean up.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, anyhow};

use super::MergeArgs;
use crate::cli::interrupt::stop_on_signal;
use crate::cli::{Failure, default_python, locator, warn};
use crate::config::parse;
use crate::document;
use crate::exit_code::Exit;
use crate::merge::{self, staging};
use crate::model::ModelRef;
use crate::process::{self, cancellation};
use crate::run::pass::PassError;

/// The hidden command: `merge`, in this very process.
pub(in crate::cli) const COMMAND: &str = "merge-apart";

/// Starts the other process on the same arguments, and ends as it does.
pub(in crate::cli) fn run(args: &MergeArgs) -> Result<Exit, Failure> {
    let program =
        std::env::current_exe().context("finding this program, which makes merges in a process of its own")?;
    // The first two are the program and `merge`.
    let arguments: Vec<OsString> = [COMMAND.into()].into_iter().chain(std::env::args_os().skip(2)).collect();
    let (canceller, cancel) = cancellation();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        tokio::spawn(stop_on_signal(canceller, "what is unfinished goes", warn, || {}));
        process::attend(&program, arguments, &cancel).await
    })?;
    args.outputs().for_each(staging::remove_abandoned);
    match exit {
        process::Exit::Code(0) => Ok(Exit::Ok),
        process::Exit::Code(2) => Ok(Exit::Usage),
        process::Exit::Code(130) | process::Exit::Cancelled => Ok(Exit::Interrupted),
        // What failed is told.
        process::Exit::Code(_) => Ok(Exit::Internal),
        process::Exit::Signal(_) | process::Exit::TimedOut(_) => {
            let killed = PassError::Killed { exit };
            Err(Failure::Internal(match unsound(args) {
                Some(found) => anyhow!("{killed}: {found}"),
                None => anyhow!("{killed} (all files have the size now that their headers tell)"),
            }))
        }
    }
}

/// What is wrong with the models now, if looking at their headers and sizes tells.
fn unsound(args: &MergeArgs) -> Option<String> {
    let locator = locator(Path::new("."), default_python(&|name| std::env::var(name).ok())).ok()?;
    let locate = |model: &ModelRef| locator.locate(model).map_err(Into::into);
    args.configs().find_map(|file| {
        let parsed = parse::parse(&document::parse::file(file).ok()?, &parse::Mergekit).ok()?;
        let error = merge::plan(&parsed.config, &locate, "", &args.options()).err()?;
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Some(format!("{error}{cause}"))
    })
}
