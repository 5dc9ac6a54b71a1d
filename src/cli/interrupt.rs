//! Ctrl-C, SIGTERM and a closed terminal, for every command that works for long.

use tokio::signal::unix::{SignalKind, signal};

use crate::process::{self, Canceller};

/// First signal: say `what` is going to happen, and stop without losing anything. Second: stop at once. `say` writes a line,
/// `leave` clears the screen of what is drawn there.
pub(super) async fn stop_on_signal(canceller: Canceller, what: &str, say: impl Fn(&str), leave: impl Fn()) {
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
            say(&format!("stopping: {what} (again to stop at once)"));
            canceller.cancel();
        }
    }
    process::kill_all();
    leave();
    std::process::exit(130);
}
