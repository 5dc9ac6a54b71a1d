//! Tokens, GPUs, memory, disk, sandbox and batch system.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{DoctorArgs, Finding};
use crate::eval::{CodeEval, Settings, preflight};
use crate::process::{self, Cancel, Invocation};
use crate::run::hardware;
use crate::run::slurm::queue;
use crate::spec::{EngineKind, Sweep};

/// Bytes that are written to see how fast the disk is, a piece at a time.
const WRITTEN: usize = 64 << 20;
const PIECE: usize = 4 << 20;

/// Longest time spent on that.
const PATIENCE: Duration = Duration::from_secs(5);

/// Less free memory or disk than this is worth a warning.
const LITTLE_MEMORY: u64 = 4 << 30;
const LITTLE_DISK: u64 = 5_000_000_000;

pub(super) fn findings(args: &DoctorArgs, sweep: Option<&Sweep>, settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![data_sets(settings), token(), gpus(settings), memory()];
    findings.push(disk("disk", &args.results, sweep.and_then(|sweep| sweep.resources.disk)));
    if let Some(work) = sweep.and_then(|sweep| sweep.resources.work_dir.as_deref()) {
        findings.push(disk("work_dir", work, sweep.and_then(|sweep| sweep.resources.disk)));
    }
    findings.extend(sandbox(settings));
    findings.extend(slurm(sweep));
    findings
}

/// A variable that says something.
fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where the libraries of the hub keep their files.
fn hub_home() -> PathBuf {
    let cache = || set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache"));
    set("HF_HOME").unwrap_or_else(|| cache().join("huggingface"))
}

/// Where data sets are kept, unless the spec says otherwise.
fn data_sets(settings: &Settings) -> Finding {
    let from_spec = settings.environment.get("HF_DATASETS_CACHE").map(PathBuf::from);
    let folder = from_spec.or_else(|| set("HF_DATASETS_CACHE")).unwrap_or_else(|| hub_home().join("datasets"));
    let n_sets = fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()).count();
    Finding::ok("data sets", format!("{n_sets} in {}", folder.display()))
}

/// Whether there is a token for the hub. It is not read further than that.
fn token() -> Finding {
    let item = "hub token";
    if let Some(name) = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find(|name| set(name).is_some()) {
        return Finding::ok(item, format!("set by {name}"));
    }
    let file = set("HF_TOKEN_PATH").unwrap_or_else(|| hub_home().join("token"));
    if file.is_file() {
        return Finding::ok(item, format!("in {}", file.display()));
    }
    Finding::ok(item, "none: models with restricted access cannot be had (`hf auth login`)")
}

fn capture(program: &str, args: &[&str]) -> Option<String> {
    let captured = process::capture(
        &Invocation::new(program, args.iter().copied()),
        Some(PATIENCE),
        &Cancel::never(),
        &mut |_| {},
    );
    captured.ok().filter(|captured| captured.exit.is_success()).map(|captured| captured.stdout.trim().to_owned())
}

fn gpus(settings: &Settings) -> Finding {
    let listed = hardware::listed("name,memory.total,memory.free,driver_version");
    let on_cpu = settings.device.as_deref().is_some_and(|device| device.starts_with("cpu"));
    if !listed.is_empty() {
        let gpus: Vec<String> = listed.iter().map(|fields| fields.join(", ")).collect();
        return Finding::ok("gpus", format!("{} (name, memory, free, driver)", gpus.join("; ")));
    }
    if on_cpu {
        return Finding::ok("gpus", "none; the spec asks for the CPU");
    }
    let remedy = "fine for small models; otherwise install the driver (`nvidia-smi` has to run)".to_owned();
    Finding::warning("gpus", "none: models are evaluated on the CPU", remedy)
}

fn memory() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (Some(total), Some(available)) = (hardware::memory("MemTotal"), hardware::memory("MemAvailable")) else {
        return Finding::warning("memory", "cannot be told on this system", None);
    };
    let text = format!("{} of {} available; {}", gib(available), gib(total), super::super::counted(cores, "core"));
    if available < LITTLE_MEMORY {
        let remedy = "end other programs: evaluating takes twice the size of a model".to_owned();
        return Finding::warning("memory", text, remedy);
    }
    Finding::ok("memory", text)
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

