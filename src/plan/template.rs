//! Names of trials: `SLERP (t={t})`.

use crate::config::Scalar;
use crate::document::read::{listed, nearest};

/// A template taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(String),
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`, or the other way round.
    #[error("a `{{` or `}}` stands alone")]
    Unpaired,
    /// A placeholder that is no axis.
    #[error("unknown placeholder `{{{name}}}`")]
    Unknown {
        /// What it says.
        name: String,
        /// What to do.
        hint: String,
    },
}

impl Template {
    /// Takes a template apart.
    ///
    /// # Errors
    /// [`TemplateError`] where a brace stands alone or a placeholder is not one of `known`.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            match letter {
                '{' | '}' if rest.peek() == Some(&letter) => {
                    rest.next();
                    plain.push(letter);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(TemplateError::Unpaired),
                            Some(letter) => name.push(letter),
                        }
                    }
                    let name = name.trim().to_owned();
                    if !known.contains(&name.as_str()) {
                        return Err(unknown(name, known));
                    }
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Placeholder(name));
                }
                '}' => return Err(TemplateError::Unpaired),
                _ => plain.push(letter),
            }
        }
        pieces.push(Piece::Text(plain));
        Ok(Self(pieces))
    }

    /// Whether it names an axis.
    pub fn mentions(&self, name: &str) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Placeholder(placeholder) if placeholder == name))
    }

    /// Whether it has no placeholder at all.
    pub fn is_plain(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// The name for these values.
    pub fn name(&self, values: &[(String, Scalar)]) -> String {
        let value = |name: &str| values.iter().find(|(axis, _)| axis == name).map(|(_, value)| value.to_string());
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Placeholder(name) => value(name).unwrap_or_default(),
            })
            .collect()
    }
}

fn unknown(name: String, known: &[&str]) -> TemplateError {
    let hint = match nearest(&name, known.iter().copied()) {
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None => format!("placeholders of this merge: {}", listed(known.iter().copied())),
    };
    TemplateError::Unknown { name, hint }
}
