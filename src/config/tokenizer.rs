//! `tokenizer_source` and `tokenizer`: whose vocabulary the output has, and what single tokens become.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::parse::Parser;
use super::{Scalar, Tokenizer, keys};
use crate::document::read::Field;
use crate::document::{Code, Problem, Value};
use crate::model::{ModelRef, ModelRefError};

/// A [`Tokenizer`] taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VocabularySettings {
    /// Whose vocabulary the output has.
    pub source: VocabularySource,
    /// What single tokens become; those that no vocabulary has are added.
    #[serde(default)]
    pub tokens: BTreeMap<String, TokenSettings>,
    /// The number of rows is rounded up to a multiple of it.
    #[serde(default)]
    pub pad_to_multiple_of: Option<usize>,
}

/// Whose vocabulary the output has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum VocabularySource {
    /// The base model's.
    Base,
    /// That of all models together.
    Union,
    /// That of one model, which need not be merged.
    Model(ModelRef),
}

/// What a token becomes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenSettings {
    /// Where models that do not have the token take its row from; none will do where all have it.
    #[serde(default)]
    pub source: Option<TokenSource>,
    /// Whether models that have it do so too.
    #[serde(default)]
    pub force: bool,
}

/// Where the row of a token is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Json")]
pub enum TokenSource {
    /// Nowhere: zeros.
    Zero,
    /// The same token of a model.
    Model(ModelRef),
    /// Another token of a model.
    Token {
        /// The model.
        model: ModelRef,
        /// Its token.
        token: String,
    },
    /// A row of a model, by its number.
    Row {
        /// The model.
        model: ModelRef,
        /// The number.
        row: usize,
    },
}

impl Tokenizer {
    /// The settings taken apart.
    ///
    /// # Errors
    /// Where the text is none that the reader of a config wrote.
    pub fn settings(&self) -> Result<VocabularySettings, serde_json::Error> {
        match self {
            Self::Source(word) => serde_json::from_value(serde_json::json!({ "source": word })),
            Self::Detailed(text) => serde_json::from_str(text),
        }
    }

    /// The model whose vocabulary is asked for by name.
    pub fn model(&self) -> Option<ModelRef> {
        match self.settings().ok()?.source {
            VocabularySource::Model(model) => Some(model),
            VocabularySource::Base | VocabularySource::Union => None,
        }
    }
}

impl TryFrom<String> for VocabularySource {
    type Error = ModelRefError;

    fn try_from(word: String) -> Result<Self, ModelRefError> {
        match word.as_str() {
            "base" => Ok(Self::Base),
            "union" => Ok(Self::Union),
            _ => word.parse().map(Self::Model),
        }
    }
}

impl TryFrom<Json> for TokenSource {
    type Error = ModelRefError;

    fn try_from(source: Json) -> Result<Self, ModelRefError> {
        if let Json::String(model) = source {
            return model.parse().map(Self::Model);
        }
        let model = || source["model"].as_str().unwrap_or_default().parse();
        let row = source["token_id"].as_u64().and_then(|id| usize::try_from(id).ok());
        match (source["token"].as_str(), row) {
            (Some(token), _) => Ok(Self::Token { model: model()?, token: token.to_owned() }),
            (None, Some(row)) => Ok(Self::Row { model: model()?, row }),
            (None, None) => Ok(Self::Zero),
        }
    }
}

/// `base`, `union`, or a model's reference.
pub(super) fn source(parser: &mut Parser<'_>, field: &Field<'_>) -> Option<String> {
    match field.node.as_text() {
        Some(word @ ("base" | "union")) => Some(word.to_owned()),
        _ => parser.model(field).map(|model| model.to_string()),
    }
}

/// The `tokenizer` mapping.
pub(super) fn detailed(parser: &mut Parser<'_>, field: &Field<'_>) -> Option<Tokenizer> {
    let mut table = field.table(&keys::TOKENIZER, &mut parser.problems)?;
    let word = match table.optional("source") {
        Some(field) => source(parser, &field)?,
        None => "union".to_owned(),
    };
    let pad = table.optional("pad_to_multiple_of");
    let tokens = table.optional("tokens");
    parser.finish(table);
    let mut settings = Map::new();
    settings.insert("source".to_owned(), Json::String(word.clone()));
    if let Some(field) = tokens {
        let mut rows = Map::new();
        for (entry, field) in field.entries("a mapping of tokens", &mut parser.problems)? {
            rows.insert(entry.key.clone(), token(parser, &field)?);
        }
        if !rows.is_empty() {
            rows.sort_keys();
            settings.insert("tokens".to_owned(), Json::Object(rows));
        }
    }
    if let Some(field) = pad {
        // To mergekit 0 is no padding.
        let least = u64::from(!parser.is_lax(&field));
        let multiple = parser.whole(&field, least)?;
        if multiple > 0 {
            settings.insert("pad_to_multiple_of".to_owned(), Json::from(multiple));
        }
    }
    // A mapping that says no more than the word is the word.
    Some(if settings.len() == 1 {
        Tokenizer::Source(word)
    } else {
        Tokenizer::Detailed(Json::Object(settings).to_string())
    })
}

