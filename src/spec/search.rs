//! `search`: which trials of the grid go on, decided on a growing part of the documents.

use super::{Space, Sweep, keys};
use crate::config::Scalar;
use crate::document::read::{Field, Table, listed, nearest};
use crate::document::{Code, Problems, Value};
use crate::eval::Settings;
use crate::eval::task::{self, Column};
use crate::search::Objective;
use crate::search::race::{POINT_RUNGS, Rule};
use crate::search::refine::{self, Aim};

/// `search`.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// `metric`: the columns that decide.
    pub columns: Vec<Column>,
    /// `metric` and `objective`: how they become one number.
    pub objective: Objective,
    /// `rungs`, `confidence`, `min_survivors`. A refinement, and a search for a Pareto front, have one rung of all documents.
    pub rule: Rule,
    /// `strategy`.
    pub way: Way,
    /// `confirmation`: share of the documents that no decision sees (default: none).
    pub confirmation: f64,
    /// `seed` of the order of the documents.
    pub seed: u64,
}

/// `strategy`, with the settings of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// Every trial of the grid begins, and those that are behind drop out.
    Race,
    /// `width`, `trials`, `batch`: when points between those of the grid are worth asking.
    Refine(Aim),
    /// What Optuna is asked for.
    Optuna(Sampling),
}

/// `sampler`, `trials`, `batch`, `floors`, and `objective = "pareto"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Optuna's name of the sampler.
    pub sampler: &'static str,
    /// Points that are asked at most, those of the grid among them.
    pub most: usize,
    /// Points that are chosen at once.
    pub batch: usize,
    /// Columns, by number, with the worst score that is allowed.
    pub floors: Vec<(usize, f64)>,
    /// Whether each column is an objective of its own.
    pub pareto: bool,
}

/// Samplers of Optuna.
pub const SAMPLERS: &[(&str, &str)] =
    &[("tpe", "tpe"), ("cmaes", "cmaes"), ("nsga2", "nsga2"), ("qmc", "qmc"), ("random", "random")];

/// Points that Optuna is asked for where the spec does not say how many.
const MOST: usize = 30;

/// The name of a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Every trial of the grid begins, and those that are behind drop out.
    Race,
    /// All trials of the grid are asked, then points between them where the optimum can still be.
    Refine,
    /// Optuna chooses further points.
    Optuna,
}

impl Strategy {
    /// Every choice with its name.
    pub const NAMES: &'static [(&'static str, Self)] =
        &[("race", Self::Race), ("refine", Self::Refine), ("optuna", Self::Optuna)];
    /// Settings that not all of them have.
    const OWN: &'static [(&'static str, &'static [Self])] = &[
        ("rungs", &[Self::Race, Self::Optuna]),
        ("min_survivors", &[Self::Race]),
        ("width", &[Self::Refine]),
        ("trials", &[Self::Refine, Self::Optuna]),
        ("batch", &[Self::Refine, Self::Optuna]),
        ("sampler", &[Self::Optuna]),
        ("floors", &[Self::Optuna]),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, strategy)| *strategy == self).map_or("", |(name, _)| name)
    }
}

/// How several columns become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combining {
    /// A sum with weights.
    Weighted,
    /// The worst rank.
    WorstRank,
    /// None: each is an objective of its own.
    Pareto,
}

impl Combining {
    /// Every choice with its name.
    pub const NAMES: &'static [(&'static str, Self)] =
        &[("weighted", Self::Weighted), ("worst-rank", Self::WorstRank), ("pareto", Self::Pareto)];
}

