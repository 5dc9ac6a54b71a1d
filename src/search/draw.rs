//! The order in which a search asks the documents of a task, and its portions: the same for all trials, and a function of
//! seed, task and number of documents.

use crate::stats::random::{below, stream};

/// The documents of one task, portion by portion, each in the order of the test split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Portions {
    /// What each rung asks beside those before it. Of a task with few documents some may be empty.
    pub rungs: Vec<Vec<u64>>,
    /// Documents that no decision looks at.
    pub confirmation: Vec<u64>,
}

impl Portions {
    /// Documents asked up to a rung, from 0.
    pub fn up_to(&self, rung: usize) -> usize {
        self.rungs.iter().take(rung + 1).map(Vec::len).sum()
    }
}

/// Deals `n` documents out: a share `confirmation` is set aside, the rest is asked up to the shares `rungs`, which rise to 1.
pub fn portions(seed: u64, task: &str, n: u64, rungs: &[f64], confirmation: f64) -> Portions {
    let order = order(seed, task, n);
    let sorted = |documents: &[u64]| {
        let mut documents = documents.to_vec();
        documents.sort_unstable();
        documents
    };
    // At least one document on either side of a split.
    let set_aside = match confirmation {
        share if share > 0.0 => ((n as f64 * share).round() as usize).clamp(1, order.len().saturating_sub(1).max(1)),
        _ => 0,
    };
    let (selection, rest) = order.split_at(order.len() - set_aside.min(order.len()));
    let end = |share: f64| ((selection.len() as f64 * share).ceil() as usize).min(selection.len());
    let mut begin = 0;
    let rungs = rungs
        .iter()
        .map(|share| {
            let end = end(*share).max(begin);
            let portion = sorted(&selection[begin..end]);
            begin = end;
            portion
        })
        .collect();
    Portions { rungs, confirmation: sorted(rest) }
}

/// A random order of `0..n` (Fisher and Yates).
fn order(seed: u64, task: &str, n: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..n).collect();
    let stream = stream(seed, task);
    for place in (1..order.len()).rev() {
        order.swap(place, below(stream, 0, place, place + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNGS: [f64; 4] = [0.1, 0.2, 0.5, 1.0];

    #[test]
    fn every_document_is_dealt_once_and_always_the_same_way() {
        let dealt = portions(7, "gsm8k", 1319, &RUNGS, 0.4);
        assert_eq!(dealt, portions(7, "gsm8k", 1319, &RUNGS, 0.4));
        assert_ne!(dealt, portions(8, "gsm8k", 1319, &RUNGS, 0.4));
        assert_ne!(dealt, portions(7, "arc", 1319, &RUNGS, 0.4));
        let sizes: Vec<usize> = dealt.rungs.iter().map(Vec::len).collect();
        assert_eq!((sizes, dealt.confirmation.len()), (vec![80, 79, 237, 395], 528));
        assert_eq!((dealt.up_to(0), dealt.up_to(3)), (80, 791));
        let mut all: Vec<u64> = dealt.rungs.concat();
        all.extend(&dealt.confirmation);
        all.sort_unstable();
        assert_eq!(all, (0..1319).collect::<Vec<u64>>());
    }

    #[test]
    fn rungs_do_not_decide_which_documents_are_set_aside() {
        let of = |rungs: &[f64]| portions(1, "t", 100, rungs, 0.3).confirmation;
        assert_eq!(of(&RUNGS), of(&[0.3, 1.0]));
    }

    #[test]
    fn few_documents_are_dealt_too() {
        assert_eq!(portions(1, "t", 1, &RUNGS, 0.0).rungs.concat(), [0]);
        assert_eq!(portions(1, "t", 0, &RUNGS, 0.0).rungs.concat(), [0; 0]);
        let two = portions(1, "t", 2, &RUNGS, 0.5);
        assert_eq!((two.rungs.concat().len(), two.confirmation.len()), (1, 1));
    }
}
