//! The journal of a sweep: what happened, one JSON record a line, the only truth about progress.
//!
//! A record is appended whole, flushed and synced before the program goes on. A last line without its newline is what a
//! kill leaves behind: it is cut when the journal is opened. State is a fold over the records (`run::state`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::fingerprint::Key;
use super::hardware::Hardware;
use super::search::{Decided, Draw, Refined, Sampled};
use super::slurm::submission::Step;
use crate::eval::Score;
use crate::eval::results::HarnessFacts;
use crate::merge::Merge;
use crate::plan::TrialId;

/// Version of the records below. A journal with a larger number is refused.
pub const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
    journal: String,
    format: u32,
    program: String,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// UNIX seconds. Nothing is decided by it: clocks are set back.
    pub time: f64,
    /// The trial it is about; none where it is about the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialId>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened, to a trial where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// A run with something to do began.
    RunStarted {
        /// UNIX seconds, when it began to look around.
        since: f64,
        /// Evaluations at once.
        n_slots: usize,
        /// The machine it works on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hardware: Option<Hardware>,
    },
    /// That run ended by itself.
    RunEnded,
    /// A merge began; its output is not there until `merged` says so.
    MergeStarted,
    /// A merge is complete on disk.
    Merged {
        /// What it was made from.
        key: Key,
        /// The record of the merge.
        merge: Merge,
        /// Names what was written: weights, config, tokenizer, template.
        identity: String,
    },
    /// A merge was taken over from a twin: it was not made again, and there is no model of it.
    MergeShared {
        /// What it would have been made from.
        key: Key,
        /// The record of the twin's merge.
        merge: Merge,
        /// Names what was written for the twin.
        identity: String,
        /// Name of the twin.
        from: String,
    },
    /// A harness process began.
    EvaluationStarted {
        /// Its tasks.
        tasks: Vec<String>,
        /// Its folder, relative to the trial's.
        folder: String,
        /// What the answers will rest on, by task: results that were complete when the run was killed are taken over.
        #[serde(default)]
        keys: BTreeMap<String, Key>,
        /// Where it ran, from 0.
        #[serde(default)]
        slot: usize,
        /// Whether in a process that had seen other models.
        #[serde(default)]
        warm: bool,
        /// The batch size it takes, where that is not the one asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        batch_size: Option<String>,
    },
    /// A harness process failed, and its tasks are asked again in another way.
    EvaluationRetried {
        /// Its folder, relative to the trial's.
        folder: String,
        /// Why it failed.
        reason: String,
        /// How it is tried next.
        how: String,
    },
    /// A harness process ended well and its results were verified.
    Evaluated(Evaluation),
    /// The scores of a task were taken over: another trial has the same weights under the same settings.
    Shared {
        /// The scores.
        task: TaskEvaluation,
        /// Versions and formats the harness reported.
        harness: HarnessFacts,
        /// Whose they are: the name of a trial, after that of its sweep if it is another one.
        from: String,
    },
    /// A merged model was deleted after scoring.
    ModelDeleted,
    /// A step of a submission to Slurm.
    Slurm(Step),
    /// A search put the documents of its tasks into an order.
    SearchDrawn(Draw),
    /// A search decided after a rung who goes on.
    SearchDecided(Decided),
    /// A search looked for the optimum along the axes, and placed further points or none.
    SearchRefined(Refined),
    /// Optuna placed further points.
    SearchSampled(Sampled),
    /// A stage failed; the sweep went on.
    Failed {
        /// The stage.
        stage: Stage,
        /// Why, in words.
        reason: String,
    },
}

/// The record of one harness process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What was asked and answered, task by task.
    pub tasks: Vec<TaskEvaluation>,
    /// Versions and formats the harness reported.
    pub harness: HarnessFacts,
    /// Folder of its files, relative to the trial's.
    pub folder: String,
    /// Wall time.
    pub seconds: f64,
    /// The batch size it took, where that is not the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<String>,
}

/// The scores of one task, with what they rest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskEvaluation {
    /// Harness task.
    pub task: String,
    /// Everything that decides the answers.
    pub key: Key,
    /// The scores.
    pub scores: Vec<Score>,
}

/// A step of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Making the merged checkpoint.
    Merge,
    /// Running the harness on it.
    Evaluate,
}

impl Stage {
    /// The verb.
    pub fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Evaluate => "evaluate",
        }
    }
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The journal.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is no journal of ours.
    #[error("{path}:1: not a mergesweep journal (move the file away to start afresh)")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("{path}: journal format {found}, this program reads up to {FORMAT} (update mergesweep)")]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A whole line that is no record.
    #[error("{path}:{line}: not a journal record (restore the line from a copy, or delete it to do its work again)")]
    Record {
        /// The journal.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// A journal open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// Reads the records of a journal without touching it. An absent journal has none.
///
/// # Errors
/// [`JournalError`], naming the line.
pub fn read(path: &Path) -> Result<Vec<Record>, JournalError> {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(|(records, _)| records),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(JournalError::Io { path: path.to_owned(), source }),
    }
}

