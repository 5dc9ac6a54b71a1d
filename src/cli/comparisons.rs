//! What a table's rows come to beside each other: comparisons with a reference, sums over seeds. Shared by every command
//! that shows a table.

use super::recorded::{self, Recorded};
use super::{Failure, estimates};
use crate::paired::seeds::{SeedGroup, seed_groups};
use crate::paired::{Against, Entrant, Estimates, against};
use crate::plan::Plan;
use crate::stats::SEED;

/// Comparisons of all rows of a table.
pub(super) struct Comparisons {
    /// What every row scored, document by document.
    pub entrants: Vec<Entrant>,
    /// Every row beside the reference, where there is one.
    pub against: Option<Against>,
    /// Names of all columns, for the seeds.
    pub columns: Vec<String>,
    /// Recipes of random methods that were drawn several times.
    pub seeds: Vec<SeedGroup>,
    /// Names those that were drawn once.
    pub single_draws: Vec<String>,
    /// Which comparisons are left out since the answers are not here.
    pub left_out: Option<String>,
}

impl Comparisons {
    /// Compares all rows with the one at `reference`. `tester` tests gp-IRT estimates too.
    pub fn of(
        recorded: &Recorded,
        reference: Option<usize>,
        plan: &Plan,
        tester: Option<&estimates::Tester>,
    ) -> Result<Self, Failure> {
        let table = &recorded.table;
        let entrants = recorded.entrants()?;
        let tasks: Vec<&str> = table.columns.iter().map(|column| column.task.as_str()).collect();
        let tested = match (tester, reference) {
            (Some(tester), Some(reference)) => tester.all(tasks.len(), &entrants, reference)?,
            _ => Estimates::new(),
        };
        let (several, single): (Vec<_>, Vec<_>) =
            recorded::recipes(plan).into_iter().partition(|(_, places)| places.len() > 1);
        let single: Vec<String> = single.into_iter().map(|(name, _)| name).collect();
        let single_draws = if single.is_empty() {
            Vec::new()
        } else {
            vec![format!("single draw (one merge seed; how far the seed moves it is not known): {}", single.join(", "))]
        };
        let base = reference.map(|place| &entrants[place]);
        let compares = reference.is_some() || !several.is_empty() || table.race.is_some();
        Ok(Self {
            against: reference.and_then(|reference| against(&tasks, &entrants, reference, &tested, SEED)),
            seeds: seed_groups(&several, &entrants, tasks.len(), base),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
            single_draws,
            left_out: compares.then(|| recorded.left_out(reference)).flatten(),
            entrants,
        })
    }
}
