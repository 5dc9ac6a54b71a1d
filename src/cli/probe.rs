//! `plan --probe`, and the same line in `doctor`: findings on standard error, what was seen as text or JSON.

use std::io::{self, IsTerminal, Write};

use super::{Failure, SweepArgs, counted, diagnostics, warn};
use crate::document::Problems;
use crate::model::{Locator, ModelRef};
use crate::plan::Plan;
pub(super) use crate::probe::json::json;
pub(super) use crate::probe::words::text;
use crate::probe::{Probe, Request, probe};
use crate::spec::Sweep;

/// Looks at the models of a plan that are on this machine, and draws what is wrong or odd.
pub(super) fn look(args: &SweepArgs, sweep: &Sweep, plan: &Plan) -> Result<Probe, Failure> {
    let probe = quietly(&args.locator(sweep)?, sweep, plan);
    diagnostics::show(&probe.problems);
    Ok(probe)
}

/// The same without a word about findings.
pub(super) fn quietly(locator: &Locator, sweep: &Sweep, plan: &Plan) -> Probe {
    let locate = |model: &ModelRef| locator.locate_on_disk(model).ok().flatten();
    probe(&Request { sweep, plan, locate: &locate, progress: &show })
}

/// Progress: a line that is written over, on a terminal.
fn show(done: usize, all: usize) {
    if !io::stderr().is_terminal() {
        if done == 0 && all > 0 {
            warn(&format!("probe: reading rows of {}", counted(all, "tensor")));
        }
        return;
    }
    let end = if done == all { "\r\x1b[K" } else { "" };
    // Nothing can be done about a closed standard error.
    let _ = write!(io::stderr(), "\rprobe: tensor {done} of {all}{end}");
}

/// Errors and warnings in a few words.
pub(super) fn in_words(problems: &Problems) -> String {
    let n_errors = problems.n_errors();
    let n_warnings = problems.0.len() - n_errors;
    format!("{}, {}", counted(n_errors, "error"), counted(n_warnings, "warning"))
}
