//! The plots of a report: one drawing each, for the page and for files of their own.

mod heat;
mod line;
mod map;
mod race;
mod scatter;
mod search;
mod strip;

use super::grid::{Grid, grids};
use super::page::{Column, Page};
use super::svg::Drawing;
use super::{escape, raster};

/// A drawn plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Name of its files, without ending.
    pub name: String,
    /// What it shows, in words.
    pub label: String,
    /// The drawing.
    pub drawing: Drawing,
}

/// Plots of one grid.
#[derive(Debug, Clone, PartialEq)]
pub struct GridPlots {
    /// The grid.
    pub grid: Grid,
    /// One plot a column.
    pub plots: Vec<Plot>,
}

/// Two columns against each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Column that runs across.
    pub x: usize,
    /// Column that runs up.
    pub y: usize,
    /// The plot.
    pub plot: Plot,
}

/// Every plot of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Plots {
    /// Scores over grids: lines over one axis, maps over two.
    pub grids: Vec<GridPlots>,
    /// Every two columns.
    pub pairs: Vec<Pair>,
    /// Scores by method and seed, one plot a column.
    pub strips: Vec<Plot>,
    /// Who dropped out of a search when, what its points were worth one after the other, and over every axis.
    pub search: Vec<Plot>,
}

/// Draws every plot.
pub fn draw(page: &Page) -> Plots {
    let columns = 0..page.columns.len();
    let of_grid = |grid: Grid| {
        let draw = match grid.axes.len() {
            1 => line::draw,
            _ if is_scattered(&grid) => map::draw,
            _ => heat::draw,
        };
        // Of a race often one point is left, which is no line.
        let is_told =
            |column: &usize| grid.points.iter().filter(|point| point.reading(page, *column).is_some()).count() > 1;
        let plots = columns.clone().filter(is_told).filter_map(|column| draw(page, &grid, column)).collect();
        GridPlots { grid, plots }
    };
    let pairs = columns.clone().flat_map(|x| columns.clone().skip(x + 1).map(move |y| (x, y)));
    let mut plots = Plots {
        grids: grids(page).into_iter().map(of_grid).filter(|grid| !grid.plots.is_empty()).collect(),
        pairs: pairs.filter_map(|(x, y)| Some(Pair { x, y, plot: scatter::draw(page, x, y)? })).collect(),
        strips: columns.filter_map(|column| strip::draw(page, column)).collect(),
        search: race::draw(page).into_iter().chain(search::draw(page)).collect(),
    };
    plots.name_apart();
    plots
}

/// Whether the points of two axes lie anywhere: most cells of a map would be empty.
fn is_scattered(grid: &Grid) -> bool {
    let n_cells = heat::places(grid, 0).len() * heat::places(grid, 1).len();
    n_cells > 4 * grid.points.len()
}

impl Plots {
    /// All of them, in the order of the page.
    pub fn all(&self) -> impl Iterator<Item = &Plot> {
        let grids = self.grids.iter().flat_map(|grid| &grid.plots);
        grids.chain(self.pairs.iter().map(|pair| &pair.plot)).chain(&self.strips).chain(&self.search)
    }

    /// Names that came out equal (they are made of letters and digits only) get a number.
    fn name_apart(&mut self) {
        let grids = self.grids.iter_mut().flat_map(|grid| &mut grid.plots);
        let all = grids
            .chain(self.pairs.iter_mut().map(|pair| &mut pair.plot))
            .chain(&mut self.strips)
            .chain(&mut self.search);
        let mut taken = std::collections::HashSet::new();
        for plot in all {
            let mut name = plot.name.clone();
            for number in 2.. {
                if taken.insert(name.clone()) {
                    break;
                }
                name = format!("{}-{number}", plot.name);
            }
            plot.name = name;
        }
    }
}

impl Plot {
    fn new(parts: &[&str], label: String, drawing: Drawing) -> Self {
        let name: Vec<String> = parts.iter().map(|part| escape::slug(part)).filter(|part| !part.is_empty()).collect();
        Self { name: name.join("_"), label, drawing }
    }

    /// As an SVG file.
    pub fn svg(&self) -> String {
        self.drawing.file(&self.label)
    }

    /// As a PNG file, three dots a unit.
    ///
    /// # Errors
    /// [`raster::RasterError`].
    pub fn png(&self) -> Result<Vec<u8>, raster::RasterError> {
        raster::png(&self.svg(), 3.0)
    }
}

/// The line below a plot's head: what the numbers rest on and which way is better.
fn note(column: &Column) -> String {
    let n = column
        .n
        .map(|(least, most)| if least == most { format!("n = {least}") } else { format!("n = {least}–{most}") });
    let direction = if column.higher_is_better { "higher is better" } else { "lower is better" };
    n.into_iter().chain([direction.to_owned()]).collect::<Vec<_>>().join(" · ")
}
