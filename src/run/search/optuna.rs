//! Optuna in a run: the points of the grid are asked first, then those that it chooses (see `ask_and_tell.py`). Its storage lies
//! beside the journal, and only the journal says which points were placed: what Optuna chose and nobody recorded, it gives again.
//!
//! Points that it chose answer rung after rung beside the best of those that have answered all, and drop out where they are worse.
//! Of these Optuna is told what they would score, by how far they were from the best on the documents that both answered.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::points::{Sampled, rounds};
use super::{Decided, Going};
use crate::process::{GRACE, Invocation, Logs, Worker};
use crate::run::RunError;
use crate::run::fingerprint::digest;
use crate::run::journal::What;
use crate::run::store::at;
use crate::search::front::{self, objectives, violations};
use crate::search::race::estimated;
use crate::search::{Contender, Decision, decide};
use crate::spec::space::{Axis, Range};
use crate::spec::{Sampling, Space};

/// The process; see the file.
const PROGRAM: &str = include_str!("../../search/ask_and_tell.py");

/// How long a choice may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Files of the search, in the folder of the sweep.
const FOLDER: &str = "optuna";

/// What the process says.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    points: Vec<Chosen>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Chosen {
    number: u64,
    values: Vec<f64>,
}

impl Going<'_, '_> {
    /// Asks the points that there are, and lets Optuna place further ones, until there are enough.
    pub(super) async fn sample(&mut self, sampling: &Sampling) -> Result<(), RunError> {
        let mut worker = None;
        let is_through = self.sample_with(sampling, &mut worker).await;
        if let Some(worker) = worker {
            worker.end().await;
        }
        match is_through? {
            Some(n_rounds) => self.end(n_rounds).await,
            None => Ok(()),
        }
    }

    /// The same with a process that may stay; gives how often points were placed, or none where everything ends before.
    async fn sample_with(
        &mut self,
        sampling: &Sampling,
        worker: &mut Option<Worker>,
    ) -> Result<Option<usize>, RunError> {
        let all = std::mem::take(&mut self.alive);
        let mut rounds = rounds(&self.request, self.search, &self.session.state, &all);
        let mut n_raced = 0;
        loop {
            while let Some(round) = rounds.get(n_raced) {
                self.alive.clone_from(round);
                if !self.race(n_raced).await? {
                    return Ok(None);
                }
                self.through.append(&mut self.alive);
                n_raced += 1;
            }
            let n_points = self.points().len();
            let n_asked = sampling.batch.min(sampling.most.saturating_sub(n_points));
            let Some(space) = self.request.grow.as_ref().map(|grow| grow.space.clone()).filter(|_| n_asked > 0) else {
                return Ok(Some(n_raced));
            };
            let question = self.question(sampling, &space, n_asked)?;
            let chosen = self.choose(worker, &question.to_string()).await?;
            let mut known: Vec<Vec<f64>> = self.points().into_iter().map(|(_, point, _)| point).collect();
            let is_new = |(_, point): &(u64, Vec<f64>)| {
                let is_new = !known.contains(point);
                known.push(point.clone());
                is_new
            };
            let chosen = chosen.into_iter().map(|chosen| (chosen.number, space.tidy(&chosen.values)));
            let (next, repeated): (Vec<_>, Vec<_>) = chosen.partition(is_new);
            let points: Vec<Vec<f64>> = next.iter().map(|(_, point)| point.clone()).collect();
            let grown = self.grown(&points)?;
            let (space, study) = (space.key(), self.study(sampling, &space));
            self.session.record(None, What::SearchSampled(Sampled { space, study, next, repeated }))?;
            rounds.push(match grown {
                Some(grown) => self.take(grown)?,
                // Of a space of few points nothing may be left but what was asked already.
                None if self.n_repeated() >= sampling.most => return Ok(Some(n_raced)),
                None => Vec::new(),
            });
        }
    }

    fn n_repeated(&self) -> usize {
        self.session.state.samples.iter().map(|sampled| sampled.repeated.len()).sum()
    }

    /// Names what Optuna's numbers of trials are numbers of: points are told anew where something else is wanted of them.
    fn study(&self, sampling: &Sampling, space: &Space) -> String {
        let columns: Vec<&str> = self.search.columns.iter().map(|column| column.name.as_str()).collect();
        let wanted = (space.key(), columns, self.search.weights(), &sampling.floors, sampling.pareto, self.search.seed);
        // Texts and numbers are always JSON.
        digest(&serde_json::to_vec(&wanted).unwrap_or_default())
    }

