//! One step of a submission, under the lock of the sweep: jobs get their numbers, units that ended are gathered, those that
//! were lost are handed over again, and a submission with nothing left is closed.
//!
//! A step decides by records on disk and by one answer of Slurm, and may be taken by anybody at any time: an attached run,
//! the job that writes the table, a run from another login.

use std::collections::{BTreeMap, BTreeSet};

use super::super::journal::{Journal, Record, What};
use super::queue::{self, Ending, Task, TaskState};
use super::submission::{Job, Part, Step, Submission};
use super::{Session, SlurmError, collect, counted, jobs};

/// What Slurm said of the jobs that it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Polled {
    /// Names of those jobs.
    pub names: BTreeSet<String>,
    /// The answer; none where there was none.
    pub tasks: Option<Vec<Task>>,
}

impl Polled {
    /// Whether Slurm knows nothing of a job any more: it was over long ago, or a controller that crashed has forgotten it.
    pub fn is_gone(&self, name: &str) -> bool {
        let is_listed = |tasks: &Vec<Task>| tasks.iter().any(|task| task.name == name);
        self.names.contains(name) && self.tasks.as_ref().is_some_and(|tasks| !is_listed(tasks))
    }
}

/// What is to become of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Slurm has it: it waits for its turn, or runs.
    Lives,
    /// Nothing is known that would change anything.
    Waits,
    /// It has done what it could.
    Ended(Option<String>),
    /// It can never be done.
    Failed(String),
    /// It is to be handed over (again), for this reason.
    Again(String),
}

/// Takes one step and gives back the submission as it is then; none where it is over. Another one may be open by then, which has other
/// settings, and followers of its own.
pub(super) fn step(session: &Session<'_>, polled: &mut Polled) -> Result<Option<Submission>, SlurmError> {
    let store = &session.request.store;
    let _lock = store.lock_within(session.patience())?;
    let (mut journal, records) = Journal::open(&store.journal())?;
    let open = Submission::open(&records).filter(|open| open.number == session.number);
    let Some(mut submission) = open else { return Ok(None) };
    jobs::find_or_send(session, &mut submission, polled, &mut journal)?;
    let ended = accounted(session, &submission, polled);
    let mut again: Vec<usize> = Vec::new();
    let mut taken: Vec<Record> = Vec::new();
    let mut steps: Vec<What> = Vec::new();
    let known = collect::lines(&records);
    let unsettled: Vec<usize> = submission.unsettled().collect();
    let (mut n_live, mut n_waiting) = (0, 0);
    for unit in unsettled {
        let of_unit = &submission.units[unit];
        let own = collect::of_unit(store, of_unit)?;
        let fate = fate(session, &submission, unit, &own, polled, &ended);
        let settles = match fate {
            Fate::Lives => {
                n_live += 1;
                continue;
            }
            Fate::Waits => {
                n_waiting += 1;
                continue;
            }
            Fate::Again(reason) if !submission.is_cancelled => {
                if !reason.is_empty() {
                    session.note(format!("{}: {reason}: submitted again", of_unit.label()));
                }
                again.push(unit);
                continue;
            }
            // What was begun is recorded, so that the next run goes on from there.
            Fate::Again(_) | Fate::Failed(_) if submission.is_cancelled => None,
            Fate::Ended(reason) => reason,
            Fate::Again(reason) | Fate::Failed(reason) => Some(reason),
        };
        let missing = collect::missing(&own, &known, of_unit);
        if let Some(reason) = settles {
            let settings = &session.settings;
            let all: Vec<Record> = records.iter().chain(&missing).cloned().collect();
            taken.extend(missing);
            let failures = collect::failures(&all, of_unit, settings, &session.without_home(&reason));
            failures.iter().for_each(|failure| session.tell(of_unit, failure));
            taken.extend(failures);
        } else {
            taken.extend(missing);
        }
        steps.push(What::Slurm(Step::Settled { submission: submission.number, unit }));
        submission.settled[unit] = true;
    }
    let is_over = n_live + n_waiting == 0 && again.is_empty();
    if is_over {
        let reason = submission.is_cancelled.then(|| "cancelled".to_owned());
        steps.push(What::Slurm(Step::Closed { submission: submission.number, reason }));
        submission.is_closed = true;
    }
    if !taken.is_empty() || !steps.is_empty() {
        journal.take_over(&taken, steps)?;
    }
    if !is_over && !submission.is_cancelled {
        let has_table = submission.jobs.iter().any(|job| job.is_table() && is_awaited(session, job, polled));
        // The job that writes the table waits by itself for what is nowhere; for what lives, it has a successor.
        let needs_table = session.own_job.is_none() || n_live > 0;
        let of_units = jobs::of_units(session, &submission, &again);
        jobs::enter(session, &mut submission, of_units, polled, &mut journal)?;
        if !again.is_empty() || (needs_table && !has_table) {
            let table = jobs::table(session, &submission);
            jobs::enter(session, &mut submission, vec![table], polled, &mut journal)?;
        }
    }
    Ok(Some(submission))
}

