//! `mergesweep schema`: what a spec may hold, for editors and for people.

use clap::Args;

use super::{Failure, print};
use crate::exit_code::{self, Exit};
use crate::spec::keys;

/// Print the JSON Schema of sweep specs, or a reference of all keys
///
/// Editors complete and check specs with it: put one of these lines at the top of a spec, with the
/// path of the schema (`mergesweep init` writes both).
///
///   TOML (Taplo, Even Better TOML):    #:schema ./mergesweep.schema.json
///   YAML (yaml-language-server):       # yaml-language-server: $schema=./mergesweep.schema.json
///
/// Examples:
///   mergesweep schema > mergesweep.schema.json
///   mergesweep schema --markdown | less
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct SchemaArgs {
    /// Print the keys, methods and parameters as Markdown tables
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    if args.markdown {
        print(&keys::reference())?
    } else {
        print(&text()?)?
    }
    Ok(Exit::Ok)
}

/// The schema as it is printed and written.
pub(super) fn text() -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(&keys::schema())? + "\n")
}
