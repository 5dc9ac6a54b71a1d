//! `mergesweep import`: old evaluations into the store of a sweep.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;

use super::{Failure, SweepArgs, counted, print, usage, warn};
use crate::eval::results::{self, Results};
use crate::exit_code::{self, Exit};
use crate::run::imported;

/// Take output folders of lm-evaluation-harness into a sweep, as rows of its table
///
/// Every results file below the given folders becomes (part of) a row, with the samples files of
/// its run: both are copied to RESULTS/<sweep>/imported/. Files of the same model join in one
/// row. Output of any release is read, also of releases before 0.4. Results that contradict
/// themselves or their samples are refused, and then nothing of the call is imported.
///
/// Numbers that rest on another harness release, task version, number of documents, few-shot
/// number, chat template, back end, device or number format than most of their column are marked
/// in the table.
///
/// Examples:
///   mergesweep import sweeps/quickstart.toml old/lm-eval-output
///   mergesweep import sweeps/quickstart.toml old/results.json --name 'Instruct, 2024'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Folders with harness output, or results files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Name of the row [default: the model's, as the results file has it]
    #[arg(long)]
    name: Option<String>,
}

pub(super) fn run(args: &ImportArgs) -> Result<Exit, Failure> {
    let (sweep, plan) = args.sweep.load()?;
    let store = args.sweep.store(&sweep)?;
    let locator = args.sweep.locator(&sweep)?;
    let mut accepted: Vec<(String, Results)> = Vec::new();
    let mut refused = Vec::new();
    for path in &args.paths {
        let found = imported::found(path).map_err(usage)?;
        if found.is_empty() {
            refused.push(format!("error: {}: no results file of the harness (`results_<time>.json`)", path.display()));
        }
        for found in found {
            match results::parse(&found) {
                Ok(results) => {
                    let name = args.name.clone().unwrap_or_else(|| model_name(&results.document));
                    accepted.push((name, results));
                }
                Err(error) => refused.push(format!("error: {error}")),
            }
        }
    }
    if !refused.is_empty() {
        refused.push("nothing was imported".to_owned());
        return Err(usage(anyhow!("{}", refused.join("\n"))));
    }
    if let Some((name, _)) = accepted.iter().find(|(name, _)| plan.trials.iter().any(|trial| trial.name == *name)) {
        return Err(usage(anyhow!("the sweep has a trial `{name}`: give the import another name with `--name`")));
    }
    for (name, results) in &accepted {
        let folder = imported::add(&store, &locator, name, results)?;
        let tasks: std::collections::BTreeSet<&str> = results.scores.iter().map(|score| score.task.as_str()).collect();
        let tasks: Vec<&str> = tasks.into_iter().collect();
        print(&format!("{name}: {} -> {}", tasks.join(", "), folder.display()))?;
        if results.samples.is_empty() {
            warn(&format!("note: {}: no samples: its scores can be shown, but not compared", results.path.display()));
        }
        let is_matched = |file: &&PathBuf| results.samples_of.values().any(|of| of == *file);
        for file in results.samples.iter().filter(|file| !is_matched(file)) {
            warn(&format!("note: {}: of no task of the results beside it: it is not used", file.display()));
        }
    }
    warn(&format!("{} imported into {}", counted(accepted.len(), "results file"), sweep.name));
    Ok(Exit::Ok)
}

/// The last part of the model's path or hub id.
fn model_name(document: &Value) -> String {
    let at = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    // Releases before 0.4.4 wrote the arguments as one text.
    let in_text = at("/config/model_args").and_then(|args| {
        let mut parts = args.split(',').map(str::trim);
        parts.find_map(|part| part.strip_prefix("pretrained=").map(str::to_owned))
    });
    let name =
        at("/config/model_args/pretrained").or(in_text).or_else(|| at("/model_name")).or_else(|| at("/config/model"));
    let name = name.unwrap_or_else(|| "imported".to_owned());
    name.trim_end_matches('/').rsplit('/').next().unwrap_or(&name).to_owned()
}
