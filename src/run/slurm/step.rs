//! One step of a submission, under the lock of the sweep: jobs get their numbers, units that ended are gathered, those that
//! were lost are handed over again, and a submission with nothing left is closed.
//!
//! A step decides by records on disk and by one answer of Slurm, and may be taken by anybody at any time: an attached run,
//! the job that writes the table, a run from another login.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::journal::{Journal, Record, What};
use super::collect;
use super::queue::{self, Ending, NotTaken, Task, TaskState};
use super::submission::{Job, Step, Submission};
use super::{Session, SlurmError, counted};
use crate::files::write_atomically;
use crate::run::event::RunEvent;
use crate::run::store::at;

/// What Slurm said of the jobs that it was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Polled {
    /// Names of those jobs.
    pub names: BTreeSet<String>,
    /// The answer; none where there was none.
    pub tasks: Option<Vec<Task>>,
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

/// Takes one step and gives back the submission as it is then; none where there is none.
pub(super) fn step(session: &Session<'_>, polled: &Polled) -> Result<Option<Submission>, SlurmError> {
    let store = &session.request.store;
    let _lock = store.lock_within(Duration::from_secs(30))?;
    let (mut journal, records) = Journal::open(&store.journal())?;
    let Some(mut submission) = Submission::open(&records) else { return Ok(None) };
    number_jobs(session, &mut submission, polled, &mut journal)?;
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
            let settings = &session.request.settings;
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
        hand_over(session, &mut submission, &again, &mut journal)?;
        let has_table = submission.jobs.iter().any(|job| job.units.is_empty() && is_awaited(session, job, polled));
        // The job that writes the table waits by itself for what is nowhere; for what lives, it has a successor.
        let needs_table = session.own_job.is_none() || n_live > 0;
        if !again.is_empty() || (needs_table && !has_table) {
            enter_table(session, &mut submission, &mut journal)?;
        }
    }
    Ok(Some(submission))
}

/// Finds the numbers of jobs that were being handed over when whoever did it was killed, or hands them over now.
fn number_jobs(
    session: &Session<'_>,
    submission: &mut Submission,
    polled: &Polled,
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let Some(tasks) = &polled.tasks else { return Ok(()) };
    let number = submission.number;
    let lost: Vec<Job> =
        submission.jobs.iter().filter(|job| job.id.is_none() && polled.names.contains(&job.name)).cloned().collect();
    for job in lost {
        let id = match tasks.iter().find(|task| task.name == job.name) {
            Some(task) => task.job.clone(),
            None if submission.is_cancelled => continue,
            None => match send(session, submission, &job, journal)? {
                Some(id) => id,
                None => continue,
            },
        };
        let name = job.name.clone();
        journal.append(None, What::Slurm(Step::Submitted { submission: number, name, job: id.clone() }))?;
        submission.jobs.iter_mut().filter(|other| other.name == job.name).for_each(|job| job.id = Some(id.clone()));
    }
    Ok(())
}

