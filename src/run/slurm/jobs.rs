//! The jobs of a submission: which there are for units, and how they are handed over: all are written down first, then each
//! is given to Slurm as soon as those that it waits for have numbers.
//!
//! Units are worked on by arrays; split, they go in waves of as many models as the disk holds, with an array for the merges of a
//! wave and one for its evaluations, and the merges of the next one wait for these.

use std::collections::BTreeSet;

use super::super::journal::{Journal, What};
use super::queue::{self, NotTaken};
use super::step::Polled;
use super::submission::{Job, Part, Step, Submission};
use super::{Session, SlurmError, counted};
use crate::files::write_atomically;
use crate::run::event::RunEvent;
use crate::run::store::at;

/// Jobs for units that have none.
pub(super) fn of_units(session: &Session<'_>, submission: &Submission, units: &[usize]) -> Vec<Job> {
    let before: Vec<&Job> = submission.jobs.iter().filter(|job| !job.is_table() && job.part != Part::Merges).collect();
    let base = session.base(submission.number);
    let mut last = before.last().map(|job| job.name.clone());
    let mut jobs = Vec::new();
    for (index, wave) in waves(session, submission, units).into_iter().enumerate() {
        let name = format!("{base}.{}", before.len() + index + 1);
        // Together no more tasks than one array may have, no more models than the disk holds: each waits for the last.
        let after: Vec<String> = last.iter().filter(|_| session.split || session.at_once.is_some()).cloned().collect();
        if session.split {
            let (merges, evaluations) = (format!("{name}.merge"), format!("{name}.eval"));
            jobs.push(Job { name: merges.clone(), units: wave.clone(), part: Part::Merges, after, id: None });
            let (part, after) = (Part::Evaluations, vec![merges]);
            jobs.push(Job { name: evaluations.clone(), units: wave, part, after, id: None });
            last = Some(evaluations);
        } else {
            jobs.push(Job { name: name.clone(), units: wave, part: Part::Whole, after, id: None });
            last = Some(name);
        }
    }
    jobs
}

/// Units, in order, as many together as an array may have tasks; split, as the disk holds models.
fn waves(session: &Session<'_>, submission: &Submission, units: &[usize]) -> Vec<Vec<usize>> {
    let most = session.array_size.max(1);
    let budget = session.disk.filter(|_| session.split).unwrap_or(u64::MAX);
    let mut waves: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for unit in units {
        let bytes = submission.units[*unit].bytes;
        match waves.last_mut().filter(|wave| wave.len() < most && bytes <= room) {
            Some(wave) => wave.push(*unit),
            None => {
                waves.push(vec![*unit]);
                room = budget;
            }
        }
        // One that is larger than all there is has a wave of its own, and fails there.
        room = room.saturating_sub(bytes);
    }
    waves
}

/// The job that writes the table once those of all units are over.
pub(super) fn table(session: &Session<'_>, submission: &Submission) -> Job {
    let number = match submission.jobs.iter().filter(|job| job.is_table()).count() {
        0 => String::new(),
        n => format!("-{}", n + 1),
    };
    let jobs: BTreeSet<&str> =
        submission.unsettled().filter_map(|unit| Some(submission.job_of(unit)?.0.name.as_str())).collect();
    let after = jobs.into_iter().map(str::to_owned).collect();
    Job { name: format!("{}.table{number}", session.base(submission.number)), after, ..Job::default() }
}

/// Writes jobs down, and hands them over.
pub(super) fn enter(
    session: &Session<'_>,
    submission: &mut Submission,
    jobs: Vec<Job>,
    polled: &Polled,
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let number = submission.number;
    let steps = jobs.iter().map(|job| What::Slurm(Step::Submitting { submission: number, job: job.clone() }));
    journal.take_over(&[], steps.collect())?;
    let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    submission.jobs.extend(jobs);
    names.iter().try_for_each(|name| send(session, submission, name, polled, journal))
}

/// Finds the numbers of jobs that were being handed over when whoever did it was killed, or hands them over now: then the
/// answer knows nothing of them.
pub(super) fn find_or_send(
    session: &Session<'_>,
    submission: &mut Submission,
    polled: &mut Polled,
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let Some(tasks) = polled.tasks.clone() else { return Ok(()) };
    let names = submission.jobs.iter().filter(|job| job.id.is_none() && polled.names.contains(&job.name));
    let names: Vec<String> = names.map(|job| job.name.clone()).collect();
    for name in names {
        match tasks.iter().find(|task| task.name == name) {
            Some(task) => number(submission, &name, task.job.clone(), journal)?,
            None if submission.is_cancelled => {}
            None => {
                send(session, submission, &name, polled, journal)?;
                polled.names.remove(&name);
            }
        }
    }
    Ok(())
}

/// Gives a job to Slurm. It stays without a number where it is not known whether it arrived, or where one that it waits for
/// has none: the next step looks after it.
fn send(
    session: &Session<'_>,
    submission: &mut Submission,
    name: &str,
    polled: &Polled,
    journal: &mut Journal,
) -> Result<(), SlurmError> {
    let id_of = |name: &str| submission.job(name).and_then(|job| job.id.clone());
    let Some(mut job) = submission.job(name).cloned() else { return Ok(()) };
    // What is gone is over; its number may be that of another job by now.
    job.after.retain(|name| !polled.is_gone(name));
    let Some(dependency) = job.dependency(&id_of) else { return Ok(()) };
    let path = session.setting(submission.number).path(name);
    write_atomically(&path, session.script(submission.number, &job).as_bytes()).map_err(at(&path))?;
    match queue::submit(&path, &dependency, &crate::process::Cancel::never()) {
        Ok(id) => {
            let units = counted(job.units.len(), "unit");
            let what = match job.part {
                _ if job.is_table() => "writes the table".to_owned(),
                Part::Whole => units,
                Part::Merges => format!("merges of {units}"),
                Part::Evaluations => format!("evaluations of {units}"),
            };
            session.note(format!("job {id} ({name}): {what}"));
            number(submission, name, id, journal)
        }
        Err(NotTaken::Unanswered(error)) => {
            session.note(format!("{error}: job {name} is looked for, or handed over again"));
            Ok(())
        }
        Err(NotTaken::Refused(why)) => {
            give_up(session, submission, &why, journal)?;
            Err(SlurmError::Refused { script: path, why })
        }
    }
}

/// Records the number that Slurm gave to a job.
fn number(submission: &mut Submission, name: &str, id: String, journal: &mut Journal) -> Result<(), SlurmError> {
    let step = Step::Submitted { submission: submission.number, name: name.to_owned(), job: id.clone() };
    journal.append(None, What::Slurm(step))?;
    submission.jobs.iter_mut().filter(|job| job.name == name).for_each(|job| job.id = Some(id.clone()));
    Ok(())
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
