//! Which tensors a merge makes, as far as that can be said without the models: from the headers of a model that lies
//! here, otherwise from the tensors of a Llama-like decoder. Tensors that no setting of a config can tell apart (same
//! slice, same filters, same place in a gradient) are one [`Class`], so that they are looked at once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::config::{MergeConfig, Parameters, Setting};
use crate::merge::arch::Architecture;
use crate::merge::recipe::{Stack, n_merged, positions};
use crate::model::ModelRef;

/// Layers that a model has of which nothing is known.
const N_LAYERS: usize = 32;

/// The tensors of a model that lies here; none where it does not.
pub type Headers<'a> = dyn Fn(&ModelRef) -> Option<Architecture> + 'a;

/// Where the names of tensors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The headers of its models.
    Headers,
    /// A list that stands for most decoders.
    LlamaLike,
}

impl Origin {
    /// In words, for a report whose statements rest on it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Headers => "the tensors in the headers of its models",
            Self::LlamaLike => "the tensors of a Llama-like decoder, since the models are not here",
        }
    }
}

/// An output tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Number of its slice.
    pub slice: usize,
    /// Its name.
    pub name: String,
    /// Its tensor in every source of the slice that is merged into it, in their order: see [`n_merged`].
    pub inputs: Vec<String>,
    /// Its place among the layers of the slice, 0..=1; 0 outside the layers.
    pub t: f64,
}

/// Tensors that all look alike to the settings of a config.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Number of their slice.
    pub slice: usize,
    /// Numbers of the tensors. Never empty.
    pub members: Vec<usize>,
}

/// The output tensors of a merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Sites {
    /// Where the names come from.
    pub origin: Origin,
    /// The tensors.
    pub sites: Vec<Site>,
    /// The same in classes.
    pub classes: Vec<Class>,
    /// Layers of the first model.
    pub n_layers: usize,
}

/// Finds the tensors of merges, those of alike ones once.
pub struct SiteFinder<'a> {
    headers: &'a Headers<'a>,
    architectures: HashMap<ModelRef, Option<Arc<Architecture>>>,
    unknown: Arc<Architecture>,
    found: HashMap<String, Arc<Sites>>,
}

impl<'a> SiteFinder<'a> {
    /// With whatever can be said of models that lie here.
    pub fn new(headers: &'a Headers<'a>) -> Self {
        let unknown = Arc::new(Architecture::llama_like(N_LAYERS));
        Self { headers, architectures: HashMap::new(), unknown, found: HashMap::new() }
    }

    /// The tensors of a merge.
    pub fn of(&mut self, config: &MergeConfig) -> Arc<Sites> {
        let layouts = self.layouts(config);
        let looks = Looks::of(config);
        let mut key = format!("{looks:?}");
        for (slice, layout) in config.slices.iter().zip(&layouts) {
            let ranges: Vec<_> = slice.sources.iter().map(|source| source.layer_range).collect();
            let architectures: Vec<_> = layout.sources.iter().map(Arc::as_ptr).collect();
            // Writing to a text cannot fail.
            let _ = write!(key, " {:?} {architectures:?} {ranges:?}", layout.origin);
        }
        let make = || Arc::new(Sites::new(config, &layouts, &looks));
        self.found.entry(key).or_insert_with(make).clone()
    }

    /// The architecture of every source of every slice. A source of which nothing is known is like the first of its slice that
    /// is known, else like the first of the merge, else like most decoders.
    fn layouts(&mut self, config: &MergeConfig) -> Vec<Layout> {
        let known: Vec<Vec<Option<Arc<Architecture>>>> = config
            .slices
            .iter()
            .map(|slice| slice.sources.iter().map(|source| self.architecture(&source.model)).collect())
            .collect();
        let of_merge = known.iter().flatten().flatten().next().cloned();
        let layout = |of_slice: Vec<Option<Arc<Architecture>>>| {
            let first = of_slice.iter().flatten().next().or(of_merge.as_ref());
            let origin = if first.is_some() { Origin::Headers } else { Origin::LlamaLike };
            let like = first.cloned().unwrap_or_else(|| self.unknown.clone());
            let sources = of_slice.into_iter().map(|source| source.unwrap_or_else(|| like.clone())).collect();
            Layout { origin, sources }
        };
        known.into_iter().map(layout).collect()
    }

    fn architecture(&mut self, model: &ModelRef) -> Option<Arc<Architecture>> {
        if let Some(known) = self.architectures.get(model) {
            return known.clone();
        }
        let found = (self.headers)(model).map(Arc::new);
        self.architectures.insert(model.clone(), found.clone());
        found
    }
}

