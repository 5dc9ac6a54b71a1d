//! Near twins: merges whose results differ by so little of what their models differ by that scores cannot tell them apart.
//! Before a run the engine's kernels make sampled rows of every merge; after it there are the samples that were taken while
//! the merges were written. Every pair of merges is compared.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::Request;
use super::health::Findings;
use super::models::Models;
use super::sample::Site;
use crate::config::Numerics;
use crate::merge::excerpt::{self, Rows, Wanted};
use crate::merge::recipe::Recipe;
use crate::merge::sample::{Sample, Sampled};
use crate::merge::source::Source;
use crate::merge::{MergeOptions, Pool, TokenizerFiles};
use crate::plan::{Plan, Subject, Trial};

/// Merges that are compared at most: the first of the plan, since neighbours in a grid are the nearest.
const MOST: usize = 256;

/// Merges are near twins up to this share of what their models differ by, before results are rounded: rounding to 16 bits
/// moves the weights of light fine-tunes by some percent of it, in directions of no meaning.
pub const NEAR: f64 = 0.02;

/// Every so many-th number of the sampled rows is kept for comparisons.
const EVERY: usize = 8;

/// What two merges differ by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Apart {
    /// Numbers of the trials in the plan.
    pub trials: [usize; 2],
    /// `|a − b| / |a|` of the weights as they are written.
    pub distance: f64,
    /// Cosine of the angle between the weights as they are written.
    pub cosine: f64,
    /// `|a − b|` before rounding, in units of what the models that are merged differ by.
    pub share: f64,
    /// The same of the weights as they are written.
    pub rounded_share: f64,
    /// How far rounding moved the weights of that merge of the two which it moved less, in the same units.
    pub rounding: f64,
}

impl Apart {
    /// Whether scores cannot tell the two apart.
    fn is_near(&self) -> bool {
        self.share <= NEAR
    }

    /// Whether the two differ by no more than rounding moved either of them.
    pub fn is_within_rounding(&self) -> bool {
        self.rounding > 0.0 && self.share <= self.rounding
    }
}

/// Near twins: every one to every other.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Numbers of the trials in the plan, in order.
    pub trials: Vec<usize>,
    /// The two of them that differ the most.
    pub widest: Apart,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Near {
    /// Merges in the plan that are not exact twins of earlier ones.
    pub n_merges: usize,
    /// Merges that were looked at.
    pub n_looked_at: usize,
    /// Pairs that were compared.
    pub n_pairs: usize,
    /// Near twins.
    pub groups: Vec<Group>,
    /// Others that are within rounding of each other: changes so light that rounding is of their size.
    pub blurred: Vec<Group>,
    /// The nearest pair that is none.
    pub next: Option<Apart>,
}

/// A merge with its results so far.
struct Merge {
    trial: usize,
    numerics: Numerics,
    recipes: BTreeMap<String, Recipe>,
    sources: Vec<Source>,
    /// By site.
    results: Vec<Option<Sampled>>,
}

/// The results of all merges.
pub struct Outputs {
    merges: Vec<Merge>,
    n_merges: usize,
}

impl Outputs {
    /// Plans the merges as the engine would. What it refuses is a finding.
    pub fn new(request: &Request<'_>, models: &mut Models, sites: &[Site], findings: &mut Findings<'_>) -> Self {
        let plan = request.plan;
        let locate = Models::locate(request);
        let mut outputs = Self { merges: Vec::new(), n_merges: 0 };
        let mut pool = Pool::default();
        for (number, trial) in plan.trials.iter().enumerate() {
            let Subject::Merge { config, seed, numerics } = &trial.subject else { continue };
            let is_new = plan.review.twins.leader(number).is_none();
            outputs.n_merges += usize::from(is_new && !trial.baseline);
            let is_here = config.models().iter().all(|model| models.place(model).is_some());
            if !is_new || trial.baseline || !is_here || outputs.merges.len() >= MOST {
                continue;
            }
            // Whether a tokenizer is there is looked at with the models: reading it for every merge would take long.
            let options = MergeOptions {
                seed: *seed,
                numerics: *numerics,
                tokenizer: TokenizerFiles::Skip,
                ..MergeOptions::default()
            };
            match pool.plan(config, &locate, "", &options) {
                Ok(planned) => {
                    let is_sampled = |recipe: &Recipe| sites.iter().any(|site| is_at(recipe, site));
                    let recipes = planned.recipes.recipes.into_iter().filter(is_sampled);
                    let recipes = recipes.map(|recipe| (recipe.name.clone(), recipe)).collect();
                    let (sources, results) = (planned.sources, Vec::new());
                    outputs.merges.push(Merge { trial: number, numerics: *numerics, recipes, sources, results });
                }
                Err(error) => findings.unmergeable_trial(number, config, &error.to_string()),
            }
        }
        outputs
    }

