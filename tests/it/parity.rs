//! mergekit's own outputs: every case of the fixtures, in both numerics, within the tolerances of the manifest.
#![allow(clippy::print_stdout)] // the numbers behind a pass, for whoever asks with --nocapture

use std::collections::BTreeMap;

use mergesweep::config::{Method, Numerics};
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::merge::{MergeOptions, TokenizerFiles};
use serde_json::Value;

use crate::merge_support::{Numbers, config, failure, fixture, fixtures, merge_in, numbers, options};

/// What mergekit's mask is there is mostly the noise of rounding after every step.
const STEPS_ONLY: &[&str] = &["arcee_fusion_bf16"];

/// Without a base model mergekit takes the config of a random one.
const RANDOM_CONFIG: &[&str] = &["linear_mixed_dtypes"];

pub fn cases(kind: &str) -> Vec<(String, Value, String)> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(fixtures().join("manifest.json")).unwrap()).unwrap();
    let cases = manifest["cases"].as_object().unwrap();
    let mut found = Vec::new();
    for (name, case) in cases.iter().filter(|(_, case)| case["kind"] == kind) {
        let text = std::fs::read_to_string(fixtures().join("cases").join(name).join("config.yml")).unwrap();
        found.push((name.clone(), case.clone(), text));
    }
    found
}

pub fn case_options(case: &Value) -> MergeOptions {
    let flags = case["cli_flags"].as_array().unwrap();
    MergeOptions { truncate_embeddings: flags.contains(&Value::from("--unsafe-truncate-embeddings")), ..options() }
}

/// mergekit's output.
pub fn expected(name: &str) -> BTreeMap<String, Numbers> {
    let file = fixtures().join("cases").join(name).join("expected.safetensors");
    numbers(&Checkpoint::open_file(&file).unwrap())
}

/// What is wrong with an output computed in that way, in words.
pub fn compare(name: &str, case: &Value, found: &BTreeMap<String, Numbers>, math: &str) -> Vec<String> {
    let expected = expected(name);
    let mut wrong = Vec::new();
    if found.keys().ne(expected.keys()) {
        wrong.push(format!("{name}: other tensors"));
    }
    let (mut bad, mut elements, mut worst) = (0, 0, 0.0f64);
    for (tensor, expected) in &expected {
        let Some(found) = found.get(tensor) else { continue };
        if (found.dtype, &found.shape) != (expected.dtype, &expected.shape) {
            wrong.push(format!("{name}: {tensor}: {:?} {:?}", found.dtype, found.shape));
            continue;
        }
        let tolerance = &case["tolerance"][expected.dtype.name()];
        let (atol, rtol) = (tolerance["atol"].as_f64().unwrap(), tolerance["rtol"].as_f64().unwrap());
        elements += expected.values.len();
        for (found, expected) in found.values.iter().zip(&expected.values) {
            let difference = (found - expected).abs();
            let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
            if !(same || difference <= atol + rtol * expected.abs()) {
                bad += 1;
            }
            worst = worst.max(difference);
        }
    }
    let allowed = &case["max_bad_fraction"];
    let allowed = allowed.get(math).unwrap_or(&allowed["float32_math"]).as_f64().unwrap();
    println!("{name}: {math}: {bad} of {elements} elements out of tolerance, largest difference {worst:.3e}");
    if bad as f64 > allowed * elements as f64 {
        wrong.push(format!("{name}: {bad} of {elements} elements are wrong, {allowed} allowed, worst {worst:e}"));
    }
    wrong
}

