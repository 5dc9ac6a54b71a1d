//! The second implementation of every method: against mergekit's own outputs, and the kernels against it.
#![allow(clippy::print_stdout)] // the numbers behind a pass, for whoever asks with --nocapture

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use mergesweep::config::Dtype;
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::merge::recipe::Recipe;
use mergesweep::merge::verify::{self, Verification, Verified, oracle};
use mergesweep::merge::{MergeOptions, real::Real};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::merge_support::{
    Numbers, fixtures, merge_in, numbers, options, plan_in, pseudo_random, safetensors, write_model,
};
use crate::parity;

/// The expected tensors of a merge, rounded as a merge rounds them.
pub fn oracle_of(root: &Path, text: &str, options: &MergeOptions) -> BTreeMap<String, Numbers> {
    let plan = plan_in(root, text, options).unwrap();
    let rounded = |recipe: &Recipe| {
        let mut values = verify::expected(recipe, &plan.sources).unwrap();
        f64::round_to(&mut values, recipe.working);
        f64::round_to(&mut values, recipe.out);
        (recipe.name.clone(), Numbers { dtype: recipe.out, shape: recipe.shape.clone(), values })
    };
    plan.recipes.recipes.iter().map(rounded).collect()
}

/// How far tensors are from what they should be.
fn distances(root: &Path, text: &str, options: &MergeOptions, found: &BTreeMap<String, Numbers>) -> Vec<Verified> {
    let plan = plan_in(root, text, options).unwrap();
    let measure =
        |recipe: &Recipe| oracle::oracle(recipe, &plan.sources).unwrap().compare(recipe, &found[&recipe.name].values);
    plan.recipes.recipes.iter().map(measure).collect()
}

