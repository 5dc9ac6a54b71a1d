//! A PEFT LoRA adapter, applied to its base model's tensors while they are read.
//!
//! `W + scaling * B A` (transposed where the config says `fan_in_fan_out`), `scaling = alpha / r`, or `alpha / sqrt(r)`
//! with rslora (LoRA: arXiv:2106.09685). The product is computed in f32 by candle, added in f32 and rounded once to the
//! tensor's dtype, as PEFT's `merge_and_unload` does; like there, the change of an embedding is rounded by itself first. Which modules have an adapter is told by the adapter's
//! own tensors; everything that is not plain LoRA is refused rather than left out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor as Matrix};
use serde::Deserialize;
use serde_json::Value;

use super::checkpoint::{Checkpoint, CheckpointError, Tensor, read_json};
use super::real::Real;
use crate::config::Dtype;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Ranks are padded to a multiple of this.
const RANK: usize = 8;

/// Elements of the product that are held at a time.
const PART: usize = 1 << 21;

/// An adapter that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Its files are not sound.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A feature that is not plain LoRA.
    #[error("`{}`: `{setting}` is `{found}`: only plain LoRA is applied (merge it with PEFT's `merge_and_unload` first)", .file.display())]
    Unsupported {
        /// The adapter's config.
        file: PathBuf,
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
    },
    /// A pattern that is more than a module name.
    #[error("`{}`: `{setting}`: expected module names, found the pattern `{found}`", .file.display())]
    Pattern {
        /// The adapter's config.
        file: PathBuf,
        /// The setting.
        setting: &'static str,
        /// The pattern.
        found: String,
    },
    /// A tensor of the adapter that is no half of a LoRA pair.
    #[error("`{}`: tensor `{tensor}`: expected the `lora_A` or `lora_B` of a module", .file.display())]
    Tensor {
        /// The adapter's weights.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A copy of a base model's tensor that is none.
    #[error("`{}`: `{tensor}` is not what the base model `{}` has: this adapter brings its own embedding (merge it with PEFT's `merge_and_unload` first)", .file.display(), .base.display())]
    OwnEmbedding {
        /// The adapter's weights.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The base model.
        base: PathBuf,
    },
    /// One half of a pair without the other.
    #[error("`{}`: module `{module}`: expected both `lora_A` and `lora_B`, found one of them", .file.display())]
    Half {
        /// The adapter's weights.
        file: PathBuf,
        /// The module.
        module: String,
    },
    /// A module that the base model does not have.
    #[error("`{}`: module `{module}` is not in the base model `{}`", .file.display(), .base.display())]
    Module {
        /// The adapter's weights.
        file: PathBuf,
        /// The module.
        module: String,
        /// The base model.
        base: PathBuf,
    },
    /// Shapes that do not fit the base model.
    #[error("`{}`: module `{module}`: expected a change of shape {expected:?}, found lora_B {b:?} and lora_A {a:?}", .file.display())]
    Shape {
        /// The adapter's weights.
        file: PathBuf,
        /// The module.
        module: String,
        /// Shape of the base model's tensor.
        expected: Vec<usize>,
        /// Shape of lora_A.
        a: Vec<usize>,
        /// Shape of lora_B.
        b: Vec<usize>,
    },
    /// A rank other than the config's.
    #[error("`{}`: module `{module}`: expected rank {expected} (adapter_config.json), found {found}", .file.display())]
    Rank {
        /// The adapter's weights.
        file: PathBuf,
        /// The module.
        module: String,
        /// Rank by the config.
        expected: usize,
        /// Rank by the tensors.
        found: usize,
    },
    /// A product that candle refuses.
    #[error("`{}`: module `{module}`: the low-rank product failed", .file.display())]
    Product {
        /// The adapter's weights.
        file: PathBuf,
        /// The module.
        module: String,
        /// Why.
        source: Box<candle_core::Error>,
    },
}

#[derive(Deserialize)]
struct Config {
    peft_type: Option<String>,
    #[serde(default = "default_rank")]
    r: usize,
    #[serde(default = "default_alpha")]
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    rank_pattern: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    alpha_pattern: Option<serde_json::Map<String, Value>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}

/// Settings that would change the result in a way that is not computed here; anything but null, false, `none` and empty
/// is refused.
const REFUSED: &[&str] = &[
    "alora_invocation_tokens",
    "bias",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];

/// An open adapter.
#[derive(Debug)]
pub struct Adapter {
    file: PathBuf,
    weights: Checkpoint,
    /// What the base's tensors are cast to first.
    dtype: Option<Dtype>,
    /// By name of the base model's tensor.
    pairs: BTreeMap<String, Pair>,
}

