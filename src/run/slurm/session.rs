//! Somebody who looks after a submission for a while: asks Slurm, takes steps, and tells what units have recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::event::RunEvent;
use super::super::fingerprint::digest;
use super::super::journal::{self, Record, Stage, What};
use super::super::search::settings_of;
use super::super::state::SweepState;
use super::super::store::StoreError;
use super::super::{Failed, Listener, Request, Summary};
use super::manifest::Manifest;
use super::queue::{self, Ending, Task, TaskState, Unanswered};
use super::script::{Setting, quoted};
use super::step::{self, Polled};
use super::submission::{Job, Submission};
use super::unit::Unit;
use super::{Options, SlurmError, collect, jobs};
use crate::eval::Settings;
use crate::plan::TrialId;
use crate::plan::trial::slug;
use crate::process::Cancel;

/// Reasons for which jobs wait on every cluster, every day.
const ORDINARY: [&str; 9] = [
    "None",
    "Priority",
    "Resources",
    "Dependency",
    "JobArrayTaskLimit",
    "BeginTime",
    "Cleaning",
    "QOSMaxJobsPerUserLimit",
    "AssocMaxJobsLimit",
];

/// Longest time between the end of a task and the moment its records are seen: file systems keep what they saw for a while.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Somebody who looks after a submission.
pub(super) struct Session<'a> {
    pub request: &'a Request,
    pub options: &'a Options,
    pub listener: &'a Listener,
    pub cancel: &'a Cancel,
    /// Name of the job that this is, where it is the one that writes the table.
    pub own_job: Option<String>,
    /// Indices that an array may have.
    pub array_size: usize,
    /// Tasks at once.
    pub at_once: Option<usize>,
    /// Whether merges have jobs of their own.
    pub split: bool,
    /// Bytes that the models of a wave may take, where it is split.
    pub disk: Option<u64>,
    /// Number of the submission that it looks after: of no other one it takes a step.
    pub number: u32,
    /// What is asked of the trials.
    pub settings: Settings,
    seen: Mutex<Seen>,
}

/// What was seen, so that it is not told twice.
#[derive(Default)]
struct Seen {
    /// Names of the jobs to ask for.
    names: BTreeSet<String>,
    /// Records of every unit that were told.
    told: BTreeMap<usize, usize>,
    /// Since when a unit has no task and no result.
    idle: BTreeMap<usize, Instant>,
    /// Tasks that could not be started, and how often they were let try again.
    released: BTreeMap<String, usize>,
    /// Reasons for waiting, and failures to answer, that were told.
    notes: BTreeSet<String>,
    /// Units that were settled.
    settled: BTreeSet<usize>,
    /// Trials that failed.
    n_failed: usize,
}

impl<'a> Session<'a> {
    pub fn new(
        request: &'a Request,
        options: &'a Options,
        listener: &'a Listener,
        cancel: &'a Cancel,
        own_job: Option<String>,
    ) -> Self {
        Self {
            request,
            options,
            listener,
            cancel,
            own_job,
            array_size: queue::usual_array_size(),
            at_once: None,
            split: false,
            disk: None,
            number: 0,
            settings: request.settings.clone(),
            seen: Mutex::default(),
        }
    }

