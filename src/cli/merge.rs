//! `mergesweep merge`: merges of mergekit configs, with the options of `mergekit-yaml`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{ArgAction, Args};

use super::interrupt::stop_on_signal;
use super::percent::{Percent, megabytes};
use super::{Failure, counted, default_python, diagnostics, locator, print, tensors_of, usage, warn};
use crate::config::{Dtype, MergeConfig, Numerics, parse};
use crate::document::{self, Code, Problem, Problems};
use crate::exit_code::{self, Exit};
use crate::merge::recipe::{Recipe, RecipeInput};
use crate::merge::staging::OutputError;
use crate::merge::verify::{self, Verification, VerifyError};
use crate::merge::{self, Merge, MergeError, MergeOptions, MergePlan, TokenizerFiles};
use crate::model::locate::Locator;
use crate::model::{LocateError, ModelRef};
use crate::plan::lint::{self, Finding, Kind, Looked, Severity};
use crate::process::cancellation;

pub(super) mod apart;
mod ignored;

use ignored::Ignored;

/// Merge models as a mergekit config says, into a folder that transformers loads
///
/// A drop-in for `mergekit-yaml CONFIG OUT`: same config dialect, same options, same results up
/// to rounding, except where mergekit itself depends on chance or on its sort: random masks, equal
/// changes at a cut (see `--numerics`), and the sampled quantiles of arcee_fusion on large
/// tensors. Model
/// paths in the config are relative to the current folder. The output
/// appears when it is complete; an older output of a merge is then replaced as a whole. Random
/// methods draw from `--random-seed`, whatever the number of threads.
///
/// Examples:
///   mergesweep merge ties.yml merged
///   mergesweep merge dare.yml merged --random-seed 7 --out-shard-size 2B
///   mergesweep merge ties.yml merged --verify=20
///   mergesweep merge slerp.yml merged --dry-run --json
///   mergesweep merge a.yml out/a b.yml out/b c.yml out/c
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct MergeArgs {
    /// The mergekit config, YAML
    config: PathBuf,
    /// Folder to write
    out: PathBuf,
    /// More configs, each with a folder: all are merged in one pass, and what several of them need is read and computed
    /// once. The bytes are those of merging one by one
    #[arg(value_name = "CONFIG OUT")]
    further: Vec<PathBuf>,
    /// Print the record of the merge as JSON; of several merges one after the other
    #[arg(long)]
    json: bool,
    /// Check config, models and sizes, and write nothing
    #[arg(long, conflicts_with = "verify")]
    dry_run: bool,
    /// Compute every output tensor again, or N of them drawn by the seed, and compare with what was written
    ///
    /// The second computation is another implementation, in 64 bits, from the models' files to the
    /// unrounded result; what was written is read back from the files. Differences are given in
    /// ulps: units in the last place of the format written (of float32, at the size of what was
    /// added up, where that is coarser). More is a failure than 1 ulp of bfloat16 or float16, 4 of
    /// float32 and 2 more for every model, or 65536 of float64: exit code 1, and the output stays
    /// to be looked at. Elements for which a comparison of the method (a cut, an elected sign, a
    /// threshold) is closer than rounding may have gone either way: they are counted, and no
    /// failure. Slow, and takes memory: for one tensor at a time about 8 bytes an element for every
    /// model and a dozen more. With `--json` the record has a `verification` with every tensor. Not
    /// with `--numerics mergekit`, which is meant to be as far from the exact result as mergekit is.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, value_parser = clap::value_parser!(u64).range(1..))]
    verify: Option<Option<u64>>,
    /// Seed of random masks
    #[arg(long, value_name = "N", default_value_t = 0)]
    random_seed: u64,
    /// How intermediate results are rounded: `f32` computes in at least 32 bits and rounds once, `mergekit` rounds to the
    /// working dtype after every step and keeps of equal changes those that mergekit keeps
    ///
    /// With `mergekit`, methods that trim hold 2 bytes (8 in float32 and float64) for every element of a
    /// tensor whose cut goes through equal changes, and 4 for each of those, one model at a time; multislerp and karcher read the models once for
    /// every norm and angle. Sums over whole tensors are exact, where PyTorch's depend on the number
    /// of threads: what rests on one agrees to rounding.
    #[arg(long, value_name = "NUMERICS", default_value_t, value_parser = numerics)]
    numerics: Numerics,
    /// Largest shard in bytes; K, M and B stand for 10^3, 10^6 and 10^9
    #[arg(long, value_name = "SIZE", default_value = "5B", value_parser = shard_size)]
    out_shard_size: u64,
    /// Copy the base model's tokenizer, and fail without one [default: copy it where there is one]
    #[arg(long, overrides_with = "no_copy_tokenizer")]
    copy_tokenizer: bool,
    /// Do not copy a tokenizer
    #[arg(long, overrides_with = "copy_tokenizer")]
    no_copy_tokenizer: bool,
    /// Write README.md and mergekit_config.yml [default]
    #[arg(long, overrides_with = "no_write_model_card")]
    write_model_card: bool,
    /// Do not write README.md and mergekit_config.yml
    #[arg(long, overrides_with = "write_model_card")]
    no_write_model_card: bool,
    /// Merge models of different architectures
    #[arg(long, overrides_with = "no_allow_crimes")]
    allow_crimes: bool,
    /// Refuse models of different architectures [default]
    #[arg(long, overrides_with = "allow_crimes")]
    no_allow_crimes: bool,
    /// Cut vocabularies of different sizes to the shortest, whatever the tokens mean
    #[arg(long, overrides_with = "no_unsafe_truncate_embeddings")]
    unsafe_truncate_embeddings: bool,
    /// Refuse vocabularies of different sizes [default]
    #[arg(long, overrides_with = "unsafe_truncate_embeddings")]
    no_unsafe_truncate_embeddings: bool,
    /// Number format in which adapters are applied to their base [default: the base's own]
    #[arg(long, value_name = "DTYPE", value_parser = dtype)]
    lora_merge_dtype: Option<Dtype>,
    /// Hub cache to look models up in, and to download them to [default: as HF_HOME and HF_HUB_CACHE say]
    #[arg(long, value_name = "DIR")]
    transformers_cache: Option<PathBuf>,
    /// Threads [default: one for every core]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    num_threads: Option<u16>,
    /// List every tensor with its inputs before merging; repeating it adds nothing
    #[arg(short = 'v', long = "verbose", action = ArgAction::Count)]
    verbose: u8,
    /// Show errors only: no progress, warnings or notes
    #[arg(long, overrides_with = "no_quiet")]
    quiet: bool,
    /// Show progress, warnings and notes [default]
    #[arg(long, overrides_with = "quiet")]
    no_quiet: bool,
    #[command(flatten)]
    ignored: Ignored,
}