fn token(parser: &mut Parser<'_>, field: &Field<'_>) -> Option<Json> {
    let mut table = field.table(&keys::TOKEN, &mut parser.problems)?;
    // Only a token that some model lacks needs it, which the models will show.
    let origin = table.optional("source");
    let force = table.optional("force");
    parser.finish(table);
    let mut settings = Map::new();
    if let Some(field) = origin {
        settings.insert("source".to_owned(), token_source(parser, &field)?);
    }
    if let Some(field) = force {
        settings.insert("force".to_owned(), Json::Bool(parser.switch(&field)?));
    }
    Some(Json::Object(settings))
}

fn token_source(parser: &mut Parser<'_>, field: &Field<'_>) -> Option<Json> {
    if !matches!(field.node.value, Value::Map(_)) || field.node.get("kind").is_none() {
        return parser.model(field).map(|model| Json::String(model.to_string()));
    }
    let mut table = field.table(&keys::TOKEN_ROW, &mut parser.problems)?;
    let kind = table.required("kind", &mut parser.problems)?;
    let model_token = kind.one_of(&[("zero", false), ("model_token", true)], &mut parser.problems)?;
    let mut settings = Map::new();
    settings.insert("kind".to_owned(), Json::from(if model_token { "model_token" } else { "zero" }));
    let (model, token, token_id) = (table.optional("model"), table.optional("token"), table.optional("token_id"));
    if model_token {
        let Some(model) = model else {
            let message = "missing key `model`, expected a model reference";
            table.problem(Code::MissingKey, message, None, &mut parser.problems);
            return None;
        };
        settings.insert("model".to_owned(), Json::String(parser.model(&model)?.to_string()));
        match (token, token_id) {
            (Some(token), None) => {
                settings.insert("token".to_owned(), Json::from(token.text(&mut parser.problems)?));
            }
            (None, Some(id)) => {
                settings.insert("token_id".to_owned(), Json::from(parser.whole(&id, 0)?));
            }
            _ => {
                table.problem(Code::Conflict, "expected one of `token`, `token_id`", None, &mut parser.problems);
                return None;
            }
        }
    } else if let Some(stray) = model.or(token).or(token_id) {
        let message = "a row of zeros comes from no model";
        parser.stray(Problem::error(Code::NoEffect, stray.span(), stray.path, message, None));
    }
    parser.finish(table);
    Some(Json::Object(settings))
}

/// The canonical settings with every model called by another name.
pub(super) fn renamed(text: &str, naming: &dyn Fn(&ModelRef) -> String) -> Json {
    // The text was written by `detailed`; anything else is passed on as it is.
    let Ok(mut settings) = serde_json::from_str::<Json>(text) else { return Json::String(text.to_owned()) };
    if let Some(word) = settings.get_mut("source") {
        rename(word, naming);
    }
    if let Some(Json::Object(tokens)) = settings.get_mut("tokens") {
        for settings in tokens.values_mut() {
            match settings.get_mut("source") {
                Some(Json::Object(row)) => row.get_mut("model").into_iter().for_each(|model| rename(model, naming)),
                Some(model) => rename(model, naming),
                None => {}
            }
        }
    }
    settings
}

fn rename(value: &mut Json, naming: &dyn Fn(&ModelRef) -> String) {
    if let Json::String(text) = value {
        *text = named(text, naming);
    }
}

/// A tokenizer word with its model, if it is one, called by another name.
pub(super) fn named(word: &str, naming: &dyn Fn(&ModelRef) -> String) -> String {
    match word {
        "base" | "union" => word.to_owned(),
        _ => word.parse().map_or_else(|_| word.to_owned(), |model| naming(&model)),
    }
}

/// A scalar as JSON. Numbers that JSON has no words for become texts.
pub(super) fn json_scalar(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::Bool(value) => Json::Bool(*value),
        Scalar::Int(value) => Json::from(*value),
        Scalar::Float(value) => {
            serde_json::Number::from_f64(*value).map_or_else(|| Json::String(value.to_string()), Json::Number)
        }
        Scalar::Text(text) => Json::String(text.clone()),
    }
}
