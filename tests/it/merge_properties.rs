//! What must hold for any models: limits of each method, symmetry, independence of threads and places, and agreement with
//! straightforward code on tensors large enough for several pieces.

use std::path::Path;

use mergesweep::config::Dtype;
use mergesweep::merge::MergeOptions;
use mergesweep::merge::sample::Places;
use tempfile::TempDir;

use crate::merge_support::{
    Numbers, copy_model, fixture, fixtures, merge, merge_in, numbers, options, plan_in, pseudo_random, write_model,
};

fn digest(text: &str) -> String {
    merge(text).merge.weights_digest
}

fn task_vectors(method: &str, extra: &str, math: &str, code: &str) -> String {
    format!(
        "merge_method: {method}\nbase_model: inputs/base\ndtype: float32\nparameters: {{ {extra} }}\nmodels:\n\
         - {{ model: inputs/math, parameters: {{ {math} }} }}\n- {{ model: inputs/code, parameters: {{ {code} }} }}\n"
    )
}

#[test]
fn slerp_ends_at_its_models() {
    for (t, model) in [("0", "math"), ("1", "code")] {
        let output = merge(&format!(
            "merge_method: slerp\nbase_model: inputs/math\ndtype: float32\nparameters: {{ t: {t} }}\nmodels:\n\
             - model: inputs/code\n- model: inputs/math\n"
        ));
        assert_eq!(output.tensors(), fixture(model), "t = {t}");
    }
}

#[test]
fn one_model_with_weight_one_is_itself() {
    let text = "merge_method: linear\nmodels:\n- { model: inputs/math-bf16, parameters: { weight: 1 } }\n";
    assert_eq!(merge(text).tensors(), fixture("math-bf16"));
    let text = "merge_method: passthrough\nmodels:\n- { model: inputs/code-fp16 }\n";
    assert_eq!(merge(text).tensors(), fixture("code-fp16"));
}

#[test]
fn the_base_alone_is_the_base() {
    for method in ["task_arithmetic", "ties", "dare_ties", "della", "breadcrumbs"] {
        let text = format!("merge_method: {method}\nbase_model: inputs/base\nmodels:\n- {{ model: inputs/base }}\n");
        assert_eq!(merge(&text).tensors(), fixture("base"), "{method}");
    }
}

#[test]
fn full_density_is_task_arithmetic() {
    let expected = digest(&task_vectors("task_arithmetic", "", "weight: 0.8", "weight: 0.3"));
    for method in ["dare_linear", "della_linear", "breadcrumbs"] {
        let found = digest(&task_vectors(method, "density: 1", "weight: 0.8", "weight: 0.3"));
        assert_eq!(found, expected, "{method}");
    }
}

#[test]
fn the_studys_breadcrumbs_config_is_task_arithmetic() {
    for dtype in ["float32", "float16"] {
        let study = format!(
            "base_model: inputs/base\ndtype: {dtype}\nmerge_method: breadcrumbs\nmodules:\n  default:\n    slices:\n    - sources:\n\
             \x20     - layer_range: [0, 3]\n        model: inputs/code\n        parameters:\n          weight: 0.8\n\
             \x20     - layer_range: [0, 3]\n        model: inputs/math\n        parameters:\n          weight: 0.8\n\
             \x20     - layer_range: [0, 3]\n        model: inputs/base\n        parameters:\n          density: 0.9\n          \
             gamma: 0.01\n          normalize: 1.0\n"
        );
        let plain = task_vectors("task_arithmetic", "", "weight: 0.8", "weight: 0.8").replace("float32", dtype);
        assert_eq!(digest(&study), digest(&plain), "{dtype}");
    }
}

#[test]
fn the_order_of_sources_does_not_matter() {
    let models = ["math", "code", "chat"];
    for (method, parameters) in [
        ("linear", "weight: 0.3"),
        ("task_arithmetic", "weight: 0.3"),
        ("ties", "weight: 0.7, density: 0.4"),
        ("dare_ties", "weight: 0.7, density: 0.4"),
        ("della", "weight: 0.7, density: 0.4"),
        ("breadcrumbs_ties", "weight: 0.7, density: 0.4"),
    ] {
        let text = |order: [usize; 3]| {
            let sources =
                order.map(|index| format!("- {{ model: inputs/{}, parameters: {{ {parameters} }} }}\n", models[index]));
            let base = if method == "linear" { "" } else { "base_model: inputs/base\n" };
            format!("merge_method: {method}\n{base}dtype: float32\nmodels:\n{}", sources.concat())
        };
        assert_eq!(digest(&text([0, 1, 2])), digest(&text([2, 0, 1])), "{method}");
    }
}

