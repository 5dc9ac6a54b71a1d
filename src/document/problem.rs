//! Findings about a document, each with its place, collected and shown together.

use std::fmt;

use super::{Code, Span};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is done until it is mended.
    Error,
    /// Odd, and probably not meant.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is.
    pub code: Code,
    /// Where it stands.
    pub span: Span,
    /// Key path from the top of the file: `merge[2].grid.t`. Empty for syntax errors.
    pub key_path: String,
    /// What is wrong, with what was expected: a lower-case fragment.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Everything found in one pass. As an error it has at least one error.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Problem {
    /// A mistake.
    pub fn error(
        code: Code,
        span: Span,
        key_path: impl Into<String>,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        let severity = Severity::Error;
        Self { severity, code, span, key_path: key_path.into(), message: message.into(), hint }
    }

    /// The same finding as something that is only odd.
    #[must_use]
    pub fn as_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }
}

impl Problems {
    /// Adds a mistake.
    pub fn push(
        &mut self,
        code: Code,
        span: Span,
        key_path: impl Into<String>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.0.push(Problem::error(code, span, key_path, message, hint));
    }

    /// Adds something that is odd but no mistake.
    pub fn warn(
        &mut self,
        code: Code,
        span: Span,
        key_path: impl Into<String>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.0.push(Problem::error(code, span, key_path, message, hint).as_warning());
    }

    /// The mistakes.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter().filter(|problem| problem.severity == Severity::Error)
    }

    /// How many mistakes there are.
    pub fn n_errors(&self) -> usize {
        self.errors().count()
    }

    /// Whether there is a mistake.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over the findings of another pass, without those that were already there: the trials of one merge share its
    /// document, and so its mistakes.
    pub fn extend(&mut self, others: Self) {
        for problem in others.0 {
            if !self.0.iter().any(|seen| seen.span.same_as(&problem.span) && seen.message == problem.message) {
                self.0.push(problem);
            }
        }
    }

    /// Puts the findings in the order of the files they stand in.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| (&a.span.source.path, a.span.start).cmp(&(&b.span.source.path, b.span.start)));
    }

    /// What was made along the way, with the warnings, if there is no mistake.
    ///
    /// # Errors
    /// Everything that was found, where a mistake is among it.
    pub fn unless_errors<T>(self, made: T) -> Result<(T, Self), Self> {
        if self.has_errors() { Err(self) } else { Ok((made, self)) }
    }
}

impl fmt::Display for Problem {
    /// One line, `error[CODE]: file:line:column: key path: message`, then `hint: …` on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.span.line_column();
        write!(f, "{}[{}]: {}:{line}:{column}: ", self.severity.name(), self.code, self.span.source.path.display())?;
        if !self.key_path.is_empty() {
            write!(f, "`{}`: ", self.key_path)?;
        }
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Span {
    /// Line and column of the first byte, both from 1; the column counts characters.
    pub fn line_column(&self) -> (usize, usize) {
        self.place(self.start)
    }

    /// Line and column behind the last byte that is shown: a stretch of several lines ends with its first one.
    pub fn shown_end(&self) -> (usize, usize) {
        self.place(self.shown().1)
    }

    /// The bytes that a reader is to look at: from the start to the end of the first line, without white space behind.
    pub fn shown(&self) -> (usize, usize) {
        let text = self.source.text.get(self.start..).unwrap_or_default();
        let line = text.split('\n').next().unwrap_or_default();
        let covered = line.get(..self.end.saturating_sub(self.start)).unwrap_or(line);
        (self.start, self.start + covered.trim_end().len())
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.source.text.get(..at).unwrap_or(&self.source.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
