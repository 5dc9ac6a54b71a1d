//! The values of parameters that are in force, by parameter and model: after look-up, filters and gradients.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::resolution::{Resolution, resolve};
use super::sites::Sites;
use crate::config::method::ParameterSpec;
use crate::config::parameter::{Fared, Level, LookUp};
use crate::config::{MergeConfig, Numerics};
use crate::merge::recipe::RecipeError;
use crate::model::ModelRef;

/// One parameter as it is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// The parameter.
    pub row: &'static ParameterSpec,
    /// The model it is asked for; none for shared parameters.
    pub model: Option<ModelRef>,
    /// Its values (switches as 0 and 1), each once, with the level it comes from, in the order of the tensors.
    pub values: Vec<(Option<f64>, Level)>,
}

/// The values in force for all tensors, or for the classes of tensors that `of` holds for.
///
/// # Errors
/// [`RecipeError`] where the merge cannot be resolved.
pub fn in_force<'a>(
    config: &'a MergeConfig,
    seed: u64,
    numerics: Numerics,
    sites: Arc<Sites>,
    of: &dyn Fn(usize) -> bool,
) -> Result<(Resolution<'a>, Vec<InForce>), RecipeError> {
    let found: RefCell<BTreeMap<(usize, Option<ModelRef>), InForce>> = RefCell::default();
    let rows = config.method.spec().parameters;
    let hear = |class: usize, look_up: &LookUp<'_>| {
        if !of(class) {
            return;
        }
        let model = look_up.source.map(|source| source.model.clone());
        let place = rows.iter().position(|row| row.name == look_up.row.name).unwrap_or_default();
        let answered = look_up.met.iter().find(|(_, _, fared)| matches!(fared, Fared::Answered { .. }));
        let value = (look_up.value, answered.map_or(Level::Default, |(level, ..)| *level));
        let mut found = found.borrow_mut();
        let entry = found.entry((place, model.clone()));
        let entry = entry.or_insert_with(|| InForce { row: look_up.row, model, values: Vec::new() });
        if !entry.values.contains(&value) {
            entry.values.push(value);
        }
    };
    let resolution = resolve(config, seed, numerics, sites, Some(&hear))?;
    Ok((resolution, found.into_inner().into_values().collect()))
}

impl InForce {
    /// The values on one line: `0.8`, `1 (default)`, `0.2 … 0.7 (9 values)`.
    pub fn shown(&self) -> String {
        let one = |(value, level): &(Option<f64>, Level)| {
            let value = value.map_or_else(|| "none".to_owned(), |value| self.row.shown(value));
            if *level == Level::Default { format!("{value} (default)") } else { value }
        };
        match self.values.as_slice() {
            [first, .., last] if self.values.len() > 3 => {
                format!("{} … {} ({} values)", one(first), one(last), self.values.len())
            }
            values => values.iter().map(one).collect::<Vec<_>>().join(", "),
        }
    }
}
