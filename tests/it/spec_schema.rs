//! The schema says what the readers say: every committed spec is valid, and every value that is put at any key is taken by
//! both or refused by both.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mergesweep::document::{Node, Value, parse};
use mergesweep::plan;
use mergesweep::spec::keys;
use serde_json::{Map, Value as Json, json};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Why a value does not fit a schema. As much of JSON Schema as ours uses; a word that is not known here fails the test.
fn misfit(value: &Json, schema: &Json, root: &Json) -> Option<String> {
    let Json::Object(words) = schema else {
        return (schema == &json!(false)).then(|| "nothing is allowed".to_owned());
    };
    words.iter().find_map(|(word, rule)| word_misfit(word, rule, value, words, root))
}

fn word_misfit(word: &str, rule: &Json, value: &Json, words: &Map<String, Json>, root: &Json) -> Option<String> {
    let refuse = |why: String| Some(format!("{value}: {why}"));
    match word {
        "$schema" | "title" | "description" | "definitions" => None,
        "$ref" => {
            let name = rule.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
            misfit(value, &root["definitions"][name], root)
        }
        "allOf" => rule.as_array().unwrap().iter().find_map(|rule| misfit(value, rule, root)),
        "anyOf" => {
            let all: Option<Vec<String>> =
                rule.as_array().unwrap().iter().map(|rule| misfit(value, rule, root)).collect();
            all.and_then(|all| refuse(all.join(" and ")))
        }
        "enum" => (!rule.as_array().unwrap().contains(value)).then(|| format!("{value} is not one of {rule}")),
        "type" => {
            let is = |name: &str| match name {
                "null" => value.is_null(),
                "boolean" => value.is_boolean(),
                "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("unknown type {other}"),
            };
            let names: Vec<&str> = match rule {
                Json::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
                name => vec![name.as_str().unwrap()],
            };
            if names.iter().any(|name| is(name)) { None } else { refuse(format!("is no {rule}")) }
        }
        "minimum" => {
            value.as_f64().filter(|number| *number < rule.as_f64().unwrap()).and_then(|_| refuse("too small".into()))
        }
        "exclusiveMinimum" => {
            value.as_f64().filter(|number| *number <= rule.as_f64().unwrap()).and_then(|_| refuse("too small".into()))
        }
        "minItems" => value
            .as_array()
            .filter(|items| (items.len() as u64) < rule.as_u64().unwrap())
            .and_then(|_| refuse("too short".into())),
        "maxItems" => value
            .as_array()
            .filter(|items| (items.len() as u64) > rule.as_u64().unwrap())
            .and_then(|_| refuse("too long".into())),
        "items" => value.as_array().into_iter().flatten().find_map(|item| misfit(item, rule, root)),
        "required" => {
            let object = value.as_object()?;
            let missing = rule.as_array().unwrap().iter().find(|key| !object.contains_key(key.as_str().unwrap()))?;
            refuse(format!("misses {missing}"))
        }
        "properties" => {
            let object = value.as_object()?;
            object.iter().find_map(|(key, value)| misfit(value, rule.get(key)?, root))
        }
        "additionalProperties" => {
            let known = |key: &str| {
                words.get("properties").is_some_and(|keys| keys.get(key).is_some())
                    || (words.contains_key("patternProperties") && key.starts_with("x-"))
            };
            let object = value.as_object()?;
            object
                .iter()
                .filter(|(key, _)| !known(key))
                .find_map(|(key, value)| misfit(value, rule, root).map(|why| format!("`{key}`: {why}")))
        }
        "patternProperties" => None,
        "pattern" => value
            .as_str()
            .filter(|text| !matches(rule.as_str().unwrap(), text))
            .and_then(|_| refuse(format!("does not match {rule}"))),
        other => panic!("`{other}` is not known to this test"),
    }
}

