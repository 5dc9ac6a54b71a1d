//! How far models are from each other, layer by layer, and how their changes of a common base meet: cosine, and the share of
//! numbers that both change in opposite directions. Taken from sampled rows; of matrices alone, since norms are near 1 in
//! every model.

use std::collections::BTreeMap;

use super::models::Models;
use super::sample::Site;
use crate::config::method::Inputs;
use crate::merge::excerpt::Rows;
use crate::plan::{Plan, Subject};

/// Most models whose kinship is looked at.
const MOST: usize = 24;

/// Sums over the numbers of two models, of matrices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    first: f64,
    second: f64,
    product: f64,
    difference: f64,
}

/// Two models.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Their places; of a base and its fine-tune, the base first.
    pub models: [usize; 2],
    /// How they meet in a merge.
    pub kind: Kind,
    /// By layer, and of what is outside the layers.
    pub layers: BTreeMap<Option<usize>, Sums>,
    /// Tensors that are equal in all sampled rows.
    pub n_equal: usize,
    /// Tensors that both have in one shape.
    pub n_tensors: usize,
}

/// How two models meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// In no merge.
    Strangers,
    /// Merged, none of them the base of the other.
    Beside,
    /// The first is the base that the second is taken to be a change of.
    Base,
}

/// Two changes of one base.
#[derive(Debug, Clone, PartialEq)]
pub struct Meeting {
    /// Place of the base.
    pub base: usize,
    /// Places of the models.
    pub models: [usize; 2],
    sums: Sums,
    n_both: u64,
    n_opposed: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Kinship {
    /// Every pair of models.
    pub pairs: Vec<Pair>,
    /// Every pair of changes that are merged.
    pub meetings: Vec<Meeting>,
    n_models: usize,
}

impl Sums {
    fn add(&mut self, first: f64, second: f64) {
        self.first += first * first;
        self.second += second * second;
        self.product += first * second;
        self.difference += (first - second) * (first - second);
    }

    fn with(self, other: Self) -> Self {
        Self {
            first: self.first + other.first,
            second: self.second + other.second,
            product: self.product + other.product,
            difference: self.difference + other.difference,
        }
    }

    /// `|second − first| / |first|`.
    pub fn distance(&self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { (self.difference / self.first).sqrt() }
    }

    /// The cosine of the angle between them; none where one is zero.
    pub fn cosine(&self) -> Option<f64> {
        let norms = (self.first * self.second).sqrt();
        (norms > 0.0).then(|| (self.product / norms).clamp(-1.0, 1.0))
    }
}

impl Pair {
    /// Over everything that was looked at.
    pub fn all(&self) -> Sums {
        self.layers.values().fold(Sums::default(), |all, of| all.with(*of))
    }

    /// Distances of the layers, in order.
    pub fn distances(&self) -> Vec<(usize, f64)> {
        self.layers.iter().filter_map(|(layer, sums)| Some(((*layer)?, sums.distance()))).collect()
    }

    /// Whether they are equal wherever they were looked at.
    pub fn is_equal(&self) -> bool {
        self.n_tensors > 0 && self.n_equal == self.n_tensors
    }
}

impl Meeting {
    /// The cosine of the angle between the changes.
    pub fn cosine(&self) -> Option<f64> {
        self.sums.cosine()
    }

    /// Size of the second change, in sizes of the first.
    pub fn ratio(&self) -> Option<f64> {
        (self.sums.first > 0.0).then(|| (self.sums.second / self.sums.first).sqrt())
    }

    /// Of the numbers that both change, the share that they change in opposite directions; none where they change none
    /// together.
    pub fn opposed(&self) -> Option<f64> {
        (self.n_both > 0).then(|| self.n_opposed as f64 / self.n_both as f64)
    }
}

impl Kinship {
    /// What is to be found out about the models of a plan.
    pub fn new(plan: &Plan, models: &Models) -> Self {
        let n_models = models.0.len().min(MOST);
        let places = (0..n_models).flat_map(|first| (first + 1..n_models).map(move |second| [first, second]));
        let pair = |models| Pair { models, kind: Kind::Strangers, layers: BTreeMap::new(), n_equal: 0, n_tensors: 0 };
        let mut kinship = Self { pairs: places.map(pair).collect(), meetings: Vec::new(), n_models };
        for trial in &plan.trials {
            let Subject::Merge { config, .. } = &trial.subject else { continue };
            let has_ancestor = !matches!(config.method.spec().inputs, Inputs::Any | Inputs::BaseAndOne | Inputs::One);
            for slice in &config.slices {
                let place = |model| models.place(model).filter(|place| *place < n_models);
                let base = config.base_of(slice).filter(|_| has_ancestor).and_then(place);
                let sources = slice.sources.iter().filter_map(|source| place(&source.model));
                let sources: Vec<usize> = sources.filter(|source| Some(*source) != base).collect();
                for (number, model) in sources.iter().enumerate() {
                    base.iter().for_each(|base| kinship.note([*base, *model], Kind::Base));
                    for other in &sources[number + 1..] {
                        kinship.note([*model, *other], Kind::Beside);
                        base.iter().for_each(|base| kinship.meet(*base, [*model, *other]));
                    }
                }
            }
        }
        kinship
    }

    /// The pair of these models, whichever comes first.
    pub fn pair(&self, one: usize, other: usize) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.models == [one, other] || pair.models == [other, one])
    }

    fn note(&mut self, models: [usize; 2], kind: Kind) {
        let [one, other] = models;
        let is_it = |pair: &&mut Pair| pair.models == models || pair.models == [other, one];
        let Some(pair) = self.pairs.iter_mut().find(is_it) else { return };
        if kind > pair.kind {
            (pair.kind, pair.models) = (kind, models);
        }
    }

    fn meet(&mut self, base: usize, models: [usize; 2]) {
        let [one, other] = models;
        let is_it =
            |meeting: &Meeting| meeting.base == base && (meeting.models == models || meeting.models == [other, one]);
        if one != other && !self.meetings.iter().any(is_it) {
            self.meetings.push(Meeting { base, models, sums: Sums::default(), n_both: 0, n_opposed: 0 });
        }
    }

    /// Takes the rows of one tensor in, model by model.
    pub fn take(&mut self, site: &Site, rows: &[Option<Rows>]) {
        let numbers: Vec<Option<Vec<f32>>> =
            rows.iter().take(self.n_models).map(|rows| rows.as_ref().map(Rows::numbers)).collect();
        let of = |model: usize| numbers[model].as_deref().filter(|numbers| numbers.len() == site.n_numbers());
        for pair in &mut self.pairs {
            let [Some(first), Some(second)] = pair.models.map(of) else { continue };
            pair.n_tensors += 1;
            pair.n_equal += usize::from(first == second);
            if site.is_matrix {
                let sums = pair.layers.entry(site.layer).or_default();
                first.iter().zip(second).for_each(|(first, second)| sums.add(f64::from(*first), f64::from(*second)));
            }
        }
        for meeting in self.meetings.iter_mut().filter(|_| site.is_matrix) {
            let (Some(base), [Some(one), Some(other)]) = (of(meeting.base), meeting.models.map(of)) else { continue };
            for ((base, one), other) in base.iter().zip(one).zip(other) {
                let (one, other) = (f64::from(one - base), f64::from(other - base));
                meeting.sums.add(one, other);
                meeting.n_both += u64::from(one != 0.0 && other != 0.0);
                meeting.n_opposed += u64::from(one * other < 0.0);
            }
        }
    }
}
