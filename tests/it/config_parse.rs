//! Reading mergekit's dialect: its three forms, what it refuses, and what it only passes over.

use std::path::Path;

use mergesweep::config::parse::{Mergekit, Parsed, parse};
use mergesweep::config::{Method, Setting, Tokenizer};
use mergesweep::document::{Problems, parse as document};

/// Reads a config from text, as if it stood in `c.yml`.
pub fn read(text: &str) -> Result<Parsed, Problems> {
    parse(&document::text_of(Path::new("c.yml"), text.to_owned())?, &Mergekit)
}

fn mistakes(text: &str) -> String {
    read(text).err().map(|problems| problems.to_string()).unwrap_or_default()
}

fn warnings(text: &str) -> String {
    read(text).map(|parsed| parsed.warnings.to_string()).unwrap_or_else(|problems| format!("REFUSED {problems}"))
}

const LINEAR: &str = "merge_method: linear\nmodels:\n- {model: a/b, parameters: {weight: 1}}\n";

#[test]
fn the_base_joins_as_the_last_source_in_models_form_only() {
    let models = "merge_method: ties\nbase_model: o/base\nmodels:\n- {model: o/math, parameters: {weight: 1}}\n";
    let config = read(models).unwrap().config;
    let names: Vec<_> = config.slices[0].sources.iter().map(|source| source.model.to_string()).collect();
    assert_eq!(names, ["o/math", "o/base"]);
    let module = "merge_method: ties\nbase_model: o/base\nmodules: {default: {models: [{model: o/math, parameters: {weight: 1}}]}}\n";
    assert_eq!(read(module).unwrap().config, config);
    let slices = "merge_method: ties\nbase_model: o/base\nslices:\n- sources: [{model: o/math, layer_range: [0, 2], parameters: {weight: 1}}]\n";
    assert_eq!(
        mistakes(slices),
        "error[E0212]: c.yml:4:3: `slices[0]`: base model `o/base` is not a source of this slice, `ties` needs it there\n\
         hint: list the base model among the sources of every slice"
    );
}

#[test]
fn every_form_of_a_parameter_is_read() {
    let text = "merge_method: linear\nmodels:\n- model: a/b\n  parameters:\n    weight:\n    - {filter: mlp, value: [0, 1]}\n    - value: 0.5\n- model: a/c\n  parameters: {weight: {filter: attn, value: 2}}\n- model: a/d\n  parameters: {weight: [0.1, 0.9]}\nparameters: {weight: 1}\n";
    let config = read(text).unwrap().config;
    let settings: Vec<_> = config.slices[0].sources.iter().map(|source| &source.parameters["weight"]).collect();
    assert!(matches!(settings[0], Setting::Conditional(cases) if cases.len() == 2));
    assert!(matches!(settings[1], Setting::Conditional(cases) if cases.len() == 1));
    assert!(matches!(settings[2], Setting::Gradient(values) if values.len() == 2));
}

#[test]
fn models_may_be_written_in_parts() {
    let text = "merge_method: linear\nmodels:\n- model: {model: {path: a/b, revision: v1}, lora: {path: c/d}}\n  parameters: {weight: 1}\n";
    assert_eq!(read(text).unwrap().config.slices[0].sources[0].model.to_string(), "a/b@v1+c/d");
}

#[test]
fn tokenizer_mappings_that_say_one_word_are_that_word() {
    let with = |tail: &str| read(&format!("{LINEAR}{tail}")).unwrap().config.tokenizer.unwrap();
    assert_eq!(with("tokenizer_source: union\n"), Tokenizer::Source("union".to_owned()));
    assert_eq!(with("tokenizer: {source: base}\n"), Tokenizer::Source("base".to_owned()));
    assert_eq!(
        with("tokenizer: {source: a/b, pad_to_multiple_of: 64, tokens: {<s>: {source: {kind: zero}, force: true}}}\n"),
        Tokenizer::Detailed(
            r#"{"source":"a/b","tokens":{"<s>":{"source":{"kind":"zero"},"force":true}},"pad_to_multiple_of":64}"#
                .to_owned()
        )
    );
}

#[test]
fn what_mergekit_ignores_is_warned_of() {
    assert_eq!(
        warnings(
            "merge_method: linear\nnormalize: false\nmodels:\n- {model: a/b, parameters: {weight: 1, densty: 2}}\n"
        ),
        "warning[E0101]: c.yml:2:1: `normalize`: unknown key `normalize`\n\
         hint: parameters stand under `parameters`\n\
         warning[E0213]: c.yml:4:40: `models[0].parameters.densty`: unknown parameter `densty` for `linear`\n\
         hint: `linear` takes `weight`, `normalize`"
    );
    assert_eq!(warnings(&format!("{LINEAR}x-anchors: {{a: 1}}\n")), "");
}

