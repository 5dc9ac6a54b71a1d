//! Mistakes in a document, each with its place, collected and shown together.

use std::fmt;

use super::Span;

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Where it stands.
    pub span: Span,
    /// Key path from the top of the file: `merge[2].grid.t`. Empty for syntax errors.
    pub key_path: String,
    /// What is wrong, with what was expected: a lower-case fragment.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Every mistake found in one pass. As an error it is never empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds a mistake.
    pub fn push(&mut self, span: Span, key_path: impl Into<String>, message: impl Into<String>, hint: Option<String>) {
        self.0.push(Problem { span, key_path: key_path.into(), message: message.into(), hint });
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over the mistakes of another pass, without those that were already found: the trials of one merge share
    /// its document, and so its mistakes.
    pub fn extend(&mut self, others: Self) {
        for problem in others.0 {
            if !self.0.iter().any(|seen| seen.span.same_as(&problem.span) && seen.message == problem.message) {
                self.0.push(problem);
            }
        }
    }

    /// Puts the mistakes in the order of the files they stand in.
    pub fn sort(&mut self) {
        self.0.sort_by(|a, b| (&a.span.source.path, a.span.start).cmp(&(&b.span.source.path, b.span.start)));
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: key path: message`, then `hint: …` on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.span.line_column();
        write!(f, "{}:{line}:{column}: ", self.span.source.path.display())?;
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
            write!(f, "error: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Span {
    /// Line and column of the first byte, both from 1; the column counts characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.source.text.get(..self.start).unwrap_or(&self.source.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
