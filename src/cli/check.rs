//! `mergesweep check`: a sweep made afresh, against a baseline.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;

use super::freeze::now;
use super::{Failure, SweepArgs, print, run, slurm, usage, warn};
use crate::exit_code::{self, Exit};
use crate::files::write_atomically;
use crate::gate::{Baseline, Judgement, judge, render};
use crate::paired::Entrant;
use crate::plan::Plan;
use crate::run::Summary;
use crate::spec::Sweep;
use crate::stats::SEED;
use crate::stats::gate::Verdict;

/// Merge and evaluate a sweep afresh and compare it with a baseline, document by document
///
/// Ends PASS (nothing became worse by more than its margin, on the evidence of the documents),
/// FAIL (something did, or is missing), or INCONCLUSIVE (too few documents to tell; says how
/// many would do). Margins are those of the spec's `[gate]` now, not those of the day of the
/// baseline. Equal weights with equal answers pass as identical.
///
/// For a nightly job:
///   mergesweep check sweeps/quickstart.toml --against results/baselines/quickstart \
///       --junit check.xml --summary check.md
/// In GitHub Actions annotations are printed and the job's summary is written by themselves.
///
/// Examples:
///   mergesweep check sweeps/quickstart.toml --against results/baselines/quickstart
///   mergesweep check sweeps/quickstart.toml --against results/baselines/quickstart --reuse
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// Folder of the baseline
    #[arg(long, value_name = "DIR")]
    against: PathBuf,
    /// Take the results that are recorded, where they hold, instead of merging and evaluating afresh
    #[arg(long)]
    reuse: bool,
    /// Write the judgement as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the judgement as Markdown
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Print annotations for GitHub Actions [default: where $GITHUB_ACTIONS is `true`]
    #[arg(long)]
    github: bool,
    /// Print the judgement as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    // Before hours of work: is there anything to compare with?
    let baseline = Baseline::read(&args.against).map_err(usage)?;
    let (sweep, plan) = args.sweep.load()?;
    super::freeze::check_names(&sweep, &baseline.columns)?;
    let gate = &sweep.gate;
    if !baseline.columns.iter().any(|column| gate.is_critical(&column.name, &column.task)) {
        return Err(usage(anyhow!(
            "{}: `[gate]` has no margin for a column of the baseline: nothing would be decided",
            sweep.path.display()
        )));
    }
    let summary = afresh(&args.sweep, &sweep, &plan, args.reuse)?;
    if summary.interrupted {
        return Ok(Exit::Interrupted);
    }
    let (recorded, mut entrants) = now(&args.sweep, &sweep, &plan)?;
    // What an earlier run found says nothing of a trial that failed now.
    let failed = |entrant: &&mut Entrant| summary.failed.iter().any(|failed| failed.trial == entrant.name);
    for entrant in entrants.iter_mut().filter(failed) {
        entrant.outcomes.iter_mut().for_each(|outcomes| *outcomes = None);
    }
    let mut judgement = judge(&baseline, &recorded.table.columns, &entrants, &sweep.gate, SEED);
    judgement.reused = args.reuse;
    tell(args, &baseline, &judgement)?;
    Ok(match judgement.verdict {
        Verdict::Pass => Exit::Ok,
        Verdict::Fail => Exit::GateFailed,
        Verdict::Inconclusive => Exit::Inconclusive,
    })
}

/// Runs the whole sweep, everything again unless `reuse`, and tells what failed.
pub(super) fn afresh(args: &SweepArgs, sweep: &Sweep, plan: &Plan, reuse: bool) -> Result<Summary, Failure> {
    let (mut request, sweep) = run::request_of(args, sweep.clone(), plan.clone(), &[], &[])?;
    if !reuse {
        request.redo.clone_from(&request.selected);
    }
    let summary = run::drive(&request, &sweep, &slurm::engine(args, &sweep, None, false)?, false, false)?;
    run::tell_failed(&summary);
    Ok(summary)
}

fn tell(args: &CheckArgs, baseline: &Baseline, judgement: &Judgement) -> Result<(), Failure> {
    let name = args.against.display().to_string();
    let mut markdown = render::markdown(judgement, &name);
    for noise in baseline.null.iter().flatten() {
        markdown.push_str(&format!(
            "\nnoise floor: {}, {}: the baseline evaluated twice changed {} of {} documents\n",
            noise.trial, noise.column, noise.n_changed, noise.n
        ));
    }
    let write =
        |path: &Path, text: &str| write_atomically(path, text.as_bytes()).with_context(|| path.display().to_string());
    if let Some(path) = &args.junit {
        write(path, &render::junit(judgement, &name))?;
    }
    if let Some(path) = &args.summary {
        write(path, &markdown)?;
    }
    if args.json {
        print(&serde_json::to_string_pretty(judgement)?)?;
    } else {
        print(&markdown)?;
    }
    let on_github = std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true");
    if args.github || on_github {
        print(&render::github(judgement, &name))?;
    }
    if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|_| on_github) {
        let file = std::fs::File::options().append(true).create(true).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(markdown.as_bytes())) {
            warn(&format!("warning: {}: {error}", Path::new(&path).display()));
        }
    }
    Ok(())
}
