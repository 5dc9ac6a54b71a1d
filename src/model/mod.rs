//! Names of models: what a spec or a config calls a model, and where its files are.
//!
//! [`ModelRef`] is the text of a reference, taken apart; [`locate`] finds its folders on disk (a local path, the [`hub`]
//! cache, or a download by the configured interpreter); [`identity`] names their content. Reading tensors is
//! `merge::checkpoint`'s business.

pub mod digests;
pub mod hub;
pub mod identity;
pub mod locate;

pub use digests::Digests;
pub use hub::Hub;
pub use identity::identity;
pub use locate::{LocateError, Located, Locator};

use std::fmt;
use std::str::FromStr;

/// A model reference: `PATH[@REVISION][+ADAPTER[@REVISION]]` (mergekit's form).
///
/// Kept as written: a relative path stays relative, so that the same spec gives the same identity in every clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelRef {
    /// The full model.
    pub base: Location,
    /// A PEFT LoRA adapter to apply while reading.
    pub adapter: Option<Location>,
}

/// A folder or a hub repository, possibly at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Local path, or hub id of the form `owner/name`.
    pub path: String,
    /// Branch, tag or commit on the hub.
    pub revision: Option<String>,
}

/// A text that is no model reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a model reference: {reason} (expected `PATH[@REVISION][+ADAPTER[@REVISION]]`)")]
pub struct ModelRefError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for ModelRef {
    type Err = ModelRefError;

    fn from_str(text: &str) -> Result<Self, ModelRefError> {
        let error = |reason| ModelRefError { text: text.to_owned(), reason };
        let location = |part: &str| {
            let (path, revision) = match part.split_once('@') {
                None => (part, None),
                Some((_, revision)) if revision.contains('@') => return Err(error("more than one `@`")),
                Some((_, "")) => return Err(error("nothing after `@`")),
                Some((path, revision)) => (path, Some(revision.to_owned())),
            };
            if path.trim().is_empty() {
                return Err(error("a path is empty"));
            }
            Ok(Location { path: path.to_owned(), revision })
        };
        let mut parts = text.split('+');
        let base = location(parts.next().unwrap_or_default())?;
        let adapter = parts.next().map(location).transpose()?;
        if parts.next().is_some() {
            return Err(error("more than one `+`"));
        }
        Ok(Self { base, adapter })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)?;
        self.adapter.iter().try_for_each(|adapter| write!(f, "+{adapter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_survive_the_round_trip() {
        for text in ["a/b", "a/b@main", "./dir+../adapter", "a/b@v1+c/d@v2"] {
            assert_eq!(text.parse::<ModelRef>().map(|model| model.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in ["", "a+b+c", "a@b@c", "a+", "a@"] {
            assert!(text.parse::<ModelRef>().is_err(), "{text}");
        }
    }
}
