//! What a refinement looks at: one or two axes of numbers of one merge, from the smallest to the largest value of the grid.

use super::{AxisValue, Sweep, Target};
use crate::config::Scalar;
use crate::document::{Node, Value};

/// The axes with their bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    /// Number of the merge among those of the sweep.
    entry: usize,
    /// Names of the axes, in their order.
    pub axes: Vec<String>,
    /// Smallest and largest value of each.
    bounds: Vec<(f64, f64)>,
}

/// Most axes that a refinement can look at.
const MOST_AXES: usize = 2;

impl Space {
    /// The space of a sweep's grid.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn of(sweep: &Sweep) -> Result<Self, String> {
        let mut with_axes = sweep.merges.iter().enumerate().filter(|(_, entry)| !entry.axes.is_empty());
        let (Some((place, entry)), None) = (with_axes.next(), with_axes.next()) else {
            return Err("a refinement needs exactly one merge with axes".to_owned());
        };
        let axes: Vec<String> = entry.axes.iter().map(|axis| axis.name.clone()).collect();
        if axes.len() > MOST_AXES {
            return Err(format!("a refinement looks at one or two axes, and this merge has {}", axes.len()));
        }
        let bounds = |(place, name): (usize, &String)| {
            let numbers = entry.settings.iter().map(|setting| number(&setting[place]));
            let numbers: Option<Vec<f64>> = numbers.collect();
            let numbers = numbers.filter(|_| entry.axes[place].target != Target::Seed);
            let numbers = numbers.ok_or_else(|| format!("`{name}` is no axis of numbers that can be refined"))?;
            let (low, high) = numbers.iter().fold((f64::MAX, f64::MIN), |(low, high), n| (low.min(*n), high.max(*n)));
            if low < high { Ok((low, high)) } else { Err(format!("axis `{name}` has one value: nothing lies between")) }
        };
        let bounds = axes.iter().enumerate().map(bounds).collect::<Result<_, _>>()?;
        Ok(Self { entry: place, axes, bounds })
    }

    /// Where a trial lies, each coordinate from 0 to 1; none of those that have no such axes.
    pub fn place(&self, axes: &[(String, Scalar)]) -> Option<Vec<f64>> {
        (axes.len() == self.axes.len()).then_some(())?;
        let known = self.axes.iter().zip(&self.bounds).zip(axes);
        known
            .map(|((name, (low, high)), (own, value))| {
                (own == name).then(|| Some((value.as_float()? - low) / (high - low)))?
            })
            .collect()
    }

    /// The values at a place, on which the same place always comes out: to a ten-thousandth of the axis.
    pub fn values(&self, place: &[f64]) -> Vec<f64> {
        let value = |(at, (low, high)): (&f64, &(f64, f64))| {
            let range = high - low;
            let digits = (4.0 - range.log10().floor()).clamp(0.0, 15.0) as usize;
            format!("{:.digits$}", low + at * range).parse().unwrap_or(*low)
        };
        place.iter().zip(&self.bounds).map(value).collect()
    }

    /// Names the space: points that were placed in another one are no points of this.
    pub fn key(&self) -> String {
        let axes = self.axes.iter().zip(&self.bounds).map(|(name, (low, high))| format!("{name} {low} to {high}"));
        axes.collect::<Vec<_>>().join(", ")
    }

    /// Adds points to the grid of the sweep, but for those that are there.
    pub fn add(&self, sweep: &mut Sweep, points: &[Vec<f64>]) {
        let Some(entry) = sweep.merges.get_mut(self.entry) else { return };
        for point in points.iter().filter(|point| point.len() == self.axes.len()) {
            let is_there = entry.settings.iter().any(|setting| {
                setting.iter().zip(point).all(|(value, own)| number(value).is_some_and(|value| value == *own))
            });
            if !is_there {
                let values = entry.axes.iter().zip(point).map(|(axis, value)| {
                    let shown = Scalar::Float(*value);
                    AxisValue { value: Node { value: Value::Scalar(shown.clone()), span: axis.span.clone() }, shown }
                });
                entry.settings.push(values.collect());
            }
        }
    }
}

fn number(value: &AxisValue) -> Option<f64> {
    match &value.value.value {
        Value::Scalar(number @ (Scalar::Int(_) | Scalar::Float(_))) => number.as_float(),
        _ => None,
    }
}
