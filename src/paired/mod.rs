//! Trials compared document by document: what each scored on which document ([`Outcomes`]), whether two of them may be
//! compared at all ([`align()`]), every trial beside a reference ([`against()`]), and what several merge seeds come to
//! ([`seeds`]).
//!
//! Documents are told by the harness' hash of them, never by their place in a file.

pub mod across;
pub mod against;
pub mod align;
pub mod estimates;
pub mod outcomes;
pub mod seeds;

pub use across::across;
pub use against::{Against, Cell, Compared, Entrant, Standing, against, winners};
pub use align::{Misaligned, Pair, align};
pub use estimates::{Estimate, Estimates};
pub use outcomes::{Doc, Outcomes};
