//! Bytes: what the merges that are left write, what their passes read, and the disk that merged models need.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::words::bytes;
use crate::config::{MergeConfig, Numerics, Parameters, write};
use crate::merge::{BoxError, MergeOptions, MergePlan, Pool, TokenizerFiles};
use crate::model::{Located, ModelRef};
use crate::plan::Subject;
use crate::run::Request;
use crate::run::foresight::{Foresight, disk_peak, passes};

/// Merges that differ in more than their parameters and are planned at most; of the rest the size is not known.
const MOST_PLANNED: usize = 64;

/// Bytes of a sweep.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// Merges to be made, whose size is known.
    pub n_known: usize,
    /// Merges to be made.
    pub n_merges: usize,
    /// Passes that they are made in.
    pub n_passes: usize,
    /// Bytes of weights written by those whose size is known.
    pub written: u64,
    /// Bytes of weights read, every pass reading each tensor once.
    pub read: u64,
    /// Bytes that merged models need on disk at any time, at most.
    pub peak: u64,
    /// Bytes of merged models that are there now.
    pub held: u64,
    /// `resources.disk`.
    pub budget: Option<u64>,
    /// Free bytes where merged models go.
    pub free: Option<u64>,
    /// Models that are not on this machine.
    pub absent: BTreeSet<String>,
    /// Why a merge cannot be planned.
    pub refused: Option<String>,
    /// Bytes written, pass by pass, where the size of all its merges is known.
    pub of_passes: Vec<Option<u64>>,
}

/// What is known of merges that differ in their parameters alone.
struct Kind {
    models: Vec<ModelRef>,
    size: Option<Size>,
}

/// Bytes written by one of them, and what it reads: by file and tensor.
#[derive(Clone)]
struct Size {
    written: u64,
    reads: Arc<BTreeMap<(usize, String), u64>>,
}

impl Volume {
    /// Of what is left.
    pub fn of(request: &Request, foresight: &Foresight) -> Self {
        let mut volume =
            Self { held: foresight.held, budget: request.disk, free: request.store.free_bytes(), ..Self::default() };
        let mut sizes = Sizes { pool: Pool::default(), kinds: Vec::new(), places: HashMap::new(), n_planned: 0 };
        let mut kinds: HashMap<usize, usize> = HashMap::new();
        let merges: Vec<usize> =
            foresight.trials.iter().filter(|trial| trial.merges).map(|trial| trial.index).collect();
        for index in &merges {
            let Subject::Merge { config, numerics, .. } = &request.plan.trials[*index].subject else { continue };
            kinds.insert(*index, sizes.kind(request, config, *numerics, &mut volume));
        }
        let kind = |index: usize| kinds.get(&index).map(|kind| &sizes.kinds[*kind]);
        let shares = |one: usize, other: usize| match (kind(one), kind(other)) {
            (Some(one), Some(other)) => one.models.iter().any(|model| other.models.contains(model)),
            _ => false,
        };
        volume.n_merges = merges.len();
        let written: Vec<u64> =
            merges.iter().filter_map(|index| kind(*index)?.size.as_ref()).map(|size| size.written).collect();
        volume.n_known = written.len();
        volume.written = written.iter().sum();
        volume.peak = disk_peak(request, foresight.held, &written);
        let largest = written.iter().max().copied().unwrap_or_default();
        let per_pass = per_pass(request, volume.free, largest);
        let mut unions: HashMap<Vec<usize>, u64> = HashMap::new();
        for pass in passes(&merges, per_pass, &shares) {
            let mut of_pass: Vec<usize> = pass.iter().filter_map(|index| kinds.get(index).copied()).collect();
            of_pass.sort_unstable();
            of_pass.dedup();
            volume.n_passes += 1;
            volume.read += *unions.entry(of_pass).or_insert_with_key(|kinds| read_by(kinds, &sizes.kinds));
            volume.of_passes.push(pass.iter().map(|index| Some(kind(*index)?.size.as_ref()?.written)).sum());
        }
        volume
    }

    /// Bytes of a merge, as a rule.
    pub fn typical(&self) -> Option<u64> {
        self.written.checked_div(self.n_known as u64)
    }

    /// Whether the size of every merge is known.
    pub fn is_known(&self) -> bool {
        self.n_known == self.n_merges
    }

