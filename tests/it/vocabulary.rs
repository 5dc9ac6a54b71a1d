//! Vocabularies: which tokens an output has under which ids, where their rows come from, what is refused, and whether
//! transformers reads the files the same way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use mergesweep::merge::TokenizerFiles;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::merge_support::{
    Numbers, Output, copy_model, failure, fixture, fixtures, merge, merge_in, options, refusal,
};
use crate::support::require_python;

/// Gives what the first model is laid out as: the others have no weight.
fn first(models: &[&str], tail: &str) -> String {
    let weight = |index: usize| i32::from(index == 0);
    let entry = |(index, model): (usize, &&str)| {
        format!("- {{ model: {model}, parameters: {{ weight: {} }} }}\n", weight(index))
    };
    let models: String = models.iter().enumerate().map(entry).collect();
    format!("merge_method: linear\nbase_model: inputs/base\nmodels:\n{models}dtype: float32\n{tail}")
}

fn row<'a>(tensors: &'a BTreeMap<String, Numbers>, tensor: &str, id: usize) -> &'a [f64] {
    let Numbers { shape, values, .. } = &tensors[tensor];
    &values[id * shape[1]..(id + 1) * shape[1]]
}

/// The tokens beyond the first `n`, in order of their ids.
fn beyond(output: &Output, n: usize) -> Vec<String> {
    let mut tokens: Vec<(usize, String)> = output.vocabulary().into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort();
    tokens.into_iter().filter(|(id, _)| *id >= n).map(|(_, token)| token).collect()
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

#[test]
fn a_union_keeps_the_ids_of_the_base_and_adds_tokens_in_a_fixed_order() {
    let union = |models: &[&str]| merge(&first(models, "tokenizer_source: union\n"));
    let output = union(&["inputs/math-v136", "inputs/code-perm", "inputs/base"]);
    let base: Value =
        serde_json::from_slice(&fs::read(fixtures().join("inputs/base/tokenizer.json")).unwrap()).unwrap();
    let found = output.vocabulary();
    assert!(base["model"]["vocab"].as_object().unwrap().iter().all(|(token, id)| found[token] as u64 == *id));
    assert_eq!(beyond(&output, 128).join(" "), "Ѐ Ё Ђ Ѓ Є Ѕ Ԁ ԁ Ԃ ԃ <|im_start|> <|im_end|>");
    let again = union(&["inputs/math-v136", "inputs/code-perm", "inputs/base"]);
    assert_eq!(again.merge.weights_digest, output.merge.weights_digest);
    let file = |output: &Output| fs::read(output.path().join("tokenizer.json")).unwrap();
    assert_eq!(file(&again), file(&output));
    let other = union(&["inputs/code-perm", "inputs/math-v136", "inputs/base"]);
    assert_eq!(beyond(&other, 128).join(" "), "Ԁ ԁ Ԃ ԃ Ѐ Ё Ђ Ѓ Є Ѕ <|im_start|> <|im_end|>");
}

#[test]
fn a_model_keeps_its_rows_and_gets_those_it_lacks_from_the_others() {
    let models = ["inputs/code-perm", "inputs/math-v136", "inputs/base"];
    let output = merge(&first(&models, "tokenizer_source: union\n"));
    let (found, ids) = (output.tensors(), output.vocabulary());
    let [code, math, base] = ["code-perm", "math-v136", "base"].map(fixture);
    for tensor in [EMBEDDING, HEAD] {
        assert_eq!(row(&found, tensor, ids["ԁ"]), row(&code, tensor, 17), "its own");
        assert_eq!(row(&found, tensor, ids["Ђ"]), row(&math, tensor, 130), "of the only model that has it");
        assert_eq!(row(&found, tensor, ids["ğ"]), row(&base, tensor, 33), "of the base, though math has it too");
    }
    assert_eq!(output.json("config.json")["vocab_size"], 140);
    // Without a base model there is no such precedence.
    let text = first(&models, "tokenizer_source: union\n").replace("base_model: inputs/base\n", "");
    let output = merge(&text);
    let mean: Vec<f64> = row(&math, HEAD, 33).iter().zip(row(&base, HEAD, 33)).map(|(a, b)| (a + b) / 2.0).collect();
    let tensors = output.tensors();
    let found = row(&tensors, HEAD, output.vocabulary()["ğ"]);
    assert!(found.iter().zip(&mean).all(|(found, mean)| (found - mean).abs() < 1e-7));
}

#[test]
fn tokens_have_the_rows_that_the_config_says() {
    let tokens = "tokenizer:\n  source: union\n  tokens:\n    \
        <s>: {source: {kind: zero}, force: true}\n    \
        </s>: {source: {kind: zero}}\n    \
        ğ: {source: inputs/math-v136}\n    \
        zz: {source: {kind: model_token, model: inputs/base, token_id: 7}}\n    \
        aa: {source: {kind: model_token, model: inputs/math-v136, token: <|im_end|>}, force: true}\n";
    let output = merge(&first(&["inputs/code-perm", "inputs/math-v136", "inputs/base"], tokens));
    let (found, ids) = (output.tensors(), output.vocabulary());
    let [code, math, base] = ["code-perm", "math-v136", "base"].map(fixture);
    assert!(row(&found, EMBEDDING, ids["<s>"]).iter().all(|value| *value == 0.0));
    assert_eq!(row(&found, EMBEDDING, ids["</s>"]), row(&code, EMBEDDING, 1));
    assert_eq!(row(&found, EMBEDDING, ids["ğ"]), row(&math, EMBEDDING, 33));
    assert_eq!(row(&found, EMBEDDING, ids["zz"]), row(&base, EMBEDDING, 7));
    assert_eq!(row(&found, EMBEDDING, ids["aa"]), row(&math, EMBEDDING, 135));
    assert_eq!(beyond(&output, 140), ["aa", "zz"]);
    let added = output.json("tokenizer.json")["added_tokens"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(added["special"], false);
}

#[test]
fn settings_of_a_token_that_every_model_has_are_not_looked_at() {
    let models = ["inputs/math", "inputs/base"];
    let tokens = "tokenizer: { source: union, tokens: { <s>: {}, </s>: { source: inputs/chat } } }\n";
    let plain = merge(&first(&models, "tokenizer_source: union\n"));
    assert_eq!(merge(&first(&models, tokens)).merge.weights_digest, plain.merge.weights_digest);
}

#[test]
fn the_base_of_a_slice_lends_its_rows_to_what_is_taken_from_that_slice() {
    let source = |model: &str, weight: usize, layers: &str| {
        format!("  - {{ model: {model}, layer_range: {layers}, parameters: {{ weight: {weight} }} }}\n")
    };
    let slice = |layers: &str| {
        let models = [("inputs/code-perm", 1), ("inputs/math-v136", 0), ("inputs/base", 0)];
        models.map(|(model, weight)| source(model, weight, layers)).concat()
    };
    let text = format!(
        "merge_method: linear\nbase_model: inputs/base\ntokenizer_source: union\nslices:\n- base_model: inputs/math-v136\n  \
         sources:\n{}- sources:\n{}",
        slice("[0, 2]"),
        slice("[2, 3]")
    );
    let output = merge(&text);
    let (found, id) = (output.tensors(), output.vocabulary()["ğ"]);
    let [math, base] = ["math-v136", "base"].map(fixture);
    assert_eq!(row(&found, EMBEDDING, id), row(&math, EMBEDDING, 33), "the first slice's base");
    assert_eq!(row(&found, HEAD, id), row(&base, HEAD, 33), "the base of all");
}

#[test]
fn a_vocabulary_of_a_model_that_is_not_merged_is_taken_whole() {
    let folder = TempDir::new().unwrap();
    copy_model("base", &folder.path().join("base"));
    copy_model("math-v136", &folder.path().join("other"));
    edit(&folder.path().join("other/config.json"), |config| config["vocab_size"] = json!(130));
    let text = "merge_method: passthrough\nmodels: [{ model: base }]\ntokenizer_source: other\n";
    let output = merge_in(folder.path(), text, &options()).unwrap();
    assert_eq!(output.json("config.json")["vocab_size"], 136);
}

#[test]
fn padding_is_the_mean_of_all_rows() {
    let tail = "tokenizer: { source: union, pad_to_multiple_of: 64 }\n";
    let output = merge(&first(&["inputs/math-v136", "inputs/base"], tail));
    assert_eq!(output.json("config.json")["vocab_size"], 192);
    let tensors = output.tensors();
    let math = fixture("math-v136");
    let mean = |column: usize| (0..136).map(|id| row(&math, HEAD, id)[column]).sum::<f64>() / 136.0;
    for id in 136..192 {
        for (column, found) in row(&tensors, HEAD, id).iter().enumerate() {
            assert!((found - mean(column)).abs() < 1e-7);
        }
    }
    assert_eq!(beyond(&output, 136).len(), 0, "padding has no tokens");
}

#[test]
fn one_vocabulary_is_left_as_it_is() {
    let models = ["inputs/math", "inputs/code", "inputs/base"];
    let plain = merge(&first(&models, ""));
    for source in ["base", "union", "inputs/chat"] {
        let output = merge(&first(&models, &format!("tokenizer_source: {source}\n")));
        assert_eq!(output.merge.weights_digest, plain.merge.weights_digest, "{source}");
    }
    let output = merge(&first(&models, "tokenizer_source: base\n"));
    for name in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        let file = |output: &Output| fs::read(output.path().join(name)).unwrap();
        assert_eq!(file(&output), file(&plain), "{name}");
    }
}

/// Edits a JSON file.
fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).unwrap_or_else(|_| b"{}".to_vec())).unwrap();
    change(&mut value);
    fs::write(file, serde_json::to_vec(&value).unwrap()).unwrap();
}

