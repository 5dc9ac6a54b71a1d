//! What commands share that work through Slurm: which engine a sweep has, and whose fault an error is.

pub(super) mod cancel;
pub(super) mod table;
pub(super) mod unit;

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Failure, SweepArgs, usage};
use crate::run::slurm::collect::SeedError;
use crate::run::slurm::{Manifest, Options, SlurmError};
use crate::spec::{EngineKind, Sweep};

/// Where a run works.
pub(super) enum Engine {
    Local,
    Slurm(Box<Options>),
}

/// The engine that was asked for, else the spec's.
pub(super) fn engine(
    args: &SweepArgs,
    sweep: &Sweep,
    asked: Option<EngineKind>,
    detach: bool,
) -> Result<Engine, Failure> {
    Ok(match asked.unwrap_or(sweep.engine.kind) {
        EngineKind::Local => Engine::Local,
        EngineKind::Slurm => Engine::Slurm(Box::new(options(args, sweep, detach)?)),
    })
}

/// What a run through Slurm is told.
pub(super) fn options(args: &SweepArgs, sweep: &Sweep, detach: bool) -> Result<Options, Failure> {
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| format!("finding `{}`", path.display()));
    Ok(Options {
        slurm: sweep.engine.slurm.clone(),
        spec: absolute(&args.spec)?,
        results: absolute(&args.results)?,
        limit: args.limit,
        here: std::env::current_dir().context("finding the current folder")?,
        detach,
    })
}

/// The arguments that a manifest stands for.
fn arguments(manifest: &Manifest) -> SweepArgs {
    let Manifest { spec, results, python, limit, .. } = manifest.clone();
    SweepArgs { spec, results, python, limit }
}

/// Whose fault an error is.
pub(super) fn sort(error: SlurmError, sweep: &Sweep) -> Failure {
    match error {
        SlurmError::Run(error) => super::run::sort(error, sweep),
        SlurmError::Store(error) | SlurmError::Seed(SeedError::Store(error)) => error.into(),
        SlurmError::Absent(_)
        | SlurmError::Refused { .. }
        | SlurmError::Keeps { .. }
        | SlurmError::KeptOnNode
        | SlurmError::SplitOnNode
        | SlurmError::Over { .. }
        | SlurmError::Path(_) => usage(error),
        SlurmError::Unanswered(_) | SlurmError::StillThere(_) | SlurmError::StillWorking(_) => {
            Failure::Busy(error.into())
        }
        error => Failure::Internal(error.into()),
    }
}

/// Where models of a task lie: a leading variable (`$SLURM_TMPDIR`, `${SLURM_TMPDIR}/x`) is put in here, on the node.
fn work_dir(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, String> {
    let Some(rest) = text.strip_prefix('$') else { return Ok(PathBuf::from(text)) };
    let (name, rest) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
        Some(parts) => parts,
        None => rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())),
    };
    match variable(name).filter(|value| !value.is_empty()) {
        Some(value) => Ok(PathBuf::from(format!("{value}{rest}"))),
        None => Err(format!("`engine.work_dir` is `{text}`, and `{name}` is not set in the job")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_variable_of_the_job_is_put_in() {
        let variable = |name: &str| (name == "TMP_1").then(|| "/scratch/7".to_owned());
        let found = ["$TMP_1", "${TMP_1}/m", "$TMP_1/m", "/fixed/$TMP_1"].map(|text| work_dir(text, &variable));
        let expected = ["/scratch/7", "/scratch/7/m", "/scratch/7/m", "/fixed/$TMP_1"];
        assert_eq!(found, expected.map(|path| Ok(PathBuf::from(path))));
        assert_eq!(
            work_dir("$GONE/m", &variable),
            Err("`engine.work_dir` is `$GONE/m`, and `GONE` is not set in the job".to_owned())
        );
    }
}
