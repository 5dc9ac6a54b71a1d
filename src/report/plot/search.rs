//! A search that placed points: what each was worth in the order in which they were placed, and over every axis of numbers. A point
//! that dropped out on the way stands where its distance from the best one puts it.

use super::super::page::{Column, Page};
use super::super::scale::Scale;
use super::super::svg::{Drawing, clipped};
use super::Plot;
use crate::table::race::Race;
use crate::table::render;

const SIZE: (f64, f64) = (640.0, 280.0);
const LEFT: f64 = 58.0;
const TOP: f64 = 46.0;
const FOOT: f64 = 44.0;

/// The size of a plot over an axis.
const SLICE: (f64, f64) = (320.0, 230.0);

/// Something that a search was after.
struct Aim {
    name: String,
    higher_is_better: bool,
    /// Point by point, in their order.
    spots: Vec<Spot>,
}

/// A point.
#[derive(Clone, Copy)]
struct Spot {
    row: usize,
    value: f64,
    /// Whether it answered everything that decides, so that its number is no estimate.
    is_through: bool,
    /// Whether it may be the best: it misses no floor.
    is_sound: bool,
}

/// The history of everything that the search was after, and then everything over every axis. Nothing of a race.
pub fn draw(page: &Page) -> Vec<Plot> {
    let Some(race) = page.race.as_ref().filter(|race| race.found.is_some()) else { return Vec::new() };
    let aims = aims(page, race);
    let histories = aims.iter().filter_map(|aim| history(page, aim));
    let slices = aims.iter().flat_map(|aim| (0..page.axes.len()).filter_map(|axis| slice(page, aim, axis)));
    histories.chain(slices).collect()
}

/// The objective; where a front was looked for, its columns.
fn aims(page: &Page, race: &Race) -> Vec<Aim> {
    let spots = |value: &dyn Fn(&Spot, &[f64]) -> Option<f64>| -> Vec<Spot> {
        let of_row = |(row, name): (usize, &str)| {
            let entry = race.entry(name)?;
            let is_through = entry.rung >= race.rungs.len();
            let on_all = |name: &str| Some(race.entry(name)?.course.last()?.1);
            // Of fewer documents only the distance from the best says something.
            let own = if is_through { on_all(name)? } else { on_all(&entry.leader)? + entry.difference };
            // Who misses a floor was set beside nobody.
            let is_sound = entry.trial == entry.leader || entry.interval.is_some() || entry.p.is_some();
            let spot = Spot { row, value: own, is_through, is_sound };
            Some(Spot { value: value(&spot, &entry.scores)?, ..spot })
        };
        page.rows.iter().map(|row| row.name.as_str()).enumerate().filter_map(of_row).collect()
    };
    if !race.is_front {
        let name = format!("Objective ({})", race.columns.join(", "));
        return vec![Aim { name, higher_is_better: true, spots: spots(&|spot, _| Some(spot.value)) }];
    }
    let column = |(place, name): (usize, &String)| {
        let head: &Column = page.columns.iter().find(|column| column.name == *name)?;
        let spots = spots(&|_, scores| scores.get(place).copied());
        Some(Aim { name: name.clone(), higher_is_better: head.higher_is_better, spots })
    };
    race.columns.iter().enumerate().filter_map(column).collect()
}

fn note(aim: &Aim, more: &str) -> String {
    let direction = if aim.higher_is_better { "higher is better" } else { "lower is better" };
    let has_dropped = aim.spots.iter().any(|spot| !spot.is_through);
    let faint = if has_dropped { "; small: dropped out, estimated" } else { "" };
    format!("{direction}{more}{faint}")
}

