//! Code that a model wrote, shut in by bubblewrap: what it cannot do.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use mergesweep::eval::CodeEval;
use mergesweep::eval::command::{Call, KnownTasks};
use mergesweep::eval::harness::{Request, evaluate};
use mergesweep::eval::sandbox::{self, Visible};
use mergesweep::process::Cancel;

use crate::support::{fake_settings, plain_python, skip};

/// Whether programs can be shut in on this machine; a panic where skips are failures.
fn has_sandbox() -> Option<()> {
    let trial = sandbox::trial();
    let tried = Command::new(&trial.program).args(&trial.args).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if tried.is_ok_and(|status| status.success()) { Some(()) } else { skip("`bwrap` cannot shut programs in here") }
}

/// What an attack from within a code task reports, line by line.
fn attack(attacks: &str, allow: CodeEval, home: &Path) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
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
    ] {
        settings.environment.insert(name.to_owned(), value);
    }
    let model = path("model");
    fs::create_dir(&model).unwrap();
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
        cache: &path("cache"),
        answers: &path("answers"),
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
    let found = attack("home model root socket kill secret temporary own", CodeEval::Sandboxed, home.path());
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
    let bare = attack("home socket kill secret", CodeEval::Bare, home.path());
    assert_eq!(bare, ["home worked", "socket worked", "kill worked", "secret worked", "sees ['planted', 'secret']"]);
    assert!(home.path().join("planted").exists());
}
