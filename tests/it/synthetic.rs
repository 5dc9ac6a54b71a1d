//! A made-up sweep of 60 trials with answers to every document, for tests of reports: three models, merges that share most
//! of their answers, a grid over one axis, one over two with seeds, twins. The same in every run.

use std::f64::consts::TAU;
use std::sync::OnceLock;

use mergesweep::config::Scalar;
use mergesweep::eval::Score;
use mergesweep::eval::results::HarnessFacts;
use mergesweep::eval::task::{Column, Estimator};
use mergesweep::paired::seeds::{SeedGroup, seed_groups};
use mergesweep::paired::{Against, Doc, Entrant, Estimates, Outcomes, against};
use mergesweep::plan::TrialId;
use mergesweep::report::page::Origin;
use mergesweep::report::{Gathered, Page, gather};
use mergesweep::stats::{Items, SEED, random, ratio};
use mergesweep::table::{ResultsTable, Row};

/// Task, documents, difficulty, gain of the math and of the code half, whether it is a loss.
const TASKS: [(&str, u64, f64, f64, f64, bool); 6] = [
    ("humaneval", 164, -0.1, -0.5, 0.5, false),
    ("gsm8k", 250, 0.1, 0.6, -0.4, false),
    ("arc_challenge", 300, 0.3, 0.05, -0.05, false),
    ("mmlu", 285, 0.2, 0.0, 0.05, false),
    ("hellaswag", 200, 0.6, -0.1, 0.0, false),
    ("code_bpb", 80, 0.0, -0.2, 0.6, true),
];

/// A trial: its row, and how much of each half it has.
struct Made {
    row: Row,
    mix: (f64, f64),
    weights: String,
}

/// Everything of the sweep.
pub struct Synthetic {
    pub table: ResultsTable,
    pub entrants: Vec<Entrant>,
    pub against: Against,
    pub recipes: Vec<SeedGroup>,
}

impl Synthetic {
    /// The report of it.
    pub fn page(&self) -> Page {
        let origin = |row: &Row| Origin {
            id: row.id.to_string(),
            weights: Some(format!("{:016x}", random::stream(1, &row.trial))),
            seed: row.seed,
            hardware: Some("cpu, float32".to_owned()),
            merge_seconds: (row.kind == "merge").then_some(3.2),
            evaluation_seconds: Some(41.5),
            config: row.method.map(|method| format!("merge_method: {method}\n")),
        };
        let gathered = Gathered {
            table: &self.table,
            entrants: &self.entrants,
            against: Some(&self.against),
            recipes: &self.recipes,
            origins: self.table.rows.iter().map(origin).collect(),
            texts: None,
        };
        let mut page = gather(&gathered).unwrap();
        page.settings = vec![("program".to_owned(), "mergesweep, made-up numbers".to_owned())];
        page.sources = vec![("sweep.toml".to_owned(), "name = \"synthetic-60\"\n".to_owned())];
        page.findings = vec!["sweep.toml:9:1: this sweep is made up: no model was run".to_owned()];
        page
    }
}

/// A number from the standard normal distribution for a place.
fn normal(name: &str, place: u64) -> f64 {
    let seed = random::stream(7, name);
    let uniform = |draw: u64| (random::word(seed, draw, place) >> 11) as f64 / (1_u64 << 53) as f64;
    (-2.0 * (1.0 - uniform(0)).ln()).sqrt() * (TAU * uniform(1)).cos()
}

fn trials() -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    let mut add = |name: String, kind, method, seed, axes: Vec<(&str, Scalar)>, mix, weights: String| {
        let axes = axes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let id = TrialId(format!("{:016x}", random::stream(3, &name)));
        made.push(Made { row: Row { id, trial: name, kind, method, seed, axes, scores: Vec::new() }, mix, weights });
    };
    let (model, merge) = ("model", "merge");
    add("Instruct".into(), model, None, None, vec![], (0.0, 0.0), "instruct".into());
    add("Math".into(), model, None, None, vec![], (1.0, -0.2), "math".into());
    add("Code".into(), model, None, None, vec![], (-0.2, 1.0), "code".into());
    for tenth in 1..10 {
        let t = f64::from(tenth) / 10.0;
        let weights = format!("slerp {tenth}");
        let axes = vec![("t", Scalar::Float(t))];
        add(format!("SLERP (t={t})"), merge, Some("slerp"), None, axes, (1.15 * (1.0 - t), 1.15 * t), weights);
    }
    add("Linear".into(), merge, Some("linear"), None, vec![], (0.57, 0.57), "slerp 5".into());
    add("TIES".into(), merge, Some("ties"), None, vec![], (0.7, 0.5), "ties".into());
    add("Task arithmetic".into(), merge, Some("task_arithmetic"), None, vec![], (0.8, 0.8), "task".into());
    for density in [0.1, 0.3, 0.5, 0.7, 0.9] {
        for weight in [0.3, 0.6, 0.9] {
            for seed in 1..=3 {
                let name = format!("DARE-TIES (density={density}, weight={weight}, seed={seed})");
                let axes = vec![
                    ("density", Scalar::Float(density)),
                    ("weight", Scalar::Float(weight)),
                    ("seed", Scalar::Int(seed)),
                ];
                let noise = (1.0 - density) * 0.35;
                let share = weight * (1.2 - 0.5 * weight) * (0.5 + 0.5 * density);
                let half = |half: &str| share + noise * normal(half, random::stream(5, &name));
                let mix = (half("math"), half("code"));
                add(name.clone(), merge, Some("dare_ties"), Some(seed.unsigned_abs()), axes, mix, name);
            }
        }
    }
    made
}

