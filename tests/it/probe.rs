//! `plan --probe`: every finding about models is made where it is true and nowhere else; near twins; and that what is looked at
//! is what a merge would make.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mergesweep::config::Dtype;
use mergesweep::document::{Code, Severity};
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::merge::excerpt::{self, Rows, Wanted};
use mergesweep::model::{Located, ModelRef};
use mergesweep::plan;
use mergesweep::probe::kinship::{Kind, Pair};
use mergesweep::probe::{Probe, Request, probe};
use tempfile::TempDir;

use crate::merge_support::{Numbers, merge, numbers, options, plan_in, pseudo_random, safetensors};

const LAYERS: usize = 6;
const ROWS: usize = 48;
const WIDTH: usize = 16;
const CONFIG: &str = "{\"architectures\": [\"LlamaForCausalLM\"], \"num_hidden_layers\": 6, \"vocab_size\": 48}";
const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";

type Tensors = BTreeMap<String, Numbers>;

/// A small Llama with tensors that depend on the salt alone.
fn tensors(salt: u64) -> Tensors {
    let mut made = Tensors::new();
    let mut add = |name: String, shape: &[usize]| {
        let n = shape.iter().product();
        let salt = salt * 1000 + made.len() as u64 + 1;
        let values =
            pseudo_random(n, salt).into_iter().map(|x| if shape.len() == 1 { 1.0 + x / 100.0 } else { x }).collect();
        made.insert(name, Numbers { dtype: Dtype::F32, shape: shape.to_vec(), values });
    };
    add("model.embed_tokens.weight".to_owned(), &[ROWS, WIDTH]);
    add("model.norm.weight".to_owned(), &[WIDTH]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        ["q_proj", "k_proj", "v_proj", "o_proj"]
            .iter()
            .for_each(|part| add(name(&format!("self_attn.{part}")), &[WIDTH, WIDTH]));
        ["gate_proj", "up_proj"].iter().for_each(|part| add(name(&format!("mlp.{part}")), &[32, WIDTH]));
        add(name("mlp.down_proj"), &[WIDTH, 32]);
        ["input_layernorm", "post_attention_layernorm"].iter().for_each(|part| add(name(part), &[WIDTH]));
    }
    made
}

/// A fine-tune: every number a little other, in a way of its own.
fn tuned(base: &Tensors, salt: u64, size: f64) -> Tensors {
    let mut tuned = base.clone();
    for (place, numbers) in tuned.values_mut().enumerate() {
        let change = pseudo_random(numbers.values.len(), salt * 7919 + place as u64 + 1);
        numbers.values.iter_mut().zip(change).for_each(|(value, change)| *value += size * change);
    }
    tuned
}

