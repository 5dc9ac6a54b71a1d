//! Scores by method, one lane a recipe that was drawn with several seeds: how far the seed alone moves the score.

use super::super::page::{Page, Recipe};
use super::super::scale::Scale;
use super::super::svg::{Drawing, clipped};
use super::{Plot, note};
use crate::table::render;

const WIDTH: f64 = 520.0;
const LEFT: f64 = 236.0;
const RIGHT: f64 = 506.0;
const TOP: f64 = 52.0;
const LANE: f64 = 20.0;

/// One line of the plot.
struct Lane<'a> {
    name: &'a str,
    rows: Vec<usize>,
    recipe: Option<&'a Recipe>,
}

/// None where the column has no scores.
pub fn draw(page: &Page, column: usize) -> Option<Plot> {
    let head = page.columns.get(column)?;
    let lanes = lanes(page, column);
    let mean = |lane: &Lane<'_>| lane.recipe.and_then(|recipe| *recipe.means.get(column)?);
    let values = lanes.iter().flat_map(|lane| &lane.rows).filter_map(|row| Some(page.cell(*row, column)?.value));
    let ends = lanes.iter().filter_map(|lane| mean(lane)?.1).flat_map(|interval| [interval.low, interval.high]);
    let x = Scale::over(values.chain(ends), (LEFT, RIGHT))?;
    let foot = TOP + lanes.len() as f64 * LANE;

    let mut drawing = Drawing::new(WIDTH, foot + 30.0);
    drawing.text("head", (8.0, 18.0), &clipped(&head.name, 60));
    drawing.text("note", (8.0, 34.0), &note(head));
    for (value, label) in x.ticks(6) {
        drawing.line("grid", (x.place(value), TOP - 4.0), (x.place(value), foot));
        drawing.text("tick middle", (x.place(value), foot + 16.0), &label);
    }
    drawing.line("axis", (LEFT, foot), (RIGHT, foot));
    if let Some((_, value)) = page.reference_score(column) {
        drawing.line("ref", (x.place(value), TOP - 4.0), (x.place(value), foot));
    }
    for (index, lane) in lanes.iter().enumerate() {
        let y = TOP + (index as f64 + 0.5) * LANE;
        drawing.text("end", (LEFT - 10.0, y + 4.0), &clipped(lane.name, 37));
        if let Some((mean, interval)) = mean(lane) {
            if let Some(interval) = interval {
                drawing.line("ci", (x.place(interval.low), y), (x.place(interval.high), y));
            }
            drawing.line("mean", (x.place(mean), y - 6.0), (x.place(mean), y + 6.0));
        }
        for row in &lane.rows {
            let Some(cell) = page.cell(*row, column) else { continue };
            let title = format!("{}: {}", page.rows[*row].name, render::value(Some(cell.value)));
            let place = (x.place(cell.value), y);
            drawing.of_row(*row, &title, |drawing| match page.rows[*row].kind.as_str() {
                _ if page.reference == Some(*row) => drawing.diamond("refdot", place, 5.0),
                "merge" => drawing.dot("plaindot", place, 3.5),
                _ => drawing.diamond("model", place, 4.5),
            });
        }
    }
    let said = format!("{} by method, {} lanes", head.name, lanes.len());
    Some(Plot::new(&["strip", &head.name], said, drawing))
}

/// Unmerged models, then method by method its single draws and its recipes of several seeds, in the order of the rows.
fn lanes(page: &Page, column: usize) -> Vec<Lane<'_>> {
    let mut lanes: Vec<Lane<'_>> = Vec::new();
    for (index, row) in page.rows.iter().enumerate() {
        if page.cell(index, column).is_none() {
            continue;
        }
        let recipe = page.recipes.iter().find(|recipe| recipe.rows.len() > 1 && recipe.rows.contains(&index));
        let name = match recipe {
            Some(recipe) => recipe.name.as_str(),
            None => row.method.as_deref().unwrap_or(if row.kind == "merge" { "merges" } else { "unmerged models" }),
        };
        match lanes.iter_mut().find(|lane| lane.name == name && lane.recipe.is_some() == recipe.is_some()) {
            Some(lane) => lane.rows.push(index),
            None => lanes.push(Lane { name, rows: vec![index], recipe }),
        }
    }
    lanes
}
