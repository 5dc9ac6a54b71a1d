//! A forecast for people: a short block, aligned.

use super::power::{Detectable, Shown, Smallest};
use super::race::Race;
use super::rates::{Origin, Spread};
use super::tasks::{Source, Task};
use super::volume::Volume;
use super::{Forecast, Work};

/// Columns and tasks that are shown before the rest is counted.
const LINES: usize = 16;

/// The block.
pub fn text(forecast: &Forecast) -> String {
    let mut text = String::from("\nA run:\n");
    let mut line = |head: &str, said: String| text += &format!("  {head:<12}  {said}\n");
    let Forecast { work, volume, time, .. } = forecast;
    line("merges", merges(work, volume));
    if work.n_merges > 0 {
        line("bytes", moved(volume));
        line("disk", disk(volume));
    }
    let is_race = forecast.race.is_some() && work.n_evaluations > 0;
    let at_most = if is_race { "; at most, a race asks less" } else { "" };
    line("evaluations", format!("{}{at_most}", evaluations(work)));
    if work.n_evaluations > 0 {
        let mut head = "documents";
        for said in listed(forecast.tasks.iter().filter(|task| task.n_models > 0).map(documents).collect()) {
            line(head, said);
            head = "";
        }
    }
    if work.n_merges + work.n_evaluations > 0 {
        line("time", times(forecast));
        if let Some(hint) = time.all.is_none().then(|| hint(volume)).flatten() {
            line("", hint.to_owned());
        }
    }
    let race = forecast.race.as_ref().map(|(columns, race)| of_race(columns, race.as_ref())).unwrap_or_default();
    text + &race + &detectable(&forecast.detectable)
}

fn of_race(columns: &str, race: Option<&Race>) -> String {
    match race {
        Some(race) => race.text(columns),
        None => {
            format!("\nA search on {columns}: what it costs is known once the first run has counted the documents\n")
        }
    }
}

fn merges(work: &Work, volume: &Volume) -> String {
    let mut parts = vec![match work.n_merges {
        0 => "none to be made".to_owned(),
        1 => "1 to be made".to_owned(),
        n => format!("{n} to be made, in {}", counted(volume.n_passes, "pass", "passes")),
    }];
    if work.n_baselines > 0 {
        parts.push(format!("{} of them put a model and its adapter together", work.n_baselines));
    }
    if work.n_twins > 0 {
        parts.push(format!("{} taken over from a twin", work.n_twins));
    }
    if work.n_merges_reused > 0 {
        parts.push(format!("{} from earlier runs", work.n_merges_reused));
    }
    parts.join("; ")
}

