//! How a race went, below the table of its scores: who dropped out after which rung, and by what evidence.

use super::ResultsTable;
use super::differences::{difference, interval, p_value, signed_points};
use super::render::{Cells, value};
use crate::search::Beside;
use crate::stats::{Comparison, Interval};

/// A race.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    /// Columns that decided.
    pub columns: Vec<String>,
    /// Tasks of these, whose documents were asked in portions.
    pub tasks: Vec<String>,
    /// Shares of the documents after which it was decided.
    pub rungs: Vec<f64>,
    /// Seed of their order.
    pub seed: u64,
    /// Two-sided confidence of a decision.
    pub confidence: f64,
    /// Whether documents were set aside for the trials that are left.
    pub has_confirmation: bool,
    /// Of a search that placed points: what it found, in a sentence. None of a race.
    pub found: Option<String>,
    /// Whether each column is an objective of its own, so that a front is left and no best one.
    pub is_front: bool,
    /// Every contender: those that are left first, the best before the others, then by how far they came.
    pub entries: Vec<Entry>,
    /// Answers of contenders to documents that decided.
    pub n_asked: u64,
    /// As many as the whole grid would have asked.
    pub n_whole: u64,
    /// The best trial beside others, by the documents set aside.
    pub confirmed: Vec<Confirmed>,
}

/// A contender as the last rung that it answered left it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub trial: String,
    /// That rung, from 1.
    pub rung: usize,
    /// Documents that it had answered by then.
    pub n_documents: u64,
    /// Whether it went on from there.
    pub survives: bool,
    /// Its scores by these documents, column by column.
    pub scores: Vec<f64>,
    /// The trial that led.
    pub leader: String,
    /// Its objective minus that of the leader.
    pub difference: f64,
    /// Interval of the difference, where the test has one.
    pub interval: Option<Interval>,
    /// P-value, where the test has one.
    pub p: Option<f64>,
    /// Documents and objective, rung by rung.
    pub course: Vec<(u64, f64)>,
}

/// The best of a search beside another trial that is left, or the reference, by documents that no decision saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmed {
    /// The best.
    pub trial: String,
    /// The other one.
    pub rival: String,
    /// Column by column; none where there is nothing to compare.
    pub columns: Vec<Option<Comparison>>,
    /// The objective, where it is of several columns.
    pub objective: Option<Beside>,
}

impl Race {
    /// A contender.
    pub fn entry(&self, trial: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.trial == trial)
    }

    /// Whether a trial dropped out: its scores rest on fewer documents, or on others. Of points that a search placed all compare
    /// that answered everything, whoever was chosen.
    pub fn is_out(&self, trial: &str) -> bool {
        let out = self.entry(trial).filter(|entry| !entry.survives);
        out.is_some_and(|out| self.found.is_none() || self.has_confirmation || out.rung < self.rungs.len())
    }

    /// Whether scores of a task stand on documents that decided.
    pub fn decides(&self, task: &str) -> bool {
        self.tasks.iter().any(|raced| raced == task)
    }
}

/// The table of the race: one row per contender.
pub fn table(race: &Race) -> Cells {
    let first = if race.found.is_some() { "search" } else { "race" };
    let mut head = [first, "rung", "documents"].map(str::to_owned).to_vec();
    head.extend(race.columns.iter().cloned());
    head.extend(["minus the leader (↑)", "evidence"].map(str::to_owned));
    let rows = race.entries.iter().map(|entry| {
        let place = if race.is_out(&entry.trial) { ", out" } else { "" };
        let mut row = vec![
            entry.trial.clone(),
            format!("{} of {}{place}", entry.rung, race.rungs.len()),
            entry.n_documents.to_string(),
        ];
        row.extend(entry.scores.iter().map(|score| value(Some(*score))));
        let is_share = is_share(race, entry);
        let leads = entry.trial == entry.leader;
        row.push(if leads { "leads".to_owned() } else { signed_points(entry.difference, is_share) });
        row.push(evidence(entry, is_share));
        row
    });
    Cells { head, rows: rows.collect() }
}

/// The best trial beside others by the documents set aside; none where nothing was set aside.
pub fn confirmation(race: &Race) -> Option<Cells> {
    let has_objective = race.confirmed.first()?.objective.is_some();
    let mut head = ["set aside", "minus"].map(str::to_owned).to_vec();
    head.extend(race.columns.iter().cloned());
    head.extend(has_objective.then(|| "objective (↑)".to_owned()));
    let told = |difference: String, interval: String, p: f64| format!("{difference} {interval} p {}", p_value(p));
    let rows = race.confirmed.iter().map(|confirmed| {
        let mut row = vec![confirmed.trial.clone(), confirmed.rival.clone()];
        row.extend(confirmed.columns.iter().map(|comparison| match comparison {
            Some(comparison) => told(difference(comparison), interval(comparison), comparison.p),
            None => value(None),
        }));
        row.extend(has_objective.then(|| match confirmed.objective {
            Some(Beside { difference, interval, p }) => {
                told(signed_points(difference, false), between(interval, false), p)
            }
            None => value(None),
        }));
        row
    });
    Some(Cells { head, rows: rows.collect() })
}

/// One share of right answers: in points.
fn is_share(race: &Race, entry: &Entry) -> bool {
    race.columns.len() == 1 && entry.interval.is_some()
}

fn evidence(entry: &Entry, is_share: bool) -> String {
    match (entry.interval, entry.p) {
        (None, Some(p)) => format!("p {}", p_value(p)),
        (interval, _) => between(interval, is_share),
    }
}

fn between(interval: Option<Interval>, is_share: bool) -> String {
    let told =
        |Interval { low, high }| format!("[{}, {}]", signed_points(low, is_share), signed_points(high, is_share));
    interval.map_or_else(|| value(None), told)
}

/// What a reader of both tables must know.
pub fn footnotes(table: &ResultsTable) -> Vec<String> {
    let Some(race) = &table.race else { return Vec::new() };
    let left: Vec<&str> =
        race.entries.iter().filter(|entry| entry.survives).map(|entry| entry.trial.as_str()).collect();
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let rungs: Vec<String> = race.rungs.iter().map(|rung| percent(*rung)).collect();
    let share = 100.0 * race.n_asked as f64 / race.n_whole.max(1) as f64;
    let course = format!(
        "Race on {} after {} % of the documents (order by seed {}): out is whose {} % interval of the difference from the \
         leader lies below 0, or whose exchange test says so. {} of {} answers were asked ({share:.0} %)",
        race.columns.join(", "),
        rungs.join(", "),
        race.seed,
        percent(race.confidence),
        race.n_asked,
        race.n_whole,
    );
    let mut lines = vec![race.found.clone().unwrap_or(course)];
    lines.push(
        "minus the leader: of the objective, of which more is better, on the documents that both have answered"
            .to_owned(),
    );
    if race.entries.iter().any(|entry| race.is_out(&entry.trial)) || race.found.is_none() {
        lines.push(
            "(n=…): out of the race, the score rests on so many documents, compares with nothing else in its column \
             and is in no plot of it"
                .to_owned(),
        );
    }
    let contenders = race.entries.len();
    lines.push(if race.has_confirmation {
        format!(
            "{}: chosen among {contenders}; their scores in {} are those of documents that no decision saw",
            left.join(", "),
            race.tasks.join(", ")
        )
    } else {
        format!(
            "{}: selected on these items among {contenders}, so the best is too high by chance; `search.confirmation` sets \
             documents aside to tell it by",
            left.join(", ")
        )
    });
    lines
}
