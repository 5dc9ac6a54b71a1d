//! Findings about mergekit files of every form: what is dead is found, and nothing else is called so.

use std::path::Path;

use mergesweep::config::Numerics;
use mergesweep::config::parse::{self, Mergekit};
use mergesweep::document;
use mergesweep::merge::arch::Architecture;
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::model::ModelRef;
use mergesweep::plan::lint::{self, Finding, Kind, Looked};

use crate::merge_support::fixtures;

/// The tensors of a model of the parity fixtures.
fn headers(model: &ModelRef) -> Option<Architecture> {
    let checkpoint = Checkpoint::open(&fixtures().join(&model.base.path)).ok()?;
    Some(Architecture::of(&checkpoint).present_in(&checkpoint))
}

fn findings(text: &str) -> Vec<Finding> {
    let document = document::parse::text_of(Path::new("config.yml"), text.to_owned()).unwrap();
    let parsed = parse::parse(&document, &Mergekit).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let looked = Looked { config: &parsed.config, seed: 0, numerics: Numerics::F32, document: &document };
    lint::of_file(looked, &headers)
}

/// Findings that are hardly what was meant: kind and place.
fn odd(text: &str) -> Vec<String> {
    let odd = findings(text).into_iter().filter(|finding| finding.kind.severity() == lint::Severity::Warning);
    odd.map(|finding| format!("{} {}", finding.kind, finding.key_path)).collect()
}

#[test]
fn only_truly_dead_settings_of_the_parity_configs_are_called_so() {
    let mut found = Vec::new();
    let mut n_cases = 0;
    let mut folders: Vec<_> = std::fs::read_dir(fixtures().join("cases")).unwrap().map(|case| case.unwrap()).collect();
    folders.sort_by_key(std::fs::DirEntry::file_name);
    for case in folders {
        let text = std::fs::read_to_string(case.path().join("config.yml")).unwrap();
        n_cases += 1;
        let name = case.file_name().to_string_lossy().into_owned();
        found.extend(odd(&text).into_iter().map(|odd| format!("{name}: {odd}")));
    }
    assert!(n_cases >= 70, "{n_cases}");
    let base = "modules.default.slices[0].sources[2].parameters";
    let expected: Vec<String> = [
        ("breadcrumbs_seed", "density"),
        ("breadcrumbs_seed", "gamma"),
        ("breadcrumbs_seed", "normalize"),
        ("breadcrumbs_ties_seed", "normalize"),
        ("dare_ties_seed", "normalize"),
        ("della_seed_default_epsilon", "epsilon"),
        ("della_seed_default_epsilon", "lambda"),
        ("della_seed_default_epsilon", "normalize"),
        ("ties_seed", "normalize"),
        ("ties_seed_fp16", "normalize"),
    ]
    .iter()
    .map(|(case, key)| format!("{case}: dead-setting {base}.{key}"))
    .collect();
    assert_eq!(found, expected);
}

