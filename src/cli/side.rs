//! One side of a comparison, as the command line names it: a trial of a sweep, a row of a baseline, or harness output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::recorded::{self, outcomes};
use super::{Failure, SweepArgs, usage};
use crate::eval::results;
use crate::eval::task::{self, Column};
use crate::gate::Baseline;
use crate::paired::Entrant;
use crate::run::imported;
use crate::run::store::Store;

/// A row with its columns.
pub(super) struct Side {
    pub entrant: Entrant,
    pub columns: Vec<Column>,
}

/// Where rows come from.
enum Place<'a> {
    /// A sweep's spec and the name of a trial.
    Trial(&'a Path, &'a str),
    /// A baseline's folder and the name of a trial.
    Frozen(&'a Path, &'a str),
    /// A folder or results file of the harness.
    Output(&'a Path),
}

/// The spec and two names, where both sides are named as trials of one sweep.
pub(super) fn of_one_sweep<'a>(first: &'a str, second: &'a str) -> Option<(&'a Path, [&'a str; 2])> {
    match (place(first)?, place(second)) {
        (Place::Trial(spec, name), None) => Some((spec, [name, second])),
        (Place::Trial(spec, name), Some(Place::Trial(beside, other))) if spec == beside => Some((spec, [name, other])),
        _ => None,
    }
}

/// Reads the two sides. The second may be a bare name, of a row where the first one is.
pub(super) fn both(first: &str, second: &str, results: &Path) -> Result<(Side, Side), Failure> {
    if let Some((spec, names)) = of_one_sweep(first, second) {
        let mut sides = of_sweep(spec, &names, results)?.into_iter();
        if let (Some(one), Some(other)) = (sides.next(), sides.next()) {
            return Ok((one, other));
        }
    }
    let one = place(first).ok_or_else(|| unknown(first))?;
    let other = match (place(second), &one) {
        (Some(place), _) => place,
        (None, Place::Frozen(folder, _)) => Place::Frozen(folder, second),
        (None, _) => return Err(unknown(second)),
    };
    Ok((read(&one, results)?, read(&other, results)?))
}

fn unknown(text: &str) -> Failure {
    usage(anyhow!(
        "`{text}`: expected SPEC:TRIAL (`sweeps/quickstart.toml:TIES`), BASELINE:TRIAL or a folder with harness output"
    ))
}

/// The longest beginning up to a colon that exists is the path.
fn place(text: &str) -> Option<Place<'_>> {
    if Path::new(text).exists() && !is_spec(Path::new(text)) {
        return Some(Place::Output(Path::new(text)));
    }
    let cuts = text.match_indices(':').map(|(place, _)| (Path::new(&text[..place]), &text[place + 1..]));
    let is_baseline = |path: &Path| path.join("baseline.json").is_file();
    let found = cuts.rev().find(|(path, _)| path.is_file() || is_baseline(path));
    found.map(|(path, trial)| if path.is_file() { Place::Trial(path, trial) } else { Place::Frozen(path, trial) })
}

fn is_spec(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension != "json")
}

fn read(place: &Place<'_>, results: &Path) -> Result<Side, Failure> {
    match place {
        Place::Trial(spec, trial) => Ok(of_sweep(spec, &[trial], results)?.remove(0)),
        Place::Frozen(folder, trial) => of_baseline(folder, trial),
        Place::Output(folder) => of_output(folder),
    }
}

/// A side for every one of `trials`.
fn of_sweep(spec: &Path, trials: &[&str], results: &Path) -> Result<Vec<Side>, Failure> {
    let (sweep, plan) = SweepArgs::of_results(spec, results).read()?;
    let store = Store::new(results, &sweep.name)?;
    let recorded = recorded::collect(&plan, &sweep, &store)?;
    let side = |trial: &&str| {
        let rows = &recorded.table.rows;
        let Some(row) = rows.iter().position(|row| row.trial == *trial) else {
            if recorded::recipes(&plan).iter().any(|(recipe, _)| recipe == trial) {
                return Err(usage(anyhow!(
                    "`{trial}` is a recipe over merge seeds, and is compared with another one; here name one seed"
                )));
            }
            let names: Vec<&str> = rows.iter().map(|row| row.trial.as_str()).collect();
            return Err(usage(anyhow!("{}: no trial `{trial}`, only {}", spec.display(), names.join(", "))));
        };
        let entrant = recorded.entrant(row)?;
        if entrant.outcomes.iter().all(Option::is_none) {
            let out = recorded.table.race.as_ref().filter(|race| race.is_out(trial)).and_then(|race| race.entry(trial));
            let how = match out {
                Some(entry) => format!(
                    "it dropped out after rung {} with {} documents: the table of the race compares it",
                    entry.rung, entry.n_documents
                ),
                None => recorded.left_out(None).unwrap_or_else(|| "run the sweep first".to_owned()),
            };
            return Err(usage(anyhow!(
                "{}: `{trial}` has no scores with samples under {} ({how})",
                spec.display(),
                store.root().display()
            )));
        }
        Ok(Side { entrant, columns: recorded.table.columns.clone() })
    };
    trials.iter().map(side).collect()
}

fn of_baseline(folder: &Path, trial: &str) -> Result<Side, Failure> {
    let Baseline { columns, trials, .. } = Baseline::read(folder).map_err(usage)?;
    let names: Vec<String> = trials.iter().map(|frozen| frozen.entrant.name.clone()).collect();
    match trials.into_iter().find(|frozen| frozen.entrant.name == trial) {
        Some(frozen) => Ok(Side { entrant: frozen.entrant, columns }),
        None => Err(usage(anyhow!("{}: no trial `{trial}`, only {}", folder.display(), names.join(", ")))),
    }
}

fn of_output(folder: &Path) -> Result<Side, Failure> {
    let mut entrant = Entrant {
        name: folder.file_stem().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
        ..Entrant::default()
    };
    let mut scores = Vec::new();
    let found = imported::found(folder)?;
    if found.is_empty() {
        return Err(usage(anyhow!("{}: no results file of the harness (`results_<time>.json`)", folder.display())));
    }
    for found in found {
        let parsed = results::parse(&found).map_err(usage)?;
        scores.extend(parsed.scores.into_iter().map(|score| {
            let samples = parsed.samples_of.get(&score.task).cloned();
            (score, samples)
        }));
    }
    let all: Vec<_> = scores.iter().map(|(score, _)| score.clone()).collect();
    let columns = task::columns(&[], &all);
    let mut read = BTreeMap::new();
    for column in &columns {
        let found = scores.iter().rev().find(|(score, _)| column.shows(score));
        let file = found.and_then(|(score, file)| Some((score, file.as_ref()?)));
        entrant.outcomes.push(match file {
            Some((score, file)) => outcomes(column, score, file, &mut read)?,
            None => None,
        });
        entrant.files.push(file.map(|(_, file): (_, &PathBuf)| file.clone()).into_iter().collect());
    }
    if entrant.outcomes.iter().all(Option::is_none) {
        return Err(usage(anyhow!("{}: no samples files (run the harness with `--log_samples`)", folder.display())));
    }
    Ok(Side { entrant, columns })
}
