//! From a config and the headers of its checkpoints to one [`Recipe`] for every output tensor. Everything that can be
//! wrong with names, shapes, dtypes, numbers of inputs and parameters is found here, before a byte is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::arch::{Architecture, EMBEDDING, HEAD, Part, Place};
use super::method::Operation;
use super::operation::{self, Asked};
use super::rows::Row;
use super::source::Source;
use super::vocabulary::{Table, Vocabulary, VocabularyError};
use crate::config::method::{Inputs, Method};
use crate::config::parameter::ParameterError;
use crate::config::{Dtype, MergeConfig, Numerics, Slice, SourceModel};
use crate::model::ModelRef;

/// How one output tensor is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What the inputs are cast to.
    pub working: Dtype,
    /// What the result is rounded to: the working dtype, but for arcee_fusion and ramplus_tl in mergekit's numerics.
    pub result: Dtype,
    /// What is written.
    pub out: Dtype,
    /// In the order of the operation: a base comes first.
    pub inputs: Vec<RecipeInput>,
    /// What is done with them.
    pub operation: Operation,
}

/// One input of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeInput {
    /// Number of the model.
    pub source: usize,
    /// Name of its tensor.
    pub tensor: String,
    /// Where its rows come from, where the tensor is laid out for another vocabulary.
    pub rows: Option<Arc<[Row]>>,
}

/// Every recipe of a merge, in the order in which the tensors are computed and written.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipes {
    /// mergekit's order: by the name of the first input's tensor.
    pub recipes: Vec<Recipe>,
    /// Layers of the output.
    pub n_layers: usize,
}

