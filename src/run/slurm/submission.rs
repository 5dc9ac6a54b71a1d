//! Submissions as the journal knows them: which units were handed to Slurm in which jobs, and how each ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::journal::{Record, What};
use super::super::search::Attempted;
use super::unit::Unit;

/// What happened to a submission. Written ahead of what is done where that can be found again (a job has its name before
/// it has a number).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Units are going to be submitted.
    Opened {
        /// Number of the submission, from 1.
        submission: u32,
        /// The units.
        units: Vec<Unit>,
        /// Which part of a search they are asked; none: all that the spec asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        search: Option<Place>,
    },
    /// A job is being handed over; it may have arrived or not until its number is recorded.
    Submitting {
        /// Of which submission.
        submission: u32,
        /// The job.
        #[serde(flatten)]
        job: Job,
    },
    /// Slurm took a job.
    Submitted {
        /// Of which submission.
        submission: u32,
        /// Name of the job.
        name: String,
        /// Number that Slurm gave it.
        job: String,
    },
    /// In the journal of a unit: a task has done what it could.
    UnitEnded {
        /// Of which submission.
        submission: u32,
        /// Which task: `123_4`.
        job: String,
        /// Why the unit could not be worked on; nothing where its trials say for themselves how they ended.
        reason: Option<String>,
    },
    /// What there is of a unit is in this journal, and nothing more is to come.
    Settled {
        /// Of which submission.
        submission: u32,
        /// The unit, by number in the submission.
        unit: usize,
    },
    /// The user wants no more of it.
    Cancelled {
        /// The submission.
        submission: u32,
    },
    /// It is over: every unit is settled, or was given up.
    Closed {
        /// The submission.
        submission: u32,
        /// Why, where not every unit is settled.
        reason: Option<String>,
    },
}

/// What the tasks of a job do with their units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// All that is left of them.
    #[default]
    Whole,
    /// Their merges only.
    Merges,
    /// All that is left of them once the job of their merges is through.
    Evaluations,
}

/// Which part of a search a submission asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the submission with which the run of the search began: who fails is not asked again before the next run.
    pub first: u32,
    /// The rung, from 0; none: what is asked of those that are left at the end.
    pub rung: Option<usize>,
}

/// A job of a submission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name, which no other one has.
    pub name: String,
    /// Units of its tasks, by number in the submission; none: it writes the table.
    pub units: Vec<usize>,
    /// What its tasks do.
    #[serde(default)]
    pub part: Part,
    /// Names of the jobs it waits for: until they are over; evaluations, task by task, until the merges ended well.
    #[serde(default)]
    pub after: Vec<String>,
    /// Number that Slurm gave it, once that is known.
    #[serde(skip)]
    pub id: Option<String>,
}

/// A submission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submission {
    /// Its number, from 1.
    pub number: u32,
    /// Its units.
    pub units: Vec<Unit>,
    /// Which part of a search they are asked.
    pub search: Option<Place>,
    /// Its jobs, in the order in which they were handed over.
    pub jobs: Vec<Job>,
    /// Units that are settled.
    pub settled: Vec<bool>,
    /// Whether the user wants no more of it.
    pub is_cancelled: bool,
    /// Whether it is over.
    pub is_closed: bool,
}

impl Submission {
    /// Every submission that a journal speaks of, the oldest first.
    pub fn all(records: &[Record]) -> Vec<Self> {
        let mut all: BTreeMap<u32, Self> = BTreeMap::new();
        for record in records {
            let What::Slurm(step) = &record.what else { continue };
            let Some(number) = step.submission() else { continue };
            all.entry(number).or_insert_with(|| Self { number, ..Self::default() }).apply(step);
        }
        all.into_values().collect()
    }

    /// The one that is not over, if any: there is never more than one.
    pub fn open(records: &[Record]) -> Option<Self> {
        Self::all(records).into_iter().rev().find(|submission| !submission.is_closed)
    }

