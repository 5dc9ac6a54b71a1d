//! How many bytes merges take, where the disk is limited: every config is planned once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::super::twins::{self, Followers};
use super::super::{Request, merge_options};
use crate::merge;
use crate::model::ModelRef;
use crate::plan::Subject;

/// Bytes of the merges of a plan.
pub(super) struct Sizes<'a> {
    request: &'a Request,
    is_limited: bool,
    followers: Followers,
    known: RefCell<BTreeMap<usize, u64>>,
}

impl<'a> Sizes<'a> {
    /// Sizes of a plan's merges; all of them nothing where nobody asks for them.
    pub fn new(request: &'a Request, is_limited: bool) -> Self {
        Self { request, is_limited, followers: twins::followers(request), known: RefCell::default() }
    }

    /// Bytes of a merge; those that cannot be planned will fail, and take none.
    pub fn of(&self, index: usize) -> u64 {
        let Subject::Merge { config, seed, numerics } = &self.request.plan.trials[index].subject else { return 0 };
        if !self.is_limited {
            return 0;
        }
        *self.known.borrow_mut().entry(index).or_insert_with(|| {
            let locate = |model: &ModelRef| self.request.locator.locate(model).map_err(Into::into);
            merge::plan(config, &locate, "", &merge_options(*seed, *numerics)).map_or(0, |plan| plan.n_bytes())
        })
    }

    /// Bytes of each of these that is made: a twin is not.
    pub fn of_merges(&self, trials: impl Iterator<Item = usize>) -> Vec<u64> {
        trials.filter(|index| !self.followers.contains_key(index)).map(|index| self.of(index)).collect()
    }
}
