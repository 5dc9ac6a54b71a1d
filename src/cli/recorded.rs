//! What is recorded of a sweep, gathered for tables and comparisons: the journal's scores, the imported ones, and what
//! every row scored document by document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::raced::{self, Answered, Raced};
use super::{Failure, usage};
use crate::eval::samples::{self, Sample};
use crate::eval::task::{Column, Estimator};
use crate::eval::{Score, Settings};
use crate::model::locate::Locator;
use crate::paired::{Entrant, Outcomes};
use crate::plan::{Plan, Subject, TrialId};
use crate::probe::near::{Group, Near};
use crate::probe::words;
use crate::run::fingerprint::Key;
use crate::run::imported::{self, Imported};
use crate::run::journal::Record;
use crate::run::outputs::Outputs;
use crate::run::slurm::collect::overlaid;
use crate::run::state::SweepState;
use crate::run::store::Store;
use crate::spec::{Sweep, TwinEvaluation};
use crate::stats::Items;
use crate::table::{self, NearTwins, ResultsTable, Row, TrialScores, noise, race};

/// A sweep's table and what lies behind it.
pub(super) struct Recorded {
    pub table: ResultsTable,
    pub footnotes: Vec<String>,
    /// Merges that came out nearly the same, a line each, where that was asked for.
    pub near: Vec<String>,
    /// The journal, and where it leaves every trial.
    pub records: Vec<Record>,
    pub state: SweepState,
    /// The harness' files behind it.
    outputs: Outputs,
    /// Where the scores of every row come from, row by row.
    sources: Vec<Vec<Source>>,
    weights: Vec<Option<String>>,
}

/// Where some scores come from.
struct Source {
    scores: Vec<Score>,
    /// The same of every portion of the documents, where they were asked in several.
    parts: Vec<Vec<Score>>,
    from: From,
}

enum From {
    /// Evaluations: of this trial and task, with these keys, one for every portion of the documents.
    Evaluations(TrialId, String, Vec<Key>),
    /// Samples files of an import, by task.
    Files(BTreeMap<String, PathBuf>),
}

/// The table of what is recorded now, by the journal and by units on Slurm that were not gathered yet, and what a reader of it must
/// know.
pub(super) fn collect(plan: &Plan, sweep: &Sweep, store: &Store) -> Result<Recorded, Failure> {
    let records = overlaid(store)?;
    let state = SweepState::replay(&records);
    let settings = &sweep.evaluate;
    let imported = imported::read(store)?;
    let raced = Raced::of(sweep, &state);
    let outputs = Outputs::read(store, &records);
    let mut scores: BTreeMap<TrialId, TrialScores> = BTreeMap::new();
    let mut sources: Vec<Vec<Source>> = Vec::new();
    let mut weights = Vec::new();
    for trial in &plan.trials {
        let of_trial = state.of(&trial.id);
        let mut of_row = Vec::new();
        for request in &settings.tasks {
            let answered = raced::answered(raced.as_ref(), settings, &of_trial, request);
            let Some((last, facts)) = answered.last() else { continue };
            weights.resize(sources.len() + 1, None);
            weights[sources.len()] = last.key.weights().map(str::to_owned);
            let keys = answered.iter().map(|(done, _)| done.key.clone()).collect();
            let found = together(&trial.id, &answered, &outputs)?;
            let shown = found.iter().map(|score| (score.clone(), facts.clone()));
            scores.entry(trial.id.clone()).or_default().extend(shown);
            let parts = answered.iter().map(|(done, _)| done.scores.clone()).collect();
            let from = From::Evaluations(trial.id.clone(), request.name.clone(), keys);
            of_row.push(Source { scores: found, parts, from });
        }
        sources.push(of_row);
    }
    weights.resize(sources.len(), None);
    let mut table = table::collect(plan, &settings.tasks, |trial| scores.get(trial).cloned().unwrap_or_default());
    table.race = raced.as_ref().and_then(|raced| raced.race(plan, settings, &state));
    let mut footnotes = notes(plan, settings, &state);
    let locator = super::locator(&sweep.root, settings.python.clone())?;
    for (row, of_row) in imported_rows(&imported, &locator, &mut footnotes) {
        table.rows.push(row);
        sources.push(of_row);
        weights.push(None);
    }
    table.renew_columns(&settings.tasks);
    if sweep.twins == TwinEvaluation::Separate {
        // Where rounding came out the same there was one evaluation, which shows no noise.
        let differ = |group: &&Vec<usize>| group.iter().map(|row| &weights[*row]).collect::<BTreeSet<_>>().len() > 1;
        let groups: Vec<Vec<usize>> = plan.review.twins.rounding.iter().filter(differ).cloned().collect();
        footnotes.extend(noise::floor(&table, &groups));
    }
    footnotes.splice(0..0, table.versions());
    footnotes.splice(0..0, race::footnotes(&table));
    Ok(Recorded { table, footnotes, near: Vec::new(), records, state, outputs, sources, weights })
}