/// A folder with models and a spec.
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    /// Three healthy models: a base and two fine-tunes of it.
    pub fn new() -> Self {
        Self::with_changes(0.02)
    }

    /// The same with fine-tunes that differ by so much from the base.
    pub fn with_changes(size: f64) -> Self {
        let bench = Self { folder: TempDir::new().unwrap() };
        let base = tensors(1);
        bench.write("base", &base);
        bench.write("math", &tuned(&base, 2, size));
        bench.write("code", &tuned(&base, 3, size));
        bench
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, model: &str, tensors: &Tensors) {
        let folder = self.path().join(model);
        fs::create_dir_all(&folder).unwrap();
        let listed: Vec<(&str, Numbers)> =
            tensors.iter().map(|(name, numbers)| (name.as_str(), numbers.clone())).collect();
        fs::write(folder.join("model.safetensors"), safetensors(&listed)).unwrap();
        fs::write(folder.join("config.json"), CONFIG).unwrap();
        self.write_tokenizer(model, "b");
    }

    /// A tokenizer of 48 tokens, the third of which is called so.
    fn write_tokenizer(&self, model: &str, third: &str) {
        let token = |id: usize| if id == 2 { third.to_owned() } else { format!("t{id}") };
        let vocabulary: BTreeMap<String, usize> = (0..ROWS).map(|id| (token(id), id)).collect();
        let json = serde_json::json!({ "version": "1.0", "added_tokens": [], "model": { "type": "BPE", "vocab": vocabulary, "merges": [] } });
        fs::write(self.path().join(model).join("tokenizer.json"), json.to_string()).unwrap();
        fs::write(self.path().join(model).join("tokenizer_config.json"), "{}").unwrap();
    }

    fn write_adapter(&self, name: &str, module: &str, b: f64) {
        let folder = self.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("adapter_config.json"), "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2}")
            .unwrap();
        let half = |shape: [usize; 2], value| {
            let values = pseudo_random(shape[0] * shape[1], 5).into_iter().map(|x| x * value).collect();
            Numbers { dtype: Dtype::F32, shape: shape.to_vec(), values }
        };
        let names = ["A", "B"].map(|half| format!("base_model.model.{module}.lora_{half}.weight"));
        let tensors = [(names[0].as_str(), half([2, WIDTH], 1.0)), (names[1].as_str(), half([WIDTH, 2], b))];
        fs::write(folder.join("adapter_model.safetensors"), safetensors(&tensors)).unwrap();
    }

    fn probe(&self, spec: &str) -> (Probe, plan::Plan) {
        let file = self.path().join("sweep.toml");
        let models = "name = \"s\"\n[models]\nbase = \"./base\"\nmath = \"./math\"\ncode = \"./code\"\n";
        fs::write(&file, format!("{models}{spec}")).unwrap();
        let (sweep, plan) = plan::open(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let root = self.path().to_owned();
        let locate = move |model: &ModelRef| {
            let base = root.join(&model.base.path);
            let adapter = model.adapter.as_ref().map(|adapter| root.join(&adapter.path));
            base.is_dir().then_some(Located { base, adapter })
        };
        let probe = probe(&Request { sweep: &sweep, plan: &plan, locate: &locate, progress: &|_, _| {} });
        (probe, plan)
    }

    /// What is found in a sweep of task arithmetic: code, whether it is an error, and message.
    fn findings(&self, extra: &str) -> Vec<(Code, Severity, String)> {
        let (probe, _) = self.probe(&format!("{extra}{TASK_ARITHMETIC}"));
        let told = probe.problems.0.into_iter().map(|problem| {
            let hint = problem.hint.unwrap_or_default();
            assert!(problem.span.source.path.ends_with("sweep.toml"));
            (problem.code, problem.severity, format!("{} | {hint}", problem.message))
        });
        told.collect()
    }
}

const TASK_ARITHMETIC: &str = "[evaluate]\ntasks = [\"arc_easy\"]\n[[merge]]\nname = \"TA\"\nmethod = \"task_arithmetic\"\nbase_model = \
                               \"base\"\nmodels = { math = { weight = 0.5 }, code = { weight = 0.5 } }\n";

/// The only finding, which must have this code.
fn only(found: &[(Code, Severity, String)], code: Code) -> String {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, code, "{found:#?}");
    found[0].2.clone()
}

/// Pairs of a base and a fine-tune.
fn descents(probe: &Probe) -> impl Iterator<Item = &Pair> {
    probe.kinship.pairs.iter().filter(|pair| pair.kind == Kind::Base)
}

#[test]
fn healthy_models_give_no_finding() {
    let bench = Bench::new();
    let (probe, _) = bench.probe(TASK_ARITHMETIC);
    assert_eq!(probe.problems.0, []);
    assert_eq!(probe.notes, [""; 0]);
    assert_eq!(probe.models.len(), 3);
    // Changes of .02 of numbers of one size.
    let distances: Vec<f64> = descents(&probe).map(|pair| pair.all().distance()).collect();
    assert_eq!(distances.len(), 2);
    assert!(distances.iter().all(|distance| (0.019..0.021).contains(distance)), "{distances:?}");
    let [meeting] = &probe.kinship.meetings[..] else { panic!() };
    assert!(meeting.cosine().unwrap().abs() < 0.05);
    assert!((0.45..0.55).contains(&meeting.opposed().unwrap()));
}

