//! A race: the objective of every contender over the documents that it had answered. A line ends where its trial dropped out.

use super::super::page::Page;
use super::super::scale::Scale;
use super::super::svg::{Drawing, clipped};
use super::Plot;
use crate::table::race::{Entry, Race};
use crate::table::render;

const SIZE: (f64, f64) = (640.0, 320.0);
const LEFT: f64 = 58.0;
const RIGHT: f64 = 500.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 276.0;

/// None where there is no race, nothing was decided, or everybody was asked the same at once.
pub fn draw(page: &Page) -> Option<Plot> {
    let race = page.race.as_ref().filter(|race| race.entries.iter().any(|entry| entry.course.len() > 1))?;
    let all = || race.entries.iter().flat_map(|entry| &entry.course);
    let y = Scale::over(all().map(|(_, value)| *value), (BOTTOM, TOP))?;
    let x = Scale::over(all().map(|(n, _)| *n as f64).chain([0.0]), (LEFT, RIGHT))?;
    let mut drawing = Drawing::new(SIZE.0, SIZE.1);
    drawing.text("head", (8.0, 18.0), &clipped(&format!("Race on {}", race.columns.join(", ")), 70));
    drawing.text("note", (8.0, 34.0), "objective, higher is better; a line ends where its trial dropped out");
    for (value, label) in y.ticks(5) {
        drawing.line("grid", (LEFT, y.place(value)), (RIGHT, y.place(value)));
        drawing.text("tick end", (LEFT - 6.0, y.place(value) + 3.5), &label);
    }
    drawing.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    for (n, place) in rungs(race, &x) {
        drawing.line("axis", (place, BOTTOM), (place, BOTTOM + 4.0));
        drawing.text("tick middle", (place, BOTTOM + 16.0), &n.to_string());
    }
    drawing.text("note middle", (f64::midpoint(LEFT, RIGHT), SIZE.1 - 8.0), "documents answered");
    // Those that are left come first, and are drawn over the others.
    for entry in race.entries.iter().rev() {
        course(page, entry, (&x, &y), &mut drawing);
    }
    labels(race, &y, &mut drawing);
    let left = race.entries.iter().filter(|entry| entry.survives).map(|entry| entry.trial.as_str());
    let label = format!(
        "Race of {} trials over {} rungs; left: {}",
        race.entries.len(),
        race.rungs.len(),
        left.collect::<Vec<_>>().join(", ")
    );
    Some(Plot::new(&["race"], label, drawing))
}

/// Documents of every rung with their places, as far as their labels stand apart.
fn rungs(race: &Race, x: &Scale) -> Vec<(u64, f64)> {
    let longest = race.entries.iter().map(|entry| &entry.course).max_by_key(|course| course.len());
    let mut shown: Vec<(u64, f64)> = Vec::new();
    for (n, _) in longest.into_iter().flatten() {
        let place = x.place(*n as f64);
        if shown.last().is_none_or(|(_, last)| place - last > 30.0) {
            shown.push((*n, place));
        }
    }
    shown
}

fn course(page: &Page, entry: &Entry, (x, y): (&Scale, &Scale), drawing: &mut Drawing) {
    let points: Vec<(f64, f64)> = entry.course.iter().map(|(n, value)| (x.place(*n as f64), y.place(*value))).collect();
    let Some((n, value)) = entry.course.last() else { return };
    let end = (x.place(*n as f64), y.place(*value));
    let what = if entry.survives { "left" } else { "out" };
    let title = format!("{}: {} after {n} documents, {what}", entry.trial, render::value(Some(*value)));
    let row = page.rows.iter().position(|row| row.name == entry.trial).unwrap_or_default();
    drawing.of_row(row, &title, |drawing| {
        drawing.polyline(if entry.survives { "line" } else { "axis" }, &points);
        drawing.dot(if entry.survives { "dot" } else { "faintdot" }, end, if entry.survives { 3.5 } else { 2.5 });
    });
}

/// Names of those that are left, at the ends of their lines, pushed apart.
fn labels(race: &Race, y: &Scale, drawing: &mut Drawing) {
    const MOST: usize = 12;
    let mut ends: Vec<(f64, &str)> = race
        .entries
        .iter()
        .filter(|entry| entry.survives)
        .filter_map(|entry| Some((y.place(entry.course.last()?.1), entry.trial.as_str())))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = f64::NEG_INFINITY;
    for (at, name) in ends.into_iter().take(MOST) {
        let at = at.max(lowest + 12.0);
        lowest = at;
        drawing.text("small", (RIGHT + 8.0, at + 3.5), &clipped(name, 22));
    }
}
