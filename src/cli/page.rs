//! `mergesweep report --html` and `--plots`: everything a report is gathered from, and its files.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Context;

use super::comparisons::Comparisons;
use super::recorded::Recorded;
use super::{Failure, review};
use crate::config::{Numerics, Scalar};
use crate::eval::Settings;
use crate::eval::samples::{self, SamplesError, Texts};
use crate::files::write_atomically;
use crate::paired::Entrant;
use crate::plan::{Plan, Subject, Trial, configs};
use crate::report::page::Origin;
use crate::report::plot::{self, Plots};
use crate::report::{Gathered, Page, gather, html};
use crate::run::fingerprint;
use crate::run::journal::{self, Record, What};
use crate::run::store::Store;
use crate::spec::Sweep;
use crate::stats::SEED;
use crate::table::differences;

/// Gathers the report of a sweep; `with_items` takes prompts, answers and targets in.
pub(super) fn page(
    plan: &Plan,
    sweep: &Sweep,
    recorded: &Recorded,
    compared: &Comparisons,
    store: &Store,
    with_items: bool,
) -> Result<Page, Failure> {
    let table = &recorded.table;
    let filters: Vec<&str> = table.columns.iter().map(|column| column.filter.as_str()).collect();
    let read = |entrant: &Entrant, column: usize, wanted: &HashSet<String>| {
        let files = entrant.files.get(column).into_iter().flatten();
        let texts = files.map(|file| samples::texts(file, filters[column], wanted));
        let texts: Vec<BTreeMap<String, Texts>> = texts.collect::<Result<_, SamplesError>>()?;
        Ok(texts.into_iter().flatten().collect())
    };
    let mut page = gather(&Gathered {
        table,
        entrants: &compared.entrants,
        against: compared.against.as_ref(),
        recipes: &compared.seeds,
        origins: origins(plan, sweep, recorded),
        texts: if with_items { Some(&read) } else { None },
    })?;
    let text = std::fs::read_to_string(&sweep.path).with_context(|| sweep.path.display().to_string())?;
    page.settings = settings(&sweep.evaluate, recorded, &text);
    page.settings.extend(machines(&recorded.records, store).map(|machines| ("hardware".to_owned(), machines)));
    page.sources = vec![(file_name(&sweep.path), text)];
    page.findings = plan.warnings.0.iter().map(|problem| first_line(&problem.to_string())).collect();
    page.findings.extend(review::lines(sweep, plan));
    page.near = recorded.near.clone();
    page.remarks = compared.single_draws.clone();
    page.remarks.extend(compared.against.iter().flat_map(|against| differences::of_estimates(table, against)));
    page.remarks.extend(compared.left_out.clone());
    page.remarks.extend(recorded.footnotes.iter().cloned());
    Ok(page)
}

/// Identity, hardware and cost of every trial, from the journal.
fn origins(plan: &Plan, sweep: &Sweep, recorded: &Recorded) -> Vec<Origin> {
    let Recorded { records, state, .. } = recorded;
    let origin = |trial: &Trial| {
        let of_trial = state.of(&trial.id);
        let current: Vec<_> =
            sweep.evaluate.tasks.iter().filter_map(|request| of_trial.current(&sweep.evaluate, request)).collect();
        let evaluations =
            records.iter().filter(|record| record.trial.as_ref() == Some(&trial.id)).filter_map(|record| match &record
                .what
            {
                What::Evaluated(evaluation) => Some(evaluation.seconds),
                _ => None,
            });
        let hardware = current.first().map(|(_, facts)| {
            let parts = [&facts.device, &facts.model_dtype].into_iter().flatten().cloned().collect::<Vec<_>>();
            parts.join(", ")
        });
        let seed = match &trial.subject {
            Subject::Merge { config, seed, .. } if config.method.spec().random => Some(*seed),
            _ => None,
        };
        Origin {
            id: trial.id.to_string(),
            weights: current.iter().find_map(|(done, _)| done.key.0.get("weights").cloned()),
            seed,
            hardware,
            merge_seconds: of_trial.merged.as_ref().map(|merged| merged.merge.seconds),
            evaluation_seconds: evaluations.reduce(|a, b| a + b),
            config: configs::text_of(trial, &|model| model.to_string()),
        }
    };
    plan.trials.iter().map(origin).collect()
}