/// Ids of mergekit's output vocabulary, by token.
pub fn expected_vocabulary(name: &str) -> BTreeMap<String, usize> {
    let file = fixtures().join("cases").join(name).join("expected_vocab.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Moves the rows of a model's tokens from where one vocabulary has them to where another does.
pub fn move_rows(
    from: &BTreeMap<String, usize>,
    to: &BTreeMap<String, usize>,
    tensors: &mut BTreeMap<String, Numbers>,
) {
    assert!(from.keys().eq(to.keys()), "other tokens");
    for tensor in ["model.embed_tokens.weight", "lm_head.weight"] {
        let Numbers { shape, values, .. } = tensors.get_mut(tensor).unwrap();
        let old = values.clone();
        let row = |id: usize| id * shape[1]..(id + 1) * shape[1];
        for (token, id) in to {
            values[row(*id)].copy_from_slice(&old[row(from[token])]);
        }
    }
}

/// The cases that say something about results rounded once.
pub fn cases_without_steps() -> Vec<(String, Value, String)> {
    cases("exact").into_iter().filter(|(name, ..)| !STEPS_ONLY.contains(&name.as_str())).collect()
}

#[test]
fn exact_cases_agree_with_mergekit() {
    agree(Numerics::F32, "float32_math", &cases_without_steps());
}

#[test]
fn exact_cases_agree_with_mergekit_in_its_own_numerics() {
    agree(Numerics::Mergekit, "step_rounded", &cases("exact"));
}

fn agree(numerics: Numerics, column: &str, cases: &[(String, Value, String)]) {
    let mut wrong = Vec::new();
    for (name, case, text) in cases {
        let output = match merge_in(&fixtures(), text, &MergeOptions { numerics, ..case_options(case) }) {
            Ok(output) => output,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let mut tensors = output.tensors();
        if case["compare_rows_by_token"] == true {
            move_rows(&output.vocabulary(), &expected_vocabulary(name), &mut tensors);
        }
        wrong.extend(compare(name, case, &tensors, column));
        let model = output.json("config.json");
        for (key, expected) in case["out_config"].as_object().unwrap() {
            let found = if key == "dtype" { &model["torch_dtype"] } else { &model[key] };
            if found != expected && !(key == "dtype" && RANDOM_CONFIG.contains(&name.as_str())) {
                wrong.push(format!("{name}: config {key}: {found}, expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
}

#[test]
fn error_cases_are_errors() {
    let messages: Vec<String> =
        cases("error").iter().map(|(_, case, text)| failure(&fixtures(), text, &case_options(case))).collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"merging `model.embed_tokens.weight` (linear): vocabulary sizes differ: 136 rows in `inputs/math-v136`, 128 in `inputs/base` (give them one vocabulary with `tokenizer_source: base` or `union`, or cut all to the shortest with `--unsafe-truncate-embeddings`)"#);
}

/// The four numbers the fixtures give of a tensor's change.
fn measures(output: &Numbers, base: &Numbers) -> [(&'static str, f64); 4] {
    let delta = || output.values.iter().zip(&base.values).map(|(output, base)| output - base);
    let n = base.values.len() as f64;
    [
        ("l2_delta", delta().map(|delta| delta * delta).sum::<f64>().sqrt()),
        ("l1_delta", delta().map(f64::abs).sum()),
        ("mean_delta", delta().sum::<f64>() / n),
        ("frac_equal_base", delta().filter(|delta| *delta == 0.0).count() as f64 / n),
    ]
}

/// Mean and variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0))
}

#[test]
fn random_cases_have_mergekits_statistics() {
    const SEEDS: u64 = 24;
    let base = fixture("base");
    let mut wrong = Vec::new();
    for (name, _, text) in cases("random") {
        let mut found: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
        for seed in 0..SEEDS {
            let seeded = MergeOptions { seed, tokenizer: TokenizerFiles::Skip, ..options() };
            for (tensor, output) in merge_in(&fixtures(), &text, &seeded).unwrap().tensors() {
                for (measure, value) in measures(&output, &base[&tensor]) {
                    found.entry((tensor.clone(), measure)).or_default().push(value);
                }
            }
        }
        let file = fixtures().join("cases").join(&name).join("stats.json");
        let stats: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let n_stats = stats["seeds"].as_f64().unwrap();
        let mut worst = 0.0f64;
        for ((tensor, measure), values) in found {
            let (mean, variance) = moments(&values);
            let stats = &stats["tensors"][&tensor];
            let expected = stats[format!("{measure}_mean")].as_f64().unwrap();
            let std = stats[format!("{measure}_std")].as_f64().unwrap();
            // One variance for both samples, since they are held to be of one distribution: changes are heavy-tailed, and
            // one of the two alone may have missed the draws that make it wide.
            let n = values.len() as f64;
            let pooled = ((n - 1.0) * variance + (n_stats - 1.0) * std * std) / (n + n_stats - 2.0);
            let standard_error = (pooled / n + pooled / n_stats).sqrt();
            let allowed = 5.0 * standard_error + 1e-4 * expected.abs() + 1e-9;
            worst = worst.max((mean - expected).abs() / allowed);
            if (mean - expected).abs() > allowed {
                wrong.push(format!("{name}: {tensor}: {measure} {mean}, expected {expected} within {allowed}"));
            }
        }
        println!("{name}: largest deviation {worst:.2} of what is allowed");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn dropped_changes_keep_the_norm_and_share_one_factor() {
    let (base, code) = (fixture("base"), fixture("code"));
    for (name, _, text) in cases("random") {
        let parsed = config(&text);
        if !text.contains("inputs/code") || text.contains("inputs/math") || text.contains("rescale: false") {
            continue;
        }
        assert!(matches!(parsed.method, Method::DareLinear | Method::DellaLinear));
        for seed in [1, 2, 3] {
            let output = merge_in(&fixtures(), &text, &MergeOptions { seed, ..options() }).unwrap().tensors();
            for (tensor, output) in &output {
                let (base, code) = (&base[tensor].values, &code[tensor].values);
                let full: f64 = code.iter().zip(base).map(|(code, base)| (code - base).abs()).sum();
                let kept: f64 = output.values.iter().zip(base).map(|(output, base)| (output - base).abs()).sum();
                assert!(kept == 0.0 || (kept / full - 1.0).abs() < 1e-5, "{name} {tensor}: {kept} {full}");
                let mut factors = Vec::new();
                for ((output, base), code) in output.values.iter().zip(base).zip(code) {
                    if code == base {
                        assert_eq!(output, base, "{name} {tensor}");
                    } else if output != base && (code - base).abs() > 1e-3 {
                        factors.push((output - base) / (code - base));
                    }
                }
                let spread = |factors: &[f64]| {
                    let largest = factors.iter().copied().fold(f64::MIN, f64::max);
                    largest - factors.iter().copied().fold(f64::MAX, f64::min)
                };
                assert!(factors.is_empty() || spread(&factors) < 1e-3, "{name} {tensor}: {factors:?}");
            }
        }
    }
}
