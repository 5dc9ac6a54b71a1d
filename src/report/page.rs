//! What a report shows, as plain values: everything the page and its plots are drawn from.
//!
//! Nothing here is rounded, escaped or laid out, and nothing is read from disk: `report::gather` fills it from a table and
//! its comparisons.

use crate::paired::{self, Compared};
use crate::stats::Interval;
use crate::table::race::Race;

/// A report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Name of the sweep.
    pub sweep: String,
    /// The row that every other one is compared with.
    pub reference: Option<usize>,
    /// Columns of scores.
    pub columns: Vec<Column>,
    /// Names of all axes.
    pub axes: Vec<String>,
    /// One per trial, in the order of the plan.
    pub rows: Vec<Row>,
    /// Random recipes that were drawn with several seeds.
    pub recipes: Vec<Recipe>,
    /// How the race went, where the sweep is one.
    pub race: Option<Race>,
    /// What was used, as name and value: program, harness, settings.
    pub settings: Vec<(String, String)>,
    /// Texts to keep with the numbers, as title and text: the spec.
    pub sources: Vec<(String, String)>,
    /// What was found odd when the sweep was planned.
    pub findings: Vec<String>,
    /// Merges that came out nearly the same, in words.
    pub near: Vec<String>,
    /// What a reader of the table must know.
    pub remarks: Vec<String>,
}

/// A column of scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Harness task, metric and filter, and how the number is made.
    pub meaning: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Documents behind each number, the least and the most.
    pub n: Option<(u64, u64)>,
    /// Documents that any comparison speaks of.
    pub documents: Vec<Document>,
    /// How far the best of the rows stands above their mean by chance alone, in units of the score.
    pub selection_excess: Option<f64>,
}

/// A document of a task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// Its place in the test split.
    pub id: u64,
    /// The harness' hash of it.
    pub hash: String,
    /// Prompt, target and the reference's answer; only where item texts were asked for.
    pub texts: Option<[String; 3]>,
}

/// A trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// `model`, `merge` or `imported`.
    pub kind: String,
    /// Method of a merge.
    pub method: Option<String>,
    /// Axis values as they are written, and as numbers where they are some; in the order of [`Page::axes`].
    pub axes: Vec<Option<(String, Option<f64>)>>,
    /// Column by column.
    pub cells: Vec<Option<Cell>>,
    /// An earlier row with the same weights.
    pub twin_of: Option<usize>,
    /// An earlier row with nearly the same weights.
    pub near_twin_of: Option<usize>,
    /// Corrected p-value of the test over all tasks, and whether the row is better by it.
    pub overall: Option<(f64, bool)>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a row comes from and what it cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    /// Identity of the trial.
    pub id: String,
    /// Digest of the weights and small files.
    pub weights: Option<String>,
    /// Merge seed of a random method.
    pub seed: Option<u64>,
    /// Device and number format of the evaluation.
    pub hardware: Option<String>,
    /// Seconds of the merge (of the whole pass, where several were made in one).
    pub merge_seconds: Option<f64>,
    /// Seconds of its evaluations.
    pub evaluation_seconds: Option<f64>,
    /// The merge config.
    pub config: Option<String>,
}

/// A score.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The value.
    pub value: f64,
    /// 95 % interval.
    pub interval: Option<Interval>,
    /// Whether it rests on something else than the others of its column.
    pub is_odd: bool,
    /// The documents it rests on, where its row dropped out of the race: fewer than the others of its column.
    pub dropped_after: Option<u64>,
    /// Beside the reference.
    pub stands: paired::Cell,
    /// The documents that scored differently there, or those that changed most.
    pub flips: Vec<Flip>,
}

/// A document that scored differently.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flip {
    /// Place in [`Column::documents`].
    pub document: usize,
    /// What this row scored on it.
    pub row: String,
    /// What the reference scored on it.
    pub reference: String,
    /// This row's answer; only where item texts were asked for.
    pub answer: Option<String>,
}

/// A recipe of a random method over its merge seeds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recipe {
    /// What its rows share in their names.
    pub name: String,
    /// Its rows.
    pub rows: Vec<usize>,
    /// Column by column, mean and its 95 % interval over items and seeds.
    pub means: Vec<Option<(f64, Option<Interval>)>>,
}

impl Page {
    /// The score of a row in a column, where it is one to set beside others: of a row that dropped out of the race it is not.
    pub fn cell(&self, row: usize, column: usize) -> Option<&Cell> {
        self.rows.get(row)?.cells.get(column)?.as_ref().filter(|cell| cell.dropped_after.is_none())
    }

    /// The reference's score in a column, with its name.
    pub fn reference_score(&self, column: usize) -> Option<(&str, f64)> {
        let row = self.reference?;
        Some((self.rows.get(row)?.name.as_str(), self.cell(row, column)?.value))
    }
}

impl Cell {
    /// The comparison with the reference, where there is one.
    pub fn compared(&self) -> Option<&Compared> {
        match &self.stands {
            paired::Cell::Compared(compared) => Some(compared),
            _ => None,
        }
    }

    /// Whether it is significantly better, or worse, than the reference; none where neither.
    pub fn better(&self) -> Option<bool> {
        self.compared()?.significance()
    }

    /// Whether it is the best of its column: it was picked on these very documents.
    pub fn is_best(&self) -> bool {
        self.compared().is_some_and(|compared| compared.is_best)
    }
}