/// A merge that cannot be computed from these models.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// No source in a slice.
    #[error("slice {slice}: expected at least one source, found none")]
    NoSource {
        /// Number of the slice, from 0.
        slice: usize,
    },
    /// The same model twice.
    #[error("slice {slice}: `{model}` is listed twice")]
    Duplicate {
        /// Number of the slice, from 0.
        slice: usize,
        /// The model.
        model: String,
    },
    /// Sources of different depth.
    #[error("slice {slice}: expected {expected} layers of `{model}` as of `{first}`, found {found}")]
    SliceLengths {
        /// Number of the slice, from 0.
        slice: usize,
        /// The first source.
        first: String,
        /// Its number of layers.
        expected: usize,
        /// The other source.
        model: String,
        /// Its number of layers.
        found: usize,
    },
    /// A range that ends before it begins, or beyond the model.
    #[error("slice {slice}: `{model}` has {n_layers} layers, found `layer_range: [{start}, {end}]`")]
    LayerRange {
        /// Number of the slice, from 0.
        slice: usize,
        /// The model.
        model: String,
        /// Its number of layers.
        n_layers: usize,
        /// First layer asked for.
        start: usize,
        /// One after the last.
        end: usize,
    },
    /// A method without its base.
    #[error("`{method}` needs a `base_model`")]
    BaseRequired {
        /// The method.
        method: Method,
    },
    /// A base that is not among the sources.
    #[error("slice {slice}: the base model `{base}` is not among the sources (in `slices` form it must be listed)")]
    BaseNotListed {
        /// Number of the slice, from 0.
        slice: usize,
        /// The base.
        base: String,
    },
    /// A wrong number of models.
    #[error("slice {slice}: `{method}` takes {expected}, found {found}")]
    InputCount {
        /// Number of the slice, from 0.
        slice: usize,
        /// The method.
        method: Method,
        /// What it takes.
        expected: &'static str,
        /// Models listed.
        found: usize,
    },
    /// Models of different kinds.
    #[error("`{first}` is a `{expected}`, `{model}` a `{found}` (`--allow-crimes` merges them all the same)")]
    Architectures {
        /// One model.
        first: String,
        /// Its architecture.
        expected: String,
        /// The other.
        model: String,
        /// Its architecture.
        found: String,
    },
    /// A tensor that is not there.
    #[error("merging `{tensor}`: `{model}` has no tensor `{input}`")]
    MissingTensor {
        /// Output tensor.
        tensor: String,
        /// The model.
        model: String,
        /// The tensor looked for.
        input: String,
    },
    /// A number format that cannot be merged.
    #[error(
        "merging `{tensor}`: `{input}` of `{model}`: expected bfloat16, float16, float32 or float64, found {found}"
    )]
    TensorDtype {
        /// Output tensor.
        tensor: String,
        /// The model.
        model: String,
        /// Its tensor.
        input: String,
        /// Its format.
        found: String,
    },
    /// Shapes that differ.
    #[error("merging `{tensor}` ({method}): shapes differ: {expected:?} in `{first}`, {found:?} in `{model}`")]
    Shapes {
        /// Output tensor.
        tensor: String,
        /// The method.
        method: Method,
        /// One model.
        first: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The other model.
        model: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// Rows that cannot be had.
    #[error(transparent)]
    Rows(#[from] VocabularyError),
    /// Vocabularies that differ.
    #[error(
        "merging `{tensor}` ({method}): vocabulary sizes differ: {expected} rows in `{first}`, {found} in `{model}` (give \
         them one vocabulary with `tokenizer_source: base` or `union`, or cut all to the shortest with \
         `--unsafe-truncate-embeddings`)"
    )]
    Vocabulary {
        /// Output tensor.
        tensor: String,
        /// The method.
        method: Method,
        /// One model.
        first: String,
        /// Its rows.
        expected: usize,
        /// The other model.
        model: String,
        /// Its rows.
        found: usize,
    },
    /// A parameter that has no value.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A parameter that has a value which cannot be.
    #[error("parameter `{name}` of {model} for `{tensor}`: expected {expected}, found {found}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// The tensor.
        tensor: String,
        /// The model.
        model: String,
        /// What would do.
        expected: &'static str,
        /// Its value.
        found: f64,
    },
    /// Sources that mergekit leaves out, without which the method cannot do.
    #[error(
        "merging `{tensor}`: as in mergekit, only the first {n_merged} of the {n_sources} sources of the last slice are merged into \
         what follows the layers, since the first slice has no more"
    )]
    CutShort {
        /// The tensor.
        tensor: String,
        /// Sources that are merged.
        n_merged: usize,
        /// Sources of the slice.
        n_sources: usize,
        /// What is wrong with those.
        #[source]
        why: Box<RecipeError>,
    },
    /// A row that cannot be ranked.
    #[error("merging `{tensor}` ({method}): rows of one element cannot be ranked by magnitude")]
    SingleElementRows {
        /// Output tensor.
        tensor: String,
        /// The method.
        method: Method,
    },
}

/// What a caller may choose about recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices {
    /// Seed of random masks.
    pub seed: u64,
    /// How intermediate results are rounded.
    pub numerics: Numerics,
    /// Whether architectures may differ.
    pub allow_crimes: bool,
    /// Whether vocabularies of different sizes are cut to the shortest.
    pub truncate_embeddings: bool,
}

/// A slice with its models found.
struct Layout<'a> {
    number: usize,
    slice: &'a Slice,
    members: Vec<Member<'a>>,
    base: Option<usize>,
    n_layers: usize,
}

/// One model of a slice.
#[derive(Clone, Copy)]
struct Member<'a> {
    listed: &'a SourceModel,
    source: usize,
    first_layer: usize,
}

/// Resolves everything. `vocabulary` is the one that embedding and head are laid out for.
///
/// # Errors
/// [`RecipeError`], the first one found.
pub fn recipes(
    config: &MergeConfig,
    sources: &[Source],
    vocabulary: Option<&Vocabulary>,
    choices: Choices,
) -> Result<Recipes, RecipeError> {
    check_architectures(sources, choices)?;
    let layouts: Vec<Layout<'_>> = config
        .slices
        .iter()
        .enumerate()
        .map(|(number, slice)| layout(config, sources, number, slice))
        .collect::<Result<_, _>>()?;
    let stacks: Vec<Stack<'_>> = layouts
        .iter()
        .map(|layout| Stack {
            architecture: architecture(sources, layout),
            first_layer: layout.members[0].first_layer,
            n_layers: layout.n_layers,
        })
        .collect();
    let mut planner = Planner { config, sources, vocabulary, choices, recipes: Vec::new() };
    for position in positions(&stacks) {
        planner.add(&layouts[position.slice], &position, |member| {
            position.input(&sources[member.source].architecture, member.first_layer)
        })?;
    }
    let n_layers = stacks.iter().map(|stack| stack.n_layers).sum();
    let mut recipes = planner.recipes;
    let order = |recipe: &Recipe| (recipe.inputs[0].tensor.clone(), recipe.name.clone());
    recipes.sort_by_cached_key(order);
    Ok(Recipes { recipes, n_layers })
}

