//! A probe for people: a few aligned lines.

use super::kinship::{Kind, Meeting, Pair};
use super::models::Model;
use super::near::{Apart, Group, Near};
use super::{Extent, Probe};
use crate::plan::Plan;

/// Lines of one kind that are shown before the rest is counted.
const LINES: usize = 12;

/// Names that are listed before the rest is counted.
const NAMES: usize = 6;

/// The whole of it.
pub fn text(probe: &Probe, plan: &Plan) -> String {
    let mut text = String::new();
    let mut section = |head: String, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        let rest = lines.len().saturating_sub(LINES);
        text += &format!("\n{head}\n");
        lines.iter().take(LINES).for_each(|line| text += &format!("  {line}\n"));
        if rest > 0 {
            text += &format!("  … and {rest} more (--json lists all)\n");
        }
    };
    section(format!("Models{}:", extent(&probe.extent)), models(probe));
    let of_kind = |kind: Kind| probe.kinship.pairs.iter().filter(move |pair| pair.kind == kind && pair.n_tensors > 0);
    let name = |place: usize| probe.models[place].name.as_str();
    section(
        "Distance from the base, relative:".to_owned(),
        of_kind(Kind::Base).map(|pair| descent(pair, &name)).collect(),
    );
    let met: Vec<&Meeting> = probe.kinship.meetings.iter().filter(|meeting| meeting.ratio().is_some()).collect();
    section("How changes of the base meet:".to_owned(), met.into_iter().flat_map(|one| meeting(one, &name)).collect());
    section("Near twins:".to_owned(), near(probe, plan));
    section("Also:".to_owned(), probe.notes.clone());
    text
}

fn extent(extent: &Extent) -> String {
    let Extent { n_tensors, n_all, n_numbers, is_cut } = extent;
    if *n_tensors == 0 {
        return String::new();
    }
    let cut = if *is_cut { "; the time was over before more" } else { "" };
    format!(
        " (rows of {n_tensors} of {n_all} tensors, {:.1} million numbers of each model{cut})",
        *n_numbers as f64 / 1e6
    )
}

fn models(probe: &Probe) -> Vec<String> {
    let width = probe.models.iter().map(|model| model.name.chars().count()).max().unwrap_or_default();
    let mut lines: Vec<String> =
        probe.models.iter().map(|model| format!("{:width$}  {}", model.name, about(model))).collect();
    if !probe.absent.is_empty() {
        lines.push(format!("not on this machine, and not looked at: {}", probe.absent.join(", ")));
    }
    lines
}

fn about(model: &Model) -> String {
    let checkpoint = &model.source.checkpoint;
    let mut parts = vec![
        checkpoint.architecture().unwrap_or("unknown architecture").to_owned(),
        format!("{} layers", model.source.architecture.n_layers),
        format!("{:.1} M parameters", model.n_parameters() as f64 / 1e6),
        model.dtypes().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
    ];
    parts.extend(model.tokenizer.as_ref().map(|tokenizer| format!("{} tokens", tokenizer.n_ids())));
    parts.extend(model.has_head().map(|own| if own { "own head" } else { "tied head" }.to_owned()));
    parts.extend(model.source.adapter.as_ref().map(|adapter| format!("adapter on {} tensors", adapter.n_modules())));
    parts.join(", ")
}

fn descent<'a>(pair: &Pair, name: &dyn Fn(usize) -> &'a str) -> String {
    let [base, model] = pair.models;
    let mut parts = vec![format!("{} from {}: {}", name(model), name(base), number(pair.all().distance()))];
    let distances = pair.distances();
    let least = distances.iter().map(|(_, distance)| *distance).fold(f64::INFINITY, f64::min);
    let most = distances.iter().map(|(_, distance)| *distance).fold(0.0, f64::max);
    if distances.len() > 1 {
        parts.push(format!("layers {} to {}", number(least), number(most)));
    }
    if pair.n_equal > 0 {
        parts.push(format!("{} of {} tensors unchanged", pair.n_equal, pair.n_tensors));
    }
    parts.join("; ")
}

