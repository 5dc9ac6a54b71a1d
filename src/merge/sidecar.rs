//! The files beside the weights: config.json, tokenizer files, generation config, chat template, model card.
//!
//! Everything is read and decided before the weights are written ([`sidecars`]), so that a model without what is asked of
//! it fails early. config.json is edited in place: dtype, number of layers and rows of another vocabulary, nothing else,
//! keys in the order and spelling of the file. Which tokens a vocabulary has is decided in `vocabulary`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::arch::{EMBEDDING, HEAD, LAYER_COUNTS};
use super::chat;
use super::checkpoint::{CONFIG, CheckpointError, read_json};
use super::recipe::{Recipe, Recipes};
use super::source::Source;
use super::staging::{OutputError, Staging};
use super::tokenizer::{TOKENIZER, TOKENIZER_CONFIG};
use super::vocabulary::{VOCAB_SIZE, Vocabulary};
use super::{MergeOptions, TokenizerFiles};
use crate::config::MergeConfig;
use crate::model::ModelRef;

/// Files of a tokenizer and of generation that are copied where the donor has them.
const COPIED: &[&str] = &[
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    TOKENIZER,
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
const VOCABULARIES: &[&str] = &[TOKENIZER, "tokenizer.model", "vocab.json"];

/// What else tells of a vocabulary, and would contradict one that was changed.
const STALE: &[&str] = &["special_tokens_map.json", "tokenizer.model", "added_tokens.json", "merges.txt", "vocab.json"];

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
        "`chat_template`: expected `auto`, {}, or a Jinja template of at least 20 characters, found `{found}`",
        chat::BUILT_IN.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    )]
    ChatTemplate {
        /// What stands there.
        found: String,
    },
}

/// What will lie beside the weights.
#[derive(Debug, Default)]
pub struct Sidecars {
    /// By file name.
    files: BTreeMap<String, Vec<u8>>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What is known of the output.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The models.
    pub sources: &'a [Source],
    /// The model whose config the output gets, and whose tokenizer where none is asked for.
    pub donor: &'a Source,
    /// The vocabulary that is asked for.
    pub vocabulary: Option<&'a Vocabulary>,
    /// The tensors of the output.
    pub recipes: &'a Recipes,
}

/// Reads and decides everything.
///
/// # Errors
/// [`SidecarError`].
pub fn sidecars(
    config: &MergeConfig,
    config_text: &str,
    parts: &Parts<'_>,
    options: &MergeOptions,
) -> Result<Sidecars, SidecarError> {
    let mut sidecars = Sidecars::default();
    let model = model_config(config, parts);
    sidecars.add_json(CONFIG, &model);
    sidecars.notes.extend(contradictions(&model, &parts.recipes.recipes));
    match parts.vocabulary {
        // Ids of the models' own tokenizers would name other rows: these files are no copy that can be left out.
        Some(vocabulary) => sidecars.add_vocabulary(vocabulary)?,
        None if options.tokenizer == TokenizerFiles::Skip => {}
        None => sidecars.copy_tokenizer(parts.donor, options.tokenizer)?,
    }
    if let Some(wanted) = &config.chat_template {
        match chat_template(wanted, parts.sources)? {
            Some(template) => sidecars.set_chat_template(template)?,
            None => {
                let note =
                    "`chat_template: auto`: none of the models has a chat template, so the output has none either";
                sidecars.notes.push(note.to_owned());
            }
        }
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
        self.copy_files(folder)?;
        if VOCABULARIES.iter().any(|name| self.files.contains_key(*name)) {
            return Ok(());
        }
        if wanted == TokenizerFiles::Required {
            return Err(SidecarError::NoTokenizer { folder: folder.clone() });
        }
        self.notes.push(format!("`{}` has no tokenizer: none was copied", donor.model));
        Ok(())
    }

    /// The files of the model that the vocabulary is from, with those about tokens as they are now.
    fn add_vocabulary(&mut self, vocabulary: &Vocabulary) -> Result<(), SidecarError> {
        let tokenizer = &vocabulary.tokenizer;
        self.copy_files(&tokenizer.folder)?;
        if tokenizer.changed {
            self.files.retain(|name, _| !STALE.contains(&name.as_str()));
            for (name, table) in tokenizer.files().iter().filter(|(_, table)| !table.is_empty()) {
                self.add_json(name, table);
            }
        }
        Ok(())
    }

    fn copy_files(&mut self, folder: &Path) -> Result<(), CheckpointError> {
        for name in COPIED {
            let file = folder.join(name);
            if file.exists() {
                let bytes = std::fs::read(&file).map_err(|source| CheckpointError::Read { file, source })?;
                self.files.insert((*name).to_owned(), bytes);
            }
        }
        Ok(())
    }

    fn set_chat_template(&mut self, template: String) -> Result<(), SidecarError> {
        self.files.insert(CHAT_TEMPLATE.to_owned(), template.into_bytes());
        self.files.remove("chat_template.json");
        // Left in, it would compete with the file.
        if let Some(bytes) = self.files.get(TOKENIZER_CONFIG) {
            let file = PathBuf::from(TOKENIZER_CONFIG);
            let mut tokenizer: Map<String, Value> =
                serde_json::from_slice(bytes).map_err(|source| CheckpointError::Json { file, source })?;
            if tokenizer.shift_remove("chat_template").is_some() {
                self.add_json(TOKENIZER_CONFIG, &tokenizer);
            }
        }
        Ok(())
    }
}

