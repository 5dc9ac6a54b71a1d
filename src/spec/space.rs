//! What a search that places points of its own looks at: the axes of one merge. The points of the grid come first; of numbers, the
//! smallest and the largest bound the search, and whole numbers stay whole; of anything else, the values are the choices.

use super::{AxisValue, Sweep, Target};
use crate::config::Scalar;
use crate::document::{Node, Value};

/// The axes with their bounds.
#[derive(Debug, Clone)]
pub struct Space {
    /// Number of the merge among those of the sweep.
    entry: usize,
    /// The axes, in their order.
    pub axes: Vec<Axis>,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// Its values.
    pub range: Range,
}

/// Values of an axis. In a point each is a number: of choices, which one it is.
#[derive(Debug, Clone)]
pub enum Range {
    /// Numbers from the first to the last.
    Numbers(f64, f64),
    /// Whole numbers from the first to the last.
    Whole(f64, f64),
    /// These and no others.
    Choices(Vec<AxisValue>),
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
            return Err("a search that places points needs exactly one merge with axes".to_owned());
        };
        let axis = |(number, axis): (usize, &super::AxisHead)| {
            let name = axis.name.clone();
            let range = range(entry.settings.iter().map(|setting| &setting[number]));
            let range = range.filter(|_| axis.target != Target::Seed);
            range.map_or_else(
                || Err(format!("axis `{name}` cannot be searched: it has one value, or is the seed")),
                |range| Ok(Axis { name: name.clone(), range }),
            )
        };
        let axes = entry.axes.iter().enumerate().map(axis).collect::<Result<_, _>>()?;
        Ok(Self { entry: place, axes })
    }

    /// The same for a refinement: one or two axes of numbers.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn refined(sweep: &Sweep) -> Result<Self, String> {
        let mut space = Self::of(sweep)?;
        if space.axes.len() > MOST_AXES {
            return Err(format!("a refinement looks at one or two axes, and this merge has {}", space.axes.len()));
        }
        for axis in &mut space.axes {
            axis.range = match axis.range {
                // 0 to 1 is written as whole numbers too.
                Range::Numbers(low, high) | Range::Whole(low, high) => Range::Numbers(low, high),
                Range::Choices(_) => return Err(format!("`{}` is no axis of numbers that can be refined", axis.name)),
            };
        }
        Ok(space)
    }

    /// The point that a trial is; none of those that have no such axes.
    pub fn point(&self, axes: &[(String, Scalar)]) -> Option<Vec<f64>> {
        (axes.len() == self.axes.len()).then_some(())?;
        self.axes
            .iter()
            .zip(axes)
            .map(|(axis, (name, value))| (axis.name == *name).then(|| axis.number(value))?)
            .collect()
    }

    /// Where a point of numbers lies, each coordinate from 0 to 1.
    pub fn place(&self, point: &[f64]) -> Vec<f64> {
        let place = |(axis, value): (&Axis, &f64)| {
            let (low, high) = axis.bounds();
            (value - low) / (high - low)
        };
        self.axes.iter().zip(point).map(place).collect()
    }

    /// The point at a place.
    pub fn point_at(&self, place: &[f64]) -> Vec<f64> {
        let value = |(axis, at): (&Axis, &f64)| {
            let (low, high) = axis.bounds();
            low + at * (high - low)
        };
        self.tidy(&self.axes.iter().zip(place).map(value).collect::<Vec<_>>())
    }

    /// A point with numbers to a ten-thousandth of their axis, so that names can be read.
    pub fn tidy(&self, point: &[f64]) -> Vec<f64> {
        let tidy = |(axis, value): (&Axis, &f64)| match axis.range {
            Range::Numbers(low, high) => {
                let digits = (4.0 - (high - low).log10().floor()).clamp(0.0, 15.0) as usize;
                format!("{value:.digits$}").parse().unwrap_or(*value)
            }
            _ => value.round(),
        };
        self.axes.iter().zip(point).map(tidy).collect()
    }

    /// Names the space: points that were placed in another one are no points of this.
    pub fn key(&self) -> String {
        let axes = self.axes.iter().map(|axis| match &axis.range {
            Range::Numbers(low, high) => format!("{} {low} to {high}", axis.name),
            Range::Whole(low, high) => format!("{} whole {low} to {high}", axis.name),
            Range::Choices(values) => {
                let values: Vec<String> = values.iter().map(|value| value.shown.to_string()).collect();
                format!("{} of {}", axis.name, values.join(" or "))
            }
        });
        axes.collect::<Vec<_>>().join(", ")
    }

    /// Adds points to the grid of the sweep, but for those that are there.
    pub fn add(&self, sweep: &mut Sweep, points: &[Vec<f64>]) {
        let Some(entry) = sweep.merges.get_mut(self.entry) else { return };
        for point in points.iter().filter(|point| point.len() == self.axes.len()) {
            let is = |(axis, (value, own)): (&Axis, (&AxisValue, &f64))| axis.number(&value.shown) == Some(*own);
            let is_there = |setting: &Vec<AxisValue>| self.axes.iter().zip(setting.iter().zip(point)).all(is);
            if !entry.settings.iter().any(is_there) {
                let heads = entry.axes.iter().zip(point).zip(&self.axes);
                let values = heads.map(|((head, number), axis)| match &axis.range {
                    Range::Choices(values) => values.get(*number as usize).cloned(),
                    Range::Whole(..) => Some(scalar(Scalar::Int(*number as i64), head)),
                    Range::Numbers(..) => Some(scalar(Scalar::Float(*number), head)),
                });
                entry.settings.extend(values.collect::<Option<Vec<_>>>());
            }
        }
    }
}

impl Axis {
    /// First and last number.
    pub fn bounds(&self) -> (f64, f64) {
        match &self.range {
            Range::Numbers(low, high) | Range::Whole(low, high) => (*low, *high),
            Range::Choices(values) => (0.0, values.len().saturating_sub(1) as f64),
        }
    }

    /// A value as a number of a point.
    fn number(&self, shown: &Scalar) -> Option<f64> {
        match &self.range {
            Range::Numbers(..) | Range::Whole(..) => shown.as_float(),
            Range::Choices(values) => Some(values.iter().position(|value| value.shown == *shown)? as f64),
        }
    }
}

/// None of fewer than two different values.
fn range<'v>(values: impl Iterator<Item = &'v AxisValue> + Clone) -> Option<Range> {
    let mut choices: Vec<AxisValue> = Vec::new();
    for value in values {
        if choices.iter().all(|known| known.shown != value.shown) {
            choices.push(value.clone());
        }
    }
    (choices.len() > 1).then_some(())?;
    let of_scalar = |value: &AxisValue| match &value.value.value {
        Value::Scalar(number @ (Scalar::Int(_) | Scalar::Float(_))) => number.as_float(),
        _ => None,
    };
    let is_whole = choices.iter().all(|value| matches!(value.value.value, Value::Scalar(Scalar::Int(_))));
    let numbers: Option<Vec<f64>> = choices.iter().map(of_scalar).collect();
    let Some(numbers) = numbers else { return Some(Range::Choices(choices)) };
    let (low, high) = numbers.iter().fold((f64::MAX, f64::MIN), |(low, high), n| (low.min(*n), high.max(*n)));
    (low < high).then_some(if is_whole { Range::Whole(low, high) } else { Range::Numbers(low, high) })
}

fn scalar(number: Scalar, head: &super::AxisHead) -> AxisValue {
    AxisValue { value: Node { value: Value::Scalar(number.clone()), span: head.span.clone() }, shown: number }
}
