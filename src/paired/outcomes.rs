//! What a trial scored in one column, document by document.

use crate::eval::Score;
use crate::eval::consistency;
use crate::eval::samples::Sample;
use crate::eval::task::{Column, Estimator, is_tiny};
use crate::stats::Items;

/// A document as a trial met it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Doc {
    /// The harness' hash of it.
    pub hash: String,
    /// Its place in the test split.
    pub id: u64,
    /// The harness' hash of the prompt.
    pub prompt: String,
}

/// Scores of one trial in one column, documents in the order of their hashes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// Harness task.
    pub task: String,
    /// Metric.
    pub metric: String,
    /// Filter.
    pub filter: String,
    /// Version of the task.
    pub version: Option<String>,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Whether the reported score is an estimate made from these answers (gp-IRT) and not their mean.
    pub is_estimate: bool,
    /// The score as the harness reports it; none where it is no number.
    pub reported: Option<f64>,
    /// The documents.
    pub docs: Vec<Doc>,
    /// What each of them scored, in the same order.
    pub items: Items,
}

impl Outcomes {
    /// From the samples of its task. None where they leave nothing to compare for this score.
    pub fn of(column: &Column, score: &Score, samples: &[Sample]) -> Option<Self> {
        let items = consistency::items(score, samples)?;
        let of_filter = samples.iter().filter(|sample| sample.filter == score.filter);
        let docs: Vec<Doc> = of_filter
            .map(|sample| Doc { hash: sample.doc_hash.clone(), id: sample.doc_id, prompt: sample.prompt_hash.clone() })
            .collect();
        let mut order: Vec<usize> = (0..docs.len()).collect();
        order.sort_by(|a, b| docs[*a].cmp(&docs[*b]));
        Some(Self {
            task: score.task.clone(),
            metric: score.metric.clone(),
            filter: score.filter.clone(),
            version: score.task_version.clone(),
            higher_is_better: is_higher_better(column, score),
            is_estimate: is_estimate(column),
            reported: score.value,
            items: items.select(&order),
            docs: order.into_iter().map(|place| docs[place].clone()).collect(),
        })
    }

    /// Answers to several parts of a task's documents as one. None where there are none, or where the parts are of different
    /// tasks or kinds.
    pub fn together(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        let same = |of: &Self| {
            (&of.task, &of.metric, &of.filter, &of.version)
                == (&first.task, &first.metric, &first.filter, &first.version)
        };
        parts.iter().all(same).then_some(())?;
        let all = Items::together(parts.iter().map(|part| &part.items))?;
        let docs: Vec<Doc> = parts.iter().flat_map(|part| part.docs.iter().cloned()).collect();
        let mut order: Vec<usize> = (0..docs.len()).collect();
        order.sort_by(|a, b| docs[*a].cmp(&docs[*b]));
        let items = all.select(&order);
        let docs = order.into_iter().map(|place| docs[place].clone()).collect();
        let reported = if parts.len() == 1 { first.reported } else { Some(items.score()) };
        Some(Self { reported, docs, items, ..first.clone() })
    }

    /// What the documents scored, in the order of the test split; none of losses.
    pub fn in_file_order(&self) -> Option<Vec<f64>> {
        let values = self.items.values()?;
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|place| self.docs[*place].id);
        Some(order.into_iter().map(|place| values[place]).collect())
    }

    /// What a document scored, as text.
    pub fn shown(&self, place: usize) -> String {
        match &self.items {
            Items::Binary(items) if items[place] => "right".to_owned(),
            Items::Binary(_) => "wrong".to_owned(),
            Items::Graded(items) => format!("{:.4}", items[place]),
            Items::Ratio(items, scale) => format!("{:.4}", scale.of(items[place].0 / items[place].1)),
        }
    }
}

/// Which way is better in a column: what its estimator settles, else what the task says, else up.
pub fn is_higher_better(column: &Column, score: &Score) -> bool {
    column.estimator.higher_is_better().or(score.higher_is_better).unwrap_or(true)
}

/// Whether a column holds gp-IRT estimates.
pub fn is_estimate(column: &Column) -> bool {
    // The mc1 variant of TruthfulQA is a plain mean.
    column.estimator == Estimator::GpIrt || (is_tiny(&column.task) && column.task != "tinyTruthfulQA_mc1")
}
