//! What the view of single trials and items is made from: JSON in the page.

use serde_json::{Value, json};

use super::super::page::{Cell, Compared, Contrast, Page};
use super::table::signed;
use crate::table::render;

pub(super) fn of(page: &Page) -> Value {
    let columns: Vec<Value> = page
        .columns
        .iter()
        .map(|column| {
            let documents: Vec<Value> = column
                .documents
                .iter()
                .map(|document| {
                    let hash: String = document.hash.chars().take(8).collect();
                    match &document.texts {
                        Some(texts) => json!([document.id, hash, texts]),
                        None => json!([document.id, hash]),
                    }
                })
                .collect();
            json!({ "name": column.name, "meaning": column.meaning, "documents": documents })
        })
        .collect();
    let rows: Vec<Value> = page
        .rows
        .iter()
        .map(|row| {
            let cells: Vec<Value> = row.cells.iter().map(|cell| cell.as_ref().map_or(Value::Null, of_cell)).collect();
            json!({ "name": row.name, "config": row.origin.config, "cells": cells })
        })
        .collect();
    let reference = page.reference.and_then(|row| page.rows.get(row)).map(|row| row.name.as_str());
    json!({ "reference": reference, "columns": columns, "rows": rows })
}

fn of_cell(cell: &Cell) -> Value {
    let mut value = json!({ "value": render::value(Some(cell.value)) });
    if let Some(interval) = cell.interval {
        value["interval"] = range(interval.low, interval.high).into();
    }
    match &cell.contrast {
        Contrast::Compared(compared) => value["compared"] = of_comparison(compared),
        Contrast::Apart(reason) => value["apart"] = reason.as_str().into(),
        Contrast::None | Contrast::Reference => {}
    }
    value
}

fn of_comparison(compared: &Compared) -> Value {
    let flips: Vec<Value> = compared
        .flips
        .iter()
        .map(|flip| {
            let scores = [flip.row, flip.reference].map(|score| item_score(score, compared.discordant.is_some()));
            match &flip.answer {
                Some(answer) => json!([flip.document, scores[0], scores[1], answer]),
                None => json!([flip.document, scores[0], scores[1]]),
            }
        })
        .collect();
    let verdict = match compared.better {
        Some(true) => "better",
        Some(false) => "worse",
        None if compared.n_changed == 0 => "same answers",
        None if compared.cannot_be_significant => "cannot be significant",
        None => "no difference found",
    };
    json!({
        "difference": signed(compared.difference),
        "interval": compared.interval.map(|interval| range(interval.low, interval.high)),
        "p": p_text(compared.p),
        "adjusted": p_text(compared.p_adjusted),
        "test": compared.test,
        "verdict": verdict,
        "discordant": compared.discordant,
        "changed": compared.n_changed,
        "flips": flips,
    })
}

fn range(low: f64, high: f64) -> String {
    format!("{} to {}", render::value(Some(low)), render::value(Some(high))).replace('-', "−")
}

fn p_text(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

fn item_score(score: f64, is_binary: bool) -> Value {
    if is_binary { Value::from(if score == 1.0 { "right" } else { "wrong" }) } else { format!("{score:.3}").into() }
}
