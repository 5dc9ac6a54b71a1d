//! References found on disk: local paths, and the hub cache as `huggingface_hub` lays it out.

use std::fs;
use std::path::{Path, PathBuf};

use mergesweep::model::{Digests, Hub, Located, Locator, ModelRef, identity};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A locator over a temporary folder, with the hub off.
fn locator(folder: &Path) -> Locator {
    let mut hub = Hub::from_environment(&|_| None, PathBuf::from("/no/such/python"));
    hub.cache = folder.join("hub");
    hub.offline = true;
    Locator { root: folder.join("spec"), home: Some(folder.join("home")), hub, stand_ins: Default::default() }
}

fn write(folder: &Path, files: &[(&str, &str)]) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    fs::canonicalize(folder).unwrap()
}

const WHOLE: &[(&str, &str)] = &[("config.json", "{}"), ("model.safetensors", "weights"), ("tokenizer.json", "{}")];

fn locate(locator: &Locator, text: &str) -> Result<Located, String> {
    locator.locate(&text.parse::<ModelRef>().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn local_folders_are_found_from_the_root_absolute_and_from_home() {
    let folder = tempfile::tempdir().unwrap();
    let locator = locator(folder.path());
    let model = write(&folder.path().join("spec/models/base"), WHOLE);
    let at_home = write(&folder.path().join("home/m"), WHOLE);
    let found = |base: &PathBuf| Ok(Located { base: base.clone(), adapter: None });
    for text in ["models/base", "./models/base", "../spec/models/base", model.to_str().unwrap()] {
        assert_eq!(locate(&locator, text), found(&model), "{text}");
    }
    assert_eq!(locate(&locator, "~/m"), found(&at_home));
    let both = locate(&locator, "models/base+~/m").unwrap();
    assert_eq!((both.base, both.adapter), (model, Some(at_home)));
}

#[test]
fn what_is_not_there_is_told_by_what_it_looks_like() {
    let folder = tempfile::tempdir().unwrap();
    let locator = locator(folder.path());
    write(&folder.path().join("spec"), &[("file", "")]);
    let root = folder.path().join("spec").display().to_string();
    let told = |text: &str| locate(&locator, text).unwrap_err().replace(&root, "ROOT");
    assert_eq!(told("./nothing"), "model `./nothing` does not exist (looked for `ROOT/./nothing`)");
    assert_eq!(told("file"), "model `file` is a file, expected a folder: `ROOT/file`");
    assert_eq!(told("./x@main"), "model `./x@main` is a local path, which has no revisions");
    assert_eq!(
        told("gpt2"),
        "model `gpt2` is neither an existing folder under `ROOT` nor a hub id of the form `owner/name`"
    );
    let hub = folder.path().join("hub").display().to_string();
    assert_eq!(
        told("owner/name"),
        format!(
            "model `owner/name` is no folder (looked for `ROOT/owner/name`), and the hub does not give it: not in the hub cache `{hub}`, and downloads are off"
        )
    );
}

#[test]
fn a_complete_snapshot_is_found_by_branch_by_commit_and_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let locator = locator(folder.path());
    let repository = folder.path().join("hub/models--owner--name");
    write(&repository.join("snapshots").join(COMMIT), WHOLE);
    write(&repository.join("refs"), &[("main", COMMIT)]);
    write(&repository.join("refs/refs/pr"), &[("1", &format!("{COMMIT}\n"))]);
    let snapshot = repository.join("snapshots").join(COMMIT);
    for text in ["owner/name", "owner/name@main", "owner/name@refs/pr/1", &format!("owner/name@{COMMIT}")] {
        assert_eq!(locate(&locator, text), Ok(Located { base: snapshot.clone(), adapter: None }), "{text}");
    }
    let told = locate(&locator, "owner/name@other").unwrap_err();
    assert!(told.ends_with("and downloads are off"), "{told}");
    let located = locate(&locator, "owner/name").unwrap();
    let expected = [("model commit".to_owned(), format!("owner/name@{COMMIT}"))];
    assert_eq!(identity(&located, None).unwrap(), expected.into());
}

#[test]
fn a_snapshot_with_a_missing_part_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let locator = locator(folder.path());
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let repository = folder.path().join("hub/models--owner--name");
    write(&repository.join("refs"), &[("main", COMMIT)]);
    let snapshot = repository.join("snapshots").join(COMMIT);
    let told = || locate(&locator, "owner/name").unwrap_err();
    write(&snapshot, &[]);
    assert!(told().contains(": `config.json` is missing, and downloads are off"), "{}", told());
    write(&snapshot, &[("config.json", "{}"), ("pytorch_model.bin", "")]);
    assert!(told().contains(": its weights are PyTorch pickles, expected safetensors, and"), "{}", told());
    write(&snapshot, &[("model.safetensors.index.json", index), ("model-00001-of-00002.safetensors", "")]);
    // A link whose blob is gone, as an interrupted download leaves it.
    std::os::unix::fs::symlink("../../blobs/gone", snapshot.join("model-00002-of-00002.safetensors")).unwrap();
    assert!(told().contains(": `model-00002-of-00002.safetensors` is missing"), "{}", told());
    write(&repository.join("blobs"), &[("gone", "weights")]);
    assert_eq!(locate(&locator, "owner/name").unwrap().base, snapshot);
    // The same folder is no adapter.
    let told = locate(&locator, "owner/name+owner/name").unwrap_err();
    assert!(
        told.starts_with("adapter `owner/name` is no folder") && told.contains("`adapter_config.json` is missing"),
        "{told}"
    );
}