    /// What was handed over since the submission with which a run began. What Slurm refused was not.
    pub fn attempted(records: &[Record], first: u32) -> Attempted {
        let since = Self::all(records).into_iter().filter(|submission| submission.number >= first);
        let of = |submission: Self| {
            let rung = submission.search.and_then(|place| place.rung);
            let taken = (0..submission.units.len()).filter(|unit| submission.is_taken(*unit));
            let trials = taken.flat_map(|unit| submission.units[unit].trials.clone());
            trials.map(|trial| (rung, trial.id)).collect::<Vec<_>>()
        };
        since.flat_map(of).collect()
    }

    /// The submission with which the run began that this one belongs to.
    pub fn first(&self) -> u32 {
        self.search.map_or(self.number, |place| place.first)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Opened { units, search, .. } => {
                self.search = *search;
                self.settled = vec![false; units.len()];
                self.units.clone_from(units);
            }
            Step::Submitting { job, .. } => {
                if !self.jobs.iter().any(|other| other.name == job.name) {
                    self.jobs.push(job.clone());
                }
            }
            Step::Submitted { name, job: id, .. } => {
                if let Some(job) = self.jobs.iter_mut().find(|job| job.name == *name) {
                    job.id = Some(id.clone());
                }
            }
            Step::Settled { unit, .. } => {
                if let Some(settled) = self.settled.get_mut(*unit) {
                    *settled = true;
                }
            }
            Step::Cancelled { .. } => self.is_cancelled = true,
            Step::Closed { .. } => self.is_closed = true,
            Step::UnitEnded { .. } => {}
        }
    }

    /// Units that are not settled, by number.
    pub fn unsettled(&self) -> impl Iterator<Item = usize> {
        (0..self.units.len()).filter(|unit| !self.settled[*unit])
    }

    /// The last job that all of a unit was handed over in, with the index of its task.
    pub fn job_of(&self, unit: usize) -> Option<(&Job, usize)> {
        self.jobs.iter().rev().filter(|job| job.part != Part::Merges).find_map(|job| job.task_of(unit))
    }

    /// Whether Slurm took a job that all of a unit was handed over in.
    fn is_taken(&self, unit: usize) -> bool {
        self.job_of(unit).is_some_and(|(job, _)| job.id.is_some())
    }

    /// The job that makes the merges for another one, with the index of the task for this unit.
    pub fn merges_for(&self, job: &Job, unit: usize) -> Option<(&Job, usize)> {
        let before = self.jobs.iter().filter(|other| job.part == Part::Evaluations && job.after.contains(&other.name));
        before.filter(|other| other.part == Part::Merges).find_map(|other| other.task_of(unit))
    }

    /// How often a unit was handed over.
    pub fn n_attempts(&self, unit: usize) -> usize {
        self.jobs.iter().filter(|job| job.part != Part::Merges && job.task_of(unit).is_some()).count()
    }

    /// The job of that name.
    pub fn job(&self, name: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == name)
    }
}

impl Job {
    fn task_of(&self, unit: usize) -> Option<(&Self, usize)> {
        Some((self, self.units.binary_search(&unit).ok()?))
    }

    /// Whether it writes the table.
    pub fn is_table(&self) -> bool {
        self.units.is_empty()
    }

    /// What Slurm is told of the jobs it waits for, each by its number: `afterany:12:13`. None as long as one has no number.
    pub fn dependency(&self, number: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let numbers: Option<Vec<String>> = self.after.iter().map(|name| number(name)).collect();
        let how = if self.part == Part::Evaluations { "aftercorr" } else { "afterany" };
        numbers.map(|numbers| if numbers.is_empty() { String::new() } else { format!("{how}:{}", numbers.join(":")) })
    }
}

impl Step {
    /// The submission whose record in the sweep's journal this is.
    fn submission(&self) -> Option<u32> {
        match self {
            Self::UnitEnded { .. } => None,
            Self::Opened { submission, .. }
            | Self::Submitting { submission, .. }
            | Self::Submitted { submission, .. }
            | Self::Settled { submission, .. }
            | Self::Cancelled { submission }
            | Self::Closed { submission, .. } => Some(*submission),
        }
    }
}
