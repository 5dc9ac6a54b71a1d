//! Recipes over their merge seeds, for people.

use super::differences::p_value;
use super::render::{Cells, value};
use crate::paired::seeds::SeedGroup;
use crate::stats::multiple::holm;
use crate::stats::seeds::SeedSummary;

/// Two recipes in one column, over the same seeds.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The column.
    pub column: String,
    /// The first recipe's scores.
    pub first: SeedSummary,
    /// The second one's.
    pub second: SeedSummary,
    /// What the first has more.
    pub difference: SeedSummary,
}

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
    let seed_sd = match seed_sd {
        // What few documents make of a difference between seeds is taken off.
        Some(sd) if *sd == 0.0 && min < max => ", seeds no more apart than documents make them".to_owned(),
        Some(sd) => format!(", seed SD {sd:.4}"),
        None => String::new(),
    };
    format!("{mean:.4}{stderr} ({min:.4}–{max:.4}{seed_sd})")
}

/// Two recipes, a line per column: means over the seeds, their difference, its 95 % interval, the spread of the differences that
/// the seed alone makes, and p-values.
pub fn differences(names: [&str; 2], found: &[Difference]) -> Cells {
    let head = ["column", "seeds", names[0], names[1], "difference", "95 % interval", "seed SD", "p", "Holm p"];
    let p: Vec<f64> = found.iter().map(|found| found.difference.p().unwrap_or(1.0)).collect();
    let rows = found.iter().zip(&p).zip(holm(&p)).map(|((found, p), adjusted)| {
        let Difference { column, first, second, difference } = found;
        let interval = difference.interval().map(|interval| format!("[{:+.4}, {:+.4}]", interval.low, interval.high));
        vec![
            column.clone(),
            difference.k.to_string(),
            value(Some(first.mean)),
            value(Some(second.mean)),
            format!("{:+.4}", difference.mean),
            interval.unwrap_or_else(|| value(None)),
            value(difference.seed_sd),
            p_value(*p),
            p_value(adjusted),
        ]
    });
    Cells { head: head.map(str::to_owned).to_vec(), rows: rows.collect() }
}
