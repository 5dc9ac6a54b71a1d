//! What the look-ups of a merge met, setting by setting: made by listening to the resolution, not from rules of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::method::ParameterSpec;
use crate::config::parameter::{Fared, LookUp, Setting};
use crate::model::ModelRef;

/// Everything that was looked up.
#[derive(Debug, Default)]
pub struct Recording(RefCell<Heard>);

#[derive(Debug, Default)]
struct Heard {
    settings: BTreeMap<*const Setting, Tally>,
    defaults: BTreeMap<(&'static str, Option<ModelRef>), Default>,
}

/// How one setting fared.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Values that it gave, each with the classes of tensors.
    pub values: Vec<(f64, BTreeSet<usize>)>,
    /// Numbers of the cases that gave them.
    pub cases: BTreeSet<usize>,
    /// Classes of tensors that it had no value for.
    pub silent: BTreeSet<usize>,
    /// Classes of tensors that a setting further in had answered for.
    pub overridden: BTreeSet<usize>,
}

/// A parameter left to its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Default {
    /// The parameter.
    pub row: &'static ParameterSpec,
    /// The model it was asked for; none for shared parameters.
    pub model: Option<ModelRef>,
    /// Its value (switches as 0 and 1); none where the parameter is optional.
    pub value: Option<f64>,
    /// For which classes of tensors.
    pub classes: BTreeSet<usize>,
}

impl Recording {
    /// Takes a look-up for a class of tensors in.
    pub fn hear(&self, class: usize, look_up: &LookUp<'_>) {
        let mut heard = self.0.borrow_mut();
        for (_, setting, fared) in &look_up.met {
            let tally = heard.settings.entry(std::ptr::from_ref(*setting)).or_default();
            match fared {
                Fared::Silent => _ = tally.silent.insert(class),
                Fared::Overridden => _ = tally.overridden.insert(class),
                Fared::Answered { case } => {
                    tally.cases.insert(*case);
                    let value = look_up.value.unwrap_or_default();
                    match tally.values.iter_mut().find(|(known, _)| known.to_bits() == value.to_bits()) {
                        Some((_, classes)) => _ = classes.insert(class),
                        None => tally.values.push((value, BTreeSet::from([class]))),
                    }
                }
            }
        }
        if look_up.is_default() {
            let model = look_up.source.map(|source| source.model.clone());
            let default = Default { row: look_up.row, model, value: look_up.value, classes: BTreeSet::new() };
            let key = (look_up.row.name, default.model.clone());
            heard.defaults.entry(key).or_insert(default).classes.insert(class);
        }
    }

    /// How a setting of the config that was resolved fared; an empty tally where nobody met it.
    pub fn of(&self, setting: &Setting) -> Tally {
        self.0.borrow().settings.get(&std::ptr::from_ref(setting)).cloned().unwrap_or_default()
    }

    /// Every parameter that was left to its default, for one model or another.
    pub fn defaults(&self) -> Vec<Default> {
        self.0.borrow().defaults.values().cloned().collect()
    }
}
