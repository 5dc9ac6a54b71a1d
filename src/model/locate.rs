//! Finding the folders of a model reference: a local path, the hub cache, or a download.

use std::path::PathBuf;

/// The folders of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Folder of the full model.
    pub base: PathBuf,
    /// Folder of the adapter.
    pub adapter: Option<PathBuf>,
}