/// The layers of one slice, as its first source has them.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    /// The tensors of the source.
    pub architecture: &'a Architecture,
    /// Number of its first layer in the source.
    pub first_layer: usize,
    /// Layers of the slice.
    pub n_layers: usize,
}

/// Where an output tensor stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Position<'a> {
    /// Number of the slice that it is taken from.
    pub slice: usize,
    /// What it is in the architecture.
    pub part: &'a Part,
    /// Its name.
    pub name: String,
    /// Its layer, counted in the slice; none outside the layers.
    pub layer: Option<usize>,
    /// Its place among the layers of the slice, 0..=1; 0 outside the layers.
    pub t: f64,
}

impl Position<'_> {
    /// Name of its tensor in a source whose part in the slice begins at a layer.
    pub fn input(&self, architecture: &Architecture, first_layer: usize) -> String {
        match self.layer {
            Some(layer) => architecture.layer_tensor(first_layer + layer, &self.part.name),
            None => self.part.name.clone(),
        }
    }
}

/// Every output tensor of slices that are stacked, one after the other, since a damaged config may speak of any number of
/// layers: what comes before the layers is taken from the first slice, what comes after them from the last.
pub fn positions<'a>(stacks: &[Stack<'a>]) -> impl Iterator<Item = Position<'a>> {
    let ends = [(Place::Pre, 0), (Place::Post, stacks.len().saturating_sub(1))];
    let outside = ends.into_iter().flat_map(|(place, slice)| {
        let parts = stacks.get(slice).into_iter().flat_map(|stack| &stack.architecture.outside);
        let at = move |part: &'a Part| Position { slice, part, name: part.name.clone(), layer: None, t: 0.0 };
        parts.filter(move |part| part.place == place).map(at)
    });
    let mut below = 0;
    let layers = stacks.iter().enumerate().flat_map(move |(slice, stack)| {
        let offset = below;
        below += stack.n_layers;
        let Stack { architecture, first_layer, n_layers } = *stack;
        (0..n_layers).flat_map(move |layer| {
            let t = if n_layers == 1 { 1.0 } else { layer as f64 / (n_layers - 1) as f64 };
            architecture.layer(first_layer + layer).iter().map(move |part| {
                let name = architecture.layer_tensor(offset + layer, &part.name);
                Position { slice, part, name, layer: Some(layer), t }
            })
        })
    });
    outside.chain(layers)
}

/// How many sources of its slice are merged into a tensor: all of them, but behind the layers no more than the first slice
/// has. mergekit pairs the models of the last slice with as many weights as there are sources in the first.
pub fn n_merged(config: &MergeConfig, position: &Position<'_>) -> usize {
    let n_sources = |slice: usize| config.slices.get(slice).map_or(0, |slice| slice.sources.len());
    match position.part.place {
        Place::Post => n_sources(position.slice).min(n_sources(0)),
        Place::Pre | Place::Layer => n_sources(position.slice),
    }
}

/// Whether the method can do with the first `n_merged` sources of a slice, where that is not all of them.
///
/// # Errors
/// [`RecipeError::CutShort`].
pub fn check_merged(config: &MergeConfig, slice: usize, tensor: &str, n_merged: usize) -> Result<(), RecipeError> {
    let Some(of) = config.slices.get(slice).filter(|of| n_merged < of.sources.len()) else { return Ok(()) };
    let base = config.base_of(of);
    let listed = base.is_some_and(|base| of.sources[..n_merged].iter().any(|source| source.model == *base));
    let inputs = config.method.spec().inputs;
    check_inputs(config.method, inputs, slice, n_merged, listed, base.map(ToString::to_string)).map_err(|why| {
        let (tensor, n_sources) = (tensor.to_owned(), of.sources.len());
        RecipeError::CutShort { tensor, n_merged, n_sources, why: Box::new(why) }
    })
}

