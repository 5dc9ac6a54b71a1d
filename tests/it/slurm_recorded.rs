//! What Slurm says and cannot be made to say on purpose: recorded words, told by stand-ins of its commands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use mergesweep::plan::TrialId;
use mergesweep::run::journal::{Record, What};
use mergesweep::run::slurm::queue::{self, Ending, Task, TaskState};
use mergesweep::run::slurm::submission::{Job, Step, Submission};
use mergesweep::run::slurm::unit::{Member, Unit};

use crate::sweep_support::{Sweep, TINY, count, text, wait_for, walk};

/// Writes every job down and gives it a number; refuses as long as a file says how.
const SBATCH: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >> sbatch.log
if [ -f sbatch.fails ]; then cat sbatch.fails >&2; rm sbatch.fails; exit 1; fi
for script in "$@"; do :; done
id=$(($(cat jobs 2>/dev/null | wc -l) + 100))
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$script")
case "$name" in *.table*) last= ;; esac
echo "$id $name ${last:--}" >> jobs
echo "$id"
"#;

/// Lists the jobs in the state that a file names, or does not answer.
const SQUEUE: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo asked >> squeue.log
if [ -f squeue.fails ]; then echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1; fi
[ -f jobs ] || exit 0
while read -r id name last; do
    if [ "$last" = - ]; then echo "$id|$name|PENDING|Dependency|"; continue; fi
    state=$(cat "state.${name##*.}" 2>/dev/null || cat state)
    [ "$state" != GONE ] || continue
    case "$state" in *\|*) ;; *) state="$state|None" ;; esac
    for index in $(seq 0 "$last"); do echo "${id}_$index|$name|$state|n1"; done
done < jobs
"#;

const SACCT: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
if [ ! -f account ]; then echo "Slurm accounting storage is disabled" >&2; exit 1; fi
while read -r id name last; do
    [ "$last" = - ] || for index in $(seq 0 "$last"); do echo "${id}_$index|$(cat account)"; done
done < jobs
"#;

const SCONTROL: &str = "#!/bin/sh\necho 'MaxArraySize            = 2'\n";

/// The tiny sweep beside stand-ins that begin with a state.
struct Told {
    sweep: Sweep,
}

