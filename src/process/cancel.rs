//! A wish to end, heard by everyone who works.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;

use super::Exit;

/// Longest time between two processes hearing of the end of the job that both belong to.
const MOMENT: Duration = Duration::from_secs(1);

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

    /// How a program ended. A batch system that ends a job sends SIGTERM to all its processes at once: a child may be gone
    /// before the wish to end is heard here.
    pub(super) async fn exit_of(&self, status: ExitStatus) -> Exit {
        let exit = Exit::of(status);
        let is_asked =
            exit == Exit::Signal(Signal::TERM.as_raw()) && tokio::time::timeout(MOMENT, self.cancelled()).await.is_ok();
        if is_asked { Exit::Cancelled } else { exit }
    }

    /// Waits until an end is asked for; for ever where nobody is left to ask.
    pub async fn cancelled(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