/// What two changes have to do with each other, and what follows for methods.
fn meeting<'a>(meeting: &Meeting, name: &dyn Fn(usize) -> &'a str) -> Vec<String> {
    let [one, other] = meeting.models.map(name);
    let mut parts = Vec::new();
    parts.extend(meeting.cosine().map(|cosine| format!("cosine {cosine:.3}")));
    parts.extend(meeting.ratio().map(|ratio| format!("sizes 1 : {}", number(ratio))));
    let follows = match meeting.opposed() {
        None => {
            parts.push("they change no number together".to_owned());
            "no signs to elect, nothing to average: sums of task vectors with and without sign election are one"
                .to_owned()
        }
        Some(opposed) => {
            parts.push(format!("opposite signs in {:.1} % of the numbers that both change", opposed * 100.0));
            match opposed {
                opposed if opposed < 0.02 => {
                    "signs agree: sign election (ties, dare_ties, breadcrumbs_ties) has hardly anything to elect"
                        .to_owned()
                }
                opposed if opposed < 0.35 => "sign election changes some of the sum".to_owned(),
                _ => "as good as independent: sign election drops about half of what the smaller one adds".to_owned(),
            }
        }
    };
    vec![format!("{one} and {other}: {}", parts.join(", ")), format!("    {follows}")]
}

fn near(probe: &Probe, plan: &Plan) -> Vec<String> {
    let near = &probe.near;
    if near.n_pairs == 0 {
        return Vec::new();
    }
    let mut lines: Vec<String> = near.groups.iter().map(|group| of_near(group, plan)).collect();
    if lines.is_empty() {
        lines.push(format!("none among {} merges", near.n_looked_at));
    }
    if let Some(next) = &near.next {
        let lead = if near.groups.is_empty() { "the nearest two" } else { "the next two" };
        let names = names(plan, &next.trials);
        lines.push(format!("{lead}, {names}: {}", percent(next.share)));
    }
    lines.extend(near.blurred.iter().map(|group| format!("within rounding: {}", of_group(group, plan))));
    if near.n_looked_at < near.n_merges {
        let (some, all) = (near.n_looked_at, near.n_merges);
        lines.push(format!("compared: {some} of {all} merges, the first in the plan whose models are here"));
    }
    lines
}

/// Merges that were made and came out nearly the same: a line for every group.
pub fn of_made(near: &Near, plan: &Plan) -> Vec<String> {
    const BY: &str = "by samples of their weights";
    let twins = near.groups.iter().map(|group| format!("near twins, {BY}: {}", of_near(group, plan)));
    let blurred =
        near.blurred.iter().map(|group| format!("within rounding of each other, {BY}: {}", of_group(group, plan)));
    let mut lines: Vec<String> = twins.chain(blurred).collect();
    let rest = lines.len().saturating_sub(LINES);
    if rest > 0 {
        lines.truncate(LINES);
        lines.push(format!("… and {rest} more groups of merges that came out nearly the same"));
    }
    lines
}

fn of_near(group: &Group, plan: &Plan) -> String {
    format!("{}: expect the same scores", of_group(group, plan))
}

fn of_group(group: &Group, plan: &Plan) -> String {
    let Apart { distance, cosine, share, rounded_share, rounding, .. } = group.widest;
    let most = if group.trials.len() > 2 { "at most " } else { "" };
    let distance = if distance == 0.0 { "0".to_owned() } else { format!("{distance:.1e}") };
    let mut rounded = String::new();
    if rounded_share > 2.0 * share && rounded_share > 0.001 {
        rounded += &format!(", {} once rounded", percent(rounded_share));
    }
    if group.widest.is_within_rounding() {
        rounded += &format!("; rounding alone moves each by {} or more", percent(rounding));
    }
    format!(
        "{}: relative distance {distance}, cosine {} ({most}{} of what their models differ by{rounded})",
        names(plan, &group.trials),
        nines(cosine),
        percent(share),
    )
}

fn names(plan: &Plan, trials: &[usize]) -> String {
    let shown: Vec<&str> = trials.iter().take(NAMES).map(|trial| plan.trials[*trial].name.as_str()).collect();
    let rest = trials.len().saturating_sub(NAMES);
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "nothing".to_owned(),
        percent if percent < 0.01 => "less than 0.01 %".to_owned(),
        percent if percent < 10.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// A cosine with as many digits as it takes to see that it is not 1.
fn nines(cosine: f64) -> String {
    let digits = (2..9).find(|digits| 1.0 - cosine > 10f64.powi(-digits)).unwrap_or(9);
    format!("{cosine:.*}", usize::try_from(digits).unwrap_or(9))
}

/// Two digits that count.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (1 - value.abs().log10().floor() as i32).clamp(0, 8);
    format!("{value:.*}", usize::try_from(digits).unwrap_or_default())
}
