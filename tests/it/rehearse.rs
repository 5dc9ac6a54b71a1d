//! Dress rehearsals: every kind of thing that would fail is found in one go, with a stand-in for the harness; and one with the
//! real harness, from nothing but the config and tokenizer files of a model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mergesweep::merge::checkpoint::Checkpoint;
use serde_json::Value as Json;

use crate::support::{fixture, require_model, require_python};
use crate::sweep_support::{Sweep, TINY, text, wait_for, walk};

/// What a rehearsal says, with the folder that it works in watched.
fn rehearse(sweep: &Sweep, args: &[&str], outcome: &str) -> (Output, Json) {
    let temporary = sweep.path("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let args = [&["rehearse", "sweep.toml", "--json", "--quiet"], args].concat();
    let mut command = sweep.command(&args, outcome);
    command.env("TMPDIR", &temporary).env("HF_HUB_OFFLINE", "1").env("HF_HOME", sweep.path("hub"));
    let output = command.output().unwrap();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "something stays behind");
    let json = serde_json::from_slice(&output.stdout);
    let json = json.unwrap_or_else(|_| panic!("{}\n{}", text(&output.stdout), text(&output.stderr)));
    (output, json)
}

/// Code, line, trials and tasks of every finding.
fn found(json: &Json) -> Vec<(String, u64, String, String)> {
    let list = |of: &Json| {
        let names: Vec<&str> = of.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        names.join(", ")
    };
    let findings = json["findings"].as_array().unwrap().iter();
    let word = |one: &Json, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    findings
        .map(|one| (word(one, "code"), one["line"].as_u64().unwrap(), list(&one["trials"]), list(&one["tasks"])))
        .collect()
}

fn told(json: &Json, code: &str) -> String {
    let findings = json["findings"].as_array().unwrap();
    let one = findings.iter().find(|one| one["code"] == code).unwrap_or_else(|| panic!("no {code}: {json:#}"));
    format!("{} | {}", one["message"].as_str().unwrap(), one["hint"].as_str().unwrap_or_default())
}

/// A finding as [`found`] gives it.
fn at(code: &str, line: u64, trials: &str, tasks: &str) -> (String, u64, String, String) {
    (code.to_owned(), line, trials.to_owned(), tasks.to_owned())
}

#[test]
fn a_sweep_that_would_go_through_is_rehearsed_without_findings_and_leaves_nothing() {
    let Some(sweep) = Sweep::new() else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(0), "{json:#}\n{}", text(&output.stderr));
    assert_eq!(json["rehearsed"], 3);
    assert!(!sweep.path("results").exists());

    // For people, and with everything kept.
    let kept = sweep.path("kept");
    let output = sweep.run(&["rehearse", "sweep.toml", "--keep", "kept"], "ok");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("nothing failed"), "{}", text(&output.stdout));
    let table = fs::read_to_string(kept.join("results/tiny/table.csv")).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    let config = walk(&kept).into_iter().find(|path| path.ends_with("lm_eval.yaml")).unwrap();
    assert!(fs::read_to_string(config).unwrap().contains("limit: 2\n"));
    let again = sweep.run(&["rehearse", "sweep.toml", "--keep", "kept"], "ok");
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is not empty"), "{}", text(&again.stderr));
}

#[test]
fn a_wrong_spec_is_refused_before_anything_is_made() {
    let Some(sweep) = Sweep::of(&TINY.replace("grid.t", "gird.t")) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(2));
    let codes: Vec<&str> =
        json["diagnostics"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"E0101"), "{codes:?}");
}

