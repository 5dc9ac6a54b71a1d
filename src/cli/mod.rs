//! The command line: arguments into values, library calls, results onto standard output. The only layer that prints, reads
//! the environment or decides on exit codes.

mod calibration;
mod check;
mod clean;
mod compare;
mod compare_recipes;
mod comparisons;
mod diagnostics;
mod diff;
mod doctor;
mod estimates;
mod explain;
mod explain_trial;
mod forecast;
mod freeze;
mod import;
mod init;
mod intended;
mod interrupt;
mod materialize;
mod merge;
mod merge_pass;
mod page;
mod percent;
mod plan_command;
mod probe;
mod raced;
mod recorded;
mod rehearse;
mod report;
mod review;
mod run;
mod schema;
mod side;
mod slurm;
mod status;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::document::Problems;
use crate::exit_code::{self, Exit};
use crate::merge::arch::Architecture;
use crate::merge::checkpoint::Checkpoint;
use crate::model::ModelRef;
use crate::model::hub::Hub;
use crate::model::locate::Locator;
use crate::plan::{self, Plan};
use crate::run::journal;
use crate::run::search::placed;
use crate::run::state::SweepState;
use crate::run::store::{Store, StoreError};
use crate::spec::Sweep;

/// Expands a sweep of model merges, merges natively, evaluates with lm-evaluation-harness and prints the table
#[derive(Debug, Parser)]
#[command(version, after_help = exit_code::HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan_command::PlanArgs),
    Rehearse(rehearse::RehearseArgs),
    Run(run::RunArgs),
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Freeze(freeze::FreezeArgs),
    Check(check::CheckArgs),
    Import(import::ImportArgs),
    Status(status::StatusArgs),
    Merge(merge::MergeArgs),
    Diff(diff::DiffArgs),
    Materialize(materialize::MaterializeArgs),
    Cancel(slurm::cancel::CancelArgs),
    Clean(clean::CleanArgs),
    Explain(explain::ExplainArgs),
    Schema(schema::SchemaArgs),
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    #[command(hide = true)]
    MergePass(merge_pass::MergePassArgs),
    #[command(hide = true)]
    SlurmUnit(slurm::unit::UnitArgs),
    #[command(hide = true)]
    SlurmTable(slurm::table::TableArgs),
    #[command(hide = true, name = merge::apart::COMMAND)]
    MergeApart(merge::MergeArgs),
}

/// Which sweep, and where its results are. Shared by every command that takes a spec.
#[derive(Debug, Clone, Args)]
struct SweepArgs {
    /// The sweep spec, TOML or YAML
    spec: PathBuf,
    /// Folder that holds the results of all sweeps, each in a folder of its own name
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Python interpreter with the harness [default: the spec's, else $MERGESWEEP_PYTHON, else the active virtual
    /// environment's, else python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Documents per task, over the spec's limits
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Why a command failed, sorted by exit code.
enum Failure {
    /// Wrong input: exit code 2.
    Usage(anyhow::Error),
    /// Another run has the sweep: exit code 75.
    Busy(anyhow::Error),
    /// The user stopped it: exit code 130.
    Interrupted,
    /// Anything else: exit code 1.
    Internal(anyhow::Error),
}

impl Failure {
    /// Why, in one line.
    fn in_words(&self) -> String {
        match self {
            Self::Usage(error) | Self::Busy(error) | Self::Internal(error) => {
                error.to_string().lines().next().unwrap_or_default().to_owned()
            }
            Self::Interrupted => "interrupted".to_owned(),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref() {
            Some(StoreError::Held { .. }) => Self::Busy(error),
            _ if error.is::<Problems>() => Self::Usage(error),
            _ => Self::Internal(error),
        }
    }
}

/// Makes an error one of wrong input.
fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(error.into())
}

/// Parses the command line, runs the command and gives its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Plan(args) => plan_command::run(&args),
        Command::Rehearse(args) => rehearse::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Freeze(args) => freeze::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Merge(args) => merge::apart::run(&args),
        Command::MergeApart(args) => merge::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Materialize(args) => materialize::run(&args),
        Command::Cancel(args) => slurm::cancel::run(&args),
        Command::Clean(args) => clean::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::MergePass(args) => merge_pass::run(&args),
        Command::SlurmUnit(args) => slurm::unit::run(&args),
        Command::SlurmTable(args) => slurm::table::run(&args),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(Failure::Internal(error)) if is_broken_pipe(&error) => Exit::Ok.into(),
        Err(Failure::Interrupted) => Exit::Interrupted.into(),
        Err(Failure::Usage(error)) => {
            complain(&error);
            Exit::Usage.into()
        }
        Err(Failure::Busy(error)) => {
            complain(&error);
            Exit::Busy.into()
        }
        Err(Failure::Internal(error)) => {
            complain(&error);
            Exit::Internal.into()
        }
    }
}

/// Whoever reads our output may stop reading (`mergesweep plan … | head`): that is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn complain(error: &anyhow::Error) {
    if let Some(problems) = error.downcast_ref() {
        return diagnostics::show(problems);
    }
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some messages tell their cause themselves.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Some come as finished lines.
    let text = if text.starts_with("error:") { text } else { format!("error: {text}") };
    warn(&text);
}