#[test]
fn numbers_that_mergekit_reads_otherwise_are_warned_of() {
    let text = "merge_method: linear\nmodels:\n- {model: a/b, parameters: {weight: 010}}\n- {model: a/c, parameters: {weight: 1e-3}}\n- {model: a/d, parameters: {weight: [0, 1e-3]}}\n";
    let found = warnings(text);
    assert!(found.contains("c.yml:3:37: mergekit reads `010` as the whole number 8"), "{found}");
    // A text that spells a number is that number to it, in a gradient as well.
    assert!(!found.contains("c.yml:4") && !found.contains("c.yml:5"), "{found}");
}

#[test]
fn spellings_that_mergekit_takes_for_a_value_are_that_value() {
    let read = |tail: &str| {
        let text =
            format!("merge_method: linear\nslices:\n- sources: [{{model: a/b, layer_range: [\"0\", \"3\"]}}]\n{tail}");
        read(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
    };
    let plain = read(
        "parameters: {weight: {value: 1}}\ntokenizer: {pad_to_multiple_of: 32, tokens: {t: {force: true, \
         source: {kind: model_token, model: a/b, token_id: 5}}}}\n",
    );
    assert_eq!(plain.slices[0].sources[0].layer_range, Some((0, 3)));
    for force in ["yes", "\"true\"", "1", "1.0", "\"T\""] {
        let spelled = read(&format!(
            "parameters: {{weight: {{filter: '', value: 1}}}}\ndtype: ''\nout_dtype: \"\"\nchat_template: ''\n\
             tokenizer: {{pad_to_multiple_of: \"32\", tokens: {{t: {{force: {force}, \
             source: {{kind: model_token, model: a/b, token_id: \"5\"}}}}}}}}\n"
        ));
        assert_eq!(spelled, plain, "{force}");
    }
    let unpadded = read("parameters: {weight: 1}\ntokenizer: {source: union, pad_to_multiple_of: 0}\n");
    assert_eq!(unpadded.tokenizer, Some(Tokenizer::Source("union".to_owned())));
}

#[test]
fn what_mergekit_refuses_is_refused() {
    for (text, message) in [
        ("", "c.yml:1:1: expected a mergekit config (a mapping), found nothing"),
        ("- a\n", "c.yml:1:1: expected a mergekit config (a mapping), found a list"),
        ("merge_method: linear\n", "missing sources, expected one of `models`, `slices`, `modules`"),
        ("models: []\n", "missing key `merge_method`"),
        ("merge_method: linear\nmodels: []\n", "c.yml:2:9: `models`: expected at least one source, found none"),
        (
            "merge_method: linear\nbase_model: a/b\nparameters: {weight: 1}\nmodels: []\n",
            "c.yml:4:9: `models`: expected at least one source, found none",
        ),
        (
            "merge_method: linear\nparameters: {weight: 1}\nslices:\n- sources: [{model: a/b, layer_range: [0, 2]}]\n  residual_weight: abc\n",
            "c.yml:5:20: `slices[0].residual_weight`: expected a number, found the text `abc`",
        ),
        (
            "merge_method: linear\nparameters: {weight: {filter: no, value: 1}}\nmodels: [{model: a/b}]\n",
            "c.yml:2:31: `parameters.weight.filter`: expected a text, found `no`, which mergekit reads as false\nhint: put it in quotes",
        ),
        (
            "merge_method: lineer\nmodels: [{model: a/b}]\n",
            "c.yml:1:15: `merge_method`: unknown merge method `lineer`\nhint: did you mean `linear`?",
        ),
        (
            "merge_method: karchr\nmodels: [{model: a/b}]\n",
            "c.yml:1:15: `merge_method`: unknown merge method `karchr`\nhint: did you mean `karcher`?",
        ),
        (
            "merge_method: linear\nmodels: [{model: a/b}]\nslices: []\n",
            "c.yml:3:9: `slices`: expected one of `models`, `slices`, `modules`, found `models`, `slices`",
        ),
        (
            "merge_method: linear\nmodules: {a: {models: []}, b: {models: []}}\n",
            "expected the one module `default`, found `a`, `b`",
        ),
        (
            "merge_method: linear\nmodels:\n- {model: a/b, parameters: {weight: 1}}\ndtype: fp16\n",
            "c.yml:4:8: `dtype`: unknown dtype `fp16`, expected one of `bfloat16`, `float16`, `float32`, `float64`\nhint: did you mean `float16`?",
        ),
        (
            "merge_method: linear\nmodels:\n- {model: a/b, parameters: {weight: 1}}\ntokenizer_source: base\ntokenizer: {source: base}\n",
            "c.yml:5:12: `tokenizer`: expected one of `tokenizer_source`, `tokenizer`, found both",
        ),
        (
            "merge_method: linear\nparameters: {weight: 1}\nmodels:\n- {model: a/b}\n- {model: a/b}\n",
            "c.yml:5:3: `models[1]`: model `a/b` is listed twice",
        ),
        (
            "merge_method: linear\nparameters: {weight: 1}\nslices:\n- sources:\n  - {model: a/b, layer_range: [0, 2]}\n  - {model: a/c, layer_range: [0, 3]}\n",
            "c.yml:6:5: `slices[0].sources[1]`: sources of a slice must have the same number of layers: 2 of `a/b`, 3 of `a/c`",
        ),
        (
            "merge_method: slerp\nbase_model: a/c\nmodels: [{model: a/a}, {model: a/b}]\nparameters: {t: 0.5}\n",
            "`slerp` takes exactly 2 models, the base among them, found 3\nhint: a `base_model` that is not one of the two",
        ),
        (
            "merge_method: slerp\nmodels: [{model: a/a}, {model: a/b}]\nparameters: {t: 0.5}\n",
            "`slerp` needs a `base_model`, found none",
        ),
        (
            "merge_method: slerp\nbase_model: a/a\nmodels: [{model: a/a}, {model: a/b, parameters: {t: 0.5}}]\n",
            "`slerp` needs the parameter `t`, found none\nhint: `t` on a source is never read",
        ),
        (
            "merge_method: passthrough\nbase_model: a/c\nmodels: [{model: a/a}]\n",
            "`passthrough` takes exactly 1 model, found 2\nhint: leave `base_model` out",
        ),
        (
            "merge_method: linear\nmodels: [{model: a/a}]\n",
            "`linear` needs the parameter `weight` for `a/a`, found none",
        ),
        (
            "merge_method: linear\nmodels: [{model: a/a, parameters: {weight: heavy}}]\n",
            "expected a number, found the text `heavy`",
        ),
        (
            "merge_method: linear\nmodels: [{model: a/a, parameters: {weight: null}}]\n",
            "expected a number, found nothing",
        ),
        (
            "merge_method: linear\nmodels: [{model: a+b+c, parameters: {weight: 1}}]\n",
            "`a+b+c` is not a model reference: more than one `+`",
        ),
        (
            "merge_method: linear\nslices: [{sources: [{model: a/b, parameters: {weight: 1}}]}]\n",
            "missing key `layer_range`",
        ),
        ("merge_method: linear\nmodels: [\n", "c.yml:"),
        (
            "merge_method: linear\nmerge_method: ties\nmodels: []\n",
            "c.yml:2:1: key `merge_method` stands twice, first on line 1",
        ),
        ("a: 1\n---\nb: 2\n", "a second document starts here"),
        ("a: *b\n", "c.yml:1:4"),
        ("merge_method: !foo linear\nmodels: []\n", "tag `!foo` means nothing here"),
    ] {
        let found = mistakes(text);
        assert!(found.contains(message), "{text}\nexpected: {message}\nfound: {found}");
    }
}

#[test]
fn all_mistakes_come_in_one_pass() {
    let text = "merge_method: teis\nmodels:\n- {model: a/a, parameters: {weight: x}}\n- 7\ndtype: fp16\n";
    assert_eq!(mistakes(text).matches("error[").count(), 2, "{}", mistakes(text));
    let text = "merge_method: ties\nmodels:\n- {model: a/a, parameters: {weight: x}}\n- 7\ndtype: fp16\n";
    assert_eq!(mistakes(text).matches("error[").count(), 3, "{}", mistakes(text));
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "x-common: &common {weight: 0.5}\nmerge_method: linear\nmodels:\n- {model: a/a, parameters: *common}\n- model: a/b\n  parameters: {<<: *common, normalize: true}\n- model: a/c\n  parameters: {weight: 0.7, <<: *common}\n";
    let config = read(text).unwrap().config;
    let weight = |index: usize| match &config.slices[0].sources[index].parameters["weight"] {
        Setting::Scalar(scalar) => scalar.as_float().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!([weight(0), weight(1), weight(2)], [0.5, 0.5, 0.7]);
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(",");
        text += &format!("a{level}: &a{level} [{items}]\n");
    }
    assert!(mistakes(&text).contains("values once aliases are written out"));
    assert!(mistakes(&"[".repeat(100)).contains("nested deeper than"));
    assert_ne!(mistakes(&"[".repeat(5000)), "");
}

#[test]
fn the_studys_configs_are_read_as_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/study");
    let mut methods = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let parsed = mergesweep::config::parse::file(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(parsed.warnings.is_empty(), "{}", parsed.warnings);
        methods.push(parsed.config.method);
    }
    methods.sort_unstable();
    assert_eq!(methods.len(), 10);
    assert_eq!(methods[0], Method::Linear);
}