/// How tasks ended that the queue no longer lists, as the accounting tells.
fn accounted(session: &Session<'_>, submission: &Submission, polled: &Polled) -> BTreeMap<(String, usize), TaskState> {
    let Some(tasks) = &polled.tasks else { return BTreeMap::new() };
    let listed: BTreeSet<(&str, Option<usize>)> = tasks.iter().map(|task| (task.job.as_str(), task.index)).collect();
    let jobs: BTreeSet<&str> = submission
        .unsettled()
        .flat_map(|unit| attempt(submission, unit))
        .filter(|(job, _)| polled.names.contains(&job.name))
        .filter_map(|(job, index)| Some((job.id.as_deref()?, index)))
        .filter(|(job, index)| !listed.contains(&(*job, Some(*index))))
        .map(|(job, _)| job)
        .collect();
    let jobs: Vec<&str> = jobs.into_iter().collect();
    let accounts = queue::accounted(&jobs, session.cancel).into_iter();
    accounts.filter_map(|(job, index, state)| Some(((job, index?), state))).collect()
}

/// The tasks in which a unit was last handed over: of the job for all of it, and of the one for its merges.
pub(super) fn attempt(submission: &Submission, unit: usize) -> impl Iterator<Item = (&Job, usize)> {
    let whole = submission.job_of(unit);
    whole.into_iter().chain(whole.and_then(|(job, _)| submission.merges_for(job, unit)))
}

fn fate(
    session: &Session<'_>,
    submission: &Submission,
    unit: usize,
    own: &[Record],
    polled: &Polled,
    accounted: &BTreeMap<(String, usize), TaskState>,
) -> Fate {
    if let Some(reason) = collect::ended(own, submission.number) {
        return Fate::Ended(reason);
    }
    let Some((job, _)) = submission.job_of(unit) else { return Fate::Again(String::new()) };
    let Some(tasks) = polled.tasks.as_deref().filter(|_| polled.names.contains(&job.name)) else { return Fate::Waits };
    // A script that was submitted by hand too has the same name.
    let is_live = |(job, index): (&Job, usize)| {
        let mut same = tasks.iter().filter(|task| task.name == job.name && task.index == Some(index));
        same.any(|task| !matches!(task.state, TaskState::Ended(_)))
    };
    if attempt(submission, unit).any(is_live) {
        return Fate::Lives;
    }
    if job.id.is_none() {
        // Cancelled before it was ever handed over.
        return if submission.is_cancelled { Fate::Again(String::new()) } else { Fate::Waits };
    }
    let mut endings = Vec::new();
    for (job, index) in attempt(submission, unit) {
        let Some(id) = job.id.clone() else { continue };
        let listed = tasks.iter().find(|task| task.name == job.name && task.index == Some(index) && task.job == id);
        let state = listed.map(|task| &task.state).or_else(|| accounted.get(&(id.clone(), index)));
        let ending = match state {
            Some(TaskState::Ended(ending)) => ending.clone(),
            Some(_) => return Fate::Waits,
            None => Ending::Unknown,
        };
        endings.push(Ended { task: format!("{id}_{index}"), part: job.part, ending });
    }
    let Some(ended) = decisive(endings) else { return Fate::Waits };
    let store = session.request.store.unit(&submission.units[unit].id);
    // Whatever Slurm says: while its lock is held, somebody works on it.
    if store.is_held() || !session.is_stale(unit, &ended.ending) {
        return Fate::Waits;
    }
    sentence(session, submission, unit, &ended)
}

/// How a task ended.
#[derive(Debug, Clone)]
struct Ended {
    task: String,
    part: Part,
    ending: Ending,
}

/// The ending that decides: that of all of the unit, unless it never began since its merges did not end well.
fn decisive(endings: Vec<Ended>) -> Option<Ended> {
    let mut endings = endings.into_iter();
    let whole = endings.next()?;
    let merges = endings.next().filter(|merges| match whole.ending {
        Ending::Unmet => merges.ending != Ending::Completed,
        // The accounting does not tell why.
        Ending::Cancelled(_) => !matches!(merges.ending, Ending::Completed | Ending::Unknown),
        _ => false,
    });
    Some(merges.unwrap_or(whole))
}

