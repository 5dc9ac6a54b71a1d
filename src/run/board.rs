//! What the lanes of a run share: the journal with the state it stands for, the queue of models to evaluate, and the
//! account of the disk.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::decide::StaleTask;
use super::event::RunEvent;
use super::facts::Facts;
use super::fingerprint::Key;
use super::journal::{Journal, JournalError, Stage, TaskEvaluation, What};
use super::pace::Pace;
use super::state::{SweepState, TrialState};
use super::{Failed, Listener, Outcome, Request, RunError};
use crate::eval::results::HarnessFacts;
use crate::plan::{Subject, Trial, TrialId};
use crate::process::Cancel;

/// How long nothing is done before what other sweeps are at is looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// The shared part of a run.
pub(super) struct Board<'a> {
    pub request: &'a Request,
    pub facts: &'a Facts,
    pub listener: &'a Listener,
    pub cancel: &'a Cancel,
    ledger: Mutex<Ledger>,
    queue: Mutex<Queue>,
    /// Told when the queue or the disk changes.
    changed: Notify,
}

/// The journal and the state it stands for: one is never changed without the other.
struct Ledger {
    journal: Journal,
    state: SweepState,
}

/// Models on their way from one lane to the other.
#[derive(Default)]
struct Queue {
    /// Trials whose model is there, with the keys of what is to be evaluated.
    ready: VecDeque<(usize, Vec<Key>)>,
    /// What is being evaluated. The same thing is not evaluated twice at once: its twin waits for the answer.
    busy: Vec<(usize, Vec<Key>)>,
    /// What another sweep is evaluating: taken again once nothing else is left.
    elsewhere: Vec<(usize, Vec<Key>)>,
    /// Trials of which that was told.
    told: HashSet<usize>,
    /// No model will become ready any more.
    is_complete: bool,
    /// Nothing new is begun.
    is_halted: bool,
    outcomes: BTreeMap<usize, Outcome>,
    redone: HashSet<usize>,
    pace: Pace,
    disk: Disk,
}

/// Bytes of merged models, by trial: those that are there and those that are being made.
#[derive(Debug, Default)]
struct Disk {
    held: BTreeMap<TrialId, u64>,
    peak: u64,
}

/// Whether there is room for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Now.
    Now,
    /// Once another model is gone.
    Later,
    /// Never: this many bytes are all there are.
    Never(u64),
}

impl<'a> Board<'a> {
    pub fn new(
        request: &'a Request,
        facts: &'a Facts,
        listener: &'a Listener,
        cancel: &'a Cancel,
        journal: Journal,
        state: SweepState,
    ) -> Self {
        let present = |id: &TrialId| {
            let state = state.of(id);
            let bytes = state.merged.filter(|_| state.model_present).map(|merged| merged.merge.n_bytes);
            bytes.map(|bytes| (id.clone(), bytes))
        };
        // Models of trials that the spec no longer has take room too.
        let held: BTreeMap<TrialId, u64> = state.trials().filter_map(present).collect();
        let disk = Disk { peak: held.values().sum(), held };
        Self {
            request,
            facts,
            listener,
            cancel,
            ledger: Mutex::new(Ledger { journal, state }),
            queue: Mutex::new(Queue { disk, ..Queue::default() }),
            changed: Notify::new(),
        }
    }