#[test]
fn tokens_without_a_row_are_left_out() {
    let folder = TempDir::new().unwrap();
    copy_model("math-v136", &folder.path().join("math"));
    edit(&folder.path().join("math/config.json"), |config| config["vocab_size"] = json!(132));
    edit(&folder.path().join("math/tokenizer.json"), |tokenizer| {
        tokenizer["model"]["merges"] = json!(["Ā ā", ["Ā", "Ѕ"]]);
        tokenizer["model"]["vocab"]["Āā"] = json!(131);
        tokenizer["model"]["vocab"]["Ѓ"] = json!(133);
        tokenizer["model"]["vocab"]["Ѕ"] = json!(134);
        tokenizer["added_tokens"].as_array_mut().unwrap().clear();
    });
    edit(&folder.path().join("math/tokenizer_config.json"), |config| config["pad_token"] = json!("Ѓ"));
    let text = "merge_method: passthrough\nmodels: [{ model: math }]\ntokenizer_source: base\n";
    let output = merge_in(folder.path(), text, &options()).unwrap();
    assert_eq!(beyond(&output, 128).join(" "), "Ѐ Ё Ђ Āā");
    assert_eq!(output.json("config.json")["vocab_size"], 132);
    assert_eq!(output.json("tokenizer.json")["model"]["merges"], json!(["Ā ā"]));
    assert!(output.json("tokenizer_config.json").get("pad_token").is_none());
    assert_eq!(output.tensors()[HEAD].shape, [132, 32]);
}

