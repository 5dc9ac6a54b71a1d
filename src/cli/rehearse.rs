//! `mergesweep rehearse`: the whole sweep with tiny models and few documents, to find what would fail.

mod findings;
mod play;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::json;

use super::interrupt::Session;
use super::{Failure, SweepArgs, counted, diagnostics, print, run as runner, usage, warn};
use crate::config::Scalar;
use crate::exit_code::{self, Exit};
use crate::model::{LocateError, ModelRef};
use crate::rehearsal::narrow::Heads;
use crate::rehearsal::{Making, StandIns, Unmade, make};
use crate::run::store::Store;
use crate::run::{Request, models_of};
use crate::spec::Sweep;
use findings::{Finding, Findings};
use play::Played;
pub(super) use play::link_home;

/// Go through a whole sweep in minutes, with tiny models and few documents, and tell what would fail
///
/// Every model is replaced by a tiny random one of the same architecture, with the same layers,
/// heads, tensor names, dtypes, vocabulary, tokenizer and chat template; adapters keep rank and
/// modules. Then `run` goes its way: real merges, the real harness, real tasks, a real table, in a
/// folder that is removed at the end. Missing packages and data, wrong names of tasks or metrics,
/// models that cannot be merged, chat templates that fail and code that may not run are found
/// before the real thing starts, all in one report. The scores mean nothing.
///
/// Of a model only config.json and the tokenizer files are needed; those of hub models that are not
/// on disk are downloaded (a few MB), without weights. Names and dtypes of tensors are taken from
/// the weights where these are on disk, else transformers of the configured interpreter tells them.
/// Without its files a model's trials are left out, and it is said how to get them; or --files
/// names a folder that has them:
///
///   hf download OWNER/NAME --include '*.json' '*.jinja' 'tokenizer*'
///   mergesweep rehearse sweeps/study.toml --files ./llama-3.1-8b
///
/// Tasks whose scores need all of their documents (tinyBenchmarks) are answered by the harness's
/// `dummy`: their data, packages and metrics are rehearsed, their prompts are not.
///
/// Exit codes: 0 nothing failed, 3 something would fail or could not be rehearsed, 2 the spec is
/// wrong, 130 interrupted.
///
/// Examples:
///   mergesweep rehearse sweeps/quickstart.toml
///   mergesweep rehearse sweeps/study.toml --files code=./code-files --files ./llama-3.1-8b
///   mergesweep rehearse sweeps/quickstart.toml --keep /tmp/rehearsal --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct RehearseArgs {
    /// The sweep spec, TOML or YAML
    spec: PathBuf,
    /// Take config and tokenizer files of models that are not here from DIR; with MODEL (a short name of the spec or a
    /// reference) those of this one (repeatable)
    #[arg(long, value_name = "[MODEL=]DIR")]
    files: Vec<String>,
    /// Rehearse only trials of this name, id or glob (repeatable)
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Documents per task, at most
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Folder of the real results: what was put into its harness folder beforehand (tinyBenchmarks.pkl) is used
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// Rehearse in DIR, which must be new or empty, and leave everything there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Python interpreter with the harness [default: as for `run`]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Print no progress, only the report
    #[arg(long, short)]
    quiet: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RehearseArgs) -> Result<Exit, Failure> {
    let done = rehearse(args);
    if let Err(failure) = &done
        && args.json
        && let Some(problems) = diagnostics::of(failure)
    {
        print(&serde_json::to_string_pretty(&diagnostics::document(problems))?)?;
    }
    done
}

fn rehearse(args: &RehearseArgs) -> Result<Exit, Failure> {
    let began = Instant::now();
    let stage = Stage::set(args.keep.as_deref())?;
    let sweep_args = SweepArgs {
        spec: args.spec.clone(),
        results: stage.folder.join("results"),
        python: args.python.clone(),
        limit: None,
    };
    let (mut request, sweep) = runner::request(&sweep_args, &args.only, &[])?;
    // Tiny models need no disk of their own and no budget.
    request.store = Store::new(&sweep_args.results, &sweep.name)?;
    request.disk = None;
    // Of two documents nothing is decided: everything is gone through.
    request.search = None;
    // What may pass by itself is a finding all the same.
    request.retries = 0;
    request.locator.hub.retries = 0;
    let files = files(args)?;
    let session = Session::begin("the rehearsal ends, and its folder goes")?;
    if !args.quiet {
        warn("making tiny models");
    }
    let made = stand_ins(&request, &sweep, &stage.folder.join("models"), &files, &session)?;
    let mut findings = Findings::new(&sweep, &stage.folder, &args.results, &made);
    let left_out = findings.of_stand_ins(&request, &made);
    request.selected.retain(|index| !left_out.contains(index));
    request.locator.stand_ins = made.located.clone();
    let played = play::play(args, &stage, &session, request, &sweep, &mut findings)?;
    if session.cancel.is_cancelled() {
        return Ok(Exit::Interrupted);
    }
    let outcome = Outcome {
        findings: findings.finish(),
        left_out: left_out.iter().filter_map(|index| Some(played.names.get(*index)?.clone())).collect(),
        played,
        made,
        seconds: began.elapsed().as_secs_f64(),
        kept: args.keep.as_ref().map(|_| stage.folder.clone()),
    };
    outcome.show(args)?;
    Ok(if outcome.findings.is_empty() && outcome.left_out.is_empty() { Exit::Ok } else { Exit::TrialsFailed })
}

/// The folder that everything goes to.
struct Stage {
    folder: PathBuf,
    /// Removes the folder when it goes.
    _thrown_away: Option<tempfile::TempDir>,
}

