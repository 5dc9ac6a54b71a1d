//! The scripts that `sbatch` gets. What comes from a spec is quoted, for Slurm's reader of `#SBATCH` lines and for the shell,
//! but for the prologue, which is meant for the shell.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::submission::{Job, Part};
use crate::spec::engine::{JobRequest, Slurm};

/// The hidden command of a task.
pub const UNIT_COMMAND: &str = "slurm-unit";

/// What it is told besides where it is to make the merges only.
const MERGES: &str = " --merges";

/// The hidden command of the job that writes the table.
pub const TABLE_COMMAND: &str = "slurm-table";

/// What all scripts of a submission have in common.
#[derive(Debug, Clone)]
pub(super) struct Setting<'a> {
    pub settings: &'a Slurm,
    /// This program.
    pub program: &'a Path,
    /// The spec, by which people recognise a job.
    pub spec: &'a Path,
    /// The folder that jobs start in.
    pub here: &'a Path,
    /// The folder of the submission.
    pub folder: PathBuf,
}

impl Setting<'_> {
    /// Where the units are written down.
    pub fn manifest(&self) -> PathBuf {
        self.folder.join("manifest.json")
    }

    /// The file of a script.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.sh"))
    }

    /// The folder of the jobs' output.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// A job whose tasks work on units, by number in the manifest; `at_once` of them at the same time.
    pub fn array(&self, job: &Job, at_once: Option<usize>) -> String {
        let units = &job.units;
        let last = units.len().saturating_sub(1);
        let throttle = at_once.map(|at_once| format!("%{at_once}")).unwrap_or_default();
        let first = units.first().copied().unwrap_or_default();
        let is_run = units.iter().enumerate().all(|(index, unit)| *unit == first + index);
        let (before, number) = if is_run {
            (String::new(), format!("\"$(({first} + SLURM_ARRAY_TASK_ID))\""))
        } else {
            let list: Vec<String> = units.iter().map(ToString::to_string).collect();
            (format!("units=({})\n", list.join(" ")), "\"${units[$SLURM_ARRAY_TASK_ID]}\"".to_owned())
        };
        let units = super::counted(units.len(), "unit");
        let (about, asked, option) = match job.part {
            Part::Whole => (format!("{units} of a sweep, one a task"), &self.settings.unit, ""),
            Part::Merges => (format!("the merges of {units} of a sweep, a unit a task"), &self.settings.merge, MERGES),
            Part::Evaluations => {
                (format!("the evaluations of {units} of a sweep, a unit a task"), &self.settings.unit, "")
            }
        };
        let mut text = self.head(&job.name, &about, asked, "%x-%A_%a.log");
        let _ = writeln!(text, "{}", directive(&format!("--array=0-{last}{throttle}")));
        let _ = writeln!(text, "{}{before}{} {number}{option}", self.prologue(), self.command(UNIT_COMMAND));
        text
    }

    /// The job that gathers what the units left and writes the table. It has two tasks, one after the other: where the first is lost,
    /// in whatever way, the second does what is due, and otherwise finds it done.
    pub fn table(&self, name: &str) -> String {
        let about = "gathers the results of a sweep and writes its table; the second task is for what the first leaves";
        let mut text = self.head(name, about, &self.settings.table, "%x-%A_%a.log");
        let _ = writeln!(text, "{}", directive("--array=0-1%1"));
        let _ = writeln!(text, "{}{}", self.prologue(), self.command(TABLE_COMMAND));
        text
    }

    fn head(&self, name: &str, about: &str, job: &JobRequest, log: &str) -> String {
        let mut text = format!("#!/bin/bash\n# Written by mergesweep: {about}.\n");
        // A per cent sign of the path is no pattern.
        let logs = self.logs().display().to_string().replace('%', "%%");
        let own = [
            format!("--job-name={name}"),
            format!("--comment=mergesweep {}", self.spec.display()),
            format!("--output={logs}/{log}"),
            "--open-mode=append".to_owned(),
            format!("--chdir={}", self.here.display()),
            // The user's tokens come by environment, and stand in no file.
            "--export=ALL".to_owned(),
            "--requeue".to_owned(),
        ];
        // Of two that contradict each other the later one holds.
        for option in job.sbatch.iter().cloned().chain(options(job)).chain(own) {
            let _ = writeln!(text, "{}", directive(&option));
        }
        text
    }

    fn prologue(&self) -> String {
        let prologue =
            self.settings.prologue.as_deref().map(|lines| format!("{}\n", lines.trim_end())).unwrap_or_default();
        format!("\n{prologue}")
    }

    /// The program takes the place of the shell, so that signals reach it.
    fn command(&self, command: &str) -> String {
        let (program, manifest) = (self.program.display().to_string(), self.manifest().display().to_string());
        let words = self.settings.container.iter().cloned().chain([program, command.to_owned(), manifest]);
        format!("exec {}", words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" "))
    }
}

fn options(job: &JobRequest) -> Vec<String> {
    let mut options = Vec::new();
    let mut put = |name: &str, value: Option<String>| {
        options.extend(value.map(|value| format!("--{name}={value}")));
    };
    put("partition", job.partition.clone());
    put("account", job.account.clone());
    put("qos", job.qos.clone());
    put("time", job.time.map(|time| clock(time.as_secs())));
    put("gres", job.gpus.filter(|gpus| *gpus > 0).map(|gpus| format!("gpu:{gpus}")));
    put("cpus-per-task", job.cpus.map(|cpus| cpus.to_string()));
    put("mem", job.memory.map(|bytes| format!("{}M", bytes.div_ceil(1 << 20))));
    options
}

/// A time as Slurm writes it: `1-06:30:00`.
fn clock(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

/// A line for `sbatch`, which reads quotes and backslashes much as a shell does.
fn directive(option: &str) -> String {
    let is_plain = option.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_=./:,%+@".contains(letter));
    if is_plain {
        return format!("#SBATCH {option}");
    }
    format!("#SBATCH \"{}\"", option.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A word for the shell.
pub fn quoted(word: &str) -> String {
    let is_plain =
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_=./:,%+@".contains(letter));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_shell_and_slurm_as_they_are() {
        assert_eq!(quoted("/a/b-1.sh"), "/a/b-1.sh");
        assert_eq!(quoted("it's $(rm)"), r"'it'\''s $(rm)'");
        assert_eq!(directive("--comment=a \"b\" \\"), r##"#SBATCH "--comment=a \"b\" \\""##);
        assert_eq!([59, 3_661, 90_000].map(clock), ["00:00:59", "01:01:01", "1-01:00:00"]);
    }
}