/// Whether a text matches a pattern of the schema, as Python reads it (no crate for regular expressions is needed else).
fn matches(pattern: &str, text: &str) -> bool {
    thread_local! {
        static ASKED: RefCell<HashMap<(String, String), bool>> = RefCell::default();
    }
    const PROGRAM: &str = "import re, sys; sys.exit(0 if re.search(sys.argv[1], sys.argv[2]) else 1)";
    let ask = || Command::new("python3").args(["-c", PROGRAM, pattern, text]).status().unwrap().success();
    ASKED.with_borrow_mut(|asked| *asked.entry((pattern.to_owned(), text.to_owned())).or_insert_with(ask))
}

/// A document as JSON.
fn json_of(node: &Node) -> Json {
    use mergesweep::config::Scalar;
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(Scalar::Bool(value)) => json!(value),
        Value::Scalar(Scalar::Int(value)) => json!(value),
        Value::Scalar(Scalar::Float(value)) => json!(value),
        Value::Scalar(Scalar::Text(value)) => json!(value),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.value))).collect())
        }
    }
}

#[test]
fn the_committed_schema_and_reference_are_those_of_the_program() {
    let schema = serde_json::to_string_pretty(&keys::schema()).unwrap() + "\n";
    let committed = |name: &str| std::fs::read_to_string(root(name)).unwrap_or_default();
    assert!(committed("sweeps/schema.json") == schema, "run `mergesweep schema > sweeps/schema.json`");
    assert!(committed("sweeps/SPEC.md") == keys::reference(), "run `mergesweep schema --markdown > sweeps/SPEC.md`");
}

