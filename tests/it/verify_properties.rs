//! What must hold of the methods whatever the models are: of the oracle, and of the kernel where there is one.

use std::collections::BTreeMap;
use std::path::Path;

use mergesweep::config::Dtype;
use tempfile::TempDir;

use crate::merge_support::{Numbers, merge_in, options, pseudo_random, write_model};
use crate::verify::oracle_of;

const SHAPE: [usize; 2] = [6, 10];

/// Writes a float32 model of one matrix.
fn model(folder: &Path, name: &str, values: &[f64]) {
    let values = values.iter().map(|value| f64::from(*value as f32)).collect();
    let tensor = Numbers { dtype: Dtype::F32, shape: SHAPE.to_vec(), values };
    write_model(&folder.join(name), &[("h.0.weight", tensor)]);
}

/// A base and three models, every number times `scale`; `same` is `math` under another name.
fn models(scale: f64) -> TempDir {
    let folder = TempDir::new().unwrap();
    let n = SHAPE.iter().product();
    let base = pseudo_random(n, 1);
    let moved = |salt: u64| -> Vec<f64> {
        base.iter().zip(pseudo_random(n, salt)).map(|(base, change)| scale * (base + change / 4.0)).collect()
    };
    model(folder.path(), "base", &base.iter().map(|base| scale * base).collect::<Vec<f64>>());
    for (name, salt) in [("math", 2), ("code", 3), ("chat", 4), ("same", 2), ("alike", 2)] {
        model(folder.path(), name, &moved(salt));
    }
    folder
}

/// The result by oracle, and by kernel.
fn results(root: &Path, text: &str) -> Vec<Vec<f64>> {
    let only = |tensors: BTreeMap<String, Numbers>| tensors["h.0.weight"].values.clone();
    let mut results = vec![only(oracle_of(root, text, &options()))];
    results.push(only(merge_in(root, text, &options()).unwrap().tensors()));
    results
}

fn text(method: &str, base: bool, shared: &str, own: &str, models: &[&str]) -> String {
    let base = if base { "base_model: base\n" } else { "" };
    let models: String =
        models.iter().map(|model| format!("- {{ model: {model}, parameters: {{ {own} }} }}\n")).collect();
    format!("merge_method: {method}\n{base}parameters: {{ {shared} }}\nmodels:\n{models}")
}

fn values(root: &Path, model: &str) -> Vec<f64> {
    results(root, &text("passthrough", false, "", "", &[model])).remove(0)
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], relative: f64, what: &str) {
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= relative * largest, "{what}: {found}, expected {expected}");
    }
}

/// A few units in the last place of float32.
const CLOSE: f64 = 5e-7;

#[test]
fn equal_models_give_that_model() {
    let folder = models(1.0);
    let expected = values(folder.path(), "math");
    let all = ["math", "same", "alike"];
    for text in [
        text("linear", false, "", "weight: 0.4", &all),
        text("ties", true, "", "weight: 0.4", &all),
        text("task_arithmetic", true, "normalize: true", "weight: 0.4", &all),
        text("slerp", false, "t: 0.3", "", &["math", "same"]) + "base_model: math\n",
        text("nuslerp", true, "", "weight: 0.4", &["math", "same"]),
        text("nuslerp", false, "nuslerp_flatten: false", "weight: 0.4", &["math", "same"]),
        text("arcee_fusion", false, "", "", &["math", "same"]) + "base_model: math\n",
        text("multislerp", true, "", "weight: 0.4", &all),
        text("multislerp", false, "", "weight: 0.4", &all),
        text("karcher", false, "", "", &all),
        text("model_stock", true, "", "", &all),
        text("model_stock", true, "filter_wise: true", "", &all),
        text("nearswap", false, "t: 0.1", "", &["math", "same"]) + "base_model: math\n",
        text("sce", true, "", "", &all),
        text("ram", true, "epsilon: 0", "", &all),
        text("ramplus_tl", true, "epsilon: 0", "", &all),
    ] {
        for found in results(folder.path(), &text) {
            assert_close(&found, &expected, CLOSE, &text);
        }
    }
}