#[derive(Debug, Clone)]
struct Pair {
    module: String,
    a: String,
    b: String,
    scaling: f32,
    transposed: bool,
    embedding: bool,
}

impl Adapter {
    /// Opens an adapter's folder and checks that it fits its base model.
    ///
    /// # Errors
    /// [`AdapterError`], one variant for each thing that can be wrong.
    pub fn open(folder: &Path, base: &Checkpoint, dtype: Option<Dtype>) -> Result<Self, AdapterError> {
        let (config_file, file) = (folder.join(CONFIG), folder.join(WEIGHTS));
        let config: Config = read_json(&config_file)?;
        refuse(&config_file, &config)?;
        let weights = Checkpoint::open_file(&file)?;
        let mut halves: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
        for (tensor, info) in weights.tensors() {
            // PEFT keeps a copy of embeddings that have an adapter.
            if let Some(module) = stripped(tensor).strip_suffix(".base_layer.weight") {
                if !is_copy(base, &format!("{module}.weight"), &weights, info) {
                    return Err(AdapterError::OwnEmbedding { file, tensor: tensor.clone(), base: base.folder.clone() });
                }
                continue;
            }
            let (module, half) =
                half(tensor).ok_or_else(|| AdapterError::Tensor { file: file.clone(), tensor: tensor.clone() })?;
            halves.entry(module.to_owned()).or_default()[half] = Some(tensor.clone());
        }
        let mut pairs = BTreeMap::new();
        for (module, halves) in halves {
            let [Some(a), Some(b)] = halves else { return Err(AdapterError::Half { file, module }) };
            let target = format!("{module}.weight");
            let Some(tensor) = base.tensor(&target) else {
                return Err(AdapterError::Module { file, module, base: base.folder.clone() });
            };
            let embedding = a.ends_with("lora_embedding_A");
            let transposed = config.fan_in_fan_out || embedding;
            let pair = Pair { module, a, b, scaling: 0.0, transposed, embedding };
            let rank = check_shapes(&file, &weights, &pair, tensor)?;
            let scaling = scaling(&config_file, &file, &config, &pair.module, rank)?;
            pairs.insert(target, Pair { scaling, ..pair });
        }
        Ok(Self { file, weights, dtype, pairs })
    }

    /// Whether [`Adapter::apply`] gives other bytes for a tensor than the base model has.
    pub fn changes(&self, name: &str) -> bool {
        self.dtype.is_some() || self.pairs.contains_key(name)
    }

    /// The dtype of what [`Adapter::apply`] gives.
    pub fn dtype(&self, tensor: &Tensor) -> Option<Dtype> {
        tensor.dtype().map(|own| self.dtype.unwrap_or(own))
    }

    /// The bytes of a tensor of the base model with the adapter applied.
    ///
    /// # Errors
    /// [`AdapterError::Product`] where candle fails.
    pub fn apply<'a>(&self, name: &str, tensor: &Tensor, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, AdapterError> {
        let Some(own) = tensor.dtype() else { return Ok(Cow::Borrowed(bytes)) };
        let dtype = self.dtype.unwrap_or(own);
        let bytes = if dtype == own { Cow::Borrowed(bytes) } else { Cow::Owned(cast(bytes, own, dtype)) };
        let Some(pair) = self.pairs.get(name) else { return Ok(bytes) };
        let product = || {
            let (left, right) = self.factors(pair)?;
            add(pair, (&left, &right), tensor.shape[1], dtype, &bytes)
        };
        product().map(Cow::Owned).map_err(|source| self.failed(pair, source))
    }

    /// The bytes of some rows of a matrix of the base model, in their order, with the adapter applied; `rows` are their
    /// numbers and `bytes` what the base model has there.
    ///
    /// # Errors
    /// [`AdapterError::Product`] where candle fails.
    pub fn apply_to_rows(
        &self,
        name: &str,
        tensor: &Tensor,
        rows: &[usize],
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, AdapterError> {
        let Some(own) = tensor.dtype() else { return Ok(bytes) };
        let dtype = self.dtype.unwrap_or(own);
        let bytes = if dtype == own { bytes } else { cast(&bytes, own, dtype) };
        let Some(pair) = self.pairs.get(name) else { return Ok(bytes) };
        let product = || {
            let (left, right) = self.factors(pair)?;
            let rows: Vec<u32> = rows.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)).collect();
            let left = left.index_select(&Matrix::new(rows.as_slice(), &Device::Cpu)?, 0)?;
            add(pair, (&left, &right), tensor.shape[1], dtype, &bytes)
        };
        product().map_err(|source| self.failed(pair, source))
    }

    /// How many of the base model's tensors it changes.
    pub fn n_modules(&self) -> usize {
        self.pairs.len()
    }

    /// Bytes of its own tensors.
    pub fn n_bytes(&self) -> u64 {
        self.weights.tensors().values().map(|tensor| self.weights.bytes(tensor).len() as u64).sum()
    }

    fn failed(&self, pair: &Pair, source: candle_core::Error) -> AdapterError {
        AdapterError::Product { file: self.file.clone(), module: pair.module.clone(), source: Box::new(source) }
    }

    /// The two matrices whose product is added, before it is scaled.
    fn factors(&self, pair: &Pair) -> Result<(Matrix, Matrix), candle_core::Error> {
        let (a, b) = (self.matrix(&pair.a)?, self.matrix(&pair.b)?);
        // Zeros add nothing, and a rank of whole vectors takes the path that sums as torch does.
        let padding = a.dims()[0].next_multiple_of(RANK) - a.dims()[0];
        let (a, b) = (a.pad_with_zeros(0, 0, padding)?, b.pad_with_zeros(1, 0, padding)?);
        Ok(if pair.transposed { (a.t()?.contiguous()?, b.t()?.contiguous()?) } else { (b, a) })
    }

    fn matrix(&self, name: &str) -> Result<Matrix, candle_core::Error> {
        let Some((tensor, dtype)) = self.weights.tensor(name).and_then(|tensor| Some((tensor, tensor.dtype()?))) else {
            return Err(candle_core::Error::CannotFindTensor { path: name.to_owned() });
        };
        let mut numbers = vec![0f32; tensor.shape.iter().product()];
        f32::decode(self.weights.bytes(tensor), dtype, &mut numbers);
        Matrix::from_vec(numbers, tensor.shape.as_slice(), &Device::Cpu)
    }
}

