//! Ctrl-C, SIGTERM and a closed terminal, for every command that works for long.

use tokio::signal::unix::{SignalKind, signal};

use anyhow::Context;
use tokio::runtime::Runtime;

use super::{Failure, warn};
use crate::process::{self, Cancel, Canceller, cancellation};

/// A runtime in which work goes on until it is done or a signal asks for its end.
pub(super) struct Session {
    pub runtime: Runtime,
    pub cancel: Cancel,
}

impl Session {
    /// Listens for signals from now on; `what` is going to happen at the first one.
    pub fn begin(what: &'static str) -> Result<Self, Failure> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
        let (canceller, cancel) = cancellation();
        runtime.spawn(stop_on_signal(canceller, what));
        Ok(Self { runtime, cancel })
    }
}

/// First signal: say `what` is going to happen, and stop without losing anything. Second: stop at once.
pub(super) async fn stop_on_signal(canceller: Canceller, what: &str) {
    let listen = |kind| signal(kind).ok();
    let (Some(mut interrupt), Some(mut terminate), Some(mut hangup)) =
        (listen(SignalKind::interrupt()), listen(SignalKind::terminate()), listen(SignalKind::hangup()))
    else {
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if first {
            warn(&format!("stopping: {what} (again to stop at once)"));
            canceller.cancel();
        }
    }
    process::kill_all();
    std::process::exit(130);
}
