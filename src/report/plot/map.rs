//! A score over two axes whose points lie anywhere, as those of a search do: dots in the colours of heat maps.

use super::super::grid::Grid;
use super::super::page::Page;
use super::super::scale::Scale;
use super::super::svg::{Drawing, clipped};
use super::{Plot, heat, note};
use crate::table::render;

const SIZE: (f64, f64) = (420.0, 350.0);
const LEFT: f64 = 56.0;
const RIGHT: f64 = 406.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 276.0;

/// None where no point has a score in the column.
pub fn draw(page: &Page, grid: &Grid, column: usize) -> Option<Plot> {
    let head = page.columns.get(column)?;
    let [across, up] = grid.axes.as_slice() else { return None };
    let readings: Vec<_> = grid
        .points
        .iter()
        .filter_map(|point| {
            let [x, y] = point.at[..] else { return None };
            Some(((x, y), point.rows.as_slice(), point.reading(page, column)?))
        })
        .collect();
    let values = || readings.iter().map(|(.., reading)| reading.value);
    let ends = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let x = Scale::over(readings.iter().map(|((x, _), ..)| *x), (LEFT, RIGHT))?;
    let y = Scale::over(readings.iter().map(|((_, y), ..)| *y), (BOTTOM, TOP))?;
    let mut drawing = Drawing::new(SIZE.0, SIZE.1);
    drawing.text("head", (8.0, 18.0), &clipped(&head.name, 50));
    drawing.text("note", (8.0, 34.0), &note(head));
    for (value, label) in x.ticks(6) {
        drawing.line("grid", (x.place(value), TOP), (x.place(value), BOTTOM));
        drawing.text("tick middle", (x.place(value), BOTTOM + 16.0), &label);
    }
    for (value, label) in y.ticks(5) {
        drawing.line("grid", (LEFT, y.place(value)), (RIGHT, y.place(value)));
        drawing.text("tick end", (LEFT - 6.0, y.place(value) + 3.5), &label);
    }
    drawing.text("note middle", (f64::midpoint(LEFT, RIGHT), BOTTOM + 34.0), across);
    drawing.upright("note", (12.0, f64::midpoint(TOP, BOTTOM)), up);
    for ((at_x, at_y), rows, reading) in &readings {
        let row = rows.first().copied().unwrap_or_default();
        let seeds = if rows.len() > 1 { format!(" (mean of {} seeds)", rows.len()) } else { String::new() };
        let title = format!("{across}={at_x}, {up}={at_y}: {}{seeds}", render::value(Some(reading.value)));
        let (place, step) = ((x.place(*at_x), y.place(*at_y)), heat::step(reading.value, ends, head.higher_is_better));
        drawing.of_row(row, &title, |drawing| {
            drawing.dot("dot", place, 7.0);
            drawing.dot(&format!("h{step}"), place, 6.0);
        });
    }
    heat::legend(&mut drawing, (LEFT, BOTTOM + 48.0), ends, head.higher_is_better);
    let (low, high) = (render::value(Some(ends.0)), render::value(Some(ends.1)));
    let label = format!("{} of {} over {across} and {up}, from {low} to {high}", head.name, grid.title);
    Some(Plot::new(&["map", &grid.title, across, up, &head.name], label, drawing))
}
