//! A checkpoint: a model folder with config.json and safetensors files, opened by mapping and checked in full before any
//! byte is used. Alignment is never assumed. Reads nothing but config and weights; tokenizer files are `sidecar`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap};
use safetensors::Dtype as StoredDtype;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::header::{self, HeaderError};
use crate::config::Dtype;

/// Name of a one-file checkpoint.
pub const SINGLE: &str = "model.safetensors";
/// Name of the index of a sharded one.
pub const INDEX: &str = "model.safetensors.index.json";
/// Name of the model's config.
pub const CONFIG: &str = "config.json";

/// A folder that is no sound checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Weights twice over.
    #[error("`{}`: both `{SINGLE}` and `{INDEX}` are there, and programs differ in which they read (remove one of the two sets)", .folder.display())]
    TwoSets {
        /// The model's folder.
        folder: PathBuf,
    },
    /// A file that cannot be opened or read.
    #[error("`{}`: cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A JSON file that is none.
    #[error("`{}`: expected a JSON table", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// No weights.
    #[error("`{}`: expected `{SINGLE}` or `{INDEX}`, found neither", .folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// Weights in another format.
    #[error(
        "`{}`: expected safetensors, found `{found}` (convert it with `save_pretrained(..., safe_serialization=True)` of transformers)",
        .folder.display()
    )]
    OtherFormat {
        /// The folder.
        folder: PathBuf,
        /// The file that is there.
        found: String,
    },
    /// An index that names a file which is not there.
    #[error("`{}`: tensor `{tensor}` should be in `{shard}`, which does not exist", .index.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// A tensor in it.
        tensor: String,
        /// The file.
        shard: String,
    },
    /// An index that names something else than a file beside it.
    #[error("`{}`: tensor `{tensor}`: expected the name of a file in the same folder, found `{shard}`", .index.display())]
    ShardName {
        /// The index.
        index: PathBuf,
        /// A tensor in it.
        tensor: String,
        /// What stands there.
        shard: String,
    },
    /// A tensor that is not in the file the index names.
    #[error(
        "`{}`: tensor `{tensor}` should be in `{shard}`, which does not have it (fetch that file and the index again from one \
         source)",
        .index.display()
    )]
    MissingInShard {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file.
        shard: String,
    },
    /// One name in two files.
    #[error("`{}`: tensor `{tensor}` is in both `{first}` and `{second}`", .index.display())]
    InTwoShards {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A file that is no sound safetensors file.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// `config.json`, keys in the order of the file; empty for an adapter.
    pub config: Map<String, Value>,
    weights: Weights,
}

/// The weights of a checkpoint.
#[derive(Debug, Default)]
struct Weights {
    shards: Vec<Mmap>,
    tensors: BTreeMap<String, Tensor>,
    /// Tensors in the files that the index does not have.
    unlisted: Vec<String>,
}

impl Weights {
    /// Those of one file.
    fn of_file(file: &Path) -> Result<Self, CheckpointError> {
        let (map, infos) = open_shard(file)?;
        let tensors = infos.into_iter().map(|(name, info)| (name, info.in_shard(0))).collect();
        Ok(Self { shards: vec![map], tensors, unlisted: Vec::new() })
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    shard: usize,
    bytes: (usize, usize),
    /// Number format.
    pub stored: StoredDtype,
    /// Shape.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// The number format, where it is one that a merge can compute with.
    pub fn dtype(&self) -> Option<Dtype> {
        match self.stored {
            StoredDtype::BF16 => Some(Dtype::Bf16),
            StoredDtype::F16 => Some(Dtype::F16),
            StoredDtype::F32 => Some(Dtype::F32),
            StoredDtype::F64 => Some(Dtype::F64),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a model's folder.
    ///
    /// # Errors
    /// [`CheckpointError`], one variant for each thing that can be wrong.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let config = read_json(&folder.join(CONFIG))?;
        Ok(Self { folder: folder.to_owned(), config, weights: open_weights(folder)? })
    }

    /// Opens one safetensors file, with no config beside it.
    ///
    /// # Errors
    /// [`CheckpointError`] as for [`Checkpoint::open`].
    pub fn open_file(file: &Path) -> Result<Self, CheckpointError> {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { folder, config: Map::new(), weights: Weights::of_file(file)? })
    }

    /// Opens the weights of a folder alone.
    ///
    /// # Errors
    /// [`CheckpointError`] as for [`Checkpoint::open`].
    pub fn open_weights_of(folder: &Path) -> Result<Self, CheckpointError> {
        Ok(Self { folder: folder.to_owned(), config: Map::new(), weights: open_weights(folder)? })
    }

    /// Every tensor by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.weights.tensors
    }

    /// Tensors in the files that the index does not have: they are no part of the checkpoint.
    pub fn unlisted(&self) -> &[String] {
        &self.weights.unlisted
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.weights.tensors.get(name)
    }