/// Configs of every form, each with what is odd about it.
const FORMS: &[(&str, &[&str])] = &[
    // Scalars at every level, nothing odd.
    (
        "merge_method: ties\nbase_model: inputs/base\nparameters: { density: 0.5, normalize: false, lambda: 0.9 }\nmodels:\n- { model: inputs/math, parameters: { weight: 0.8 } }\n- { model: inputs/code, parameters: { weight: 0.7 } }\n",
        &[],
    ),
    // A gradient and a filter with a default case.
    (
        "merge_method: linear\nmodels:\n- { model: inputs/math, parameters: { weight: [0, 0.5, 1] } }\n- { model: inputs/code, parameters: { weight: [ { filter: mlp, value: 0.3 }, { value: 0.6 } ] } }\n",
        &[],
    ),
    // A filter on the source that falls back to the slice and from there to the top level.
    (
        "merge_method: linear\nparameters: { weight: 0.4 }\nslices:\n- parameters: { weight: [ { filter: self_attn, value: 0.2 } ] }\n  sources:\n  - { model: inputs/math, layer_range: [0, 3], parameters: { weight: [ { filter: mlp, value: 0.9 } ] } }\n  - { model: inputs/code, layer_range: [0, 3] }\n",
        &[],
    ),
    // A single mapping that is no list.
    (
        "merge_method: slerp\nbase_model: inputs/math\nparameters: { t: [ { filter: mlp, value: 0.2 }, { value: 0.6 } ] }\nmodels:\n- model: inputs/math\n- model: inputs/code\n",
        &[],
    ),
    // The module's own parameters.
    (
        "merge_method: task_arithmetic\nbase_model: inputs/base\nmodules:\n  default:\n    parameters: { weight: 0.5, lambda: 0.8 }\n    models:\n    - model: inputs/math\n    - model: inputs/code\n",
        &[],
    ),
    // A shared parameter on a source: dead, and so is one of the other models on the base.
    (
        "merge_method: dare_ties\nbase_model: inputs/base\nmodels:\n- { model: inputs/math, parameters: { weight: 0.8, density: 0.5, rescale: false } }\n- { model: inputs/code, parameters: { weight: 0.7, density: 0.5 } }\n- { model: inputs/base, parameters: { weight: 1.0 } }\n",
        &["dead-setting models[0].parameters.rescale", "dead-setting models[2].parameters.weight"],
    ),
    // t on a source, beside the one that is read.
    (
        "merge_method: slerp\nbase_model: inputs/math\nparameters: { t: 0.4 }\nmodels:\n- { model: inputs/math, parameters: { t: 0.1 } }\n- model: inputs/code\n",
        &["dead-setting models[0].parameters.t"],
    ),
    // To linear the base is an input like any other: its weight is read.
    (
        "merge_method: linear\nbase_model: inputs/base\nmodels:\n- { model: inputs/base, parameters: { weight: 0.5 } }\n- { model: inputs/math, parameters: { weight: 0.5 } }\n",
        &[],
    ),
    // Names that nobody reads, misspelt and of another method.
    (
        "merge_method: ties\nbase_model: inputs/base\nparameters: { densty: 0.5, t: 0.5 }\nmodels:\n- { model: inputs/math, parameters: { weight: 0.8, normalise: true } }\n",
        &["dead-setting parameters.densty", "dead-setting parameters.t", "dead-setting models[0].parameters.normalise"],
    ),
    // Overridden by every source.
    (
        "merge_method: linear\nparameters: { weight: 0.4 }\nmodels:\n- { model: inputs/math, parameters: { weight: 0.3 } }\n- { model: inputs/code, parameters: { weight: 0.6 } }\n",
        &["shadowed-setting parameters.weight"],
    ),
    // Overridden by one source only: read for the other.
    (
        "merge_method: linear\nparameters: { weight: 0.4 }\nmodels:\n- { model: inputs/math, parameters: { weight: 0.3 } }\n- model: inputs/code\n",
        &[],
    ),
    // A slice that overrides the top level, which still answers for the other slice.
    (
        "merge_method: slerp\nbase_model: inputs/math\nparameters: { t: 0.4 }\nslices:\n- parameters: { t: 0.9 }\n  sources: [ { model: inputs/math, layer_range: [0, 1] }, { model: inputs/code, layer_range: [0, 1] } ]\n- sources: [ { model: inputs/math, layer_range: [1, 3] }, { model: inputs/code, layer_range: [1, 3] } ]\n",
        &[],
    ),
    // A filter that matches nothing: the whole setting, or one of its cases.
    (
        "merge_method: slerp\nbase_model: inputs/math\nparameters: { t: [ { filter: attention.q, value: 0.2 }, { value: 0.6 } ] }\nmodels:\n- model: inputs/math\n- model: inputs/code\n",
        &["unmatched-filter parameters.t"],
    ),
    (
        "merge_method: linear\nparameters: { weight: 0.5 }\nmodels:\n- { model: inputs/math, parameters: { weight: { filter: experts, value: 0.2 } } }\n- model: inputs/code\n",
        &["unmatched-filter models[0].parameters.weight"],
    ),
    // A case behind one for every tensor.
    (
        "merge_method: slerp\nbase_model: inputs/math\nparameters: { t: [ { filter: '*', value: 0.2 }, { filter: mlp, value: 0.6 } ] }\nmodels:\n- model: inputs/math\n- model: inputs/code\n",
        &["unmatched-filter parameters.t"],
    ),
    // Filters by the number of the source's layer in a stack of slices.
    (
        "merge_method: passthrough\nslices:\n- sources: [ { model: inputs/math, layer_range: [0, 2] } ]\n- sources: [ { model: inputs/math, layer_range: [1, 3], parameters: { scale: [ { filter: layers.2.mlp.down_proj, value: 0.0 }, { value: 1.0 } ] } } ]\n",
        &[],
    ),
    // A slice without layers gives nothing but what comes before or after the layers.
    (
        "merge_method: linear\nparameters: { weight: 0.5 }\nslices:\n- sources: [ { model: inputs/math, layer_range: [0, 2] } ]\n- sources: [ { model: inputs/code, layer_range: [0, 0], parameters: { weight: 0.7 } } ]\n- sources: [ { model: inputs/math, layer_range: [2, 3] } ]\n",
        &["dead-setting slices[1].sources[0].parameters.weight"],
    ),
    // The base of one slice is another model than that of the others.
    (
        "merge_method: task_arithmetic\nbase_model: inputs/base\nslices:\n- base_model: inputs/math\n  sources: [ { model: inputs/math, layer_range: [0, 1], parameters: { weight: 0.3 } }, { model: inputs/code, layer_range: [0, 1], parameters: { weight: 0.3 } } ]\n- sources: [ { model: inputs/base, layer_range: [1, 3] }, { model: inputs/code, layer_range: [1, 3], parameters: { weight: 0.3 } } ]\n",
        &["dead-setting slices[0].sources[0].parameters.weight"],
    ),
    // Switches in every spelling, numbers as texts.
    (
        "merge_method: nuslerp\nbase_model: inputs/base\nparameters: { nuslerp_flatten: 0.0, nuslerp_row_wise: 'true' }\nmodels:\n- { model: inputs/math, parameters: { weight: '0.6' } }\n- { model: inputs/code, parameters: { weight: 5e-1 } }\n",
        &[],
    ),
    // Methods with few parameters, and one with none.
    (
        "merge_method: karcher\nparameters: { max_iter: 5, tol: 1.0e-6 }\nmodels:\n- model: inputs/math\n- model: inputs/code\n",
        &[],
    ),
    (
        "merge_method: arcee_fusion\nbase_model: inputs/math\nparameters: { t: 0.5 }\nmodels:\n- model: inputs/math\n- model: inputs/code\n",
        &["dead-setting parameters.t"],
    ),
    (
        "merge_method: ramplus_tl\nbase_model: inputs/base\nparameters: { r: 0.2, alpha: 0.3, epsilon: 1.0e-4 }\nmodels:\n- model: inputs/math\n- model: inputs/code\n",
        &[],
    ),
    (
        "merge_method: sce\nbase_model: inputs/base\nparameters: { select_topk: 0.4 }\nmodels:\n- { model: inputs/math, parameters: { select_topk: 0.2 } }\n- model: inputs/code\n",
        &["dead-setting models[0].parameters.select_topk"],
    ),
];

