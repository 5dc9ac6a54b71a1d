//! A tokenizer as its files describe it: tokens and their ids, the way transformers would load them. Only `tokenizer.json`
//! is understood, the format of the `tokenizers` library; the model in it is left alone but for tokens that are removed.
//!
//! An added token that the model of `tokenizer.json` does not have gets the next free id when the file is loaded, whatever
//! id stands in the file (`tokenizers`, `AddedVocabulary::add_tokens`). The same is done here, so that the ids in the
//! files written are those that a reader will have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{CheckpointError, read_json};

/// The vocabulary.
pub const TOKENIZER: &str = "tokenizer.json";
/// Which tokens are special, and how the tokenizer is to be used.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const ADDED_DECODER: &str = "added_tokens_decoder";

/// Vocabularies in other formats, from which `tokenizer.json` can be made.
const OTHER_FORMATS: &[&str] = &["tokenizer.model", "vocab.json", "vocab.txt", "tekken.json"];

/// Keys of tokenizer_config.json that name a special token, in the order in which transformers adds those that are
/// missing.
const SPECIAL: &[&str] = &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Keys that list more of them; the second is what transformers 5 writes.
const MORE_SPECIAL: &[&str] = &["additional_special_tokens", "extra_special_tokens"];

/// A tokenizer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that cannot be read.
    #[error(transparent)]
    Read(#[from] CheckpointError),
    /// A vocabulary in another format.
    #[error(
        "`{}`: expected `tokenizer.json`, found only `{found}` (write it with transformers: \
         `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`)",
        .folder.display()
    )]
    OtherFormat {
        /// The folder.
        folder: PathBuf,
        /// The vocabulary there.
        found: &'static str,
    },
    /// A file without a vocabulary.
    #[error("`{}`: `{key}`: expected {expected}", .file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// Ids that are left out.
    #[error(
        "`{}`: `model.vocab` has {n_tokens} tokens with ids up to {largest}: added tokens like `{token}` would get ids that are \
         taken (give the tokens ids without gaps)",
        .file.display()
    )]
    Gaps {
        /// The file.
        file: PathBuf,
        /// Tokens of the model.
        n_tokens: usize,
        /// Its largest id.
        largest: usize,
        /// The token that cannot be added.
        token: String,
    },
}

/// A token that is found in a text before the model sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Whether it is only found as a whole word.
    #[serde(default)]
    pub single_word: bool,
    /// Whether it takes the blanks before it.
    #[serde(default)]
    pub lstrip: bool,
    /// Whether it takes the blanks behind it.
    #[serde(default)]
    pub rstrip: bool,
    /// Whether it is looked for in the normalised text.
    #[serde(default)]
    pub normalized: bool,
    /// Whether decoding may leave it out.
    #[serde(default)]
    pub special: bool,
}

impl AddedToken {
    /// A token that is no special one, as transformers adds a mere text.
    pub fn plain(content: &str) -> Self {
        let content = content.to_owned();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: true, special: false }
    }

    /// A special token, as transformers adds one that is named by its text alone.
    fn special(content: &str) -> Self {
        Self { normalized: false, special: true, ..Self::plain(content) }
    }
}

/// An added token in tokenizer.json.
#[derive(Deserialize)]
struct Entry {
    id: usize,
    #[serde(flatten)]
    token: AddedToken,
}

/// A tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    /// Where it was read.
    pub folder: PathBuf,
    /// Whether its vocabulary is not what the files in the folder say.
    pub changed: bool,
    json: Map<String, Value>,
    config: Map<String, Value>,
    ids: BTreeMap<String, usize>,
    added: BTreeMap<usize, AddedToken>,
    /// Tokens of the model, and its largest id.
    n_plain: usize,
    largest_plain: usize,
}

