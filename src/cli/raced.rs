//! A sweep with a search, as it is recorded: which answers make up the scores of a trial, and how the race went.

use std::collections::BTreeSet;

use super::Failure;
use super::recorded::Recorded;
use crate::eval::results::HarnessFacts;
use crate::eval::{Settings, TaskRequest};
use crate::paired::{Entrant, Pair, align};
use crate::plan::{Plan, TrialId};
use crate::run::journal::TaskEvaluation;
use crate::run::search::{Decided, Draw, Part, Pieces};
use crate::run::state::{SweepState, TrialState};
use crate::search::{Measure, beside};
use crate::spec::{Search, Sweep, Way};
use crate::stats::{Items, SEED};
use crate::table::race::{Confirmed, Entry, Race};

/// A search with what it draws.
pub(super) struct Raced<'a> {
    search: &'a Search,
    draw: &'a Draw,
    pub pieces: Pieces,
}

/// Answers of a trial to a task: one evaluation, or one for every piece.
pub(super) type Answered<'a> = Vec<&'a (TaskEvaluation, HarnessFacts)>;

impl<'a> Raced<'a> {
    /// None where the sweep has no search, or it was not begun as the spec has it now.
    pub fn of(sweep: &'a Sweep, state: &'a SweepState) -> Option<Self> {
        let search = sweep.search.as_ref()?;
        let draw = state.draw.as_ref().filter(|draw| draw.fits(search))?;
        Some(Self { search, draw, pieces: Pieces::of(draw, &sweep.evaluate) })
    }

    /// Whether a trial has answered all that is asked of a task at the end: what is set aside, else every rung.
    pub fn is_answered(&self, settings: &Settings, state: &TrialState, task: &str) -> bool {
        let asked = self.pieces.of_task(task);
        let is_needed = |part: Part| !(self.pieces.has_confirmation && matches!(part, Part::Rung(_)));
        let mut needed = asked.into_iter().filter(|(part, _)| is_needed(*part));
        needed.all(|(_, request)| state.current(settings, request).is_some())
    }

    /// The race, once something is decided.
    pub fn race(&self, plan: &Plan, settings: &Settings, state: &SweepState) -> Option<Race> {
        let decisions = &state.decisions;
        decisions.first()?;
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        // The last rung first: what was said of a trial last counts.
        for decided in decisions.iter().rev() {
            let of_rung = decided.standings.iter().filter(|standing| seen.insert(standing.trial.clone()));
            entries.extend(of_rung.filter_map(|standing| entry(plan, decisions, decided, &standing.trial)));
        }
        let of_all: u64 = self.draw.documents(settings, self.draw.rungs.len()).values().sum();
        Some(Race {
            columns: self.search.columns.iter().map(|column| column.name.clone()).collect(),
            tasks: self.pieces.raced.clone(),
            rungs: self.search.rule.rungs.clone(),
            seed: self.search.seed,
            confidence: self.search.rule.confidence,
            has_confirmation: self.pieces.has_confirmation,
            found: self.found(state, &entries, of_all),
            is_front: matches!(&self.search.way, Way::Optuna(sampling) if sampling.pareto),
            n_asked: entries.iter().map(|entry: &Entry| entry.n_documents).sum(),
            n_whole: of_all * entries.len() as u64,
            confirmed: Vec::new(),
            entries,
        })
    }
}

impl Raced<'_> {
    /// What a search that placed points found, in a sentence or two. Each of them answers `of_all` documents at most.
    fn found(&self, state: &SweepState, entries: &[Entry], of_all: u64) -> Option<String> {
        let columns: Vec<&str> = self.search.columns.iter().map(|column| column.name.as_str()).collect();
        let columns = columns.join(", ");
        match &self.search.way {
            Way::Race => None,
            Way::Refine(_) => state.refinements.last().map(|refined| {
                format!(
                    "Refinement on {columns}: best at {} ({:.0} % interval), by {} points; {}",
                    refined.in_words(),
                    100.0 * refined.confidence,
                    refined.n_points,
                    refined.verdict.in_words()
                )
            }),
            Way::Optuna(sampling) => {
                let n_sampled: usize = state.samples.iter().map(|sampled| sampled.next.len()).sum();
                let chosen =
                    if sampling.pareto { "left is who no other beats in every column" } else { "left is the best" };
                let n_points = entries.len();
                let n_rungs = self.search.rule.rungs.len();
                let n_out = entries.iter().filter(|entry| !entry.survives && entry.rung < n_rungs).count();
                let (n_asked, n_whole) =
                    (entries.iter().map(|entry| entry.n_documents).sum::<u64>(), of_all * n_points as u64);
                let raced = match n_out {
                    0 => String::new(),
                    _ => format!(
                        ". {n_out} dropped out on the way, worse than the best so far beyond {:.0} %: {n_asked} of {n_whole} answers \
                         were asked ({:.0} %)",
                        100.0 * self.search.rule.confidence,
                        100.0 * n_asked as f64 / n_whole.max(1) as f64
                    ),
                };
                Some(format!(
                    "Search on {columns}: {n_points} points, {n_sampled} of them placed by Optuna ({}); {chosen}, and the best of \
                     the grid{raced}",
                    sampling.sampler
                ))
            }
        }
    }
}