    /// How long another one may hold the sweep. Whoever takes the decision of a search may ask Optuna under its lock.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(if self.request.search.is_some() { 900 } else { 30 })
    }

    /// Takes in how units are handed over.
    fn learn(&mut self, manifest: &Manifest) -> bool {
        (self.at_once, self.split, self.disk) = (manifest.at_once, manifest.split, manifest.disk);
        self.settings = manifest.asking(self.request).settings;
        let asked = queue::max_array_size(self.cancel);
        self.array_size = asked.unwrap_or_else(queue::usual_array_size);
        asked.is_some()
    }

    pub fn say(&self, event: RunEvent) {
        (self.listener)(event);
    }

    pub fn note(&self, text: String) {
        self.say(RunEvent::Note(text));
    }

    /// A text for the journal, which may be published.
    pub fn without_home(&self, text: &str) -> String {
        self.request.locator.without_home(text)
    }

    /// Begins to look after a submission.
    pub fn join(&mut self, submission: &Submission) -> Result<(), SlurmError> {
        let store = &self.request.store;
        self.number = submission.number;
        self.learn(&self.manifest(submission.number)?);
        let mut told = BTreeMap::new();
        for unit in submission.unsettled() {
            told.insert(unit, collect::of_unit(store, &submission.units[unit])?.len());
        }
        let names = submission.jobs.iter().map(|job| job.name.clone()).collect();
        let settled = (0..submission.units.len()).filter(|unit| submission.settled[*unit]).collect();
        *self.seen() = Seen { names, told, settled, ..Seen::default() };
        Ok(())
    }

    /// What the tasks of a submission were told.
    pub fn manifest(&self, number: u32) -> Result<Manifest, SlurmError> {
        Manifest::read(&self.setting(number).manifest())
    }

    /// Follows a submission to its end (true), or until the user or `once` leaves it. The job that writes the table leaves
    /// it to its successor.
    pub async fn follow(&self, once: bool) -> Result<bool, SlurmError> {
        loop {
            let Some(submission) = tokio::task::block_in_place(|| self.advance())? else { return Ok(true) };
            if submission.is_closed {
                return Ok(true);
            }
            let has_successor = self.own_job.as_ref().is_some_and(|own| {
                let tables = submission.jobs.iter().filter(|job| job.units.is_empty());
                tables.skip_while(|job| job.name != *own).nth(1).is_some()
            });
            if has_successor || (once && submission.jobs.iter().all(|job| job.id.is_some())) {
                return Ok(false);
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.slurm.poll) => {}
                () = self.cancel.cancelled() => return Ok(false),
            }
        }
    }

    /// Asks Slurm, takes a step, and tells what is new. While somebody else holds the sweep, a step is theirs to take: the journal
    /// says how things stand.
    pub fn advance(&self) -> Result<Option<Submission>, SlurmError> {
        let mut polled = self.poll();
        self.release(polled.tasks.as_deref().unwrap_or_default());
        let submission = match step::step(self, &mut polled) {
            Err(SlurmError::Store(StoreError::Held { holder, .. })) => {
                self.note_once(format!("{holder} holds this sweep; nothing is concluded until it lets go"));
                Submission::open(&journal::read(&self.request.store.journal())?)
            }
            stepped => stepped?,
        };
        if let Some(submission) = &submission {
            self.report(submission, &polled)?;
        }
        Ok(submission)
    }

    fn poll(&self) -> Polled {
        let names = self.seen().names.clone();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let tasks = match queue::tasks(&asked, self.cancel) {
            Ok(tasks) => Some(tasks),
            Err(error) => {
                self.note_once(format!("{error}; nothing is concluded from that"));
                None
            }
        };
        Polled { names, tasks }
    }

    /// Lets tasks try again that could not be started, on another node if that one is out of service: as often as a unit may be
    /// submitted again. What is held for any other reason is held by somebody.
    fn release(&self, tasks: &[Task]) {
        let mut held = Vec::new();
        for task in tasks.iter().filter(|task| task.is_held_after_launch()) {
            let id = task.id();
            let n_released = *self.seen().released.entry(id.clone()).and_modify(|n| *n += 1).or_insert(1);
            if n_released <= self.options.slurm.max_resubmissions {
                self.note(format!("task {id} could not be started: Slurm is asked to try again"));
                held.push(id);
            } else {
                self.note_once(format!(
                    "task {id} cannot be started\nhint: ask who looks after the cluster, then `scontrol release {id}`"
                ));
            }
        }
        if !held.is_empty()
            && let Err(error) = queue::release(&held, self.cancel)
        {
            self.note_once(error.to_string());
        }
    }

    /// Whether Slurm says that a job of a submission waits or runs.
    pub fn is_on_slurm(&self, submission: &Submission) -> bool {
        let names: Vec<&str> = submission.jobs.iter().map(|job| job.name.as_str()).collect();
        let tasks = queue::tasks(&names, self.cancel).unwrap_or_default();
        tasks.iter().any(|task| !matches!(task.state, TaskState::Ended(_)))
    }

    /// Ends everything that Slurm has of the submission.
    pub fn cancel_jobs(&self) -> Result<(), Unanswered> {
        let names = self.seen().names.clone();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let tasks = queue::tasks(&asked, self.cancel)?;
        let live = tasks.iter().filter(|task| !matches!(task.state, TaskState::Ended(_)));
        let jobs: BTreeSet<&str> = live.map(|task| task.job.as_str()).collect();
        queue::cancel_jobs(&jobs.into_iter().collect::<Vec<_>>(), self.cancel)
    }

    /// Whether a unit has been without a task for so long that its records would be seen if there were any. Where Slurm says
    /// how a task was ended, nothing more is to be expected of it.
    pub fn is_stale(&self, unit: usize, ending: &Ending) -> bool {
        let since = *self.seen().idle.entry(unit).or_insert_with(Instant::now);
        let patience = (self.options.slurm.poll * 4).min(LONGEST_DELAY);
        !matches!(ending, Ending::Completed | Ending::ByItself | Ending::Unknown) || since.elapsed() >= patience
    }

    fn report(&self, submission: &Submission, polled: &Polled) -> Result<(), SlurmError> {
        let tasks = polled.tasks.as_deref().unwrap_or_default();
        for reason in tasks.iter().filter(|task| task.state == TaskState::Pending).map(|task| &task.reason) {
            if !ORDINARY.contains(&reason.as_str()) {
                self.note_once(format!("jobs wait on Slurm: {reason}"));
            }
        }
        let mut is_news = false;
        for unit in 0..submission.units.len() {
            let is_settled = submission.settled[unit];
            let task = running(submission, unit, tasks);
            if task.is_some() {
                self.seen().idle.remove(&unit);
            }
            let is_new = is_settled && self.seen().settled.insert(unit);
            if is_new || task.is_some() {
                self.tell_unit(submission, unit, task.map(|task| task.node.as_str()).unwrap_or_default())?;
            }
            is_news |= is_new;
        }
        self.seen().names = submission.jobs.iter().map(|job| job.name.clone()).collect();
        if is_news {
            let trials = |settled: bool| {
                let units = submission.units.iter().zip(&submission.settled).filter(move |(_, done)| **done == settled);
                units.map(|(unit, _)| unit.trials.len()).sum::<usize>()
            };
            let n_failed = self.seen().n_failed;
            let n_done = trials(true).saturating_sub(n_failed);
            self.say(RunEvent::Tally { n_done, n_reused: 0, n_failed, n_left: trials(false), left: None });
        }
        Ok(())
    }

    /// Tells what a unit has recorded since it was last looked at.
    fn tell_unit(&self, submission: &Submission, unit: usize, node: &str) -> Result<(), SlurmError> {
        let of_unit = &submission.units[unit];
        let records = collect::of_unit(&self.request.store, of_unit)?;
        let told = self.seen().told.insert(unit, records.len()).unwrap_or_default();
        let on = if node.is_empty() { String::new() } else { format!("on {node}") };
        records.iter().skip(told).for_each(|record| self.tell_on(of_unit, record, &on));
        Ok(())
    }

    /// Tells one record of a unit.
    pub fn tell(&self, unit: &Unit, record: &Record) {
        self.tell_on(unit, record, "");
    }

    fn tell_on(&self, unit: &Unit, record: &Record, why: &str) {
        let trial = unit.trials.iter().find(|trial| Some(&trial.id) == record.trial.as_ref());
        let Some(trial) = trial.map(|trial| trial.name.clone()) else { return };
        let why = why.to_owned();
        self.say(match &record.what {
            What::MergeStarted => RunEvent::StageStarted { trial, stage: Stage::Merge, slot: None, why },
            What::Merged { merge, .. } => {
                let what = format!("{} tensors, {:.0} MB", merge.n_tensors, merge.n_bytes as f64 / 1e6);
                let elapsed = Duration::try_from_secs_f64(merge.seconds).unwrap_or_default();
                RunEvent::StageFinished { trial, stage: Stage::Merge, elapsed, what }
            }
            What::EvaluationStarted { slot, .. } => {
                RunEvent::StageStarted { trial, stage: Stage::Evaluate, slot: Some(*slot), why }
            }
            What::Evaluated(evaluation) => {
                let tasks: Vec<&str> = evaluation.tasks.iter().map(|task| task.task.as_str()).collect();
                let elapsed = Duration::try_from_secs_f64(evaluation.seconds).unwrap_or_default();
                RunEvent::StageFinished { trial, stage: Stage::Evaluate, elapsed, what: tasks.join(", ") }
            }
            What::Shared { task, from, .. } => RunEvent::Shared { trial, task: task.task.clone(), from: from.clone() },
            What::Failed { stage, reason } => {
                self.seen().n_failed += 1;
                RunEvent::Failed { trial, stage: *stage, reason: reason.clone(), log: None }
            }
            _ => return,
        });
    }

    /// How the selected trials of a run stand.
    pub fn summary(&self, request: &Request, records: &[Record], first: Option<u32>) -> Summary {
        let (state, open) = (SweepState::replay(records), Submission::open(records));
        let attempted = first.map(|first| Submission::attempted(records, first)).unwrap_or_default();
        let attempted: BTreeSet<&TrialId> = attempted.iter().map(|(_, trial)| trial).collect();
        let units = open.iter().flat_map(|open| open.unsettled().map(|unit| &open.units[unit]));
        let left: BTreeSet<&TrialId> = units.flat_map(|unit| &unit.trials).map(|trial| &trial.id).collect();
        let mut summary = Summary::default();
        for index in &request.selected {
            let trial = &request.plan.trials[*index];
            // Of a search, what is left by the decisions so far.
            let settings = settings_of(request, &state, *index);
            let state = state.of(&trial.id);
            if left.contains(&trial.id) {
                summary.n_left += 1;
            } else if let Some((stage, reason)) = state.failure.clone() {
                summary.failed.push(Failed { trial: trial.name.clone(), stage, reason, log: None });
            } else if settings.tasks.iter().all(|task| state.current(&settings, task).is_some()) {
                summary.n_done += 1;
                summary.n_reused += usize::from(!attempted.contains(&trial.id));
            } else {
                summary.n_left += 1;
            }
        }
        summary.interrupted = self.cancel.is_cancelled() || (summary.n_left > 0 && open.is_none());
        summary
    }

    /// What all jobs of this sweep's submission of that number are called, before the dot.
    pub fn base(&self, number: u32) -> String {
        let root = self.request.store.root().to_string_lossy().into_owned();
        format!("{}-{}-{number}", slug(&self.request.plan.sweep), &digest(root.as_bytes())[..4])
    }

    pub fn setting(&self, number: u32) -> Setting<'a> {
        let Options { slurm, spec, here, .. } = self.options;
        let folder = self.request.store.submission(number);
        Setting { settings: slurm, program: &self.request.program, spec, here, folder }
    }

    pub fn script(&self, number: u32, job: &Job) -> String {
        let setting = self.setting(number);
        if job.is_table() { setting.table(&job.name) } else { setting.array(job, self.at_once) }
    }

    /// The commands of a submission to be, with their scripts; and whether a cluster answers.
    pub fn preview(&mut self, manifest: &Manifest) -> (Vec<(String, String)>, bool) {
        let is_cluster = self.learn(manifest);
        let units: Vec<usize> = (0..manifest.units.len()).collect();
        let (number, settled) = (manifest.submission, vec![false; units.len()]);
        let mut submission = Submission { number, units: manifest.units.clone(), settled, ..Submission::default() };
        submission.jobs = jobs::of_units(self, &submission, &units);
        if !units.is_empty() {
            submission.jobs.push(jobs::table(self, &submission));
        }
        let shown = |job: &Job| {
            let dependency = job.dependency(&|name| Some(format!("<number of {name}>"))).unwrap_or_default();
            let mut args = queue::submit_args(&self.setting(number).path(&job.name), &dependency);
            if let Some(script) = args.last_mut() {
                *script = quoted(script);
            }
            (format!("sbatch {}", args.join(" ")), self.script(number, job))
        };
        (submission.jobs.iter().map(shown).collect(), is_cluster)
    }

    fn note_once(&self, text: String) {
        let is_new = self.seen().notes.insert(text.clone());
        if is_new {
            self.note(text);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every change of it is a single step.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that works on a unit now.
fn running<'t>(submission: &Submission, unit: usize, tasks: &'t [Task]) -> Option<&'t Task> {
    step::attempt(submission, unit).find_map(|(job, index)| {
        let is_it =
            |task: &&Task| task.name == job.name && task.index == Some(index) && task.state == TaskState::Running;
        tasks.iter().find(is_it)
    })
}
