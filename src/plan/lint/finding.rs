//! One thing worth telling about a plan, as a plain value: which trials, which setting, what, and what to do.

use std::fmt;

use crate::document::Span;

/// What a finding is about. Its name is stable: programs may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A setting that nobody looks up.
    Dead,
    /// A setting that settings further in override for every tensor.
    Shadowed,
    /// A filter that matches no tensor.
    Unmatched,
    /// A merge that cannot be resolved for some tensor.
    Unresolved,
    /// A merge that is a simpler one under another name.
    Reduces,
    /// Parameters left to their defaults that decide something; `*`: other methods of the family have another one.
    Default,
    /// A setting that is read and changes nothing.
    NoEffect,
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Hardly what was meant.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// Trials that it holds for, by number in the plan.
    pub trials: Vec<usize>,
    /// Key path of the setting in the spec or in the mergekit file; empty where it is about a whole merge.
    pub key_path: String,
    /// Where it stands.
    pub span: Option<Span>,
    /// What was found: a lower-case fragment.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead-setting",
            Self::Shadowed => "shadowed-setting",
            Self::Unmatched => "unmatched-filter",
            Self::Unresolved => "unresolved-merge",
            Self::Reduces => "reduces-to",
            Self::Default => "defaulted",
            Self::NoEffect => "no-effect",
        }
    }

    /// How serious it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::Dead | Self::Shadowed | Self::Unmatched | Self::Unresolved => Severity::Warning,
            Self::Reduces | Self::Default | Self::NoEffect => Severity::Note,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Finding {
    /// `file:line:column: key path: message`, as mistakes are shown, without the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            let (line, column) = span.line_column();
            write!(f, "{}:{line}:{column}: ", span.source.path.display())?;
        }
        if !self.key_path.is_empty() {
            write!(f, "`{}`: ", self.key_path)?;
        }
        f.write_str(&self.message)
    }
}
