//! `mergesweep status`: where every trial stands, and why.

mod timeline;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::raced::Raced;
use super::{Failure, SweepArgs, counted, output_width, print, usage, warn};
use crate::eval::TaskRequest;
use crate::exit_code::{self, Exit};
use crate::plan::{Plan, Subject, Trial};
use crate::process::Cancel;
use crate::run::journal::{self, Record, Stage};
use crate::run::search::Decided;
use crate::run::select::select;
use crate::run::slurm;
use crate::run::slurm::collect::overlaid;
use crate::run::slurm::submission::Submission;
use crate::run::state::{SweepState, TrialState};
use crate::run::store::Store;
use crate::run::timeline::last_run;
use crate::spec::Sweep;
use crate::table::render::{self, Cells};

/// Show where every trial of a sweep stands; reads the journal and changes nothing
///
/// What tasks on Slurm have recorded is shown, and Slurm is asked once how many of them there are.
///
/// States: planned, merging, merged, evaluating, scored, interrupted, failed; out of a race. What would be
/// done next, and why, is said by `mergesweep run SPEC --dry-run`.
///
/// Examples:
///   mergesweep status sweeps/quickstart.toml
///   mergesweep status sweeps/quickstart.toml --only 'SLERP*' --json
///   mergesweep status sweeps/quickstart.toml --timeline
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Show only trials of this name, id or glob (repeatable)
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Say what the next run would do for trials of this name, id or glob, and why: every changed input with its old and
    /// new value (repeatable)
    #[arg(long, value_name = "TRIAL", conflicts_with_all = ["only", "json"])]
    why: Vec<String>,
    /// Show the last run instead: who ran when, how busy every lane was, and what the orchestrator cost
    #[arg(long, conflicts_with_all = ["only", "why"])]
    timeline: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    if !args.why.is_empty() {
        let (request, sweep) = super::run::request(&args.sweep, &args.why, &[])?;
        print(&super::run::explained(&request, &sweep)?)?;
        return Ok(Exit::Ok);
    }
    let (sweep, plan) = args.sweep.load()?;
    let store = args.sweep.store(&sweep)?;
    let selected = select(&plan, &args.only).map_err(usage)?;
    let records = overlaid(&store)?;
    let open = Submission::open(&records);
    let is_running = store.is_held() || open.is_some();
    if args.timeline {
        return show_timeline(&records, &plan, is_running, args.json);
    }
    let state = SweepState::replay(&records);
    let view = Seen { sweep: &sweep, state: &state, raced: Raced::of(&sweep, &state), is_running };
    let tasks: Vec<&str> = sweep.evaluate.tasks.iter().map(|task| task.name.as_str()).collect();
    let rows: Vec<(&Trial, TrialState)> =
        selected.iter().map(|index| (&plan.trials[*index], state.of(&plan.trials[*index].id))).collect();
    if args.json {
        let trials: Vec<_> = rows
            .iter()
            .map(|(trial, state)| {
                json!({
                    "trial": trial.name,
                    "id": trial.id,
                    "state": view.word(trial, state),
                    "scored": view.scored(state),
                    "tasks": tasks,
                    "model": model(trial, state, &store),
                    "failure": state.failure.as_ref().map(|(stage, reason)| json!({ "stage": stage, "reason": reason })),
                    "seconds": state.seconds,
                })
            })
            .collect();
        print(&serde_json::to_string_pretty(
            &json!({ "sweep": plan.sweep, "running": is_running, "slurm": open.as_ref().map(queue_json), "trials": trials }),
        )?)?;
    } else {
        let cells = Cells {
            head: ["trial", "state", "tasks scored", "time", "remark"].map(str::to_owned).to_vec(),
            rows: rows.iter().map(|(trial, state)| view.line(trial, state)).collect(),
        };
        print(&render::markdown(&cells, output_width()))?;
        if let Some(open) = &open {
            warn(&queue_line(open));
        }
    }
    Ok(Exit::Ok)
}

