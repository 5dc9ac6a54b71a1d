//! `mergesweep diff` as a program.

use std::path::Path;
use std::process::{Command, Stdio};

use mergesweep::config::Dtype;
use mergesweep::merge::MergeOptions;
use tempfile::TempDir;

use crate::merge_support::{Numbers, fixtures, merge_in, options, safetensors, write_model};

fn diff(a: &Path, b: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergesweep"));
    let run = command.stdin(Stdio::null()).arg("diff").arg(a).arg(b).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (run.status.code().unwrap(), text(run.stdout), text(run.stderr))
}

fn tensor(dtype: Dtype, shape: &[usize], values: &[f64]) -> Numbers {
    Numbers { dtype, shape: shape.to_vec(), values: values.to_vec() }
}

#[test]
fn sharding_and_place_make_no_difference() {
    let text = "merge_method: linear\nmodels:\n- { model: inputs/math, parameters: { weight: 1 } }\n";
    let whole = merge_in(&fixtures(), text, &options()).unwrap();
    let sharded = merge_in(&fixtures(), text, &MergeOptions { shard_size: 30_000, ..options() }).unwrap();
    let (code, stdout, stderr) = diff(&whole.path(), &sharded.path(), &[]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "equal: 30 tensors\n", ""));
    let file = whole.path().join("model.safetensors");
    assert_eq!(diff(&file, &sharded.path(), &[]).0, 0);
    let (code, stdout, _) = diff(&whole.path(), &sharded.path(), &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &document["equal"], &document["n_equal"]), (0, &true.into(), &30.into()));
}

/// Two models that differ in every way two models can.
fn unlike(folder: &Path) {
    let next = f64::from(f32::from_bits(1f32.to_bits() + 3));
    write_model(
        &folder.join("a"),
        &[
            ("equal", tensor(Dtype::F32, &[2], &[1.0, f64::NAN])),
            ("ulps", tensor(Dtype::F32, &[3], &[1.0, 2.0, 0.0])),
            ("nan", tensor(Dtype::F16, &[2], &[1.0, 2.0])),
            ("format", tensor(Dtype::F32, &[2], &[0.1, 1.0])),
            ("shape", tensor(Dtype::Bf16, &[2, 1], &[1.0, 2.0])),
            ("ours", tensor(Dtype::F64, &[1], &[1.0])),
        ],
    );
    write_model(
        &folder.join("b"),
        &[
            ("equal", tensor(Dtype::F32, &[2], &[1.0, f64::NAN])),
            ("ulps", tensor(Dtype::F32, &[3], &[next, 2.0, -0.0])),
            ("nan", tensor(Dtype::F16, &[2], &[1.0, f64::NAN])),
            ("format", tensor(Dtype::Bf16, &[2], &[0.1, 1.0])),
            ("shape", tensor(Dtype::Bf16, &[1, 2], &[1.0, 2.0])),
            ("theirs", tensor(Dtype::F64, &[1], &[1.0])),
        ],
    );
}

#[test]
fn every_kind_of_difference_is_told() {
    let folder = TempDir::new().unwrap();
    unlike(folder.path());
    let (code, stdout, stderr) = diff(&folder.path().join("a"), &folder.path().join("b"), &[]);
    assert_eq!((code, stderr.as_str()), (4, ""));
    insta::assert_snapshot!(stdout.replace(&folder.path().display().to_string(), "ROOT"), @r"
    only in ROOT/a: ours
    only in ROOT/b: theirs
    shape: bfloat16 [2, 1] and bfloat16 [1, 2]
    | tensor | format            | different |  largest | ulps | relative L2 |
    | ------ | ----------------- | --------: | -------: | ---: | ----------: |
    | nan    | float16           |    1 of 2 |        - |    - |           - |
    | format | float32, bfloat16 |    1 of 2 | 9.765e-5 |    - |    9.717e-5 |
    | ulps   | float32           |    2 of 3 | 3.576e-7 |    3 |    1.599e-7 |
    different: 1 tensor equal, 3 different, 1 of another shape or format, 1 only in A, 1 only in B
    ");
}

#[test]
fn the_differences_come_as_json() {
    let folder = TempDir::new().unwrap();
    unlike(folder.path());
    let (code, stdout, _) = diff(&folder.path().join("a"), &folder.path().join("b"), &["--json", "--top", "3"]);
    assert_eq!(code, 4);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&document["equal"], &document["n_different"]), (&false.into(), &3.into()));
    let different = document["different"].as_array().unwrap();
    let names: Vec<_> = different.iter().map(|tensor| tensor["tensor"].as_str().unwrap()).collect();
    assert_eq!(names, ["nan", "format", "ulps"]);
    assert_eq!(different[0]["max_abs"], serde_json::Value::Null);
    assert_eq!(different[2]["max_ulps"], 3);
    assert_eq!(different[2]["n_different"], 2, "the sign of a zero is a difference of bits");
}

#[test]
fn the_largest_differences_come_first() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, by: f64| {
        let of = |index: usize| tensor(Dtype::F32, &[1], &[1.0 + by * index as f64]);
        write_model(&folder.path().join(name), &[("x", of(1)), ("y", of(3)), ("z", of(2))]);
    };
    write("a", 0.0);
    write("b", 0.125);
    let (code, stdout, stderr) = diff(&folder.path().join("a"), &folder.path().join("b"), &["--top", "1"]);
    assert_eq!((code, stderr.as_str()), (4, "note: 2 tensors more (`--top`)\n"));
    assert!(stdout.contains("| y ") && !stdout.contains("| z "), "{stdout}");
    assert!(stdout.ends_with("different: 0 tensors equal, 3 different\n"), "{stdout}");
}

#[test]
fn what_is_no_model_is_wrong_input() {
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) = diff(&folder.path().join("none"), folder.path(), &[]);
    assert_eq!(code, 2);
    assert!(stderr.contains("does not exist, expected a model folder"), "{stderr}");
    let file = folder.path().join("broken.safetensors");
    std::fs::write(&file, "nothing").unwrap();
    assert_eq!(diff(&file, &file, &[]).0, 2);
}

#[test]
fn models_of_many_stretches_are_compared_to_the_end() {
    let folder = TempDir::new().unwrap();
    let n = (1 << 18) + 5;
    let mut values = vec![0.5; n];
    let write = |name: &str, values: &[f64]| {
        std::fs::write(folder.path().join(name), safetensors(&[("w", tensor(Dtype::F16, &[n], values))])).unwrap();
    };
    write("a.safetensors", &values);
    values[n - 1] = 0.75;
    write("b.safetensors", &values);
    let (code, stdout, _) =
        diff(&folder.path().join("a.safetensors"), &folder.path().join("b.safetensors"), &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let tensor = &document["different"][0];
    assert_eq!((code, &tensor["n_different"], &tensor["max_abs"]), (4, &1.into(), &0.25.into()));
    let relative = 0.25 / (0.25 * n as f64).sqrt();
    assert!((tensor["relative_l2"].as_f64().unwrap() / relative - 1.0).abs() < 1e-12);
}
