//! The regression gate: a [`Baseline`] frozen once, and what later runs are compared with it ([`judge()`]).
//!
//! PASS needs evidence that nothing became worse by more than its margin, FAIL needs evidence that something did, and where
//! the documents are too few for either the answer is INCONCLUSIVE, never a guess.

pub mod baseline;
pub mod judge;
pub mod margins;
pub mod render;

pub use baseline::{Baseline, BaselineError, Frozen};
pub use judge::{Judged, Judgement, judge};
pub use margins::{TooSmall, too_small};
