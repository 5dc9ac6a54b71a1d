//! One test over all tasks: the first comparable column of each, up meaning better.

use super::align::Pair;
use crate::stats::compare;
use crate::stats::permutation::{DRAWS, Draws, overall};

/// The draws of the test over the tasks of `pairs`, one pair each (the first), and how many tasks these are. None where no
/// task has a difference.
pub fn across<'a>(pairs: impl IntoIterator<Item = Pair<'a>>, seed: u64) -> Option<(Draws, usize)> {
    let mut tasks: Vec<&str> = Vec::new();
    let mut draws = Vec::new();
    for pair in pairs {
        if tasks.contains(&pair.first.task.as_str()) {
            continue;
        }
        let Some(mut of_task) = compare::draws(&pair.first.items, &pair.second.items, DRAWS, pair.seed(seed)) else {
            continue;
        };
        if !pair.first.higher_is_better {
            of_task.observed = -of_task.observed;
            of_task.drawn.iter_mut().for_each(|drawn| *drawn = -*drawn);
        }
        tasks.push(&pair.first.task);
        draws.push(of_task);
    }
    Some((overall(&draws)?, draws.len()))
}
