//! A model's config with everything kept but the width: same layers, same heads, same vocabulary, so that whatever speaks of
//! layers, tensors or tokens holds for the narrow model too.
//!
//! Every width is divided by one number, the largest that leaves no rest. Then whatever is made of widths (a fused
//! projection, a head of its own size) stays in proportion, without being known here.

use serde_json::{Map, Value};

/// A config of `config.json`.
pub type Config = Map<String, Value>;

/// Keys that say how wide something is.
const WIDTHS: &[&str] = &[
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "ffn_dim",
    "ffn_hidden_size",
    "word_embed_proj_dim",
    "d_model",
    "d_ff",
    "n_embd",
    "n_inner",
    "q_lora_rank",
    "kv_lora_rank",
];

/// Keys that say how wide one head is.
const HEAD_WIDTHS: &[&str] = &["head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rotary_dim"];

/// Keys that count heads.
const HEADS: &[&str] = &["num_attention_heads", "num_key_value_heads", "n_head", "num_heads", "n_head_kv"];

/// Keys of factors that a rotary embedding has for every pair of a head's numbers.
const PER_PAIR: &[&str] = &["short_factor", "long_factor"];

/// The narrowest model that is made.
const NARROWEST: u64 = 32;

/// What becomes of the heads of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// As many, each at least so wide.
    Narrower(u64),
    /// As wide, and fewer, in the same proportion: kernels of some back ends know few widths.
    Fewer,
}

/// The config of a narrow model of the same architecture. Parts for text, vision and the like are narrowed each by its own
/// number. What has no width that is known here stays as it is.
pub fn narrowed(config: &Config, heads: Heads) -> Config {
    let mut narrow = config.clone();
    for value in narrow.values_mut() {
        if let Value::Object(part) = value
            && numbers(part, WIDTHS).next().is_some()
        {
            *part = narrowed(part, heads);
        }
    }
    let by = divisor(config, heads);
    let divided: &[&[&str]] = match heads {
        Heads::Narrower(_) => &[WIDTHS, HEAD_WIDTHS],
        Heads::Fewer => &[WIDTHS, HEADS],
    };
    for key in divided.iter().copied().flatten() {
        if let Some(number) = narrow.get_mut(*key)
            && let Some(width) = number.as_u64()
        {
            *number = Value::from(width / by);
        }
    }
    if let Heads::Narrower(_) = heads {
        narrow.values_mut().for_each(|value| shorten(value, by));
    }
    narrow
}

/// Factors of a rotary embedding, as many as the narrow head has use for.
fn shorten(rotary: &mut Value, by: u64) {
    for key in PER_PAIR {
        if let Some(Value::Array(factors)) = rotary.get_mut(*key) {
            let left = factors.len() / usize::try_from(by).unwrap_or(1).max(1);
            factors.truncate(left);
        }
    }
}

/// The largest number that all widths can be divided by; 1 where there is none.
fn divisor(config: &Config, heads: Heads) -> u64 {
    let widths: Vec<u64> = numbers(config, WIDTHS).collect();
    let Some(model) = numbers(config, &["hidden_size", "d_model", "n_embd"]).next() else { return 1 };
    let per_head: Vec<u64> = match numbers(config, HEAD_WIDTHS).collect::<Vec<_>>() {
        told if !told.is_empty() => told,
        _ => numbers(config, &["num_attention_heads", "n_head", "num_heads"])
            .next()
            .filter(|n_heads| *n_heads > 0 && model.is_multiple_of(*n_heads))
            .map(|n_heads| model / n_heads)
            .into_iter()
            .collect(),
    };
    let counts: Vec<u64> = numbers(config, HEADS).collect();
    let fits = |by: u64| {
        let divides = |number: &u64| number.is_multiple_of(by);
        widths.iter().all(divides)
            && model / by >= NARROWEST
            && match heads {
                // Rotary embeddings turn pairs of numbers.
                Heads::Narrower(least) => {
                    per_head.iter().all(|width| divides(width) && width / by >= least && (width / by).is_multiple_of(2))
                }
                Heads::Fewer => !counts.is_empty() && counts.iter().all(divides),
            }
    };
    (1..=model).rev().find(|by| fits(*by)).unwrap_or(1)
}

/// The numbers above 0 under some keys.
fn numbers<'a>(config: &'a Config, keys: &'a [&str]) -> impl Iterator<Item = u64> + 'a {
    keys.iter().filter_map(|key| config.get(*key)?.as_u64()).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn narrow(config: Value, heads: Heads) -> Value {
        let Value::Object(config) = config else { panic!("no table") };
        Value::Object(narrowed(&config, heads))
    }

    #[test]
    fn only_widths_change_and_all_by_one_number() {
        let llama = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": false,
        });
        let mut expected = llama.clone();
        expected["hidden_size"] = json!(64);
        expected["intermediate_size"] = json!(224);
        assert_eq!(narrow(llama, Heads::Narrower(2)), expected);
    }

    #[test]
    fn heads_stay_as_wide_where_a_back_end_needs_them_so() {
        let llama = json!({"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8});
        let expected =
            json!({"hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 4, "num_key_value_heads": 1});
        assert_eq!(narrow(llama, Heads::Fewer), expected);
    }

    #[test]
    fn odd_numbers_of_heads_and_ties_are_kept() {
        let smol = json!({"hidden_size": 576, "intermediate_size": 1536, "head_dim": 64, "num_attention_heads": 9, "num_key_value_heads": 3});
        let expected = json!({"hidden_size": 36, "intermediate_size": 96, "head_dim": 4, "num_attention_heads": 9, "num_key_value_heads": 3});
        assert_eq!(narrow(smol, Heads::Narrower(2)), expected);
    }

    #[test]
    fn parts_are_narrowed_each_and_rotary_factors_shortened() {
        let config = json!({
            "text_config": {"hidden_size": 1024, "head_dim": 64, "rope_scaling": {"short_factor": vec![1.0; 32]}},
            "vision_config": {"hidden_size": 96, "num_attention_heads": 12},
            "rope_theta": {"x": 1},
        });
        let narrow = narrow(config, Heads::Narrower(2));
        assert_eq!(narrow["text_config"]["hidden_size"], 32);
        assert_eq!(narrow["text_config"]["rope_scaling"]["short_factor"].as_array().unwrap().len(), 1);
        assert_eq!(narrow["vision_config"]["hidden_size"], 48);
    }

    #[test]
    fn what_cannot_be_narrowed_stays() {
        for config in [json!({}), json!({"hidden_size": 7, "num_attention_heads": 7}), json!({"hidden_size": "wide"})] {
            assert_eq!(narrow(config.clone(), Heads::Narrower(2)), config);
        }
    }
}
