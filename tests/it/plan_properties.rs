//! Verdicts and twins over random configs, held to the bytes that merges of them have: a setting that is called dead, shadowed
//! or without effect gives the same bytes with another value, one that is called read gives other bytes; exact twins have
//! equal bytes, rounding twins differ by little. `MERGESWEEP_LINT_CONFIGS` configs (default 200; `scripts/soak` takes 2000).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mergesweep::config::method::{Inputs, Kind, METHODS, Scope};
use mergesweep::config::parameter::{Case, Parameters, Scalar, Setting};
use mergesweep::config::{Dtype, MergeConfig, Method, Numerics, Slice, SourceModel};
use mergesweep::merge::arch::Architecture;
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::merge::{self, MergeOptions};
use mergesweep::model::ModelRef;
use mergesweep::model::locate::Located;
use mergesweep::plan::lint::report::{Idle, SettingReport, Verdict};
use mergesweep::plan::lint::report_on;
use mergesweep::plan::resolution::resolve;
use mergesweep::plan::sites::{SiteFinder, Sites, Stand};
use mergesweep::plan::twins::rounding::Form;
use mergesweep::plan::twins::{Canonical, canonical, forms};
use tempfile::TempDir;

use crate::merge_support::{Numbers, numbers, options, pseudo_random, write_model};

