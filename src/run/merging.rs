//! The lane in which merges are made, one pass at a time: two at once would only share the cores and the disk. A pass
//! makes the merge of the trial whose turn it is and, since the models are being read anyway, those of the next trials
//! that read one of them.
//!
//! The lane runs ahead of the evaluations as far as the disk allows: under `resources.disk`, as many models as fit;
//! without it, until there is a merged model waiting for every slot. Where nothing is evaluated, all are made.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;
use std::time::Instant;

use super::board::{Board, Failure, Room, Stop};
use super::dealing::{self, Turn};
use super::event::RunEvent;
use super::fingerprint::{Key, StaleReason, digest};
use super::journal::{Stage, What};
use super::pass::{self, Job, PassError};
use super::trial::{Work, make_room, settle_if_done};
use super::{Outcome, RunError, decide, merge_options, models_of, store};
use crate::config::write;
use crate::files::write_atomically;
use crate::merge::{self, Merge};
use crate::model::ModelRef;
use crate::plan::{Subject, configs};

/// A merge that must be made.
pub(super) struct Wanted {
    index: usize,
    text: String,
    job: Job,
    key: Key,
    reason: StaleReason,
}

/// The merge of a trial, unless it holds and its model is there or not needed.
pub(super) fn wanted(work: &Work<'_>) -> Option<Wanted> {
    let Subject::Merge { config, seed, numerics } = &work.trial.subject else { return None };
    let state = work.state();
    let inputs = work.board.facts.inputs_of(work.trial, &state);
    let redo = work.redo && !work.board.request.merges_redone;
    let decision = decide::merge(&work.trial.subject, &state, &inputs, redo)?;
    let reason = decision.stale.or_else(|| {
        let needed = !work.stale_tasks().is_empty() && !work.is_model_present();
        needed.then_some(StaleReason::ModelGone)
    })?;
    let request = work.board.request;
    // The files beside the model are for other programs, which start elsewhere.
    let naming = |model: &ModelRef| request.locator.written(model);
    let text = configs::text_of(work.trial, &naming)?;
    let places = [request.store.model(work.trial), request.store.sample(work.trial)];
    let job = Job::new(config, write::yaml(config, &naming), places, *seed, *numerics);
    Some(Wanted { index: work.index, text, job, key: decision.key.with_twin(None), reason })
}