/// What is known of the tensors of a slice.
struct Layout {
    origin: Origin,
    /// Of every source.
    sources: Vec<Arc<Architecture>>,
}

/// What can tell the tensors of a slice apart.
#[derive(Debug)]
struct Looks<'a> {
    has_gradients: bool,
    filters: Vec<&'a str>,
}

impl<'a> Looks<'a> {
    fn of(config: &'a MergeConfig) -> Self {
        let mut looks = Self { has_gradients: false, filters: Vec::new() };
        for (_, parameters) in levels(config) {
            parameters.values().for_each(|setting| looks.see(setting));
        }
        looks
    }

    fn see(&mut self, setting: &'a Setting) {
        match setting {
            Setting::Scalar(_) => {}
            Setting::Gradient(_) => self.has_gradients = true,
            Setting::Conditional(cases) => {
                for case in cases {
                    self.see(&case.value);
                    let filter = case.filter.as_deref().filter(|filter| *filter != "*");
                    self.filters.extend(filter.filter(|filter| !self.filters.contains(filter)));
                }
            }
        }
    }

    /// The same for tensors that nothing tells apart.
    fn at(&self, site: &Site) -> (usize, usize, u64, Vec<bool>) {
        let names = || std::iter::once(&site.name).chain(&site.inputs);
        let hits = self.filters.iter().flat_map(|filter| names().map(move |name| name.contains(filter))).collect();
        (site.slice, site.inputs.len(), if self.has_gradients { site.t.to_bits() } else { 0 }, hits)
    }
}

/// Every level of a config at which parameters stand, with where it is.
pub fn levels(config: &MergeConfig) -> impl Iterator<Item = (Stand, &Parameters)> {
    let slices = config.slices.iter().enumerate().flat_map(|(slice, of)| {
        let sources = of.sources.iter().enumerate();
        let sources = sources.map(move |(source, of)| (Stand::Source { slice, source }, &of.parameters));
        sources.chain([(Stand::Slice { slice }, &of.parameters)])
    });
    slices.chain([(Stand::Module, &config.module_parameters), (Stand::Top, &config.parameters)])
}

/// Where parameters stand in a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stand {
    /// On a source of a slice.
    Source {
        /// Number of the slice.
        slice: usize,
        /// Number of the source.
        source: usize,
    },
    /// On a slice.
    Slice {
        /// Its number.
        slice: usize,
    },
    /// On the module.
    Module,
    /// At top level.
    Top,
}

impl Sites {
    fn new(config: &MergeConfig, layouts: &[Layout], looks: &Looks<'_>) -> Self {
        let range = |slice: usize, source: usize| {
            let whole = || (0, layouts[slice].sources[source].n_layers);
            config.slices[slice].sources[source].layer_range.unwrap_or_else(whole)
        };
        let stacks: Vec<Stack<'_>> = (0..config.slices.len())
            .filter_map(|slice| Some((slice, layouts[slice].sources.first()?)))
            .map(|(slice, architecture)| {
                let (first_layer, end) = range(slice, 0);
                Stack { architecture, first_layer, n_layers: end.saturating_sub(first_layer) }
            })
            .collect();
        // Where nothing is known of the models, biases are only there for filters that ask for them.
        let asks_for_biases = looks.filters.iter().any(|filter| filter.contains("bias"));
        let has_biases = |slice: usize| asks_for_biases || layouts[slice].origin == Origin::Headers;
        let sites: Vec<Site> = positions(&stacks)
            .filter(|position| has_biases(position.slice) || position.layer.is_none() || !position.part.optional)
            .map(|position| {
                let sources = layouts[position.slice].sources.iter().enumerate();
                let inputs = sources
                    .take(n_merged(config, &position))
                    .map(|(source, architecture)| position.input(architecture, range(position.slice, source).0))
                    .collect();
                Site { slice: position.slice, inputs, t: position.t, name: position.name }
            })
            .collect();
        let mut numbers = HashMap::new();
        let mut classes: Vec<Class> = Vec::new();
        for (index, site) in sites.iter().enumerate() {
            let number = *numbers.entry(looks.at(site)).or_insert_with(|| {
                classes.push(Class { slice: site.slice, members: Vec::new() });
                classes.len() - 1
            });
            classes[number].members.push(index);
        }
        // What is only guessed of one slice is guessed of the whole.
        let origin = layouts.iter().map(|layout| layout.origin).max().unwrap_or(Origin::LlamaLike);
        let n_layers = stacks.first().map_or(N_LAYERS, |stack| stack.architecture.n_layers);
        Self { origin, sites, classes, n_layers }
    }

    /// The first tensor of a class, which stands for all.
    pub fn first(&self, class: &Class) -> &Site {
        &self.sites[class.members[0]]
    }
}
