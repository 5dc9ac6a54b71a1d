//! Downloads through `huggingface_hub`, from a small hub on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use mergesweep::model::{Hub, Locator};

use crate::support::require_python;

const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What the hub has.
fn files(repository: &str) -> Option<BTreeMap<&'static str, &'static str>> {
    let whole =
        [("config.json", "{}"), ("model.safetensors", "weights"), ("tokenizer.json", "{\"a\": 1}"), ("code.py", "")];
    match repository {
        "owner/name" => Some(whole.into()),
        "owner/adapter" => Some([("adapter_config.json", "{}"), ("adapter_model.safetensors", "low rank")].into()),
        "owner/pickled" => Some([("config.json", "{}"), ("pytorch_model.bin", "weights")].into()),
        _ => None,
    }
}

/// Starts the hub; gives its address and the requests it will have seen.
fn serve() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let record = Arc::clone(&record);
            std::thread::spawn(move || answer(stream, &record));
        }
    });
    (address, seen)
}

fn answer(stream: TcpStream, record: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    reader.read_line(&mut request).unwrap();
    let mut authorized = false;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        authorized |= header.to_ascii_lowercase().starts_with("authorization: bearer secret");
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    record.lock().unwrap().push(format!("{method} {path}"));
    let (status, headers, body) = respond(path.split('?').next().unwrap_or_default(), authorized);
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    let mut stream = stream;
    let body = if method == "HEAD" { "" } else { &body };
    // The other side may have hung up.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn respond(path: &str, authorized: bool) -> (&'static str, String, String) {
    let error = |status, code: &str| {
        (status, format!("X-Error-Code: {code}\r\nX-Error-Message: told by the hub\r\n"), String::new())
    };
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (repository, rest) = match parts[..] {
        ["api", "models", owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest.to_vec()),
        [owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest.to_vec()),
        _ => return error("404 Not Found", "RepoNotFound"),
    };
    if repository == "owner/gated" && !authorized {
        return error("403 Forbidden", "GatedRepo");
    }
    let Some(files) = files(if repository == "owner/gated" { "owner/name" } else { &repository }) else {
        return error("404 Not Found", "RepoNotFound");
    };
    match rest[..] {
        ["revision", "main" | COMMIT] | [] => {
            let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            let info = serde_json::json!({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings,
                "private": false, "downloads": 0, "likes": 0, "tags": []});
            ("200 OK", "Content-Type: application/json\r\n".to_owned(), info.to_string())
        }
        ["tree", "main" | COMMIT] => {
            let tree: Vec<_> = files
                .iter()
                .map(|(name, text)| serde_json::json!({"type": "file", "oid": name, "size": text.len(), "path": name}))
                .collect();
            ("200 OK", "Content-Type: application/json\r\n".to_owned(), serde_json::Value::from(tree).to_string())
        }
        ["revision" | "tree", ..] => error("404 Not Found", "RevisionNotFound"),
        ["resolve", "main" | COMMIT, name] => match files.get(name) {
            Some(text) => {
                let etag: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
                (
                    "200 OK",
                    format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nAccept-Ranges: bytes\r\n"),
                    (*text).to_owned(),
                )
            }
            None => error("404 Not Found", "EntryNotFound"),
        },
        _ => error("404 Not Found", "RevisionNotFound"),
    }
}

