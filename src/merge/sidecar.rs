//! The files beside the weights: config.json, tokenizer files, generation config, chat template, model card.
//!
//! Everything is read and decided before the weights are written ([`sidecars`]), so that a model without what is asked of
//! it fails early. config.json is edited in place: dtype and number of layers, nothing else, keys in the order and
//! spelling of the file. Vocabularies are never changed here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::arch::LAYER_COUNTS;
use super::checkpoint::{CONFIG, CheckpointError, read_json};
use super::source::Source;
use super::staging::{OutputError, Staging};
use super::{MergeOptions, TokenizerFiles};
use crate::config::MergeConfig;

/// Files of a tokenizer and of generation that are copied where the donor has them.
const COPIED: &[&str] = &[
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "chat_template.jinja",
    "generation_config.json",
    "chat_template.json",
    "video_preprocessor_config.json",
];

/// Any of these makes a tokenizer.
const VOCABULARIES: &[&str] = &["tokenizer.json", "tokenizer.model", "vocab.json"];

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Files beside the weights that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// A file that cannot be read.
    #[error(transparent)]
    Read(#[from] CheckpointError),
    /// No tokenizer where one is asked for.
    #[error(
        "`{}`: expected a tokenizer to copy (`tokenizer.json`, `tokenizer.model` or `vocab.json`), found none (a merge \
         without it: `--no-copy-tokenizer`)",
        .folder.display()
    )]
    NoTokenizer {
        /// Folder of the model whose tokenizer the output gets.
        folder: PathBuf,
    },
    /// A chat template that is no Jinja text.
    #[error(
        "`chat_template`: expected `auto` or a Jinja template of at least 20 characters, found `{found}` (mergekit's built-in templates are not supported yet: give the text itself)"
    )]
    ChatTemplate {
        /// What stands there.
        found: String,
    },
    /// `auto` without a template to choose.
    #[error("`chat_template: auto`: none of the models has a chat template")]
    NoChatTemplate,
}

/// What will lie beside the weights.
#[derive(Debug, Default)]
pub struct Sidecars {
    /// By file name.
    files: BTreeMap<String, Vec<u8>>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Reads and decides everything. `donor` is the model whose config and tokenizer the output gets.
///
/// # Errors
/// [`SidecarError`].
pub fn sidecars(
    config: &MergeConfig,
    config_text: &str,
    sources: &[Source],
    donor: &Source,
    n_layers: usize,
    options: &MergeOptions,
) -> Result<Sidecars, SidecarError> {
    let mut sidecars = Sidecars::default();
    let model_config = model_config(config, donor.checkpoint.config.clone(), n_layers);
    sidecars.add_json(CONFIG, &model_config);
    if options.tokenizer != TokenizerFiles::Skip {
        sidecars.copy_tokenizer(donor, options.tokenizer)?;
    }
    if let Some(wanted) = &config.chat_template {
        let template = chat_template(wanted, sources)?;
        sidecars.set_chat_template(donor, template)?;
    }
    if options.write_model_card {
        sidecars.files.insert("mergekit_config.yml".to_owned(), config_text.as_bytes().to_vec());
        sidecars.files.insert("README.md".to_owned(), card(config, config_text, options.seed).into_bytes());
    }
    Ok(sidecars)
}

impl Sidecars {
    /// Writes everything.
    ///
    /// # Errors
    /// [`OutputError::Write`].
    pub fn write(&self, staging: &Staging) -> Result<(), OutputError> {
        self.files.iter().try_for_each(|(name, bytes)| staging.write(name, bytes))
    }

    fn add_json(&mut self, name: &str, value: &Map<String, Value>) {
        // A table of JSON values cannot fail to become JSON text.
        let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
        text.push('\n');
        self.files.insert(name.to_owned(), text.into_bytes());
    }

    fn copy_tokenizer(&mut self, donor: &Source, wanted: TokenizerFiles) -> Result<(), SidecarError> {
        let folder = &donor.checkpoint.folder;
        for name in COPIED {
            let file = folder.join(name);
            if file.exists() {
                let bytes = std::fs::read(&file).map_err(|source| CheckpointError::Read { file, source })?;
                self.files.insert((*name).to_owned(), bytes);
            }
        }
        if VOCABULARIES.iter().any(|name| self.files.contains_key(*name)) {
            return Ok(());
        }
        if wanted == TokenizerFiles::Required {
            return Err(SidecarError::NoTokenizer { folder: folder.clone() });
        }
        self.notes.push(format!("`{}` has no tokenizer: none was copied", donor.model));
        Ok(())
    }

