//! What a merge leaves on disk: shards, index, config, tokenizer files; and what it does not, when it fails, is cancelled,
//! or finds something in the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use mergesweep::merge::{MergeError, MergeOptions, TokenizerFiles};
use tempfile::TempDir;

use crate::merge_support::{copy_model, failure, fixtures, merge, merge_in, merge_to, options};

const AVERAGE: &str = "merge_method: linear\ndtype: float32\nmodels:\n- { model: inputs/math, parameters: { weight: 0.5 } }\n\
                       - { model: inputs/code, parameters: { weight: 0.5 } }\n";

fn files(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn shards_are_those_of_mergekit() {
    let output = merge_in(&fixtures(), AVERAGE, &MergeOptions { shard_size: 30_000, ..options() }).unwrap();
    let index = output.json("model.safetensors.index.json");
    let file = fixtures().join("writer/index-shard-size-30K.json");
    let expected: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let order = |index: &serde_json::Value| serde_json::to_string(&index["weight_map"]).unwrap();
    assert_eq!(order(&index), order(&expected));
    assert_eq!(index["metadata"]["total_size"], expected["metadata"]["total_size"]);
    let whole = merge(AVERAGE);
    assert_eq!(output.tensors(), whole.tensors());
    assert_eq!(output.merge.weights_digest, whole.merge.weights_digest);
}

#[test]
fn a_folder_has_what_transformers_needs() {
    let output = merge(AVERAGE);
    let expected = [
        "README.md",
        "config.json",
        "mergekit_config.yml",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files(&output.path()), expected);
    assert_eq!(fs::read_to_string(output.path().join("mergekit_config.yml")).unwrap(), AVERAGE);
    for name in expected {
        let mode = fs::metadata(output.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o444, 0o444, "{name} must be readable to all");
    }
    let plain = MergeOptions { tokenizer: TokenizerFiles::Skip, write_model_card: false, ..options() };
    let output = merge_in(&fixtures(), AVERAGE, &plain).unwrap();
    assert_eq!(files(&output.path()), ["config.json", "model.safetensors"]);
}

#[test]
fn config_json_is_edited_in_place() {
    let text = "merge_method: passthrough\ndtype: bfloat16\nslices:\n- sources: [{ model: inputs/math, layer_range: [0, 2] }]\n\
                - sources: [{ model: inputs/code, layer_range: [1, 3] }]\n";
    let output = merge(text);
    let before = fs::read_to_string(fixtures().join("inputs/math/config.json")).unwrap();
    let expected = before
        .replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")
        .replace("\"torch_dtype\": \"float32\"", "\"torch_dtype\": \"bfloat16\"");
    // As text: the order of keys counts too.
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    assert_eq!(output.json("config.json").to_string(), expected.to_string());
}

#[test]
fn a_cancelled_merge_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    for stop_after in [0, 1, 7] {
        let calls = AtomicU64::new(0);
        let progress = |_: u64, _: u64| calls.fetch_add(1, Ordering::Relaxed) < stop_after;
        let result = merge_to(&fixtures(), AVERAGE, &options(), &folder.path().join("out"), &progress);
        assert!(matches!(result, Err(MergeError::Cancelled)));
        assert!(files(folder.path()).is_empty());
    }
}

#[test]
fn a_merge_stops_within_its_statistics() {
    let folder = TempDir::new().unwrap();
    let text = "merge_method: ties\nbase_model: inputs/base\nmodels: [{ model: inputs/math, parameters: { weight: 1, density: 0.5 } }]\n";
    let (calls, written) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |done: u64, _: u64| {
        written.store(done, Ordering::Relaxed);
        calls.fetch_add(1, Ordering::Relaxed) < 1
    };
    let result = merge_to(&fixtures(), text, &options(), &folder.path().join("out"), &progress);
    assert!(matches!(result, Err(MergeError::Cancelled)));
    // The second question is one of the first tensor's ranks.
    assert_eq!((calls.into_inner(), written.into_inner()), (2, 0));
    assert!(files(folder.path()).is_empty());
}

#[test]
fn progress_ends_at_the_total() {
    let folder = TempDir::new().unwrap();
    let largest = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total);
        largest.fetch_max(done, Ordering::Relaxed);
        true
    };
    let merge = merge_to(&fixtures(), AVERAGE, &options(), &folder.path().join("out"), &progress).unwrap();
    assert_eq!(largest.into_inner(), merge.n_bytes);
    assert_eq!(merge.n_bytes, 4 * 31_456);
}