fn locator(python: &Path, folder: &Path, endpoint: &str, token: &str) -> Locator {
    let mut hub = Hub::from_environment(&|_| None, python.to_owned());
    hub.cache = folder.join("hub");
    hub.environment = [
        ("HF_ENDPOINT", endpoint),
        ("HF_HOME", &folder.to_string_lossy()),
        ("HF_TOKEN", token),
        ("HF_HUB_OFFLINE", "0"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("NO_PROXY", "127.0.0.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    Locator { root: folder.join("spec"), home: None, hub, stand_ins: Default::default() }
}

#[test]
fn a_model_is_downloaded_once_and_then_found() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, seen) = serve();
    let mut locator = locator(&python, folder.path(), &endpoint, "");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    locator.hub.on_progress = Some(Arc::new(move |line: &str| told.lock().unwrap().push(line.to_owned())));
    let model = "owner/name+owner/adapter".parse().unwrap();
    let located = locator.locate(&model).unwrap_or_else(|error| panic!("{error}\n{:?}", seen.lock().unwrap()));
    assert_eq!(located.base, folder.path().join("hub/models--owner--name/snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(located.base.join("model.safetensors")).unwrap(), "weights");
    assert!(!located.base.join("code.py").exists(), "code stays on the hub");
    assert!(located.adapter.unwrap().join("adapter_model.safetensors").exists());
    assert!(lines.lock().unwrap().iter().any(|line| line.contains('%')), "progress is told");
    // From now on neither interpreter nor network is needed.
    locator.hub.python = "/no/such/python".into();
    locator.hub.offline = true;
    assert_eq!(locator.locate(&model).unwrap().base, located.base);
}

#[test]
fn the_small_files_of_a_model_are_had_without_its_weights() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, seen) = serve();
    let locator = locator(&python, folder.path(), &endpoint, "");
    let model = "owner/name".parse().unwrap();
    let small = locator.without_weights().locate(&model).unwrap_or_else(|error| panic!("{error}")).base;
    assert!(small.join("config.json").exists() && small.join("tokenizer.json").exists());
    assert!(!small.join("model.safetensors").exists());
    assert!(!seen.lock().unwrap().iter().any(|request| request.contains("model.safetensors")), "{seen:?}");
    // That is no model yet for anyone who wants its weights.
    assert_eq!(locator.locate_on_disk(&model).unwrap(), None);
    assert_eq!(locator.locate(&model).unwrap().base, small);
    assert!(small.join("model.safetensors").exists());
}

#[test]
fn what_the_hub_refuses_is_told_in_plain_words() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, _) = serve();
    let locator = locator(&python, folder.path(), &endpoint, "");
    let told = |text: &str| {
        let error = locator.locate(&text.parse().unwrap()).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let (message, hint) = told("owner/gated");
    assert!(
        message.starts_with("model `owner/gated` ")
            && message.contains(": access is restricted: ")
            && hint.contains("HF_TOKEN"),
        "{message}\n{hint}"
    );
    let (message, _) = told("owner/nosuch");
    assert!(
        message.ends_with(": no such repository on the hub (or a private one that the token does not open)"),
        "{message}"
    );
    let (message, _) = told("owner/name@nosuch");
    assert!(message.ends_with(": the repository has no revision `nosuch`"), "{message}");
    let (message, hint) = told("owner/pickled");
    assert!(message.contains("is not usable") && !hint.is_empty(), "{message}");
}

#[test]
fn a_token_opens_a_gated_model() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, _) = serve();
    let located = locator(&python, folder.path(), &endpoint, "secret").locate(&"owner/gated".parse().unwrap());
    assert!(located.unwrap().base.join("config.json").exists());
}

#[test]
fn a_hub_that_does_not_answer_is_told() {
    let Some(python) = require_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nothing listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let locator = locator(&python, folder.path(), &format!("http://127.0.0.1:{port}"), "");
    let told = locator.locate(&"owner/name".parse().unwrap()).unwrap_err().to_string();
    assert!(told.contains(": the hub cannot be reached: "), "{told}");
}

/// An interpreter that answers so the first time, and with a whole model ever after.
fn answers_at_first(folder: &Path, first: &str) -> Hub {
    use std::os::unix::fs::PermissionsExt;
    let (python, model) = (folder.join("python"), folder.join("model"));
    std::fs::create_dir_all(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::write(model.join(name), "{}").unwrap();
    }
    let answer = |kind: &str, message: &str| {
        format!("echo 'mergesweep-answer {{\"kind\": \"{kind}\", \"message\": \"{message}\"}}'")
    };
    let script = format!(
        "#!/bin/sh\necho attempt >> '{folder}/attempts'\nif test $(wc -l < '{folder}/attempts') = 1; then {}; else {}; fi\n",
        answer(first, "told by the hub"),
        answer("folder", &model.to_string_lossy()),
        folder = folder.display(),
    );
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    Hub { cache: folder.join("cache"), ..Hub::from_environment(&|_| None, python) }
}

#[test]
fn a_download_that_may_succeed_later_is_tried_again_as_often_as_allowed() {
    for (first, retries, expected) in [("network", 1, 2), ("busy", 1, 2), ("busy", 0, 1), ("gated", 1, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub { retries, ..answers_at_first(folder.path(), first) };
        let locator = Locator { root: folder.path().to_owned(), home: None, hub, stand_ins: BTreeMap::new() };
        let located = locator.locate(&"owner/name".parse().unwrap());
        assert_eq!(located.is_ok(), expected == 2, "{first}: {located:?}");
        let attempts = std::fs::read_to_string(folder.path().join("attempts")).unwrap();
        assert_eq!(attempts.lines().count(), expected, "{first}");
    }
}
