//! A program that stays: it is asked for one piece of work after the other, a line in for each and a line out, and writes
//! the logs of each where it is told to.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::follow::follow;
use super::group::{Ending, Group};
use super::identity::Identity;
use super::lines::Reader;
use super::run::create_log;
use super::{Cancel, Exit, Invocation, Logs, ProcessError};

/// How often the log of a piece of work is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// A program that stays. It is killed with its children when this is dropped.
pub struct Worker {
    invocation: Invocation,
    child: Child,
    group: Group,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What came of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The answer; or how the program ended without one, and then there is nobody left to ask.
    pub answer: Result<String, Exit>,
    /// Last lines of the log, oldest first.
    pub tail: Vec<String>,
    /// Wall time.
    pub duration: Duration,
}

impl Worker {
    /// Starts a program that reads questions from standard input and answers on standard output. Until it says otherwise
    /// its standard error goes to `log`, a new file.
    ///
    /// # Errors
    /// [`ProcessError`] when it cannot be started.
    pub fn start(invocation: &Invocation, log: &Path) -> Result<Self, ProcessError> {
        let mut command = invocation.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(create_log(log)?);
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().map_err(invocation.start_error())?;
        let group = Group::led_by(child.id());
        let closed = || invocation.start_error()(io::ErrorKind::BrokenPipe.into());
        let stdin = child.stdin.take().ok_or_else(closed)?;
        let stdout = child.stdout.take().ok_or_else(closed)?;
        let answers = BufReader::new(stdout).lines();
        Ok(Self { invocation: invocation.clone(), child, group, stdin, answers })
    }

    /// What was started.
    pub fn invocation(&self) -> &Invocation {
        &self.invocation
    }

    /// Asks for a piece of work and waits for the answer; lines that the program writes to `logs.stderr` meanwhile, where
    /// the question must send it, go to `on_line`. On a time-out or cancellation it is ended as by [`super::run`].
    ///
    /// # Errors
    /// [`ProcessError`] when a log cannot be written or read. A program that ends is no error: see [`Reply::answer`].
    pub async fn ask(
        &mut self,
        question: &str,
        logs: &Logs,
        timeout: Option<Duration>,
        grace: Duration,
        cancel: &Cancel,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Reply, ProcessError> {
        let start = Instant::now();
        let log = open_log(&logs.stderr)?;
        self.group.leader().and_then(Identity::of).map_or(Ok(()), |identity| identity.write(&logs.identity))?;
        // A program that has ended cannot be written to; that it has is seen below.
        let _ = self.stdin.write_all(format!("{question}\n").as_bytes()).await;

        let (mut reader, mut position) = (Reader::default(), 0);
        let read_error = |source| ProcessError::Log { path: logs.stderr.clone(), source };
        let mut ending = Ending::new(timeout, grace);
        let answer = loop {
            tokio::select! {
                biased;
                () = ending.step(&self.group, cancel) => {}
                answered = next(&mut self.answers, &mut self.child) => match answered {
                    Answered::Line(line) => break ending.stopped().map_or(Ok(line), Err),
                    Answered::Ended(status) => {
                        let status = status.map_err(self.invocation.wait_error())?;
                        break Err(match ending.stopped() {
                            Some(stopped) => stopped,
                            None => cancel.exit_of(status).await,
                        });
                    }
                },
                () = tokio::time::sleep(INTERVAL) => {
                    position = follow(&log, position, &mut |bytes| reader.push(bytes, on_line)).map_err(read_error)?;
                }
            }
        };
        // What is written before the answer is in the file before the answer comes.
        follow(&log, position, &mut |bytes| reader.push(bytes, on_line)).map_err(read_error)?;
        Ok(Reply { answer, tail: reader.finish(on_line), duration: start.elapsed() })
    }

    /// Kills the program with its children and waits until it is gone.
    pub async fn end(mut self) {
        self.group.signal(Signal::KILL);
        // One that is gone already is what is wanted.
        let _ = self.child.wait().await;
    }
}

/// The next thing heard of a program.
enum Answered {
    Line(String),
    Ended(io::Result<ExitStatus>),
}

/// Waits for an answer, or for the end of a program that closed its side. May be dropped while it waits.
async fn next(answers: &mut Lines<BufReader<ChildStdout>>, child: &mut Child) -> Answered {
    match answers.next_line().await {
        Ok(Some(line)) => Answered::Line(line),
        Ok(None) | Err(_) => Answered::Ended(child.wait().await),
    }
}

/// The log of a piece of work: the program appends to it.
fn open_log(path: &Path) -> Result<File, ProcessError> {
    let opened = File::options().create(true).append(true).read(true).open(path);
    opened.map_err(|source| ProcessError::Log { path: path.to_owned(), source })
}
