//! The main job for real: the real harness, a real small model with its adapters, real benchmark items.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{fixture, require_model, require_python};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two documents of one loss task: enough to see that numbers come from the model, and little work.
fn spec(model: &Path, python: &Path) -> String {
    let sweeps = fixture("../../sweeps").canonicalize().unwrap();
    let (model, sweeps, python) = (model.display(), sweeps.display(), python.display());
    format!(
        r#"
name = "real"

[models]
base = "{model}"
math = "{model}+{sweeps}/adapters/math"
code = "{model}+{sweeps}/adapters/code"

[evaluate]
tasks = [{{ task = "math_bpb", limit = 2 }}]
include_path = "{sweeps}/tasks"
model_args = {{ dtype = "float32" }}
batch_size = 2
device = "cpu"
python = "{python}"
environment = {{ HF_HUB_OFFLINE = "1", HF_DATASETS_OFFLINE = "1" }}

[limits]
keep = "all"

[[baseline]]
name = "Base"
model = "base"

[[merge]]
name = "SLERP (t={{t}})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
dtype = "bfloat16"
grid.t = [0.5]
"#
    )
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_mergesweep"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    output
}

#[test]
fn a_sweep_goes_from_spec_to_table_with_the_real_harness_and_is_reused() {
    let (Some(python), Some(model)) = (require_python(), require_model()) else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sweep.toml"), spec(&model, &python)).unwrap();
    run(folder.path(), &["run", "sweep.toml"]);

    let scores = text(&run(folder.path(), &["report", "sweep.toml", "--format", "json", "--long"]).stdout);
    let scores: serde_json::Value = serde_json::from_str(&scores).unwrap();
    let value = |index: usize| scores[index]["value"].as_f64().unwrap();
    assert_eq!(scores.as_array().unwrap().len(), 2);
    assert_eq!((scores[0]["task"].as_str(), scores[0]["n"].as_u64()), (Some("math_bpb"), Some(2)));
    // The adapters halve the loss on math; a merge at half way keeps much of it. No number is pinned: torch decides the
    // last digits.
    assert!(value(0) > 0.5 && value(0) < 1.2, "{scores}");
    assert!(value(1) < value(0), "{scores}");

    let again = run(folder.path(), &["run", "sweep.toml"]);
    assert!(text(&again.stderr).contains("2 of them reused"), "{}", text(&again.stderr));

    let merged = fs::read_dir(folder.path().join("results/real/trials"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("model"))
        .find(|path| path.is_dir())
        .unwrap();
    let program = "import sys\n\
        from transformers import AutoModelForCausalLM, AutoTokenizer\n\
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n\
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n\
        prompt = tokenizer('The capital of France is', return_tensors='pt')\n\
        print(tokenizer.decode(model.generate(**prompt, max_new_tokens=4, do_sample=False)[0]))";
    let output = Command::new(&python).args(["-c", program]).arg(&merged).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Paris"), "{}", text(&output.stdout));
}

/// A copy of the math model, every tensor times `scale`, at a gate on questions.
fn gated(model: &Path, python: &Path, scale: &str) -> String {
    let whole = spec(model, python);
    let (head, _) = whole.split_once("[limits]").unwrap();
    let tasks = "tasks = [{ task = \"math_bpb\", limit = 8 }, { task = \"arc100_acc\", limit = 40 }]\nnum_fewshot = 0";
    let head =
        head.replace("tasks = [{ task = \"math_bpb\", limit = 2 }]", tasks).replace("batch_size = 2", "batch_size = 8");
    format!(
        "{head}[gate]\nmargins = {{ math_bpb = 0.05, arc100_acc = 0.08 }}\n\n\
         [[merge]]\nname = \"Copy\"\nmethod = \"passthrough\"\nmodels = [\"math\"]\ndtype = \"bfloat16\"\n\
         parameters = {{ scale = {scale} }}\n"
    )
}

#[test]
#[ignore = "four evaluations by the real harness: scripts/soak runs it"]
fn the_gate_tells_an_untouched_run_a_zeroed_layer_and_a_tiny_change_apart_with_the_real_harness() {
    let (Some(python), Some(model)) = (require_python(), require_model()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let sweep = |scale: &str| fs::write(folder.path().join("sweep.toml"), gated(&model, &python, scale)).unwrap();
    sweep("1.0");
    run(folder.path(), &["run", "sweep.toml"]);
    run(folder.path(), &["freeze", "sweep.toml", "-o", "base"]);
    let check = |wanted: i32| {
        let output = Command::new(env!("CARGO_BIN_EXE_mergesweep"))
            .args(["check", "sweep.toml", "--against", "base"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = text(&output.stdout);
        println!("{told}");
        assert_eq!(output.status.code(), Some(wanted), "{told}{}", text(&output.stderr));
        told
    };
    let untouched = check(0);
    assert_eq!(untouched.matches("identical: ").count(), 2, "{untouched}");
    // One layer of thirty.
    sweep("[{ filter = \"model.layers.10.\", value = 0.0 }, { value = 1.0 }]");
    assert!(check(5).starts_with("**FAIL**"));
    // Every number a little smaller.
    sweep("0.99");
    let tiny = check(6);
    assert!(tiny.starts_with("**INCONCLUSIVE**") && tiny.contains("documents would decide"), "{tiny}");
}