#[test]
fn configs_of_every_form_give_the_findings_that_are_true_of_them() {
    assert!(FORMS.len() >= 20);
    for (text, expected) in FORMS {
        assert_eq!(odd(text), *expected, "{text}");
    }
}

/// Messages of one kind.
fn told(text: &str, kind: Kind) -> Vec<String> {
    findings(text).into_iter().filter(|finding| finding.kind == kind).map(|finding| finding.message).collect()
}

fn task_vectors(method: &str, shared: &str, model: &str) -> String {
    format!(
        "merge_method: {method}\nbase_model: inputs/base\nparameters: {{ {shared} }}\nmodels:\n\
         - {{ model: inputs/math, parameters: {{ {model} }} }}\n- {{ model: inputs/code, parameters: {{ {model} }} }}\n"
    )
}

#[test]
fn settings_without_effect_are_told_with_the_reason() {
    let of = |text: &str| told(text, Kind::NoEffect);
    assert_eq!(
        of(&task_vectors("breadcrumbs", "int8_mask: true, gamma: 0.02, lambda: 1, rescale: true", "weight: 0.7")),
        [
            "`int8_mask: true` changes nothing: it is about memory, not numbers",
            "`gamma: 0.02` changes nothing: nothing is thinned out",
            "`lambda: 1` is the default",
            "`rescale: true` changes nothing: nothing is thinned out",
        ]
    );
    assert_eq!(of(&task_vectors("ties", "lambda: 0.9, normalize: false", "weight: 0.7, density: 0.5")), [""; 0]);
    assert_eq!(
        of(&task_vectors("dare_linear", "normalize: true", "weight: 0.5, density: 0.5")),
        ["`normalize: true` changes nothing: it is divided by 1, or by nothing"]
    );
    let zero = of(&task_vectors("ties", "", "weight: 0, density: 0.5"));
    assert_eq!(zero, ["`density: 0.5` changes nothing: the weight is 0"; 2]);
    let alone = "merge_method: linear\nmodels:\n- { model: inputs/math, parameters: { weight: 0.5 } }\n";
    assert_eq!(of(alone), ["`weight: 0.5` changes nothing but the rounding"]);
}