/// The machines that runs worked on, each once; jobs on Slurm have journals of their own.
fn machines(records: &[Record], store: &Store) -> Option<String> {
    let of_units =
        store.units().into_iter().filter_map(|unit| journal::read(&unit.join("journal.jsonl")).ok()).flatten();
    let mut machines: Vec<String> = Vec::new();
    for record in records.iter().cloned().chain(of_units) {
        if let What::RunStarted { hardware: Some(hardware), .. } = record.what
            && !machines.contains(&hardware.to_string())
        {
            machines.push(hardware.to_string());
        }
    }
    (!machines.is_empty()).then(|| machines.join("; "))
}

/// Versions and settings, each once; several values where rows differ.
fn settings(settings: &Settings, recorded: &Recorded, spec: &str) -> Vec<(String, String)> {
    let facts = || recorded.table.rows.iter().flat_map(|row| row.scores.iter().map(|(_, facts)| facts));
    let distinct = |of: &dyn Fn(&crate::eval::results::HarnessFacts) -> Option<String>| {
        let mut values: Vec<String> = facts().filter_map(of).collect();
        values.sort();
        values.dedup();
        values.join(", ")
    };
    let number = |value: Option<u64>, none: &str| value.map_or_else(|| none.to_owned(), |value| value.to_string());
    let tasks = settings.tasks.iter().map(|task| {
        let limit = task.limit.or(settings.limit).map(|limit| format!(", limit {limit}")).unwrap_or_default();
        let shots = number(settings.of(task).num_fewshot, "the task’s own");
        let batch_size = task.batch_size.iter().map(|size| format!(", batch size {size}"));
        let arguments = task.model_args.iter().chain(&task.gen_kwargs).map(|(name, value)| format!(", {name}={value}"));
        let own: String = batch_size.chain(arguments).collect();
        format!("{} ({shots} few-shot examples{limit}{own})", task.name)
    });
    let arguments = settings.model_args.iter().map(|(name, value): (&String, &Scalar)| format!("{name}={value}"));
    let back_end: Vec<String> = std::iter::once(settings.model.clone()).chain(arguments).collect();
    let seeds: Vec<String> = ["random", "numpy", "torch", "few-shot"]
        .iter()
        .zip(settings.seeds)
        .map(|(name, seed)| format!("{name} {seed}"))
        .collect();
    let entries = [
        ("program", format!("mergesweep {}, merge engine {}", env!("CARGO_PKG_VERSION"), crate::merge::ENGINE)),
        ("spec digest", fingerprint::digest(spec.as_bytes())),
        ("harness", distinct(&|facts| facts.lm_eval_version.clone())),
        ("transformers", distinct(&|facts| facts.transformers_version.clone())),
        ("torch", distinct(&|facts| facts.torch_version.clone())),
        ("back end", back_end.join(", ")),
        ("device", distinct(&|facts| facts.device.clone())),
        ("number format", distinct(&|facts| facts.model_dtype.clone())),
        ("parameters", distinct(&|facts| facts.n_parameters.map(|n| n.to_string()))),
        ("batch size", settings.batch_size.to_string()),
        ("tasks", tasks.collect::<Vec<_>>().join("; ")),
        ("seeds", seeds.join(", ")),
        ("numerics", numerics()),
        ("statistics", format!("permutations and bootstraps from seed {SEED}")),
    ];
    entries.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn numerics() -> String {
    format!("{} unless a config says otherwise", Numerics::default())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Writes the page.
pub(super) fn write_html(page: &Page, plots: &Plots, path: &Path) -> Result<(), Failure> {
    write(path, html::write(page, plots).as_bytes())
}

/// Writes every plot as SVG and PNG into a folder, which is made where it is missing.
pub(super) fn write_plots(plots: &Plots, folder: &Path) -> Result<usize, Failure> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut written = 0;
    for plot in plots.all() {
        write(&folder.join(format!("{}.svg", plot.name)), plot.svg().as_bytes())?;
        write(&folder.join(format!("{}.png", plot.name)), &plot.png()?)?;
        written += 1;
    }
    Ok(written)
}

/// Draws what both show.
pub(super) fn draw(page: &Page) -> Plots {
    plot::draw(page)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    Ok(write_atomically(path, bytes).with_context(|| path.display().to_string())?)
}
