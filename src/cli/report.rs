//! `mergesweep report`: the table of what is recorded.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::comparisons::Comparisons;
use super::estimates::Tester;
use super::recorded::{self, Recorded};
use super::{Failure, SweepArgs, counted, output_width, page, print, raced, usage, warn};
use crate::exit_code::{self, Exit};
use crate::files::write_atomically;
use crate::paired::{Against, winners};
use crate::plan::Plan;
use crate::run::journal;
use crate::run::slurm::submission::Submission;
use crate::run::store::Store;
use crate::spec::Sweep;
use crate::stats::SEED;
use crate::table::view::View;
use crate::table::{ResultsTable, beside, differences, frame, latex, race, reference, render, seeds, spark};

/// How often `--watch` looks again.
const WATCH: Duration = Duration::from_secs(2);

/// Arguments that say what of the printed table is shown, and how: a page shows all of it and sorts and filters itself.
const OF_THE_TABLE: [&str; 8] = ["format", "long", "output", "reference", "columns", "sort", "filter", "watch"];

/// Print the table of a sweep from what is recorded, and write it as CSV and Parquet
///
/// Runs nothing. On a terminal the table is Markdown that fits its width; wide tables are dealt
/// out over several. Shares of right answers have 95 % Wilson intervals, other scores the
/// harness' standard error.
///
/// With a reference trial (`[report] reference` in the spec, or --against) every trial is
/// compared with it document by document: what is a difference is marked, and a second table
/// shows differences, counts and p-values, corrected for the number of trials.
///
/// Files go to RESULTS/<sweep>/: table.csv and .parquet (one row per trial), scores.csv and
/// .parquet (one row per score, with standard errors, sample counts and versions).
///
/// With --html or --plots these are written instead. Rows are compared, document by document,
/// with the trial that `report.reference` of the spec names, else with the first unmerged model.
/// The page is one file; prompts and answers are in it only with --with-items. PNG files set
/// their text in a font of the program's own (Latin, Greek, Cyrillic); take the SVG files for
/// names in other scripts.
///
/// Examples:
///   mergesweep report sweeps/quickstart.toml --against Instruct
///   mergesweep report sweeps/quickstart.toml --format csv --long > scores.csv
///   mergesweep report sweeps/quickstart.toml --filter method=slerp --sort math_bpb
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
    /// Print one row per score instead of one row per trial (csv, json and parquet)
    #[arg(long)]
    long: bool,
    /// Write to FILE instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Compare every trial with this one, document by document [default: the spec's `report.reference`]
    #[arg(long, value_name = "TRIAL")]
    against: Option<String>,
    /// Test gp-IRT estimates themselves against those of the reference trial (swap test), with the tinyBenchmarks package
    /// of --python and RESULTS/<sweep>/harness/tinyBenchmarks.pkl; without it their answers are tested. Takes a while:
    /// 2,000 fits per trial and task
    #[arg(long)]
    gp_irt: bool,
    /// Set the run beside a stored table: a CSV with row names in its first column, or a scores.csv
    #[arg(long, value_name = "CSV")]
    reference: Option<PathBuf>,
    /// Show only these columns, in this order
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    columns: Vec<String>,
    /// Sort rows by a column, best first (`-COLUMN`: worst first), or by `trial`
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Show only rows where `trial`, `kind`, `method`, `seed` or an axis matches: method=slerp, trial='TIES*' (repeatable)
    #[arg(long, value_name = "KEY=PATTERN", value_parser = key_and_pattern)]
    filter: Vec<(String, String)>,
    /// Print again every two seconds while a run goes on
    #[arg(long, conflicts_with = "output")]
    watch: bool,
    /// Write everything as one HTML page that needs no network: sortable table with paired comparisons, plots over
    /// grids, seeds and pairs of columns, the documents behind each difference, provenance
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_THE_TABLE)]
    html: Option<PathBuf>,
    /// Write the page's plots as SVG and PNG files into a folder
    #[arg(long, value_name = "DIR", conflicts_with_all = OF_THE_TABLE)]
    plots: Option<PathBuf>,
    /// Take prompts, answers and targets of the documents that differ into the page: mind the licences of the data
    #[arg(long, requires = "html")]
    with_items: bool,
}

