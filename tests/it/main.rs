//! Integration tests, in one binary: linking it once is cheaper than many times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod chaos;
mod checkpoints_broken;
mod config_parse;
mod config_write;
mod diff_command;
mod end_to_end;
mod eval_command;
mod eval_failure;
mod eval_harness;
mod eval_preflight;
mod eval_results;
mod eval_sandbox;
mod eval_task_files;
mod fuzz;
mod layering;
mod merge_adapter;
mod merge_command;
mod merge_output;
mod merge_pass;
mod merge_properties;
mod merge_support;
mod merge_together;
mod model_hub;
mod model_locate;
mod parity;
mod plan_sweeps;
mod process_run;
mod run_sweep;
mod spec_axes;
mod spec_mistakes;
mod stats;
mod support;
mod verify;
mod verify_properties;
mod vocabulary;