/// What the user should know about sources that are left out behind the layers.
pub fn note_of_cut(config: &MergeConfig) -> Option<String> {
    let (first, last) = (config.slices.first()?.sources.len(), config.slices.last()?.sources.len());
    (first < last).then(|| {
        format!(
            "what follows the layers (the last norm, the head) is merged from the first {first} of the last slice's {last} \
             sources, since the first slice has no more: so does mergekit"
        )
    })
}

/// Tensors of the models that no recipe can use, by model.
pub fn extra_tensors(sources: &[Source]) -> BTreeMap<&str, Vec<&str>> {
    let extra = |source: &Source, name: &str| !source.architecture.has(name);
    let of = |source| -> Vec<&str> {
        let source: &Source = source;
        source.checkpoint.tensors().keys().map(String::as_str).filter(|name| extra(source, name)).collect()
    };
    sources.iter().map(|source| (source.key.as_str(), of(source))).filter(|(_, extra)| !extra.is_empty()).collect()
}

fn architecture<'a>(sources: &'a [Source], layout: &Layout<'_>) -> &'a Architecture {
    &sources[layout.members[0].source].architecture
}

fn check_architectures(sources: &[Source], choices: Choices) -> Result<(), RecipeError> {
    let name = |source: &Source| source.checkpoint.architecture().unwrap_or("model of unknown architecture").to_owned();
    let Some(first) = sources.first() else { return Ok(()) };
    match sources.iter().find(|source| name(source) != name(first)) {
        Some(other) if !choices.allow_crimes => Err(RecipeError::Architectures {
            first: first.model.to_string(),
            expected: name(first),
            model: other.model.to_string(),
            found: name(other),
        }),
        _ => Ok(()),
    }
}

fn layout<'a>(
    config: &'a MergeConfig,
    sources: &[Source],
    number: usize,
    slice: &'a Slice,
) -> Result<Layout<'a>, RecipeError> {
    let mut members: Vec<Member<'a>> = Vec::with_capacity(slice.sources.len());
    let mut n_layers = 0;
    for listed in &slice.sources {
        let model = || listed.model.to_string();
        if members.iter().any(|member| member.listed.model == listed.model) {
            return Err(RecipeError::Duplicate { slice: number, model: model() });
        }
        // The caller opened a source for every model of the config.
        let Some(source) = sources.iter().position(|source| source.model == listed.model) else { continue };
        let all = sources[source].architecture.n_layers;
        let (start, end) = listed.layer_range.unwrap_or((0, all));
        if start > end {
            return Err(RecipeError::LayerRange { slice: number, model: model(), n_layers: all, start, end });
        }
        match members.first() {
            Some(first) if n_layers != end - start => {
                let (first, expected) = (first.listed.model.to_string(), n_layers);
                return Err(RecipeError::SliceLengths {
                    slice: number,
                    first,
                    expected,
                    model: model(),
                    found: end - start,
                });
            }
            _ => n_layers = end - start,
        }
        members.push(Member { listed, source, first_layer: start });
    }
    if members.is_empty() {
        return Err(RecipeError::NoSource { slice: number });
    }
    let base = config.base_of(slice);
    let position = base.and_then(|base| members.iter().position(|member| member.listed.model == *base));
    let inputs = config.method.spec().inputs;
    check_inputs(config.method, inputs, number, members.len(), position.is_some(), base.map(ToString::to_string))?;
    Ok(Layout { number, slice, members, base: position, n_layers })
}

