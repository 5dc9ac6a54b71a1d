//! Ctrl-C, SIGTERM and a closed terminal, for every command that works for long.

use tokio::signal::unix::{SignalKind, signal};

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::runtime::Runtime;

use super::{Failure, warn};
use crate::console::Console;
use crate::process::{self, Cancel, Canceller, cancellation};

/// A runtime in which work goes on until it is done or a signal asks for its end.
pub(super) struct Session {
    pub runtime: Runtime,
    pub cancel: Cancel,
    screen: Screen,
}

/// What draws on the terminal now.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Option<Arc<Console>>>>);

impl Screen {
    fn console(&self) -> Option<Arc<Console>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Session {
    /// Listens for signals from now on; `what` is going to happen at the first one.
    pub fn begin(what: &'static str) -> Result<Self, Failure> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
        let (canceller, cancel) = cancellation();
        let screen = Screen::default();
        let (told, left) = (screen.clone(), screen.clone());
        let say = move |line: &str| told.console().map_or_else(|| warn(line), |console| console.tell(line));
        let leave = move || left.console().iter().for_each(|console| console.finish());
        runtime.spawn(stop_on_signal(canceller, what, say, leave));
        Ok(Self { runtime, cancel, screen })
    }

    /// Lets the display that draws from now on say what signals do.
    pub fn show_on(&self, console: &Arc<Console>) {
        *self.screen.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(console.clone());
    }
}

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