#[test]
fn the_parity_models_give_no_false_alarm() {
    let inputs = crate::merge_support::fixtures().join("inputs");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("sweep.toml");
    let model = |name: &str| format!("{name} = \"{}\"\n", inputs.join(name).display());
    let models: String = ["base", "math", "code"].map(model).concat();
    fs::write(&file, format!("name = \"s\"\n[models]\n{models}{TASK_ARITHMETIC}")).unwrap();
    let (sweep, plan) = plan::open(&file).unwrap();
    let locate = |model: &ModelRef| Some(Located { base: model.base.path.clone().into(), adapter: None });
    let probe = probe(&Request { sweep: &sweep, plan: &plan, locate: &locate, progress: &|_, _| {} });
    assert_eq!(probe.problems.0, []);
    assert_eq!(probe.models.len(), 3);
}

#[test]
fn a_wrong_base_is_said_and_the_right_one_named() {
    let bench = Bench::new();
    fs::rename(bench.path().join("base"), bench.path().join("true")).unwrap();
    bench.write("base", &tensors(9));
    let baseline = "[[baseline]]\nname = \"True\"\nmodel = \"./true\"\n";
    let found = bench.findings("");
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [Code::NoDescendant; 2], "{found:#?}");
    assert!(found[0].2.contains("`math` is no descendant of `base`: its weights are 1.4"), "{}", found[0].2);
    assert!(found[0].2.contains("name the model that it was trained from"), "{}", found[0].2);
    let (probe, _) = bench.probe(&format!("{TASK_ARITHMETIC}{baseline}"));
    let hint = probe.problems.0[0].hint.clone().unwrap();
    assert!(hint.contains("is 0.02") && hint.contains("`./true`: is that its base?"), "{hint}");
    assert!(probe.problems.0.iter().all(|problem| problem.severity == Severity::Warning));
}

#[test]
fn unrelated_models_without_a_base_are_no_kin() {
    let bench = Bench::new();
    bench.write("code", &tensors(9));
    let linear = "[evaluate]\ntasks = [\"arc_easy\"]\n[[merge]]\nname = \"L\"\nmethod = \"linear\"\nmodels = { math = { weight = \
                  0.5 }, code = { weight = 0.5 } }\n";
    let (probe, _) = bench.probe(linear);
    let [problem] = &probe.problems.0[..] else { panic!("{:#?}", probe.problems) };
    assert_eq!(problem.code, Code::NoDescendant);
    assert!(problem.message.contains("no kin"));
}

#[test]
fn a_fine_tune_that_changes_nothing_is_said() {
    let bench = Bench::new();
    bench.write("code", &tensors(1));
    let told = only(&bench.findings(""), Code::NoChange);
    assert!(told.starts_with("`code` is equal to its base `base`"), "{told}");
}

#[test]
fn nan_is_an_error_wherever_it_is() {
    let bench = Bench::new();
    let mut code = tuned(&tensors(1), 3, 0.02);
    // In a vector that is not among the sampled ones.
    code.get_mut("model.layers.5.input_layernorm.weight").unwrap().values[3] = f64::NAN;
    bench.write("code", &code);
    let found = bench.findings("");
    let told = only(&found, Code::NotFinite);
    assert_eq!(found[0].1, Severity::Error);
    assert!(told.contains("model.layers.5.input_layernorm.weight"), "{told}");
}

#[test]
fn a_layer_that_was_replaced_is_said() {
    let bench = Bench::new();
    let (mut code, other) = (tuned(&tensors(1), 3, 0.02), tensors(9));
    for (name, numbers) in &mut code {
        if name.contains("layers.4.") {
            numbers.values.clone_from(&other[name].values);
        }
    }
    bench.write("code", &code);
    let told = only(&bench.findings(""), Code::OddLayer);
    assert!(told.starts_with("layer 4 of `code` is 1."), "{told}");
}

