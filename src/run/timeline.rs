//! Who ran when: the last run of a sweep as spans of its lanes, read from its journal.

use std::collections::BTreeMap;

use serde::Serialize;

use super::journal::{Evaluation, Record, Stage, What};
use crate::plan::TrialId;

/// A lane of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Where merges are made, one pass at a time.
    Merge,
    /// One of the places for evaluations, from 0.
    Slot(usize),
}

/// One step of one trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// Where.
    pub lane: Lane,
    /// Of which trial. The merges of one pass are a span each, of the same time.
    pub trial: TrialId,
    /// Seconds after the beginning of the run.
    pub start: f64,
    /// The same of its end, or of now where it has not ended.
    pub end: f64,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// UNIX seconds of its beginning.
    pub begun: f64,
    /// Its seconds, up to now where it is not over.
    pub seconds: f64,
    /// Evaluations at once.
    pub n_slots: usize,
    /// Every step, in the order of their beginnings.
    pub spans: Vec<Span>,
}

/// How a run spent its time, in shares of the whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shares {
    /// A merge was being made.
    pub merge: f64,
    /// Each slot was busy.
    pub slots: Vec<f64>,
    /// All slots were busy at once.
    pub all_slots: f64,
    /// A merge and an evaluation ran at once.
    pub overlap: f64,
    /// The chain of steps that decided when the run ended: each began when the one before it had ended.
    pub critical_path: f64,
    /// Before the first step of that chain: looking around, preflight.
    pub before: f64,
    /// Between the steps of that chain, and after it: what the orchestrator cost.
    pub overhead: f64,
}

/// The last run with something to do; `now` is given where it is still running. None where there is no record of one.
pub fn last_run(records: &[Record], now: Option<f64>) -> Option<Timeline> {
    let started = |record: &Record| matches!(record.what, What::RunStarted { .. });
    let first = records.iter().rposition(started)?;
    let What::RunStarted { since, n_slots, .. } = records[first].what else { return None };
    let of_run = &records[first..];
    // A run that was killed ends with what it recorded last.
    let end = now.or(of_run.last().map(|record| record.time)).unwrap_or(since);
    let mut open = Open::default();
    let mut spans: Vec<Span> = of_run.iter().flat_map(|record| open.take(record)).collect();
    spans.extend(open.rest(end));
    for span in &mut spans {
        // A clock that was set back must not make negative times.
        span.start = (span.start - since).max(0.0);
        span.end = (span.end - since).max(span.start);
    }
    spans.sort_by(|a, b| a.start.total_cmp(&b.start));
    Some(Timeline { begun: since, seconds: (end - since).max(0.0), n_slots, spans })
}

/// Steps that have begun: the folder of an evaluation, or none for a merge.
#[derive(Default)]
struct Open(BTreeMap<(TrialId, Option<String>), (Lane, f64)>);

impl Open {
    /// The steps that a record ends.
    fn take(&mut self, record: &Record) -> Vec<Span> {
        let Some(trial) = &record.trial else { return Vec::new() };
        let ended: Vec<(TrialId, Option<String>)> = match &record.what {
            What::MergeStarted => {
                self.0.insert((trial.clone(), None), (Lane::Merge, record.time));
                Vec::new()
            }
            What::EvaluationStarted { folder, slot, .. } => {
                self.0.insert((trial.clone(), Some(folder.clone())), (Lane::Slot(*slot), record.time));
                Vec::new()
            }
            What::Merged { .. } | What::Failed { stage: Stage::Merge, .. } => vec![(trial.clone(), None)],
            What::Evaluated(Evaluation { folder, .. }) | What::EvaluationRetried { folder, .. } => {
                vec![(trial.clone(), Some(folder.clone()))]
            }
            What::Failed { stage: Stage::Evaluate, .. } => {
                self.0.keys().filter(|(of, folder)| of == trial && folder.is_some()).cloned().collect()
            }
            _ => Vec::new(),
        };
        let spans = ended.into_iter().filter_map(|key| {
            let (lane, start) = self.0.remove(&key)?;
            Some(Span { lane, trial: key.0, start, end: record.time })
        });
        spans.collect()
    }

    /// What has not ended.
    fn rest(self, end: f64) -> impl Iterator<Item = Span> {
        self.0.into_iter().map(move |((trial, _), (lane, start))| Span { lane, trial, start, end })
    }
}

impl Timeline {
    /// Its lanes, in order.
    pub fn lanes(&self) -> Vec<Lane> {
        std::iter::once(Lane::Merge).chain((0..self.n_slots).map(Lane::Slot)).collect()
    }

    /// When a lane was busy: periods in order that do not touch.
    pub fn busy(&self, lane: Lane) -> Vec<(f64, f64)> {
        let spans = self.spans.iter().filter(|span| span.lane == lane);
        spans.fold(Vec::new(), |mut busy, span| {
            match busy.last_mut() {
                Some((_, end)) if span.start <= *end => *end = span.end.max(*end),
                _ => busy.push((span.start, span.end)),
            }
            busy
        })
    }

