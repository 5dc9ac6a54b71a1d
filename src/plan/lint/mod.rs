//! What is worth telling about a plan before anything runs: settings that nobody reads, merges that are simpler than they
//! look, defaults that differ in a family, and twins. All of it is derived from the resolution that the engine makes.
//!
//! Trials whose configs have the same settings at the same places, and whose computations differ in numbers only, share
//! their findings: a grid of thousands is looked at as a few merges.

pub mod effect;
pub mod finding;
pub mod findings;
pub mod recording;
pub mod report;

pub use finding::{Finding, Kind, Severity};
pub use report::{Report, Verdict};

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::resolution::{Resolution, resolve};
use super::sites::{Headers, Origin, SiteFinder, Sites, levels};
use super::twins::{self, Canonical, Twins, exact};
use super::words::{self, Naming};
use crate::config::parameter::LookUp;
use crate::config::{MergeConfig, Numerics, Setting};
use crate::document::{self, Node, Problems, Span};
use crate::merge::recipe::RecipeError;
use crate::model::ModelRef;
use effect::Trial;
use findings::Subject;
use recording::Recording;

/// A merge to be looked at.
#[derive(Clone, Copy)]
pub struct Looked<'a> {
    /// Its config.
    pub config: &'a MergeConfig,
    /// Its seed.
    pub seed: u64,
    /// How intermediate results are rounded.
    pub numerics: Numerics,
    /// The document that the config was read from.
    pub document: &'a Node,
}

/// Everything that was found out about a plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Review {
    /// The findings, the gravest first, each once for all trials that it holds for.
    pub findings: Vec<Finding>,
    /// Trials that are one merge.
    pub twins: Twins,
    /// Where the names of tensors come from, where there are merges.
    pub origin: Option<Origin>,
}

/// Looks at one merge after the other.
pub struct Reviewer<'a> {
    finder: SiteFinder<'a>,
    naming: &'a Naming<'a>,
    /// Findings of alike trials.
    alike: HashMap<String, Vec<usize>>,
    findings: Vec<Finding>,
    computations: Vec<Option<Canonical>>,
    origin: Option<Origin>,
}

/// What one merge is, to whoever compares it with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Computed {
    /// Its canonical form.
    pub canonical: Canonical,
    /// Whether its seed decides about anything.
    pub is_random: bool,
}

/// A merge with its report.
pub struct Reported<'a> {
    /// What is computed.
    pub resolution: Resolution<'a>,
    /// How its settings fare.
    pub report: Report,
}

/// Resolves a merge and reports on its settings.
///
/// # Errors
/// [`RecipeError`] where it cannot be resolved.
pub fn report_on<'a>(
    config: &'a MergeConfig,
    seed: u64,
    numerics: Numerics,
    sites: Arc<Sites>,
) -> Result<Reported<'a>, RecipeError> {
    let recording = Recording::default();
    let hear = |class: usize, look_up: &LookUp<'_>| recording.hear(class, look_up);
    let resolution = resolve(config, seed, numerics, sites.clone(), Some(&hear))?;
    let canonical = twins::canonical(&resolution);
    let trial = Trial { config, seed, numerics, sites, canonical };
    let report = report::report(&trial, &resolution, &recording);
    Ok(Reported { resolution, report })
}

impl<'a> Reviewer<'a> {
    /// Nothing looked at yet.
    pub fn new(headers: &'a Headers<'a>, naming: &'a Naming<'a>) -> Self {
        let (findings, computations) = (Vec::new(), Vec::new());
        Self { finder: SiteFinder::new(headers), naming, alike: HashMap::new(), findings, computations, origin: None }
    }