#[test]
fn other_tokenizers_templates_and_heads_are_said() {
    let bench = Bench::new();
    bench.write_tokenizer("code", "other");
    let told = only(&bench.findings(""), Code::OtherTokenizer);
    assert!(told.contains("2 tokens differ"), "{told}");
    // Brought together by token.
    let (probe, _) =
        bench.probe(&TASK_ARITHMETIC.replace("name = \"TA\"", "name = \"TA\"\ntokenizer_source = \"union\""));
    assert_eq!(probe.problems.0, []);

    let bench = Bench::new();
    fs::write(bench.path().join("code/chat_template.jinja"), TEMPLATE).unwrap();
    let (probe, _) = bench.probe(TASK_ARITHMETIC);
    assert_eq!(probe.problems.0, []);
    assert!(probe.notes[0].contains("`base` has none"), "{:?}", probe.notes);
    let with_template = TASK_ARITHMETIC.replace("[evaluate]", "[evaluate]\napply_chat_template = true");
    let (probe, _) = bench.probe(&with_template);
    assert_eq!(probe.problems.0.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::OtherTemplate]);

    let bench = Bench::new();
    let mut code = tuned(&tensors(1), 3, 0.02);
    let head = code["model.embed_tokens.weight"].clone();
    code.insert("lm_head.weight".to_owned(), head);
    bench.write("code", &code);
    let told = only(&bench.findings(""), Code::TiedHead);
    assert!(told.contains("`base` ties its head") && told.contains("`code` has a head of its own"), "{told}");
}

#[test]
fn what_the_engine_refuses_is_an_error_before_it_is_run() {
    let bench = Bench::new();
    let mut code = tuned(&tensors(1), 3, 0.02);
    let up = code.get_mut("model.layers.2.mlp.up_proj.weight").unwrap();
    (up.shape, up.values) = (vec![24, WIDTH], pseudo_random(24 * WIDTH, 1));
    bench.write("code", &code);
    let found = bench.findings("");
    let told = only(&found, Code::Unmergeable);
    assert!(told.contains("`TA` cannot be merged") && told.contains("shapes differ"), "{told}");
    assert_eq!(found[0].1, Severity::Error);
    fs::write(bench.path().join("code/config.json"), CONFIG.replace("LlamaFor", "Qwen2For")).unwrap();
    let told = only(&bench.findings(""), Code::Unmergeable);
    assert!(told.contains("Qwen2ForCausalLM"), "{told}");
}

#[test]
fn adapters_that_match_nothing_or_change_nothing_are_said() {
    let with_adapter = TASK_ARITHMETIC.replace("code = {", "\"./base+./lora\" = {");
    let bench = Bench::new();
    bench.write_adapter("lora", "model.layers.0.self_attn.q_proj", 1.0);
    let (probe, _) = bench.probe(&with_adapter);
    assert_eq!(probe.problems.0, []);
    bench.write_adapter("lora", "model.layers.0.self_attn.query", 1.0);
    let (probe, _) = bench.probe(&with_adapter);
    let [problem] = &probe.problems.0[..] else { panic!("{:#?}", probe.problems) };
    assert_eq!((problem.code, problem.severity), (Code::Unmergeable, Severity::Error));
    assert!(problem.message.contains("is not in the base model"), "{}", problem.message);
    // Never trained: B is zero.
    bench.write_adapter("lora", "model.layers.0.self_attn.q_proj", 0.0);
    let (probe, _) = bench.probe(&with_adapter);
    let [problem] = &probe.problems.0[..] else { panic!("{:#?}", probe.problems) };
    assert_eq!(problem.code, Code::NoChange);
}

