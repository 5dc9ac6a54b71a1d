//! What earlier runs left behind: processes that outlived a killed one, and results that were complete and not recorded yet.

use std::path::Path;
use std::time::Duration;

use super::board::Board;
use super::decide::StaleTask;
use super::event::RunEvent;
use super::journal::{Evaluation, Stage};
use super::state::{SweepState, Unfinished};
use super::store;
use super::trial::{Work, task_evaluations};
use super::{Request, RunError};
use crate::eval::command;
use crate::eval::results;
use crate::process::{self, Logs};

/// How long an orphan may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends processes of a killed run, and says how many there were.
pub(super) fn end_orphans(request: &Request, state: &SweepState) -> usize {
    let mut n_ended = 0;
    // Those of trials that the spec no longer has, too.
    for id in state.trials() {
        let state = state.of(id);
        let merges = state.in_flight == Some(Stage::Merge);
        if !merges && state.unfinished.is_empty() {
            continue;
        }
        let Some(trial) = request.store.trial_of(id) else { continue };
        let merge = merges.then(|| store::merge_files_in(&trial));
        let attempts = state.unfinished.keys().map(|folder| trial.join(folder));
        for folder in attempts.chain(merge) {
            n_ended += usize::from(process::end_orphans(&Logs::of(&folder).identity, PATIENCE));
        }
    }
    n_ended
}

/// Removes models that the journal does not know to be there: unfinished ones, one that was being deleted, and one that
/// was complete but not recorded, of which nobody knows what it was made from.
pub(super) fn remove_stray_models(request: &Request, state: &SweepState) -> Result<(), RunError> {
    for trial in &request.plan.trials {
        request.store.clear_partial_models(trial)?;
        if !state.of(&trial.id).model_present {
            store::remove_folder(&request.store.model(trial))?;
        }
    }
    Ok(())
}

/// Takes over the results of harness processes that ended well when nobody was there to record it, and removes what is
/// left of the others.
pub(super) fn adopt(board: &Board<'_>) -> Result<(), RunError> {
    for index in &board.request.selected {
        let work = Work::new(board, *index);
        for (folder, begun) in work.state().unfinished {
            let path = board.request.store.trial(work.trial).join(&folder);
            if !adopt_attempt(&work, &folder, &path, begun)? {
                store::remove_folder(&path)?;
            }
        }
    }
    Ok(())
}

fn adopt_attempt(work: &Work<'_>, folder: &str, path: &Path, begun: Unfinished) -> Result<bool, RunError> {
    let Unfinished { keys, batch_size } = begun;
    let stale = work.stale_tasks();
    let asked: Vec<&StaleTask> = stale.iter().filter(|task| keys.get(&task.request.name) == Some(&task.key)).collect();
    // A task that is done again for the asking is not answered by what was there before.
    if asked.is_empty() || work.redo {
        return Ok(false);
    }
    let board = work.board;
    let (settings, known) = (&board.request.settings, &board.facts.known_tasks);
    let requests: Vec<_> = asked.iter().map(|task| task.request.clone()).collect();
    if path.is_dir() {
        // The run was killed before it could do so.
        board.request.secrets.blot_out(path).map_err(store::at(path))?;
    }
    let limit = |task: &_| command::limit_of(settings, task);
    let Ok(found) = results::read(&path.join("output"), &requests, &limit, known) else { return Ok(false) };
    let tasks = task_evaluations(&asked, known, &found.scores);
    let evaluation = Evaluation { tasks, harness: found.facts, folder: folder.to_owned(), seconds: 0.0, batch_size };
    work.accept(&asked, evaluation)?;
    let names: Vec<&str> = requests.iter().map(|task| task.name.as_str()).collect();
    let text =
        format!("{}: results of {} were complete when the last run ended: taken over", work.name(), names.join(", "));
    board.say(RunEvent::Note(text));
    Ok(true)
}