fn n_configs() -> usize {
    std::env::var("MERGESWEEP_LINT_CONFIGS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// A small generator: the tests are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }
}

const MODELS: [&str; 4] = ["base", "a", "b", "c"];
const LAYERS: usize = 2;

/// Four models of two layers, of which three change elements of the first.
fn write_models(folder: &Path, changes: Changes) {
    let mut names = vec![("model.embed_tokens.weight".to_owned(), vec![12, 8])];
    for layer in 0..LAYERS {
        names.push((format!("model.layers.{layer}.input_layernorm.weight"), vec![8]));
        names.push((format!("model.layers.{layer}.self_attn.q_proj.weight"), vec![8, 8]));
        names.push((format!("model.layers.{layer}.mlp.up_proj.weight"), vec![16, 8]));
    }
    names.push(("model.norm.weight".to_owned(), vec![8]));
    names.push(("lm_head.weight".to_owned(), vec![12, 8]));
    for (number, model) in MODELS.iter().enumerate() {
        let tensor = |(index, (name, shape)): (usize, &(String, Vec<usize>))| {
            let n: usize = shape.iter().product();
            let base = pseudo_random(n, 1 + index as u64);
            let these = pseudo_random(n, 1000 * (number as u64 + 1) + index as u64);
            let which = pseudo_random(n, 777 * (number as u64 + 1) + index as u64);
            let changed = base.iter().zip(these).zip(which);
            let mut values: Vec<f64> = changed
                .map(
                    |((base, change), which)| {
                        if number > 0 && which > changes.above { base + change * changes.factor } else { *base }
                    },
                )
                .collect();
            <f64 as mergesweep::merge::real::Real>::round_to(&mut values, Dtype::F32);
            (name.clone(), Numbers { dtype: Dtype::F32, shape: shape.clone(), values })
        };
        let tensors: Vec<(String, Numbers)> = names.iter().enumerate().map(tensor).collect();
        let tensors: Vec<(&str, Numbers)> =
            tensors.iter().map(|(name, numbers)| (name.as_str(), numbers.clone())).collect();
        write_model(&folder.join(model), &tensors);
    }
}

/// How much of a model is changed, and how far.
#[derive(Debug, Clone, Copy)]
struct Changes {
    /// Of numbers that are evenly spread over -1/16..1/16, those above it stand for elements that change.
    above: f64,
    factor: f64,
}

const HALF: Changes = Changes { above: 0.0, factor: 0.5 };
const MOST: Changes = Changes { above: -0.045, factor: 4.0 };

fn model(name: &str) -> ModelRef {
    name.parse().unwrap()
}

/// Models, folders and tensors of the tests.
struct World {
    folder: TempDir,
}

/// A config with what else decides about its bytes.
#[derive(Debug, Clone)]
struct Draw {
    config: MergeConfig,
    seed: u64,
    numerics: Numerics,
}

type Tensors = BTreeMap<String, Numbers>;

impl World {
    fn new(changes: Changes) -> Self {
        let folder = TempDir::new().unwrap();
        write_models(folder.path(), changes);
        Self { folder }
    }

    fn architecture(&self, model: &ModelRef) -> Option<Architecture> {
        let checkpoint = Checkpoint::open(&self.folder.path().join(&model.base.path)).unwrap();
        Some(Architecture::of(&checkpoint).present_in(&checkpoint))
    }

    fn sites(&self, config: &MergeConfig) -> Arc<Sites> {
        SiteFinder::new(&|model| self.architecture(model)).of(config)
    }

    fn canonical(&self, draw: &Draw) -> Option<Canonical> {
        let sites = self.sites(&draw.config);
        Some(canonical(&resolve(&draw.config, draw.seed, draw.numerics, sites, None).ok()?))
    }

    /// Merges into a folder: digest of the weights with the bytes of config.json, and the folder.
    fn merge(&self, draw: &Draw) -> Option<(String, TempDir)> {
        let out = TempDir::new().unwrap();
        let to: PathBuf = out.path().join("out");
        let options = MergeOptions { seed: draw.seed, numerics: draw.numerics, write_model_card: false, ..options() };
        let job = merge::Job { config: &draw.config, config_text: "", out: &to, options: &options };
        let locate = |model: &ModelRef| -> Result<Located, merge::BoxError> {
            Ok(Located { base: self.folder.path().join(&model.base.path), adapter: None })
        };
        let merged = merge::merge(&[job], &locate, &|_, _| true).ok()?.remove(0);
        let config = std::fs::read_to_string(to.join("config.json")).unwrap();
        Some((format!("{} {config}", merged.weights_digest), out))
    }

    /// How much larger than the inputs their products with coefficients are, where the merge is a sum of such.
    fn amplified(&self, draw: &Draw) -> f64 {
        let resolution = resolve(&draw.config, draw.seed, draw.numerics, self.sites(&draw.config), None).unwrap();
        let of_form = |form: &Form| match form {
            Form::Combination(terms) => terms.iter().map(|(_, coefficient)| coefficient.abs()).fold(1.0, f64::max),
            Form::Other(_) => 1.0,
        };
        forms(&resolution).iter().map(of_form).fold(1.0, f64::max)
    }

    fn digest(&self, draw: &Draw) -> Option<String> {
        self.merge(draw).map(|(digest, _)| digest)
    }
}

fn tensors(folder: &TempDir) -> Tensors {
    numbers(&Checkpoint::open(&folder.path().join("out")).unwrap())
}

/// A value of a parameter, among few, so that coincidences happen.
fn value(dice: &mut Dice, name: &str) -> f64 {
    dice.pick(match name {
        "weight" => &[1.0, 0.5, 0.8, 0.3, 0.7, 0.0, -0.4, 0.25] as &[f64],
        "density" => &[1.0, 0.5, 0.8, 0.6, 0.3, 0.0],
        "gamma" => &[0.01, 0.1, 0.3],
        "epsilon" => &[0.15, 0.1, 0.05],
        "least change" => &[1e-5, 1e-3],
        "lambda" => &[1.0, 0.5, 2.0, 0.0],
        "t" => &[0.0, 0.3, 0.5, 0.7, 1.0],
        "max_iter" => &[10.0, 2.0],
        "tol" => &[1e-5, 1e-3],
        "select_topk" => &[1.0, 0.5],
        "r" | "alpha" => &[0.1, 0.5],
        "eps" => &[1e-8, 1e-3],
        _ => &[0.5, 1.0, 0.0],
    })
}

fn scalar(dice: &mut Dice, name: &str, kind: Kind) -> Scalar {
    match kind {
        Kind::Bool => Scalar::Bool(dice.chance(50)),
        Kind::Float => Scalar::Float(value(dice, name)),
    }
}

/// A setting in one of the forms.
fn setting(dice: &mut Dice, name: &str, kind: Kind) -> Setting {
    let plain = |dice: &mut Dice| {
        if kind == Kind::Float && name != "max_iter" && dice.chance(25) {
            Setting::Gradient(vec![scalar(dice, name, kind), scalar(dice, name, kind)])
        } else {
            Setting::Scalar(scalar(dice, name, kind))
        }
    };
    if !dice.chance(20) {
        return plain(dice);
    }
    const FILTERS: [&str; 6] = ["mlp", "self_attn", "layers.1.", "norm", "experts", "lm_head"];
    let n = 1 + dice.roll(2);
    let mut cases: Vec<Case> =
        (0..n).map(|_| Case { filter: Some(dice.pick(&FILTERS).to_owned()), value: plain(dice) }).collect();
    if dice.chance(70) {
        cases.push(Case { filter: None, value: plain(dice) });
    }
    Setting::Conditional(cases)
}

/// The parameters at a random place of a config.
fn anywhere<'a>(dice: &mut Dice, config: &'a mut MergeConfig) -> &'a mut Parameters {
    let slice = dice.roll(config.slices.len());
    match dice.roll(6) {
        0..=2 => {
            let sources = &mut config.slices[slice].sources;
            let source = dice.roll(sources.len());
            &mut sources[source].parameters
        }
        // In `models` form a slice has no parameters of its own.
        3 => &mut config.slices[slice].parameters,
        4 => &mut config.module_parameters,
        _ => &mut config.parameters,
    }
}