/// How tasks ended that the queue no longer lists, as the accounting tells.
fn accounted(session: &Session<'_>, submission: &Submission, polled: &Polled) -> BTreeMap<(String, usize), TaskState> {
    let Some(tasks) = &polled.tasks else { return BTreeMap::new() };
    let listed: BTreeSet<(&str, Option<usize>)> = tasks.iter().map(|task| (task.job.as_str(), task.index)).collect();
    let jobs: BTreeSet<&str> = submission
        .unsettled()
        .filter_map(|unit| submission.job_of(unit))
        .filter(|(job, _)| polled.names.contains(&job.name))
        .filter_map(|(job, index)| Some((job.id.as_deref()?, index)))
        .filter(|(job, index)| !listed.contains(&(*job, Some(*index))))
        .map(|(job, _)| job)
        .collect();
    let jobs: Vec<&str> = jobs.into_iter().collect();
    let accounts = queue::accounted(&jobs, session.cancel).into_iter();
    accounts.filter_map(|(job, index, state)| Some(((job, index?), state))).collect()
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
    let Some((job, index)) = submission.job_of(unit) else { return Fate::Again(String::new()) };
    let (Some(tasks), Some(id)) = (&polled.tasks, &job.id) else {
        let is_absent = polled.tasks.is_some() && polled.names.contains(&job.name);
        // Cancelled before it was ever handed over.
        return if submission.is_cancelled && is_absent { Fate::Again(String::new()) } else { Fate::Waits };
    };
    if !polled.names.contains(&job.name) {
        return Fate::Waits;
    }
    // A script that was submitted by hand too has the same name.
    let same = |task: &&Task| task.name == job.name && task.index == Some(index);
    let is_live = |task: &Task| !matches!(task.state, TaskState::Ended(_));
    if tasks.iter().filter(same).any(is_live) {
        return Fate::Lives;
    }
    let own_task = tasks.iter().filter(same).find(|task| task.job == *id).map(|task| &task.state);
    let state = own_task.or_else(|| accounted.get(&(id.clone(), index)));
    let ending = match state {
        Some(TaskState::Ended(ending)) => ending.clone(),
        Some(_) => return Fate::Waits,
        None => Ending::Unknown,
    };
    let store = session.request.store.unit(&submission.units[unit].id);
    // Whatever Slurm says: while its lock is held, somebody works on it.
    if store.is_held() || !session.is_stale(unit, &ending) {
        return Fate::Waits;
    }
    sentence(session, submission, unit, &format!("{id}_{index}"), &ending)
}

