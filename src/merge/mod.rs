//! The merge engine: a config and checkpoints in, a checkpoint out. Plain synchronous code that knows neither sweep nor
//! evaluation.
//!
//! ```text
//! MergeConfig + folders -> Sources -> Recipes -> [ pieces of tensors ] -> Staging -> OUT
//!                checkpoint, adapter  recipe      engine, method          writer, sidecar
//! ```
//!
//! Everything that can be known to be wrong is found before the first byte is written; the output appears under its name
//! only when complete. The bytes depend on config, models and seed alone: not on the number of threads, nor, for methods
//! that are symmetric in their models, on the order in which those are listed.

pub mod adapter;
pub mod arch;
pub mod checkpoint;
pub mod digest;
pub mod engine;
pub mod error;
pub mod header;
pub mod inputs;
pub mod method;
pub mod operation;
pub mod real;
pub mod recipe;
pub mod select;
pub mod sidecar;
pub mod source;
pub mod staging;
pub mod writer;

pub use error::{BoxError, MergeError};

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::{Dtype, MergeConfig, Numerics};
use crate::model::ModelRef;
use crate::model::locate::Located;

use adapter::Adapter;
use arch::Architecture;
use checkpoint::Checkpoint;
use recipe::{Choices, Recipes};
use source::Source;
use staging::{OutputError, Staging};
use writer::Writer;

/// Version of the arithmetic: raised whenever the same config and inputs give other bytes than before, so that merges
/// made by an older engine are known to be stale.
pub const ENGINE: u32 = 1;

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
    /// Output tensors.
    pub n_tensors: u64,
    /// Bytes of tensor data written.
    pub n_bytes: u64,
    /// Wall time.
    pub seconds: f64,
    /// Things the user should know: dropped tensors, settings without effect.
    pub notes: Vec<String>,
}

/// Reported after every piece of work with the bytes done and all bytes; answering `false` stops the merge, which then
/// leaves nothing behind. Called from several threads.
pub type Progress<'a> = dyn Fn(u64, u64) -> bool + Sync + 'a;

/// Finds the folders of a model.
pub type Locate<'a> = dyn Fn(&ModelRef) -> Result<Located, BoxError> + 'a;

/// Merges, and writes the result to the folder `out`. `config_text` is what is kept beside the weights as
/// `mergekit_config.yml`.
///
/// # Errors
/// [`MergeError`]. Nothing is left behind then, and a folder that was at `out` before is untouched.
pub fn merge(
    config: &MergeConfig,
    locate: &Locate<'_>,
    out: &Path,
    config_text: &str,
    options: &MergeOptions,
    progress: &Progress<'_>,
) -> Result<Merge, MergeError> {
    let started = Instant::now();
    let plan = plan(config, locate, config_text, options)?;
    for source in &plan.sources {
        refuse_input(out, &source.checkpoint.folder)?;
    }
    let recipes = &plan.recipes.recipes;
    let staging = Staging::new(out)?;
    let writer = Writer::create(&staging, recipes, options.shard_size)?;
    let digests = engine::run(recipes, &plan.sources, &writer, progress)?;
    plan.sidecars.write(&staging)?;
    writer.finish()?;
    staging.commit()?;
    let mut digested: Vec<digest::Digested<'_>> = recipes
        .iter()
        .zip(digests)
        .map(|(recipe, digest)| digest::Digested {
            name: &recipe.name,
            stored: writer::stored(recipe.out),
            shape: &recipe.shape,
            digest,
        })
        .collect();
    Ok(Merge {
        weights_digest: digest::of_tensors(&mut digested),
        seed: options.seed,
        n_tensors: recipes.len() as u64,
        n_bytes: plan.n_bytes(),
        seconds: started.elapsed().as_secs_f64(),
        notes: plan.notes,
    })
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
        self.recipes.recipes.iter().map(recipe::Recipe::n_bytes).sum()
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
    if let Some(tokenizer) = &config.tokenizer {
        return Err(MergeError::Tokenizer { tokenizer: tokenizer.clone() });
    }
    let models = config.models();
    let keys = source::keys(&models);
    let sources: Vec<Source> =
        models.into_iter().zip(keys).map(|(model, key)| open(model, key, locate, options)).collect::<Result<_, _>>()?;
    let choices = Choices {
        seed: options.seed,
        allow_crimes: options.allow_crimes,
        truncate_embeddings: options.truncate_embeddings,
    };
    let recipes = recipe::recipes(config, &sources, choices)?;
    // mergekit takes the first of an unordered set where there is no base; here it is the first that is listed.
    let donor = config.base_model.as_ref().and_then(|base| sources.iter().find(|source| source.model == *base));
    let donor = donor.or(sources.first()).ok_or(recipe::RecipeError::NoSource { slice: 0 })?;
    let sidecars = sidecar::sidecars(config, config_text, &sources, donor, recipes.n_layers, options)?;
    let mut notes: Vec<String> = recipe::extra_tensors(&sources).into_iter().map(note_of_extra).collect();
    notes.extend(sidecars.notes.iter().cloned());
    Ok(MergePlan { sources, recipes, sidecars, notes })
}

/// Digest of the weights in a folder, to be compared with a [`Merge::weights_digest`].
///
/// # Errors
/// [`MergeError::Checkpoint`] when the folder's weights are not sound.
pub fn weights_digest(folder: &Path) -> Result<String, MergeError> {
    Ok(digest::of_folder(folder)?)
}

fn open(model: &ModelRef, key: String, locate: &Locate<'_>, options: &MergeOptions) -> Result<Source, MergeError> {
    let located = locate(model).map_err(|source| MergeError::Locate { model: model.to_string(), source })?;
    let checkpoint = Checkpoint::open(&located.base)?;
    let adapter = located.adapter.map(|folder| Adapter::open(&folder, &checkpoint, options.lora_dtype)).transpose()?;
    let architecture = Architecture::of(&checkpoint);
    Ok(Source { model: model.clone(), key, checkpoint, adapter, architecture })
}

fn refuse_input(out: &Path, folder: &Path) -> Result<(), OutputError> {
    match (out.canonicalize(), folder.canonicalize()) {
        (Ok(same), Ok(folder)) if same == folder => Err(OutputError::IsInput { out: out.to_owned() }),
        _ => Ok(()),
    }
}

fn note_of_extra((model, tensors): (&str, Vec<&str>)) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> = tensors.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if tensors.len() > SHOWN {
        names.push("…".to_owned());
    }
    format!("`{model}`: left out, since not part of its architecture ({} in all): {}", tensors.len(), names.join(", "))
}
