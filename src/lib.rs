//! `mergesweep`: a sweep of model merges from one spec file to one table of scores.
//!
//! The flow is a chain of functions from values to values; only the bracket touches models and processes:
//!
//! ```text
//! spec file -> Sweep -> Plan (Trials) -> [ merge -> evaluate ] per trial -> Scores -> ResultsTable -> report
//! spec::load   plan::expand             run:: drives merge:: and eval::             table::
//! ```
//!
//! `ARCHITECTURE.md` has the map, the invariants and the on-disk format. Nothing below [`cli`] prints, reads the
//! environment or exits.

pub mod cli;
pub mod config;
pub mod console;
pub mod document;
pub mod eval;
pub mod exit_code;
pub mod files;
pub mod forecast;
pub mod gate;
pub mod merge;
pub mod model;
pub mod paired;
pub mod plan;
pub mod probe;
pub mod process;
pub mod rehearsal;
pub mod report;
pub mod run;
pub mod search;
pub mod spec;
pub mod stats;
pub mod table;