#[test]
fn masks_depend_on_seed_and_names_alone() {
    let text = task_vectors("dare_linear", "", "weight: 1, density: 0.5", "weight: 1, density: 0.5");
    let with_seed = |seed| merge_in(&fixtures(), &text, &MergeOptions { seed, ..options() }).unwrap();
    assert_eq!(with_seed(5).merge.weights_digest, with_seed(5).merge.weights_digest);
    assert_ne!(with_seed(5).merge.weights_digest, with_seed(6).merge.weights_digest);
    let elsewhere = TempDir::new().unwrap();
    for model in ["base", "math", "code"] {
        copy_model(model, &elsewhere.path().join("other/place").join(model));
    }
    let moved = merge_in(elsewhere.path(), &text.replace("inputs/", "other/place/"), &options()).unwrap();
    assert_eq!(moved.merge.weights_digest, digest(&text));
}

const ROWS: usize = 700;
const COLUMNS: usize = 1000;

/// Base and two models of several pieces, in a format in which many changes are of equal size.
fn large_models(folder: &Path, dtype: Dtype) {
    let mut base = pseudo_random(ROWS * COLUMNS, 1);
    f64::round_values(&mut base, dtype);
    for (name, salt) in [("base", 0), ("math", 2), ("code", 3)] {
        let changes = pseudo_random(ROWS * COLUMNS, salt);
        let mut values: Vec<f64> = base
            .iter()
            .zip(changes)
            .map(|(base, change)| if salt == 0 { *base } else { base + change / 16.0 })
            .collect();
        f64::round_values(&mut values, dtype);
        let tensor = Numbers { dtype, shape: vec![ROWS, COLUMNS], values };
        write_model(&folder.join(name), &[("h.0.weight", tensor)]);
    }
}

trait RoundValues {
    fn round_values(values: &mut [f64], dtype: Dtype);
}

impl RoundValues for f64 {
    fn round_values(values: &mut [f64], dtype: Dtype) {
        <f64 as mergesweep::merge::real::Real>::round_to(values, dtype);
    }
}

const EVERY_METHOD: &[&str] = &[
    "merge_method: linear\nmodels:\n- { model: math, parameters: { weight: 0.3 } }\n- { model: code, parameters: { weight: 0.6 } }\n",
    "merge_method: ties\nbase_model: base\nparameters: { density: 0.3, weight: 0.6, rescale: true }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: breadcrumbs_ties\nbase_model: base\nparameters: { density: 0.7, gamma: 0.05, weight: 0.6 }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: dare_linear\nbase_model: base\nparameters: { density: 0.5, weight: 0.6 }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: della\nbase_model: base\nparameters: { density: 0.5, weight: 0.6 }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: slerp\nbase_model: base\nparameters: { t: 0.4 }\nmodels:\n- model: base\n- model: code\n",
    "merge_method: nuslerp\nbase_model: base\nparameters: { weight: 0.6 }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: nuslerp\nparameters: { weight: 0.6, nuslerp_flatten: false }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: nuslerp\nparameters: { weight: 0.6, nuslerp_flatten: false, nuslerp_row_wise: true }\nmodels:\n- model: math\n- model: code\n",
    "merge_method: arcee_fusion\nbase_model: base\nmodels:\n- model: base\n- model: code\n",
];

#[test]
fn the_number_of_threads_does_not_matter() {
    let folder = TempDir::new().unwrap();
    large_models(folder.path(), Dtype::Bf16);
    for text in EVERY_METHOD {
        let merges = [1, 2, 3, 7].map(|n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| merge_in(folder.path(), text, &options()).unwrap().merge)
        });
        assert!(merges.windows(2).all(|pair| pair[0].weights_digest == pair[1].weights_digest), "{text}");
        assert!(merges.windows(2).all(|pair| pair[0].sample == pair[1].sample), "{text}");
    }
}

#[test]
fn a_sample_is_of_what_is_written_and_of_what_it_is_made_of() {
    let folder = TempDir::new().unwrap();
    large_models(folder.path(), Dtype::Bf16);
    let of_model = |folder: &Path| {
        let file = folder.join("model.safetensors");
        numbers(&mergesweep::merge::checkpoint::Checkpoint::open_file(&file).unwrap())["h.0.weight"].values.clone()
    };
    let recipes = plan_in(folder.path(), EVERY_METHOD[0], &options()).unwrap().recipes.recipes;
    let places = Places::of(&recipes).within(0, &(0..ROWS * COLUMNS)).to_vec();
    assert_eq!(places.len(), 8192);
    let (math, code) = (of_model(&folder.path().join("math")), of_model(&folder.path().join("code")));
    let spread: f64 = places.iter().map(|place| (math[*place] - code[*place]).powi(2)).sum();
    for text in EVERY_METHOD {
        let merged = merge_in(folder.path(), text, &options()).unwrap();
        let (written, sample) = (of_model(&merged.path()), &merged.merge.sample);
        assert_eq!(sample.weights, merged.merge.weights_digest);
        let sampled = &sample.tensors["h.0.weight"];
        let expected: Vec<f32> = places.iter().map(|place| written[*place] as f32).collect();
        assert_eq!(sampled.made.rounded, expected, "{text}");
        // Half a unit of bfloat16's last place at most, whose numbers have eight binary digits.
        let is_rounded = |(rounded, unrounded): (&f32, &f32)| (rounded - unrounded).abs() <= unrounded.abs() / 256.0;
        assert!(sampled.made.rounded.iter().zip(&sampled.made.unrounded).all(is_rounded), "{text}");
        assert_eq!(sampled.stands_for, (ROWS * COLUMNS) as f64 / 8192.0);
    }
    let linear = merge_in(folder.path(), EVERY_METHOD[0], &options()).unwrap().merge.sample;
    assert!((linear.tensors["h.0.weight"].spread / spread - 1.0).abs() < 1e-9);
}

