//! `lint` and `twins`: what becomes of settings that nobody reads, and of trials that are one merge but for rounding.

use super::keys;
use crate::document::Problems;
use crate::document::read::Field;

/// `lint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lint {
    /// `dead`: what a setting that nobody reads is (default: an error).
    pub dead: Dead,
}

/// What a setting that nobody reads is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dead {
    /// A mistake: no plan is made.
    #[default]
    Error,
    /// Told, and otherwise left as it is.
    Warn,
    /// Not told, except in reports that are asked for.
    Allow,
}

/// `twins`: how trials are evaluated that are equal in exact arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TwinEvaluation {
    /// Each on its own: how far their scores are apart is what rounding does to an evaluation.
    #[default]
    Separate,
    /// Once, for all of them.
    Share,
}

impl Dead {
    /// Every choice with its name.
    pub const NAMES: &'static [(&'static str, Self)] =
        &[("error", Self::Error), ("warn", Self::Warn), ("allow", Self::Allow)];
}

impl TwinEvaluation {
    /// Every choice with its name.
    pub const NAMES: &'static [(&'static str, Self)] = &[("separate", Self::Separate), ("share", Self::Share)];
}

/// Reads `lint`.
pub fn lint(field: Option<&Field<'_>>, problems: &mut Problems) -> Lint {
    let Some(mut table) = field.and_then(|field| field.table(&keys::LINT, problems)) else {
        return Lint::default();
    };
    let dead = table.optional("dead").and_then(|field| field.one_of(Dead::NAMES, problems));
    table.finish(problems);
    Lint { dead: dead.unwrap_or_default() }
}
