//! From a table and its comparisons to what a report shows.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::page::{Cell, Column, Document, Flip, Origin, Page, Recipe, Row};
use crate::eval::Score;
use crate::eval::samples::{SamplesError, Texts};
use crate::eval::task::{Column as TableColumn, Estimator};
use crate::paired::seeds::SeedGroup;
use crate::paired::{self, Against, Entrant, Outcomes, align, outcomes};
use crate::stats::{Interval, Items, interval};
use crate::table::ResultsTable;

/// Reads prompt, answer and target of some documents (by hash) of an entrant in a column.
pub type ReadTexts<'a> =
    dyn Fn(&Entrant, usize, &HashSet<String>) -> Result<BTreeMap<String, Texts>, SamplesError> + 'a;

/// Most documents listed for scores that are no plain right or wrong: there nearly every document differs a little.
const MOST_FLIPS: usize = 20;

/// Everything a report is gathered from. The lists are row by row.
pub struct Gathered<'a> {
    /// The table.
    pub table: &'a ResultsTable,
    /// What every row scored, document by document.
    pub entrants: &'a [Entrant],
    /// Every row beside the reference, where there is one.
    pub against: Option<&'a Against>,
    /// Recipes over their seeds.
    pub recipes: &'a [SeedGroup],
    /// Where every row comes from.
    pub origins: Vec<Origin>,
    /// Reads item texts; none where they were not asked for.
    pub texts: Option<&'a ReadTexts<'a>>,
}

/// Gathers a report. What only the caller knows (settings, sources, findings, remarks) is left empty.
///
/// # Errors
/// [`SamplesError`] where item texts were asked for and cannot be read.
pub fn gather(from: &Gathered<'_>) -> Result<Page, SamplesError> {
    let table = from.table;
    let axes: Vec<String> = table.axes().into_iter().map(str::to_owned).collect();
    let mut columns: Vec<Column> = table.columns.iter().map(|column| head(table, column)).collect();
    let odd = table.odd();
    let mut rows: Vec<Row> = (0..table.rows.len()).map(|row| of_row(from, row, &axes, &odd[row])).collect();
    let place = |name: &str| table.rows.iter().position(|row| row.trial == name);
    for group in &table.near {
        let near: Vec<usize> = group.trials.iter().filter_map(|trial| place(trial)).collect();
        let Some((first, others)) = near.split_first() else { continue };
        others.iter().for_each(|other| rows[*other].near_twin_of = Some(*first));
    }
    let reference = from.against.and_then(|against| place(&against.reference));
    if let (Some(against), Some(reference)) = (from.against, reference) {
        for (column, excess) in columns.iter_mut().zip(&against.selection_excess) {
            column.selection_excess = *excess;
        }
        for (row, standing) in rows.iter_mut().zip(&against.standings) {
            row.twin_of = standing.twin_of.as_deref().and_then(place);
            row.overall = standing.overall.map(|overall| (overall.p_adjusted, overall.statistic > 0.0));
            for (cell, stands) in row.cells.iter_mut().zip(&standing.cells) {
                if let Some(cell) = cell {
                    cell.stands = stands.clone();
                }
            }
        }
        for (index, column) in columns.iter_mut().enumerate() {
            add_flips(from, reference, index, column, &mut rows)?;
        }
    }
    let recipes = from.recipes.iter().map(|group| recipe(group, &place)).collect();
    let race = table.race.clone();
    Ok(Page { sweep: table.sweep.clone(), reference, columns, axes, rows, recipes, race, ..Page::default() })
}

fn head(table: &ResultsTable, column: &TableColumn) -> Column {
    let scores: Vec<&Score> = table.rows.iter().filter_map(|row| row.score(column)).collect();
    let in_race = table.rows.iter().filter(|row| !table.is_out(row, column));
    let sizes: Vec<u64> = in_race.filter_map(|row| row.score(column)?.n).collect();
    let TableColumn { name, task, metric, filter, estimator } = column;
    let estimator = if outcomes::is_estimate(column) { Estimator::GpIrt } else { *estimator };
    Column {
        name: name.clone(),
        meaning: format!("{task}, {metric}, filter {filter}: {estimator}"),
        higher_is_better: scores.first().is_none_or(|score| outcomes::is_higher_better(column, score)),
        n: sizes.iter().min().copied().zip(sizes.iter().max().copied()),
        documents: Vec::new(),
        selection_excess: None,
    }
}

