//! A plan as JSON: what `plan --json` prints and what is stored before the first merge.

use serde_json::{Map, Value as Json, json};

use super::{Plan, Subject, Trial};
use crate::config::write;
use crate::model::ModelRef;

/// The whole plan. Model references are as the spec has them.
pub fn plan(plan: &Plan) -> Json {
    json!({
        "sweep": plan.sweep,
        "trials": plan.trials.iter().map(trial).collect::<Vec<_>>(),
    })
}

/// One trial with its resolved settings.
pub fn trial(trial: &Trial) -> Json {
    let axes: Map<String, Json> =
        trial.axes.iter().map(|(axis, value)| (axis.clone(), write::scalar_json(value))).collect();
    let mut row = Map::new();
    row.insert("id".to_owned(), Json::from(trial.id.0.as_str()));
    row.insert("name".to_owned(), Json::from(trial.name.as_str()));
    row.insert("kind".to_owned(), Json::from(trial.kind()));
    row.insert("folder".to_owned(), Json::from(trial.folder()));
    row.insert("axes".to_owned(), Json::Object(axes));
    match &trial.subject {
        Subject::Checkpoint(model) => {
            row.insert("model".to_owned(), Json::from(model.to_string()));
        }
        Subject::Merge { config, seed, numerics } => {
            row.insert("seed".to_owned(), Json::from(*seed));
            row.insert("numerics".to_owned(), Json::from(numerics.name()));
            row.insert("config".to_owned(), write::json(config, &ModelRef::to_string));
        }
    }
    Json::Object(row)
}
