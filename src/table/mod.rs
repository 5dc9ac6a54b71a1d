//! The results table: trials by scores, from a plan and the state of its sweep.
//!
//! [`ResultsTable`] holds the values at full precision. [`frame`] lays them out as polars frames (long and wide) and
//! writes them; [`render`] rounds them for people; [`reference`] sets a stored table beside them.

pub mod beside;
pub mod differences;
pub mod frame;
pub mod latex;
pub mod noise;
pub mod race;
pub mod reference;
pub mod render;
pub mod seeds;
pub mod spark;
pub mod totals;
pub mod view;

use crate::config::Scalar;
use crate::eval::results::HarnessFacts;
use crate::eval::task::{self, Column};
use crate::eval::{Score, TaskRequest};
use crate::plan::{Plan, Subject, TrialId};

/// Trials by scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultsTable {
    /// Name of the sweep.
    pub sweep: String,
    /// Columns in the order of the spec.
    pub columns: Vec<Column>,
    /// Rows in the order of the plan.
    pub rows: Vec<Row>,
    /// How the race went, where the sweep is one.
    pub race: Option<race::Race>,
    /// Merges that came out nearly the same.
    pub near: Vec<NearTwins>,
}

/// Merges whose weights are so near to each other that scores cannot tell them apart.
#[derive(Debug, Clone, PartialEq)]
pub struct NearTwins {
    /// Their names, in the order of the plan.
    pub trials: Vec<String>,
    /// How far two of them are apart at most, as a share of what their models differ by.
    pub share: f64,
}

/// One trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Identity.
    pub id: TrialId,
    /// Name.
    pub trial: String,
    /// `model` for a checkpoint as it is, `merge` (the words of the study's table), or `imported` for old results.
    pub kind: &'static str,
    /// Method of a merge.
    pub method: Option<&'static str>,
    /// Seed of a random method.
    pub seed: Option<u64>,
    /// Axis values, in the order of the axes.
    pub axes: Vec<(String, Scalar)>,
    /// Every score, task by task, each with what the harness said of itself.
    pub scores: Vec<(Score, HarnessFacts)>,
}

/// What a number rests on beside its model, in words, and how it is read off.
type Ground = (&'static str, &'static dyn Fn(&Score, &HarnessFacts) -> Option<String>);

/// What must agree for the numbers of a column to be comparable.
const GROUNDS: &[Ground] = &[
    ("releases of the harness", &|_, facts| facts.lm_eval_version.clone()),
    ("versions of its task", &|score, _| score.task_version.clone()),
    ("numbers of documents", &|score, _| score.n.map(|n| n.to_string())),
    ("numbers of few-shot examples", &|score, _| score.num_fewshot.map(|n| n.to_string())),
    ("chat templates", &|_, facts| {
        facts.backend.as_ref()?;
        Some(facts.chat_template_sha.as_ref().map_or_else(|| "none".to_owned(), |sha| sha.chars().take(12).collect()))
    }),
    ("back ends", &|_, facts| facts.backend.clone()),
    ("number formats", &|_, facts| facts.model_dtype.clone()),
    // Which of several alike does not matter.
    ("devices", &|_, facts| {
        facts.device.as_ref().map(|device| device.split(':').next().unwrap_or_default().to_owned())
    }),
    ("documents or prompts", &|score, _| score.task_hash.as_ref().map(|hash| hash.chars().take(12).collect())),
];

/// The accepted scores of one trial.
pub type TrialScores = Vec<(Score, HarnessFacts)>;

/// Builds the table of a plan; `scores_of` gives the accepted scores of a trial, none where there are none yet.
pub fn collect(plan: &Plan, requests: &[TaskRequest], scores_of: impl Fn(&TrialId) -> TrialScores) -> ResultsTable {
    let rows: Vec<Row> = plan
        .trials
        .iter()
        .map(|trial| {
            let (method, seed) = match &trial.subject {
                // A fine-tune given as BASE+ADAPTER is put together by a passthrough merge, but is a model to a reader.
                Subject::Merge { config, seed, .. } if !trial.baseline => {
                    let method = config.method.spec();
                    (Some(method.name), method.random.then_some(*seed))
                }
                _ => (None, None),
            };
            let scores = scores_of(&trial.id);
            Row {
                id: trial.id.clone(),
                trial: trial.name.clone(),
                kind: trial.kind(),
                method,
                seed,
                axes: trial.axes.clone(),
                scores,
            }
        })
        .collect();
    let mut table = ResultsTable { sweep: plan.sweep.clone(), columns: Vec::new(), rows, race: None, near: Vec::new() };
    table.renew_columns(requests);
    table
}

impl ResultsTable {
    /// Makes the columns anew from the scores of all rows.
    pub fn renew_columns(&mut self, requests: &[TaskRequest]) {
        let all: Vec<Score> =
            self.rows.iter().flat_map(|row| row.scores.iter().map(|(score, _)| score.clone())).collect();
        self.columns = task::columns(requests, &all);
    }

