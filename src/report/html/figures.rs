//! The plots of the page, each in a figure.

use super::super::escape;
use super::super::page::Page;
use super::super::plot::{Plot, Plots};
use super::Section;
use crate::table::race;
use crate::table::render::Cells;

fn figure(plot: &Plot) -> String {
    format!("<figure>{}</figure>\n", plot.drawing.inline(&plot.label))
}

pub(super) fn grids(plots: &Plots) -> Option<Section> {
    let parts: String = plots
        .grids
        .iter()
        .map(|grid| {
            let figures: String = grid.plots.iter().map(figure).collect();
            let title = escape::text(&format!("{} over {}", grid.grid.title, grid.grid.axes.join(" × ")));
            format!("<h3>{title}</h3>\n<div class=\"figures\">\n{figures}</div>\n")
        })
        .collect();
    let legend = "<p class=\"legend\">Bars: 95 % intervals. Dashed: the reference. Triangles and ▲▼: significantly better or worse than \
                  it. Points and cells of several merge seeds show the mean; single seeds are small dots.</p>\n";
    (!parts.is_empty()).then(|| Section { id: "grids", title: "Grids", body: format!("{legend}{parts}") })
}

pub(super) fn race(page: &Page, plots: &Plots) -> Option<Section> {
    let race = page.race.as_ref()?;
    let (wide, small): (Vec<&Plot>, Vec<&Plot>) = plots.search.iter().partition(|plot| plot.drawing.width > 500.0);
    let figures = |plots: Vec<&Plot>| -> String { plots.into_iter().map(figure).collect() };
    let small = match figures(small) {
        none if none.is_empty() => none,
        small => format!("<div class=\"figures\">\n{small}</div>\n"),
    };
    let plots = figures(wide) + &small;
    let cells = |tag: &str, texts: &[String]| -> String {
        texts.iter().map(|text| format!("<{tag}>{}", escape::text(text))).collect()
    };
    let table = |Cells { head, rows }: Cells| {
        let rows: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
        format!(
            "<div class=\"wide\" role=\"region\" aria-labelledby=\"race\" tabindex=\"0\"><table class=\"plain\"><thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
            cells("th scope=\"col\"", &head)
        )
    };
    let tables: String = [race::table(race)].into_iter().chain(race::confirmation(race)).map(table).collect();
    let (title, legend) = match &race.found {
        Some(found) => ("Search", escape::text(found)),
        None => (
            "Race",
            "After every rung each trial is set beside the leader by a paired test on the documents so far; who is worse drops out \
             and is asked nothing more."
                .to_owned(),
        ),
    };
    let legend = format!("<p class=\"legend\">{legend}</p>\n");
    Some(Section { id: "race", title, body: format!("{legend}{plots}{tables}") })
}

pub(super) fn trade_off(page: &Page, plots: &Plots) -> Option<Section> {
    let first = plots.pairs.first()?;
    let options = |chosen: usize| -> String {
        let of = |(index, column): (usize, &super::super::page::Column)| {
            let selected = if index == chosen { " selected" } else { "" };
            format!("<option value=\"{index}\"{selected}>{}</option>", escape::text(&column.name))
        };
        page.columns.iter().enumerate().map(of).collect()
    };
    let figures: String = plots
        .pairs
        .iter()
        .enumerate()
        .map(|(index, pair)| {
            let hidden = if index == 0 { "" } else { " hidden" };
            let drawing = pair.plot.drawing.inline(&pair.plot.label);
            format!("<figure class=\"pair\" data-x=\"{}\" data-y=\"{}\"{hidden}>{drawing}</figure>\n", pair.x, pair.y)
        })
        .collect();
    let chooser = format!(
        "<form class=\"filter needs-script\"><label>Column <select id=\"pair-x\">{}</select></label> <label>against \
         <select id=\"pair-y\">{}</select></label> <output id=\"pair-note\" aria-live=\"polite\"></output></form>\n",
        options(first.x),
        options(first.y)
    );
    let legend = "<p class=\"legend\">Blue: the Pareto front, rows that no other row beats in both columns, with their 95 % intervals. \
                  Diamonds: unmerged models; filled: the reference. The front is of these scores as they are: rows within each other’s \
                  intervals may change places on other documents.</p>\n";
    Some(Section { id: "trade-off", title: "Trade-off", body: format!("{legend}{chooser}{figures}") })
}

pub(super) fn strips(page: &Page, plots: &Plots) -> Option<Section> {
    let figures: String = plots.strips.iter().map(figure).collect();
    let seeds = if page.recipes.iter().any(|recipe| recipe.rows.len() > 1) {
        " Recipes of several seeds have a lane each: one dot a seed, their mean and its 95 % interval over documents and seeds."
    } else {
        " No recipe was drawn with several seeds: methods that draw random masks are single draws."
    };
    let legend = format!("<p class=\"legend\">One dot a row; dashed: the reference.{seeds}</p>\n");
    (!figures.is_empty()).then(|| Section {
        id: "methods",
        title: "Methods and seeds",
        body: format!("{legend}<div class=\"figures large\">\n{figures}</div>\n"),
    })
}