fn check_inputs(
    method: Method,
    inputs: Inputs,
    slice: usize,
    found: usize,
    base_listed: bool,
    base: Option<String>,
) -> Result<(), RecipeError> {
    match base {
        None if inputs.need_base() => return Err(RecipeError::BaseRequired { method }),
        Some(base) if !base_listed && inputs.know_base() => {
            return Err(RecipeError::BaseNotListed { slice, base });
        }
        _ => {}
    }
    let (fits, expected) = match inputs {
        Inputs::Any | Inputs::BaseAndAny => (true, "any number of models"),
        Inputs::BaseAndOne => (found == 2, "two models, one of them the base"),
        Inputs::TwoAndOptionalBase => (found == 2 + usize::from(base_listed), "two models besides the base"),
        Inputs::SomeAndOptionalBase => (found > usize::from(base_listed), "at least one model besides the base"),
        Inputs::BaseAndTwoOrMore => (found >= 3, "the base and at least two other models"),
        Inputs::One => (found == 1, "one model"),
    };
    if fits { Ok(()) } else { Err(RecipeError::InputCount { slice, method, expected, found }) }
}

struct Planner<'a> {
    config: &'a MergeConfig,
    sources: &'a [Source],
    vocabulary: Option<&'a Vocabulary>,
    choices: Choices,
    recipes: Vec<Recipe>,
}

/// A found input, before the inputs are put in order.
struct Found<'a> {
    member: Member<'a>,
    /// Its own name, which filters look at.
    name: String,
    /// The tensor that is read.
    tensor: String,
    shape: &'a [usize],
    dtype: Dtype,
}

