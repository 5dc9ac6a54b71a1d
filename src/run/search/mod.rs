//! A search in a run: rung by rung the trials that are left are asked more documents, and [`crate::search`] says who goes on.
//!
//! A rung is a run of its own on a part of the request: the same lanes, the same journal, the same rules of what is done
//! already. Nothing but the journal tells where the search stands: a run that was killed goes through the rungs from the
//! first, finds the answers and the decisions recorded, and goes on where something is missing. What is asked may also be asked
//! elsewhere ([`turn`]): then the search ends where something is to be asked, and goes on from there when it was.

mod decided;
mod optuna;
mod outcomes;
mod pieces;
mod points;
mod refine;
mod stand;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::RunEvent;
use super::journal::{self, Stage, What};
use super::outputs::Outputs;
use super::state::SweepState;
use super::{Failed, Listener, Outcome, Request, RunError, Session, Summary, store, summary};
use crate::eval::{Settings, task_files};
use crate::plan::Subject;
use crate::search::{Contender, Decision, Evidence, Measure, decide, front};
use crate::spec::{Keep, Search, Way};

pub use decided::{Decided, Standing};
pub use pieces::{Draw, Part, Pieces};
pub use points::{Grow, Sampled, placed};
pub use refine::Refined;

use outcomes::{Answers, Scored};
pub(super) use points::refreshed;
use stand::{Stand, is_due, stand};
pub use turn::Attempted;
pub(super) use turn::{Advanced, Turn, advance, foreseen, left};

/// A search on its way.
struct Going<'s, 'a> {
    session: &'s mut Session<'a>,
    /// That of the session, with the points that were placed.
    request: Arc<Request>,
    search: &'s Search,
    pieces: Pieces,
    draw: Draw,
    /// Trials that are asked rung by rung and are not out, by number in the plan.
    alive: Vec<usize>,
    /// Of a search that places points a few at a time: those that answered every rung before these.
    through: Vec<usize>,
    /// Trials that are asked the same to be compared with.
    beside: Vec<usize>,
    outcomes: BTreeMap<usize, Outcome>,
    disk_peak: u64,
    answers: Answers,
    /// What was asked since the run began.
    asked: Attempted,
    /// Whether that is done elsewhere.
    is_elsewhere: bool,
    /// What is to be asked elsewhere.
    turn: Option<Box<Turn>>,
}

/// Goes through a search.
pub(super) async fn run(session: &mut Session<'_>, search: &Search) -> Result<Summary, RunError> {
    let mut going = Going::begin(session, search, Attempted::new(), false)?;
    going.follow().await?;
    Ok(going.summary())
}

impl<'s, 'a> Going<'s, 'a> {
    fn begin(
        session: &'s mut Session<'a>,
        search: &'s Search,
        asked: Attempted,
        is_elsewhere: bool,
    ) -> Result<Self, RunError> {
        let request = session.request;
        let recorded = session.state.draw.clone().filter(|draw| draw.fits(search));
        // A run that has asked something, or has nothing to ask, need not know how many documents there are.
        let draw = match recorded.filter(|draw| !asked.is_empty() || is_over(session, search, draw)) {
            Some(draw) => draw,
            None => {
                if is_elsewhere {
                    session.ask_harness()?;
                } else {
                    session.begin()?;
                }
                let draw = Draw::new(search, &session.facts.known_tasks)?;
                if session.state.draw.as_ref() != Some(&draw) {
                    session.record(None, What::SearchDrawn(draw.clone()))?;
                    warn_of_stock_tasks(request, search, session.listener);
                }
                draw
            }
        };
        let (beside, alive) = parted(request);
        let pieces = Pieces::of(&draw, &request.settings);
        Ok(Self {
            session,
            request: Arc::new(request.clone()),
            search,
            pieces,
            draw,
            alive,
            through: Vec::new(),
            beside,
            outcomes: BTreeMap::new(),
            disk_peak: 0,
            answers: Answers::default(),
            asked,
            is_elsewhere,
            turn: None,
        })
    }

