//! The smallest true difference from the reference that the documents of a sweep tell from noise, column by column: with a
//! power of .8, at a level of .05 that all comparisons of a column share (Connor 1987 and McNemar's exact test for right or
//! wrong; the spread of earlier results for losses and graded scores).

use super::tasks::Task;
use crate::eval::task::{Column, Estimator, is_share};
use crate::paired::{Entrant, align};
use crate::spec::Sweep;
use crate::stats::power::{DISCORDANCE, detectable_at, detectable_of_spread};
use crate::stats::{Items, LEVEL, compare};

/// Every column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Detectable {
    /// The trial that others are compared with, where the spec names one.
    pub reference: Option<String>,
    /// Comparisons in a column.
    pub n_comparisons: usize,
    /// The level of the first of them.
    pub level: f64,
    /// The columns.
    pub columns: Vec<Shown>,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Its name.
    pub column: String,
    /// Its task.
    pub task: String,
    /// Documents.
    pub n: Option<u64>,
    /// What can be told.
    pub smallest: Smallest,
    /// Whether its score is an estimate made from right answers (gp-IRT): what is told is in those.
    pub is_estimate: bool,
}

/// The smallest difference.
#[derive(Debug, Clone, PartialEq)]
pub enum Smallest {
    /// Of a share of right answers, from the share of documents that differ in earlier results.
    Seen {
        /// The share.
        psi: f64,
        /// The difference; none where no difference of so few documents is found often enough.
        delta: Option<f64>,
    },
    /// Of a share of right answers, for shares of differing documents to choose from.
    Assumed([(f64, Option<f64>); 3]),
    /// Of a number whose spread is known from earlier results, in its unit.
    Spread(f64),
    /// Of a number whose spread is not known yet.
    LaterKnown,
    /// Nobody knows how many documents there are.
    Unknown,
}

/// What can be told. The first of the entrants is the one that the others are compared with.
pub fn detectable(
    sweep: &Sweep,
    columns: &[Column],
    tasks: &[Task],
    n_distinct: usize,
    entrants: &[Entrant],
) -> Detectable {
    let n_comparisons = n_distinct.saturating_sub(1).max(1);
    let level = LEVEL / n_comparisons as f64;
    let shown = columns.iter().enumerate().map(|(place, column)| {
        let n = tasks.iter().find(|task| task.name == column.task).and_then(|task| task.n_documents);
        let seen = seen(entrants, place);
        let smallest = smallest(column, n, level, &seen);
        let is_estimate = column.estimator == Estimator::GpIrt && !matches!(smallest, Smallest::LaterKnown);
        Shown { column: column.name.clone(), task: column.task.clone(), n, smallest, is_estimate }
    });
    Detectable { reference: sweep.report.reference.clone(), n_comparisons, level, columns: shown.collect() }
}

/// Of earlier comparisons: documents, discordant ones, and the paired standard error of the difference.
struct Seen {
    n: usize,
    discordant: Option<u64>,
    stderr: Option<f64>,
}

fn seen(entrants: &[Entrant], place: usize) -> Vec<Seen> {
    let outcomes = |entrant: &Entrant| entrant.outcomes.get(place).cloned().flatten();
    let Some(reference) = entrants.first().and_then(outcomes) else { return Vec::new() };
    let others =
        entrants[1..].iter().filter(|entrant| entrant.weights.is_none() || entrant.weights != entrants[0].weights);
    others
        .filter_map(|entrant| {
            let other = outcomes(entrant)?;
            let pair = align(&other, &reference, false).ok()?;
            // Draws of a permutation are not needed for a spread, and losses would ask for many.
            let stderr = crate::stats::compare::paired_standard_error(&pair.first.items, &pair.second.items);
            let discordant = match (&pair.first.items, &pair.second.items) {
                (Items::Binary(_), Items::Binary(_)) => {
                    compare(&pair.first.items, &pair.second.items, 0)?.discordant.map(|found| found.total())
                }
                _ => None,
            };
            Some(Seen { n: pair.first.items.len(), discordant, stderr })
        })
        .collect()
}

fn smallest(column: &Column, n: Option<u64>, level: f64, seen: &[Seen]) -> Smallest {
    let is_right_or_wrong = match column.estimator {
        Estimator::Accuracy | Estimator::PassAt1 => true,
        Estimator::GpIrt => column.task != "tinyTruthfulQA",
        Estimator::Reported => is_share(&column.metric),
        Estimator::ProbabilityMass | Estimator::BitsPerByte => false,
    };
    let Some(n) = n else { return Smallest::Unknown };
    if is_right_or_wrong {
        let (differ, all) = seen.iter().fold((0, 0), |(differ, all), one| match one.discordant {
            Some(discordant) => (differ + discordant, all + one.n),
            None => (differ, all),
        });
        if differ > 0 {
            let psi = differ as f64 / all as f64;
            return Smallest::Seen { psi, delta: detectable_at(n, psi, level) };
        }
        return Smallest::Assumed(DISCORDANCE.map(|psi| (psi, detectable_at(n, psi, level))));
    }
    let spreads: Vec<f64> = seen
        .iter()
        .filter_map(|one| one.stderr.map(|stderr| stderr * (one.n as f64 / n as f64).sqrt()))
        .filter(|stderr| *stderr > 0.0)
        .collect();
    match spreads.len() {
        0 => Smallest::LaterKnown,
        count => Smallest::Spread(detectable_of_spread(spreads.iter().sum::<f64>() / count as f64, level)),
    }
}
