//! What searches recorded and asked, and searches that are killed at random moments.
//!
//! `MERGESWEEP_SEARCH_KILLS` says how many kills of each kind of search must land (8 here, 50 in `scripts/soak`).

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::sweep_support::Sweep;

/// Records of a journal.
pub fn records(sweep: &Sweep) -> Vec<Json> {
    sweep.journal().lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a search drew, decided, saw and placed, in order, without the moments at which it did.
pub fn decisions(sweep: &Sweep) -> Vec<Json> {
    let decided = records(sweep).into_iter().filter(|record| record["event"].as_str().unwrap().starts_with("search-"));
    decided
        .map(|mut record| {
            record.as_object_mut().unwrap().remove("time");
            record
        })
        .collect()
}

/// How often every document was asked of every model: lines of the harness' log.
pub fn asked(sweep: &Sweep) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(sweep.path("evaluated.log")).unwrap_or_default();
    let mut asked = BTreeMap::new();
    log.lines()
        .filter(|line| line.starts_with("asked "))
        .for_each(|line| *asked.entry(line.to_owned()).or_default() += 1);
    asked
}

pub fn assert_asked_once(sweep: &Sweep) {
    let asked = asked(sweep);
    assert!(!asked.is_empty() && asked.values().all(|n| *n == 1), "{:?}", asked.iter().find(|(_, n)| **n > 1));
}

/// How many kills must land.
pub fn n_kills() -> usize {
    std::env::var("MERGESWEEP_SEARCH_KILLS").ok().map_or(8, |text| text.parse().unwrap())
}

/// Kills runs of sweeps until enough were hit, goes on with each until it is through, looks at it then, and tells how many there
/// were. An undisturbed run took `whole`.
pub fn kill_often(
    whole: Duration,
    new: &dyn Fn() -> Sweep,
    run: &dyn Fn(&Sweep) -> Command,
    check: &dyn Fn(&Sweep),
) -> String {
    let (n_kills, mut n_landed, mut n_sweeps) = (n_kills(), 0, 0);
    let mut seed: u64 = 7;
    while n_landed < n_kills {
        let sweep = new();
        loop {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let share = (seed >> 40) as f64 / (1_u64 << 24) as f64;
            let patience = if n_landed < n_kills { whole.mul_f64(0.5 * share) } else { Duration::from_secs(300) };
            if !killed_after(&sweep, run(&sweep), patience) {
                break;
            }
            n_landed += 1;
        }
        check(&sweep);
        n_sweeps += 1;
    }
    format!("{n_landed} kills in {n_sweeps} searches; an undisturbed one took {whole:.1?}")
}

/// Runs until killed (true) or through (false).
fn killed_after(sweep: &Sweep, mut command: Command, patience: Duration) -> bool {
    let told = fs::File::create(sweep.path("stderr.log")).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(told).spawn().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}: {}", fs::read_to_string(sweep.path("stderr.log")).unwrap());
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}
