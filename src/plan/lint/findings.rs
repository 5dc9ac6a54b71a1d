//! From the report of a merge to what is worth telling about it.

use super::effect::Effect;
use super::finding::{Finding, Kind};
use super::report::{Idle, Report, SettingReport, Verdict, Why};
use crate::config::method::{Kind as Type, Method, ParameterSpec};
use crate::config::{MergeConfig, Scalar, Setting, value};
use crate::document::read::listed;
use crate::document::{DocumentPath, Entry, Node, Step, Value};
use crate::plan::sites::{Origin, Stand};
use crate::plan::words::Naming;

/// A merge as its findings speak of it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Its config.
    pub config: &'a MergeConfig,
    /// The document that it was read from.
    pub document: &'a Node,
    /// Where the names of its tensors come from.
    pub origin: Origin,
    /// What models are called.
    pub naming: &'a Naming<'a>,
}

/// The findings of a report.
pub fn findings(subject: &Subject<'_>, report: &Report) -> Vec<Finding> {
    let settings = report.settings.iter().filter_map(|setting| subject.of_setting(setting, report));
    let cases = report.settings.iter().filter_map(|setting| subject.of_cases(setting));
    settings.chain(cases).chain(subject.of_defaults(report)).collect()
}

impl Subject<'_> {
    fn of_setting(&self, setting: &SettingReport, report: &Report) -> Option<Finding> {
        let method = self.config.method;
        let SettingReport { stand, name, setting: written, verdict, .. } = setting;
        let row = method.parameter(name);
        let says = format!("`{name}: {written}`");
        const TOP: &str = "put it under `parameters` at top level";
        let (kind, verb, why, remedy) = match verdict {
            Verdict::Read | Verdict::Bound => return None,
            Verdict::Dead(Why::Unknown) => {
                let (message, hint) = value::unread(name, method);
                (Kind::Dead, "is never read", message, Some(hint))
            }
            Verdict::Dead(Why::SharedOnSource) => {
                let why =
                    format!("`{method}` does not look `{name}` up on a source{}", in_force(row?, written, report));
                (Kind::Dead, "is never read", why, Some(TOP.to_owned()))
            }
            Verdict::Dead(Why::OfBase) => {
                let why = format!(
                    "`{method}` asks the other models for `{name}`, not the base{}",
                    in_force(row?, written, report)
                );
                (Kind::Dead, "is never read", why, Some(format!("{TOP}, or on the other models")))
            }
            Verdict::Dead(Why::NoTensors) => {
                (Kind::Dead, "is never read", "no tensor comes from this slice".to_owned(), None)
            }
            Verdict::Shadowed => {
                let why = "settings further in answer for every tensor".to_owned();
                (Kind::Shadowed, "decides nothing", why, Some("delete it, or them".to_owned()))
            }
            Verdict::Unmatched => {
                let why = format!("no tensor matches ({})", self.origin.in_words());
                (Kind::Unmatched, "decides nothing", why, None)
            }
            Verdict::NoEffect(Idle::Default) => (Kind::NoEffect, "is the default", String::new(), None),
            Verdict::NoEffect(Idle::Unused) => (Kind::NoEffect, "changes nothing", self.unused(name, method), None),
            Verdict::NoEffect(Idle::Rounding) => {
                (Kind::NoEffect, "changes nothing but the rounding", String::new(), None)
            }
        };
        let message = if why.is_empty() { format!("{says} {verb}") } else { format!("{says} {verb}: {why}") };
        Some(Finding { label: why, ..self.finding(kind, *stand, name, message, remedy) })
    }

    /// Why nothing uses a parameter that is read.
    fn unused(&self, name: &str, method: Method) -> String {
        match name {
            "int8_mask" => "it is about memory, not numbers".to_owned(),
            "density" if method == Method::TaskArithmetic => format!("`{method}` thins nothing out"),
            "gamma" | "epsilon" | "rescale" => "nothing is thinned out".to_owned(),
            "density" => "the weight is 0".to_owned(),
            "normalize" => "it is divided by 1, or by nothing".to_owned(),
            _ => "no value of it would make a difference here".to_owned(),
        }
    }

    /// Cases of a conditional that answer for no tensor.
    fn of_cases(&self, setting: &SettingReport) -> Option<Finding> {
        let Setting::Conditional(cases) = &setting.setting else { return None };
        if setting.idle_cases.is_empty() {
            return None;
        }
        let idle: Vec<String> = setting.idle_cases.iter().map(|case| cases[*case].to_string()).collect();
        let message = format!(
            "of `{}` the {} {} decides nothing: no tensor is left for it ({})",
            setting.name,
            if idle.len() == 1 { "case" } else { "cases" },
            listed(idle.iter().map(String::as_str)),
            self.origin.in_words()
        );
        Some(self.finding(Kind::Unmatched, setting.stand, &setting.name, message, None))
    }

    /// Defaults that decide something, in one finding. Those that differ in the family are marked.
    fn of_defaults(&self, report: &Report) -> Option<Finding> {
        let mut said: Vec<String> = Vec::new();
        for default in report.defaults.iter().filter(|default| default.effect != Effect::None) {
            let row = default.default.row;
            let Some(value) = default.default.value else { continue };
            let mark = if default.differing.is_empty() { "" } else { "*" };
            let bound = if row.is_bound() { "at most " } else { "" };
            let text = format!("{} {bound}{}{mark}", row.name, row.shown(value));
            if !said.contains(&text) {
                said.push(text);
            }
        }
        (!said.is_empty()).then(|| Finding {
            kind: Kind::Default,
            trials: Vec::new(),
            key_path: String::new(),
            span: None,
            message: said.join(", "),
            label: String::new(),
            remedy: None,
        })
    }

    fn finding(&self, kind: Kind, stand: Stand, name: &str, message: String, remedy: Option<String>) -> Finding {
        let path = path(self.document, stand).map(|path| path.key(name));
        let entry = path.as_ref().and_then(|path| entry_at(self.document, path));
        Finding {
            kind,
            trials: Vec::new(),
            key_path: path.map(|path| path.to_string()).unwrap_or_default(),
            span: entry.map(|entry| entry.key_span.clone()),
            message,
            label: String::new(),
            remedy,
        }
    }
}

