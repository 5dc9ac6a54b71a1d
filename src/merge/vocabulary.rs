//! The vocabulary of the output (`tokenizer_source`, `tokenizer`): which tokens it has under which ids, and where every
//! model's row for a token comes from. The rules are mergekit's; what it leaves to chance is decided here: in a union,
//! tokens of the base keep their ids, then come new tokens of the other models by their order in the config and their
//! ids, then added tokens in the same order (the first definition of one wins), then those that only the config names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rows::{Place, Row};
use super::source::Source;
use super::tokenizer::{AddedToken, Tokenizer, TokenizerError};
use super::{Locate, MergeError};
use crate::config::{MergeConfig, TokenSource, VocabularySettings, VocabularySource};
use crate::model::ModelRef;

/// Key of config.json: rows of the embedding.
pub const VOCAB_SIZE: &str = "vocab_size";

/// A vocabulary that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A tokenizer that cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Settings that are none.
    #[error("`tokenizer`: expected settings in canonical form")]
    Settings(#[from] serde_json::Error),
    /// A model without a tokenizer.
    #[error(
        "`{}`: expected `tokenizer.json`, found no tokenizer: the vocabulary of `{model}` is asked for (`tokenizer`)",
        .folder.display()
    )]
    NoTokenizer {
        /// The model.
        model: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// A row of a model that is not at hand.
    #[error(
        "`tokenizer.tokens`: `{token}`: its source `{model}` is not one of the models merged into the embedding (those of \
         the first slice) and the head (of the last): {}",
        .merged.join(", ")
    )]
    NotMerged {
        /// The token.
        token: String,
        /// The model.
        model: String,
        /// The models that are.
        merged: Vec<String>,
    },
    /// A row that nothing is said of.
    #[error("`tokenizer.tokens`: `{token}`: missing key `source`: {why}")]
    NoSource {
        /// The token.
        token: String,
        /// Why there must be one.
        why: &'static str,
    },
    /// A token that its source does not have.
    #[error("`tokenizer.tokens`: `{token}`: its source `{model}` has no token `{wanted}`")]
    UnknownToken {
        /// The token.
        token: String,
        /// The model.
        model: String,
        /// The token that is looked for there.
        wanted: String,
    },
    /// A row that its source does not have.
    #[error(
        "`tokenizer.tokens`: `{token}`: `token_id`: expected one of the {n_rows} rows of `{model}` (0 is the first), found \
         {row}"
    )]
    RowRange {
        /// The token.
        token: String,
        /// The model.
        model: String,
        /// Its rows.
        n_rows: usize,
        /// The row asked for.
        row: usize,
    },
}

/// The vocabulary of the output.
#[derive(Debug)]
pub struct Vocabulary {
    /// Its tokens and files.
    pub tokenizer: Tokenizer,
    /// Rows of an embedding, padding included.
    pub n_rows: usize,
    /// What the user should know.
    pub notes: Vec<String>,
    settings: VocabularySettings,
    /// By number of the source.
    tokenizers: Vec<Arc<Tokenizer>>,
    models: Vec<ModelRef>,
}

/// One input of a tensor whose rows stand for tokens.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Number of the model.
    pub source: usize,
    /// Rows of its tensor.
    pub n_rows: usize,
}