/// A random config of a random method.
fn draw(dice: &mut Dice, methods: &[Method]) -> Draw {
    let method = dice.pick(methods);
    let spec = method.spec();
    let (base, n_others) = match spec.inputs {
        Inputs::Any => (None, 1 + dice.roll(3)),
        Inputs::BaseAndAny => (Some("base"), 1 + dice.roll(3)),
        Inputs::BaseAndOne => (Some("base"), 1),
        Inputs::TwoAndOptionalBase => (dice.chance(70).then_some("base"), 2),
        Inputs::SomeAndOptionalBase => (dice.chance(70).then_some("base"), 1 + dice.roll(3)),
        Inputs::BaseAndTwoOrMore => (Some("base"), 2 + dice.roll(2)),
        Inputs::One => (None, 1),
    };
    let mut names: Vec<&str> = MODELS[1..=n_others].to_vec();
    if let Some(base) = base {
        names.insert(dice.roll(names.len() + 1), base);
    }
    const LAYOUTS: [&[Option<(usize, usize)>]; 3] = [&[None], &[Some((0, LAYERS))], &[Some((0, 1)), Some((1, LAYERS))]];
    let ranges = dice.pick(&LAYOUTS);
    let slice = |range: &Option<(usize, usize)>| {
        let source =
            |name: &&str| SourceModel { model: model(name), layer_range: *range, parameters: Parameters::new() };
        Slice { sources: names.iter().map(source).collect(), base_model: None, parameters: Parameters::new() }
    };
    let mut config = MergeConfig {
        method,
        base_model: base.map(model),
        slices: ranges.iter().map(slice).collect(),
        module_parameters: Parameters::new(),
        parameters: Parameters::new(),
        dtype: dice.pick(&[None, Some(Dtype::F32), Some(Dtype::F16), Some(Dtype::Bf16)]),
        out_dtype: dice.pick(&[None, None, Some(Dtype::F16)]),
        tokenizer: None,
        chat_template: None,
    };
    for row in spec.parameters {
        // della and ram mean different things by it.
        let is_ram = matches!(method, Method::Ram | Method::RamplusTl);
        let what = if is_ram && row.name == "epsilon" { "least change" } else { row.name };
        if row.default.is_none() && !row.optional {
            // Somewhere it must be: on every source that is asked, or at top level.
            if row.scope == Scope::Shared || dice.chance(20) {
                let setting = Setting::Scalar(scalar(dice, what, row.kind));
                config.parameters.insert(row.name.to_owned(), setting);
            } else {
                for slice in 0..config.slices.len() {
                    for source in 0..config.slices[slice].sources.len() {
                        if config.slices[slice].sources[source].model == model("base") {
                            continue;
                        }
                        let new = Setting::Scalar(scalar(dice, row.name, row.kind));
                        config.slices[slice].sources[source].parameters.insert(row.name.to_owned(), new);
                    }
                }
            }
        }
        for _ in 0..2 {
            if dice.chance(45) {
                let setting = setting(dice, what, row.kind);
                anywhere(dice, &mut config).insert(row.name.to_owned(), setting);
            }
        }
    }
    if dice.chance(20) {
        let name = dice.pick(&["densty", "normalise", "t", "gamma"]);
        let setting = Setting::Scalar(Scalar::Float(0.5));
        anywhere(dice, &mut config).entry(name.to_owned()).or_insert(setting);
    }
    Draw { config, seed: dice.roll(2) as u64, numerics: dice.pick(&[Numerics::F32, Numerics::Mergekit]) }
}

