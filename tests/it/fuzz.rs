//! Readers of files from elsewhere, fed damaged inputs: whatever a file says, they answer with an error and not with a
//! panic. Inputs are made from sound ones, each from its number alone, so a failure can be repeated.
//!
//! `MERGESWEEP_FUZZ_INPUTS` says how many inputs in total (default 20,000). `scripts/soak` runs a million of them with
//! little memory, which is how an allocation that a file's numbers could drive would show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mergesweep::config::parse::{Mergekit, parse};
use mergesweep::document::{Problems, parse as document};
use mergesweep::merge::adapter::Adapter;
use mergesweep::merge::checkpoint::Checkpoint;
use mergesweep::merge::{self, header};
use mergesweep::model::locate::Located;
use mergesweep::plan;
use tempfile::TempDir;

use crate::merge_support::{Numbers, config, copy_model, fixtures, options, pseudo_random, safetensors};

/// Inputs in total where nothing else is asked for.
const INPUTS: u64 = 20_000;

/// Longest damaged input: deep enough for every limit, short enough for many of them.
const LONGEST: usize = 1 << 14;

/// Numbers at the edges of what fits, put in place of others.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1e400",
    "-1e-400",
    "1000000000",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.1",
    "1e19",
    "100000",
    "4611686018427387904",
    "3.0",
];

/// What the inputs of one reader are made of.
struct Corpus<'a> {
    /// Sound inputs.
    seeds: Vec<Vec<u8>>,
    /// Words of its language, put in anywhere; `¦` stands between them.
    words: &'a str,
}

const JSON_WORDS: &str = "{¦}¦[¦]¦\"¦:¦,¦null¦true¦{\"a\":¦[[¦\"a\":1,¦\\u0000¦\\ud800¦\"__metadata__\":¦\
    {\"dtype\":\"F4\",\"shape\":[0],\"data_offsets\":[0,0]}¦\"..\"¦\"/\"¦\"num_hidden_layers\":¦\"F64\"¦\
    \"r\":";
const YAML_WORDS: &str = "- ¦  ¦\n¦: ¦&a ¦*a¦<<: ¦<<: *a\n¦[¦]¦{¦}¦{a: ¦? ¦| ¦>-\n¦!!str ¦!x ¦---\n¦...\n¦%YAML 1.2\n¦\"¦'¦#¦\t¦\
    null¦~¦.inf¦.nan¦-0b1¦0x-1¦1:30¦é¦\u{feff}¦&a [*a, *a]¦value: ¦filter: ¦\"\\x00\"";
const TOML_WORDS: &str = "[¦]¦[[¦]]¦{¦}¦{a=¦a.¦a.a.a.¦=¦\n¦\"¦\"\"\"¦'''¦# ¦,¦inf¦nan¦1979-05-27¦0x¦0b1¦_¦\t¦\\u0000¦é¦\
    \"parameters.a.a\" = [1]¦from = 0, to = 1, step = 1e-9¦{t}¦values = ";

/// A stream of numbers that depends on its start alone (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Less than `n`; 0 where `n` is.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }

    /// Mostly small, sometimes as large as `most`.
    fn length(&mut self, most: usize) -> usize {
        let most = if self.below(4) == 0 { most } else { most.min(12) };
        self.below(most + 1)
    }

    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        start..start + self.length(bytes.len() - start)
    }
}

impl Corpus<'_> {
    /// A seed with some damage.
    fn damaged(&self, seed: &[u8], random: &mut Random) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..1 + random.below(4) {
            self.damage(&mut bytes, random);
            bytes.truncate(LONGEST);
        }
        bytes
    }

    fn word(&self, random: &mut Random) -> &str {
        random.pick(&self.words.split('¦').collect::<Vec<_>>())
    }

    fn damage(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len() + 1);
        match random.below(11) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *random.pick(&[&0_u8, &0xff, &b'"', &b'{', &b'[', &b'\n', &b'-', &b'9', &b' ']);
                }
            }
            2 => drop(bytes.drain(random.range(bytes))),
            3 => bytes.truncate(at),
            // A stretch stands twice or more: keys, entries, whole lists.
            4 => {
                let piece = bytes[random.range(bytes)].repeat(1 + random.length(200));
                drop(bytes.splice(at..at, piece));
            }
            // A line stands a second time, somewhere else.
            5 => {
                let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
                let line = lines.get(random.below(lines.len())).map_or_else(Vec::new, |line| line.to_vec());
                drop(bytes.splice(at..at, line));
            }
            6 => {
                let other = &self.seeds[random.below(self.seeds.len())];
                let piece = other[random.range(other)].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            // Deep nesting.
            7 => {
                let piece = self.word(random).repeat(random.below(4000));
                drop(bytes.splice(at..at, piece.into_bytes()));
            }
            8 => {
                let word = self.word(random);
                drop(bytes.splice(at..at, word.bytes()));
            }
            _ => {
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let start = at + bytes[at..].iter().position(is_digit).unwrap_or(0);
                let end = start + bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                drop(bytes.splice(start..end, random.pick(NUMBERS).bytes()));
            }
        }
    }
}

