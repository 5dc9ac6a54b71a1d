//! A program that reads and writes where the caller does, followed to its end.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::group::{Ending, Group};
use super::{Cancel, Exit, GRACE, ProcessError};

/// Runs a program with the caller's own input and output to its end. On a cancellation it gets SIGTERM, and SIGKILL
/// after [`GRACE`].
///
/// # Errors
/// [`ProcessError`] when it cannot be started or waited for. A program that fails is no error here.
pub async fn attend(program: &Path, args: Vec<OsString>, cancel: &Cancel) -> Result<Exit, ProcessError> {
    let mut command = std::process::Command::new(program);
    // A group of its own: Ctrl-C reaches the caller alone, who passes it on.
    command.args(args).process_group(0);
    let start_error = |source| ProcessError::Start { program: program.to_owned(), source };
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(start_error)?;
    let group = Group::led_by(child.id());
    let mut ending = Ending::new(None, GRACE);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = ending.step(&group, cancel) => {}
        }
    };
    let status = status.map_err(|source| ProcessError::Wait { program: program.to_owned(), source })?;
    Ok(ending.stopped().unwrap_or_else(|| Exit::of(status)))
}
