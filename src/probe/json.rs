//! A probe for tools. Findings stand with the other diagnostics.

use serde_json::{Value as Json, json};

use super::Probe;
use super::kinship::Kind;
use super::near::{Apart, Group};
use crate::plan::Plan;

/// All of it.
pub fn json(probe: &Probe, plan: &Plan) -> Json {
    let name = |place: usize| probe.models[place].name.as_str();
    let trial = |trial: &usize| plan.trials[*trial].name.as_str();
    let models = probe.models.iter().map(|model| {
        json!({
            "name": model.name,
            "model": model.model.to_string(),
            "architecture": model.source.checkpoint.architecture(),
            "layers": model.source.architecture.n_layers,
            "parameters": model.n_parameters(),
            "dtypes": model.dtypes().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "tokens": model.tokenizer.as_ref().map(|tokenizer| tokenizer.n_ids()),
            "embedding_rows": model.n_rows(),
            "own_head": model.has_head(),
            "chat_template": model.template.is_some(),
            "adapter_tensors": model.source.adapter.as_ref().map(|adapter| adapter.n_modules()),
        })
    });
    let pairs = probe.kinship.pairs.iter().filter(|pair| pair.n_tensors > 0).map(|pair| {
        let layers =
            pair.distances().into_iter().map(|(layer, distance)| json!({ "layer": layer, "distance": distance }));
        json!({
            "models": pair.models.map(name),
            "kind": match pair.kind {
                Kind::Strangers => "not merged",
                Kind::Beside => "merged",
                Kind::Base => "base and model",
            },
            "distance": pair.all().distance(),
            "cosine": pair.all().cosine(),
            "layers": layers.collect::<Vec<_>>(),
            "tensors": pair.n_tensors,
            "equal_tensors": pair.n_equal,
        })
    });
    let meetings = probe.kinship.meetings.iter().map(|meeting| {
        json!({
            "base": name(meeting.base),
            "models": meeting.models.map(name),
            "cosine": meeting.cosine(),
            "size_ratio": meeting.ratio(),
            "opposite_signs": meeting.opposed(),
        })
    });
    let apart = |apart: &Apart| {
        let Apart { trials, distance, cosine, share, rounded_share, rounding } = apart;
        json!({
            "trials": trials.each_ref().map(trial),
            "distance": distance,
            "cosine": cosine,
            "share": share,
            "rounded_share": rounded_share,
            "rounding": rounding,
        })
    };
    let groups = |groups: &[Group]| -> Vec<Json> {
        let trials = |group: &Group| group.trials.iter().map(trial).collect::<Vec<_>>();
        groups.iter().map(|group| json!({ "trials": trials(group), "widest": apart(&group.widest) })).collect()
    };
    json!({
        "tensors": probe.extent.n_tensors,
        "numbers": probe.extent.n_numbers,
        "cut": probe.extent.is_cut,
        "models": models.collect::<Vec<_>>(),
        "absent": probe.absent,
        "pairs": pairs.collect::<Vec<_>>(),
        "task_vectors": meetings.collect::<Vec<_>>(),
        "near_twins": {
            "merges": probe.near.n_merges,
            "compared_merges": probe.near.n_looked_at,
            "compared_pairs": probe.near.n_pairs,
            "groups": groups(&probe.near.groups),
            "within_rounding": groups(&probe.near.blurred),
            "next": probe.near.next.as_ref().map(apart),
        },
        "notes": probe.notes,
    })
}
