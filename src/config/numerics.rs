//! In which precision a merge is computed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How intermediate results are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// In 32-bit registers (64-bit for float64), rounded once at the end.
    #[default]
    F32,
    /// Rounded to the working dtype after every step, as mergekit does.
    Mergekit,
}

impl Numerics {
    /// Every choice with its name.
    pub const NAMES: &'static [(&'static str, Self)] = &[("f32", Self::F32), ("mergekit", Self::Mergekit)];

    /// Its name in specs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Mergekit => "mergekit",
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
