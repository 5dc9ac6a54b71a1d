//! Other programs: the only place that starts one.
//!
//! [`run`] is for long work: own process group, output to log files, standard error also line by line to a callback,
//! time-out and cancellation, and no orphan when its future is dropped. [`capture`] is for questions: it blocks, and
//! gives back what the program wrote. What a program's output means is for the caller to say.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

/// How long a program may take to end after SIGTERM, before SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);

/// How many lines of standard error are kept for a report.
pub const TAIL_LINES: usize = 60;

/// A line longer than this is cut into several: a program that never ends a line must not fill memory.
const LONGEST_LINE: usize = 64 * 1024;

/// How often [`capture`] looks whether its program has ended.
const POLL: Duration = Duration::from_millis(20);

/// What is started: program, arguments, folder and environment on top of the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The program: a path, or a name looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Working directory, where it is not the caller's.
    pub folder: Option<PathBuf>,
    /// Variables set on top of the caller's.
    pub environment: Vec<(String, String)>,
    /// Variables of the caller that the program must not see.
    pub without: Vec<String>,
}

/// Where the output of [`run`] goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Standard output.
    pub stdout: PathBuf,
    /// Standard error.
    pub stderr: PathBuf,
    /// Who the process is, for [`end_orphans`]: written when it has started.
    pub identity: PathBuf,
}

impl Logs {
    /// In a folder of the process's own.
    pub fn of(folder: &Path) -> Self {
        Self {
            stdout: folder.join("stdout.log"),
            stderr: folder.join("stderr.log"),
            identity: folder.join("process.json"),
        }
    }
}

/// Who a process is. Its number alone says little: numbers are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Its number, which is also that of its group.
    pid: i32,
    /// When it started, in clock ticks of this boot.
    started: u64,
    /// This boot of this machine.
    boot: String,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal that did not come from here.
    Signal(i32),
    /// Stopped after this time.
    TimedOut(Duration),
    /// Stopped because the user wished so.
    Cancelled,
}

/// A program that [`run`] has seen to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Last lines of standard error, oldest first. A line redrawn with a carriage return counts once.
    pub tail: Vec<String>,
    /// Wall time.
    pub duration: Duration,
}

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

/// A program that could not be started or followed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Not started.
    #[error("cannot start `{}`: {source}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its log cannot be written.
    #[error("cannot write the log `{}`: {source}", .path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its end or its output cannot be waited for.
    #[error("lost track of `{}`: {source}", .program.display())]
    Wait {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The side that asks for an end.
#[derive(Debug)]
pub struct Canceller(watch::Sender<bool>);

/// The side that listens for it. Clones hear the same wish.
#[derive(Debug, Clone)]
pub struct Cancel(watch::Receiver<bool>);

/// A fresh pair of both sides.
pub fn cancellation() -> (Canceller, Cancel) {
    let (sender, receiver) = watch::channel(false);
    (Canceller(sender), Cancel(receiver))
}

impl Canceller {
    /// Asks every listener to end. Cannot be taken back.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// A listener that never hears anything.
    pub fn never() -> Self {
        cancellation().1
    }

    /// Whether an end was asked for.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until an end is asked for; for ever where nobody is left to ask.
    pub async fn cancelled(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Exit {
    /// Whether the program ended by itself with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name} (signal {signal})"),
                None => write!(f, "killed by signal {signal}"),
            },
            Self::TimedOut(limit) => write!(f, "stopped after the time limit of {} s", limit.as_secs_f64()),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

impl Invocation {
    /// A program with arguments, in the caller's folder and environment.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            folder: None,
            environment: Vec::new(),
            without: Vec::new(),
        }
    }

    fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).process_group(0);
        self.folder.iter().for_each(|folder| {
            command.current_dir(folder);
        });
        for name in &self.without {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn start_error(&self) -> impl FnOnce(io::Error) -> ProcessError + use<> {
        let program = self.program.clone();
        move |source| ProcessError::Start { program, source }
    }

    fn wait_error(&self) -> impl FnOnce(io::Error) -> ProcessError + use<> {
        let program = self.program.clone();
        move |source| ProcessError::Wait { program, source }
    }
}

/// A process group, killed when this is dropped: a time-out inside a task, a future that is given up or a leader that
/// ends before its children leaves no orphan.
struct Group(Option<Pid>);

/// Groups that are alive, for [`kill_all`].
static LIVE: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills everything that was started here and runs: before leaving in a hurry, when nothing is dropped.
pub fn kill_all() {
    for group in LIVE.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // The group may be gone already, which is what is wanted.
        let _ = kill_process_group(*group, Signal::KILL);
    }
}

