//! The merge engine: a config and checkpoints in, a checkpoint out. Plain synchronous code that knows neither sweep nor
//! evaluation.
//!
//! ```text
//! MergeConfig + folders -> Sources -> Recipes -> [ pieces of tensors ] -> Staging -> OUT
//!                checkpoint, adapter  recipe      engine, method          writer, sidecar
//!                                     vocabulary  rows                    tokenizer, chat
//! ```
//!
//! Everything that can be known to be wrong is found before the first byte is written; the output appears under its name
//! only when complete. The bytes depend on config, models and seed alone: not on the number of threads, nor, for methods
//! that are symmetric in their models, on the order in which those are listed.

pub mod adapter;
pub mod arch;
pub mod arithmetic;
pub mod chat;
pub mod checkpoint;
pub mod diff;
pub mod digest;
pub mod engine;
pub mod error;
pub mod excerpt;
pub mod float16;
pub mod followed;
pub mod header;
pub mod inputs;
pub mod introsort;
pub mod method;
pub mod operation;
pub mod outbox;
pub mod real;
pub mod recipe;
pub mod rows;
pub mod sample;
pub mod select;
pub mod sidecar;
pub mod source;
pub mod staging;
pub mod survey;
pub mod tokenizer;
pub mod vector;
pub mod verify;
pub mod vocabulary;
pub mod writer;

pub use error::{BoxError, MergeError};

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::{Dtype, MergeConfig, Numerics};
use crate::model::ModelRef;
use crate::model::locate::Located;

use adapter::Adapter;
use arch::Architecture;
use checkpoint::Checkpoint;
use engine::Computed;
use recipe::{Choices, Recipe, Recipes};
use sample::{Sample, Sampled};
use source::Source;
use staging::{OutputError, Staging};
use writer::Writer;

/// Version of the arithmetic: raised whenever the same config and inputs give other bytes than before, so that merges
/// made by an older engine are known to be stale.
pub const ENGINE: u32 = 7;

/// What a caller may choose beside the config.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeOptions {
    /// Seed of random masks.
    pub seed: u64,
    /// How intermediate results are rounded.
    pub numerics: Numerics,
    /// Largest shard in bytes; a larger tensor gets a shard of its own.
    pub shard_size: u64,
    /// What becomes of the tokenizer's files (mergekit: `--copy-tokenizer`).
    pub tokenizer: TokenizerFiles,
    /// Whether README.md and mergekit_config.yml are written (mergekit: `--write-model-card`).
    pub write_model_card: bool,
    /// Whether architectures may differ (mergekit: `--allow-crimes`).
    pub allow_crimes: bool,
    /// Whether vocabularies of different sizes are cut to the shortest (mergekit: `--unsafe-truncate-embeddings`).
    pub truncate_embeddings: bool,
    /// Number format in which adapters are applied to their base; the base's own where there is none (mergekit:
    /// `--lora-merge-dtype`).
    pub lora_dtype: Option<Dtype>,
}

impl Default for MergeOptions {
    /// mergekit's defaults, and seed 0.
    fn default() -> Self {
        Self {
            seed: 0,
            numerics: Numerics::F32,
            shard_size: 5_000_000_000,
            tokenizer: TokenizerFiles::IfPresent,
            write_model_card: true,
            allow_crimes: false,
            truncate_embeddings: false,
            lora_dtype: None,
        }
    }
}

/// What becomes of the tokenizer's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerFiles {
    /// Copied; a model without them is an error. What is to be evaluated needs them.
    Required,
    /// Copied where there are any, with a note where there are none (mergekit's way).
    IfPresent,
    /// Not copied.
    Skip,
}

/// The record of a finished merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Merge {
    /// Digest of names, dtypes, shapes and bytes of every output tensor, whatever the sharding.
    pub weights_digest: String,
    /// The seed.
    pub seed: u64,
    /// How intermediate results were rounded.
    #[serde(default)]
    pub numerics: Numerics,
    /// Output tensors.
    pub n_tensors: u64,
    /// Bytes of tensor data written.
    pub n_bytes: u64,
    /// Wall time; of all merges together where several were computed in one pass.
    pub seconds: f64,
    /// L2 norm of what the output differs by from the base model, where there is one.
    #[serde(default)]
    pub change: Option<f64>,
    /// Things the user should know: dropped tensors, settings without effect.
    pub notes: Vec<String>,
    /// Every output tensor, in the order of writing.
    #[serde(default)]
    pub tensors: Vec<MergedTensor>,
    /// Some of its numbers, which are kept apart from the record.
    #[serde(skip)]
    pub sample: Sample,
}

/// The record of one output tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MergedTensor {
    /// Its name.
    pub name: String,
    /// BLAKE3 digest of the digests of its pieces: see [`digest`].
    pub digest: String,
    /// L2 norm of what it differs by from the base model, where there is one.
    pub change: Option<f64>,
    /// Infinities and NaN, all of them where an input has one.
    pub n_non_finite: u64,
}

/// Reported after every piece of work with the bytes done and all bytes; answering `false` stops the merge, which then
/// leaves nothing behind. Called from several threads.
pub type Progress<'a> = dyn Fn(u64, u64) -> bool + Sync + 'a;