    /// Everything that Optuna needs to know.
    fn question(&mut self, sampling: &Sampling, space: &Space, n: usize) -> Result<Json, RunError> {
        let (measures, whole) = self.contenders(self.last_rung(), &self.through.clone())?;
        let weights = self.search.weights();
        let told = |number: Option<u64>, index: usize, values: &[f64]| {
            let (rung, scores) = match whole.iter().find(|contender| contender.trial == index) {
                Some(contender) => (None, Some(contender.scores())),
                None => self.estimated(index, &whole).unzip(),
            };
            let violations = scores.as_ref().map(|scores| violations(&sampling.floors, &measures, scores));
            let each = scores.map(|scores| objectives(weights, &measures, &scores));
            let scores = each.map(|each| if sampling.pareto { each } else { vec![each.iter().sum::<f64>()] });
            json!({
                "number": number,
                "values": values,
                "scores": scores,
                "violations": violations.unwrap_or_default(),
                "rung": rung,
            })
        };
        let study = self.study(sampling, space);
        let samples = self.session.state.samples.iter().filter(|sampled| sampled.study == study);
        let numbered: Vec<&(u64, Vec<f64>)> = samples.flat_map(Sampled::chosen).collect();
        let points = self.points();
        let is_new = |point: &Vec<f64>| numbered.iter().all(|(_, known)| known != point);
        let others = points.iter().filter(|(_, point, is_of_grid)| *is_of_grid || is_new(point));
        let mut all: Vec<Json> = others.map(|(index, point, _)| told(None, *index, point)).collect();
        for (number, point) in &numbered {
            if let Some((index, ..)) = points.iter().find(|(_, known, _)| known == point) {
                all.push(told(Some(*number), *index, point));
            }
        }
        let axes: Vec<Json> = space.axes.iter().map(axis).collect();
        let n_objectives = if sampling.pareto { weights.iter().filter(|weight| **weight > 0.0).count() } else { 1 };
        Ok(json!({
            "storage": self.folder().join("storage.jsonl"),
            "study": study,
            "sampler": sampling.sampler,
            "seed": self.search.seed,
            "objectives": n_objectives,
            "axes": axes,
            "points": all,
            "ask": n,
        }))
    }

    /// The rung after which a point dropped out, and its scores as far as they are known from that; none of one that failed.
    fn estimated(&self, index: usize, whole: &[Contender]) -> Option<(usize, Vec<f64>)> {
        let trials = &self.request.plan.trials;
        let decisions = &self.session.state.decisions;
        let out = |decided: &&Decided| {
            let standing = decided.of(&trials[index].id);
            decided.rung < self.last_rung() && standing.is_some_and(|standing| !standing.evidence.survives)
        };
        let decided = decisions.iter().find(out)?;
        let scores = |id| decided.of(id).map(|standing| standing.evidence.scores.as_slice());
        let leader = whole.iter().find(|contender| trials[contender.trial].id == decided.leader)?;
        let estimated = estimated(scores(&trials[index].id)?, scores(&decided.leader)?, &leader.scores());
        Some((decided.rung, estimated))
    }

    /// Sets points beside the best of those that went through before them; nobody drops out as long as all of these miss a floor.
    pub(super) fn beside_the_best(&mut self, sampling: &Sampling, rung: usize) -> Result<Option<Decision>, RunError> {
        let search = self.search;
        let (measures, whole) = self.contenders(self.last_rung(), &self.through.clone())?;
        let best = |floors: &[(usize, f64)]| front::best(floors, search.weights(), &measures, &whole);
        let sound = best(&sampling.floors);
        let Some(leader) = sound.or_else(|| best(&[])) else { return Ok(None) };
        let beside: Vec<usize> = [leader].into_iter().chain(self.alive.iter().copied()).collect();
        let (_, contenders) = self.contenders(rung, &beside)?;
        let decision = decide(&search.rule, &measures, &search.objective, &contenders, Some(leader), search.seed);
        Ok(decision.filter(|_| !self.alive.is_empty()).map(|mut decision| {
            if sound.is_none() {
                decision.evidence.iter_mut().for_each(|evidence| evidence.survives = true);
            }
            decision
        }))
    }

    fn folder(&self) -> PathBuf {
        self.request.store.root().join(FOLDER)
    }

    async fn choose(&self, worker: &mut Option<Worker>, question: &str) -> Result<Vec<Chosen>, RunError> {
        let folder = self.folder();
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        let logs = Logs::of(&folder);
        let python = &self.request.settings.python;
        let process = match worker {
            Some(process) => process,
            None => {
                let invocation = Invocation::new(python, ["-c".to_owned(), PROGRAM.to_owned()]);
                let log = folder.join("log");
                let _ = std::fs::remove_file(&log);
                worker.insert(Worker::start(&invocation, &log)?)
            }
        };
        let reply = process.ask(question, &logs, Some(PATIENCE), GRACE, self.session.cancel, &mut |_| {}).await?;
        let line = reply.answer.map_err(|exit| RunError::Optuna(format!("it ended with {exit}")))?;
        let answer: Answer = serde_json::from_str(&line).map_err(|_| RunError::Optuna(format!("it said `{line}`")))?;
        match answer.error {
            Some(why) => Err(RunError::Optuna(why)),
            None => Ok(answer.points),
        }
    }
}

fn axis(axis: &Axis) -> Json {
    let kind = match axis.range {
        Range::Numbers(..) => "float",
        Range::Whole(..) => "int",
        Range::Choices(_) => "choice",
    };
    let (low, high) = axis.bounds();
    json!({ "name": axis.name, "kind": kind, "low": low, "high": high })
}