/// The donor's config with dtype, number of layers and vocabulary size of the output.
fn model_config(config: &MergeConfig, parts: &Parts<'_>) -> Map<String, Value> {
    let mut model = parts.donor.checkpoint.config.clone();
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
        text.insert((*key).to_owned(), Value::from(parts.recipes.n_layers));
    });
    stack_layer_lists(&mut model, config, parts);
    if let Some(vocabulary) = parts.vocabulary {
        let n_rows = Value::from(vocabulary.n_rows);
        if let Some(size) = model.get_mut(VOCAB_SIZE) {
            *size = n_rows.clone();
        }
        edit_text_table(&mut model, |text| _ = text.insert(VOCAB_SIZE.to_owned(), n_rows));
    }
    model
}

/// Makes the lists of a config that have an entry for every layer (`layer_types`) those of the layers that are stacked.
fn stack_layer_lists(model: &mut Map<String, Value>, config: &MergeConfig, parts: &Parts<'_>) {
    let source = |model: &ModelRef| parts.sources.iter().find(|source| source.model == *model);
    // Where every output layer comes from: the donor, if it is in the slice, else the first source.
    let layers = config.slices.iter().flat_map(|slice| {
        let listed = slice.sources.iter().find(|listed| listed.model == parts.donor.model);
        let found = listed.or(slice.sources.first()).and_then(|listed| Some((listed, source(&listed.model)?)));
        found.into_iter().flat_map(|(listed, source)| {
            let (start, end) = listed.layer_range.unwrap_or((0, source.architecture.n_layers));
            (start..end).map(move |layer| (source, layer))
        })
    });
    let layers: Vec<(&Source, usize)> = layers.collect();
    let n_layers = parts.donor.architecture.n_layers;
    edit_text_table(model, |text| {
        for (key, value) in text.iter_mut().filter(|(key, _)| key.contains("layer")) {
            let Value::Array(list) = value else { continue };
            if list.len() != n_layers {
                continue;
            }
            let entry = |(source, layer): &(&Source, usize)| {
                let list = text_table(&source.checkpoint.config).get(key).and_then(Value::as_array).unwrap_or(list);
                list.get(*layer).cloned()
            };
            // A layer that no list speaks of leaves the list as it is.
            if let Some(stacked) = layers.iter().map(entry).collect() {
                *value = Value::Array(stacked);
            }
        }
    });
}

/// Where a config says something else than the tensors beside it.
fn contradictions(model: &Map<String, Value>, recipes: &[Recipe]) -> Vec<String> {
    let text = text_table(model);
    let setting = |key: &str| text.get(key).or_else(|| model.get(key));
    let tensor = |name: &str| recipes.iter().find(|recipe| recipe.name == name);
    let mut notes = Vec::new();
    let rows = tensor(EMBEDDING).and_then(|recipe| recipe.shape.first()).map(|rows| *rows as u64);
    if let (Some(size), Some(rows)) = (setting(VOCAB_SIZE).and_then(Value::as_u64), rows)
        && size != rows
    {
        notes.push(format!("config.json says `{VOCAB_SIZE}` {size}, the embedding has {rows} rows"));
    }
    match (setting("tie_word_embeddings").and_then(Value::as_bool), tensor(EMBEDDING), tensor(HEAD)) {
        (Some(true), Some(_), Some(_)) => {
            notes.push(format!("config.json says `tie_word_embeddings`: loaders will ignore the output's `{HEAD}`"));
        }
        (Some(false), Some(_), None) => {
            notes.push(format!("config.json says the head is not tied to the embedding, but there is no `{HEAD}`"));
        }
        _ => {}
    }
    let dtype = ["dtype", "torch_dtype"].iter().find_map(|key| setting(key)?.as_str());
    let other = recipes.iter().find(|recipe| dtype.is_some_and(|dtype| recipe.out.name() != dtype));
    if let (Some(dtype), Some(other)) = (dtype, other) {
        notes.push(format!("config.json says {dtype}, `{}` is {}", other.name, other.out));
    }
    notes
}

/// The table that describes the language model: the config itself, or the part of it about text.
fn text_table(model: &Map<String, Value>) -> &Map<String, Value> {
    model.get("text_config").and_then(Value::as_object).unwrap_or(model)
}

/// Edits the table that describes the language model: the config itself, or the part of it about text.
fn edit_text_table(model: &mut Map<String, Value>, edit: impl FnOnce(&mut Map<String, Value>)) {
    match model.get_mut("text_config") {
        Some(Value::Object(text)) => edit(text),
        _ => edit(model),
    }
}

/// The template that is asked for; none where the models have none to choose from.
fn chat_template(wanted: &str, sources: &[Source]) -> Result<Option<String>, SidecarError> {
    if wanted != "auto" {
        let is_template = wanted.contains('{') && wanted.chars().count() >= 20;
        let template = chat::built_in(wanted).or(is_template.then_some(wanted));
        let template = template.ok_or_else(|| SidecarError::ChatTemplate { found: wanted.to_owned() })?;
        return Ok(Some(template.to_owned()));
    }
    let mut counts: Vec<(String, usize)> = Vec::new();
    for source in sources {
        let Some(template) = own_chat_template(&source.checkpoint.folder)? else { continue };
        // Files that differ in a last line break have the same template.
        let template = template.trim().to_owned();
        if template.is_empty() {
            continue;
        }
        match counts.iter_mut().find(|(known, _)| *known == template) {
            Some((_, count)) => *count += 1,
            None => counts.push((template, 1)),
        }
    }
    // The first of equally common ones: `max_by_key` would take the last.
    counts.reverse();
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    Ok(most.map(|(template, _)| template))
}

/// The chat template of a model: a file of its own, else part of `tokenizer_config.json`.
///
/// # Errors
/// [`CheckpointError`] where a file cannot be read.
pub fn own_chat_template(folder: &Path) -> Result<Option<String>, CheckpointError> {
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
