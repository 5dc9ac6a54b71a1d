//! `mergesweep report`: the table of what is recorded.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::recorded::{self, Recorded};
use super::{Failure, SweepArgs, counted, output_width, page, print, usage, warn};
use crate::exit_code::{self, Exit};
use crate::plan::Plan;
use crate::run::store::Store;
use crate::spec::Sweep;
use crate::table::{ResultsTable, frame, reference, render};

/// Print the table of a sweep from what is recorded, and write it as CSV and Parquet
///
/// Runs nothing. On a terminal the table is Markdown that fits its width; wide tables are dealt
/// out over several. Files go to RESULTS/<sweep>/: table.csv and .parquet (one row per trial),
/// scores.csv and .parquet (one row per score, with standard errors, sample counts and
/// versions).
///
/// With --html or --plots these are written instead. Rows are compared, document by document,
/// with the trial that `report.reference` of the spec names, else with the first unmerged model.
/// The page is one file; prompts and answers are in it only with --with-items. PNG files set
/// their text in a font of the program's own (Latin, Greek, Cyrillic); take the SVG files for
/// names in other scripts.
///
/// Examples:
///   mergesweep report sweeps/quickstart.toml
///   mergesweep report sweeps/quickstart.toml --format csv --long > scores.csv
///   mergesweep report sweeps/study.toml --reference results/reference/study.csv
///   mergesweep report sweeps/quickstart.toml --html report.html --plots plots/
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
    /// Print one row per score instead of one row per trial (csv and json)
    #[arg(long)]
    long: bool,
    /// Set the run beside a stored table: a CSV with row names in its first column
    #[arg(long, value_name = "CSV")]
    reference: Option<PathBuf>,
    /// Write everything as one HTML page that needs no network: sortable table with paired comparisons, plots over
    /// grids, seeds and pairs of columns, the documents behind each difference, provenance
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the page's plots as SVG and PNG files into a folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Take prompts, answers and targets of the documents that differ into the page: mind the licences of the data
    #[arg(long, requires = "html")]
    with_items: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Rounded, for people
    Markdown,
    /// Full precision, empty cells for missing values
    Csv,
    /// Full precision, one object a row
    Json,
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let (sweep, plan) = args.sweep.load()?;
    let store = args.sweep.store(&sweep)?;
    let recorded = recorded::collect(&plan, &sweep, &store)?;
    if args.html.is_some() || args.plots.is_some() {
        return pages(args, &plan, &sweep, &store, &recorded);
    }
    let Recorded { table, mut footnotes, .. } = recorded;
    if args.reference.is_some() && (args.long || args.format != Format::Markdown) {
        return Err(usage(anyhow!("`--reference` prints Markdown: leave out `--format` and `--long`")));
    }
    let frame = || if args.long { frame::long(&table) } else { frame::wide(&table) };
    match args.format {
        Format::Markdown => {
            let (cells, remarks) = match &args.reference {
                Some(path) => reference::compare(&table, &reference::read(path).map_err(usage)?),
                None => (render::wide(&table), Vec::new()),
            };
            print(&render::markdown(&cells, output_width()))?;
            footnotes.splice(0..0, remarks);
            print_footnotes(&footnotes)?;
        }
        Format::Csv => print(&String::from_utf8(frame::to_csv(&frame()?)?)?)?,
        Format::Json => print(&serde_json::to_string_pretty(&frame::to_json(&frame()?))?)?,
    }
    if !store.root().exists() {
        warn(&format!("note: nothing is recorded in {} yet", store.root().display()));
    } else if table.rows.iter().all(|row| row.scores.is_empty()) {
        warn(
            "note: no scores under these settings (another `--limit`, model or task list than the run's?): the table's files \
             are left as they are",
        );
    } else {
        write_files(&table, &store);
    }
    Ok(Exit::Ok)
}

/// Writes the page and the plots; prints no table.
fn pages(args: &ReportArgs, plan: &Plan, sweep: &Sweep, store: &Store, recorded: &Recorded) -> Result<Exit, Failure> {
    let page = page::page(plan, sweep, store, recorded, args.with_items)?;
    let plots = page::draw(&page);
    if let Some(path) = &args.html {
        page::write_html(&page, &plots, path)?;
        warn(&format!("wrote {}", path.display()));
    }
    if let Some(folder) = &args.plots {
        let n = page::write_plots(&plots, folder)?;
        warn(&format!("wrote {} as SVG and PNG to {}", counted(n, "plot"), folder.display()));
    }
    Ok(Exit::Ok)
}

/// Remarks below a table.
pub(super) fn print_footnotes(footnotes: &[String]) -> std::io::Result<()> {
    if footnotes.is_empty() { Ok(()) } else { print(&format!("\n{}", footnotes.join("\n"))) }
}

/// Writes the table's files. They are derived and lose nothing, so a place that refuses them is only worth a warning.
pub(super) fn write_files(table: &ResultsTable, store: &Store) {
    if let Err(error) = try_write_files(table, store) {
        warn(&format!("warning: the table's files were not written: {error:#}"));
    }
}

fn try_write_files(table: &ResultsTable, store: &Store) -> anyhow::Result<()> {
    for (name, mut frame) in [("scores", frame::long(table)?), ("table", frame::wide(table)?)] {
        let path = store.root().join(name);
        frame::write_csv(&frame, &path.with_extension("csv"))?;
        frame::write_parquet(&mut frame, &path.with_extension("parquet"))?;
    }
    let path = store.root().join("table.md");
    std::fs::write(&path, render::markdown(&render::wide(table), None)).with_context(|| path.display().to_string())?;
    Ok(())
}
