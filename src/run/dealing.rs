//! How merges are dealt out to passes and units: the first one that is left, and the next ones that belong with it.

use std::collections::VecDeque;

/// What becomes of something whose turn it might be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is taken with the others.
    Joins,
    /// It stays where it is.
    Waits,
    /// It is dropped.
    Gone,
    /// It stays, and so do all that come after it.
    Enough,
}

/// Takes the first of what is left and, in order, those that join what is taken by then; nothing where nothing is left.
///
/// # Errors
/// That of `joins`.
pub(super) fn take<T, E>(
    left: &mut VecDeque<T>,
    mut joins: impl FnMut(&[T], &T) -> Result<Turn, E>,
) -> Result<Vec<T>, E> {
    let mut taken: Vec<T> = left.pop_front().into_iter().collect();
    let mut position = 0;
    while position < left.len() {
        match joins(&taken, &left[position])? {
            Turn::Joins => taken.extend(left.remove(position)),
            Turn::Gone => _ = left.remove(position),
            Turn::Waits => position += 1,
            Turn::Enough => break,
        }
    }
    Ok(taken)
}
