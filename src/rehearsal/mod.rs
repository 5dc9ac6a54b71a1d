//! What a dress rehearsal runs on: tiny random models in place of the real ones ([`stand_in`]), and an evaluation of a few
//! documents ([`few`]). The rehearsal itself is `run`, unchanged, with these in its request.
//!
//! Numbers of a rehearsal mean nothing; what counts is whether it gets to its end.

pub mod few;
pub mod narrow;
pub mod stand_in;

pub use stand_in::{Making, StandIns, Unmade, make};
