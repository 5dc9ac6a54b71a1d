//! Old evaluations in the store of a sweep: copies of harness output with a name, beside the trials.
//!
//! `RESULTS/<sweep>/imported/<slug>-<digest8>/` holds one results file, the samples files beside it, and `import.json` with
//! the row's name, where it came from and the digest of the results file. Importing a file again changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fingerprint::digest;
use super::store::{Store, StoreError, at, folders};
use crate::eval::results::{self, Results, ResultsError};
use crate::files::write_atomically;
use crate::model::locate::Locator;
use crate::plan::trial::slug;

/// What `import.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Name of the row.
    pub name: String,
    /// The results file it was copied from, without anybody's home folder: a table shows it.
    pub from: String,
    /// Digest of that file.
    pub digest: String,
}

/// An imported evaluation.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Where it came from.
    pub import: Import,
    /// What it says.
    pub results: Results,
}

/// What cannot be imported, or read again.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The results cannot be accepted.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// `import.json` is not what was written.
    #[error("{}: {source} (delete its folder, and import again)", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// Everything that was imported into a sweep, by name and date of the harness run.
///
/// # Errors
/// [`ImportError`]: an imported result that cannot be read any more is not passed over.
pub fn read(store: &Store) -> Result<Vec<Imported>, ImportError> {
    let mut imported = Vec::new();
    for folder in folders(&store.root().join("imported")) {
        let path = folder.join("import.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            // An import that was not finished.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&path)(error).into()),
        };
        let import = serde_json::from_slice(&text).map_err(|source| ImportError::Record { path, source })?;
        imported.push(Imported { import, results: results::parse(&results::find(&folder.join("output"))?)? });
    }
    let date = |imported: &Imported| imported.results.document.get("date").and_then(serde_json::Value::as_f64);
    imported.sort_by(|a, b| {
        let by_date = || date(a).unwrap_or_default().total_cmp(&date(b).unwrap_or_default());
        a.import.name.cmp(&b.import.name).then_with(by_date)
    });
    Ok(imported)
}

/// Copies accepted results into a sweep. Gives back its folder.
///
/// # Errors
/// [`ImportError::Store`].
pub fn add(store: &Store, locator: &Locator, name: &str, results: &Results) -> Result<PathBuf, ImportError> {
    let text = fs::read(&results.path).map_err(at(&results.path))?;
    let digest = digest(&text);
    let folder = store.root().join("imported").join(format!("{}-{}", slug(name), &digest[..8]));
    let mut files: Vec<&Path> = vec![&results.path];
    files.extend(results.samples.iter().map(PathBuf::as_path));
    for file in files {
        let bytes = fs::read(file).map_err(at(file))?;
        let copy = folder.join("output").join(file.file_name().unwrap_or_default());
        write_atomically(&copy, &bytes).map_err(at(&copy))?;
    }
    let from = std::path::absolute(&results.path).map_err(at(&results.path))?;
    let from = locator.without_home(&from.to_string_lossy());
    let import = Import { name: name.to_owned(), from, digest };
    // Last: a folder without it was not finished. Texts and paths are always JSON.
    let record = serde_json::to_vec_pretty(&import).unwrap_or_default();
    let path = folder.join("import.json");
    write_atomically(&path, &record).map_err(at(&path))?;
    Ok(folder)
}

/// The pairs of results file and samples files below a folder, or the one that is named; deepest names last. In a folder
/// other JSON files are passed over; one that the harness would have named a results file must be one.
///
/// # Errors
/// [`StoreError::Io`] where a folder cannot be read.
pub fn found(path: &Path) -> Result<Vec<(PathBuf, Vec<PathBuf>)>, StoreError> {
    if !path.is_dir() {
        return Ok(vec![(path.to_owned(), samples_of(path))]);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files.into_iter().filter(|path| is_results(path)).map(|path| (path.clone(), samples_of(&path))).collect())
}

/// Whether a file is one of results, by its name (`results.json`, `results_2024-05-01T10-00-00.json`) or, since releases
/// before 0.4 wrote to any name, by what is in it.
fn is_results(path: &Path) -> bool {
    if path.extension().is_none_or(|extension| extension != "json") {
        return false;
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let is_named_so = name == "results" || name.starts_with("results_");
    let document = || serde_json::from_slice::<serde_json::Value>(&fs::read(path).ok()?).ok();
    is_named_so || document().is_some_and(|document| document["results"].is_object())
}

/// The samples files of a results file: those of its time stamp, else all beside it where it is the only results file.
fn samples_of(results: &Path) -> Vec<PathBuf> {
    let Some(folder) = results.parent() else { return Vec::new() };
    let stem = results.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = entries.collect();
    all.sort();
    let has = |path: &PathBuf, extension: &str| path.extension().is_some_and(|found| found == extension);
    let samples: Vec<PathBuf> = all.iter().filter(|path| has(path, "jsonl")).cloned().collect();
    let stamp = stem.rsplit_once('_').map(|(_, stamp)| stamp.to_owned()).filter(|stamp| stamp.len() >= 10);
    match stamp {
        Some(stamp) => samples.into_iter().filter(|path| path.to_string_lossy().contains(&stamp)).collect(),
        None if all.iter().filter(|path| is_results(path)).count() == 1 => samples,
        None => Vec::new(),
    }
}
