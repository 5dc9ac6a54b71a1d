//! Broken checkpoints and configs that no models can satisfy: each gives one clear error, and nothing is left half-written
//! (`failure` looks).

use std::fs;
use std::path::Path;

use mergesweep::merge::{MergeOptions, TokenizerFiles};
use tempfile::TempDir;

use crate::merge_support::{copy_model, failure, fixture, options, refusal, safetensors};

const AVERAGE: &str = "merge_method: linear\nmodels:\n- { model: math, parameters: { weight: 1 } }\n- { model: code, parameters: { weight: 1 } }\n";

/// The message of averaging two models, one of which was broken.
fn broken(options: &MergeOptions, break_it: impl FnOnce(&Path)) -> String {
    let folder = TempDir::new().unwrap();
    for model in ["math", "code"] {
        copy_model(model, &folder.path().join(model));
    }
    break_it(&folder.path().join("code"));
    failure(folder.path(), AVERAGE, options)
}

/// Changes the tensors of a model.
fn rewrite(model: &Path, change: impl Fn(&mut std::collections::BTreeMap<String, crate::merge_support::Numbers>)) {
    let mut tensors = fixture("code");
    change(&mut tensors);
    let tensors: Vec<_> = tensors.iter().map(|(name, numbers)| (name.as_str(), numbers.clone())).collect();
    fs::write(model.join("model.safetensors"), safetensors(&tensors)).unwrap();
}

