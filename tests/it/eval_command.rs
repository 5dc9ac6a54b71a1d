//! The text that the harness is called with, to the letter.

use std::path::Path;

use mergesweep::config::Scalar;
use mergesweep::eval::command::{
    Call, KnownTask, KnownTasks, Paths, calls, config_text, environment, invocation, runs_code, scores_of,
};
use mergesweep::eval::sandbox::Visible;
use mergesweep::eval::{ChatTemplate, CodeEval, Score, Settings};
use mergesweep::run::fingerprint::evaluation_key;

use crate::support::{settings, task};

fn paths() -> Paths<'static> {
    Paths {
        model: Path::new("/models/a, b=\"c\""),
        config: Path::new("/run/lm_eval.yaml"),
        output: Path::new("/run/output/results.json"),
        home: Path::new("/run/home"),
        cache: Path::new("/run/cache"),
        own_cache: None,
        answers: Path::new("/run/answers/requests"),
    }
}

fn plain() -> Settings {
    settings(Path::new("/venv/bin/python"), &["facts", "sums"])
}

fn whole(settings: &Settings) -> Call {
    Call { tasks: settings.tasks.clone(), runs_code: false }
}

fn text(settings: &Settings, known: &KnownTasks) -> String {
    config_text(settings, &whole(settings), known, &paths())
}

fn line<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

#[test]
fn a_short_spec_writes_only_what_it_sets() {
    let mut settings = plain();
    settings.model = "hf".to_owned();
    let expected = r#"model: "hf"
model_args: {"pretrained": "/models/a, b=\"c\""}
tasks: ["facts", "sums"]
batch_size: 4
seed: [0, 1234, 1234, 1234]
use_cache: "/run/answers/requests"
log_samples: true
output_path: "/run/output/results.json"
"#;
    assert_eq!(text(&settings, &KnownTasks::new()), expected);
}

