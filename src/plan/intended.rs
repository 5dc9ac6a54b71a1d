//! The config that an author probably meant: settings that stand on a source where nobody reads them, lifted to the top
//! level, where they are in force for all, or to the level of their slice.

use std::collections::BTreeSet;

use super::lint::report::{Report, SettingReport, Verdict, Why};
use super::sites::Stand;
use crate::config::{MergeConfig, Setting};

/// A config with its dead settings where they are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Intended {
    /// The config.
    pub config: MergeConfig,
    /// Settings that were lifted, by name.
    pub lifted: Vec<(String, Setting)>,
    /// Names of settings that stay where they are, since they contradict each other or the top level.
    pub left: Vec<String>,
}

/// Lifts the settings of a merge that its report calls dead for where they stand; none where there are none.
///
/// To the top level where all slices agree, else to the slice that each stands in. A setting that contradicts another one of its
/// slice, or one that is in force there already, stays where it is.
pub fn intended(config: &MergeConfig, report: &Report) -> Option<Intended> {
    let misplaced: Vec<Misplaced<'_>> = report.settings.iter().filter_map(Misplaced::of).collect();
    let mut intended = Intended { config: config.clone(), lifted: Vec::new(), left: Vec::new() };
    let names: BTreeSet<&str> = misplaced.iter().map(|one| one.name).collect();
    for name in names {
        let of_name: Vec<&Misplaced<'_>> = misplaced.iter().filter(|one| one.name == name).collect();
        intended.lift(name, &of_name);
    }
    (!misplaced.is_empty()).then_some(intended)
}

/// A setting on a source where nobody reads it.
struct Misplaced<'a> {
    slice: usize,
    source: usize,
    name: &'a str,
    setting: &'a Setting,
}

impl<'a> Misplaced<'a> {
    fn of(report: &'a SettingReport) -> Option<Self> {
        let SettingReport { stand: Stand::Source { slice, source }, name, setting, verdict, .. } = report else {
            return None;
        };
        matches!(verdict, Verdict::Dead(Why::SharedOnSource | Why::OfBase)).then_some(Self {
            slice: *slice,
            source: *source,
            name,
            setting,
        })
    }
}

impl Intended {
    /// Lifts the misplaced settings of one name.
    fn lift(&mut self, name: &str, misplaced: &[&Misplaced<'_>]) {
        let n_slices = self.config.slices.len();
        let first = misplaced[0].setting;
        let agree = misplaced.iter().all(|one| one.setting == first);
        let everywhere = (0..n_slices).all(|slice| misplaced.iter().any(|one| one.slice == slice));
        // What stands on the module or on a slice would be in force instead.
        let nearer = |config: &MergeConfig| {
            let slices = config.slices.iter().map(|slice| &slice.parameters);
            slices.chain([&config.module_parameters]).any(|level| level.contains_key(name))
        };
        if agree && everywhere && !nearer(&self.config) {
            if self.config.parameters.get(name).is_some_and(|top| top != first) {
                return self.leave(name);
            }
            let old = self.config.parameters.insert(name.to_owned(), first.clone());
            misplaced.iter().for_each(|one| self.remove(one));
            if old.is_none() {
                self.lifted.push((name.to_owned(), first.clone()));
            }
            return;
        }
        for one in misplaced {
            let of_slice = misplaced.iter().filter(|other| other.slice == one.slice);
            let agree = of_slice.into_iter().all(|other| other.setting == one.setting);
            let level = &mut self.config.slices[one.slice].parameters;
            let is_free = level.get(name).is_none_or(|old| old == one.setting);
            if n_slices == 1 || !agree || !is_free {
                self.leave(name);
                continue;
            }
            if level.insert(name.to_owned(), one.setting.clone()).is_none() {
                self.lifted.push((name.to_owned(), one.setting.clone()));
            }
            self.remove(one);
        }
    }

    fn remove(&mut self, one: &Misplaced<'_>) {
        self.config.slices[one.slice].sources[one.source].parameters.remove(one.name);
    }

    fn leave(&mut self, name: &str) {
        if !self.left.iter().any(|left| left == name) {
            self.left.push(name.to_owned());
        }
    }
}
