//! What a race costs, rung by rung: at most, and as simulated siblings lead to expect.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::tasks::Task;
use crate::search::{Portions, portions, simulate};
use crate::spec::Search;

/// The cost of a race, or of a search that places points.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    /// Of a search that places points: those of the grid, where it begins. None of a race.
    pub n_grid: Option<usize>,
    /// Trials that race, or points that are asked at most: those that need no merge of their own follow their twins and are not
    /// counted.
    pub n_contenders: usize,
    /// Rung by rung.
    pub rungs: Vec<Rung>,
    /// Documents set aside, of all tasks.
    pub n_set_aside: u64,
    /// Tasks that are asked whole of the trials that are left.
    pub whole: Vec<String>,
}

/// The cost of a rung.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// Documents that it asks of every trial that is left, beside those before it.
    pub n_documents: u64,
    /// Trials that are expected to be left.
    pub expected: f64,
}

impl Race {
    /// Of so many contenders, some of which the search has placed. None where nobody knows how many documents there are.
    pub fn of(search: &Search, tasks: &[Task], n_contenders: usize, n_placed: usize) -> Option<Self> {
        let raced = search.tasks();
        let n_of = |name: &str| tasks.iter().find(|task| task.name == name).and_then(|task| task.n_documents);
        let sizes: BTreeMap<&str, u64> = raced.iter().map(|name| Some((*name, n_of(name)?))).collect::<Option<_>>()?;
        let dealt: Vec<Portions> = sizes
            .iter()
            .map(|(name, n)| portions(search.seed, name, *n, &search.rule.rungs, search.confirmation))
            .collect();
        let n_rungs = search.rule.rungs.len();
        let n_selection: usize = dealt.iter().map(|portions| portions.up_to(n_rungs)).sum();
        let n_grid = search.most_points().map(|_| n_contenders.saturating_sub(n_placed));
        let n_contenders = search.most_points().map_or(n_contenders, |most| most.max(n_contenders));
        let expected = match n_grid {
            // How soon the optimum is known depends on the curve.
            Some(_) if n_rungs == 1 => vec![n_contenders as f64],
            _ => simulate::expected(&search.rule, n_contenders, n_selection, n_grid),
        };
        let n_documents = |rung: usize| dealt.iter().map(|portions| portions.rungs[rung].len() as u64).sum();
        let rungs = expected.into_iter().enumerate();
        Some(Self {
            n_grid,
            n_contenders,
            rungs: rungs.map(|(rung, expected)| Rung { n_documents: n_documents(rung), expected }).collect(),
            n_set_aside: dealt.iter().map(|portions| portions.confirmation.len() as u64).sum(),
            whole: tasks
                .iter()
                .map(|task| &task.name)
                .filter(|name| !raced.contains(&name.as_str()))
                .cloned()
                .collect(),
        })
    }

    /// Answers to documents that decide: at most.
    pub fn at_most(&self) -> u64 {
        self.rungs.iter().map(|rung| rung.n_documents * self.n_contenders as u64).sum()
    }

    /// Answers to documents that decide: expected.
    pub fn expected(&self) -> f64 {
        self.rungs.iter().map(|rung| rung.n_documents as f64 * rung.expected).sum()
    }

    /// Lines for people.
    pub fn text(&self, columns: &str) -> String {
        let mut text = match self.n_grid {
            Some(n_grid) => self.points_text(columns, n_grid),
            None => self.rungs_text(columns),
        };
        if self.n_set_aside > 0 {
            text += &format!(
                "  then    {} documents set aside, of the trials that are left and the baselines\n",
                self.n_set_aside
            );
        }
        if !self.whole.is_empty() {
            text +=
                &format!("  then    {} whole, of the trials that are left and the baselines\n", self.whole.join(", "));
        }
        text
    }

    fn points_text(&self, columns: &str, n_grid: usize) -> String {
        let n_documents: u64 = self.rungs.iter().map(|rung| rung.n_documents).sum();
        let mut text = format!(
            "\nA search on {columns}: {n_grid} points of the grid, {} at most, {n_documents} documents each, {} answers at most\n",
            self.n_contenders,
            self.at_most()
        );
        if self.rungs.len() > 1 {
            text += "  points beside the best so far (expected: by simulated siblings, as if they were placed at random):\n";
            text += &self.lines("points");
        }
        text
    }

    fn rungs_text(&self, columns: &str) -> String {
        let text = format!(
            "\nA race on {columns} (expected: by simulated siblings, right-or-wrong answers correlated .9, true scores spread by 1 to 4 points; \
             losses tell trials apart sooner):\n"
        );
        text + &self.lines("trials")
    }

    /// A line for every rung, and one for all.
    fn lines(&self, contenders: &str) -> String {
        let mut text = String::new();
        for (place, rung) in self.rungs.iter().enumerate() {
            let Rung { n_documents, expected } = rung;
            let answers = (*n_documents as f64 * expected).round();
            let most = n_documents * self.n_contenders as u64;
            text += &format!(
                "  rung {} of {}  {n_documents} documents more; {expected:.1} of {} {contenders}, {answers} answers expected, {most} at most\n",
                place + 1,
                self.rungs.len(),
                self.n_contenders
            );
        }
        let (expected, most) = (self.expected(), self.at_most());
        text += &format!(
            "  in all  {:.0} of {most} answers expected ({:.0} %)\n",
            expected,
            100.0 * expected / most.max(1) as f64
        );
        text
    }

    /// For tools.
    pub fn json(&self) -> Json {
        let rungs = self.rungs.iter().map(|rung| {
            let most = rung.n_documents * self.n_contenders as u64;
            json!({
                "documents": rung.n_documents,
                "expected_trials": rung.expected,
                "expected_answers": rung.n_documents as f64 * rung.expected,
                "most_answers": most,
            })
        });
        json!({
            "grid_points": self.n_grid,
            "contenders": self.n_contenders,
            "rungs": rungs.collect::<Vec<_>>(),
            "expected_answers": self.expected(),
            "most_answers": self.at_most(),
            "set_aside": self.n_set_aside,
            "whole_tasks": self.whole,
        })
    }
}
