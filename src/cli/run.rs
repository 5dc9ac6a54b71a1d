//! `mergesweep run`: the whole loop.

use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::comparisons::Comparisons;
use super::interrupt::Session;
use super::recorded::{self, Recorded};
use super::slurm::{self, Engine};
use super::{Failure, SweepArgs, counted, diagnostics, output_width, print, raced, report, review, usage, warn};
use crate::console::Console;
use crate::document::{Code, Problem, Problems};
use crate::eval::secrets::Secrets;
use crate::exit_code::{self, Exit};
use crate::plan::{self, Plan};
use crate::process::Cancel;
use crate::run::search::Grow;
use crate::run::select::select;
use crate::run::store::Store;
use crate::run::{self, Failed, Lack, Listener, Request, RunError, Slot, Summary, why};
use crate::spec::{EngineKind, Resources, Sweep, placed};
use crate::table::{NearTwins, differences, race, render};

/// Merge and evaluate every trial of a sweep, and print the table
///
/// What is finished is not done again: a second run reuses every merge and evaluation whose
/// inputs, settings and versions are unchanged, and says so. Ctrl-C stops after recording what
/// is finished; the next run goes on from there. A trial that fails is recorded and the sweep
/// goes on.
///
/// Merges and evaluations overlap: merges are made ahead as far as `resources.disk` allows, and
/// every GPU (or `resources.cpu_slots` without one) evaluates one model at a time. A model with
/// the weights of another one, here or in another sweep under RESULTS, is not evaluated again.
///
/// Results are in RESULTS/<sweep>/: journal.jsonl (what happened), table.csv and .parquet (one
/// row per trial), scores.csv and .parquet (one row per score), trials/ (config, logs and
/// harness output of each trial).
///
/// With `--engine slurm` (or `engine.kind = "slurm"` in the spec), the same is done in jobs of a
/// Slurm cluster: an array with a task for every few trials, and a job after it that writes the
/// table; with `engine.split`, merges have arrays of their own. The command follows the jobs;
/// Ctrl-C leaves them alone, the same command follows them again from any login, and
/// `mergesweep cancel` ends them. `mergesweep plan --engine slurm` prints the scripts.
///
/// Examples:
///   mergesweep run sweeps/quickstart.toml
///   mergesweep run sweeps/quickstart.toml --engine slurm --detach
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
    /// Say what would be done and why, and do nothing; everything that would keep a run from beginning is told at once
    #[arg(long)]
    dry_run: bool,
    /// Where to work: in this process, or in jobs of a Slurm cluster [default: the spec's]
    #[arg(long, value_name = "ENGINE", value_parser = parse_engine)]
    engine: Option<EngineKind>,
    /// On Slurm: leave once everything is submitted; `status`, `cancel` and the same command without this come back to it
    #[arg(long)]
    detach: bool,
    /// Begin nothing new after the first failure
    #[arg(long)]
    fail_fast: bool,
    /// CPU threads of one evaluation [default: the spec's, else all cores, shared by concurrent ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print no progress, only failures and the table
    #[arg(long, short)]
    quiet: bool,
    /// Print events, diagnostics of the spec among them, and last a summary as JSON, one object a line, instead of the table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let done = begin(args);
    if let Err(failure) = &done
        && args.json
        && let Some(problems) = diagnostics::of(failure)
    {
        diagnostics::events(problems)?;
    }
    done
}

