//! How long what is left will take, from how long what is done took.

use std::collections::VecDeque;
use std::time::Duration;

use super::journal::Stage;

/// As many of the last steps of a kind are looked at: the first evaluation of a harness process that stays starts it, and
/// says little of the later ones.
const REMEMBERED: usize = 8;

/// Durations of the last steps of this run.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    merges: VecDeque<Duration>,
    evaluations: VecDeque<Duration>,
}

impl Pace {
    /// Takes in a step that is done.
    pub fn took(&mut self, stage: Stage, duration: Duration) {
        let steps = match stage {
            Stage::Merge => &mut self.merges,
            Stage::Evaluate => &mut self.evaluations,
        };
        steps.push_back(duration);
        if steps.len() > REMEMBERED {
            steps.pop_front();
        }
    }

    /// Time until so many merges and evaluations are done, the latter in `n_slots` places at once. Both kinds overlap, so
    /// the longer one decides. None while nothing was measured of a kind that is left.
    pub fn left(&self, n_merges: usize, n_evaluations: usize, n_slots: usize) -> Option<Duration> {
        let merges = total(&self.merges, n_merges)?;
        let rounds = n_evaluations.div_ceil(n_slots.max(1));
        // Not even the fastest merges bring forward the evaluation of the last model.
        Some(merges.max(total(&self.evaluations, rounds)?))
    }
}

fn total(steps: &VecDeque<Duration>, n: usize) -> Option<Duration> {
    if n == 0 {
        return Some(Duration::ZERO);
    }
    let count = u32::try_from(steps.len()).ok().filter(|count| *count > 0)?;
    let mean = steps.iter().sum::<Duration>() / count;
    Some(mean.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_the_lane_that_takes_longer() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(1, 1, 1), None, "nothing is measured yet");
        assert_eq!(pace.left(0, 0, 1), Some(Duration::ZERO));
        let seconds = Duration::from_secs;
        pace.took(Stage::Evaluate, seconds(10));
        pace.took(Stage::Evaluate, seconds(20));
        assert_eq!(pace.left(0, 5, 2), Some(seconds(45)), "three rounds of 15 s");
        assert_eq!(pace.left(3, 5, 2), None, "no merge is measured");
        pace.took(Stage::Merge, seconds(40));
        assert_eq!(pace.left(3, 5, 2), Some(seconds(120)));
        (0..REMEMBERED).for_each(|_| pace.took(Stage::Evaluate, seconds(4)));
        assert_eq!(pace.left(0, 1, 1), Some(seconds(4)), "only the last ones count");
    }
}