#[test]
fn defaults_are_told_where_they_decide_something() {
    let of = |text: &str| told(text, Kind::Default);
    assert_eq!(
        of(&task_vectors("della", "", "weight: 0.7, density: 0.6")),
        ["epsilon 0.15, lambda 1, normalize true*, rescale true*"]
    );
    assert_eq!(
        of(&task_vectors("breadcrumbs", "density: 0.9", "weight: 0.7")),
        ["gamma 0.01, lambda 1, normalize false*, rescale false*"]
    );
    let stated = "normalize: true, rescale: false, lambda: 1, density: 0.5";
    assert_eq!(of(&task_vectors("ties", stated, "weight: 0.7")), [""; 0]);
}

#[test]
fn merges_that_are_simpler_than_their_method_are_told() {
    let of = |text: &str| told(text, Kind::Reduces);
    assert_eq!(
        of(&task_vectors("dare_linear", "", "weight: 0.5")),
        ["is plain task_arithmetic, with these weights the average 0.5 inputs/code + 0.5 inputs/math"]
    );
    assert_eq!(
        of(&task_vectors("dare_ties", "", "weight: 0.5")),
        ["elects signs and drops nothing: every density is 1"]
    );
    assert_eq!(of(&task_vectors("task_arithmetic", "", "weight: 0.5")), [""; 0]);
    let slerp = |t: &str| {
        format!(
            "merge_method: slerp\nbase_model: inputs/math\nparameters: {{ t: {t} }}\nmodels:\n- model: inputs/math\n- model: inputs/code\n"
        )
    };
    assert_eq!(of(&slerp("0")), ["is `inputs/math` itself, but for rounding"]);
    assert_eq!(of(&slerp("1")), ["is `inputs/code` itself, but for rounding"]);
    assert_eq!(of(&slerp("0.5")), [""; 0]);
    assert_eq!(of(&slerp("[0, 1]")), [""; 0]);
}

#[test]
fn what_no_tensor_can_be_given_is_found_before_the_merge() {
    let text = task_vectors("della", "", "weight: 0.5, density: [0.9, 0.8]");
    let found = told(&text, Kind::Unresolved);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("expected density - epsilon above 0 and density + epsilon below 1, found 0.15"),
        "{found:?}"
    );
}

#[test]
fn the_bound_of_an_iteration_is_called_a_bound() {
    use mergesweep::plan::lint::report::Verdict;
    let text = "merge_method: karcher\nparameters: { max_iter: 5, tol: 1.0e-6 }\nmodels:\n- model: inputs/math\n- model: inputs/code\n";
    let document = document::parse::text_of(Path::new("config.yml"), text.to_owned()).unwrap();
    let config = parse::parse(&document, &Mergekit).unwrap().config;
    let sites = mergesweep::plan::sites::SiteFinder::new(&headers).of(&config);
    let reported = lint::report_on(&config, 0, Numerics::F32, sites).unwrap();
    let verdicts: Vec<_> =
        reported.report.settings.iter().map(|setting| (setting.name.as_str(), setting.verdict)).collect();
    assert_eq!(verdicts, [("max_iter", Verdict::Bound), ("tol", Verdict::Read)]);
    let plain = "merge_method: karcher\nmodels:\n- model: inputs/math\n- model: inputs/code\n";
    assert_eq!(told(plain, Kind::Default), ["max_iter at most 10, tol 0.00001"]);
}

