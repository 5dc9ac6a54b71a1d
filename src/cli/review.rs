//! What was found out about a plan, for people: findings grouped, each told once for all trials that it holds for.

use crate::document::draw::{self, Style};
use crate::document::{Problem, Problems};
use crate::plan::lint::{Finding, Kind, Severity};
use crate::plan::twins::Twins;
use crate::plan::{Plan, Review};
use crate::spec::{Dead, Sweep, TwinEvaluation};

/// Names that are listed before the rest is only counted.
const SHOWN: usize = 4;

/// Findings of a kind that are shown before the rest is only counted.
const LINES: usize = 20;

/// Everything that a reader of a plan should know, by kind.
pub(super) fn text(sweep: &Sweep, plan: &Plan, style: Style) -> String {
    let Review { findings, twins, origin } = &plan.review;
    let mut text = String::new();
    let drawn = drawn(sweep, plan, style);
    for excerpt in drawn.iter().take(LINES) {
        text += &format!("\n{excerpt}\n");
    }
    if drawn.len() > LINES {
        text += &format!("… and {} more (--json lists all)\n", drawn.len() - LINES);
    }
    let mut section = |head: &str, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        let rest = lines.len().saturating_sub(LINES);
        text += &format!("\n{head}\n");
        lines.iter().take(LINES).for_each(|line| text += &format!("  {}\n", line.replace('\n', "\n      ")));
        if rest > 0 {
            text += &format!("  … and {rest} more (--json lists all)\n");
        }
    };
    let of = |kind: Kind| findings.iter().filter(move |finding| finding.kind == kind);
    let about = |finding: &Finding| format!("{}: {}", names(plan, &finding.trials), finding.message);
    let placeless = told(sweep, plan).filter(|finding| finding.problem().is_none());
    let (unresolved, others): (Vec<_>, Vec<_>) = placeless.partition(|finding| finding.kind == Kind::Unresolved);
    section("Hardly meant:", others.into_iter().map(about).collect());
    section("Cannot be merged:", unresolved.into_iter().map(about).collect());
    section("Twins:", twin_lines(sweep, plan, twins));
    let reduced = of(Kind::Reduces).map(|finding| format!("{} {}", names(plan, &finding.trials), finding.message));
    section("Simpler than they look:", reduced.collect());
    let defaults = "Left to the default (* other methods of the family have another one):";
    section(defaults, of(Kind::Default).map(about).collect());
    section("Without effect:", of(Kind::NoEffect).map(about).collect());
    if let (Some(origin), true) = (origin, of(Kind::Unmatched).next().is_some()) {
        text += &format!("\nTensor names: {}\n", origin.in_words());
    }
    text
}

/// Findings of a plan that have a place, as diagnostics. What the spec lets pass without a word is left out.
pub(super) fn placed(sweep: &Sweep, plan: &Plan) -> Problems {
    Problems(told(sweep, plan).filter_map(Finding::problem).collect())
}

/// Findings that are hardly what was meant.
fn told<'a>(sweep: &Sweep, plan: &'a Plan) -> impl Iterator<Item = &'a Finding> {
    let allowed = sweep.lint.dead == Dead::Allow;
    let is_told = move |finding: &&Finding| {
        finding.kind.severity() == Severity::Warning && !(allowed && finding.kind == Kind::Dead)
    };
    plan.review.findings.iter().filter(is_told)
}

/// Findings that have a place, drawn: those of one kind, file and trials as one.
fn drawn(sweep: &Sweep, plan: &Plan, style: Style) -> Vec<String> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in told(sweep, plan).filter(|finding| finding.problem().is_some()) {
        match groups.iter_mut().find(|group| is_alike(group[0], finding)) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    let one = |group: &Vec<&Finding>| {
        let title = match group[0].kind {
            Kind::Dead => "never read",
            Kind::Shadowed => "overridden everywhere",
            _ => "matched by no tensor",
        };
        let title = format!("{}: {title}", names(plan, &group[0].trials));
        let problems: Vec<Problem> = group.iter().filter_map(|finding| finding.problem()).collect();
        let labels: Vec<&str> = group.iter().map(|finding| finding.label()).collect();
        draw::together(&title, &problems, &labels, style)
    };
    groups.iter().map(one).collect()
}

fn is_alike(one: &Finding, other: &Finding) -> bool {
    let file = |finding: &Finding| finding.span.as_ref().map(|span| span.source.path.clone());
    one.kind == other.kind && one.trials == other.trials && file(one) == file(other)
}

/// The findings that are hardly what was meant: those with a place drawn, the others a line each.
pub(super) fn warnings(sweep: &Sweep, plan: &Plan, style: Style) -> Vec<String> {
    let mut warnings: Vec<String> = drawn(sweep, plan, style).iter().map(|drawn| format!("{drawn}\n")).collect();
    let placeless = told(sweep, plan).filter(|finding| finding.problem().is_none());
    let placeless = placeless.map(|finding| format!("{finding} ({})", names(plan, &finding.trials)));
    let lines = placeless.chain(twin_lines(sweep, plan, &plan.review.twins));
    warnings.extend(lines.map(|line| format!("warning: {line}")));
    warnings
}

/// The same findings, a line each.
pub(super) fn lines(sweep: &Sweep, plan: &Plan) -> Vec<String> {
    let findings = told(sweep, plan).map(|finding| format!("{finding} ({})", names(plan, &finding.trials)));
    findings.chain(twin_lines(sweep, plan, &plan.review.twins)).collect()
}

/// What was found out about one trial, from a severity on.
pub(super) fn of_trial(sweep: &Sweep, plan: &Plan, trial: usize, from: Severity) -> Vec<String> {
    let review = &plan.review;
    let is_told = |finding: &&Finding| finding.trials.contains(&trial) && finding.kind.severity() >= from;
    let mut lines: Vec<String> = review.findings.iter().filter(is_told).map(ToString::to_string).collect();
    let of_trial = |groups: &[Vec<usize>]| groups.iter().filter(|group| group.contains(&trial)).cloned().collect();
    let twins = Twins { exact: of_trial(&review.twins.exact), rounding: of_trial(&review.twins.rounding) };
    lines.extend(twin_lines(sweep, plan, &twins));
    lines
}

fn twin_lines(sweep: &Sweep, plan: &Plan, twins: &Twins) -> Vec<String> {
    let exact = twins
        .exact
        .iter()
        .map(|group| format!("{}: one merge, equal byte for byte; it is made and evaluated once", names(plan, group)));
    let evaluated = match sweep.twins {
        TwinEvaluation::Separate => "each is evaluated, which shows the noise of the evaluation",
        TwinEvaluation::Share => "evaluated once (`twins = \"share\"`)",
    };
    let rounding =
        twins.rounding.iter().map(|group| format!("{}: one merge but for rounding; {evaluated}", names(plan, group)));
    exact.chain(rounding).collect()
}

/// Names of trials, the first few.
fn names(plan: &Plan, trials: &[usize]) -> String {
    let name = |trial: &usize| plan.trials.get(*trial).map(|trial| crate::table::render::plain(&trial.name));
    let shown: Vec<String> = trials.iter().take(SHOWN).filter_map(name).collect();
    let rest = trials.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