    /// Columns whose numbers do not all rest on the same thing, a line each: another release of the harness, another
    /// version of the task, other documents or prompts.
    pub fn versions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for column in &self.columns {
            let scores = || {
                let of_row = |row: &Row| row.scores.iter().position(|(score, _)| column.shows(score));
                let rows = self.rows.iter().filter(|row| !self.is_out(row, column));
                rows.filter_map(move |row| Some((row.trial.as_str(), &row.scores[of_row(row)?])))
            };
            let mut differ = |what: &str, of: &dyn Fn(&Score, &HarnessFacts) -> Option<String>| {
                let mut kinds: Vec<(String, Vec<&str>)> = Vec::new();
                for (trial, (score, facts)) in scores() {
                    let Some(kind) = of(score, facts) else { continue };
                    match kinds.iter_mut().find(|(known, _)| *known == kind) {
                        Some((_, trials)) => trials.push(trial),
                        None => kinds.push((kind, vec![trial])),
                    }
                }
                if kinds.len() > 1 {
                    let kinds: Vec<String> =
                        kinds.into_iter().map(|(kind, trials)| format!("{kind} ({})", trials.join(", "))).collect();
                    lines.push(format!("`{}` mixes {what}: {}", column.name, kinds.join("; ")));
                }
            };
            for (what, of) in GROUNDS {
                differ(what, of);
            }
        }
        lines
    }

    /// Row by row and column by column, whether a number rests on something else than most others of its column do: such
    /// a cell bears a mark.
    pub fn odd(&self) -> Vec<Vec<bool>> {
        let mut odd = vec![vec![false; self.columns.len()]; self.rows.len()];
        for (place, column) in self.columns.iter().enumerate() {
            for (_, of) in GROUNDS {
                let kind_of = |row: &Row| {
                    // That it rests on fewer documents stands in the cell itself.
                    if self.is_out(row, column) {
                        return None;
                    }
                    let (score, facts) = row.scores.iter().find(|(score, _)| column.shows(score))?;
                    of(score, facts)
                };
                let kinds: Vec<Option<String>> = self.rows.iter().map(kind_of).collect();
                let rule = most_common(kinds.iter().flatten());
                for (odd, kind) in odd.iter_mut().zip(&kinds) {
                    odd[place] |= kind.is_some() && kind.as_ref() != rule;
                }
            }
        }
        odd
    }

    /// Whether a row dropped out of the race, so that its score in a column is of fewer documents than the others'.
    pub fn is_out(&self, row: &Row, column: &Column) -> bool {
        self.race.as_ref().is_some_and(|race| race.decides(&column.task) && race.is_out(&row.trial))
    }

    /// The near twins of a trial, and how far they are apart at most as a share of what their models differ by.
    pub fn near_twins(&self, trial: &str) -> Option<(Vec<&str>, f64)> {
        let group = self.near.iter().find(|group| group.trials.iter().any(|name| name == trial))?;
        Some((group.trials.iter().map(String::as_str).filter(|name| *name != trial).collect(), group.share))
    }

    /// Names of all axes, in order of first appearance.
    pub fn axes(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.axes) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

/// The first of the most common ones.
fn most_common<'a>(kinds: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut counts: Vec<(&String, usize)> = Vec::new();
    for kind in kinds {
        match counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, n)) => *n += 1,
            None => counts.push((kind, 1)),
        }
    }
    let most = counts.iter().map(|(_, n)| *n).max()?;
    counts.into_iter().find(|(_, n)| *n == most).map(|(kind, _)| kind)
}

impl Row {
    /// The score that stands in a column.
    pub fn score(&self, column: &Column) -> Option<&Score> {
        self.scores.iter().map(|(score, _)| score).find(|score| column.shows(score))
    }

    /// The value of an axis.
    pub fn axis(&self, name: &str) -> Option<&Scalar> {
        self.axes.iter().find(|(axis, _)| axis == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(trial: &str, facts: HarnessFacts) -> Row {
        let score = Score {
            task: "facts".to_owned(),
            metric: "acc".to_owned(),
            filter: "none".to_owned(),
            n: Some(4),
            n_total: Some(4),
            value: Some(0.5),
            stderr: None,
            higher_is_better: None,
            task_version: None,
            num_fewshot: None,
            task_hash: None,
        };
        let (id, trial, kind) = (TrialId(trial.to_owned()), trial.to_owned(), "model");
        Row { id, trial, kind, method: None, seed: None, axes: Vec::new(), scores: vec![(score, facts)] }
    }

    #[test]
    fn numbers_of_another_back_end_device_or_number_format_are_marked() {
        let own = |backend: &str, device: &str, dtype: &str| HarnessFacts {
            backend: Some(backend.to_owned()),
            device: Some(device.to_owned()),
            model_dtype: Some(dtype.to_owned()),
            ..HarnessFacts::default()
        };
        let rows = vec![
            row("A", own("hf", "cuda:0", "float16")),
            row("B", own("hf", "cuda:1", "float16")),
            row("C", own("vllm", "cuda", "float16")),
            row("D", own("hf", "cpu", "float16")),
            row("E", own("hf", "cuda", "bfloat16")),
            row("F", HarnessFacts::default()),
        ];
        let mut table = ResultsTable { sweep: "s".to_owned(), columns: Vec::new(), rows, race: None, near: Vec::new() };
        table.renew_columns(&[TaskRequest::named("facts")]);
        let odd: Vec<bool> = table.odd().into_iter().map(|row| row[0]).collect();
        assert_eq!(odd, [false, false, true, true, true, false]);
        let told = table.versions();
        for line in [
            "`facts` mixes back ends: hf (A, B, D, E); vllm (C)",
            "`facts` mixes number formats: float16 (A, B, C, D); bfloat16 (E)",
            "`facts` mixes devices: cuda (A, B, C, E); cpu (D)",
        ] {
            assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
        }
    }
}
