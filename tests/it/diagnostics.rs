//! Errors and warnings as the program shows them: drawn, as JSON, explained; and the list of their codes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mergesweep::document::code::{self, CODES};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::{fixture, plain_python};

fn mergesweep(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    command
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("MERGESWEEP_PYTHON")
        .env_remove("VIRTUAL_ENV");
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.join("hf")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const SPEC: &str = "name = \"s\"\n\n[models]\nhere = \"./no-such-model\"\nnamed = \"PLACEHOLDER/x\"\nhub = \"o/hub\"\n\n\
                    [evaluate]\ntasks = [\"factz\", \"humaneval\"]\n\n[[baseline]]\nmodel = \"here\"\n\n[[baseline]]\nmodel = \
                    \"named\"\n\n[[baseline]]\nmodel = \"hub\"\n";

#[test]
fn the_committed_list_of_codes_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/DIAGNOSTICS.md");
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == code::document(), "run `mergesweep explain --all > sweeps/DIAGNOSTICS.md`");
}

/// A code that nothing raises would be explained to nobody.
#[test]
fn every_code_is_raised_somewhere() {
    fn collect(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("document/code.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("Code::").skip(1);
                found.extend(
                    names.map(|rest| rest.chars().take_while(|letter| letter.is_alphanumeric()).collect::<String>()),
                );
            }
        }
    }
    let mut raised = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut raised);
    let idle: Vec<String> =
        CODES.iter().map(|row| format!("{:?}", row.code)).filter(|name| !raised.contains(name)).collect();
    assert_eq!(idle, [""; 0]);
}

#[test]
fn a_code_is_explained_in_any_case_and_a_wrong_one_refused() {
    let folder = TempDir::new().unwrap();
    let told = mergesweep(folder.path(), &["explain", "e0101"]);
    assert!(text(&told.stdout).starts_with("E0101: nobody reads this key\n\n"), "{}", text(&told.stdout));
    let told = mergesweep(folder.path(), &["explain", "E9999"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains("`mergesweep explain --all` lists every code"));
}

#[test]
fn plan_gives_mistakes_as_json_and_drawn_without_colour() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("s.toml"), SPEC.replace("tasks =", "é = 1\ntaks =")).unwrap();
    let told = mergesweep(folder.path(), &["plan", "s.toml", "--json"]);
    assert_eq!(told.status.code(), Some(2));
    let json: Json = serde_json::from_slice(&told.stdout).unwrap_or_default();
    // `é` is no bare key of TOML.
    assert_eq!(json["diagnostics"][0]["code"], "E0002");
    fs::write(folder.path().join("s.toml"), SPEC.replace("tasks =", "taks =")).unwrap();
    let told = mergesweep(folder.path(), &["plan", "s.toml", "--json"]);
    let json: Json = serde_json::from_slice(&told.stdout).unwrap();
    let unknown = json["diagnostics"].as_array().unwrap().iter().find(|one| one["code"] == "E0101").unwrap();
    let expected = serde_json::json!({
        "severity": "error", "code": "E0101", "message": "unknown key `taks`", "hint": "did you mean `tasks`?",
        "file": "s.toml", "line": 9, "column": 1, "end": { "line": 9, "column": 5 }, "key": "evaluate.taks",
    });
    assert_eq!(*unknown, expected);
    let drawn = text(&told.stderr);
    assert!(drawn.contains("9 | taks = [\"factz\", \"humaneval\"]\n  | ^^^^ evaluate.taks\n"), "{drawn}");
    assert!(drawn.ends_with("2 errors; `mergesweep explain E0102` says more about a code\n"), "{drawn}");
    assert!(!drawn.contains('\u{1b}'));
}

#[test]
fn mistakes_of_report_and_gate_are_told_at_their_places_with_the_others() {
    let folder = TempDir::new().unwrap();
    let own = "[report]\nreference = \"heer\"\n\n[gate]\nmargin = 0\nmargins = { arc100_ac = 0.2 }\n\n[limits]\nkeep = \"best:1:arc100\"\n";
    let spec = SPEC.replace("\"factz\", \"humaneval\"", "\"arc100_acc\"").replace("tasks =", "taks = 1\ntasks =");
    fs::write(folder.path().join("s.toml"), format!("{spec}\n{own}")).unwrap();
    let told = mergesweep(folder.path(), &["plan", "s.toml", "--json"]);
    assert_eq!(told.status.code(), Some(2));
    let json: Json = serde_json::from_slice(&told.stdout).unwrap();
    let all: Vec<(&str, &str, &str)> = json["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            (text("code"), text("key"), text("hint"))
        })
        .collect();
    for expected in [
        ("E0101", "evaluate.taks", "did you mean `tasks`?"),
        ("E0409", "report.reference", "did you mean `here`?"),
        ("E0103", "gate.margin", ""),
        ("E0510", "gate.margins.arc100_ac", "did you mean `arc100_acc`?"),
        ("E0103", "limits.keep", "there is `arc100_acc`"),
    ] {
        assert!(all.contains(&expected), "{expected:?} in {all:?}");
    }
}

/// Whose columns only results tell: the name of one of them is no mistake, one that is near to a task's is.
#[test]
fn a_gate_may_name_columns_that_are_not_known_yet() {
    let folder = TempDir::new().unwrap();
    for (name, code, severity) in
        [("mmlu_anatomy_acc", "", ""), ("mmlo", "E0510", "error"), ("arc_easy", "E0510", "warning")]
    {
        let spec = SPEC.replace("\"factz\", \"humaneval\"", "\"mmlu\"");
        fs::write(folder.path().join("s.toml"), format!("{spec}\n[gate]\nadvisory = [\"{name}\"]\n")).unwrap();
        let told = mergesweep(folder.path(), &["plan", "s.toml", "--json"]);
        let json: Json = serde_json::from_slice(&told.stdout).unwrap();
        let found = json["diagnostics"].as_array().unwrap().first();
        let text = |key: &str| found.and_then(|one| one[key].as_str()).unwrap_or_default();
        assert_eq!((text("code"), text("severity")), (code, severity), "{name}: {json}");
    }
}

