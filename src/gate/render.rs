//! A judgement for people and machines: Markdown, JUnit XML, GitHub annotations.

use std::fmt::Write;

use super::judge::{Judged, Judgement};
use crate::stats::gate::Verdict;

/// The word of a verdict.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
    }
}

/// What stands behind the verdict of one number.
pub fn detail(judged: &Judged) -> String {
    if let Some(reason) = &judged.reason {
        return format!("nothing to compare: {reason}");
    }
    let (Some((now, before)), Some(result)) = (judged.scores, judged.result) else { return String::new() };
    if result.identical {
        let weights = if judged.equal_weights == Some(true) { ", equal weights" } else { "" };
        return format!("identical: {now:.4} on {} documents{weights}", judged.n);
    }
    let mut text = format!("{now:.4} was {before:.4}, {} of {} documents changed", judged.n_changed, judged.n);
    // Writing to a String cannot fail.
    if let Some(bounds) = result.bounds {
        let _ = write!(text, "; change {:+.4}, bounds [{:+.4}, {:+.4}]", result.difference, bounds.low, bounds.high);
    }
    if let Some(margin) = judged.margin {
        let _ = write!(text, ", margin {margin}");
    }
    if let Some(p) = result.p_worse {
        let _ = write!(text, "; p {p:.3} that it is worse at all");
    }
    if judged.equal_weights == Some(true) {
        text.push_str("; equal weights: this is the noise of the evaluation");
    }
    match (judged.verdict, result.items_needed) {
        (Some(Verdict::Inconclusive), Some(needed)) => {
            let _ = write!(text, "; about {needed} documents would decide");
        }
        (Some(Verdict::Inconclusive), None) => text.push_str("; so close to the margin that no number would decide"),
        _ => {}
    }
    text
}

fn shown(judged: &Judged) -> &'static str {
    match judged.verdict {
        None => "shown",
        Some(verdict) if judged.critical => word(verdict),
        Some(Verdict::Pass) => "pass (advisory)",
        Some(Verdict::Fail) => "fail (advisory)",
        Some(Verdict::Inconclusive) => "inconclusive (advisory)",
    }
}

/// The summary: verdict, what decided it, then every number.
pub fn markdown(judgement: &Judgement, against: &str) -> String {
    let count = |verdict: Verdict| {
        judgement.judged.iter().filter(|judged| judged.critical && judged.verdict == Some(verdict)).count()
    };
    let mut text = format!(
        "**{}** against `{against}`: {} passed, {} failed, {} inconclusive{}\n\n| verdict | trial | column | |\n| --- | --- | --- | --- |\n",
        word(judgement.verdict),
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Inconclusive),
        if judgement.reused { "; results were REUSED, nothing was evaluated afresh" } else { "" },
    );
    // The worst first: that is what is read.
    let mut judged: Vec<&Judged> = judgement.judged.iter().collect();
    judged.sort_by_key(|judged| std::cmp::Reverse((judged.critical, judged.verdict)));
    for judged in judged {
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            shown(judged),
            cell(&judged.trial),
            cell(&judged.column),
            cell(&detail(judged))
        );
    }
    for trial in &judgement.new_trials {
        let _ = writeln!(text, "\n`{trial}` is not in the baseline: not judged");
    }
    text
}

/// JUnit XML: a test case per number; a failure where it decides and fails, skipped where it does not decide.
pub fn junit(judgement: &Judgement, against: &str) -> String {
    let of = |wanted: Verdict| move |judged: &&Judged| judged.critical && judged.verdict == Some(wanted);
    let n = |verdict| judgement.judged.iter().filter(of(verdict)).count();
    let n_skipped = judgement.judged.iter().filter(|judged| !judged.critical).count();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuite name=\"mergesweep check {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{n_skipped}\">",
        xml(against),
        judgement.judged.len(),
        n(Verdict::Fail),
        n(Verdict::Inconclusive),
    );
    for judged in &judgement.judged {
        let detail = xml(&detail(judged));
        let _ = write!(text, "  <testcase classname=\"{}\" name=\"{}\">", xml(&judged.trial), xml(&judged.column));
        let _ = match (judged.critical, judged.verdict) {
            (true, Some(Verdict::Fail)) => write!(text, "<failure message=\"{detail}\"/>"),
            (true, Some(Verdict::Inconclusive)) => {
                write!(text, "<error type=\"inconclusive\" message=\"{detail}\"/>")
            }
            (true, _) => write!(text, "<system-out>{detail}</system-out>"),
            (false, _) => write!(text, "<skipped message=\"advisory: {detail}\"/>"),
        };
        text.push_str("</testcase>\n");
    }
    text.push_str("</testsuite>\n");
    text
}

fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // XML 1.0 has no way to write them.
            character if character.is_control() => safe.push(' '),
            character => safe.push(character),
        }
    }
    safe
}

/// Annotations for GitHub Actions: an error per failure, a warning per open question, a notice for the whole.
pub fn github(judgement: &Judgement, against: &str) -> String {
    // The message ends at the line's end; `%`, CR and LF are written as GitHub's runner reads them.
    let safe = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| safe(text).replace(':', "%3A").replace(',', "%2C");
    let mut text = String::new();
    for judged in judgement.judged.iter().filter(|judged| judged.critical) {
        let kind = match judged.verdict {
            Some(Verdict::Fail) => "error",
            Some(Verdict::Inconclusive) => "warning",
            _ => continue,
        };
        let title = property(&format!("{}: {}", judged.trial, judged.column));
        let _ = writeln!(text, "::{kind} title={title}::{}", safe(&detail(judged)));
    }
    let _ = writeln!(text, "::notice title=mergesweep check::{} against {}", word(judgement.verdict), safe(against));
    text
}
