//! Why a merge failed.

use super::adapter::AdapterError;
use super::checkpoint::CheckpointError;
use super::method::MethodError;
use super::recipe::RecipeError;
use super::sidecar::SidecarError;
use super::staging::OutputError;
use super::vocabulary::VocabularyError;
use crate::model::{LocateError, ModelRef};

/// Any error of the caller's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a merge failed. Whatever it was, nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A model whose folder cannot be found.
    #[error("model `{model}` cannot be found")]
    Locate {
        /// The model.
        model: String,
        /// Why.
        source: BoxError,
    },
    /// A model that is not sound.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An adapter that cannot be applied.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// Models and config that do not fit together.
    #[error(transparent)]
    Recipe(Box<RecipeError>),
    /// Files beside the weights that are missing.
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    /// An output that cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A result that cannot be had from these numbers.
    #[error("merging `{tensor}`")]
    Method {
        /// Output tensor.
        tensor: String,
        /// Why.
        source: MethodError,
    },
    /// Infinities or NaN where no input had one.
    #[error(
        "merging `{tensor}`: {count} elements came out as infinity or NaN, and no input had one there (weights that sum to \
         nothing, or numbers beyond the range of `dtype`)"
    )]
    NonFinite {
        /// Output tensor.
        tensor: String,
        /// Elements.
        count: u64,
    },
    /// Infinities or NaN of an input that got into elements where it had none.
    #[error(
        "merging `{tensor}`: `{input}` of `{model}` has infinities or NaN, and the method spreads them over {count} elements \
         that have none (repair the model, or leave it out)"
    )]
    UnsoundInput {
        /// Output tensor.
        tensor: String,
        /// The model.
        model: String,
        /// Its tensor.
        input: String,
        /// Elements.
        count: u64,
    },
    /// A vocabulary that cannot be made.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// Stopped by the caller.
    #[error("cancelled")]
    Cancelled,
}

impl MergeError {
    /// Of a model that is not had. Whoever stopped its download stopped the merge.
    pub(super) fn of_model(model: &ModelRef, source: BoxError) -> Self {
        match source.downcast_ref::<LocateError>() {
            Some(error) if error.is_cancelled() => Self::Cancelled,
            _ => Self::Locate { model: model.to_string(), source },
        }
    }
}

impl From<RecipeError> for MergeError {
    fn from(error: RecipeError) -> Self {
        Self::Recipe(Box::new(error))
    }
}