/// What is in force instead of a setting that nobody reads.
fn in_force(row: &'static ParameterSpec, written: &Setting, report: &Report) -> String {
    let defaults = report.defaults.iter().find(|default| default.default.row.name == row.name);
    let elsewhere = report
        .settings
        .iter()
        .any(|setting| setting.name == row.name && matches!(setting.verdict, Verdict::Read | Verdict::Bound));
    match defaults.and_then(|default| default.default.value) {
        Some(value) if !elsewhere => {
            let says = |scalar: &Scalar| match row.kind {
                Type::Bool => scalar.as_bool().map(|on| f64::from(u8::from(on))),
                Type::Float => scalar.as_float(),
            };
            let same = matches!(written, Setting::Scalar(scalar) if says(scalar) == Some(value));
            let same = if same { ", which happens to be the same" } else { "" };
            format!("; in force is the default, {}{same}", row.shown(value))
        }
        _ if elsewhere => "; in force is what stands elsewhere".to_owned(),
        _ => String::new(),
    }
}

/// Where the parameters of a level stand in a document of any form.
pub fn path(document: &Node, stand: Stand) -> Option<DocumentPath> {
    let top = DocumentPath(Vec::new());
    if stand == Stand::Top {
        return Some(top.key("parameters"));
    }
    let (root, node) = match document.get("modules") {
        Some(modules) => {
            let entry = modules.entries().first()?;
            (top.key("modules").key(&entry.key), &entry.value)
        }
        None => (top, document),
    };
    let place = match stand {
        Stand::Source { source, .. } if node.get("models").is_some() => root.key("models").index(source),
        Stand::Source { slice, source } => root.key("slices").index(slice).key("sources").index(source),
        Stand::Slice { slice } => root.key("slices").index(slice),
        Stand::Module | Stand::Top => root,
    };
    Some(place.key("parameters"))
}

/// The entry at a place.
fn entry_at<'a>(document: &'a Node, path: &DocumentPath) -> Option<&'a Entry> {
    let (last, steps) = path.0.split_last()?;
    let mut here = document;
    for step in steps {
        here = match (step, &here.value) {
            (Step::Key(key), _) => here.get(key)?,
            (Step::Index(index), Value::List(items)) => items.get(*index)?,
            (Step::Index(_), _) => return None,
        };
    }
    let Step::Key(key) = last else { return None };
    here.entries().iter().find(|entry| entry.key == *key)
}