impl Tokenizer {
    /// Reads the tokenizer of a folder; `None` where it has none. Tokens whose id is `n_ids` or more are left out: they
    /// have no row.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub fn open(folder: &Path, n_ids: Option<usize>) -> Result<Option<Self>, TokenizerError> {
        let file = folder.join(TOKENIZER);
        if !file.exists() {
            let other = OTHER_FORMATS.iter().find(|name| folder.join(name).exists());
            return match other {
                Some(found) => Err(TokenizerError::OtherFormat { folder: folder.to_owned(), found }),
                None => Ok(None),
            };
        }
        let json: Map<String, Value> = read_json(&file)?;
        let plain = plain_tokens(&json).ok_or_else(|| TokenizerError::Malformed {
            file: file.clone(),
            key: "model.vocab",
            expected: "a table of tokens and ids, or a list of tokens and scores",
        })?;
        let added: Vec<Entry> = match json.get("added_tokens") {
            None | Some(Value::Null) => Vec::new(),
            Some(list) => Deserialize::deserialize(list).map_err(|_| TokenizerError::Malformed {
                file,
                key: "added_tokens",
                expected: "a list of tokens with `id` and `content`",
            })?,
        };
        let mut tokenizer = Self {
            folder: folder.to_owned(),
            changed: false,
            json,
            config: settings(folder)?,
            n_plain: plain.len(),
            largest_plain: plain.values().copied().max().unwrap_or_default(),
            ids: plain,
            added: BTreeMap::new(),
        };
        let mut renumbered = false;
        for Entry { id, token } in added {
            let content = token.content.clone();
            tokenizer.add(token)?;
            renumbered |= tokenizer.id(&content) != Some(id);
        }
        let n_in_file = tokenizer.ids.len();
        for token in tokenizer.added_beside()? {
            tokenizer.add_missing(token)?;
        }
        tokenizer.add_special()?;
        tokenizer.changed = renumbered || tokenizer.ids.len() > n_in_file;
        if let Some(n_ids) = n_ids {
            tokenizer.truncate(n_ids);
        }
        Ok(Some(tokenizer))
    }

    /// Every token with its id.
    pub fn ids(&self) -> &BTreeMap<String, usize> {
        &self.ids
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<usize> {
        self.ids.get(token).copied()
    }

    /// The added tokens, in order of their ids.
    pub fn added(&self) -> impl Iterator<Item = &AddedToken> {
        self.added.values()
    }

    /// Whether a token is an added one.
    pub fn is_added(&self, token: &str) -> bool {
        self.id(token).is_some_and(|id| self.added.contains_key(&id))
    }

    /// One more than the largest id.
    pub fn n_ids(&self) -> usize {
        self.ids.values().max().map_or(0, |id| id + 1)
    }

    /// Adds a token, or makes one of the model's tokens an added one.
    ///
    /// # Errors
    /// [`TokenizerError::Gaps`] where the id it would get is taken.
    pub fn add(&mut self, token: AddedToken) -> Result<(), TokenizerError> {
        let id = match self.id(&token.content) {
            Some(id) => id,
            None => {
                let after_added = self.added.last_key_value().map_or(0, |(id, _)| id + 1);
                let id = after_added.max(self.n_plain);
                if self.n_plain > 0 && id <= self.largest_plain {
                    return Err(TokenizerError::Gaps {
                        file: self.folder.join(TOKENIZER),
                        n_tokens: self.n_plain,
                        largest: self.largest_plain,
                        token: token.content,
                    });
                }
                self.ids.insert(token.content.clone(), id);
                id
            }
        };
        self.changed |= self.added.get(&id) != Some(&token);
        self.added.insert(id, token);
        Ok(())
    }

    /// `tokenizer.json` and `tokenizer_config.json` of this vocabulary.
    pub fn files(&self) -> [(&'static str, Map<String, Value>); 2] {
        let entry = |(id, token): (&usize, &AddedToken)| {
            let mut entry = Map::new();
            entry.insert("id".to_owned(), Value::from(*id));
            entry.extend(flags(token));
            Value::Object(entry)
        };
        let mut json = self.json.clone();
        json.insert("added_tokens".to_owned(), Value::Array(self.added.iter().map(entry).collect()));
        let mut config = self.config.clone();
        // A special token that has no id any more would get a new one, beyond the rows of the embedding.
        config.retain(|key, token| {
            !SPECIAL.contains(&key.as_str())
                || named_token(token).is_none_or(|token| self.ids.contains_key(&token.content))
        });
        // Read beside `tokenizer.json`: it must agree.
        if let Some(decoder) = config.get_mut(ADDED_DECODER) {
            let entry = |(id, token): (&usize, &AddedToken)| (id.to_string(), Value::Object(flags(token)));
            *decoder = Value::Object(self.added.iter().map(entry).collect());
        }
        [(TOKENIZER, json), (TOKENIZER_CONFIG, config)]
    }

    /// Makes added tokens of the special tokens that only the files beside tokenizer.json name, in the order in which
    /// transformers does.
    ///
    /// # Errors
    /// [`TokenizerError::Gaps`] as for [`Tokenizer::add`].
    pub fn add_special(&mut self) -> Result<(), TokenizerError> {
        let mut tokens: Vec<AddedToken> =
            SPECIAL.iter().filter_map(|key| self.config.get(*key)).filter_map(named_token).collect();
        for key in MORE_SPECIAL {
            let list = self.config.get(*key).and_then(Value::as_array);
            tokens.extend(list.into_iter().flatten().filter_map(named_token));
        }
        tokens.into_iter().try_for_each(|token| self.add_missing(AddedToken { special: true, ..token }))
    }

    fn add_missing(&mut self, token: AddedToken) -> Result<(), TokenizerError> {
        if self.is_added(&token.content) { Ok(()) } else { self.add(token) }
    }

    /// Added tokens that only the files beside tokenizer.json name, in order of the ids there.
    fn added_beside(&self) -> Result<Vec<AddedToken>, TokenizerError> {
        if let Some(Value::Object(decoder)) = self.config.get(ADDED_DECODER) {
            let mut entries: Vec<_> = decoder.iter().map(|(id, token)| (id.parse::<u64>().ok(), token)).collect();
            entries.sort_by_key(|(id, _)| *id);
            return Ok(entries.into_iter().filter_map(|(_, token)| named_token(token)).collect());
        }
        let more = read_if_there(&self.folder, ADDED_TOKENS)?;
        let mut entries: Vec<_> = more.iter().map(|(token, id)| (id.as_u64(), token)).collect();
        entries.sort_unstable();
        Ok(entries.into_iter().map(|(_, token)| AddedToken::plain(token)).collect())
    }

    /// Leaves out tokens without a row, and merges that need them.
    fn truncate(&mut self, n_ids: usize) {
        if self.n_ids() <= n_ids {
            return;
        }
        self.changed = true;
        self.ids.retain(|_, id| *id < n_ids);
        self.added.retain(|id, _| *id < n_ids);
        let Some(Value::Object(model)) = self.json.get_mut("model") else { return };
        match model.get_mut("vocab") {
            Some(Value::Object(vocab)) => {
                vocab.retain(|_, id| id.as_u64().is_some_and(|id| id < n_ids as u64));
                self.n_plain = vocab.len();
                self.largest_plain = vocab.values().filter_map(Value::as_u64).max().unwrap_or_default() as usize;
            }
            Some(Value::Array(vocab)) => {
                vocab.truncate(n_ids);
                self.n_plain = vocab.len();
                self.largest_plain = vocab.len().saturating_sub(1);
            }
            _ => {}
        }
        let ids = &self.ids;
        if let Some(Value::Array(merges)) = model.get_mut("merges") {
            merges.retain(|merge| match pair(merge) {
                Some((left, right)) => {
                    [left, right, &format!("{left}{right}")].iter().all(|token| ids.contains_key(*token))
                }
                None => true,
            });
        }
    }
}

/// Tokens of the model in tokenizer.json with their ids.
fn plain_tokens(json: &Map<String, Value>) -> Option<BTreeMap<String, usize>> {
    match json.get("model")?.get("vocab")? {
        Value::Object(vocab) => {
            vocab.iter().map(|(token, id)| Some((token.clone(), id.as_u64()?.try_into().ok()?))).collect()
        }
        // Unigram: tokens with their scores, numbered as they stand.
        Value::Array(vocab) => {
            vocab.iter().enumerate().map(|(id, entry)| Some((entry.get(0)?.as_str()?.to_owned(), id))).collect()
        }
        _ => None,
    }
}

/// The halves of a merge: `["a", "b"]`, or `"a b"` in older files.
fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(halves) => Some((halves.first()?.as_str()?, halves.get(1)?.as_str()?)),
        _ => None,
    }
}

/// A token as tokenizer_config.json names one: by its text, or with flags.
fn named_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::special(text)),
        Value::Object(_) => Deserialize::deserialize(value).ok(),
        _ => None,
    }
}

fn flags(token: &AddedToken) -> Map<String, Value> {
    // A structure of a text and five switches is always a table.
    match serde_json::to_value(token) {
        Ok(Value::Object(flags)) => flags,
        _ => Map::new(),
    }
}

/// tokenizer_config.json, with what stood in a file of its own before there was an `added_tokens_decoder`.
fn settings(folder: &Path) -> Result<Map<String, Value>, CheckpointError> {
    let mut config = read_if_there(folder, TOKENIZER_CONFIG)?;
    if !config.contains_key(ADDED_DECODER) {
        for (key, token) in read_if_there(folder, SPECIAL_TOKENS)? {
            config.entry(key).or_insert(token);
        }
    }
    Ok(config)
}

fn read_if_there(folder: &Path, name: &str) -> Result<Map<String, Value>, CheckpointError> {
    let file = folder.join(name);
    if file.exists() { read_json(&file) } else { Ok(Map::new()) }
}