    /// Makes the rows of one tensor, of every merge.
    pub fn take(&mut self, site: &Site, models: &Models, known: &[Option<Rows>]) {
        let mut rows: Vec<Rows> = Vec::new();
        let mut places: BTreeMap<(usize, String), Option<usize>> = BTreeMap::new();
        let mut place_of = |source: &Source, tensor: &str| -> Option<usize> {
            let model = models.place(&source.model)?;
            *places.entry((model, tensor.to_owned())).or_insert_with(|| {
                let found = if tensor == site.tensor {
                    known[model].clone()
                } else {
                    source.rows(tensor, &site.rows).ok()?.map(|(bytes, stored)| Rows { bytes, stored })
                };
                let fits = |rows: &Rows| rows.bytes.len() == site.n_numbers() * rows.stored.size();
                rows.push(found.filter(fits)?);
                Some(rows.len() - 1)
            })
        };
        let mut wanted: Vec<(usize, Wanted<'_>)> = Vec::new();
        for (number, merge) in self.merges.iter().enumerate() {
            let Some(recipe) = merge.recipes.get(&site.tensor) else { continue };
            let inputs = recipe.inputs.iter().map(|input| place_of(&merge.sources[input.source], &input.tensor));
            let Some(inputs) = inputs.collect::<Option<Vec<usize>>>() else { continue };
            let (operation, working, rounded) = (&recipe.operation, recipe.working, [recipe.result, recipe.out]);
            wanted.push((number, Wanted { operation, inputs, working, rounded, numerics: merge.numerics }));
        }
        let (numbers, wanted): (Vec<usize>, Vec<Wanted<'_>>) = wanted.into_iter().unzip();
        let apart = distances(&rows);
        let spread = |inputs: &[usize]| {
            let pairs = inputs.iter().flat_map(|one| inputs.iter().map(move |other| (*one, *other)));
            pairs.map(|(one, other)| apart[one][other]).fold(0.0, f64::max)
        };
        let computed = excerpt::compute(&rows, &site.shape(), &wanted, EVERY);
        let mut results: BTreeMap<usize, Sampled> = BTreeMap::new();
        for ((number, wanted), made) in numbers.into_iter().zip(&wanted).zip(computed) {
            // Every site counts as much: few tensors of each kind are looked at.
            let sampled = |made| Sampled { made, spread: spread(&wanted.inputs), stands_for: 1.0 };
            results.extend(made.map(|made| (number, sampled(made))));
        }
        for (number, merge) in self.merges.iter_mut().enumerate() {
            merge.results.push(results.remove(&number));
        }
    }

    /// Compares every pair of merges. Twins that are known from their configs are left out.
    pub fn near(&self, plan: &Plan) -> Near {
        let compare = |one: &Merge, other: &Merge| {
            let results = one.results.iter().zip(&other.results).filter_map(both);
            apart([one.trial, other.trial], results)
        };
        let compared = pairs(plan, &self.merges, &|merge| merge.trial, &compare);
        Near { n_merges: self.n_merges, n_looked_at: self.merges.len(), ..Near::of(compared) }
    }
}

impl Near {
    /// Among merges that were made: by their samples, where one was kept. Samples of other shapes are not compared.
    pub fn of_made(plan: &Plan, sample_of: &dyn Fn(&Trial) -> Option<Sample>) -> Self {
        let merges = plan.trials.iter().enumerate().filter(|(_, trial)| !trial.baseline);
        let kept = merges.filter_map(|(number, trial)| Some((number, sample_of(trial)?)));
        let samples: Vec<(usize, Sample)> = kept.take(MOST).collect();
        let compare = |(one, left): &(usize, Sample), (other, right): &(usize, Sample)| {
            let results = left.tensors.values().zip(right.tensors.values());
            left.is_like(right).then(|| apart([*one, *other], results)).flatten()
        };
        let compared = pairs(plan, &samples, &|(trial, _)| *trial, &compare);
        let n_merges = plan.trials.iter().filter(|trial| !trial.baseline).count();
        Self { n_merges, n_looked_at: samples.len(), ..Self::of(compared) }
    }

    /// From pairs in order of their distance.
    fn of(compared: Vec<Apart>) -> Self {
        let (near, others): (Vec<Apart>, Vec<Apart>) = compared.iter().copied().partition(|apart| apart.is_near());
        let within = compared.iter().filter(|apart| apart.is_near() || apart.is_within_rounding()).copied();
        let mut blurred = groups(&within.collect::<Vec<Apart>>());
        blurred.retain(|group| !group.widest.is_near());
        let (n_pairs, next) = (compared.len(), others.first().copied());
        Self { n_pairs, groups: groups(&near), blurred, next, ..Self::default() }
    }
}

/// What the pairs of some merges differ by, the nearest first. Twins that are known from their configs are left out.
fn pairs<T: Sync>(
    plan: &Plan,
    merges: &[T],
    trial_of: &(dyn Fn(&T) -> usize + Sync),
    compare: &(dyn Fn(&T, &T) -> Option<Apart> + Sync),
) -> Vec<Apart> {
    let pairs: Vec<[&T; 2]> = merges
        .iter()
        .enumerate()
        .flat_map(|(place, first)| merges[place + 1..].iter().map(move |second| [first, second]))
        .filter(|pair| !are_known(plan, pair.map(trial_of)))
        .collect();
    let compared: Vec<Option<Apart>> = pairs.par_iter().map(|[first, second]| compare(first, second)).collect();
    let mut compared: Vec<Apart> = compared.into_iter().flatten().collect();
    compared.sort_by(|one, other| one.share.total_cmp(&other.share).then(one.trials.cmp(&other.trials)));
    compared
}

/// Whether two trials are twins by their configs.
fn are_known(plan: &Plan, trials: [usize; 2]) -> bool {
    let twins = &plan.review.twins;
    let groups = || twins.exact.iter().chain(&twins.rounding);
    groups().any(|group| trials.iter().all(|trial| group.contains(trial)))
}

/// Whether the rows of a site are rows of a recipe's inputs as they lie.
fn is_at(recipe: &Recipe, site: &Site) -> bool {
    recipe.name == site.tensor && recipe.shape == site.whole && !recipe.is_laid_out()
}

/// Squares of the distances between rows, of the numbers that are kept.
fn distances(rows: &[Rows]) -> Vec<Vec<f64>> {
    let numbers: Vec<Vec<f32>> = rows.iter().map(|rows| rows.numbers().into_iter().step_by(EVERY).collect()).collect();
    let square = |one: &Vec<f32>, other: &Vec<f32>| {
        one.iter().zip(other).map(|(one, other)| (f64::from(*one) - f64::from(*other)).powi(2)).sum::<f64>()
    };
    numbers.iter().map(|one| numbers.iter().map(|other| square(one, other)).collect()).collect()
}

/// What two merges differ by, from the same numbers of both; none where they have nothing in common or their models do not
/// differ.
fn apart<'a>(trials: [usize; 2], results: impl Iterator<Item = (&'a Sampled, &'a Sampled)>) -> Option<Apart> {
    let square = |one: &[f32], other: &[f32]| {
        one.iter().zip(other).map(|(one, other)| (f64::from(*one) - f64::from(*other)).powi(2)).sum::<f64>()
    };
    let (mut first, mut second, mut product, mut difference) = (0.0, 0.0, 0.0, 0.0);
    let (mut unrounded, mut spread, mut rounding) = (0.0, 0.0, [0.0; 2]);
    for (left, right) in results {
        let (weight, made) = (left.stands_for, [&left.made, &right.made]);
        for (left, right) in left.made.rounded.iter().zip(&right.made.rounded) {
            let (left, right) = (f64::from(*left), f64::from(*right));
            first += weight * left * left;
            second += weight * right * right;
            product += weight * left * right;
        }
        difference += weight * square(&left.made.rounded, &right.made.rounded);
        unrounded += weight * square(&left.made.unrounded, &right.made.unrounded);
        for (rounding, made) in rounding.iter_mut().zip(made) {
            *rounding += weight * square(&made.unrounded, &made.rounded);
        }
        spread += weight * left.spread.min(right.spread);
    }
    (first > 0.0 && second > 0.0 && spread > 0.0).then(|| Apart {
        trials,
        distance: (difference / first).sqrt(),
        cosine: (product / (first * second).sqrt()).clamp(-1.0, 1.0),
        share: (unrounded / spread).sqrt(),
        rounded_share: (difference / spread).sqrt(),
        rounding: (rounding[0].min(rounding[1]) / spread).sqrt(),
    })
}

fn both<'a, T>((one, other): (&'a Option<T>, &'a Option<T>)) -> Option<(&'a T, &'a T)> {
    Some((one.as_ref()?, other.as_ref()?))
}