#[test]
fn committed_specs_fit_the_schema_and_name_it() {
    let Some(_) = crate::support::plain_python() else { return };
    let schema = keys::schema();
    for name in [
        "study.toml",
        "quickstart.toml",
        "quickstart-code.toml",
        "examples/slerp-and-dare.toml",
        "examples/slerp-and-dare.yml",
    ] {
        let path = root("sweeps").join(name);
        let document = parse::file(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(misfit(&json_of(&document), &schema, &schema), None, "{name}");
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let named = first.strip_prefix("#:schema ").or_else(|| first.strip_prefix("# yaml-language-server: $schema="));
        assert!(path.parent().unwrap().join(named.unwrap()).is_file(), "{name}: {first}");
    }
}

/// A spec that has every table, as JSON, which is YAML.
fn whole() -> Json {
    json!({
        "name": "s",
        "models": { "a": "o/a", "b": "o/b", "c": { "path": "o/c", "revision": "main", "adapter": "o/d" } },
        "evaluate": { "tasks": ["t", { "task": "u", "columns": { "acc": "acc,none" } }], "harness": {} },
        "limits": {},
        "search": { "strategy": "race", "metric": "acc" },
        "resources": {},
        "baseline": [{ "name": "A", "model": "a" }],
        "merge": [
            {
                "name": "L", "method": "linear",
                "models": [{ "model": "a", "parameters": { "weight": 1 } }, { "model": "b", "parameters": { "weight": 1 } }],
            },
            {
                "name": "S {t}", "method": "slerp", "base_model": "a", "models": ["a", "b"],
                "grid": { "t": { "from": 0, "to": 1, "step": 0.5 } }, "sample": { "n": 2 },
            },
            {
                "name": "K", "method": "linear", "parameters": { "weight": { "value": 1, "filter": "mlp" } },
                "slices": [{ "sources": [
                    { "model": "a", "layer_range": [0, 2], "parameters": { "weight": 1 } },
                    { "model": "b", "layer_range": [0, 2], "parameters": { "weight": 1 } },
                ] }],
                "tokenizer": { "source": "a", "tokens": { "x": { "source": { "kind": "zero" } } } },
            },
        ],
    })
}

/// Values that are put at every key.
fn probes() -> Vec<Json> {
    vec![
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(1.5),
        json!("word"),
        json!(""),
        json!("1h30m"),
        json!("200GB"),
        json!("best:3"),
        json!("auto"),
        json!("float16"),
        json!("a"),
        json!([]),
        json!([1]),
        json!(["word"]),
        json!([1, 2]),
        json!([1, 2, 3, 4]),
        json!({}),
        json!({ "word": 1 }),
        json!({ "word": "word" }),
        json!([{}]),
    ]
}

/// The kind of an error that a schema cannot see: what names, tasks, methods and grids mean together.
fn beyond_a_schema(code: &str) -> bool {
    const SHAPE: [&str; 5] = ["E0101", "E0102", "E0103", "E0104", "E0213"];
    !SHAPE.contains(&code)
}

/// Errors of shape that the readers find in a spec.
fn refused(spec: &Json) -> (Vec<String>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.json");
    std::fs::write(&path, spec.to_string()).unwrap();
    match plan::open(&path) {
        Ok(_) => (Vec::new(), false),
        Err(problems) => {
            let shape = problems.errors().filter(|problem| !beyond_a_schema(problem.code.id()));
            let shape: Vec<String> = shape.map(ToString::to_string).collect();
            (shape, problems.errors().any(|problem| beyond_a_schema(problem.code.id())))
        }
    }
}

/// Puts a probe at every key of every table of the spec that the schema knows, and compares the two verdicts.
#[test]
fn schema_and_readers_agree_on_every_key() {
    let Some(_) = crate::support::plain_python() else { return };
    let schema = keys::schema();
    let whole = whole();
    assert_eq!(misfit(&whole, &schema, &schema), None);
    assert_eq!(refused(&whole), (Vec::new(), false));
    let places = [
        ("", "sweep"),
        ("/models/c", "model"),
        ("/evaluate", "evaluate"),
        ("/evaluate/tasks/1", "task"),
        ("/limits", "limits"),
        ("/search", "search"),
        ("/evaluate/harness", "harness"),
        ("/resources", "resources"),
        ("/baseline/0", "baseline"),
        ("/merge/0", "merge"),
        ("/merge/1/sample", "sample"),
        ("/merge/2/slices/0", "slice"),
        ("/merge/2/slices/0/sources/0", "source"),
        ("/merge/2/tokenizer", "tokenizer"),
        ("/merge/2/tokenizer/tokens/x", "token"),
        ("/merge/2/parameters/weight", "case"),
    ];
    let (mut n_probes, mut wrong) = (0, Vec::new());
    for (place, table) in places {
        let known = schema["definitions"][table]["properties"].as_object().unwrap();
        for key in known.keys().map(String::as_str).chain(["unknown_key"]) {
            for probe in probes() {
                let mut spec = whole.clone();
                let target = spec.pointer_mut(place).unwrap().as_object_mut().unwrap();
                target.insert(key.to_owned(), probe.clone());
                let misfit = misfit(&spec, &schema, &schema);
                let (shape, other) = refused(&spec);
                n_probes += 1;
                // What other rules refuse may never have come to be looked at.
                let agree = match (&misfit, shape.is_empty()) {
                    (Some(_), true) => other,
                    (None, false) => allowed_difference(key, &shape),
                    _ => true,
                };
                if !agree {
                    wrong.push(format!("{place}/{key} = {probe}: schema {misfit:?}, readers {shape:?}"));
                }
            }
        }
    }
    eprintln!("{n_probes} probes");
    assert!(wrong.is_empty(), "{} of {n_probes}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the readers refuse for a reason that lies in several keys together.
fn allowed_difference(key: &str, shape: &[String]) -> bool {
    // A grid is read against the merge, a parameter against its method, and sources against the form they stand in.
    matches!(
        key,
        "grid"
            | "zip"
            | "settings"
            | "exclude"
            | "models"
            | "parameters"
            | "merge"
            | "baseline"
            | "slices"
            | "modules"
            | "sources"
            | "value"
    ) || shape.iter().any(|message| message.contains("missing key `models`") || message.contains("nothing to evaluate"))
}