    /// To its end, or until the user, a failure or a part that is asked elsewhere ends everything.
    async fn follow(&mut self) -> Result<(), RunError> {
        let search = self.search;
        match &search.way {
            Way::Race => {
                if self.race(0).await? {
                    self.end(0).await?;
                }
                Ok(())
            }
            Way::Refine(aim) => self.refine(aim).await,
            Way::Optuna(sampling) => self.sample(sampling).await,
        }
    }

    fn summary(&self) -> Summary {
        summary(&self.request, &self.outcomes, self.disk_peak, self.session.cancel.is_cancelled())
    }
}

/// Whether all is answered and decided.
fn is_over(session: &Session<'_>, search: &Search, draw: &Draw) -> bool {
    let is_left = |round: &Request| session.is_work_left(round);
    stand(session.request, search, draw, &session.state, &is_left) == Stand::Over
}

/// The selected trials: those to compare with, and those that race.
fn parted(request: &Request) -> (Vec<usize>, Vec<usize>) {
    request.selected.iter().partition(|index| request.plan.trials[**index].baseline)
}

/// Says, once a search, that what is chosen on a public test set is no result on it.
fn warn_of_stock_tasks(request: &Request, search: &Search, listener: &Listener) {
    let own = request.settings.include_path.as_deref().map(task_files::read).unwrap_or_default();
    let stock: Vec<&str> = search.tasks().into_iter().filter(|task| !own.contains_key(*task)).collect();
    if !stock.is_empty() {
        listener(RunEvent::Note(format!(
            "the search chooses by documents of the harness' own {}: if these are a public test set, scores of the chosen \
             trials on them are no results on that benchmark",
            stock.join(", ")
        )));
    }
}

/// The settings with what a trial is asked, as far as the decisions that are recorded go: of a trial that is out, the rungs
/// up to there. The settings themselves where there is no search, or none that was begun.
pub(super) fn settings_of(request: &Request, state: &SweepState, index: usize) -> Settings {
    let settings = &request.settings;
    let draw = request.search.as_ref().and_then(|search| state.draw.as_ref().filter(|draw| draw.fits(search)));
    let Some(draw) = draw else { return settings.clone() };
    let trial = &request.plan.trials[index];
    let Pieces { rungs, last, has_confirmation, .. } = Pieces::of(draw, settings);
    let is_out = |decided: &Decided| decided.of(&trial.id).is_some_and(|standing| !standing.evidence.survives);
    let tasks = match state.decisions.iter().find(|decided| is_out(decided)) {
        _ if trial.baseline && has_confirmation => last,
        Some(out) => rungs.into_iter().take(out.rung + 1).flatten().collect(),
        None => rungs.into_iter().flatten().chain(last).collect(),
    };
    Settings { tasks, ..settings.clone() }
}

/// Trials that go on, in the order of the plan.
fn survivors(request: &Request, decided: &Decided, alive: &[usize]) -> Vec<usize> {
    let left: BTreeSet<_> = decided.survivors().collect();
    alive.iter().copied().filter(|index| left.contains(&request.plan.trials[*index].id)).collect()
}

/// The part of a request that is asked in a rung, or (none) at the end.
fn round(request: &Request, pieces: &Pieces, rung: Option<usize>, alive: &[usize], beside: &[usize]) -> Request {
    // Where the chosen ones are told by documents set aside, those to compare with answer these alone.
    let beside = if rung.is_some() && pieces.has_confirmation { &[] } else { beside };
    let is_selected = |index: &usize| alive.contains(index) || beside.contains(index);
    let mut round = asking(request, pieces, rung);
    round.selected.retain(is_selected);
    round.redo.retain(is_selected);
    round
}

/// A request for what is asked in a rung, or (none) at the end.
pub(super) fn asking(request: &Request, pieces: &Pieces, rung: Option<usize>) -> Request {
    let mut asking = request.clone();
    asking.settings.tasks = match rung {
        Some(rung) => pieces.rungs.get(rung).cloned().unwrap_or_default(),
        None => pieces.last.clone(),
    };
    // What is done again is merged again once: baselines that answer at the end alone are merged then.
    asking.merges_redone = !pieces.has_confirmation && rung != Some(0);
    asking.holds = true;
    asking.keep = Keep::All;
    asking
}

