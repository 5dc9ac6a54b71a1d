//! What is wrong or odd about the models of a plan, as findings with codes at their place in the spec. Errors are what a merge
//! would fail on, or what would make its scores senseless; the rest are warnings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::kinship::{Kind, Kinship, Pair};
use super::models::{Model, Models};
use super::sample::Site;
use crate::config::{MergeConfig, Tokenizer as VocabularySetting};
use crate::document::{Code, Problem, Problems};
use crate::eval::ChatTemplate;
use crate::merge::excerpt::Rows;
use crate::merge::real::Real;
use crate::model::ModelRef;
use crate::plan::{Plan, Subject};
use crate::spec::{Sweep, placed};

/// Models are no kin from this relative distance on: those that have nothing to do with each other are √2 apart where they
/// are of one size, fine-tunes a few hundredths from their base.
const FAR: f64 = 0.9;

/// A layer is odd that is this far from the base, and so many times as far as the layers are in the middle.
const ODD: (f64, f64) = (0.3, 8.0);

/// Bytes of all models up to which infinities and NaN are looked for everywhere.
const SCANNED: u64 = 3 << 30;

/// Findings in the making.
pub struct Findings<'a> {
    sweep: &'a Sweep,
    plan: &'a Plan,
    /// What is wrong or odd.
    pub problems: Problems,
    /// What is good to know.
    pub notes: Vec<String>,
    unmergeable: BTreeSet<String>,
    /// By place of the model: tensors with infinities or NaN in their sampled rows.
    unsound: BTreeMap<usize, Vec<String>>,
}

impl<'a> Findings<'a> {
    /// None yet.
    pub fn new(sweep: &'a Sweep, plan: &'a Plan) -> Self {
        let (problems, notes, unmergeable, unsound) = Default::default();
        Self { sweep, plan, problems, notes, unmergeable, unsound }
    }

    fn add(&mut self, code: Code, model: &ModelRef, message: String, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.problems.extend(Problems(vec![placed::at_model(self.sweep, model, code, message, hint)]));
    }

    fn warn(&mut self, code: Code, model: &ModelRef, message: String, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let problem: Problem = placed::at_model(self.sweep, model, code, message, hint);
        self.problems.extend(Problems(vec![problem.as_warning()]));
    }

    /// What the engine says of a model, or of models together.
    pub fn unmergeable(&mut self, models: &[&ModelRef], why: &str) {
        if let Some(model) = models.first().filter(|_| self.unmergeable.insert(why.to_owned())) {
            self.add(Code::Unmergeable, model, why.to_owned(), "");
        }
    }

    /// What the engine says of a merge: once for all trials that it says the same of.
    pub fn unmergeable_trial(&mut self, trial: usize, config: &MergeConfig, why: &str) {
        let name = &self.plan.trials[trial].name;
        // The last model is the one that does not fit the others, as often as not.
        if let Some(model) = config.models().last().filter(|_| self.unmergeable.insert(why.to_owned())) {
            self.add(Code::Unmergeable, model, format!("`{name}` cannot be merged: {why}"), "");
        }
    }

    /// Looks for infinities and NaN in the sampled rows of a tensor.
    pub fn see(&mut self, model: usize, site: &Site, rows: &Rows) {
        if rows.numbers().iter().any(|number| !number.is_finite()) {
            self.unsound.entry(model).or_default().push(site.tensor.clone());
        }
    }

    /// Tokenizers, chat templates and heads of models that are merged.
    pub fn about_files(&mut self, models: &Models) {
        let plan = self.plan;
        let mut seen = BTreeSet::new();
        for trial in &plan.trials {
            let Subject::Merge { config, .. } = &trial.subject else { continue };
            let places: Vec<usize> = config.models().iter().filter_map(|model| models.place(model)).collect();
            let Some(first) = places.first() else { continue };
            // Its files go beside the result.
            let donor = config.base_model.as_ref().and_then(|base| models.place(base)).unwrap_or(*first);
            let keeps_template = config.chat_template.is_none();
            for other in places.iter().filter(|other| **other != donor) {
                if seen.insert((donor, *other, config.tokenizer.is_some(), keeps_template)) {
                    let pair = [&models.0[donor], &models.0[*other]];
                    self.about_tokenizers(pair, config.tokenizer.as_ref());
                    self.about_heads(pair);
                    if keeps_template {
                        self.about_templates(pair);
                    }
                }
            }
        }
        models.0.iter().for_each(|model| self.about_model(model));
    }

