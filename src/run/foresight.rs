//! What a run would do, as far as that can be said without starting a process or fetching anything: which merges it would
//! make and in which passes, which tasks it would evaluate, and what it would take from earlier results. Decided by the same
//! keys as in a run, with the version of the harness taken to be the one that was recorded last.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;

use super::dealing::{self, Turn};
use super::elsewhere::Elsewhere;
use super::facts::{Facts, facts_of, models_here, models_of};
use super::fingerprint::Key;
use super::state::{SweepState, TrialState};
use super::{Request, RunError, decide, journal, search, twins};
use crate::eval::TaskRequest;
use crate::model::Digests;
use crate::plan::Subject;
use crate::spec::Keep;

/// What a run would do for one trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Foreseen {
    /// Number of the trial in the plan.
    pub index: usize,
    /// Whether its merge would be made.
    pub merges: bool,
    /// Number of the trial whose merge and scores it would take over.
    pub follows: Option<usize>,
    /// Tasks that would be evaluated.
    pub tasks: Vec<TaskRequest>,
    /// Tasks whose scores are there.
    pub n_reused: usize,
    /// Whether a merge of it is there that holds.
    pub is_merge_reused: bool,
}

/// What is known of a sweep before it is run.
#[derive(Debug, Clone, Default)]
pub struct Foresight {
    /// Every selected trial, in the order of the plan.
    pub trials: Vec<Foreseen>,
    /// Bytes of merged models that are on disk now.
    pub held: u64,
}

/// Looks ahead.
///
/// # Errors
/// [`RunError`] where the journal or a model that is here cannot be read.
pub fn foresee(request: &Request) -> Result<Foresight, RunError> {
    let records = journal::read(&request.store.journal())?;
    let state = SweepState::replay(&records);
    let elsewhere = Elsewhere::read(&request.store, &request.plan.sweep);
    let version = state.recorded_version().or_else(|| elsewhere.recorded_version()).unwrap_or_default();
    // Where nothing is recorded there is nothing that the weights would have to be those of.
    let is_first = records.is_empty() && elsewhere.recorded_version().is_none();
    let digests = (!is_first).then(|| Digests::remembered_in(request.store.results()));
    // Models that are not here are left out.
    let (models, _) = models_here(request, None, digests.as_ref())?;
    let facts = facts_of(request, models, version)?;
    let followers = twins::followers(request);
    let mut asked: HashSet<(String, Key)> = HashSet::new();
    let mut foresight = Foresight::default();
    for index in &request.selected {
        let trial = &request.plan.trials[*index];
        let of_trial = state.of(&trial.id);
        if let Some(merged) = of_trial.merged.as_ref().filter(|_| of_trial.model_present) {
            foresight.held += merged.merge.n_bytes;
        }
        let mut foreseen = Foreseen { index: *index, ..Foreseen::default() };
        // Of a search that was begun, what is left by the decisions so far.
        let settings = search::settings_of(request, &state, *index);
        let is_known = models_of(trial).iter().all(|model| facts.models.contains_key(model));
        let is_merge = matches!(trial.subject, Subject::Merge { .. });
        let holds = is_merge && (of_trial.merged.is_some() && (!is_known || holds(&facts, request, *index, &of_trial)));
        foreseen.is_merge_reused = holds;
        if is_merge && !holds {
            foreseen.follows = followers.get(index).copied();
            if foreseen.follows.is_none() {
                foreseen.merges = true;
                foreseen.tasks.clone_from(&settings.tasks);
            }
            foresight.trials.push(foreseen);
            continue;
        }
        let model = match &trial.subject {
            Subject::Checkpoint(model) => facts.content_of(model),
            Subject::Merge { .. } => of_trial.merged.as_ref().map(|merged| merged.identity.clone()).unwrap_or_default(),
        };
        let redo = request.redo.contains(index);
        let stale = decide::tasks(&settings, &facts.harness, &model, &of_trial, redo);
        for task in stale {
            let (name, key) = (&task.request.name, &task.key);
            let is_there = state.evaluation_with(name, key).is_some() || elsewhere.evaluation_with(name, key).is_some();
            // The same weights are evaluated once.
            let is_asked = !asked.insert((name.clone(), key.clone()));
            if !(is_known && (is_there || is_asked)) {
                foreseen.tasks.push(task.request);
            }
        }
        foreseen.n_reused = settings.tasks.len() - foreseen.tasks.len();
        foreseen.merges = is_merge && !foreseen.tasks.is_empty() && !of_trial.model_present;
        foresight.trials.push(foreseen);
    }
    Ok(foresight)
}

fn holds(facts: &Facts, request: &Request, index: usize, state: &TrialState) -> bool {
    let trial = &request.plan.trials[index];
    let redo = request.redo.contains(&index);
    let decision = decide::merge(&trial.subject, state, &facts.inputs_of(trial, state), redo);
    decision.is_some_and(|decision| decision.stale.is_none())
}

/// The passes in which merges are made, where the disk does not hold them up: the first one that is left, and the next
/// ones that read one of its models. `shares` tells whether two of them read a model together.
pub fn passes(merges: &[usize], per_pass: usize, shares: &dyn Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut left: VecDeque<usize> = merges.iter().copied().collect();
    let joins = |pass: &[usize], next: &usize| {
        let turn = if shares(pass[0], *next) { Turn::Joins } else { Turn::Waits };
        Ok::<_, Infallible>(if pass.len() < per_pass { turn } else { Turn::Enough })
    };
    let next = || {
        let Ok(pass) = dealing::take(&mut left, joins);
        Some(pass).filter(|pass| !pass.is_empty())
    };
    std::iter::from_fn(next).collect()
}

/// The most bytes that merged models take at any time, where nothing is slower than it may be: those that are there, those
/// that stay, those that are evaluated, wait or are being made. `sizes` are those of the merges to be made.
pub fn disk_peak(request: &Request, held: u64, sizes: &[u64]) -> u64 {
    let all: u64 = held + sizes.iter().sum::<u64>();
    let n_slots = request.slots.len().max(1);
    let stay = match &request.keep {
        Keep::Nothing => 0,
        Keep::Best { count, .. } => *count,
        Keep::All | Keep::Pareto => sizes.len(),
    };
    // One in every slot, one less waiting than there are slots when a pass begins, and the pass.
    let at_once = (2 * n_slots - 1 + request.merges_per_pass.max(1)).saturating_add(stay);
    let mut largest = sizes.to_vec();
    largest.sort_unstable_by(|one, other| other.cmp(one));
    let moving: u64 = largest.iter().take(at_once).sum();
    match request.disk {
        // Merges are made ahead as far as the budget goes.
        Some(budget) => all.min(budget.max(held)),
        None => all.min(held + moving),
    }
}
