//! A score over one axis: one point a setting with its interval, the reference as a dashed line.

use super::super::grid::{Grid, Reading};
use super::super::page::Page;
use super::super::scale::Scale;
use super::super::svg::{Drawing, clipped, text_width};
use super::{Plot, note};
use crate::table::render;

const SIZE: (f64, f64) = (320.0, 220.0);
const LEFT: f64 = 48.0;
const RIGHT: f64 = 306.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 182.0;

/// None where no point has a score in the column.
pub fn draw(page: &Page, grid: &Grid, column: usize) -> Option<Plot> {
    let head = page.columns.get(column)?;
    let axis = grid.axes.first()?;
    let points: Vec<(f64, &[usize], Reading)> = grid
        .points
        .iter()
        .filter_map(|point| Some((*point.at.first()?, point.rows.as_slice(), point.reading(page, column)?)))
        .collect();
    let reference = page.reference_score(column);
    let intervals = points.iter().filter_map(|(.., reading)| reading.interval).flat_map(|i| [i.low, i.high]);
    let seeds = points.iter().flat_map(|(_, rows, _)| *rows).filter_map(|row| Some(page.cell(*row, column)?.value));
    let values = intervals.chain(seeds).chain(reference.map(|(_, value)| value));
    let y = Scale::over(values, (BOTTOM, TOP))?;
    let x = Scale::over(points.iter().map(|(x, ..)| *x), (LEFT, RIGHT))?;

    let mut drawing = Drawing::new(SIZE.0, SIZE.1);
    drawing.text("head", (8.0, 18.0), &clipped(&head.name, 40));
    drawing.text("note", (8.0, 34.0), &note(head));
    for (value, label) in y.ticks(4) {
        drawing.line("grid", (LEFT, y.place(value)), (RIGHT, y.place(value)));
        drawing.text("tick end", (LEFT - 6.0, y.place(value) + 3.5), &label);
    }
    drawing.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    let places: Vec<f64> = points.iter().map(|(x, ..)| *x).collect();
    for (place, label) in settings(&places, &x) {
        drawing.line("axis", (place, BOTTOM), (place, BOTTOM + 4.0));
        drawing.text("tick middle", (place, BOTTOM + 16.0), &label);
    }
    drawing.text("note middle", (f64::midpoint(LEFT, RIGHT), SIZE.1 - 6.0), axis);
    if let Some((name, value)) = reference {
        let at = y.place(value);
        drawing.line("ref", (LEFT, at), (RIGHT, at));
        // Its name stands above the plot, where no point can lie on it.
        let name = clipped(name, 16);
        let end = RIGHT - text_width(&name);
        drawing.line("ref", (end - 22.0, 30.0), (end - 4.0, 30.0));
        drawing.text("note end", (RIGHT, 34.0), &name);
    }
    let line: Vec<(f64, f64)> = points.iter().map(|(at, _, reading)| (x.place(*at), y.place(reading.value))).collect();
    drawing.polyline("line", &line);
    for (at, rows, reading) in &points {
        let at = x.place(*at);
        if let Some(interval) = reading.interval {
            drawing.line("ci", (at, y.place(interval.low)), (at, y.place(interval.high)));
        }
        for row in rows.iter().filter(|_| rows.len() > 1) {
            if let Some(cell) = page.cell(*row, column) {
                let title = format!("{}: {}", page.rows[*row].name, render::value(Some(cell.value)));
                drawing.of_row(*row, &title, |drawing| drawing.dot("faintdot", (at, y.place(cell.value)), 2.5));
            }
        }
        let row = rows.first().copied().unwrap_or_default();
        let what = if rows.len() > 1 { format!("mean of {} seeds", rows.len()) } else { page.rows[row].name.clone() };
        let title = format!("{what}: {}", render::value(Some(reading.value)));
        let place = (at, y.place(reading.value));
        drawing.of_row(row, &title, |drawing| match reading.better {
            Some(up) => drawing.triangle(if up { "up" } else { "down" }, place, 5.5, up),
            None => drawing.dot("dot", place, 3.5),
        });
    }
    let label = format!("{} of {} over {axis}: {}", head.name, grid.title, said(&points));
    Some(Plot::new(&["line", &grid.title, axis, &head.name], label, drawing))
}

/// The settings themselves as ticks where they stand far enough apart, round numbers otherwise.
fn settings(values: &[f64], x: &Scale) -> Vec<(f64, String)> {
    let labels: Vec<(f64, String)> = values.iter().map(|value| (x.place(*value), value.to_string())).collect();
    let fits = labels.windows(2).all(|pair| {
        let letters = pair[0].1.len().max(pair[1].1.len()) as f64;
        pair[1].0 - pair[0].0 > letters * 6.0 + 6.0
    });
    if fits && labels.iter().all(|(_, label)| label.len() < 8) {
        return labels;
    }
    x.ticks(5).into_iter().map(|(value, label)| (x.place(value), label)).collect()
}

fn said(points: &[(f64, &[usize], Reading)]) -> String {
    let said: Vec<String> =
        points.iter().map(|(at, _, reading)| format!("{} at {at}", render::value(Some(reading.value)))).collect();
    said.join(", ")
}
