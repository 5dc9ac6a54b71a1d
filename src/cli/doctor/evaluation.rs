//! The harness, its tasks, and the models.

use std::collections::BTreeSet;

use super::{DoctorArgs, Finding};
use crate::cli::Failure;
use crate::eval::Settings;
use crate::eval::preflight::{self, Folders, KNOWN_VERSION, Preflight};
use crate::model::{Locator, ModelRef};
use crate::plan::Plan;
use crate::process::Cancel;
use crate::run::models_of;
use crate::run::store::Store;
use crate::spec::Sweep;

/// What the harness and its tasks need, asked as a run would ask.
pub(super) fn findings(args: &DoctorArgs, sweep: Option<&Sweep>, settings: &Settings) -> Result<Vec<Finding>, Failure> {
    // A folder of results that is there holds what earlier runs fetched; none is made for a look.
    let store = sweep.map(|sweep| Store::new(&args.results, &sweep.name)).transpose()?;
    let store = store.filter(|store| store.root().is_dir());
    let elsewhere = tempfile::tempdir()?;
    let (home, cache) = match &store {
        Some(store) => (store.harness_home(), store.harness_cache()),
        None => (elsewhere.path().join("home"), elsewhere.path().join("cache")),
    };
    let (found, problems) = preflight::look(settings, Folders { home: &home, cache: &cache }, &Cancel::never());
    let mut findings = versions(&found, settings);
    for task in &settings.tasks {
        if let Some(members) = found.known.get(&task.name) {
            let documents: u64 = members.iter().filter_map(|member| member.n_documents).sum();
            let parts = if members.len() > 1 { format!("{} tasks, ", members.len()) } else { String::new() };
            findings.push(Finding::ok(format!("task {}", task.name), format!("{parts}{documents} documents")));
        }
    }
    for problem in problems {
        let item = problem.task().map_or_else(|| "evaluation".to_owned(), |task| format!("task {task}"));
        findings.push(Finding::error(item, problem.to_string(), problem.hint()));
    }
    // Whether there is a GPU is told with the machine, the release with the harness.
    let told = |note: &&String| !note.starts_with("no GPU") && !note.contains("lm_eval");
    findings.extend(found.notes.iter().filter(told).map(|note| Finding::warning("evaluation", note, None)));
    Ok(findings)
}

fn versions(found: &Preflight, settings: &Settings) -> Vec<Finding> {
    if found.python_version.is_empty() {
        return Vec::new();
    }
    let mut findings = vec![Finding::ok("python", format!("{} ({})", found.python_version, settings.python.display()))];
    match found.lm_eval_version.as_str() {
        "" => {}
        KNOWN_VERSION => findings.push(Finding::ok("lm_eval", KNOWN_VERSION)),
        other => {
            let remedy = format!("pip install lm_eval=={KNOWN_VERSION}");
            findings.push(Finding::warning(
                "lm_eval",
                format!("{other}; this program is made for {KNOWN_VERSION}"),
                remedy,
            ));
        }
    }
    findings.extend(found.versions.iter().map(|(package, version)| Finding::ok(package, version)));
    findings
}

/// Every model of the sweep, declared or named in its merges and configs alone, and the cache they are looked for in.
pub(super) fn models(opened: Option<&(Sweep, Plan)>, locator: &Locator) -> Vec<Finding> {
    let hub = &locator.hub;
    let offline = if hub.offline { ", downloads are off" } else { "" };
    let state = if hub.cache.is_dir() { "" } else { " (not made yet)" };
    let mut findings = vec![Finding::ok("hub cache", format!("{}{state}{offline}", hub.cache.display()))];
    let Some((sweep, plan)) = opened else { return findings };
    findings.extend(sweep.models.iter().map(|(name, model)| self::model(name, model, locator)));
    let declared = |model: &ModelRef| sweep.models.iter().any(|(_, declared)| declared == model);
    let named: BTreeSet<ModelRef> = plan.trials.iter().flat_map(models_of).filter(|model| !declared(model)).collect();
    findings.extend(named.iter().map(|model| self::model(&model.to_string(), model, locator)));
    findings
}

fn model(name: &str, model: &ModelRef, locator: &Locator) -> Finding {
    let item = format!("model {name}");
    match locator.locate_on_disk(model) {
        Ok(Some(located)) => Finding::ok(item, located.base.display().to_string()),
        Ok(None) if locator.hub.offline => {
            let remedy = "download it on a machine with network, or unset HF_HUB_OFFLINE".to_owned();
            Finding::error(item, format!("`{model}` is not on disk, and downloads are off"), remedy)
        }
        Ok(None) => Finding::warning(item, format!("`{model}` is not on disk: a run downloads it first"), None),
        Err(error) => Finding::error(item, error.to_string(), error.hint()),
    }
}
