//! Recipes over their merge seeds, for people.

use super::render::{Cells, value};
use crate::paired::seeds::SeedGroup;
use crate::stats::seeds::SeedSummary;

/// One row per recipe: mean over seeds ± standard error over documents and seeds, lowest and highest seed, and the spread
/// that the seed alone makes.
pub fn table(columns: &[&str], groups: &[SeedGroup]) -> Cells {
    let mut head = vec!["over merge seeds".to_owned(), "seeds".to_owned()];
    head.extend(columns.iter().map(|column| (*column).to_owned()));
    let rows = groups.iter().map(|group| {
        let mut row = vec![group.name.clone(), group.trials.len().to_string()];
        row.extend(group.summaries.iter().map(|summary| summary.as_ref().map_or_else(|| value(None), cell)));
        row
    });
    Cells { head, rows: rows.collect() }
}

fn cell(summary: &SeedSummary) -> String {
    let SeedSummary { mean, min, max, seed_sd, stderr, .. } = summary;
    let stderr = stderr.map(|stderr| format!(" ± {stderr:.4}")).unwrap_or_default();
    let seed_sd = seed_sd.map(|sd| format!(", seed SD {sd:.4}")).unwrap_or_default();
    format!("{mean:.4}{stderr} ({min:.4}–{max:.4}{seed_sd})")
}
