//! Where the numbers come from: what was found odd at plan time, versions and settings, and every trial's identity and cost.

use super::super::escape;
use super::super::page::{Origin, Page};
use super::Section;

pub(super) fn findings(page: &Page) -> Option<Section> {
    let lines: String = page.findings.iter().map(|finding| format!("<li>{}</li>", escape::text(finding))).collect();
    (!lines.is_empty()).then(|| Section {
        id: "findings",
        title: "Found when planning",
        body: format!("<ul>{lines}</ul>\n"),
    })
}

pub(super) fn section(page: &Page) -> Option<Section> {
    let settings: String = page
        .settings
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape::text(name), escape::text(value)))
        .collect();
    let rows: String = page
        .rows
        .iter()
        .map(|row| {
            format!(
                "<tr><th scope=\"row\" class=\"name\">{}</th>{}</tr>\n",
                escape::text(&row.name),
                origin(&row.origin)
            )
        })
        .collect();
    let sources: String = page
        .sources
        .iter()
        .map(|(title, text)| {
            let (title, text) = (escape::text(title), escape::text(text));
            format!("<details><summary>{title}</summary><pre tabindex=\"0\">{text}</pre></details>\n")
        })
        .collect();
    let body = format!(
        "<dl>{settings}</dl>\n<div class=\"wide\" role=\"region\" aria-label=\"Trials and their cost\" tabindex=\"0\">\
         <table class=\"plain\">\n<thead><tr><th scope=\"col\" class=\"name\">trial</th><th scope=\"col\">identity</th>\
         <th scope=\"col\">weights</th><th scope=\"col\" class=\"num\">seed</th><th scope=\"col\">evaluated on</th>\
         <th scope=\"col\" class=\"num\">merge s</th><th scope=\"col\" class=\"num\">evaluation s</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n{}</table></div>\n<p class=\"legend\">Seconds of wall time. Merges made in one pass share its \
         time, and each shows the whole of it; scores taken over from a twin cost nothing.</p>\n{sources}",
        total(page)
    );
    Some(Section { id: "provenance", title: "Provenance", body })
}

fn origin(origin: &Origin) -> String {
    let text = |value: Option<&str>| value.map(escape::text).unwrap_or_default();
    let digest = |value: Option<&str>| text(value.map(|value| value.get(..12).unwrap_or(value)));
    let seconds = |value: Option<f64>| value.map(|value| format!("{value:.1}")).unwrap_or_default();
    format!(
        "<td><code title=\"{}\">{}</code></td><td><code title=\"{}\">{}</code></td><td class=\"num\">{}</td><td>{}</td>\
         <td class=\"num\">{}</td><td class=\"num\">{}</td>",
        escape::text(&origin.id),
        digest(Some(&origin.id)),
        text(origin.weights.as_deref()),
        digest(origin.weights.as_deref()),
        origin.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        text(origin.hardware.as_deref()),
        seconds(origin.merge_seconds),
        seconds(origin.evaluation_seconds)
    )
}

fn total(page: &Page) -> String {
    let evaluation: f64 = page.rows.iter().filter_map(|row| row.origin.evaluation_seconds).sum();
    if evaluation <= 0.0 {
        return String::new();
    }
    format!(
        "<tfoot><tr><th scope=\"row\" class=\"name\">all</th><td colspan=\"5\"></td><td class=\"num\">{evaluation:.1}</td></tr></tfoot>\n"
    )
}
