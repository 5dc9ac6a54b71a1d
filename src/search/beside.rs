//! Two trials on documents that no decision saw: how far the objective of one lies above that of the other.

use super::exchange;
use super::objective::{Measure, Objective};
use crate::stats::distribution::t_quantile;
use crate::stats::{Interval, Items, variance};

/// A difference of the objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beside {
    /// First minus second; above 0 the first is better.
    pub difference: f64,
    /// 95 % interval; none of ranks.
    pub interval: Option<Interval>,
    /// Two-sided p-value of the exchange test.
    pub p: f64,
}

/// Sets two trials side by side, column by column. None where they hold different things.
pub fn beside(
    measures: &[Measure],
    objective: &Objective,
    first: &[Items],
    second: &[Items],
    seed: u64,
) -> Option<Beside> {
    let draws = exchange::difference(measures, objective, first, second, &[], seed)?;
    let interval = match objective {
        Objective::Weighted(weights) => interval(draws.observed, measures, weights, first, second),
        Objective::WorstRank => None,
    };
    Some(Beside { difference: draws.observed, interval, p: draws.p() })
}

/// By the paired influence of every document: columns of one task stand on the same documents, so theirs add up; tasks are
/// independent of each other. Student's t with the fewest documents of a task.
fn interval(
    difference: f64,
    measures: &[Measure],
    weights: &[f64],
    first: &[Items],
    second: &[Items],
) -> Option<Interval> {
    let mut tasks: Vec<(&str, Vec<f64>)> = Vec::new();
    for ((measure, weight), (first, second)) in measures.iter().zip(weights).zip(first.iter().zip(second)) {
        let weight = measure.turned(*weight);
        let pulls = first.influence().into_iter().zip(second.influence()).map(|(a, b)| weight * (a - b));
        match tasks.iter_mut().find(|(task, _)| *task == measure.task) {
            Some((_, sums)) if sums.len() != first.len() => return None,
            Some((_, sums)) => sums.iter_mut().zip(pulls).for_each(|(sum, pull)| *sum += pull),
            None => tasks.push((&measure.task, pulls.collect())),
        }
    }
    let fewest = tasks.iter().map(|(_, pulls)| pulls.len()).min()?;
    let of_task = tasks.iter().map(|(_, pulls)| Some(variance(pulls)? / pulls.len() as f64));
    let variance = of_task.sum::<Option<f64>>()?;
    Some(Interval::around(difference, t_quantile(0.975, fewest as f64 - 1.0) * variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::compare::paired_standard_error;

    fn measure(task: &str, higher_is_better: bool) -> Measure {
        Measure { column: task.to_owned(), task: task.to_owned(), higher_is_better }
    }

    fn graded(n: usize, shift: f64) -> Items {
        Items::Graded((0..n).map(|i| 0.4 + f64::from(i as u32 % 5) * 0.05 + shift * f64::from(i as u32 % 3)).collect())
    }

    #[test]
    fn errors_of_tasks_add_up_squared_and_those_of_one_task_by_document() {
        let (first, second) = ([graded(40, 0.02), graded(30, -0.01)], [graded(40, 0.0), graded(30, 0.0)]);
        let weighted = Objective::Weighted(vec![1.0, 2.0]);
        let apart = beside(&[measure("a", true), measure("b", false)], &weighted, &first, &second, 1).unwrap();
        let error = |place: usize| paired_standard_error(&first[place], &second[place]).unwrap();
        let half = t_quantile(0.975, 29.0) * (error(0).powi(2) + 4.0 * error(1).powi(2)).sqrt();
        let interval = apart.interval.unwrap();
        assert!((apart.difference - (0.02 * 39.0 / 40.0 + 2.0 * 0.01)).abs() < 1e-12, "{apart:?}");
        assert!(((interval.high - interval.low) / 2.0 - half).abs() < 1e-12, "{apart:?}, {half}");

        // The same column for and against: nothing is left, to the document.
        let (first, second) = ([graded(40, 0.02), graded(40, 0.02)], [graded(40, 0.0), graded(40, 0.0)]);
        let none = Objective::Weighted(vec![1.0, 1.0]);
        let one = beside(&[measure("a", true), measure("a", false)], &none, &first, &second, 1).unwrap();
        let interval = one.interval.unwrap();
        assert!(one.difference.abs() < 1e-12 && (interval.high - interval.low).abs() < 1e-12, "{one:?}");
    }

    #[test]
    fn what_cannot_be_paired_is_told() {
        let objective = Objective::Weighted(vec![1.0]);
        assert!(beside(&[measure("a", true)], &objective, &[graded(40, 0.1)], &[graded(30, 0.0)], 1).is_none());
        let ranks = beside(&[measure("a", true)], &Objective::WorstRank, &[graded(40, 0.1)], &[graded(40, 0.0)], 1);
        assert!(ranks.unwrap().interval.is_none());
    }
}