#[test]
fn a_full_spec_writes_everything_with_types_that_python_reads() {
    let mut settings = plain();
    settings.model = "hf".to_owned();
    settings.model_args = [
        ("dtype", Scalar::Text("float16".to_owned())),
        ("parallelize", Scalar::Bool(true)),
        ("max_length", Scalar::Int(2048)),
        ("fraction", Scalar::Float(1e-5)),
        ("whole", Scalar::Float(2.0)),
        ("word", Scalar::Text("1e-4 é 🦀\u{85}\n".to_owned())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    settings.batch_size = Scalar::Text("auto".to_owned());
    settings.device = Some("cuda:0".to_owned());
    settings.limit = Some(16);
    settings.num_fewshot = Some(2);
    settings.include_path = Some("/spec/tasks".into());
    settings.gen_kwargs = [("temperature".to_owned(), Scalar::Float(0.0))].into();
    settings.chat_template = ChatTemplate::On;
    settings.system_instruction = Some("Be brief.".to_owned());
    settings.allow_code_eval = CodeEval::Bare;
    let call = Call { runs_code: true, ..whole(&settings) };
    let expected = r#"model: "hf"
model_args: {"dtype": "float16", "fraction": 0.00001, "max_length": 2048, "parallelize": true, "pretrained": "/models/a, b=\"c\"", "whole": 2.0, "word": "1e-4 \u00E9 \U0001F980\u0085\n"}
tasks: ["facts", "sums"]
num_fewshot: 2
batch_size: "auto"
device: "cuda:0"
limit: 16
seed: [0, 1234, 1234, 1234]
gen_kwargs: {"temperature": 0.0}
apply_chat_template: true
system_instruction: "Be brief."
include_path: "/spec/tasks"
confirm_run_unsafe_code: true
use_cache: "/run/answers/requests"
log_samples: true
output_path: "/run/output/results.json"
"#;
    assert_eq!(config_text(&settings, &call, &KnownTasks::new(), &paths()), expected);
    settings.chat_template = ChatTemplate::Named("rag".to_owned());
    assert_eq!(line(&text(&settings, &KnownTasks::new()), "apply_chat_template"), Some("\"rag\""));
}

#[test]
fn limits_that_differ_name_the_documents_and_stop_at_the_last_one() {
    let mut settings = settings(Path::new("python"), &["facts", "sums", "pair", "all"]);
    settings.tasks[0].limit = Some(3);
    settings.tasks[1].limit = Some(50);
    settings.tasks[2].limit = Some(2);
    let known =
        |name: &str, n_documents| KnownTask { name: name.to_owned(), n_documents: Some(n_documents), runs_code: false };
    let known: KnownTasks = [
        ("facts", vec![known("facts", 12)]),
        ("sums", vec![known("sums", 20)]),
        ("pair", vec![known("left", 2), known("right", 5)]),
    ]
    .map(|(name, members)| (name.to_owned(), members))
    .into();
    let text = text(&settings, &known);
    assert_eq!(line(&text, "samples"), Some(r#"{"facts": [0, 1, 2], "right": [0, 1]}"#));
    assert_eq!(line(&text, "limit"), None);
}

#[test]
fn limits_that_agree_are_one_limit() {
    let mut settings = plain();
    settings.limit = Some(7);
    settings.tasks[1].limit = Some(7);
    assert_eq!(line(&text(&settings, &KnownTasks::new()), "limit"), Some("7"));
}

#[test]
fn code_tasks_and_other_few_shot_numbers_get_processes_of_their_own() {
    let mut settings = settings(Path::new("python"), &["humaneval", "facts", "sums", "more", "mbpp"]);
    settings.tasks[2].num_fewshot = Some(5);
    let known = KnownTasks::new();
    let calls = calls(&settings, &settings.tasks, &|task| runs_code(&known, task));
    let told: Vec<(Vec<&str>, Option<u64>, bool)> = calls
        .iter()
        .map(|call| {
            let names = call.tasks.iter().map(|task| task.name.as_str()).collect();
            (names, call.settings(&settings).num_fewshot, call.runs_code)
        })
        .collect();
    let expected =
        [(vec!["facts", "more"], None, false), (vec!["sums"], Some(5), false), (vec!["humaneval", "mbpp"], None, true)];
    assert_eq!(told, expected);
    assert_eq!(calls.iter().map(|call| call.tasks.len()).sum::<usize>(), settings.tasks.len());
    assert_eq!(calls.first().map(|call| call.tasks[0].clone()), Some(task("facts")));
}

#[test]
fn a_task_with_settings_of_its_own_gets_a_process_with_them_and_a_key_of_its_own() {
    let mut settings = settings(Path::new("python"), &["facts", "sums", "more", "last"]);
    settings.model_args.insert("dtype".to_owned(), Scalar::Text("float32".to_owned()));
    let key = |settings: &Settings, task: usize| evaluation_key("w", settings, &settings.tasks[task], "1", None);
    let before = (key(&settings, 0), key(&settings, 1));
    for task in [1, 3] {
        let task = &mut settings.tasks[task];
        task.batch_size = Some(Scalar::Int(16));
        task.model_args.insert("dtype".to_owned(), Scalar::Text("bfloat16".to_owned()));
        task.gen_kwargs.insert("max_gen_toks".to_owned(), Scalar::Int(128));
    }
    let calls = calls(&settings, &settings.tasks, &|_| false);
    let names = |call: &Call| call.tasks.iter().map(|task| task.name.clone()).collect::<Vec<_>>();
    assert_eq!(calls.iter().map(names).collect::<Vec<_>>(), [["facts", "more"], ["sums", "last"]]);
    let text = config_text(&calls[1].settings(&settings), &calls[1], &KnownTasks::new(), &paths());
    assert_eq!(line(&text, "batch_size"), Some("16"));
    assert_eq!(line(&text, "gen_kwargs"), Some(r#"{"max_gen_toks": 128}"#));
    assert!(line(&text, "model_args").unwrap().contains(r#""dtype": "bfloat16""#), "{text}");
    assert_eq!(key(&settings, 0), before.0);
    let reason = key(&settings, 1).stale_since(Some(&before.1)).unwrap().to_string();
    assert_eq!(reason, "`batch_size` changed from 4 to 16");
}

#[test]
fn code_runs_only_with_the_opt_in_and_a_code_task() {
    let mut settings = plain();
    let allowed = |settings: &Settings, runs_code| {
        let (set, without) = environment(settings, runs_code, Path::new("/cache"), None);
        (
            set.iter().any(|(name, _)| name == "HF_ALLOW_CODE_EVAL"),
            without.iter().any(|name| name == "HF_ALLOW_CODE_EVAL"),
        )
    };
    assert_eq!(allowed(&settings, true), (false, true));
    settings.allow_code_eval = CodeEval::Bare;
    assert_eq!(allowed(&settings, true), (true, false));
    assert_eq!(allowed(&settings, false), (false, true));
}

#[test]
fn the_call_is_one_config_file_and_the_variables_of_the_spec_come_last() {
    let mut settings = plain();
    settings.environment = [("LMEVAL_LOG_LEVEL".to_owned(), "DEBUG".to_owned())].into();
    let invocation = invocation(&settings, &whole(&settings), &paths(), &Visible::default(), Some(2));
    assert_eq!(invocation.program, Path::new("/venv/bin/python"));
    assert_eq!(invocation.args, ["-m", "lm_eval", "run", "--config", "/run/lm_eval.yaml"]);
    assert_eq!(invocation.folder.as_deref(), Some(Path::new("/run/home")));
    let environment: Vec<String> =
        invocation.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = [
        "LMEVAL_LOG_LEVEL=INFO",
        "LM_HARNESS_CACHE_PATH=/run/cache",
        "PYTHONHASHSEED=0",
        "PYTHONUNBUFFERED=1",
        "TOKENIZERS_PARALLELISM=false",
        "OMP_NUM_THREADS=2",
        "LMEVAL_LOG_LEVEL=DEBUG",
    ];
    assert_eq!(environment, expected);
}

#[test]
fn the_scores_of_a_group_are_its_own_and_those_of_its_members() {
    let score = |task: &str| Score {
        task: task.to_owned(),
        metric: "acc".to_owned(),
        filter: "none".to_owned(),
        n: None,
        n_total: None,
        value: Some(0.5),
        stderr: None,
        higher_is_better: None,
        task_version: None,
        num_fewshot: None,
        task_hash: None,
    };
    let member = KnownTask { name: "left".to_owned(), n_documents: None, runs_code: false };
    let known: KnownTasks = [("pair".to_owned(), vec![member])].into();
    let scores = ["left", "pair", "other"].map(score);
    assert_eq!(scores_of(&known, "pair", &scores), ["left", "pair"].map(score));
    assert_eq!(scores_of(&known, "other", &scores), [score("other")]);
}
