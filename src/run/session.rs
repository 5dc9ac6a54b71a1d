//! One run from its first look around to its end: what it knows, and the lanes that it sets to work.

use std::collections::BTreeMap;

use super::board::Board;
use super::elsewhere::Elsewhere;
use super::error::RunError;
use super::event::RunEvent;
use super::facts::{Facts, look_around, with_settings};
use super::hardware::Hardware;
use super::journal::{self, Journal, What};
use super::request::{on_all_slots, short_of_gpus};
use super::state::SweepState;
use super::trial::Work;
use super::{Listener, Outcome, Request, claim, explanation, merging, resume, slurm, store, trial, twins};
use crate::eval::preflight::{self, Folders};
use crate::eval::{Settings, command};
use crate::files::write_atomically;
use crate::plan::{self, TrialId};
use crate::process::Cancel;

/// One run: what it knows, and what lives as long as it does.
pub(super) struct Session<'a> {
    pub request: &'a Request,
    pub listener: &'a Listener,
    pub cancel: &'a Cancel,
    pub facts: Facts,
    /// None while a board has it.
    journal: Option<Journal>,
    pub state: SweepState,
    seats: Vec<trial::Seat<'a>>,
    /// When it began to look around, in UNIX seconds.
    since: f64,
    /// Whether the harness was asked, as there is something to do.
    has_begun: bool,
}

/// What came of the work on the trials of a request.
pub(super) struct Worked {
    pub outcomes: BTreeMap<usize, Outcome>,
    pub disk_peak: u64,
}

impl<'a> Session<'a> {
    /// Reads the journal, clears up what earlier runs left behind, and looks at models and harness.
    pub fn open(request: &'a Request, listener: &'a Listener, cancel: &'a Cancel) -> Result<Self, RunError> {
        let since = journal::now();
        let (journal, records) = Journal::open(&request.store.journal())?;
        refuse_submitted(&records)?;
        let state = SweepState::replay(&records);
        write_plan(request)?;

        let n_orphans = tokio::task::block_in_place(|| resume::end_orphans(request, &state));
        if n_orphans > 0 {
            listener(RunEvent::Note(format!("ended {n_orphans} processes that outlived an earlier run")));
        }
        resume::remove_stray_models(request, &state)?;
        let facts = match look_around(request, Some(cancel))? {
            (facts, lacks) if lacks.is_empty() => facts,
            (_, lacks) => return Err(RunError::Lacks(with_settings(request, lacks))),
        };
        let seats = request.slots.iter().enumerate().map(|(number, slot)| trial::Seat::new(number, slot)).collect();
        let journal = Some(journal);
        Ok(Self { request, listener, cancel, facts, journal, state, seats, since, has_begun: false })
    }

    /// Whether anything is left to do for the selected trials of a request.
    pub fn is_work_left(&self, request: &Request) -> bool {
        let followers = twins::followers(request);
        request
            .selected
            .iter()
            .any(|index| explanation::is_work_left(request, &self.facts, &self.state, &followers, *index))
    }

