//! Do the scores of a results file agree with the samples beside it, and with themselves?
//!
//! Published files do not always: a wrong file beside a table, a truncated log, a standard error of 0 for a score between 0
//! and 1. What contradicts itself is refused; nothing is guessed.

use serde_json::Value;

use super::Score;
use super::samples::{Measured, Sample};
use super::task::{self, Estimator};
use crate::stats::Items;
use crate::stats::ratio::Scale;

/// A contradiction.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Contradiction {
    /// A share of right answers that no whole number of them gives.
    #[error("task `{task}`: `{metric}` is {value}, which is no whole number of {n} documents")]
    NotWhole {
        /// The task.
        task: String,
        /// The metric.
        metric: String,
        /// The score.
        value: f64,
        /// The documents.
        n: u64,
    },
    /// No spread, yet a score between 0 and 1.
    #[error("task `{task}`: `{metric}` is {value} with a standard error of 0, which only 0 or 1 can have")]
    NoSpread {
        /// The task.
        task: String,
        /// The metric.
        metric: String,
        /// The score.
        value: f64,
    },
    /// Another number of samples than documents.
    #[error("task `{task}`: the results say {reported} documents, the samples file holds {found} (filter `{filter}`)")]
    Count {
        /// The task.
        task: String,
        /// The filter.
        filter: String,
        /// By the results.
        reported: u64,
        /// In the samples.
        found: u64,
    },
    /// Another number than the samples give.
    #[error(
        "task `{task}`: the results say `{metric}` (filter `{filter}`) has {what} {reported}, its samples give {found}"
    )]
    Value {
        /// The task.
        task: String,
        /// The metric.
        metric: String,
        /// The filter.
        filter: String,
        /// `a score of` or `a standard error of`.
        what: &'static str,
        /// By the results.
        reported: f64,
        /// From the samples.
        found: f64,
    },
}

/// Metrics whose standard error the harness bootstraps: no mean of their documents.
const BOOTSTRAPPED: [&str; 8] = ["median", "mcc", "f1", "perplexity", "bleu", "chrf", "ter", "nanmean"];

/// Checks a score by itself: without samples there is still arithmetic. None for a group, though: its members' means may be
/// averaged as they are, and where all of them are 0 or 1 nothing spreads. `document` is the whole results file.
///
/// # Errors
/// [`Contradiction`].
pub fn check_alone(document: &Value, score: &Score) -> Result<(), Contradiction> {
    let Some(value) = score.value.filter(|_| !is_group(document, &score.task)) else { return Ok(()) };
    let (task, metric) = (score.task.clone(), score.metric.clone());
    let estimator = task::preset_of(&score.task, &score.metric, &score.filter).map(|preset| preset.estimator);
    if let (Some(Estimator::Accuracy | Estimator::PassAt1), Some(n)) = (estimator, score.n) {
        let right = value * n as f64;
        if (right - right.round()).abs() > 1e-6 {
            return Err(Contradiction::NotWhole { task, metric, value, n });
        }
    }
    if score.stderr == Some(0.0) && value > 0.0 && value < 1.0 && task::is_share(&score.metric) {
        return Err(Contradiction::NoSpread { task, metric, value });
    }
    Ok(())
}

/// Whether a task is a group by the file that tells its score. The harness also lists plain tasks, without members.
fn is_group(document: &Value, task: &str) -> bool {
    let members = document.get("group_subtasks").and_then(|groups| groups.get(task)).and_then(Value::as_array);
    let told = document.get("groups").and_then(|groups| groups.get(task));
    told.is_some() || members.is_some_and(|members| !members.is_empty())
}

/// Checks a score against the samples of its task. `document` is the whole results file.
///
/// # Errors
/// [`Contradiction`].
pub fn check(document: &Value, score: &Score, samples: &[Sample]) -> Result<(), Contradiction> {
    let of_filter: Vec<&Sample> = samples.iter().filter(|sample| sample.filter == score.filter).collect();
    // A group has no samples, and a metric over all documents at once may leave none under its name.
    if of_filter.is_empty() {
        return Ok(());
    }
    let found = of_filter.len() as u64;
    if let Some(reported) = score.n.filter(|reported| *reported != found) {
        let (task, filter) = (score.task.clone(), score.filter.clone());
        return Err(Contradiction::Count { task, filter, reported, found });
    }
    let Some(items) = items(score, samples).filter(|_| is_mean(document, score)) else { return Ok(()) };
    let differs = |what, reported: Option<f64>, found: Option<f64>, tolerance: f64| {
        let (reported, found) = (reported?, found?);
        let is_near = (reported - found).abs() <= tolerance * reported.abs().max(1.0);
        (!is_near).then(|| Contradiction::Value {
            task: score.task.clone(),
            metric: score.metric.clone(),
            filter: score.filter.clone(),
            what,
            reported,
            found,
        })
    };
    let value = differs("a score of", score.value, Some(items.score()), 1e-9);
    let stderr = || differs("a standard error of", score.stderr, items.standard_error(), 1e-6);
    value.or_else(stderr).map_or(Ok(()), Err)
}

/// Whether the score is the plain mean of what its documents scored: the task says so, or its metric has that by default,
/// which a standard error shows.
fn is_mean(document: &Value, score: &Score) -> bool {
    let config = document.get("configs").and_then(|configs| configs.get(&score.task));
    let metrics = config.and_then(|config| config.get("metric_list")).and_then(Value::as_array);
    let metrics: Vec<&Value> = metrics.into_iter().flatten().collect();
    let named = |entry: &&&Value| entry.get("metric").and_then(Value::as_str) == Some(score.metric.as_str());
    let aggregation = |entry: &Value| entry.get("aggregation").and_then(Value::as_str).map(str::to_owned);
    let says = match metrics.iter().find(named) {
        Some(entry) => aggregation(entry),
        // A metric that is a function goes by what it returns; where all entries agree it does not matter.
        None if !metrics.is_empty() && metrics.iter().all(|entry| aggregation(entry).as_deref() == Some("mean")) => {
            Some("mean".to_owned())
        }
        None => None,
    };
    match says {
        Some(aggregation) => aggregation == "mean",
        None => score.stderr.is_some() && !BOOTSTRAPPED.contains(&score.metric.as_str()),
    }
}

/// What every document scored, in the order of the samples. None where the metric leaves nothing that can be averaged, or
/// leaves out documents.
pub fn items(score: &Score, samples: &[Sample]) -> Option<Items> {
    let of_filter = samples.iter().filter(|sample| sample.filter == score.filter);
    let measured: Vec<Measured> =
        of_filter.map(|sample| sample.measured.get(&score.metric).copied()).collect::<Option<_>>()?;
    let numbers: Option<Vec<f64>> = measured
        .iter()
        .map(|measured| match measured {
            Measured::Number(value) if value.is_finite() => Some(*value),
            _ => None,
        })
        .collect();
    if let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) {
        return Some(Items::from_values(numbers));
    }
    let pairs: Vec<(f64, f64)> = measured
        .iter()
        .map(|measured| match measured {
            Measured::LogLikelihood(nats, units) => Some((-nats, *units)),
            Measured::Number(_) => None,
        })
        .collect::<Option<_>>()?;
    // Which of the harness' ratios it is, the reported number tells.
    let value = score.value?;
    [Scale::Bits, Scale::Perplexity]
        .into_iter()
        .map(|scale| Items::Ratio(pairs.clone(), scale))
        .find(|items| (items.score() - value).abs() <= 1e-6 * value.abs())
}