/// What becomes of a unit whose task ended without having done it.
fn sentence(session: &Session<'_>, submission: &Submission, unit: usize, task: &str, ending: &Ending) -> Fate {
    let how = match ending {
        Ending::ByItself => "ended without a result".to_owned(),
        Ending::TimedOut => "ran out of time".to_owned(),
        Ending::Lost(state) => format!("was lost ({state})"),
        Ending::Unknown => "is gone, and Slurm no longer knows how it ended".to_owned(),
        Ending::OutOfMemory => {
            return Fate::Failed(format!(
                "task {task} used more memory than it had\nhint: raise `engine.memory`, or lower `evaluate.batch_size`"
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
        Ending::TimedOut => "raise `engine.time`, or `engine.max_resubmissions`",
        _ => "its output is among the logs of the submission",
    };
    let logs = session.request.store.submission(submission.number).join("logs");
    Fate::Failed(format!(
        "task {task} {how}, after {}\nhint: {hint}: {}",
        counted(n_attempts, "attempt"),
        logs.display()
    ))
}

/// Hands over units that have no job.
fn hand_over(
    session: &Session<'_>,
    submission: &mut Submission,
    units: &[usize],
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let mut before = submission.jobs.iter().rev().find(|job| !job.units.is_empty()).and_then(|job| job.id.clone());
    for job in arrays(session, submission, units) {
        // Together no more tasks than one array may have: the next one waits for the last, one of units that were lost too.
        let after: Vec<String> = before.iter().filter(|_| session.at_once.is_some()).cloned().collect();
        before = enter(session, submission, job, &after, journal)?;
    }
    Ok(())
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

/// Hands over a job that writes the table once the jobs of all units are over.
fn enter_table(session: &Session<'_>, submission: &mut Submission, journal: &mut Journal) -> Result<(), SlurmError> {
    let name = session.table_name(submission);
    let jobs: BTreeSet<&str> =
        submission.unsettled().filter_map(|unit| submission.job_of(unit)?.0.id.as_deref()).collect();
    let after: Vec<String> = jobs.into_iter().map(str::to_owned).collect();
    enter(session, submission, Job { name, units: Vec::new(), id: None }, &after, journal)?;
    Ok(())
}

/// Jobs for units, none of them with more tasks than an array may have here.
pub(super) fn arrays(session: &Session<'_>, submission: &Submission, units: &[usize]) -> Vec<Job> {
    let n_arrays = submission.jobs.iter().filter(|job| !job.units.is_empty()).count();
    let base = session.base(submission.number);
    let chunks = units.chunks(session.array_size.max(1)).enumerate();
    let name = |index: usize| format!("{base}.{}", n_arrays + index + 1);
    chunks.map(|(index, units)| Job { name: name(index), units: units.to_vec(), id: None }).collect()
}

/// Writes a job down, hands it over, and gives back its number where Slurm told it.
fn enter(
    session: &Session<'_>,
    submission: &mut Submission,
    job: Job,
    after: &[String],
    journal: &mut Journal,
) -> Result<Option<String>, SlurmError> {
    let number = submission.number;
    let path = session.setting(number).path(&job.name);
    write_atomically(&path, session.script(number, &job).as_bytes()).map_err(at(&path))?;
    let dependencies = path.with_extension("after");
    write_atomically(&dependencies, after.join("\n").as_bytes()).map_err(at(&dependencies))?;
    let (name, units) = (job.name.clone(), job.units.clone());
    journal.append(None, What::Slurm(Step::Submitting { submission: number, name, units }))?;
    submission.jobs.push(job.clone());
    let id = send(session, submission, &job, journal)?;
    if let Some(id) = &id {
        let (name, job) = (job.name.clone(), id.clone());
        journal.append(None, What::Slurm(Step::Submitted { submission: number, name, job }))?;
    }
    submission.jobs.iter_mut().filter(|other| other.name == job.name).for_each(|job| job.id.clone_from(&id));
    Ok(id)
}

/// Gives a script to Slurm. None where it is not known whether it arrived: the next step looks for it.
fn send(
    session: &Session<'_>,
    submission: &Submission,
    job: &Job,
    journal: &mut Journal,
) -> Result<Option<String>, SlurmError> {
    let path = session.setting(submission.number).path(&job.name);
    let after = std::fs::read_to_string(path.with_extension("after")).unwrap_or_default();
    let after: Vec<String> = after.lines().map(str::to_owned).collect();
    match queue::submit(&path, &after, &crate::process::Cancel::never()) {
        Ok(id) => {
            let what = match job.units.len() {
                0 => "writes the table".to_owned(),
                n => counted(n, "unit"),
            };
            session.note(format!("job {id} ({}): {what}", job.name));
            Ok(Some(id))
        }
        Err(NotTaken::Unanswered(error)) => {
            session.note(format!("{error}: job {} is looked for, or handed over again", job.name));
            Ok(None)
        }
        Err(NotTaken::Refused(why)) => {
            give_up(session, submission, &why, journal)?;
            Err(SlurmError::Refused { script: path, why })
        }
    }
}

/// Closes a submission of which Slurm refuses a part, and ends the other jobs.
fn give_up(session: &Session<'_>, submission: &Submission, why: &str, journal: &mut Journal) -> Result<(), SlurmError> {
    let ids: Vec<&str> = submission.jobs.iter().filter_map(|job| job.id.as_deref()).collect();
    let number = submission.number;
    if ids.is_empty() {
        let reason = Some(format!("refused: {why}"));
        journal.append(None, What::Slurm(Step::Closed { submission: number, reason }))?;
    } else {
        journal.append(None, What::Slurm(Step::Cancelled { submission: number }))?;
        if let Err(error) = queue::cancel_jobs(&ids, session.cancel) {
            session.say(RunEvent::Note(error.to_string()));
        }
    }
    Ok(())
}

/// Records that the user wants no more of the open submission, if there is one.
pub(super) fn mark_cancelled(session: &Session<'_>) -> Result<Option<Submission>, SlurmError> {
    let store = &session.request.store;
    if !store.journal().exists() {
        return Ok(None);
    }
    let _lock = store.lock_within(Duration::from_secs(30))?;
    let (mut journal, records) = Journal::open(&store.journal())?;
    let Some(open) = Submission::open(&records) else { return Ok(None) };
    journal.append(None, What::Slurm(Step::Cancelled { submission: open.number }))?;
    Ok(Some(open))
}

/// Closes the open submission whatever Slurm has of it, unless a task is seen to work.
pub(super) fn abandon(session: &Session<'_>) -> Result<(), SlurmError> {
    let store = &session.request.store;
    let _lock = store.lock_within(Duration::from_secs(30))?;
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