#[test]
fn tokens_named_only_beside_the_tokenizer_count() {
    let folder = TempDir::new().unwrap();
    for name in ["base", "math-v136"] {
        copy_model(name, &folder.path().join("inputs").join(name));
    }
    let math = folder.path().join("inputs/math-v136");
    edit(&math.join("special_tokens_map.json"), |map| map["pad_token"] = json!({ "content": "Ѕ", "lstrip": true }));
    let text = first(&["inputs/math-v136", "inputs/base"], "tokenizer_source: union\n");
    let output = merge_in(folder.path(), &text, &options()).unwrap();
    assert_eq!(beyond(&output, 128).join(" "), "Ѐ Ё Ђ Ѓ Є Ѕ <|im_start|> <|im_end|>");
    let added = output.json("tokenizer.json")["added_tokens"].as_array().unwrap().clone();
    let token = added.iter().find(|token| token["content"] == "Ѕ").unwrap();
    assert_eq!((token["lstrip"].as_bool(), token["special"].as_bool()), (Some(true), Some(true)));
}

#[test]
fn a_model_without_a_tokenizer_is_taken_to_have_that_of_the_base() {
    let output = merge(&first(&["inputs/math-bf16", "inputs/base"], "tokenizer_source: base\n"));
    assert_eq!(output.merge.notes, ["`inputs/math-bf16` has no tokenizer: taken to be that of `inputs/base`"]);
    assert_eq!(output.tensors()[EMBEDDING].values, fixture("math-bf16")[EMBEDDING].values);
}

