//! `mergesweep doctor`: whether this machine and this spec are ready for a run, item by item, with the remedy.

mod evaluation;
mod machine;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Failure, diagnostics, interpreter, locator, print, probe};
use crate::document::Problems;
use crate::exit_code::{self, Exit};
use crate::model::Locator;
use crate::plan::{self, Plan};
use crate::spec::{self, Sweep};

/// Look whether this machine, and a spec, are ready for a run
///
/// Every item is ok, a warning or an error, with what to do: the interpreter, the harness and its
/// packages with their versions, GPUs, memory, free disk and its speed (64 MB are written and
/// deleted), bubblewrap, the caches of the hub and whether there is a token (it is never shown).
/// With a spec also: its mistakes, its models, and its tasks, which are loaded with their data sets
/// as a run would do before its first merge. Models are not downloaded; data sets may be. Models that are
/// here are looked at as `plan --probe` does: architecture, tokenizer, kinship, NaN.
///
/// Exit code 0 without errors, 2 with some.
///
/// Examples:
///   mergesweep doctor
///   mergesweep doctor sweeps/quickstart.toml
///   mergesweep doctor study.toml --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct DoctorArgs {
    /// A sweep spec to look at too
    spec: Option<PathBuf>,
    /// Folder of results: its disk is looked at
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Python interpreter with the harness [default: as for `run`]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// How an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Fine.
    Ok,
    /// May be a hindrance.
    Warning,
    /// A run would fail on it.
    Error,
}

/// One line.
#[derive(Debug, Clone)]
struct Finding {
    /// What was looked at.
    item: String,
    verdict: Verdict,
    /// What was found.
    text: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Finding {
    fn ok(item: impl Into<String>, text: impl Into<String>) -> Self {
        Self { item: item.into(), verdict: Verdict::Ok, text: text.into(), remedy: None }
    }

    fn warning(item: impl Into<String>, text: impl Into<String>, remedy: impl Into<Option<String>>) -> Self {
        Self { item: item.into(), verdict: Verdict::Warning, text: text.into(), remedy: remedy.into() }
    }

    fn error(item: impl Into<String>, text: impl Into<String>, remedy: impl Into<Option<String>>) -> Self {
        Self { item: item.into(), verdict: Verdict::Error, text: text.into(), remedy: remedy.into() }
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let mut findings = vec![Finding::ok("mergesweep", env!("CARGO_PKG_VERSION"))];
    let mut problems = Problems::default();
    let opened = args.spec.as_ref().and_then(|path| spec_of(path, &mut findings, &mut problems));
    let sweep = opened.as_ref().map(|(sweep, _)| sweep);
    let mut settings = sweep.map_or_else(spec::evaluate::defaults, |sweep| sweep.evaluate.clone());
    settings.python = interpreter(args.python.as_deref(), &settings.python);
    findings.extend(evaluation::findings(args, sweep, &settings)?);
    let locator = locator(sweep.map_or(Path::new("."), |sweep| &sweep.root), settings.python.clone())?;
    findings.extend(evaluation::models(opened.as_ref(), &locator));
    findings.extend(opened.as_ref().map(|(sweep, plan)| health(sweep, plan, &locator, &mut problems)));
    findings.extend(machine::findings(args, sweep, &settings));
    if args.json {
        let items: Vec<_> = findings
            .iter()
            .map(|finding| {
                let Finding { item, text, remedy, .. } = finding;
                json!({ "item": item, "verdict": finding.verdict.name(), "found": text, "remedy": remedy })
            })
            .collect();
        let diagnostics = diagnostics::document(&problems)["diagnostics"].clone();
        let document = json!({ "ready": is_ready(&findings), "items": items, "diagnostics": diagnostics });
        print(&serde_json::to_string_pretty(&document)?)?;
    } else {
        print(&listing(&findings))?;
    }
    Ok(if is_ready(&findings) { Exit::Ok } else { Exit::Usage })
}

fn is_ready(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Error)
}

/// The spec, if it can be read, and what is to be said about it.
fn spec_of(path: &Path, findings: &mut Vec<Finding>, problems: &mut Problems) -> Option<(Sweep, Plan)> {
    let item = "spec";
    match plan::open(path) {
        Ok((sweep, plan)) => {
            diagnostics::show(&plan.warnings);
            let text = format!("{}: {}", path.display(), super::counted(plan.trials.len(), "trial"));
            findings.push(match plan.warnings.0.len() {
                0 => Finding::ok(item, text),
                n => Finding::warning(item, format!("{text}, {}", super::counted(n, "warning")), None),
            });
            *problems = plan.warnings.clone();
            Some((sweep, plan))
        }
        Err(mistakes) => {
            diagnostics::show(&mistakes);
            let text = format!("{}: {}", path.display(), super::counted(mistakes.n_errors(), "error"));
            let remedy = "mend what is told above; the rest was looked at without the spec".to_owned();
            findings.push(Finding::error(item, text, remedy));
            *problems = mistakes;
            None
        }
    }
}

/// Whether the models fit each other, as `plan --probe` looks at them.
fn health(sweep: &Sweep, plan: &Plan, locator: &Locator, problems: &mut Problems) -> Finding {
    let item = "models";
    let probe = probe::quietly(locator, sweep, plan);
    diagnostics::show(&probe.problems);
    let looked_at = super::counted(probe.models.len(), "model");
    let text = format!("{looked_at} looked at: {}", probe::in_words(&probe.problems));
    let remedy = "`mergesweep plan SPEC --probe` shows what was seen".to_owned();
    let finding = match (probe.models.len(), probe.problems.n_errors(), probe.problems.0.len()) {
        (0, ..) => Finding::warning(item, "none of them is on this machine", None),
        (_, 0, 0) => Finding::ok(item, format!("{looked_at} looked at: they fit each other")),
        (_, 0, _) => Finding::warning(item, text, remedy),
        _ => Finding::error(item, text, remedy),
    };
    problems.extend(probe.problems);
    finding
}

fn listing(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.item.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { item, verdict, text: found, remedy } in findings {
        text += &format!("{:7}  {item:width$}  {found}\n", verdict.name());
        if let Some(remedy) = remedy {
            text += &format!("{:7}  {:width$}  hint: {remedy}\n", "", "");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (errors, warnings) = (count(Verdict::Error), count(Verdict::Warning));
    text + &format!("{}, {}\n", super::counted(errors, "error"), super::counted(warnings, "warning"))
}