    pub fn trial(&self, index: usize) -> &'a Trial {
        &self.request.plan.trials[index]
    }

    pub fn say(&self, event: RunEvent) {
        (self.listener)(event);
    }

    /// Appends a record to the journal and applies it.
    pub fn record(&self, trial: &TrialId, what: What) -> Result<(), JournalError> {
        let mut ledger = self.ledger();
        let record = ledger.journal.append(Some(trial), what)?;
        ledger.state.apply(&record);
        Ok(())
    }

    /// Appends records of one moment to the journal and applies them.
    pub fn record_all(&self, records: Vec<(TrialId, What)>) -> Result<(), JournalError> {
        let mut ledger = self.ledger();
        let records = ledger.journal.append_all(records)?;
        records.iter().for_each(|record| ledger.state.apply(record));
        Ok(())
    }

    pub fn state_of(&self, trial: &TrialId) -> TrialState {
        self.ledger().state.of(trial)
    }

    /// An evaluation with that key of any trial of this sweep.
    pub fn evaluation_with(&self, task: &str, key: &Key) -> Option<(TrialId, TaskEvaluation, HarnessFacts)> {
        self.ledger().state.evaluation_with(task, key)
    }

    /// Whether nothing new is to be begun.
    pub fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled() || self.queue().is_halted
    }

    /// Begins nothing new.
    pub fn halt(&self) {
        self.queue().is_halted = true;
        self.changed.notify_waiters();
    }

    /// Waits until `step`, which is asked again after every change, gives something; none when the run is stopping.
    pub async fn until<T>(&self, mut step: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            // Registered before looking, so that no change falls between the two.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = step() {
                return Some(found);
            }
            if self.is_stopping() {
                return None;
            }
            tokio::select! {
                () = changed => {}
                () = self.cancel.cancelled() => return None,
            }
        }
    }

    /// Puts a trial whose model is there into the queue.
    pub fn make_ready(&self, index: usize, tasks: &[StaleTask]) {
        self.queue().ready.push_back((index, tasks.iter().map(|task| task.key.clone()).collect()));
        self.changed.notify_waiters();
    }

    /// No trial will become ready any more.
    pub fn complete(&self) {
        self.queue().is_complete = true;
        self.changed.notify_waiters();
    }

    /// The next trial to evaluate; none when all are done or the run is stopping. What another sweep is evaluating comes last.
    pub async fn take(&self) -> Option<usize> {
        let taken = loop {
            match tokio::time::timeout(PAUSE, self.until(|| self.next())).await {
                Ok(taken) => break taken.flatten(),
                Err(_) => {
                    let mut queue = self.queue();
                    let Queue { ready, elsewhere, .. } = &mut *queue;
                    ready.extend(elsewhere.drain(..));
                }
            }
        };
        // One waiting model less: a merge may begin.
        self.changed.notify_waiters();
        taken
    }

    /// The trial whose turn it is; nothing as long as there may be one later, and no trial where there never will be.
    fn next(&self) -> Option<Option<usize>> {
        let mut queue = self.queue();
        if queue.is_halted || self.cancel.is_cancelled() {
            return Some(None);
        }
        let busy: HashSet<&Key> = queue.busy.iter().flat_map(|(_, keys)| keys).collect();
        let free = queue.ready.iter().position(|(_, keys)| !keys.iter().any(|key| busy.contains(key)));
        drop(busy);
        match free.and_then(|free| queue.ready.remove(free)) {
            Some(taken) => {
                queue.busy.push(taken.clone());
                Some(Some(taken.0))
            }
            None => (queue.is_complete && queue.ready.is_empty() && queue.elsewhere.is_empty()).then_some(None),
        }
    }

    /// Puts a trial back that another sweep is evaluating.
    pub fn put_back(&self, index: usize) {
        let mut queue = self.queue();
        let Queue { busy, elsewhere, .. } = &mut *queue;
        elsewhere.extend(busy.iter().position(|(busy, _)| *busy == index).map(|place| busy.remove(place)));
        let is_news = queue.told.insert(index);
        drop(queue);
        if is_news {
            let name = &self.trial(index).name;
            let text = format!("{name}: another sweep is evaluating these weights: other work first, then its scores");
            self.say(RunEvent::Note(text));
        }
        // What waited for these weights may be taken.
        self.changed.notify_waiters();
    }

    /// A trial is through, for better or worse.
    pub fn settle(&self, index: usize, outcome: Outcome) {
        let mut queue = self.queue();
        queue.busy.retain(|(busy, _)| *busy != index);
        if matches!(outcome, Outcome::Failed(..)) && self.request.fail_fast {
            queue.is_halted = true;
        }
        queue.outcomes.insert(index, outcome);
        let tally = self.tally(&queue);
        drop(queue);
        self.say(tally);
        self.changed.notify_waiters();
    }

    /// Takes in how long a step took.
    pub fn took(&self, stage: Stage, duration: Duration) {
        self.queue().pace.took(stage, duration);
    }

    fn tally(&self, queue: &Queue) -> RunEvent {
        let (mut n_done, mut n_reused, mut n_failed, mut n_left, mut n_merges) = (0, 0, 0, 0, 0);
        let there: HashSet<usize> =
            queue.ready.iter().chain(&queue.busy).chain(&queue.elsewhere).map(|(index, _)| *index).collect();
        for index in &self.request.selected {
            match queue.outcomes.get(index) {
                Some(Outcome::Done) => n_done += 1,
                Some(Outcome::Reused) => n_reused += 1,
                Some(Outcome::Failed(..)) => n_failed += 1,
                Some(Outcome::Interrupted) | None => {
                    n_left += 1;
                    let is_merge = matches!(self.trial(*index).subject, Subject::Merge { .. });
                    n_merges += usize::from(is_merge && !there.contains(index));
                }
            }
        }
        let left = queue.pace.left(n_merges, n_left, self.request.slots.len());
        RunEvent::Tally { n_done: n_done + n_reused, n_reused, n_failed, n_left, left }
    }

    /// A trial that was to be done again has been.
    pub fn mark_redone(&self, index: usize) {
        self.queue().redone.insert(index);
    }

    pub fn is_redone(&self, index: usize) -> bool {
        self.queue().redone.contains(&index)
    }

    pub fn outcome_of(&self, index: usize) -> Option<Outcome> {
        self.queue().outcomes.get(&index).cloned()
    }

    /// Merged models that wait for a slot.
    pub fn n_merges_waiting(&self) -> usize {
        let is_merge = |index: usize| matches!(self.trial(index).subject, Subject::Merge { .. });
        self.queue().ready.iter().filter(|(index, _)| is_merge(*index)).count()
    }

    /// Whether `bytes` more of models fit, besides what is there.
    pub fn room_for(&self, bytes: u64) -> Room {
        let queue = self.queue();
        let used: u64 = queue.disk.held.values().sum();
        // Nothing that is there now will go away before something is evaluated.
        let is_idle = queue.ready.is_empty() && queue.busy.is_empty() && queue.elsewhere.is_empty();
        let is_still = self.request.slots.is_empty() || is_idle;
        match self.request.disk {
            Some(budget) if bytes > budget => Room::Never(budget),
            Some(budget) if used + bytes > budget && is_still => Room::Never(budget.saturating_sub(used)),
            Some(budget) if used + bytes > budget => Room::Later,
            _ => {
                let free = self.request.store.free_bytes();
                match free {
                    Some(free) if bytes > free && is_still => Room::Never(free),
                    Some(free) if bytes > free => Room::Later,
                    _ => Room::Now,
                }
            }
        }
    }

    /// Sets bytes aside for a model.
    pub fn hold(&self, trial: &TrialId, bytes: u64) {
        let mut queue = self.queue();
        queue.disk.held.insert(trial.clone(), bytes);
        queue.disk.peak = queue.disk.peak.max(queue.disk.held.values().sum());
        let used = queue.disk.held.values().sum();
        drop(queue);
        self.say(RunEvent::Disk { used, budget: self.request.disk });
    }

    /// Gives a model's bytes back.
    pub fn release(&self, trial: &TrialId) {
        let mut queue = self.queue();
        queue.disk.held.remove(trial);
        let used = queue.disk.held.values().sum();
        drop(queue);
        self.say(RunEvent::Disk { used, budget: self.request.disk });
        self.changed.notify_waiters();
    }

    /// Bytes of merged models that are there or being made.
    pub fn held(&self) -> u64 {
        self.queue().disk.held.values().sum()
    }

    /// What is left when the work is over: the journal with its state, how every trial ended, and the most bytes that merged
    /// models had at any time.
    pub fn into_parts(self) -> (Journal, SweepState, BTreeMap<usize, Outcome>, u64) {
        let Ledger { journal, state } = self.ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        let queue = self.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        (journal, state, queue.outcomes, queue.disk.peak)
    }

    /// Records a failed stage of a trial and settles it.
    pub fn fail(&self, index: usize, failure: Failure) -> Result<(), RunError> {
        let Failure { stage, reason, log } = failure;
        let (id, trial) = (&self.trial(index).id, self.trial(index).name.clone());
        self.record(id, What::Failed { stage, reason: self.without_home(&reason) })?;
        self.say(RunEvent::Failed { trial: trial.clone(), stage, reason: reason.clone(), log: log.clone() });
        self.settle(index, Outcome::Failed(Failed { trial, stage, reason, log }));
        Ok(())
    }

    /// A text for the journal, which may be published: whose home folder it was is nobody's business.
    pub fn without_home(&self, text: &str) -> String {
        self.request.locator.without_home(text)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves journal and state in step: the journal is written first.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is a single step.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a stage of a trial failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub stage: Stage,
    pub reason: String,
    pub log: Option<std::path::PathBuf>,
}

/// Why a stage ended early.
pub(super) enum Stop {
    Failed(Failure),
    Interrupted,
    Fatal(RunError),
}

impl<E: Into<RunError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}
