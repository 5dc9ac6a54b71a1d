//! `mergesweep compare` of two recipes of a random method, over the seeds that both were drawn with.

use std::path::Path;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::recorded::{self, Recorded};
use super::{Failure, SweepArgs, output_width, print, usage};
use crate::eval::task::Column;
use crate::paired::{Entrant, seeds};
use crate::plan::{Plan, Subject};
use crate::run::store::Store;
use crate::stats::multiple::holm;
use crate::table::render;
use crate::table::seeds::{Difference, differences};

/// Two recipes side by side.
pub(super) struct Recipes {
    names: [String; 2],
    seeds: Vec<u64>,
    columns: Vec<Column>,
    entrants: [Vec<Entrant>; 2],
}

impl Recipes {
    /// The two recipes that `names` are, as the table over merge seeds has them, of the sweep of `spec`; none where one of them is no
    /// recipe of several seeds.
    pub fn of(spec: &Path, names: [&str; 2], results: &Path) -> Result<Option<Self>, Failure> {
        let (sweep, plan) = SweepArgs::of_results(spec, results).read()?;
        let known = recorded::recipes(&plan);
        let [Some(first), Some(second)] = names.map(|name| places(&known, name)) else { return Ok(None) };
        let [first, second] = [first, second].map(|places| by_seed(&plan, places));
        let seeds = |members: &[(u64, usize)]| members.iter().map(|(seed, _)| *seed).collect::<Vec<_>>();
        if seeds(&first) != seeds(&second) {
            let list = |members| seeds(members).iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            return Err(usage(anyhow!(
                "{}: `{}` was drawn with the seeds {}, `{}` with {}: recipes are compared over the same seeds",
                spec.display(),
                names[0],
                list(&first),
                names[1],
                list(&second)
            )));
        }
        let store = Store::new(results, &sweep.name)?;
        let recorded = recorded::collect(&plan, &sweep, &store)?;
        Ok(Some(Self {
            names: names.map(str::to_owned),
            seeds: seeds(&first),
            entrants: [entrants(&recorded, &first)?, entrants(&recorded, &second)?],
            columns: recorded.table.columns,
        }))
    }

    /// Compares column by column and prints it.
    pub fn print(&self, as_json: bool) -> Result<(), Failure> {
        let found: Vec<Difference> = self.columns.iter().enumerate().filter_map(|at| self.compared(at)).collect();
        if found.is_empty() {
            return Err(usage(anyhow!(
                "`{}` and `{}` have no scores with samples of every seed (run the sweep first)",
                self.names[0],
                self.names[1]
            )));
        }
        if as_json {
            return Ok(print(&serde_json::to_string_pretty(&self.json(&found))?)?);
        }
        let cells = differences([&self.names[0], &self.names[1]], &found);
        print(&render::markdown(&cells, output_width()))?;
        let seeds = self.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        Ok(print(&format!(
            "\nMeans over the merge seeds {seeds}, compared seed by seed and document by document; the intervals and p-values \
             (Student's t) count both the documents and the seeds"
        ))?)
    }

    fn compared(&self, (at, column): (usize, &Column)) -> Option<Difference> {
        let [first, second] = self.entrants.each_ref().map(|entrants| entrants.iter().collect::<Vec<_>>());
        Some(Difference {
            column: column.name.clone(),
            first: seeds::summary(&first, at)?,
            second: seeds::summary(&second, at)?,
            difference: seeds::difference(&first, &second, (at, at))?,
        })
    }

    fn json(&self, found: &[Difference]) -> Value {
        let p: Vec<f64> = found.iter().map(|found| found.difference.p().unwrap_or(1.0)).collect();
        let columns = found.iter().zip(&p).zip(holm(&p)).map(|((found, p), adjusted)| {
            json!({
                "column": found.column,
                "first": found.first,
                "second": found.second,
                "difference": found.difference,
                "interval": found.difference.interval(),
                "p": p,
                "p_adjusted": adjusted,
            })
        });
        let columns: Vec<Value> = columns.collect();
        json!({ "first": self.names[0], "second": self.names[1], "seeds": self.seeds, "columns": columns })
    }
}

/// The trials of a recipe that was drawn several times.
fn places<'a>(known: &'a [(String, Vec<usize>)], name: &str) -> Option<&'a [usize]> {
    let found = known.iter().find(|(known, places)| known == name && places.len() > 1);
    found.map(|(_, places)| places.as_slice())
}

/// Trials with their seeds, in the order of these.
fn by_seed(plan: &Plan, places: &[usize]) -> Vec<(u64, usize)> {
    let seeds = places.iter().filter_map(|place| match &plan.trials[*place].subject {
        Subject::Merge { seed, .. } => Some((*seed, *place)),
        Subject::Checkpoint(_) => None,
    });
    let mut members: Vec<(u64, usize)> = seeds.collect();
    members.sort_unstable();
    members
}

/// What the trials scored. Rows of trials come first in a table, in the order of the plan.
fn entrants(recorded: &Recorded, members: &[(u64, usize)]) -> Result<Vec<Entrant>, Failure> {
    members.iter().map(|(_, place)| recorded.entrant(*place)).collect()
}