impl Going<'_, '_> {
    /// Lets those that are alive answer rung after rung; who falls behind drops out. False where everything ends before.
    async fn race(&mut self, round: usize) -> Result<bool, RunError> {
        let last = self.last_rung();
        for rung in 0..=last {
            self.ask(Some(rung)).await?;
            if self.is_over() {
                return Ok(false);
            }
            if rung < last && is_due(self.search, &self.alive, &self.through) {
                self.decide(round, rung)?;
            }
        }
        Ok(true)
    }

    fn last_rung(&self) -> usize {
        self.pieces.rungs.len().saturating_sub(1)
    }

    /// After the last rung of everybody: who is chosen, what is asked of them, and what stays of their models.
    async fn end(&mut self, round: usize) -> Result<(), RunError> {
        self.alive.append(&mut self.through);
        self.alive.sort_unstable();
        if !self.alive.is_empty() {
            self.decide(round, self.last_rung())?;
        }
        self.ask(None).await?;
        if self.turn.is_none() { self.let_models_go() } else { Ok(()) }
    }

    /// Whether the user, a failure or what is asked elsewhere ends everything.
    fn is_over(&self) -> bool {
        let has_failed = self.outcomes.values().any(|outcome| matches!(outcome, Outcome::Failed(_)));
        self.turn.is_some() || self.session.cancel.is_cancelled() || (self.request.fail_fast && has_failed)
    }

    /// Asks what a rung asks, as far as it is not answered.
    async fn ask(&mut self, rung: Option<usize>) -> Result<(), RunError> {
        let request = Arc::clone(&self.request);
        let mut those = self.alive.clone();
        if !self.is_elsewhere {
            // Nothing is asked of them, but their models may have to make room.
            those.extend(&self.through);
        }
        let mut round = round(&request, &self.pieces, rung, &those, &self.beside);
        // What was to be done again has been.
        round.redo.retain(|index| !self.asked.contains(&(rung, request.plan.trials[*index].id.clone())));
        if self.is_elsewhere {
            self.hand_over(rung, round);
            return Ok(());
        }
        if !self.session.is_work_left(&round) {
            for index in &round.selected {
                self.outcomes.entry(*index).or_insert(Outcome::Reused);
            }
            return Ok(());
        }
        self.session.begin()?;
        self.tell_of(rung, &round);
        let listener = self.session.listener.clone();
        let quieter: Listener = std::sync::Arc::new(move |event| {
            // A trial is through when the search is.
            if !matches!(event, RunEvent::Reused { .. } | RunEvent::TrialDone { .. }) {
                listener(event);
            }
        });
        let worked = self.session.work(&round, &quieter).await?;
        self.disk_peak = self.disk_peak.max(worked.disk_peak);
        self.asked.extend(worked.outcomes.keys().map(|index| (rung, request.plan.trials[*index].id.clone())));
        for index in &round.selected {
            let Some(outcome) = worked.outcomes.get(index).cloned() else {
                // Not begun: it is not through, whatever it had before.
                self.outcomes.remove(index);
                continue;
            };
            let is_out = !matches!(outcome, Outcome::Reused | Outcome::Done);
            let stands = matches!((&outcome, self.outcomes.get(index)), (Outcome::Reused, Some(Outcome::Done)));
            if !stands {
                self.outcomes.insert(*index, outcome);
            }
            if is_out {
                self.alive.retain(|alive| alive != index);
                self.beside.retain(|beside| beside != index);
            }
        }
        Ok(())
    }

    fn tell_of(&self, rung: Option<usize>, round: &Request) {
        let documents: Vec<String> = round
            .settings
            .tasks
            .iter()
            .map(|task| match &task.documents {
                Some(documents) => format!("{} documents of {}", documents.len(), task.name),
                None => format!("{} whole", task.name),
            })
            .collect();
        let place = match rung {
            Some(rung) => format!("rung {} of {}", rung + 1, self.pieces.rungs.len()),
            None => "after the last rung".to_owned(),
        };
        let n_trials = round.selected.iter().filter(|index| !self.through.contains(index)).count();
        (self.session.listener)(RunEvent::Rung { place, n_trials, documents: documents.join(", ") });
        (self.session.listener)(RunEvent::Started { n_trials });
    }

