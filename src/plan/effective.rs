//! What a merge really reads: settings that no tensor can ever see are left out.
//!
//! Two trials of one merge that read the same are one merge under two names; which axis makes no difference is told
//! before anything runs.

use std::fmt::Write as _;

use crate::config::method::Scope;
use crate::config::{MergeConfig, Parameters, Setting, Slice, SourceModel, write};

/// A text that is the same for merges that read the same.
pub fn effective(config: &MergeConfig, seed: u64) -> String {
    let mut text = format!(
        "{} {:?} {:?} {:?} {:?} {:?}\n",
        config.method, config.base_model, config.dtype, config.out_dtype, config.tokenizer, config.chat_template
    );
    if config.method.spec().random {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "seed {seed}");
    }
    for slice in &config.slices {
        let base = config.base_of(slice);
        let _ = writeln!(text, "slice {base:?}");
        for source in &slice.sources {
            let _ = writeln!(text, "source {} {:?}", source.model, source.layer_range);
        }
        for row in config.method.spec().parameters {
            if row.scope == Scope::Shared {
                let _ = writeln!(text, "{} {}", row.name, read(config, slice, None, row.name));
                continue;
            }
            let asked = |source: &&SourceModel| row.scope == Scope::EveryInput || Some(&source.model) != base;
            for source in slice.sources.iter().filter(asked) {
                let _ = writeln!(text, "{} {} {}", source.model, row.name, read(config, slice, Some(source), row.name));
            }
        }
    }
    text
}

/// The settings of a parameter from the inside out, up to the first that speaks for every tensor.
fn read(config: &MergeConfig, slice: &Slice, source: Option<&SourceModel>, name: &str) -> String {
    let levels: [Option<&Parameters>; 4] = [
        source.map(|source| &source.parameters),
        Some(&slice.parameters),
        Some(&config.module_parameters),
        Some(&config.parameters),
    ];
    let mut seen = String::new();
    for setting in levels.into_iter().flatten().filter_map(|parameters| parameters.get(name)) {
        seen.push_str(&write::canonical_setting(setting));
        seen.push(' ');
        if speaks_for_all(setting) {
            break;
        }
    }
    seen
}

fn speaks_for_all(setting: &Setting) -> bool {
    match setting {
        Setting::Scalar(_) => true,
        Setting::Gradient(values) => !values.is_empty(),
        Setting::Conditional(cases) => {
            let catches_all = |filter: &Option<String>| filter.as_deref().is_none_or(|filter| filter == "*");
            cases.iter().any(|case| catches_all(&case.filter) && speaks_for_all(&case.value))
        }
    }
}
