//! The rehearsal itself: `run` on tiny models for tasks that can be asked of a few documents, and on the harness's `dummy` for
//! the others. What a run lacks is noted and left out, and the run begun again, so that one missing thing hides no other.

use anyhow::Context;

use super::findings::Findings;
use super::{RehearseArgs, Stage};
use crate::cli::interrupt::Session;
use crate::cli::{Failure, recorded, report, run as runner};
use crate::eval::preflight::Problem as Lacking;
use crate::eval::task::is_tiny;
use crate::eval::{Settings, TaskRequest};
use crate::model::{Located, ModelRef};
use crate::plan::{Subject, Trial, TrialId};
use crate::rehearsal::few::{MADE_UP, by_dummy, few, made_up, parted};
use crate::run::journal::Stage as Step;
use crate::run::store::Store;
use crate::run::{Failed, Lack, Request, RunError, Summary};
use crate::spec::Sweep;

/// Rounds of leaving something out, at most: each leaves out a task, a back end or a device.
const ROUNDS: usize = 8;

/// What was rehearsed.
pub(super) struct Played {
    /// Names of the plan's trials.
    pub names: Vec<String>,
    pub n_rehearsed: usize,
    pub on_models: Vec<String>,
    pub by_dummy: Vec<String>,
}

/// Everything that the runs of a rehearsal share.
struct Play<'a, 'b> {
    args: &'a RehearseArgs,
    stage: &'a Stage,
    session: &'a Session,
    sweep: &'a Sweep,
    findings: &'a mut Findings<'b>,
}

pub(super) fn play(
    args: &RehearseArgs,
    stage: &Stage,
    session: &Session,
    request: Request,
    sweep: &Sweep,
    findings: &mut Findings<'_>,
) -> Result<Played, Failure> {
    let names = request.plan.trials.iter().map(|trial| trial.name.clone()).collect();
    let mut play = Play { args, stage, session, sweep, findings };
    let settings = few(&request.settings, args.limit);
    let (part, whole) = parted(&settings.tasks);
    let mut played = Played { names, n_rehearsed: 0, on_models: Vec::new(), by_dummy: Vec::new() };
    let mut left = whole;
    if request.selected.is_empty() {
        left.splice(0..0, part);
    } else {
        let n_selected = request.selected.len();
        let settings = Settings { tasks: part, ..settings.clone() };
        if let Some((request, summary)) = play.on_models(Request { settings, ..request.clone() })? {
            let tasks = request.settings.tasks.iter().map(|task| task.name.clone());
            let tasks = tasks.filter(|task| task != MADE_UP).collect();
            // Without a back end the `dummy` answers.
            *(if request.settings.model == "dummy" { &mut played.by_dummy } else { &mut played.on_models }) = tasks;
            played.n_rehearsed = n_selected;
            play.note_failures(&request, &summary, true)?;
            play.tabulate(&request)?;
        }
    }
    if !left.is_empty() && !session.cancel.is_cancelled() {
        let settings = by_dummy(&Settings { tasks: left, ..settings });
        played.by_dummy.extend(play.by_dummy(&Request { settings, ..request })?);
    }
    Ok(played)
}

impl Play<'_, '_> {
    /// Runs the sweep on its stand-ins; none where it cannot begin.
    fn on_models(&mut self, mut request: Request) -> Result<Option<(Request, Summary)>, Failure> {
        if request.settings.tasks.is_empty() {
            self.make_something_up(&mut request)?;
        }
        let summary = self.until_it_begins(&mut request, true)?;
        Ok(summary.map(|summary| (request, summary)))
    }

