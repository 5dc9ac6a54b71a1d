//! What one model scored, item by item.

use super::ratio::Scale;
use super::{mean, ratio, variance};

/// Scores of one model, in an order that the other model shares.
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Right or wrong.
    Binary(Vec<bool>),
    /// A number each, averaged.
    Graded(Vec<f64>),
    /// A loss and the units it is spread over (nats, bytes), each summed over all items before one is divided by the other.
    Ratio(Vec<(f64, f64)>, Scale),
}

impl Items {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Binary(items) => items.len(),
            Self::Graded(items) => items.len(),
            Self::Ratio(items, _) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items at these places, in this order; places beyond the end are left out.
    #[must_use]
    pub fn select(&self, places: &[usize]) -> Self {
        match self {
            Self::Binary(items) => Self::Binary(places.iter().filter_map(|place| items.get(*place).copied()).collect()),
            Self::Graded(items) => Self::Graded(places.iter().filter_map(|place| items.get(*place).copied()).collect()),
            Self::Ratio(items, scale) => {
                Self::Ratio(places.iter().filter_map(|place| items.get(*place).copied()).collect(), *scale)
            }
        }
    }

    /// Several as one, in their order. None where there are none, or where they are of different kinds.
    pub fn together<'a>(parts: impl Iterator<Item = &'a Self> + Clone) -> Option<Self> {
        let mut kinds = parts.clone();
        match kinds.next()? {
            Self::Ratio(_, scale) => {
                let all = parts.map(|part| match part {
                    Self::Ratio(items, other) if other == scale => Some(items.clone()),
                    _ => None,
                });
                Some(Self::Ratio(all.collect::<Option<Vec<_>>>()?.concat(), *scale))
            }
            // A few graded scores may all be 0 or 1.
            _ => Some(Self::from_values(parts.map(Self::values).collect::<Option<Vec<_>>>()?.concat())),
        }
    }

    /// Values of 0 and 1 only become right and wrong.
    pub fn from_values(values: Vec<f64>) -> Self {
        if values.iter().all(|value| *value == 0.0 || *value == 1.0) {
            Self::Binary(values.into_iter().map(|value| value == 1.0).collect())
        } else {
            Self::Graded(values)
        }
    }

    /// Right and wrong as 1 and 0; the numbers of graded items; none of ratios.
    pub fn values(&self) -> Option<Vec<f64>> {
        match self {
            Self::Binary(items) => Some(items.iter().map(|right| f64::from(u8::from(*right))).collect()),
            Self::Graded(items) => Some(items.clone()),
            Self::Ratio(..) => None,
        }
    }

    /// The score of all of them; NaN of none.
    pub fn score(&self) -> f64 {
        match self {
            Self::Binary(items) => items.iter().filter(|right| **right).count() as f64 / items.len() as f64,
            Self::Graded(items) => mean(items),
            Self::Ratio(items, scale) => ratio::score(items, *scale),
        }
    }

    /// Its standard error: `s / √n`, for ratios by the delta method. None of fewer than two items.
    pub fn standard_error(&self) -> Option<f64> {
        match self {
            Self::Ratio(items, scale) => ratio::standard_error(items, *scale),
            _ => Some((variance(&self.values()?)? / self.len() as f64).sqrt()),
        }
    }

    /// How much each item pulls the score: numbers whose mean is the score's error to first order. Of plain means, the
    /// values themselves.
    pub fn influence(&self) -> Vec<f64> {
        match self {
            Self::Ratio(items, scale) => ratio::influence(items, *scale),
            _ => self.values().unwrap_or_default(),
        }
    }
}