    /// Looks at the merge of the trial of that number; none where it cannot be resolved, which is a finding.
    pub fn look_at(&mut self, number: usize, looked: Looked<'_>) -> Option<Computed> {
        let Looked { config, seed, numerics, .. } = looked;
        let sites = self.finder.of(config);
        self.origin = self.origin.max(Some(sites.origin));
        let resolution = match resolve(config, seed, numerics, sites.clone(), None) {
            Ok(resolution) => resolution,
            Err(error) => {
                self.note(number, Kind::Unresolved, error.to_string());
                return None;
            }
        };
        let forms = twins::forms(&resolution);
        let texts = twins::exact_texts(&resolution);
        let canonical = twins::canonical_of(&resolution, &forms, &texts);
        let place = &looked.document.span;
        let key = format!("{:p} {} {}", Arc::as_ptr(&place.source), place.start, shape(config, &texts));
        if let Some(known) = self.alike.get(&key) {
            for finding in known {
                self.findings[*finding].trials.push(number);
            }
        } else if let Ok(reported) = report_on(config, seed, numerics, sites.clone()) {
            let subject = Subject { config, document: looked.document, origin: sites.origin, naming: self.naming };
            let first = self.findings.len();
            let found = findings::findings(&subject, &reported.report);
            self.findings.extend(found.into_iter().map(|finding| Finding { trials: vec![number], ..finding }));
            self.alike.insert(key, (first..self.findings.len()).collect());
        }
        if let Some(reduction) = words::reduction(&resolution, &forms, self.naming) {
            self.note(number, Kind::Reduces, reduction);
        }
        self.computations.resize(self.computations.len().max(number + 1), None);
        self.computations[number] = Some(canonical);
        Some(Computed { canonical, is_random: resolution.operations.iter().any(exact::is_random) })
    }

    fn note(&mut self, number: usize, kind: Kind, message: String) {
        let (trials, key_path, label) = (vec![number], String::new(), String::new());
        self.findings.push(Finding { kind, trials, key_path, span: None, message, label, remedy: None });
    }

    /// Adds what was found otherwise.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Everything, put together.
    pub fn finish(self) -> Review {
        let twins = Twins::of(&self.computations);
        Review { findings: together(self.findings), twins, origin: self.origin }
    }
}

/// The findings of a mergekit file on its own, as those of trial 0.
pub fn of_file(looked: Looked<'_>, headers: &Headers<'_>) -> Vec<Finding> {
    let naming = |model: &ModelRef| model.to_string();
    let mut reviewer = Reviewer::new(headers, &naming);
    reviewer.look_at(0, looked);
    reviewer.finish().findings
}

/// Leaves out the warnings of the reader of a file that findings tell as well: these know more.
pub fn tell_once(problems: &mut Problems, findings: &[Finding]) {
    let is_told =
        |span: &Span| findings.iter().any(|finding| finding.span.as_ref().is_some_and(|found| found.same_as(span)));
    problems.0.retain(|problem| problem.severity == document::Severity::Error || !is_told(&problem.span));
}

/// Each finding once, for all its trials: the gravest first, then in the order of the files.
fn together(findings: Vec<Finding>) -> Vec<Finding> {
    let mut numbers: HashMap<(Kind, String, String), usize> = HashMap::new();
    let mut together: Vec<Finding> = Vec::new();
    for finding in findings {
        let place = finding.span.as_ref().map(|span| (span.source.path.clone(), span.start));
        let key = (finding.kind, format!("{place:?} {}", finding.key_path), finding.message.clone());
        match numbers.get(&key) {
            Some(number) => together[*number].trials.extend(finding.trials),
            None => {
                numbers.insert(key, together.len());
                together.push(finding);
            }
        }
    }
    for finding in &mut together {
        finding.trials.sort_unstable();
        finding.trials.dedup();
    }
    together.sort_by_key(|finding| {
        (finding.kind, finding.trials.first().copied(), finding.span.as_ref().map(|span| span.start))
    });
    together
}

/// The same for trials that differ in numbers only: which settings stand where and what is done, without the numbers.
fn shape(config: &MergeConfig, texts: &[String]) -> String {
    let mut shape = format!("{} {:?}", config.method, config.base_model);
    for slice in &config.slices {
        let sources: Vec<_> = slice.sources.iter().map(|source| (&source.model, source.layer_range)).collect();
        // Writing to a text cannot fail.
        let _ = write!(shape, "\n{:?} {sources:?}", slice.base_model);
    }
    for (stand, parameters) in levels(config) {
        for (name, setting) in parameters {
            let default = config.method.parameter(name).and_then(|row| row.default);
            let _ = write!(shape, "\n{stand:?} {name} ");
            match setting {
                Setting::Scalar(value) => {
                    let is_default = default.is_some() && value.as_float() == default;
                    shape.push(if is_default { 'd' } else { 's' });
                }
                other => shape += &other.to_string(),
            }
        }
    }
    for text in texts {
        shape.push('\n');
        // Numbers stand between blanks; those in the names of models are parts of words.
        for word in text.split(' ') {
            let number = word.trim_matches(['(', ',', '[', ']']);
            // With 0 and 1 a merge is another one.
            let is_plain = number.parse::<f64>().is_ok_and(|number| number != 0.0 && number != 1.0);
            shape.push_str(if is_plain { "#" } else { word });
            shape.push(' ');
        }
    }
    shape
}
