//! Several objectives, and floors: who is beaten by nobody, and who scores worse than is allowed.

use super::{Contender, Evidence, Measure};

/// What scores, column by column, are worth in each column that is an objective, larger is better.
pub fn objectives(weights: &[f64], measures: &[Measure], scores: &[f64]) -> Vec<f64> {
    let weighted = weights.iter().zip(measures).zip(scores).filter(|((weight, _), _)| **weight > 0.0);
    weighted.map(|((weight, measure), score)| weight * measure.turned(*score)).collect()
}

/// How far each floor is missed: above 0 where it is.
pub fn violations(floors: &[(usize, f64)], measures: &[Measure], scores: &[f64]) -> Vec<f64> {
    let missed = floors.iter().filter_map(|(column, floor)| {
        let measure = measures.get(*column)?;
        Some(measure.turned(*floor) - measure.turned(*scores.get(*column)?))
    });
    missed.collect()
}

/// Whether scores miss a floor.
pub fn misses(floors: &[(usize, f64)], measures: &[Measure], scores: &[f64]) -> bool {
    violations(floors, measures, scores).iter().any(|missed| *missed > 0.0)
}

/// The contender with the best sum of its objectives among those that keep the floors, the earlier of equal ones; none where all
/// miss one.
pub fn best(floors: &[(usize, f64)], weights: &[f64], measures: &[Measure], contenders: &[Contender]) -> Option<usize> {
    let value = |contender: &Contender| objectives(weights, measures, &contender.scores()).iter().sum::<f64>();
    let sound = contenders.iter().filter(|contender| !misses(floors, measures, &contender.scores()));
    sound.min_by(|a, b| value(b).total_cmp(&value(a)).then(a.trial.cmp(&b.trial))).map(|best| best.trial)
}

/// Takes those out that miss a floor, unless all do: they are beaten, whatever else they scored.
pub fn set_aside(
    floors: &[(usize, f64)],
    weights: &[f64],
    measures: &[Measure],
    contenders: &mut Vec<Contender>,
) -> Vec<Evidence> {
    let misses = |contender: &Contender| misses(floors, measures, &contender.scores());
    if contenders.iter().all(misses) {
        return Vec::new();
    }
    let (missing, sound): (Vec<Contender>, Vec<Contender>) = std::mem::take(contenders).into_iter().partition(misses);
    *contenders = sound;
    let evidence = |contender: Contender| Evidence {
        trial: contender.trial,
        scores: contender.scores(),
        value: objectives(weights, measures, &contender.scores()).iter().sum(),
        difference: 0.0,
        interval: None,
        p: None,
        survives: false,
    };
    missing.into_iter().map(evidence).collect()
}

/// Trials that no other is at least as good as in every column, and better in one. By their scores, which are not free of noise.
pub fn front(weights: &[f64], measures: &[Measure], contenders: &[Contender]) -> Vec<usize> {
    let turned: Vec<Vec<f64>> =
        contenders.iter().map(|contender| objectives(weights, measures, &contender.scores())).collect();
    let beats = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a >= b) && a.iter().zip(b).any(|(a, b)| a > b);
    let is_free = |own: &[f64]| !turned.iter().any(|other| beats(other, own));
    let free = contenders.iter().zip(&turned).filter(|(_, own)| is_free(own));
    free.map(|(contender, _)| contender.trial).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Items;

    fn two(trial: usize, a: usize, b: usize) -> Contender {
        let column = |right: usize| Items::Binary((0..10).map(|item| item < right).collect());
        Contender { trial, columns: vec![column(a), column(b)] }
    }

    fn measures() -> Vec<Measure> {
        let measure = |task: &str| Measure { column: task.to_owned(), task: task.to_owned(), higher_is_better: true };
        vec![measure("a"), measure("b")]
    }

    #[test]
    fn the_front_is_whom_nobody_beats() {
        let contenders = [two(0, 9, 1), two(1, 5, 5), two(2, 4, 5), two(3, 1, 9), two(4, 5, 5)];
        assert_eq!(front(&[1.0, 1.0], &measures(), &contenders), [0, 1, 3, 4]);
        assert_eq!(front(&[1.0, 0.0], &measures(), &contenders), [0], "a column without weight is no objective");
    }

    #[test]
    fn who_misses_a_floor_is_out_unless_all_do() {
        let mut contenders = vec![two(0, 9, 1), two(1, 5, 5)];
        let out = set_aside(&[(1, 0.3)], &[1.0, 0.0], &measures(), &mut contenders);
        assert_eq!((out.len(), out[0].trial, out[0].value, contenders.len()), (1, 0, 0.9, 1));
        assert!(set_aside(&[(1, 0.8)], &[1.0, 0.0], &measures(), &mut contenders).is_empty());
        let contenders = [two(0, 9, 1), two(1, 5, 5), two(2, 5, 5)];
        let best = |floor| best(&[(1, floor)], &[1.0, 0.0], &measures(), &contenders);
        assert_eq!((best(0.1), best(0.3), best(0.8)), (Some(0), Some(1), None));
    }
}
