//! A small sample of a merge, taken while it is written and kept when its weights are gone: by it, merges that come out nearly
//! the same are told.
//!
//! Which numbers are taken is a function of the output's shapes alone: the same places in every merge of one architecture,
//! however many threads make it. Each is kept as it is written and as it was before it was rounded, since rounding to 16 bits
//! hides how near two merges are; and with them how far the models were apart there.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::excerpt::Made;
use super::recipe::Recipe;

/// Numbers of a whole model, about.
const NUMBERS: usize = 1 << 13;

/// Numbers of a matrix, at least.
const FEWEST: usize = 8;

/// Numbers of a vector, at least.
const FEWEST_OF_VECTOR: usize = 2;

/// The sample of a merge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Digest of the weights that it is of.
    pub weights: String,
    /// By name of the tensor.
    pub tensors: BTreeMap<String, Sampled>,
}

/// Some numbers of one tensor of a merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// The numbers.
    pub made: Made,
    /// Square of the largest distance between two of the inputs, over the same numbers.
    pub spread: f64,
    /// Numbers of the tensor that each of these stands for.
    pub stands_for: f64,
}

/// One number of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Before it is rounded at the end.
    pub unrounded: f32,
    /// As it is written.
    pub rounded: f32,
    /// What it is made of, input by input.
    pub inputs: Vec<f32>,
}

/// Where numbers are taken: places in every tensor, in order.
#[derive(Debug)]
pub struct Places(Vec<Vec<usize>>);

impl Places {
    /// Of the tensors of a merge: as many of each as its share of the model is.
    pub fn of(recipes: &[Recipe]) -> Self {
        let whole: usize = recipes.iter().map(Recipe::n_elements).sum();
        Self(recipes.iter().map(|recipe| places(&recipe.shape, whole)).collect())
    }

    /// The places in a part of the tensor of a recipe.
    pub fn within(&self, recipe: usize, range: &Range<usize>) -> &[usize] {
        let places = &self.0[recipe];
        let before = |end: usize| places.partition_point(|place| *place < end);
        &places[before(range.start)..before(range.end)]
    }
}

/// Places in a tensor of a model with so many numbers: one in each of as many equal parts, where in it follows the golden
/// ratio, which no length of a row is in step with.
fn places(shape: &[usize], whole: usize) -> Vec<usize> {
    let len: usize = shape.iter().product();
    let fewest = if shape.len() > 1 { FEWEST } else { FEWEST_OF_VECTOR };
    let n = (NUMBERS * len).checked_div(whole).unwrap_or_default().max(fewest).min(len);
    let place = |part: usize| {
        let (start, end) = (part * len / n, (part + 1) * len / n);
        let turn = (part as f64 * std::f64::consts::GOLDEN_RATIO).fract();
        start + (turn * (end - start) as f64) as usize
    };
    (0..n).map(place).collect()
}

impl Sampled {
    /// From the numbers that were seen of a tensor, in order.
    pub fn new(seen: &[Seen], n_elements: usize) -> Self {
        let n_inputs = seen.first().map_or(0, |one| one.inputs.len());
        let square = |[left, right]: [usize; 2]| {
            seen.iter().map(|one| (f64::from(one.inputs[left]) - f64::from(one.inputs[right])).powi(2)).sum::<f64>()
        };
        let pairs = (0..n_inputs).flat_map(|left| (left + 1..n_inputs).map(move |right| [left, right]));
        Self {
            made: Made {
                rounded: seen.iter().map(|one| one.rounded).collect(),
                unrounded: seen.iter().map(|one| one.unrounded).collect(),
            },
            spread: pairs.map(square).fold(0.0, f64::max),
            stands_for: n_elements as f64 / seen.len().max(1) as f64,
        }
    }
}

impl Sample {
    /// Whether another one is of tensors of the same names and numbers.
    pub fn is_like(&self, other: &Self) -> bool {
        let is_like = |(one, other): (&Sampled, &Sampled)| {
            (one.stands_for, one.made.rounded.len()) == (other.stands_for, other.made.rounded.len())
        };
        self.tensors.keys().eq(other.tensors.keys()) && self.tensors.values().zip(other.tensors.values()).all(is_like)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_spread_and_as_many_as_the_share_of_the_tensor() {
        let whole = 4_000_000;
        for shape in [&[1000, 3000][..], &[512, 1024], &[300, 7], &[3, 2], &[1 << 12], &[1], &[]] {
            let len: usize = shape.iter().product();
            let found = places(shape, whole);
            assert!(found.is_sorted_by(|one, next| one < next) && found.last().is_none_or(|last| *last < len));
            let fewest = if shape.len() > 1 { 8 } else { 2 };
            assert_eq!(found.len(), (8192 * len / whole).max(fewest).min(len), "{shape:?}");
        }
        // Every part of a row is met, whatever its length.
        for row in [64, 576, 1000, 4096] {
            let columns: Vec<usize> =
                places(&[2048, row], 2048 * row).iter().map(|place| place % row * 16 / row).collect();
            let count = |part| columns.iter().filter(|column| **column == part).count();
            assert!(
                (0..16).all(|part| (256..=1024).contains(&count(part))),
                "{row}: {:?}",
                (0..16).map(count).collect::<Vec<_>>()
            );
        }
        assert_eq!(places(&[0, 5], 10), [0; 0]);
    }

    #[test]
    fn the_spread_is_the_largest_distance_of_two_inputs() {
        let seen = |inputs: [f32; 3]| Seen { unrounded: 0.25, rounded: 0.5, inputs: inputs.to_vec() };
        let sampled = Sampled::new(&[seen([0.0, 1.0, 3.0]), seen([0.0, -2.0, 1.0])], 10);
        // Squares of distances: 5, 10 and 13.
        assert_eq!((sampled.spread, sampled.stands_for), (13.0, 5.0));
        assert_eq!((sampled.made.rounded, sampled.made.unrounded), (vec![0.5; 2], vec![0.25; 2]));
    }
}
