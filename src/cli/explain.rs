//! `mergesweep explain`: what a code of a message means, or what one trial computes.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::{Failure, SweepArgs, explain_trial, print, usage};
use crate::document::Code;
use crate::document::code::{self, CODES};
use crate::document::read::nearest;
use crate::exit_code::{self, Exit};

/// Explain one trial of a sweep, or the code of an error or warning
///
/// A trial: what its method does, the formula with the numbers in it, and what is in force. Shows the
/// value of every parameter after look-up, filters and gradients, where it comes from, what the merge
/// comes down to, which trials are its twins, and the settings that nobody reads. Needs neither
/// network nor models; with the models' headers at hand tensors are theirs, without them those of a
/// Llama-like decoder.
///
/// A code: every message about a spec or a config has one. This says what it means, why it matters
/// and what to do, with an example where one helps. sweeps/DIAGNOSTICS.md of the repository lists all of them.
///
/// Examples:
///   mergesweep explain sweeps/study.toml Breadcrumbs
///   mergesweep explain sweeps/study.toml 'SLERP (t=0.3)' --tensor model.layers.3.mlp.up_proj.weight
///   mergesweep explain sweeps/study.toml DELLA --tensor mlp
///   mergesweep explain E0101
///   mergesweep explain --all
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct ExplainArgs {
    /// The sweep spec, TOML or YAML; or a code, such as E0101
    #[arg(required_unless_present = "all", value_name = "SPEC|CODE")]
    of: Option<PathBuf>,
    /// The trial of the spec: its name or id
    trial: Option<String>,
    /// Only the tensor of this name, or all tensors whose names contain this text
    #[arg(long, value_name = "NAME", requires = "trial")]
    tensor: Option<String>,
    /// Folder with the results of all sweeps: it holds the points that a search has placed
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Print the trial as JSON
    #[arg(long, requires = "trial")]
    json: bool,
    /// Print the document of all codes, in Markdown
    #[arg(long, conflicts_with_all = ["of", "trial"])]
    all: bool,
}

pub(super) fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    match (&args.of, &args.trial) {
        (Some(spec), Some(trial)) => {
            let sweep = SweepArgs::of_results(spec, &args.results);
            return explain_trial::run(&sweep, trial, args.tensor.as_deref(), args.json);
        }
        (Some(spec), None) if spec.is_file() => {
            return Err(usage(anyhow!(
                "`{}` is a file: name one of its trials too (`mergesweep plan` lists them)",
                spec.display()
            )));
        }
        (Some(id), None) => print(&named(id)?.spec().to_string())?,
        (None, _) => print(&code::document())?,
    }
    Ok(Exit::Ok)
}

fn named(id: &Path) -> Result<Code, Failure> {
    let id = &*id.to_string_lossy();
    Code::from_id(id).ok_or_else(|| {
        let near = nearest(id, CODES.iter().map(|row| row.id));
        let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        usage(anyhow!("unknown code `{id}`\nhint: {near}`mergesweep explain --all` lists every code"))
    })
}