/// Finds the folders of a model.
pub type Locate<'a> = dyn Fn(&ModelRef) -> Result<Located, BoxError> + 'a;

/// One merge that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What to merge.
    pub config: &'a MergeConfig,
    /// What is kept beside the weights as `mergekit_config.yml`.
    pub config_text: &'a str,
    /// The folder to write.
    pub out: &'a Path,
    /// What the caller chose.
    pub options: &'a MergeOptions,
}

/// Merges, all in one pass: what several of them read is read once, and what several of them need to know of it is found
/// once. The bytes are those of merging one by one.
///
/// # Errors
/// [`MergeError`], for all of them. Nothing is left behind then but what was complete, and a folder that was at an `out`
/// before is untouched.
pub fn merge(jobs: &[Job<'_>], locate: &Locate<'_>, progress: &Progress<'_>) -> Result<Vec<Merge>, MergeError> {
    let started = Instant::now();
    let mut pool = Pool::default();
    let mut plans = Vec::with_capacity(jobs.len());
    for job in jobs {
        let plan = pool.plan(job.config, locate, job.config_text, job.options)?;
        for source in &plan.sources {
            refuse_input(job.out, &source.checkpoint.folder)?;
        }
        plans.push(plan);
    }
    staging::check_space(jobs.iter().zip(&plans).map(|(job, plan)| (job.out, plan.n_bytes())))?;
    let mut outputs = Vec::with_capacity(jobs.len());
    for (job, plan) in jobs.iter().zip(&plans) {
        let staging = Staging::new(job.out)?;
        let writer = Writer::create(&staging, &plan.recipes.recipes, job.options.shard_size)?;
        outputs.push((staging, writer));
    }
    let running: Vec<engine::Job<'_>> = jobs
        .iter()
        .zip(&plans)
        .zip(&outputs)
        .map(|((job, plan), (_, writer))| engine::Job {
            recipes: &plan.recipes.recipes,
            sources: &plan.sources,
            writer,
            numerics: job.options.numerics,
        })
        .collect();
    let computed = engine::run(&running, progress)?;
    drop(running);
    for ((staging, writer), plan) in outputs.into_iter().zip(&plans) {
        plan.sidecars.write(&staging)?;
        writer.finish()?;
        staging.commit()?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let record = |((job, plan), computed): ((&Job<'_>, MergePlan), Vec<Computed>)| plan.record(job, &computed, seconds);
    Ok(jobs.iter().zip(plans).zip(computed).map(record).collect())
}

/// Everything about a merge that is known before a byte is written.
#[derive(Debug)]
pub struct MergePlan {
    /// The models.
    pub sources: Vec<Source>,
    /// What is computed.
    pub recipes: Recipes,
    /// What lies beside it.
    pub sidecars: sidecar::Sidecars,
    /// Things the user should know.
    pub notes: Vec<String>,
}

impl MergePlan {
    /// Bytes of tensor data that will be written.
    pub fn n_bytes(&self) -> u64 {
        self.recipes.recipes.iter().map(Recipe::n_bytes).sum()
    }

    fn record(self, job: &Job<'_>, computed: &[Computed], seconds: f64) -> Merge {
        let recipes = || self.recipes.recipes.iter().zip(computed);
        let mut digested: Vec<digest::Digested<'_>> = recipes()
            .map(|(recipe, computed)| digest::Digested {
                name: &recipe.name,
                stored: writer::stored(recipe.out),
                shape: &recipe.shape,
                digest: computed.digest,
            })
            .collect();
        let tensors = recipes().map(|(recipe, computed)| MergedTensor {
            name: recipe.name.clone(),
            digest: computed.digest.to_hex().to_string(),
            change: computed.squared_change.map(f64::sqrt),
            n_non_finite: computed.n_non_finite,
        });
        let unsound = recipes().filter_map(|(recipe, computed)| {
            let input = recipe.inputs.get(computed.unsound_input?)?;
            let (model, tensor) = (&self.sources[input.source].model, &input.tensor);
            Some(format!("`{tensor}` of `{model}` has infinities or NaN: what becomes of them depends on the method"))
        });
        let mut notes = self.notes.clone();
        notes.extend(unsound);
        let squared_change: Option<f64> = computed.iter().map(|computed| computed.squared_change).sum();
        let weights_digest = digest::of_tensors(&mut digested);
        let sampled = |(recipe, computed): (&Recipe, &Computed)| {
            (recipe.name.clone(), Sampled::new(&computed.seen, recipe.n_elements()))
        };
        Merge {
            sample: Sample { weights: weights_digest.clone(), tensors: recipes().map(sampled).collect() },
            weights_digest,
            seed: job.options.seed,
            numerics: job.options.numerics,
            n_tensors: computed.len() as u64,
            n_bytes: self.n_bytes(),
            seconds,
            change: squared_change.map(f64::sqrt),
            tensors: tensors.collect(),
            notes,
        }
    }
}

/// Opens the models and resolves everything, without writing anything.
///
/// # Errors
/// [`MergeError`].
pub fn plan(
    config: &MergeConfig,
    locate: &Locate<'_>,
    config_text: &str,
    options: &MergeOptions,
) -> Result<MergePlan, MergeError> {
    Pool::default().plan(config, locate, config_text, options)
}

/// Digest of the weights in a folder, to be compared with a [`Merge::weights_digest`].
///
/// # Errors
/// [`MergeError::Checkpoint`] when the folder's weights are not sound.
pub fn weights_digest(folder: &Path) -> Result<String, MergeError> {
    Ok(digest::of_folder(folder)?)
}

/// Open models, each once.
#[derive(Debug, Default)]
pub struct Pool(Vec<(Option<Dtype>, Source)>);

impl Pool {
    /// [`plan`], with models that are open already.
    ///
    /// # Errors
    /// [`MergeError`].
    pub fn plan(
        &mut self,
        config: &MergeConfig,
        locate: &Locate<'_>,
        config_text: &str,
        options: &MergeOptions,
    ) -> Result<MergePlan, MergeError> {
        let models = config.models();
        let keys = source::keys(&models);
        let sources: Vec<Source> = models
            .into_iter()
            .zip(keys)
            .map(|(model, key)| self.open(model, key, locate, options))
            .collect::<Result<_, _>>()?;
        let choices = Choices {
            seed: options.seed,
            numerics: options.numerics,
            allow_crimes: options.allow_crimes,
            truncate_embeddings: options.truncate_embeddings,
        };
        // mergekit takes the first of an unordered set where there is no base; here it is the first that is listed.
        let donor = config.base_model.as_ref().and_then(|base| sources.iter().find(|source| source.model == *base));
        let donor = donor.or(sources.first()).ok_or(recipe::RecipeError::NoSource { slice: 0 })?;
        let vocabulary = vocabulary::vocabulary(config, &sources, donor, locate)?;
        let recipes = recipe::recipes(config, &sources, vocabulary.as_ref(), choices)?;
        let parts = sidecar::Parts { sources: &sources, donor, vocabulary: vocabulary.as_ref(), recipes: &recipes };
        let sidecars = sidecar::sidecars(config, config_text, &parts, options)?;
        let contradiction = |source: &Source| {
            let found = source.architecture.contradiction(&source.checkpoint)?;
            Some(format!("`{}`: {found}", source.key))
        };
        let mut notes: Vec<String> = sources.iter().filter_map(contradiction).collect();
        notes.extend(recipe::note_of_cut(config));
        notes.extend(sources.iter().filter_map(note_of_unlisted));
        notes.extend(recipe::extra_tensors(&sources).into_iter().map(note_of_extra));
        notes.extend(vocabulary.into_iter().flat_map(|vocabulary| vocabulary.notes));
        notes.extend(sidecars.notes.iter().cloned());
        Ok(MergePlan { sources, recipes, sidecars, notes })
    }

    /// Opens a model, which gets `key` for a short name.
    ///
    /// # Errors
    /// [`MergeError`].
    pub fn open(
        &mut self,
        model: &ModelRef,
        key: String,
        locate: &Locate<'_>,
        options: &MergeOptions,
    ) -> Result<Source, MergeError> {
        let same = |(dtype, source): &&(Option<Dtype>, Source)| *dtype == options.lora_dtype && source.model == *model;
        if let Some((_, source)) = self.0.iter().find(same) {
            return Ok(Source { key, ..source.clone() });
        }
        let located = locate(model).map_err(|source| MergeError::of_model(model, source))?;
        // An adapter on a model that is open already shares its files.
        let opened = self.0.iter().find(|(_, source)| source.checkpoint.folder == located.base);
        let checkpoint = match opened {
            Some((_, source)) => source.checkpoint.clone(),
            None => Arc::new(Checkpoint::open(&located.base)?),
        };
        let adapter =
            located.adapter.map(|folder| Adapter::open(&folder, &checkpoint, options.lora_dtype)).transpose()?;
        let architecture = Arc::new(Architecture::of(&checkpoint));
        let source = Source { model: model.clone(), key, checkpoint, adapter: adapter.map(Arc::new), architecture };
        self.0.push((options.lora_dtype, source.clone()));
        Ok(source)
    }
}

fn refuse_input(out: &Path, folder: &Path) -> Result<(), OutputError> {
    match (out.canonicalize(), folder.canonicalize()) {
        (Ok(same), Ok(folder)) if same == folder => Err(OutputError::IsInput { out: out.to_owned() }),
        _ => Ok(()),
    }
}

fn note_of_extra((model, tensors): (&str, Vec<&str>)) -> String {
    let names = some_of(&tensors);
    format!("`{model}`: left out, since not part of its architecture ({} in all): {names}", tensors.len())
}

fn note_of_unlisted(source: &Source) -> Option<String> {
    let tensors = source.checkpoint.unlisted();
    let names = some_of(tensors);
    let note =
        format!("`{}`: left out, since not in the index of its files ({} in all): {names}", source.key, tensors.len());
    (!tensors.is_empty()).then_some(note)
}

/// A few names of many.
fn some_of(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    if names.len() > SHOWN {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}