/// Groups in which every two are near, from pairs in order of their distance: a chain of near ones whose ends are far from
/// each other is several groups.
fn groups(near: &[Apart]) -> Vec<Group> {
    let set: BTreeSet<[usize; 2]> = near.iter().map(|apart| apart.trials).collect();
    let is_near = |one: usize, other: usize| set.contains(&[one.min(other), one.max(other)]);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for Apart { trials, .. } in near {
        let of = |groups: &[Vec<usize>], trial| groups.iter().position(|group| group.contains(&trial));
        let mut take = |trial: usize| {
            of(&groups, trial).unwrap_or_else(|| {
                groups.push(vec![trial]);
                groups.len() - 1
            })
        };
        let (first, second) = (take(trials[0]), take(trials[1]));
        let fit = groups[first].iter().all(|one| groups[second].iter().all(|other| is_near(*one, *other)));
        if first != second && fit {
            let (first, second) = (first.min(second), first.max(second));
            let moved = groups.remove(second);
            groups[first].extend(moved);
        }
    }
    let mut groups: Vec<Group> = groups
        .into_iter()
        .filter_map(|mut trials| {
            trials.sort_unstable();
            let is_inside = |apart: &&Apart| apart.trials.iter().all(|trial| trials.contains(trial));
            let widest = near.iter().rfind(is_inside).copied()?;
            Some(Group { trials, widest })
        })
        .collect();
    groups.sort_by(|one, other| one.trials.cmp(&other.trials));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::excerpt::Made;

    #[test]
    fn a_chain_of_near_ones_is_cut_where_its_ends_are_far() {
        let apart = |one, other, share| Apart {
            trials: [one, other],
            distance: 0.0,
            cosine: 1.0,
            share,
            rounded_share: share,
            rounding: 0.0,
        };
        let near = [apart(1, 2, 0.001), apart(2, 3, 0.002), apart(3, 4, 0.003), apart(5, 6, 0.004)];
        let found: Vec<Vec<usize>> = groups(&near).into_iter().map(|group| group.trials).collect();
        assert_eq!(found, [vec![1, 2], vec![3, 4], vec![5, 6]]);
        let all = [apart(1, 2, 0.001), apart(2, 3, 0.002), apart(1, 3, 0.003)];
        let found = groups(&all);
        assert_eq!((found.len(), found[0].trials.len(), found[0].widest.share), (1, 3, 0.003));
    }

    #[test]
    fn what_is_within_rounding_is_told_apart_from_near_twins() {
        let apart = |one, other, share, rounding| Apart {
            trials: [one, other],
            distance: 0.0,
            cosine: 1.0,
            share,
            rounded_share: share,
            rounding,
        };
        let pairs = vec![apart(1, 2, 0.01, 0.3), apart(1, 3, 0.2, 0.3), apart(2, 3, 0.21, 0.3), apart(3, 4, 0.4, 0.3)];
        let near = Near::of(pairs);
        let trials = |groups: &[Group]| groups.iter().map(|group| group.trials.clone()).collect::<Vec<_>>();
        assert_eq!((trials(&near.groups), trials(&near.blurred)), (vec![vec![1, 2]], vec![vec![1, 2, 3]]));
        assert_eq!(near.next.map(|next| next.trials), Some([1, 3]));
        // Rounding that moves nothing says nothing.
        assert_eq!(Near::of(vec![apart(1, 2, 0.0, 0.0), apart(3, 4, 0.5, 0.0)]).blurred, []);
    }

    #[test]
    fn distances_are_of_the_whole_and_in_units_of_what_the_models_differ_by() {
        let sampled = |unrounded: &[f32], rounded: &[f32], spread, stands_for| Sampled {
            made: Made { unrounded: unrounded.to_vec(), rounded: rounded.to_vec() },
            spread,
            stands_for,
        };
        let left = [sampled(&[0.75, 1.25], &[1.0, 1.0], 4.0, 1.0), sampled(&[2.0], &[2.0], 1.0, 4.0)];
        let right = [sampled(&[1.0, 1.25], &[1.0, 1.0], 5.0, 1.0), sampled(&[2.5], &[3.0], 1.0, 4.0)];
        let found = apart([1, 2], left.iter().zip(&right)).unwrap();
        // Spread 4 + 4; squares before rounding 0.0625 + 4 · 0.25, as written 4 · 1; moved by rounding 0.125, and 0.0625 + 4 · 0.25.
        assert_eq!(found.share, (1.0625_f64 / 8.0).sqrt());
        assert_eq!(found.rounded_share, (4.0_f64 / 8.0).sqrt());
        assert_eq!(found.rounding, (0.125_f64 / 8.0).sqrt());
        assert_eq!(found.distance, (4.0_f64 / 18.0).sqrt());
        // Models that do not differ are no measure.
        let same = [sampled(&[1.0], &[1.0], 0.0, 1.0)];
        assert_eq!(apart([1, 2], same.iter().zip(&same)), None);
    }
}