#[test]
fn the_oracle_agrees_with_mergekit() {
    let mut wrong = Vec::new();
    let cases = parity::cases_without_steps();
    for (name, case, text) in &cases {
        let options = parity::case_options(case);
        let mut found = oracle_of(&fixtures(), text, &options);
        if case["compare_rows_by_token"] == true {
            let ours = merge_in(&fixtures(), text, &options).unwrap().vocabulary();
            parity::move_rows(&ours, &parity::expected_vocabulary(name), &mut found);
        }
        wrong.extend(parity::compare(name, case, &found, "float64_math"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() >= 50, "only {} cases", cases.len());
}

#[test]
fn no_kernel_is_farther_from_the_oracle_than_mergekit() {
    let mut wrong = Vec::new();
    for (name, case, text) in parity::cases_without_steps() {
        let options = parity::case_options(&case);
        let largest = |found: &BTreeMap<String, Numbers>| {
            let tensors = distances(&fixtures(), &text, &options, found);
            let sum = |of: fn(&Verified) -> usize| tensors.iter().map(of).sum::<usize>();
            let ulps = tensors.iter().map(|tensor| tensor.ulps).fold(0.0, f64::max);
            (ulps, sum(|tensor| tensor.n_beyond), sum(|tensor| tensor.n_flipped))
        };
        let output = merge_in(&fixtures(), &text, &options).unwrap();
        let mut expected = parity::expected(&name);
        if case["compare_rows_by_token"] == true {
            parity::move_rows(&parity::expected_vocabulary(&name), &output.vocabulary(), &mut expected);
        }
        let (ours, theirs) = (largest(&output.tensors()), largest(&expected));
        println!(
            "{name}: ours {:.3} ulp ({} beyond, {} flipped), mergekit {:.3} ulp ({} beyond, {} flipped)",
            ours.0, ours.1, ours.2, theirs.0, theirs.1, theirs.2
        );
        // The order of a sum is ours, so that the order of models does not matter: half an ulp more for that.
        if ours.0 > theirs.0 + 0.5 || ours.1 > 0 || ours.2 > theirs.2 {
            wrong.push(format!("{name}: ours {ours:?}, mergekit {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every operation, with its switches. `B`, `M`, `C`, `D` are the base and three models, and W, V, T numbers.
const OPERATIONS: &[&str] = &[
    "linear | weight: W | | M C D",
    "linear | weight: W | normalize: false | M C",
    "passthrough | | | M",
    "passthrough | scale: T | | M",
    "slerp | | t: T | B M",
    "nuslerp | weight: W | | M C",
    "nuslerp | weight: W | | base M C",
    "nuslerp | weight: W | nuslerp_flatten: false | base M C",
    "nuslerp | weight: W | nuslerp_flatten: false, nuslerp_row_wise: true | M C",
    "task_arithmetic | weight: W | lambda: V | base M C D",
    "task_arithmetic | weight: W | normalize: true | base M C",
    "ties | weight: W, density: V | | base M C D",
    "ties | weight: W, density: V | rescale: true, normalize: false | base M C D",
    "breadcrumbs | weight: W, density: V, gamma: 0.1 | | base M C",
    "breadcrumbs_ties | weight: W, density: V, gamma: 0.1 | rescale: true | base M C D",
    "dare_linear | weight: W, density: V | | base M C",
    "dare_ties | weight: W, density: V | | base M C D",
    "della | weight: W, density: 0.5, epsilon: 0.2 | | base M C D",
    "della_linear | weight: W, density: 0.5, epsilon: 0.4 | | base M C",
    "arcee_fusion | | | B M",
    "multislerp | weight: W | | base M C D",
    "multislerp | weight: W | normalize_weights: false | M C",
    "karcher | | | M C D",
    "karcher | | max_iter: 2 | M C",
    "model_stock | | | base M C D",
    "model_stock | | filter_wise: true | base M C",
    "nearswap | | t: 0.01 | B M",
    "sce | | select_topk: V | base M C D",
    "sce | | | base M C",
    "ram | | epsilon: 0.01 | base M C D",
    "ramplus_tl | | epsilon: 0.01, r: T | base M C D",
];

/// The config of an operation. Weights are `w`, `w - 0.2`, and so on.
fn config_of(operation: &str, dtype: Dtype, [w, v, t]: [f64; 3]) -> String {
    let parts: Vec<&str> = operation.split('|').map(str::trim).collect();
    let [method, own, shared, models] = parts.as_slice() else { panic!("{operation}") };
    let value = |text: &str| text.replace(": V", &format!(": {v}")).replace(": T", &format!(": {t}"));
    let mut text = format!("merge_method: {method}\ndtype: {dtype}\nparameters: {{ {} }}\n", value(shared));
    if models.contains("base") || models.contains('B') {
        text += "base_model: B\n";
    }
    text += "models:\n";
    for (index, model) in models.split(' ').filter(|model| *model != "base").enumerate() {
        let own = value(own).replace(": W", &format!(": {}", w - 0.2 * index as f64));
        let own = if model == "B" { String::new() } else { own };
        text += &format!("- {{ model: {model}, parameters: {{ {own} }} }}\n");
    }
    text
}

/// A base and three models: changes of all sizes, some of them zero, some equal, some opposite.
fn write_models(folder: &Path, dtype: Dtype, shape: &[usize], salt: u64) {
    let n = shape.iter().product();
    let base = pseudo_random(n, salt);
    let (changes, choice) = (pseudo_random(n, salt ^ 0xabc), pseudo_random(n, salt ^ 0xdef));
    for (model, name) in ["B", "M", "C", "D"].into_iter().enumerate() {
        let own = pseudo_random(n, salt + 7 * model as u64);
        let change = |index: usize| match ((choice[index] + 0.0625) * 64.0) as usize {
            _ if model == 0 => 0.0,
            0 => 0.0,
            1 => changes[index] / 16.0,
            2 if model == 2 => -changes[index] / 16.0,
            2 => changes[index] / 16.0,
            3 => own[index],
            _ => own[index] / 16.0,
        };
        let mut values: Vec<f64> = (0..n).map(|index| base[index] + change(index)).collect();
        f64::round_to(&mut values, dtype);
        write_model(&folder.join(name), &[("h.0.weight", Numbers { dtype, shape: shape.to_vec(), values })]);
    }
}

fn verified(root: &Path, text: &str, options: &MergeOptions) -> Verification {
    let output = merge_in(root, text, options).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let plan = plan_in(root, text, options).unwrap();
    verify::verify(&plan.recipes.recipes, &plan.sources, &output.path(), None, 0, &|_, _| true).unwrap()
}

const DTYPES: [Dtype; 4] = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernels_agree_with_the_oracle(
        stored in 0usize..4,
        working in 0usize..4,
        shape in prop_oneof![(2usize..80).prop_map(|n| vec![n]), (1usize..12, 2usize..24).prop_map(|(n, m)| vec![n, m])],
        salt in any::<u64>(),
        numbers in [0.05..1.5f64, 0.05..0.99, -0.5..1.5],
    ) {
        let folder = TempDir::new().unwrap();
        write_models(folder.path(), DTYPES[stored], &shape, salt);
        for operation in OPERATIONS {
            let text = config_of(operation, DTYPES[working], numbers);
            let seeded = MergeOptions { seed: salt, ..options() };
            let found = verified(folder.path(), &text, &seeded);
            prop_assert!(found.n_beyond() == 0, "{text}{found:#?}");
        }
    }
}

/// Prints how far every operation is from the oracle on tensors of several pieces: what the limits rest on.
#[test]
fn kernels_agree_with_the_oracle_on_large_tensors() {
    let folder = TempDir::new().unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        write_models(folder.path(), dtype, &[260, 1024], 5);
        for operation in OPERATIONS {
            let text = config_of(operation, dtype, [0.8, 0.4, 0.3]);
            let found = verified(folder.path(), &text, &options());
            let worst = found.worst().unwrap();
            println!("{dtype} {operation}: {:.3} ulp, {} flipped", worst.ulps, found.n_flipped());
            assert_eq!(found.n_beyond(), 0, "{text}{worst:#?}");
        }
    }
}

#[test]
fn a_single_wrong_element_is_found() {
    for dtype in DTYPES {
        let folder = TempDir::new().unwrap();
        write_models(folder.path(), dtype, &[40, 50], 3);
        let text = config_of(OPERATIONS[9], dtype, [0.8, 0.4, 0.3]);
        let output = merge_in(folder.path(), &text, &options()).unwrap();
        let mut tensors = numbers(&Checkpoint::open(&output.path()).unwrap());
        let tensor = tensors.get_mut("h.0.weight").unwrap();
        tensor.values[1234] += 0.25;
        std::fs::write(output.path().join("model.safetensors"), safetensors(&[("h.0.weight", tensor.clone())]))
            .unwrap();
        let plan = plan_in(folder.path(), &text, &options()).unwrap();
        let found =
            verify::verify(&plan.recipes.recipes, &plan.sources, &output.path(), None, 0, &|_, _| true).unwrap();
        assert_eq!((found.n_beyond(), found.n_flipped()), (1, 0), "{dtype}");
        assert_eq!(found.worst().unwrap().largest.unwrap().element, 1234, "{dtype}");
    }
}

/// Runs `mergesweep merge` in the folder of the fixtures.
fn merge_command(out: &Path, case: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    command.stdin(Stdio::null()).current_dir(fixtures());
    let run = command.arg("merge").arg(format!("cases/{case}/config.yml")).arg(out).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code().unwrap(), text(run.stdout), text(run.stderr))
}

#[test]
fn a_merge_verifies_itself() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, stderr) = merge_command(&folder.path().join("out"), "ties_seed", &["--verify"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    let line = stderr.lines().find(|line| line.starts_with("verified ")).unwrap();
    assert!(line.starts_with("verified 30 of 30 tensors (ties): largest difference "), "{line}");
    assert!(line.contains(" ulp of float32 in `"), "{line}");
}

#[test]
fn a_sample_is_drawn_by_the_seed() {
    let folder = TempDir::new().unwrap();
    let names = |seed: &str| -> Vec<String> {
        let arguments = ["--verify=4", "--json", "--quiet", "--random-seed", seed];
        let (code, stdout, stderr) = merge_command(&folder.path().join("out"), "dare_ties_seed", &arguments);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let record: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(record["n_tensors"], 30);
        assert_eq!(record["verification"]["n_verified"], 4);
        let tensors = record["verification"]["tensors"].as_array().unwrap();
        tensors.iter().map(|tensor| tensor["tensor"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("7"), names("7"));
    assert_ne!(names("7"), names("8"));
}