/// What becomes of a unit whose task ended without having done it.
fn sentence(session: &Session<'_>, submission: &Submission, unit: usize, ended: &Ended) -> Fate {
    let Ended { task, part, ending } = ended;
    let key = if *part == Part::Merges { "engine.merge" } else { "engine" };
    let how = match ending {
        Ending::Completed | Ending::ByItself => "ended without a result".to_owned(),
        Ending::TimedOut => "ran out of time".to_owned(),
        Ending::Lost(state) => format!("was lost ({state})"),
        Ending::Unmet => "waited for a task that was lost".to_owned(),
        Ending::Unknown => "is gone, and Slurm no longer knows how it ended".to_owned(),
        Ending::OutOfMemory => {
            let less = if *part == Part::Merges { "limits.merges_per_pass" } else { "evaluate.batch_size" };
            return Fate::Failed(format!(
                "task {task} used more memory than it had\nhint: raise `{key}.memory`, or lower `{less}`"
            ));
        }
        Ending::Cancelled(by) => {
            let by = by.as_deref().map(|user| format!(" by user {user}")).unwrap_or_default();
            return Fate::Failed(format!(
                "task {task} was cancelled on Slurm{by}\nhint: the next `mergesweep run` submits it again"
            ));
        }
    };
    let (n_attempts, most) = (submission.n_attempts(unit), session.options.slurm.max_resubmissions);
    if n_attempts <= most {
        return Fate::Again(format!("task {task} {how}"));
    }
    let hint = match ending {
        Ending::TimedOut => format!("raise `{key}.time`, or `engine.max_resubmissions`"),
        _ => "its output is among the logs of the submission".to_owned(),
    };
    let logs = session.request.store.submission(submission.number).join("logs");
    Fate::Failed(format!(
        "task {task} {how}, after {}\nhint: {hint}: {}",
        counted(n_attempts, "attempt"),
        logs.display()
    ))
}

/// Whether a job is still to come, or may be.
fn is_awaited(session: &Session<'_>, job: &Job, polled: &Polled) -> bool {
    if Some(&job.name) == session.own_job.as_ref() {
        return false;
    }
    match &polled.tasks {
        Some(tasks) if polled.names.contains(&job.name) => {
            tasks.iter().any(|task| task.name == job.name && !matches!(task.state, TaskState::Ended(_)))
        }
        _ => true,
    }
}

/// Records that the user wants no more of the last submission, unless it is over.
pub(super) fn mark_cancelled(session: &Session<'_>) -> Result<Option<Submission>, SlurmError> {
    let store = &session.request.store;
    if !store.journal().exists() {
        return Ok(None);
    }
    let _lock = store.lock_within(session.patience())?;
    let (mut journal, records) = Journal::open(&store.journal())?;
    // The last job of a part of a search is about to submit the next one.
    let goes_on = |last: &Submission| last.search.is_some() && !last.is_cancelled && session.is_on_slurm(last);
    let last = Submission::all(&records).into_iter().next_back();
    let Some(open) = last.filter(|last| !last.is_closed || goes_on(last)) else { return Ok(None) };
    journal.append(None, What::Slurm(Step::Cancelled { submission: open.number }))?;
    Ok(Some(open))
}

/// Closes the open submission whatever Slurm has of it, unless a task is seen to work.
pub(super) fn abandon(session: &Session<'_>) -> Result<(), SlurmError> {
    let store = &session.request.store;
    let _lock = store.lock_within(session.patience())?;
    let (mut journal, records) = Journal::open(&store.journal())?;
    let Some(open) = Submission::open(&records) else { return Ok(()) };
    let known = collect::lines(&records);
    let (mut taken, mut steps) = (Vec::new(), Vec::new());
    for unit in open.unsettled() {
        let of_unit = &open.units[unit];
        if store.unit(&of_unit.id).is_held() {
            return Err(SlurmError::StillWorking(of_unit.label()));
        }
        taken.extend(collect::missing(&collect::of_unit(store, of_unit)?, &known, of_unit));
        steps.push(What::Slurm(Step::Settled { submission: open.number, unit }));
    }
    let reason = Some("abandoned".to_owned());
    steps.push(What::Slurm(Step::Closed { submission: open.number, reason }));
    Ok(journal.take_over(&taken, steps)?)
}
