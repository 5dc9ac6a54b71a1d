//! `mergesweep clean`: disk given back.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Failure, SweepArgs, counted, print, warn};
use crate::exit_code::{self, Exit};
use crate::run::clean;

/// Say what can be deleted from a sweep's results without losing a score; with --apply, delete it
///
/// That is: merged models that `limits.keep` kept, folders of trials that the spec no longer has,
/// and answers of evaluations that were never finished. Scores, logs and samples of the trials of
/// the spec stay.
///
/// Examples:
///   mergesweep clean sweeps/quickstart.toml
///   mergesweep clean sweeps/quickstart.toml --older-than 7d --apply
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct CleanArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Only what was not changed for so long: 7d, 12h, 30m
    #[arg(long, value_name = "TIME", value_parser = age)]
    older_than: Option<Duration>,
    /// Delete it
    #[arg(long)]
    apply: bool,
    /// Print what is (or was) there as JSON
    #[arg(long)]
    json: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    let seconds = crate::spec::evaluate::seconds(text);
    seconds.map(Duration::from_secs).ok_or_else(|| format!("expected a time such as 7d, 12h or 30m, found `{text}`"))
}

pub(super) fn run(args: &CleanArgs) -> Result<Exit, Failure> {
    let (sweep, plan) = args.sweep.load()?;
    let store = args.sweep.store(&sweep)?;
    let age = args.older_than.unwrap_or_default();
    let items = if args.apply { clean::remove(&store, &plan, age)? } else { clean::find(&store, &plan, age)? };
    if args.json {
        let items: Vec<_> =
            items.iter().map(|item| json!({ "path": item.path, "bytes": item.bytes, "what": item.what })).collect();
        print(&serde_json::to_string_pretty(&json!({ "deleted": args.apply, "items": items }))?)?;
        return Ok(Exit::Ok);
    }
    for item in &items {
        print(&format!("{:>9.2} MB  {}  {}", item.bytes as f64 / 1e6, item.path.display(), item.what))?;
    }
    let bytes: u64 = items.iter().map(|item| item.bytes).sum();
    let verb = if args.apply { "deleted" } else { "to delete with --apply" };
    warn(&format!("{}, {:.2} MB {verb}", counted(items.len(), "folder"), bytes as f64 / 1e6));
    Ok(Exit::Ok)
}