impl Stage {
    fn set(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) = keep else {
            let thrown_away = tempfile::Builder::new().prefix("mergesweep-rehearsal-").tempdir()?;
            let folder = thrown_away.path().canonicalize()?;
            return Ok(Self { folder, _thrown_away: Some(thrown_away) });
        };
        let at = || folder.display().to_string();
        std::fs::create_dir_all(folder).with_context(at)?;
        if std::fs::read_dir(folder).with_context(at)?.next().is_some() {
            return Err(usage(anyhow!("`{}` is not empty: name a new folder to rehearse in", folder.display())));
        }
        Ok(Self { folder: folder.canonicalize().with_context(at)?, _thrown_away: None })
    }
}

/// `--files`: folders by model, that for all others under the empty name.
fn files(args: &RehearseArgs) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut files = BTreeMap::new();
    for text in &args.files {
        // A folder may have the sign in its name.
        let (model, folder) = match text.split_once('=') {
            Some((model, folder)) if !Path::new(text).is_dir() => (model, folder),
            _ => ("", text.as_str()),
        };
        let folder = Path::new(folder);
        if !folder.join("config.json").is_file() {
            return Err(usage(anyhow!(
                "`--files`: expected a folder with a config.json, found `{}`",
                folder.display()
            )));
        }
        files.insert(model.to_owned(), std::path::absolute(folder)?);
    }
    Ok(files)
}

fn stand_ins(
    request: &Request,
    sweep: &Sweep,
    folder: &Path,
    files: &BTreeMap<String, PathBuf>,
    session: &Session,
) -> Result<StandIns, Failure> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let settings = &request.settings;
    let models: BTreeSet<ModelRef> =
        request.selected.iter().flat_map(|index| models_of(&request.plan.trials[*index])).collect();
    let models: Vec<ModelRef> = models.into_iter().collect();
    let naming = |model: &ModelRef| sweep.short_name(model);
    let says = |key: &str| settings.model_args.get(key);
    let heads = match settings.model.as_str() {
        "vllm" | "sglang" | "sglang-generate" => Heads::Fewer,
        // Kernels that are asked for by name know heads of whole vectors only.
        _ if says("attn_implementation").is_some() => Heads::Narrower(8),
        _ => Heads::Narrower(2),
    };
    let mut locator = request.locator.clone();
    locator.hub.cancel = session.cancel.clone();
    Ok(make(
        &models,
        &Making {
            locator: &locator,
            python: &settings.python,
            environment: &settings.environment,
            heads,
            trust_remote_code: says("trust_remote_code").and_then(Scalar::as_bool).unwrap_or(false),
            files,
            naming: &naming,
            folder,
            cancel: &session.cancel,
        },
    ))
}

/// How to get the files that a rehearsal needs of a model, for its hint.
fn how_to_get(error: &Unmade) -> Option<String> {
    let Unmade::Files(LocateError::Hub { written, .. }) = error else { return None };
    let (id, revision) = match written.split_once('@') {
        Some((id, revision)) => (id, format!(" --revision {revision}")),
        None => (written.as_str(), String::new()),
    };
    Some(format!(
        "for a rehearsal its small files are enough: `hf download {id}{revision} --include '*.json' '*.jinja' 'tokenizer*'`, or \
         `--files DIR` with those of a model like it"
    ))
}

/// How a rehearsal went.
struct Outcome {
    findings: Vec<Finding>,
    /// Names of trials that were not rehearsed.
    left_out: Vec<String>,
    played: Played,
    made: StandIns,
    seconds: f64,
    kept: Option<PathBuf>,
}

impl Outcome {
    fn show(&self, args: &RehearseArgs) -> Result<(), Failure> {
        if args.json {
            let Played { n_rehearsed, on_models, by_dummy, .. } = &self.played;
            let document = json!({
                "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
                "rehearsed": n_rehearsed,
                "left_out": self.left_out,
                "tasks": { "on_tiny_models": on_models, "by_dummy": by_dummy },
                "models": { "made": self.made.located.len() - self.made.n_as_they_are, "small": self.made.n_as_they_are },
                "assumed": self.assumed(),
                "seconds": self.seconds,
                "kept": self.kept,
            });
            print(&serde_json::to_string_pretty(&document)?)?;
            return Ok(());
        }
        let drawn: Vec<String> =
            self.findings.iter().map(|finding| finding.drawn(diagnostics::style_of_stdout())).collect();
        if !drawn.is_empty() {
            print(&format!("{}\n\n", drawn.join("\n\n")))?;
        }
        print(&self.summary())?;
        Ok(())
    }

    fn assumed(&self) -> BTreeMap<String, &Path> {
        self.made.assumed.iter().map(|(model, folder)| (model.to_string(), folder.as_path())).collect()
    }

    fn summary(&self) -> String {
        let Played { n_rehearsed, on_models, by_dummy, .. } = &self.played;
        let listed = |tasks: &[String]| if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") };
        let instead = if on_models.is_empty() && *n_rehearsed > 0 && by_dummy.is_empty() {
            "; every model was loaded and asked two made-up questions instead"
        } else {
            ""
        };
        let mut text = format!(
            "rehearsed: {} in {:.0} s\n  tasks on tiny models: {}{instead}\n  tasks by dummy answers, with all documents: {}\n",
            counted(*n_rehearsed, "trial"),
            self.seconds,
            listed(on_models),
            listed(by_dummy),
        );
        for (model, folder) in self.assumed() {
            text += &format!("  {model} is not here: taken to be like {}\n", folder.display());
        }
        if !self.left_out.is_empty() {
            text += &format!("not rehearsed: {}\n", self.left_out.join(", "));
        }
        if let Some(folder) = &self.kept {
            text += &format!("everything is in {}\n", folder.display());
        }
        match self.findings.len() {
            0 if self.left_out.is_empty() => text + "nothing failed\n",
            n => text + &format!("{}\n", counted(n, "finding")),
        }
    }
}
