//! From values to places, and where the ticks go.

/// A linear scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    domain: (f64, f64),
    range: (f64, f64),
}

impl Scale {
    /// Over the values, with a little air on both sides, onto a range of places. None of no finite value.
    pub fn over(values: impl Iterator<Item = f64>, range: (f64, f64)) -> Option<Self> {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        // Equal values stand in the middle.
        let air = if high > low { (high - low) * 0.06 } else { (high.abs() * 0.05).max(0.01) };
        Some(Self { domain: (low - air, high + air), range })
    }

    /// The place of a value.
    pub fn place(&self, value: f64) -> f64 {
        let share = (value - self.domain.0) / (self.domain.1 - self.domain.0);
        self.range.0 + share * (self.range.1 - self.range.0)
    }

    /// The place of a value, at the edge where it lies beyond.
    pub fn clamped(&self, value: f64) -> f64 {
        self.place(value.clamp(self.domain.0, self.domain.1))
    }

    /// About `n` round values inside, with their labels.
    pub fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        let rough = (self.domain.1 - self.domain.0) / n.max(1) as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let distance = |step: &f64| (step / rough).ln().abs();
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter();
        let step = steps.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(power);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let first = (self.domain.0 / step).ceil();
        let values = (0..=2 * n).map(|index| (first + index as f64) * step);
        values
            .take_while(|value| *value <= self.domain.1)
            .map(|value| (value, format!("{:.decimals$}", value + 0.0)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::over([0.31, 0.78].into_iter(), (0.0, 100.0)).unwrap();
        let labels: Vec<String> = scale.ticks(5).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]);
        assert!(Scale::over(std::iter::empty(), (0.0, 1.0)).is_none());
        let single = Scale::over(std::iter::once(0.5), (0.0, 100.0)).unwrap();
        assert!((single.place(0.5) - 50.0).abs() < 1e-9);
        assert!(!single.ticks(4).is_empty());
    }
}
