//! Broken specs: each mistake in `fixtures/specs` is told with its place, all of a file in one pass.

use std::path::{Path, PathBuf};

use mergesweep::plan;
use proptest::prelude::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/specs")
}

/// What is said about a spec, with paths from the folder of fixtures on.
fn said(path: &Path) -> String {
    let folder = format!("{}/", fixtures().display());
    match plan::open(path) {
        Ok((_, plan)) => format!("accepted: {} trials\n{}", plan.trials.len(), plan.warnings),
        Err(problems) => problems.to_string(),
    }
    .replace(&folder, "")
}

#[test]
fn every_broken_spec_is_told_all_its_mistakes() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    assert!(files.len() >= 16);
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let message = said(&file);
        assert!(!message.starts_with("accepted"), "{name} was accepted");
        insta::assert_snapshot!(name, message);
    }
}

#[test]
fn a_missing_spec_is_told_as_such() {
    assert_eq!(said(&fixtures().join("none.toml")), "error[E0001]: none.toml:1:1: no such file");
    assert_eq!(said(&fixtures().join("configs")), "error[E0001]: configs:1:1: is a folder, expected a file");
}

const WHOLE: &str = include_str!("../../sweeps/examples/slerp-and-dare.toml");
const WHOLE_YAML: &str = include_str!("../../sweeps/examples/slerp-and-dare.yml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any slip of the hand ends in a message, never in a panic.
    #[test]
    fn a_damaged_spec_makes_nothing_panic(
        yaml in any::<bool>(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..12,
        put in prop::sample::select(vec!["", "{", "}", "]", "[", "\"", "'", "=", ":", "\n", "- ", "null", "-1", "1e400", "[[]]", "{}", "é", "\t", ".", "*both", "t"]),
    ) {
        let whole = if yaml { WHOLE_YAML } else { WHOLE };
        let letters: Vec<char> = whole.chars().collect();
        let start = at.index(letters.len());
        let end = (start + length).min(letters.len());
        let text: String = letters[..start].iter().chain(put.chars().collect::<Vec<_>>().iter()).chain(&letters[end..]).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if yaml { "s.yml" } else { "s.toml" });
        std::fs::write(&path, text).unwrap();
        let _ = plan::open(&path);
    }
}
