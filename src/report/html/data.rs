//! What the view of single trials and items is made from: JSON in the page.

use serde_json::{Value, json};

use super::super::page::{Cell, Flip, Page};
use crate::paired::{self, Compared};
use crate::stats::Test;
use crate::table::{differences, render};

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
    let fewer = cell.dropped_after.map(|n| format!(" (n={n})")).unwrap_or_default();
    let mut value = json!({ "value": render::value(Some(cell.value)) + &fewer });
    if let Some(interval) = cell.interval {
        value["interval"] =
            format!("[{}, {}]", render::value(Some(interval.low)), render::value(Some(interval.high))).into();
    }
    match &cell.stands {
        paired::Cell::Compared(compared) => value["compared"] = of_comparison(compared, &cell.flips),
        paired::Cell::Apart(reason) => value["apart"] = reason.as_str().into(),
        paired::Cell::Absent | paired::Cell::Reference => {}
    }
    value
}

fn of_comparison(compared: &Compared, flips: &[Flip]) -> Value {
    let comparison = &compared.comparison;
    let flips: Vec<Value> = flips
        .iter()
        .map(|flip| match &flip.answer {
            Some(answer) => json!([flip.document, flip.row, flip.reference, answer]),
            None => json!([flip.document, flip.row, flip.reference]),
        })
        .collect();
    let verdict = match (compared.significance(), differences::remark(comparison)) {
        (Some(true), _) => "better",
        (Some(false), _) => "worse",
        (None, "") => "no difference found",
        (None, remark) => remark,
    };
    let mut value = json!({
        "difference": format!("{} {}", differences::difference(comparison), differences::unit(comparison)).trim_end(),
        "interval": differences::interval(comparison),
        "p": differences::p_value(comparison.p),
        "adjusted": differences::p_value(compared.p_adjusted),
        "test": test(comparison.test),
        "verdict": verdict,
        "counts": differences::counts(comparison),
        "binary": comparison.discordant.is_some(),
        "changed": comparison.n_changed,
        "flips": flips,
    });
    if let Some(estimate) = compared.estimate {
        value["estimate"] = format!(
            "gp-IRT estimates {} and {}: difference {} points, swap test p {}",
            render::value(Some(estimate.first)),
            render::value(Some(estimate.second)),
            differences::decisive(compared),
            differences::p_value(estimate.p)
        )
        .into();
    }
    value
}

fn test(test: Test) -> &'static str {
    match test {
        Test::McNemar => "McNemar’s exact test",
        Test::SignFlip => "Sign-flip permutation test",
        Test::Swap => "Swap test",
    }
}
