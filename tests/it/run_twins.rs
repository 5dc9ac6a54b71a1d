//! Trials that are one merge, in a run: what is made, evaluated, shared and told.

use crate::sweep_support::{Sweep, count, text};

const SPEC: &str = r#"
name = "tiny"

[models]
base = "INPUTS/base"
math = "INPUTS/math"
code = "INPUTS/code"

[evaluate]
tasks = ["facts", "sums"]
model = "dummy"
batch_size = 4

[[merge]]
name = "Arithmetic"
method = "task_arithmetic"
base_model = "base"
models = { math = { weight = 0.3 }, code = { weight = 0.7 } }
dtype = "float64"

[[merge]]
name = "Dare"
method = "dare_linear"
base_model = "base"
models = { math = { weight = 0.3 }, code = { weight = 0.7 } }
dtype = "float64"

[[merge]]
name = "Linear"
method = "linear"
models = { math = { weight = 0.3 }, code = { weight = 0.7 } }
dtype = "float64"
"#;

fn events(sweep: &Sweep, event: &str) -> usize {
    count(&sweep.journal(), &format!("\"event\":\"{event}\""))
}

#[test]
fn exact_twins_are_merged_and_evaluated_once_and_rounding_twins_measure_the_noise() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let first = sweep.run(&["run", "sweep.toml"], "ok");
    let (stdout, stderr) = (text(&first.stdout), text(&first.stderr));
    assert_eq!(first.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("warning: Arithmetic, Dare: one merge, equal byte for byte"), "{stderr}");
    assert_eq!(events(&sweep, "merged"), 2);
    assert_eq!(events(&sweep, "merge-shared"), 1);
    assert_eq!(events(&sweep, "evaluated"), 2);
    for row in ["| Arithmetic ", "| Dare ", "| Linear "] {
        assert!(stdout.contains(row), "{stdout}");
    }
    assert!(stdout.contains("Dare: one merge with Arithmetic, made and evaluated once"), "{stdout}");
    let noise = "noise floor: Arithmetic, Dare, Linear are one merge but for rounding; their scores are apart by";
    assert!(stdout.contains(noise), "{stdout}");

    let before = sweep.journal();
    let second = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    assert_eq!((sweep.journal(), text(&second.stdout)), (before, stdout));

    // The merge that was not made is made on demand, and is what was evaluated.
    let made = sweep.run(&["materialize", "sweep.toml", "Dare", "dare"], "ok");
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert!(text(&made.stderr).contains("the same that were evaluated"), "{}", text(&made.stderr));
}

#[test]
fn rounding_twins_are_evaluated_once_where_the_spec_says_so_and_again_where_it_no_longer_does() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    sweep.write(&format!("twins = \"share\"\n{SPEC}"));
    let shared = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(shared.status.code(), Some(0), "{}", text(&shared.stderr));
    assert_eq!((events(&sweep, "merged"), events(&sweep, "merge-shared"), events(&sweep, "evaluated")), (1, 2, 1));
    assert!(!text(&shared.stdout).contains("noise floor"), "{}", text(&shared.stdout));

    // Which of them are selected does not matter: what a twin stood for stays.
    for one in ["Linear", "Dare", "Arithmetic"] {
        let before = sweep.journal();
        let alone = sweep.run(&["run", "sweep.toml", "--only", one], "killed");
        assert_eq!(alone.status.code(), Some(0), "{one}: {}", text(&alone.stderr));
        assert_eq!(sweep.journal(), before, "{one}");
    }

    sweep.write(SPEC);
    let why = text(&sweep.run(&["status", "sweep.toml", "--why", "Linear"], "ok").stdout);
    assert!(why.contains("`input twin` changed from Arithmetic to nothing"), "{why}");
    let separate = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(separate.status.code(), Some(0), "{}", text(&separate.stderr));
    assert_eq!((events(&sweep, "merged"), events(&sweep, "evaluated")), (2, 2));
}

#[test]
fn a_trial_fails_with_its_twin_and_is_done_with_it_later() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let failed = sweep.run(&["run", "sweep.toml"], "killed");
    assert_eq!(failed.status.code(), Some(3));
    let stderr = text(&failed.stderr);
    assert!(stderr.contains("failed: Dare: evaluate: its twin `Arithmetic` failed"), "{stderr}");
    let done = sweep.run(&["run", "sweep.toml"], "ok");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!((events(&sweep, "merged"), events(&sweep, "evaluated")), (2, 2));

    // One of the twins alone is a trial like any other.
    let redo = sweep.run(&["run", "sweep.toml", "--redo", "Dare"], "ok");
    assert_eq!(redo.status.code(), Some(0), "{}", text(&redo.stderr));
    assert_eq!((events(&sweep, "merged"), events(&sweep, "evaluated")), (3, 3));
}

#[test]
fn twins_that_are_done_again_together_have_the_new_scores() {
    let Some(sweep) = Sweep::of(SPEC) else { return };
    let of = |wrong: &str, args: &[&str]| {
        let mut command = sweep.command(args, "ok");
        let run = command.env("FAKE_LM_EVAL_WRONG", wrong).output().unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        let table = text(&run.stdout);
        let row = |name: &str| {
            let row = table.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
            row.split('|').skip(2).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        (row("Arithmetic"), row("Dare"))
    };
    sweep.write(&SPEC.replace("\"dummy\"", "\"hf\""));
    let (first, twin) = of("10", &["run", "sweep.toml"]);
    assert_eq!(first, twin);
    let (again, twin) = of("20", &["run", "sweep.toml", "--redo", "Arithmetic", "--redo", "Dare"]);
    assert_ne!(first, again, "the harness answers otherwise now");
    assert_eq!(again, twin);
}

#[test]
fn scores_that_were_taken_over_rest_on_the_answers_of_the_twin() {
    let Some(sweep) = Sweep::of(&SPEC.replace("\"dummy\"", "\"hf\"")) else { return };
    let run = |args: &[&str], wrong: &str| {
        let output = sweep.command(args, "ok").env("FAKE_LM_EVAL_WRONG", wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    run(&["run", "sweep.toml"], "20");
    // Each of the twins has answers of its own now, under one key.
    run(&["run", "sweep.toml", "--redo", "Dare"], "20");
    run(&["run", "sweep.toml", "--redo", "Arithmetic", "--redo", "Dare"], "70");
    let compared = run(&["compare", "sweep.toml:Dare", "Linear", "--json"], "70");
    let twin = run(&["compare", "sweep.toml:Arithmetic", "Linear", "--json"], "70");
    assert_eq!(compared.replace("Dare", "Arithmetic"), twin);
    assert!(twin.contains("-0.5"), "{twin}");
}
