//! A sweep into its trials: axis values are put into documents, documents become configs, and all get names.

use std::collections::HashMap;
use std::path::Path;

use super::lint::{Computed, Finding, Kind, Looked, Review, Reviewer, tell_once};
use super::sites::Headers;
use super::template::{Template, TemplateError};
use super::trial::settings_text;
use super::{Plan, Subject, Trial, TrialId};
use crate::config::method::METHODS;
use crate::config::{MergeConfig, Method, Scalar, parse, value};
use crate::document::read::{listed, nearest};
use crate::document::{Code, Node, Problem, Problems, Span, Value};
use crate::merge::arch::Architecture;
use crate::model::ModelRef;
use crate::spec::{self, AxisHead, Dead, MergeEntry, ModelNames, Setting, Sweep, Target};

/// Reads a spec and expands it, reporting the mistakes of both steps together. Nothing is known of the models.
///
/// # Errors
/// Every mistake.
pub fn open(path: &Path) -> Result<(Sweep, Plan), Problems> {
    open_with(path, &|_, _| None)
}

/// The same, with the tensors of those models of a sweep that lie here.
///
/// # Errors
/// Every mistake.
pub fn open_with(
    path: &Path,
    headers: &dyn Fn(&Sweep, &ModelRef) -> Option<Architecture>,
) -> Result<(Sweep, Plan), Problems> {
    let (sweep, mut problems) = spec::read(path);
    let Some(sweep) = sweep else { return Err(problems) };
    let (plan, others) = match expand_with(&sweep, &|model| headers(&sweep, model)) {
        Ok(mut plan) => {
            let warnings = std::mem::take(&mut plan.warnings);
            (Some(plan), warnings)
        }
        Err(others) => (None, others),
    };
    problems.extend(others);
    // Which trials there are in the end is not known where a search adds points.
    let grows = matches!(sweep.search.as_ref().map(|search| search.space(&sweep)), Some(Ok(Some(_))));
    problems.0.extend(plan.as_ref().filter(|_| !grows).and_then(|plan| check_reference(&sweep, plan)));
    problems.sort();
    match plan {
        Some(plan) => {
            let (plan, warnings) = problems.unless_errors(plan)?;
            Ok((sweep, Plan { warnings, ..plan }))
        }
        None => Err(problems),
    }
}

/// Whether the trial that the others are compared with exists.
pub fn check_reference(sweep: &Sweep, plan: &Plan) -> Option<Problem> {
    let reference = sweep.report.reference.as_deref()?;
    let names = || plan.trials.iter().map(|trial| trial.name.as_str());
    if names().any(|name| name == reference) {
        return None;
    }
    let node = sweep.document.get("report").and_then(|report| report.get("reference")).unwrap_or(&sweep.document);
    let hint = match nearest(reference, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there is {}", listed(names())),
    };
    let message = format!("no trial is called `{reference}`");
    Some(Problem::error(Code::Reference, node.span.clone(), "report.reference", message, Some(hint)))
}

/// Makes every trial of a sweep. Nothing is known of the models.
///
/// # Errors
/// Every mistake in the documents, names and axes of its merges.
pub fn expand(sweep: &Sweep) -> Result<Plan, Problems> {
    expand_with(sweep, &|_| None)
}

