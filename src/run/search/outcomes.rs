//! What contenders scored up to a rung, document by document, read from the harness' samples. Each file is read once.

use std::collections::HashMap;

use super::pieces::Pieces;
use crate::eval::samples;
use crate::eval::task::Column;
use crate::eval::{Settings, TaskRequest};
use crate::paired::{Outcomes, align};
use crate::plan::TrialId;
use crate::run::RunError;
use crate::run::fingerprint::Key;
use crate::run::outputs::Outputs;
use crate::run::state::TrialState;
use crate::search::Measure;

/// Outcomes of pieces, by trial, what their answers rest on, and column.
#[derive(Debug, Default)]
pub(super) struct Answers {
    read: HashMap<(TrialId, Key, String), Option<Outcomes>>,
}

/// What a trial scored in the columns that decide.
pub(super) type Scored = Vec<Outcomes>;

impl Answers {
    /// Of one trial up to a rung, column by column; why not, where something is missing.
    pub fn of(
        &mut self,
        columns: &[Column],
        settings: &Settings,
        pieces: &Pieces,
        rung: usize,
        (id, state): (&TrialId, &TrialState),
        outputs: &Outputs,
    ) -> Result<Result<Scored, String>, RunError> {
        let mut scored = Vec::new();
        for column in columns {
            let mut parts = Vec::new();
            for request in pieces.rungs.iter().take(rung + 1).flatten().filter(|request| request.name == column.task) {
                match self.part(column, settings, request, (id, state), outputs)? {
                    Ok(part) => parts.push(part),
                    Err(why) => return Ok(Err(why)),
                }
            }
            match Outcomes::together(&parts) {
                Some(whole) => scored.push(whole),
                None => return Ok(Err(format!("`{}` has no answers that can be put together", column.name))),
            }
        }
        Ok(Ok(scored))
    }

    fn part(
        &mut self,
        column: &Column,
        settings: &Settings,
        request: &TaskRequest,
        (id, state): (&TrialId, &TrialState),
        outputs: &Outputs,
    ) -> Result<Result<Outcomes, String>, RunError> {
        let Some((done, _)) = state.current(settings, request) else {
            return Ok(Err(format!("`{}` was not evaluated", request.name)));
        };
        let Some(score) = done.scores.iter().find(|score| column.shows(score)) else {
            return Ok(Err(format!("`{}` reports no {} (filter {})", request.name, column.metric, column.filter)));
        };
        let place = (id.clone(), done.key.clone(), column.name.clone());
        if !self.read.contains_key(&place) {
            let file = outputs.samples(id, &request.name, &done.key, &column.task)?;
            let samples = file.map(|file| samples::read(&file)).transpose()?;
            let outcomes = samples.and_then(|samples| Outcomes::of(column, score, &samples));
            self.read.insert(place.clone(), outcomes);
        }
        let Some(Some(outcomes)) = self.read.get(&place) else {
            return Ok(Err(format!(
                "the samples of `{}` are gone or hold no {}; `--redo` asks them again",
                request.name, column.metric
            )));
        };
        // A number over all documents at once cannot be raced: no document has a part in it.
        let is_mean =
            score.value.is_some_and(|value| (value - outcomes.items.score()).abs() <= 1e-6 * value.abs().max(1.0));
        Ok(if is_mean {
            Ok(outcomes.clone())
        } else {
            Err(format!("`{}` is no mean of what its documents score", column.name))
        })
    }
}

/// The columns as measures, by the first trial's outcomes.
pub(super) fn measures(columns: &[Column], first: &Scored) -> Vec<Measure> {
    let measure = |(column, outcomes): (&Column, &Outcomes)| Measure {
        column: column.name.clone(),
        task: column.task.clone(),
        higher_is_better: outcomes.higher_is_better,
    };
    columns.iter().zip(first).map(measure).collect()
}

/// Why a trial cannot be set beside another one; none where it can.
pub(super) fn apart(one: &Scored, other: &Scored) -> Option<String> {
    one.iter().zip(other).find_map(|(one, other)| align(one, other, false).err()).map(|reason| reason.to_string())
}