    /// Has the tasks answered by `dummy`, once: its answers depend on no model. Gives back those that were.
    fn by_dummy(&mut self, request: &Request) -> Result<Vec<String>, Failure> {
        let mut request = request.clone();
        // Any reference will do: its folder is not looked into.
        let model: ModelRef = "./dummy".parse().context("naming the dummy")?;
        let folder = self.stage.folder.join("models");
        request.locator.stand_ins.insert(model.clone(), Located { base: folder, adapter: None });
        let subject = Subject::Checkpoint(model);
        let id = TrialId::of(&subject);
        request.plan.trials = vec![Trial { id, name: "dummy".to_owned(), subject, axes: Vec::new(), baseline: true }];
        request.plan.review = Default::default();
        request.selected = vec![0];
        request.store = Store::new(&self.stage.folder.join("dummy"), &self.sweep.name)?;
        let Some(summary) = self.until_it_begins(&mut request, false)? else { return Ok(Vec::new()) };
        self.note_failures(&request, &summary, false)?;
        Ok(request.settings.tasks.into_iter().map(|task| task.name).collect())
    }

    /// Runs, leaving out what is lacking; none where nothing is left to run.
    fn until_it_begins(&mut self, request: &mut Request, with_models: bool) -> Result<Option<Summary>, Failure> {
        for _ in 0..ROUNDS {
            if self.session.cancel.is_cancelled() {
                return Ok(None);
            }
            link_home(&Store::new(&self.args.results, &self.sweep.name)?, &request.store)?;
            let lacks = match runner::attempt(self.session, request, self.args.quiet || self.args.json, false) {
                Ok(summary) => return Ok(Some(summary)),
                Err(RunError::Lacks(lacks)) => lacks,
                Err(error) => return Err(runner::sort(error, self.sweep)),
            };
            let made_up_fails = lacks.iter().any(|lack| task_of(lack) == Some(MADE_UP));
            lacks.iter().filter(|lack| task_of(lack) != Some(MADE_UP)).for_each(|lack| self.findings.of_lack(lack));
            // All of them, also behind one that nothing can be done about.
            let left_out: Vec<bool> = lacks.iter().map(|lack| self.leave_out(lack, request)).collect();
            let goes_on = left_out.iter().all(|left_out| *left_out);
            let is_idle = request.settings.tasks.is_empty();
            if !goes_on || (is_idle && !with_models) {
                return Ok(None);
            }
            if is_idle && !made_up_fails {
                self.make_something_up(request)?;
            }
        }
        Ok(None)
    }

    /// Goes on without what is lacking; whether that can be done.
    fn leave_out(&self, lack: &Lack, request: &mut Request) -> bool {
        let Lack::Evaluation(lacking) = lack else { return false };
        let settings = &mut request.settings;
        if let Some(task) = lacking.task() {
            settings.tasks.retain(|asked| asked.name != task);
            return true;
        }
        match lacking {
            Lacking::TinyParameters { .. } | Lacking::OtherParameters(_) => {
                settings.tasks.retain(|task| !is_tiny(&task.name))
            }
            Lacking::IncludePath { .. } => settings.include_path = None,
            Lacking::UnknownBackend { .. } | Lacking::ServerBackend { .. } => *settings = by_dummy(settings),
            Lacking::MissingPackage { needed_by: Some(_), .. } => *settings = by_dummy(settings),
            Lacking::NoGpu { .. } if matches!(settings.model.as_str(), "hf" | "hf-auto" | "huggingface") => {
                settings.device = Some("cpu".to_owned());
                let mut on_cpu = self.sweep.clone();
                on_cpu.evaluate.device = settings.device.clone();
                request.slots = runner::slots(&on_cpu);
            }
            Lacking::NoGpu { .. } => *settings = by_dummy(settings),
            _ => return false,
        }
        true
    }

    /// A task of two questions, so that every model is at least loaded and asked.
    fn make_something_up(&self, request: &mut Request) -> Result<(), Failure> {
        let (task, folder) = made_up(&self.stage.folder).context("writing a task for the rehearsal")?;
        request.settings.tasks = vec![task];
        request.settings.include_path = Some(folder);
        request.settings.num_fewshot = None;
        Ok(())
    }

