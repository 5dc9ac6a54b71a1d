//! `mergesweep explain SPEC TRIAL`: one trial of a sweep in words and formulas.

use anyhow::anyhow;
use serde_json::json;

use super::{Failure, SweepArgs, print, review, usage, warn};
use crate::config::method::ParameterSpec;
use crate::config::parameter::Level;
use crate::exit_code::Exit;
use crate::merge::arch::Architecture;
use crate::model::ModelRef;
use crate::plan::explanation::{Explanation, by_model, explain};
use crate::plan::lint::Severity;
use crate::plan::sites::SiteFinder;
use crate::plan::{Plan, Subject, Trial, json};
use crate::run::select::select;
use crate::spec::Sweep;

/// Explains the trial of a spec that has this name or id: all its tensors, or those whose names contain `tensor`.
pub(super) fn run(sweep_args: &SweepArgs, trial: &str, tensor: Option<&str>, as_json: bool) -> Result<Exit, Failure> {
    let (sweep, plan) = sweep_args.load()?;
    let selected = select(&plan, &[trial.to_owned()]).map_err(usage)?;
    let [index] = selected.as_slice() else {
        return Err(usage(anyhow!("`{trial}` names {} trials, expected one", selected.len())));
    };
    let trial = &plan.trials[*index];
    let Subject::Merge { config, seed, numerics } = &trial.subject else {
        print(&format!("{}: the model as it is, nothing is merged", trial.name))?;
        return Ok(Exit::Ok);
    };
    let headers = |model: &ModelRef| -> Option<Architecture> { sweep_args.tensors_of(&sweep, model) };
    let sites = SiteFinder::new(&headers).of(config);
    let naming = |model: &ModelRef| sweep.short_name(model);
    let explained = explain(config, *seed, *numerics, &sites, tensor, &naming).map_err(usage)?;
    if as_json {
        print(&serde_json::to_string_pretty(&json_of(trial, &explained))?)?;
        return Ok(Exit::Ok);
    }
    print(&in_words(&sweep, &plan, *index, &explained))?;
    warn(&format!("tensor names: {}", sites.origin.in_words()));
    Ok(Exit::Ok)
}

fn in_words(sweep: &Sweep, plan: &Plan, index: usize, explained: &Explanation) -> String {
    let trial = &plan.trials[index];
    let Subject::Merge { config, seed, numerics } = &trial.subject else { return String::new() };
    let naming = |model: &ModelRef| sweep.short_name(model);
    let about = config.method.about();
    let mut text = format!("{}: {}\n{}\n{}\n", trial.name, config.method, about.summary, about.reference);
    for (formula, tensors) in &explained.formulas {
        text += &format!("\n  {formula}\n    {}\n", of_tensors(tensors));
    }
    if let Some(reduction) = &explained.reduction {
        text += &format!("\nThis {reduction}.\n");
    }
    let rows = config.method.spec().parameters;
    let width = rows.iter().map(|row| row.name.len()).chain(["dtype".len()]).max().unwrap_or_default();
    text += "\nIn force:\n";
    for row in rows {
        let shown = by_model(&explained.values, row.name, &naming);
        let bound = if row.is_bound() { " (a bound: the iteration may come to rest before)" } else { "" };
        text += &format!("  {:width$}  {shown}{bound}{}\n", row.name, family(row, explained));
    }
    let dtype = config.dtype.map_or("that of the inputs".to_owned(), |dtype| dtype.to_string());
    text += &format!("  {:width$}  {dtype}; numerics {numerics}", "dtype");
    if config.method.spec().random {
        text += &format!("\n  {:width$}  {seed}", "seed");
    }
    text += "\n";
    for line in review::of_trial(sweep, plan, index, Severity::Warning) {
        text += &format!("\n{line}\n");
    }
    text
}

/// What other methods of the family have, where the default is in force and decides something.
fn family(row: &ParameterSpec, explained: &Explanation) -> String {
    let of_row = |default: &&crate::plan::lint::report::DefaultReport| default.default.row.name == row.name;
    let Some(default) = explained.report.defaults.iter().find(of_row).filter(|default| !default.differing.is_empty())
    else {
        return String::new();
    };
    let others: Vec<&str> = default.differing.iter().map(|(method, _)| method.name()).collect();
    format!("; {} for {}", row.shown(default.differing[0].1), others.join(", "))
}

/// Tensors in a few words.
fn of_tensors(tensors: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = tensors.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match tensors.len() {
        n if n > SHOWN => format!("{n} tensors: {shown}, …"),
        _ => shown,
    }
}

fn json_of(trial: &Trial, explained: &Explanation) -> serde_json::Value {
    let formulas =
        explained.formulas.iter().map(|(formula, tensors)| json!({ "formula": formula, "tensors": tensors }));
    let level = |level: Level| match level {
        Level::Source => "source",
        Level::Slice => "slice",
        Level::Module => "module",
        Level::Top => "top",
        Level::Default => "default",
    };
    let values = explained.values.iter().map(|in_force| {
        let values = in_force.values.iter().map(|(value, from)| json!({ "value": value, "from": level(*from) }));
        json!({
            "name": in_force.row.name,
            "model": in_force.model.as_ref().map(ToString::to_string),
            "values": values.collect::<Vec<_>>(),
        })
    });
    let about = match &trial.subject {
        Subject::Merge { config, .. } => Some((config.method.name(), config.method.about())),
        Subject::Checkpoint(_) => None,
    };
    json!({
        "trial": trial.name,
        "method": about.map(|(name, _)| name),
        "summary": about.map(|(_, about)| about.summary),
        "reference": about.map(|(_, about)| about.reference),
        "formulas": formulas.collect::<Vec<_>>(),
        "reduces_to": explained.reduction,
        "in_force": values.collect::<Vec<_>>(),
        "parameters": json::report(&explained.report),
    })
}
