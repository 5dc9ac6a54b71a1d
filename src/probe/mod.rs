//! A look at the real tensors before anything is merged: whether the models fit each other, and which merges would come out
//! so near to each other that their scores must be the same.
//!
//! ```text
//! Plan + folders -> models -> sites (sampled rows) -> [ rows of every model -> pairs, outputs of every merge ] -> Probe
//!                   models    sample                   excerpt               kinship    near                     health
//! ```
//!
//! Nothing is downloaded, started or written. Time and memory are bounded: some rows of some tensors are read, all sampled
//! by a fixed seed; one tensor is looked at at a time.

pub mod health;
pub mod json;
pub mod kinship;
pub mod models;
pub mod near;
pub mod sample;
pub mod words;

use std::time::{Duration, Instant};

use crate::document::Problems;
use crate::merge::excerpt::Rows;
use crate::model::{Located, ModelRef};
use crate::plan::Plan;
use crate::spec::Sweep;
use health::Findings;
use kinship::Kinship;
use models::{Model, Models};
use near::{Near, Outputs};
use sample::Site;

/// Longest time that tensors are looked at.
const LONGEST: Duration = Duration::from_secs(120);

/// What is to be looked at.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The spec.
    pub sweep: &'a Sweep,
    /// Its trials.
    pub plan: &'a Plan,
    /// The folders of a model that is on this machine.
    pub locate: &'a dyn Fn(&ModelRef) -> Option<Located>,
    /// Told the number of tensors done, and of all.
    pub progress: &'a dyn Fn(usize, usize),
}

/// What was seen.
#[derive(Debug)]
pub struct Probe {
    /// The models that are here.
    pub models: Vec<Model>,
    /// Names of those that are not.
    pub absent: Vec<String>,
    /// How much was looked at.
    pub extent: Extent,
    /// How the models stand to each other.
    pub kinship: Kinship,
    /// Merges that come out nearly the same.
    pub near: Near,
    /// What is wrong or odd.
    pub problems: Problems,
    /// What is good to know.
    pub notes: Vec<String>,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Tensors that rows were read of.
    pub n_tensors: usize,
    /// Tensors of a model.
    pub n_all: usize,
    /// Numbers that were read of each model.
    pub n_numbers: usize,
    /// Whether the time was over before all sampled tensors were looked at.
    pub is_cut: bool,
}

/// Looks.
pub fn probe(request: &Request<'_>) -> Probe {
    let Request { sweep, plan, progress, .. } = *request;
    let mut findings = Findings::new(sweep, plan);
    let mut models = Models::open(request, &mut findings);
    let sites = models.first().map(sample::sites).unwrap_or_default();
    let mut kinship = Kinship::new(plan, &models);
    let mut outputs = Outputs::new(request, &mut models, &sites, &mut findings);
    let n_all = models.first().map_or(0, |model| model.source.checkpoint.tensors().len());
    let mut extent = Extent { n_all, ..Extent::default() };
    let begun = Instant::now();
    for (done, site) in sites.iter().enumerate() {
        progress(done, sites.len());
        if begun.elapsed() > LONGEST {
            extent.is_cut = true;
            break;
        }
        let rows: Vec<Option<Rows>> = models.0.iter().map(|model| rows_of(model, site, &mut findings)).collect();
        rows.iter().enumerate().for_each(|(model, rows)| {
            rows.iter().for_each(|rows| findings.see(model, site, rows));
        });
        kinship.take(site, &rows);
        outputs.take(site, &models, &rows);
        extent.n_tensors += 1;
        extent.n_numbers += site.n_numbers();
    }
    progress(extent.n_tensors, extent.n_tensors);
    findings.about_files(&models);
    findings.about_weights(&models, &kinship);
    let near = outputs.near(plan);
    let Findings { problems, notes, .. } = findings;
    let absent = models.1;
    Probe { models: models.0, absent, extent, kinship, near, problems, notes }
}

fn rows_of(model: &Model, site: &Site, findings: &mut Findings<'_>) -> Option<Rows> {
    match model.source.rows(&site.tensor, &site.rows) {
        Ok(found) => found.map(|(bytes, stored)| Rows { bytes, stored }),
        Err(error) => {
            findings.unmergeable(&[&model.model], &error.to_string());
            None
        }
    }
}
