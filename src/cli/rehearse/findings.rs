//! What a rehearsal found: what would have failed, in which trials and tasks, and what to do, at its place in the spec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::cli::run as runner;
use crate::document::draw::{self, Style};
use crate::document::{Code, Problem};
use crate::model::ModelRef;
use crate::plan::Trial;
use crate::rehearsal::{StandIns, Unmade};
use crate::run::{Lack, Request, models_of};
use crate::spec::{Sweep, placed};

/// Names that are listed before the rest is only counted.
const SHOWN: usize = 4;

/// One finding.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub problem: Problem,
    pub trials: Vec<String>,
    pub tasks: Vec<String>,
}

impl Finding {
    pub fn json(&self) -> Json {
        let mut json = draw::to_json(&self.problem);
        json["trials"] = json!(self.trials);
        json["tasks"] = json!(self.tasks);
        json
    }

    pub fn drawn(&self, style: Style) -> String {
        let mut text = draw::one(&self.problem, style);
        for (what, names) in [("trials", &self.trials), ("tasks", &self.tasks)] {
            if !names.is_empty() {
                text += &format!("\n   = {what}: {}", first_few(names));
            }
        }
        text
    }
}

fn first_few(names: &[String]) -> String {
    let rest = names.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// Collects findings, each once.
pub(super) struct Findings<'a> {
    sweep: &'a Sweep,
    folder: PathBuf,
    /// Folders of the rehearsal with what they stand for: models, and the folder of results.
    names: BTreeMap<PathBuf, String>,
    /// Models that are not here, with the folders of those that they are taken to be like.
    assumed: Vec<(ModelRef, PathBuf)>,
    found: Vec<Finding>,
}

impl<'a> Findings<'a> {
    /// Nothing found yet in a rehearsal in `folder`; `results` is where those of the real run go.
    pub fn new(sweep: &'a Sweep, folder: &Path, results: &Path, made: &StandIns) -> Self {
        let real = |name: &str| (folder.join(name), results.display().to_string());
        let mut names = BTreeMap::from([real("results"), real("dummy")]);
        for (model, located) in &made.located {
            names.insert(located.base.clone(), model.base.to_string());
            if let (Some(adapter), Some(location)) = (&located.adapter, &model.adapter) {
                names.insert(adapter.clone(), location.to_string());
            }
        }
        Self { sweep, folder: folder.to_owned(), names, assumed: made.assumed.clone(), found: Vec::new() }
    }

    /// Adds what was found; names of trials and tasks go to what is known already.
    pub fn add(&mut self, problem: Problem, trials: Vec<String>, tasks: Vec<String>) {
        let is_same = |finding: &&mut Finding| {
            finding.problem.message == problem.message && finding.problem.span.same_as(&problem.span)
        };
        match self.found.iter_mut().find(is_same) {
            Some(known) => {
                merge_into(&mut known.trials, trials);
                merge_into(&mut known.tasks, tasks);
            }
            None => self.found.push(Finding { problem, trials, tasks }),
        }
    }

    /// What is told of models; gives back the trials that cannot be rehearsed without them, by number.
    pub fn of_stand_ins(&mut self, request: &Request, made: &StandIns) -> Vec<usize> {
        let reads = |index: &usize, wanted: &dyn Fn(&ModelRef) -> bool| {
            models_of(&request.plan.trials[*index]).iter().any(wanted)
        };
        let named = |wanted: &dyn Fn(&ModelRef) -> bool| {
            let read = request.selected.iter().filter(|index| reads(index, wanted));
            read.map(|index| request.plan.trials[*index].name.clone()).collect::<Vec<_>>()
        };
        for (model, error) in &made.problems {
            let trials = named(&|read| read == model);
            self.add(self.of_model(model, error), trials, Vec::new());
        }
        let unmade = |model: &ModelRef| !made.located.contains_key(model);
        request.selected.iter().copied().filter(|index| reads(index, &unmade)).collect()
    }

