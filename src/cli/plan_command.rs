//! `mergesweep plan`: what a sweep would run, without running it.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, SweepArgs, print, warn};
use crate::config::parameter::{Case, Setting};
use crate::config::{MergeConfig, Parameters, SourceModel};
use crate::exit_code::{self, Exit};
use crate::plan::configs::write_configs;
use crate::plan::{Subject, Trial, json};
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
        let written = write_configs(&plan, folder, &|model| locator.written(model))?;
        warn(&format!("{} configs written to {}", written.len(), folder.display()));
    }
    if args.json {
        print(&serde_json::to_string_pretty(&json::plan(&plan))?)?;
    } else {
        let cells = Cells {
            head: ["#", "trial", "method", "settings"].map(str::to_owned).to_vec(),
            rows: plan.trials.iter().enumerate().map(|(index, trial)| line(index, trial)).collect(),
        };
        print(&render::markdown(&cells, None))?;
        let n_merges = plan.trials.iter().filter(|trial| !trial.baseline).count();
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
        Subject::Merge { config, .. } if !trial.baseline => config.method.name().to_owned(),
        _ => "–".to_owned(),
    };
    vec![(index + 1).to_string(), trial.name.clone(), method, settings(trial)]
}

/// What a reader wants to see of a trial: its axis values, and the config in one line where there are none.
fn settings(trial: &Trial) -> String {
    match &trial.subject {
        Subject::Checkpoint(model) => model.to_string(),
        Subject::Merge { config, .. } if trial.baseline => {
            config.models().first().map(ToString::to_string).unwrap_or_default()
        }
        Subject::Merge { config, seed } => resolved(config, *seed),
    }
}

/// Base, sources and parameters of a merge in one line.
fn resolved(config: &MergeConfig, seed: u64) -> String {
    let mut parts = Vec::new();
    if let Some(base) = &config.base_model {
        parts.push(format!("base {base}"));
    }
    for (index, slice) in config.slices.iter().enumerate() {
        let sources: Vec<String> = slice.sources.iter().map(source).collect();
        let label = if config.slices.len() > 1 { format!("slice {index}: ") } else { String::new() };
        parts.push(format!("{label}{}{}", sources.join(" + "), in_brackets(&slice.parameters)));
    }
    parts.extend(
        config
            .module_parameters
            .iter()
            .chain(&config.parameters)
            .map(|(name, value)| format!("{name}={}", shown(value))),
    );
    parts.extend(config.dtype.map(|dtype| dtype.to_string()));
    parts.extend(config.out_dtype.map(|dtype| format!("out {dtype}")));
    if config.method.spec().random {
        parts.push(format!("seed={seed}"));
    }
    parts.join("; ")
}

fn source(source: &SourceModel) -> String {
    let layers = source.layer_range.map(|(from, to)| format!("[{from}..{to}]")).unwrap_or_default();
    format!("{}{layers}{}", source.model, in_brackets(&source.parameters))
}

fn in_brackets(parameters: &Parameters) -> String {
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    if parameters.is_empty() { String::new() } else { format!(" ({})", parameters.join(", ")) }
}

fn shown(setting: &Setting) -> String {
    let list = |values: &[String]| format!("[{}]", values.join(", "));
    match setting {
        Setting::Scalar(value) => value.to_string(),
        Setting::Gradient(values) => list(&values.iter().map(ToString::to_string).collect::<Vec<_>>()),
        Setting::Conditional(cases) => {
            let case = |case: &Case| match &case.filter {
                Some(filter) => format!("{filter}: {}", shown(&case.value)),
                None => shown(&case.value),
            };
            list(&cases.iter().map(case).collect::<Vec<_>>())
        }
    }
}
