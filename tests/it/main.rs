//! One integration binary: linking it once is cheaper than many times.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod config_parse;
mod config_write;
