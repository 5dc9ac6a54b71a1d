//! The wide table: one row a trial, sortable, each score with its interval as a bar and a mark beside the reference.

use std::fmt::Write;

use super::super::escape;
use super::super::page::{Cell, Page, Row};
use super::super::scale::Scale;
use super::super::svg::short;
use super::Section;
use crate::paired;
use crate::table::{differences, render};

/// Width of a bar.
const BAR: f64 = 64.0;

pub(super) fn section(page: &Page) -> Option<Section> {
    let scales: Vec<Option<Scale>> = (0..page.columns.len()).map(|column| scale(page, column)).collect();
    let rows: String = (0..page.rows.len()).map(|row| line(page, row, &scales)).collect();
    let remarks: String = page.remarks.iter().map(|remark| format!("<li>{}</li>", escape::text(remark))).collect();
    let remarks = if remarks.is_empty() { remarks } else { format!("<ul class=\"remarks\">{remarks}</ul>\n") };
    let body = format!(
        "{}<div class=\"wide\" role=\"region\" aria-labelledby=\"table\" tabindex=\"0\"><table id=\"scores\">\n\
         <thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n{}{}{}{remarks}",
        filter(page),
        head(page),
        legend(page),
        twins(page),
        near_twins(page)
    );
    Some(Section { id: "table", title: "Scores", body })
}

fn filter(page: &Page) -> String {
    let mut methods: Vec<&str> = page.rows.iter().map(method).collect();
    methods.sort_unstable();
    methods.dedup();
    let options: String =
        methods.iter().map(|method| format!("<option value=\"{0}\">{0}</option>", escape::text(method))).collect();
    format!(
        "<form class=\"filter needs-script\" role=\"search\"><label>Name or method \
         <input type=\"search\" id=\"filter\" autocomplete=\"off\" spellcheck=\"false\"></label> \
         <label>Method <select id=\"method\"><option value=\"\">all</option>{options}</select></label> \
         <label class=\"tick\"><input type=\"checkbox\" id=\"significant\"> significant only</label> \
         <output id=\"shown\" aria-live=\"polite\">{} rows</output></form>\n",
        page.rows.len()
    )
}

fn method(row: &Row) -> &str {
    row.method.as_deref().unwrap_or(&row.kind)
}

/// The words that follow a column's name.
fn facts(page: &Page, column: usize) -> String {
    let column = &page.columns[column];
    let n = match column.n {
        Some((least, most)) if least == most => format!("n={least}"),
        Some((least, most)) => format!("n={least}–{most}"),
        None => String::new(),
    };
    let down = if column.higher_is_better { "" } else { "↓ less is better" };
    let estimate = if column.meaning.contains("gp-IRT") { "gp-IRT estimate" } else { "" };
    [n.as_str(), down, estimate].into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" · ")
}

fn head(page: &Page) -> String {
    let button = |kind: &str, class: &str, name: &str, title: &str, facts: &str| {
        format!(
            "<th scope=\"col\" class=\"{class}\" aria-sort=\"none\"><button type=\"button\" data-sort=\"{kind}\" \
             title=\"{}\">{}<span class=\"arrow\" aria-hidden=\"true\"></span></button><small>{}</small></th>",
            escape::text(title),
            escape::text(name),
            escape::text(facts)
        )
    };
    let mut head = button("up", "name", "trial", "Sort by name", "");
    for (index, column) in page.columns.iter().enumerate() {
        let first = if column.higher_is_better { "down" } else { "up" };
        head += &button(first, "num score", &column.name, &column.meaning, &facts(page, index));
    }
    if page.rows.iter().any(|row| row.overall.is_some()) {
        head += &button("up", "num score", "overall p", "One test over all tasks, Holm-corrected", "all tasks");
    }
    head += &button("up", "", "method", "Sort by method", "");
    for axis in &page.axes {
        head += &button("up", "num", axis, &format!("Sort by the axis {axis}"), "axis");
    }
    head
}