impl Group {
    fn led_by(id: Option<u32>) -> Self {
        let group = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).extend(group);
        Self(group)
    }

    fn signal(&self, signal: Signal) {
        // The group may be gone already, which is what is wanted.
        let _ = self.0.map(|group| kill_process_group(group, signal));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).retain(|group| Some(*group) != self.0);
    }
}

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
    if let Some(identity) = group.0.and_then(identity_of) {
        // Two numbers and a text are always JSON.
        let text = serde_json::to_vec(&identity).unwrap_or_default();
        fs::write(&logs.identity, text).map_err(|source| ProcessError::Log { path: logs.identity.clone(), source })?;
    }

    let mut stderr = child.stderr.take();
    let mut lines = Lines::default();
    let mut tail = Tail::default();
    let mut tell = |line: &str, told: Told| {
        if let Told::Whole { redrawn, .. } = told {
            tail.push(line, redrawn);
        }
        if !matches!(told, Told::Whole { again: true, .. }) {
            on_line(line);
        }
    };
    let mut take = |bytes: &[u8]| {
        lines.push(bytes, &mut tell);
        log.write_all(bytes).map_err(|source| ProcessError::Log { path: logs.stderr.clone(), source })
    };

    let mut buffer = vec![0; 16 * 1024];
    let mut stopped = None;
    let mut next_step = timeout.map(|timeout| start + timeout);
    let status = loop {
        tokio::select! {
            n_bytes = read_some(&mut stderr, &mut buffer), if stderr.is_some() => match n_bytes {
                Ok(0) | Err(_) => stderr = None,
                Ok(n_bytes) => take(&buffer[..n_bytes])?,
            },
            status = child.wait() => break status.map_err(invocation.wait_error())?,
            () = cancel.cancelled(), if stopped.is_none() => {
                stopped = Some(Exit::Cancelled);
                group.signal(Signal::TERM);
                next_step = Some(Instant::now() + grace);
            }
            () = sleep_until(next_step) => {
                if stopped.is_none() {
                    stopped = timeout.map(Exit::TimedOut);
                    group.signal(Signal::TERM);
                    next_step = Some(Instant::now() + grace);
                } else {
                    group.signal(Signal::KILL);
                    next_step = None;
                }
            }
        }
    };
    // Children that outlive the leader would keep the pipe open (and a GPU busy); after this, the pipe ends. Where there
    // are none, the group's id is free again, but only for an instant.
    drop(group);
    let drained = async {
        while let Ok(n_bytes @ 1..) = read_some(&mut stderr, &mut buffer).await {
            take(&buffer[..n_bytes])?;
        }
        Ok(())
    };
    if let Ok(result) = tokio::time::timeout(Duration::from_secs(2), drained).await {
        result?;
    }
    lines.finish(&mut tell);
    Ok(Finished {
        exit: stopped.unwrap_or_else(|| Exit::of(status)),
        tail: tail.lines.into(),
        duration: start.elapsed(),
    })
}

/// Fields of `/proc/PID/stat` that say whose a process is: its group, and when it started.
fn group_and_start(pid: i32) -> Option<(i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    // A zombie has ended; only its parent has not looked yet.
    fields.first().filter(|state| **state != "Z")?;
    Some((fields.get(2)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

fn boot() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

fn identity_of(leader: Pid) -> Option<Identity> {
    let pid = leader.as_raw_nonzero().get();
    Some(Identity { pid, started: group_and_start(pid)?.1, boot: boot()? })
}

/// Members of the group that a process led, also after its own end.
fn members(identity: &Identity) -> Vec<i32> {
    if boot().as_ref() != Some(&identity.boot) {
        return Vec::new();
    }
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        group_and_start(*pid).is_some_and(|(group, started)| group == identity.pid && started >= identity.started)
    })
    .collect()
}

/// Ends what is left of a process whose program was killed before it could do so: the whole group, first asked, after
/// `grace` made to. Says whether there was anything. `identity` is the file that [`run`] wrote.
pub fn end_orphans(identity: &Path, grace: Duration) -> bool {
    let read = fs::read(identity).ok().and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
    let Some(identity) = read.filter(|identity| identity.pid > 1) else { return false };
    if members(&identity).is_empty() {
        return false;
    }
    let group = Pid::from_raw(identity.pid);
    for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, grace)] {
        // A group that is gone meanwhile is what is wanted.
        let _ = group.map(|group| kill_process_group(group, signal));
        let asked = Instant::now();
        while asked.elapsed() < patience {
            if members(&identity).is_empty() {
                return true;
            }
            std::thread::sleep(POLL);
        }
    }
    true
}

fn create_log(path: &Path) -> Result<File, ProcessError> {
    File::create(path).map_err(|source| ProcessError::Log { path: path.to_owned(), source })
}

