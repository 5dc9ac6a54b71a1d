//! May two trials be compared in a column, and if so, document by document?

use super::outcomes::Outcomes;
use crate::stats::{Comparison, Items, compare, random};

/// Two trials on the same documents, in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The first.
    pub first: &'a Outcomes,
    /// The second.
    pub second: &'a Outcomes,
}

/// Why two trials cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Misaligned {
    /// Other tasks, metrics or filters.
    #[error("they hold different numbers: {0} and {1}")]
    Column(String, String),
    /// Other versions of the task.
    #[error("the task changed: version {0} and {1}")]
    Version(String, String),
    /// Other documents.
    #[error("they answered different documents: {first} and {second}, {shared} of them the same")]
    Documents {
        /// Documents of the first.
        first: usize,
        /// Documents of the second.
        second: usize,
        /// Documents of both.
        shared: usize,
    },
    /// The same documents, other prompts.
    #[error("their prompts differ in {n} of {of} documents (few-shot examples, chat template or task files)")]
    Prompts {
        /// How many.
        n: usize,
        /// Of so many.
        of: usize,
    },
    /// Scores of different kinds.
    #[error("their scores are of different kinds")]
    Kinds,
}

/// Sets two trials side by side. `any_prompt` lets prompts differ, which is only right where that is what is compared.
///
/// # Errors
/// [`Misaligned`].
pub fn align<'a>(first: &'a Outcomes, second: &'a Outcomes, any_prompt: bool) -> Result<Pair<'a>, Misaligned> {
    let name = |of: &Outcomes| format!("`{}` of `{}` (filter `{}`)", of.metric, of.task, of.filter);
    if (&first.task, &first.metric, &first.filter) != (&second.task, &second.metric, &second.filter) {
        return Err(Misaligned::Column(name(first), name(second)));
    }
    if let (Some(a), Some(b)) = (&first.version, &second.version)
        && a != b
    {
        return Err(Misaligned::Version(a.clone(), b.clone()));
    }
    // Both are sorted by hash.
    let same =
        first.docs.len() == second.docs.len() && first.docs.iter().zip(&second.docs).all(|(a, b)| a.hash == b.hash);
    if !same {
        let (first, second) = (&first.docs, &second.docs);
        let shared = first.iter().filter(|doc| second.binary_search_by(|other| other.hash.cmp(&doc.hash)).is_ok());
        return Err(Misaligned::Documents { first: first.len(), second: second.len(), shared: shared.count() });
    }
    let n = first.docs.iter().zip(&second.docs).filter(|(a, b)| a.prompt != b.prompt).count();
    if n > 0 && !any_prompt {
        return Err(Misaligned::Prompts { n, of: first.docs.len() });
    }
    match (&first.items, &second.items) {
        (Items::Ratio(_, one), Items::Ratio(_, other)) if one == other => {}
        (Items::Ratio(..), _) | (_, Items::Ratio(..)) => return Err(Misaligned::Kinds),
        _ => {}
    }
    Ok(Pair { first, second })
}

impl Pair<'_> {
    /// The seed of its random draws: one stream a task, so that columns of one task toss the same coins.
    pub fn seed(&self, seed: u64) -> u64 {
        random::stream(seed, &self.first.task)
    }

    /// The comparison; of an estimate, that of the answers it is made from.
    pub fn compare(&self, seed: u64) -> Option<Comparison> {
        compare(&self.first.items, &self.second.items, self.seed(seed))
    }

    /// Places of the documents that scored differently.
    pub fn flipped(&self) -> Vec<usize> {
        let places = 0..self.first.docs.len();
        match (&self.first.items, &self.second.items) {
            (Items::Ratio(a, _), Items::Ratio(b, _)) => places.filter(|place| a[*place] != b[*place]).collect(),
            (a, b) => {
                let values = a.values().zip(b.values());
                places.filter(|place| values.as_ref().is_some_and(|(a, b)| a[*place] != b[*place])).collect()
            }
        }
    }
}