/// Where the tasks of a submission stand.
fn queue_line(open: &Submission) -> String {
    let (mut number, n_left) = (open.number.to_string(), open.unsettled().count());
    if let Some(place) = open.search {
        number += &place.rung.map_or(" (the end of the search)".to_owned(), |rung| format!(" (rung {})", rung + 1));
    }
    let ids: Vec<&str> = open.jobs.iter().filter_map(|job| job.id.as_deref()).collect();
    let units = format!("{} of {} to be gathered", n_left, counted(open.units.len(), "unit"));
    match slurm::tally(open, &Cancel::never()) {
        Ok((n_pending, n_running, n_ended)) => format!(
            "Slurm: submission {number}, jobs {}: tasks {n_pending} pending, {n_running} running, {n_ended} over; {units}",
            ids.join(", ")
        ),
        Err(error) => format!("Slurm: submission {number}, jobs {}: {units}; {error}", ids.join(", ")),
    }
}

fn queue_json(open: &Submission) -> serde_json::Value {
    let tally = slurm::tally(open, &Cancel::never()).ok();
    json!({
        "submission": open.number,
        "rung": open.search.and_then(|place| place.rung).map(|rung| rung + 1),
        "jobs": open.jobs.iter().map(|job| json!({ "name": job.name, "id": job.id, "units": job.units.len() })).collect::<Vec<_>>(),
        "units": open.units.len(),
        "ungathered": open.unsettled().count(),
        "pending": tally.map(|tally| tally.0),
        "running": tally.map(|tally| tally.1),
        "over": tally.map(|tally| tally.2),
    })
}

fn show_timeline(records: &[Record], plan: &Plan, is_running: bool, json: bool) -> Result<Exit, Failure> {
    let now = is_running.then(journal::now);
    let Some(timeline) = last_run(records, now) else {
        return Err(usage(anyhow!("no run of this sweep is recorded under these results")));
    };
    if json {
        print(&serde_json::to_string_pretty(&timeline::json(&timeline, plan))?)?;
    } else {
        print(&timeline::text(&timeline, plan, output_width().unwrap_or(80)))?;
    }
    Ok(Exit::Ok)
}

/// The sweep as it is seen.
struct Seen<'a> {
    sweep: &'a Sweep,
    state: &'a SweepState,
    raced: Option<Raced<'a>>,
    is_running: bool,
}

impl Seen<'_> {
    fn line(&self, trial: &Trial, state: &TrialState) -> Vec<String> {
        let scored = self.scored(state).len();
        let failure = state.failure.as_ref().map(|(_, reason)| reason.clone());
        let remark = failure.or_else(|| self.out(trial).map(|rung| format!("out after rung {rung}")));
        vec![
            trial.name.clone(),
            self.word(trial, state).to_owned(),
            format!("{scored}/{}", self.sweep.evaluate.tasks.len()),
            format!("{:.0} s", state.seconds),
            remark.unwrap_or_default(),
        ]
    }

    /// The rung after which a trial dropped out, from 1.
    fn out(&self, trial: &Trial) -> Option<usize> {
        self.raced.as_ref()?;
        let out = |decided: &&Decided| decided.of(&trial.id).is_some_and(|standing| !standing.evidence.survives);
        self.state.decisions.iter().find(out).map(|decided| decided.rung + 1)
    }

    /// The state in one word. What is in flight while no run holds the sweep was interrupted.
    fn word(&self, trial: &Trial, state: &TrialState) -> &'static str {
        match (&state.failure, state.in_flight) {
            (Some(_), _) => "failed",
            (None, Some(_)) if !self.is_running => "interrupted",
            (None, Some(Stage::Merge)) => "merging",
            (None, Some(Stage::Evaluate)) => "evaluating",
            (None, None) if self.out(trial).is_some() => "out",
            (None, None) if self.scored(state).len() == self.sweep.evaluate.tasks.len() => "scored",
            (None, None) if state.merged.is_some() && matches!(trial.subject, Subject::Merge { .. }) => "merged",
            (None, None) => "planned",
        }
    }

    /// Tasks that have a current score; of a search, those of which all was answered that is asked.
    fn scored(&self, state: &TrialState) -> Vec<&str> {
        let settings = &self.sweep.evaluate;
        let has_score = |task: &&TaskRequest| match &self.raced {
            Some(raced) => raced.is_answered(settings, state, &task.name),
            None => state.current(settings, task).is_some(),
        };
        settings.tasks.iter().filter(has_score).map(|task| task.name.as_str()).collect()
    }
}

fn model(trial: &Trial, state: &TrialState, store: &Store) -> Option<String> {
    state.model_present.then(|| store.model(trial).display().to_string())
}
