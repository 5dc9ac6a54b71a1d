//! Two columns against each other, with the rows that no other row beats in both: the Pareto front.

use super::super::page::{Column, Page};
use super::super::scale::Scale;
use super::super::svg::{Drawing, clipped, text_width};
use super::Plot;
use crate::table::render;

const SIZE: (f64, f64) = (520.0, 420.0);
const LEFT: f64 = 62.0;
const RIGHT: f64 = 506.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 370.0;

/// A row with a score in both columns.
struct Spot {
    row: usize,
    value: (f64, f64),
    place: (f64, f64),
}

/// None where fewer than two rows have both scores.
pub fn draw(page: &Page, x: usize, y: usize) -> Option<Plot> {
    let (across, up) = (page.columns.get(x)?, page.columns.get(y)?);
    let values: Vec<(usize, (f64, f64))> = (0..page.rows.len())
        .filter_map(|row| Some((row, (page.cell(row, x)?.value, page.cell(row, y)?.value))))
        .collect();
    if values.len() < 2 {
        return None;
    }
    let scale_x = Scale::over(values.iter().map(|(_, value)| value.0), (LEFT, RIGHT))?;
    let scale_y = Scale::over(values.iter().map(|(_, value)| value.1), (BOTTOM, TOP))?;
    let place = |value: (f64, f64)| (scale_x.place(value.0), scale_y.place(value.1));
    let spots: Vec<Spot> = values.into_iter().map(|(row, value)| Spot { row, value, place: place(value) }).collect();
    let front = front(&spots, across.higher_is_better, up.higher_is_better);

    let mut drawing = Drawing::new(SIZE.0, SIZE.1);
    for (value, label) in scale_x.ticks(6) {
        let at = scale_x.place(value);
        drawing.line("grid", (at, TOP), (at, BOTTOM));
        drawing.text("tick middle", (at, BOTTOM + 16.0), &label);
    }
    for (value, label) in scale_y.ticks(6) {
        let at = scale_y.place(value);
        drawing.line("grid", (LEFT, at), (RIGHT, at));
        drawing.text("tick end", (LEFT - 6.0, at + 3.5), &label);
    }
    drawing.text("note middle", (f64::midpoint(LEFT, RIGHT), SIZE.1 - 14.0), &axis_name(across, "→", "←"));
    drawing.upright("note", (14.0, f64::midpoint(TOP, BOTTOM)), &axis_name(up, "→", "←"));
    for spot in front.iter().map(|index| &spots[*index]) {
        let interval = |column| page.cell(spot.row, column).and_then(|cell| cell.interval);
        if let Some(interval) = interval(x) {
            let ends = (scale_x.clamped(interval.low), scale_x.clamped(interval.high));
            drawing.line("frontci", (ends.0, spot.place.1), (ends.1, spot.place.1));
        }
        if let Some(interval) = interval(y) {
            let ends = (scale_y.clamped(interval.low), scale_y.clamped(interval.high));
            drawing.line("frontci", (spot.place.0, ends.0), (spot.place.0, ends.1));
        }
    }
    drawing.polyline("front", &stairs(&spots, &front, across.higher_is_better));
    for (index, spot) in spots.iter().enumerate() {
        mark(&mut drawing, page, spot, front.contains(&index));
    }
    name(&mut drawing, page, &spots, &front);
    let names: Vec<&str> = front.iter().map(|index| page.rows[spots[*index].row].name.as_str()).collect();
    let label =
        format!("{} against {}, {} rows; Pareto front: {}", up.name, across.name, spots.len(), names.join(", "));
    Some(Plot::new(&["scatter", &across.name, &up.name], label, drawing))
}

fn axis_name(column: &Column, up: &str, down: &str) -> String {
    let name = clipped(&column.name, 40);
    if column.higher_is_better { format!("{name}  (better {up})") } else { format!("({down} better)  {name}") }
}

