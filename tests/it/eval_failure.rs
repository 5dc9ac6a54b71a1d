//! Every captured failure of the harness, told in plain words.

use std::fs;

use mergesweep::eval::failure::cause_of;
use mergesweep::process::Exit;

use crate::support::fixture;

/// What is told of a captured stream that ended with a code.
fn told(stream: &str, code: i32) -> (String, bool) {
    let text = fs::read_to_string(fixture("lm-eval-output/streams").join(format!("{stream}.stderr"))).unwrap();
    let lines: Vec<String> =
        text.split(['\r', '\n']).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    let tail = &lines[lines.len().saturating_sub(60)..];
    let cause = cause_of(Exit::Code(code), tail).unwrap_or_else(|| panic!("{stream} is told as a success"));
    (cause.to_string(), cause.hint().is_some())
}

#[test]
fn each_captured_failure_is_recognised_and_has_a_remedy() {
    let expected = [
        ("unknown-task", 1, "the harness knows no task `nosuch`"),
        ("unknown-model", 1, "the harness knows no back end `nosuchmodel`"),
        ("vllm-missing", 1, "the Python package `vllm` is not installed beside the harness"),
        ("dataset-unreachable", 1, "data set `tinyBenchmarks/tinyMMLU` is neither in the cache nor reachable"),
        (
            "tinybenchmarks-package-missing",
            1,
            "the Python package `tinyBenchmarks` is not installed beside the harness",
        ),
        ("tiny-with-limit", 1, "a tinyBenchmarks task was run on part of its documents; its estimate needs all 100"),
        ("metric-unreachable", 1, "metric `code_eval` is neither in the cache nor reachable"),
        (
            "unsafe-not-confirmed",
            1,
            "task `humaneval_local` runs code that the model wrote, which this sweep does not allow",
        ),
        ("code-eval-not-allowed", 1, "the metric `code_eval` refuses to run code that the model wrote"),
        ("model-path-missing", 1, "`/nonexistent/model` cannot be loaded as a model"),
        ("unknown-model-arg", 1, "the back end takes no argument `nosuch`"),
        ("unknown-config-key", 1, "this release of the harness knows no setting `limitt`"),
        ("results-not-written-exit-0", 0, "the harness ended with exit code 0 and could not save its results"),
    ];
    for (stream, code, message) in expected {
        assert_eq!(told(stream, code), (message.to_owned(), true), "{stream}");
    }
    let (down, _) = told("http-down", 1);
    assert!(down.starts_with("the model server does not answer: ") && down.contains("Connection refused"), "{down}");
    let (error, _) = told("http-500", 1);
    assert!(error.starts_with("the model server answered with an error: ") && error.contains("500"), "{error}");
    let (flag, _) = told("unknown-flag", 2);
    assert_eq!(flag, "the harness ended with exit code 2: lm-eval: error: unrecognized arguments: --nosuchflag");
}

#[test]
fn failures_that_were_not_captured_are_recognised_by_their_line() {
    let expected = [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out of GPU memory"),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory",
            "out of memory",
        ),
        ("MemoryError", "out of memory"),
        (
            "ModuleNotFoundError: No module named 'torch'",
            "the Python package `torch` is not installed beside the harness",
        ),
        (
            "datasets.exceptions.DatasetNotFoundError: Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.",
            "data set `a/b` is neither in the cache nor reachable",
        ),
        (
            "OSError: /m does not appear to have a file named config.json. Checkout 'https://huggingface.co//m/tree/main' for available files.",
            "`/m` cannot be loaded as a model",
        ),
        (
            "OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory /m.",
            "`/m` cannot be loaded as a model",
        ),
        (
            "ValueError: Unrecognized model in /m. Should have a `model_type` key in its config.json.",
            "`/m` cannot be loaded as a model",
        ),
        (
            "OSError: Can't load tokenizer for '/m'. If you were trying to load it from",
            "`/m` cannot be loaded as a model",
        ),
        ("OSError: [Errno 28] No space left on device", "no space left on the disk"),
        (
            "/usr/bin/python3: No module named lm_eval",
            "the Python package `lm_eval` is not installed beside the harness",
        ),
        (
            "ModuleNotFoundError: No module named 'vllm.x'",
            "the Python package `vllm` is not installed beside the harness",
        ),
        (
            "FileNotFoundError: Unable to find '/home/user/data/facts.jsonl'",
            "data file `/home/user/data/facts.jsonl` of a task does not exist",
        ),
        (
            "AssertionError: Tokenizer is required for loglikelihood tasks to compute context lengths.",
            "log-likelihood tasks need a tokenizer, and the back end has none",
        ),
        (
            "AssertionError: Elements of --samples should be in the interval [0,k-1] where k is the number of total examples. In this case, k=6.",
            "a limit is larger than the 6 documents of its task",
        ),
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='raw.githubusercontent.com', port=443): Max retries exceeded with url: /felipemaiapolo/tinyBenchmarks/main/tinyBenchmarks/tinyBenchmarks.pkl",
            "`tinyBenchmarks.pkl` is neither in the working directory of the harness nor reachable",
        ),
        ("RuntimeError: something new", "the harness ended with exit code 1: RuntimeError: something new"),
    ];
    for (line, message) in expected {
        let cause = cause_of(Exit::Code(1), &["Traceback (most recent call last):".to_owned(), line.to_owned()]);
        assert_eq!(cause.map(|cause| cause.to_string()).as_deref(), Some(message));
    }
}

#[test]
fn a_good_run_and_a_silent_fall_back_to_the_cpu_are_no_failures_of_the_exit() {
    for stream in ["ok-hf", "cuda-asked-no-gpu"] {
        let text = fs::read_to_string(fixture("lm-eval-output/streams").join(format!("{stream}.stderr"))).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(cause_of(Exit::Code(0), &lines).is_none(), "{stream}");
    }
}

#[test]
fn the_kernel_out_of_memory_is_hinted_at() {
    let cause = cause_of(Exit::Signal(9), &[]).unwrap();
    assert_eq!(cause.to_string(), "the harness was killed by SIGKILL (signal 9)");
    assert!(cause.hint().unwrap().contains("memory"));
}
