//! Task definitions read without Python.

use std::fs;
use std::path::Path;

use mergesweep::eval::preflight::runs_code;
use mergesweep::eval::task::PRESETS;
use mergesweep::eval::task_files::read;

#[test]
fn names_code_and_versions_are_read_through_includes_and_function_tags() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("base_yaml", "unsafe_code: true\noutput_type: generate_until\nnum_fewshot: 0\n");
    write(
        "code/coded.yaml",
        "include: ../base_yaml\ntask: coded\nmetric_list:\n  - metric: !function utils.pass_at_k\nmetadata: {version: 1.0}\n",
    );
    write("plain.yaml", "include: base_yaml\ntask: plain\nunsafe_code: false\ncustom_dataset: !function utils.load\n");
    write("group.yaml", "group: all\ntask:\n  - plain\n  - task: coded\n    num_fewshot: 3\n");
    write("broken.yaml", "task: [unclosed\n");
    write("loop.yaml", "include: loop.yaml\ntask: loop\n");
    write("notes.yaml", "just text\n");
    write("ignored.yml", "task: ignored\n");
    let tasks = read(folder.path());
    assert_eq!(tasks.keys().collect::<Vec<_>>(), ["all", "coded", "loop", "plain"]);
    let coded = &tasks["coded"];
    assert_eq!(
        (coded.runs_code, coded.output_type.as_deref(), coded.version.as_deref()),
        (true, Some("generate_until"), Some("1.0"))
    );
    assert_eq!((tasks["plain"].runs_code, tasks["plain"].num_fewshot), (false, Some(0)));
    assert!(tasks["all"].is_group && tasks["all"].runs_code);
    assert!(runs_code(&tasks, "coded") && runs_code(&tasks, "humaneval") && !runs_code(&tasks, "plain"));
    assert!(read(&folder.path().join("absent")).is_empty());
}

#[test]
fn the_offline_task_pack_and_the_table_of_columns_agree() {
    let pack = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/tasks"));
    let stock = ["humaneval", "tinyArc", "tinyGSM8k", "tinyHellaswag", "tinyMMLU", "tinyTruthfulQA", "tinyWinogrande"];
    let mut of_table: Vec<&str> =
        PRESETS.iter().map(|preset| preset.task).filter(|task| !stock.contains(task)).collect();
    of_table.sort_unstable();
    of_table.dedup();
    assert_eq!(pack.keys().collect::<Vec<_>>(), of_table);
    let code: Vec<&str> = pack.iter().filter(|(_, file)| file.runs_code).map(|(name, _)| name.as_str()).collect();
    assert_eq!(code, ["humaneval_local"]);
    assert!(pack.values().all(|file| !file.is_group && file.version.as_deref() == Some("1.0")));
}