fn moved(volume: &Volume) -> String {
    if volume.n_known == 0 {
        if let Some(why) = &volume.refused {
            return format!("unknown: {why}");
        }
        let absent: Vec<&str> = volume.absent.iter().map(String::as_str).take(3).collect();
        let more = volume.absent.len().saturating_sub(absent.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return format!("unknown: {}{more} not on this machine", absent.join(", "));
    }
    let known = if volume.is_known() {
        String::new()
    } else {
        format!("; of {} of {} merges, the size of the others is not known", volume.n_known, volume.n_merges)
    };
    format!("{} read, {} written{known}", bytes(volume.read), bytes(volume.written))
}

fn disk(volume: &Volume) -> String {
    if volume.n_known == 0 {
        return "unknown".to_owned();
    }
    let budget = volume.budget.map_or_else(|| "no budget".to_owned(), |budget| format!("budget {}", bytes(budget)));
    let free = volume.free.map(|free| format!(", {} free", bytes(free))).unwrap_or_default();
    let shortage = volume.shortage().map(|shortage| format!("; {shortage}")).unwrap_or_default();
    format!("at most {} of merged models at a time ({budget}{free}){shortage}", bytes(volume.peak))
}

fn evaluations(work: &Work) -> String {
    let reused = if work.n_reused > 0 { format!("; {} from earlier results", work.n_reused) } else { String::new() };
    if work.n_evaluations == 0 {
        return format!("none to be made{reused}");
    }
    let slots = if work.n_slots > 1 { format!(", {} at a time", work.n_slots) } else { String::new() };
    let calls = if work.n_calls > work.n_models { format!(" in {} calls", work.n_calls) } else { String::new() };
    format!("{} of {}{calls}{slots}{reused}", work.n_evaluations, counted(work.n_models, "model", "models"))
}

fn documents(task: &Task) -> String {
    let n = match (task.n_documents, task.n_total, task.source) {
        (None, ..) => "unknown number of documents".to_owned(),
        (Some(n), _, Source::Limit) => format!("{n} documents at most"),
        (Some(n), Some(total), _) if n < total => format!("{n} of {total} documents"),
        (Some(n), ..) => counted(usize::try_from(n).unwrap_or(usize::MAX), "document", "documents"),
    };
    let tokens = match (task.max_tokens, task.n_documents) {
        (Some(0), _) => "nothing generated".to_owned(),
        (Some(tokens), Some(n)) => format!("up to {} tokens generated", thousands(tokens * n)),
        (Some(tokens), None) => format!("up to {tokens} tokens generated for each"),
        (None, _) => "generated tokens unknown".to_owned(),
    };
    format!("{}: {n}, {tokens}; {}", task.name, counted(task.n_models, "model", "models"))
}

fn times(forecast: &Forecast) -> String {
    let Forecast { work, time, rates, .. } = forecast;
    let part = |spread: Option<Spread>, n: usize, what: &str, origin: Origin| match spread {
        _ if n == 0 => None,
        Some(spread) => Some(format!("{what} {} (by {})", range(spread), origin.in_words())),
        None => Some(format!("{what} unknown")),
    };
    let parts = [
        part(time.merges, work.n_merges, "merges", rates.merges.origin),
        part(time.evaluations, work.n_evaluations, "evaluations", time.origin),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match time.all.filter(|_| parts.len() > 1) {
        Some(all) => format!("{}: {}", range(all), parts.join(", ")),
        None => parts.join("; "),
    }
}

fn hint(volume: &Volume) -> Option<&'static str> {
    (volume.n_known > 0)
        .then_some("`plan --calibrate` measures merges, and evaluations on a few documents; the first run times both")
}

fn detectable(detectable: &Detectable) -> String {
    let Detectable { reference, n_comparisons, columns, .. } = detectable;
    if columns.is_empty() {
        return String::new();
    }
    let with = reference.as_ref().map(|name| format!(" with {name}")).unwrap_or_default();
    let shared = counted(*n_comparisons, "comparison", "comparisons");
    let mut text = format!(
        "\nSmallest differences that can be told from noise (power 80 %, level 5 % shared by {shared}{with}):\n"
    );
    let width = columns.iter().map(|shown| shown.column.chars().count()).max().unwrap_or_default();
    let lines = columns.iter().map(|shown| format!("{:width$}  {}", shown.column, smallest(shown))).collect();
    listed(lines).iter().for_each(|line| text += &format!("  {line}\n"));
    if columns.iter().any(|shown| shown.is_estimate) {
        text += "  tinyBenchmarks: in right answers; their score is an estimate made from these\n";
    }
    text
}

fn smallest(shown: &Shown) -> String {
    let n = shown.n.map(|n| format!("{n} documents: ")).unwrap_or_default();
    let points = |delta: &Option<f64>| {
        delta.map_or_else(|| "none".to_owned(), |delta| format!("{:.0} points", (100.0 * delta).ceil()))
    };
    match &shown.smallest {
        Smallest::Unknown => "unknown: nobody knows how many documents before the first run".to_owned(),
        Smallest::LaterKnown => format!("{n}depends on the spread, which is known after the first two trials"),
        Smallest::Spread(delta) => format!("{n}{delta:.4} (by the spread of earlier results)"),
        Smallest::Seen { psi, delta: None } => {
            format!("{n}none, as long as only {:.0} % of the answers differ (as in earlier results)", 100.0 * psi)
        }
        Smallest::Seen { psi, delta } => {
            format!("{n}{} ({:.0} % of the answers differ in earlier results)", points(delta), 100.0 * psi)
        }
        Smallest::Assumed(each) => match each {
            [_, (_, None), (_, None)] => format!("{n}none that is likely: too few documents"),
            [_, (_, None), (_, wide)] => {
                format!("{n}{} where 20 % of the answers differ; none where 10 %", points(wide))
            }
            [_, (_, usual), (_, wide)] => {
                format!("{n}{} where 10 % of the answers differ, {} where 20 %", points(usual), points(wide))
            }
        },
    }
}

fn listed(mut lines: Vec<String>) -> Vec<String> {
    let rest = lines.len().saturating_sub(LINES);
    if rest > 0 {
        lines.truncate(LINES);
        lines.push(format!("… and {rest} more (--json lists all)"));
    }
    lines
}

fn counted(n: usize, one: &str, several: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { several })
}

/// A size in decimal units, three digits.
pub fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    let (value, unit) = match bytes {
        bytes if bytes >= 1e12 => (bytes / 1e12, "TB"),
        bytes if bytes >= 1e9 => (bytes / 1e9, "GB"),
        bytes if bytes >= 1e6 => (bytes / 1e6, "MB"),
        bytes => (bytes / 1e3, "kB"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

/// `about 12 min (9 min to 20 min)`.
fn range(spread: Spread) -> String {
    let Spread { low, mean, high } = spread;
    let is_narrow = high <= low * 1.05 + 0.5;
    if is_narrow {
        format!("about {}", duration(mean))
    } else {
        format!("about {} ({} to {})", duration(mean), duration(low), duration(high))
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 9.95 => format!("{seconds:.1} s"),
        seconds if seconds < 99.5 => format!("{seconds:.0} s"),
        seconds if seconds < 5_970.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        seconds => format!("{:.1} days", seconds / 86_400.0),
    }
}

fn thousands(n: u64) -> String {
    match n {
        n if n < 10_000 => n.to_string(),
        n if n < 10_000_000 => format!("{:.0} thousand", n as f64 / 1e3),
        n => format!("{:.0} million", n as f64 / 1e6),
    }
}
