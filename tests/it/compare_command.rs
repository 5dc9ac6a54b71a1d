//! `compare`, `import` and the comparisons of `report` by the program itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{fixture, require_python};
use crate::sweep_support::{Sweep, TINY, text, walk};

/// A sweep whose trials answer alike, but for the spoiled one.
const SPOILED: &str = r#"
[[merge]]
name = "Nothing"
method = "linear"
models = { math = { weight = 0.0 }, code = { weight = 0.0 } }
parameters = { normalize = false }

[report]
reference = "Base"
"#;

/// The tiny sweep with a back end that is handed the model.
fn tiny(more: &str) -> String {
    format!("{}{more}", TINY.replace("\"dummy\"", "\"hf\""))
}

fn ran() -> Option<Sweep> {
    let sweep = Sweep::of(&tiny(SPOILED))?;
    let run = with(&sweep, &["run", "sweep.toml"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    Some(sweep)
}

fn with(sweep: &Sweep, args: &[&str]) -> Output {
    sweep.command(args, "ok").env("FAKE_LM_EVAL_WRONG", "10").output().unwrap()
}

fn printed(sweep: &Sweep, args: &[&str]) -> String {
    let output = with(sweep, args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn two_trials_are_compared_document_by_document() {
    let Some(sweep) = ran() else { return };
    let told = printed(&sweep, &["compare", "sweep.toml:Nothing", "Base"]);
    for part in ["| facts ", "| 100 |", "| 0.9000 | -50.0 points | [-59.1, -38.9] |", " 0:50 | <.001 |"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(told.contains("all 2 tasks together: p <.001"), "{told}");
    let same = printed(&sweep, &["compare", "sweep.toml:SLERP (t=0.5)", "Base"]);
    assert!(same.contains("0:0") && same.contains("identical answers"), "{same}");

    let told = printed(&sweep, &["compare", "sweep.toml:Nothing", "Base", "--items", "--json"]);
    let json: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(json["columns"][0]["comparison"]["discordant"], serde_json::json!({ "b": 0, "c": 50 }));
    assert_eq!(json["items"].as_array().unwrap().len(), 100);
    let item = &json["items"][0];
    assert_eq!(item["first"]["texts"]["answer"], "no");
    assert_eq!(item["second"]["texts"]["answer"], "yes");
    assert!(item["first"]["texts"]["prompt"].as_str().unwrap().starts_with("facts "));
    let told = printed(&sweep, &["compare", "sweep.toml:Nothing", "Base", "--items"]);
    assert!(told.contains("Nothing wrong, Base right\nprompt:\n    facts "), "{told}");

    let unknown = with(&sweep, &["compare", "sweep.toml:Nope", "Base"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("no trial `Nope`, only Base, SLERP (t=0.25)"), "{}", text(&unknown.stderr));
}

#[test]
fn the_report_marks_what_is_a_difference() {
    let Some(sweep) = ran() else { return };
    let told = printed(&sweep, &["run", "sweep.toml"]);
    assert!(told.contains("0.4000 [.31, .50] ▼") && told.contains("Paired with Base document by document"), "{told}");
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert!(told.contains("0.4000 [.31, .50] ▼"), "{told}");
    assert!(told.contains("-50.0 (0:50) p <.001"), "{told}");
    assert!(told.contains("same answers"), "{told}");
    assert!(told.contains("smallest true difference that these documents show four times of five"), "{told}");
    assert!(told.contains("smallest true difference that these documents show four times of five"), "{told}");
    let long = printed(&sweep, &["report", "sweep.toml", "--format", "csv", "--long"]);
    assert!(
        long.lines()
            .next()
            .unwrap()
            .ends_with("only_reference_right,n_changed,p,p_holm,q_bh,estimate_difference,p_estimate"),
        "{long}"
    );
    let one = printed(
        &sweep,
        &["report", "sweep.toml", "--format", "csv", "--columns", "sums", "--filter", "trial=S*", "--sort", "-trial"],
    );
    assert_eq!(
        one,
        "trial,kind,method,t,sums\nSLERP (t=0.5),merge,slerp,0.5,0.9\nSLERP (t=0.25),merge,slerp,0.25,0.9\n"
    );
    let watched = printed(&sweep, &["report", "sweep.toml", "--watch", "--columns", "sums"]);
    assert_eq!(watched.matches("| Nothing ").count(), 2, "once, as nothing runs: {watched}");
    let parquet = with(&sweep, &["report", "sweep.toml", "--format", "parquet"]);
    assert!(parquet.stdout.starts_with(b"PAR1"));
    let latex = printed(&sweep, &["report", "sweep.toml", "--format", "latex"]);
    assert!(latex.contains("Nothing & 0.4000$^{\\blacktriangledown}$"), "{latex}");
    assert!(!latex.contains("\\textbf"), "equal rows are not best: {latex}");
    let stored = printed(&sweep, &["report", "sweep.toml", "--reference", "results/tiny/scores.csv"]);
    assert!(stored.contains("+0.0000 (0.0 SE)") && stored.contains("offset common to all rows +0.0000"), "{stored}");
}

#[test]
fn a_limited_run_is_set_beside_its_own_scores_with_a_mark() {
    let Some(sweep) = Sweep::of(&tiny("")) else { return };
    assert_eq!(with(&sweep, &["run", "sweep.toml", "--limit", "20"]).status.code(), Some(0));
    let told = printed(&sweep, &["report", "sweep.toml", "--limit", "20", "--reference", "results/tiny/scores.csv"]);
    assert!(told.contains("facts (n=20) ‡") && told.contains("both rest on 20 of 100 documents only"), "{told}");
}

#[test]
fn seeds_of_a_random_method_are_summed_up_and_single_draws_named() {
    let spec = tiny("").replace("[[merge]]\nname = \"SLERP (t={t})\"\nmethod = \"slerp\"\nbase_model = \"math\"\nmodels = [\"math\", \"code\"]\ngrid.t = [0.25, 0.5]", r#"
[[merge]]
name = "DARE (seed={seed})"
method = "dare_linear"
base_model = "base"
models = { math = { weight = 0.5, density = 0.5 }, code = { weight = 0.5, density = 0.5 } }
grid.seed = [1, 2, 3]

[[merge]]
name = "DELLA"
method = "della"
base_model = "base"
models = { math = { weight = 0.5, density = 0.5 }, code = { weight = 0.5, density = 0.5 } }
"#);
    let Some(sweep) = Sweep::of(&spec) else { return };
    assert_eq!(with(&sweep, &["run", "sweep.toml"]).status.code(), Some(0));
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert!(told.contains("| DARE (seed=*) "), "{told}");
    assert!(told.contains(" 3 | 0.9000 ± 0.0302 (0.9000–0.9000, seed SD 0.0000) |"), "{told}");
    assert!(told.contains("single draw (one merge seed; how far the seed moves it is not known): DELLA"), "{told}");
}

#[test]
fn recipes_are_compared_over_their_seeds() {
    let dare = |name: &str, weight: f64, seeds: &str| {
        format!(
            r#"
[[merge]]
name = "{name}"
method = "dare_linear"
base_model = "base"
models = {{ math = {{ weight = {weight}, density = 0.5 }}, code = {{ weight = 0.5, density = 0.5 }} }}
grid = {{ "math.density" = [0.5, 0.7], seed = {seeds} }}
"#
        )
    };
    let both = dare("DARE ({math.density}, seed={seed})", 0.5, "[1, 2, 3]")
        + &dare("Two ({math.density}, seed={seed})", 0.4, "[1, 2]")
        + &dare("P{seed} {math.density}", 0.3, "[1, 2]");
    let Some(sweep) = Sweep::of(&tiny(&both)) else { return };
    let early = with(&sweep, &["compare", "sweep.toml:DARE (0.5, seed=*)", "DARE (0.7, seed=*)"]);
    assert_eq!(early.status.code(), Some(2), "{}", text(&early.stderr));
    let run = with(&sweep, &["run", "sweep.toml"]);
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    let args = ["compare", "sweep.toml:DARE (0.5, seed=*)", "DARE (0.7, seed=*)"];
    let told = printed(&sweep, &args);
    assert!(told.contains("Means over the merge seeds 1, 2, 3, compared seed by seed"), "{told}");
    let json: Value = serde_json::from_str(&printed(&sweep, &[args.as_slice(), &["--json"]].concat())).unwrap();
    assert_eq!(json["seeds"], serde_json::json!([1, 2, 3]));
    for column in json["columns"].as_array().unwrap() {
        assert_eq!((&column["difference"]["k"], &column["difference"]["mean"]), (&3.into(), &0.0.into()), "{column}");
        assert_eq!(column["p"], 1.0, "the same answers: {column}");
    }
    // Trials whose names do not tell the seed as such are trials.
    let trials = printed(&sweep, &["compare", "sweep.toml:P1 0.5", "P2 0.5"]);
    assert!(!trials.contains("seed by seed") && trials.contains("identical answers"), "{trials}");
    let refused = with(&sweep, &["compare", "sweep.toml:DARE (0.5, seed=*)", "sweep.toml:Two (0.5, seed=*)"]);
    assert!(text(&refused.stderr).contains("recipes are compared over the same seeds"), "{}", text(&refused.stderr));
    let mixed = with(&sweep, &["compare", "sweep.toml:DARE (0.5, seed=*)", "P1 0.5"]);
    assert!(text(&mixed.stderr).contains("is a recipe over merge seeds"), "{}", text(&mixed.stderr));
    // A filter that fits nothing is a mistake, and says what would fit.
    let nothing = with(&sweep, &["report", "sweep.toml", "--filter", "method=della"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("no row has `method=della`; there is"), "{nothing:?}");
    // From another folder the results beside the spec are named.
    let elsewhere = sweep.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let spec = sweep.path("sweep.toml");
    let args = ["report", spec.to_str().unwrap()];
    let far = sweep.command(&args, "ok").current_dir(&elsewhere).output().unwrap();
    assert!(text(&far.stderr).contains("beside its spec there is: `--results"), "{}", text(&far.stderr));
}

#[test]
fn old_output_joins_the_table_with_marks_where_it_rests_on_something_else() {
    let Some(sweep) = ran() else { return };
    let old = fixture("lm-eval-output");
    let path = |name: &str| old.join(name).to_string_lossy().into_owned();
    let import = with(
        &sweep,
        &["import", "sweep.toml", &path("hf-bf16-two-tasks"), &path("hf-fp32-chat-template-limit2"), "--name", "Old"],
    );
    assert_eq!(import.status.code(), Some(0), "{}", text(&import.stderr));
    let import = with(&sweep, &["import", "sweep.toml", &path("hf-fp32-choice")]);
    assert_eq!(import.status.code(), Some(0), "{}", text(&import.stderr));
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert!(told.contains("| Old ") && told.contains("| smollm2-135m "), "{told}");
    assert!(
        told.contains("‡") && told.contains("`facts_mini_acc` mixes numbers of documents: 2 (Old); 12 (smollm2-135m)"),
        "{told}"
    );
    assert!(told.contains("mixes chat templates"), "{told}");
    let json =
        printed(&sweep, &["compare", "sweep.toml:smollm2-135m", &path("http-remote-tokenizer-choice"), "--json"]);
    assert!(json.contains("\"n\": 12"), "{json}");
    // The same file again changes nothing.
    let folders = || fs::read_dir(sweep.results().join("imported")).unwrap().count();
    assert_eq!(folders(), 3);
    assert_eq!(with(&sweep, &["import", "sweep.toml", &path("hf-fp32-choice")]).status.code(), Some(0));
    assert_eq!(folders(), 3);

    let taken = with(&sweep, &["import", "sweep.toml", &path("hf-fp32-choice"), "--name", "Base"]);
    assert_eq!(taken.status.code(), Some(2));
    let cut = sweep.path("cut");
    fs::create_dir_all(&cut).unwrap();
    for file in fs::read_dir(old.join("hf-fp32-choice/__models__smollm2-135m")).unwrap() {
        let file = file.unwrap().path();
        let content = fs::read_to_string(&file).unwrap();
        let is_samples = file.extension().unwrap() == "jsonl";
        let content = if is_samples { content.lines().take(3).collect::<Vec<_>>().join("\n") } else { content };
        fs::write(cut.join(file.file_name().unwrap()), content).unwrap();
    }
    let refused = with(&sweep, &["import", "sweep.toml", "cut", "--name", "Cut"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = text(&refused.stderr);
    assert!(told.contains("contradicts itself") && told.contains("nothing was imported"), "{told}");
    assert_eq!(folders(), 3);
}

/// Rows of the first table that are marked as better or worse.
fn marked(table: &str) -> Vec<String> {
    let rows = table.lines().take_while(|line| !line.is_empty()).filter(|line| line.contains(['▲', '▼']));
    rows.filter_map(|row| Some(row.split('|').nth(1)?.trim().to_owned())).collect()
}

#[test]
fn a_report_without_the_answers_of_old_shows_the_table_and_says_what_it_leaves_out() {
    let Some(sweep) = ran() else { return };
    let whole = printed(&sweep, &["report", "sweep.toml"]);
    assert_eq!(marked(&whole), ["Nothing"], "{whole}");
    assert!(!whole.contains("not on this machine"), "{whole}");

    // The files of one evaluation, then the folder of every trial: a clone has no more than the journal.
    let outputs = |trial: &str| {
        let folders = walk(&sweep.results().join("trials")).into_iter().filter(|path| path.ends_with("output"));
        folders.filter(|path| path.to_string_lossy().contains(trial)).collect::<Vec<_>>()
    };
    for output in outputs("nothing") {
        fs::remove_dir_all(&output).unwrap();
        fs::create_dir(&output).unwrap();
    }
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert_eq!(marked(&told), [""; 0], "{told}");
    assert!(told.contains("| Nothing ") && told.contains("0.4000"), "{told}");
    assert!(told.contains("journal came without them): Nothing in facts, sums. Put"), "{told}");
    assert!(told.contains("`mergesweep run SPEC --redo 'Nothing'`"), "{told}");
    let refused = with(&sweep, &["compare", "sweep.toml:Nothing", "Base"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("not on this machine"), "{}", text(&refused.stderr));

    fs::remove_dir_all(sweep.results().join("trials")).unwrap();
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert!(marked(&told).is_empty() && told.contains("): all trials in facts, sums. Put"), "{told}");
    let json = with(&sweep, &["report", "sweep.toml", "--format", "json"]);
    assert_eq!(json.status.code(), Some(0), "{}", text(&json.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap().as_array().unwrap().len(), 4);
    assert!(text(&json.stderr).contains("note: not compared"), "{}", text(&json.stderr));
    let page = with(&sweep, &["report", "sweep.toml", "--html", "page.html"]);
    assert_eq!(page.status.code(), Some(0), "{}", text(&page.stderr));
    assert!(fs::read_to_string(sweep.path("page.html")).unwrap().contains("all trials in facts, sums"));
    assert_eq!(with(&sweep, &["plan", "sweep.toml"]).status.code(), Some(0));
    let frozen = with(&sweep, &["freeze", "sweep.toml", "-o", "frozen"]);
    assert_eq!(frozen.status.code(), Some(2));
    assert!(text(&frozen.stderr).contains("not on this machine"), "{}", text(&frozen.stderr));

    printed(&sweep, &["run", "sweep.toml", "--redo", "*"]);
    assert_eq!(printed(&sweep, &["report", "sweep.toml"]), whole);
}

/// A sweep on one of the tiny tasks, with parameters for the stand-in of their package.
fn estimated(python: &Path) -> Option<Sweep> {
    let tasks = "tasks = [\"facts\", { task = \"tinyArc\", columns = { tiny = \"acc,none\" } }]";
    let sweep = Sweep::of(&tiny(SPOILED).replace("tasks = [\"facts\", \"sums\"]", tasks))?;
    let home = sweep.results().join("harness");
    fs::create_dir_all(&home).unwrap();
    let dump =
        "import pickle; pickle.dump({'arc': [1.0 + i % 7 for i in range(100)]}, open('tinyBenchmarks.pkl', 'wb'))";
    assert!(Command::new(python).args(["-c", dump]).current_dir(home).status().unwrap().success());
    Some(sweep)
}

#[test]
fn estimates_are_tested_against_the_reference_where_that_is_asked_for() {
    let Some(python) = require_python() else { return };
    let Some(sweep) = estimated(&python) else { return };
    let with = |args: &[&str]| {
        let mut command = sweep.command(args, "ok");
        let packages = ["fake_lm_eval", "fake_packages", "fake_tiny"].map(fixture);
        command.env("PYTHONPATH", std::env::join_paths(packages).unwrap()).env("FAKE_LM_EVAL_WRONG", "10");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    with(&["run", "sweep.toml"]);
    let told = with(&["report", "sweep.toml"]);
    assert!(
        told.contains("compared are the answers that the estimates are made from") && told.contains(": tiny\n"),
        "{told}"
    );
    let python = python.to_string_lossy().into_owned();
    let told = with(&["report", "sweep.toml", "--gp-irt", "--python", &python]);
    // The stand-in weighs answers by 1 to 7 in turns: 10 to 59 are those that changed.
    let weight = |items: std::ops::Range<usize>| items.map(|item| 1.0 + (item % 7) as f64).sum::<f64>();
    let difference = -100.0 * weight(10..60) / weight(0..100);
    assert!(told.contains(&format!("{difference:+.1} est. (0:50) p .0")), "{difference}: {told}");
    assert!(
        told.contains("those of the gp-IRT estimates (swap test), the counts those of the answers: tiny"),
        "{told}"
    );
    let long = with(&["report", "sweep.toml", "--gp-irt", "--python", &python, "--format", "csv", "--long"]);
    let row = long.lines().find(|line| line.starts_with("Nothing,") && line.contains("tinyArc")).unwrap();
    // 999 draws, of which none is as large.
    assert!(row.ends_with(",0.001"), "{row}");
}

#[test]
fn json_files_that_are_no_results_are_passed_over_and_broken_results_are_not() {
    let Some(sweep) = ran() else { return };
    let old = fixture("lm-eval-output/hf-fp32-choice/__models__smollm2-135m");
    let folder = sweep.path("old");
    fs::create_dir_all(&folder).unwrap();
    for file in fs::read_dir(old).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    fs::write(folder.join("config.json"), "{\"model_type\": \"llama\"}").unwrap();
    fs::write(folder.join("notes.json"), "not JSON at all").unwrap();
    let compared = printed(&sweep, &["compare", "old", "old", "--json"]);
    assert!(compared.contains("\"n\": 12"), "{compared}");
    let imported = printed(&sweep, &["import", "sweep.toml", "old"]);
    assert_eq!(imported.lines().count(), 1, "{imported}");

    fs::write(folder.join("results_2024-05-01T10-00-00.000000.json"), "{\"results\"").unwrap();
    let refused = with(&sweep, &["import", "sweep.toml", "old"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    fs::create_dir(sweep.path("empty")).unwrap();
    let refused = with(&sweep, &["compare", "empty", "old"]);
    assert!(text(&refused.stderr).contains("empty: no results file of the harness"), "{}", text(&refused.stderr));
}

#[test]
fn output_of_a_release_before_filters_is_read() {
    let Some(sweep) = ran() else { return };
    let old = r#"{"results": {"facts": {"acc": 0.25, "acc_stderr": 0.0435}}, "versions": {"facts": 0},
        "config": {"model": "hf-causal", "model_args": "pretrained=someone/old-model,dtype=float16", "num_fewshot": 0}}"#;
    fs::write(sweep.path("old.json"), old).unwrap();
    assert_eq!(with(&sweep, &["import", "sweep.toml", "old.json"]).status.code(), Some(0));
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert!(told.contains("| old-model ") && told.contains("0.2500 ± 0.0435 ‡"), "{told}");
    assert!(told.contains("`facts` mixes versions of its task"), "{told}");
}

#[test]
fn the_studys_table_says_from_totals_alone_what_could_be_a_difference() {
    let Some(sweep) = Sweep::of(&tiny("")) else { return };
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/results/reference/study.csv");
    let told = printed(&sweep, &["compare", table, "Instruct"]);
    assert!(told.contains("| Breadcrumbs ") && told.contains("+3 of 164, p ≥ .250"), "{told}");
    let remark = "`humaneval`: of 18 rows these could differ significantly, if every changed document changed the same way: \
                  Solo Code, DataMerged, Math → Code, Code → Math, Dare Ties, Arcee Fusion v1, SLERP (t=0.7)";
    assert!(told.contains(remark), "{told}");
    assert!(told.contains("Linear = Dare Linear in 7 of 8"), "{told}");
    let unknown = with(&sweep, &["compare", table, "Nobody"]);
    assert_eq!(unknown.status.code(), Some(2));
}
