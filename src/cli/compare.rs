//! `mergesweep compare`: two rows, document by document.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::compare_recipes::Recipes;
use super::estimates::Tester;
use super::recorded::ANY_SEED;
use super::side::{self, Side};
use super::{Failure, output_width, print, usage};
use crate::eval::gp_irt;
use crate::eval::samples::{self, Texts};
use crate::exit_code::{self, Exit};
use crate::paired::estimates::Asked;
use crate::paired::{Pair, across, align};
use crate::stats::{Comparison, SEED};
use crate::table::{differences, reference, render, totals};

/// Compare two trials, document by document
///
/// Documents are matched by the harness' hash of them. Per column: both scores, their difference
/// with its 95 % interval, how many documents only one of the two got right, and the p-value of
/// an exact or permutation test; then one test over all tasks. Differing documents, task
/// versions or prompts are refused, column by column.
///
/// A and B are SPEC:TRIAL, BASELINE:TRIAL (a folder made by `freeze`), or a folder with output of
/// the harness (`--log_samples`). B alone is a trial of A's sweep.
///
/// Two recipes of a random method, named as in the table over merge seeds, are compared over the
/// seeds that both were drawn with: means, and intervals that count the documents and the seeds.
///
/// With a CSV table as A and the name of one of its rows as B, all rows are compared with that
/// one from their totals alone: which differences could be significant at all.
///
/// Examples:
///   mergesweep compare sweeps/quickstart.toml:TIES Instruct
///   mergesweep compare sweeps/quickstart.toml:TIES Instruct --items
///   mergesweep compare sweeps/quickstart.toml:TIES old/lm-eval-output --json
///   mergesweep compare "sweeps/dare-density.toml:DARE-TIES (density=0.1, seed=*)" \
///       "DARE-TIES (density=0.9, seed=*)"
///   mergesweep compare results/reference/study.csv Instruct
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = exit_code::HELP)]
pub(super) struct CompareArgs {
    /// SPEC:TRIAL, BASELINE:TRIAL, a folder with harness output, or a CSV table
    a: String,
    /// The same, or the name of a trial of A's sweep
    b: String,
    /// Folder that holds the results of all sweeps
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// List every document that scored differently: prompt, both answers, target
    #[arg(long)]
    items: bool,
    /// Compare although prompts differ (another chat template on purpose)
    #[arg(long)]
    any_prompt: bool,
    /// Test gp-IRT estimates themselves, with the tinyBenchmarks package of --python; DIR holds the
    /// tinyBenchmarks.pkl that the scores were made with (RESULTS/<sweep>/harness)
    #[arg(long, value_name = "DIR")]
    gp_irt: Option<PathBuf>,
    /// Python interpreter for --gp-irt [default: $MERGESWEEP_PYTHON, else the active virtual environment's, else python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of one column.
struct Outcome<'a> {
    column: String,
    pair: Result<(Pair<'a>, Comparison), String>,
    /// Places of the column on both sides.
    places: (usize, usize),
}

pub(super) fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    if Path::new(&args.a).extension().is_some_and(|extension| extension == "csv") {
        return totals_of(args);
    }
    // A name without them is a trial's own.
    let are_recipes = [&args.a, &args.b].iter().all(|name| name.contains(ANY_SEED));
    if let Some((spec, names)) = side::of_one_sweep(&args.a, &args.b).filter(|_| are_recipes)
        && let Some(recipes) = Recipes::of(spec, names, &args.results)?
    {
        recipes.print(args.json)?;
        return Ok(Exit::Ok);
    }
    let (a, b) = side::both(&args.a, &args.b, &args.results)?;
    let outcomes = compared(&a, &b, args.any_prompt);
    let across = together(&outcomes);
    let estimates = estimates(args, &outcomes)?;
    let items = if args.items { flipped(&outcomes, &a, &b)? } else { Vec::new() };
    if args.json {
        print(&serde_json::to_string_pretty(&as_json(&a, &b, &outcomes, across, &items))?)?;
        return Ok(Exit::Ok);
    }
    let found: Vec<(String, Comparison)> = outcomes
        .iter()
        .filter_map(|outcome| {
            let (pair, comparison) = outcome.pair.as_ref().ok()?;
            let down = if pair.first.higher_is_better { "" } else { " (↓)" };
            Some((format!("{}{down}", outcome.column), comparison.clone()))
        })
        .collect();
    let cells = differences::pair((&a.entrant.name, &b.entrant.name), &found);
    print(&render::markdown(&cells, output_width()))?;
    let mut notes: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| Some(format!("`{}` is not compared: {}", outcome.column, outcome.pair.as_ref().err()?)))
        .collect();
    if let Some((p, n_tasks)) = across {
        notes.push(format!("all {n_tasks} tasks together: p {}", differences::p_value(p)));
    }
    notes.extend(estimates);
    if outcomes.iter().any(|outcome| outcome.pair.as_ref().is_ok_and(|(pair, _)| pair.first.is_estimate)) {
        notes.push(
            "gp-IRT columns: the answers that the estimates are made from are compared, not the estimates".to_owned(),
        );
    }
    if !notes.is_empty() {
        print(&format!("\n{}", notes.join("\n")))?;
    }
    for item in &items {
        print(&item_text(item, (&a.entrant.name, &b.entrant.name)))?;
    }
    Ok(Exit::Ok)
}