/// Makes merges in order, and puts each trial whose model is there into the queue.
///
/// # Errors
/// [`RunError`] where the journal or the folder of the sweep cannot be written.
pub(super) async fn lane(board: &Board<'_>, merges: Vec<Wanted>) -> Result<(), RunError> {
    let mut left: VecDeque<Wanted> = merges.into();
    let mut sizes = BTreeMap::new();
    let mut per_pass = board.request.merges_per_pass.max(1);
    while let Some(first) = left.front() {
        if board.is_stopping() {
            break;
        }
        let Some(bytes) = size_of(board, first.index, &mut sizes)? else {
            left.pop_front();
            continue;
        };
        // A model that is made again makes room for the new one first: both together might not fit.
        let stale = Work::new(board, first.index);
        if stale.state().model_present {
            stale.delete_model()?;
        }
        let n_slots = board.request.slots.len();
        let room = board.until(|| {
            let ahead = board.request.disk.is_none() && n_slots > 0 && board.n_merges_waiting() >= n_slots;
            Some(board.room_for(bytes)).filter(|room| !ahead && *room != Room::Later)
        });
        match room.await {
            Some(Room::Never(_)) if make_room(board)? => continue,
            Some(Room::Never(free)) => {
                let index = first.index;
                left.pop_front();
                board.fail(index, too_large(bytes, free))?;
                continue;
            }
            Some(_) => {}
            None => break,
        }
        let pass = gather(board, &mut left, &mut sizes, bytes, per_pass)?;
        let alone = pass.len() == 1;
        match make(board, &pass, &sizes).await {
            Ok(()) => {}
            Err(Stop::Failed(failure)) if alone => board.fail(pass[0].index, failure)?,
            // What is wrong with one of them, or with the room for all, must not fail the others.
            Err(Stop::Failed(failure)) => {
                let reason = board.without_home(&failure.reason);
                board
                    .say(RunEvent::Note(format!("a pass of {} merges failed: {reason}; again one by one", pass.len())));
                per_pass = 1;
                pass.into_iter().rev().for_each(|wanted| left.push_front(wanted));
            }
            Err(Stop::Interrupted) => break,
            Err(Stop::Fatal(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Takes the first merge and the next ones that read one of its models, as many as fit.
fn gather(
    board: &Board<'_>,
    left: &mut VecDeque<Wanted>,
    sizes: &mut BTreeMap<usize, u64>,
    mut bytes: u64,
    per_pass: usize,
) -> Result<Vec<Wanted>, RunError> {
    let mut models = None;
    let joins = |pass: &[Wanted], next: &Wanted| {
        if pass.len() >= per_pass {
            return Ok(Turn::Enough);
        }
        let models = models.get_or_insert_with(|| models_of(board.trial(pass[0].index)));
        if !models_of(board.trial(next.index)).iter().any(|model| models.contains(model)) {
            return Ok(Turn::Waits);
        }
        Ok(match size_of(board, next.index, sizes)? {
            Some(size) if board.room_for(bytes + size) == Room::Now => {
                bytes += size;
                Turn::Joins
            }
            Some(_) => Turn::Waits,
            // It cannot be planned: it has failed and is settled.
            None => Turn::Gone,
        })
    };
    dealing::take(left, joins)
}

/// Bytes of a merge's output; none for one that cannot be made, which has then failed.
fn size_of(board: &Board<'_>, index: usize, sizes: &mut BTreeMap<usize, u64>) -> Result<Option<u64>, RunError> {
    if let Some(bytes) = sizes.get(&index) {
        return Ok(Some(*bytes));
    }
    let Subject::Merge { config, seed, numerics } = &board.trial(index).subject else { return Ok(None) };
    let locate = |model: &ModelRef| board.request.locator.locate(model).map_err(Into::into);
    let planned = tokio::task::block_in_place(|| merge::plan(config, &locate, "", &merge_options(*seed, *numerics)));
    match planned {
        Ok(plan) => {
            sizes.insert(index, plan.n_bytes());
            Ok(Some(plan.n_bytes()))
        }
        Err(error) => {
            board.fail(index, Failure { stage: Stage::Merge, reason: error.to_string(), log: None })?;
            Ok(None)
        }
    }
}

fn too_large(bytes: u64, free: u64) -> Failure {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let reason = format!(
        "the merged model takes {:.2} GB, and only {:.2} GB are left for it (raise `resources.disk`, keep fewer models with \
         `limits.keep`, delete those that the spec no longer has with `mergesweep clean`, or set `resources.work_dir` to a larger disk)",
        gigabytes(bytes),
        gigabytes(free)
    );
    Failure { stage: Stage::Merge, reason, log: None }
}

/// Makes merges in one pass, records each and puts it into the queue.
async fn make(board: &Board<'_>, pass: &[Wanted], sizes: &BTreeMap<usize, u64>) -> Result<(), Stop> {
    let Some(first) = pass.first() else { return Ok(()) };
    let begun = Instant::now();
    let store = &board.request.store;
    let id_of = |wanted: &Wanted| board.trial(wanted.index).id.clone();
    for Wanted { index, text, .. } in pass {
        let trial = board.trial(*index);
        let config = store.trial(trial).join("config.yml");
        write_atomically(&config, text.as_bytes()).map_err(store::at(&config))?;
        store.clear_partial_models(trial)?;
    }
    board.record_all(pass.iter().map(|wanted| (id_of(wanted), What::MergeStarted)).collect())?;
    for Wanted { index, .. } in pass {
        let trial = board.trial(*index);
        board.hold(&trial.id, sizes.get(index).copied().unwrap_or_default());
    }
    // The progress of the whole pass is shown under the first of its trials.
    let name = board.trial(first.index).name.clone();
    let why = first.reason.to_string();
    board.say(RunEvent::StageStarted { trial: name, stage: Stage::Merge, slot: None, why });
    let merged = run(board, pass).await;
    if merged.is_err() {
        for Wanted { index, .. } in pass {
            store.clear_partial_models(board.trial(*index))?;
            board.release(&board.trial(*index).id);
        }
    }
    let merged = merged?;
    let elapsed = begun.elapsed();
    let n_merges = u32::try_from(merged.len()).unwrap_or(u32::MAX);
    merged.iter().for_each(|_| board.took(Stage::Merge, elapsed / n_merges));
    let n_bytes: u64 = merged.iter().map(|merge| merge.n_bytes).sum();
    let speed = n_bytes as f64 / 1e9 / elapsed.as_secs_f64();
    let (mut records, mut told) = (Vec::new(), Vec::new());
    for (wanted, mut merge) in pass.iter().zip(merged) {
        let trial = board.trial(wanted.index);
        let notes = merge.notes.iter().map(|note| RunEvent::Note(format!("{}: {note}", trial.name)));
        told.extend(notes);
        merge.notes.iter_mut().for_each(|note| *note = board.without_home(note));
        let together = if pass.len() > 1 { format!(", one of {} in one pass", pass.len()) } else { String::new() };
        let what =
            format!("{} tensors, {:.0} MB{together}, {speed:.2} GB/s", merge.n_tensors, merge.n_bytes as f64 / 1e6);
        told.push(RunEvent::StageFinished { trial: trial.name.clone(), stage: Stage::Merge, elapsed, what });
        let identity = identity_of(&merge, &store.model(trial));
        records.push((id_of(wanted), What::Merged { key: wanted.key.clone(), merge, identity }));
    }
    board.record_all(records)?;
    told.into_iter().for_each(|event| board.say(event));
    pass.iter().try_for_each(|wanted| settle_if_done(&Work::new(board, wanted.index), Outcome::Done))?;
    Ok(())
}

async fn run(board: &Board<'_>, pass: &[Wanted]) -> Result<Vec<Merge>, Stop> {
    let request = board.request;
    let mut models = BTreeMap::new();
    for model in pass.iter().flat_map(|wanted| models_of(board.trial(wanted.index))) {
        models.insert(model.to_string(), request.locator.locate(&model).map_err(RunError::from)?);
    }
    let asked = pass::Request {
        models,
        merges: pass.iter().map(|wanted| wanted.job.clone()).collect(),
        threads: request.merge_threads,
        memory: request.merge_memory,
    };
    let first = board.trial(pass[0].index);
    let mut on_progress = |done, total| {
        let (trial, doing) = (first.name.clone(), String::new());
        board.say(RunEvent::StageProgress { trial, done, total, doing });
    };
    let folder = request.store.merge_files(first);
    match pass::run(&request.program, &asked, &folder, request.merge_timeout, board.cancel, &mut on_progress).await {
        Ok(merges) => Ok(merges),
        Err(PassError::Cancelled) => Err(Stop::Interrupted),
        Err(error) => {
            let log = Some(folder.join("stderr.log")).filter(|_| !matches!(error, PassError::Merge(_)));
            Err(Stop::Failed(Failure { stage: Stage::Merge, reason: error.to_string(), log }))
        }
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
