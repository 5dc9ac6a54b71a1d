//! A plan as JSON: what `plan --json` prints and what is stored before the first merge.

use serde_json::{Map, Value as Json, json};

use super::lint::report::{DefaultReport, Idle, Report, SettingReport, Verdict, Why};
use super::lint::{self, Finding, effect::Effect};
use super::sites::{Headers, SiteFinder, Stand};
use super::{Plan, Subject, Trial};
use crate::config::write;
use crate::document::Code;
use crate::model::ModelRef;

/// The whole plan. Model references are as the spec has them.
pub fn plan(plan: &Plan) -> Json {
    let group = |trials: &Vec<usize>| names(plan, trials);
    json!({
        "sweep": plan.sweep,
        "trials": plan.trials.iter().map(trial).collect::<Vec<_>>(),
        "findings": plan.review.findings.iter().map(|one| finding(plan, one)).collect::<Vec<_>>(),
        "twins": {
            "exact": plan.review.twins.exact.iter().map(group).collect::<Vec<_>>(),
            "rounding": plan.review.twins.rounding.iter().map(group).collect::<Vec<_>>(),
        },
    })
}

/// The whole plan, every merge with its parameter report under `parameters`.
pub fn reported(plan: &Plan, headers: &Headers<'_>) -> Json {
    let mut whole = self::plan(plan);
    let mut finder = SiteFinder::new(headers);
    for (trial, json) in plan.trials.iter().zip(whole["trials"].as_array_mut().into_iter().flatten()) {
        let Subject::Merge { config, seed, numerics } = &trial.subject else { continue };
        let sites = finder.of(config);
        // What cannot be resolved is among the findings.
        if let Ok(reported) = lint::report_on(config, *seed, *numerics, sites) {
            json["parameters"] = report(&reported.report);
        }
    }
    whole
}

fn names(plan: &Plan, trials: &[usize]) -> Json {
    trials.iter().filter_map(|trial| plan.trials.get(*trial)).map(|trial| trial.name.as_str()).collect()
}

fn finding(plan: &Plan, finding: &Finding) -> Json {
    let place = finding.span.as_ref().map(|span| {
        let (line, column) = span.line_column();
        json!({ "file": span.source.path, "line": line, "column": column })
    });
    json!({
        "kind": finding.kind.name(),
        "code": finding.kind.code().map(Code::id),
        "trials": names(plan, &finding.trials),
        "key_path": finding.key_path,
        "place": place,
        "message": finding.message,
        "remedy": finding.remedy,
    })
}

/// The parameter report of one merge.
pub fn report(report: &Report) -> Json {
    json!({
        "settings": report.settings.iter().map(setting).collect::<Vec<_>>(),
        "defaults": report.defaults.iter().map(default).collect::<Vec<_>>(),
    })
}

fn setting(setting: &SettingReport) -> Json {
    let (verdict, why) = match setting.verdict {
        Verdict::Read => ("read", None),
        Verdict::Bound => ("read", Some("a bound: decides only where the iteration does not come to rest before")),
        Verdict::Shadowed => ("shadowed", None),
        Verdict::Unmatched => ("unmatched", None),
        Verdict::NoEffect(Idle::Default) => ("no-effect", Some("the default")),
        Verdict::NoEffect(Idle::Unused) => ("no-effect", Some("not used")),
        Verdict::NoEffect(Idle::Rounding) => ("no-effect", Some("rounding alone")),
        Verdict::Dead(Why::Unknown) => ("dead", Some("no such parameter")),
        Verdict::Dead(Why::SharedOnSource) => ("dead", Some("shared parameter on a source")),
        Verdict::Dead(Why::OfBase) => ("dead", Some("parameter of the other models on the base")),
        Verdict::Dead(Why::NoTensors) => ("dead", Some("slice without tensors")),
    };
    let stand = match setting.stand {
        Stand::Source { slice, source } => json!({ "slice": slice, "source": source }),
        Stand::Slice { slice } => json!({ "slice": slice }),
        Stand::Module => json!("module"),
        Stand::Top => json!("top"),
    };
    let values = setting.values.iter().map(|(value, n)| json!({ "value": value, "tensors": n }));
    json!({
        "name": setting.name,
        "stands": stand,
        "setting": write::plain_setting(&setting.setting),
        "verdict": verdict,
        "why": why,
        "values": values.collect::<Vec<_>>(),
        "idle_cases": setting.idle_cases,
    })
}

fn default(default: &DefaultReport) -> Json {
    let differing = default.differing.iter().map(|(method, value)| (method.name().to_owned(), Json::from(*value)));
    json!({
        "name": default.default.row.name,
        "model": default.default.model.as_ref().map(ToString::to_string),
        "value": default.default.value,
        "tensors": default.n_tensors,
        "decides": default.effect == Effect::Some,
        "differs": Json::Object(differing.collect()),
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