fn column((task, _, _, _, _, is_loss): &(&str, u64, f64, f64, f64, bool)) -> Column {
    let (metric, estimator) = match *task {
        "humaneval" => ("pass@1", Estimator::PassAt1),
        _ if *is_loss => ("bits_per_byte", Estimator::BitsPerByte),
        _ => ("acc", Estimator::Accuracy),
    };
    Column { name: (*task).into(), task: (*task).into(), metric: metric.into(), filter: "none".into(), estimator }
}

/// What a trial scored on a task: every document has a difficulty that all trials share, and a little of its own.
fn outcomes(made: &Made, task: &(&str, u64, f64, f64, f64, bool)) -> Outcomes {
    let (name, n, ease, math, code, is_loss) = *task;
    let ability = ease + math * made.mix.0 + code * made.mix.1;
    let docs: Vec<Doc> = (0..n)
        .map(|id| Doc {
            hash: format!("{:016x}", random::word(11, random::stream(13, name), id)),
            id,
            prompt: format!("{id}"),
        })
        .collect();
    let latent = |doc: &Doc| {
        let own = normal(&format!("{} {name}", made.weights), doc.id);
        ability - 1.1 * normal(name, doc.id) - 0.35 * own
    };
    let mut docs = docs;
    docs.sort();
    let items = if is_loss {
        let loss = |doc: &Doc| {
            let bytes = 120.0 + 200.0 * f64::from(doc.id as u32 % 7);
            (bytes * (0.55 - 0.12 * latent(doc)).max(0.05), bytes)
        };
        Items::Ratio(docs.iter().map(loss).collect(), ratio::Scale::Bits)
    } else {
        Items::Binary(docs.iter().map(|doc| latent(doc) > 0.0).collect())
    };
    Outcomes {
        task: name.to_owned(),
        metric: column(task).metric,
        filter: "none".to_owned(),
        version: Some("1".to_owned()),
        higher_is_better: !is_loss,
        is_estimate: false,
        reported: Some(items.score()),
        docs,
        items,
    }
}

/// The sweep, made once.
pub fn sweep() -> &'static Synthetic {
    static SWEEP: OnceLock<Synthetic> = OnceLock::new();
    SWEEP.get_or_init(made)
}

fn made() -> Synthetic {
    let mut made = trials();
    assert_eq!(made.len(), 60);
    let entrants: Vec<Entrant> = made
        .iter()
        .map(|made| Entrant {
            name: made.row.trial.clone(),
            weights: Some(made.weights.clone()),
            outcomes: TASKS.iter().map(|task| Some(outcomes(made, task))).collect(),
            files: vec![Vec::new(); TASKS.len()],
        })
        .collect();
    for (made, entrant) in made.iter_mut().zip(&entrants) {
        let scores = entrant.outcomes.iter().flatten().map(|outcomes| {
            let score = Score {
                task: outcomes.task.clone(),
                metric: outcomes.metric.clone(),
                filter: outcomes.filter.clone(),
                n: Some(outcomes.items.len() as u64),
                n_total: None,
                value: outcomes.reported,
                stderr: outcomes.items.standard_error(),
                higher_is_better: Some(outcomes.higher_is_better),
                task_version: outcomes.version.clone(),
                num_fewshot: Some(0),
                task_hash: None,
            };
            (score, HarnessFacts::default())
        });
        made.row.scores = scores.collect();
    }
    let tasks: Vec<&str> = TASKS.iter().map(|task| task.0).collect();
    let against = against(&tasks, &entrants, 0, &Estimates::new(), SEED).unwrap();
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (place, made) in made.iter().enumerate().filter(|(_, made)| made.row.seed.is_some()) {
        let name = made.row.trial.split(", seed=").next().unwrap().to_owned() + ")";
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, places)) => places.push(place),
            None => groups.push((name, vec![place])),
        }
    }
    let recipes = seed_groups(&groups, &entrants, TASKS.len(), entrants.first());
    let rows = made.into_iter().map(|made| made.row).collect();
    let table = ResultsTable {
        sweep: "synthetic-60".to_owned(),
        columns: TASKS.iter().map(column).collect(),
        rows,
        race: None,
        near: Vec::new(),
    };
    Synthetic { table, entrants, against, recipes }
}
