//! What a run is asked to do, and the places where it evaluates.

use std::path::PathBuf;
use std::time::Duration;

use super::search;
use super::store::Store;
use crate::config::Scalar;
use crate::eval::Settings;
use crate::eval::preflight::{self, VISIBLE_GPUS};
use crate::eval::secrets::Secrets;
use crate::model::locate::Locator;
use crate::plan::Plan;
use crate::spec::{Keep, Search, TwinEvaluation};

/// Everything a run needs to know.
#[derive(Debug, Clone)]
pub struct Request {
    /// The whole plan.
    pub plan: Plan,
    /// Trials to work on, by position in the plan.
    pub selected: Vec<usize>,
    /// Trials to do again from scratch, by position in the plan.
    pub redo: Vec<usize>,
    /// Whether another task has just made the merges of those again: only the evaluations are left.
    pub merges_redone: bool,
    /// How models are evaluated.
    pub settings: Settings,
    /// This program, which makes merges in processes of its own.
    pub program: PathBuf,
    /// Which merged models stay once they are scored.
    pub keep: Keep,
    /// How trials are evaluated that are one merge but for rounding.
    pub twins: TwinEvaluation,
    /// Which trials go on, decided on a growing part of the documents; none: all are asked everything.
    pub search: Option<Search>,
    /// How the plan grows where the search places points of its own.
    pub grow: Option<search::Grow>,
    /// Whether models stay once they are scored, as long as there is room: another rung asks them more.
    pub holds: bool,
    /// Where evaluations run: one at a time in each. Without any, merges are made and nothing is evaluated.
    pub slots: Vec<Slot>,
    /// Merges that are made in one pass at most. Passes are made one at a time.
    pub merges_per_pass: usize,
    /// Threads of a merge; one for every core otherwise.
    pub merge_threads: Option<usize>,
    /// Bytes of memory that a pass of merges may take, beside the files it reads.
    pub merge_memory: Option<u64>,
    /// Longest time a pass of merges may take.
    pub merge_timeout: Option<Duration>,
    /// Bytes that merged models may take.
    pub disk: Option<u64>,
    /// How often what may pass is tried again.
    pub retries: u32,
    /// Whether the first failure keeps what is not begun from beginning.
    pub fail_fast: bool,
    /// Where everything goes.
    pub store: Store,
    /// Where models are.
    pub locator: Locator,
    /// The user's tokens and keys, which go to the harness and nowhere else.
    pub secrets: Secrets,
}

/// A place for one evaluation at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its GPUs, by number or UUID; none: the CPU.
    pub gpus: Vec<String>,
    /// GPUs that an evaluation needs besides, and that are not here: nothing can run in it.
    pub n_lacking: usize,
    /// Threads on the CPU.
    pub threads: Option<usize>,
}

impl Slot {
    /// Settings of the harness that say where it runs. They are no part of a key: where something runs does not decide
    /// what comes out.
    pub(super) fn fit(&self, settings: &mut Settings) {
        if self.gpus.is_empty() {
            return;
        }
        settings.environment.insert(VISIBLE_GPUS.to_owned(), self.gpus.join(","));
        let n_gpus = i64::try_from(self.gpus.len()).unwrap_or(1);
        let spread = match settings.model.as_str() {
            _ if n_gpus < 2 => None,
            "vllm" => Some(("tensor_parallel_size", Scalar::Int(n_gpus))),
            "sglang" => Some(("tp_size", Scalar::Int(n_gpus))),
            "hf" | "hf-auto" | "huggingface" => Some(("parallelize", Scalar::Bool(true))),
            _ => None,
        };
        if let Some((name, value)) = spread {
            settings.model_args.entry(name.to_owned()).or_insert(value);
        }
    }
}

/// The settings of a request with the GPUs of all slots: whether the harness sees these is asked once.
pub(super) fn on_all_slots(request: &Request) -> Settings {
    let mut gpus: Vec<String> = Vec::new();
    for gpu in request.slots.iter().flat_map(|slot| &slot.gpus) {
        if !gpus.contains(gpu) {
            gpus.push(gpu.clone());
        }
    }
    let mut settings = request.settings.clone();
    if !gpus.is_empty() {
        settings.environment.insert(VISIBLE_GPUS.to_owned(), gpus.join(","));
    }
    settings
}

/// What is asked for by slots that nothing can run in.
pub(super) fn short_of_gpus(request: &Request) -> Option<preflight::Problem> {
    let Slot { gpus, n_lacking, .. } = request.slots.iter().find(|slot| slot.n_lacking > 0)?;
    Some(preflight::Problem::NoGpu {
        asked_by: "`gpus_per_evaluation`".to_owned(),
        n_asked: gpus.len() + n_lacking,
        n_seen: gpus.len(),
        python: request.settings.python.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(model: &str, gpus: &[&str], args: &[(&str, Scalar)]) -> (Option<String>, Vec<String>) {
        let mut settings = crate::spec::evaluate::defaults();
        model.clone_into(&mut settings.model);
        settings.model_args = args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let gpus = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
        Slot { gpus, ..Slot::default() }.fit(&mut settings);
        let args = settings.model_args.iter().map(|(name, value)| format!("{name}={value}"));
        (settings.environment.get("CUDA_VISIBLE_DEVICES").cloned(), args.collect())
    }

    #[test]
    fn a_slot_shows_an_evaluation_its_own_gpus_and_spreads_the_model_over_them() {
        assert_eq!(fitted("hf", &[], &[]), (None, vec![]));
        assert_eq!(fitted("hf", &["3"], &[]), (Some("3".to_owned()), vec![]));
        for (model, expected) in [
            ("hf", vec!["parallelize=true"]),
            ("vllm", vec!["tensor_parallel_size=2"]),
            ("sglang", vec!["tp_size=2"]),
            ("dummy", vec![]),
        ] {
            let (gpus, args) = fitted(model, &["2", "GPU-7"], &[]);
            assert_eq!((gpus.as_deref(), args), (Some("2,GPU-7"), expected.into_iter().map(str::to_owned).collect()));
        }
        let own = fitted("vllm", &["0", "1"], &[("tensor_parallel_size", Scalar::Int(1))]);
        assert_eq!(own.1, ["tensor_parallel_size=1"], "what the spec says stays");
    }
}