impl Search {
    /// Packages that it needs beside the harness.
    pub fn packages(&self) -> Vec<&'static str> {
        match &self.way {
            Way::Optuna(Sampling { sampler: "cmaes", .. }) => vec!["optuna", "cmaes"],
            Way::Optuna(_) => vec!["optuna"],
            Way::Race | Way::Refine(_) => Vec::new(),
        }
    }

    /// Weights of the columns; none where ranks decide.
    pub fn weights(&self) -> &[f64] {
        match &self.objective {
            Objective::Weighted(weights) => weights,
            Objective::WorstRank => &[],
        }
    }

    /// Most points that it asks, where it places some of its own.
    pub fn most_points(&self) -> Option<usize> {
        match &self.way {
            Way::Race => None,
            Way::Refine(aim) => Some(aim.most),
            Way::Optuna(sampling) => Some(sampling.most),
        }
    }

    /// What it looks at, where it places points of its own.
    ///
    /// # Errors
    /// Why the sweep has no such space, in words.
    pub fn space(&self, sweep: &Sweep) -> Result<Option<Space>, String> {
        match &self.way {
            Way::Race => Ok(None),
            Way::Refine(_) => Space::refined(sweep).map(Some),
            Way::Optuna(_) => Space::of(sweep).map(Some),
        }
    }

    /// Names of the tasks that are asked in portions, each once.
    pub fn tasks(&self) -> Vec<&str> {
        let mut tasks: Vec<&str> = self.columns.iter().map(|column| column.task.as_str()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }
}

/// Reads `search`; none where it is not there or cannot be made sense of.
pub fn search(field: Option<&Field<'_>>, settings: &Settings, problems: &mut Problems) -> Option<Search> {
    let field = field?;
    let mut table = field.table(&keys::SEARCH, problems)?;
    let strategy = table.required("strategy", problems).and_then(|field| field.one_of(Strategy::NAMES, problems));
    check_own(field, strategy, problems);
    let metric = table.required("metric", problems);
    let combining = table.optional("objective").and_then(|field| field.one_of(Combining::NAMES, problems));
    let mut rule = Rule::default();
    let given = table.optional("rungs");
    let rungs = given.as_ref().and_then(|field| rungs(field, problems));
    if let Some(field) = table.optional("confidence")
        && let Some(confidence) = share(&field, "a confidence of at least 0.5 and below 1", 0.5..1.0, problems)
    {
        rule.confidence = confidence;
    }
    if let Some(least) = table.optional("min_survivors").and_then(|field| field.whole(1, problems)) {
        rule.min_survivors = usize::try_from(least).unwrap_or(usize::MAX);
    }
    let aim = aim(&mut table, rule.confidence, problems);
    let sampler = table.optional("sampler").and_then(|field| field.one_of(SAMPLERS, problems)).unwrap_or("tpe");
    let floors = table.optional("floors");
    let is_bounded = field.node.get("trials").is_some();
    let confirmation = table.optional("confirmation").and_then(|field| {
        share(&field, "a share of the documents above 0 and below 1", f64::MIN_POSITIVE..1.0, problems)
    });
    let seed = table.optional("seed").and_then(|field| field.whole(0, problems)).unwrap_or_default();
    table.finish(problems);
    let weighted = columns(&metric?, settings, problems)?;
    let (mut columns, mut weights): (Vec<Column>, Vec<f64>) = weighted.into_iter().unzip();
    let strategy = strategy?;
    let mut refused = |combining: &str, why: &str| {
        let message = format!("`objective = \"{combining}\"`: {why}");
        let hint = Some("give the columns weights: `metric = { a = 1, b = 2 }`".to_owned());
        field.problem(Code::SearchSetting, message, hint, problems);
    };
    match (combining, strategy) {
        (Some(Combining::WorstRank), Strategy::Refine | Strategy::Optuna) => {
            refused("worst-rank", "ranks jump from point to point, which a search for points cannot follow");
        }
        (Some(Combining::Pareto), Strategy::Race | Strategy::Refine) => {
            refused(
                "pareto",
                "a Pareto front has no leader to set others beside; `strategy = \"optuna\"` looks for one",
            );
        }
        _ => {}
    }
    let way = match strategy {
        Strategy::Race => Way::Race,
        Strategy::Refine => Way::Refine(aim),
        Strategy::Optuna => {
            let floors = floors.map(|field| floor_columns(&field, settings, problems)).unwrap_or_default();
            let floors = floors.into_iter().map(|(column, floor)| {
                let place = columns.iter().position(|known| known.name == column.name).unwrap_or_else(|| {
                    columns.push(column);
                    weights.push(0.0);
                    columns.len() - 1
                });
                (place, floor)
            });
            let floors = floors.collect();
            let most = if is_bounded { aim.most } else { MOST };
            Way::Optuna(Sampling {
                sampler,
                most,
                batch: aim.batch,
                floors,
                pareto: combining == Some(Combining::Pareto),
            })
        }
    };
    let is_pareto = matches!(&way, Way::Optuna(sampling) if sampling.pareto);
    if let Some(field) = given.filter(|_| is_pareto) {
        let message = "points of a Pareto front are not raced: there is no best one to set others beside";
        field.problem(Code::SearchSetting, message, Some("leave `rungs` out".to_owned()), problems);
    }
    rule.rungs = match strategy {
        Strategy::Race => rungs.unwrap_or(rule.rungs),
        Strategy::Optuna if !is_pareto => rungs.unwrap_or_else(|| POINT_RUNGS.to_vec()),
        Strategy::Optuna | Strategy::Refine => vec![1.0],
    };
    let objective = match combining {
        Some(Combining::WorstRank) => Objective::WorstRank,
        _ => Objective::Weighted(weights),
    };
    Some(Search { columns, objective, rule, way, confirmation: confirmation.unwrap_or_default(), seed })
}