fn key_and_pattern(text: &str) -> Result<(String, String), String> {
    let (key, pattern) = text.split_once('=').ok_or("expected KEY=PATTERN, such as method=slerp")?;
    Ok((key.trim().to_owned(), pattern.trim().to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Rounded, for people
    Markdown,
    /// Full precision, empty cells for missing values
    Csv,
    /// Full precision, one object a row
    Json,
    /// Full precision, columns with types
    Parquet,
    /// For a paper, with booktabs; bold only what is significantly better than every other row
    Latex,
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    if args.long && matches!(args.format, Format::Markdown | Format::Latex) && args.reference.is_none() {
        return Err(usage(anyhow!("`--long` is for machines: add `--format csv`, `json` or `parquet`")));
    }
    let (sweep, plan) = args.sweep.load()?;
    let store = args.sweep.store(&sweep)?;
    if args.html.is_some() || args.plots.is_some() {
        return pages(args, &plan, &sweep, &store);
    }
    if args.reference.is_some() && (args.long || args.format != Format::Markdown) {
        return Err(usage(anyhow!("`--reference` prints Markdown: leave out `--format` and `--long`")));
    }
    if args.format == Format::Parquet && args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(usage(anyhow!("Parquet is not text: name a file with `--output`")));
    }
    if args.watch {
        return watch(args, &plan, &sweep, &store);
    }
    let text = report(args, &plan, &sweep, &store)?;
    match &args.output {
        Some(path) => write_atomically(path, &text).with_context(|| path.display().to_string())?,
        None if args.format == Format::Parquet => std::io::stdout().write_all(&text)?,
        None => print(&String::from_utf8_lossy(&text))?,
    }
    Ok(Exit::Ok)
}

/// Prints over and over while a run holds the sweep or Slurm has it, and once more at its end.
fn watch(args: &ReportArgs, plan: &Plan, sweep: &Sweep, store: &Store) -> Result<Exit, Failure> {
    loop {
        let goes_on = store.is_held() || Submission::open(&journal::read(&store.journal())?).is_some();
        let text = report(args, plan, sweep, store)?;
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        print(&format!("{clear}{}", String::from_utf8_lossy(&text)))?;
        if !goes_on {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(WATCH);
    }
}

/// The whole output, and the table's files on the way.
fn report(args: &ReportArgs, plan: &Plan, sweep: &Sweep, store: &Store) -> Result<Vec<u8>, Failure> {
    let mut recorded = recorded::collect_with_near(plan, sweep, store)?;
    raced::confirm(&mut recorded, sweep)?;
    write_if_any(&recorded.table, store);
    let compared = compared(args, &recorded, recorded.reference(args.against.as_deref(), sweep)?, plan, sweep, store)?;
    let view = View { columns: args.columns.clone(), sort: args.sort.clone(), filter: args.filter.clone() };
    let (table, against) = view.of(&recorded.table, compared.against.as_ref()).map_err(usage)?;
    if !matches!(args.format, Format::Markdown | Format::Latex) {
        // There is no place for it in the data.
        compared.left_out.iter().for_each(|note| warn(&format!("note: {note}")));
    }
    let wide_or_long = || if args.long { frame::long(&table, against.as_ref()) } else { frame::wide(&table) };
    Ok(match args.format {
        Format::Csv => frame::to_csv(&wide_or_long()?)?,
        Format::Json => serde_json::to_vec_pretty(&frame::to_json(&wide_or_long()?))?,
        Format::Parquet => frame::to_parquet(&mut wide_or_long()?)?,
        Format::Latex => {
            let tasks: Vec<&str> = recorded.table.columns.iter().map(|column| column.task.as_str()).collect();
            let all = winners(&tasks, &compared.entrants, SEED);
            let place = |name: &str| recorded.table.columns.iter().position(|column| column.name == name);
            let shown: Vec<Option<String>> =
                table.columns.iter().map(|column| place(&column.name).and_then(|place| all[place].clone())).collect();
            let mut notes = against.as_ref().map(|against| differences::footnotes(&table, against)).unwrap_or_default();
            notes.extend(compared.left_out.clone());
            latex::latex(&table, against.as_ref(), &shown, &notes).into_bytes()
        }
        Format::Markdown => markdown(args, &table, against.as_ref(), &compared, &recorded)?.into_bytes(),
    })
}

fn compared(
    args: &ReportArgs,
    recorded: &Recorded,
    reference: Option<usize>,
    plan: &Plan,
    sweep: &Sweep,
    store: &Store,
) -> Result<Comparisons, Failure> {
    let home = std::path::absolute(store.harness_home())?;
    let tester = args.gp_irt.then(|| Tester { python: args.sweep.python(sweep), home });
    if args.gp_irt && reference.is_none() {
        return Err(usage(anyhow!("`--gp-irt` compares with a reference: name one with `--against`")));
    }
    Comparisons::of(recorded, reference, plan, tester.as_ref())
}

fn markdown(
    args: &ReportArgs,
    table: &ResultsTable,
    against: Option<&Against>,
    compared: &Comparisons,
    recorded: &Recorded,
) -> Result<String, Failure> {
    let footnotes = recorded.near.iter().chain(&recorded.footnotes);
    let width = if args.output.is_some() { None } else { output_width() };
    if let Some(path) = &args.reference {
        let (cells, remarks) = beside::compare(table, &reference::read(path).map_err(usage)?);
        return Ok(with_footnotes(render::markdown(&cells, width), remarks.iter().chain(footnotes)));
    }
    let mut text = render::markdown(&render::wide(table, against), width);
    if let Some(race) = &table.race {
        for cells in [race::table(race)].into_iter().chain(race::confirmation(race)) {
            text.push_str(&format!("\n{}", render::markdown(&cells, width)));
        }
    }
    let mut remarks = Vec::new();
    if let Some(against) = against {
        text.push_str(&format!("\n{}", render::markdown(&differences::table(table, against), width)));
        remarks.extend(differences::footnotes(table, against));
    }
    if !compared.seeds.is_empty() {
        let names: Vec<&str> = compared.columns.iter().map(String::as_str).collect();
        text.push_str(&format!("\n{}", render::markdown(&seeds::table(&names, &compared.seeds), width)));
    }
    let lines = spark::lines(table);
    if !lines.is_empty() {
        text.push_str(&format!("\n{}\n", lines.join("\n")));
    }
    remarks.extend(compared.single_draws.iter().cloned());
    remarks.extend(compared.left_out.clone());
    Ok(with_footnotes(text, remarks.iter().chain(footnotes)))
}

fn with_footnotes<'a>(text: String, footnotes: impl Iterator<Item = &'a String>) -> String {
    let footnotes: Vec<&str> = footnotes.map(String::as_str).collect();
    if footnotes.is_empty() { text } else { format!("{text}\n{}\n", footnotes.join("\n")) }
}

/// Remarks below a table.
pub(super) fn print_footnotes(footnotes: &[String]) -> std::io::Result<()> {
    if footnotes.is_empty() { Ok(()) } else { print(&format!("\n{}", footnotes.join("\n"))) }
}

fn write_if_any(table: &ResultsTable, store: &Store) {
    if !store.root().exists() {
        warn(&format!("note: nothing is recorded in {} yet", store.root().display()));
    } else if table.rows.iter().all(|row| row.scores.is_empty()) {
        warn(
            "note: no scores under these settings (another `--limit`, model or task list than the run's?): the table's files \
             are left as they are",
        );
    } else {
        write_files(table, store);
    }
}

/// Writes the page and the plots; prints no table.
fn pages(args: &ReportArgs, plan: &Plan, sweep: &Sweep, store: &Store) -> Result<Exit, Failure> {
    let mut recorded = recorded::collect_with_near(plan, sweep, store)?;
    raced::confirm(&mut recorded, sweep)?;
    // Every row beside the reference: the one asked for, else the first unmerged model.
    let first_model = || recorded.table.rows.iter().position(|row| row.kind == "model");
    let reference = recorded.reference(args.against.as_deref(), sweep)?.or_else(first_model);
    let compared = compared(args, &recorded, reference, plan, sweep, store)?;
    let page = page::page(plan, sweep, &recorded, &compared, store, args.with_items)?;
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

/// Writes the table's files. They are derived and lose nothing, so a place that refuses them is only worth a warning.
pub(super) fn write_files(table: &ResultsTable, store: &Store) {
    if let Err(error) = try_write_files(table, store) {
        warn(&format!("warning: the table's files were not written: {error:#}"));
    }
}

fn try_write_files(table: &ResultsTable, store: &Store) -> anyhow::Result<()> {
    for (name, mut frame) in [("scores", frame::long(table, None)?), ("table", frame::wide(table)?)] {
        let path = store.root().join(name);
        frame::write_csv(&frame, &path.with_extension("csv"))?;
        frame::write_parquet(&mut frame, &path.with_extension("parquet"))?;
    }
    let path = store.root().join("table.md");
    let text = render::markdown(&render::wide(table, None), None);
    write_atomically(&path, text.as_bytes()).with_context(|| path.display().to_string())
}