impl Journal {
    /// Opens the journal for appending, making it where it is absent, and cuts a half-written last line.
    ///
    /// # Errors
    /// [`JournalError`], naming the line.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let io_error = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io_error)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io_error)?;
        let (records, whole) = parse(path, &bytes)?;
        file.set_len(whole as u64).map_err(io_error)?;
        file.seek(SeekFrom::End(0)).map_err(io_error)?;
        let mut journal = Self { path: path.to_owned(), file };
        if whole == 0 {
            let program = format!("mergesweep {}", env!("CARGO_PKG_VERSION"));
            journal.append_lines(&[Header { journal: "mergesweep".to_owned(), format: FORMAT, program }])?;
        }
        Ok((journal, records))
    }

    /// Appends one record, about a trial or about the run, and syncs it to disk.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the disk refuses.
    pub fn append(&mut self, trial: Option<&TrialId>, what: What) -> Result<Record, JournalError> {
        let record = Record { time: now(), trial: trial.cloned(), what };
        self.append_lines(std::slice::from_ref(&record))?;
        Ok(record)
    }

    /// Appends records of one moment, and syncs them to disk together.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the disk refuses.
    pub fn append_all(&mut self, records: Vec<(TrialId, What)>) -> Result<Vec<Record>, JournalError> {
        let time = now();
        let of_trial = |(trial, what)| Record { time, trial: Some(trial), what };
        let records: Vec<Record> = records.into_iter().map(of_trial).collect();
        self.append_lines(&records)?;
        Ok(records)
    }

    /// Appends records of another journal as they are, and records of this moment about the run, and syncs them together.
    ///
    /// # Errors
    /// [`JournalError::Io`] when the disk refuses.
    pub fn take_over(&mut self, records: &[Record], then: Vec<What>) -> Result<(), JournalError> {
        let time = now();
        let then = then.into_iter().map(|what| Record { time, trial: None, what });
        let records: Vec<Record> = records.iter().cloned().chain(then).collect();
        self.append_lines(&records)
    }

    fn append_lines(&mut self, lines: &[impl Serialize]) -> Result<(), JournalError> {
        let io_error = |source| JournalError::Io { path: self.path.clone(), source };
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line).map_err(|error| io_error(error.into()))?;
            bytes.push(b'\n');
        }
        let whole = self.file.stream_position().map_err(io_error)?;
        // One write call, so that a kill leaves at most one partial line, at the end.
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            // A disk that is full takes part of a line, which the next record must not be glued to. If that cannot be
            // cut off either, it is cut when the journal is opened.
            let _ = self.file.set_len(whole).and_then(|()| self.file.seek(SeekFrom::Start(whole)));
            io_error(error)
        })
    }
}

/// UNIX seconds, to the millisecond.
pub fn now() -> f64 {
    let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    milliseconds as f64 / 1e3
}

/// Records of a journal's bytes, and how many of these are whole lines. What follows the last newline may end anywhere,
/// also inside a character.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, usize), JournalError> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let mut lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate();
    let Some((_, first)) = lines.next() else { return Ok((Vec::new(), 0)) };
    match serde_json::from_slice::<Header>(first) {
        Ok(header) if header.journal == "mergesweep" && header.format <= FORMAT => {}
        Ok(header) if header.journal == "mergesweep" => {
            return Err(JournalError::Newer { path: path.to_owned(), found: header.format });
        }
        _ => return Err(JournalError::NotAJournal { path: path.to_owned() }),
    }
    let records = lines
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|source| JournalError::Record {
                path: path.to_owned(),
                line: index + 1,
                source,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok((records, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal_with_two_records() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, records) = Journal::open(&path).unwrap();
        assert_eq!(records, []);
        let trial = TrialId("t1".to_owned());
        journal.append(Some(&trial), What::MergeStarted).unwrap();
        journal.append(Some(&trial), What::Failed { stage: Stage::Merge, reason: "a\nbé".to_owned() }).unwrap();
        (folder, path)
    }

    #[test]
    fn records_survive_reopening() {
        let (_folder, path) = journal_with_two_records();
        let (_, records) = Journal::open(&path).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1].what, What::Failed { stage: Stage::Merge, reason: "a\nbé".to_owned() });
    }

    #[test]
    fn a_cut_journal_resumes_from_the_last_whole_record() {
        let (_folder, path) = journal_with_two_records();
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..whole.len()).filter(|index| whole[*index] == b'\n').map(|index| index + 1).collect();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = Journal::open(&path).unwrap();
            let expected = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(records.len(), expected, "cut at byte {cut}");
            journal.append(Some(&TrialId("t2".to_owned())), What::ModelDeleted).unwrap();
            assert_eq!(read(&path).unwrap().len(), expected + 1, "cut at byte {cut}");
        }
    }

    #[test]
    fn a_newer_journal_and_a_foreign_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        std::fs::write(&path, "{\"journal\":\"mergesweep\",\"format\":999,\"program\":\"x\"}\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Newer { found: 999, .. })));
        std::fs::write(&path, "a,b,c\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::NotAJournal { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b,c\n");
    }
}