#[test]
fn a_truncated_file() {
    let message = broken(&options(), |model| {
        let file = model.join("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 1000]).unwrap();
    });
    insta::assert_snapshot!(message, @r#"`ROOT/code/model.safetensors`: the file is cut short: expected at least 128848 bytes, found 127848"#);
}

#[test]
fn a_header_that_lies_about_sizes() {
    let message = broken(&options(), |model| {
        let file = model.join("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let from = b"\"shape\":[32,48]";
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        let mut lying = bytes;
        lying[at..at + from.len()].copy_from_slice(b"\"shape\":[99,48]");
        fs::write(&file, lying).unwrap();
    });
    insta::assert_snapshot!(message, @r#"`ROOT/code/model.safetensors`: tensor `model.layers.0.mlp.down_proj.weight`: expected 19008 bytes for [99, 48], found offsets 32896..39040"#);
}

#[test]
fn wrong_shapes() {
    let message = broken(&options(), |model| {
        rewrite(model, |tensors| {
            let tensor = tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap();
            tensor.shape = vec![tensor.shape[0] / 2, tensor.shape[1] * 2];
        });
    });
    insta::assert_snapshot!(message, @r#"merging `model.layers.1.mlp.up_proj.weight` (linear): shapes differ: [48, 32] in `math`, [24, 64] in `code`"#);
}

#[test]
fn a_missing_tensor() {
    let message = broken(&options(), |model| {
        rewrite(model, |tensors| {
            tensors.remove("model.layers.2.self_attn.q_proj.weight");
        });
    });
    insta::assert_snapshot!(message, @r#"merging `model.layers.2.self_attn.q_proj.weight`: `code` has no tensor `model.layers.2.self_attn.q_proj.weight`"#);
}

#[test]
fn a_missing_tokenizer() {
    let folder = TempDir::new().unwrap();
    copy_model("math", &folder.path().join("math"));
    fs::remove_file(folder.path().join("math/tokenizer.json")).unwrap();
    let text = "merge_method: passthrough\nmodels:\n- model: math\n";
    let required = MergeOptions { tokenizer: TokenizerFiles::Required, ..options() };
    insta::assert_snapshot!(failure(folder.path(), text, &required), @r#"`ROOT/math`: expected a tokenizer to copy (`tokenizer.json`, `tokenizer.model` or `vocab.json`), found none (a merge without it: `--no-copy-tokenizer`)"#);
    let output = crate::merge_support::merge_in(folder.path(), text, &options()).unwrap();
    insta::assert_snapshot!(output.merge.notes.join("\n"), @r#"`math` has no tokenizer: none was copied"#);
}

#[test]
fn other_broken_folders() {
    let messages = [
        broken(&options(), |model| fs::remove_file(model.join("model.safetensors")).unwrap()),
        broken(&options(), |model| {
            fs::rename(model.join("model.safetensors"), model.join("pytorch_model.bin")).unwrap();
        }),
        broken(&options(), |model| fs::remove_file(model.join("config.json")).unwrap()),
        broken(&options(), |model| fs::write(model.join("config.json"), "{").unwrap()),
        broken(&options(), |model| {
            fs::remove_file(model.join("model.safetensors")).unwrap();
            let index = r#"{"weight_map": {"a": "model-1.safetensors"}}"#;
            fs::write(model.join("model.safetensors.index.json"), index).unwrap();
        }),
        broken(&options(), |model| {
            fs::remove_file(model.join("model.safetensors")).unwrap();
            let index = r#"{"weight_map": {"a": "../math/model.safetensors"}}"#;
            fs::write(model.join("model.safetensors.index.json"), index).unwrap();
        }),
        broken(&options(), |model| {
            fs::rename(model.join("model.safetensors"), model.join("one.safetensors")).unwrap();
            let index = r#"{"weight_map": {"a": "one.safetensors"}}"#;
            fs::write(model.join("model.safetensors.index.json"), index).unwrap();
        }),
        broken(&options(), |model| {
            fs::rename(model.join("model.safetensors"), model.join("one.safetensors")).unwrap();
            let index = r#"{"weight_map": {"lm_head.weight": "one.safetensors", "model.embed_tokens.weight": "one.safetensors"}}"#;
            fs::write(model.join("model.safetensors.index.json"), index).unwrap();
        }),
        broken(&options(), |model| {
            fs::copy(model.join("model.safetensors"), model.join("one.safetensors")).unwrap();
            fs::rename(model.join("model.safetensors"), model.join("two.safetensors")).unwrap();
            let index =
                r#"{"weight_map": {"lm_head.weight": "one.safetensors", "model.norm.weight": "two.safetensors"}}"#;
            fs::write(model.join("model.safetensors.index.json"), index).unwrap();
        }),
        broken(&options(), |model| {
            let config = fs::read_to_string(model.join("config.json")).unwrap();
            fs::write(model.join("config.json"), config.replace("LlamaFor", "MistralFor")).unwrap();
        }),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    `ROOT/code`: expected `model.safetensors` or `model.safetensors.index.json`, found neither
    `ROOT/code`: expected safetensors, found `pytorch_model.bin` (convert it with `save_pretrained(..., safe_serialization=True)` of transformers)
    `ROOT/code/config.json`: cannot be read: No such file or directory (os error 2)
    `ROOT/code/config.json`: expected a JSON table: EOF while parsing an object at line 1 column 1
    `ROOT/code/model.safetensors.index.json`: tensor `a` should be in `model-1.safetensors`, which does not exist
    `ROOT/code/model.safetensors.index.json`: tensor `a`: expected the name of a file in the same folder, found `../math/model.safetensors`
    `ROOT/code/model.safetensors.index.json`: tensor `a` should be in `one.safetensors`, which does not have it (fetch that file and the index again from one source)
    merging `model.norm.weight`: `code` has no tensor `model.norm.weight`
    `ROOT/code/model.safetensors.index.json`: tensor `lm_head.weight` is in both `one.safetensors` and `two.safetensors`
    `math` is a `LlamaForCausalLM`, `code` a `MistralForCausalLM` (`--allow-crimes` merges them all the same)
    "#);
}

#[test]
fn a_number_that_is_none_and_spreads() {
    let folder = TempDir::new().unwrap();
    for model in ["math", "code"] {
        copy_model(model, &folder.path().join(model));
    }
    rewrite(&folder.path().join("code"), |tensors| {
        tensors.get_mut("model.norm.weight").unwrap().values[3] = f64::NAN;
    });
    let text =
        "merge_method: slerp\nbase_model: math\nmodels: [{ model: math }, { model: code }]\nparameters: { t: 0.5 }\n";
    insta::assert_snapshot!(failure(folder.path(), text, &options()), @r#"merging `model.norm.weight`: `model.norm.weight` of `code` has infinities or NaN, and the method spreads them over 31 elements that have none (repair the model, or leave it out)"#);
}

#[test]
fn layers_that_config_json_counts_otherwise_are_noted() {
    for (said, note) in [
        ("2", "`code`: config.json says `num_hidden_layers` 2; its tensors are of 3 layers, 2 are merged"),
        (
            "2.5",
            "`code`: config.json says `num_hidden_layers` 2.5, which is no number of layers; its tensors are of 3 layers, 3 \
             are merged",
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let model = folder.path().join("code");
        copy_model("code", &model);
        let config = fs::read_to_string(model.join("config.json")).unwrap();
        let said = format!("\"num_hidden_layers\": {said}");
        fs::write(model.join("config.json"), config.replace("\"num_hidden_layers\": 3", &said)).unwrap();
        let text = "merge_method: passthrough\nmodels: [{ model: code }]\n";
        let output = crate::merge_support::merge_in(folder.path(), text, &options()).unwrap();
        assert!(output.merge.notes.iter().any(|found| found == note), "{:?}", output.merge.notes);
    }
}

#[test]
fn configs_that_no_models_satisfy() {
    let of = refusal;
    let slices = |method: &str, first: &str, second: &str| {
        format!(
            "merge_method: {method}\nbase_model: inputs/base\nparameters: {{ weight: 1, t: 0.5 }}\nslices:\n- sources:\n  - {{ model: \
             inputs/math, layer_range: {first} }}\n  - {{ model: inputs/code, layer_range: {second} }}\n"
        )
    };
    let models = |head: &str, names: &[&str]| {
        let sources: String = names.iter().map(|name| format!("- model: inputs/{name}\n")).collect();
        format!("{head}\nmodels:\n{sources}")
    };
    let messages = [
        of(&slices("ties", "[0, 3]", "[0, 3]")),
        of(&slices("nuslerp", "[0, 3]", "[0, 3]")),
        of(&slices("linear", "[0, 3]", "[0, 2]")),
        of(&slices("linear", "[0, 4]", "[0, 4]")),
        of(&models("merge_method: slerp\nparameters: { t: 0.5 }", &["math", "code"])),
        of(&models("merge_method: slerp\nbase_model: inputs/base\nparameters: { t: 0.5 }", &["math", "code"])),
        of(&models("merge_method: slerp\nbase_model: inputs/math", &["math", "code"])),
        of(&models("merge_method: linear", &["math", "code"])),
        of(&models("merge_method: passthrough", &["math", "code"])),
        of(&models("merge_method: della\nbase_model: inputs/base\nparameters: { weight: 1, density: 0.9 }", &["math"])),
        of(&models(
            "merge_method: dare_ties\nbase_model: inputs/base\nparameters: { weight: 1, density: -0.1 }",
            &["math"],
        )),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    warning[E0213]: config.yml:3:26: `parameters.t`: `ties` does not read `t`
    hint: `ties` takes `weight`, `density`, `normalize`, `rescale`, `lambda`, `int8_mask`
    error[E0212]: config.yml:5:3: `slices[0]`: base model `inputs/base` is not a source of this slice, `ties` needs it there
    hint: list the base model among the sources of every slice
    slice 0: the base model `inputs/base` is not among the sources (in `slices` form it must be listed)
    warning[E0213]: config.yml:3:26: `parameters.t`: `linear` does not read `t`
    hint: `linear` takes `weight`, `normalize`
    error[E0216]: config.yml:7:5: `slices[0].sources[1]`: sources of a slice must have the same number of layers: 3 of `inputs/math`, 2 of `inputs/code`
    slice 0: `inputs/math` has 3 layers, found `layer_range: [0, 4]`
    error[E0212]: config.yml:4:3: `models`: `slerp` needs a `base_model`, found none
    error[E0212]: config.yml:2:13: `base_model`: `slerp` takes exactly 2 models, the base among them, found 3
    hint: a `base_model` that is not one of the two listed models counts as a third
    error[E0214]: config.yml:4:3: `models`: `slerp` needs the parameter `t`, found none
    error[E0214]: config.yml:3:3: `models`: `linear` needs the parameter `weight` for `inputs/math`, found none
    hint: set `weight` on the model, or for all under `parameters`
    error[E0214]: config.yml:3:3: `models`: `linear` needs the parameter `weight` for `inputs/code`, found none
    hint: set `weight` on the model, or for all under `parameters`
    error[E0212]: config.yml:3:3: `models`: `passthrough` takes exactly 1 model, found 2
    error[E0215]: config.yml:5:3: `models`: `della` would keep changes of `inputs/math` with probabilities from 0.75 to 1.05: density 0.9 and epsilon 0.15
    hint: density - epsilon must be above 0, and density + epsilon below 1; epsilon is 0.15 where it is not set
    error[E0215]: config.yml:3:35: `parameters.density`: `density` is -0.1, expected 0 to 1: a share cannot be negative
    hint: `density` is the share of the changes that is kept
    "#);
}

#[test]
fn two_sets_of_weights_in_one_folder() {
    let message = broken(&options(), |model| {
        fs::write(model.join("model.safetensors.index.json"), "{\"weight_map\": {}}").unwrap();
    });
    insta::assert_snapshot!(message, @"`ROOT/code`: both `model.safetensors` and `model.safetensors.index.json` are there, and programs differ in which they read (remove one of the two sets)");
}

#[test]
fn an_index_may_speak_of_the_one_file_and_leave_tensors_out() {
    let folder = TempDir::new().unwrap();
    let code = folder.path().join("code");
    copy_model("code", &code);
    let names: Vec<String> = fixture("code").into_keys().collect();
    rewrite(&code, |tensors| {
        let odd = tensors["model.norm.weight"].clone();
        tensors.insert("odd".to_owned(), odd);
    });
    let map: std::collections::BTreeMap<&str, &str> =
        names.iter().map(|name| (name.as_str(), "model.safetensors")).collect();
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(code.join("model.safetensors.index.json"), index).unwrap();
    let text = "merge_method: passthrough\nmodels:\n- model: code\n";
    let output = crate::merge_support::merge_in(folder.path(), text, &options()).unwrap();
    assert_eq!(output.tensors(), fixture("code"));
    assert_eq!(output.merge.notes, ["`code`: left out, since not in the index of its files (1 in all): `odd`"]);
}

#[test]
fn an_input_with_nan_is_named_even_where_the_method_hides_it() {
    use crate::merge_support::merge_in;

    let folder = TempDir::new().unwrap();
    for model in ["base", "math", "code"] {
        copy_model(model, &folder.path().join(model));
    }
    rewrite(&folder.path().join("code"), |tensors| {
        tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().values[7] = f64::NAN;
    });
    let merge = |method: &str, parameters: &str| {
        let base = if method == "ties" { "base_model: base\n" } else { "" };
        let each = |model| format!("- {{ model: {model}, parameters: {{ {parameters} }} }}\n");
        let text = format!("merge_method: {method}\n{base}models:\n{}{}", each("math"), each("code"));
        merge_in(folder.path(), &text, &options())
    };
    for (method, parameters) in [("ties", "weight: 1, density: 0.5"), ("linear", "weight: 1")] {
        let notes = merge(method, parameters).unwrap().merge.notes;
        let expected = "`model.layers.1.mlp.up_proj.weight` of `code` has infinities or NaN";
        assert!(notes.iter().any(|note| note.starts_with(expected)), "{method}: {notes:?}");
    }
    // No direction can be told from a NaN: all of the tensor would be one.
    let error = merge("karcher", "").map(|output| output.merge.notes).unwrap_err();
    assert!(error.to_string().contains("model.layers.1.mlp.up_proj.weight"), "{error}");
}

#[test]
fn what_a_killed_merge_left_is_removed_by_the_next() {
    use crate::merge_support::{fixtures, merge_to};

    let folder = TempDir::new().unwrap();
    // No process has this number: it is beyond what Linux gives out.
    let abandoned = folder.path().join(".out.partial-4194999-0");
    let living = folder.path().join(format!(".out.partial-{}-9999", std::process::id()));
    for left in [&abandoned, &living] {
        fs::create_dir(left).unwrap();
    }
    merge_to(&fixtures(), AVERAGE, &options(), &folder.path().join("out"), &|_, _| true).unwrap_err();
    let average = AVERAGE.replace("math", "inputs/math").replace("code", "inputs/code");
    merge_to(&fixtures(), &average, &options(), &folder.path().join("out"), &|_, _| true).unwrap();
    assert!(!abandoned.exists() && living.exists());
}
