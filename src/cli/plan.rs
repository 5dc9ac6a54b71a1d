//! `mergesweep plan`: what a sweep would run, without running it.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, SweepArgs, print, warn};
use crate::exit_code::{self, Exit};
use crate::plan::{self, Subject, Trial};
use crate::table::render::{self, Cells};

/// Print every trial of a sweep, in order, with its resolved settings; runs nothing
///
/// Needs neither network nor models. All mistakes of the spec are reported in one pass, each with file, line, column,
/// key path, what was expected and the nearest known key.
///
/// Examples:
///   mergesweep plan sweeps/study.toml
///   mergesweep plan sweeps/quickstart.toml --json
///   mergesweep plan sweeps/study.toml --write-configs /tmp/configs
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Write the config of every merge as a mergekit YAML file into DIR
    #[arg(long, value_name = "DIR")]
    write_configs: Option<PathBuf>,
}

pub(super) fn run(args: &PlanArgs) -> Result<Exit, Failure> {
    let (sweep, plan) = args.sweep.load()?;
    if let Some(folder) = &args.write_configs {
        let locator = args.sweep.locator(&sweep)?;
        let written = plan::write_configs(&plan, folder, &|model| locator.written(model))?;
        warn(&format!("{} configs written to {}", written.len(), folder.display()));
    }
    if args.json {
        print(&serde_json::to_string_pretty(&plan)?)?;
    } else {
        let cells = Cells {
            head: ["#", "trial", "method", "settings"].map(str::to_owned).to_vec(),
            rows: plan.trials.iter().enumerate().map(|(index, trial)| line(index, trial)).collect(),
        };
        print(&render::markdown(&cells, None))?;
        let n_merges = plan.trials.iter().filter(|trial| !trial.is_baseline()).count();
        let tasks: Vec<&str> = sweep.evaluate.tasks.iter().map(|task| task.name.as_str()).collect();
        warn(&format!(
            "{} trials: {} baselines, {n_merges} merges; {} tasks each: {}",
            plan.trials.len(),
            plan.trials.len() - n_merges,
            tasks.len(),
            tasks.join(", "),
        ));
    }
    Ok(Exit::Ok)
}

fn line(index: usize, trial: &Trial) -> Vec<String> {
    let method = match &trial.subject {
        Subject::Merge { config, .. } if !trial.is_baseline() => config.method.name().to_owned(),
        _ => "–".to_owned(),
    };
    vec![(index + 1).to_string(), trial.name.clone(), method, trial.settings()]
}
