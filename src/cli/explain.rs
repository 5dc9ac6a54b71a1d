//! `mergesweep explain`: what a code of a message means.

use anyhow::anyhow;
use clap::Args;

use super::{Failure, print, usage};
use crate::document::Code;
use crate::document::code::{self, CODES};
use crate::document::read::nearest;
use crate::exit_code::{self, Exit};

/// Explain the code of an error or warning
///
/// Every message about a spec or a config has a code. This says what it means, why it matters and
/// what to do, with an example where one helps. DIAGNOSTICS.md lists all of them.
///
/// Examples:
///   mergesweep explain E0101
///   mergesweep explain --all
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct ExplainArgs {
    /// The code, such as E0101
    #[arg(required_unless_present = "all")]
    code: Option<String>,
    /// Print the document of all codes, in Markdown
    #[arg(long, conflicts_with = "code")]
    all: bool,
}

pub(super) fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    match &args.code {
        Some(id) => print(&named(id)?.spec().to_string())?,
        None => print(&code::document())?,
    }
    Ok(Exit::Ok)
}

fn named(id: &str) -> Result<Code, Failure> {
    Code::from_id(id).ok_or_else(|| {
        let near = nearest(id, CODES.iter().map(|row| row.id));
        let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        usage(anyhow!("unknown code `{id}`\nhint: {near}`mergesweep explain --all` lists every code"))
    })
}