    /// Notes what failed, with the names of the trials where these are the sweep's. Where several tasks shared the process that failed, each is asked alone to see which it was.
    fn note_failures(&mut self, request: &Request, summary: &Summary, named: bool) -> Result<(), Failure> {
        let mut evaluations: Vec<(String, Vec<usize>)> = Vec::new();
        for Failed { trial, stage, reason, .. } in &summary.failed {
            let Some(index) = request.plan.trials.iter().position(|known| known.name == *trial) else { continue };
            let trial = &request.plan.trials[index];
            match stage {
                Step::Merge => self.findings.of_merge(index, trial, reason),
                Step::Evaluate => {
                    let reason = self.findings.reason(trial, reason);
                    match evaluations.iter_mut().find(|(known, _)| *known == reason) {
                        Some((_, trials)) => trials.push(index),
                        None => evaluations.push((reason, vec![index])),
                    }
                }
            }
        }
        for (number, (reason, trials)) in evaluations.into_iter().enumerate() {
            let of_sweep = trials.iter().filter(|_| named);
            let names: Vec<String> = of_sweep.map(|index| request.plan.trials[*index].name.clone()).collect();
            let tasks: Vec<String> = request.settings.tasks.iter().map(|task| task.name.clone()).collect();
            let apart = if tasks.len() > 1 { self.one_by_one(request, trials[0], number)? } else { Vec::new() };
            // A failure of all tasks alike is one of the model or the back end.
            let alike = apart.len() == tasks.len() && apart.iter().all(|(_, reason)| *reason == apart[0].1);
            if apart.is_empty() || alike {
                self.findings.of_evaluation(names, &tasks, &reason);
            } else {
                for (task, reason) in apart {
                    self.findings.of_evaluation(names.clone(), &[task], &reason);
                }
            }
        }
        Ok(())
    }

    /// Runs a trial once for every task; gives back the tasks that failed, with the reasons.
    fn one_by_one(&mut self, request: &Request, index: usize, number: usize) -> Result<Vec<(String, String)>, Failure> {
        let mut failed = Vec::new();
        for (place, task) in request.settings.tasks.iter().enumerate() {
            let results = self.stage.folder.join(format!("apart-{number}-{place}"));
            let settings = Settings { tasks: vec![TaskRequest::clone(task)], ..request.settings.clone() };
            let store = Store::new(&results, &self.sweep.name)?;
            let mut alone = Request { settings, store, selected: vec![index], ..request.clone() };
            let Some(summary) = self.until_it_begins(&mut alone, false)? else { continue };
            let trial = &request.plan.trials[index];
            let reasons = summary.failed.into_iter().map(|failed| self.findings.reason(trial, &failed.reason));
            failed.extend(reasons.map(|reason| (task.name.clone(), reason)));
        }
        Ok(failed)
    }

    /// The table that a run ends with.
    fn tabulate(&self, request: &Request) -> Result<(), Failure> {
        let mut sweep = self.sweep.clone();
        sweep.evaluate = request.settings.clone();
        let recorded = recorded::collect_with_near(&request.plan, &sweep, &request.store)?;
        report::write_files(&recorded.table, &request.store);
        Ok(())
    }
}

/// What was put into the harness's working directory for the real run (tinyBenchmarks.pkl, code_eval) is in that of another store
/// too.
pub(in crate::cli) fn link_home(real: &Store, store: &Store) -> Result<(), Failure> {
    let (home, kept) = (store.harness_home(), [real.harness_cache(), real.harness_answers()]);
    for entry in std::fs::read_dir(real.harness_home()).into_iter().flatten().flatten() {
        let link = home.join(entry.file_name());
        if kept.contains(&entry.path()) || link.exists() {
            continue;
        }
        std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        std::os::unix::fs::symlink(entry.path(), &link).with_context(|| link.display().to_string())?;
    }
    Ok(())
}

/// The task that is lacking or lacks something.
fn task_of(lack: &Lack) -> Option<&str> {
    match lack {
        Lack::Evaluation(problem) => problem.task(),
        Lack::Model { .. } => None,
    }
}
