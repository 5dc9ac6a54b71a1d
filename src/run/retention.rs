//! Which merged models may go once they are scored.

use crate::spec::Keep;

/// A model that is there, with its scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Position of its trial in the plan.
    pub index: usize,
    /// Its scores column by column, larger ones better.
    pub scores: Vec<Option<f64>>,
}

/// The models, of those that are scored, which the rule does not keep. `columns` names the scores.
///
/// A model that leaves the best by one column, or the Pareto front, cannot come back into it, whatever is scored later. By
/// mean rank it could, since ranks shift: it would have to be made again.
pub fn superfluous(keep: &Keep, columns: &[String], scored: &[Scored]) -> Vec<usize> {
    let kept: Vec<usize> = match keep {
        Keep::Nothing => Vec::new(),
        Keep::All => return Vec::new(),
        Keep::Best { count, column } => {
            let place = column.as_ref().map(|column| columns.iter().position(|name| name == column));
            let place = match place {
                // Nothing is thrown away by a column that does not exist.
                Some(None) => return Vec::new(),
                place => place.flatten(),
            };
            let mut order: Vec<(f64, usize)> = scored
                .iter()
                .map(|model| match place {
                    Some(place) => (value(model, place), model.index),
                    None => (-mean_rank(model, scored, columns.len()), model.index),
                })
                .collect();
            // Of equal ones the earlier in the plan.
            order.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
            order.into_iter().take(*count).map(|(_, index)| index).collect()
        }
        Keep::Pareto => scored
            .iter()
            .filter(|model| !scored.iter().any(|other| dominates(other, model, columns.len())))
            .map(|model| model.index)
            .collect(),
    };
    scored.iter().map(|model| model.index).filter(|index| !kept.contains(index)).collect()
}

/// A missing score is the worst.
fn value(model: &Scored, place: usize) -> f64 {
    model.scores.get(place).copied().flatten().filter(|value| !value.is_nan()).unwrap_or(f64::NEG_INFINITY)
}

/// Mean over the columns of the rank from 1, equal scores sharing the mean of theirs.
fn mean_rank(model: &Scored, scored: &[Scored], n_columns: usize) -> f64 {
    let rank = |place: usize| {
        let own = value(model, place);
        let better = scored.iter().filter(|other| value(other, place) > own).count();
        let equal = scored.iter().filter(|other| value(other, place) == own).count();
        better as f64 + (equal as f64 + 1.0) / 2.0
    };
    (0..n_columns).map(rank).sum::<f64>() / n_columns.max(1) as f64
}

/// Whether one is better somewhere and worse nowhere.
fn dominates(one: &Scored, other: &Scored, n_columns: usize) -> bool {
    let pairs = || (0..n_columns).map(|place| (value(one, place), value(other, place)));
    pairs().all(|(one, other)| one >= other) && pairs().any(|(one, other)| one > other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(rows: &[[f64; 2]]) -> Vec<Scored> {
        let model = |(index, row): (usize, &[f64; 2])| Scored { index, scores: row.map(Some).to_vec() };
        rows.iter().enumerate().map(model).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let models = scored(&[[0.1, 0.9], [0.5, 0.5], [0.4, 0.4], [0.9, 0.1], [0.5, 0.2]]);
        let columns = ["a".to_owned(), "b".to_owned()];
        let gone = |keep| superfluous(&keep, &columns, &models);
        assert_eq!(gone(Keep::Nothing), [0, 1, 2, 3, 4]);
        assert_eq!(gone(Keep::All), [0; 0]);
        assert_eq!(gone(Keep::Pareto), [2, 4]);
        let best = |count, column: Option<&str>| Keep::Best { count, column: column.map(str::to_owned) };
        assert_eq!(gone(best(2, Some("a"))), [0, 2, 4]);
        assert_eq!(gone(best(1, Some("b"))), [1, 2, 3, 4]);
        assert_eq!(gone(best(1, Some("c"))), [0; 0], "no such column");
        // Mean ranks: 3, 2.25, 3.5, 3, 3.25.
        assert_eq!(gone(best(1, None)), [0, 2, 3, 4]);
        assert_eq!(gone(best(2, None)), [2, 3, 4]);
    }

    #[test]
    fn a_missing_score_is_the_worst() {
        let mut models = scored(&[[0.1, 0.1], [0.0, 0.0]]);
        models[0].scores = vec![None, None];
        assert_eq!(superfluous(&Keep::Pareto, &["a".to_owned(), "b".to_owned()], &models), [0]);
    }
}