    fn of_model(&self, model: &ModelRef, error: &Unmade) -> Problem {
        let hints = [super::how_to_get(error), error.hint()];
        let hint = hints.into_iter().flatten().collect::<Vec<_>>();
        let hint = (!hint.is_empty()).then(|| hint.join("; "));
        match error {
            Unmade::Files(error) => Problem { hint, ..placed::model(self.sweep, model, error) },
            other => placed::at_model(self.sweep, model, Code::NoStandIn, self.plain(&other.to_string()), hint),
        }
    }

    /// What a run would lack.
    pub fn of_lack(&mut self, lack: &Lack) {
        let mut problem = runner::place(lack, self.sweep);
        problem.message = self.plain(&problem.message);
        let Lack::Evaluation(lacking) = lack else { return self.add(problem, Vec::new(), Vec::new()) };
        let tasks: Vec<String> = lacking.task().map(str::to_owned).into_iter().collect();
        // One missing package or switch can keep many tasks from running: told once, at the first of them.
        let shared = |message: &str, tasks: &[String]| tasks.first().map(|task| message.replace(task, "TASK"));
        let said = shared(&problem.message, &tasks);
        let known = self.found.iter_mut().find(|finding| {
            said.is_some()
                && (finding.problem.code, &finding.problem.hint) == (problem.code, &problem.hint)
                && shared(&finding.problem.message, &finding.tasks) == said
        });
        match known {
            Some(known) => merge_into(&mut known.tasks, tasks),
            None => self.add(problem, Vec::new(), tasks),
        }
    }

    /// A merge that failed.
    pub fn of_merge(&mut self, index: usize, trial: &Trial, reason: &str) {
        let (message, hint) = self.told(trial, reason);
        let hint = hint.or_else(|| self.assumption(trial));
        let problem = placed::trial(self.sweep, index, Code::RehearsedMerge, &message, hint);
        self.add(problem, vec![trial.name.clone()], Vec::new());
    }

    /// An evaluation that failed, of these tasks.
    pub fn of_evaluation(&mut self, trials: Vec<String>, tasks: &[String], reason: &str) {
        let (message, hint) = match reason.split_once("\nhint: ") {
            Some((message, hint)) => (message, Some(hint.to_owned())),
            None => (reason, None),
        };
        let message = format!("the evaluation fails: {}", self.plain(message));
        let task = match tasks {
            [task] => Some(task.as_str()),
            _ => None,
        };
        let problem = placed::task(&self.sweep.document, task, Code::RehearsedEvaluation, &message, hint);
        self.add(problem, trials, tasks.to_vec());
    }

    /// A reason as it is the same for all trials that have it.
    pub fn reason(&self, trial: &Trial, reason: &str) -> String {
        self.plain(reason).replace(&trial.folder(), "TRIAL")
    }

    /// That a model of the trial is only taken to be as it is.
    fn assumption(&self, trial: &Trial) -> Option<String> {
        let models = models_of(trial);
        let (model, folder) = self.assumed.iter().find(|(model, _)| models.contains(model))?;
        Some(format!(
            "`{model}` is not here and is taken to be like `{}`: give the real one's files with `--files`, or a model's of the same \
             layers and vocabulary",
            folder.display()
        ))
    }

    fn told(&self, trial: &Trial, reason: &str) -> (String, Option<String>) {
        let reason = self.reason(trial, reason);
        let (message, hint) = match reason.split_once("\nhint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (reason, None),
        };
        (format!("the merge fails: {message}"), hint)
    }

    /// Without folders that are gone when it is read.
    fn plain(&self, text: &str) -> String {
        // The longest first: one may be the beginning of another.
        let mut text = text.to_owned();
        for (folder, name) in self.names.iter().rev() {
            text = text.replace(&folder.display().to_string(), name);
        }
        text.replace(&format!("{}/", self.folder.display()), "")
    }

    /// Everything, in the order of the file.
    pub fn finish(mut self) -> Vec<Finding> {
        let place = |finding: &Finding| (finding.problem.span.source.path.clone(), finding.problem.span.start);
        self.found.sort_by_key(place);
        self.found
    }
}

fn merge_into(known: &mut Vec<String>, others: Vec<String>) {
    for other in others {
        if !known.contains(&other) {
            known.push(other);
        }
    }
}
