//! How long a call of the harness takes, from two short ones: what it takes before the first document, and what documents take.

use std::collections::BTreeMap;

use super::rates::Spread;
use crate::eval::TaskRequest;
use crate::run::journal::{Evaluation, Record, What};

/// How far two calls of the same differ, as a share of their time: measured, on a machine with other work.
const NOISE: f64 = 0.1;

/// A call of the harness that was made twice, on few documents and on some more.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Its tasks.
    pub tasks: Vec<TaskRequest>,
    /// Of both calls, the most documents of a task, and seconds.
    pub calls: [(u64, f64); 2],
}

/// What a run recorded that asked a model so many documents of every task, at most.
pub type Short = (u64, Vec<Record>);

impl Timed {
    /// The calls for `tasks` that both of two short runs made.
    pub fn of(tasks: &[TaskRequest], [few, more]: &[Short; 2]) -> Vec<Self> {
        let of_more = seconds(&more.1);
        let of_call = |(names, short): (Vec<&str>, f64)| {
            let long = *of_more.get(&names)?;
            let tasks = tasks.iter().filter(|task| names.contains(&task.name.as_str())).cloned().collect();
            Some(Self { tasks, calls: [(few.0, short), (more.0, long)] })
        };
        seconds(&few.1).into_iter().filter_map(of_call).collect()
    }

    /// Seconds of the whole call, by the documents of its tasks; none where the second one asked no more than the first. Which of
    /// the tasks takes how much of the time is not known, nor whether a process is there already: hence the range.
    pub fn whole(&self, documents: &[u64]) -> Option<Spread> {
        let [(few, short), (more, long)] = self.calls;
        let asked = |limit: u64| documents.iter().map(|n| (*n).min(limit)).sum::<u64>() as f64;
        let n_more = asked(more) - asked(few);
        let noise = NOISE * (short + long) / 2.0;
        let per_document = |error: f64| (long - short + error).max(0.0) / n_more;
        let before_the_first = |per_document: f64| (short - per_document * asked(few)).max(0.0);
        // As if all of the time went to the task with the fewest documents, or the most.
        let n_as_in = |documents: Option<&u64>| documents.map(|n| (*n * self.tasks.len() as u64) as f64);
        let (least, most) = (n_as_in(documents.iter().min())?, n_as_in(documents.iter().max())?);
        let [low, mean, high] = [-noise, 0.0, noise].map(per_document);
        (n_more > 0.0).then(|| Spread {
            low: low * least,
            mean: before_the_first(mean) + mean * asked(u64::MAX),
            high: before_the_first(high) + high * most,
        })
    }
}

/// Seconds of calls, by the names of their tasks.
fn seconds(records: &[Record]) -> BTreeMap<Vec<&str>, f64> {
    let evaluated = records.iter().filter_map(|record| match &record.what {
        What::Evaluated(evaluation) => Some(evaluation),
        _ => None,
    });
    evaluated
        .map(|Evaluation { tasks, seconds, .. }| (tasks.iter().map(|task| task.task.as_str()).collect(), *seconds))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(short: f64, long: f64) -> Timed {
        let tasks = ["one", "other"].map(TaskRequest::named).to_vec();
        Timed { tasks, calls: [(2, short), (16, long)] }
    }

    #[test]
    fn the_whole_is_what_comes_before_the_first_document_and_every_document() {
        // 10 s, and 1 s for every document.
        let Spread { low, mean, high } = timed(14.0, 42.0).whole(&[100, 200]).unwrap();
        assert_eq!(mean, 310.0);
        // 10 % of 28 s more or less for 28 documents.
        assert!((low - 200.0 * 0.9).abs() < 1e-9 && (high - (9.6 + 400.0 * 1.1)).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn what_is_lost_in_the_noise_is_no_time_at_least_and_some_at_most() {
        let Spread { low, mean, high } = timed(10.0, 9.9).whole(&[100, 100]).unwrap();
        assert_eq!((low, mean), (0.0, 10.0));
        assert!(high > mean);
        assert_eq!(timed(10.0, 11.0).whole(&[2, 1]), None, "nothing was left for the second call");
    }
}
