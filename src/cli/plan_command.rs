//! `mergesweep plan`: what a sweep would run, without running it.

use std::path::PathBuf;

use clap::Args;

use super::forecast::Ahead;
use super::freeze::check_sizes;
use super::{Failure, SweepArgs, counted, diagnostics, forecast, intended, print, probe, review, warn};

use crate::config::{MergeConfig, Numerics, Parameters, SourceModel};
use crate::document::draw;
use crate::eval::task::Column;
use crate::exit_code::{self, Exit};
use crate::gate::margins::planned_documents;
use crate::model::ModelRef;
use crate::plan::configs::write_configs;
use crate::plan::{Plan, Subject, Trial, json};
use crate::process::Cancel;
use crate::run::slurm;
use crate::spec::{EngineKind, Sweep};
use crate::table::render::plain;

/// Print every trial of a sweep, in order, with its resolved settings; runs nothing
///
/// Needs neither network nor models. All mistakes of the spec are reported in one pass, each
/// with file, line, column, key path, what was expected and the nearest known key.
///
/// Below the trials stands what the configs really do: settings that nobody reads (an error,
/// unless the spec says `lint.dead = "warn"` or "allow"), settings that are overridden everywhere,
/// trials that are one merge (equal byte for byte, or but for rounding), merges that are simpler
/// than their method, parameters left to their defaults, and settings without effect. All of it is
/// found by resolving every parameter as the merge does: for the tensors in the headers of models
/// that are on this machine, otherwise for those of a Llama-like decoder.
///
/// Last comes what a run would cost: merges, bytes, disk, evaluations, documents and generated tokens
/// after twins and with what earlier runs left, the time at rates that earlier runs had, and the smallest
/// difference that the documents of each task can tell from noise. `--calibrate` measures the
/// throughput of merges first (20 s at most), and asks the first plain model 2 and 16 documents of
/// every task (2 min a call of the harness at most), which downloads their data where it is not here.
///
/// `--probe` reads rows of some tensors of the models that are on this machine, which takes seconds: are
/// the models kin, do tokenizers, chat templates and heads agree, is there NaN, how do their changes of
/// the base meet, and which merges would come out so near to each other that their scores must be the
/// same. What a merge would fail on is an error (exit code 2).
///
/// With --engine slurm, the scripts are printed that `mergesweep run --engine slurm` would submit
/// now, each under its `sbatch` command. That looks at models, harness and results as `run` does.
///
/// Examples:
///   mergesweep plan sweeps/study.toml
///   mergesweep plan sweeps/quickstart.toml --probe
///   mergesweep plan sweeps/quickstart.toml --json
///   mergesweep plan sweeps/study.toml --write-configs /tmp/configs
///   mergesweep plan sweeps/study.toml --as-intended
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Print the plan as JSON, with warnings under `diagnostics`; of a spec with mistakes, only these
    #[arg(long)]
    json: bool,
    /// Instead of the plan, print every merge that has settings nobody reads beside what its author probably meant:
    /// those settings at top level, and what differs then
    #[arg(long, conflicts_with_all = ["json", "write_configs", "probe", "calibrate"])]
    as_intended: bool,
    /// Also look at the models: their health, and which merges would be near twins
    #[arg(long)]
    probe: bool,
    /// Measure how fast merges are made and documents answered here, for the time: some minutes at most, nothing is left behind
    #[arg(long)]
    calibrate: bool,
    /// Instead of the plan, print the job scripts that a run through this engine would submit
    #[arg(long, value_name = "ENGINE", value_parser = super::run::parse_engine,
        conflicts_with_all = ["json", "as_intended", "write_configs", "probe", "calibrate"])]
    engine: Option<EngineKind>,
    /// Write the config of every merge as a mergekit YAML file into DIR
    #[arg(long, value_name = "DIR")]
    write_configs: Option<PathBuf>,
}

pub(super) fn run(args: &PlanArgs) -> Result<Exit, Failure> {
    let done = show(args);
    if let Err(failure) = &done
        && args.json
        && let Some(problems) = diagnostics::of(failure)
    {
        print(&serde_json::to_string_pretty(&diagnostics::document(problems))?)?;
    }
    done
}

fn show(args: &PlanArgs) -> Result<Exit, Failure> {
    if args.engine == Some(EngineKind::Slurm) {
        return scripts(&args.sweep);
    }
    let (sweep, plan) = args.sweep.load()?;
    let ahead = forecast::ahead(&args.sweep, &sweep, &plan, args.calibrate && !args.as_intended)?;
    check_margins(&sweep, &ahead)?;
    if let Some(folder) = &args.write_configs {
        let locator = args.sweep.locator(&sweep)?;
        let written = write_configs(&plan, folder, &|model| locator.written(model))?;
        warn(&format!("{} written to {}", counted(written.len(), "config"), folder.display()));
    }
    let headers = |model: &ModelRef| args.sweep.tensors_of(&sweep, model);
    let probe = args.probe.then(|| probe::look(&args.sweep, &sweep, &plan)).transpose()?;
    if args.as_intended {
        print(&intended::text(&sweep, &plan, &headers))?;
    } else if args.json {
        let mut document = json::reported(&plan, &headers);
        document["forecast"] = ahead.json();
        let mut diagnostics = plan.warnings.clone();
        diagnostics.extend(review::placed(&sweep, &plan));
        if let Some(probe) = &probe {
            document["probe"] = probe::json(probe, &plan);
            diagnostics.extend(probe.problems.clone());
        }
        document["diagnostics"] = draw::list_json(&diagnostics);
        print(&serde_json::to_string_pretty(&document)?)?;
    } else {
        let probed = probe.as_ref().map(|probe| probe::text(probe, &plan)).unwrap_or_default();
        let review = review::text(&sweep, &plan, diagnostics::style_of_stdout());
        print(&format!("{}{review}{probed}", listing(&sweep, &plan)))?;
        print(&ahead.text())?;
        let n_merges = plan.trials.iter().filter(|trial| !trial.baseline).count();
        let tasks: Vec<&str> = sweep.evaluate.tasks.iter().map(|task| task.name.as_str()).collect();
        warn(&format!(
            "{}: {}, {}; {} each: {}",
            counted(plan.trials.len(), "trial"),
            counted(plan.trials.len() - n_merges, "baseline"),
            counted(n_merges, "merge"),
            counted(tasks.len(), "task"),
            tasks.join(", "),
        ));
    }
    let fails = probe.is_some_and(|probe| probe.problems.has_errors());
    Ok(if fails { Exit::Usage } else { Exit::Ok })
}