impl Told {
    fn new(state: &str, engine: &str) -> Option<Self> {
        let sweep = Sweep::of(&format!(
            "{TINY}\n[engine]\nkind = \"slurm\"\ntrials_per_job = 1\npoll = 1\nmax_resubmissions = 1\n{engine}"
        ))?;
        let told = Self { sweep };
        fs::create_dir(told.path("")).unwrap();
        for (name, script) in [
            ("sbatch", SBATCH),
            ("squeue", SQUEUE),
            ("sacct", SACCT),
            ("scontrol", SCONTROL),
            ("scancel", "#!/bin/sh\n"),
        ] {
            fs::write(told.path(name), script).unwrap();
            fs::set_permissions(told.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        told.say("state", state);
        Some(told)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sweep.path("bin").join(name)
    }

    fn say(&self, file: &str, what: &str) {
        fs::write(self.path(file), what).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sweep.command(args, "ok");
        let path = format!("{}:{}", self.path("").display(), std::env::var("PATH").unwrap());
        command.env("PATH", path);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn manifest(&self) -> String {
        self.sweep.results().join("slurm/1/manifest.json").to_string_lossy().into_owned()
    }

    /// Does the work of a task.
    fn work(&self, index: usize) {
        let done = self.run(&["slurm-unit", &self.manifest(), &index.to_string()]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    }

    fn n_submitted(&self) -> usize {
        fs::read_to_string(self.path("sbatch.log")).unwrap().lines().count()
    }
}

fn ends(output: &Output, code: i32, says: &str) {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert!(err.contains(says), "{says}: {err}");
}

#[test]
fn what_used_too_much_memory_fails_with_that_reason_and_is_not_tried_again() {
    let Some(told) = Told::new("PENDING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    assert_eq!(told.n_submitted(), 3, "three units in arrays of two at most, and the table");
    told.work(0);
    told.work(2);
    told.say("state", "OUT_OF_MEMORY");
    ends(&told.run(&["run", "sweep.toml"]), 3, "used more memory than it had");
    assert_eq!(told.n_submitted(), 3);
    // The next run submits what failed, and nothing else.
    told.say("state", "PENDING");
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "1 trial with Slurm");
}

#[test]
fn what_was_lost_is_submitted_again_up_to_a_limit() {
    let Some(told) = Told::new("NODE_FAIL", "") else { return };
    let run = told.run(&["run", "sweep.toml"]);
    ends(&run, 3, "was lost (NODE_FAIL), after 2 attempts");
    assert_eq!(count(&text(&run.stderr), "was lost (NODE_FAIL): submitted again"), 3, "{}", text(&run.stderr));
}

#[test]
fn evaluations_that_never_began_are_told_by_what_became_of_their_merges() {
    for (merges, says) in [
        ("NODE_FAIL", "was lost (NODE_FAIL), after 2 attempts"),
        ("OUT_OF_MEMORY", "raise `engine.merge.memory`"),
        ("CANCELLED", "was cancelled on Slurm"),
        ("COMPLETED", "waited for a task that was lost"),
    ] {
        let Some(told) = Told::new("PENDING", "split = true\n") else { return };
        told.say("state.merge", merges);
        told.say("state.eval", "CANCELLED|DependencyNeverSatisfied");
        ends(&told.run(&["run", "sweep.toml"]), 3, says);
    }
}

#[test]
fn waves_wait_for_each_other_and_evaluations_for_their_merges() {
    let Some(told) = Told::new("PENDING", "split = true\n") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    let log = fs::read_to_string(told.path("sbatch.log")).unwrap();
    let after: Vec<&str> = log
        .lines()
        .map(|line| line.split(' ').find_map(|word| word.strip_prefix("--dependency=")).unwrap_or("nothing"))
        .collect();
    // Three units, arrays of two at most.
    assert_eq!(after, ["nothing", "aftercorr:100", "afterany:101", "aftercorr:102", "afterany:101:103"], "{log}");
    let merges = |index: usize| told.run(&["slurm-unit", &told.manifest(), &index.to_string(), "--merges"]);
    ends(&merges(1), 0, "SLERP (t=0.25)");
    let model = || walk(&told.sweep.results()).iter().any(|path| path.ends_with("model/config.json"));
    assert!(model(), "what is merged stays");
    assert!(!told.sweep.path("evaluated.log").exists());
    (0..3).for_each(|index| told.work(index));
    assert!(!model(), "what is evaluated goes");
    ends(&told.run(&["run", "sweep.toml"]), 0, "3 trials done");
    assert_eq!(count(&told.sweep.journal(), "\"merged\""), 2);
}

#[test]
fn what_slurm_has_forgotten_is_asked_of_the_accounting_and_otherwise_unknown() {
    let Some(told) = Told::new("GONE", "") else { return };
    told.say("account", "TIMEOUT");
    ends(&told.run(&["run", "sweep.toml"]), 3, "ran out of time, after 2 attempts");
    fs::remove_file(told.path("account")).unwrap();
    let run = told.run(&["run", "sweep.toml"]);
    ends(&run, 3, "is gone, and Slurm no longer knows how it ended, after 2 attempts");
}

#[test]
fn silence_of_slurm_says_nothing_and_records_say_everything() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    told.say("squeue.fails", "");
    let run = told.command(&["run", "sweep.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log = told.path("squeue.log");
    let begun = fs::read_to_string(&log).unwrap_or_default().lines().count();
    wait_for(|| fs::read_to_string(&log).unwrap_or_default().lines().count() > begun + 6);
    (0..3).for_each(|index| told.work(index));
    let run = run.wait_with_output().unwrap();
    ends(&run, 0, "nothing is concluded from that");
    assert_eq!(told.n_submitted(), 3);
}

#[test]
fn a_job_that_may_have_arrived_is_looked_for_before_it_is_submitted_again() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    told.say("sbatch.fails", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n");
    let run = told.command(&["run", "sweep.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| fs::read_to_string(told.path("jobs")).unwrap_or_default().lines().count() == 3);
    (0..3).for_each(|index| told.work(index));
    ends(&run.wait_with_output().unwrap(), 0, "is looked for, or handed over again");
    assert_eq!(told.n_submitted(), 4, "one of them twice");
}

#[test]
fn a_cluster_that_is_gone_does_not_hold_a_sweep_for_ever() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    told.work(1);
    told.say("squeue.fails", "");
    ends(&told.run(&["cancel", "sweep.toml"]), 75, "`mergesweep cancel --abandon` gives them up");
    ends(&told.run(&["cancel", "sweep.toml", "--abandon"]), 0, "submission 1 of tiny is cancelled");
    let run = told.run(&["run", "sweep.toml", "--engine", "local"]);
    ends(&run, 0, "1 of them reused");
}

#[test]
fn a_spec_that_changed_meanwhile_is_not_evaluated() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    let spec = fs::read_to_string(told.sweep.path("sweep.toml")).unwrap();
    fs::write(told.sweep.path("sweep.toml"), spec.replace("batch_size = 4", "batch_size = 2")).unwrap();
    let unit = told.run(&["slurm-unit", &told.manifest(), "0"]);
    ends(&unit, 2, "it asks something else of the harness");
}

/// Whoever holds the sweep does what is to be done: followers wait for as long as it takes.
#[test]
fn followers_outlast_whoever_holds_the_sweep() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    let lock = fs::File::open(told.sweep.results().join("lock")).unwrap();
    lock.lock().unwrap();
    let manifest = told.manifest();
    let follow = |args: &[&str], log: &str| {
        let log = fs::File::create(told.path(log)).unwrap();
        told.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    };
    let mut run = follow(&["run", "sweep.toml"], "run.log");
    let mut table = follow(&["slurm-table", &manifest], "table.log");
    let log = |name: &str| fs::read_to_string(told.path(name)).unwrap();
    wait_for(|| {
        ["run.log", "table.log"].iter().all(|name| log(name).contains("holds this sweep; nothing is concluded"))
    });
    (0..3).for_each(|index| told.work(index));
    lock.unlock().unwrap();
    for (process, name) in [(&mut run, "run.log"), (&mut table, "table.log")] {
        assert_eq!(process.wait().unwrap().code(), Some(0), "{}", log(name));
    }
    assert!(told.sweep.journal().contains("\"closed\""));
}

#[test]
fn a_unit_of_a_submission_that_is_over_is_not_worked_on() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    told.say("squeue.fails", "");
    ends(&told.run(&["cancel", "sweep.toml", "--abandon"]), 0, "submission 1 of tiny is cancelled");
    let unit = |index: &str| told.run(&["slurm-unit", &told.manifest(), index]);
    ends(&unit("1"), 2, "submission 1 was cancelled");
    assert!(!told.sweep.results().join("trials").exists(), "nothing was begun");
    fs::remove_file(told.path("squeue.fails")).unwrap();
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    let second = told.sweep.results().join("slurm/2/manifest.json").to_string_lossy().into_owned();
    for index in ["0", "1", "2"] {
        ends(&told.run(&["slurm-unit", &second, index]), 0, "on ");
    }
    ends(&told.run(&["run", "sweep.toml"]), 0, "3 trials done");
    ends(&told.run(&["slurm-unit", &second, "1"]), 2, "submission 2 is over");
}

#[test]
fn a_report_shows_what_units_have_recorded_and_is_watched_while_slurm_has_the_sweep() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    told.work(0);
    let report = told.run(&["report", "sweep.toml"]);
    ends(&report, 0, "");
    let table = text(&report.stdout);
    let of_base = table.lines().find(|line| line.starts_with("| Base")).unwrap_or_default();
    assert!(of_base.contains("0.75") && count(&table, "0.75") == 2, "{table}");
    let shown = told.path("shown");
    let out = fs::File::create(&shown).unwrap();
    let mut watch = told.command(&["report", "sweep.toml", "--watch"]).stdout(out).spawn().unwrap();
    wait_for(|| count(&fs::read_to_string(&shown).unwrap(), "| Base") > 1);
    told.say("squeue.fails", "");
    ends(&told.run(&["cancel", "sweep.toml", "--abandon"]), 0, "submission 1 of tiny is cancelled");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

/// What was put into the harness's working directory of the sweep is there for every unit: its node may have no network.
#[test]
fn units_work_with_what_was_prepared_for_the_harness() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    let spec = fs::read_to_string(told.sweep.path("sweep.toml")).unwrap();
    let tiny = "[{ task = \"tinyArc\", columns = { arc = \"acc,none\" } }]";
    let spec = spec.replace("[\"facts\", \"sums\"]", tiny);
    fs::write(told.sweep.path("sweep.toml"), spec.replace("\"dummy\"", "\"hf\"\ndevice = \"cpu\"")).unwrap();
    let home = told.sweep.results().join("harness");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("tinyBenchmarks.pkl"), "parameters").unwrap();
    let offline =
        |args: &[&str]| told.command(args).env("HF_HUB_OFFLINE", "1").env("FAKE_LM_EVAL_WRONG", "20").output().unwrap();
    ends(&offline(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    ends(&offline(&["slurm-unit", &told.manifest(), "0"]), 0, "unit 0: Base on ");
    let said =
        walk(&told.sweep.results().join("trials")).into_iter().find(|path| path.ends_with("stdout.log")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&fs::read_to_string(said).unwrap()).unwrap();
    assert_eq!(said["cwd"].as_str().map(PathBuf::from), fs::canonicalize(home).ok());
}

/// A task that is begun again, as after its time was over, goes on with what is to be done again.
#[test]
fn what_is_done_again_is_so_once_a_submission() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    ends(&told.run(&["run", "sweep.toml", "--detach"]), 0, "3 trials with Slurm");
    (0..3).for_each(|index| told.work(index));
    ends(&told.run(&["run", "sweep.toml"]), 0, "3 trials done");
    ends(&told.run(&["run", "sweep.toml", "--redo", "*", "--detach"]), 0, "3 trials with Slurm");
    let second = told.sweep.results().join("slurm/2/manifest.json").to_string_lossy().into_owned();
    for index in ["0", "1", "1", "2", "1"] {
        ends(&told.run(&["slurm-unit", &second, index]), 0, "on ");
    }
    ends(&told.run(&["run", "sweep.toml"]), 0, "3 trials done");
    assert_eq!(count(&told.sweep.journal(), "\"event\":\"evaluated\""), 6, "{}", told.sweep.journal());
    assert_eq!(count(&told.sweep.journal(), "\"event\":\"merged\""), 4);
}

/// Whoever goes on with a run asks what was refused again: it is not among what was attempted and failed.
#[test]
fn what_slurm_refused_was_not_attempted() {
    let unit = |name: &str| {
        let member = Member { name: name.to_owned(), id: TrialId(name.to_owned()) };
        Unit { id: name.to_owned(), trials: vec![member], bytes: 0 }
    };
    let job = |name: &str, unit| Job { name: name.to_owned(), units: vec![unit], ..Job::default() };
    let mut records: Vec<Record> = [
        Step::Opened { submission: 1, units: vec![unit("a"), unit("b")], search: None },
        Step::Submitting { submission: 1, job: job("1", 0) },
        Step::Submitting { submission: 1, job: job("2", 1) },
        Step::Submitted { submission: 1, name: "1".to_owned(), job: "17".to_owned() },
    ]
    .map(|step| Record { time: 0.0, trial: None, what: What::Slurm(step) })
    .into();
    let attempted = |records: &[Record], first| -> Vec<String> {
        Submission::attempted(records, first).into_iter().map(|(_, trial)| trial.0).collect()
    };
    assert_eq!(attempted(&records, 1), ["a"]);
    assert_eq!(attempted(&records, 2), [""; 0]);
    records.truncate(3);
    assert_eq!(attempted(&records, 1), [""; 0]);
}

/// `doctor` in a place where only these programs are to be found.
fn examined(told: &Told, programs: &[(&str, &str)]) -> Output {
    let bin = tempfile::tempdir().unwrap();
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    std::os::unix::fs::symlink(text(&python.stdout).trim(), bin.path().join("python3")).unwrap();
    for (name, script) in programs {
        fs::write(bin.path().join(name), script).unwrap();
        fs::set_permissions(bin.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    told.command(&["doctor", "sweep.toml", "--json"]).env("PATH", bin.path()).output().unwrap()
}

#[test]
fn doctor_looks_for_the_cluster_that_a_spec_asks_for() {
    let Some(told) = Told::new("RUNNING", "") else { return };
    let version = "#!/bin/sh\necho slurm 23.11\n";
    let others = [("squeue", version), ("sacct", version), ("scancel", version), ("sbatch", version)];
    let silent = [others.as_slice(), &[("scontrol", "#!/bin/sh\nexit 1\n")]].concat();
    let answers = [others.as_slice(), &[("scontrol", "#!/bin/sh\necho 'MaxArraySize = 1001'\n")]].concat();
    for (programs, verdict, says) in [
        (&[][..], "error", "`sbatch --version` does not work here"),
        (&silent, "error", "its controller does not answer"),
        (&answers, "ok", "slurm 23.11"),
    ] {
        let report: serde_json::Value = serde_json::from_slice(&examined(&told, programs).stdout).unwrap();
        let found = report["items"].as_array().unwrap().iter().find(|item| item["item"] == "slurm").unwrap();
        assert_eq!(found["verdict"], verdict, "{found}");
        assert!(found["found"].as_str().unwrap().contains(says), "{found}");
        assert_eq!(found["remedy"].is_null(), verdict == "ok", "{found}");
    }
    // Where nothing asks for one, nothing is said.
    let spec = fs::read_to_string(told.sweep.path("sweep.toml")).unwrap();
    fs::write(told.sweep.path("sweep.toml"), spec.replace("kind = \"slurm\"", "kind = \"local\"")).unwrap();
    assert!(!text(&examined(&told, &[]).stdout).contains("\"slurm\""));
}

fn task(line: &str) -> TaskState {
    queue::listed(&format!("7_3|n|{line}|None|n1")).remove(0).state
}

#[test]
fn states_are_read_as_slurm_writes_them() {
    let ended = |ending| TaskState::Ended(ending);
    for (text, state) in [
        ("PENDING", TaskState::Pending),
        ("REQUEUE_HOLD", TaskState::Pending),
        ("RUNNING", TaskState::Running),
        ("COMPLETING", TaskState::Running),
        ("SOMETHING_NEW", TaskState::Running),
        ("COMPLETED", ended(Ending::Completed)),
        ("FAILED", ended(Ending::ByItself)),
        ("TIMEOUT", ended(Ending::TimedOut)),
        ("NODE_FAIL", ended(Ending::Lost("NODE_FAIL".to_owned()))),
        ("PREEMPTED", ended(Ending::Lost("PREEMPTED".to_owned()))),
        ("OUT_OF_MEMORY", ended(Ending::OutOfMemory)),
        ("CANCELLED", ended(Ending::Cancelled(None))),
        ("CANCELLED by 0", ended(Ending::Cancelled(Some("0".to_owned())))),
    ] {
        assert_eq!(task(text), state, "{text}");
    }
}

#[test]
fn answers_are_read_as_slurm_22_05_gave_them() {
    let listed = "12_4|s-1a2b-1.1|PENDING|JobArrayTaskLimit|\n12_3|s-1a2b-1.1|RUNNING|None|n2\n\
                  13|s-1a2b-1.table|PENDING|DependencyNeverSatisfied|\n";
    let task = |job: &str, index, name: &str, state, reason: &str, node: &str| Task {
        name: name.to_owned(),
        job: job.to_owned(),
        index,
        state,
        reason: reason.to_owned(),
        node: node.to_owned(),
    };
    let expected = [
        task("12", Some(4), "s-1a2b-1.1", TaskState::Pending, "JobArrayTaskLimit", ""),
        task("12", Some(3), "s-1a2b-1.1", TaskState::Running, "None", "n2"),
        task("13", None, "s-1a2b-1.table", TaskState::Ended(Ending::Unmet), "DependencyNeverSatisfied", ""),
    ];
    assert_eq!(queue::listed(listed), expected);
    let accounts = queue::accounts("12_3|CANCELLED by 0\n12_4|OUT_OF_MEMORY\n13|COMPLETED\n");
    assert_eq!(accounts[0], ("12".to_owned(), Some(3), TaskState::Ended(Ending::Cancelled(Some("0".to_owned())))));
    assert_eq!(accounts[2], ("13".to_owned(), None, TaskState::Ended(Ending::Completed)));
    assert_eq!(queue::array_size("MailProg = /bin/mail\nMaxArraySize            = 1001\n"), Some(1001));
    let transient = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)";
    assert!(queue::is_transient(transient));
    assert!(!queue::is_transient("sbatch: error: invalid partition specified: nowhere"));
}
