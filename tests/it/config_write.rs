//! Writing configs: read back by this program and by PyYAML as the same.

use std::path::Path;
use std::process::Command;

use mergesweep::config::write;
use mergesweep::config::{MergeConfig, Method, Parameters, Scalar, Setting, Slice, SourceModel};
use mergesweep::model::ModelRef;
use proptest::prelude::*;

use crate::config_parse::read;

fn written(config: &MergeConfig) -> String {
    write::yaml(config, &ModelRef::to_string)
}

#[test]
fn a_config_is_written_readably() {
    let text = "merge_method: ties\nbase_model: o/base\nmodels:\n- {model: o/math, parameters: {weight: [0, 0.5], density: {filter: mlp, value: 1e-7}}}\nparameters: {normalize: true, lambda: 1.0}\ndtype: float16\ntokenizer: {source: o/math, pad_to_multiple_of: 8}\n";
    let config = read(text).unwrap().config;
    let expected = r#"merge_method: "ties"
base_model: "o/base"
models:
  - model: "o/math"
    parameters:
      density:
        - filter: "mlp"
          value: 1.0e-7
      weight: [0, 0.5]
  - model: "o/base"
parameters:
  lambda: 1.0
  normalize: true
dtype: "float16"
tokenizer:
  source: "o/math"
  pad_to_multiple_of: 8
"#;
    assert_eq!(written(&config), expected);
    assert_eq!(read(expected).unwrap().config, config);
    assert!(read(expected).unwrap().warnings.is_empty());
}

#[test]
fn modules_are_written_only_where_they_have_parameters() {
    let text = "merge_method: slerp\nbase_model: a/a\nmodules: {default: {parameters: {t: 0.5}, slices: [{base_model: a/b, parameters: {t: 1}, sources: [{model: a/a, layer_range: [0, 2]}, {model: a/b, layer_range: [1, 3]}]}]}}\n";
    let config = read(text).unwrap().config;
    assert!(written(&config).contains("modules:\n  default:\n    slices:\n      - sources:\n          - model: \"a/a\"\n            layer_range: [0, 2]\n"), "{}", written(&config));
    assert_eq!(read(&written(&config)).unwrap().config, config);
}

#[test]
fn models_are_called_what_the_naming_says() {
    let text = "merge_method: linear\nmodels: [{model: a/b, parameters: {weight: 1}}]\ntokenizer_source: a/b\n";
    let config = read(text).unwrap().config;
    let text = write::yaml(&config, &|model| format!("/models/{}", model.base.path));
    assert!(text.contains("model: \"/models/a/b\""));
    assert!(text.contains("tokenizer_source: \"/models/a/b\""));
}

#[test]
fn identities_do_not_depend_on_how_a_number_is_written() {
    let with = |weight: &str| {
        let text = format!("merge_method: linear\nmodels: [{{model: a/b, parameters: {{weight: {weight}}}}}]\n");
        write::canonical(&read(&text).unwrap().config)
    };
    assert_eq!(with("1"), with("1.0"));
    assert_ne!(with("1"), with("1.5"));
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        any::<i64>().prop_map(Scalar::Int),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Scalar::Float),
        any::<String>().prop_map(Scalar::Text),
        prop::sample::select(vec![
            "yes",
            "1:30",
            "010",
            "1e-7",
            "=",
            "<<",
            "~",
            "null",
            "2001-01-01",
            "a: b",
            "- x",
            "#"
        ])
        .prop_map(|text| Scalar::Text(text.to_owned())),
    ]
}

fn parameters() -> impl Strategy<Value = Parameters> {
    // Names that no method knows: their values are free.
    let setting = prop_oneof![
        scalar().prop_map(Setting::Scalar),
        prop::collection::vec(scalar(), 0..4).prop_map(Setting::Gradient),
    ];
    prop::collection::btree_map("[a-zA-Z_:#. éß-]{1,6}_x", setting, 0..4)
}

fn config() -> impl Strategy<Value = MergeConfig> {
    (parameters(), parameters(), parameters(), any::<String>(), any::<bool>()).prop_map(
        |(top, module, source, template, ranges)| {
            let source = SourceModel {
                model: "some/model@main+an/adapter".parse().unwrap(),
                layer_range: ranges.then_some((1, 3)),
                parameters: source,
            };
            MergeConfig {
                method: Method::Passthrough,
                base_model: None,
                slices: vec![Slice { sources: vec![source], base_model: None, parameters: Parameters::new() }],
                module_parameters: module,
                parameters: top,
                dtype: None,
                out_dtype: None,
                tokenizer: None,
                chat_template: (!template.trim().is_empty()).then_some(template),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read_back(config in config()) {
        let text = written(&config);
        let parsed = read(&text);
        prop_assert!(parsed.is_ok(), "{}\n{}", text, parsed.unwrap_err());
        prop_assert_eq!(parsed.unwrap().config, config);
    }

    #[test]
    fn no_text_makes_the_readers_panic(text in "\\PC*|[a-z:\\[\\]{}\"',&*<!|>\\- \n\t#.0-9é]{0,60}") {
        let _ = read(&text);
        let _ = mergesweep::document::parse::text_of(Path::new("c.toml"), text);
    }
}

#[test]
fn pyyaml_reads_what_was_written() {
    let Ok(python) = std::env::var("MERGESWEEP_PYTHON") else {
        #[allow(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: MERGESWEEP_PYTHON names no interpreter with PyYAML");
        }
        return;
    };
    let hostile =
        ["no", "1:30", "1e-7", "2001-01-01", "=", "1_000", "null", "\u{85}\u{2028}\u{1f600}\u{7f}\"\\\n\tü", ""];
    let mut parameters = Parameters::new();
    for (index, text) in hostile.iter().enumerate() {
        parameters.insert(format!("p{index}"), Setting::Scalar(Scalar::Text((*text).to_owned())));
    }
    let floats = [1e-7, 1e16, 0.1, 1.0, -2.5e-300, 123_456_789.123, 0.30000000000000004];
    parameters.insert("no".to_owned(), Setting::Gradient(floats.map(Scalar::Float).to_vec()));
    let model: ModelRef = "a/b".parse().unwrap();
    let config = MergeConfig {
        method: Method::Passthrough,
        base_model: None,
        slices: vec![Slice {
            sources: vec![SourceModel { model, layer_range: None, parameters: Parameters::new() }],
            base_model: None,
            parameters: Parameters::new(),
        }],
        module_parameters: Parameters::new(),
        parameters,
        dtype: None,
        out_dtype: None,
        tokenizer: None,
        chat_template: None,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.yml");
    std::fs::write(&file, written(&config)).unwrap();
    let script = "import sys, json, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1], encoding='utf-8'))))";
    let output = Command::new(python).args(["-c", script]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read, write::json(&config, &ModelRef::to_string));
}