#[test]
fn everything_that_an_evaluation_lacks_is_found_at_once_and_the_rest_rehearsed() {
    let tasks = r#"["facts", "factz", "unreachable", "humaneval", "tinyArc"]"#;
    let Some(sweep) = Sweep::of(&TINY.replace(r#"["facts", "sums"]"#, tasks)) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let expected = [
        // The parameters of tinyBenchmarks, which are not there.
        at("E0603", 9, "", ""),
        at("E0505", 10, "", "factz"),
        at("E0603", 10, "", "unreachable"),
        at("E0503", 10, "", "humaneval"),
    ];
    assert_eq!(found(&json), expected, "{json:#}");
    assert_eq!(json["rehearsed"], 3);
    assert!(told(&json, "E0505").contains("did you mean `facts`?"));
    assert!(told(&json, "E0603").contains("`results/tiny/harness`"), "{json:#}");

    // What is prepared for the real run counts.
    let home = sweep.path("results/tiny/harness");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("tinyBenchmarks.pkl"), "parameters").unwrap();
    let (_, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(found(&json), expected[1..], "{json:#}");
    assert_eq!(json["tasks"]["by_dummy"], serde_json::json!(["facts", "tinyArc"]));
}

#[test]
fn a_back_end_without_its_packages_is_found_and_the_tasks_rehearsed_by_dummy() {
    let Some(sweep) = Sweep::of(&TINY.replace("\"dummy\"", "\"sglang\"")) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(told(&json, "E0602").contains("has no package `sglang`, which back end `sglang` needs"));
    assert_eq!(json["rehearsed"], 3);
    assert_eq!(json["tasks"]["by_dummy"], serde_json::json!(["facts", "sums"]));
}

#[test]
fn a_device_that_is_not_there_is_found_and_the_rest_goes_on_without() {
    let spec = TINY.replace("model = \"dummy\"", "model = \"hf\"\ndevice = \"cuda:0\"");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(found(&json), [at("E0605", 12, "", "")], "{json:#}");
    assert_eq!(
        (&json["rehearsed"], &json["tasks"]["on_tiny_models"]),
        (&Json::from(3), &serde_json::json!(["facts", "sums"]))
    );
}

#[test]
fn a_metric_that_a_task_does_not_report_is_found_with_its_task() {
    let tasks = r#"["facts", { task = "sums", columns = ["acc_nrom"] }]"#;
    let Some(sweep) = Sweep::of(&TINY.replace(r#"["facts", "sums"]"#, tasks)) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let expected = [at("E0803", 10, "Base, SLERP (t=0.25), SLERP (t=0.5)", "sums")];
    assert_eq!(found(&json), expected, "{json:#}");
    assert!(told(&json, "E0803").contains("reports no `acc_nrom`"), "{json:#}");
}

#[test]
fn a_chat_template_that_fails_is_found() {
    let spec = TINY.replace("batch_size = 4", "batch_size = 4\napply_chat_template = true");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let (output, json) = rehearse(&sweep, &[], "template");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let expected = [at("E0803", 10, "Base, SLERP (t=0.25), SLERP (t=0.5)", "facts, sums")];
    assert_eq!(found(&json), expected, "{json:#}");
    assert!(told(&json, "E0803").contains("System role not supported"), "{json:#}");
}

#[test]
fn models_that_cannot_be_merged_are_found_at_their_merge() {
    let spec = TINY.replace("INPUTS/code", "INPUTS/math-v136");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let expected = [at("E0802", 19, "SLERP (t=0.25), SLERP (t=0.5)", "")];
    assert_eq!(found(&json), expected, "{json:#}");
    assert_eq!(json["rehearsed"], 3);
}

#[test]
fn models_that_are_not_here_are_told_with_how_to_get_their_files_and_the_rest_is_rehearsed() {
    let spec = TINY.replace("INPUTS/code", "owner/code");
    let Some(sweep) = Sweep::of(&spec) else { return };
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(found(&json), [at("E0601", 7, "SLERP (t=0.25), SLERP (t=0.5)", "")], "{json:#}");
    let hint = told(&json, "E0601");
    assert!(hint.contains("`hf download owner/code --include '*.json' '*.jinja' 'tokenizer*'`"), "{hint}");
    assert_eq!(json["left_out"], serde_json::json!(["SLERP (t=0.25)", "SLERP (t=0.5)"]));
    assert_eq!(json["rehearsed"], 1);

    // With the files of a model like it nothing is left out, and nothing is wrong.
    let files = fixture("mergekit-parity/inputs/code").display().to_string();
    for files in [files.clone(), format!("code={files}"), format!("owner/code={files}")] {
        let (output, json) = rehearse(&sweep, &["--files", &files], "ok");
        assert_eq!(output.status.code(), Some(0), "{json:#}\n{}", text(&output.stderr));
        assert_eq!(json["rehearsed"], 3);
        assert!(json["assumed"]["owner/code"].as_str().unwrap().ends_with("inputs/code"));
    }
    // Where they do not fit, it is said that they are another model's.
    let other = fixture("mergekit-parity/inputs/math-v136").display().to_string();
    let (output, json) = rehearse(&sweep, &["--files", &other], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let hint = told(&json, "E0802");
    assert!(
        hint.contains("`owner/code` is not here and is taken to be like `") && hint.contains("math-v136"),
        "{hint}"
    );
    // A reference that leads nowhere is a mistake all the same.
    sweep.write(&TINY.replace("INPUTS/code", "PLACEHOLDER/code"));
    let (output, json) = rehearse(&sweep, &["--files", &files], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(told(&json, "E0601").contains("is a placeholder"));
    assert_eq!(json["rehearsed"], 3);
    let wrong = sweep.run(&["rehearse", "sweep.toml", "--files", "nowhere"], "ok");
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_model_that_transformers_cannot_make_is_told_and_tasks_are_rehearsed_without_models() {
    let Some(sweep) = Sweep::of(&TINY.replace("INPUTS", "./models")) else { return };
    for model in ["base", "math", "code"] {
        let folder = sweep.path("models").join(model);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(fixture("mergekit-parity/inputs/base/config.json"), folder.join("config.json")).unwrap();
    }
    let (output, json) = rehearse(&sweep, &[], "ok");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let codes: Vec<String> = found(&json).into_iter().map(|(code, ..)| code).collect();
    assert_eq!(codes, ["E0801"; 3], "{json:#}");
    assert_eq!(json["rehearsed"], 0);
    assert_eq!(json["tasks"]["by_dummy"], serde_json::json!(["facts", "sums"]));
}

#[test]
fn without_the_harness_that_is_all_that_is_told() {
    let Some(sweep) = Sweep::new() else { return };
    let output =
        sweep.command(&["rehearse", "sweep.toml", "--quiet", "--python", "/no/such/python"], "ok").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("error[E0602]") && told.contains("/no/such/python"), "{told}");
    assert!(told.contains("rehearsed: 0 trials"), "{told}");
}

#[test]
fn an_interrupted_rehearsal_leaves_nothing() {
    let Some(sweep) = Sweep::new() else { return };
    let temporary = sweep.path("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = sweep.command(&["rehearse", "sweep.toml", "--quiet"], "hang");
    let mut child = command.env("TMPDIR", &temporary).stderr(Stdio::null()).spawn().unwrap();
    // The stand-in of the harness tells when it hangs.
    let hangs = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("child "));
    wait_for(|| walk(&temporary).iter().any(|path| path.ends_with("stderr.log") && hangs(path)));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "something stays behind");
}

/// Names and dtypes of the tensors of a model.
fn tensors(folder: &Path) -> BTreeMap<String, String> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.tensors().iter().map(|(name, tensor)| (name.clone(), format!("{:?}", tensor.stored))).collect()
}

/// The small files of a model, in a folder of its own.
fn small_files(from: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_owned();
        if entry.extension().is_none_or(|extension| extension != "safetensors") {
            fs::copy(&entry, to.join(name)).unwrap();
        }
    }
    to
}

#[test]
fn a_real_sweep_is_rehearsed_with_the_real_harness_from_config_and_tokenizer_files_alone() {
    let (Some(python), Some(model)) = (require_python(), require_model()) else { return };
    let folder = tempfile::tempdir().unwrap();
    small_files(&model, folder.path().join("base"));
    let sweeps = fixture("../../sweeps").canonicalize().unwrap();
    small_files(&sweeps.join("adapters/math"), folder.path().join("math"));
    let (python, tasks) = (python.display(), sweeps.join("tasks"));
    let spec = format!(
        r#"
name = "real"
[models]
base = "./base"
math = "./base+./math"
[evaluate]
tasks = [{{ task = "math_bpb", limit = 32 }}]
include_path = "{tasks}"
model_args = {{ dtype = "float32" }}
device = "cpu"
python = "{python}"
environment = {{ HF_HUB_OFFLINE = "1", HF_DATASETS_OFFLINE = "1" }}
[[baseline]]
name = "Base"
model = "base"
[[merge]]
name = "TIES"
method = "ties"
base_model = "base"
models = {{ math = {{ weight = 1.0, density = 0.5 }} }}
dtype = "bfloat16"
"#,
        tasks = tasks.display()
    );
    fs::write(folder.path().join("sweep.toml"), spec).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mergesweep"))
        .args(["rehearse", "sweep.toml", "--quiet", "--keep", "kept"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}\n{}", text(&output.stderr));
    assert!(told.contains("rehearsed: 2 trials") && told.contains("tiny models: math_bpb"), "{told}");

    // Without any weights to look at the tiny model has the tensors of the real one.
    let made: Vec<PathBuf> =
        fs::read_dir(folder.path().join("kept/models")).unwrap().map(|one| one.unwrap().path()).collect();
    let base = made.iter().find(|path| path.join("model.safetensors").exists()).unwrap();
    assert_eq!(tensors(base), tensors(&model));
    let adapter =
        made.iter().find_map(|path| Checkpoint::open_file(&path.join("adapter_model.safetensors")).ok()).unwrap();
    let real = Checkpoint::open_file(&sweeps.join("adapters/math/adapter_model.safetensors")).unwrap();
    assert_eq!(adapter.tensors().keys().collect::<Vec<_>>(), real.tensors().keys().collect::<Vec<_>>());
    let table = fs::read_to_string(folder.path().join("kept/results/real/table.csv")).unwrap();
    assert_eq!(table.lines().count(), 3, "{table}");
}