/// Bytes of a shard: digits and perhaps K, M or B, as mergekit has them.
fn shard_size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a whole number, perhaps with K, M or B, found `{text}`");
    let (digits, factor) = match text.char_indices().last() {
        Some((end, 'k' | 'K')) => (&text[..end], 1_000),
        Some((end, 'm' | 'M')) => (&text[..end], 1_000_000),
        Some((end, 'b' | 'B')) => (&text[..end], 1_000_000_000),
        _ => (text, 1),
    };
    let size = digits.trim().parse::<u64>().ok().and_then(|size| size.checked_mul(factor));
    size.filter(|size| *size > 0).ok_or_else(expected)
}

fn numerics(text: &str) -> Result<Numerics, String> {
    let named = Numerics::NAMES.iter().find(|(name, _)| *name == text);
    named.map(|(_, numerics)| *numerics).ok_or_else(|| format!("expected f32 or mergekit, found `{text}`"))
}

fn dtype(text: &str) -> Result<Dtype, String> {
    text.parse().map_err(|()| format!("expected bfloat16, float16, float32 or float64, found `{text}`"))
}

impl MergeArgs {
    fn configs(&self) -> impl Iterator<Item = &Path> {
        [&self.config].into_iter().chain(self.further.iter().step_by(2)).map(PathBuf::as_path)
    }