fn line(page: &Page, index: usize, scales: &[Option<Scale>]) -> String {
    let row = &page.rows[index];
    let is_reference = page.reference == Some(index);
    let is_significant = row.cells.iter().flatten().any(|cell| cell.better().is_some());
    let mut tags = String::new();
    if is_reference {
        tags += " <span class=\"tag\">reference</span>";
    }
    for (sign, twin) in [('=', row.twin_of), ('≈', row.near_twin_of)] {
        if let Some(twin) = twin.and_then(|twin| page.rows.get(twin)) {
            let _ = write!(tags, " <span class=\"tag\">{sign} {}</span>", escape::text(&twin.name));
        }
    }
    let mut line = format!(
        "<tr data-r=\"{index}\" data-method=\"{method}\"{}{}><th scope=\"row\" class=\"name\" data-v=\"{name}\">\
         <button type=\"button\" class=\"open\" data-open=\"{index}\">{name}</button>{tags}</th>",
        if is_reference { " class=\"reference\"" } else { "" },
        if is_significant { " data-significant" } else { "" },
        method = escape::text(method(row)),
        name = escape::text(&row.name)
    );
    for (column, scale) in scales.iter().enumerate() {
        line += &match row.cells.get(column).and_then(Option::as_ref) {
            Some(cell) => score(page, column, cell, scale.as_ref()),
            None => "<td class=\"num score\">–</td>".to_owned(),
        };
    }
    if page.rows.iter().any(|row| row.overall.is_some()) {
        line += &match row.overall {
            Some((p, better)) => {
                let mark = if p < crate::stats::LEVEL { sign(better) } else { String::new() };
                format!(
                    "<td class=\"num over\" data-v=\"{p}\">{}<span class=\"m\">{mark}</span></td>",
                    escape::text(&differences::p_value(p))
                )
            }
            None => "<td class=\"num over\">–<span class=\"m\"></span></td>".to_owned(),
        };
    }
    line += &format!("<td data-v=\"{0}\">{0}</td>", escape::text(method(row)));
    for value in &row.axes {
        line += &match value {
            Some((text, number)) => {
                let key = number.map_or_else(|| escape::text(text), |number| number.to_string());
                format!("<td class=\"num\" data-v=\"{key}\">{}</td>", escape::text(text))
            }
            None => "<td class=\"num\"></td>".to_owned(),
        };
    }
    line + "</tr>\n"
}

fn score(page: &Page, column: usize, cell: &Cell, scale: Option<&Scale>) -> String {
    let mark = match &cell.stands {
        paired::Cell::Compared(compared) => match compared.significance() {
            Some(better) => sign(better),
            None if compared.cannot_be_significant() && compared.comparison.n_changed > 0 => {
                "<span class=\"cannot\" title=\"too few documents differ: cannot be significant\">·</span>".to_owned()
            }
            None => String::new(),
        },
        paired::Cell::Apart(_) => "<span class=\"cannot\" title=\"not comparable\">≠</span>".to_owned(),
        _ => String::new(),
    };
    let class = if cell.is_best() { "v best" } else { "v" };
    let odd = if cell.is_odd { "<sup title=\"rests on other settings than most of its column\">‡</sup>" } else { "" };
    let picked =
        if cell.is_best() { "<sup title=\"best of its column: selected on these items\">†</sup>" } else { "" };
    let fewer = cell.dropped_after.map(|n| format!(" <small>(n={n})</small>")).unwrap_or_default();
    let bar =
        scale.filter(|_| cell.dropped_after.is_none()).map(|scale| bar(page, column, cell, scale)).unwrap_or_default();
    format!(
        "<td class=\"num score\" data-v=\"{}\" title=\"{}\"><span class=\"{class}\">{}</span>{fewer}\
         <span class=\"m\">{mark}{picked}{odd}</span>{bar}</td>",
        cell.value,
        escape::text(&said(cell)),
        render::value(Some(cell.value))
    )
}

fn sign(better: bool) -> String {
    let (class, glyph) = if better { ("better", differences::BETTER) } else { ("worse", differences::WORSE) };
    format!("<span class=\"{class}\" role=\"img\" aria-label=\"significantly {class}\">{glyph}</span>")
}