/// A line on standard error.
fn warn(text: &str) {
    // Nothing can be done about a closed standard error.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A number of things: `1 trial`, `2 trials`.
fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// Text on standard output.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Width to lay tables out for: the terminal's, or none where the output goes elsewhere.
fn output_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

impl SweepArgs {
    /// A spec and where its results are, with nothing else said.
    fn of_results(spec: &Path, results: &Path) -> Self {
        Self { spec: spec.to_owned(), results: results.to_owned(), python: None, limit: None }
    }

    /// Reads and expands the spec, and shows what is odd about it.
    fn load(&self) -> Result<(Sweep, Plan), Failure> {
        let (sweep, plan) = self.read()?;
        diagnostics::show(&plan.warnings);
        Ok((sweep, plan))
    }

    /// Reads and expands the spec, with the command line's overrides and the points that a search has placed.
    fn read(&self) -> Result<(Sweep, Plan), Failure> {
        let (mut sweep, mut plan) = plan::open_with(&self.spec, &|sweep, model| self.tensors_of(sweep, model))?;
        if let Some(Ok(Some(space))) = sweep.search.as_ref().map(|search| search.space(&sweep)) {
            let records = journal::read(&self.store(&sweep)?.journal())?;
            space.add(&mut sweep, &placed(&SweepState::replay(&records), &space));
            let grown = plan::expand_with(&sweep, &|model| self.tensors_of(&sweep, model))?;
            plan = Plan { warnings: plan.warnings, ..grown };
            if let Some(problem) = plan::check_reference(&sweep, &plan) {
                return Err(usage(Problems(vec![problem])));
            }
        }
        let beside = sweep.root.join("results");
        if !self.results.join(&sweep.name).exists() && beside.join(&sweep.name).is_dir() {
            warn(&format!(
                "note: nothing of this sweep is in `{}`; beside its spec there is: `--results {}`",
                self.results.display(),
                beside.display()
            ));
        }
        if let Some(limit) = self.limit {
            sweep.evaluate.limit = Some(limit);
            sweep.evaluate.tasks.iter_mut().for_each(|task| task.limit = None);
        }
        Ok((sweep, plan))
    }

    /// The tensors of a model that lies here; nothing is fetched, and nothing is said of one that cannot be read.
    fn tensors_of(&self, sweep: &Sweep, model: &ModelRef) -> Option<Architecture> {
        tensors_of(&self.locator(sweep).ok()?, model)
    }

    fn store(&self, sweep: &Sweep) -> Result<Store, Failure> {
        let store = Store::new(&self.results, &sweep.name)?;
        Ok(match &sweep.resources.work_dir {
            Some(work) => store.with_models_in(work)?,
            None => store,
        })
    }

    /// The interpreter to use for a sweep.
    fn python(&self, sweep: &Sweep) -> PathBuf {
        interpreter(self.python.as_deref(), &sweep.evaluate.python)
    }

    fn locator(&self, sweep: &Sweep) -> Result<Locator, Failure> {
        let mut locator = locator(&sweep.root, self.python(sweep))?;
        locator.hub.retries = sweep.limits.retries;
        Ok(locator)
    }
}

/// A locator for models named relative to `root`.
fn locator(root: &Path, python: PathBuf) -> Result<Locator, Failure> {
    let root = std::path::absolute(root).with_context(|| format!("finding `{}`", root.display()))?;
    let variable = |name: &str| std::env::var(name).ok();
    let (home, hub) = (variable("HOME").map(PathBuf::from), Hub::from_environment(&variable, python));
    Ok(Locator { root, home, hub, stand_ins: BTreeMap::new() })
}

/// The interpreter of the command line, else of a spec, else of the environment.
fn interpreter(given: Option<&Path>, spec: &Path) -> PathBuf {
    let python = match given {
        Some(python) => python.to_owned(),
        // The spec's default, which names no interpreter in particular.
        None if spec == Path::new("python3") => default_python(&|name| std::env::var(name).ok()),
        None => spec.to_owned(),
    };
    // The harness runs in a directory of its own; a bare name is looked up in PATH.
    let is_path = python.components().count() > 1;
    if is_path { std::path::absolute(&python).unwrap_or(python) } else { python }
}

/// The tensors of a model that lies here; nothing is fetched, and nothing is said of one that cannot be read.
fn tensors_of(locator: &Locator, model: &ModelRef) -> Option<Architecture> {
    let folder = locator.locate_on_disk(model).ok()??.base;
    let checkpoint = Checkpoint::open(&folder).ok()?;
    let architecture = Architecture::of(&checkpoint);
    // A damaged config may speak of any number of layers.
    let is_sound = architecture.n_layers <= checkpoint.tensors().len();
    is_sound.then(|| architecture.present_in(&checkpoint))
}

/// The interpreter where neither the command line nor the spec names one.
fn default_python(variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    variable("MERGESWEEP_PYTHON")
        .map(PathBuf::from)
        .or_else(|| variable("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python")))
        .unwrap_or_else(|| PathBuf::from("python3"))
}