/// Shows the input that is being read, should reading it panic.
struct Case<'a> {
    reader: &'a str,
    number: u64,
    input: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { reader, number, input } = self;
            eprintln!("fuzz: {reader}: input {number} of {} bytes:\n{}", input.len(), String::from_utf8_lossy(input));
        }
    }
}

/// Reads that many hundredths of all inputs; `read` says whether it took one. The first inputs are the seeds as they
/// are, which have to be taken.
fn fuzz(reader: &str, hundredths: u64, corpus: &Corpus<'_>, mut read: impl FnMut(&[u8]) -> bool) {
    let total = std::env::var("MERGESWEEP_FUZZ_INPUTS").map_or(INPUTS, |text| text.parse().unwrap());
    let n_seeds = corpus.seeds.len() as u64;
    let n_inputs = (total * hundredths / 100).max(n_seeds);
    let started = Instant::now();
    let mut n_taken = 0;
    for number in 0..n_inputs {
        let seed = &corpus.seeds[(number % n_seeds) as usize];
        let salt = reader.bytes().fold(number, |salt, byte| salt.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte));
        let input = if number < n_seeds { seed.clone() } else { corpus.damaged(seed, &mut Random(salt)) };
        let case = Case { reader, number, input: &input };
        let taken = read(&input);
        assert!(taken || number >= n_seeds, "a sound input is refused");
        n_taken += u64::from(taken);
        drop(case);
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("fuzz: {reader}: {n_inputs} inputs, {n_taken} of them taken, in {seconds:.1} s");
}