    /// Records that there is something to do, and asks the harness whether it can be done.
    pub fn begin(&mut self) -> Result<(), RunError> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        let Self { request, since, .. } = *self;
        let hardware = Some(tokio::task::block_in_place(|| Hardware::of(&request.slots)));
        self.record(None, What::RunStarted { since, n_slots: request.slots.len(), hardware })?;
        if request.slots.is_empty() {
            return Ok(());
        }
        let asked = ask_harness(request, &on_all_slots(request), self.listener, self.cancel);
        self.facts.known_tasks = match (asked, short_of_gpus(request)) {
            (Err(RunError::Lacks(mut lacks)), Some(short)) => {
                lacks.push(short.into());
                return Err(RunError::Lacks(lacks));
            }
            (Ok(_), Some(short)) => return Err(RunError::Lacks(vec![short.into()])),
            (asked, _) => asked?,
        };
        claim::clear(&request.store);
        self.facts.elsewhere = Elsewhere::read(&request.store, &request.plan.sweep);
        Ok(())
    }

    /// Asks the harness what it knows of the tasks.
    pub fn ask_harness(&mut self) -> Result<(), RunError> {
        let Self { request, listener, cancel, .. } = self;
        self.facts.known_tasks = ask_harness(request, &request.settings, listener, cancel)?;
        Ok(())
    }

    /// Appends a record and applies it.
    pub fn record(&mut self, trial: Option<&TrialId>, what: What) -> Result<(), RunError> {
        if let Some(journal) = &mut self.journal {
            let record = journal.append(trial, what)?;
            self.state.apply(&record);
        }
        Ok(())
    }

    /// Works on the selected trials of a request, which is the session's own or a part of it.
    pub async fn work(&mut self, request: &Request, listener: &Listener) -> Result<Worked, RunError> {
        let Some(journal) = self.journal.take() else { return Err(RunError::JournalGone) };
        let state = std::mem::take(&mut self.state);
        let board = Board::new(request, &self.facts, listener, self.cancel, journal, state);
        let followers = twins::followers(request);
        if !request.slots.is_empty() {
            resume::adopt(&board)?;
        }
        let (merges, waiting) = distribute(&board, &followers)?;
        let merging = async {
            let done = merging::lane(&board, merges).await;
            board.complete();
            done
        };
        let (merged, evaluated) = tokio::join!(stopping(&board, merging), async {
            let lanes = self.seats.iter_mut().map(|seat| stopping(&board, trial::lane(&board, seat)));
            futures_util::future::join_all(lanes).await
        });
        merged?;
        evaluated.into_iter().collect::<Result<(), RunError>>()?;
        twins::settle(&board, &waiting)?;
        trial::release_models(&board, None)?;
        let (journal, state, outcomes, disk_peak) = board.into_parts();
        self.journal = Some(journal);
        self.state = state;
        Ok(Worked { outcomes, disk_peak })
    }

    /// Ends the processes that stayed, and records that the run is over.
    pub async fn end(mut self) -> Result<(), RunError> {
        for seat in &mut self.seats {
            seat.end().await;
        }
        if self.has_begun {
            self.record(None, What::RunEnded)?;
        }
        Ok(())
    }
}

/// Asks the harness whether everything that is asked can be, and what it knows of the tasks.
pub(super) fn ask_harness(
    request: &Request,
    settings: &Settings,
    listener: &Listener,
    cancel: &Cancel,
) -> Result<command::KnownTasks, RunError> {
    listener(RunEvent::Preflight);
    let (home, cache) = (request.store.harness_home(), request.store.harness_cache());
    let folders = Folders { home: &home, cache: &cache };
    let preflight = tokio::task::block_in_place(|| preflight::preflight(settings, folders, cancel))?;
    preflight.notes.into_iter().for_each(|note| listener(RunEvent::Note(note)));
    Ok(preflight.known)
}

/// Writes the plan down beside the journal.
pub(super) fn write_plan(request: &Request) -> Result<(), RunError> {
    let plan = serde_json::to_vec_pretty(&plan::json::plan(&request.plan))?;
    let file = request.store.root().join("plan.json");
    Ok(write_atomically(&file, &plan).map_err(store::at(&file))?)
}

/// Refuses to touch a sweep whose units are with Slurm.
pub(super) fn refuse_submitted(records: &[journal::Record]) -> Result<(), RunError> {
    let open = slurm::submission::Submission::open(records);
    open.map_or(Ok(()), |open| Err(RunError::Submitted(open.number)))
}

/// Gives every selected trial its place: in the queue where its model is there, settled where nothing is left to do,
/// among the merges to be made, or among those that wait for a twin.
fn distribute(
    board: &Board<'_>,
    followers: &twins::Followers,
) -> Result<(Vec<merging::Wanted>, Vec<twins::Waiting>), RunError> {
    let (mut merges, mut waiting) = (Vec::new(), Vec::new());
    for index in &board.request.selected {
        let work = Work::new(board, *index);
        work.share()?;
        match (merging::wanted(&work), followers.get(index)) {
            (Some(_), Some(leader)) => waiting.push(twins::Waiting { index: *index, leader: *leader }),
            (Some(wanted), None) => merges.push(wanted),
            (None, _) => trial::settle_if_done(&work, Outcome::Reused)?,
        }
    }
    Ok((merges, waiting))
}

/// A lane whose error ends the others too.
async fn stopping(board: &Board<'_>, lane: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    let done = lane.await;
    if done.is_err() {
        board.halt();
    }
    done
}
