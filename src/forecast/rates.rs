//! How fast merges and evaluations were: from the journals of this sweep and of those beside it.

use std::collections::BTreeMap;

use crate::run::fingerprint::Key;
use crate::run::journal::{Evaluation, Record, TaskEvaluation, What};

/// Merges of other sweeps tell something of this one's where their sizes differ by less than this factor.
const ALIKE: f64 = 2.0;

/// One pass of merges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pass {
    /// Bytes written.
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
}

/// Where rates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nowhere.
    #[default]
    None,
    /// Earlier trials of this sweep.
    Sweep,
    /// Other sweeps with their results in the same place.
    Beside,
    /// A calibration just now.
    Calibration,
}

/// Passes of merges.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merges {
    /// Every one that was measured.
    pub passes: Vec<Pass>,
    /// Where.
    pub origin: Origin,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    /// Merges.
    pub merges: Merges,
    /// Wall times of calls of the harness, by what was asked, with where they come from.
    pub calls: BTreeMap<Vec<String>, (Vec<f64>, Origin)>,
    /// Times of such calls by a calibration, for those that were never made.
    pub calibrated: BTreeMap<Vec<String>, Spread>,
}

/// The least, the mean and the most of measured numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least.
    pub low: f64,
    /// The mean.
    pub mean: f64,
    /// The most.
    pub high: f64,
}

impl Spread {
    /// None of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        (!values.is_empty()).then(|| Self { low, mean: values.iter().sum::<f64>() / values.len() as f64, high })
    }

    /// Of a sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { low: self.low + other.low, mean: self.mean + other.mean, high: self.high + other.high }
    }

    /// So many times.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { low: self.low * factor, mean: self.mean * factor, high: self.high * factor }
    }

    /// Of what takes as long as the longer of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let Self { low, mean, high } = self;
        Self { low: low.max(other.low), mean: mean.max(other.mean), high: high.max(other.high) }
    }
}

impl Origin {
    /// In words, behind a number.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::None => "nowhere",
            Self::Sweep => "earlier trials of this sweep",
            Self::Beside => "other sweeps in the same results folder",
            Self::Calibration => "a calibration just now",
        }
    }
}

/// What a task was asked, whatever the model, the harness and the task files: calls with the same take about as long.
pub fn asked(key: &Key, task: &str) -> String {
    let parts = key.0.iter().filter(|(name, _)| !["weights", "harness", "task files"].contains(&name.as_str()));
    let parts: Vec<String> = parts.map(|(name, value)| format!("{name}={value}")).collect();
    format!("{task}: {}", parts.join("; "))
}

impl Rates {
    /// From this sweep's journal, and where that says nothing from those of the others. `typical` is the size of a merge.
    pub fn of(own: &[Record], others: &[Vec<Record>], typical: Option<u64>) -> Self {
        let mut rates = Self::default();
        rates.take(own, Origin::Sweep);
        for other in others {
            let passes = passes(other);
            let sizes: Vec<f64> =
                other.iter().filter_map(|record| size_of(&record.what)).map(|size| size as f64).collect();
            let size = sizes.iter().sum::<f64>() / sizes.len() as f64;
            // Where nothing is known of the sizes, times of other sweeps say nothing.
            let is_alike = typical.is_some_and(|own| (1.0 / ALIKE..=ALIKE).contains(&(size / own as f64)));
            if is_alike {
                rates.take(other, Origin::Beside);
            } else if rates.merges.origin != Origin::Sweep {
                // Throughput depends little on the size.
                rates.merges.origin = if passes.is_empty() { rates.merges.origin } else { Origin::Beside };
                rates.merges.passes.extend(passes);
            }
        }
        rates
    }

    fn take(&mut self, records: &[Record], origin: Origin) {
        let passes = passes(records);
        if !passes.is_empty() && self.merges.origin != Origin::Sweep {
            self.merges.passes.extend(passes);
            self.merges.origin = origin;
        }
        for record in records {
            // What was taken over from a killed run was not timed.
            let What::Evaluated(Evaluation { tasks, seconds, .. }) = &record.what else { continue };
            if *seconds > 0.0 {
                let asked = signature(tasks);
                let (times, from) = self.calls.entry(asked).or_default();
                if *from == Origin::None || *from == origin {
                    times.push(*seconds);
                    *from = origin;
                }
            }
        }
    }
}

fn signature(tasks: &[TaskEvaluation]) -> Vec<String> {
    let mut asked: Vec<String> = tasks.iter().map(|task| asked(&task.key, &task.task)).collect();
    asked.sort();
    asked
}

fn size_of(what: &What) -> Option<u64> {
    match what {
        What::Merged { merge, .. } => Some(merge.n_bytes),
        _ => None,
    }
}

/// Passes: merges that were recorded at one moment with one time.
fn passes(records: &[Record]) -> Vec<Pass> {
    let mut passes: Vec<(f64, Pass)> = Vec::new();
    for record in records {
        let What::Merged { merge, .. } = &record.what else { continue };
        match passes.last_mut() {
            Some((time, pass)) if *time == record.time && pass.seconds == merge.seconds => pass.bytes += merge.n_bytes,
            _ => passes.push((record.time, Pass { bytes: merge.n_bytes, seconds: merge.seconds })),
        }
    }
    passes.into_iter().map(|(_, pass)| pass).filter(|pass| pass.seconds > 0.0 && pass.bytes > 0).collect()
}