/// Makes the vocabulary that the config asks for; `None` where it asks for none. `donor` is the model whose vocabulary
/// `base` means.
///
/// # Errors
/// [`MergeError::Vocabulary`], and what finding or reading a model that is not merged may raise.
pub fn vocabulary(
    config: &MergeConfig,
    sources: &[Source],
    donor: &Source,
    locate: &Locate<'_>,
) -> Result<Option<Vocabulary>, MergeError> {
    let Some(tokenizer) = &config.tokenizer else { return Ok(None) };
    let settings = tokenizer.settings().map_err(VocabularyError::from)?;
    let missing = |model: &ModelRef, folder: &Path| VocabularyError::NoTokenizer {
        model: model.to_string(),
        folder: folder.to_owned(),
    };
    let folder = |source: &Source| source.checkpoint.folder.clone();
    let base = Arc::new(open(donor)?.ok_or_else(|| missing(&donor.model, &folder(donor)))?);
    let mut tokenizers = Vec::with_capacity(sources.len());
    let mut notes = Vec::new();
    for source in sources {
        tokenizers.push(if source.model == donor.model {
            base.clone()
        } else if let Some(tokenizer) = open(source)? {
            Arc::new(tokenizer)
        } else {
            notes.push(format!("`{}` has no tokenizer: taken to be that of `{}`", source.model, donor.model));
            base.clone()
        });
    }
    let mut tokenizer = match &settings.source {
        VocabularySource::Base => Tokenizer::clone(&base),
        VocabularySource::Union => union(&base, &tokenizers).map_err(VocabularyError::from)?,
        VocabularySource::Model(model) => match sources.iter().position(|source| source.model == *model) {
            Some(index) if tokenizers[index].folder != sources[index].checkpoint.folder => {
                return Err(missing(model, &folder(&sources[index])).into());
            }
            Some(index) => Tokenizer::clone(&tokenizers[index]),
            None => {
                let located = locate(model).map_err(|source| MergeError::of_model(model, source))?;
                // No row of it is read, so that no token can be without one.
                Tokenizer::open(&located.base, None)
                    .map_err(VocabularyError::from)?
                    .ok_or_else(|| missing(model, &located.base))?
            }
        },
    };
    for token in settings.tokens.keys().filter(|token| tokenizer.id(token).is_none()).collect::<Vec<_>>() {
        tokenizer.add(AddedToken::plain(token)).map_err(VocabularyError::from)?;
    }
    Ok(Some(Vocabulary {
        n_rows: tokenizer.n_ids().next_multiple_of(settings.pad_to_multiple_of.unwrap_or(1)),
        models: sources.iter().map(|source| source.model.clone()).collect(),
        tokenizer,
        notes,
        settings,
        tokenizers,
    }))
}

fn open(source: &Source) -> Result<Option<Tokenizer>, VocabularyError> {
    Ok(Tokenizer::open(&source.checkpoint.folder, source.checkpoint.config_number(&[VOCAB_SIZE]))?)
}

/// The tokens of the base, then those of the others. As in mergekit, new tokens become added ones, whatever they were:
/// the merges of a byte-pair vocabulary stay those of the base.
fn union(base: &Tokenizer, others: &[Arc<Tokenizer>]) -> Result<Tokenizer, TokenizerError> {
    let mut output = base.clone();
    // A special token of the base without a row comes back, with a row of zeros.
    output.add_special()?;
    let all = || std::iter::once(base).chain(others.iter().map(Arc::as_ref));
    let mut seen = BTreeSet::new();
    let added: Vec<&AddedToken> =
        all().flat_map(Tokenizer::added).filter(|token| seen.insert(token.content.as_str())).collect();
    for tokenizer in all() {
        let is_new = |token: &str| output.id(token).is_none() && !seen.contains(token);
        let mut new: Vec<(usize, &String)> =
            tokenizer.ids().iter().filter(|(token, _)| is_new(token)).map(|(token, id)| (*id, token)).collect();
        new.sort_unstable();
        for (_, token) in new {
            output.add(AddedToken::plain(token))?;
        }
    }
    for token in added {
        output.add(token.clone())?;
    }
    Ok(output)
}

/// What a model without a token gets: the row of the only model that has it, else of the base, else the mean.
fn usual(tables: &[Table], rows: &[Option<usize>], base: Option<usize>) -> Row {
    let places: Vec<Place> =
        rows.iter().enumerate().filter_map(|(input, row)| Some(Place { input, row: (*row)? })).collect();
    let of_base = places.iter().find(|place| Some(tables[place.input].source) == base);
    match (places.as_slice(), of_base) {
        ([], _) => Row::Zero,
        ([only], _) => Row::At(*only),
        (_, Some(base)) => Row::At(*base),
        _ => Row::Mean(places.into()),
    }
}