fn history(page: &Page, aim: &Aim) -> Option<Plot> {
    let (right, bottom) = (SIZE.0 - 14.0, SIZE.1 - FOOT);
    let y = Scale::over(aim.spots.iter().map(|spot| spot.value), (bottom, TOP))?;
    let x = Scale::over((1..=aim.spots.len()).map(|number| number as f64), (LEFT, right))?;
    let mut drawing = Drawing::new(SIZE.0, SIZE.1);
    drawing.text("head", (8.0, 18.0), &clipped(&format!("{}, point by point", aim.name), 70));
    drawing.text("note", (8.0, 34.0), &note(aim, "; line: the best so far"));
    frame(&mut drawing, &y, right, bottom);
    for (value, label) in x.ticks(8) {
        // Between two points there is none, and none before the first.
        if value.fract() == 0.0 && value >= 1.0 {
            tick(&mut drawing, x.place(value), bottom, &label);
        }
    }
    drawing.text(
        "note middle",
        (f64::midpoint(LEFT, right), SIZE.1 - 8.0),
        "points in the order in which they were placed",
    );
    let mut steps: Vec<(f64, f64)> = Vec::new();
    let mut best: Option<Spot> = None;
    for (place, spot) in aim.spots.iter().enumerate() {
        let is_better =
            |best: Spot| if aim.higher_is_better { spot.value > best.value } else { spot.value < best.value };
        if spot.is_through && spot.is_sound && best.is_none_or(is_better) {
            best = Some(*spot);
        }
        let Some(best) = best else { continue };
        let at = x.place((place + 1) as f64);
        steps.extend(steps.last().map(|(_, before)| (at, *before)));
        steps.push((at, y.place(best.value)));
    }
    drawing.polyline("front", &steps);
    for (place, spot) in aim.spots.iter().enumerate() {
        mark(page, &mut drawing, spot, best, (x.place((place + 1) as f64), y.place(spot.value)));
    }
    let found = best.map_or(String::new(), |best| {
        format!("; best: {}, {}", page.rows[best.row].name, render::value(Some(best.value)))
    });
    Some(Plot::new(&["history", &aim.name], format!("{} of {} points{found}", aim.name, aim.spots.len()), drawing))
}

/// None of an axis that has no numbers, or the same for all.
fn slice(page: &Page, aim: &Aim, axis: usize) -> Option<Plot> {
    let (right, bottom) = (SLICE.0 - 14.0, SLICE.1 - FOOT);
    let at = |spot: &Spot| page.rows[spot.row].axes.get(axis)?.as_ref()?.1;
    let placed: Vec<(f64, &Spot)> = aim.spots.iter().filter_map(|spot| Some((at(spot)?, spot))).collect();
    let (first, _) = placed.first()?;
    if placed.iter().all(|(value, _)| value == first) {
        return None;
    }
    let y = Scale::over(placed.iter().map(|(_, spot)| spot.value), (bottom, TOP))?;
    let x = Scale::over(placed.iter().map(|(value, _)| *value), (LEFT, right))?;
    let name = &page.axes[axis];
    let mut drawing = Drawing::new(SLICE.0, SLICE.1);
    drawing.text("head", (8.0, 18.0), &clipped(&aim.name, 40));
    drawing.text("note", (8.0, 34.0), &note(aim, ""));
    frame(&mut drawing, &y, right, bottom);
    for (value, label) in x.ticks(5) {
        tick(&mut drawing, x.place(value), bottom, &label);
    }
    drawing.text("note middle", (f64::midpoint(LEFT, right), SLICE.1 - 8.0), &clipped(name, 40));
    let ranked = aim.spots.iter().filter(|spot| spot.is_through && spot.is_sound).copied();
    let best = ranked.reduce(|best, spot| {
        let is_better = if aim.higher_is_better { spot.value > best.value } else { spot.value < best.value };
        if is_better { spot } else { best }
    });
    for (value, spot) in &placed {
        mark(page, &mut drawing, spot, best, (x.place(*value), y.place(spot.value)));
    }
    let label = format!("{} of {} points over {name}", aim.name, placed.len());
    Some(Plot::new(&["slice", &aim.name, name], label, drawing))
}

fn frame(drawing: &mut Drawing, y: &Scale, right: f64, bottom: f64) {
    for (value, label) in y.ticks(5) {
        drawing.line("grid", (LEFT, y.place(value)), (right, y.place(value)));
        drawing.text("tick end", (LEFT - 6.0, y.place(value) + 3.5), &label);
    }
    drawing.line("axis", (LEFT, bottom), (right, bottom));
}

fn tick(drawing: &mut Drawing, at: f64, bottom: f64, label: &str) {
    drawing.line("axis", (at, bottom), (at, bottom + 4.0));
    drawing.text("tick middle", (at, bottom + 16.0), label);
}

fn mark(page: &Page, drawing: &mut Drawing, spot: &Spot, best: Option<Spot>, place: (f64, f64)) {
    let what = match spot {
        Spot { is_through: false, .. } => ", dropped out: estimated",
        Spot { is_sound: false, .. } => ", misses a floor",
        _ => "",
    };
    let title = format!("{}: {}{what}", page.rows[spot.row].name, render::value(Some(spot.value)));
    drawing.of_row(spot.row, &title, |drawing| match spot {
        _ if best.is_some_and(|best| best.row == spot.row) => drawing.dot("frontdot", place, 4.5),
        Spot { is_through: true, is_sound: true, .. } => drawing.dot("dot", place, 3.5),
        Spot { is_through: true, .. } => drawing.diamond("model", place, 4.0),
        _ => drawing.dot("faintdot", place, 2.5),
    });
}
