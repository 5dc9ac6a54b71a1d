//! `mergesweep merge` as a program: a drop-in for `mergekit-yaml`.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::merge_support::fixtures;

/// Runs in the folder of the fixtures, as their configs expect.
fn merge(out: &Path, case: &str, arguments: &[&str]) -> (i32, String, String) {
    let config = format!("cases/{case}/config.yml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    command.stdin(Stdio::null());
    let run = command.current_dir(fixtures()).arg("merge").arg(config).arg(out).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code().unwrap(), text(run.stdout), text(run.stderr))
}

#[test]
fn every_option_of_mergekit_is_taken() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let (code, stdout, stderr) = merge(
        &out,
        "ties_seed",
        &[
            "--cuda",
            "--device",
            "auto",
            "--low-cpu-memory",
            "--read-to-gpu",
            "--multi-gpu",
            "--gpu-rich",
            "--lazy-unpickle",
            "--out-shard-size",
            "40K",
            "--random-seed",
            "3",
            "--copy-tokenizer",
            "--no-write-model-card",
            "--clone-tensors",
            "--allow-crimes",
            "--unsafe-truncate-embeddings",
            "--trust-remote-code",
            "--transformers-cache",
            "cache",
            "--lora-merge-cache",
            "lora",
            "--lora-merge-dtype",
            "bfloat16",
            "--no-safe-serialization",
            "--async-write",
            "--write-threads",
            "2",
            "-j",
            "2",
            "-v",
        ],
    );
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let notes: Vec<&str> = stderr.lines().filter(|line| line.contains("has no effect")).collect();
    assert_eq!(notes.len(), 13, "{stderr}");
    assert!(out.join("model-00001-of-00004.safetensors").exists());
    assert!(!out.join("README.md").exists());
}

#[test]
fn the_defaults_spelled_out_say_nothing() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let arguments = [
        "--no-cuda",
        "--no-low-cpu-memory",
        "--no-read-to-gpu",
        "--no-multi-gpu",
        "--no-lazy-unpickle",
        "--no-copy-tokenizer",
        "--write-model-card",
        "--no-clone-tensors",
        "--no-allow-crimes",
        "--no-unsafe-truncate-embeddings",
        "--no-trust-remote-code",
        "--safe-serialization",
        "--no-async-write",
        "--quiet",
    ];
    let (code, stdout, stderr) = merge(&out, "linear_unnormalized", &arguments);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    assert!(!out.join("tokenizer.json").exists());
}

#[test]
fn the_record_comes_as_json() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, _) = merge(&folder.path().join("out"), "dare_ties_seed", &["--json", "--random-seed", "7"]);
    let record: mergesweep::merge::Merge = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, record.seed, record.n_tensors), (0, 7, 30));
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, _) = merge(&folder.path().join("out"), "ties_seed", &["--dry-run"]);
    assert_eq!((code, stdout.as_str()), (0, "30 tensors, 0.1 MB; nothing written\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn mistakes_have_their_exit_code() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let (code, _, stderr) = merge(&out, "vocab_mismatch_error", &[]);
    assert_eq!(code, 2);
    assert!(
        stderr.starts_with("error: merging `model.embed_tokens.weight` (linear): vocabulary sizes differ"),
        "{stderr}"
    );
    assert_eq!(merge(&out, "ties_seed", &["--out-shard-size", "1.5B"]).0, 2);
    assert_eq!(merge(&out, "linear_bf16_inputs", &["--copy-tokenizer"]).0, 2, "there is no tokenizer to copy");
    assert!(!out.exists());
    std::fs::write(&out, "").unwrap();
    assert_eq!(merge(&out, "ties_seed", &[]).0, 2, "something else is in the place of the output");
}

#[test]
fn several_configs_are_merged_in_one_call() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let further = ["cases/slerp_t03/config.yml", second.to_str().unwrap(), "--json"];
    let (code, stdout, stderr) = merge(&first, "ties_seed", &further);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.matches("\"weights_digest\"").count(), 2);
    assert!(first.join("model.safetensors").exists() && second.join("model.safetensors").exists());
    let (code, _, stderr) = merge(&first, "ties_seed", &further[..1]);
    assert_eq!((code, stderr.contains("expected a folder to write after")), (2, true), "{stderr}");
    let (code, _, stderr) = merge(&first, "ties_seed", &[further[0], first.to_str().unwrap()]);
    assert_eq!((code, stderr.contains("a folder of its own for every config")), (2, true), "{stderr}");
}

#[test]
fn verification_is_refused_where_results_are_meant_to_be_inexact() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    for verify in ["--verify", "--verify=2"] {
        let (code, stdout, stderr) = merge(&out, "ties_seed", &["--numerics", "mergekit", verify]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains("`--verify` compares with the exact result"), "{stderr}");
        assert!(stderr.contains("leave out one of the two"), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
}
