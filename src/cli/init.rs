//! `mergesweep init`: a spec to start from, and the schema that editors check it with.

mod from_configs;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;

use super::{Failure, counted, diagnostics, print, schema, usage};
use crate::document::Format;
use crate::exit_code::{self, Exit};
use crate::plan;

const TOML: &str = include_str!("init/starter.toml");
const YAML: &str = include_str!("init/starter.yml");

/// File of the schema, beside the spec.
const SCHEMA: &str = "mergesweep.schema.json";

/// Write a spec to start from: one with comments, or one that takes existing mergekit files in
///
/// TOML or YAML, as the ending says. Beside it goes mergesweep.schema.json, which the first line
/// of the spec names: editors with a language server for TOML or YAML complete and check keys
/// with it. Nothing that is there is overwritten.
///
/// With --from, every mergekit file becomes a merge (`config = "file.yml"`), and every model that
/// they read a row of its own.
///
/// Examples:
///   mergesweep init
///   mergesweep init sweeps/mine.yml
///   mergesweep init study.toml --from ties.yml dare.yml slerp.yml
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct InitArgs {
    /// The spec to write
    #[arg(default_value = "sweep.toml")]
    path: PathBuf,
    /// mergekit files to start from
    #[arg(long, value_name = "CONFIG", num_args = 1..)]
    from: Vec<PathBuf>,
}

pub(super) fn run(args: &InitArgs) -> Result<Exit, Failure> {
    let path = &args.path;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !matches!(ending.as_str(), "toml" | "yml" | "yaml") {
        return Err(usage(anyhow!("`{}`: expected a name that ends in .toml, .yml or .yaml", path.display())));
    }
    if path.exists() {
        return Err(usage(anyhow!("`{}` exists, and is not overwritten: name another file", path.display())));
    }
    let format = Format::of(path);
    let text = match (args.from.as_slice(), format) {
        ([], Format::Toml) => named(TOML, path),
        ([], Format::Yaml) => named(YAML, path),
        (configs, _) => from_configs::spec(path, configs, format)?,
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("making `{}`", folder.display()))?;
    let n_trials = write_checked(path, folder, &ending, &text)?;
    print(&format!("{}: {}", path.display(), counted(n_trials, "trial")))?;
    let beside = folder.join(SCHEMA);
    if beside.exists() {
        print(&format!("{}: was there, and is left as it is", beside.display()))?;
    } else {
        fs::write(&beside, schema::text()?).with_context(|| format!("writing `{}`", beside.display()))?;
        print(&format!("{}: what editors check the spec with", beside.display()))?;
    }
    print(&format!("next: `mergesweep plan {}`", path.display()))?;
    Ok(Exit::Ok)
}

/// The text with a sweep that is called like its file: two of one name would share a folder of results.
fn named(text: &str, path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    text.replacen("\"my-sweep\"", &from_configs::quoted(&stem), 1)
}

/// Writes a spec that has a plan, and says how many trials. It appears whole, and only if it is sound.
fn write_checked(path: &Path, folder: &Path, ending: &str, text: &str) -> Result<usize, Failure> {
    let mut file = tempfile::Builder::new()
        .prefix(".mergesweep-init-")
        .suffix(&format!(".{ending}"))
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("writing to `{}`", folder.display()))?;
    file.write_all(text.as_bytes())?;
    let (_, plan) = plan::open(file.path())?;
    diagnostics::show(&plan.warnings);
    file.persist_noclobber(path).map_err(|error| anyhow!("`{}` cannot be written: {}", path.display(), error.error))?;
    Ok(plan.trials.len())
}
