//! Who a process is, for the next run: what a killed program left behind is told from a stranger with the same number.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::{POLL, ProcessError};

/// Who a process is. Its number alone says little: numbers are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its number, which is also that of its group.
    pid: i32,
    /// When it started, in clock ticks of this boot.
    started: u64,
    /// This boot of this machine.
    boot: String,
    /// The space that its number belongs to: containers count anew.
    #[serde(default)]
    namespace: String,
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

fn namespace() -> Option<String> {
    Some(fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned())
}

impl Identity {
    /// Of the process that leads a group, while it lives.
    pub fn of(leader: Pid) -> Option<Self> {
        let pid = leader.as_raw_nonzero().get();
        Some(Self { pid, started: group_and_start(pid)?.1, boot: boot()?, namespace: namespace()? })
    }

    /// Writes it where [`end_orphans`] will look.
    pub fn write(&self, path: &Path) -> Result<(), ProcessError> {
        // Two numbers and a text are always JSON.
        let text = serde_json::to_vec(self).unwrap_or_default();
        fs::write(path, text).map_err(|source| ProcessError::Log { path: path.to_owned(), source })
    }
}

/// Members of the group that a process led, also after its own end.
fn members(identity: &Identity) -> Vec<i32> {
    if boot().as_ref() != Some(&identity.boot) || namespace().as_ref() != Some(&identity.namespace) {
        return Vec::new();
    }
    // A number is not used again while there is a group of it: where another process has it, the group is that one's.
    if group_and_start(identity.pid).is_some_and(|(_, started)| started != identity.started) {
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
/// `grace` made to. Says whether there was anything. `identity` is the file that was written
/// when it started.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_known_by_more_than_its_number() {
        let group = rustix::process::getpgrp();
        let Some(own) = Identity::of(group) else { return };
        assert!(!members(&own).is_empty());
        for stranger in [
            Identity { started: own.started - 1, ..own.clone() },
            Identity { boot: String::new(), ..own.clone() },
            Identity { namespace: "pid:[1]".to_owned(), ..own.clone() },
        ] {
            assert!(members(&stranger).is_empty(), "{stranger:?}");
        }
    }
}
