//! `mergesweep init` and `mergesweep doctor`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mergesweep::plan;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::{fixture, plain_python};

fn mergesweep(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).env("HF_TOKEN", "hf_a_secret");
    command.env_remove("MERGESWEEP_PYTHON").env_remove("VIRTUAL_ENV").env("HF_HUB_OFFLINE", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn starters_have_one_plan_and_nothing_is_overwritten() {
    let folder = TempDir::new().unwrap();
    let told = mergesweep(folder.path(), &["init"]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert_eq!(mergesweep(folder.path(), &["init", "deep/sweep.yml"]).status.code(), Some(0));
    let open = |name: &str| plan::open(&folder.path().join(name)).unwrap_or_else(|problems| panic!("{problems}")).1;
    assert_eq!(open("sweep.toml"), open("deep/sweep.yml"));
    assert!(open("sweep.toml").warnings.is_empty());
    assert_eq!(mergesweep(folder.path(), &["init", "mine.toml"]).status.code(), Some(0));
    assert_eq!(plan::open(&folder.path().join("mine.toml")).unwrap().0.name, "mine");
    // A name that YAML reads as a switch.
    assert_eq!(mergesweep(folder.path(), &["init", "no.yml"]).status.code(), Some(0));
    assert_eq!(plan::open(&folder.path().join("no.yml")).unwrap().0.name, "no");
    assert!(folder.path().join("mergesweep.schema.json").is_file());
    fs::write(folder.path().join("sweep.toml"), "mine").unwrap();
    let told = mergesweep(folder.path(), &["init"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains("`sweep.toml` exists, and is not overwritten"));
    assert_eq!(fs::read_to_string(folder.path().join("sweep.toml")).unwrap(), "mine");
    assert_eq!(mergesweep(folder.path(), &["init", "sweep.txt"]).status.code(), Some(2));
}

#[test]
fn a_spec_from_mergekit_files_has_their_merges_and_models() {
    let folder = TempDir::new().unwrap();
    let study = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/study");
    fs::create_dir(folder.path().join("configs")).unwrap();
    let mut arguments = vec!["init".to_owned(), "out.toml".to_owned(), "--from".to_owned()];
    for name in ["linear.yml", "ties.yml", "dare_ties.yml"] {
        fs::copy(study.join(name), folder.path().join("configs").join(name)).unwrap();
        arguments.push(format!("configs/{name}"));
    }
    for ending in ["toml", "yml"] {
        arguments[1] = format!("out.{ending}");
        let told = mergesweep(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    }
    let open = |name: &str| plan::open(&folder.path().join(name)).unwrap_or_else(|problems| panic!("{problems}")).1;
    let names = |plan: &plan::Plan| plan.trials.iter().map(|trial| trial.name.clone()).collect::<Vec<_>>();
    assert_eq!(open("out.toml"), open("out.yml"));
    let found = names(&open("out.toml"));
    assert_eq!(found.len(), 6, "{found:?}");
    assert_eq!(found[3..], ["linear", "ties", "dare_ties"]);
    let told = mergesweep(folder.path(), &["init", "x.toml", "--from", "out.toml"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(!folder.path().join("x.toml").exists());
}

#[test]
fn doctor_tells_what_is_there_and_what_is_not_and_no_secret() {
    let Some(python) = plain_python() else { return };
    let folder = TempDir::new().unwrap();
    let harness = fixture("fake_lm_eval").display().to_string();
    let spec = format!(
        "name = \"s\"\n[models]\nm = \"./nowhere\"\n[evaluate]\ntasks = [\"facts\", \"factz\"]\nmodel = \"dummy\"\nenvironment = \
         {{ PYTHONPATH = \"{harness}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n[[baseline]]\nmodel = \"m\"\n"
    );
    fs::write(folder.path().join("s.toml"), spec).unwrap();
    let told = mergesweep(folder.path(), &["doctor", "s.toml", "--json", "--python", python.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(2), "{}", text(&told.stderr));
    assert!(!text(&told.stdout).contains("hf_a_secret"));
    let report: Json = serde_json::from_slice(&told.stdout).unwrap();
    let verdict = |item: &str| {
        let found = report["items"].as_array().unwrap().iter().find(|one| one["item"] == item);
        found.unwrap_or_else(|| panic!("no {item}: {report}"))["verdict"].as_str().unwrap().to_owned()
    };
    for (item, expected) in [
        ("spec", "ok"),
        ("python", "ok"),
        ("lm_eval", "ok"),
        ("task facts", "ok"),
        ("task factz", "error"),
        ("model m", "error"),
        ("hub token", "ok"),
    ] {
        assert_eq!(verdict(item), expected, "{item}");
    }
    for item in ["disk", "memory", "gpus", "hub cache", "bubblewrap"] {
        verdict(item);
    }
    assert_eq!(report["ready"], false);
    assert!(!folder.path().join("results").exists(), "a look made a folder of results");
    // Without a spec, for people.
    let told = mergesweep(folder.path(), &["doctor", "--python", "/no/such/python"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stdout).contains("hint: name the interpreter that has the harness"), "{}", text(&told.stdout));
}

#[test]
fn doctor_looks_at_models_that_only_configs_and_merges_name() {
    let Some(python) = plain_python() else { return };
    let folder = TempDir::new().unwrap();
    let inputs = fixture("mergekit-parity/inputs");
    let config = format!(
        "merge_method: linear\nmodels:\n- {{ model: {0}/math, parameters: {{ weight: 1.0 }} }}\n- {{ model: ./gone, parameters: {{ \
         weight: 1.0 }} }}\n",
        inputs.display()
    );
    fs::write(folder.path().join("linear.yml"), config).unwrap();
    let spec = format!(
        "name = \"s\"\n[evaluate]\ntasks = [\"facts\"]\nmodel = \"dummy\"\n[[merge]]\nname = \"File\"\nconfig = \
         \"linear.yml\"\n[[merge]]\nname = \"Paths\"\nmethod = \"linear\"\nmodels = [\"{0}/math\", \"{0}/code\"]\nparameters.weight \
         = 0.5\n",
        inputs.display()
    );
    fs::write(folder.path().join("s.toml"), spec).unwrap();
    let told = mergesweep(folder.path(), &["doctor", "s.toml", "--json", "--python", python.to_str().unwrap()]);
    let report: Json = serde_json::from_slice(&told.stdout).unwrap();
    let items = report["items"].as_array().unwrap().iter();
    let models: Vec<(String, &str)> = items
        .filter_map(|one| Some((one["item"].as_str()?.strip_prefix("model ")?.to_owned(), one["verdict"].as_str()?)))
        .map(|(model, verdict)| (model.replace(&inputs.display().to_string(), "INPUTS"), verdict))
        .collect();
    let expected = [("./gone", "error"), ("INPUTS/code", "ok"), ("INPUTS/math", "ok")];
    assert_eq!(models, expected.map(|(model, verdict)| (model.to_owned(), verdict)));
}
