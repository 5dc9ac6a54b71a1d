//! A search: which trials of a sweep go on, and which documents they are asked next. Pure functions of what was answered so
//! far: no process, no file, no clock.
//!
//! Documents are put into an order once ([`draw`]) and asked in portions, a rung at a time; after each rung [`race`] sets
//! every contender beside the leader on what is raced on ([`objective`]), by a paired test ([`exchange`] where there is no
//! interval), and says who goes on; [`beside`] tells those that are left apart by documents set aside. [`simulate`] drives the
//! same rule on made-up siblings.

mod beside;
pub mod draw;
pub mod exchange;
pub mod front;
mod gaussian;
pub mod objective;
pub mod race;
pub mod refine;
pub mod simulate;

pub use beside::{Beside, beside};
pub use draw::{Portions, portions};
pub use objective::{Measure, Objective};
pub use race::{Contender, Decision, Evidence, Rule, decide};