    fn outputs(&self) -> impl Iterator<Item = &Path> {
        [&self.out].into_iter().chain(self.further.iter().skip(1).step_by(2)).map(PathBuf::as_path)
    }

    fn options(&self) -> MergeOptions {
        let tokenizer = match (self.copy_tokenizer, self.no_copy_tokenizer) {
            (true, _) => TokenizerFiles::Required,
            (_, true) => TokenizerFiles::Skip,
            _ => TokenizerFiles::IfPresent,
        };
        MergeOptions {
            seed: self.random_seed,
            numerics: self.numerics,
            shard_size: self.out_shard_size,
            tokenizer,
            write_model_card: !self.no_write_model_card,
            allow_crimes: self.allow_crimes,
            truncate_embeddings: self.unsafe_truncate_embeddings,
            lora_dtype: self.lora_merge_dtype,
        }
    }

    /// A line on standard error, unless quiet.
    fn note(&self, text: &str) {
        if !self.quiet {
            warn(text);
        }
    }
}

/// A config and the folder its merge goes to.
struct Asked<'a> {
    config: MergeConfig,
    text: String,
    out: &'a Path,
}

impl MergeArgs {
    /// The configs, read and checked.
    fn asked(&self, locator: &Locator) -> Result<Vec<Asked<'_>>, Failure> {
        let further = self.further.as_chunks::<2>();
        if let [config] = further.1 {
            return Err(usage(anyhow!("expected a folder to write after `{}`, found none", config.display())));
        }
        let pairs = [(&self.config, &self.out)].into_iter().chain(further.0.iter().map(|[config, out]| (config, out)));
        let mut asked: Vec<Asked<'_>> = Vec::new();
        for (file, out) in pairs {
            if asked.iter().any(|other| other.out == *out) {
                return Err(usage(anyhow!(
                    "expected a folder of its own for every config, found `{}` twice",
                    out.display()
                )));
            }
            let document = document::parse::file(file)?;
            let mut parsed = parse::parse(&document, &parse::Mergekit)?;
            let (seed, numerics) = (self.random_seed, self.numerics);
            let looked = Looked { config: &parsed.config, seed, numerics, document: &document };
            let findings = lint::of_file(looked, &|model| tensors_of(locator, model));
            lint::tell_once(&mut parsed.warnings, &findings);
            if !self.quiet {
                diagnostics::show(&parsed.warnings);
            }
            // What cannot be resolved is said by the merge itself.
            let is_odd =
                |finding: &&Finding| finding.kind.severity() == Severity::Warning && finding.kind != Kind::Unresolved;
            let (placed, others): (Vec<&Finding>, Vec<&Finding>) =
                findings.iter().filter(is_odd).partition(|finding| finding.problem().is_some());
            if !self.quiet {
                diagnostics::show(&Problems(placed.into_iter().filter_map(Finding::problem).collect()));
            }
            others.into_iter().for_each(|finding| self.note(&format!("warning: {finding}")));
            for finding in findings.iter().filter(|finding| finding.kind == Kind::Reduces) {
                self.note(&format!("note: {}: the merge {}", file.display(), finding.message));
            }
            let text = std::fs::read_to_string(file).with_context(|| format!("reading `{}`", file.display()))?;
            asked.push(Asked { config: parsed.config, text, out });
        }
        Ok(asked)
    }
}

