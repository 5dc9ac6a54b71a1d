//! What a sweep costs before it is begun, and what it can show: merges and evaluations that are left, bytes read and written,
//! the disk they need, documents and generated tokens, time by rates that were measured, and the smallest difference that
//! its documents can tell from noise.
//!
//! ```text
//! run::Request -> foresight (what is left) -> volume (bytes, passes, disk)
//!                 journals -> rates ----------> time
//!                 task files, journals -> tasks (documents, tokens) -> power
//! ```
//!
//! No process is started, nothing is fetched, and no weights are read but by [`calibrate`]; [`timed`] reckons with times that others
//! took.

pub mod calibrate;
pub mod json;
pub mod power;
pub mod race;
pub mod rates;
pub mod tasks;
pub mod time;
pub mod timed;
pub mod volume;
pub mod words;

use std::collections::{BTreeSet, HashMap};

use crate::eval::TaskRequest;
use crate::eval::command::{self, Call};
use crate::eval::task::Column;
use crate::paired::Entrant;
use crate::run::foresight::{Foreseen, Foresight, foresee};
use crate::run::journal::{self, Record};
use crate::run::search::placed;
use crate::run::state::SweepState;
use crate::run::{Request, RunError};
use crate::spec::Sweep;
use power::Detectable;
use race::Race;
use rates::Rates;
use tasks::Task;
use time::Time;
use timed::{Short, Timed};
use volume::Volume;

/// The whole of it.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// How many of what.
    pub work: Work,
    /// Bytes.
    pub volume: Volume,
    /// Task by task.
    pub tasks: Vec<Task>,
    /// Rates that were measured.
    pub rates: Rates,
    /// Time.
    pub time: Time,
    /// What can be told from noise.
    pub detectable: Detectable,
    /// A race, with the names of the columns that decide; its cost is not known before somebody knows how many documents
    /// there are.
    pub race: Option<(String, Option<Race>)>,
}

/// How many merges and evaluations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Trials.
    pub n_trials: usize,
    /// Merges to be made.
    pub n_merges: usize,
    /// Of these, models with an adapter that are evaluated as they are: they are put together like a merge.
    pub n_baselines: usize,
    /// Merges that are taken over from a twin.
    pub n_twins: usize,
    /// Merges that are there and hold.
    pub n_merges_reused: usize,
    /// Models to be evaluated.
    pub n_models: usize,
    /// Evaluations: one of every model on every task.
    pub n_evaluations: usize,
    /// Of these, taken from earlier results.
    pub n_reused: usize,
    /// Calls of the harness, each for all tasks that can share one.
    pub n_calls: usize,
    /// Evaluations at once.
    pub n_slots: usize,
}

impl Work {
    fn of(request: &Request, foresight: &Foresight) -> Self {
        let mut calls = Calls::new(request);
        let mut work = Self { n_trials: foresight.trials.len(), n_slots: request.slots.len(), ..Self::default() };
        for trial in &foresight.trials {
            work.n_merges += usize::from(trial.merges);
            work.n_baselines += usize::from(trial.merges && request.plan.trials[trial.index].baseline);
            work.n_twins += usize::from(trial.follows.is_some());
            work.n_merges_reused += usize::from(trial.is_merge_reused && !trial.merges);
            work.n_models += usize::from(!trial.tasks.is_empty());
            work.n_evaluations += trial.tasks.len();
            work.n_reused += trial.n_reused;
            work.n_calls += calls.of(&trial.tasks).len();
        }
        work
    }
}

/// Calls of the harness for lists of tasks, of which there are few: each is shared out once.
struct Calls<'a> {
    request: &'a Request,
    known: HashMap<Vec<String>, Vec<Call>>,
}

impl<'a> Calls<'a> {
    fn new(request: &'a Request) -> Self {
        Self { request, known: HashMap::new() }
    }

    fn of(&mut self, tasks: &[TaskRequest]) -> &[Call] {
        let names = tasks.iter().map(|task| task.name.clone()).collect();
        self.known.entry(names).or_insert_with(|| {
            let runs_code = |task: &str| command::runs_code(&command::KnownTasks::new(), task);
            command::calls(&self.request.settings, tasks, &runs_code)
        })
    }
}

/// What is already known of a sweep.
pub struct Known<'a> {
    /// Its spec.
    pub sweep: &'a Sweep,
    /// What some of its trials scored, the one that the others are compared with first.
    pub entrants: &'a [Entrant],
    /// Columns of their outcomes, and of what is to come.
    pub columns: &'a [Column],
    /// Throughput of merges that was measured just now, pass by pass.
    pub calibrated: Vec<rates::Pass>,
    /// Two short runs of evaluations, just now.
    pub short: Option<[Short; 2]>,
}

/// Looks ahead.
///
/// # Errors
/// [`RunError`] where the journal or a model that is here cannot be read.
pub fn forecast(request: &Request, known: Known<'_>) -> Result<Forecast, RunError> {
    let foresight = foresee(request)?;
    let work = Work::of(request, &foresight);
    let volume = Volume::of(request, &foresight);
    let own = journal::read(&request.store.journal())?;
    let others: Vec<Vec<Record>> = request
        .store
        .other_sweeps()
        .iter()
        .filter_map(|folder| journal::read(&folder.join("journal.jsonl")).ok())
        .collect();
    let mut rates = Rates::of(&own, &others, volume.typical());
    if !known.calibrated.is_empty() {
        rates.merges = rates::Merges { passes: known.calibrated, origin: rates::Origin::Calibration };
    }
    // Short runs have counted the documents.
    let counted: Vec<Vec<Record>> =
        known.short.iter().flatten().map(|(_, records)| records.clone()).chain(others).collect();
    let tasks = tasks::tasks(&request.settings, &foresight, &own, &counted);
    let timed = known.short.as_ref().map(|short| Timed::of(&request.settings.tasks, short)).unwrap_or_default();
    rates.calibrated.extend(timed.iter().filter_map(|timed| {
        let n_documents = |request: &TaskRequest| tasks.iter().find(|task| task.name == request.name)?.n_documents;
        let documents: Option<Vec<u64>> = timed.tasks.iter().map(n_documents).collect();
        Some((time::asked_together(request, &timed.tasks), timed.whole(&documents?)?))
    }));
    let time = Time::of(request, &foresight, &volume, &rates);
    let followers: BTreeSet<usize> =
        foresight.trials.iter().filter(|trial| trial.follows.is_some()).map(|trial| trial.index).collect();
    let n_distinct = work.n_trials - followers.len();
    let detectable = power::detectable(known.sweep, known.columns, &tasks, n_distinct, known.entrants);
    let is_contender =
        |trial: &&Foreseen| !request.plan.trials[trial.index].baseline && !followers.contains(&trial.index);
    let n_contenders = foresight.trials.iter().filter(is_contender).count();
    let race = request.search.as_ref().map(|search| {
        let columns: Vec<&str> = search.columns.iter().map(|column| column.name.as_str()).collect();
        let points = request.grow.as_ref().map(|grow| placed(&SweepState::replay(&own), &grow.space).len());
        (columns.join(", "), Race::of(search, &tasks, n_contenders, points.unwrap_or_default()))
    });
    Ok(Forecast { work, volume, tasks, rates, time, detectable, race })
}