#[test]
fn an_old_output_is_replaced_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let sharded = MergeOptions { shard_size: 30_000, ..options() };
    merge_to(&fixtures(), AVERAGE, &sharded, &out, &|_, _| true).unwrap();
    merge_to(&fixtures(), AVERAGE, &options(), &out, &|_, _| true).unwrap();
    assert_eq!(files(folder.path()), ["out"]);
    assert!(!files(&out).iter().any(|name| name.contains("-of-")), "old shards are gone");
}

#[test]
fn what_no_merge_wrote_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.tex"), "").unwrap();
    let message = |out: &std::path::Path| {
        let error = merge_to(&fixtures(), AVERAGE, &options(), out, &|_, _| true).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "DIR")
    };
    insta::assert_snapshot!(message(&out), @r#"`DIR/out`: expected a new folder or the output of a merge, found `thesis.tex` there"#);
    assert_eq!(files(&out), ["thesis.tex"]);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    insta::assert_snapshot!(message(&file), @r#"`DIR/file`: expected a new folder or the output of a merge, found `something that is no folder` there"#);
    let math = folder.path().join("math");
    copy_model("math", &math);
    let text = "merge_method: passthrough\nmodels:\n- model: math\n";
    let error = merge_to(folder.path(), text, &options(), &math, &|_, _| true).unwrap_err().to_string();
    assert!(error.ends_with("is one of the models being merged"), "{error}");
}

#[test]
fn extra_tensors_are_left_out_and_named() {
    let folder = TempDir::new().unwrap();
    copy_model("math", &folder.path().join("math"));
    let mut tensors = crate::merge_support::fixture("math");
    let buffer = tensors["model.norm.weight"].clone();
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), buffer);
    let tensors: Vec<_> = tensors.iter().map(|(name, numbers)| (name.as_str(), numbers.clone())).collect();
    fs::write(folder.path().join("math/model.safetensors"), crate::merge_support::safetensors(&tensors)).unwrap();
    let output = merge_in(folder.path(), "merge_method: passthrough\nmodels:\n- model: math\n", &options()).unwrap();
    assert_eq!(output.tensors(), crate::merge_support::fixture("math"));
    insta::assert_snapshot!(output.merge.notes.join("\n"), @r#"`math`: left out, since not part of its architecture (1 in all): `model.layers.0.self_attn.rotary_emb.inv_freq`"#);
}