fn begin(args: &RunArgs) -> Result<Exit, Failure> {
    let (mut request, sweep) = request(&args.sweep, &args.only, &args.redo)?;
    if args.json {
        diagnostics::events(&request.plan.warnings)?;
        diagnostics::events(&review::placed(&sweep, &request.plan))?;
    }
    request.fail_fast = args.fail_fast;
    if let Some(threads) = args.threads {
        request.slots.iter_mut().for_each(|slot| slot.threads = Some(threads.into()));
    }
    if args.dry_run {
        return dry_run(&request, &sweep);
    }
    let engine = slurm::engine(&args.sweep, &sweep, args.engine, args.detach)?;
    check_engine(args, &engine)?;
    if !args.quiet {
        review::warnings(&sweep, &request.plan, diagnostics::style()).iter().for_each(|warning| warn(warning));
    }
    let store = &request.store;
    let summary = drive(&request, &sweep, &engine, args.quiet, args.json)?;
    if args.detach && summary.n_left > 0 && !summary.interrupted {
        return detached(args, &summary, store);
    }
    // With the points that a search has placed meanwhile.
    let (sweep, plan) = if request.grow.is_some() { args.sweep.read()? } else { (sweep, request.plan.clone()) };
    let mut recorded = recorded::collect_with_near(&plan, &sweep, store)?;
    report::write_files(&recorded.table, store);
    if args.json {
        print(&summary_json(&summary, store, &recorded.table.near).to_string())?;
    } else {
        if let Err(failure) = raced::confirm(&mut recorded, &sweep) {
            warn(&format!("warning: what the documents set aside say is not shown: {}", failure.in_words()));
        }
        let compared = beside_reference(&recorded, &plan, &sweep);
        let against = compared.as_ref().and_then(|compared| compared.against.as_ref());
        print(&render::markdown(&render::wide(&recorded.table, against), output_width()))?;
        if let Some(race) = &recorded.table.race {
            for cells in [race::table(race)].into_iter().chain(race::confirmation(race)) {
                print(&format!("\n{}", render::markdown(&cells, output_width())))?;
            }
        }
        let remarks = against.iter().flat_map(|against| differences::footnotes(&recorded.table, against));
        let left_out = compared.iter().flat_map(|compared| compared.left_out.clone());
        let remarks = remarks.chain(left_out).chain(recorded.near).chain(recorded.footnotes);
        report::print_footnotes(&remarks.collect::<Vec<_>>())?;
        warn(&format!("\n{}\nresults: {}", in_words(&summary), store.root().display()));
        tell_failed(&summary);
    }
    Ok(match summary {
        Summary { interrupted: true, .. } => Exit::Interrupted,
        Summary { failed, .. } if !failed.is_empty() => Exit::TrialsFailed,
        _ => Exit::Ok,
    })
}

/// Refuses what only one of the engines can do.
fn check_engine(args: &RunArgs, engine: &Engine) -> Result<(), Failure> {
    let refused = match engine {
        Engine::Local if args.detach => "`--detach` needs the engine `slurm`",
        Engine::Slurm(_) if args.fail_fast => "`--fail-fast` needs the engine `local`: jobs are submitted all at once",
        Engine::Slurm(_) if args.threads.is_some() => "`--threads` needs the engine `local`: jobs use `engine.cpus`",
        _ => return Ok(()),
    };
    Err(usage(anyhow!("{refused}")))
}

/// What a run says that leaves its jobs to Slurm.
fn detached(args: &RunArgs, summary: &Summary, store: &Store) -> Result<Exit, Failure> {
    if args.json {
        print(&summary_json(summary, store, &[]).to_string())?;
        return Ok(Exit::Ok);
    }
    let spec = args.sweep.spec.display();
    warn(&format!(
        "{} with Slurm\nhint: `mergesweep status {spec}` shows where they stand, `mergesweep run {spec} --engine slurm` follows \
         them, `mergesweep cancel {spec}` ends them",
        counted(summary.n_left, "trial")
    ));
    Ok(Exit::Ok)
}