#[test]
fn warnings_stand_beside_the_plan() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("s.toml"), SPEC).unwrap();
    let told = mergesweep(folder.path(), &["plan", "s.toml", "--json"]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let json: Json = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(json["trials"].as_array().unwrap().len(), 3);
    let warnings: Vec<_> = json["diagnostics"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    assert_eq!(warnings, ["E0503"]);
}

#[test]
fn a_dry_run_tells_everything_that_is_missing_at_its_place_without_an_interpreter() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("s.toml"), SPEC).unwrap();
    let told = mergesweep(folder.path(), &["run", "s.toml", "--dry-run", "--json", "--python", "/no/such/python"]);
    assert_eq!(told.status.code(), Some(2));
    let events: Vec<Json> = text(&told.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors: Vec<(&str, u64)> = events
        .iter()
        .filter(|event| event["severity"] == "error")
        .map(|event| (event["code"].as_str().unwrap(), event["line"].as_u64().unwrap()))
        .collect();
    assert_eq!(errors, [("E0601", 4), ("E0601", 5), ("E0602", 8), ("E0503", 9)], "{}", text(&told.stderr));
    assert!(events.iter().all(|event| event["event"] == "diagnostic"));
    // What a run refuses is not warned of as well.
    let n_told = events.iter().filter(|event| event["code"] == "E0503").count();
    assert_eq!((n_told, text(&told.stderr).matches("[E0503]").count()), (1, 1), "{}", text(&told.stderr));
    assert!(!folder.path().join("results").exists(), "a dry run left something");
}

#[test]
fn a_run_tells_an_unknown_task_at_its_place() {
    let Some(python) = plain_python() else { return };
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    let environment = fixture("fake_lm_eval").display().to_string();
    let spec = format!(
        "name = \"s\"\n[models]\nm = \"./model\"\n[evaluate]\ntasks = [\n  \"facts\",\n  \"factz\",\n]\nmodel = \
         \"dummy\"\nenvironment = {{ PYTHONPATH = \"{environment}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n[[baseline]]\nmodel = \"m\"\n"
    );
    fs::write(folder.path().join("s.toml"), spec).unwrap();
    let path = std::env::var("PYTHONPATH").unwrap_or_default();
    let told = Command::new(env!("CARGO_BIN_EXE_mergesweep"))
        .current_dir(folder.path())
        .args(["run", "s.toml", "--python"])
        .arg(&python)
        .env("PYTHONPATH", format!("{environment}:{path}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = text(&told.stderr);
    assert_eq!(told.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error[E0505]: the harness knows no task `factz`"), "{stderr}");
    assert!(stderr.contains("s.toml:7:3") && stderr.contains("hint: did you mean `facts`?"), "{stderr}");
}

#[test]
fn files_for_another_command_and_missing_ones_are_told() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("s.toml"), SPEC).unwrap();
    fs::write(folder.path().join("c.yml"), "merge_method: linear\nmodels: [{model: a/b, parameters: {weight: 1}}]\n")
        .unwrap();
    for (arguments, message) in [
        (["merge", "s.toml", "out"].as_slice(), "this is a sweep spec"),
        (&["plan", "c.yml"], "this is a mergekit config"),
        (&["diff", "a", "nosuch"], "`a` does not exist, expected a model folder"),
        (&["report", "s.toml", "--long"], "`--long` is for machines"),
        (&["report", "s.toml", "--long", "--format", "latex"], "`--long` is for machines"),
        (&["report", "s.toml", "--html", "p.html", "--columns", "x"], "cannot be used with"),
        (&["report", "s.toml", "--plots", "p", "--sort", "trial"], "cannot be used with"),
        (&["report", "s.toml", "--html", "p.html", "--filter", "method=slerp"], "cannot be used with"),
        (&["report", "s.toml", "--html", "p.html", "--format", "csv"], "cannot be used with"),
        (&["report", "s.toml", "--plots", "p", "--watch"], "cannot be used with"),
        (&["report", "s.toml", "--watch", "--output", "t.md"], "cannot be used with"),
    ] {
        let told = mergesweep(folder.path(), arguments);
        assert_eq!(told.status.code(), Some(2), "{arguments:?}");
        assert!(text(&told.stderr).contains(message), "{arguments:?}: {}", text(&told.stderr));
    }
}

#[test]
fn a_missing_model_of_a_config_is_told_at_its_place() {
    let folder = TempDir::new().unwrap();
    let config = "merge_method: linear\nmodels:\n- model: ./nowhere\n  parameters: {weight: 1}\n";
    fs::write(folder.path().join("c.yml"), config).unwrap();
    let told = mergesweep(folder.path(), &["merge", "c.yml", "out"]);
    assert_eq!(told.status.code(), Some(2));
    let stderr = text(&told.stderr);
    assert!(
        stderr.contains("error[E0601]: model `./nowhere` does not exist") && stderr.contains("c.yml:3:10"),
        "{stderr}"
    );
}

#[test]
fn a_sweep_that_another_run_holds_has_an_exit_code_of_its_own() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("s.toml"), SPEC).unwrap();
    let store = mergesweep::run::store::Store::new(&folder.path().join("results"), "s").unwrap();
    let _lock = store.lock().unwrap();
    let told = mergesweep(folder.path(), &["run", "s.toml"]);
    assert_eq!(told.status.code(), Some(75), "{}", text(&told.stderr));
}
