//! mergekit's rounding, step by step: half-precision merges are mergekit's own to the bit, at any number of threads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mergesweep::config::Numerics;
use mergesweep::merge::MergeOptions;
use mergesweep::merge::checkpoint::Checkpoint;

use crate::merge_support::{Numbers, fixtures, merge_in, numbers, options};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mergekit-numerics/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn merged(case: &Path, threads: usize) -> BTreeMap<String, Numbers> {
    let text = std::fs::read_to_string(case.join("config.yml")).unwrap();
    let options = MergeOptions { numerics: Numerics::Mergekit, ..options() };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| merge_in(&fixtures(), &text, &options).unwrap().tensors())
}

/// What differs, in words: numbers are told apart by their bits, but for the payload of a NaN.
fn differences(case: &Path, found: &BTreeMap<String, Numbers>) -> Vec<String> {
    let expected = numbers(&Checkpoint::open_file(&case.join("expected.safetensors")).unwrap());
    let case = case.file_name().unwrap().display();
    assert!(found.keys().eq(expected.keys()), "{case}: other tensors");
    let mut differences = Vec::new();
    for (name, expected) in &expected {
        let found = &found[name];
        if (found.dtype, &found.shape) != (expected.dtype, &expected.shape) {
            differences.push(format!("{case}: {name}: {} {:?}", found.dtype, found.shape));
            continue;
        }
        let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        let n = found.values.iter().zip(&expected.values).filter(|(a, b)| !same((a, b))).count();
        if n > 0 {
            differences.push(format!("{case}: {name}: {n} of {} elements", found.values.len()));
        }
    }
    differences
}

#[test]
fn half_precision_merges_are_mergekits_to_the_bit() {
    let cases = cases();
    assert!(cases.len() >= 26, "only {} cases", cases.len());
    let wrong: Vec<String> = cases.iter().flat_map(|case| differences(case, &merged(case, 2))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn steps_have_the_same_bytes_at_any_number_of_threads() {
    for case in cases().iter().filter(|case| case.display().to_string().ends_with("_bf16")) {
        let one = merged(case, 1);
        assert_eq!(one, merged(case, 7), "{}", case.display());
    }
}