    /// How the time was spent.
    pub fn shares(&self) -> Shares {
        let share = |seconds: f64| if self.seconds > 0.0 { seconds / self.seconds } else { 0.0 };
        // A sum of nothing is -0.0, and would be told as such.
        let total = |busy: &[(f64, f64)]| {
            share(busy.iter().map(|(start, end)| end - start).fold(0.0, |sum, seconds| sum + seconds))
        };
        let merge = self.busy(Lane::Merge);
        let slots: Vec<Vec<(f64, f64)>> = (0..self.n_slots).map(|slot| self.busy(Lane::Slot(slot))).collect();
        let all_slots =
            slots.iter().skip(1).fold(slots.first().cloned().unwrap_or_default(), |all, slot| both(&all, slot));
        let any_slot = slots.iter().fold(Vec::new(), |any, slot| either(any, slot));
        let (path, before) = self.critical_path();
        Shares {
            merge: total(&merge),
            slots: slots.iter().map(|slot| total(slot)).collect(),
            all_slots: total(&all_slots),
            overlap: total(&both(&merge, &any_slot)),
            critical_path: share(path),
            before: share(before),
            overhead: share((self.seconds - path - before).max(0.0)),
        }
    }

    /// Seconds of the steps of the chain that ends last, and seconds before its first one. Each step is preceded by the one
    /// that ended last before it began: that is what it had waited for.
    fn critical_path(&self) -> (f64, f64) {
        let mut last = self.spans.iter().max_by(|a, b| a.end.total_cmp(&b.end));
        let (mut path, mut before) = (0.0, self.seconds);
        while let Some(span) = last {
            path += span.end - span.start;
            before = span.start;
            let earlier = self.spans.iter().filter(|other| other.end <= span.start && other.start < span.start);
            last = earlier.max_by(|a, b| a.end.total_cmp(&b.end));
        }
        (path, before)
    }
}

/// Where both are busy.
fn both(a: &[(f64, f64)], b: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
    pairs.filter(|(start, end)| start < end).collect()
}

/// Where one or the other is busy.
fn either(mut a: Vec<(f64, f64)>, b: &[(f64, f64)]) -> Vec<(f64, f64)> {
    a.extend(b);
    a.sort_by(|a, b| a.0.total_cmp(&b.0));
    a.into_iter().fold(Vec::new(), |mut all, (start, end)| {
        match all.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => all.push((start, end)),
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: f64, trial: Option<&str>, what: What) -> Record {
        Record { time, trial: trial.map(|id| TrialId(id.to_owned())), what }
    }

    fn evaluation(slot: usize) -> What {
        let folder = "evaluations/1".to_owned();
        What::EvaluationStarted { tasks: Vec::new(), folder, keys: BTreeMap::new(), slot, warm: true, batch_size: None }
    }

    fn failed(stage: Stage) -> What {
        What::Failed { stage, reason: String::new() }
    }

    /// A merge from 10 to 20, evaluations from 12 to 30 (slot 0) and from 21 to 38 (slot 1), the end at 40.
    fn records() -> Vec<Record> {
        vec![
            record(1.0, None, What::RunStarted { since: 1.0, n_slots: 1, hardware: None }),
            record(2.0, Some("old"), What::MergeStarted),
            record(100.0, None, What::RunStarted { since: 100.0, n_slots: 2, hardware: None }),
            record(110.0, Some("a"), What::MergeStarted),
            record(112.0, Some("base"), evaluation(0)),
            record(120.0, Some("a"), failed(Stage::Merge)),
            record(121.0, Some("a"), evaluation(1)),
            record(130.0, Some("base"), failed(Stage::Evaluate)),
            record(138.0, Some("a"), failed(Stage::Evaluate)),
            record(140.0, None, What::RunEnded),
        ]
    }

    #[test]
    fn a_run_is_its_spans_and_how_they_fill_its_time() {
        let timeline = last_run(&records(), None).unwrap();
        let spans: Vec<_> =
            timeline.spans.iter().map(|span| (span.lane, span.trial.0.as_str(), span.start, span.end)).collect();
        let expected =
            [(Lane::Merge, "a", 10.0, 20.0), (Lane::Slot(0), "base", 12.0, 30.0), (Lane::Slot(1), "a", 21.0, 38.0)];
        assert_eq!((timeline.seconds, spans.as_slice()), (40.0, &expected[..]));
        let of = |seconds: f64| seconds / 40.0;
        let expected = Shares {
            merge: of(10.0),
            slots: vec![of(18.0), of(17.0)],
            all_slots: of(9.0),
            overlap: of(8.0),
            critical_path: of(27.0),
            before: of(10.0),
            overhead: of(3.0),
        };
        assert_eq!(timeline.shares(), expected);
    }

    #[test]
    fn what_has_not_ended_reaches_to_now_and_a_clock_set_back_makes_no_negative_times() {
        let mut records = records()[2..5].to_vec();
        let timeline = last_run(&records, Some(150.0)).unwrap();
        assert_eq!((timeline.seconds, timeline.spans[1].end), (50.0, 50.0));
        records.push(record(50.0, Some("a"), failed(Stage::Merge)));
        let timeline = last_run(&records, None).unwrap();
        assert!(timeline.seconds == 0.0 && timeline.spans.iter().all(|span| span.end >= span.start), "{timeline:?}");
        assert_eq!(timeline.shares().merge, 0.0);
        assert_eq!(last_run(&[], None), None);
    }
}