    fn about_model(&mut self, model: &Model) {
        let name = &model.name;
        if let Some(found) = model.source.architecture.contradiction(&model.source.checkpoint) {
            self.warn(Code::Unmergeable, &model.model, format!("`{name}`: {found}"), "");
        }
        if let (Some(tokenizer), Some(n_rows)) = (&model.tokenizer, model.n_rows())
            && tokenizer.n_ids() > n_rows
        {
            let n_ids = tokenizer.n_ids();
            let message = format!("`{name}`: its tokenizer has {n_ids} tokens, its embedding {n_rows} rows");
            let hint = "a prompt with one of the last tokens ends the evaluation with an index error";
            self.warn(Code::OtherTokenizer, &model.model, message, hint);
        }
        if model.source.adapter.as_ref().is_some_and(|adapter| adapter.n_modules() == 0) {
            let message = format!("`{name}`: its adapter has no module, and so changes nothing");
            self.warn(Code::NoChange, &model.model, message, "look whether its file is complete");
        }
    }

    fn about_tokenizers(&mut self, [donor, other]: [&Model; 2], setting: Option<&VocabularySetting>) {
        let (Some(kept), Some(lost)) = (&donor.tokenizer, &other.tokenizer) else { return };
        if setting.is_some() || kept.folder == lost.folder {
            return;
        }
        let differing = kept.ids().iter().filter(|(token, id)| lost.id(token) != Some(**id)).count()
            + lost.ids().keys().filter(|token| kept.id(token).is_none()).count();
        if differing == 0 {
            return;
        }
        let (kept, lost) = (&donor.name, &other.name);
        let message = format!(
            "`{lost}` has another tokenizer than `{kept}`: {differing} tokens differ, so rows of their embeddings stand for \
             different tokens"
        );
        let hint = "set `tokenizer_source` to `union` or to one of the models: rows are then brought together by token";
        self.warn(Code::OtherTokenizer, &other.model, message, hint);
    }

    fn about_templates(&mut self, [donor, other]: [&Model; 2]) {
        let (kept, lost) = (&donor.name, &other.name);
        let message = match (&donor.template, &other.template) {
            (left, right) if left == right => return,
            (None, _) => format!("`{lost}` has a chat template and `{kept}` has none: merges are without"),
            (Some(_), None) => format!("`{lost}` has no chat template: merges have that of `{kept}`"),
            (Some(_), Some(_)) => {
                format!("`{lost}` has another chat template than `{kept}`: merges have that of `{kept}`")
            }
        };
        if self.sweep.evaluate.chat_template == ChatTemplate::Off {
            self.notes.push(format!("{message} (evaluations use none)"));
        } else {
            let hint = "`chat_template` in the merge names the one that they get";
            self.warn(Code::OtherTemplate, &other.model, message, hint);
        }
    }

    fn about_heads(&mut self, [donor, other]: [&Model; 2]) {
        let (tied, own) = match (donor.has_head(), other.has_head()) {
            (Some(false), Some(true)) => (donor, other),
            (Some(true), Some(false)) => (other, donor),
            _ => return,
        };
        let message = format!(
            "`{}` ties its head to the embedding, `{}` has a head of its own: the embedding is merged into that head",
            tied.name, own.name
        );
        let hint = if std::ptr::eq(tied, donor) {
            "config.json of the result says that the head is tied: loaders may ignore the merged head"
        } else {
            "this is what mergekit does; look whether it is meant"
        };
        self.warn(Code::TiedHead, &other.model, message, hint);
    }

    /// Infinities and NaN, and what distances say.
    pub fn about_weights(&mut self, models: &Models, kinship: &Kinship) {
        self.scan(models);
        for pair in &kinship.pairs {
            let [first, second] = pair.models.map(|place| &models.0[place]);
            match pair.kind {
                Kind::Strangers => {}
                Kind::Base if pair.is_equal() => {
                    let message =
                        format!("`{}` is equal to its base `{}` wherever it was looked at", second.name, first.name);
                    self.warn(
                        Code::NoChange,
                        &second.model,
                        message,
                        "merging it adds nothing: is it the model you mean?",
                    );
                }
                Kind::Beside if pair.is_equal() => {
                    let message = format!("`{}` is equal to `{}` wherever it was looked at", second.name, first.name);
                    self.warn(Code::NoChange, &second.model, message, "merging the two gives the same model again");
                }
                Kind::Base => self.about_descent(models, kinship, pair),
                Kind::Beside => self.about_strangers([first, second], pair),
            }
        }
    }

