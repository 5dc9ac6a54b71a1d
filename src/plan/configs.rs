//! A plan's merges as mergekit files, for running them under mergekit.

use std::io;
use std::path::{Path, PathBuf};

use super::{Plan, Subject, Trial};
use crate::config::{Numerics, write};
use crate::model::ModelRef;

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{}`", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A merge as a mergekit file, with what the dialect has no word for (name, seed, numerics) in comments; none for a model as
/// it is.
pub fn text_of(trial: &Trial, naming: &dyn Fn(&ModelRef) -> String) -> Option<String> {
    let Subject::Merge { config, seed, numerics } = &trial.subject else { return None };
    let mut text = format!("# {}\n", trial.name.escape_debug());
    if config.method.spec().random {
        text += &format!("# seed {seed} (merge with --random-seed {seed}; mergekit draws other numbers)\n");
    }
    if *numerics != Numerics::default() {
        text += &format!("# numerics {numerics} (mergesweep merge --numerics {numerics})\n");
    }
    Some(text + &write::yaml(config, naming))
}

/// Writes every merge of a plan as `NN-name.yml` into a folder, which is made where it is missing. `NN` is the number of
/// the trial in the plan, so rows of unmerged models leave gaps. Every model is called what `naming` says.
///
/// # Errors
/// [`WriteError`] for the first file that cannot be written.
pub fn write_configs(
    plan: &Plan,
    folder: &Path,
    naming: &dyn Fn(&ModelRef) -> String,
) -> Result<Vec<PathBuf>, WriteError> {
    std::fs::create_dir_all(folder).map_err(|source| WriteError { path: folder.to_owned(), source })?;
    let digits = plan.trials.len().to_string().len().max(2);
    let mut written = Vec::new();
    for (index, trial) in plan.trials.iter().enumerate() {
        let Some(text) = text_of(trial, naming) else { continue };
        let path = folder.join(format!("{:0digits$}-{}.yml", index + 1, trial.slug()));
        std::fs::write(&path, text).map_err(|source| WriteError { path: path.clone(), source })?;
        written.push(path);
    }
    Ok(written)
}