/// The rows of a matrix with the product of the factors added: as many rows as the left one has.
fn add(
    pair: &Pair,
    (left, right): (&Matrix, &Matrix),
    n_columns: usize,
    dtype: Dtype,
    bytes: &[u8],
) -> Result<Vec<u8>, candle_core::Error> {
    let n_rows = left.dims()[0];
    let part = PART.div_ceil(n_columns.max(1));
    let mut merged = Vec::with_capacity(bytes.len());
    for first in (0..n_rows).step_by(part) {
        let rows = part.min(n_rows - first);
        let product = left.narrow(0, first, rows)?.contiguous()?.matmul(right)?;
        let mut change: Vec<f32> = product.flatten_all()?.to_vec1()?;
        change.iter_mut().for_each(|value| *value *= pair.scaling);
        if pair.embedding {
            f32::round_to(&mut change, dtype);
        }
        let range = first * n_columns * dtype.size()..(first + rows) * n_columns * dtype.size();
        add_part(&bytes[range], dtype, &change, &mut merged);
    }
    Ok(merged)
}

fn cast(bytes: &[u8], from: Dtype, to: Dtype) -> Vec<u8> {
    let mut numbers = vec![0f64; bytes.len() / from.size()];
    f64::decode(bytes, from, &mut numbers);
    let mut cast = vec![0; numbers.len() * to.size()];
    f64::encode(&numbers, to, &mut cast);
    cast
}

/// Adds a change to numbers of that dtype, and rounds.
fn add_part(bytes: &[u8], dtype: Dtype, change: &[f32], merged: &mut Vec<u8>) {
    let from = merged.len();
    merged.resize(from + bytes.len(), 0);
    if dtype == Dtype::F64 {
        let mut sum = vec![0f64; change.len()];
        f64::decode(bytes, dtype, &mut sum);
        sum.iter_mut().zip(change).for_each(|(sum, change)| *sum += f64::from(*change));
        f64::encode(&sum, dtype, &mut merged[from..]);
    } else {
        let mut sum = vec![0f32; change.len()];
        f32::decode(bytes, dtype, &mut sum);
        sum.iter_mut().zip(change).for_each(|(sum, change)| *sum += *change);
        f32::encode(&sum, dtype, &mut merged[from..]);
    }
}

fn refuse(file: &Path, config: &Config) -> Result<(), AdapterError> {
    let unsupported = |setting, found: String| Err(AdapterError::Unsupported { file: file.to_owned(), setting, found });
    if let Some(kind) = config.peft_type.as_ref().filter(|kind| *kind != "LORA") {
        return unsupported("peft_type", kind.clone());
    }
    for setting in REFUSED {
        let harmless = match config.rest.get(*setting) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::String(text)) => text == "none",
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(table)) => table.is_empty(),
            Some(Value::Bool(true) | Value::Number(_)) => false,
        };
        if !harmless {
            return unsupported(setting, config.rest[*setting].to_string());
        }
    }
    Ok(())
}

