//! Valid specs with one slip each: every one is refused at the line of the slip, with something to go by, and drawn as in
//! the snapshot.

use std::path::Path;

use mergesweep::document::draw::{self, Style};
use mergesweep::document::{Problem, Severity};
use mergesweep::plan;

const TOML: &str = r#"name = "mutated"

[models]
base = "o/base"
math = "o/math"
code = "./models/code"

[evaluate]
tasks = ["facts", { task = "tinyArc", num_fewshot = 0 }]
model_args = { dtype = "float16" }
batch_size = 8
seeds = 1

[limits]
evaluation_timeout = "6h"
keep = "best:3"
trials = 100

[resources]
disk = "200GB"
gpus = [0, 1]

[[baseline]]
name = "Base"
model = "base"

[[merge]]
name = "SLERP (t={t})"
method = "slerp"
base_model = "math"
models = ["math", "code"]
dtype = "float16"
grid.t = { from = 0.25, to = 0.75, step = 0.25 }

[[merge]]
name = "DARE-TIES (density={density}, seed={seed})"
method = "dare_ties"
base_model = "base"
models = { math = { weight = 0.7 }, code = { weight = 0.6 } }
parameters = { normalize = true }
grid = { density = [0.2, 0.5], seed = [1, 2] }
exclude = [{ density = 0.5, seed = 2 }]

[[merge]]
name = "DELLA"
method = "della"
base_model = "base"
models = { math = { weight = 0.9, density = 0.5, epsilon = 0.1 }, code = { weight = 0.8 , density = 0.4 } }
seed = 3
"#;

const YAML: &str = "\
name: mutated
models:
  base: o/base
  math: o/math
evaluate:
  tasks: [facts]
  batch_size: 8
  limit: 10
  apply_chat_template: true
merge:
  - name: TIES
    method: ties
    base_model: base
    models:
      math: { weight: 0.7, density: 0.5 }
    parameters: { normalize: true }
    seed: 1
";