    /// Says who goes on from a rung: as recorded, if that rests on the same, else by the rule.
    fn decide(&mut self, round: usize, rung: usize) -> Result<(), RunError> {
        let request = Arc::clone(&self.request);
        let recorded = match self.recorded(rung) {
            Some(decided) => Some(decided),
            None => {
                // Whoever cannot be set beside the others is out before the decision, which may be recorded without it.
                let decision = self.by_rule(rung)?;
                match (self.recorded(rung), decision) {
                    (Some(decided), _) => Some(decided),
                    (None, None) => None,
                    (None, Some(decision)) => {
                        let documents = self.draw.documents(&request.settings, rung);
                        let (key, plan) = (self.key(rung), &request.plan);
                        let decided = Decided::new(key, (round, rung), self.search, documents, plan, decision);
                        self.session.record(None, What::SearchDecided(decided.clone()))?;
                        self.tell_decision(&decided);
                        Some(decided)
                    }
                }
            }
        };
        let Some(decided) = recorded else { return Ok(()) };
        let left = survivors(&request, &decided, &self.alive);
        let out: Vec<usize> = self.alive.iter().copied().filter(|index| !left.contains(index)).collect();
        self.alive = left;
        if request.keep != Keep::All {
            out.into_iter().try_for_each(|index| self.delete_model(index))?;
        }
        Ok(())
    }

    /// Names what the decision after a rung rests on.
    fn key(&self, rung: usize) -> String {
        let (alive, through) = (&self.alive, &self.through);
        decided::key(self.search, &self.request, &self.pieces, rung, alive, through, &self.session.state)
    }

    fn recorded(&self, rung: usize) -> Option<Decided> {
        let key = self.key(rung);
        self.session.state.decisions.iter().find(|decided| decided.key == key).cloned()
    }

    /// What these trials scored up to a rung. Who lacks something fails, and is out.
    fn scored(&mut self, rung: usize, trials: &[usize]) -> Result<Vec<(usize, Scored)>, RunError> {
        let request = Arc::clone(&self.request);
        let outputs = Outputs::read(&request.store, &journal::read(&request.store.journal())?);
        let mut scored: Vec<(usize, Scored)> = Vec::new();
        for index in trials {
            let id = &request.plan.trials[*index].id;
            let state = self.session.state.of(id);
            let (columns, settings) = (&self.search.columns, &request.settings);
            let found = self.answers.of(columns, settings, &self.pieces, rung, (id, &state), &outputs)?;
            let found =
                found.and_then(|own| match scored.first().and_then(|(_, first)| outcomes::apart(&own, first)) {
                    Some(why) => Err(why),
                    None => Ok(own),
                });
            match found {
                Ok(own) => scored.push((*index, own)),
                Err(why) => self.fail(*index, &why)?,
            }
        }
        Ok(scored)
    }

    /// The same as contenders, with what the columns measure.
    fn contenders(&mut self, rung: usize, trials: &[usize]) -> Result<(Vec<Measure>, Vec<Contender>), RunError> {
        let scored = self.scored(rung, trials)?;
        let measures =
            scored.first().map(|(_, first)| outcomes::measures(&self.search.columns, first)).unwrap_or_default();
        let contender = |(trial, scored): (usize, Scored)| Contender {
            trial,
            columns: scored.into_iter().map(|outcomes| outcomes.items).collect(),
        };
        Ok((measures, scored.into_iter().map(contender).collect()))
    }

    fn by_rule(&mut self, rung: usize) -> Result<Option<Decision>, RunError> {
        let search = self.search;
        match &search.way {
            Way::Optuna(sampling) if rung < self.last_rung() => return self.beside_the_best(sampling, rung),
            _ => {}
        }
        let (measures, mut contenders) = self.contenders(rung, &self.alive.clone())?;
        let missed = match &search.way {
            Way::Optuna(sampling) => front::set_aside(&sampling.floors, search.weights(), &measures, &mut contenders),
            _ => Vec::new(),
        };
        let decision = decide(&search.rule, &measures, &search.objective, &contenders, None, search.seed);
        let Some(mut decision) = decision else { return Ok(None) };
        if search.way != Way::Race {
            self.keep_the_chosen(&measures, &contenders, &mut decision);
        }
        let best = decision.evidence.first().map(|evidence| evidence.value).unwrap_or_default();
        let behind = |evidence: Evidence| Evidence { difference: evidence.value - best, ..evidence };
        decision.evidence.extend(missed.into_iter().map(behind));
        Ok(Some(decision))
    }

