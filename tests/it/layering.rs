//! Holds the tree to the table "Who may use whom" of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rows `module -> others` of the table.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Who may use whom").nth(1).unwrap().split("\n## ").next().unwrap();
    section
        .lines()
        .filter(|line| line.starts_with("    "))
        .filter_map(|line| line.split_once("->"))
        .map(|(module, others)| {
            let word = |text: &str| text.trim().split([' ', '(']).next().unwrap_or_default().to_owned();
            (word(module), others.split(',').map(word).collect())
        })
        .collect()
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Modules named as `crate::module` in a line of code.
fn used(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut modules = Vec::new();
    for part in code.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            Some(group) => modules.extend(group.split(['{', ',', '}']).map(|name| name.trim().to_owned())),
            None => modules.push(part.to_owned()),
        }
    }
    let name = |text: &String| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    modules.iter().map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_module_uses_only_what_the_architecture_allows() {
    let table = table();
    assert!(table.len() >= 10, "the table of ARCHITECTURE.md was not found: {table:?}");
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut broken = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let allowed = table.get(&module).unwrap_or_else(|| panic!("`{module}` is missing in ARCHITECTURE.md"));
        let text = fs::read_to_string(&file).unwrap();
        // Tests inside a file may use what they like.
        for (index, line) in text.split("#[cfg(test)]").next().unwrap().lines().enumerate() {
            for other in used(line) {
                if other != module && !allowed.contains(&other) && !allowed.contains("everything") {
                    broken.push(format!("{}:{}: `{module}` uses `{other}`", inside.display(), index + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_command_line_prints_or_reads_the_environment() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut broken = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        if inside.starts_with("cli") || inside == Path::new("console.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (index, line) in text.split("#[cfg(test)]").next().unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for forbidden in
                ["println!(", "eprintln!(", "print!(", "env::var", "process::exit", "io::stdout", "io::stderr"]
            {
                if code.contains(forbidden) {
                    broken.push(format!("{}:{}: `{forbidden}`", inside.display(), index + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
