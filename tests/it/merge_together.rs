//! Several merges in one pass: the bytes are those of merging one by one.

use mergesweep::config::Numerics;
use mergesweep::merge::{self, MergeOptions};
use mergesweep::model::locate::Located;
use tempfile::TempDir;

use crate::merge_support::{config, fixtures, merge_in, options};

/// Methods, parameters and models that share inputs in every way: grids, one model in several roles, other dtypes.
fn texts() -> Vec<String> {
    let models = |own: &str| format!("models: [{{model: inputs/math{own}}}, {{model: inputs/code{own}}}]\n");
    let mut texts: Vec<String> = ["0", "0.3", "1"]
        .iter()
        .map(|t| format!("merge_method: slerp\nbase_model: inputs/math\nparameters: {{t: {t}}}\n{}", models("")))
        .collect();
    for method in ["ties", "breadcrumbs_ties", "dare_ties", "dare_linear", "della", "task_arithmetic"] {
        for (density, weight) in [("0.4", "0.7"), ("0.7", "0.7")] {
            let own = format!(", parameters: {{weight: {weight}, density: {density}, epsilon: 0.1, gamma: 0.05}}");
            let own = if matches!(method, "della") { own } else { own.replace("epsilon: 0.1, ", "") };
            let own = if method.starts_with("breadcrumbs") { own } else { own.replace(", gamma: 0.05", "") };
            texts.push(format!("merge_method: {method}\nbase_model: inputs/base\n{}", models(&own)));
        }
    }
    texts.push(format!("merge_method: karcher\n{}", models("")));
    texts.push(format!("merge_method: arcee_fusion\nbase_model: inputs/math\n{}", models("")));
    texts.push(format!("merge_method: model_stock\nbase_model: inputs/base\n{}", models("")));
    texts.push(format!("merge_method: linear\ndtype: bfloat16\n{}", models(", parameters: {weight: 0.5}")));
    for t in ["0.2", "0.8"] {
        texts.push(format!(
            "merge_method: slerp\nbase_model: inputs/base\nparameters: {{t: {t}}}\ntokenizer_source: union\n\
             models: [{{model: inputs/base}}, {{model: inputs/math-v136}}]\n"
        ));
    }
    texts.push(
        "merge_method: passthrough\nslices:\n- sources: [{model: inputs/math, layer_range: [0, 2]}]\n\
         - sources: [{model: inputs/math, layer_range: [1, 3]}]\n"
            .to_owned(),
    );
    texts
}

#[test]
fn merges_in_one_pass_have_the_bytes_of_merges_one_by_one() {
    let (root, texts) = (fixtures(), texts());
    let locate = |model: &mergesweep::model::ModelRef| Ok(Located { base: root.join(&model.base.path), adapter: None });
    for numerics in [Numerics::F32, Numerics::Mergekit] {
        let options = MergeOptions { numerics, ..options() };
        let folder = TempDir::new().unwrap();
        let outs: Vec<_> = (0..texts.len()).map(|index| folder.path().join(index.to_string())).collect();
        let configs: Vec<_> = texts.iter().map(|text| config(text)).collect();
        let jobs: Vec<merge::Job<'_>> = configs
            .iter()
            .zip(&texts)
            .zip(&outs)
            .map(|((config, text), out)| merge::Job { config, config_text: text, out, options: &options })
            .collect();
        let together = merge::merge(&jobs, &locate, &|_, _| true).unwrap();
        for ((text, out), together) in texts.iter().zip(&outs).zip(together) {
            let alone = merge_in(&root, text, &options).unwrap().merge;
            assert_eq!(alone.weights_digest, together.weights_digest, "{text}");
            assert_eq!(alone.tensors, together.tensors, "{text}");
            assert_eq!(alone.sample, together.sample, "{text}");
            assert_eq!(merge::weights_digest(out).unwrap(), together.weights_digest, "{text}");
        }
    }
}