/// The same with another value at one place, in the same form.
fn changed(draw: &Draw, of: &SettingReport, value: &Scalar) -> Draw {
    fn with(setting: &Setting, value: &Scalar) -> Setting {
        match setting {
            Setting::Scalar(_) => Setting::Scalar(value.clone()),
            Setting::Gradient(values) => Setting::Gradient(vec![value.clone(); values.len()]),
            Setting::Conditional(cases) => Setting::Conditional(
                cases
                    .iter()
                    .map(|case| Case { filter: case.filter.clone(), value: with(&case.value, value) })
                    .collect(),
            ),
        }
    }
    let mut changed = draw.clone();
    at(&mut changed.config, of.stand).insert(of.name.clone(), with(&of.setting, value));
    changed
}

fn at(config: &mut MergeConfig, stand: Stand) -> &mut Parameters {
    match stand {
        Stand::Source { slice, source } => &mut config.slices[slice].sources[source].parameters,
        Stand::Slice { slice } => &mut config.slices[slice].parameters,
        Stand::Module => &mut config.module_parameters,
        Stand::Top => &mut config.parameters,
    }
}

/// Values to try at a place, those that differ from what is there.
fn others(of: &SettingReport, kind: Option<Kind>) -> Vec<Scalar> {
    if kind == Some(Kind::Bool) {
        return vec![Scalar::Bool(true), Scalar::Bool(false)];
    }
    let first = of.values.first().map_or(0.5, |(value, _)| *value);
    let values = [0.37 * first + 0.11, 0.9, 0.45, 0.2, 2.0, 1.0, 0.0, 0.6];
    values.into_iter().filter(|value| *value != first).map(Scalar::Float).collect()
}

/// Largest difference, in units in the last place (of the working dtype, or the output's where that is coarser) that the largest
/// number involved has: an input or a result of that element (the caller divides by coefficients above 1).
fn ulps(world: &World, working: Option<Dtype>, first: &Tensors, second: &Tensors) -> f64 {
    let bits = |dtype: Dtype| match dtype {
        Dtype::Bf16 => 7,
        Dtype::F16 => 10,
        Dtype::F32 => 23,
        Dtype::F64 => 52,
    };
    let inputs: Vec<Tensors> =
        MODELS.map(|name| numbers(&Checkpoint::open(&world.folder.path().join(name)).unwrap())).to_vec();
    let mut largest = 0.0_f64;
    for (name, x) in first {
        let y = &second[name];
        let bits = bits(x.dtype).min(working.map_or(52, bits));
        for (index, (x, y)) in x.values.iter().zip(&y.values).enumerate() {
            let involved =
                inputs.iter().map(|input| input[name].values[index].abs()).fold(x.abs().max(y.abs()), f64::max);
            let ulp = 2.0_f64.powi(involved.max(1e-6).log2().floor() as i32 - bits);
            largest = largest.max((x - y).abs() / ulp);
        }
    }
    largest
}