/// Whether a tensor of the adapter holds the same numbers as one of the base model.
fn is_copy(base: &Checkpoint, name: &str, weights: &Checkpoint, info: &Tensor) -> bool {
    let Some(original) = base.tensor(name).filter(|original| original.shape == info.shape) else { return false };
    let (Some(from), Some(to)) = (original.dtype(), info.dtype()) else { return false };
    from == to && base.bytes(original) == weights.bytes(info)
}

fn stripped(tensor: &str) -> &str {
    tensor.strip_prefix("base_model.model.").unwrap_or(tensor)
}

/// The module a tensor of an adapter belongs to, and 0 for its `lora_A`, 1 for its `lora_B`.
fn half(tensor: &str) -> Option<(&str, usize)> {
    let name = stripped(tensor);
    let ends = [(".lora_A.weight", 0), (".lora_B.weight", 1), (".lora_embedding_A", 0), (".lora_embedding_B", 1)];
    ends.iter().find_map(|(end, half)| Some((name.strip_suffix(end)?, *half)))
}

/// The rank, if the pair makes a change of the tensor's shape.
fn check_shapes(file: &Path, weights: &Checkpoint, pair: &Pair, tensor: &Tensor) -> Result<usize, AdapterError> {
    let shape = |name: &str| weights.tensor(name).map(|tensor| tensor.shape.clone()).unwrap_or_default();
    let (a, b) = (shape(&pair.a), shape(&pair.b));
    if let ([rank, columns], [rows, other_rank]) = (a.as_slice(), b.as_slice()) {
        let change = if pair.transposed { [*columns, *rows] } else { [*rows, *columns] };
        if rank == other_rank && change.as_slice() == tensor.shape.as_slice() {
            return Ok(*rank);
        }
    }
    let (file, module, expected) = (file.to_owned(), pair.module.clone(), tensor.shape.clone());
    Err(AdapterError::Shape { file, module, expected, a, b })
}

fn scaling(config_file: &Path, file: &Path, config: &Config, module: &str, rank: usize) -> Result<f32, AdapterError> {
    let pattern = |setting, patterns: &Option<serde_json::Map<String, Value>>| match patterns {
        Some(patterns) => pattern_value(config_file, setting, patterns, module),
        None => Ok(None),
    };
    let expected = pattern("rank_pattern", &config.rank_pattern)?.map_or(config.r, |rank| rank as usize);
    if expected != rank {
        return Err(AdapterError::Rank { file: file.to_owned(), module: module.to_owned(), expected, found: rank });
    }
    let alpha = pattern("alpha_pattern", &config.alpha_pattern)?.unwrap_or(config.lora_alpha);
    let rank = rank as f64;
    Ok((if config.use_rslora { alpha / rank.sqrt() } else { alpha / rank }) as f32)
}

/// The value of the first pattern that names the module: its whole name, or its end after a dot.
fn pattern_value(
    file: &Path,
    setting: &'static str,
    patterns: &serde_json::Map<String, Value>,
    module: &str,
) -> Result<Option<f64>, AdapterError> {
    for (pattern, value) in patterns {
        let plain = pattern.replace("\\.", ".");
        let (whole, name) = match plain.strip_prefix('^') {
            Some(name) => (true, name),
            None => (false, plain.as_str()),
        };
        let name = name.strip_suffix('$').unwrap_or(name);
        if name.contains(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
            return Err(AdapterError::Pattern { file: file.to_owned(), setting, found: pattern.clone() });
        }
        let end =
            module.strip_suffix(name).is_some_and(|before| before.is_empty() || (!whole && before.ends_with('.')));
        if end {
            return Ok(value.as_f64());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_modules_by_their_end() {
        let patterns: serde_json::Map<String, Value> =
            serde_json::from_str(r#"{"^q_proj": 1, "layers.1.k_proj": 2, "k_proj": 3}"#).unwrap();
        let value = |module| pattern_value(Path::new("c"), "alpha_pattern", &patterns, module).unwrap();
        assert_eq!(value("model.layers.1.k_proj"), Some(2.0));
        assert_eq!(value("model.layers.11.k_proj"), Some(3.0));
        assert_eq!(value("model.layers.0.q_proj"), None);
        let odd: serde_json::Map<String, Value> = serde_json::from_str(r#"{"(q|k)_proj": 1}"#).unwrap();
        assert!(pattern_value(Path::new("c"), "alpha_pattern", &odd, "q_proj").is_err());
    }

    #[test]
    fn halves_are_told_by_their_names() {
        assert_eq!(
            half("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"),
            Some(("model.layers.0.mlp.up_proj", 1))
        );
        assert_eq!(half("base_model.model.model.embed_tokens.lora_embedding_A"), Some(("model.embed_tokens", 0)));
        assert_eq!(half("base_model.model.lm_head.weight"), None);
    }
}
