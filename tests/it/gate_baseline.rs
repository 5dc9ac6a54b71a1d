//! Baselines on disk: what is written is read, and a study's baseline is small enough for version control.

use std::fs;

use mergesweep::eval::Score;
use mergesweep::eval::task::{Column, PRESETS};
use mergesweep::gate::baseline::Noise;
use mergesweep::gate::{Baseline, BaselineError, Frozen, judge};
use mergesweep::paired::{Doc, Entrant, Outcomes};
use mergesweep::spec::Gate;
use mergesweep::stats::Items;
use mergesweep::stats::gate::Verdict;
use mergesweep::stats::random::word;
use mergesweep::stats::ratio::Scale;

/// 64 digits that no compression makes smaller, as those of real documents.
fn hash(column: usize, doc: usize, salt: u64) -> String {
    (0..4).map(|part| format!("{:016x}", word(column as u64, salt, (doc * 4 + part) as u64))).collect()
}

fn outcomes(trial: usize, place: usize, column: &Column) -> Outcomes {
    let n = if column.task == "humaneval" { 164 } else { 100 };
    let mut docs: Vec<Doc> =
        (0..n).map(|doc| Doc { hash: hash(place, doc, 1), id: doc as u64, prompt: hash(place, doc, 2) }).collect();
    docs.sort();
    let number = |doc: usize| (word(7, trial as u64, (place * 1000 + doc) as u64) >> 11) as f64 / (1_u64 << 53) as f64;
    let items = match column.task.as_str() {
        "math_bpb" => Items::Ratio((0..n).map(|doc| (100.0 * number(doc), 120.0)).collect(), Scale::Bits),
        "tinyTruthfulQA" => Items::Graded((0..n).map(number).collect()),
        _ => Items::Binary((0..n).map(|doc| number(doc) < 0.6).collect()),
    };
    Outcomes {
        task: column.task.clone(),
        metric: column.metric.clone(),
        filter: column.filter.clone(),
        version: Some("1.0".to_owned()),
        higher_is_better: column.task != "math_bpb",
        is_estimate: column.task.starts_with("tiny"),
        reported: Some(items.score()),
        docs,
        items,
    }
}

fn score(outcomes: &Outcomes) -> Score {
    Score {
        task: outcomes.task.clone(),
        metric: outcomes.metric.clone(),
        filter: outcomes.filter.clone(),
        n: Some(outcomes.docs.len() as u64),
        n_total: Some(outcomes.docs.len() as u64),
        value: outcomes.reported,
        stderr: None,
        higher_is_better: Some(outcomes.higher_is_better),
        task_version: outcomes.version.clone(),
        num_fewshot: Some(0),
        task_hash: None,
    }
}

/// As large as the study, with a loss beside its eight columns.
fn study() -> Baseline {
    let named = |name: &str| PRESETS.iter().find(|preset| preset.column == name).map(Column::from).unwrap();
    let mut columns: Vec<Column> = PRESETS[..8].iter().map(Column::from).collect();
    columns.push(named("math_bpb"));
    let trials = (0..19)
        .map(|trial| {
            let outcomes: Vec<Option<Outcomes>> = columns
                .iter()
                .enumerate()
                // One trial lacks one column.
                .map(|(place, column)| (trial != 3 || place != 2).then(|| outcomes(trial, place, column)))
                .collect();
            Frozen {
                scores: outcomes.iter().map(|outcomes| outcomes.as_ref().map(score)).collect(),
                entrant: Entrant {
                    name: format!("Trial {trial} → x"),
                    weights: Some(hash(99, trial, 0)),
                    files: vec![Vec::new(); columns.len()],
                    outcomes,
                },
            }
        })
        .collect();
    let null =
        Some(vec![Noise { trial: "Trial 0 → x".to_owned(), column: "tinyArc".to_owned(), n_changed: 1, n: 100 }]);
    Baseline { sweep: "study".to_owned(), columns, trials, null }
}

#[test]
fn a_baseline_is_read_as_it_was_written_and_is_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/baseline");
    let written = study();
    written.write(&path).unwrap();
    let size: u64 = fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 1_000_000, "{size} bytes");
    let read = Baseline::read(&path).unwrap();
    assert_eq!((read.sweep, read.columns, read.null), (written.sweep, written.columns, written.null));
    assert_eq!(read.trials.len(), written.trials.len());
    for (read, written) in read.trials.iter().zip(&written.trials) {
        assert_eq!(read.scores, written.scores);
        assert_eq!(read.entrant.name, written.entrant.name);
        assert_eq!(read.entrant.weights, written.entrant.weights);
        assert_eq!(read.entrant.outcomes, written.entrant.outcomes);
    }
}

#[test]
fn a_broken_or_newer_baseline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    study().write(folder.path()).unwrap();
    let read = || Baseline::read(folder.path());
    let items = fs::read(folder.path().join("items.parquet")).unwrap();
    fs::write(folder.path().join("items.parquet"), &items[..items.len() / 2]).unwrap();
    assert!(matches!(read(), Err(BaselineError::OtherItems { .. })));
    let record = folder.path().join("baseline.json");
    let text = fs::read_to_string(&record).unwrap();
    // Written before digests were: only what is broken is seen.
    fs::write(&record, text.replace("\"items_sha256\"", "\"unknown\"")).unwrap();
    assert!(matches!(read(), Err(BaselineError::Items { .. })));
    fs::write(&record, text.replace("\"format\": 1", "\"format\": 999")).unwrap();
    assert!(matches!(read(), Err(BaselineError::Newer { found: 999, .. })));
    fs::write(&record, "{}").unwrap();
    assert!(matches!(read(), Err(BaselineError::Record { .. })));
    assert!(matches!(Baseline::read(&folder.path().join("none")), Err(BaselineError::Io { .. })));
}

#[test]
fn documents_that_went_missing_from_a_baseline_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut fewer = study();
    fewer.trials[4].entrant.outcomes[1] = None;
    fewer.write(&folder.path().join("fewer")).unwrap();
    study().write(folder.path()).unwrap();
    fs::copy(folder.path().join("fewer/items.parquet"), folder.path().join("items.parquet")).unwrap();
    let refused = Baseline::read(folder.path()).unwrap_err();
    assert!(refused.to_string().contains("not the file that `baseline.json` beside it was written with"), "{refused}");

    // A score without its documents fails instead of going unjudged.
    let gate = Gate { margin: Some(0.2), ..Gate::default() };
    let entrants: Vec<Entrant> = study().trials.into_iter().map(|frozen| frozen.entrant).collect();
    let judgement = judge(&fewer, &fewer.columns, &entrants, &gate, 1);
    assert_eq!(judgement.verdict, Verdict::Fail);
    let failed: Vec<_> = judgement.judged.iter().filter(|judged| judged.verdict == Some(Verdict::Fail)).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].reason.as_ref().unwrap().contains("the baseline has no documents"));
}