/// Merges in this process, which [`apart`] has started.
pub(super) fn run(args: &MergeArgs) -> Result<Exit, Failure> {
    // Whoever asked is gone when the parent is another one.
    let parent = rustix::process::getppid();
    let is_wanted = || rustix::process::getppid() == parent;
    for line in args.ignored.lines() {
        args.note(&line);
    }
    if args.verify.is_some() && args.numerics == Numerics::Mergekit {
        return Err(usage(anyhow!(
            "`--verify` compares with the exact result, and `--numerics mergekit` rounds after every step to be as far from it \
             as mergekit is: no limit would tell an error from that (leave out one of the two)"
        )));
    }
    let mut locator = locator(Path::new("."), default_python(&|name| std::env::var(name).ok()))?;
    if let Some(cache) = &args.transformers_cache {
        locator.hub.cache.clone_from(cache);
    }
    let asked = args.asked(&locator)?;
    let (canceller, cancel) = cancellation();
    locator.hub.cancel = cancel.clone();
    // Lives until the end of this function, and with it the listener.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // The process that attends this one says what happens.
    runtime.spawn(stop_on_signal(canceller, "", |_| {}, || {}));
    let options = args.options();
    let work = || -> Result<Exit, Failure> {
        let locate = |model: &ModelRef| locator.locate(model).map_err(Into::into);
        let plan = |asked: &Asked<'_>| {
            merge::plan(&asked.config, &locate, &asked.text, &options).map_err(|error| args.failure(error))
        };
        if args.dry_run || args.verbose > 0 {
            asked.iter().try_for_each(|asked| describe(args, &plan(asked)?))?;
        }
        if args.dry_run {
            return Ok(Exit::Ok);
        }
        let percent = Percent::new("merging", args.quiet);
        let progress = |done, total| {
            percent.show(done, total);
            is_wanted() && !cancel.is_cancelled()
        };
        let jobs: Vec<merge::Job<'_>> = asked
            .iter()
            .map(|Asked { config, text, out }| merge::Job { config, config_text: text, out, options: &options })
            .collect();
        let merged = merge::merge(&jobs, &locate, &progress);
        percent.clear();
        let merged = merged.map_err(|error| args.failure(error))?;
        for (asked, merged) in asked.iter().zip(merged) {
            let Some(sample) = args.verify else {
                tell(args, asked, &merged, None)?;
                continue;
            };
            let plan = plan(asked)?;
            let percent = Percent::new("verifying", args.quiet);
            let progress = |done, total| {
                percent.show(done, total);
                is_wanted() && !cancel.is_cancelled()
            };
            let sample = sample.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            let recipes = &plan.recipes.recipes;
            let verified = verify::verify(recipes, &plan.sources, asked.out, sample, options.seed, &progress);
            percent.clear();
            let verification = match verified {
                Err(VerifyError::Cancelled) => return Ok(Exit::Interrupted),
                verified => verified?,
            };
            tell(args, asked, &merged, Some(&verification))?;
            judge(asked, &verification)?;
        }
        Ok(Exit::Ok)
    };
    // None means as many as there are cores.
    let n_threads = args.num_threads.map_or(0, usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build()?.install(work)
}

impl MergeArgs {
    /// Which exit code an error of the engine stands for. A model that is not there is told at its place.
    fn failure(&self, error: MergeError) -> Failure {
        match error {
            MergeError::Locate { model, source } => match self.place(&model, source.downcast_ref()) {
                Some(problem) => usage(Problems(vec![problem])),
                None => usage(MergeError::Locate { model, source }),
            },
            MergeError::Cancelled => Failure::Interrupted,
            MergeError::Output(OutputError::Occupied { .. } | OutputError::IsInput { .. }) => usage(error),
            MergeError::Output(_) => Failure::Internal(error.into()),
            _ => usage(error),
        }
    }

    fn place(&self, model: &str, error: Option<&LocateError>) -> Option<Problem> {
        let error = error?;
        let mut documents = self.configs().filter_map(|file| document::parse::file(file).ok());
        documents.find_map(|document| {
            let node = document.find_text(model)?;
            let path = document.path_of(&node.span).map(|path| path.to_string()).unwrap_or_default();
            Some(Problem::error(Code::ModelNotFound, node.span.clone(), path, error.to_string(), error.hint()))
        })
    }
}

