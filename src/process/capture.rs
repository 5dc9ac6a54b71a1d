//! Questions to programs: short, blocking, with the whole output as the answer.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::follow::follow;
use super::group::Group;
use super::lines::Reader;
use super::{Cancel, Exit, Invocation, POLL, ProcessError};

/// What [`capture`] gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end and gives back what it wrote; lines of standard error also go to `on_line` as they come.
///
/// # Errors
/// [`ProcessError`] when the program cannot be started. A program that fails is no error: see [`Captured::exit`].
pub fn capture(
    invocation: &Invocation,
    timeout: Option<Duration>,
    cancel: &Cancel,
    on_line: &mut dyn FnMut(&str),
) -> Result<Captured, ProcessError> {
    let start = Instant::now();
    // Files instead of pipes: nothing can block on a full pipe, and no thread is needed to empty one.
    let stdout = tempfile::tempfile().map_err(invocation.start_error())?;
    let stderr = tempfile::tempfile().map_err(invocation.start_error())?;
    let for_child = |file: &File| file.try_clone().map_err(invocation.start_error());
    let mut command = invocation.command();
    command.stdout(for_child(&stdout)?).stderr(for_child(&stderr)?);
    let mut child = command.spawn().map_err(invocation.start_error())?;
    let group = Group::led_by(Some(child.id()));

    let (mut text, mut reader, mut position) = (Vec::new(), Reader::default(), 0);
    let mut read_on = |on_line: &mut dyn FnMut(&str)| {
        let mut take = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            reader.push(bytes, on_line);
        };
        position = follow(&stderr, position, &mut take).map_err(invocation.wait_error())?;
        Ok::<(), ProcessError>(())
    };
    let exit = loop {
        if let Some(status) = child.try_wait().map_err(invocation.wait_error())? {
            break Exit::of(status);
        }
        let stopped = match timeout {
            _ if cancel.is_cancelled() => Some(Exit::Cancelled),
            Some(timeout) if start.elapsed() >= timeout => Some(Exit::TimedOut(timeout)),
            _ => None,
        };
        if let Some(stopped) = stopped {
            group.signal(Signal::KILL);
            child.wait().map_err(invocation.wait_error())?;
            break stopped;
        }
        read_on(on_line)?;
        std::thread::sleep(POLL);
    };
    drop(group);
    read_on(on_line)?;
    reader.finish(on_line);
    let mut out = Vec::new();
    follow(&stdout, 0, &mut |bytes| out.extend_from_slice(bytes)).map_err(invocation.wait_error())?;
    Ok(Captured { exit, stdout: lossy(&out), stderr: lossy(&text) })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
