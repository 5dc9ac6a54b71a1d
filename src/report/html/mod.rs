//! The page as HTML: everything is in it and readable without script, except the view of single items.

mod data;
mod figures;
mod provenance;
mod table;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::page::Page;
use super::plot::Plots;
use super::{escape, palette};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub fn write(page: &Page, plots: &Plots) -> String {
    let style = format!("{}{}{STYLE}", palette::properties(), palette::inline_style());
    let policy = format!(
        "default-src 'none'; img-src data:; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        digest(&style),
        digest(SCRIPT)
    );
    let sections = [
        table::section(page),
        figures::race(page, plots),
        figures::grids(plots),
        figures::trade_off(page, plots),
        figures::strips(page, plots),
        provenance::findings(page),
        provenance::section(page),
    ];
    let sections: Vec<Section> = sections.into_iter().flatten().collect();
    let links: String =
        sections.iter().map(|section| format!("<a href=\"#{}\">{}</a>", section.id, section.title)).collect();
    let bodies: String = sections.iter().map(Section::html).collect();
    let name = escape::text(&page.sweep);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>{name} · mergesweep</title>\n<style>{style}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#table\">Skip to the table</a>\n\
         <header><div class=\"top\"><h1>{name}</h1>\
         <button type=\"button\" id=\"theme\" class=\"needs-script\">Dark theme</button></div>\n\
         <p class=\"lead\">{}</p>\n<nav aria-label=\"Sections\">{links}</nav></header>\n<main>\n{bodies}</main>\n\
         <dialog id=\"trial\" aria-labelledby=\"trial-name\"><div class=\"top\"><h2 id=\"trial-name\"></h2>\
         <button type=\"button\" id=\"close\">Close</button></div><div id=\"trial-body\"></div></dialog>\n\
         <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        lead(page),
        escape::json(&data::of(page)),
    )
}

/// A part of the page with a heading.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

impl Section {
    fn html(&self) -> String {
        let Self { id, title, body } = self;
        format!("<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{body}</section>\n")
    }
}

fn digest(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// What the page is about, in a sentence or two.
fn lead(page: &Page) -> String {
    let merges = page.rows.iter().filter(|row| row.kind == "merge").count();
    let counted = |n: usize, thing: &str| format!("{n} {thing}{}", if n == 1 { "" } else { "s" });
    let mut lead = format!(
        "{} ({} and {}), {}.",
        counted(page.rows.len(), "trial"),
        counted(merges, "merge"),
        counted(page.rows.len() - merges, "other model"),
        counted(page.columns.len(), "column")
    );
    if let Some(row) = page.reference.and_then(|row| page.rows.get(row)) {
        lead += &format!(
            " Every row is compared with <strong>{}</strong> on the same documents: paired tests, p-values corrected for \
             the number of rows within each column (Holm).",
            escape::text(&row.name)
        );
    }
    lead
}
