//! Process groups that were started here: how they are ended, and that none outlives whoever started it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Cancel, Exit};

/// A process group, killed when this is dropped: a time-out inside a task, a future that is given up or a leader that
/// ends before its children leaves no orphan.
pub(super) struct Group(Option<Pid>);

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
    pub fn led_by(id: Option<u32>) -> Self {
        let group = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).extend(group);
        Self(group)
    }

    pub fn leader(&self) -> Option<Pid> {
        self.0
    }

    pub fn signal(&self, signal: Signal) {
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

/// The end of a program before its own time: on a time-out or a cancellation the group is asked, after a grace made to.
pub(super) struct Ending {
    timeout: Option<Duration>,
    grace: Duration,
    stopped: Option<Exit>,
    next_step: Option<Instant>,
}

impl Ending {
    pub fn new(timeout: Option<Duration>, grace: Duration) -> Self {
        Self { timeout, grace, stopped: None, next_step: timeout.map(|timeout| Instant::now() + timeout) }
    }

    /// Waits for the moment of the next step, and takes it. May be dropped while it waits.
    pub async fn step(&mut self, group: &Group, cancel: &Cancel) {
        let is_stopped = self.stopped.is_some();
        tokio::select! {
            () = cancel.cancelled(), if !is_stopped => self.ask(group, Exit::Cancelled),
            () = sleep_until(self.next_step) => match self.timeout {
                Some(timeout) if !is_stopped => self.ask(group, Exit::TimedOut(timeout)),
                _ => {
                    group.signal(Signal::KILL);
                    self.next_step = None;
                }
            },
        }
    }

    /// Why the program was stopped, if it was.
    pub fn stopped(&self) -> Option<Exit> {
        self.stopped
    }

    fn ask(&mut self, group: &Group, why: Exit) {
        self.stopped = Some(why);
        group.signal(Signal::TERM);
        self.next_step = Some(Instant::now() + self.grace);
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