/// The same, with the tensors of those models that lie here.
///
/// # Errors
/// Every mistake in the documents, names and axes of its merges.
pub fn expand_with(sweep: &Sweep, headers: &Headers<'_>) -> Result<Plan, Problems> {
    let mut problems = Problems::default();
    let n_trials = sweep.baselines.len() + sweep.merges.iter().map(|entry| entry.settings.len()).sum::<usize>();
    if n_trials > sweep.limits.trials {
        let place = sweep.document.get("limits").and_then(|limits| limits.get("trials")).unwrap_or(&sweep.document);
        let message = format!("the sweep has {n_trials} trials, expected at most {}", sweep.limits.trials);
        let hint = Some("thin out with `sample = { n = 100 }`, or raise `limits.trials`".to_owned());
        problems.push(Code::TooMany, place.span.clone(), "limits.trials", message, hint);
        return Err(problems);
    }
    let mut rows: Vec<(Trial, &Span)> = Vec::new();
    for baseline in &sweep.baselines {
        let subject = Subject::unmerged(&baseline.model);
        let trial =
            Trial { id: TrialId::of(&subject), name: baseline.name.clone(), subject, axes: Vec::new(), baseline: true };
        rows.push((trial, &baseline.name_span));
    }
    let naming = |model: &ModelRef| sweep.short_name(model);
    let mut reviewer = Reviewer::new(headers, &naming);
    for entry in &sweep.merges {
        let trials = trials(sweep, entry, rows.len(), &mut reviewer, &mut problems);
        rows.extend(trials.into_iter().map(|trial| (trial, &entry.name_span)));
    }
    unique_names(&rows, sweep, &mut problems);
    twins(&rows, &mut problems);
    let n_contenders = rows.iter().filter(|(trial, _)| !trial.baseline).count();
    if let Some(search) = sweep.document.get("search").filter(|_| sweep.search.is_some() && n_contenders < 2) {
        let message = format!("a race of {n_contenders} merges: there is nothing to choose from");
        let hint = Some("give a merge an axis, or leave `search` out".to_owned());
        problems.warn(Code::SearchTrials, search.span.clone(), "search", message, hint);
    }
    if let (Some(place), Some(Err(why))) =
        (sweep.document.get("search"), sweep.search.as_ref().map(|search| search.space(sweep)))
        && problems.n_errors() == 0
    {
        let hint = Some("`grid.t = [0.0, 0.5, 1.0]` under one `[[merge]]`, or `strategy = \"race\"`".to_owned());
        problems.push(Code::SearchAxes, place.span.clone(), "search", why, hint);
    }
    let review = review(sweep, reviewer.finish(), &mut problems);
    problems.0.iter_mut().for_each(|problem| locate(problem, &sweep.document));
    problems.sort();
    let trials = rows.into_iter().map(|(trial, _)| trial).collect();
    let (trials, warnings) = problems.unless_errors(trials)?;
    Ok(Plan { sweep: sweep.name.clone(), trials, warnings, review })
}

/// Gives findings their places in the spec, and makes mistakes of those that the spec takes for such.
fn review(sweep: &Sweep, mut review: Review, problems: &mut Problems) -> Review {
    tell_once(problems, &review.findings);
    for finding in &mut review.findings {
        let place = finding.span.as_ref().and_then(|span| sweep.document.path_of(span));
        finding.key_path = place.map_or(std::mem::take(&mut finding.key_path), |place| place.to_string());
        if let (Kind::Dead, Dead::Error, Some(span)) = (finding.kind, sweep.lint.dead, &finding.span) {
            let message = format!("{} (`lint.dead = \"warn\"` lets it pass)", finding.message);
            problems.push(Code::DeadSetting, span.clone(), finding.key_path.clone(), message, finding.remedy.clone());
        }
    }
    // One value of an axis among others is not written to have an effect on its own.
    let of_axis =
        |path: &str| sweep.merges.iter().flat_map(|entry| &entry.axes).any(|axis| path.starts_with(&axis.key_path));
    review.findings.retain(|finding| finding.kind != Kind::NoEffect || !of_axis(&finding.key_path));
    review
}

/// Speaks of a mistake by its place in the spec where it stands there: the rewritten documents have places of their own.
fn locate(problem: &mut Problem, document: &Node) {
    if let Some(place) = document.path_of(&problem.span) {
        problem.key_path = place.to_string();
    }
}

