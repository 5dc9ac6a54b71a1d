//! `mergesweep run`: the whole loop.

use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::interrupt::stop_on_signal;
use super::{Failure, SweepArgs, counted, output_width, print, report, usage, warn};
use crate::console::Console;
use crate::exit_code::{self, Exit};
use crate::process::cancellation;
use crate::run::select::select;
use crate::run::{self, Listener, Request, RunError, Summary, why};
use crate::table::render;

/// Merge and evaluate every trial of a sweep, and print the table
///
/// What is finished is not done again: a second run reuses every merge and evaluation whose
/// inputs, settings and versions are unchanged, and says so. Ctrl-C stops after recording what
/// is finished; the next run goes on from there. A trial that fails is recorded and the sweep
/// goes on.
///
/// Results are in RESULTS/<sweep>/: journal.jsonl (what happened), table.csv and .parquet (one
/// row per trial), scores.csv and .parquet (one row per score), trials/ (config, logs and
/// harness output of each trial).
///
/// Examples:
///   mergesweep run sweeps/quickstart.toml
///   mergesweep run sweeps/quickstart.toml --only 'SLERP*' --limit 4
///   mergesweep run sweeps/quickstart.toml --redo TIES
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct RunArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Work only on trials of this name, id or glob (repeatable)
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Do trials of this name, id or glob again from scratch (repeatable)
    #[arg(long, value_name = "TRIAL")]
    redo: Vec<String>,
    /// Say what would be done and why, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// CPU threads of one evaluation [default: all cores, shared by concurrent ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print no progress, only failures and the table
    #[arg(long, short)]
    quiet: bool,
    /// Print a summary as JSON instead of the table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let (mut sweep, plan) = args.sweep.load()?;
    sweep.evaluate.python = args.sweep.python(&sweep);
    let redo = if args.redo.is_empty() { Vec::new() } else { select(&plan, &args.redo).map_err(usage)? };
    let selected = select(&plan, &args.only).map_err(usage)?;
    if let Some(index) = redo.iter().find(|index| !selected.contains(index)) {
        let name = &plan.trials[*index].name;
        return Err(usage(anyhow!(
            "`--redo` names `{name}`, which `--only` leaves out: name it in both, or in neither"
        )));
    }
    let store = args.sweep.store(&sweep)?;
    let cores = available_parallelism().map_or(1, std::num::NonZero::get);
    let request = Request {
        selected,
        redo,
        settings: sweep.evaluate.clone(),
        keep_models: sweep.limits.keep_models,
        concurrent_evaluations: sweep.limits.concurrent_evaluations,
        merges_per_pass: sweep.limits.merges_per_pass,
        store: store.clone(),
        locator: args.sweep.locator(&sweep)?,
        n_threads: Some(args.threads.map_or((cores / sweep.limits.concurrent_evaluations).max(1), usize::from)),
        plan,
    };
    if args.dry_run {
        return dry_run(&request);
    }
    let summary = drive(&request, args.quiet)?;
    let table = report::collect(&request.plan, &sweep, &store)?;
    report::write_files(&table, &store);
    if args.json {
        print(&serde_json::to_string_pretty(&summary_json(&summary, &store))?)?;
    } else {
        print(&render::markdown(&render::wide(&table), output_width()))?;
        warn(&format!("\n{}\nresults: {}", in_words(&summary), store.root().display()));
    }
    Ok(match summary {
        Summary { interrupted: true, .. } => Exit::Interrupted,
        Summary { failed, .. } if !failed.is_empty() => Exit::TrialsFailed,
        _ => Exit::Ok,
    })
}

/// Runs the request with its display, listening for signals.
fn drive(request: &Request, quiet: bool) -> Result<Summary, Failure> {
    let console = Arc::new(Console::new(quiet));
    let listener: Listener = {
        let console = console.clone();
        Arc::new(move |event| console.show(&event))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let (canceller, cancel) = cancellation();
    let summary = runtime.block_on(async {
        tokio::spawn(stop_on_signal(canceller, "what is finished is recorded"));
        run::run(request, &listener, &cancel).await
    });
    console.finish();
    summary.map_err(sort)
}

fn dry_run(request: &Request) -> Result<Exit, Failure> {
    let explanations = why(request).map_err(sort)?;
    let mut text = String::new();
    for (index, explanation) in request.selected.iter().zip(&explanations) {
        text.push_str(&format!("{}\n", request.plan.trials[*index].name));
        if let Some(reason) = &explanation.merge {
            text.push_str(&format!("    merge: {reason}\n"));
        }
        for (task, reason) in &explanation.tasks {
            text.push_str(&format!("    evaluate {task}: {reason}\n"));
        }
        if explanation.merge.is_none() && explanation.tasks.is_empty() {
            text.push_str("    nothing: all is done\n");
        }
    }
    print(&text)?;
    Ok(Exit::Ok)
}

/// Whose fault an error is: models and the harness are input, the disk is not.
fn sort(error: RunError) -> Failure {
    match error {
        RunError::Locate(_) | RunError::Interpreter(_) | RunError::NoHarness { .. } | RunError::Preflight(_) => {
            Failure::Usage(error.into())
        }
        _ => Failure::Internal(error.into()),
    }
}

fn in_words(summary: &Summary) -> String {
    let mut text = format!("{} done", counted(summary.n_done, "trial"));
    if summary.n_reused > 0 {
        text.push_str(&format!(", {} of them reused from before", summary.n_reused));
    }
    if !summary.failed.is_empty() {
        let names: Vec<&str> = summary.failed.iter().map(|(name, ..)| name.as_str()).collect();
        text.push_str(&format!(", {} failed: {}", names.len(), names.join(", ")));
    }
    if summary.interrupted {
        text.push_str(", interrupted");
    }
    text
}

fn summary_json(summary: &Summary, store: &crate::run::store::Store) -> serde_json::Value {
    let failed: Vec<_> = summary
        .failed
        .iter()
        .map(|(trial, stage, reason)| json!({ "trial": trial, "stage": stage, "reason": reason }))
        .collect();
    json!({
        "done": summary.n_done,
        "reused": summary.n_reused,
        "failed": failed,
        "interrupted": summary.interrupted,
        "results": store.root(),
    })
}
