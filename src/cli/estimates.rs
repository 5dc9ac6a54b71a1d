//! The swap tests of gp-IRT estimates, by the user's own tinyBenchmarks package: asked for one by one, or for a whole table.

use std::path::PathBuf;

use super::{Failure, warn};
use crate::eval::gp_irt::{self, SwapTest};
use crate::paired::estimates::{Asked, asked};
use crate::paired::{Entrant, Estimate, Estimates};
use crate::stats::SEED;

/// Where tests are made.
pub(super) struct Tester {
    /// The interpreter that has the package.
    pub python: PathBuf,
    /// The folder with `tinyBenchmarks.pkl`.
    pub home: PathBuf,
}

impl Tester {
    /// One test; none where all answers are the same, and with them the estimates.
    pub fn test(&self, asked: &Asked) -> Result<Option<SwapTest>, Failure> {
        if asked.first == asked.second {
            return Ok(None);
        }
        let answers = (asked.first.as_slice(), asked.second.as_slice());
        Ok(Some(gp_irt::swap_test(&self.python, &self.home, &asked.task, answers, gp_irt::DRAWS, asked.seed)?))
    }

    /// Every estimate against those of the reference. Trials with the same answers share a test.
    pub fn all(&self, n_columns: usize, entrants: &[Entrant], reference: usize) -> Result<Estimates, Failure> {
        let all = asked(n_columns, entrants, reference, SEED);
        let mut found = Estimates::new();
        for (number, one) in all.iter().enumerate() {
            let same = all[..number].iter().find(|other| other.task == one.task && other.first == one.first);
            if let Some(same) = same {
                found.extend(found.get(&same.place).copied().map(|estimate| (one.place, estimate)));
                continue;
            }
            warn(&format!("gp-IRT test {} of {}: {}, {}", number + 1, all.len(), entrants[one.place.0].name, one.task));
            found.extend(self.test(one)?.map(|test| (one.place, estimate(&test))));
        }
        Ok(found)
    }
}

fn estimate(test: &SwapTest) -> Estimate {
    Estimate { first: test.first, second: test.second, difference: test.draws.observed, p: test.draws.p() }
}
