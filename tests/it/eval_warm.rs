//! The harness process that stays: what it shares with the command (everything that counts), what its failures lead to, and
//! that nothing of one evaluation is left in the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mergesweep::config::Scalar;
use mergesweep::eval::command::{Call, KnownTasks};
use mergesweep::eval::failure::{Cause, EvalFailure};
use mergesweep::eval::harness::{Evaluated, HarnessEvent, Request, evaluate};
use mergesweep::eval::sandbox::Visible;
use mergesweep::eval::warm::Warm;
use mergesweep::eval::{ChatTemplate, Settings};
use mergesweep::process::{Cancel, Exit, ProcessError};
use serde_json::Value;

use crate::eval_harness::assert_ended;
use crate::support::{fake_settings, fixture, plain_python, require_model, require_python, settings};

/// Evaluations in one folder and one runtime, which the process that stays belongs to.
struct Bench {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    model: PathBuf,
}

impl Bench {
    fn new(model: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), runtime, model: model.to_owned() }
    }

    fn attempt(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(
        &self,
        name: &str,
        settings: &Settings,
        warm: Option<&mut Warm>,
    ) -> (Result<Evaluated, EvalFailure>, Vec<HarnessEvent>) {
        let call = Call { tasks: settings.tasks.clone(), runs_code: false };
        let known = KnownTasks::new();
        let mut events = Vec::new();
        let request = Request {
            settings,
            call: &call,
            known: &known,
            model: &self.model,
            attempt: &self.attempt(name),
            home: &self.attempt("home"),
            cache: &self.attempt("cache"),
            answers: &self.attempt(&format!("answers-{name}")),
            visible: &Visible::default(),
            n_threads: Some(1),
        };
        let result = self.runtime.block_on(evaluate(&request, warm, &mut |event| events.push(event), &Cancel::never()));
        (result, events)
    }

    fn accepted(&self, name: &str, settings: &Settings, warm: Option<&mut Warm>) -> Evaluated {
        let (result, _) = self.run(name, settings, warm);
        result.unwrap_or_else(|failure| panic!("{name}: {failure}\n{}", failure.tail.join("\n")))
    }

    /// The process that made an attempt.
    fn process(&self, name: &str) -> u64 {
        let text = fs::read(self.attempt(name).join("process.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["pid"].as_u64().unwrap()
    }
}

fn block_on<T>(bench: &Bench, act: impl FnOnce() -> T) -> T {
    let _inside = bench.runtime.enter();
    act()
}

#[test]
fn one_process_makes_many_calls_each_as_the_command_would() {
    let Some(python) = plain_python() else { return };
    let bench = Bench::new(Path::new("/models/none"));
    let (mut warm, settings) = (Warm::default(), fake_settings(&python, &["facts", "sums"], "ok"));
    let (by_command, told_by_command) = bench.run("command", &settings, None);
    for name in ["first", "second"] {
        let (evaluated, told) = bench.run(name, &settings, Some(&mut warm));
        let evaluated = evaluated.unwrap();
        assert_eq!(evaluated.scores, by_command.as_ref().unwrap().scores);
        assert_eq!(evaluated.facts, by_command.as_ref().unwrap().facts);
        assert_eq!(told, told_by_command);
        for log in ["stdout.log", "stderr.log"] {
            let read = |name: &str| fs::read_to_string(bench.attempt(name).join(log)).unwrap();
            assert_eq!(read(name).replace(name, "command"), read("command"), "{log}");
        }
    }
    assert_eq!(bench.process("first"), bench.process("second"));
    assert_ne!(bench.process("first"), bench.process("command"));

    // Another environment needs another process.
    let mut other = settings.clone();
    other.environment.insert("OTHER".to_owned(), "1".to_owned());
    bench.accepted("third", &other, Some(&mut warm));
    assert_ne!(bench.process("first"), bench.process("third"));
    assert_ended(&bench.process("first").to_string());
    block_on(&bench, || drop(warm));
    assert_ended(&bench.process("third").to_string());
}

#[test]
fn a_process_that_dies_babbles_or_fails_is_replaced() {
    let Some(python) = plain_python() else { return };
    let bench = Bench::new(Path::new("/models/none"));
    let mut warm = Warm::default();
    let fake = |outcome| fake_settings(&python, &["facts"], outcome);
    let (died, _) = bench.run("died", &fake("warm-killed"), Some(&mut warm));
    assert!(matches!(died.unwrap_err().cause, Cause::Killed(Exit::Signal(9))));
    let (babbled, _) = bench.run("babbled", &fake("warm-babbles"), Some(&mut warm));
    let babbled = babbled.unwrap_err();
    assert!(
        matches!(&babbled.cause, Cause::Process(ProcessError::Answer { line, .. }) if line == "no answer"),
        "{babbled}"
    );
    // A failure of the harness is told by the same words as the command's.
    let (failed, _) = bench.run("failed", &fake("stream:vllm-missing:1"), Some(&mut warm));
    let failed = failed.unwrap_err();
    assert_eq!(failed.cause.to_string(), "the Python package `vllm` is not installed beside the harness");
    for name in ["died", "babbled", "failed"] {
        assert_ended(&bench.process(name).to_string());
    }
    bench.accepted("good", &fake("ok"), Some(&mut warm));
    block_on(&bench, || drop(warm));
}

#[test]
fn a_time_limit_ends_the_process_with_its_children() {
    let Some(python) = plain_python() else { return };
    let bench = Bench::new(Path::new("/models/none"));
    let mut warm = Warm::default();
    let mut settings = fake_settings(&python, &["facts"], "hang");
    settings.timeout = Some(Duration::from_secs(4));
    let (result, _) = bench.run("hung", &settings, Some(&mut warm));
    let failure = result.unwrap_err();
    assert!(matches!(failure.cause, Cause::TimedOut(limit) if limit.as_secs() == 4), "{failure:?}");
    let child = failure.tail.iter().find_map(|line| line.strip_prefix("child ")).expect("the child is told of");
    assert_ended(child);
    assert_ended(&bench.process("hung").to_string());
}

/// A sweep over the parity fixtures' checkpoints with the stand-in as back end `hf`.
fn sweep(python: &Path, outcome: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let inputs = fixture("mergekit-parity/inputs");
    let spec = format!(
        "name = \"warm\"\n[models]\nbase = \"{0}/base\"\nmath = \"{0}/math\"\ncode = \"{0}/code\"\n[evaluate]\ntasks = [\"facts\"]\n\
         device = \"cpu\"\n[[baseline]]\nname = \"Base\"\nmodel = \"base\"\n[[baseline]]\nname = \"Math\"\nmodel = \"math\"\n\
         [[baseline]]\nname = \"Code\"\nmodel = \"code\"\n",
        inputs.display()
    );
    fs::write(folder.path().join("sweep.toml"), spec).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    command
        .args(["run", "sweep.toml"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .env("MERGESWEEP_PYTHON", python)
        .env("PYTHONPATH", std::env::join_paths([fixture("fake_lm_eval"), fixture("fake_packages")]).unwrap())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("FAKE_LM_EVAL", outcome);
    (folder, command)
}

#[test]
fn a_run_falls_back_to_the_command_and_says_so() {
    let Some(python) = plain_python() else { return };
    let (folder, mut command) = sweep(&python, "warm-killed");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("the harness was killed by SIGKILL (signal 9); again in a fresh process"), "{stderr}");
    let journal = fs::read_to_string(folder.path().join("results/warm/journal.jsonl")).unwrap();
    let count = |part: &str| journal.matches(part).count();
    assert_eq!(count(r#""event":"evaluated""#), 3, "{journal}");
    // After two failures in a row it is not tried a third time.
    assert_eq!((count(r#""event":"evaluation-retried""#), count(r#""warm":true"#)), (2, 2), "{journal}");

    let status = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
        let output = command.args(["status", "sweep.toml"]).args(args).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let timeline: Value = serde_json::from_str(&status(&["--timeline", "--json"])).unwrap();
    assert_eq!(
        timeline["spans"].as_array().unwrap().len(),
        5,
        "three evaluations, two of them tried twice: {timeline:#}"
    );
    let shown = status(&["--timeline"]);
    assert!(shown.contains("slot 0   ") && shown.contains("  Base\n") && shown.contains("orchestrator: "), "{shown}");

    // So is one that ends well with results that are refused.
    let (folder, mut command) = sweep(&python, "warm-silent");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    let journal = fs::read_to_string(folder.path().join("results/warm/journal.jsonl")).unwrap();
    let count = |part: &str| journal.matches(part).count();
    assert_eq!((count(r#""event":"evaluation-retried""#), count(r#""warm":true"#)), (2, 2), "{journal}");

    let (folder, mut command) = sweep(&python, "warm-killed");
    let spec = fs::read_to_string(folder.path().join("sweep.toml")).unwrap();
    let spec = spec.replace("device = \"cpu\"", "device = \"cpu\"\nharness.mode = \"command\"");
    fs::write(folder.path().join("sweep.toml"), spec).unwrap();
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    let journal = fs::read_to_string(folder.path().join("results/warm/journal.jsonl")).unwrap();
    assert!(!journal.contains("retried") && !journal.contains(r#""warm":true"#), "{journal}");
}

#[test]
fn the_process_of_a_killed_run_ends_itself_and_its_children() {
    let Some(python) = plain_python() else { return };
    let (folder, mut command) = sweep(&python, "hang");
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = None;
    for _ in 0..1200 {
        let trials = fs::read_dir(folder.path().join("results/warm/trials")).into_iter().flatten().flatten();
        let logs = trials.filter_map(|trial| fs::read_to_string(trial.path().join("evaluations/1/stderr.log")).ok());
        child = logs.collect::<String>().lines().find_map(|line| Some(line.strip_prefix("child ")?.to_owned()));
        if child.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert_ended(&child.expect("the harness has started"));
}

/// Own tasks: a choice with examples drawn at random, a sampled answer, and the loss of a text.
fn own_tasks(folder: &Path) {
    let rows: String = (0..8)
        .map(|n| {
            format!("{{\"q\": \"Is {n} even?\", \"c\": [\"yes\", \"no\"], \"l\": {}, \"a\": \"It is {n}.\"}}\n", n % 2)
        })
        .collect();
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("rows.jsonl"), rows).unwrap();
    let rows = folder.join("rows.jsonl");
    let head = format!(
        "dataset_path: json\ndataset_kwargs: {{data_files: {{test: {0}, train: {0}}}}}\ntest_split: test\n\
         fewshot_split: train\nmetadata: {{version: 1.0}}\n",
        rows.display()
    );
    let tasks = [
        (
            "choice",
            "output_type: multiple_choice\ndoc_to_text: \"{{q}}\"\ndoc_to_choice: c\ndoc_to_target: l\nnum_fewshot: 2\n",
        ),
        (
            "said",
            "output_type: generate_until\ndoc_to_text: \"{{q}}\"\ndoc_to_target: a\nnum_fewshot: 2\n\
             generation_kwargs: {until: [\"\\n\"], max_gen_toks: 8, do_sample: true, temperature: 1.0}\n\
             metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
        ),
        (
            "text",
            "output_type: loglikelihood_rolling\ndoc_to_text: \"\"\ndoc_to_target: a\nnum_fewshot: 0\n\
             metric_list: [{metric: bits_per_byte}]\n",
        ),
    ];
    for (name, body) in tasks {
        fs::write(folder.join(format!("{name}.yaml")), format!("task: {name}\n{head}{body}")).unwrap();
    }
}

/// A results file without what differs between any two runs: paths of the call, and times.
fn comparable(evaluated: &Evaluated) -> Value {
    let mut results: Value = serde_json::from_slice(&fs::read(&evaluated.results).unwrap()).unwrap();
    for (part, key) in [("", "date"), ("", "total_evaluation_time_seconds"), ("/config", "use_cache")] {
        results.pointer_mut(part).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    }
    results
}

/// Samples by task, to the byte.
fn samples(evaluated: &Evaluated) -> Vec<String> {
    evaluated.samples.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn the_real_harness_gives_the_same_answers_after_other_models_and_lets_each_go() {
    let (Some(python), Some(model)) = (require_python(), require_model()) else { return };
    let bench = Bench::new(&model);
    let mut asked = settings(&python, &["choice", "said", "text"]);
    own_tasks(&bench.attempt("tasks"));
    asked.include_path = Some(bench.attempt("tasks"));
    asked.model = "hf".to_owned();
    asked.model_args = [("dtype".to_owned(), Scalar::Text("float32".to_owned()))].into();
    asked.device = Some("cpu".to_owned());
    asked.limit = Some(4);
    asked.environment = [("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let mut other = asked.clone();
    other.chat_template = ChatTemplate::On;
    other.batch_size = Scalar::Int(3);
    other.seeds = [7; 4];

    let mut warm = Warm::default();
    let by_command = bench.accepted("command", &asked, None);
    let memory = |name: &str| {
        let status = fs::read_to_string(format!("/proc/{}/status", bench.process(name))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    };
    let mut mib = Vec::new();
    for (name, settings) in
        [("first", &asked), ("other", &other), ("third", &asked), ("fourth", &other), ("fifth", &asked)]
    {
        let evaluated = bench.accepted(name, settings, Some(&mut warm));
        assert_eq!(bench.process(name), bench.process("first"), "one process");
        mib.push(memory(name));
        if settings == &asked {
            assert_eq!(samples(&evaluated), samples(&by_command), "{name}");
            assert_eq!(comparable(&evaluated), comparable(&by_command), "{name}");
            assert_eq!(evaluated.facts.device, by_command.facts.device);
            assert!(evaluated.scores.iter().all(|score| score.task_hash.is_some()));
        } else {
            assert_ne!(samples(&evaluated), samples(&by_command), "the other settings matter");
        }
    }
    // The model has 513 MiB in 32 bits: one that stayed would show.
    assert!(mib[4] < mib[1] + 128, "memory of the process after each model, MiB: {mib:?}");

    // A task that changes is seen.
    let file = bench.attempt("tasks").join("choice.yaml");
    let text = fs::read_to_string(&file).unwrap().replace("{{q}}", "Say: {{q}}");
    fs::write(&file, text).unwrap();
    let changed = bench.accepted("changed", &asked, Some(&mut warm));
    let hash = |evaluated: &Evaluated, task: &str| {
        evaluated.scores.iter().find(|score| score.task == task).and_then(|score| score.task_hash.clone())
    };
    assert_ne!(hash(&changed, "choice"), hash(&by_command, "choice"));
    assert_eq!(hash(&changed, "text"), hash(&by_command, "text"));
    block_on(&bench, || drop(warm));
}
