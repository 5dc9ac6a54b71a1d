//! Ctrl-C, SIGTERM and a closed terminal, for every command that works for long.

use tokio::signal::unix::{SignalKind, signal};

use super::warn;
use crate::process::{self, Canceller};

/// First signal: say `what` is going to happen, and stop without losing anything. Second: stop at once.
pub(super) async fn stop_on_signal(canceller: Canceller, what: &str) {
    stop(canceller, Some(what)).await;
}

/// The same without a word, in a process that another one attends.
pub(super) async fn stop_quietly(canceller: Canceller) {
    stop(canceller, None).await;
}

async fn stop(canceller: Canceller, what: Option<&str>) {
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
            if let Some(what) = what {
                warn(&format!("stopping: {what} (again to stop at once)"));
            }
            canceller.cancel();
        }
    }
    process::kill_all();
    std::process::exit(130);
}
