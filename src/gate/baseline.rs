//! A frozen run: scores and what every document scored, by its hash. Never a text: benchmark items have licences, and a
//! baseline is meant for version control.
//!
//! `NAME/baseline.json` holds the trials with their scores (text that diffs well), `NAME/items.parquet` one row per trial,
//! column and document.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use polars::prelude::{Column as Series, DataFrame, PolarsError};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::ParquetWriter;
use serde::{Deserialize, Serialize};

use crate::eval::Score;
use crate::eval::samples::sha256;
use crate::eval::task::{self, Column, Estimator};
use crate::files::write_atomically;
use crate::paired::outcomes::{is_estimate, is_higher_better};
use crate::paired::{Doc, Entrant, Outcomes};
use crate::stats::Items;
use crate::stats::ratio::Scale;

/// Version of the files. A larger number is refused.
const FORMAT: u32 = 1;

/// A frozen run.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// Name of the sweep.
    pub sweep: String,
    /// Columns, in the order of the sweep.
    pub columns: Vec<Column>,
    /// Its trials.
    pub trials: Vec<Frozen>,
    /// Documents that scored differently when the same weights were evaluated again, where that was tried: the noise floor.
    pub null: Option<Vec<Noise>>,
}

/// A frozen trial.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// What it scored on every document, in the order of the columns.
    pub entrant: Entrant,
    /// Its scores as the harness reported them, in the order of the columns.
    pub scores: Vec<Option<Score>>,
}

/// What a repeated evaluation of the same weights changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// The trial.
    pub trial: String,
    /// The column.
    pub column: String,
    /// Documents that scored differently.
    pub n_changed: u64,
    /// Of so many.
    pub n: usize,
}

/// A baseline that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `baseline.json` is not what was written.
    #[error("{}: not a baseline of mergesweep: {source}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// Written by a newer program.
    #[error("{}: baseline format {found}, this program reads up to {FORMAT} (update mergesweep)", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// `items.parquet` is not the one that `baseline.json` was written with.
    #[error(
        "{}: not the file that `baseline.json` beside it was written with: its SHA-256 is {found}, expected {expected} (take \
         both files from one commit, or freeze again)",
        .path.display()
    )]
    OtherItems {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// That of the file that was written.
        expected: String,
    },
    /// `items.parquet` is broken.
    #[error("{}: {source}", .path.display())]
    Items {
        /// The file.
        path: PathBuf,
        /// What polars says.
        source: PolarsError,
    },
}

/// `baseline.json`.
#[derive(Serialize, Deserialize)]
struct Record {
    baseline: String,
    format: u32,
    program: String,
    sweep: String,
    columns: Vec<ColumnRecord>,
    trials: Vec<TrialRecord>,
    /// SHA-256 of `items.parquet`: documents that went missing there would go unjudged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    items_sha256: Option<String>,
    #[serde(default)]
    null: Option<Vec<Noise>>,
}

#[derive(Serialize, Deserialize)]
struct ColumnRecord {
    name: String,
    task: String,
    metric: String,
    filter: String,
    /// Of a loss: how its documents add up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<Scale>,
}

#[derive(Serialize, Deserialize)]
struct TrialRecord {
    name: String,
    weights: Option<String>,
    scores: Vec<Option<Score>>,
}