async fn read_some(stderr: &mut Option<tokio::process::ChildStderr>, buffer: &mut [u8]) -> io::Result<usize> {
    match stderr {
        Some(stderr) => stderr.read(buffer).await,
        None => Ok(0),
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
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

    let mut text = Vec::new();
    let mut lines = Lines::default();
    let mut follow = |on_line: &mut dyn FnMut(&str)| {
        let n_seen = text.len();
        read_from(&stderr, n_seen, &mut text).map(|()| lines.push(&text[n_seen..], &mut once(on_line)))
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
        follow(on_line).map_err(invocation.wait_error())?;
        std::thread::sleep(POLL);
    };
    drop(group);
    follow(on_line).map_err(invocation.wait_error())?;
    lines.finish(&mut once(on_line));
    let mut out = Vec::new();
    read_from(&stdout, 0, &mut out).map_err(invocation.wait_error())?;
    Ok(Captured { exit, stdout: lossy(&out), stderr: lossy(&text) })
}

/// Passes on every text once.
fn once(on_line: &mut dyn FnMut(&str)) -> impl FnMut(&str, Told) {
    |line, told| {
        if !matches!(told, Told::Whole { again: true, .. }) {
            on_line(line);
        }
    }
}

/// Appends what stands in a file from `offset` on. Positioned reads, since the child that writes the file shares its
/// offset.
fn read_from(file: &File, offset: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let mut position = offset as u64;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match file.read_at(&mut buffer, position)? {
            0 => return Ok(()),
            n_bytes => {
                into.extend_from_slice(&buffer[..n_bytes]);
                position += n_bytes as u64;
            }
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes cut into lines at `\r` and `\n`.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    /// Whether the line in the making stands after a `\r`: a progress bar, which ends its line only when it draws the
    /// next one.
    is_drawn: bool,
    /// How many bytes of it were shown already.
    n_shown: usize,
}

/// What is told of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It is whole.
    Whole {
        /// It ended in `\r`: the next one is drawn over it.
        redrawn: bool,
        /// The same text was told before as a drawing.
        again: bool,
    },
    /// It is a progress bar as it stands; its end is still to come.
    Drawing,
}

impl Lines {
    /// Tells every line that the bytes end, then what is drawn at the end of them.
    fn push(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str, Told)) {
        for &byte in bytes {
            if byte == b'\r' || byte == b'\n' {
                self.end(byte == b'\r', tell);
                self.is_drawn = byte == b'\r';
            } else {
                self.partial.push(byte);
                if self.partial.len() >= LONGEST_LINE {
                    self.end(false, tell);
                }
            }
        }
        if self.is_drawn && self.partial.len() > self.n_shown {
            self.n_shown = self.partial.len();
            tell(&String::from_utf8_lossy(&self.partial), Told::Drawing);
        }
    }

    fn finish(&mut self, tell: &mut dyn FnMut(&str, Told)) {
        if !self.partial.is_empty() {
            self.end(false, tell);
        }
    }

    fn end(&mut self, redrawn: bool, tell: &mut dyn FnMut(&str, Told)) {
        let again = self.n_shown > 0 && self.n_shown == self.partial.len();
        tell(&String::from_utf8_lossy(&self.partial), Told::Whole { redrawn, again });
        self.partial.clear();
        self.n_shown = 0;
    }
}

/// The last lines, as a terminal would show them.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    last_is_redrawn: bool,
}

impl Tail {
    fn push(&mut self, line: &str, redrawn: bool) {
        if line.trim().is_empty() {
            // Nothing is drawn over by nothing; a newline makes what stands there final.
            self.last_is_redrawn &= redrawn;
            return;
        }
        if self.last_is_redrawn {
            self.lines.pop_back();
        } else if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
        self.last_is_redrawn = redrawn;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut lines, mut tail, mut seen) = (Lines::default(), Tail::default(), Vec::new());
        let mut tell = |line: &str, told| {
            if let Told::Whole { redrawn, .. } = told {
                tail.push(line, redrawn);
            }
            if !matches!(told, Told::Whole { again: true, .. }) {
                seen.push(line.to_owned());
            }
        };
        chunks.iter().for_each(|chunk| lines.push(chunk.as_bytes(), &mut tell));
        lines.finish(&mut tell);
        (seen, tail.lines.into())
    }

    #[test]
    fn a_progress_bar_is_told_as_soon_as_it_is_drawn_and_only_once() {
        let (seen, tail) = lines(&["start\n\r 0%", "\r 50", "%\n", "end"]);
        assert_eq!(seen, ["start", "", " 0%", " 50", " 50%", "end"]);
        assert_eq!(tail, ["start", " 50%", "end"]);
    }

    #[test]
    fn lines_end_at_carriage_returns_and_newlines_wherever_the_chunks_do() {
        let (seen, tail) = lines(&["a\n", "\r 0", "%\r 50%\r 100%\nError: x"]);
        assert_eq!(seen, ["a", "", " 0", " 0%", " 50%", " 100%", "Error: x"]);
        assert_eq!(tail, ["a", " 100%", "Error: x"]);
    }

    #[test]
    fn the_tail_is_bounded() {
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let (_, tail) = lines(&[&text]);
        assert_eq!((tail.len(), tail[0].as_str(), tail[TAIL_LINES - 1].as_str()), (TAIL_LINES, "line 940", "line 999"));
    }

    #[test]
    fn exits_are_told_in_words() {
        assert_eq!(Exit::Code(2).to_string(), "exit code 2");
        assert_eq!(Exit::Signal(9).to_string(), "killed by SIGKILL (signal 9)");
        assert_eq!(Exit::TimedOut(Duration::from_millis(1500)).to_string(), "stopped after the time limit of 1.5 s");
    }
}