/// Every trial of one merge, numbered from `first` on.
fn trials(
    sweep: &Sweep,
    entry: &MergeEntry,
    first: usize,
    reviewer: &mut Reviewer<'_>,
    problems: &mut Problems,
) -> Vec<Trial> {
    let mut names = ModelNames { models: &sweep.models, spec: &sweep.document.span.source, complete: true };
    let n_mistakes = problems.n_errors();
    let template = template(entry, problems);
    if !entry.complete {
        names.complete = false;
        if let Err(mistakes) = parse::parse(&entry.document, &names) {
            problems.extend(mistakes);
        }
        return Vec::new();
    }
    let mut unread = Unread::default();
    let (mut trials, mut computed) = (Vec::new(), Vec::new());
    for setting in &entry.settings {
        let document = match filled(entry, setting, problems) {
            Some(document) => document,
            None => continue,
        };
        if unread.notes_any(entry, setting, method(&document)) {
            continue;
        }
        let config = match parse::parse(&document, &names) {
            Ok(parsed) => {
                problems.extend(parsed.warnings);
                parsed.config
            }
            Err(mistakes) => {
                problems.extend(mistakes);
                continue;
            }
        };
        let (Some(template), Some(seed)) = (&template, seed(entry, setting)) else { continue };
        let looked = Looked { config: &config, seed, numerics: entry.numerics, document: &document };
        computed.push(reviewer.look_at(first + trials.len(), looked));
        trials.push(trial(entry, setting, template, config, seed));
    }
    unread.report(entry, problems);
    if problems.n_errors() == n_mistakes {
        // Points that a search places may well be one merge; they are twins.
        if sweep.search.as_ref().is_none_or(|search| search.most_points().is_none()) {
            identical(entry, &trials, &computed, problems);
        }
        let numbers = (first..first + trials.len()).collect();
        if let Some(finding) = idle_seed(entry, &computed, numbers) {
            reviewer.add(finding);
        }
    }
    trials
}

/// A seed that is written, where nothing is drawn.
fn idle_seed(entry: &MergeEntry, computed: &[Option<Computed>], trials: Vec<usize>) -> Option<Finding> {
    let is_axis = entry.axes.iter().any(|axis| axis.target == Target::Seed);
    let draws = computed.iter().any(|computed| computed.is_none_or(|computed| computed.is_random));
    let span = entry.seed_span.clone().filter(|_| !is_axis && !draws)?;
    Some(Finding {
        kind: Kind::NoEffect,
        trials,
        key_path: format!("{}.seed", entry.key_path),
        span: Some(span),
        message: format!("`seed: {}` changes nothing: no random numbers are drawn", entry.seed),
        label: String::new(),
        remedy: None,
    })
}

fn trial(entry: &MergeEntry, setting: &Setting, template: &Template, config: MergeConfig, seed: u64) -> Trial {
    let axes: Vec<(String, Scalar)> =
        entry.axes.iter().zip(setting).map(|(axis, value)| (axis.name.clone(), value.shown.clone())).collect();
    let mut values = axes.clone();
    values.push(("seed".to_owned(), i64::try_from(seed).map_or_else(|_| Scalar::Text(seed.to_string()), Scalar::Int)));
    values.push(("method".to_owned(), Scalar::Text(config.method.to_string())));
    let mut name = template.name(&values);
    if template.is_plain() && !axes.is_empty() {
        name = format!("{name} ({})", settings_text(&axes));
    }
    let subject = Subject::Merge { config: Box::new(config), seed, numerics: entry.numerics };
    Trial { id: TrialId::of(&subject), name, subject, axes, baseline: false }
}

fn template(entry: &MergeEntry, problems: &mut Problems) -> Option<Template> {
    let mut known: Vec<&str> = entry.axes.iter().map(|axis| axis.name.as_str()).collect();
    // Not listed among the axes in messages unless they are some.
    let fixed: Vec<&str> = ["seed", "method"].into_iter().filter(|name| !known.contains(name)).collect();
    known.extend(fixed);
    match Template::parse(&entry.name, &known) {
        Ok(template) => Some(template),
        // Not to be called unknown: its axis may be one of those that have mistakes.
        Err(TemplateError::Unknown { .. }) if !entry.complete => None,
        Err(error) => {
            let hint = match &error {
                TemplateError::Unknown { .. } if entry.axes.is_empty() => Some("this merge has no axes".to_owned()),
                TemplateError::Unknown { hint, .. } => Some(hint.clone()),
                TemplateError::Unpaired => Some("an axis is written `{t}`; to show a brace, write it twice".to_owned()),
            };
            let key_path = format!("{}.name", entry.key_path);
            problems.push(Code::Template, entry.name_span.clone(), key_path, error.to_string(), hint);
            None
        }
    }
}