/// An engine by its name in specs.
pub(super) fn parse_engine(text: &str) -> Result<EngineKind, String> {
    let found = EngineKind::NAMES.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    let names: Vec<&str> = EngineKind::NAMES.iter().map(|(name, _)| *name).collect();
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

/// All rows beside the reference of the spec, for the marks of the table. A table without them is better than none.
fn beside_reference(recorded: &Recorded, plan: &Plan, sweep: &Sweep) -> Option<Comparisons> {
    let compared = recorded.reference(None, sweep).and_then(|reference| {
        reference.map(|reference| Comparisons::of(recorded, Some(reference), plan, None)).transpose()
    });
    compared.unwrap_or_else(|failure| {
        warn(&format!("warning: the table is without marks of significance: {}", failure.in_words()));
        None
    })
}

/// What a run of a sweep is asked to do.
pub(super) fn request(args: &SweepArgs, only: &[String], redo: &[String]) -> Result<(Request, Sweep), Failure> {
    let (sweep, mut plan) = args.read()?;
    // Here it is no oddity that may be meant: a run refuses it, and says so once.
    plan.warnings.0.retain(|warning| warning.code != Code::CodeNotAllowed);
    diagnostics::show(&plan.warnings);
    request_of(args, sweep, plan, only, redo)
}

/// The same for a spec that is read already.
pub(super) fn request_of(
    args: &SweepArgs,
    mut sweep: Sweep,
    plan: Plan,
    only: &[String],
    redo: &[String],
) -> Result<(Request, Sweep), Failure> {
    sweep.evaluate.python = args.python(&sweep);
    let redo = if redo.is_empty() { Vec::new() } else { select(&plan, redo).map_err(usage)? };
    let selected = select(&plan, only).map_err(usage)?;
    if let Some(index) = redo.iter().find(|index| !selected.contains(index)) {
        let name = &plan.trials[*index].name;
        return Err(usage(anyhow!(
            "`--redo` names `{name}`, which `--only` leaves out: name it in both, or in neither"
        )));
    }
    let program =
        std::env::current_exe().context("finding this program, which makes merges in processes of its own")?;
    let request = Request {
        selected,
        redo,
        merges_redone: false,
        settings: sweep.evaluate.clone(),
        program,
        keep: sweep.limits.keep.clone(),
        twins: sweep.twins,
        search: sweep.search.clone(),
        grow: grow(args, &sweep),
        holds: false,
        slots: slots(&sweep),
        merges_per_pass: sweep.limits.merges_per_pass,
        merge_threads: sweep.resources.merge_threads,
        merge_memory: sweep.resources.merge_memory,
        merge_timeout: sweep.limits.merge_timeout,
        disk: sweep.resources.disk,
        retries: sweep.limits.retries,
        fail_fast: false,
        store: args.store(&sweep)?,
        locator: args.locator(&sweep)?,
        secrets: Secrets::among(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        ),
        plan,
    };
    Ok((request, sweep))
}

/// How the plan grows, where the search places points of its own.
fn grow(args: &SweepArgs, sweep: &Sweep) -> Option<Grow> {
    let space = sweep.search.as_ref()?.space(sweep).ok()??;
    let (args, sweep, own) = (args.clone(), sweep.clone(), space.clone());
    let plan = move |points: &[Vec<f64>]| {
        let mut sweep = sweep.clone();
        own.add(&mut sweep, points);
        plan::expand_with(&sweep, &|model| args.tensors_of(&sweep, model))
    };
    Some(Grow { space, plan: Arc::new(plan) })
}

/// Where evaluations run: on the GPUs that are named or else seen, unless the device says otherwise.
pub(super) fn slots(sweep: &Sweep) -> Vec<Slot> {
    let on_cpu = sweep.evaluate.device.as_deref().is_some_and(|device| device.starts_with("cpu"));
    let named = if on_cpu { Some(Vec::new()) } else { sweep.resources.gpus.clone() };
    slots_on(&sweep.resources, named, visible_gpus)
}

/// Slots on GPUs, each set of them `slots_per_gpu` times over, else on the CPU. Where there are too few GPUs for one evaluation,
/// one slot says so: only a run here needs them.
fn slots_on(resources: &Resources, named: Option<Vec<String>>, visible: impl Fn() -> Vec<String>) -> Vec<Slot> {
    let Resources { gpus_per_evaluation: needed, threads, .. } = *resources;
    let wants_cpu = named.as_ref().is_some_and(Vec::is_empty);
    let gpus = named.unwrap_or_else(visible);
    if wants_cpu || (gpus.is_empty() && needed == 1) {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = threads.unwrap_or((cores / resources.cpu_slots).max(1));
        return vec![Slot { threads: Some(threads), ..Slot::default() }; resources.cpu_slots];
    }
    if gpus.len() < needed {
        return vec![Slot { n_lacking: needed - gpus.len(), gpus, threads }];
    }
    // The first slot of every GPU before the second of any.
    let sets = || gpus.chunks_exact(needed).map(|gpus| Slot { gpus: gpus.to_vec(), threads, n_lacking: 0 });
    (0..resources.slots_per_gpu).flat_map(|_| sets()).collect()
}

/// The GPUs that this process sees: those it was given, else all that the driver lists.
fn visible_gpus() -> Vec<String> {
    if let Ok(given) = std::env::var("CUDA_VISIBLE_DEVICES") {
        return given
            .split(',')
            .map(str::trim)
            .filter(|gpu| !gpu.is_empty() && *gpu != "-1")
            .map(str::to_owned)
            .collect();
    }
    let listed = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten().count();
    (0..listed).map(|gpu| gpu.to_string()).collect()
}

/// Runs the request with its display, listening for signals.
pub(super) fn drive(
    request: &Request,
    sweep: &Sweep,
    engine: &Engine,
    quiet: bool,
    json: bool,
) -> Result<Summary, Failure> {
    match engine {
        Engine::Local => {
            let session = Session::begin("what is finished is recorded")?;
            attempt(&session, request, quiet, json).map_err(|error| sort(error, sweep))
        }
        Engine::Slurm(options) => {
            let work =
                async |listener: &Listener, cancel: &Cancel| run::slurm::run(request, options, listener, cancel).await;
            let (summary, _) = followed(quiet, json, "the jobs go on; `mergesweep cancel` ends them", work)?;
            summary.map_err(|error| slurm::sort(error, sweep))
        }
    }
}

/// Long work with its display, stopped by signals; `what` says what becomes of it then. Gives back whether it was stopped.
pub(super) fn followed<T>(
    quiet: bool,
    json: bool,
    what: &'static str,
    work: impl AsyncFnOnce(&Listener, &Cancel) -> T,
) -> Result<(T, bool), Failure> {
    let session = Session::begin(what)?;
    let done = shown(&session, quiet, json, work);
    Ok((done, session.cancel.is_cancelled()))
}

/// A run in a session that goes on after it.
pub(super) fn attempt(session: &Session, request: &Request, quiet: bool, json: bool) -> Result<Summary, RunError> {
    shown(session, quiet, json, async |listener, cancel| run::run(request, listener, cancel).await)
}

/// Work in a session, with its events as bars and lines, or as JSON.
fn shown<T>(session: &Session, quiet: bool, json: bool, work: impl AsyncFnOnce(&Listener, &Cancel) -> T) -> T {
    let console = Arc::new(Console::new(quiet));
    let listener: Listener = {
        let console = console.clone();
        Arc::new(move |event| {
            if json {
                // A reader that went away is noticed at the summary.
                let _ = print(&event.json().to_string());
            }
            console.show(&event);
        })
    };
    session.show_on(&console);
    let done = session.runtime.block_on(work(&listener, &session.cancel));
    console.finish();
    done
}

fn dry_run(request: &Request, sweep: &Sweep) -> Result<Exit, Failure> {
    print(&explained(request, sweep)?)?;
    Ok(Exit::Ok)
}

/// What would be done for the selected trials, and why.
pub(super) fn explained(request: &Request, sweep: &Sweep) -> Result<String, Failure> {
    let (explanations, absent) = why(request).map_err(|error| sort(error, sweep))?;
    for model in absent {
        warn(&format!("note: `{model}` is not on disk: a run downloads it first"));
    }
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
    Ok(text)
}

/// Whose fault an error is: models and the harness are input, the disk is not. What is lacking is told at its place in the
/// spec.
pub(super) fn sort(error: RunError, sweep: &Sweep) -> Failure {
    let RunError::Lacks(lacks) = error else {
        return match error {
            RunError::Locate(_) | RunError::NotRaced { .. } => Failure::Usage(error.into()),
            RunError::Submitted(_) => Failure::Busy(error.into()),
            RunError::Store(error) => error.into(),
            _ => Failure::Internal(error.into()),
        };
    };
    let mut problems = Problems::default();
    problems.extend(Problems(lacks.iter().map(|lack| place(lack, sweep)).collect()));
    problems.sort();
    usage(problems)
}

pub(super) fn place(lack: &Lack, sweep: &Sweep) -> Problem {
    match lack {
        Lack::Model { model, source } => placed::model(sweep, model, source),
        Lack::Evaluation(problem) => placed::evaluation(&sweep.document, problem),
    }
}

/// What failed, a line each: why, and where to read more.
pub(super) fn tell_failed(summary: &Summary) {
    for Failed { trial, stage, reason, log } in &summary.failed {
        let reason = reason.lines().next().unwrap_or_default();
        let log = log.as_ref().map(|log| format!(" (log: {})", log.display())).unwrap_or_default();
        warn(&format!("failed: {trial}: {}: {reason}{log}", stage.name()));
    }
}

fn in_words(summary: &Summary) -> String {
    let mut text = format!("{} done", counted(summary.n_done, "trial"));
    if summary.n_reused > 0 {
        text.push_str(&format!(", {} of them reused from before", summary.n_reused));
    }
    if !summary.failed.is_empty() {
        let names: Vec<&str> = summary.failed.iter().map(|failed| failed.trial.as_str()).collect();
        text.push_str(&format!(", {} failed: {}", names.len(), names.join(", ")));
    }
    if summary.n_stopped > 0 {
        text.push_str(&format!(", {} stopped midway", summary.n_stopped));
    }
    if summary.n_left > 0 {
        text.push_str(&format!(", {} not begun", summary.n_left));
    }
    if summary.interrupted {
        text.push_str(", interrupted: the same command goes on from here");
    }
    if summary.disk_peak > 0 {
        text.push_str(&format!("; merged models took at most {:.2} GB of disk", summary.disk_peak as f64 / 1e9));
    }
    text
}

fn summary_json(summary: &Summary, store: &Store, near: &[NearTwins]) -> serde_json::Value {
    let near: Vec<_> =
        near.iter().map(|NearTwins { trials, share }| json!({ "trials": trials, "share": share })).collect();
    let failed: Vec<_> = summary
        .failed
        .iter()
        .map(|Failed { trial, stage, reason, log }| {
            json!({ "trial": trial, "stage": stage, "reason": reason, "log": log })
        })
        .collect();
    json!({
        "event": "summary",
        "done": summary.n_done,
        "reused": summary.n_reused,
        "failed": failed,
        "left": summary.n_left,
        "stopped": summary.n_stopped,
        "interrupted": summary.interrupted,
        "disk_peak": summary.disk_peak,
        "near_twins": near,
        "results": store.root(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GPUs, threads and lacking GPUs of every slot.
    fn made(resources: &Resources, named: Option<&[&str]>, visible: &[&str]) -> Vec<(String, Option<usize>, usize)> {
        let owned = |gpus: &[&str]| gpus.iter().map(|gpu| (*gpu).to_owned()).collect::<Vec<_>>();
        let slots = slots_on(resources, named.map(owned), || owned(visible));
        slots.into_iter().map(|slot| (slot.gpus.join(","), slot.threads, slot.n_lacking)).collect()
    }

    fn on(gpus: &[&str]) -> Vec<(String, Option<usize>, usize)> {
        gpus.iter().map(|gpus| ((*gpus).to_owned(), None, 0)).collect()
    }

    #[test]
    fn every_set_of_gpus_is_a_slot() {
        let resources = Resources::default();
        assert_eq!(made(&resources, None, &["0", "1"]), on(&["0", "1"]));
        assert_eq!(made(&resources, Some(&["3"]), &["0", "1"]), on(&["3"]), "those that are named");
        let pairs = Resources { gpus_per_evaluation: 2, ..Resources::default() };
        assert_eq!(made(&pairs, None, &["0", "1", "2", "3", "4"]), on(&["0,1", "2,3"]), "the fifth has no partner");
        let shared = Resources { slots_per_gpu: 2, threads: Some(3), ..Resources::default() };
        let found = made(&shared, None, &["0", "1"]);
        assert_eq!(found, ["0", "1", "0", "1"].map(|gpu| (gpu.to_owned(), Some(3), 0)));
    }

    #[test]
    fn without_gpus_there_are_slots_on_the_cpu_and_too_few_are_told() {
        let resources = Resources { cpu_slots: 2, threads: Some(5), ..Resources::default() };
        let cpu = vec![(String::new(), Some(5), 0); 2];
        assert_eq!(made(&resources, None, &[]), cpu);
        let pairs = Resources { gpus_per_evaluation: 2, ..resources };
        assert_eq!(made(&pairs, Some(&[]), &["0"]), cpu, "the CPU is asked for");
        assert_eq!(made(&pairs, None, &["0"]), [("0".to_owned(), Some(5), 1)]);
        assert_eq!(made(&pairs, None, &[]), [(String::new(), Some(5), 2)]);
    }
}
