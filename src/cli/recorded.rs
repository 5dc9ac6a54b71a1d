//! What is recorded of a sweep, gathered for tables and comparisons: the journal's scores, the imported ones, and what
//! every row scored document by document.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::{Failure, usage};
use crate::eval::samples::{self, Sample};
use crate::eval::task::Column;
use crate::eval::{Score, Settings};
use crate::paired::{Entrant, Outcomes};
use crate::plan::{Plan, Subject, TrialId};
use crate::run::fingerprint::Key;
use crate::run::imported::{self, Imported};
use crate::run::journal::{self, Record};
use crate::run::outputs::Outputs;
use crate::run::state::SweepState;
use crate::run::store::Store;
use crate::spec::{Sweep, TwinEvaluation};
use crate::table::{self, ResultsTable, Row, noise};

/// A sweep's table and what lies behind it.
pub(super) struct Recorded {
    pub table: ResultsTable,
    pub footnotes: Vec<String>,
    /// The journal, and where it leaves every trial.
    pub records: Vec<Record>,
    pub state: SweepState,
    /// Where the scores of every row come from, row by row.
    sources: Vec<Vec<Source>>,
    weights: Vec<Option<String>>,
}

/// Where some scores come from.
struct Source {
    scores: Vec<Score>,
    from: From,
}

enum From {
    /// An evaluation: of this trial, task and key.
    Evaluation(TrialId, String, Key),
    /// Samples files of an import.
    Files(Vec<PathBuf>),
}

/// The table of what the journal says now, and what a reader of it must know.
pub(super) fn collect(plan: &Plan, sweep: &Sweep, store: &Store) -> Result<Recorded, Failure> {
    let records = journal::read(&store.journal())?;
    let state = SweepState::replay(&records);
    let settings = &sweep.evaluate;
    let imported = imported::read(store)?;
    let mut table = table::collect(plan, &settings.tasks, |trial| state.of(trial).scores(settings));
    let mut sources: Vec<Vec<Source>> = Vec::new();
    let mut weights = Vec::new();
    for trial in &plan.trials {
        let of_trial = state.of(&trial.id);
        let current = settings.tasks.iter().filter_map(|request| of_trial.current(settings, request));
        let done: Vec<_> = current.map(|(done, _)| done.clone()).collect();
        weights.push(done.iter().find_map(|done| done.key.0.get("weights").cloned()));
        sources.push(
            done.into_iter()
                .map(|done| Source {
                    scores: done.scores,
                    from: From::Evaluation(trial.id.clone(), done.task, done.key),
                })
                .collect(),
        );
    }
    let mut footnotes = notes(plan, settings, &state);
    for (row, of_row) in imported_rows(&imported, &mut footnotes) {
        table.rows.push(row);
        sources.push(of_row);
        weights.push(None);
    }
    table.renew_columns(&settings.tasks);
    if sweep.twins == TwinEvaluation::Separate {
        footnotes.extend(noise::floor(&table, &plan.review.twins.rounding));
    }
    footnotes.splice(0..0, table.versions());
    Ok(Recorded { table, footnotes, records, state, sources, weights })
}

/// What is odd about how scores came about.
fn notes(plan: &Plan, settings: &Settings, state: &SweepState) -> Vec<String> {
    let mut footnotes = Vec::new();
    for trial in &plan.trials {
        let state = state.of(&trial.id);
        if let Some(twin) = &state.twin {
            footnotes.push(format!("{}: one merge with {twin}, made and evaluated once", trial.name));
        }
        for task in settings.tasks.iter().filter(|task| state.current(settings, task).is_some()) {
            let (name, task) = (&trial.name, &task.name);
            if let Some(from) = state.shared.get(task).filter(|from| state.twin.as_ref() != Some(from)) {
                footnotes.push(format!("{name}: `{task}` was not evaluated again: the weights are those of {from}"));
            }
            if let Some(size) = state.batch_sizes.get(task) {
                let asked = &settings.batch_size;
                footnotes
                    .push(format!("{name}: `{task}` ran with batches of {size} instead of {asked}: out of memory"));
            }
        }
    }
    footnotes
}

