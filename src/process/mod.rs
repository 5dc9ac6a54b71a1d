//! Other programs: the only place that starts one.
//!
//! [`run`] is for long work: own process group, output to log files, standard error also line by line to a callback,
//! time-out and cancellation, and no orphan when its future is dropped. A [`Worker`] stays for many pieces of such work.
//! [`attend`] is for a program that takes the caller's place at its input and output. [`capture`] is for questions: it blocks, and gives back what the program wrote. What a program's output means is for
//! the caller to say.

mod attend;
mod cancel;
mod capture;
mod follow;
mod group;
mod identity;
mod lines;
mod run;
mod worker;

use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

pub use attend::attend;
pub use cancel::{Cancel, Canceller, cancellation};
pub use capture::{Captured, capture};
pub use group::kill_all;
pub use identity::end_orphans;
pub use lines::TAIL_LINES;
pub use run::run;
pub use worker::{Reply, Worker};

/// How long a program may take to end after SIGTERM, before SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);

/// How often the end of a program is looked for where nothing tells of it.
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
    /// Who the process is, for [`end_orphans`].
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
    /// It stays, and says what nobody asked.
    #[error("`{}` gave an answer that is none: {line}", .program.display())]
    Answer {
        /// The program.
        program: PathBuf,
        /// What it said.
        line: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_in_words() {
        assert_eq!(Exit::Code(2).to_string(), "exit code 2");
        assert_eq!(Exit::Signal(9).to_string(), "killed by SIGKILL (signal 9)");
        assert_eq!(Exit::TimedOut(Duration::from_millis(1500)).to_string(), "stopped after the time limit of 1.5 s");
    }
}
