//! One thing worth telling about a plan, as a plain value: which trials, which setting, what, and what to do.

use std::fmt;

use crate::document::{Code, Problem, Span};

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
    /// The same where the line that it is about can be seen; empty: as the message.
    pub label: String,
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

    /// The code of such findings, where they are diagnostics.
    pub fn code(self) -> Option<Code> {
        Some(match self {
            Self::Dead => Code::DeadSetting,
            Self::Shadowed => Code::ShadowedSetting,
            Self::Unmatched => Code::UnmatchedFilter,
            Self::Unresolved => Code::UnresolvedMerge,
            Self::NoEffect => Code::IdleSetting,
            Self::Reduces | Self::Default => return None,
        })
    }

    /// How serious it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::Dead | Self::Shadowed | Self::Unmatched | Self::Unresolved => Severity::Warning,
            Self::Reduces | Self::Default | Self::NoEffect => Severity::Note,
        }
    }
}

impl Finding {
    /// What is to be said beside the line that it is about.
    pub fn label(&self) -> &str {
        if self.label.is_empty() { &self.message } else { &self.label }
    }

    /// The finding as a diagnostic, if it is a warning and has a place.
    pub fn problem(&self) -> Option<Problem> {
        let (code, span) = (self.kind.code()?, self.span.clone()?);
        let problem = Problem::error(code, span, self.key_path.clone(), self.message.clone(), self.remedy.clone());
        (self.kind.severity() == Severity::Warning).then(|| problem.as_warning())
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