    fn about_descent(&mut self, models: &Models, kinship: &Kinship, pair: &Pair) {
        let [base, model] = pair.models.map(|place| &models.0[place]);
        let distance = pair.all().distance();
        if is_far(distance) {
            let message = format!(
                "`{}` is no descendant of `{}`: its weights are {distance:.2} from it (relative distance; unrelated models are \
                 about 1.4 apart, fine-tunes less than 0.1 from their base){}",
                model.name,
                base.name,
                cosine(pair)
            );
            // Not another fine-tune that the same base is given for.
            let is_sibling = |place: usize| {
                kinship.pairs.iter().any(|other| other.kind == Kind::Base && other.models == [pair.models[0], place])
            };
            let others = (0..models.0.len()).filter(|place| *place != pair.models[0] && !is_sibling(*place));
            let distances = others.filter_map(|place| {
                let found = kinship.pair(place, pair.models[1]).filter(|pair| pair.n_tensors > 0)?;
                Some((found.all().distance(), place))
            });
            let nearest = distances.min_by(|one, other| one.0.total_cmp(&other.0));
            let hint = match nearest.filter(|(distance, _)| !is_far(*distance)) {
                Some((near, place)) => {
                    format!("`{}` is {near:.3} from `{}`: is that its base?", model.name, models.0[place].name)
                }
                None => "name the model that it was trained from as the base".to_owned(),
            };
            return self.warn(Code::NoDescendant, &model.model, message, &hint);
        }
        let mut distances = pair.distances();
        distances.sort_by(|one, other| one.1.total_cmp(&other.1));
        let Some((_, middle)) = distances.get(distances.len() / 2).copied() else { return };
        let odd = distances.iter().filter(|(_, distance)| *distance > ODD.0 && *distance > ODD.1 * middle);
        let mut odd: Vec<(usize, f64)> = odd.copied().collect();
        odd.sort_by_key(|(layer, _)| *layer);
        if let Some((_, distance)) = odd.first() {
            let layers: Vec<String> = odd.iter().map(|(layer, _)| layer.to_string()).collect();
            let message = format!(
                "layer {} of `{}` is {distance:.2} from `{}`, the layers in the middle {middle:.3}",
                layers.join(", "),
                model.name,
                base.name
            );
            self.warn(Code::OddLayer, &model.model, message, "look whether the layer is damaged or was replaced");
        }
    }

    fn about_strangers(&mut self, [first, second]: [&Model; 2], pair: &Pair) {
        let distance = pair.all().distance();
        if !is_far(distance) {
            return;
        }
        let message = format!(
            "`{}` and `{}` are no kin: their weights are {distance:.2} apart (relative distance; unrelated models are about \
             1.4 apart){}",
            first.name,
            second.name,
            cosine(pair)
        );
        let hint = "an average of unrelated weights is no model of either kind: merge fine-tunes of one base";
        self.warn(Code::NoDescendant, &second.model, message, hint);
    }

    fn scan(&mut self, models: &Models) {
        let bytes = |model: &Model| -> u64 {
            let checkpoint = &model.source.checkpoint;
            checkpoint.tensors().values().map(|tensor| checkpoint.bytes(tensor).len() as u64).sum()
        };
        let is_first = |place: usize| {
            let files = |model: &Model| model.source.checkpoint.clone();
            !models.0[..place].iter().any(|other| Arc::ptr_eq(&files(other), &files(&models.0[place])))
        };
        let files: Vec<usize> = (0..models.0.len()).filter(|place| is_first(*place)).collect();
        let is_whole = files.iter().map(|place| bytes(&models.0[*place])).sum::<u64>() <= SCANNED;
        if is_whole {
            for place in files {
                // What an adapter adds was seen in the sampled rows.
                let found = unsound(&models.0[place]);
                self.unsound.entry(place).or_default().splice(.., found);
            }
        } else {
            self.notes.push("infinities and NaN were looked for in the sampled rows alone".to_owned());
        }
        for (place, tensors) in std::mem::take(&mut self.unsound) {
            let (model, Some(first)) = (&models.0[place], tensors.first()) else { continue };
            let more =
                if tensors.len() > 1 { format!(" and {} more tensors", tensors.len() - 1) } else { String::new() };
            let message = format!("`{}` has infinities or NaN: in `{first}`{more}", model.name);
            let hint = "whatever is merged from it answers nothing sensible: fetch or train it again";
            self.add(Code::NotFinite, &model.model, message, hint);
        }
    }
}

fn is_far(distance: f64) -> bool {
    distance.is_nan() || distance > FAR
}

fn cosine(pair: &Pair) -> String {
    pair.all().cosine().map(|cosine| format!(", cosine {cosine:.2}")).unwrap_or_default()
}

/// Tensors with infinities or NaN.
fn unsound(model: &Model) -> Vec<String> {
    const NUMBERS: usize = 1 << 16;
    let checkpoint = &model.source.checkpoint;
    let mut numbers = vec![0f32; NUMBERS];
    let mut is_unsound = |name: &String| {
        let found = checkpoint.tensor(name).and_then(|tensor| Some((tensor, tensor.dtype()?)));
        let Some((tensor, dtype)) = found else { return false };
        checkpoint.bytes(tensor).chunks(NUMBERS * dtype.size()).any(|chunk| {
            let numbers = &mut numbers[..chunk.len() / dtype.size()];
            f32::decode(chunk, dtype, numbers);
            numbers.iter().any(|number| !number.is_finite())
        })
    };
    checkpoint.tensors().keys().filter(|name| is_unsound(name)).cloned().collect()
}