/// The same with near twins, which takes every sample that was kept: for whoever shows the table or writes it down.
pub(super) fn collect_with_near(plan: &Plan, sweep: &Sweep, store: &Store) -> Result<Recorded, Failure> {
    let mut recorded = collect(plan, sweep, store)?;
    let near = near_twins(plan, store, &recorded.state);
    recorded.table.near = near.groups.iter().map(|group| of_group(group, plan)).collect();
    recorded.near = words::of_made(&near, plan);
    Ok(recorded)
}

/// Merges that came out nearly the same, by the samples that were kept of them.
fn near_twins(plan: &Plan, store: &Store, state: &SweepState) -> Near {
    Near::of_made(plan, &|trial| store.sample_of(trial, &state.of(&trial.id).merged?.merge.weights_digest))
}

fn of_group(group: &Group, plan: &Plan) -> NearTwins {
    let trials = group.trials.iter().map(|trial| plan.trials[*trial].name.clone()).collect();
    NearTwins { trials, share: group.widest.share }
}

/// What is odd about how scores came about.
fn notes(plan: &Plan, settings: &Settings, state: &SweepState) -> Vec<String> {
    let mut footnotes = Vec::new();
    for trial in &plan.trials {
        let state = state.of(&trial.id);
        if let Some(twin) = &state.twin {
            footnotes.push(format!("{}: one merge with {twin}, made and evaluated once", trial.name));
        }
        let mut shared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for task in settings.tasks.iter().filter(|task| state.current(settings, task).is_some()) {
            let (name, task) = (&trial.name, &task.name);
            if let Some(from) = state.shared.get(task).filter(|from| state.twin.as_ref() != Some(from)) {
                shared.entry(from).or_default().push(format!("`{task}`"));
            }
            if let Some(size) = state.batch_sizes.get(task) {
                let asked = &settings.batch_size;
                footnotes
                    .push(format!("{name}: `{task}` ran with batches of {size} instead of {asked}: out of memory"));
            }
        }
        for (from, tasks) in shared {
            let were = if tasks.len() == 1 { "was" } else { "were" };
            footnotes.push(format!(
                "{}: {} {were} not evaluated again: the weights are those of {from}",
                trial.name,
                tasks.join(", ")
            ));
        }
    }
    footnotes
}

