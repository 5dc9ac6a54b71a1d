//! The text of a spec that takes mergekit files in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::cli::{Failure, diagnostics, usage};
use crate::config::parse;
use crate::document::{Format, Problems};
use crate::model::ModelRef;

/// A file that becomes a merge.
struct Merge {
    name: String,
    config: String,
    random: bool,
}

/// The spec at `path` for these files. Every file is read, so that mistakes are told now.
pub(super) fn spec(path: &Path, configs: &[PathBuf], format: Format) -> Result<String, Failure> {
    let mut problems = Problems::default();
    let mut merges: Vec<Merge> = Vec::new();
    let mut models: Vec<(String, ModelRef)> = Vec::new();
    for file in configs {
        let parsed = match parse::file(file) {
            Ok(parsed) => parsed,
            Err(mistakes) => {
                problems.extend(mistakes);
                continue;
            }
        };
        // The plan of the written spec tells the warnings.
        for model in parsed.config.models() {
            if !models.iter().any(|(_, known)| known == model) {
                let name = unique(&short_name(model), &|name| models.iter().any(|(known, _)| known == name));
                models.push((name, model.clone()));
            }
        }
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        // Braces would be placeholders.
        let stem = stem.replace('{', "{{").replace('}', "}}");
        let taken =
            |name: &str| merges.iter().any(|merge| merge.name == name) || models.iter().any(|(known, _)| known == name);
        let name = unique(&stem, &taken);
        merges.push(Merge { name, config: seen_from(path, file)?, random: parsed.config.method.spec().random });
    }
    if problems.has_errors() {
        return Err(problems.into());
    }
    diagnostics::show(&problems);
    let sweep = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(match format {
        Format::Toml => toml(&sweep, &models, &merges),
        Format::Yaml => yaml(&sweep, &models, &merges),
    })
}

/// The last part of a reference, without what a short name may not have.
fn short_name(model: &ModelRef) -> String {
    let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().replace(['+', '@'], "-");
    let mut name = last(&model.base.path);
    if let Some(adapter) = &model.adapter {
        name = format!("{name}-{}", last(&adapter.path));
    }
    if name.trim().is_empty() { "model".to_owned() } else { name }
}

fn unique(name: &str, taken: &dyn Fn(&str) -> bool) -> String {
    let further = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.to_owned()).chain(further).find(|name| !taken(name)).unwrap_or_default()
}

/// A file's path as the spec writes it: beside the spec by its name, from the current folder as given, else absolute.
fn seen_from(spec: &Path, file: &Path) -> Result<String, Failure> {
    let folder = |path: &Path| std::path::absolute(path).map(|path| path.parent().map(Path::to_owned));
    let here = std::path::absolute(".")?;
    let spec_folder = folder(spec)?;
    let written = if spec_folder == folder(file)? {
        file.file_name().map(PathBuf::from).unwrap_or_default()
    } else if spec_folder.as_deref() == Some(&here) {
        file.to_owned()
    } else {
        std::path::absolute(file)?
    };
    let text = written.to_str().map(str::to_owned);
    text.ok_or_else(|| usage(anyhow!("`{}`: the path is not UTF-8", file.display())))
}

/// A text in quotes, as TOML and YAML alike read it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const NOTE: &str = "\
# Merges of existing mergekit files. `mergesweep plan FILE` shows them; `mergesweep run FILE` makes and evaluates them.
# Every key: `mergesweep schema --markdown`. Relative paths, also those of models inside the files, start at this folder.
";

/// Above the section that lets dead settings pass.
const LINT: &str = "\
# The files are taken as they are: settings in them that nobody reads are told of by `plan`, not refused.
";

fn toml(sweep: &str, models: &[(String, ModelRef)], merges: &[Merge]) -> String {
    let mut text = format!("#:schema ./mergesweep.schema.json\n{NOTE}\nname = {}\n\n[models]\n", quoted(sweep));
    // Writing to a text cannot fail.
    for (name, model) in models {
        let _ = writeln!(text, "{} = {}", quoted(name), quoted(&model.to_string()));
    }
    let _ = write!(text, "\n{LINT}[lint]\ndead = \"warn\"\n");
    text += "\n[evaluate]\ntasks = [\"tinyArc\", \"tinyGSM8k\"]      # tasks of lm-evaluation-harness, by name\nbatch_size = 8\n";
    for (name, _) in models {
        let _ = write!(text, "\n[[baseline]]\nmodel = {}\n", quoted(name));
    }
    for merge in merges {
        let _ = write!(text, "\n[[merge]]\nname = {}\nconfig = {}\n", quoted(&merge.name), quoted(&merge.config));
        text += if merge.random { "seed = 0\n" } else { "" };
    }
    text
}

fn yaml(sweep: &str, models: &[(String, ModelRef)], merges: &[Merge]) -> String {
    let schema = "# yaml-language-server: $schema=./mergesweep.schema.json";
    let mut text = format!("{schema}\n{NOTE}\nname: {}\n\nmodels:\n", quoted(sweep));
    for (name, model) in models {
        let _ = writeln!(text, "  {}: {}", quoted(name), quoted(&model.to_string()));
    }
    let _ = write!(text, "\n{LINT}lint:\n  dead: warn\n");
    text += "\nevaluate:\n  tasks: [tinyArc, tinyGSM8k] # tasks of lm-evaluation-harness, by name\n  batch_size: 8\n\nbaseline:\n";
    for (name, _) in models {
        let _ = writeln!(text, "  - model: {}", quoted(name));
    }
    text += "\nmerge:\n";
    for merge in merges {
        let _ = write!(text, "  - name: {}\n    config: {}\n", quoted(&merge.name), quoted(&merge.config));
        text += if merge.random { "    seed: 0\n" } else { "" };
    }
    text
}
