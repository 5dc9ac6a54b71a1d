//! What can be said about the tasks of a spec without asking the harness.

use super::placed;
use crate::document::{Code, Node, Problem, Problems};
use crate::eval::preflight;
use crate::eval::task::PRESETS;
use crate::eval::{Settings, task_files};

/// Names closer than this to a known one are taken for slips.
const SLIP: usize = 2;

/// Reports tasks and settings that no evaluation will accept, and oddities.
pub fn check(document: &Node, settings: &Settings, problems: &mut Problems) {
    let own = settings.include_path.as_deref().map(task_files::read).unwrap_or_default();
    for problem in preflight::told_by_settings(settings, &own) {
        let placed = placed::evaluation(document, &problem);
        // Running model-written code is for whoever runs the sweep to allow, not for who plans it.
        problems.0.push(if placed.code == Code::CodeNotAllowed { placed.as_warning() } else { placed });
    }
    let known: Vec<&str> = own.keys().map(String::as_str).chain(PRESETS.iter().map(|preset| preset.task)).collect();
    for task in settings.tasks.iter().filter(|task| !known.contains(&task.name.as_str())) {
        let slip = |known: &&&str| {
            let distance = strsim::damerau_levenshtein(&known.to_lowercase(), &task.name.to_lowercase());
            distance <= SLIP && distance * 4 < known.len()
        };
        let Some(near) = known.iter().find(slip) else { continue };
        let unknown = preflight::Problem::UnknownTask { task: task.name.clone(), near: Some((*near).to_owned()) };
        let message = format!("no task of the name `{}` is known here; the harness may have one", task.name);
        problems.0.push(Problem { message, ..placed::evaluation(document, &unknown) }.as_warning());
    }
}
