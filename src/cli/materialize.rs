//! `mergesweep materialize`: a trial's merged model again, checked against what was evaluated.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::interrupt::stop_on_signal;
use super::percent::Percent;
use super::{Failure, SweepArgs, usage, warn};
use crate::config::write;
use crate::document::Problems;
use crate::exit_code::{self, Exit};
use crate::merge::{self, MergeError};
use crate::model::{LocateError, ModelRef};
use crate::plan::Subject;
use crate::process::cancellation;
use crate::run::state::SweepState;
use crate::run::{journal, merge_options, select::select};
use crate::spec::placed;

/// Make the merged model of one trial again, and check it
///
/// Merged models are deleted once they are scored, unless `limits.keep` says otherwise. This makes
/// one of them again in OUT and compares its weights with the digest that the journal recorded
/// when the trial was evaluated: exit code 4 when they are not the same (an input model or this
/// program has changed since).
///
/// Examples:
///   mergesweep materialize sweeps/quickstart.toml TIES best-model
///   mergesweep materialize sweeps/quickstart.toml 'SLERP (t=0.5)' slerp
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct MaterializeArgs {
    #[command(flatten)]
    sweep: SweepArgs,
    /// The trial: its name or id
    trial: String,
    /// Folder of the model; an earlier merge there is replaced
    out: PathBuf,
}

pub(super) fn run(args: &MaterializeArgs) -> Result<Exit, Failure> {
    let (sweep, plan) = args.sweep.load()?;
    let selected = select(&plan, std::slice::from_ref(&args.trial)).map_err(usage)?;
    let [index] = selected.as_slice() else {
        return Err(usage(anyhow!("`{}` names {} trials, expected one", args.trial, selected.len())));
    };
    let trial = &plan.trials[*index];
    let Subject::Merge { config, seed, numerics } = &trial.subject else {
        return Err(usage(anyhow!("`{}` is a model as it is: there is nothing to merge", trial.name)));
    };
    let state = SweepState::replay(&journal::read(&args.sweep.store(&sweep)?.journal())?);
    let recorded = state.of(&trial.id).merged.map(|merged| merged.merge.weights_digest);
    let (canceller, cancel) = cancellation();
    let mut locator = args.sweep.locator(&sweep)?;
    locator.hub.cancel = cancel.clone();
    let text = write::yaml(config, &|model| locator.written(model));
    let options = merge_options(*seed, *numerics);
    let job = merge::Job { config, config_text: &text, out: &args.out, options: &options };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.spawn(stop_on_signal(canceller, "nothing is left behind", warn, || {}));
    let percent = Percent::new("merging", false);
    let progress = |done: u64, total: u64| {
        percent.show(done, total);
        !cancel.is_cancelled()
    };
    let was_there = args.out.exists();
    let locate = |model: &ModelRef| locator.locate(model).map_err(Into::into);
    let merged = merge::merge(&[job], &locate, &progress);
    percent.clear();
    let merges = match merged {
        Err(MergeError::Cancelled) => return Ok(Exit::Interrupted),
        Err(MergeError::Locate { model, source }) => {
            let place = |error: &LocateError| Some(placed::model(&sweep, &model.parse().ok()?, error));
            return Err(match source.downcast_ref().and_then(place) {
                Some(problem) => usage(Problems(vec![problem])),
                None => usage(MergeError::Locate { model, source }),
            });
        }
        merged => merged.map_err(usage)?,
    };
    if was_there {
        warn(&format!("note: the merge that was in `{}` is replaced", args.out.display()));
    }
    let made = merges.first().map(|merge| merge.weights_digest.as_str()).unwrap_or_default();
    match recorded {
        None => warn(&format!("note: {} was not merged in this sweep before: nothing to compare with", trial.name)),
        Some(recorded) if recorded == made => {
            warn(&format!("{}: weights {made}, the same that were evaluated", trial.name));
        }
        Some(recorded) => {
            warn(&format!(
                "error: {}: the weights are not those that were evaluated: {made}, recorded {recorded}\nhint: `mergesweep \
                 status --why '{}'` says what changed",
                trial.name, trial.name
            ));
            return Ok(Exit::Different);
        }
    }
    Ok(Exit::Ok)
}