/// Whether a reader took its input. Its words are formed as well: they quote what was read.
fn taken<T, E: std::fmt::Display>(result: Result<T, E>) -> bool {
    result.map_err(|error| error.to_string()).is_ok()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn files(paths: impl IntoIterator<Item = PathBuf>) -> Vec<Vec<u8>> {
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

const HEADERS: &[&str] = &[
    r#"{"a":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},"b":{"dtype":"BF16","shape":[16],"data_offsets":[32,64]}}"#,
    r#"{"__metadata__":{"format":"pt"},"model.layers.0.x.weight":{"dtype":"F64","shape":[8],"data_offsets":[0,64]}}"#,
    r#"{"a":{"dtype":"U8","shape":[0,9],"data_offsets":[0,0]},"b":{"dtype":"I64","shape":[1,8,1],"data_offsets":[0,64]}}    "#,
    r#"{"s":{"dtype":"F16","shape":[],"data_offsets":[62,64]},"f":{"dtype":"F4","shape":[124],"data_offsets":[0,62]}}"#,
];

/// A file of that header and 64 bytes of data, the length as it is.
fn framed(header: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, &[0; 64]].concat()
}

/// What a header that is taken promises about the file.
fn read_header(bytes: &[u8]) -> bool {
    let tensors = header::read(Path::new("m.safetensors"), bytes);
    for info in tensors.iter().flat_map(BTreeMap::values) {
        assert!(info.bytes.0 <= info.bytes.1 && info.bytes.1 <= bytes.len());
    }
    taken(tensors)
}

#[test]
fn damaged_headers_of_honest_length() {
    let corpus = Corpus { seeds: texts(HEADERS), words: JSON_WORDS };
    fuzz("safetensors header", 35, &corpus, |header| read_header(&framed(header)));
}

#[test]
fn damaged_safetensors_files() {
    let mut seeds: Vec<Vec<u8>> = HEADERS.iter().map(|header| framed(header.as_bytes())).collect();
    let tensor = Numbers { dtype: mergesweep::config::Dtype::F16, shape: vec![3, 5], values: pseudo_random(15, 1) };
    seeds.push(safetensors(&[("model.norm.weight", tensor)]));
    fuzz("safetensors file", 10, &Corpus { seeds, words: JSON_WORDS }, read_header);
}

#[test]
fn damaged_indexes() {
    let folder = TempDir::new().unwrap();
    for name in ["a", "b"] {
        let tensor = Numbers { dtype: mergesweep::config::Dtype::F32, shape: vec![2], values: vec![1.0, 2.0] };
        std::fs::write(folder.path().join(format!("{name}.safetensors")), safetensors(&[(name, tensor)])).unwrap();
    }
    let seeds = texts(&[
        r#"{"metadata": {"total_size": 16}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}"#,
        r#"{"weight_map": {"a": "a.safetensors"}}"#,
        r#"{"weight_map": {}}"#,
    ]);
    fuzz("checkpoint index", 5, &Corpus { seeds, words: JSON_WORDS }, |index| {
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        let checkpoint = Checkpoint::open_weights_of(folder.path());
        if let Ok(checkpoint) = &checkpoint {
            assert!(checkpoint.tensors().values().all(|tensor| checkpoint.bytes(tensor).len() == 8));
        }
        taken(checkpoint)
    });
}

#[test]
fn damaged_model_configs() {
    let folder = TempDir::new().unwrap();
    copy_model("base", folder.path());
    let seeds = files(
        ["base", "base-tied", "code-bf16"].map(|model| fixtures().join("inputs").join(model).join("config.json")),
    );
    let text = "merge_method: passthrough\nmodels:\n- model: base\n";
    let merge_config = config(text);
    let located = Located { base: folder.path().to_owned(), adapter: None };
    fuzz("config.json", 5, &Corpus { seeds, words: JSON_WORDS }, |bytes| {
        std::fs::write(folder.path().join("config.json"), bytes).unwrap();
        taken(merge::plan(&merge_config, &|_| Ok(located.clone()), text, &options()))
    });
}

#[test]
fn damaged_adapter_configs() {
    let base = Checkpoint::open(&fixtures().join("inputs/base")).unwrap();
    let folder = TempDir::new().unwrap();
    let names = ["A", "B"].map(|half| format!("base_model.model.model.layers.1.self_attn.q_proj.lora_{half}.weight"));
    let half = |shape: [usize; 2]| {
        let values = vec![0.5; shape[0] * shape[1]];
        Numbers { dtype: mergesweep::config::Dtype::F32, shape: shape.to_vec(), values }
    };
    let tensors = [(names[0].as_str(), half([4, 32])), (names[1].as_str(), half([32, 4]))];
    std::fs::write(folder.path().join("adapter_model.safetensors"), safetensors(&tensors)).unwrap();
    let mut seeds = files([project("sweeps/adapters/math/adapter_config.json")]);
    seeds.extend(texts(&[
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true, "rank_pattern": {"^v_proj": 2}}"#,
        r#"{"r": 64, "lora_alpha": 1e3, "rank_pattern": {"layers.1.self_attn.q_proj$": 4}, "alpha_pattern": {"q_proj": 0.5}}"#,
    ]));
    fuzz("adapter_config.json", 5, &Corpus { seeds, words: JSON_WORDS }, |bytes| {
        std::fs::write(folder.path().join("adapter_config.json"), bytes).unwrap();
        taken(Adapter::open(folder.path(), &base, None))
    });
}

#[test]
fn damaged_mergekit_configs() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(fixtures().join("cases"))
        .unwrap()
        .map(|case| case.unwrap().path().join("config.yml"))
        .filter(|path| path.is_file())
        .collect();
    cases.sort();
    let mut seeds = files(cases);
    seeds.extend(texts(&[
        "x-w: &w {weight: 1, density: [0.1, 0.9]}\nmerge_method: ties\nbase_model: o/base\nmodels:\n- {model: o/a, parameters: {<<: *w}}\n- {model: o/b, parameters: *w}\n",
        "merge_method: linear\ntokenizer: {source: union, pad_to_multiple_of: 8, tokens: {<|x|>: {source: a/b, force: true}}}\nmodels:\n- {model: {model: {path: a/b, revision: v1}, lora: {path: c/d}}, parameters: {weight: 1}}\n",
    ]));
    // A case may be one of a config that is refused, by the fixtures' own word.
    let read = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let document = document::text_of(Path::new("c.yml"), text).map_err(|problems| problems.to_string());
        document.is_ok_and(|document| taken(parse(&document, &Mergekit)))
    };
    seeds.retain(|seed| read(seed));
    assert!(seeds.len() > 50);
    fuzz("mergekit config", 20, &Corpus { seeds, words: YAML_WORDS }, read);
}