/// A cell in words, for those who point at it.
fn said(cell: &Cell) -> String {
    let mut said = render::value(Some(cell.value));
    if let Some(interval) = cell.interval {
        said += &format!(" (95 %: {} to {})", render::value(Some(interval.low)), render::value(Some(interval.high)));
    }
    match &cell.stands {
        paired::Cell::Compared(compared) => {
            let comparison = &compared.comparison;
            let difference = format!("{} {}", differences::difference(comparison), differences::unit(comparison));
            said += &format!("; difference {}, ", difference.trim_end());
            said += &format!("p {} after correction", differences::p_value(compared.p_adjusted));
        }
        paired::Cell::Apart(reason) => said += &format!("; not compared: {reason}"),
        paired::Cell::Absent | paired::Cell::Reference => {}
    }
    said
}

fn scale(page: &Page, column: usize) -> Option<Scale> {
    let cells = || (0..page.rows.len()).filter_map(|row| page.cell(row, column));
    let ends = cells().filter_map(|cell| cell.interval).flat_map(|interval| [interval.low, interval.high]);
    Scale::over(cells().map(|cell| cell.value).chain(ends), (2.0, BAR - 2.0))
}

fn bar(page: &Page, column: usize, cell: &Cell, scale: &Scale) -> String {
    let reference = page.reference_score(column).map(|(_, value)| {
        let x = short(scale.place(value));
        format!("<path class=\"zero\" d=\"M{x} 0V12\"/>")
    });
    let interval = cell.interval.map(|interval| {
        format!(
            "<path class=\"ci\" d=\"M{} 6H{}\"/>",
            short(scale.place(interval.low)),
            short(scale.place(interval.high))
        )
    });
    let class = match cell.better() {
        Some(true) => "up",
        Some(false) => "down",
        None => "none",
    };
    format!(
        "<svg class=\"bar\" width=\"{BAR}\" height=\"12\" aria-hidden=\"true\">{}{}<circle class=\"{class}\" cx=\"{}\" \
         cy=\"6\" r=\"2.5\"/></svg>",
        reference.unwrap_or_default(),
        interval.unwrap_or_default(),
        short(scale.place(cell.value))
    )
}

fn legend(page: &Page) -> String {
    let mut legend = String::from("<p class=\"legend\">Bar: 95 % interval of the score");
    if page.reference.is_some() {
        legend += "; upright line: the reference. <span class=\"better\">▲</span> better and <span class=\"worse\">▼</span> \
                   worse than it, significant at .05 after correction; <span class=\"cannot\">·</span> cannot be \
                   significant: too few documents differ";
    }
    legend += ". <sup>†</sup> best of its column: selected on these items";
    let excess: Vec<String> = page
        .columns
        .iter()
        .filter_map(|column| {
            Some(format!("{} {}", escape::text(&column.name), render::value(Some(column.selection_excess?))))
        })
        .collect();
    if !excess.is_empty() {
        legend += &format!(" (of equal models the best would stand above their mean by about: {})", excess.join(", "));
    }
    if page.rows.iter().flat_map(|row| row.cells.iter().flatten()).any(|cell| cell.is_odd) {
        legend += ". <sup>‡</sup> rests on other settings than most of its column";
    }
    legend + ".</p>\n"
}

/// Rows that are one model under several names.
fn twins(page: &Page) -> String {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, row) in page.rows.iter().enumerate() {
        let Some(first) = row.twin_of else { continue };
        match groups.iter_mut().find(|(known, _)| *known == first) {
            Some((_, twins)) => twins.push(index),
            None => groups.push((first, vec![index])),
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    let name = |row: &usize| page.rows.get(*row).map(|row| escape::text(&row.name)).unwrap_or_default();
    let lines: String = groups
        .iter()
        .map(|(first, twins)| {
            let names: Vec<String> = std::iter::once(first).chain(twins).map(name).collect();
            format!("<li>{}</li>", names.join(" = "))
        })
        .collect();
    format!(
        "<h3 id=\"twins\">Twins</h3>\n<p>One model under several names (equal weights), counted once:</p>\n<ul>{lines}</ul>\n"
    )
}

/// Merges that came out nearly the same: rows of their own all the same.
fn near_twins(page: &Page) -> String {
    if page.near.is_empty() {
        return String::new();
    }
    let lines: String = page.near.iter().map(|line| format!("<li>{}</li>", escape::text(line))).collect();
    format!(
        "<h3 id=\"near-twins\">Near twins</h3>\n<p>Merges that came out nearly the same (≈), each with scores of its own and counted \
         like any other:</p>\n<ul>{lines}</ul>\n"
    )
}
