//! What was found out about a plan, for people: findings grouped, each told once for all trials that it holds for.

use crate::plan::lint::{Finding, Kind, Severity};
use crate::plan::twins::Twins;
use crate::plan::{Plan, Review};
use crate::spec::{Dead, Sweep, TwinEvaluation};

/// Names that are listed before the rest is only counted.
const SHOWN: usize = 4;

/// Findings of a kind that are listed before the rest is only counted.
const LINES: usize = 20;

/// Everything that a reader of a plan should know, by kind.
pub(super) fn text(sweep: &Sweep, plan: &Plan) -> String {
    let Review { findings, twins, origin } = &plan.review;
    let mut text = String::new();
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
    let hinted = |finding: &Finding| {
        let place = finding.span.as_ref().map(|span| {
            let (line, column) = span.line_column();
            format!("{}:{line}:{column}: ", span.source.path.display())
        });
        let remedy = finding.remedy.as_ref().map(|remedy| format!("\nhint: {remedy}")).unwrap_or_default();
        format!("{}{}\n{}{remedy}", place.unwrap_or_default(), names(plan, &finding.trials), finding.message)
    };
    let about = |finding: &Finding| format!("{}: {}", names(plan, &finding.trials), finding.message);
    if sweep.lint.dead != Dead::Allow {
        section("Never read:", of(Kind::Dead).map(hinted).collect());
    }
    section("Overridden everywhere:", of(Kind::Shadowed).map(hinted).collect());
    section("Matched by no tensor:", of(Kind::Unmatched).map(hinted).collect());
    section("Cannot be merged:", of(Kind::Unresolved).map(about).collect());
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

/// The findings that are hardly what was meant, a line each.
pub(super) fn warnings(sweep: &Sweep, plan: &Plan) -> Vec<String> {
    let is_told = |finding: &&Finding| {
        finding.kind.severity() == Severity::Warning && (finding.kind != Kind::Dead || sweep.lint.dead != Dead::Allow)
    };
    let findings = plan.review.findings.iter().filter(is_told);
    let mut lines: Vec<String> =
        findings.map(|finding| format!("{finding} ({})", names(plan, &finding.trials))).collect();
    lines.extend(twin_lines(sweep, plan, &plan.review.twins));
    lines
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