#[test]
fn impossible_vocabularies_are_refused_before_anything_is_written() {
    let models = ["inputs/math-v136", "inputs/base"];
    let token =
        |settings: &str| first(&models, &format!("tokenizer: {{ source: union, tokens: {{ x: {settings} }} }}\n"));
    let of = |settings: &str| token(&format!("{{ source: {{ kind: model_token, model: {settings} }} }}"));
    let mut messages: Vec<String> = [
        token("{ force: true }"),
        token("{ source: inputs/code }"),
        token("{ source: inputs/base }"),
        of("inputs/base, token: nope"),
        of("inputs/math-v136, token_id: 136"),
        of("inputs/base, token_id: 0, token: x"),
        first(&models, "tokenizer_source: inputs/code-bf16\n"),
        first(&models, "tokenizer_source: union\n").replace("inputs/base", "inputs/base-bf16"),
    ]
    .iter()
    .map(|text| refusal(text))
    .collect();
    let folder = TempDir::new().unwrap();
    let text = "merge_method: passthrough\nmodels: [{ model: base }]\ntokenizer: { tokens: { x: { source: { kind: zero } } } }\n";
    let broken = |change: &dyn Fn(&Path)| {
        copy_model("base", &folder.path().join("base"));
        change(&folder.path().join("base"));
        failure(folder.path(), text, &options())
    };
    messages.push(broken(&|base| edit(&base.join("tokenizer.json"), |json| json["model"]["vocab"]["Ā"] = json!(500))));
    messages.push(broken(&|base| edit(&base.join("tokenizer.json"), |json| json["model"] = json!("BPE"))));
    messages.push(broken(&|base| edit(&base.join("tokenizer.json"), |json| json["added_tokens"] = json!([7]))));
    messages.push(broken(&|base| fs::rename(base.join("tokenizer.json"), base.join("tokenizer.model")).unwrap()));
    insta::assert_snapshot!(messages.join("\n"), @r#"
    `tokenizer.tokens`: `x`: missing key `source`: `force` is set
    `tokenizer.tokens`: `x`: its source `inputs/code` is not one of the models merged into the embedding (those of the first slice) and the head (of the last): `inputs/base`, `inputs/math-v136`
    `tokenizer.tokens`: `x`: its source `inputs/base` has no token `x`
    `tokenizer.tokens`: `x`: its source `inputs/base` has no token `nope`
    `tokenizer.tokens`: `x`: `token_id`: expected one of the 136 rows of `inputs/math-v136` (0 is the first), found 136
    error[E0105]: config.yml:7:52: `tokenizer.tokens.x.source`: expected one of `token`, `token_id`
    `ROOT/inputs/code-bf16`: expected `tokenizer.json`, found no tokenizer: the vocabulary of `inputs/code-bf16` is asked for (`tokenizer`)
    `ROOT/inputs/base-bf16`: expected `tokenizer.json`, found no tokenizer: the vocabulary of `inputs/base-bf16` is asked for (`tokenizer`)
    `ROOT/base/tokenizer.json`: `model.vocab` has 127 tokens with ids up to 127: added tokens like `x` would get ids that are taken (give the tokens ids without gaps)
    `ROOT/base/tokenizer.json`: `model.vocab`: expected a table of tokens and ids, or a list of tokens and scores
    `ROOT/base/tokenizer.json`: `added_tokens`: expected a list of tokens with `id` and `content`
    `ROOT/base`: expected `tokenizer.json`, found only `tokenizer.model` (write it with transformers: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`)
    "#);
}

#[test]
fn a_new_vocabulary_is_written_even_where_tokenizers_are_not_copied() {
    let skip = mergesweep::merge::MergeOptions { tokenizer: TokenizerFiles::Skip, ..options() };
    let text = first(&["inputs/math-v136", "inputs/base"], "tokenizer_source: union\n");
    assert_eq!(merge_in(&fixtures(), &text, &skip).unwrap().vocabulary().len(), 136);
}

/// Runs a program with the interpreter of the harness on the outputs; what it prints as JSON.
fn python(python: &Path, program: &str, outputs: &[&Output]) -> Value {
    let run = Command::new(python).args(["-c", program]).args(outputs.iter().map(|output| output.path())).output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn transformers_reads_the_same_vocabulary() {
    let Some(interpreter) = require_python() else { return };
    let tail = "tokenizer:\n  source: union\n  pad_to_multiple_of: 64\n  tokens: { zz: { source: { kind: zero } } }\n";
    let output = merge(&first(&["inputs/math-v136", "inputs/code-perm", "inputs/base"], tail));
    let program = "import json, sys\n\
        from transformers import AutoTokenizer\n\
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n\
        print(json.dumps([tokenizer.get_vocab(), tokenizer('Ā<|im_start|>Ѕzz')['input_ids']]))";
    let ids = output.vocabulary();
    let tokens = ["Ā", "<|im_start|>", "Ѕ", "zz"].map(|token| ids[token]);
    let expected = json!([ids, tokens]);
    assert_eq!(python(&interpreter, program, &[&output]), expected);
}

#[test]
fn built_in_chat_templates_render_as_those_of_mergekit() {
    let Some(interpreter) = require_python() else { return };
    let file = fixtures().parent().unwrap().join("chat-templates/renderings.json");
    let expected: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let program = format!(
        "import json, sys\n\
         from transformers import AutoTokenizer\n\
         tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in sys.argv[1:]]\n\
         cases = json.load(open({:?}))\n\
         print(json.dumps([[tokenizer.apply_chat_template(case['messages'], tokenize=False,\n\
             add_generation_prompt=case['add_generation_prompt']) for case in cases] for tokenizer in tokenizers]))",
        file.display().to_string()
    );
    let names = ["alpaca", "chatml", "exaone", "llama3", "mistral"];
    let outputs = names.map(|name| merge(&first(&["inputs/base"], &format!("chat_template: {name}\n"))));
    let found = python(&interpreter, &program, &outputs.each_ref());
    for (name, found) in names.iter().zip(found.as_array().unwrap()) {
        for (case, found) in expected.as_array().unwrap().iter().zip(found.as_array().unwrap()) {
            assert_eq!(*found, case["renderings"][*name], "{name}: {}", case["messages"]);
        }
    }
}

#[test]
fn special_tokens_that_only_the_config_names_are_written_with_their_ids() {
    let folder = TempDir::new().unwrap();
    copy_model("math", &folder.path().join("math"));
    edit(&folder.path().join("math/config.json"), |config| config["vocab_size"] = json!(129));
    edit(&folder.path().join("math/special_tokens_map.json"), |map| map["pad_token"] = json!("<pad>"));
    let text = "merge_method: passthrough\nmodels: [{ model: math }]\ntokenizer_source: base\n";
    let output = merge_in(folder.path(), text, &options()).unwrap();
    assert_eq!(beyond(&output, 128), ["<pad>"]);
    assert_eq!(output.json("tokenizer_config.json")["pad_token"], "<pad>");
    assert!(!output.path().join("special_tokens_map.json").exists());
    assert!(row(&output.tensors(), EMBEDDING, 128).iter().all(|value| *value == 0.0), "a token that has no row");
}