impl<'a> Planner<'a> {
    fn add(
        &mut self,
        layout: &Layout<'a>,
        position: &Position<'_>,
        input_name: impl Fn(&Member<'_>) -> String,
    ) -> Result<(), RecipeError> {
        let Position { part, name, t, .. } = position;
        let n_merged = n_merged(self.config, position);
        check_merged(self.config, layout.number, name, n_merged)?;
        let named: Vec<(Member<'a>, String)> =
            layout.members.iter().take(n_merged).map(|member| (*member, input_name(member))).collect();
        let present =
            |(member, input): &(Member<'_>, String)| self.sources[member.source].checkpoint.tensor(input).is_some();
        if part.optional && !named.iter().any(present) {
            return Ok(());
        }
        let found: Vec<Found<'a>> = named
            .into_iter()
            .map(|(member, input)| self.find(layout, member, name, input))
            .collect::<Result<_, _>>()?;
        let shape = self.shape(name, &found)?;
        let working = self
            .config
            .dtype
            .unwrap_or_else(|| found.iter().map(|input| input.dtype).reduce(Dtype::promote).unwrap_or(Dtype::F32));
        let base = layout.base.filter(|base| *base < n_merged && self.config.method.spec().inputs != Inputs::Any);
        let found = self.in_order(found, base);
        let inputs: Vec<Asked<'_>> = found
            .iter()
            .map(|input| Asked {
                listed: input.member.listed,
                tensor: &input.name,
                key: &self.sources[input.member.source].key,
            })
            .collect();
        let tensor = operation::Tensor { name, t: *t, row_len: shape.last().copied().unwrap_or(1) };
        let operation =
            operation::resolve(self.config, layout.slice, &inputs, base.is_some(), tensor, self.choices.seed, None)?;
        let rows = self.rows(name, &found, self.config.base_of(layout.slice))?;
        let input =
            |(input, rows): (Found<'_>, _)| RecipeInput { source: input.member.source, tensor: input.tensor, rows };
        let inputs = found.into_iter().zip(rows).map(input).collect();
        // mergekit's mask and factors are 32-bit tensors there, and so is what they were multiplied with.
        let wide = self.choices.numerics == Numerics::Mergekit && self.config.method.has_wide_result();
        let result = if wide { working.promote(Dtype::F32) } else { working };
        let out = self.config.out_dtype.unwrap_or(result);
        self.recipes.push(Recipe { name: name.clone(), shape, working, result, out, inputs, operation });
        Ok(())
    }

    fn in_order(&self, found: Vec<Found<'a>>, base: Option<usize>) -> Vec<Found<'a>> {
        let keys: Vec<&str> = found.iter().map(|found| self.sources[found.member.source].key.as_str()).collect();
        let order = operation::order(self.config.method, self.choices.numerics, base, &keys);
        let mut found: Vec<Option<Found<'a>>> = found.into_iter().map(Some).collect();
        // Every number of the order is another one.
        order.into_iter().filter_map(|index| found[index].take()).collect()
    }

    fn find(
        &self,
        layout: &Layout<'_>,
        member: Member<'a>,
        output: &str,
        name: String,
    ) -> Result<Found<'a>, RecipeError> {
        let source = &self.sources[member.source];
        let model = || source.model.to_string();
        let own = source.checkpoint.tensor(&name).map(|tensor| (name.clone(), tensor));
        // A model that ties its head lends the embedding to those that do not.
        let lent =
            || (name == HEAD).then(|| source.checkpoint.tensor(EMBEDDING).map(|tensor| (EMBEDDING.to_owned(), tensor)));
        let Some((tensor, info)) = own.or_else(|| lent().flatten()) else {
            let n_layers = source.architecture.n_layers;
            let (start, end) = member.listed.layer_range.unwrap_or((0, n_layers));
            if end > n_layers && source.architecture.has(&name) {
                return Err(RecipeError::LayerRange { slice: layout.number, model: model(), n_layers, start, end });
            }
            return Err(RecipeError::MissingTensor { tensor: output.to_owned(), model: model(), input: name });
        };
        let Some(dtype) = source.dtype(info) else {
            let found = format!("{:?}", info.stored);
            return Err(RecipeError::TensorDtype { tensor: output.to_owned(), model: model(), input: tensor, found });
        };
        Ok(Found { member, name, tensor, shape: &info.shape, dtype })
    }

    /// How the rows of every input are laid out for the vocabulary of the output.
    fn rows(
        &self,
        name: &str,
        found: &[Found<'_>],
        base: Option<&ModelRef>,
    ) -> Result<Vec<Option<Arc<[Row]>>>, RecipeError> {
        let Some(vocabulary) = self.vocabulary.filter(|_| is_vocabulary(name)) else {
            return Ok(vec![None; found.len()]);
        };
        let table = |input: &Found<'_>| Table { source: input.member.source, n_rows: input.shape[0] };
        let base = base.and_then(|base| self.sources.iter().position(|source| source.model == *base));
        Ok(vocabulary.layouts(&found.iter().map(table).collect::<Vec<_>>(), base)?)
    }

    fn shape(&self, name: &str, found: &[Found<'_>]) -> Result<Vec<usize>, RecipeError> {
        let mut shape = found[0].shape.to_vec();
        let method = self.config.method;
        if let Some(vocabulary) = self.vocabulary.filter(|_| is_vocabulary(name)) {
            if let Some(input) = found.iter().find(|input| input.shape.get(1..) != shape.get(1..)) {
                let (first, model) = (found[0].member.listed.model.to_string(), input.member.listed.model.to_string());
                let (tensor, found) = (name.to_owned(), input.shape.to_vec());
                return Err(RecipeError::Shapes { tensor, method, first, expected: shape, model, found });
            }
            shape[0] = vocabulary.n_rows;
            return Ok(shape);
        }
        for input in &found[1..] {
            if input.shape == shape {
                continue;
            }
            let (first, model) = (found[0].member.listed.model.to_string(), input.member.listed.model.to_string());
            let same_width = shape.len() == 2 && input.shape.len() == 2 && shape[1] == input.shape[1];
            let tensor = name.to_owned();
            if !(is_vocabulary(name) && same_width) {
                let (expected, found) = (shape, input.shape.to_vec());
                return Err(RecipeError::Shapes { tensor, method, first, expected, model, found });
            }
            if !self.choices.truncate_embeddings {
                let (expected, found) = (shape[0], input.shape[0]);
                return Err(RecipeError::Vocabulary { tensor, method, first, expected, model, found });
            }
            shape[0] = shape[0].min(input.shape[0]);
        }
        Ok(shape)
    }
}

/// Whether rows of the tensor stand for tokens.
fn is_vocabulary(name: &str) -> bool {
    let words = ["embed_tokens", "lm_head", "wte", "embed_out", "word_embeddings"];
    words.iter().any(|word| name.contains(word)) && !name.contains("norm")
}