/// Spots that no other beats in both columns, from left to right. Of spots at one place, all.
fn front(spots: &[Spot], x_up: bool, y_up: bool) -> Vec<usize> {
    let oriented = |spot: &Spot| {
        let sign = |up: bool, value: f64| if up { value } else { -value };
        (sign(x_up, spot.value.0), sign(y_up, spot.value.1))
    };
    let is_beaten = |spot: &Spot| {
        let own = oriented(spot);
        spots.iter().map(oriented).any(|other| other.0 >= own.0 && other.1 >= own.1 && other != own)
    };
    let mut front: Vec<usize> = (0..spots.len()).filter(|index| !is_beaten(&spots[*index])).collect();
    front.sort_by(|a, b| {
        let (a, b) = (spots[*a].value, spots[*b].value);
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    front
}

/// The front as the edge of what it beats: steps, not slopes, because nothing was measured in between.
fn stairs(spots: &[Spot], front: &[usize], x_up: bool) -> Vec<(f64, f64)> {
    let places: Vec<(f64, f64)> = front.iter().map(|index| spots[*index].place).collect();
    let mut stairs: Vec<(f64, f64)> = places.first().copied().into_iter().collect();
    for pair in places.windows(2) {
        let (left, right) = (pair[0], pair[1]);
        stairs.extend([if x_up { (left.0, right.1) } else { (right.0, left.1) }, right]);
    }
    stairs
}

fn mark(drawing: &mut Drawing, page: &Page, spot: &Spot, is_on_front: bool) {
    let row = &page.rows[spot.row];
    let (x, y) = (render::value(Some(spot.value.0)), render::value(Some(spot.value.1)));
    let title = format!("{}: {x}, {y}", row.name);
    drawing.of_row(spot.row, &title, |drawing| {
        if page.reference == Some(spot.row) {
            drawing.diamond("refdot", spot.place, 5.5);
        } else if row.kind != "merge" {
            drawing.diamond("model", spot.place, 5.0);
        } else if is_on_front {
            drawing.dot("frontdot", spot.place, 4.5);
        } else {
            drawing.dot("plaindot", spot.place, 3.5);
        }
    });
}

/// Names the front and the models, each where it covers neither a spot nor another name; a name without room is left out.
fn name(drawing: &mut Drawing, page: &Page, spots: &[Spot], front: &[usize]) {
    let is_model = |index: &usize| page.rows[spots[*index].row].kind != "merge";
    let models = (0..spots.len()).filter(|index| is_model(index) && !front.contains(index));
    let mut taken: Vec<[f64; 4]> = spots
        .iter()
        .map(|spot| [spot.place.0 - 4.0, spot.place.1 - 4.0, spot.place.0 + 4.0, spot.place.1 + 4.0])
        .collect();
    for index in front.iter().copied().chain(models) {
        let spot = &spots[index];
        let text = clipped(&page.rows[spot.row].name, 30);
        let (width, (x, y)) = (text_width(&text), spot.place);
        let candidates = [
            ("", x + 8.0, y + 4.0, x + 8.0),
            ("end", x - 8.0, y + 4.0, x - 8.0 - width),
            ("middle", x, y - 9.0, x - width / 2.0),
            ("middle", x, y + 17.0, x - width / 2.0),
            ("", x + 5.0, y - 8.0, x + 5.0),
            ("end", x - 5.0, y - 8.0, x - 5.0 - width),
            ("", x + 5.0, y + 16.0, x + 5.0),
            ("end", x - 5.0, y + 16.0, x - 5.0 - width),
        ];
        let free = candidates.iter().find_map(|(class, at_x, at_y, left)| {
            let area = [*left, at_y - 9.0, left + width, at_y + 2.0];
            let inside = area[0] >= LEFT && area[2] <= RIGHT + 8.0 && area[1] >= TOP - 20.0 && area[3] <= BOTTOM;
            let overlaps =
                |other: &[f64; 4]| area[0] < other[2] && other[0] < area[2] && area[1] < other[3] && other[1] < area[3];
            (inside && !taken.iter().any(overlaps)).then_some((*class, (*at_x, *at_y), area))
        });
        if let Some((class, at, area)) = free {
            drawing.text(&format!("small label {class}"), at, &text);
            taken.push(area);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spots(values: &[(f64, f64)]) -> Vec<Spot> {
        values.iter().enumerate().map(|(row, value)| Spot { row, value: *value, place: *value }).collect()
    }

    #[test]
    fn the_front_holds_what_nothing_beats_in_both_directions() {
        let spots = spots(&[(0.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.4, 0.4), (0.5, 0.5), (1.0, -1.0)]);
        assert_eq!(front(&spots, true, true), [0, 1, 4, 2]);
        // Less is better across: the lowest x and, above it, nothing.
        assert_eq!(front(&spots, false, true), [0]);
    }
}