#[test]
fn every_slice_has_the_tensors_of_its_own_models() {
    // A decoder of two layers with names of its own beside the fixtures' Llama.
    let other = |model: &ModelRef| -> Option<Architecture> {
        let folder = tempfile::tempdir().unwrap();
        let number = |n: usize| crate::merge_support::Numbers {
            dtype: mergesweep::config::Dtype::F32,
            shape: vec![n],
            values: vec![0.0; n],
        };
        if model.base.path != "other" {
            return headers(model);
        }
        crate::merge_support::write_model(
            folder.path(),
            &[("h.0.attn.weight", number(4)), ("h.1.attn.weight", number(4)), ("wte.weight", number(4))],
        );
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        Some(Architecture::of(&checkpoint).present_in(&checkpoint))
    };
    let text = "merge_method: passthrough\nslices:\n- sources: [ { model: inputs/math, layer_range: [0, 1] } ]\n- sources: [ { model: \
                other, layer_range: [1, 2], parameters: { scale: { filter: attn.weight, value: 0.5 } } } ]\n";
    let document = document::parse::text_of(Path::new("config.yml"), text.to_owned()).unwrap();
    let config = parse::parse(&document, &Mergekit).unwrap().config;
    let sites = mergesweep::plan::sites::SiteFinder::new(&other).of(&config);
    let inputs = |slice: usize| -> Vec<String> {
        sites.sites.iter().filter(|site| site.slice == slice).flat_map(|site| site.inputs.clone()).collect()
    };
    assert!(inputs(0).iter().all(|name| name.starts_with("model.")), "{:?}", inputs(0));
    assert_eq!(inputs(1), ["h.1.attn.weight"]);
    let looked = Looked { config: &config, seed: 0, numerics: Numerics::F32, document: &document };
    let odd = lint::of_file(looked, &other).into_iter().filter(|finding| finding.kind == Kind::Unmatched).count();
    assert_eq!(odd, 0, "the filter matches the tensors of the second slice");
}

/// What a config was probably meant to be, with settings that stay where they are.
fn intended(text: &str) -> (String, Vec<String>) {
    let document = document::parse::text_of(Path::new("config.yml"), text.to_owned()).unwrap();
    let config = parse::parse(&document, &Mergekit).unwrap().config;
    let sites = mergesweep::plan::sites::SiteFinder::new(&headers).of(&config);
    let report = lint::report_on(&config, 0, Numerics::F32, sites).unwrap().report;
    let meant = mergesweep::plan::intended::intended(&config, &report).unwrap();
    (mergesweep::config::write::yaml(&meant.config, &ModelRef::to_string), meant.left)
}

#[test]
fn settings_are_lifted_to_the_level_where_they_are_in_force() {
    let sliced = |first: &str, second: &str, shared: &str| {
        let slice = |layers: &str, normalize: &str, of_slice: &str| {
            format!(
                "- {of_slice}sources: [ {{ model: inputs/base, layer_range: {layers}, parameters: {{ {normalize} }} }}, {{ model: \
                 inputs/math, layer_range: {layers}, parameters: {{ weight: 0.5 }} }} ]\n"
            )
        };
        format!(
            "merge_method: ties\nbase_model: inputs/base\nslices:\n{}{}{shared}",
            slice("[0, 1]", first, ""),
            slice("[1, 3]", second, "")
        )
    };
    // All slices agree: to the top.
    let (config, left) = intended(&sliced("normalize: false", "normalize: false", ""));
    assert!(config.ends_with("parameters:\n  normalize: false\n") && left.is_empty(), "{config}");
    // They differ, or only one says it: to the slices.
    let (config, left) = intended(&sliced("normalize: false", "normalize: true", ""));
    assert_eq!((config.matches("normalize:").count(), left.len()), (2, 0), "{config}");
    assert!(!config.contains("\nparameters:"), "{config}");
    let (config, left) = intended(&sliced("normalize: false", "", ""));
    assert_eq!((config.matches("normalize:").count(), left.len()), (1, 0), "{config}");
    assert!(!config.contains("\nparameters:"), "{config}");
    // What is in force on the slice is not put aside.
    let text = sliced("normalize: false", "normalize: false", "");
    let text = text.replacen("- sources", "- parameters: { normalize: true }\n  sources", 1);
    let (config, left) = intended(&text);
    assert_eq!(left, ["normalize"], "{config}");
}
