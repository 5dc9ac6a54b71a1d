//! The config that an author probably meant: settings that stand on a source where nobody reads them, lifted to the top
//! level, where they are in force for all.

use super::lint::report::{Report, Verdict, Why};
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
pub fn intended(config: &MergeConfig, report: &Report) -> Option<Intended> {
    let misplaced: Vec<_> = report
        .settings
        .iter()
        .filter(|setting| matches!(setting.verdict, Verdict::Dead(Why::SharedOnSource | Why::OfBase)))
        .collect();
    let mut intended = Intended { config: config.clone(), lifted: Vec::new(), left: Vec::new() };
    for setting in &misplaced {
        let agree = misplaced.iter().all(|other| other.name != setting.name || other.setting == setting.setting);
        let is_free = config.parameters.get(&setting.name).is_none_or(|top| *top == setting.setting);
        if !(agree && is_free) {
            if !intended.left.contains(&setting.name) {
                intended.left.push(setting.name.clone());
            }
            continue;
        }
        let Stand::Source { slice, source } = setting.stand else { continue };
        intended.config.slices[slice].sources[source].parameters.remove(&setting.name);
        let old = intended.config.parameters.insert(setting.name.clone(), setting.setting.clone());
        if old.is_none() {
            intended.lifted.push((setting.name.clone(), setting.setting.clone()));
        }
    }
    (!misplaced.is_empty()).then_some(intended)
}