/// What is replaced by what.
type Slip = (&'static str, &'static str, &'static str);

const TOML_SLIPS: &[Slip] = &[
    ("misspelt table", "[limits]", "[limts]"),
    ("misspelt key", "batch_size", "batchsize"),
    ("misspelt required key", "tasks =", "taks ="),
    ("misspelt method key", "method = \"slerp\"", "methd = \"slerp\""),
    ("mergekit's word for the method", "method = \"slerp\"", "merge_method = \"slerp\""),
    ("misspelt method", "\"slerp\"", "\"sleerp\""),
    ("method as a number", "method = \"della\"", "method = 3"),
    ("undeclared model", "base_model = \"math\"", "base_model = \"maths\""),
    ("undeclared baseline", "model = \"base\"", "model = \"bsae\""),
    ("swapped base", "base_model = \"math\"", "base_model = \"base\""),
    ("misspelt parameter", "{ weight = 0.7 }", "{ weigth = 0.7 }"),
    ("missing weight", "math = { weight = 0.7 }", "math = {}"),
    ("nested parameters", "{ weight = 0.7 }", "{ parameters = { weight = 0.7 } }"),
    ("parameter on the wrong level", "seed = 3", "weight = 0.5"),
    ("parameter of another method", "{ normalize = true }", "{ normalize = true, t = 0.5 }"),
    ("switch as a text", "normalize = true", "normalize = \"maybe\""),
    ("negative density", "density = 0.4", "density = -0.4"),
    ("negative density on an axis", "[0.2, 0.5]", "[-0.2, 0.5]"),
    ("density as a percentage text", "density = 0.4", "density = \"40%\""),
    ("infinite weight", "weight = 0.8", "weight = inf"),
    ("epsilon beyond the density", "epsilon = 0.1", "epsilon = 0.6"),
    ("time without a known unit", "\"6h\"", "\"6 hours\""),
    ("fraction of a time", "\"6h\"", "6.5"),
    ("time that is not over", "\"6h\"", "\"1h30\""),
    ("size without a known unit", "\"200GB\"", "\"200 gigs\""),
    ("size in bits", "\"200GB\"", "\"200Gb\""),
    ("what to keep without a number", "\"best:3\"", "\"best\""),
    ("nothing as the best", "\"best:3\"", "\"best:0\""),
    ("no trials", "trials = 100", "trials = 0"),
    ("too few trials", "trials = 100", "trials = 2"),
    ("number in quotes", "batch_size = 8", "batch_size = \"8\""),
    ("negative number", "batch_size = 8", "batch_size = -8"),
    ("number of seeds", "seeds = 1", "seeds = [1, 2]"),
    ("list as an argument", "\"float16\" }", "[\"float16\"] }"),
    ("setting of the program", "{ dtype = \"float16\" }", "{ pretrained = \"x\" }"),
    ("task twice", "\"facts\",", "\"facts\", \"facts\","),
    ("no tasks", "[\"facts\", { task = \"tinyArc\", num_fewshot = 0 }]", "[]"),
    ("tasks as a text", "[\"facts\", { task = \"tinyArc\", num_fewshot = 0 }]", "\"facts\""),
    ("pattern of tasks", "\"facts\"", "\"mmlu_*\""),
    ("limit on a tiny task", "num_fewshot = 0", "limit = 10"),
    ("server as a back end", "seeds = 1", "model = \"local-completions\""),
    ("word for a switch", "seeds = 1", "allow_code_eval = \"yes\""),
    ("system message without a template", "seeds = 1", "system_instruction = \"Be brief.\""),
    ("folder of tasks that is none", "seeds = 1", "include_path = \"no-such-folder\""),
    ("key that belongs elsewhere", "seeds = 1", "timeout = \"6h\""),
    ("duplicate name", "name = \"DELLA\"", "name = \"Base\""),
    ("axis missing in the name", "density={density}, seed={seed}", "density={density}"),
    ("unknown placeholder", "{t})", "{tt})"),
    ("lone brace", "{t})", "t})"),
    ("step that misses the end", "step = 0.25", "step = 0.3"),
    ("range the wrong way", "from = 0.25, to = 0.75", "from = 0.75, to = 0.25"),
    ("range without an end", "to = 0.75, ", ""),
    ("empty axis", "[0.2, 0.5]", "[]"),
    ("value twice", "[0.2, 0.5]", "[0.2, 0.2]"),
    ("axis that is not read", "grid.t = ", "grid.density = [0.1, 0.2]\ngrid.t = "),
    ("seed of a method without chance", "grid.t = ", "grid.seed = [1, 2]\ngrid.t = "),
    ("axis of an unknown model", "grid.t = ", "grid.cod.weight = [1, 2]\ngrid.t = "),
    ("unknown axis excluded", "{ density = 0.5, seed = 2 }", "{ densty = 0.5, seed = 2 }"),
    ("negative sample", "seed = 3", "sample = { n = -1 }"),
    ("negative seed", "seed = 3", "seed = -3"),
    ("short name of a format", "dtype = \"float16\"\ngrid", "dtype = \"fp16\"\ngrid"),
    ("text without quotes", "name = \"DELLA\"", "name = DELLA"),
    ("key twice", "seeds = 1", "seeds = 1\nbatch_size = 4"),
    ("octal with a leading zero", "trials = 100", "trials = 0100"),
    ("two adapters", "\"o/math\"", "\"o/math+a+b\""),
    ("short name like a reference", "code = \"./models/code\"", "\"o/code\" = \"./models/code\"\ncode = \"x/y\""),
    ("name of a folder", "\"mutated\"", "\"a/b\""),
];

const YAML_SLIPS: &[Slip] = &[
    ("no for false", "apply_chat_template: true", "apply_chat_template: no"),
    ("no as a method", "method: ties", "method: no"),
    ("on for true", "normalize: true", "normalize: on"),
    ("octal", "limit: 10", "limit: 010"),
    ("exponent where a whole number is due", "limit: 10", "limit: 1e-3"),
    ("underscores", "seed: 1", "seed: 1_000"),
    ("not a number", "density: 0.5", "density: .nan"),
    ("no space behind the colon", "    method: ties", "    method:ties"),
    ("tab", "  batch_size: 8", "\tbatch_size: 8"),
    ("key twice", "  batch_size: 8", "  batch_size: 8\n  batch_size: 9"),
    ("tag", "limit: 10", "limit: !int 10"),
    ("unknown anchor", "limit: 10", "limit: *limit"),
];

/// Everything that is said about a spec.
fn said(ending: &str, text: &str) -> Vec<Problem> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("spec.{ending}"));
    std::fs::write(&path, text).unwrap();
    match plan::open(&path) {
        Ok((_, plan)) => plan.warnings.0,
        Err(problems) => problems.0,
    }
}

