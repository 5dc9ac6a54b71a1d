//! `mergesweep diff`: two checkpoints compared tensor by tensor.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::interrupt::stop_on_signal;
use super::percent::Percent;
use super::{Failure, counted, output_width, print, usage, warn};
use crate::exit_code::{self, Exit};
use crate::merge::checkpoint::Checkpoint;
use crate::merge::diff::{self, Diff, DiffError, TensorDiff};
use crate::process::cancellation;
use crate::table::render::{self, Cells};

/// Tensors in the table where `--top` does not say how many.
const SHOWN: usize = 20;

/// Compare the weights of two models, tensor by tensor
///
/// A and B are model folders (with model.safetensors, or shards and an index) or single
/// .safetensors files. Equal means the same tensors with the same bytes, however they are dealt
/// out over files; config and tokenizer are not looked at. For every tensor that differs:
///
///   different    elements whose bits differ (whose values differ, where the formats do)
///   largest      largest difference of two elements
///   ulps         most numbers of the format from one element to the other: 1 is a
///                difference in the last place; `-` where the formats differ
///   relative L2  |A - B| / |A|, what the table is sorted by
///
/// A `-` in the last three also stands where a difference is not finite, or the numbers are not
/// floating-point ones.
///
/// Reads the files once, in stretches: models larger than memory are fine.
///
/// Examples:
///   mergesweep diff merged-by-mergekit merged-by-mergesweep
///   mergesweep diff base math --top 5
///   mergesweep diff old/model.safetensors new/model.safetensors --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct DiffArgs {
    /// A model folder or a .safetensors file
    a: PathBuf,
    /// What to compare it with
    b: PathBuf,
    /// Show the N tensors that differ most [default: 20, and all with --json]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Print as JSON, in full precision (null where a number is not finite or has no meaning)
    #[arg(long)]
    json: bool,
    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let open = |path: &Path| -> Result<Checkpoint, Failure> {
        if !path.exists() {
            let path = path.display();
            return Err(usage(anyhow!("`{path}` does not exist, expected a model folder or a .safetensors file")));
        }
        diff::open(path).map_err(usage)
    };
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let (canceller, cancel) = cancellation();
    // Lives until the end of this function, and with it the listener.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.spawn(stop_on_signal(canceller, "nothing is written", warn, || {}));
    let percent = Percent::new("comparing", args.quiet);
    let compared = diff::diff(&a, &b, &|done, total| {
        percent.show(done, total);
        !cancel.is_cancelled()
    });
    percent.clear();
    let mut diff = match compared {
        Err(DiffError::Cancelled) => return Ok(Exit::Interrupted),
        compared => compared?,
    };
    let exit = if diff.is_empty() { Exit::Ok } else { Exit::Different };
    let summary = summary(&diff);
    if args.json {
        let n_different = diff.different.len();
        diff.different.truncate(args.top.unwrap_or(n_different));
        let mut document = json!({ "equal": exit == Exit::Ok, "n_different": n_different });
        if let (Some(document), serde_json::Value::Object(diff)) =
            (document.as_object_mut(), serde_json::to_value(&diff)?)
        {
            document.extend(diff);
        }
        print(&serde_json::to_string_pretty(&document)?)?;
    } else {
        tell(args, &diff)?;
        print(&summary)?;
    }
    Ok(exit)
}

fn tell(args: &DiffArgs, diff: &Diff) -> Result<(), Failure> {
    let top = args.top.unwrap_or(SHOWN);
    for (path, names) in [(&args.a, &diff.only_in_a), (&args.b, &diff.only_in_b)] {
        names.iter().try_for_each(|name| print(&format!("only in {}: {name}", path.display())))?;
    }
    for tensor in &diff.incomparable {
        print(&format!("{}: {} and {}", tensor.tensor, tensor.a, tensor.b))?;
    }
    if !diff.different.is_empty() && top > 0 {
        let cells = Cells {
            head: ["tensor", "format", "different", "largest", "ulps", "relative L2"].map(str::to_owned).to_vec(),
            rows: diff.different.iter().take(top).map(row).collect(),
        };
        print(&render::markdown(&cells, output_width()))?;
    }
    if diff.different.len() > top {
        warn(&format!("note: {} more (`--top`)", counted(diff.different.len() - top, "tensor")));
    }
    Ok(())
}

fn row(tensor: &TensorDiff) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3e}"));
    let [a, b] = &tensor.dtypes;
    vec![
        tensor.tensor.clone(),
        if a == b { a.clone() } else { format!("{a}, {b}") },
        format!("{} of {}", tensor.n_different, tensor.n_elements),
        number(tensor.max_abs),
        tensor.max_ulps.map_or_else(|| "-".to_owned(), |ulps| ulps.to_string()),
        number(tensor.relative_l2),
    ]
}

fn summary(diff: &Diff) -> String {
    if diff.is_empty() {
        return format!("equal: {}", counted(diff.n_equal, "tensor"));
    }
    let mut parts = vec![format!("{} equal", counted(diff.n_equal, "tensor"))];
    let mut add = |n: usize, what: &str| {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    };
    add(diff.different.len(), "different");
    add(diff.incomparable.len(), "of another shape or format");
    add(diff.only_in_a.len(), "only in A");
    add(diff.only_in_b.len(), "only in B");
    format!("different: {}", parts.join(", "))
}
