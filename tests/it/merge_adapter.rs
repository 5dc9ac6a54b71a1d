//! LoRA adapters against PEFT itself, where a Python with it is named.

use std::process::Command;

use crate::merge_support::{Numbers, config, copy_model, failure, fixture, merge_in, options, safetensors};
use mergesweep::config::Dtype;
use tempfile::TempDir;

/// `MERGESWEEP_PYTHON` names an interpreter with torch, transformers and peft.
#[test]
fn adapters_are_applied_as_peft_applies_them() {
    let Some(python) = std::env::var_os("MERGESWEEP_PYTHON") else {
        eprintln!("skipped: MERGESWEEP_PYTHON names no interpreter with PEFT");
        return;
    };
    let has_peft = Command::new(&python).args(["-c", "import peft"]).output().is_ok_and(|run| run.status.success());
    if !has_peft {
        eprintln!("skipped: {} has no PEFT", python.display());
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/check_adapter.py");
    let run = Command::new(&python).arg(script).arg(env!("CARGO_BIN_EXE_mergesweep")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
    assert_eq!(out.lines().filter(|line| line.contains(" ulp")).count(), 24, "{out}");
}

const MODULE: &str = "model.layers.1.self_attn.q_proj";

/// A model and an adapter of rank 2 for one of its modules.
fn with_adapter(settings: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    copy_model("math", &folder.path().join("math"));
    let adapter = folder.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    std::fs::write(adapter.join("adapter_config.json"), format!("{{\"peft_type\": \"LORA\", {settings}}}")).unwrap();
    let half = |shape: [usize; 2], value| Numbers { dtype: Dtype::F32, shape: shape.to_vec(), values: vec![value; 64] };
    let names = ["A", "B"].map(|half| format!("base_model.model.{MODULE}.lora_{half}.weight"));
    let tensors = [(names[0].as_str(), half([2, 32], 0.5)), (names[1].as_str(), half([32, 2], 0.25))];
    std::fs::write(adapter.join("adapter_model.safetensors"), safetensors(&tensors)).unwrap();
    folder
}

const CONFIG: &str = "merge_method: passthrough\nmodels:\n- model: math+adapter\n";

#[test]
fn a_baseline_with_an_adapter_is_a_passthrough_merge() {
    assert!(config(CONFIG).models()[0].adapter.is_some());
    let folder = with_adapter("\"r\": 2, \"lora_alpha\": 4");
    let found = merge_in(folder.path(), CONFIG, &options()).unwrap().tensors();
    let math = fixture("math");
    for (name, found) in &found {
        // alpha / r * (0.25 * 0.5 + 0.25 * 0.5)
        let change = if *name == format!("{MODULE}.weight") { 0.5 } else { 0.0 };
        let same = found.values.iter().zip(&math[name].values).all(|(y, x)| *y == f64::from(*x as f32 + change));
        assert!(same, "{name}");
    }
}

#[test]
fn what_is_not_plain_lora_is_refused() {
    let of = |settings: &str| failure(with_adapter(settings).path(), CONFIG, &options());
    let messages = [
        of("\"r\": 2, \"use_dora\": true"),
        of("\"r\": 2, \"bias\": \"all\""),
        of("\"r\": 2, \"modules_to_save\": [\"lm_head\"]"),
        of("\"r\": 4"),
        of("\"r\": 2, \"alpha_pattern\": {\"(q|k)_proj\": 2}"),
    ];
    let shown: Vec<String> = messages
        .iter()
        .map(|message| message.split_once("/adapter/").map_or(message.clone(), |(_, end)| end.to_owned()))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    adapter_config.json`: `use_dora` is `true`: only plain LoRA is applied (merge it with PEFT's `merge_and_unload` first)
    adapter_config.json`: `bias` is `"all"`: only plain LoRA is applied (merge it with PEFT's `merge_and_unload` first)
    adapter_config.json`: `modules_to_save` is `["lm_head"]`: only plain LoRA is applied (merge it with PEFT's `merge_and_unload` first)
    adapter_model.safetensors`: module `model.layers.1.self_attn.q_proj`: expected rank 4 (adapter_config.json), found 2
    adapter_config.json`: `alpha_pattern`: expected module names, found the pattern `(q|k)_proj`
    "#);
}