#[test]
fn the_digest_is_that_of_the_files() {
    let folder = TempDir::new().unwrap();
    large_models(folder.path(), Dtype::F16);
    let sharded = MergeOptions { shard_size: 1, ..options() };
    for options in [options(), sharded] {
        let output = merge_in(folder.path(), EVERY_METHOD[0], &options).unwrap();
        assert_eq!(mergesweep::merge::weights_digest(&output.path()).unwrap(), output.merge.weights_digest);
    }
}

/// Keeps the elements at ascending ranks `first..end` of the magnitudes: of equal ones, by `earlier_is_smaller`.
fn keep_ranks(delta: &[f32], first: usize, end: usize, earlier_is_smaller: bool) -> Vec<f32> {
    let mut order: Vec<usize> = (0..delta.len()).collect();
    if !earlier_is_smaller {
        order.reverse();
    }
    order.sort_by(|a, b| delta[*a].abs().total_cmp(&delta[*b].abs()));
    let mut kept = vec![0.0; delta.len()];
    for index in &order[first..end] {
        kept[*index] = delta[*index];
    }
    kept
}

#[test]
fn trimming_large_tensors_agrees_with_sorting() {
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let folder = TempDir::new().unwrap();
        large_models(folder.path(), dtype);
        let read = |model: &str| -> Vec<f32> {
            let file = folder.path().join(model).join("model.safetensors");
            let checkpoint = mergesweep::merge::checkpoint::Checkpoint::open_file(&file).unwrap();
            numbers(&checkpoint)["h.0.weight"].values.iter().map(|value| *value as f32).collect()
        };
        let (base, math) = (read("base"), read("math"));
        let delta: Vec<f32> = math.iter().zip(&base).map(|(x, base)| x - base).collect();
        let n = delta.len();
        let (kept, top) = ((0.7 * n as f64) as usize, (0.05 * n as f64) as usize);
        let bottom = n - kept - top;
        for (method, expected) in [
            ("ties", keep_ranks(&delta, n - (0.7 * n as f64) as usize, n, false)),
            ("breadcrumbs", keep_ranks(&delta, bottom, bottom + kept, true)),
        ] {
            let text = format!(
                "merge_method: {method}\nbase_model: base\nout_dtype: float32\nparameters: {{ density: 0.7, gamma: 0.05, weight: \
                 1, normalize: false }}\ndtype: float32\nmodels:\n- model: math\n"
            );
            let output = merge_in(folder.path(), &text, &options()).unwrap();
            let found = &output.tensors()["h.0.weight"].values;
            let wrong = found.iter().zip(&base).zip(&expected).filter(|((y, b), d)| **y as f32 != **b + **d).count();
            assert_eq!(wrong, 0, "{method} {dtype}");
        }
    }
}

#[test]
fn dare_keeps_its_share_of_a_large_tensor() {
    let folder = TempDir::new().unwrap();
    large_models(folder.path(), Dtype::F32);
    let text = "merge_method: dare_linear\nbase_model: base\nparameters: { density: 0.3, weight: 1, rescale: false }\nmodels:\n- model: math\n";
    let base = numbers(
        &mergesweep::merge::checkpoint::Checkpoint::open_file(&folder.path().join("base/model.safetensors")).unwrap(),
    );
    let output = merge_in(folder.path(), text, &options()).unwrap().tensors();
    let pairs = output["h.0.weight"].values.iter().zip(&base["h.0.weight"].values);
    let share = pairs.filter(|(y, base)| y != base).count() as f64 / (ROWS * COLUMNS) as f64;
    assert!((share - 0.3).abs() < 0.003, "{share}");
}

#[test]
fn double_precision_is_kept() {
    let folder = TempDir::new().unwrap();
    let values = |salt| Numbers { dtype: Dtype::F64, shape: vec![40, 50], values: pseudo_random(2000, salt) };
    for (name, salt) in [("base", 1), ("math", 2), ("code", 3)] {
        write_model(&folder.path().join(name), &[("h.0.weight", values(salt))]);
    }
    let output = merge_in(folder.path(), EVERY_METHOD[0], &options()).unwrap().tensors();
    let Numbers { dtype, values: found, .. } = &output["h.0.weight"];
    assert_eq!(*dtype, Dtype::F64);
    let expected = |index: usize| (0.3 * values(2).values[index] + 0.6 * values(3).values[index]) / 0.9;
    assert!(found.iter().enumerate().all(|(index, y)| (y - expected(index)).abs() < 1e-16));
    for text in EVERY_METHOD {
        merge_in(folder.path(), text, &options()).unwrap_or_else(|error| panic!("{text}{error}"));
    }
}
