//! The lane in which merges are made, one pass at a time: two at once would only share the cores and the disk. A pass
//! makes the merge of the trial whose turn it is and, since the models are being read anyway, those of the next trials
//! that read one of them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::decide;
use super::event::RunEvent;
use super::fingerprint::{Key, StaleReason, digest};
use super::journal::{Stage, What};
use super::store;
use super::trial::{Stop, Work, failed};
use super::{merge_options, models_of};
use crate::config::{MergeConfig, write};
use crate::merge::{self, Merge, MergeError, MergeOptions};
use crate::plan::{Subject, TrialId};

/// What has been merged so far, and how much at once.
pub(super) struct Lane {
    per_pass: usize,
    /// Trials merged in this run: being asked to do one again counts once.
    made: HashSet<TrialId>,
}

/// A merge that must be made.
struct Wanted<'a> {
    work: Work<'a>,
    config: MergeConfig,
    options: MergeOptions,
    text: String,
    out: PathBuf,
    key: Key,
    reason: StaleReason,
}

impl Lane {
    pub fn new(per_pass: usize) -> Self {
        Self { per_pass, made: HashSet::new() }
    }

    /// Makes the merge of a trial unless it holds, and says whether anything was done.
    pub async fn merge(&mut self, work: &Work<'_>) -> Result<bool, Stop> {
        let Some(first) = self.wanted(*work) else { return Ok(false) };
        let mut pass = vec![first];
        pass.extend(self.companions(work));
        let alone = pass.len() == 1;
        match make(&pass).await {
            // What is wrong with one of them, or with the room for all, must not fail the others.
            Err(Stop::Failed { .. }) if !alone => {
                self.per_pass = 1;
                pass.truncate(1);
                make(&pass).await?;
            }
            made => made?,
        }
        self.made.extend(pass.iter().map(|wanted| wanted.work.trial.id.clone()));
        Ok(true)
    }

    fn wanted<'a>(&self, work: Work<'a>) -> Option<Wanted<'a>> {
        let Subject::Merge { config, seed, numerics } = &work.trial.subject else { return None };
        let redo = work.redo && !self.made.contains(&work.trial.id);
        let inputs = work.facts.inputs_of(work.trial);
        let decision = decide::merge(&work.trial.subject, &work.now(), &inputs, redo)?;
        let reason = decision.stale.or_else(|| {
            let needed = !work.stale_tasks(false).is_empty() && !work.is_model_present();
            needed.then_some(StaleReason::ModelGone)
        })?;
        Some(Wanted {
            work,
            config: config.as_ref().clone(),
            options: merge_options(*seed, *numerics),
            // The files beside the model are for other programs, which start elsewhere.
            text: write::yaml(config, &|model| work.request.locator.written(model)),
            out: work.request.store.model(work.trial),
            key: decision.key,
            reason,
        })
    }

    /// The next trials whose merges read one of the models that this one reads.
    fn companions<'a>(&self, work: &Work<'a>) -> Vec<Wanted<'a>> {
        let models = models_of(work.trial);
        let plan = &work.request.plan.trials;
        let behind = work.request.selected.iter().skip_while(|index| plan[**index].id != work.trial.id).skip(1);
        behind
            .filter(|index| models_of(&plan[**index]).iter().any(|model| models.contains(model)))
            .filter_map(|index| {
                let redo = work.request.redo.contains(index);
                self.wanted(Work { trial: &plan[*index], redo, ..*work })
            })
            .take(self.per_pass.saturating_sub(1))
            .collect()
    }
}

/// Makes merges in one pass and records each.
async fn make(pass: &[Wanted<'_>]) -> Result<(), Stop> {
    let Some(Wanted { work: first, reason, .. }) = pass.first() else { return Ok(()) };
    if first.cancel.is_cancelled() {
        return Err(Stop::Interrupted);
    }
    let begun = Instant::now();
    for Wanted { work, text, .. } in pass {
        let store = &work.request.store;
        store::write_atomically(&store.trial(work.trial).join("config.yml"), text.as_bytes())?;
        store.clear_partial_models(work.trial)?;
        work.record(What::MergeStarted)?;
    }
    // The progress of the whole pass is shown under the first of its trials.
    first.say(RunEvent::StageStarted { trial: first.name(), stage: Stage::Merge, why: reason.to_string() });
    let merges = run(pass, first).await?;
    for (wanted, merge) in pass.iter().zip(merges) {
        let Wanted { work, out, key, .. } = wanted;
        let identity = identity_of(&merge, out);
        for note in &merge.notes {
            work.say(RunEvent::Note(format!("{}: {note}", work.trial.name)));
        }
        let together = if pass.len() > 1 { format!(", one of {} in one pass", pass.len()) } else { String::new() };
        let what = format!("{} tensors, {:.0} MB{together}", merge.n_tensors, merge.n_bytes as f64 / 1e6);
        work.record(What::Merged { key: key.clone(), merge, identity })?;
        work.say(RunEvent::StageFinished { trial: work.name(), stage: Stage::Merge, elapsed: begun.elapsed(), what });
    }
    Ok(())
}

/// Runs the engine on a thread of its own.
async fn run(pass: &[Wanted<'_>], first: &Work<'_>) -> Result<Vec<Merge>, Stop> {
    let owned: Vec<(MergeConfig, String, PathBuf, MergeOptions)> = pass
        .iter()
        .map(|wanted| (wanted.config.clone(), wanted.text.clone(), wanted.out.clone(), wanted.options.clone()))
        .collect();
    let locator = first.request.locator.clone();
    let (listener, cancel, name) = (first.listener.clone(), first.cancel.clone(), first.name());
    let merging = tokio::task::spawn_blocking(move || {
        let progress = |done: u64, total: u64| {
            let doing = String::new();
            listener(RunEvent::StageProgress { trial: name.clone(), done, total, doing });
            !cancel.is_cancelled()
        };
        let locate = |model: &crate::model::ModelRef| locator.locate(model).map_err(Into::into);
        let jobs: Vec<merge::Job<'_>> = owned
            .iter()
            .map(|(config, config_text, out, options)| merge::Job { config, config_text, out, options })
            .collect();
        merge::merge(&jobs, &locate, &progress)
    });
    match merging.await {
        Ok(Ok(merges)) => Ok(merges),
        Ok(Err(MergeError::Cancelled)) => Err(Stop::Interrupted),
        Ok(Err(error)) => Err(failed(Stage::Merge, &error)),
        Err(error) => Err(failed(Stage::Merge, &error)),
    }
}

/// Names what answers depend on: the weights, and the small files beside them (config, tokenizer, template).
fn identity_of(merge: &Merge, model: &Path) -> String {
    let mut small: Vec<(String, String)> = fs::read_dir(model)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let decides = [".json", ".jinja", ".model", ".txt"].iter().any(|end| name.ends_with(end));
            decides && !name.ends_with(".safetensors.index.json")
        })
        .filter_map(|entry| {
            let bytes = fs::read(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), digest(&bytes)))
        })
        .collect();
    small.sort();
    let text: String = small.iter().map(|(name, digest)| format!("{name}={digest}\n")).collect();
    format!("{}+{}", merge.weights_digest, digest(text.as_bytes()))
}
