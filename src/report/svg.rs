//! A drawing: the few SVG elements that plots are made of, written compactly and always the same way.

use std::fmt::Write;

use super::{escape, palette};

/// A drawing in user units, which are pixels at its natural size.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// Natural width.
    pub width: f64,
    /// Natural height.
    pub height: f64,
    body: String,
}

/// A number to a tenth of a unit, as short as it can be written.
pub fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A text of at most so many letters. What is left out is in the middle: names of one sweep differ at their ends.
pub fn clipped(text: &str, letters: usize) -> String {
    let n = text.chars().count();
    if n <= letters {
        return text.to_owned();
    }
    let (start, end) = (letters / 2, letters.saturating_sub(letters / 2 + 1));
    text.chars().take(start).chain(['…']).chain(text.chars().skip(n - end)).collect()
}

/// About how wide a text of 11 units is set: no font is at hand when the page is written.
pub fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 6.1
}

impl Drawing {
    /// An empty one.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.body.write_fmt(element);
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.path(class, &format!("M{} {}L{} {}", short(x1), short(y1), short(x2), short(y2)));
    }

    /// A path.
    pub fn path(&mut self, class: &str, d: &str) {
        self.put(format_args!("<path class=\"{class}\" d=\"{d}\"/>"));
    }

    /// A line through points.
    pub fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let steps: Vec<String> = points.iter().map(|(x, y)| format!("{} {}", short(*x), short(*y))).collect();
        if steps.len() > 1 {
            self.path(class, &format!("M{}", steps.join("L")));
        }
    }

    /// A rectangle.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let [x, y, width, height] = [x, y, width, height].map(short);
        self.put(format_args!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"));
    }

    /// A disc.
    pub fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let [x, y, radius] = [x, y, radius].map(short);
        self.put(format_args!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>"));
    }

    /// A triangle that points up or down.
    pub fn triangle(&mut self, class: &str, (x, y): (f64, f64), radius: f64, up: bool) {
        let (tip, foot) = if up { (y - radius, y + radius * 0.75) } else { (y + radius, y - radius * 0.75) };
        let [left, right, x, tip, foot] = [x - radius, x + radius, x, tip, foot].map(short);
        self.path(class, &format!("M{x} {tip}L{right} {foot}L{left} {foot}Z"));
    }

    /// A square on its corner.
    pub fn diamond(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let [left, right, top, foot] = [x - radius, x + radius, y - radius, y + radius].map(short);
        let [x, y] = [x, y].map(short);
        self.path(class, &format!("M{x} {top}L{right} {y}L{x} {foot}L{left} {y}Z"));
    }

    /// A text, its baseline at the point; the class may be `end` or `middle`.
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let [x, y] = [x, y].map(short);
        self.put(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape::text(text)));
    }

    /// A text that runs upward, centred on the point.
    pub fn upright(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let [x, y] = [x, y].map(short);
        let text = escape::text(text);
        self.put(format_args!(
            "<text class=\"{class} middle\" transform=\"translate({x} {y})rotate(-90)\">{text}</text>"
        ));
    }

    /// What `draw` draws belongs to a row of the table, and says so when pointed at.
    pub fn of_row(&mut self, row: usize, title: &str, draw: impl FnOnce(&mut Self)) {
        self.put(format_args!("<g data-r=\"{row}\"><title>{}</title>", escape::text(title)));
        draw(self);
        self.body.push_str("</g>");
    }

    /// As part of a page, which has the styles. `label` is what a screen reader says.
    pub fn inline(&self, label: &str) -> String {
        let (width, height, label) = (short(self.width), short(self.height), escape::text(label));
        format!(
            "<svg class=\"chart\" role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\">{}</svg>",
            self.body
        )
    }

    /// As a file of its own, on white.
    pub fn file(&self, label: &str) -> String {
        let (width, height, label) = (short(self.width), short(self.height), escape::text(label));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" role=\"img\" aria-label=\"{label}\" \
             viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n<style>{}</style>\n\
             <rect fill=\"#fff\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
            palette::file_style(),
            self.body
        )
    }
}
