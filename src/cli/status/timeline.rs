//! `mergesweep status --timeline`: the last run as a bar for each lane, its steps, and how its time was spent.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::plan::{Plan, TrialId};
use crate::run::timeline::{Lane, Shares, Timeline};

/// Columns that stand beside a bar.
const BESIDE: usize = 18;

/// For people; bars fill `width` columns.
pub(super) fn text(timeline: &Timeline, plan: &Plan, width: usize) -> String {
    let shares = timeline.shares();
    let width = width.clamp(40, 160) - BESIDE;
    let mut text = format!("last run: begun at {}, {:.0} s\n\n", clock(timeline.begun), timeline.seconds);
    for lane in timeline.lanes() {
        let share = match lane {
            Lane::Merge => shares.merge,
            Lane::Slot(slot) => shares.slots[slot],
        };
        line(&mut text, format_args!("{:<8} {} {:>5.1} %", name(lane), bar(timeline, lane, width), 100.0 * share));
    }
    let head = ["start s", "end s", "lane"];
    line(&mut text, format_args!("\n{:>9} {:>9}  {:<7}  trial", head[0], head[1], head[2]));
    for span in &timeline.spans {
        let (lane, trial) = (name(span.lane), trial(plan, &span.trial));
        line(&mut text, format_args!("{:>9.1} {:>9.1}  {lane:<7}  {trial}", span.start, span.end));
    }
    text.push('\n');
    in_words(&mut text, timeline, &shares);
    text
}

/// For programs.
pub(super) fn json(timeline: &Timeline, plan: &Plan) -> Json {
    let spans: Vec<Json> = timeline
        .spans
        .iter()
        .map(|span| json!({ "lane": name(span.lane), "trial": trial(plan, &span.trial), "start": span.start, "end": span.end }))
        .collect();
    json!({
        "begun": timeline.begun, "seconds": timeline.seconds, "slots": timeline.n_slots, "shares": timeline.shares(), "spans": spans,
    })
}

fn in_words(text: &mut String, timeline: &Timeline, shares: &Shares) {
    let percent = |share: f64| 100.0 * share;
    if timeline.n_slots > 1 {
        line(text, format_args!("all slots busy at once: {:.1} % of the time", percent(shares.all_slots)));
    }
    line(text, format_args!("a merge and an evaluation at once: {:.1} %", percent(shares.overlap)));
    line(text, format_args!("critical path of merges and evaluations: {:.1} %", percent(shares.critical_path)));
    line(text, format_args!("before it, looking around and preflight: {:.1} %", percent(shares.before)));
    let seconds = shares.overhead * timeline.seconds;
    line(
        text,
        format_args!(
            "between its steps and after it, orchestrator: {:.1} % ({seconds:.1} s)",
            percent(shares.overhead)
        ),
    );
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// A column is filled where the lane was busy for most of its time.
fn bar(timeline: &Timeline, lane: Lane, width: usize) -> String {
    let busy = timeline.busy(lane);
    let step = timeline.seconds / width as f64;
    let is_busy = |column: usize| {
        let (from, to) = (column as f64 * step, (column + 1) as f64 * step);
        let inside = busy.iter().map(|(start, end)| (end.min(to) - start.max(from)).max(0.0)).sum::<f64>();
        inside > step / 2.0
    };
    (0..width).map(|column| if is_busy(column) { '#' } else { '.' }).collect()
}

fn name(lane: Lane) -> String {
    match lane {
        Lane::Merge => "merge".to_owned(),
        Lane::Slot(slot) => format!("slot {slot}"),
    }
}

/// Its name, or its id where the spec has it no more.
fn trial(plan: &Plan, id: &TrialId) -> String {
    plan.trials.iter().find(|trial| trial.id == *id).map_or_else(|| id.0.clone(), |trial| trial.name.clone())
}

/// Time of day of UNIX seconds.
fn clock(time: f64) -> String {
    let seconds = time.max(0.0) as u64 % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