/// `{ column = score }`.
fn floor_columns(field: &Field<'_>, settings: &Settings, problems: &mut Problems) -> Vec<(Column, f64)> {
    let entries = field.entries("a table of columns: `{ arc100 = 0.3 }`", problems).unwrap_or_default();
    let known = task::columns(&settings.tasks, &[]);
    let mut floors = Vec::new();
    for (entry, field) in entries {
        let floor = number(&field);
        if floor.is_none() {
            field.expected("a number: the worst score that is allowed", problems);
        }
        floors.extend(column(&entry.key, &field, &known, problems).zip(floor));
    }
    floors
}

/// Refuses settings that the strategy does not read.
fn check_own(field: &Field<'_>, strategy: Option<Strategy>, problems: &mut Problems) {
    let Some(strategy) = strategy else { return };
    for (key, of) in Strategy::OWN.iter().filter(|(_, of)| !of.contains(&strategy)) {
        if let Some(entry) = field.node.entries().iter().find(|entry| entry.key == *key) {
            let names = listed(of.iter().map(|strategy| strategy.name()));
            let message = format!("`{key}` is no setting of `strategy = \"{}\"`, but of {names}", strategy.name());
            let path = format!("{}.{key}", field.path);
            problems.push(Code::SearchSetting, entry.key_span.clone(), path, message, Some("leave it out".to_owned()));
        }
    }
}

/// `width`, `trials` and `batch`.
fn aim(table: &mut Table<'_>, confidence: f64, problems: &mut Problems) -> Aim {
    let mut aim = Aim { width: refine::WIDTH, confidence, most: refine::MOST, batch: 1 };
    let width = table
        .optional("width")
        .and_then(|field| share(&field, "a share of the axis above 0 and below 1", f64::MIN_POSITIVE..1.0, problems));
    aim.width = width.unwrap_or(aim.width);
    for (key, setting) in [("trials", &mut aim.most), ("batch", &mut aim.batch)] {
        if let Some(n) = table.optional(key).and_then(|field| field.whole(1, problems)) {
            *setting = usize::try_from(n).unwrap_or(usize::MAX);
        }
    }
    aim
}