    /// Of points that a search placed, the best goes on (of several objectives, whoever no other beats in all of them) and,
    /// to be compared with it, the best of the grid.
    fn keep_the_chosen(&self, measures: &[Measure], contenders: &[Contender], decision: &mut Decision) {
        let points = self.points();
        let is_of_grid = |trial: usize| points.iter().any(|(index, _, of_grid)| *index == trial && *of_grid);
        let best_of_grid = decision.evidence.iter().map(|evidence| evidence.trial).find(|trial| is_of_grid(*trial));
        let front = match &self.search.way {
            Way::Optuna(sampling) if sampling.pareto => front::front(self.search.weights(), measures, contenders),
            _ => vec![decision.leader],
        };
        for evidence in &mut decision.evidence {
            evidence.survives = front.contains(&evidence.trial) || Some(evidence.trial) == best_of_grid;
        }
    }

    fn tell_decision(&self, decided: &Decided) {
        let trials = &self.request.plan.trials;
        let name = |standing: &&Standing| {
            trials.iter().find(|trial| trial.id == standing.trial).map_or_else(String::new, |trial| trial.name.clone())
        };
        let (left, out): (Vec<_>, Vec<_>) = decided.standings.iter().partition(|standing| standing.evidence.survives);
        (self.session.listener)(RunEvent::Decided {
            rung: decided.rung + 1,
            n_rungs: decided.n_rungs,
            leader: left.first().map(name).unwrap_or_default(),
            n_left: left.len(),
            out: out.iter().map(name).collect(),
        });
    }

    fn fail(&mut self, index: usize, why: &str) -> Result<(), RunError> {
        let request = Arc::clone(&self.request);
        let trial = &request.plan.trials[index];
        let stage = Stage::Evaluate;
        self.session.record(Some(&trial.id), What::Failed { stage, reason: why.to_owned() })?;
        let (trial, reason) = (trial.name.clone(), why.to_owned());
        let event = RunEvent::Failed { trial: trial.clone(), stage, reason: reason.clone(), log: None };
        (self.session.listener)(event);
        self.outcomes.insert(index, Outcome::Failed(Failed { trial, stage, reason, log: None }));
        self.alive.retain(|alive| *alive != index);
        self.through.retain(|through| *through != index);
        Ok(())
    }

    /// Deletes the merged models that the rule does not keep: of the trials that are left, the best by the last decision.
    fn let_models_go(&mut self) -> Result<(), RunError> {
        let request = Arc::clone(&self.request);
        let n_kept = match &request.keep {
            // A spec with a search has no other rule.
            Keep::All | Keep::Pareto => return Ok(()),
            Keep::Nothing => 0,
            Keep::Best { count, .. } => *count,
        };
        let decided = self.session.state.decisions.last();
        let best = decided.into_iter().flat_map(Decided::survivors).take(n_kept).cloned().collect::<BTreeSet<_>>();
        let is_through = |index: &usize| matches!(self.outcomes.get(index), Some(Outcome::Reused | Outcome::Done));
        let trials = request.selected.iter().copied().filter(is_through);
        let out: Vec<usize> = trials.filter(|index| !best.contains(&request.plan.trials[*index].id)).collect();
        out.into_iter().try_for_each(|index| self.delete_model(index))
    }

    /// Deletes a merged model that is there. The journal says so first.
    fn delete_model(&mut self, index: usize) -> Result<(), RunError> {
        let request = Arc::clone(&self.request);
        let trial = &request.plan.trials[index];
        let is_merge = matches!(trial.subject, Subject::Merge { .. });
        if is_merge && self.session.state.of(&trial.id).model_present {
            self.session.record(Some(&trial.id), What::ModelDeleted)?;
            store::remove_folder(&request.store.model(trial))?;
        }
        Ok(())
    }
}
