//! What a search is after: one number of a trial's columns, larger is better.

use serde::{Deserialize, Serialize};

/// A column that decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Its name.
    pub column: String,
    /// Its task: columns of one task stand on the same documents.
    pub task: String,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// How several columns become one number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The sum of the scores, each turned so that more is better, times its weight.
    Weighted(Vec<f64>),
    /// Minus the worst of a trial's ranks in the columns, equal scores sharing the mean of theirs.
    WorstRank,
}

impl Objective {
    /// The objective of a trial. `own` are its scores, `others` those of every other contender, column by column, all turned
    /// so that more is better.
    pub fn value(&self, own: &[f64], others: &[Vec<f64>]) -> f64 {
        match self {
            Self::Weighted(weights) => weights.iter().zip(own).map(|(weight, score)| weight * score).sum(),
            Self::WorstRank => {
                let rank = |(column, own): (usize, &f64)| {
                    let rivals = || others.iter().map(|other| other[column]);
                    let better = rivals().filter(|rival| rival > own).count();
                    let equal = rivals().filter(|rival| rival == own).count();
                    1.0 + better as f64 + equal as f64 / 2.0
                };
                -own.iter().enumerate().map(rank).fold(0.0, f64::max)
            }
        }
    }
}

impl Measure {
    /// A score with larger ones better.
    pub fn turned(&self, score: f64) -> f64 {
        if self.higher_is_better { score } else { -score }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_and_the_worst_rank_counts() {
        let objective = Objective::Weighted(vec![0.5, 2.0]);
        assert!((objective.value(&[0.6, -1.0], &[]) - -1.7).abs() < 1e-12);
        let others = [vec![0.5, 0.9], vec![0.4, 0.2]];
        assert_eq!(Objective::WorstRank.value(&[0.6, 0.5], &others), -2.0);
        assert_eq!(Objective::WorstRank.value(&[0.5, 0.95], &others), -1.5, "an equal score shares the rank");
        assert_eq!(Objective::WorstRank.value(&[0.3, 0.95], &others), -3.0);
    }
}
