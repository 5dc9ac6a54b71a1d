//! `resources`: what a run may use of the machine, and `limits.keep`: which merged models it leaves there.

use std::path::{Path, PathBuf};

use super::keys;
use crate::config::Scalar;
use crate::document::read::Field;
use crate::document::{Code, Problems, Value};

/// `resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// GPUs that evaluations use, by number or UUID; `None`: those that are visible.
    pub gpus: Option<Vec<String>>,
    /// GPUs of one evaluation (default 1). A back end that can is told to spread the model over them.
    pub gpus_per_evaluation: usize,
    /// Evaluations at once on one set of GPUs, which then share its memory (default 1).
    pub slots_per_gpu: usize,
    /// Evaluations at once where there is no GPU (default 1). They share the cores: two of them use those that one leaves
    /// idle while it starts.
    pub cpu_slots: usize,
    /// Threads of one evaluation on a CPU (default: the cores, divided by `cpu_slots`).
    pub threads: Option<usize>,
    /// Threads of a merge (default: one for every core).
    pub merge_threads: Option<usize>,
    /// The most memory that a merge may take, beside the files it reads.
    pub merge_memory: Option<u64>,
    /// Bytes that merged models may take at any time; `None`: as much as is free, `limits.merges_per_pass` models ahead.
    pub disk: Option<u64>,
    /// Where merged models lie while they are needed (default: in the folder of their trial).
    pub work_dir: Option<PathBuf>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            gpus: None,
            gpus_per_evaluation: 1,
            slots_per_gpu: 1,
            cpu_slots: 1,
            threads: None,
            merge_threads: None,
            merge_memory: None,
            disk: None,
            work_dir: None,
        }
    }
}

/// Which merged models stay once they are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// All.
    All,
    /// So many, by one column or by the mean of the ranks in all.
    Best {
        /// How many.
        count: usize,
        /// The column.
        column: Option<String>,
    },
    /// Those that no other one equals or beats in every column.
    Pareto,
}

/// Reads `resources`. Paths start at `root`.
pub fn resources(field: Option<&Field<'_>>, root: &Path, problems: &mut Problems) -> Resources {
    let mut resources = Resources::default();
    let Some(mut table) = field.and_then(|field| field.table(&keys::RESOURCES, problems)) else {
        return resources;
    };
    if let Some(field) = table.optional("gpus") {
        resources.gpus = gpus(&field, problems);
    }
    let per_evaluation = table.optional("gpus_per_evaluation");
    if let Some(needed) = per_evaluation.as_ref().and_then(|field| field.whole(1, problems)) {
        resources.gpus_per_evaluation = usize::try_from(needed).unwrap_or(usize::MAX);
    }
    let n_named = resources.gpus.as_ref().map_or(0, Vec::len);
    if let Some(field) = per_evaluation.filter(|_| (1..resources.gpus_per_evaluation).contains(&n_named)) {
        let message = format!("an evaluation takes {} GPUs, and `gpus` names {n_named}", resources.gpus_per_evaluation);
        field.problem(Code::NoGpu, message, Some("name more GPUs, or take fewer for each".to_owned()), problems);
    }
    let mut count = |key, into: &mut usize| {
        if let Some(found) = table.optional(key).and_then(|field: Field<'_>| field.whole(1, problems)) {
            *into = usize::try_from(found).unwrap_or(usize::MAX);
        }
    };
    count("slots_per_gpu", &mut resources.slots_per_gpu);
    count("cpu_slots", &mut resources.cpu_slots);
    let (mut threads, mut merge_threads) = (0, 0);
    count("threads", &mut threads);
    count("merge_threads", &mut merge_threads);
    resources.threads = (threads > 0).then_some(threads);
    resources.merge_threads = (merge_threads > 0).then_some(merge_threads);
    if let Some(field) = table.optional("merge_memory") {
        resources.merge_memory = bytes(&field, problems);
    }
    if let Some(field) = table.optional("disk") {
        resources.disk = bytes(&field, problems);
    }
    if let Some(field) = table.optional("work_dir") {
        resources.work_dir = field.text(problems).map(|text| root.join(text));
    }
    table.finish(problems);
    resources
}

fn gpus(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    const EXPECTED: &str = "`auto` or a list of GPUs, such as `[0, 1]`";
    if field.node.as_text() == Some("auto") {
        return None;
    }
    let items = field.list(EXPECTED, problems)?;
    Some(items.iter().filter_map(|item| item.scalar(problems)).map(ToString::to_string).collect())
}

/// A size on disk or in memory.
pub(super) fn bytes(field: &Field<'_>, problems: &mut Problems) -> Option<u64> {
    let bytes = match &field.node.value {
        Value::Scalar(Scalar::Int(bytes)) => u64::try_from(*bytes).ok(),
        Value::Scalar(Scalar::Text(text)) => size(text),
        _ => None,
    };
    let bytes = bytes.filter(|bytes| *bytes > 0);
    if bytes.is_none() {
        field.expected("a size such as `200GB` or `512MiB`", problems);
    }
    bytes
}

fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let text = text.trim();
    let (number, unit) = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))?;
    let number: f64 = number.trim().parse().ok()?;
    // Saturates; no disk has as many bytes.
    (number.is_finite() && number > 0.0).then_some((number * *unit as f64) as u64)
}

/// Reads `limits.keep`.
pub fn keep(field: &Field<'_>, problems: &mut Problems) -> Keep {
    let keep = field.node.as_text().and_then(|text| match text {
        "none" => Some(Keep::Nothing),
        "all" => Some(Keep::All),
        "pareto" => Some(Keep::Pareto),
        _ => {
            let best = text.strip_prefix("best:")?;
            let (count, column) = best.split_once(':').map_or((best, None), |(count, column)| (count, Some(column)));
            let count = count.parse().ok().filter(|count| *count > 0)?;
            Some(Keep::Best { count, column: column.map(str::to_owned) })
        }
    });
    keep.unwrap_or_else(|| {
        field.expected("`none`, `all`, `pareto`, `best:3` (by mean rank) or `best:3:COLUMN`", problems);
        Keep::Nothing
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        let found = ["200GB", "1.5 TiB", "512MiB", "12", "-1GB", "GB", "5 apples"].map(size);
        let expected = [Some(200_000_000_000), Some(1_649_267_441_664), Some(536_870_912), None, None, None, None];
        assert_eq!(found, expected);
    }
}