#[test]
fn one_model_alone_is_that_model() {
    let folder = models(1.0);
    let expected = values(folder.path(), "math");
    for text in [
        text("multislerp", true, "", "weight: 0.4", &["base", "math"]),
        text("multislerp", false, "", "weight: 0.4", &["math"]),
        text("karcher", false, "", "", &["math"]),
        text("linear", false, "", "weight: 1", &["math"]),
    ] {
        for found in results(folder.path(), &text) {
            assert_eq!(found, expected, "{text}");
        }
    }
    for text in [text("sce", true, "", "", &["math"]), text("ram", true, "epsilon: 0", "", &["math"])] {
        for found in results(folder.path(), &text) {
            assert_close(&found, &expected, CLOSE, &text);
        }
    }
}

#[test]
fn the_base_alone_is_the_base_for_all_that_add_to_it() {
    let folder = models(1.0);
    let expected = values(folder.path(), "base");
    for text in [
        text("sce", true, "", "", &["base"]),
        text("ram", true, "", "", &["base"]),
        text("sce", true, "select_topk: 0", "", &["math", "code"]),
        text("ram", true, "epsilon: 1", "", &["math", "code"]),
        text("ramplus_tl", true, "epsilon: 1", "", &["math", "code"]),
        text("nearswap", true, "t: 0", "", &["base", "math"]),
        text("slerp", true, "t: 0", "", &["base", "math"]),
    ] {
        for found in results(folder.path(), &text) {
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn the_other_end_is_the_other_model() {
    let folder = models(1.0);
    let expected = values(folder.path(), "math");
    for text in [
        text("slerp", true, "t: 1", "", &["base", "math"]),
        // Everything is near enough to be taken over whole.
        text("nearswap", true, "t: 10", "", &["base", "math"]),
    ] {
        for found in results(folder.path(), &text) {
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn ramplus_without_strength_is_ram() {
    let folder = models(1.0);
    let all = ["math", "code", "chat"];
    let plus = results(folder.path(), &text("ramplus_tl", true, "epsilon: 0.005, r: 0", "", &all));
    assert_eq!(plus, results(folder.path(), &text("ram", true, "epsilon: 0.005", "", &all)));
}

#[test]
fn the_order_of_models_changes_nothing() {
    let folder = models(1.0);
    for (method, base, shared, own) in [
        ("multislerp", true, "", "weight: 0.4"),
        ("multislerp", false, "", "weight: 0.4"),
        ("karcher", false, "", ""),
        ("model_stock", true, "", ""),
        ("model_stock", true, "filter_wise: true", ""),
        ("sce", true, "select_topk: 0.5", ""),
        ("ram", true, "epsilon: 0.005", ""),
        ("ramplus_tl", true, "epsilon: 0.005", ""),
    ] {
        let of = |models: [&str; 3]| results(folder.path(), &text(method, base, shared, own, &models));
        assert_eq!(of(["math", "code", "chat"]), of(["chat", "math", "code"]), "{method}");
    }
}

#[test]
fn twice_the_models_give_twice_the_result() {
    let (once, twice) = (models(1.0), models(2.0));
    let all = ["math", "code", "chat"];
    for text in [
        text("linear", false, "", "weight: 0.4", &all),
        text("ties", true, "density: 0.5", "weight: 0.4", &all),
        text("dare_ties", true, "density: 0.5", "weight: 0.4", &all),
        text("della", true, "density: 0.5", "weight: 0.4", &all),
        text("slerp", true, "t: 0.3", "", &["base", "math"]),
        text("nuslerp", true, "", "weight: 0.4", &["math", "code"]),
        text("multislerp", true, "", "weight: 0.4", &all),
        text("karcher", false, "", "", &all),
        text("model_stock", true, "", "", &all),
        text("sce", true, "select_topk: 0.5", "", &all),
        text("ram", true, "epsilon: 0", "", &all),
    ] {
        for (found, half) in results(twice.path(), &text).iter().zip(results(once.path(), &text)) {
            let expected: Vec<f64> = half.iter().map(|value| 2.0 * value).collect();
            assert_close(found, &expected, CLOSE, &text);
        }
    }
}

#[test]
fn full_density_is_no_density() {
    let folder = models(1.0);
    let all = ["math", "code", "chat"];
    for method in ["ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear"] {
        let full = results(folder.path(), &text(method, true, "density: 1, normalize: false", "weight: 0.4", &all));
        let consensus = matches!(method, "ties" | "dare_ties" | "breadcrumbs_ties" | "della");
        let plain = if consensus { ("ties", "normalize: false") } else { ("task_arithmetic", "") };
        let expected = results(folder.path(), &text(plain.0, true, plain.1, "weight: 0.4", &all));
        assert_eq!(full, expected, "{method}");
    }
}