/// The document with the values of one combination in it.
fn filled(entry: &MergeEntry, setting: &Setting, problems: &mut Problems) -> Option<Node> {
    let mut document = entry.document.clone();
    for (axis, value) in entry.axes.iter().zip(setting) {
        let Target::Places(places) = &axis.target else { continue };
        for place in places {
            if let Err(error) = document.put(place, value.value.clone()) {
                let (span, path) = (axis.span.clone(), axis.key_path.clone());
                problems.extend(Problems(vec![Problem::error(Code::NoPlace, span, path, error.to_string(), None)]));
                return None;
            }
        }
    }
    Some(document)
}

fn method(document: &Node) -> Option<Method> {
    Method::from_name(document.get("merge_method")?.as_text()?)
}

fn seed(entry: &MergeEntry, setting: &Setting) -> Option<u64> {
    let axis = entry.axes.iter().position(|axis| axis.target == Target::Seed);
    match axis.map(|axis| &setting[axis].value.value) {
        None => Some(entry.seed),
        Some(Value::Scalar(Scalar::Int(seed))) => u64::try_from(*seed).ok(),
        Some(Value::Scalar(Scalar::Float(seed))) => Some(*seed as u64),
        Some(_) => None,
    }
}

/// Axes that a method does not read, with the methods that do not.
#[derive(Default)]
struct Unread(Vec<(usize, Method)>);

impl Unread {
    /// Notes the axes that the method of a trial does not read; whether there are any.
    fn notes_any(&mut self, entry: &MergeEntry, setting: &Setting, method: Option<Method>) -> bool {
        let Some(method) = method else { return false };
        let mut any = false;
        for (index, axis) in entry.axes.iter().enumerate().take(setting.len()) {
            let parameters = axis.target.parameters();
            let unread = match axis.target {
                Target::Seed => !method.spec().random,
                Target::Places(_) => parameters.iter().any(|name| method.parameter(name).is_none()),
            };
            if unread {
                any = true;
                if !self.0.contains(&(index, method)) {
                    self.0.push((index, method));
                }
            }
        }
        any
    }

    fn report(self, entry: &MergeEntry, problems: &mut Problems) {
        for (index, method) in self.0 {
            let axis = &entry.axes[index];
            let (message, hint) = unread_message(entry, axis, index, method);
            problems.push(Code::AxisUnread, axis.span.clone(), axis.key_path.clone(), message, Some(hint));
        }
    }
}

fn unread_message(entry: &MergeEntry, axis: &AxisHead, index: usize, method: Method) -> (String, String) {
    if let Some(name) = axis.target.parameters().into_iter().find(|name| method.parameter(name).is_none())
        && !METHODS.iter().any(|row| row.method.parameter(name).is_some())
    {
        return value::unread(name, method);
    }
    let mut values: Vec<String> = entry.settings.iter().map(|setting| setting[index].shown.to_string()).collect();
    values.sort();
    values.dedup();
    let effect = match values.len() {
        1 => String::new(),
        n => format!(": {n} trials would be identical"),
    };
    let message = format!("axis `{}` has no effect on method `{method}`{effect}", axis.name);
    let hint = if axis.target == Target::Seed {
        let random = METHODS.iter().filter(|row| row.random).map(|row| row.name);
        format!("`{method}` draws no random numbers; {} do", listed(random))
    } else {
        let (_, takes) = value::unread(&axis.name, method);
        format!("{takes}; put `{}` under the methods that read it, or exclude the pair", axis.name)
    };
    (message, hint)
}

