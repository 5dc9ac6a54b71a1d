//! Which rows of a report form a grid over one or two numeric axes.

use super::page::{Page, Recipe, Row};

/// Rows that differ in one or two numeric axes only, apart from the merge seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// The method and what is held fixed.
    pub title: String,
    /// Names of its axes: one, or two of which the first runs across.
    pub axes: Vec<String>,
    /// Its points, in the order of their places.
    pub points: Vec<Point>,
}

/// A setting of a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its place on each axis.
    pub at: Vec<f64>,
    /// Its rows: several where it was drawn with several seeds.
    pub rows: Vec<usize>,
}

/// What a point scored in a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The score, or the mean over seeds.
    pub value: f64,
    /// 95 % interval, where there is one.
    pub interval: Option<crate::stats::Interval>,
    /// Whether it is significantly better, or worse, than the reference; known of single draws only.
    pub better: Option<bool>,
}

/// Axis that is averaged over.
const SEED: &str = "seed";

/// The grids of a report, in the order of their first rows. A setting of more than two numeric axes is cut into planes of
/// the two with most values.
pub fn grids(page: &Page) -> Vec<Grid> {
    let mut families: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, row) in page.rows.iter().enumerate() {
        if row.axes.iter().all(Option::is_none) {
            continue;
        }
        let key = family(page, row);
        match families.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(index),
            None => families.push((key, vec![index])),
        }
    }
    families.iter().flat_map(|(_, rows)| of_family(page, rows)).collect()
}

/// Rows of one method that have the same axes.
fn family(page: &Page, row: &Row) -> String {
    let axes = page.axes.iter().zip(&row.axes).filter(|(_, value)| value.is_some()).map(|(name, _)| name.as_str());
    format!("{}\n{}", row.method.as_deref().unwrap_or_default(), axes.collect::<Vec<_>>().join("\n"))
}

fn of_family(page: &Page, rows: &[usize]) -> Vec<Grid> {
    let varying: Vec<usize> =
        (0..page.axes.len()).filter(|axis| page.axes[*axis] != SEED && values(page, rows, *axis).len() > 1).collect();
    let mut numeric: Vec<usize> =
        varying.iter().copied().filter(|axis| rows.iter().all(|row| number(page, *row, *axis).is_some())).collect();
    // A stable sort: of equally many values, the first axes of the spec.
    numeric.sort_by_key(|axis| std::cmp::Reverse(values(page, rows, *axis).len()));
    numeric.truncate(2);
    numeric.sort_unstable();
    if numeric.is_empty() {
        return Vec::new();
    }
    let fixed: Vec<usize> = varying.into_iter().filter(|axis| !numeric.contains(axis)).collect();
    let mut grids: Vec<Grid> = Vec::new();
    for row in rows {
        let title = title(page, *row, &fixed);
        let at: Vec<f64> = numeric.iter().filter_map(|axis| number(page, *row, *axis)).collect();
        let place = grids.iter().position(|grid| grid.title == title).unwrap_or_else(|| {
            let axes = numeric.iter().map(|axis| page.axes[*axis].clone()).collect();
            grids.push(Grid { title, axes, points: Vec::new() });
            grids.len() - 1
        });
        match grids[place].points.iter_mut().find(|point| point.at == at) {
            Some(point) => point.rows.push(*row),
            None => grids[place].points.push(Point { at, rows: vec![*row] }),
        }
    }
    for grid in &mut grids {
        let order = |a: &Point, b: &Point| a.at.partial_cmp(&b.at).unwrap_or(std::cmp::Ordering::Equal);
        grid.points.sort_by(order);
    }
    grids.retain(|grid| grid.points.len() > 1);
    grids
}

fn title(page: &Page, row: usize, fixed: &[usize]) -> String {
    let method = page.rows[row].method.as_deref().unwrap_or("models");
    let settings: Vec<String> = fixed
        .iter()
        .filter_map(|axis| Some(format!("{}={}", page.axes[*axis], page.rows[row].axes.get(*axis)?.as_ref()?.0)))
        .collect();
    if settings.is_empty() { method.to_owned() } else { format!("{method} ({})", settings.join(", ")) }
}

fn number(page: &Page, row: usize, axis: usize) -> Option<f64> {
    page.rows[row].axes.get(axis)?.as_ref()?.1
}

fn values<'a>(page: &'a Page, rows: &[usize], axis: usize) -> Vec<&'a str> {
    let mut values: Vec<&str> = Vec::new();
    for (text, _) in rows.iter().filter_map(|row| page.rows[*row].axes.get(axis)?.as_ref()) {
        if !values.contains(&text.as_str()) {
            values.push(text);
        }
    }
    values
}

impl Point {
    /// Its score in a column: the one row's, or the mean over its seeds.
    pub fn reading(&self, page: &Page, column: usize) -> Option<Reading> {
        if let [row] = self.rows[..] {
            let cell = page.cell(row, column)?;
            return Some(Reading { value: cell.value, interval: cell.interval, better: cell.better() });
        }
        let is_this = |recipe: &&Recipe| self.rows.iter().all(|row| recipe.rows.contains(row));
        let recipe = page.recipes.iter().find(is_this).filter(|recipe| recipe.rows.len() == self.rows.len());
        if let Some((value, interval)) = recipe.and_then(|recipe| *recipe.means.get(column)?) {
            return Some(Reading { value, interval, better: None });
        }
        let scores: Vec<f64> = self.rows.iter().filter_map(|row| Some(page.cell(*row, column)?.value)).collect();
        (!scores.is_empty()).then(|| Reading { value: crate::stats::mean(&scores), interval: None, better: None })
    }
}
