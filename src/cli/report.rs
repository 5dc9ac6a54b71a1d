//! `mergesweep report`: the table of what is recorded.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::{Failure, SweepArgs, output_width, print, usage, warn};
use crate::exit_code::{self, Exit};
use crate::plan::Plan;
use crate::run::journal;
use crate::run::state::SweepState;
use crate::run::store::Store;
use crate::spec::{Sweep, TwinEvaluation};
use crate::table::{self, ResultsTable, frame, noise, reference, render};

/// Print the table of a sweep from what is recorded, and write it as CSV and Parquet
///
/// Runs nothing. On a terminal the table is Markdown that fits its width; wide tables are dealt
/// out over several. Files go to RESULTS/<sweep>/: table.csv and .parquet (one row per trial),
/// scores.csv and .parquet (one row per score, with standard errors, sample counts and
/// versions).
///
/// Examples:
///   mergesweep report sweeps/quickstart.toml
///   mergesweep report sweeps/quickstart.toml --format csv --long > scores.csv
///   mergesweep report sweeps/study.toml --reference results/reference/study.csv
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
    let (table, mut footnotes) = collect(&plan, &sweep, &store)?;
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

/// Remarks below a table.
pub(super) fn print_footnotes(footnotes: &[String]) -> std::io::Result<()> {
    if footnotes.is_empty() { Ok(()) } else { print(&format!("\n{}", footnotes.join("\n"))) }
}

/// The table of what the journal says now, and what a reader of it must know.
pub(super) fn collect(plan: &Plan, sweep: &Sweep, store: &Store) -> Result<(ResultsTable, Vec<String>), Failure> {
    let state = SweepState::replay(&journal::read(&store.journal())?);
    let settings = &sweep.evaluate;
    let table = table::collect(plan, &settings.tasks, |trial| state.of(trial).scores(settings));
    let mut footnotes = table.versions();
    for trial in &plan.trials {
        let state = state.of(&trial.id);
        if let Some(twin) = &state.twin {
            footnotes.push(format!("{}: one merge with {twin}, made and evaluated once", trial.name));
        }
        for task in settings.tasks.iter().filter(|task| state.current(settings, task).is_some()) {
            let (name, task) = (&trial.name, &task.name);
            if let Some(from) = state.shared.get(task).filter(|from| state.twin.as_ref() != Some(from)) {
                footnotes.push(format!("{name}: `{task}` was not evaluated again: the weights are those of {from}"));
            }
            if let Some(size) = state.batch_sizes.get(task) {
                let asked = &settings.batch_size;
                footnotes
                    .push(format!("{name}: `{task}` ran with batches of {size} instead of {asked}: out of memory"));
            }
        }
    }
    if sweep.twins == TwinEvaluation::Separate {
        footnotes.extend(noise::floor(&table, &plan.review.twins.rounding));
    }
    Ok((table, footnotes))
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
