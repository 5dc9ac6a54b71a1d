//! What specs expand to: axes, their order, their places, and what is left out.

use std::path::Path;

use mergesweep::config::{Scalar, write};
use mergesweep::document::Problems;
use mergesweep::eval::ChatTemplate;
use mergesweep::plan::{self, Plan, Subject};
use mergesweep::spec::Sweep;

const HEAD: &str = r#"
name = "test"
[models]
base = "o/base"
math = "o/math"
code = "o/code"
[evaluate]
tasks = ["arc"]
"#;

const TIES: &str = "merge_method: ties\nbase_model: o/base\ndtype: float32\nslices:\n- sources:\n  - {model: o/math, layer_range: [0, 2], parameters: {weight: 0.8}}\n  - {model: o/code, layer_range: [0, 2], parameters: {weight: [0.1, 0.2]}}\n  - {model: o/base, layer_range: [0, 2]}\n- sources:\n  - {model: o/code, layer_range: [2, 4], parameters: {weight: 0.7}}\n  - {model: o/base, layer_range: [2, 4]}\nparameters: {density: 0.5, lambda: 0.9}\n";

fn try_open(text: &str) -> Result<(Sweep, Plan), Problems> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ties.yml"), TIES).unwrap();
    std::fs::create_dir(folder.path().join("tasks")).unwrap();
    let path = folder.path().join("s.toml");
    std::fs::write(&path, text).unwrap();
    plan::open(&path)
}

