//! `plan --as-intended`: configs as written beside what their authors probably meant.

use crate::config::{Numerics, write};
use crate::merge::arch::Architecture;
use crate::model::ModelRef;
use crate::plan::explanation::by_model;
use crate::plan::intended::intended;
use crate::plan::lint::report_on;
use crate::plan::sites::SiteFinder;
use crate::plan::twins::canonical;
use crate::plan::values::in_force;
use crate::plan::{Plan, Subject};
use crate::spec::Sweep;

/// Every merge with settings that nobody reads where they stand, beside the same with these lifted to the top level, and
/// what differs then.
pub(super) fn text(sweep: &Sweep, plan: &Plan, headers: &dyn Fn(&ModelRef) -> Option<Architecture>) -> String {
    let naming = |model: &ModelRef| sweep.short_name(model);
    let mut finder = SiteFinder::new(headers);
    let mut parts = Vec::new();
    for trial in &plan.trials {
        let Subject::Merge { config, seed, numerics } = &trial.subject else { continue };
        let sites = finder.of(config);
        let Ok(reported) = report_on(config, *seed, *numerics, sites.clone()) else { continue };
        let Some(meant) = intended(config, &reported.report) else { continue };
        let columns = beside(&write::yaml(config, &naming), &write::yaml(&meant.config, &naming));
        let mut part = format!("{}\n{columns}", trial.name);
        let changes = changes(sweep, [config, &meant.config], *seed, *numerics, &mut finder);
        part += &match changes {
            Ok((changes, false)) => format!("what differs:\n{changes}"),
            Ok((changes, true)) => format!("{changes}both compute the same\n"),
            Err(error) => format!("as intended it cannot be merged: {error}\n"),
        };
        if !meant.left.is_empty() {
            part += &format!(
                "left where it is, since it contradicts itself or what is in force there: {}\n",
                meant.left.join(", ")
            );
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return "every setting stands where it is read\n".to_owned();
    }
    parts.join("\n")
}

/// The values in force that differ, a line each, and whether both configs compute the same.
fn changes(
    sweep: &Sweep,
    configs: [&crate::config::MergeConfig; 2],
    seed: u64,
    numerics: Numerics,
    finder: &mut SiteFinder<'_>,
) -> Result<(String, bool), crate::merge::recipe::RecipeError> {
    let naming = |model: &ModelRef| sweep.short_name(model);
    let mut found = Vec::new();
    for config in configs {
        let sites = finder.of(config);
        let (resolution, values) = in_force(config, seed, numerics, sites, &|_| true)?;
        found.push((canonical(&resolution), values));
    }
    let [(written, before), (meant, after)] = found.as_slice() else { return Ok(Default::default()) };
    let mut lines = String::new();
    for row in configs[0].method.spec().parameters {
        let [old, new] = [before, after].map(|values| by_model(values, row.name, &naming));
        if old != new {
            lines += &format!("  {}: {old} -> {new}\n", row.name);
        }
    }
    Ok((lines, written.exact == meant.exact))
}

/// Two texts side by side.
fn beside(left: &str, right: &str) -> String {
    let width = left.lines().map(|line| line.chars().count()).max().unwrap_or_default().max("as written".len());
    let mut text = format!("  {:width$}   {}\n", "as written", "as intended");
    let (mut left, mut right) = (left.lines(), right.lines());
    loop {
        let (a, b) = (left.next(), right.next());
        if a.is_none() && b.is_none() {
            return text;
        }
        let line = format!("  {:width$} | {}", a.unwrap_or_default(), b.unwrap_or_default());
        text += line.trim_end();
        text.push('\n');
    }
}
