//! `mergesweep freeze`: a finished sweep as the baseline that later runs are checked against.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::recorded::{self, Recorded};
use super::{Failure, SweepArgs, counted, print, usage, warn};
use crate::document::{Problem, Problems};
use crate::eval::task::Column;
use crate::exit_code::{self, Exit};
use crate::gate::baseline::Noise;
use crate::gate::margins::TooSmall;
use crate::gate::{Baseline, Frozen, judge, too_small};
use crate::paired::Entrant;
use crate::plan::Plan;
use crate::spec::{Sweep, gate};
use crate::stats::gate::Verdict;
use crate::stats::{Items, SEED};

/// Freeze the results of a sweep as a baseline for `check`
///
/// Stores every trial's scores and what it scored on every document, by the document's hash:
/// no texts, so that the folder can go into version control. Runs nothing unless asked to with
/// `--null`.
///
/// The spec says how much worse a later run may be, per column or task:
///   [gate]
///   margins = { arc100_acc = 0.05, math_bpb = 0.02 }
///   advisory = ["code_bpb"]
/// A margin that even identical answers could not pass (too few documents) is refused, with the
/// number of documents that would do.
///
/// Examples:
///   mergesweep freeze sweeps/quickstart.toml -o results/baselines/quickstart
///   mergesweep freeze sweeps/quickstart.toml -o results/baselines/quickstart --null
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct FreezeArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Folder of the baseline
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Merge and evaluate once more, which must pass, and store what changed: the noise floor
    #[arg(long)]
    null: bool,
    /// Replace a baseline that is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &FreezeArgs) -> Result<Exit, Failure> {
    if args.output.join("baseline.json").exists() && !args.force {
        return Err(usage(anyhow!("{} holds a baseline already (`--force` replaces it)", args.output.display())));
    }
    let (sweep, plan) = args.sweep.load()?;
    let (recorded, entrants) = now(&args.sweep, &sweep, &plan)?;
    let missing: Vec<String> = missing(&recorded, &entrants);
    if !missing.is_empty() {
        let how = recorded.left_out(None).unwrap_or_else(|| "run the sweep first".to_owned());
        return Err(usage(anyhow!("nothing to freeze for {} ({how})", missing.join(", "))));
    }
    check_margins(&sweep, &recorded, &entrants)?;
    let mut baseline = baseline(&sweep.name, &recorded, entrants);
    if args.null {
        let Some(noise) = null(args, &sweep, &plan, &baseline)? else { return Ok(Exit::GateFailed) };
        baseline.null = Some(noise);
    }
    baseline.write(&args.output)?;
    let columns: Vec<&str> = baseline.columns.iter().map(|column| column.name.as_str()).collect();
    let n_trials = counted(baseline.trials.len(), "trial");
    print(&format!(
        "{}: {n_trials} by {}: {}",
        args.output.display(),
        counted(columns.len(), "column"),
        columns.join(", ")
    ))?;
    Ok(Exit::Ok)
}

/// What is recorded of a sweep now.
pub(super) fn now(args: &SweepArgs, sweep: &Sweep, plan: &Plan) -> Result<(Recorded, Vec<Entrant>), Failure> {
    let store = args.store(sweep)?;
    let recorded = recorded::collect(plan, sweep, &store)?;
    let entrants = recorded.entrants()?;
    Ok((recorded, entrants))
}

/// Cells without outcomes, where a score is expected: all columns of all trials.
fn missing(recorded: &Recorded, entrants: &[Entrant]) -> Vec<String> {
    let mut missing = Vec::new();
    for (row, entrant) in recorded.table.rows.iter().zip(entrants).filter(|(row, _)| row.kind != "imported") {
        let columns = recorded.table.columns.iter().zip(&entrant.outcomes);
        let absent: Vec<&str> = columns
            .filter(|(column, outcomes)| {
                outcomes.is_none() && row.score(column).is_none_or(|score| score.value.is_some())
            })
            .map(|(column, _)| column.name.as_str())
            .collect();
        if !absent.is_empty() || entrant.outcomes.is_empty() {
            missing.push(format!(
                "{} ({})",
                row.trial,
                if absent.is_empty() { "no scores".to_owned() } else { absent.join(", ") }
            ));
        }
    }
    missing
}

