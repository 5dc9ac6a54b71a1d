//! What a search asks of a trial, piece by piece: the documents of each rung, those that are set aside, and whole tasks that
//! decide nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::eval::command::{KnownTasks, limit_of};
use crate::eval::{Settings, TaskRequest};
use crate::run::RunError;
use crate::search::{Portions, portions};
use crate::spec::Search;

/// What decides which documents are asked when. Recorded before the first of them is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// Seed of the order.
    pub seed: u64,
    /// Shares at which the rungs end.
    pub rungs: Vec<f64>,
    /// Share that no decision sees.
    pub confirmation: f64,
    /// Documents of the test split of each task that is asked in portions.
    pub tasks: BTreeMap<String, u64>,
}

/// Which documents of a task a piece asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Those that a rung, from 0, asks beside the ones before it.
    Rung(usize),
    /// Those that no decision sees.
    Confirmation,
    /// All: the task decides nothing.
    Whole,
}

/// Everything that a search asks, in its order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pieces {
    /// Rung by rung.
    pub rungs: Vec<Vec<TaskRequest>>,
    /// What is asked of the trials that are left at the end: the documents set aside, and whole tasks.
    pub last: Vec<TaskRequest>,
    /// Names of the tasks that are asked in portions.
    pub raced: Vec<String>,
    /// Whether documents are set aside.
    pub has_confirmation: bool,
}

impl Draw {
    /// As a search draws now, given the harness' numbers of documents.
    ///
    /// # Errors
    /// [`RunError::NotRaced`] for a task that cannot be asked in portions.
    pub fn new(search: &Search, known: &KnownTasks) -> Result<Self, RunError> {
        let mut tasks = BTreeMap::new();
        for task in search.tasks() {
            let refused = |why: &str| RunError::NotRaced { task: task.to_owned(), why: why.to_owned() };
            let n = match known.get(task).map(Vec::as_slice) {
                Some([only]) if only.name == task => only.n_documents,
                Some([_, ..]) => return Err(refused("it is a group; name its tasks in `evaluate` instead")),
                _ => None,
            };
            let n = n.ok_or_else(|| refused("the harness does not tell how many documents it has"))?;
            tasks.insert(task.to_owned(), n);
        }
        Ok(Self { seed: search.seed, rungs: search.rule.rungs.clone(), confirmation: search.confirmation, tasks })
    }

    /// Whether a search would draw like this, as far as can be said without the harness.
    pub fn fits(&self, search: &Search) -> bool {
        let Self { seed, rungs, confirmation, tasks } = self;
        let names = tasks.keys().map(String::as_str);
        (*seed, rungs, *confirmation) == (search.seed, &search.rule.rungs, search.confirmation)
            && names.eq(search.tasks())
    }

    /// The documents of a task; a limit takes the first of the test split, as the harness does.
    fn portions(&self, settings: &Settings, task: &TaskRequest) -> Option<Portions> {
        let n = *self.tasks.get(&task.name)?;
        let n = limit_of(settings, task).map_or(n, |limit| limit.min(n));
        Some(portions(self.seed, &task.name, n, &self.rungs, self.confirmation))
    }

    /// How many documents were asked up to a rung, task by task.
    pub fn documents(&self, settings: &Settings, rung: usize) -> BTreeMap<String, u64> {
        let of = |task: &TaskRequest| Some((task.name.clone(), self.portions(settings, task)?.up_to(rung) as u64));
        settings.tasks.iter().filter_map(of).collect()
    }
}

impl Pieces {
    /// Of a sweep.
    pub fn of(draw: &Draw, settings: &Settings) -> Self {
        let mut pieces = Self { rungs: vec![Vec::new(); draw.rungs.len()], ..Self::default() };
        for task in &settings.tasks {
            let Some(portions) = draw.portions(settings, task) else {
                pieces.last.push(task.clone());
                continue;
            };
            pieces.raced.push(task.name.clone());
            let asking = |documents: &[u64]| TaskRequest { documents: Some(documents.into()), ..task.clone() };
            for (rung, portion) in pieces.rungs.iter_mut().zip(&portions.rungs) {
                // Of few documents some rungs ask none.
                if !portion.is_empty() {
                    rung.push(asking(portion));
                }
            }
            if !portions.confirmation.is_empty() {
                pieces.has_confirmation = true;
                pieces.last.push(asking(&portions.confirmation));
            }
        }
        pieces
    }

    /// Everything that is asked of a task, in order.
    pub fn of_task(&self, task: &str) -> Vec<(Part, &TaskRequest)> {
        let rungs = self.rungs.iter().enumerate();
        let rungs = rungs.flat_map(|(rung, requests)| requests.iter().map(move |request| (Part::Rung(rung), request)));
        let last = self
            .last
            .iter()
            .map(|request| (if request.documents.is_some() { Part::Confirmation } else { Part::Whole }, request));
        rungs.chain(last).filter(|(_, request)| request.name == task).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let tasks = ["raced", "whole"].map(TaskRequest::named).to_vec();
        Settings { tasks, ..crate::spec::evaluate::defaults() }
    }

    #[test]
    fn raced_tasks_are_asked_in_portions_and_the_others_whole_at_the_end() {
        let draw =
            Draw { seed: 1, rungs: vec![0.25, 1.0], confirmation: 0.2, tasks: [("raced".to_owned(), 10)].into() };
        let pieces = Pieces::of(&draw, &settings());
        let parts: Vec<(Part, usize)> = pieces
            .of_task("raced")
            .into_iter()
            .map(|(part, request)| (part, request.documents.as_ref().unwrap().len()))
            .collect();
        assert_eq!(parts, [(Part::Rung(0), 2), (Part::Rung(1), 6), (Part::Confirmation, 2)]);
        assert_eq!(pieces.of_task("whole").iter().map(|(part, _)| *part).collect::<Vec<_>>(), [Part::Whole]);
        assert_eq!(draw.documents(&settings(), 1)["raced"], 8);
        let limited = Settings { limit: Some(5), ..settings() };
        assert_eq!(draw.documents(&limited, 1)["raced"], 4);
    }
}