/// What a merge would do, on standard error or as JSON.
fn describe(args: &MergeArgs, plan: &MergePlan) -> Result<(), Failure> {
    let recipes = &plan.recipes.recipes;
    if args.verbose > 0 {
        for recipe in recipes {
            let input = |input: &RecipeInput| format!("{}:{}", plan.sources[input.source].key, input.tensor);
            let inputs: Vec<String> = recipe.inputs.iter().map(input).collect();
            let Recipe { name, shape, working, out, .. } = recipe;
            warn(&format!("{name} {shape:?} {working} -> {out} from {}", inputs.join(", ")));
        }
    }
    if args.dry_run {
        plan.notes.iter().for_each(|note| args.note(&format!("note: {note}")));
        if args.json {
            let n_bytes = plan.n_bytes();
            let planned = serde_json::json!({
                "n_tensors": recipes.len(), "n_bytes": n_bytes, "n_layers": plan.recipes.n_layers, "notes": plan.notes,
            });
            print(&serde_json::to_string_pretty(&planned)?)?;
        } else {
            print(&format!("{} tensors, {}; nothing written", recipes.len(), megabytes(plan.n_bytes())))?;
        }
    }
    Ok(())
}

/// What was done.
fn tell(
    args: &MergeArgs,
    asked: &Asked<'_>,
    merge: &Merge,
    verification: Option<&Verification>,
) -> Result<(), Failure> {
    merge.notes.iter().for_each(|note| args.note(&format!("note: {note}")));
    let method = asked.config.method.spec();
    if args.json {
        let mut record = serde_json::to_value(merge)?;
        if let Some(verification) = verification {
            record["verification"] = serde_json::to_value(verification)?;
        }
        print(&serde_json::to_string_pretty(&record)?)?;
    } else {
        let seed = if method.random { format!(", seed {}", merge.seed) } else { String::new() };
        args.note(&format!(
            "{}: {} tensors, {}{seed}, in {:.1} s",
            asked.out.display(),
            merge.n_tensors,
            megabytes(merge.n_bytes),
            merge.seconds
        ));
    }
    if let Some(verification) = verification {
        args.note(&found(method.name, verification));
    }
    Ok(())
}

/// What verification found, in a line.
fn found(method: &str, verification: &Verification) -> String {
    let Verification { n_verified, n_tensors, seconds, .. } = verification;
    let largest = match verification.worst() {
        Some(tensor) if tensor.ulps > 0.0 => {
            format!("largest difference {:.2} ulp of {} in `{}`", tensor.ulps, tensor.dtype, tensor.tensor)
        }
        _ => "no difference".to_owned(),
    };
    let flipped = match verification.n_flipped() {
        0 => String::new(),
        n => format!(", {} decided the other way by a comparison as close as rounding", counted(n, "element")),
    };
    format!("verified {n_verified} of {n_tensors} tensors ({method}): {largest}{flipped}, in {seconds:.1} s")
}

/// Whether that will do.
fn judge(asked: &Asked<'_>, verification: &Verification) -> Result<(), Failure> {
    let n_beyond = verification.n_beyond();
    let Some(worst) = verification.worst().filter(|_| n_beyond > 0) else {
        return Ok(());
    };
    let at = worst.largest.map_or_else(String::new, |largest| {
        format!(" at element {}: expected {:e}, found {:e}", largest.element, largest.expected, largest.found)
    });
    Err(Failure::Internal(anyhow!(
        "`{}` is not what it should be: {} beyond the limit; the worst is `{}`, {:.2} ulp of {} (limit {}){at}; please report \
         this with the config",
        asked.out.display(),
        counted(n_beyond, "element"),
        worst.tensor,
        worst.ulps,
        worst.dtype,
        worst.limit,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_decimal_suffix() {
        assert_eq!(shard_size("30K"), Ok(30_000));
        assert_eq!(shard_size("5B"), Ok(5_000_000_000));
        assert_eq!(shard_size("123"), Ok(123));
        for text in ["", "1.5B", "B", "0", "-1", "99999999999999B"] {
            assert!(shard_size(text).is_err(), "{text}");
        }
    }
}