fn entry(plan: &Plan, decisions: &[Decided], decided: &Decided, trial: &TrialId) -> Option<Entry> {
    let name = |id: &TrialId| plan.trials.iter().find(|trial| trial.id == *id).map(|trial| trial.name.clone());
    let n_documents = |decided: &Decided| decided.documents.values().sum();
    let evidence = &decided.of(trial)?.evidence;
    // The best so far stands in the decisions about all points after it.
    let mut course: Vec<(u64, f64)> =
        decisions.iter().filter_map(|rung| Some((n_documents(rung), rung.of(trial)?.evidence.value))).collect();
    course.sort_by_key(|(n, _)| *n);
    course.dedup_by_key(|(n, _)| *n);
    Some(Entry {
        trial: name(trial)?,
        rung: decided.rung + 1,
        n_documents: n_documents(decided),
        survives: evidence.survives,
        scores: evidence.scores.clone(),
        leader: name(&decided.leader)?,
        difference: evidence.difference,
        interval: evidence.interval,
        p: evidence.p,
        course,
    })
}

/// Adds to the race what the answers to the documents set aside say: for whoever shows it, since a table is written without any
/// answers too.
pub(super) fn confirm(recorded: &mut Recorded, sweep: &Sweep) -> Result<(), Failure> {
    let confirmed = confirmed(recorded, sweep)?;
    if let Some(race) = &mut recorded.table.race {
        race.confirmed = confirmed;
    }
    Ok(())
}

/// The best of a search beside the others that are left (of points that were placed: the best of the grid) and beside the
/// reference, by the documents set aside. Nothing of a front, which has no best one.
fn confirmed(recorded: &Recorded, sweep: &Sweep) -> Result<Vec<Confirmed>, Failure> {
    let (Some(race), Some(search)) = (&recorded.table.race, &sweep.search) else { return Ok(Vec::new()) };
    if !race.has_confirmation || race.is_front {
        return Ok(Vec::new());
    }
    let place = |name: &str| recorded.table.rows.iter().position(|row| row.trial == name);
    let mut left = race.entries.iter().filter(|entry| entry.survives).filter_map(|entry| place(&entry.trial));
    let Some(best) = left.next() else { return Ok(Vec::new()) };
    let reference = sweep.report.reference.as_deref().and_then(place);
    let rivals: Vec<usize> = left.chain(reference).filter(|rival| *rival != best).collect();
    let column = |name: &String| recorded.table.columns.iter().position(|column| column.name == *name);
    let Some(columns) = race.columns.iter().map(column).collect::<Option<Vec<usize>>>() else { return Ok(Vec::new()) };
    if rivals.is_empty() {
        return Ok(Vec::new());
    }
    let own = recorded.entrant(best)?;
    rivals.into_iter().map(|rival| Ok(set_beside(&own, &recorded.entrant(rival)?, &columns, search))).collect()
}

fn set_beside(own: &Entrant, rival: &Entrant, columns: &[usize], search: &Search) -> Confirmed {
    let pair = |column: &usize| {
        align(own.outcomes.get(*column)?.as_ref()?, rival.outcomes.get(*column)?.as_ref()?, false).ok()
    };
    let pairs: Vec<Option<Pair<'_>>> = columns.iter().map(pair).collect();
    let all: Option<Vec<Pair<'_>>> = pairs.iter().copied().collect();
    let objective = all.filter(|all| all.len() > 1).and_then(|all| {
        let measure = |pair: &Pair<'_>| Measure {
            column: pair.first.metric.clone(),
            task: pair.first.task.clone(),
            higher_is_better: pair.first.higher_is_better,
        };
        let measures: Vec<Measure> = all.iter().map(measure).collect();
        let both = all.iter().map(|pair| (pair.first.items.clone(), pair.second.items.clone()));
        let (first, second): (Vec<Items>, Vec<Items>) = both.unzip();
        beside(&measures, &search.objective, &first, &second, SEED)
    });
    Confirmed {
        trial: own.name.clone(),
        rival: rival.name.clone(),
        columns: pairs.iter().map(|pair| pair.and_then(|pair| pair.compare(SEED))).collect(),
        objective,
    }
}

/// What a trial has answered of a task, as far as the table shows it: what was set aside, else the rungs as far as they go.
pub(super) fn answered<'s>(
    raced: Option<&Raced<'_>>,
    settings: &Settings,
    state: &'s TrialState,
    request: &TaskRequest,
) -> Answered<'s> {
    let Some(raced) = raced.filter(|raced| raced.pieces.raced.contains(&request.name)) else {
        return state.current(settings, request).into_iter().collect();
    };
    let asked = raced.pieces.of_task(&request.name);
    let (set_aside, rungs): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(part, _)| *part == Part::Confirmation);
    let set_aside: Answered<'_> =
        set_aside.into_iter().filter_map(|(_, request)| state.current(settings, request)).collect();
    if !set_aside.is_empty() {
        return set_aside;
    }
    rungs.into_iter().map_while(|(_, request)| state.current(settings, request)).collect()
}
