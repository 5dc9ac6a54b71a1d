//! A score over two axes: a map whose cells show their numbers; the darker (on white), the better.

use super::super::grid::{Grid, Reading};
use super::super::page::Page;
use super::super::palette::{DARK_FROM, HEAT_STEPS};
use super::super::svg::{Drawing, clipped, text_width};
use super::{Plot, note};
use crate::table::render;

const CELL: (f64, f64) = (52.0, 34.0);
const TOP: f64 = 46.0;

/// None where no point has a score in the column.
pub fn draw(page: &Page, grid: &Grid, column: usize) -> Option<Plot> {
    let head = page.columns.get(column)?;
    let [across, up] = grid.axes.as_slice() else { return None };
    let (xs, ys) = (places(grid, 0), places(grid, 1));
    let readings: Vec<(usize, usize, &[usize], Reading)> = grid
        .points
        .iter()
        .filter_map(|point| {
            let place = |axis: usize, values: &[f64]| values.iter().position(|value| Some(value) == point.at.get(axis));
            Some((place(0, &xs)?, place(1, &ys)?, point.rows.as_slice(), point.reading(page, column)?))
        })
        .collect();
    let values = || readings.iter().map(|(.., reading)| reading.value);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return None;
    }
    let widest = ys.iter().map(|value| text_width(&value.to_string())).fold(0.0, f64::max);
    let left = 30.0 + widest;
    let size = (xs.len() as f64 * CELL.0, ys.len() as f64 * CELL.1);
    let mut drawing = Drawing::new((left + size.0 + 10.0).max(240.0), TOP + size.1 + 66.0);
    let letters = ((drawing.width - 16.0) / 7.4) as usize;
    drawing.text("head", (8.0, 18.0), &clipped(&head.name, letters));
    drawing.text("note", (8.0, 34.0), &note(head));
    for (x, y, rows, reading) in &readings {
        // The second axis runs upward.
        let corner = (left + *x as f64 * CELL.0, TOP + (ys.len() - 1 - y) as f64 * CELL.1);
        let step = step(reading.value, (low, high), head.higher_is_better);
        let row = rows.first().copied().unwrap_or_default();
        let seeds = if rows.len() > 1 { format!(" (mean of {} seeds)", rows.len()) } else { String::new() };
        let shown = render::value(Some(reading.value));
        let title = format!("{across}={}, {up}={}: {shown}{seeds}", xs[*x], ys[*y]);
        drawing.of_row(row, &title, |drawing| {
            drawing.rect(&format!("h{step}"), (corner.0 + 1.0, corner.1 + 1.0), (CELL.0 - 2.0, CELL.1 - 2.0));
            let ink = if step >= DARK_FROM { "middle onheat" } else { "middle" };
            let middle = corner.0 + CELL.0 / 2.0;
            drawing.text(ink, (middle, corner.1 + 17.5), &shown);
            let mark = match reading.better {
                Some(true) => "▲",
                Some(false) => "▼",
                None => return,
            };
            drawing.text(&format!("{ink} small"), (middle, corner.1 + 29.0), mark);
        });
    }
    let foot = TOP + size.1;
    for (index, value) in xs.iter().enumerate() {
        drawing.text("tick middle", (left + (index as f64 + 0.5) * CELL.0, foot + 15.0), &value.to_string());
    }
    for (index, value) in ys.iter().enumerate() {
        let middle = foot - (index as f64 + 0.5) * CELL.1;
        drawing.text("tick end", (left - 6.0, middle + 4.0), &value.to_string());
    }
    drawing.text("note middle", (left + size.0 / 2.0, foot + 31.0), across);
    drawing.upright("note", (14.0, TOP + size.1 / 2.0), up);
    legend(&mut drawing, (left, foot + 44.0), (low, high), head.higher_is_better);
    let label = format!(
        "{} of {} over {across} and {up}, from {} to {}",
        head.name,
        grid.title,
        render::value(Some(low)),
        render::value(Some(high))
    );
    Some(Plot::new(&["heat", &grid.title, across, up, &head.name], label, drawing))
}

/// Values of an axis.
pub(super) fn places(grid: &Grid, axis: usize) -> Vec<f64> {
    let mut values: Vec<f64> = grid.points.iter().filter_map(|point| point.at.get(axis).copied()).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// The step of the ramp: the best value has the last one.
pub(super) fn step(value: f64, (low, high): (f64, f64), higher_is_better: bool) -> usize {
    if high <= low {
        return HEAT_STEPS / 2;
    }
    let share = (value - low) / (high - low);
    let share = if higher_is_better { share } else { 1.0 - share };
    ((share * HEAT_STEPS as f64) as usize).min(HEAT_STEPS - 1)
}

/// The ramp with its ends.
pub(super) fn legend(drawing: &mut Drawing, (x, y): (f64, f64), (low, high): (f64, f64), higher_is_better: bool) {
    let (worst, best) = if higher_is_better { (low, high) } else { (high, low) };
    let worst = render::value(Some(worst));
    drawing.text("tick small", (x, y + 8.5), &worst);
    let start = x + text_width(&worst) + 2.0;
    for step in 0..HEAT_STEPS {
        drawing.rect(&format!("h{step}"), (start + step as f64 * 10.0, y), (10.0, 10.0));
    }
    let end = start + HEAT_STEPS as f64 * 10.0 + 5.0;
    drawing.text("tick small", (end, y + 8.5), &format!("{} best", render::value(Some(best))));
}