    /// Why there is no room for all, or for one.
    pub fn shortage(&self) -> Option<String> {
        let one = self.typical().filter(|_| self.n_known > 0)?;
        let (limit, name) = match (self.budget, self.free) {
            (Some(budget), Some(free)) if free < budget => (free, "free space"),
            (Some(budget), _) => (budget, "`resources.disk`"),
            (None, free) => (free?, "free space"),
        };
        if one > limit {
            return Some(format!("no merge fits: {} is less than one of {}", name, bytes(one)));
        }
        let is_short = self.peak.saturating_sub(self.held) > limit;
        is_short.then(|| format!("{name} of {} holds up merges: they wait until others are scored", bytes(limit)))
    }
}

/// As many as a pass makes at most, and as there is room for.
fn per_pass(request: &Request, free: Option<u64>, largest: u64) -> usize {
    let room = match (request.disk, free) {
        (Some(budget), Some(free)) => Some(budget.min(free)),
        (budget, free) => budget.or(free),
    };
    let fit =
        room.filter(|_| largest > 0).map_or(usize::MAX, |room| usize::try_from(room / largest).unwrap_or(usize::MAX));
    request.merges_per_pass.max(1).min(fit.max(1))
}

/// Bytes that a pass of merges of these kinds reads.
fn read_by(kinds: &[usize], all: &[Kind]) -> u64 {
    let sizes: Vec<&Size> = kinds.iter().filter_map(|kind| all[*kind].size.as_ref()).collect();
    match sizes.as_slice() {
        [] => 0,
        [only] => only.reads.values().sum(),
        several => {
            let mut union: BTreeMap<&(usize, String), u64> = BTreeMap::new();
            several.iter().for_each(|size| union.extend(size.reads.iter().map(|(key, bytes)| (key, *bytes))));
            union.values().sum()
        }
    }
}

struct Sizes {
    pool: Pool,
    kinds: Vec<Kind>,
    places: HashMap<String, usize>,
    n_planned: usize,
}

impl Sizes {
    fn kind(&mut self, request: &Request, config: &MergeConfig, numerics: Numerics, volume: &mut Volume) -> usize {
        let key = format!("{numerics}\n{}", write::canonical(&without_parameters(config)));
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let models = config.models().into_iter().cloned().collect();
        let size = if self.n_planned < MOST_PLANNED { self.plan(request, config, numerics, volume) } else { None };
        self.n_planned += 1;
        self.kinds.push(Kind { models, size });
        self.places.insert(key, self.kinds.len() - 1);
        self.kinds.len() - 1
    }

    fn plan(
        &mut self,
        request: &Request,
        config: &MergeConfig,
        numerics: Numerics,
        volume: &mut Volume,
    ) -> Option<Size> {
        let on_disk = |model: &ModelRef| request.locator.locate_on_disk(model).ok().flatten();
        let absent: Vec<String> =
            config.models().into_iter().filter(|model| on_disk(model).is_none()).map(ToString::to_string).collect();
        if !absent.is_empty() {
            volume.absent.extend(absent);
            return None;
        }
        let locate = |model: &ModelRef| -> Result<Located, BoxError> {
            on_disk(model).ok_or_else(|| format!("`{model}` is not on this machine").into())
        };
        let options = MergeOptions { numerics, tokenizer: TokenizerFiles::Skip, ..MergeOptions::default() };
        match self.pool.plan(config, &locate, "", &options) {
            Ok(plan) => Some(Size { written: plan.n_bytes(), reads: Arc::new(reads(&plan)) }),
            Err(error) => {
                volume.refused.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

/// Every tensor that a merge reads, with its bytes: of files by their place in memory, which is one for all that share them.
fn reads(plan: &MergePlan) -> BTreeMap<(usize, String), u64> {
    let mut reads = BTreeMap::new();
    for input in plan.recipes.recipes.iter().flat_map(|recipe| &recipe.inputs) {
        let source = &plan.sources[input.source];
        let place = Arc::as_ptr(&source.checkpoint) as usize;
        reads.insert((place, input.tensor.clone()), source.n_bytes(&input.tensor) as u64);
        if let Some(adapter) = &source.adapter {
            reads.insert((Arc::as_ptr(adapter) as usize, String::new()), adapter.n_bytes());
        }
    }
    reads
}

/// The config as far as it decides how large things are.
fn without_parameters(config: &MergeConfig) -> MergeConfig {
    let mut config = config.clone();
    (config.parameters, config.module_parameters) = (Parameters::new(), Parameters::new());
    for slice in &mut config.slices {
        slice.parameters = Parameters::new();
        slice.sources.iter_mut().for_each(|source| source.parameters = Parameters::new());
    }
    config
}