fn gb(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Free space where a folder is or will be, against what the spec wants to use, and the speed of writing there.
fn disk(item: &str, folder: &Path, wanted: Option<u64>) -> Finding {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(there) = absolute.ancestors().find(|folder| folder.is_dir()) else {
        return Finding::error(item, format!("`{}` is nowhere", folder.display()), None);
    };
    let free = match rustix::fs::statvfs(there) {
        Ok(space) => space.f_bavail.saturating_mul(space.f_frsize),
        Err(error) => return Finding::error(item, format!("`{}`: {error}", there.display()), None),
    };
    let speed = match write_speed(there, free) {
        Ok(speed) => speed,
        Err(error) => {
            let remedy = "choose another folder with `--results`, or give the right to write there".to_owned();
            return Finding::error(item, format!("cannot write to `{}`: {error}", there.display()), remedy);
        }
    };
    let speed = speed.map(|speed| format!(", written at {:.0} MB/s", speed / 1e6)).unwrap_or_default();
    let text = format!("{} free at {}{speed}", gb(free), there.display());
    match wanted {
        Some(wanted) if wanted > free => {
            let remedy = "give disk back with `mergesweep clean`, or lower `resources.disk`".to_owned();
            Finding::warning(item, format!("{text}; `resources.disk` is {}", gb(wanted)), remedy)
        }
        _ if free < LITTLE_DISK => Finding::warning(item, text, "an 8B model in 16 bits takes 16 GB".to_owned()),
        _ => Finding::ok(item, text),
    }
}

/// Bytes a second, of a file that is synced and deleted; none where there is no room to try.
fn write_speed(folder: &Path, free: u64) -> std::io::Result<Option<f64>> {
    let mut file = tempfile::tempfile_in(folder)?;
    if free < 4 * WRITTEN as u64 {
        return Ok(None);
    }
    // Not compressible to nothing.
    let piece: Vec<u8> = (0..PIECE).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let begun = Instant::now();
    let mut written = 0;
    while written < WRITTEN && begun.elapsed() < PATIENCE {
        file.write_all(&piece)?;
        written += piece.len();
    }
    file.sync_all()?;
    Ok(Some(written as f64 / begun.elapsed().as_secs_f64().max(1e-6)))
}

/// Whether model-written code could be shut in. Where a spec needs that, a failure is told with its tasks.
fn sandbox(settings: &Settings) -> Option<Finding> {
    match preflight::try_sandbox() {
        Ok(()) => Some(Finding::ok("bubblewrap", "programs can be shut in")),
        Err(_) if settings.allow_code_eval == CodeEval::Sandboxed => None,
        Err(why) => {
            let remedy = "only needed for `allow_code_eval = \"sandboxed\"`: apt-get install bubblewrap".to_owned();
            Some(Finding::warning("bubblewrap", format!("not usable: {why}"), remedy))
        }
    }
}

/// Commands of the batch system, where there is one or the spec asks for it.
fn slurm(sweep: Option<&Sweep>) -> Option<Finding> {
    let item = "slurm";
    let is_asked = sweep.is_some_and(|sweep| sweep.engine.kind == EngineKind::Slurm);
    let Some(version) = capture("sbatch", &["--version"]) else {
        let remedy = "run it on a login node of the cluster, or here with `--engine local`".to_owned();
        return is_asked.then(|| {
            Finding::error(item, "`engine.kind` is `slurm`, and `sbatch --version` does not work here", remedy)
        });
    };
    if is_asked && queue::max_array_size(&Cancel::never()).is_none() {
        let text = format!("{version}; `engine.kind` is `slurm`, and its controller does not answer");
        return Some(Finding::error(item, text, "`scontrol ping` and `scontrol show config` say why".to_owned()));
    }
    let commands = ["squeue", "sacct", "scancel"].into_iter();
    let missing: Vec<&str> = commands.filter(|command| capture(command, &["--version"]).is_none()).collect();
    Some(if missing.is_empty() {
        Finding::ok(item, version)
    } else {
        Finding::warning(item, format!("{version}; without {}", missing.join(", ")), None)
    })
}
