//! `compare`, `import` and the comparisons of `report` by the program itself.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::support::fixture;
use crate::sweep_support::{Sweep, TINY, text};

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
    let told = printed(&sweep, &["report", "sweep.toml"]);
    assert!(told.contains("0.4000 [.31, .50] ▼"), "{told}");
    assert!(told.contains("-50.0 (0:50) p <.001"), "{told}");
    assert!(told.contains("same answers"), "{told}");
    assert!(told.contains("smallest true difference that these documents show four times of five"), "{told}");
    assert!(told.contains("smallest true difference that these documents show four times of five"), "{told}");
    let long = printed(&sweep, &["report", "sweep.toml", "--format", "csv", "--long"]);
    assert!(
        long.lines().next().unwrap().ends_with("only_trial_right,only_reference_right,n_changed,p,p_holm"),
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