/// Specs are read with the trials made of them: axes are lists whose length a file's numbers choose.
fn damaged_specs(reader: &str, hundredths: u64, file: &str, seeds: &[&str], words: &str) {
    let folder = TempDir::new().unwrap();
    for (from, to) in [("sweeps/examples/configs", "configs"), ("sweeps/study", "study")] {
        std::os::unix::fs::symlink(project(from), folder.path().join(to)).unwrap();
    }
    // Definitions of tasks have a reader, and a test, of their own.
    std::fs::create_dir(folder.path().join("tasks")).unwrap();
    let path = folder.path().join(file);
    let corpus = Corpus { seeds: files(seeds.iter().map(|seed| project(seed))), words };
    fuzz(reader, hundredths, &corpus, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        taken(plan::open(&path))
    });
}

#[test]
fn damaged_toml_specs() {
    let seeds = ["sweeps/examples/slerp-and-dare.toml", "sweeps/study.toml", "sweeps/quickstart.toml"];
    damaged_specs("TOML spec", 12, "spec.toml", &seeds, TOML_WORDS);
}

#[test]
fn damaged_yaml_specs() {
    damaged_specs("YAML spec", 8, "spec.yml", &["sweeps/examples/slerp-and-dare.yml"], YAML_WORDS);
}

/// The start of the first mistake.
fn shortest(problems: Problems) -> String {
    problems.0[0].message.chars().take(75).collect()
}

/// Short files that would need gigabytes, or a stack of them.
#[test]
fn what_could_grow_without_bound_is_refused() {
    let read = |name: &str, text: String| match document::text_of(Path::new(name), text) {
        Ok(document) => parse(&document, &Mergekit).map_or_else(shortest, |_| "taken".to_owned()),
        Err(problems) => shortest(problems),
    };
    let long = "x".repeat(1 << 20);
    let mut nested = String::from("x-a: &a [");
    nested += &"1, ".repeat(50_000);
    nested += "]\nx-b: ";
    for _ in 0..50 {
        nested += "[*a, *a, *a, ";
    }
    let path = "a.".repeat(10_000);
    let mut inline = String::new();
    for _ in 0..60 {
        write!(inline, "{}b = {{ ", "a.".repeat(70)).unwrap();
    }
    let messages = [
        read("c.yml", nested),
        read("c.yml", format!("x-a: &a {long}\nx-b: [{}]\n", "*a, ".repeat(10_000))),
        read("c.yml", format!("parameters: {{ {long}: [{}] }}\n", "1, ".repeat(10_000))),
        read("c.yml", format!("merge_method: {long}\nmodels: [{{ model: a/b }}]\n")),
        read("c.toml", format!("{inline}{}", "}".repeat(60))),
        read("c.toml", format!("{long} = 1")),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    more than 200000 values once aliases are written out
    more than 200000 values once aliases are written out
    a key of 1048576 bytes, expected at most 1000
    unknown merge method `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
    nested deeper than 60 levels
    a key of 1048576 bytes, expected at most 1000
    ");
    let folder = TempDir::new().unwrap();
    let spec = |merge: String| {
        let head = "name = \"s\"\nevaluate.tasks = [\"t\"]\nmodels = { a = \"o/a\", b = \"o/b\" }\n[[merge]]\nname = \"m\"\n\
                    method = \"slerp\"\nbase_model = \"a\"\nmodels = [\"a\", \"b\"]\n";
        std::fs::write(folder.path().join("s.toml"), format!("{head}{merge}\n")).unwrap();
        shortest(plan::open(&folder.path().join("s.toml")).unwrap_err())
    };
    let messages = [
        spec(format!("grid.t = {{ path = \"parameters.{path}t\", values = [1] }}")),
        spec(format!("grid.t = [[{}]]\ngrid.seed = {{ from = 1, to = 1000, step = 1 }}", "1, ".repeat(10_000))),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    `parameters.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a
    1000 combinations of 10002 values, expected at most 4000000 values in all
    ");
}
