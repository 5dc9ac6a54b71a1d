//! Decimal numbers, for ranges: 0.1 + 0.1 + 0.1 is 0.3 here, and so are the values of `{ from, to, step }`.

use std::fmt;

use crate::config::Scalar;

/// `mantissa / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    mantissa: i64,
    scale: u32,
}

/// Why a range has no list of values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The step is zero.
    #[error("`step` is 0, expected a step that leads from `from` to `to`")]
    ZeroStep,
    /// The step leads away.
    #[error("a step of {step} never leads from {from} to {to}")]
    Away {
        /// First value.
        from: Decimal,
        /// Last value.
        to: Decimal,
        /// Step.
        step: Decimal,
    },
    /// The end is not met.
    #[error("steps of {step} from {from} do not meet {to}: they reach {last}, then {next}")]
    Missed {
        /// First value.
        from: Decimal,
        /// The end that is not met.
        to: Decimal,
        /// Step.
        step: Decimal,
        /// Last value before the end.
        last: Decimal,
        /// First value behind it.
        next: Decimal,
    },
    /// More values than anyone means.
    #[error("the range has {count} values, expected at most {}", MAX_VALUES)]
    TooMany {
        /// How many.
        count: i64,
    },
    /// A number with too many digits.
    #[error("the numbers of the range have too many digits")]
    TooFine,
}

/// Most values of one range.
pub const MAX_VALUES: i64 = 100_000;

impl Decimal {
    /// The decimal that a number was written as: the shortest one that reads back as it.
    pub fn of(scalar: &Scalar) -> Option<Self> {
        let text = match scalar {
            Scalar::Int(value) => value.to_string(),
            // Rust never shows a float with an exponent.
            Scalar::Float(value) if value.is_finite() => value.to_string(),
            _ => return None,
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let scale = u32::try_from(fraction.len()).ok()?;
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { mantissa, scale })
    }

    fn at_scale(self, scale: u32) -> Option<i64> {
        self.mantissa.checked_mul(10_i64.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    /// The number as a scalar: whole where the range is one of whole numbers.
    fn scalar(self, whole: bool) -> Option<Scalar> {
        let text = self.to_string();
        if whole { text.parse().ok().map(Scalar::Int) } else { text.parse().ok().map(Scalar::Float) }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = self.scale as usize + 1);
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

/// Every value from `from` to `to`, both included, exactly.
///
/// # Errors
/// [`RangeError`] where the step does not lead there.
pub fn range(from: &Scalar, to: &Scalar, step: &Scalar) -> Result<Vec<Scalar>, RangeError> {
    let whole = [from, to, step].iter().all(|scalar| matches!(scalar, Scalar::Int(_)));
    let decimal = |scalar| Decimal::of(scalar).ok_or(RangeError::TooFine);
    let (from, to, step) = (decimal(from)?, decimal(to)?, decimal(step)?);
    let scale = from.scale.max(to.scale).max(step.scale);
    let aligned = |decimal: Decimal| decimal.at_scale(scale).ok_or(RangeError::TooFine);
    let (start, end, width) = (aligned(from)?, aligned(to)?, aligned(step)?);
    let distance = end.checked_sub(start).ok_or(RangeError::TooFine)?;
    if width == 0 {
        return Err(RangeError::ZeroStep);
    }
    if distance != 0 && (distance < 0) != (width < 0) {
        return Err(RangeError::Away { from, to, step });
    }
    let count = distance.checked_div(width).and_then(|steps| steps.checked_add(1)).ok_or(RangeError::TooFine)?;
    if count > MAX_VALUES {
        return Err(RangeError::TooMany { count });
    }
    let at = |index: i64| Decimal { mantissa: start.saturating_add(index.saturating_mul(width)), scale };
    if distance.wrapping_rem(width) != 0 {
        return Err(RangeError::Missed { from, to, step, last: at(count - 1), next: at(count) });
    }
    (0..count).map(|index| at(index).scalar(whole).ok_or(RangeError::TooFine)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(from: Scalar, to: Scalar, step: Scalar) -> Vec<String> {
        range(&from, &to, &step).map(|values| values.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn ranges_are_exact_at_both_ends_and_between() {
        let expected = ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"];
        assert_eq!(texts(Scalar::Int(0), Scalar::Int(1), Scalar::Float(0.1)), expected);
        assert_eq!(texts(Scalar::Float(0.9), Scalar::Float(0.7), Scalar::Float(-0.1)), ["0.9", "0.8", "0.7"]);
        assert_eq!(
            texts(Scalar::Float(1e-7), Scalar::Float(3e-7), Scalar::Float(1e-7)),
            ["0.0000001", "0.0000002", "0.0000003"]
        );
        assert_eq!(range(&Scalar::Int(1), &Scalar::Int(3), &Scalar::Int(1)), Ok([1, 2, 3].map(Scalar::Int).to_vec()));
        assert_eq!(texts(Scalar::Float(0.5), Scalar::Float(0.5), Scalar::Int(1)), ["0.5"]);
    }

    #[test]
    fn a_step_that_does_not_lead_there_says_where_it_leads() {
        let message =
            |from, to, step| range(&from, &to, &step).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(
            message(Scalar::Int(0), Scalar::Int(1), Scalar::Float(0.3)),
            "steps of 0.3 from 0 do not meet 1: they reach 0.9, then 1.2"
        );
        assert_eq!(
            message(Scalar::Int(1), Scalar::Int(0), Scalar::Float(0.1)),
            "a step of 0.1 never leads from 1 to 0"
        );
        assert!(message(Scalar::Int(1), Scalar::Int(0), Scalar::Int(0)).starts_with("`step` is 0"));
        assert!(message(Scalar::Int(0), Scalar::Int(1), Scalar::Float(1e-9)).contains("1000000001 values"));
        assert!(message(Scalar::Int(0), Scalar::Float(1e300), Scalar::Int(1)).contains("too many digits"));
    }
}
