//! How much of a long piece of work is done, on one line of a terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// The share done, in place; nothing where standard error is no terminal.
pub(super) struct Percent {
    doing: &'static str,
    shown: bool,
    last: AtomicU64,
}

impl Percent {
    pub(super) fn new(doing: &'static str, quiet: bool) -> Self {
        Self { doing, shown: !quiet && std::io::stderr().is_terminal(), last: AtomicU64::new(0) }
    }

    pub(super) fn show(&self, done: u64, total: u64) {
        let percent = done * 100 / total.max(1);
        if self.shown && self.last.fetch_max(percent, Ordering::Relaxed) < percent {
            // Nothing can be done about a closed standard error.
            let _ = write!(std::io::stderr(), "\r{} {percent:3} % of {}", self.doing, megabytes(total));
        }
    }

    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// A number of bytes for people.
pub(super) fn megabytes(n_bytes: u64) -> String {
    format!("{:.1} MB", n_bytes as f64 / 1e6)
}
