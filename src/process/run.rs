//! Long work: one program, followed to its end.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::group::{Ending, Group};
use super::identity::Identity;
use super::lines::Reader;
use super::{Cancel, Finished, Invocation, Logs, ProcessError};

/// Runs a program to its end: output to the logs, every line of standard error (split at `\r` and `\n`) to `on_line`. A
/// progress bar is told as soon as it is drawn, though its line ends only with the next drawing.
///
/// On a time-out or cancellation the whole group gets SIGTERM, and SIGKILL after `grace`. Whatever the leader leaves
/// behind in its group is killed too.
///
/// # Errors
/// [`ProcessError`] when the program cannot be started or its log cannot be written. A program that fails is no error
/// here: see [`Finished::exit`].
pub async fn run(
    invocation: &Invocation,
    logs: &Logs,
    timeout: Option<Duration>,
    grace: Duration,
    cancel: &Cancel,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<Finished, ProcessError> {
    let start = Instant::now();
    let stdout = create_log(&logs.stdout)?;
    let mut log = create_log(&logs.stderr)?;
    let mut command = invocation.command();
    command.stdout(stdout).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().map_err(invocation.start_error())?;
    let group = Group::led_by(child.id());
    group.leader().and_then(Identity::of).map_or(Ok(()), |identity| identity.write(&logs.identity))?;

    let mut stderr = child.stderr.take();
    let mut reader = Reader::default();
    let mut take = |bytes: &[u8], on_line: &mut (dyn FnMut(&str) + Send)| {
        reader.push(bytes, on_line);
        log.write_all(bytes).map_err(|source| ProcessError::Log { path: logs.stderr.clone(), source })
    };
    let mut buffer = vec![0; 16 * 1024];
    let mut ending = Ending::new(timeout, grace);
    let status = loop {
        tokio::select! {
            n_bytes = read_some(&mut stderr, &mut buffer), if stderr.is_some() => match n_bytes {
                Ok(0) | Err(_) => stderr = None,
                Ok(n_bytes) => take(&buffer[..n_bytes], on_line)?,
            },
            status = child.wait() => break status.map_err(invocation.wait_error())?,
            () = ending.step(&group, cancel) => {}
        }
    };
    // Children that outlive the leader would keep the pipe open (and a GPU busy); after this, the pipe ends. Where there
    // are none, the group's id is free again, but only for an instant.
    drop(group);
    let drained = async {
        while let Ok(n_bytes @ 1..) = read_some(&mut stderr, &mut buffer).await {
            take(&buffer[..n_bytes], on_line)?;
        }
        Ok(())
    };
    if let Ok(result) = tokio::time::timeout(Duration::from_secs(2), drained).await {
        result?;
    }
    let tail = reader.finish(on_line);
    let exit = match ending.stopped() {
        Some(stopped) => stopped,
        None => cancel.exit_of(status).await,
    };
    Ok(Finished { exit, tail, duration: start.elapsed() })
}

pub(super) fn create_log(path: &Path) -> Result<File, ProcessError> {
    File::create(path).map_err(|source| ProcessError::Log { path: path.to_owned(), source })
}

async fn read_some(stderr: &mut Option<tokio::process::ChildStderr>, buffer: &mut [u8]) -> io::Result<usize> {
    match stderr {
        Some(stderr) => stderr.read(buffer).await,
        None => Ok(0),
    }
}
