//! Which tensors a model has, and where its layers are: from a short table of definitions for common decoders, and from
//! the names in the checkpoint for every other.
//!
//! A definition is what makes a tensor *missing* (it is in the table and not in the file) or *extra* (the other way
//! round: rotary buffers and the like, which are left out and noted). Without a definition every floating-point tensor
//! of the checkpoint belongs to the model.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;

/// The embedding, for the rule about heads.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The head, which a model that ties it to the embedding does not have.
pub const HEAD: &str = "lm_head.weight";

/// Where a tensor stands relative to the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before the first layer: taken from the first slice.
    Pre,
    /// In a layer.
    Layer,
    /// After the last layer: taken from the last slice.
    Post,
}

/// One tensor of an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Full name outside the layers, the name after `PREFIX.N.` in them.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Left out where no source has it.
    pub optional: bool,
}

/// What tensors a model has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// What comes before the number of a layer: `model.layers`.
    pub layers: String,
    /// The tensors outside the layers.
    pub outside: Vec<Part>,
    /// The tensors of every layer, by its number; a single entry stands for all.
    inside: Vec<Vec<Part>>,
    /// Layers of the checkpoint it was made for.
    pub n_layers: usize,
}

struct Definition {
    architectures: &'static [&'static str],
    layer: &'static [&'static str],
}

/// Norms before attention and before the feed-forward block: the common layout.
const PLAIN_NORMS: [&str; 2] = ["input_layernorm.weight", "post_attention_layernorm.weight"];
const ATTENTION: [&str; 4] =
    ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight"];
const MLP: [&str; 3] = ["mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"];
const QK_NORMS: [&str; 2] = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"];
const QKV_BIASES: [&str; 3] = ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];
const FEEDFORWARD_NORMS: [&str; 2] = ["pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"];

const LLAMA: &[&str] = &join::<9>(&[&PLAIN_NORMS, &ATTENTION, &MLP]);
const QWEN2: &[&str] = &join::<12>(&[&PLAIN_NORMS, &ATTENTION, &MLP, &QKV_BIASES]);
const QWEN3: &[&str] = &join::<11>(&[&PLAIN_NORMS, &ATTENTION, &MLP, &QK_NORMS]);
const GEMMA2: &[&str] = &join::<11>(&[&PLAIN_NORMS, &ATTENTION, &MLP, &FEEDFORWARD_NORMS]);
const GEMMA3: &[&str] = &join::<13>(&[&PLAIN_NORMS, &ATTENTION, &MLP, &FEEDFORWARD_NORMS, &QK_NORMS]);

const DEFINITIONS: &[Definition] = &[
    Definition { architectures: &["LlamaForCausalLM", "MistralForCausalLM", "GemmaForCausalLM"], layer: LLAMA },
    Definition { architectures: &["Qwen2ForCausalLM"], layer: QWEN2 },
    Definition { architectures: &["Qwen3ForCausalLM"], layer: QWEN3 },
    Definition { architectures: &["Gemma2ForCausalLM"], layer: GEMMA2 },
    Definition { architectures: &["Gemma3ForCausalLM"], layer: GEMMA3 },
    Definition {
        architectures: &["Phi3ForCausalLM"],
        layer: &[
            "input_layernorm.weight",
            "post_attention_layernorm.weight",
            "self_attn.qkv_proj.weight",
            "self_attn.o_proj.weight",
            "mlp.gate_up_proj.weight",
            "mlp.down_proj.weight",
        ],
    },
    Definition {
        architectures: &["Olmo2ForCausalLM"],
        layer: &join::<11>(&[
            &["post_attention_layernorm.weight", "post_feedforward_layernorm.weight"],
            &ATTENTION,
            &QK_NORMS,
            &MLP,
        ]),
    },
];

/// Linear layers that some configs give a bias (`attention_bias`, `mlp_bias`): merged where the checkpoint has them.
const OPTIONAL_BIASES: &[&str] = &[
    "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.bias",
    "self_attn.o_proj.bias",
    "mlp.gate_proj.bias",
    "mlp.up_proj.bias",
    "mlp.down_proj.bias",
];