#[test]
fn verdicts_are_true_of_the_bytes() {
    let (world, other_world) = (World::new(HALF), World::new(MOST));
    let methods: Vec<Method> = METHODS.iter().map(|row| row.method).collect();
    let mut dice = Dice(0x5EED);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut n_drawn, mut n_done) = (0, 0);
    while n_done < n_configs() {
        n_drawn += 1;
        assert!(n_drawn < 40 * n_configs() + 400, "too few of the random configs can be merged");
        let draw = draw(&mut dice, &methods);
        let Ok(reported) = report_on(&draw.config, draw.seed, draw.numerics, world.sites(&draw.config)) else {
            continue;
        };
        // A sum of weights of zero and the like.
        let Some((digest, out)) = world.merge(&draw) else { continue };
        n_done += 1;
        for setting in &reported.report.settings {
            let kind = draw.config.method.parameter(&setting.name).map(|row| row.kind);
            let context = || format!("{setting:?}\n{draw:#?}");
            let others = others(setting, kind);
            let same = |n: usize| {
                for value in others.iter().take(n) {
                    let Some(other) = world.digest(&changed(&draw, setting, value)) else { continue };
                    assert_eq!(other, digest, "{value:?} gives other bytes\n{}", context());
                }
            };
            let word = match setting.verdict {
                Verdict::Dead(_) => {
                    same(2);
                    "dead"
                }
                Verdict::Shadowed => {
                    same(2);
                    "shadowed"
                }
                Verdict::Unmatched => {
                    same(2);
                    "unmatched"
                }
                Verdict::NoEffect(Idle::Unused) => {
                    same(3);
                    "unused"
                }
                Verdict::NoEffect(Idle::Default) => {
                    let mut without = draw.clone();
                    at(&mut without.config, setting.stand).remove(&setting.name);
                    assert_eq!(world.digest(&without).as_ref(), Some(&digest), "{}", context());
                    "default"
                }
                Verdict::NoEffect(Idle::Rounding) => {
                    let first = tensors(&out);
                    for value in others.iter().filter(|value| value.as_float() != Some(0.0)).take(2) {
                        let Some((_, other)) = world.merge(&changed(&draw, setting, value)) else { continue };
                        let apart = ulps(&world, draw.config.dtype, &first, &tensors(&other));
                        assert!(apart <= 4.0, "{apart} ulp\n{}", context());
                    }
                    "rounding"
                }
                // Fewer steps always show.
                Verdict::Read | Verdict::Bound => {
                    // A value that cannot be is refused: that, too, is being read.
                    let differs = |world: &World, digest: &Option<String>| {
                        others.iter().any(|value| world.digest(&changed(&draw, setting, value)) != *digest)
                    };
                    // Whether it shows depends on the numbers in the tensors as well: others get their chance.
                    let shows =
                        differs(&world, &Some(digest.clone())) || differs(&other_world, &other_world.digest(&draw));
                    assert!(shows, "no other value gives other bytes\n{}", context());
                    "read"
                }
            };
            *counts.entry(word).or_default() += 1;
        }
    }
    eprintln!("{n_done} configs ({n_drawn} drawn), verdicts held to bytes: {counts:?}");
    for word in ["dead", "shadowed", "unmatched", "unused", "default", "read"] {
        assert!(counts.contains_key(word), "no {word}: {counts:?}");
    }
}