/// Prints what a run would submit to Slurm.
fn scripts(args: &SweepArgs) -> Result<Exit, Failure> {
    let (request, sweep) = super::run::request(args, &[], &[])?;
    let options = super::slurm::options(args, &sweep, false)?;
    let preview =
        slurm::preview(&request, &options, &Cancel::never()).map_err(|error| super::slurm::sort(error, &sweep))?;
    for note in &preview.notes {
        warn(&format!("note: {note}"));
    }
    if !preview.is_cluster {
        warn("note: no cluster answers here: arrays are cut as Slurm's default has it");
    }
    if let Some(open) = preview.open {
        warn(&format!("note: submission {open} is on Slurm: a run joins it before it submits anything"));
    }
    for (command, script) in &preview.scripts {
        print(&format!("$ {command}\n{script}"))?;
    }
    warn(&format!("{} in {}", counted(preview.n_units, "unit"), counted(preview.scripts.len(), "job")));
    Ok(Exit::Ok)
}

/// Refuses margins of the gate that even identical answers could not pass, where the forecast knows the number of documents.
fn check_margins(sweep: &Sweep, ahead: &Ahead) -> Result<(), Failure> {
    let documents = |column: &Column| {
        let task = ahead.forecast.tasks.iter().find(|task| task.name == column.task);
        planned_documents(column, task.and_then(|task| task.n_documents))
    };
    check_sizes(sweep, &ahead.columns, &documents)
}

/// One line a trial: number, name, method, settings.
fn listing(sweep: &Sweep, plan: &Plan) -> String {
    let method = |trial: &Trial| match &trial.subject {
        Subject::Merge { config, .. } if !trial.baseline => config.method.name(),
        _ => trial.kind(),
    };
    let longest = |of: &dyn Fn(&Trial) -> usize| plan.trials.iter().map(of).max().unwrap_or_default();
    let name_width = longest(&|trial| trial.name.chars().count());
    let method_width = longest(&|trial| method(trial).len());
    let names = Names(sweep);
    let lines = plan.trials.iter().enumerate().map(|(index, trial)| {
        let settings = names.settings(trial);
        format!("{:>4}  {:name_width$}  {:method_width$}  {settings}\n", index + 1, plain(&trial.name), method(trial))
    });
    lines.collect()
}

/// The short names that a spec gives to models.
struct Names<'a>(&'a Sweep);

impl Names<'_> {
    fn of(&self, model: &ModelRef) -> String {
        self.0.short_name(model)
    }

    /// What a reader wants to see of a trial.
    fn settings(&self, trial: &Trial) -> String {
        match &trial.subject {
            Subject::Checkpoint(model) => self.of(model),
            Subject::Merge { config, .. } if trial.baseline => {
                config.models().first().map(|model| self.of(model)).unwrap_or_default()
            }
            Subject::Merge { config, seed, numerics } => self.resolved(config, *seed, *numerics),
        }
    }

    /// Base, sources and parameters of a merge in one line.
    fn resolved(&self, config: &MergeConfig, seed: u64, numerics: Numerics) -> String {
        let mut parts = Vec::new();
        if let Some(base) = &config.base_model {
            parts.push(format!("base {}", self.of(base)));
        }
        for (index, slice) in config.slices.iter().enumerate() {
            let sources: Vec<String> = slice.sources.iter().map(|source| self.source(source)).collect();
            let label = if config.slices.len() > 1 { format!("slice {index}: ") } else { String::new() };
            parts.push(format!("{label}{}{}", sources.join(" + "), in_brackets(&slice.parameters)));
        }
        let global = config.module_parameters.iter().chain(&config.parameters);
        parts.extend(global.map(|(name, value)| format!("{name}={value}")));
        parts.extend(config.dtype.map(|dtype| dtype.to_string()));
        parts.extend(config.out_dtype.map(|dtype| format!("out {dtype}")));
        if config.method.spec().random {
            parts.push(format!("seed={seed}"));
        }
        if numerics != Numerics::default() {
            parts.push(format!("numerics={numerics}"));
        }
        parts.join("; ")
    }

    fn source(&self, source: &SourceModel) -> String {
        let layers = source.layer_range.map(|(from, to)| format!("[{from}..{to}]")).unwrap_or_default();
        format!("{}{layers}{}", self.of(&source.model), in_brackets(&source.parameters))
    }
}

fn in_brackets(parameters: &Parameters) -> String {
    let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if parameters.is_empty() { String::new() } else { format!(" ({})", parameters.join(", ")) }
}
