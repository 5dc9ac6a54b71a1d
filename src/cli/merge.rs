//! stub until it lands
use clap::Args;
use super::Failure;
use crate::exit_code::Exit;
/// Merge
#[derive(Debug, Args)]
pub(super) struct MergeArgs {}
pub(super) fn run(_: &MergeArgs) -> Result<Exit, Failure> { Ok(Exit::Ok) }
