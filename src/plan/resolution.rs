//! What the engine would compute for every tensor of a merge: the very resolution that it makes, on tensor names instead
//! of tensors.

use std::sync::Arc;

use super::sites::{Class, Sites};
use crate::config::method::Inputs;
use crate::config::parameter::{LookUp, Recorder};
use crate::config::{MergeConfig, Numerics, Slice, SourceModel};
use crate::merge::method::Operation;
use crate::merge::operation::{self, Asked, Tensor};
use crate::merge::recipe::{self, RecipeError};
use crate::merge::source;
use crate::model::ModelRef;

/// Elements of a row, where nothing is known of the shapes: more than the one that cannot be ranked.
const ROW_LEN: usize = 2;

/// A merge resolved.
#[derive(Debug, Clone)]
pub struct Resolution<'a> {
    /// The config.
    pub config: &'a MergeConfig,
    /// How intermediate results are rounded.
    pub numerics: Numerics,
    /// Seed of random masks.
    pub seed: u64,
    /// The tensors.
    pub sites: Arc<Sites>,
    /// For every slice its sources in the order in which the operation takes them: a base first.
    pub orders: Vec<Vec<usize>>,
    /// What is done, by class of tensors.
    pub operations: Vec<Operation>,
    /// Short name of every model of the merge.
    keys: Vec<(&'a ModelRef, String)>,
}

/// Hears of look-ups, each with the number of the class of tensors that it was for.
pub type ClassRecorder<'r> = dyn Fn(usize, &LookUp<'_>) + 'r;

/// Resolves a merge. Whoever wants to know what was read gets told of every look-up, with the number of the class of tensors it was for.
///
/// # Errors
/// [`RecipeError`] where a parameter is missing or out of range for some tensor.
pub fn resolve<'a>(
    config: &'a MergeConfig,
    seed: u64,
    numerics: Numerics,
    sites: Arc<Sites>,
    recorder: Option<&ClassRecorder<'_>>,
) -> Result<Resolution<'a>, RecipeError> {
    let models = config.models();
    let keys = source::keys(&models);
    let keys: Vec<(&ModelRef, String)> = models.into_iter().zip(keys).collect();
    let key = |model: &ModelRef| keys.iter().find(|(known, _)| *known == model).map_or("", |(_, key)| key.as_str());
    let mut orders = Vec::with_capacity(config.slices.len());
    for slice in &config.slices {
        let names: Vec<&str> = slice.sources.iter().map(|source| key(&source.model)).collect();
        orders.push(operation::order(config.method, numerics, base_of(config, slice), &names));
    }
    let mut operations = Vec::with_capacity(sites.classes.len());
    for (number, class) in sites.classes.iter().enumerate() {
        let (slice, site) = (&config.slices[class.slice], sites.first(class));
        let asked = |source: &usize| {
            let listed = &slice.sources[*source];
            Asked { listed, tensor: &site.inputs[*source], key: key(&listed.model) }
        };
        let n_merged = site.inputs.len();
        recipe::check_merged(config, class.slice, &site.name, n_merged)?;
        let inputs: Vec<Asked<'_>> =
            orders[class.slice].iter().filter(|source| **source < n_merged).map(asked).collect();
        let tensor = Tensor { name: &site.name, t: site.t, row_len: ROW_LEN };
        let has_base = base_of(config, slice).is_some_and(|base| base < n_merged);
        let told = recorder.map(|recorder| move |look_up: &LookUp<'_>| recorder(number, look_up));
        let told = told.as_ref().map(|told| told as &Recorder<'_>);
        operations.push(operation::resolve(config, slice, &inputs, has_base, tensor, seed, told)?);
    }
    Ok(Resolution { config, numerics, seed, sites, orders, operations, keys })
}

/// The source of a slice that is its base, to a method that knows one.
pub fn base_of(config: &MergeConfig, slice: &Slice) -> Option<usize> {
    let base = config.base_of(slice).filter(|_| config.method.spec().inputs != Inputs::Any)?;
    slice.sources.iter().position(|source| source.model == *base)
}

impl Resolution<'_> {
    /// The sources of its slice that are merged into a class of tensors, in the order in which the operation takes them.
    pub fn sources(&self, class: &Class) -> impl Iterator<Item = &SourceModel> {
        let n_merged = self.sites.first(class).inputs.len();
        let order = self.orders[class.slice].iter().filter(move |source| **source < n_merged);
        order.map(|source| &self.config.slices[class.slice].sources[*source])
    }

    /// The name by which the random numbers of a model are told apart from those of others.
    pub fn key_of(&self, model: &ModelRef) -> &str {
        self.keys.iter().find(|(known, _)| *known == model).map_or("", |(_, key)| key)
    }
}