/// One row per imported name. Where two files hold the same number, the later run's counts.
fn imported_rows(imported: &[Imported], footnotes: &mut Vec<String>) -> Vec<(Row, Vec<Source>)> {
    let mut rows: Vec<(Row, Vec<Source>)> = Vec::new();
    for Imported { import, results } in imported {
        if rows.last().is_none_or(|(row, _)| row.trial != import.name) {
            footnotes.push(format!("{}: imported from {}", import.name, import.from.display()));
            let id = TrialId(format!("imported {}", import.name));
            let (kind, trial) = ("imported", import.name.clone());
            let row = Row { id, trial, kind, method: None, seed: None, axes: Vec::new(), scores: Vec::new() };
            rows.push((row, Vec::new()));
        }
        let Some((row, sources)) = rows.last_mut() else { continue };
        for score in &results.scores {
            let is_same = |known: &Score| {
                (&known.task, &known.metric, &known.filter) == (&score.task, &score.metric, &score.filter)
            };
            if row.scores.iter().any(|(known, _)| is_same(known)) {
                let name = &import.name;
                footnotes.push(format!("{name}: `{}` was imported more than once: the latest is shown", score.task));
                row.scores.retain(|(known, _)| !is_same(known));
                sources.iter_mut().for_each(|source| source.scores.retain(|known| !is_same(known)));
            }
            row.scores.push((score.clone(), results.facts.clone()));
        }
        sources.push(Source { scores: results.scores.clone(), from: From::Files(results.samples.clone()) });
    }
    footnotes.dedup();
    rows
}

impl Recorded {
    /// The row that others are compared with: the one asked for, else the spec's, if any.
    pub fn reference(&self, asked: Option<&str>, sweep: &Sweep) -> Result<Option<usize>, Failure> {
        let Some(name) = asked.or(sweep.report.reference.as_deref()) else { return Ok(None) };
        let rows = &self.table.rows;
        let place = rows.iter().position(|row| row.trial == name);
        let known = || rows.iter().map(|row| row.trial.as_str()).collect::<Vec<_>>().join(", ");
        place.map_or_else(
            || Err(usage(anyhow!("no trial `{name}` to compare with, only {}", known()))),
            |place| Ok(Some(place)),
        )
    }

    /// What every row scored, document by document.
    pub fn entrants(&self, store: &Store) -> Result<Vec<Entrant>, Failure> {
        let outputs = Outputs::read(store, &self.records);
        (0..self.table.rows.len()).map(|row| self.entrant(row, &outputs)).collect()
    }

    /// What one row scored.
    pub fn entrant(&self, row: usize, outputs: &Outputs) -> Result<Entrant, Failure> {
        let (row, sources, weights) = (&self.table.rows[row], &self.sources[row], &self.weights[row]);
        let mut entrant = Entrant { name: row.trial.clone(), weights: weights.clone(), ..Entrant::default() };
        let mut read = BTreeMap::new();
        for column in &self.table.columns {
            let source = sources.iter().find(|source| source.scores.iter().any(|score| column.shows(score)));
            let file = match source {
                Some(source) => samples_file(&source.from, column, outputs)?,
                None => None,
            };
            entrant.outcomes.push(match (row.score(column), &file) {
                (Some(score), Some(file)) => outcomes(column, score, file, &mut read)?,
                _ => None,
            });
            entrant.files.push(file);
        }
        Ok(entrant)
    }
}

/// Samples files that were read, by path: several columns are of one file.
pub(super) type Read = BTreeMap<PathBuf, Vec<Sample>>;

/// What a score came to, document by document, from the samples file of its task.
pub(super) fn outcomes(
    column: &Column,
    score: &Score,
    file: &Path,
    read: &mut Read,
) -> Result<Option<Outcomes>, Failure> {
    if !read.contains_key(file) {
        read.insert(file.to_owned(), samples::read(file)?);
    }
    Ok(read.get(file).and_then(|samples| Outcomes::of(column, score, samples)))
}

fn samples_file(from: &From, column: &Column, outputs: &Outputs) -> Result<Option<PathBuf>, Failure> {
    Ok(match from {
        From::Evaluation(trial, task, key) => outputs.samples(trial, task, key, &column.task)?,
        From::Files(files) => files.iter().find(|file| samples::task_of(file) == Some(column.task.as_str())).cloned(),
    })
}

/// The recipes of random methods with the places of their trials: equal but for the seed.
pub(super) fn recipes(plan: &Plan) -> Vec<(String, Vec<usize>)> {
    let mut recipes: Vec<(String, String, Vec<usize>)> = Vec::new();
    for (place, trial) in plan.trials.iter().enumerate() {
        let Subject::Merge { config, seed, numerics } = &trial.subject else { continue };
        if !config.method.spec().random {
            continue;
        }
        let recipe = format!("{numerics} {}", crate::config::write::canonical(config));
        // Whatever names the seed in the trial's name stands for all of them.
        let name = trial.name.replace(&format!("seed={seed}"), "seed=*");
        match recipes.iter_mut().find(|(known, ..)| *known == recipe) {
            Some((_, _, places)) => places.push(place),
            None => recipes.push((recipe, name, vec![place])),
        }
    }
    recipes.into_iter().map(|(_, name, places)| (name, places)).collect()
}