const fn join<const N: usize>(groups: &[&[&'static str]]) -> [&'static str; N] {
    let mut names = [""; N];
    let (mut group, mut total) = (0, 0);
    while group < groups.len() {
        let mut index = 0;
        while index < groups[group].len() {
            names[total] = groups[group][index];
            index += 1;
            total += 1;
        }
        group += 1;
    }
    assert!(total == N, "the length must be that of all groups");
    names
}

impl Architecture {
    /// The architecture of a checkpoint, by its config's `architectures` or its tensors' names.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let definition = checkpoint
            .architecture()
            .and_then(|name| DEFINITIONS.iter().find(|definition| definition.architectures.contains(&name)));
        match definition {
            Some(definition) => Self::defined(definition, checkpoint),
            None => Self::inferred(checkpoint),
        }
    }

    /// That of a Llama-like decoder of so many layers: what stands for a model of which nothing is known. It has every
    /// bias that some of them have.
    pub fn llama_like(n_layers: usize) -> Self {
        Self::with_layer(LLAMA, n_layers)
    }

    /// Without the optional parts of the layers that a checkpoint does not have.
    #[must_use]
    pub fn present_in(mut self, checkpoint: &Checkpoint) -> Self {
        let layers = self.layers.clone();
        for (number, parts) in self.inside.iter_mut().enumerate() {
            let has = |part: &Part| checkpoint.tensor(&format!("{layers}.{number}.{}", part.name)).is_some();
            parts.retain(|part| !part.optional || has(part));
        }
        self
    }

    fn defined(definition: &Definition, checkpoint: &Checkpoint) -> Self {
        let mut defined = Self::with_layer(definition.layer, 0);
        let counted = checkpoint.config_number(LAYER_COUNTS);
        defined.n_layers = counted.unwrap_or_else(|| count_layers(checkpoint, &defined.layers));
        defined
    }

    fn with_layer(layer: &[&str], n_layers: usize) -> Self {
        let part = |name: &str, place, optional| Part { name: name.to_owned(), place, optional };
        let outside = vec![
            part(EMBEDDING, Place::Pre, false),
            part("model.norm.weight", Place::Post, false),
            part(HEAD, Place::Post, true),
        ];
        let required = layer.iter().map(|name| part(name, Place::Layer, false));
        let biases = OPTIONAL_BIASES.iter().filter(|name| !layer.contains(name));
        let inside = vec![required.chain(biases.map(|name| part(name, Place::Layer, true))).collect()];
        Self { layers: "model.layers".to_owned(), outside, inside, n_layers }
    }

    fn inferred(checkpoint: &Checkpoint) -> Self {
        let names = || {
            checkpoint
                .tensors()
                .iter()
                .filter(|(name, tensor)| tensor.dtype().is_some() && !name.ends_with("inv_freq"))
                .map(|(name, _)| name.as_str())
        };
        let mut prefixes: BTreeMap<&str, usize> = BTreeMap::new();
        for (prefix, ..) in names().filter_map(split_layer) {
            *prefixes.entry(prefix).or_default() += 1;
        }
        // The stack of layers is where most numbered tensors are; experts inside a layer come after its number.
        let layers = prefixes.iter().max_by_key(|(_, count)| **count).map_or("", |(prefix, _)| *prefix).to_owned();
        let n_layers = count_layers(checkpoint, &layers);
        let mut inside = vec![Vec::new(); n_layers];
        let mut outside = Vec::new();
        for name in names() {
            match split_layer(name).filter(|(prefix, number, _)| *prefix == layers && *number < n_layers) {
                Some((_, number, rest)) => {
                    inside[number].push(Part { name: rest.to_owned(), place: Place::Layer, optional: false });
                }
                None => {
                    let early = ["embed", "wte", "wpe"].iter().any(|word| name.contains(word));
                    let place = if early { Place::Pre } else { Place::Post };
                    outside.push(Part { name: name.to_owned(), place, optional: name == HEAD });
                }
            }
        }
        if outside.iter().any(|part| part.name == EMBEDDING) && !outside.iter().any(|part| part.name == HEAD) {
            // Another source may have a head of its own.
            outside.push(Part { name: HEAD.to_owned(), place: Place::Post, optional: true });
        }
        Self { layers, outside, inside, n_layers }
    }

    /// Where a checkpoint's config says another number of layers than its tensors have, or none at all.
    pub fn contradiction(&self, checkpoint: &Checkpoint) -> Option<String> {
        let text = checkpoint.config.get("text_config").and_then(|text| text.as_object());
        let tables = [Some(&checkpoint.config), text];
        let (key, value) = tables
            .into_iter()
            .flatten()
            .find_map(|table| LAYER_COUNTS.iter().find_map(|key| Some((*key, table.get(*key)?))))?;
        let found = count_layers(checkpoint, &self.layers);
        if value.as_u64() == Some(found as u64) {
            return None;
        }
        let used = match value.as_u64() {
            Some(_) => String::new(),
            None => ", which is no number of layers".to_owned(),
        };
        let n_layers = self.n_layers;
        Some(format!(
            "config.json says `{key}` {value}{used}; its tensors are of {found} layers, {n_layers} are merged"
        ))
    }

    /// The tensors of layer `number`.
    pub fn layer(&self, number: usize) -> &[Part] {
        match self.inside.as_slice() {
            [all] => all,
            each => each.get(number).or(each.last()).map_or(&[], Vec::as_slice),
        }
    }

    /// The full name of a part of a layer.
    pub fn layer_tensor(&self, number: usize, part: &str) -> String {
        format!("{}.{number}.{part}", self.layers)
    }

    /// Whether a tensor of a checkpoint belongs to the model.
    pub fn has(&self, tensor: &str) -> bool {
        if self.outside.iter().any(|part| part.name == tensor) {
            return true;
        }
        split_layer(tensor).is_some_and(|(prefix, number, rest)| {
            prefix == self.layers && self.layer(number).iter().any(|part| part.name == rest)
        })
    }
}

/// Names under which configs count layers.
pub const LAYER_COUNTS: &[&str] = &["num_hidden_layers", "n_layer", "num_layers", "n_layers"];

/// `a.b.7.c.d` as (`a.b`, 7, `c.d`), by the first component that is a number.
fn split_layer(name: &str) -> Option<(&str, usize, &str)> {
    let mut start = 0;
    for component in name.split('.') {
        let end = start + component.len();
        if start > 0 && component.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some((&name[..start - 1], component.parse().ok()?, name.get(end + 1..)?));
        }
        start = end + 1;
    }
    None
}

fn count_layers(checkpoint: &Checkpoint, layers: &str) -> usize {
    let numbers = checkpoint.tensors().keys().filter_map(|name| split_layer(name));
    // Numbers come from a file's text: one that no tensor count could reach must not size a list.
    let limit = checkpoint.tensors().len();
    numbers
        .filter(|(prefix, number, _)| *prefix == layers && *number < limit)
        .map(|(_, number, _)| number + 1)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_at_the_first_number() {
        let experts = "model.layers.12.block_sparse_moe.experts.3.w1.weight";
        assert_eq!(split_layer(experts), Some(("model.layers", 12, "block_sparse_moe.experts.3.w1.weight")));
        assert_eq!(split_layer("model.norm.weight"), None);
        assert_eq!(split_layer("h.0"), None);
    }
}