fn open(text: &str) -> (Sweep, Plan) {
    try_open(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The plan of one merge: its lines go under `[[merge]]`.
fn merge(lines: &str) -> Plan {
    open(&format!("{HEAD}[[merge]]\n{lines}")).1
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.trials.iter().map(|trial| trial.name.as_str()).collect()
}

fn config(plan: &Plan, index: usize) -> serde_json::Value {
    match &plan.trials[index].subject {
        Subject::Merge { config, .. } => write::json(config, &|model| model.to_string()),
        Subject::Checkpoint(model) => panic!("{model}"),
    }
}

const SLERP: &str = "method = 'slerp'\nbase_model = 'math'\nmodels = ['math', 'code']\n";

#[test]
fn ranges_give_exact_values_and_both_ends() {
    let plan = merge(&format!("name = 't={{t}}'\n{SLERP}grid.t = {{ from = 0, to = 1, step = 0.1 }}"));
    let expected: Vec<String> =
        ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"].map(|t| format!("t={t}")).to_vec();
    assert_eq!(names(&plan), expected);
    assert_eq!(config(&plan, 3)["parameters"]["t"].to_string(), "0.3");
    assert_eq!(plan.trials[3].axes, [("t".to_owned(), Scalar::Float(0.3))]);
}

#[test]
fn the_last_axis_varies_fastest() {
    let plan = merge(
        "name = '{density} {seed}'\nmethod = 'dare_ties'\nbase_model = 'base'\nmodels = {math = {weight = 1}}\ngrid = {density = [0.2, 0.5], seed = [1, 2]}",
    );
    assert_eq!(names(&plan), ["0.2 1", "0.2 2", "0.5 1", "0.5 2"]);
    assert!(matches!(plan.trials[3].subject, Subject::Merge { seed: 2, .. }));
}

#[test]
fn names_without_placeholders_get_their_settings_behind_them() {
    let plan = merge(
        "name = 'DARE'\nmethod = 'dare_ties'\nbase_model = 'base'\nmodels = {math = {weight = 1}}\ngrid = {density = [0.2], seed = [1, 2]}",
    );
    assert_eq!(names(&plan), ["DARE (density=0.2, seed=1)", "DARE (density=0.2, seed=2)"]);
    assert_eq!(
        names(&merge(&format!("name = '{{{{x}}}} {{method}} {{seed}}'\nseed = 3\n{SLERP}parameters = {{t = 0.5}}"))),
        ["{x} slerp 3"]
    );
}

#[test]
fn groups_multiply_in_the_order_they_are_written() {
    let text = "name = '{a.weight}{b.weight} {lambda} {density}'\nmethod = 'ties'\nbase_model = 'base'\nmodels = {math = {}, code = {}}\n\
                zip = {a.weight = {path = 'math.weight', values = [1, 2]}, b.weight = {path = 'code.weight', values = [3, 4]}}\n\
                settings = [{lambda = 0.5}, {lambda = 0.6}]\ngrid.density = [0.1, 0.2]";
    assert_eq!(
        names(&merge(text)),
        [
            "13 0.5 0.1",
            "13 0.5 0.2",
            "13 0.6 0.1",
            "13 0.6 0.2",
            "24 0.5 0.1",
            "24 0.5 0.2",
            "24 0.6 0.1",
            "24 0.6 0.2"
        ]
    );
}

#[test]
fn exclusions_take_out_what_they_match_and_say_when_they_match_nothing() {
    let text = "name = '{density} {seed}'\nmethod = 'dare_ties'\nbase_model = 'base'\nmodels = {math = {weight = 1}}\ngrid = {density = [0.2, 0.5], seed = [1, 2]}\nexclude = [{density = 0.50, seed = 1}, {density = 0.7}]";
    let plan = merge(text);
    assert_eq!(names(&plan), ["0.2 1", "0.2 2", "0.5 2"]);
    assert!(plan.warnings.to_string().contains("`merge[0].exclude[1]`: excludes nothing"), "{}", plan.warnings);
}

#[test]
fn samples_are_the_same_every_time_keep_the_order_and_grow() {
    let sample = |n: usize, seed: usize| {
        let plan = merge(&format!(
            "name = '{{t}}'\n{SLERP}grid.t = {{from = 0, to = 1, step = 0.01}}\nsample = {{n = {n}, seed = {seed}}}"
        ));
        names(&plan).iter().map(|name| name.parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    let five = sample(5, 1);
    assert_eq!(five.len(), 5);
    assert_eq!(five, sample(5, 1));
    assert!(five.is_sorted());
    assert!(five.iter().all(|t| sample(9, 1).contains(t)));
    assert_ne!(five, sample(5, 2));
    assert_eq!(sample(500, 1).len(), 101);
}

#[test]
fn deep_places_of_a_file_are_set() {
    let set = |path: &str, value: &str| {
        let plan =
            merge(&format!("name = 'x {{v}}'\nconfig = 'ties.yml'\ngrid.v = {{path = {path}, values = [{value}]}}"));
        assert!(plan.warnings.is_empty());
        config(&plan, 0)
    };
    let weights = |config: &serde_json::Value| -> Vec<String> {
        let slices = config["slices"].as_array().unwrap().iter();
        slices
            .flat_map(|slice| slice["sources"].as_array().unwrap())
            .map(|source| source["parameters"]["weight"].to_string())
            .collect()
    };
    assert_eq!(weights(&set("'code.weight'", "9")), ["0.8", "9", "null", "9", "null"]);
    assert_eq!(weights(&set("'o/code.weight'", "9")), ["0.8", "9", "null", "9", "null"]);
    assert_eq!(weights(&set("['code.weight', 'math.weight']", "9")), ["9", "9", "null", "9", "null"]);
    assert_eq!(weights(&set("'slices[0].sources[1].parameters.weight'", "9")), ["0.8", "9", "null", "0.7", "null"]);
    assert_eq!(
        weights(&set("'slices[0].sources[1].parameters.weight[1]'", "9")),
        ["0.8", "[0.1,9]", "null", "0.7", "null"]
    );
    assert_eq!(set("'parameters.density'", "0.3")["parameters"].to_string(), r#"{"density":0.3,"lambda":0.9}"#);
    assert_eq!(set("'density'", "0.3")["parameters"].to_string(), r#"{"density":0.3,"lambda":0.9}"#);
    assert_eq!(
        set("'slices[1].parameters.density'", "0.3")["slices"][1]["parameters"].to_string(),
        r#"{"density":0.3}"#
    );
    assert_eq!(set("'dtype'", "'bfloat16'")["dtype"], "bfloat16");
}

#[test]
fn methods_bases_and_dtypes_are_axes_like_others() {
    let plan = merge(
        "name = '{method} {base_model} {dtype}'\nmodels = ['math', 'code']\nparameters = {weight = 1}\ngrid = {method = ['ties', 'task_arithmetic'], base_model = ['math', 'code'], dtype = ['float16', 'float32']}",
    );
    assert_eq!(plan.trials.len(), 8);
    assert_eq!(plan.trials[7].name, "task_arithmetic code float32");
    assert_eq!(config(&plan, 7)["base_model"], "o/code");
    assert_eq!(config(&plan, 7)["merge_method"], "task_arithmetic");
}

#[test]
fn keys_of_the_entry_override_those_of_the_file() {
    let plan =
        merge("name = 'x'\nconfig = 'ties.yml'\ndtype = 'bfloat16'\nparameters = {density = 0.1, normalize = false}");
    let config = config(&plan, 0);
    assert_eq!(config["dtype"], "bfloat16");
    assert_eq!(config["parameters"].to_string(), r#"{"density":0.1,"lambda":0.9,"normalize":false}"#);
}

#[test]
fn slices_may_be_written_in_the_spec() {
    let plan = merge(
        "name = 'x'\nmethod = 'slerp'\nbase_model = 'math'\nslices = [{sources = [{model = 'math', layer_range = [0, 2]}, {model = 'code', layer_range = [0, 2]}], parameters = {t = [{filter = 'mlp', value = [0, 1]}, {value = 0.5}]}}]",
    );
    assert_eq!(
        config(&plan, 0)["slices"][0]["parameters"].to_string(),
        r#"{"t":[{"filter":"mlp","value":[0,1]},{"value":0.5}]}"#
    );
}

#[test]
fn adapters_stand_behind_short_names() {
    let text =
        format!("{HEAD}[[baseline]]\nmodel = 'base+../adapters/x'\n[[baseline]]\nname = 'raw'\nmodel = './here'\n");
    let plan = open(&text).1;
    assert_eq!(names(&plan), ["base+../adapters/x", "raw"]);
    assert_eq!(config(&plan, 0)["models"][0]["model"], "o/base+../adapters/x");
    assert_eq!(plan.trials[0].kind(), "model");
    assert!(matches!(&plan.trials[1].subject, Subject::Checkpoint(model) if model.to_string() == "./here"));
}

#[test]
fn a_baseline_may_be_a_name_alone() {
    let text = HEAD.replace("[models]", "baseline = ['math', {name = 'C', model = 'code'}]\n[models]");
    assert_eq!(names(&open(&text).1), ["math", "C"]);
}

#[test]
fn the_same_trial_under_two_names_is_warned_of() {
    let text = format!("{HEAD}[[baseline]]\nname = 'A'\nmodel = 'math'\n[[baseline]]\nname = 'B'\nmodel = 'o/math'\n");
    let (_, plan) = open(&text);
    assert_eq!(plan.trials.len(), 2);
    assert!(plan.warnings.to_string().contains("`B` is the same trial as `A`"), "{}", plan.warnings);
}

#[test]
fn an_axis_that_is_shadowed_is_refused() {
    let text = format!(
        "{HEAD}[[merge]]\nname = '{{density}}'\nmethod = 'ties'\nbase_model = 'base'\nmodels = {{math = {{weight = 1, density = 0.5}}}}\ngrid.density = [0.1, 0.2]\n"
    );
    let message = try_open(&text).unwrap_err().to_string();
    assert!(
        message.contains("`0.1` and `0.2` would be the same merge: `density` sets nothing that makes a difference"),
        "{message}"
    );
    let dead = text
        .replace("grid.density", "grid.base.density")
        .replace("{density}", "{base.density}")
        .replace("'base'\nmodels = {", "'base'\nmodels = {base = {}, ");
    assert!(try_open(&dead).unwrap_err().to_string().contains("`base.density` sets nothing that makes a difference"));
}

#[test]
fn evaluation_settings_are_read() {
    let text = r#"
name = "e"
[models]
m = { path = "o/m", revision = "v1", adapter = "a/b" }
[evaluate]
tasks = ["arc", { task = "gsm", limit = 3, num_fewshot = 2, columns = { strict = "exact_match,strict-match", plain = "acc" } }, { task = "x", batch_size = 2, model_args = { dtype = "bfloat16" }, gen_kwargs = { max_gen_toks = 9 }, columns = ["acc", "em,f"] }]
model = "vllm"
model_args = { dtype = "float16", tp = 2 }
batch_size = "auto:4"
device = "cuda:1"
limit = 10
seeds = 7
include_path = "tasks"
num_fewshot = 1
gen_kwargs = { temperature = 0.0 }
apply_chat_template = "tool"
system_instruction = "be brief"
python = "venv/bin/python"
environment = { HF_HUB_OFFLINE = 1 }
allow_code_eval = true
[limits]
trials = 5
evaluation_timeout = "1h30m"
keep = "all"
[[baseline]]
name = "M"
model = "m"
"#;
    let (sweep, _) = open(text);
    let settings = &sweep.evaluate;
    assert_eq!(sweep.models[0].1.to_string(), "o/m@v1+a/b");
    assert_eq!(settings.tasks[1].columns[0].filter, "strict-match");
    assert_eq!(settings.tasks[1].columns[1].filter, "none");
    assert_eq!(
        settings.tasks[2].columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(),
        ["x_acc", "x_em_f"]
    );
    let own = settings.of(&settings.tasks[2]);
    assert_eq!(own.batch_size, Scalar::Int(2));
    assert_eq!(
        (own.model_args["dtype"].to_string(), own.model_args["tp"].to_string()),
        ("bfloat16".into(), "2".into())
    );
    assert_eq!((own.gen_kwargs.len(), own.num_fewshot), (2, Some(1)));
    assert_eq!(settings.seeds, [7; 4]);
    assert_eq!(settings.chat_template, ChatTemplate::Named("tool".to_owned()));
    assert_eq!(settings.environment["HF_HUB_OFFLINE"], "1");
    assert_eq!(settings.timeout.map(|time| time.as_secs()), Some(5400));
    assert_eq!(sweep.limits.evaluation_timeout, settings.timeout);
    assert!(settings.python.ends_with("venv/bin/python") && settings.python.starts_with(&sweep.root));
    let (sweep, _) = open(&format!("{HEAD}[[baseline]]\nmodel = 'math'\n"));
    assert_eq!(sweep.evaluate.python, Path::new("python3"));
    assert_eq!(sweep.evaluate.seeds, [0, 1234, 1234, 1234]);
}

proptest::proptest! {
    /// Every range either has both its ends or says why not.
    #[test]
    fn ranges_have_both_ends(from in -1000_i64..1000, steps in 0_i64..200, step in 1_i64..500, scale in 0_u32..6) {
        use mergesweep::spec::decimal::range;
        let number = |mantissa: i64| {
            let text = format!("{mantissa}e-{scale}");
            Scalar::Float(text.parse().unwrap())
        };
        let to = from + steps * step;
        let values = range(&number(from), &number(to), &number(step)).unwrap();
        let expected: Vec<_> = (0..=steps).map(|index| number(from + index * step)).collect();
        proptest::prop_assert_eq!(values, expected);
    }

    #[test]
    fn no_range_panics(from in proptest::num::f64::ANY, to in proptest::num::f64::ANY, step in proptest::num::f64::ANY, a: i64, b: i64, c: i64) {
        use mergesweep::spec::decimal::range;
        let _ = range(&Scalar::Float(from), &Scalar::Float(to), &Scalar::Float(step));
        let _ = range(&Scalar::Int(a), &Scalar::Int(b), &Scalar::Int(c));
        let _ = range(&Scalar::Int(a), &Scalar::Int(b), &Scalar::Int(-1));
        let _ = range(&Scalar::Int(0), &Scalar::Int(i64::MIN), &Scalar::Int(-1));
    }
}

#[test]
fn identities_follow_the_subject_and_not_its_name() {
    let id = |lines: &str| merge(lines).trials[0].id.clone();
    let with = |name: &str, seed: u64, method: &str| {
        id(&format!(
            "name = '{name}'\nmethod = '{method}'\nbase_model = 'base'\nmodels = {{math = {{weight = 1}}}}\nseed = {seed}"
        ))
    };
    assert_eq!(with("a", 1, "dare_ties"), with("b", 1, "dare_ties"));
    assert_ne!(with("a", 1, "dare_ties"), with("a", 2, "dare_ties"));
    assert_eq!(with("a", 1, "ties"), with("a", 2, "ties"));
    assert_eq!(with("a", 1, "ties").0.len(), 16);
}