impl Baseline {
    /// Writes the two files of a baseline, each whole or not at all.
    ///
    /// # Errors
    /// [`BaselineError`].
    pub fn write(&self, folder: &Path) -> Result<(), BaselineError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| BaselineError::Io { path, source }
        };
        let items = folder.join("items.parquet");
        let mut bytes = Vec::new();
        let mut frame = self.frame().map_err(|source| BaselineError::Items { path: items.clone(), source })?;
        ParquetWriter::new(&mut bytes)
            .finish(&mut frame)
            .map_err(|source| BaselineError::Items { path: items.clone(), source })?;
        let path = folder.join("baseline.json");
        let text = serde_json::to_vec_pretty(&self.record(sha256(&bytes)))
            .map_err(|source| BaselineError::Record { path: path.clone(), source })?;
        for (path, bytes) in [(items, bytes), (path, text)] {
            write_atomically(&path, &bytes).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Reads a baseline.
    ///
    /// # Errors
    /// [`BaselineError`].
    pub fn read(folder: &Path) -> Result<Self, BaselineError> {
        let path = folder.join("baseline.json");
        let text = fs::read(&path).map_err(|source| BaselineError::Io { path: path.clone(), source })?;
        let record: Record =
            serde_json::from_slice(&text).map_err(|source| BaselineError::Record { path: path.clone(), source })?;
        if record.format > FORMAT {
            return Err(BaselineError::Newer { path, found: record.format });
        }
        let items = folder.join("items.parquet");
        let bytes = fs::read(&items).map_err(|source| BaselineError::Io { path: items.clone(), source })?;
        let found = sha256(&bytes);
        if let Some(expected) = record.items_sha256.clone().filter(|expected| *expected != found) {
            return Err(BaselineError::OtherItems { path: items, found, expected });
        }
        let frame = ParquetReader::new(Cursor::new(bytes)).finish();
        let baseline = frame.and_then(|frame| Self::assembled(record, &frame));
        baseline.map_err(|source| BaselineError::Items { path: items, source })
    }

    fn record(&self, items_sha256: String) -> Record {
        let scale = |column: usize| {
            self.trials.iter().find_map(|trial| match trial.entrant.outcomes.get(column)?.as_ref()?.items {
                Items::Ratio(_, scale) => Some(scale),
                _ => None,
            })
        };
        let columns = self.columns.iter().enumerate().map(|(place, column)| ColumnRecord {
            name: column.name.clone(),
            task: column.task.clone(),
            metric: column.metric.clone(),
            filter: column.filter.clone(),
            scale: scale(place),
        });
        let trials = self.trials.iter().map(|trial| TrialRecord {
            name: trial.entrant.name.clone(),
            weights: trial.entrant.weights.clone(),
            scores: trial.scores.clone(),
        });
        Record {
            baseline: "mergesweep".to_owned(),
            format: FORMAT,
            program: format!("mergesweep {}", env!("CARGO_PKG_VERSION")),
            sweep: self.sweep.clone(),
            columns: columns.collect(),
            trials: trials.collect(),
            items_sha256: Some(items_sha256),
            null: self.null.clone(),
        }
    }

    /// One row per trial, column and document, in that order.
    fn frame(&self) -> Result<DataFrame, PolarsError> {
        let (mut trials, mut columns, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let (mut hashes, mut prompts) = (Vec::new(), Vec::new());
        let (mut values, mut units) = (Vec::new(), Vec::new());
        for (trial, frozen) in self.trials.iter().enumerate() {
            for (column, outcomes) in frozen.entrant.outcomes.iter().enumerate() {
                let Some(outcomes) = outcomes else { continue };
                for (place, doc) in outcomes.docs.iter().enumerate() {
                    trials.push(trial as u32);
                    columns.push(column as u32);
                    ids.push(doc.id);
                    hashes.push(doc.hash.as_str());
                    prompts.push(doc.prompt.as_str());
                    let (value, unit) = match &outcomes.items {
                        Items::Binary(items) => (f64::from(u8::from(items[place])), None),
                        Items::Graded(items) => (items[place], None),
                        Items::Ratio(items, _) => (items[place].0, Some(items[place].1)),
                    };
                    values.push(value);
                    units.push(unit);
                }
            }
        }
        DataFrame::new(
            trials.len(),
            vec![
                Series::new("trial".into(), trials),
                Series::new("column".into(), columns),
                Series::new("doc_id".into(), ids),
                Series::new("doc_hash".into(), hashes),
                Series::new("prompt_hash".into(), prompts),
                Series::new("value".into(), values),
                Series::new("units".into(), units),
            ],
        )
    }

    fn assembled(record: Record, frame: &DataFrame) -> Result<Self, PolarsError> {
        let columns: Vec<Column> = record.columns.iter().map(column).collect();
        let mut trials: Vec<Frozen> = record
            .trials
            .into_iter()
            .map(|trial| Frozen {
                entrant: Entrant {
                    name: trial.name,
                    weights: trial.weights,
                    outcomes: vec![None; columns.len()],
                    files: vec![Vec::new(); columns.len()],
                },
                scores: trial.scores,
            })
            .collect();
        let mut rows = Rows::of(frame)?;
        while let Some((trial, place, docs, values)) = rows.next_block() {
            let scale = record.columns.get(place).and_then(|column| column.scale);
            let (Some(frozen), Some(column)) = (trials.get_mut(trial), columns.get(place)) else { continue };
            let Some(Some(score)) = frozen.scores.get(place) else { continue };
            let items = match scale {
                Some(scale) => Items::Ratio(values.iter().map(|(x, w)| (*x, w.unwrap_or(1.0))).collect(), scale),
                None => Items::from_values(values.iter().map(|(value, _)| *value).collect()),
            };
            frozen.entrant.outcomes[place] = Some(Outcomes {
                task: score.task.clone(),
                metric: score.metric.clone(),
                filter: score.filter.clone(),
                version: score.task_version.clone(),
                higher_is_better: is_higher_better(column, score),
                is_estimate: is_estimate(column),
                reported: score.value,
                docs,
                items,
            });
        }
        Ok(Self { sweep: record.sweep, columns, trials, null: record.null })
    }
}

fn column(record: &ColumnRecord) -> Column {
    Column {
        name: record.name.clone(),
        task: record.task.clone(),
        metric: record.metric.clone(),
        filter: record.filter.clone(),
        estimator: task::preset_of(&record.task, &record.metric, &record.filter)
            .map_or(Estimator::Reported, |preset| preset.estimator),
    }
}

/// The rows of `items.parquet`, taken off in blocks of one trial and column.
struct Rows {
    keys: Vec<(usize, usize)>,
    docs: Vec<Doc>,
    values: Vec<(f64, Option<f64>)>,
    next: usize,
}

/// Trial, column, documents and what they scored.
type Block = (usize, usize, Vec<Doc>, Vec<(f64, Option<f64>)>);

impl Rows {
    fn of(frame: &DataFrame) -> Result<Self, PolarsError> {
        let whole = |name: &str| -> Result<Vec<usize>, PolarsError> {
            Ok(frame.column(name)?.u32()?.iter().map(|value| value.unwrap_or_default() as usize).collect())
        };
        let text = |name: &str| -> Result<Vec<String>, PolarsError> {
            Ok(frame.column(name)?.str()?.iter().map(|value| value.unwrap_or_default().to_owned()).collect())
        };
        let number =
            |name: &str| -> Result<Vec<Option<f64>>, PolarsError> { Ok(frame.column(name)?.f64()?.iter().collect()) };
        let ids: Vec<u64> = frame.column("doc_id")?.u64()?.iter().map(Option::unwrap_or_default).collect();
        let docs = text("doc_hash")?.into_iter().zip(text("prompt_hash")?).zip(ids);
        let values = number("value")?.into_iter().zip(number("units")?);
        Ok(Self {
            keys: whole("trial")?.into_iter().zip(whole("column")?).collect(),
            docs: docs.map(|((hash, prompt), id)| Doc { hash, id, prompt }).collect(),
            values: values.map(|(value, units)| (value.unwrap_or(f64::NAN), units)).collect(),
            next: 0,
        })
    }

    fn next_block(&mut self) -> Option<Block> {
        let start = self.next;
        let key = *self.keys.get(start)?;
        let n = self.keys[start..].iter().take_while(|other| **other == key).count();
        self.next += n;
        let rows = start..self.next;
        Some((key.0, key.1, self.docs[rows.clone()].to_vec(), self.values[rows].to_vec()))
    }
}