impl Vocabulary {
    /// Where the rows of every input of a tensor come from; `None` for one that is read as it lies. `base` is the number of
    /// the model that is the base where the tensor is taken from.
    ///
    /// # Errors
    /// [`VocabularyError`] where a token's source is not there.
    pub fn layouts(&self, tables: &[Table], base: Option<usize>) -> Result<Vec<Option<Arc<[Row]>>>, VocabularyError> {
        let n_ids = self.tokenizer.n_ids();
        // Ids that no token has, and tokens that no model has, are zeros.
        let mut layouts = vec![vec![Row::Zero; n_ids]; tables.len()];
        for (token, id) in self.tokenizer.ids() {
            let rows: Vec<Option<usize>> = tables.iter().map(|table| self.row(table, token)).collect();
            let settings = self.settings.tokens.get(token);
            let force = settings.is_some_and(|settings| settings.force);
            let default = match settings {
                // What a setting names may be missing where nobody needs it.
                _ if !force && rows.iter().all(Option::is_some) => Row::Zero,
                Some(settings) => match &settings.source {
                    Some(source) => self.configured(token, source, tables)?,
                    None => {
                        let why = if force { "`force` is set" } else { "not every model has the token" };
                        return Err(VocabularyError::NoSource { token: token.clone(), why });
                    }
                },
                None => usual(tables, &rows, base),
            };
            for (input, (layout, row)) in layouts.iter_mut().zip(rows).enumerate() {
                layout[*id] = match row {
                    Some(row) if !force => Row::At(Place { input, row }),
                    _ => default.clone(),
                };
            }
        }
        let as_it_lies = |(input, layout): (usize, &Vec<Row>)| {
            let stays = |(row, made_of): (usize, &Row)| *made_of == Row::At(Place { input, row });
            n_ids == self.n_rows && layout.iter().enumerate().all(stays)
        };
        let kept: Vec<bool> = layouts.iter().enumerate().map(as_it_lies).collect();
        Ok(layouts.into_iter().zip(kept).map(|(layout, kept)| (!kept).then(|| layout.into())).collect())
    }

    /// The row of a token in a model's own tensor.
    fn row(&self, table: &Table, token: &str) -> Option<usize> {
        self.tokenizers[table.source].id(token).filter(|row| *row < table.n_rows)
    }

    fn configured(&self, token: &str, source: &TokenSource, tables: &[Table]) -> Result<Row, VocabularyError> {
        let (model, wanted) = match source {
            TokenSource::Zero => return Ok(Row::Zero),
            TokenSource::Model(model) | TokenSource::Row { model, .. } => (model, token),
            TokenSource::Token { model, token } => (model, token.as_str()),
        };
        let token = || token.to_owned();
        let name = |table: &Table| &self.models[table.source];
        let Some(input) = tables.iter().position(|table| name(table) == model) else {
            let merged = tables.iter().map(|table| format!("`{}`", name(table))).collect();
            return Err(VocabularyError::NotMerged { token: token(), model: model.to_string(), merged });
        };
        let table = &tables[input];
        let row = match source {
            TokenSource::Row { row, .. } if *row >= table.n_rows => {
                let (model, n_rows) = (model.to_string(), table.n_rows);
                return Err(VocabularyError::RowRange { token: token(), model, n_rows, row: *row });
            }
            TokenSource::Row { row, .. } => *row,
            _ => self.row(table, wanted).ok_or_else(|| VocabularyError::UnknownToken {
                token: token(),
                model: model.to_string(),
                wanted: wanted.to_owned(),
            })?,
        };
        Ok(Row::At(Place { input, row }))
    }
}
