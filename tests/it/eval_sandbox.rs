//! Code that a model wrote, shut in by bubblewrap: what it cannot do.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mergesweep::eval::CodeEval;
use mergesweep::eval::command::{Call, KnownTasks};
use mergesweep::eval::harness::{Request, evaluate};
use mergesweep::eval::sandbox::{self, Visible};
use mergesweep::process::Cancel;

use crate::support::{fake_settings, plain_python, skip};
use crate::sweep_support::walk;

/// Whether programs can be shut in on this machine; a panic where skips are failures.
fn has_sandbox() -> Option<()> {
    let trial = sandbox::trial();
    let tried = Command::new(&trial.program).args(&trial.args).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if tried.is_ok_and(|status| status.success()) { Some(()) } else { skip("`bwrap` cannot shut programs in here") }
}

/// What an attack from within a code task reports, line by line. `folder` gets the folders of the sweep.
fn attack(attacks: &str, allow: CodeEval, home: &Path, folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name);
    let mut settings = fake_settings(&plain_python().unwrap(), &["facts"], "attack");
    settings.model = "hf".to_owned();
    settings.allow_code_eval = allow;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, value) in [
        ("ATTACKED_PORT", listener.local_addr().unwrap().port().to_string()),
        ("ATTACKED_PID", std::process::id().to_string()),
        ("HF_TOKEN", "hf_secret".to_owned()),
        ("ATTACKS", attacks.to_owned()),
        ("HOME", home.to_string_lossy().into_owned()),
        ("ATTACKED_ANSWERS", path("harness/answers/others").to_string_lossy().into_owned()),
    ] {
        settings.environment.insert(name.to_owned(), value);
    }
    let model = path("model");
    fs::create_dir_all(&model).unwrap();
    let call = Call { tasks: settings.tasks.clone(), runs_code: true };
    // The stand-in lies where the harness would.
    let stand_in = crate::support::fixture("fake_lm_eval");
    let visible = Visible { home: Some(home.to_owned()), caches: vec![stand_in], ..Visible::default() };
    let request = Request {
        settings: &settings,
        call: &call,
        known: &KnownTasks::new(),
        model: &model,
        attempt: &path("attempt"),
        home: &path("harness"),
        cache: &path("harness/cache"),
        answers: &path("harness/answers/own"),
        visible: &visible,
        n_threads: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let evaluated = runtime.block_on(evaluate(&request, None, &mut |_| {}, &Cancel::never()));
    let log = fs::read_to_string(path("attempt").join("stderr.log")).unwrap();
    let evaluated = evaluated.unwrap_or_else(|failure| panic!("{failure}: {log}"));
    assert!(evaluated.results.is_file(), "the results come out of the sandbox");
    log.lines().filter_map(|line| line.strip_prefix("attack ")).map(str::to_owned).collect()
}

#[test]
fn code_in_the_sandbox_reaches_neither_home_nor_network_nor_other_processes() {
    if plain_python().is_none() || has_sandbox().is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("secret"), "of the user").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let attacks = "home model root socket kill secret temporary own";
    let found = attack(attacks, CodeEval::Sandboxed, home.path(), folder.path());
    let expected = [
        "home worked", // The empty one of the sandbox.
        "model failed: OSError",
        "root failed: OSError",
        "socket failed: ConnectionRefusedError",
        "kill failed: ProcessLookupError",
        "secret failed: KeyError",
        "temporary worked", // A private one.
        "own worked",
        "sees ['planted']",
    ];
    assert_eq!(found, expected);
    assert!(!home.path().join("planted").exists() && !Path::new("/tmp/planted").exists());

    // The same program without the sandbox: the attack is a real one.
    let folder = tempfile::tempdir().unwrap();
    let bare = attack("home socket kill secret", CodeEval::Bare, home.path(), folder.path());
    assert_eq!(bare, ["home worked", "socket worked", "kill worked", "secret worked", "sees ['planted', 'secret']"]);
    assert!(home.path().join("planted").exists());
}

/// Parameters, metrics and answers are code or pickles, and other processes of the sweep load them outside of any sandbox.
#[test]
fn code_in_the_sandbox_plants_nothing_that_other_processes_of_the_sweep_load() {
    if plain_python().is_none() || has_sandbox().is_none() {
        return;
    }
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    for at in ["harness/cache/modules", "harness/cache/datasets", "harness/answers/others"] {
        fs::create_dir_all(path(at)).unwrap();
    }
    fs::write(path("harness/tinyBenchmarks.pkl"), "of the user").unwrap();
    fs::write(path("harness/cache/modules/there.py"), "of the user").unwrap();
    fs::write(path("harness/cache/datasets/large.arrow"), vec![1; 2 << 20]).unwrap();
    let before = contents(&path("harness"));
    let attacks = "parameters metric module change data read answers others";
    let found = attack(attacks, CodeEval::Sandboxed, home.path(), folder.path());
    let expected = [
        "parameters failed: OSError",
        "metric failed: OSError",
        "module worked", // In a copy of the call's own.
        "change worked",
        "data failed: OSError",
        "read worked",
        "answers worked", // Which only calls that are shut in read again.
        "others failed: OSError",
        "sees []",
    ];
    assert_eq!(found, expected);
    let own = path("harness/answers/own/shut-in/requests_rank0.db");
    assert!(own.is_file());
    fs::remove_dir_all(path("harness/answers/own")).unwrap();
    assert_eq!(contents(&path("harness")), before);
    let left = fs::read_dir(path("attempt")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("cache-")), "the copy goes with the call");
}

/// Every file below a folder with what it holds.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = walk(folder).into_iter().filter(|path| path.is_file());
    let mut files: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}