fn of_row(from: &Gathered<'_>, index: usize, axes: &[String], odd: &[bool]) -> Row {
    let row = &from.table.rows[index];
    let cells = from.table.columns.iter().enumerate().map(|(place, column)| {
        let score = row.score(column)?;
        let outcomes = from.entrants.get(index).and_then(|entrant| entrant.outcomes.get(place)?.as_ref());
        Some(Cell {
            value: score.value?,
            interval: interval_of(column, score, outcomes),
            is_odd: odd[place],
            dropped_after: score.n.filter(|_| from.table.is_out(row, column)),
            stands: paired::Cell::Absent,
            flips: Vec::new(),
        })
    });
    Row {
        name: row.trial.clone(),
        kind: row.kind.to_owned(),
        method: row.method.map(str::to_owned),
        axes: axes.iter().map(|axis| row.axis(axis).map(|value| (value.to_string(), value.as_float()))).collect(),
        cells: cells.collect(),
        twin_of: None,
        near_twin_of: None,
        overall: None,
        origin: from.origins.get(index).cloned().unwrap_or_default(),
    }
}

/// Wilson's interval for right or wrong; the standard error's otherwise; none of an estimate.
fn interval_of(column: &TableColumn, score: &Score, outcomes: Option<&Outcomes>) -> Option<Interval> {
    if outcomes::is_estimate(column) {
        return None;
    }
    let value = score.value?;
    if let Some(Items::Binary(items)) = outcomes.map(|outcomes| &outcomes.items) {
        let right = items.iter().filter(|right| **right).count();
        return interval::wilson(right as u64, items.len() as u64, 0.95);
    }
    if outcomes.is_none() && matches!(column.estimator, Estimator::Accuracy | Estimator::PassAt1) {
        let n = score.n?;
        return interval::wilson((value * n as f64).round() as u64, n, 0.95);
    }
    let stderr = score.stderr.or_else(|| outcomes?.items.standard_error())?;
    let freedom = score.n.and_then(|n| n.checked_sub(1)).filter(|freedom| *freedom > 0)?;
    Some(Interval::around(value, crate::stats::distribution::t_quantile(0.975, freedom as f64) * stderr))
}

/// Lists the documents that scored differently, row by row, and what the page has to know of them.
fn add_flips(
    from: &Gathered<'_>,
    reference: usize,
    index: usize,
    column: &mut Column,
    rows: &mut [Row],
) -> Result<(), SamplesError> {
    let Some(Some(base)) = from.entrants.get(reference).and_then(|entrant| entrant.outcomes.get(index)) else {
        return Ok(());
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    for (entrant, row) in from.entrants.iter().zip(rows.iter_mut()) {
        let Some(Some(own)) = entrant.outcomes.get(index) else { continue };
        let Some(Some(cell)) = row.cells.get_mut(index) else { continue };
        let (Some(_), Ok(pair)) = (cell.compared(), align(own, base, false)) else { continue };
        let wanted = flipped(&pair);
        let hashes: HashSet<String> = wanted.iter().map(|place| own.docs[*place].hash.clone()).collect();
        let answers = match from.texts {
            Some(read) if !hashes.is_empty() => read(entrant, index, &hashes)?,
            _ => BTreeMap::new(),
        };
        for place in wanted {
            let doc = &own.docs[place];
            let document = *places.entry(doc.hash.clone()).or_insert_with(|| {
                column.documents.push(Document { id: doc.id, hash: doc.hash.clone(), texts: None });
                column.documents.len() - 1
            });
            let answer = answers.get(&doc.hash).map(|texts| texts.answer.clone());
            cell.flips.push(Flip { document, row: own.shown(place), reference: base.shown(place), answer });
        }
    }
    if let Some(read) = from.texts {
        let texts = read(&from.entrants[reference], index, &places.keys().cloned().collect())?;
        for document in &mut column.documents {
            let found = texts.get(&document.hash).cloned();
            document.texts = found.map(|Texts { prompt, answer, target }| [prompt, target, answer]);
        }
    }
    Ok(())
}

/// Places of the documents that scored differently: all of them for right or wrong, those that changed most otherwise. By
/// document id.
fn flipped(pair: &paired::Pair<'_>) -> Vec<usize> {
    let docs = &pair.first.docs;
    let mut flipped = pair.flipped();
    if !matches!((&pair.first.items, &pair.second.items), (Items::Binary(_), Items::Binary(_))) {
        let score = |items: &Items, place: usize| items.select(&[place]).score();
        let change = |place: &usize| (score(&pair.first.items, *place) - score(&pair.second.items, *place)).abs();
        flipped.sort_by(|a, b| change(b).total_cmp(&change(a)).then(docs[*a].id.cmp(&docs[*b].id)));
        flipped.truncate(MOST_FLIPS);
    }
    flipped.sort_by_key(|place| docs[*place].id);
    flipped
}

fn recipe(group: &SeedGroup, place: &dyn Fn(&str) -> Option<usize>) -> Recipe {
    let means = group.summaries.iter().map(|summary| {
        let summary = summary.as_ref()?;
        Some((summary.mean, summary.interval()))
    });
    Recipe {
        name: group.name.clone(),
        rows: group.trials.iter().filter_map(|trial| place(trial)).collect(),
        means: means.collect(),
    }
}