/// One row per imported name. Where two files hold the same number, the later run's counts.
fn imported_rows(imported: &[Imported], locator: &Locator, footnotes: &mut Vec<String>) -> Vec<(Row, Vec<Source>)> {
    let mut rows: Vec<(Row, Vec<Source>)> = Vec::new();
    for Imported { import, results } in imported {
        if rows.last().is_none_or(|(row, _)| row.trial != import.name) {
            // Earlier releases recorded the whole path.
            let from = locator.without_home(&import.from);
            footnotes.push(format!("{}: imported from {from}", import.name));
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
        let (scores, parts) = (results.scores.clone(), vec![results.scores.clone()]);
        sources.push(Source { scores, parts, from: From::Files(results.samples_of.clone()) });
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
    pub fn entrants(&self) -> Result<Vec<Entrant>, Failure> {
        (0..self.table.rows.len()).map(|row| self.entrant(row)).collect()
    }

    /// Which comparisons (with the row at `reference`, where there is one) are left out since the answers behind the scores are
    /// not here, and how to get them back; none where all are here.
    pub fn left_out(&self, reference: Option<usize>) -> Option<String> {
        // Tasks that lack the same trials are told together.
        let mut lacking: Vec<(Vec<usize>, Vec<&str>)> = Vec::new();
        for task in self.tasks() {
            let rows = self.lacking(task);
            match lacking.iter_mut().find(|(known, _)| *known == rows) {
                _ if rows.is_empty() => {}
                Some((_, tasks)) => tasks.push(task),
                None => lacking.push((rows, vec![task])),
            }
        }
        let name = |row: &usize| self.table.rows[*row].trial.as_str();
        let told = lacking.iter().map(|(rows, tasks)| {
            let is_all = reference.is_some_and(|reference| rows.contains(&reference));
            let trials =
                if is_all { "all trials".to_owned() } else { rows.iter().map(name).collect::<Vec<_>>().join(", ") };
            format!("{trials} in {}", tasks.join(", "))
        });
        let told: Vec<String> = told.collect();
        let example = lacking.first()?.0.first().map(name)?;
        Some(format!(
            "not compared, since the harness' answers are not on this machine (deleted, or the journal came without them): {}. Put \
             the folder `trials/` back beside the journal, or have them asked again: `mergesweep run SPEC --redo '{example}'`",
            told.join("; ")
        ))
    }

    /// Tasks that were evaluated.
    fn tasks(&self) -> Vec<&str> {
        let mut tasks: Vec<&str> = Vec::new();
        for source in self.sources.iter().flatten() {
            match &source.from {
                From::Evaluations(_, task, _) if !tasks.contains(&task.as_str()) => tasks.push(task),
                _ => {}
            }
        }
        tasks
    }

    /// Rows whose answers to a task are not here, though its scores are.
    fn lacking(&self, task: &str) -> Vec<usize> {
        let is_gone = |source: &Source| match &source.from {
            From::Evaluations(trial, of, keys) if of == task => {
                keys.iter().any(|key| !self.outputs.has(trial, task, key))
            }
            _ => false,
        };
        (0..self.sources.len()).filter(|row| self.sources[*row].iter().any(is_gone)).collect()
    }

    /// What one row scored.
    pub fn entrant(&self, row: usize) -> Result<Entrant, Failure> {
        let outputs = &self.outputs;
        let (row, sources, weights) = (&self.table.rows[row], &self.sources[row], &self.weights[row]);
        let mut entrant = Entrant { name: row.trial.clone(), weights: weights.clone(), ..Entrant::default() };
        let mut read = BTreeMap::new();
        for column in &self.table.columns {
            let source = sources.iter().find(|source| source.scores.iter().any(|score| column.shows(score)));
            let files = match source {
                // Out of the race: on fewer documents than everybody else.
                _ if self.table.is_out(row, column) => Vec::new(),
                Some(source) => samples_files(&source.from, column, outputs)?,
                None => Vec::new(),
            };
            entrant.outcomes.push(match (row.score(column), source) {
                (Some(score), Some(source)) => {
                    let own = source.parts.iter().filter_map(|part| part.iter().find(|score| column.shows(score)));
                    let whole = of_files(column, &own.collect::<Vec<_>>(), &files, &mut read)?;
                    whole.map(|whole| Outcomes { reported: score.value, ..whole })
                }
                _ => None,
            });
            entrant.files.push(files);
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

/// The same from several files, one for every portion of the documents, each with its own score: the harness' ratios are told
/// apart by it.
fn of_files(
    column: &Column,
    scores: &[&Score],
    files: &[PathBuf],
    read: &mut Read,
) -> Result<Option<Outcomes>, Failure> {
    if scores.len() != files.len() {
        return Ok(None);
    }
    let parts = scores.iter().zip(files).map(|(score, file)| outcomes(column, score, file, read));
    let parts: Option<Vec<Outcomes>> = parts.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
    Ok(parts.and_then(|parts| Outcomes::together(&parts)))
}

fn samples_files(from: &From, column: &Column, outputs: &Outputs) -> Result<Vec<PathBuf>, Failure> {
    Ok(match from {
        From::Evaluations(trial, task, keys) => {
            let files = keys.iter().map(|key| outputs.samples(trial, task, key, &column.task));
            // Of portions all or none: some of them are no score.
            let files: Option<Vec<PathBuf>> = files.collect::<Result<Vec<_>, _>>()?.into_iter().collect();
            files.unwrap_or_default()
        }
        From::Files(files) => files.get(&column.task).cloned().into_iter().collect(),
    })
}

/// The scores of evaluations of one task as those of one: of portions, made anew from their samples.
fn together(trial: &TrialId, answered: &Answered<'_>, outputs: &Outputs) -> Result<Vec<Score>, Failure> {
    let [(first, _), rest @ ..] = answered.as_slice() else { return Ok(Vec::new()) };
    if rest.is_empty() {
        return Ok(first.scores.clone());
    }
    let keys: Vec<Key> = answered.iter().map(|(done, _)| done.key.clone()).collect();
    let from = From::Evaluations(trial.clone(), first.task.clone(), keys);
    let mut read = BTreeMap::new();
    let mut one = |score: &Score| -> Result<Score, Failure> {
        let column = Column {
            name: score.metric.clone(),
            task: score.task.clone(),
            metric: score.metric.clone(),
            filter: score.filter.clone(),
            estimator: Estimator::Reported,
        };
        let parts: Vec<&Score> =
            answered.iter().filter_map(|(done, _)| done.scores.iter().find(|part| column.shows(part))).collect();
        let files = samples_files(&from, &column, outputs)?;
        let items = of_files(&column, &parts, &files, &mut read)?.map(|outcomes| outcomes.items);
        let hashes: Vec<&str> = parts.iter().filter_map(|part| part.task_hash.as_deref()).collect();
        Ok(Score {
            n: parts.iter().map(|part| part.n).sum(),
            value: items.as_ref().map(Items::score),
            stderr: items.as_ref().and_then(Items::standard_error),
            task_hash: (hashes.len() == answered.len()).then(|| samples::sha256(hashes.concat().as_bytes())),
            ..score.clone()
        })
    };
    first.scores.iter().map(&mut one).collect()
}

/// What stands for the seeds in the name of a recipe.
pub(super) const ANY_SEED: &str = "seed=*";

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
        let name = trial.name.replace(&format!("seed={seed}"), ANY_SEED);
        match recipes.iter_mut().find(|(known, ..)| *known == recipe) {
            Some((_, _, places)) => places.push(place),
            None => recipes.push((recipe, name, vec![place])),
        }
    }
    recipes.into_iter().map(|(_, name, places)| (name, places)).collect()
}