/// A table of totals: every row beside one.
fn totals_of(args: &CompareArgs) -> Result<Exit, Failure> {
    let reference = reference::read(Path::new(&args.a)).map_err(usage)?;
    let Some((cells, remarks)) = totals::totals(&reference, &args.b) else {
        let known: Vec<&str> = reference.rows.iter().map(|(name, _)| name.as_str()).collect();
        return Err(usage(anyhow!("{}: no row `{}`, only {}", args.a, args.b, known.join(", "))));
    };
    if args.json {
        print(&json!({ "head": cells.head, "rows": cells.rows, "remarks": remarks }).to_string())?;
    } else {
        print(&render::markdown(&cells, output_width()))?;
        print(&format!("\n{}", remarks.join("\n")))?;
    }
    Ok(Exit::Ok)
}

/// The swap tests of gp-IRT estimates, a line each, where they are asked for.
fn estimates(args: &CompareArgs, outcomes: &[Outcome<'_>]) -> Result<Vec<String>, Failure> {
    let Some(home) = &args.gp_irt else { return Ok(Vec::new()) };
    let python = args.python.clone().unwrap_or_else(|| super::default_python(&|name| std::env::var(name).ok()));
    let tester = Tester { python, home: std::path::absolute(home)? };
    let mut lines = Vec::new();
    for Outcome { column, pair, places } in outcomes {
        let Some(asked) = pair.as_ref().ok().and_then(|(pair, _)| Asked::of(pair, *places, SEED)) else { continue };
        lines.push(match tester.test(&asked)? {
            None => format!("`{column}`: all answers are the same, and so are the estimates"),
            Some(test) => format!(
                "`{column}`: gp-IRT estimates {}, {}: difference {}, p {} (swap test, {} draws; parameters sha256 {})",
                render::value(Some(test.first)),
                render::value(Some(test.second)),
                render::value(Some(test.draws.observed)),
                differences::p_value(test.draws.p()),
                gp_irt::DRAWS,
                &test.parameters[..12]
            ),
        });
    }
    Ok(lines)
}

/// The columns that both sides have, in the order of the first.
fn compared<'a>(a: &'a Side, b: &'a Side, any_prompt: bool) -> Vec<Outcome<'a>> {
    let mut outcomes = Vec::new();
    for (here, column) in a.columns.iter().enumerate() {
        let same = |other: &&crate::eval::task::Column| {
            (&other.task, &other.metric, &other.filter) == (&column.task, &column.metric, &column.filter)
        };
        let there = b.columns.iter().position(|other| same(&other));
        let pair = match there.map(|there| (&a.entrant.outcomes[here], &b.entrant.outcomes[there])) {
            Some((Some(one), Some(other))) => match align(one, other, any_prompt) {
                Ok(pair) => pair.compare(SEED).map(|comparison| (pair, comparison)).ok_or_else(no_samples),
                Err(reason) => Err(reason.to_string()),
            },
            Some(_) => Err(no_samples()),
            None => Err(format!("{} has no such number", b.entrant.name)),
        };
        outcomes.push(Outcome { column: column.name.clone(), pair, places: (here, there.unwrap_or_default()) });
    }
    outcomes
}

fn no_samples() -> String {
    "one of the two has no score or no samples".to_owned()
}

/// The test over all tasks, one column each: p-value and number of tasks.
fn together(outcomes: &[Outcome<'_>]) -> Option<(f64, usize)> {
    let pairs = outcomes.iter().filter_map(|outcome| Some(outcome.pair.as_ref().ok()?.0));
    let (draws, n_tasks) = across(pairs, SEED)?;
    (n_tasks > 1).then(|| (draws.p(), n_tasks))
}

/// A document that scored differently.
struct Item {
    column: String,
    doc_id: u64,
    doc_hash: String,
    scores: (String, String),
    texts: (Option<Texts>, Option<Texts>),
}

fn flipped(outcomes: &[Outcome<'_>], a: &Side, b: &Side) -> Result<Vec<Item>, Failure> {
    let mut items = Vec::new();
    for outcome in outcomes {
        let Ok((pair, _)) = &outcome.pair else { continue };
        let places = pair.flipped();
        let wanted: HashSet<String> = places.iter().map(|place| pair.first.docs[*place].hash.clone()).collect();
        let texts = |side: &Side, column: usize| -> Result<BTreeMap<String, Texts>, Failure> {
            let files = side.entrant.files.get(column).into_iter().flatten();
            let texts = files.map(|file| samples::texts(file, &pair.first.filter, &wanted));
            Ok(texts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        };
        let (of_a, of_b) = (texts(a, outcome.places.0)?, texts(b, outcome.places.1)?);
        for place in places {
            let doc = &pair.first.docs[place];
            items.push(Item {
                column: outcome.column.clone(),
                doc_id: doc.id,
                doc_hash: doc.hash.clone(),
                scores: (pair.first.shown(place), pair.second.shown(place)),
                texts: (of_a.get(&doc.hash).cloned(), of_b.get(&doc.hash).cloned()),
            });
        }
    }
    Ok(items)
}

fn item_text(item: &Item, names: (&str, &str)) -> String {
    let Item { column, doc_id, scores, texts, .. } = item;
    let mut lines =
        vec![format!("\n## {column}, document {doc_id}: {} {}, {} {}", names.0, scores.0, names.1, scores.1)];
    let indented = |label: &str, text: &str| {
        let text = text.lines().map(render::plain).collect::<Vec<_>>().join("\n    ");
        format!("{label}:\n    {text}")
    };
    let any = texts.0.as_ref().or(texts.1.as_ref());
    if let Some(any) = any {
        lines.push(indented("prompt", &any.prompt));
        lines.push(indented("target", &any.target));
    }
    for (name, texts) in [(names.0, &texts.0), (names.1, &texts.1)] {
        if let Some(texts) = texts {
            lines.push(indented(&format!("answer of {name}"), &texts.answer));
        }
    }
    lines.join("\n")
}

fn as_json(a: &Side, b: &Side, outcomes: &[Outcome<'_>], across: Option<(f64, usize)>, items: &[Item]) -> Value {
    let p: Vec<f64> = outcomes.iter().filter_map(|outcome| Some(outcome.pair.as_ref().ok()?.1.p)).collect();
    let mut adjusted = crate::stats::multiple::holm(&p).into_iter();
    let columns: Vec<Value> = outcomes
        .iter()
        .map(|outcome| match &outcome.pair {
            Ok((pair, comparison)) => json!({
                "column": outcome.column,
                "task": pair.first.task,
                "metric": pair.first.metric,
                "filter": pair.first.filter,
                "higher_is_better": pair.first.higher_is_better,
                "comparison": comparison,
                "p_adjusted": adjusted.next(),
                "cannot_be_significant": comparison.cannot_be_significant(),
                "answers_of_estimate": pair.first.is_estimate,
            }),
            Err(reason) => json!({ "column": outcome.column, "not_compared": reason }),
        })
        .collect();
    let items: Vec<Value> = items
        .iter()
        .map(|item| {
            json!({
                "column": item.column,
                "doc_id": item.doc_id,
                "doc_hash": item.doc_hash,
                "first": { "score": item.scores.0, "texts": item.texts.0 },
                "second": { "score": item.scores.1, "texts": item.texts.1 },
            })
        })
        .collect();
    json!({
        "first": a.entrant.name,
        "second": b.entrant.name,
        "seed": SEED,
        "columns": columns,
        "all_tasks": across.map(|(p, n_tasks)| json!({ "p": p, "n_tasks": n_tasks })),
        "items": items,
    })
}