/// `"column"`, `["column", …]` or `{ column = weight }`.
fn columns(field: &Field<'_>, settings: &Settings, problems: &mut Problems) -> Option<Vec<(Column, f64)>> {
    const EXPECTED: &str = "a column, several, or `{ column = weight }`";
    let named: Vec<(&str, Field<'_>, f64)> = match &field.node.value {
        Value::List(_) => {
            let items = field.list(EXPECTED, problems)?;
            items.into_iter().map(|item| Some((item.text(problems)?, item, 1.0))).collect::<Option<_>>()?
        }
        Value::Map(_) => {
            let entries = field.entries(EXPECTED, problems)?;
            let weight = |field: &Field<'_>, problems: &mut Problems| {
                let weight = number(field).filter(|weight| *weight > 0.0 && weight.is_finite());
                if weight.is_none() {
                    field.expected("a weight above 0 (which way is better, the column knows)", problems);
                }
                weight
            };
            let entries = entries.into_iter();
            entries
                .map(|(entry, field)| Some((entry.key.as_str(), field.clone(), weight(&field, problems)?)))
                .collect::<Option<_>>()?
        }
        _ => vec![(field.text(problems)?, field.clone(), 1.0)],
    };
    if named.is_empty() {
        let is_list = matches!(field.node.value, Value::List(_));
        let code = if is_list { Code::Empty } else { Code::SearchColumn };
        field.problem(code, "expected at least one column", None, problems);
        return None;
    }
    let known = task::columns(&settings.tasks, &[]);
    named.into_iter().map(|(name, field, weight)| Some((column(name, &field, &known, problems)?, weight))).collect()
}

fn column(name: &str, field: &Field<'_>, known: &[Column], problems: &mut Problems) -> Option<Column> {
    let Some(column) = known.iter().find(|column| column.name == name) else {
        let names = || known.iter().map(|column| column.name.as_str());
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => {
                "name it in `evaluate`: `tasks = [{ task = \"…\", columns = { acc = \"acc,none\" } }]`".to_owned()
            }
            None => format!(
                "columns known before a run: {}; others are named in `evaluate`: `{{ task = \"…\", columns = {{ acc = \
                 \"acc,none\" }} }}`",
                listed(names())
            ),
        };
        let message = format!("`{name}` is no column that is known before the run");
        field.problem(Code::SearchColumn, message, Some(hint), problems);
        return None;
    };
    if task::is_tiny(&column.task) {
        let message = format!(
            "`{name}` is an estimate made from all 100 documents of `{}`: it cannot be raced on some of them",
            column.task
        );
        let counterpart = column.counterpart().filter(|preset| !task::is_tiny(preset.task));
        let hint = counterpart
            .map(|preset| format!("`{}` (task `{}`) is the mean of the same answers", preset.column, preset.task));
        field.problem(Code::SearchWhole, message, hint, problems);
        return None;
    }
    Some(column.clone())
}

/// Shares of the documents, rising to 1.
fn rungs(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<f64>> {
    let items = field.list("a list of shares of the documents: `[0.1, 0.25, 0.5, 1]`", problems)?;
    if items.is_empty() {
        field.problem(Code::Empty, "expected at least one rung", None, problems);
        return None;
    }
    let mut rungs: Vec<f64> = Vec::new();
    for item in &items {
        let Some(rung) = number(item) else {
            item.expected("a number", problems);
            return None;
        };
        if !(rung > rungs.last().copied().unwrap_or_default() && rung <= 1.0) {
            let message = format!("rungs are shares of the documents that rise to 1; `{rung}` does not");
            item.problem(Code::SearchShare, message, Some("`rungs = [0.1, 0.25, 0.5, 1]`".to_owned()), problems);
            return None;
        }
        rungs.push(rung);
    }
    // The winner is known by all documents.
    if rungs.last() != Some(&1.0) {
        rungs.push(1.0);
    }
    Some(rungs)
}

fn share(field: &Field<'_>, expected: &str, range: std::ops::Range<f64>, problems: &mut Problems) -> Option<f64> {
    let Some(value) = number(field) else {
        field.expected("a number", problems);
        return None;
    };
    if !range.contains(&value) {
        field.problem(Code::SearchShare, format!("expected {expected}, found `{value}`"), None, problems);
        return None;
    }
    Some(value)
}

fn number(field: &Field<'_>) -> Option<f64> {
    match &field.node.value {
        Value::Scalar(number @ (Scalar::Int(_) | Scalar::Float(_))) => number.as_float(),
        _ => None,
    }
}