#[test]
fn near_twins_are_found_and_far_merges_are_not() {
    let bench = Bench::new();
    let spec = "[evaluate]\ntasks = [\"arc_easy\"]\n[[merge]]\nname = \"SLERP ({t})\"\nmethod = \"slerp\"\nbase_model = \
                \"math\"\nmodels = [\"math\", \"code\"]\ngrid.t = [0.3, 0.5]\n[[merge]]\nname = \"Linear\"\nmethod = \
                \"linear\"\nmodels = { math = { weight = 0.5 }, code = { weight = 0.5 } }\n[[merge]]\nname = \"TIES\"\nmethod = \
                \"ties\"\nbase_model = \"base\"\nmodels = { math = { weight = 1, density = 0.5 }, code = { weight = 1, density = \
                0.5 } }\n";
    let (probe, plan) = bench.probe(spec);
    assert_eq!(probe.problems.0, []);
    assert_eq!((probe.near.n_merges, probe.near.n_looked_at, probe.near.n_pairs), (4, 4, 6));
    let names: Vec<Vec<&str>> = probe
        .near
        .groups
        .iter()
        .map(|group| group.trials.iter().map(|trial| plan.trials[*trial].name.as_str()).collect())
        .collect();
    assert_eq!(names, [["SLERP (0.5)", "Linear"]]);
    let widest = probe.near.groups[0].widest;
    assert!(widest.distance < 1e-4 && widest.cosine > 0.99999 && widest.share < 0.005, "{widest:?}");
    let next = probe.near.next.unwrap();
    assert!(next.share > 0.1, "{next:?}");
    let text = mergesweep::probe::words::text(&probe, &plan);
    assert!(text.contains("SLERP (0.5), Linear: ") && text.contains("expect the same scores"), "{text}");

    // The same weights to the left and right of a middle: signs are opposed everywhere, or nowhere.
    let (base, math) = (tensors(1), tuned(&tensors(1), 2, 0.02));
    let mut code = base.clone();
    for (name, numbers) in &mut code {
        let (base, math) = (&base[name].values, &math[name].values);
        numbers.values = base.iter().zip(math).map(|(base, math)| 2.0 * base - math).collect();
    }
    bench.write("code", &code);
    let (probe, _) = bench.probe(spec);
    let [meeting] = &probe.kinship.meetings[..] else { panic!() };
    assert!(meeting.cosine().unwrap() < -0.999);
    assert!(meeting.opposed().unwrap() > 0.999);
}

#[test]
fn an_excerpt_of_all_rows_is_what_the_merge_writes() {
    for case in
        ["slerp_t03", "ties_rescale", "task_arithmetic_bf16", "model_stock_three", "sce_topk", "nuslerp_no_base"]
    {
        let root = crate::merge_support::fixtures();
        let text = fs::read_to_string(root.join("cases").join(case).join("config.yml")).unwrap();
        let merged = merge(&text);
        let written = numbers(&Checkpoint::open(&merged.path()).unwrap());
        let planned = plan_in(&root, &text, &options()).unwrap();
        let mut n_compared = 0;
        for recipe in &planned.recipes.recipes {
            let count = recipe.n_elements() / recipe.shape.last().unwrap();
            let all: Vec<usize> = (0..count).collect();
            let rows: Vec<Rows> = recipe
                .inputs
                .iter()
                .map(|input| {
                    let (bytes, stored) = planned.sources[input.source].rows(&input.tensor, &all).unwrap().unwrap();
                    Rows { bytes, stored }
                })
                .collect();
            let wanted = Wanted {
                operation: &recipe.operation,
                inputs: (0..rows.len()).collect(),
                working: recipe.working,
                rounded: [recipe.result, recipe.out],
                numerics: options().numerics,
            };
            let found = excerpt::compute(&rows, &recipe.shape, &[wanted], 1).remove(0).unwrap().rounded;
            let expected: Vec<f32> = written[&recipe.name].values.iter().map(|value| *value as f32).collect();
            assert_eq!(found, expected, "{case} {}", recipe.name);
            n_compared += 1;
        }
        assert!(n_compared > 10, "{case}");
    }
}