#[test]
fn a_chat_template_is_set() {
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    let output = merge(&format!("{AVERAGE}chat_template: \"{template}\"\n"));
    assert_eq!(fs::read_to_string(output.path().join("chat_template.jinja")).unwrap(), template);
    assert!(output.json("tokenizer_config.json").get("chat_template").is_none());
    insta::assert_snapshot!(failure(&fixtures(), &format!("{AVERAGE}chat_template: llama4\n"), &options()), @r#"`chat_template`: expected `auto`, `alpaca`, `chatml`, `exaone`, `llama3`, `mistral`, or a Jinja template of at least 20 characters, found `llama4`"#);
}

#[test]
fn where_no_model_has_a_chat_template_auto_sets_none() {
    let output = merge(&format!("{AVERAGE}chat_template: auto\n"));
    assert!(!output.path().join("chat_template.jinja").exists());
    let notes = output.merge.notes.join("\n");
    assert!(notes.contains("`chat_template: auto`: none of the models has a chat template"), "{notes}");
    let folder = TempDir::new().unwrap();
    // The two of math and code are one but for blanks.
    for (model, template) in [("base", "{{ a }}"), ("math", "{{ b }}\n"), ("code", " {{ b }}")] {
        copy_model(model, &folder.path().join(model));
        fs::write(folder.path().join(model).join("chat_template.jinja"), template).unwrap();
    }
    let text = "merge_method: linear\nparameters: { weight: 1 }\nmodels: [{ model: base }, { model: math }, { model: code }]\n\
                chat_template: auto\n";
    let output = merge_in(folder.path(), text, &options()).unwrap();
    assert_eq!(fs::read_to_string(output.path().join("chat_template.jinja")).unwrap(), "{{ b }}");
}

#[test]
fn lists_by_layer_are_stacked_as_the_layers_are() {
    let folder = TempDir::new().unwrap();
    copy_model("math", &folder.path().join("math"));
    let file = folder.path().join("math/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    config["layer_types"] = serde_json::json!(["a", "b", "c"]);
    fs::write(&file, config.to_string()).unwrap();
    let text = "merge_method: passthrough\nslices:\n- sources: [{ model: math, layer_range: [0, 3] }]\n\
                - sources: [{ model: math, layer_range: [1, 3] }]\n";
    let output = merge_in(folder.path(), text, &options()).unwrap();
    assert_eq!(output.json("config.json")["layer_types"], serde_json::json!(["a", "b", "c", "b", "c"]));
}

#[test]
fn behind_the_layers_no_more_sources_are_merged_than_the_first_slice_has() {
    let text = "merge_method: linear\nparameters: { weight: 1 }\nslices:\n\
                - sources: [{ model: inputs/code, layer_range: [0, 2] }]\n\
                - sources: [{ model: inputs/math, layer_range: [2, 3] }, { model: inputs/code, layer_range: [2, 3] }]\n";
    let output = merge(text);
    let (found, math) = (output.tensors(), crate::merge_support::fixture("math"));
    assert_eq!(found["lm_head.weight"], math["lm_head.weight"]);
    assert_ne!(found["model.layers.2.mlp.up_proj.weight"], math["model.layers.2.mlp.up_proj.weight"]);
    insta::assert_snapshot!(output.merge.notes.join("\n"), @"what follows the layers (the last norm, the head) is merged from the first 1 of the last slice's 2 sources, since the first slice has no more: so does mergekit");
    let text = "merge_method: task_arithmetic\nbase_model: inputs/base\nparameters: { weight: 1 }\nslices:\n\
                - sources: [{ model: inputs/base, layer_range: [0, 2] }]\n\
                - sources: [{ model: inputs/math, layer_range: [2, 3] }, { model: inputs/base, layer_range: [2, 3] }]\n";
    insta::assert_snapshot!(failure(&fixtures(), text, &options()), @"merging `model.norm.weight`: as in mergekit, only the first 1 of the 2 sources of the last slice are merged into what follows the layers, since the first slice has no more: slice 1: the base model `inputs/base` is not among the sources (in `slices` form it must be listed)");
}

#[test]
fn zero_layer_slices_choose_head_and_embedding() {
    let text = "merge_method: passthrough\nslices:\n- sources: [{ model: inputs/code, layer_range: [0, 0] }]\n\
                - sources: [{ model: inputs/math, layer_range: [0, 3] }]\n- sources: [{ model: inputs/base, layer_range: [1, 1] }]\n";
    let found = merge(text).tensors();
    let [base, math, code] = ["base", "math", "code"].map(crate::merge_support::fixture);
    assert_eq!(found["model.embed_tokens.weight"], code["model.embed_tokens.weight"]);
    assert_eq!(found["lm_head.weight"], base["lm_head.weight"]);
    assert_eq!(found["model.layers.2.mlp.up_proj.weight"], math["model.layers.2.mlp.up_proj.weight"]);
}

#[test]
fn what_config_json_says_wrongly_of_the_tensors_is_noted() {
    let text = "merge_method: slerp\nbase_model: inputs/base-tied\nparameters: { t: 0.5 }\n\
                models: [{ model: inputs/base-tied }, { model: inputs/math }]\n";
    let tied = merge(text).merge.notes.join("\n");
    assert!(tied.contains("config.json says `tie_word_embeddings`"), "{tied}");
    let text = "merge_method: linear\nparameters: { weight: 0.5 }\n\
                models: [{ model: inputs/math-v136 }, { model: inputs/base }]\n";
    let cut = MergeOptions { truncate_embeddings: true, ..options() };
    let cut = merge_in(&fixtures(), text, &cut).unwrap().merge.notes.join("\n");
    assert!(cut.contains("config.json says `vocab_size` 136, the embedding has 128 rows"), "{cut}");
    assert_eq!(merge(AVERAGE).merge.notes.iter().find(|note| note.contains("config.json")), None);
}

#[test]
fn infinities_that_no_input_had_are_a_failure() {
    // The weights add up to nothing, and the sum is divided by that.
    let message = failure(&fixtures(), &AVERAGE.replacen("0.5", "-0.5", 1), &options());
    assert!(message.contains("elements came out as infinity or NaN"), "{message}");
}
