//! What the merge tests share: the parity fixtures, merging a config text, reading and building checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mergesweep::config::parse::{self, Mergekit};
use mergesweep::config::{Dtype, MergeConfig};
use mergesweep::document;
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::merge::real::Real;
use mergesweep::merge::{self, Merge, MergeError, MergeOptions, MergePlan, TokenizerFiles};
use mergesweep::model::ModelRef;
use mergesweep::model::locate::Located;
use tempfile::TempDir;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mergekit-parity")
}

pub fn config(text: &str) -> MergeConfig {
    let node = document::parse::text_of(Path::new("config.yml"), text.to_owned()).unwrap();
    parse::parse(&node, &Mergekit).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
}

pub fn options() -> MergeOptions {
    MergeOptions { seed: 42, tokenizer: TokenizerFiles::IfPresent, ..MergeOptions::default() }
}

/// An output folder that goes away with the test.
pub struct Output {
    folder: TempDir,
    pub merge: Merge,
}

impl Output {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub fn tensors(&self) -> BTreeMap<String, Numbers> {
        numbers(&Checkpoint::open(&self.path()).unwrap())
    }

    /// Tokens and ids as tokenizer.json has them.
    pub fn vocabulary(&self) -> BTreeMap<String, usize> {
        let tokenizer = self.json("tokenizer.json");
        let id = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let plain = tokenizer["model"]["vocab"].as_object().unwrap().iter();
        let added = tokenizer["added_tokens"].as_array().unwrap().iter();
        let added = added.map(|token| (token["content"].as_str().unwrap().to_owned(), id(&token["id"])));
        plain.map(|(token, value)| (token.clone(), id(value))).chain(added).collect()
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path().join(name)).unwrap()).unwrap()
    }
}

/// Merges with model paths relative to `root`.
pub fn merge_in(root: &Path, text: &str, options: &MergeOptions) -> Result<Output, MergeError> {
    let folder = TempDir::new().unwrap();
    let merge = merge_to(root, text, options, &folder.path().join("out"), &|_, _| true)?;
    Ok(Output { folder, merge })
}

pub fn merge_to(
    root: &Path,
    text: &str,
    options: &MergeOptions,
    out: &Path,
    progress: &merge::Progress<'_>,
) -> Result<Merge, MergeError> {
    let job = merge::Job { config: &config(text), config_text: text, out, options };
    merge::merge(&[job], &|model| locate(root, model), progress).map(|mut merges| merges.remove(0))
}

/// What a merge would do, with model paths relative to `root`.
pub fn plan_in(root: &Path, text: &str, options: &MergeOptions) -> Result<MergePlan, MergeError> {
    merge::plan(&config(text), &|model| locate(root, model), text, options)
}

fn locate(root: &Path, model: &ModelRef) -> Result<Located, merge::BoxError> {
    Ok(Located {
        base: root.join(&model.base.path),
        adapter: model.adapter.as_ref().map(|adapter| root.join(&adapter.path)),
    })
}

/// Merges fixture models.
pub fn merge(text: &str) -> Output {
    merge_in(&fixtures(), text, &options()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Message of a merge that must fail, with its causes; also that nothing is left beside the output.
pub fn failure(root: &Path, text: &str, options: &MergeOptions) -> String {
    let folder = TempDir::new().unwrap();
    let error = merge_to(root, text, options, &folder.path().join("out"), &|_, _| true).expect_err(text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a failed merge left something behind");
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    message.replace(&root.display().to_string(), "ROOT")
}

/// Why a config is refused: by its reader, or by the merge of fixture models.
pub fn refusal(text: &str) -> String {
    let node = document::parse::text_of(Path::new("config.yml"), text.to_owned()).unwrap();
    match parse::parse(&node, &Mergekit) {
        Ok(_) => failure(&fixtures(), text, &options()),
        Err(problems) => problems.to_string(),
    }
}

/// A tensor's numbers, whatever their format.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

pub fn numbers(checkpoint: &Checkpoint) -> BTreeMap<String, Numbers> {
    let read = |tensor: &merge::checkpoint::Tensor| {
        let dtype = tensor.dtype().unwrap();
        let mut values = vec![0.0; tensor.shape.iter().product()];
        f64::decode(checkpoint.bytes(tensor), dtype, &mut values);
        Numbers { dtype, shape: tensor.shape.clone(), values }
    };
    checkpoint.tensors().iter().map(|(name, tensor)| (name.clone(), read(tensor))).collect()
}

/// The tensors of a fixture model.
pub fn fixture(model: &str) -> BTreeMap<String, Numbers> {
    numbers(&Checkpoint::open(&fixtures().join("inputs").join(model)).unwrap())
}

/// Bytes of a safetensors file, tensors in the order given.
pub fn safetensors(tensors: &[(&str, Numbers)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, Numbers { dtype, shape, values }) in tensors {
        let begin = data.len();
        data.resize(begin + values.len() * dtype.size(), 0);
        f64::encode(values, *dtype, &mut data[begin..]);
        let dtype = match dtype {
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
        };
        let info = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert((*name).to_owned(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

/// Writes a model of unknown architecture: its tensors are what is in the file.
pub fn write_model(folder: &Path, tensors: &[(&str, Numbers)]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), "{\"num_hidden_layers\": 0}").unwrap();
    std::fs::write(folder.join("model.safetensors"), safetensors(tensors)).unwrap();
}

/// Copies a fixture model, so that a test can break it.
pub fn copy_model(model: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(fixtures().join("inputs").join(model)).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// Evenly spread numbers that do not repeat soon, about the size of weights.
pub fn pseudo_random(n: usize, salt: u64) -> Vec<f64> {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let draw = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 / (1u64 << 53) as f64 - 0.5) / 8.0
    };
    (0..n).map(draw).collect()
}