/// Refuses margins that identical answers could not pass, and a gate without margins.
fn check_margins(sweep: &Sweep, recorded: &Recorded, entrants: &[Entrant]) -> Result<(), Failure> {
    let columns = &recorded.table.columns;
    check_names(sweep, columns)?;
    if !columns.iter().any(|column| sweep.gate.is_critical(&column.name, &column.task)) {
        return Err(usage(anyhow!(
            "{}: no margin decides: add `[gate]` with `margin = 0.05`, or `margins = {{ {} = 0.05 }}`",
            sweep.path.display(),
            columns.first().map_or("column", |column| column.name.as_str())
        )));
    }
    let n_of = |column: &Column| {
        let place = columns.iter().position(|other| other == column)?;
        let binary = entrants.iter().filter_map(|entrant| entrant.outcomes.get(place)?.as_ref());
        binary
            .filter(|outcomes| matches!(outcomes.items, Items::Binary(_)))
            .map(|outcomes| outcomes.docs.len() as u64)
            .min()
    };
    check_sizes(sweep, columns, &n_of)
}

/// Whether everything that the gate names is there: a misspelt column would decide nothing.
pub(super) fn check_names(sweep: &Sweep, columns: &[Column]) -> Result<(), Failure> {
    let names: Vec<&str> = columns.iter().flat_map(|column| [column.name.as_str(), column.task.as_str()]).collect();
    let unknown = gate::unknown_names(&sweep.document, &names);
    refuse(unknown.into_iter().map(|(_, problem)| problem).collect())
}

/// Refuses margins of the gate that even identical answers could not pass. `n_of` tells the documents of a column whose scores
/// are shares, where they are known.
pub(super) fn check_sizes(
    sweep: &Sweep,
    columns: &[Column],
    n_of: &dyn Fn(&Column) -> Option<u64>,
) -> Result<(), Failure> {
    let problem = |refused: &TooSmall| {
        let column = columns.iter().find(|column| column.name == refused.column)?;
        Some(gate::at_margin(&sweep.document, column, refused.to_string()))
    };
    refuse(too_small(columns, &sweep.gate, n_of).iter().filter_map(problem).collect())
}

fn refuse(problems: Vec<Problem>) -> Result<(), Failure> {
    if problems.is_empty() { Ok(()) } else { Err(usage(Problems(problems))) }
}

fn baseline(sweep: &str, recorded: &Recorded, entrants: Vec<Entrant>) -> Baseline {
    let columns = recorded.table.columns.clone();
    let rows = recorded.table.rows.iter().zip(entrants).filter(|(row, _)| row.kind != "imported");
    let trials = rows
        .map(|(row, entrant)| Frozen {
            entrant,
            scores: columns.iter().map(|column| row.score(column).cloned()).collect(),
        })
        .collect();
    Baseline { sweep: sweep.to_owned(), columns, trials, null: None }
}

/// The same weights evaluated once more: what changed, or none where even that does not pass.
fn null(args: &FreezeArgs, sweep: &Sweep, plan: &Plan, baseline: &Baseline) -> Result<Option<Vec<Noise>>, Failure> {
    let summary = super::check::afresh(&args.sweep, sweep, plan, false)?;
    if summary.interrupted {
        return Err(Failure::Interrupted);
    }
    if !summary.failed.is_empty() {
        warn("error: the second evaluation did not go through: nothing was frozen");
        return Ok(None);
    }
    let (again, entrants) = now(&args.sweep, sweep, plan)?;
    let judgement = judge(baseline, &again.table.columns, &entrants, &sweep.gate, SEED);
    if judgement.verdict != Verdict::Pass {
        warn("error: the second evaluation of the same sweep does not pass against the first: nothing was frozen");
        warn(&crate::gate::render::markdown(&judgement, "the first evaluation"));
        return Ok(None);
    }
    let noise: Vec<Noise> = judgement
        .judged
        .iter()
        .filter(|judged| judged.n_changed > 0)
        .map(|judged| Noise {
            trial: judged.trial.clone(),
            column: judged.column.clone(),
            n_changed: judged.n_changed,
            n: judged.n,
        })
        .collect();
    match noise.len() {
        0 => warn("null comparison: every answer is the same"),
        _ => warn(&format!("null comparison: answers changed in {} numbers; stored as the noise floor", noise.len())),
    }
    Ok(Some(noise))
}