    /// The bytes of one of this checkpoint's tensors.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.weights.shards[tensor.shard][tensor.bytes.0..tensor.bytes.1]
    }

    /// Asks the operating system to have a tensor's bytes at hand soon.
    pub fn read_ahead(&self, tensor: &Tensor) {
        let (start, end) = tensor.bytes;
        // A hint: where it is not taken, the bytes come when they are read.
        let _ = self.weights.shards[tensor.shard].advise_range(Advice::WillNeed, start, end - start);
    }

    /// A whole number of the config, at the top or in the part about text.
    pub fn config_number(&self, keys: &[&str]) -> Option<usize> {
        number_in(&self.config, keys)
    }

    /// The first of `architectures`.
    pub fn architecture(&self) -> Option<&str> {
        self.config.get("architectures")?.get(0)?.as_str()
    }
}

impl header::TensorInfo {
    fn in_shard(self, shard: usize) -> Tensor {
        Tensor { shard, bytes: self.bytes, stored: self.dtype, shape: self.shape }
    }
}

/// A whole number of a model's config, at the top or in the part about text.
pub fn number_in(config: &Map<String, Value>, keys: &[&str]) -> Option<usize> {
    let text = config.get("text_config").and_then(Value::as_object);
    [Some(config), text]
        .into_iter()
        .flatten()
        .find_map(|config| keys.iter().find_map(|key| config.get(*key)?.as_u64()?.try_into().ok()))
}

/// A JSON table from a file.
///
/// # Errors
/// [`CheckpointError::Read`] and [`CheckpointError::Json`].
pub fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, CheckpointError> {
    let text = std::fs::read(file).map_err(|source| CheckpointError::Read { file: file.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| CheckpointError::Json { file: file.to_owned(), source })
}

fn open_weights(folder: &Path) -> Result<Weights, CheckpointError> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    if !index.exists() {
        return if single.exists() { Weights::of_file(&single) } else { Err(no_weights(folder)) };
    }
    let Index { weight_map } = read_json(&index)?;
    // An index of that very file is no second set.
    let is_of_single = !weight_map.is_empty() && weight_map.values().all(|shard| shard == SINGLE);
    if single.exists() && !is_of_single {
        return Err(CheckpointError::TwoSets { folder: folder.to_owned() });
    }
    let names = shard_names(folder, &index, &weight_map)?;
    let mut shards = Vec::with_capacity(names.len());
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut unlisted = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let (map, infos) = open_shard(&folder.join(name))?;
        shards.push(map);
        for (tensor, info) in infos {
            if !weight_map.contains_key(&tensor) {
                unlisted.push(tensor);
                continue;
            }
            // The last file would silently win.
            if let Some(first) = tensors.get(&tensor) {
                let first = names[first.shard].clone();
                return Err(CheckpointError::InTwoShards { index, tensor, first, second: name.clone() });
            }
            tensors.insert(tensor, info.in_shard(number));
        }
    }
    for (tensor, shard) in &weight_map {
        if tensors.get(tensor).is_none_or(|found| names[found.shard] != *shard) {
            let (tensor, shard) = (tensor.clone(), shard.clone());
            return Err(CheckpointError::MissingInShard { index, tensor, shard });
        }
    }
    Ok(Weights { shards, tensors, unlisted })
}

/// The files an index names, each once and each there.
fn shard_names(
    folder: &Path,
    index: &Path,
    weight_map: &BTreeMap<String, String>,
) -> Result<Vec<String>, CheckpointError> {
    let mut names = BTreeSet::new();
    for (tensor, shard) in weight_map {
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            let (index, tensor, shard) = (index.to_owned(), tensor.clone(), shard.clone());
            return Err(CheckpointError::ShardName { index, tensor, shard });
        }
        if names.insert(shard.clone()) && !folder.join(shard).exists() {
            let (index, tensor, shard) = (index.to_owned(), tensor.clone(), shard.clone());
            return Err(CheckpointError::MissingShard { index, tensor, shard });
        }
    }
    Ok(names.into_iter().collect())
}

fn open_shard(file: &Path) -> Result<(Mmap, BTreeMap<String, header::TensorInfo>), CheckpointError> {
    let read = |source| CheckpointError::Read { file: file.to_owned(), source };
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(file).map_err(read)?.is_file() {
        return Err(read(std::io::Error::other("not a regular file")));
    }
    let map = map_file(&File::open(file).map_err(read)?).map_err(read)?;
    let infos = header::read(file, &map)?;
    Ok((map, infos))
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only ever read as bytes, for which every bit pattern is valid. Should another program shorten
    // the file meanwhile, reading beyond its new end stops this process (SIGBUS): model files are written once and
    // replaced by renaming, by us and by the hub's tools alike, and reading them into memory instead would cost what the
    // merge engine is there to save.
    unsafe { Mmap::map(file) }
}

fn no_weights(folder: &Path) -> CheckpointError {
    let other = |name: &String| {
        name.ends_with(".bin") || name.ends_with(".gguf") || name.ends_with(".pt") || name.ends_with(".pth")
    };
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(other)
        .collect();
    found.sort_unstable();
    match found.into_iter().next() {
        Some(found) => CheckpointError::OtherFormat { folder: folder.to_owned(), found },
        None => CheckpointError::NoWeights { folder: folder.to_owned() },
    }
}
