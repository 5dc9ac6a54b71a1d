//! The documented exit codes of the program.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for is done.
    Ok,
    /// Something failed that is no fault of the input: a full disk, a lost file, a bug.
    Internal,
    /// The command line, the spec or a model it names is wrong; nothing was run.
    Usage,
    /// The sweep went through, but some of its trials failed.
    TrialsFailed,
    /// The two models that were compared differ.
    Different,
    /// `check`: something became worse by more than its margin, or is missing.
    GateFailed,
    /// `check`: too few documents to tell.
    Inconclusive,
    /// Another run has the sweep's results; try again when it is done.
    Busy,
    /// Stopped by Ctrl-C or SIGTERM; what was finished is recorded, and the next run goes on from there.
    Interrupted,
}

/// The table of codes, as the help texts print it.
pub const HELP: &str = "\
Exit codes:
    0  everything asked for is done
    1  internal failure (disk, permissions, a bug)
    2  wrong command line, spec, config or model; nothing was run
    3  the sweep went through, but some trials failed
    4  the models compared are not equal
    5  the gate fails: something became worse by more than its margin, or is missing
    6  the gate is inconclusive: too few documents to tell
   75  another run has the sweep's results: try again later
  130  interrupted; finished work is recorded and the next run goes on from there";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Internal => 1,
            Exit::Usage => 2,
            Exit::TrialsFailed => 3,
            Exit::Different => 4,
            Exit::GateFailed => 5,
            Exit::Inconclusive => 6,
            Exit::Busy => 75,
            Exit::Interrupted => 130,
        })
    }
}