    fn set_chat_template(&mut self, donor: &Source, template: String) -> Result<(), SidecarError> {
        self.files.insert(CHAT_TEMPLATE.to_owned(), template.into_bytes());
        self.files.remove("chat_template.json");
        // Left in, it would compete with the file.
        if self.files.contains_key(TOKENIZER_CONFIG) {
            let mut tokenizer: Map<String, Value> = read_json(&donor.checkpoint.folder.join(TOKENIZER_CONFIG))?;
            if tokenizer.shift_remove("chat_template").is_some() {
                self.add_json(TOKENIZER_CONFIG, &tokenizer);
            }
        }
        Ok(())
    }
}

/// The donor's config with dtype and number of layers of the output.
fn model_config(config: &MergeConfig, mut model: Map<String, Value>, n_layers: usize) -> Map<String, Value> {
    if let Some(dtype) = config.out_dtype.or(config.dtype) {
        let mut spelled = false;
        let mut set = |table: &mut Map<String, Value>| {
            for key in ["dtype", "torch_dtype"] {
                if let Some(value) = table.get_mut(key) {
                    *value = Value::from(dtype.name());
                    spelled = true;
                }
            }
        };
        set(&mut model);
        edit_text_table(&mut model, &mut set);
        if !spelled {
            // Transformers 4 knows only this spelling, and 5 reads it.
            model.insert("torch_dtype".to_owned(), Value::from(dtype.name()));
        }
    }
    edit_text_table(&mut model, |text| {
        let key = LAYER_COUNTS.iter().find(|key| text.contains_key(**key)).unwrap_or(&LAYER_COUNTS[0]);
        text.insert((*key).to_owned(), Value::from(n_layers));
    });
    model
}

/// Edits the table that describes the language model: the config itself, or the part of it about text.
fn edit_text_table(model: &mut Map<String, Value>, edit: impl FnOnce(&mut Map<String, Value>)) {
    match model.get_mut("text_config") {
        Some(Value::Object(text)) => edit(text),
        _ => edit(model),
    }
}

fn chat_template(wanted: &str, sources: &[Source]) -> Result<String, SidecarError> {
    if wanted != "auto" {
        let is_template = wanted.contains('{') && wanted.chars().count() >= 20;
        return if is_template {
            Ok(wanted.to_owned())
        } else {
            Err(SidecarError::ChatTemplate { found: wanted.to_owned() })
        };
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for source in sources {
        let Some(template) = own_chat_template(&source.checkpoint.folder)? else { continue };
        match counts.iter_mut().find(|(known, _)| *known == template) {
            Some((_, count)) => *count += 1,
            None => counts.push((template, 1)),
        }
    }
    // The first of equally common ones: `max_by_key` would take the last.
    counts.reverse();
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(template, _)| template).ok_or(SidecarError::NoChatTemplate)
}

fn own_chat_template(folder: &Path) -> Result<Option<String>, CheckpointError> {
    let file = folder.join(CHAT_TEMPLATE);
    if file.exists() {
        return std::fs::read_to_string(&file).map(Some).map_err(|source| CheckpointError::Read { file, source });
    }
    let file = folder.join(TOKENIZER_CONFIG);
    if !file.exists() {
        return Ok(None);
    }
    let tokenizer: Map<String, Value> = read_json(&file)?;
    Ok(tokenizer.get("chat_template").and_then(Value::as_str).map(str::to_owned))
}

fn card(config: &MergeConfig, config_text: &str, seed: u64) -> String {
    let seed = if config.method.spec().random { format!(", with random seed {seed}") } else { String::new() };
    let models: Vec<String> = config.models().iter().map(|model| format!("- `{model}`")).collect();
    format!(
        "---\nlibrary_name: transformers\ntags:\n- merge\n- mergesweep\n---\n\n# Merged model\n\nMade with mergesweep {} by \
         the `{}` method{seed} from these models:\n\n{}\n\n## Configuration\n\n```yaml\n{}\n```\n",
        env!("CARGO_PKG_VERSION"),
        config.method,
        models.join("\n"),
        config_text.trim_end()
    )
}