fn mutated(whole: &str, (name, from, to): &Slip) -> (String, std::ops::RangeInclusive<usize>) {
    assert!(whole.contains(from), "{name}: `{from}` is not in the spec");
    let text = whole.replacen(from, to, 1);
    let first = whole[..whole.find(from).unwrap()].matches('\n').count() + 1;
    (text, first..=first + to.matches('\n').count())
}

/// The spec's path differs from run to run.
fn drawn(problems: &[Problem]) -> String {
    let draw = |problem: &Problem| {
        let text = draw::one(problem, Style::default());
        let folder = problem.span.source.path.parent().unwrap().display().to_string();
        text.replace(&format!("{folder}/"), "")
    };
    problems.iter().map(draw).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_specs_without_a_slip_are_sound() {
    for (ending, text) in [("toml", TOML), ("yml", YAML)] {
        assert_eq!(drawn(&said(ending, text)), "");
    }
}

#[test]
fn every_slip_is_refused_at_its_line_with_something_to_go_by() {
    let mut all = String::new();
    let mut wrong = Vec::new();
    for (ending, whole, slips) in [("toml", TOML, TOML_SLIPS), ("yml", YAML, YAML_SLIPS)] {
        for slip in slips {
            let (text, lines) = mutated(whole, slip);
            let problems = said(ending, &text);
            all += &format!("## {} ({ending})\n{}\n\n", slip.0, drawn(&problems));
            let is_helpful = |problem: &&Problem| {
                problem.severity == Severity::Error && (problem.hint.is_some() || problem.message.contains("expected"))
            };
            let at_line = |problem: &Problem| lines.contains(&problem.span.line_column().0);
            if !problems.iter().filter(is_helpful).any(at_line) {
                wrong.push(format!("{} ({ending}), lines {lines:?}:\n{}", slip.0, drawn(&problems)));
            }
        }
    }
    assert!(TOML_SLIPS.len() + YAML_SLIPS.len() >= 50);
    assert!(wrong.is_empty(), "{} slips are not told well:\n{}", wrong.len(), wrong.join("\n"));
    insta::assert_snapshot!("mutations", all);
}

#[test]
fn numbers_that_mergekit_computes_but_nobody_means_are_warned_of() {
    for (from, to, told) in [
        ("density = 0.4", "density = 1.5", "`density` is 1.5, expected 0 to 1: more than everything cannot be kept"),
        ("from = 0.25", "from = -0.25", "`t` is -0.25, expected 0 to 1: the result is extrapolated beyond the base"),
        ("to = 0.75", "to = 7.25", "`t` is 7.25, expected 0 to 1: the result is extrapolated beyond the other model"),
        ("epsilon = 0.1", "epsilon = -0.1", "`epsilon` is -0.1, expected from 0"),
    ] {
        let (text, lines) = mutated(TOML, &("", from, to));
        let problems = said("toml", &text);
        let found = problems.iter().find(|problem| problem.message.contains(told));
        let found = found.unwrap_or_else(|| panic!("{to}: {}", drawn(&problems)));
        assert_eq!((found.severity, found.code.id()), (Severity::Warning, "E0215"));
        assert!(lines.contains(&found.span.line_column().0));
        assert!(problems.iter().all(|problem| problem.severity == Severity::Warning), "{}", drawn(&problems));
    }
}

#[test]
fn a_file_for_another_command_is_told_what_it_is() {
    let sweeps = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps");
    let problems = plan::open(&sweeps.join("study/ties.yml")).unwrap_err();
    assert_eq!(problems.0.len(), 1);
    assert!(problems.0[0].message.starts_with("this is a mergekit config"));
    let problems = mergesweep::config::parse::file(&sweeps.join("quickstart.toml")).unwrap_err();
    assert_eq!(problems.0.len(), 1);
    assert!(problems.0[0].message.starts_with("this is a sweep spec"));
}
