//! Picking trials by pattern.

use crate::plan::Plan;

/// A pattern that picks no trial of the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no trial matches `{pattern}` (trials: {})", .names.join(", "))]
pub struct NoSuchTrial {
    /// The pattern.
    pub pattern: String,
    /// What there is.
    pub names: Vec<String>,
}

/// Positions of the trials that any pattern picks, in the order of the plan; all of them where there is no pattern.
///
/// A pattern is the whole name or id of a trial, or a glob (`*` for any run of characters); letters match in either case.
///
/// # Errors
/// [`NoSuchTrial`] for the first pattern that picks nothing.
pub fn select(plan: &Plan, patterns: &[String]) -> Result<Vec<usize>, NoSuchTrial> {
    let picks = |pattern: &String, index: usize| {
        let trial = &plan.trials[index];
        matches(pattern, &trial.name) || matches(pattern, &trial.id.to_string())
    };
    let all = 0..plan.trials.len();
    if let Some(pattern) = patterns.iter().find(|pattern| !all.clone().any(|index| picks(pattern, index))) {
        let names = plan.trials.iter().map(|trial| trial.name.clone()).collect();
        return Err(NoSuchTrial { pattern: pattern.clone(), names });
    }
    Ok(all.filter(|index| patterns.is_empty() || patterns.iter().any(|pattern| picks(pattern, *index))).collect())
}

/// Whether a glob matches a whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(found) = text.find(part) else { return false };
        text = &text[found + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs_match_whole_names_in_either_case() {
        for (pattern, text) in [
            ("slerp*", "SLERP (t=0.5)"),
            ("*t=0.5*", "SLERP (t=0.5)"),
            ("TIES", "Ties"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("slerp", "SLERP (t=0.5)"), ("*ties", "TIES, w=1"), ("a*b*c", "a-c-b"), ("ab*ba", "aba")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