/// Reports axes that change nothing: trials of one merge that differ in them alone, all of which have equal bytes. Values
/// that happen to give equal merges, where others of the axis do not, are twins and no mistake.
fn identical(entry: &MergeEntry, trials: &[Trial], computed: &[Option<Computed>], problems: &mut Problems) {
    let mut seen = HashMap::new();
    let mut reported: Vec<Vec<usize>> = Vec::new();
    for (number, computed_here) in computed.iter().enumerate() {
        let Some(computed_here) = computed_here else { continue };
        let first: usize = *seen.entry(computed_here.canonical.exact).or_insert(number);
        let (trial, first_trial) = (&trials[number], &trials[first]);
        let pairs = first_trial.axes.iter().zip(&trial.axes);
        let differing: Vec<usize> = pairs.enumerate().filter(|(_, (a, b))| a.1 != b.1).map(|(axis, _)| axis).collect();
        if first == number || reported.contains(&differing) {
            continue;
        }
        reported.push(differing.clone());
        if has_effect(&differing, trials, computed) {
            continue;
        }
        let names = || differing.iter().map(|axis| entry.axes[*axis].name.as_str());
        let axis = differing.first().map(|axis| &entry.axes[*axis]);
        let (span, key_path) = match axis {
            Some(axis) => (axis.span.clone(), axis.key_path.clone()),
            None => (entry.name_span.clone(), entry.key_path.clone()),
        };
        let message = match axis {
            None => format!("`{}` stands twice in this merge", trial.name),
            Some(_) => format!(
                "`{}` and `{}` would be the same merge: {} sets nothing that makes a difference",
                first_trial.name,
                trial.name,
                listed(names())
            ),
        };
        let hint = axis.filter(|axis| !axis.target.parameters().is_empty()).map(|_| {
            "a source that sets the parameter itself reads no other place; shared parameters are never read on a source. \
             Name the place with `path`"
                .to_owned()
        });
        problems.push(Code::SameMerge, span, key_path, message, hint);
    }
}

/// Whether trials that differ in these axes alone ever differ in what they compute.
fn has_effect(axes: &[usize], trials: &[Trial], computed: &[Option<Computed>]) -> bool {
    let mut groups: HashMap<String, usize> = HashMap::new();
    // The same values twice are twins for sure.
    !axes.is_empty()
        && trials.iter().enumerate().any(|(number, trial)| {
            let others = trial.axes.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
            let others: String = others.map(|(_, (name, value))| format!("{name} {value:?}\n")).collect();
            let first = *groups.entry(others).or_insert(number);
            let exact = |number: usize| computed[number].map(|computed| computed.canonical.exact);
            exact(first) != exact(number)
        })
}

fn unique_names(rows: &[(Trial, &Span)], sweep: &Sweep, problems: &mut Problems) {
    let mut seen: HashMap<&str, &Span> = HashMap::new();
    for (trial, span) in rows {
        let Some(first) = seen.insert(&trial.name, span) else { continue };
        if problems.errors().any(|problem| problem.span.same_as(span)) {
            continue;
        }
        let entry = sweep.merges.iter().find(|entry| entry.name_span.same_as(span));
        let missing: Vec<String> = match entry.filter(|_| first.same_as(span)) {
            Some(entry) => entry
                .axes
                .iter()
                .map(|axis| format!("{{{}}}", axis.name))
                .filter(|name| !entry.name.contains(name))
                .collect(),
            None => Vec::new(),
        };
        let hint = if missing.is_empty() {
            let (line, _) = first.line_column();
            format!("the other one comes from line {line}; names are rows of the table and must differ")
        } else {
            format!("add {} to the name", listed(missing.iter().map(String::as_str)))
        };
        let message = format!("two trials would be named `{}`", trial.name);
        let key_path = entry.map_or_else(|| "baseline".to_owned(), |entry| format!("{}.name", entry.key_path));
        problems.push(Code::SameName, (*span).clone(), key_path, message, Some(hint));
    }
}

/// Warns of rows that are the same subject under two names. They stay: a reader may want both.
fn twins(rows: &[(Trial, &Span)], problems: &mut Problems) {
    let mut seen: HashMap<&TrialId, &Trial> = HashMap::new();
    for (trial, span) in rows {
        if let Some(first) = seen.get(&trial.id) {
            let message = format!(
                "`{}` is the same trial as `{}`: {}",
                trial.name,
                first.name,
                match trial.subject {
                    Subject::Checkpoint(_) => "the same model",
                    Subject::Merge { .. } => "the same merge",
                }
            );
            problems.warn(Code::SameTrial, (*span).clone(), "", message, None);
        } else {
            seen.insert(&trial.id, trial);
        }
    }
}