/// Why two merges of equal bytes were not known to be twins, as far as their configs say.
fn cause(first: &Draw, second: &Draw) -> String {
    let ranges =
        |draw: &Draw| -> Vec<_> { draw.config.slices.iter().map(|slice| slice.sources[0].layer_range).collect() };
    let models = |draw: &Draw| -> Vec<String> {
        let mut models: Vec<String> = draw.config.models().iter().map(ToString::to_string).collect();
        models.sort();
        models
    };
    let dtypes = |draw: &Draw| (draw.config.dtype, draw.config.out_dtype);
    let words = [
        (ranges(first) != ranges(second), "the same layers in other slices"),
        (dtypes(first) != dtypes(second), "casts that change nothing"),
        (first.numerics != second.numerics, "other numerics"),
        (models(first) != models(second), "other models read"),
    ];
    let words: Vec<&str> = words.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect();
    if words.is_empty() {
        let mut pair = [first.config.method.name(), second.config.method.name()];
        pair.sort_unstable();
        return format!("{} and {} on these numbers", pair[0], pair[1]);
    }
    words.join(", ")
}

#[test]
fn twins_are_true_of_the_bytes() {
    let world = World::new(HALF);
    let methods = [
        Method::Linear,
        Method::TaskArithmetic,
        Method::Ties,
        Method::DareLinear,
        Method::DareTies,
        Method::Breadcrumbs,
        Method::BreadcrumbsTies,
        Method::DellaLinear,
        Method::Slerp,
        Method::Nuslerp,
        Method::Multislerp,
        Method::Passthrough,
    ];
    let mut dice = Dice(0x7819);
    let mut merged: Vec<(Draw, Canonical, String, TempDir)> = Vec::new();
    let n = 3 * n_configs();
    for _ in 0..20 * n {
        if merged.len() == n {
            break;
        }
        let draw = draw(&mut dice, &methods);
        let Some(canonical) = world.canonical(&draw) else { continue };
        let Some((digest, out)) = world.merge(&draw) else { continue };
        merged.push((draw, canonical, digest, out));
    }
    let (mut n_exact, mut n_rounding, mut largest) = (0, 0, 0.0_f64);
    let mut not_grouped: BTreeMap<String, usize> = BTreeMap::new();
    for (index, (draw, canonical, digest, out)) in merged.iter().enumerate() {
        // Pairs with an earlier one: by exact form, by form in exact arithmetic, by bytes.
        let earlier = || merged[..index].iter();
        if let Some((other, _, of_other, _)) = earlier().find(|(_, of_other, ..)| of_other.exact == canonical.exact) {
            assert_eq!(of_other, digest, "exact twins differ\n{draw:#?}\n{other:#?}");
            n_exact += 1;
            continue;
        }
        if let Some((other, _, of_other, other_out)) =
            earlier().find(|(_, of_other, ..)| of_other.rounding == canonical.rounding)
        {
            n_rounding += 1;
            let apart = ulps(&world, draw.config.dtype, &tensors(out), &tensors(other_out)) / world.amplified(draw);
            largest = largest.max(apart);
            assert!(apart <= 2.0, "rounding twins are {apart} ulp apart\n{draw:#?}\n{other:#?}");
            if of_other == digest {
                *not_grouped.entry("rounding twins that rounding left equal".to_owned()).or_default() += 1;
            }
            continue;
        }
        if let Some((other, ..)) = earlier().find(|(_, _, of_other, _)| of_other == digest) {
            *not_grouped.entry(cause(draw, other)).or_default() += 1;
        }
    }
    eprintln!(
        "{} merges: {n_exact} exact twins, {n_rounding} rounding twins, {largest:.2} ulp apart at most; equal bytes that were \
         not grouped: {not_grouped:?}",
        merged.len(),
    );
    assert!(n_exact > 5 && n_rounding > 3, "{n_exact} exact, {n_rounding} rounding");
}