#[test]
fn a_look_on_disk_never_downloads() {
    let folder = tempfile::tempdir().unwrap();
    let mut locator = locator(folder.path());
    locator.hub.offline = false;
    let on_disk = |text: &str| locator.locate_on_disk(&text.parse().unwrap());
    assert_eq!(on_disk("owner/name").unwrap(), None);
    assert!(on_disk("./nothing").is_err());
    write(&folder.path().join("spec/m"), WHOLE);
    assert!(on_disk("m").unwrap().is_some());
}

#[test]
fn other_programs_are_told_absolute_paths_and_hub_ids_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let locator = locator(folder.path());
    let model = write(&folder.path().join("spec/m"), WHOLE).display().to_string();
    let written = |text: &str| locator.written(&text.parse().unwrap());
    assert_eq!(written("m+./m"), format!("{model}+{model}"));
    assert_eq!(written("owner/name@v1+m"), format!("owner/name@v1+{model}"));
}

#[test]
fn the_identity_of_a_folder_follows_its_content_and_not_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, config: &str| {
        let base = write(
            &folder.path().join(name),
            &[("config.json", config), ("model.safetensors", "w"), ("README.md", name)],
        );
        fs::create_dir_all(base.join(".cache")).unwrap();
        identity(&Located { base, adapter: None }, None).unwrap()
    };
    let one = make("one", "{}");
    assert_eq!(one, make("two", "{}"));
    assert_ne!(one, make("three", "{\"a\": 1}"));
    assert_eq!(one.keys().collect::<Vec<_>>(), ["model config.json", "model model.safetensors"]);
    let base = folder.path().join("one");
    let with_adapter = identity(&Located { base: base.clone(), adapter: Some(base) }, None).unwrap();
    assert!(with_adapter.contains_key("adapter config.json"));
    // A large file is read once, and told by its content wherever a copy lies; or not at all.
    let whole = |name: &str, digests: Option<&Digests>| {
        let located = Located { base: folder.path().join(name), adapter: None };
        identity(&located, digests).unwrap()["model model.safetensors"].clone()
    };
    for name in ["one", "two"] {
        fs::File::create(folder.path().join(name).join("model.safetensors")).unwrap().set_len(33 << 20).unwrap();
    }
    let digests = Digests::remembered_in(folder.path());
    let (one, two) = (whole("one", Some(&digests)), whole("two", Some(&digests)));
    assert!(one == two && one.starts_with("blake3:"), "{one} {two}");
    fs::write(folder.path().join("two/model.safetensors"), vec![1; 33 << 20]).unwrap();
    assert_ne!(whole("two", Some(&digests)), one);
    assert_eq!(whole("two", None), "34603008 bytes");
}
