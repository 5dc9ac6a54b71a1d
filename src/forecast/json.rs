//! A forecast for tools: bytes, seconds and shares as they are.

use serde_json::{Value as Json, json};

use super::power::{Shown, Smallest};
use super::race::Race;
use super::rates::Spread;
use super::{Forecast, Work};

/// The whole of it.
pub fn json(forecast: &Forecast) -> Json {
    let Forecast { work, volume, tasks, rates, time, detectable, race } = forecast;
    let Work {
        n_trials,
        n_merges,
        n_twins,
        n_merges_reused,
        n_models,
        n_evaluations,
        n_reused,
        n_calls,
        n_slots,
        n_baselines,
    } = work;
    let spread = |spread: &Option<Spread>| {
        spread.map(|Spread { low, mean, high }| json!({ "low": low, "mean": mean, "high": high }))
    };
    let passes: Vec<f64> = rates.merges.passes.iter().map(|pass| pass.bytes as f64 / pass.seconds).collect();
    let tasks = tasks.iter().map(|task| {
        let tokens = task.max_tokens.zip(task.n_documents).map(|(tokens, n)| tokens * n);
        json!({
            "task": task.name,
            "documents": task.n_documents,
            "all_documents": task.n_total,
            "known_from": task.source.name(),
            "most_tokens_of_a_document": task.max_tokens,
            "most_tokens": tokens,
            "models": task.n_models,
        })
    });
    json!({
        "trials": n_trials,
        "race": race.as_ref().and_then(|(_, race)| race.as_ref()).map(Race::json),
        "merges": n_merges,
        "merges_of_adapters": n_baselines,
        "twins": n_twins,
        "merges_reused": n_merges_reused,
        "models_evaluated": n_models,
        "evaluations": n_evaluations,
        "evaluations_reused": n_reused,
        "harness_calls": n_calls,
        "slots": n_slots,
        "bytes": {
            "read": volume.read,
            "written": volume.written,
            "known_merges": volume.n_known,
            "passes": volume.n_passes,
            "disk_peak": volume.peak,
            "disk_held": volume.held,
            "disk_budget": volume.budget,
            "disk_free": volume.free,
            "absent_models": volume.absent,
            "refused": volume.refused,
            "shortage": volume.shortage(),
        },
        "tasks": tasks.collect::<Vec<_>>(),
        "merge_rate": {
            "bytes_per_second": spread(&Spread::of(&passes)),
            "passes": passes.len(),
            "from": rates.merges.origin.in_words(),
        },
        "seconds": {
            "merges": spread(&time.merges),
            "evaluations": spread(&time.evaluations),
            "evaluations_from": time.origin.in_words(),
            "all": spread(&time.all),
        },
        "detectable": {
            "reference": detectable.reference,
            "comparisons": detectable.n_comparisons,
            "level": detectable.level,
            "power": crate::stats::power::POWER,
            "columns": detectable.columns.iter().map(shown).collect::<Vec<_>>(),
        },
    })
}

fn shown(shown: &Shown) -> Json {
    let smallest = match &shown.smallest {
        Smallest::Seen { psi, delta } => json!({ "differing": psi, "difference": delta, "from": "results" }),
        Smallest::Assumed(each) => {
            json!(each.map(|(psi, delta)| json!({ "differing": psi, "difference": delta, "from": "assumption" })))
        }
        Smallest::Spread(delta) => json!({ "difference": delta, "from": "results" }),
        Smallest::LaterKnown | Smallest::Unknown => Json::Null,
    };
    json!({ "column": shown.column, "task": shown.task, "documents": shown.n, "smallest": smallest })
}
