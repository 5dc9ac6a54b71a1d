//! Names and sizes of the number formats that a merge reads, works in and writes.

use std::fmt;
use std::str::FromStr;

/// A floating-point format of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// bfloat16: 8 exponent bits, 7 of mantissa.
    Bf16,
    /// IEEE half: 5 exponent bits, 10 of mantissa.
    F16,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
}

impl Dtype {
    /// mergekit's (and torch's) names.
    pub const NAMES: [&str; 4] = ["bfloat16", "float16", "float32", "float64"];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// mergekit's (and torch's) name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// The format two inputs of one tensor are promoted to when no `dtype` is set (torch's rule: two different half
    /// formats meet in float32).
    pub fn promote(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ();

    /// Accepts mergekit's names, with an optional `torch.` prefix. `fp16` and `bf16` are errors there and here.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("torch.").unwrap_or(text) {
            "bfloat16" => Ok(Self::Bf16),
            "float16" => Ok(Self::F16),
            "float32" => Ok(Self::F32),
            "float64" => Ok(Self::F64),
            _ => Err(()),
        }
    }
}
