//! Throughput of merges on this machine, measured: a part of the tensors of the first pass is merged by the engine itself and
//! written where merged models go, again and again with other tensors until the time is over. Nothing of it stays.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::rates::Pass;
use crate::config::Numerics;
use crate::merge::engine;
use crate::merge::recipe::Recipe;
use crate::merge::source::Source;
use crate::merge::staging::Staging;
use crate::merge::writer::Writer;
use crate::merge::{BoxError, MergeError, MergeOptions, Pool, Progress, TokenizerFiles};
use crate::model::{Located, ModelRef};
use crate::plan::Subject;
use crate::run::Request;
use crate::run::foresight::foresee;

/// Longest time of all.
const LONGEST: Duration = Duration::from_secs(20);

/// A round is begun only that early.
const LAST_ROUND: Duration = Duration::from_secs(12);

/// Rounds that are made at most.
const ROUNDS: usize = 6;

/// Bytes written in a round, about.
const PER_ROUND: u64 = 128 << 20;

/// One merge of a pass.
struct Planned {
    recipes: Vec<Recipe>,
    sources: Vec<Source>,
    numerics: Numerics,
}

/// Merges parts of the first merges that are to be made, under `folder`, as long as they are wanted. Empty where no merge is
/// left or its models are not here.
///
/// # Errors
/// [`MergeError`] of the engine, and of writing.
pub fn calibrate(
    request: &Request,
    folder: &Path,
    is_wanted: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Pass>, MergeError> {
    let begun = Instant::now();
    let planned = planned(request)?;
    let n_parts = planned.first().map_or(0, |first| n_parts(first, planned.len()));
    let mut passes = Vec::new();
    for round in 0..ROUNDS {
        if planned.is_empty() || begun.elapsed() > LAST_ROUND || !is_wanted() {
            break;
        }
        let parts: Vec<Planned> = planned.iter().map(|one| part(one, round % n_parts, n_parts)).collect();
        let bytes: u64 = parts.iter().flat_map(|part| &part.recipes).map(Recipe::n_bytes).sum();
        let started = Instant::now();
        let done = AtomicU64::new(0);
        let progress = |bytes: u64, _: u64| {
            done.store(bytes, Ordering::Relaxed);
            begun.elapsed() < LONGEST && is_wanted()
        };
        match merge(&parts, folder, &progress) {
            Ok(()) => passes.push(Pass { bytes, seconds: started.elapsed().as_secs_f64() }),
            Err(MergeError::Cancelled) => {
                // What was done until then says more than nothing.
                let bytes = done.into_inner();
                passes.extend((bytes > 0).then(|| Pass { bytes, seconds: started.elapsed().as_secs_f64() }));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(passes)
}

/// As many parts as it takes for one of all merges together to be as large as a round.
fn n_parts(first: &Planned, n_merges: usize) -> usize {
    let all = first.recipes.iter().map(Recipe::n_bytes).sum::<u64>() * n_merges as u64;
    usize::try_from(all.div_ceil(PER_ROUND)).unwrap_or(1).max(1)
}

/// Every so many-th tensor, from one on.
fn part(of: &Planned, from: usize, every: usize) -> Planned {
    let recipes = of.recipes.iter().skip(from).step_by(every).cloned().collect();
    Planned { recipes, sources: of.sources.clone(), numerics: of.numerics }
}

fn planned(request: &Request) -> Result<Vec<Planned>, MergeError> {
    let locate = |model: &ModelRef| -> Result<Located, BoxError> {
        let found = request.locator.locate_on_disk(model)?;
        found.ok_or_else(|| format!("`{model}` is not on this machine").into())
    };
    // What the journal or the models do not tell is told by the forecast.
    let Ok(foresight) = foresee(request) else { return Ok(Vec::new()) };
    let mut pool = Pool::default();
    let mut planned = Vec::new();
    for trial in foresight.trials.iter().filter(|trial| trial.merges).take(request.merges_per_pass.max(1)) {
        let Subject::Merge { config, seed, numerics } = &request.plan.trials[trial.index].subject else { continue };
        if config.models().into_iter().any(|model| locate(model).is_err()) {
            break;
        }
        let tokenizer = TokenizerFiles::Skip;
        let options = MergeOptions { seed: *seed, numerics: *numerics, tokenizer, ..MergeOptions::default() };
        let plan = pool.plan(config, &locate, "", &options)?;
        planned.push(Planned { recipes: plan.recipes.recipes, sources: plan.sources, numerics: *numerics });
    }
    Ok(planned)
}

fn merge(parts: &[Planned], folder: &Path, progress: &Progress<'_>) -> Result<(), MergeError> {
    let mut outputs = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        // It goes when it is dropped.
        let staging = Staging::new(&folder.join(format!("calibration-{}-{number}", std::process::id())))?;
        let writer = Writer::create(&staging, &part.recipes, MergeOptions::default().shard_size)?;
        outputs.push((staging, writer));
    }
    let jobs: Vec<engine::Job<'_>> = parts
        .iter()
        .zip(&outputs)
        .map(|(part, (_, writer))| engine::Job {
            recipes: &part.recipes,
            sources: &part.sources,
            writer,
            numerics: part.numerics,
        })
        .collect();
    engine::run(&jobs, progress)?;
    drop(jobs);
    for (staging, writer) in outputs {
        writer.finish()?;
        drop(staging);
    }
    Ok(())
}
