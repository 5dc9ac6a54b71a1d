//! Combinations of axis values: `grid` (every combination), `zip` (in lock-step), `settings` (listed one by one), the
//! product of these where several are given, without what `exclude` names, thinned out by `sample`.

use super::axis::{self, Axis, Context, same};
use super::{AxisHead, AxisValue, Setting, keys};
use crate::document::read::{Field, Table, listed, nearest};
use crate::document::{Code, Entry, Node, Problems, Value};

/// Most combinations that are laid out before exclusions and sampling.
const MAX_COMBINATIONS: usize = 1_000_000;

/// Most values, those inside lists and tables among them, in all combinations together: each combination has its own.
const MAX_VALUES: usize = 4_000_000;

/// Axes that vary together, with the combinations they take.
struct Dimension {
    heads: Vec<AxisHead>,
    settings: Vec<Setting>,
}

impl Dimension {
    /// Values in the largest of its settings.
    fn largest(&self) -> usize {
        let size = |setting: &Setting| setting.iter().map(|value| value.value.size()).sum();
        self.settings.iter().map(size).max().unwrap_or(0)
    }
}

/// Axes and every combination of their values, in order: the last axis varies fastest.
#[derive(Debug, Clone, Default)]
pub struct Combinations {
    /// The axes.
    pub axes: Vec<AxisHead>,
    /// The combinations; one empty one where there are no axes.
    pub settings: Vec<Setting>,
}

/// Reads the combination keys of a merge.
pub fn combinations(table: &mut Table<'_>, context: Context<'_>, problems: &mut Problems) -> Combinations {
    let n_mistakes = problems.n_errors();
    let mut dimensions = Vec::new();
    // Groups vary in the order in which they are written.
    let mut groups =
        [("grid", table.optional("grid")), ("zip", table.optional("zip")), ("settings", table.optional("settings"))];
    groups.sort_by_key(|(_, field)| field.as_ref().map_or(0, |field| field.node.span.start));
    for (group, field) in groups {
        let Some(field) = field else { continue };
        match group {
            "grid" => {
                dimensions.extend(axis::axes(&field, context, problems).into_iter().map(|axis| Dimension {
                    heads: vec![axis.head],
                    settings: axis.values.into_iter().map(|value| vec![value]).collect(),
                }));
            }
            "zip" => dimensions.extend(zip(&field, context, problems)),
            _ => dimensions.extend(settings(&field, context, problems)),
        }
    }
    let axes: Vec<AxisHead> = dimensions.iter().flat_map(|dimension| dimension.heads.iter().cloned()).collect();
    collisions(&axes, problems);
    let exclude = table.optional("exclude");
    let sample = table.optional("sample");
    let count = dimensions.iter().try_fold(1_usize, |count, dimension| count.checked_mul(dimension.settings.len()));
    let count = count.unwrap_or(usize::MAX);
    let n_values: usize = dimensions.iter().map(Dimension::largest).sum();
    if count > MAX_COMBINATIONS {
        table.problem(Code::TooMany, format!("more than {MAX_COMBINATIONS} combinations"), None, problems);
        return Combinations { axes, settings: Vec::new() };
    }
    if count.saturating_mul(n_values) > MAX_VALUES {
        let message = format!("{count} combinations of {n_values} values, expected at most {MAX_VALUES} values in all");
        table.problem(Code::TooMany, message, None, problems);
        return Combinations { axes, settings: Vec::new() };
    }
    let excluded = exclude.map_or_else(Vec::new, |field| exclusions(&field, &axes, problems));
    let mut hits = vec![0_usize; excluded.len()];
    let mut settings: Vec<Setting> = (0..count)
        .map(|index| combination(&dimensions, index))
        .filter(|setting| {
            let matching = excluded.iter().position(|exclusion| exclusion.matches(setting));
            matching.inspect(|index| hits[*index] += 1).is_none()
        })
        .collect();
    for (exclusion, _) in excluded.iter().zip(hits).filter(|(_, hits)| *hits == 0) {
        let hint = Some("all its values have to occur together in a combination that is not excluded yet".to_owned());
        exclusion.field().warning(Code::Exclusion, "excludes nothing", hint, problems);
    }
    if let Some(field) = sample {
        settings = sampled(&field, settings, problems);
    }
    if settings.is_empty() && problems.n_errors() == n_mistakes {
        table.problem(Code::Exclusion, "every combination is excluded, expected at least one trial", None, problems);
    }
    Combinations { axes, settings }
}

/// The combination of that number, counted with the last dimension fastest.
fn combination(dimensions: &[Dimension], mut index: usize) -> Setting {
    let mut parts: Vec<&Setting> = Vec::with_capacity(dimensions.len());
    for dimension in dimensions.iter().rev() {
        parts.push(&dimension.settings[index % dimension.settings.len()]);
        index /= dimension.settings.len();
    }
    parts.into_iter().rev().flatten().cloned().collect()
}

fn zip(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Dimension> {
    let axes: Vec<Axis> = axis::axes(field, context, problems);
    let length = axes.first()?.values.len();
    if axes.iter().any(|axis| axis.values.len() != length) {
        let lengths: Vec<_> =
            axes.iter().map(|axis| format!("`{}` has {}", axis.head.name, axis.values.len())).collect();
        let message = format!("axes of a `zip` must have the same number of values: {}", lengths.join(", "));
        field.problem(Code::Uneven, message, Some("use `grid` for every combination".to_owned()), problems);
        return None;
    }
    let settings = (0..length).map(|index| axes.iter().map(|axis| axis.values[index].clone()).collect()).collect();
    Some(Dimension { heads: axes.into_iter().map(|axis| axis.head).collect(), settings })
}

fn settings(field: &Field<'_>, context: Context<'_>, problems: &mut Problems) -> Option<Dimension> {
    let items = field.list("a list of settings, such as `[{ t = 0.3 }, { t = 0.5 }]`", problems)?;
    if items.is_empty() {
        field.problem(Code::Empty, "expected at least one setting, found an empty list", None, problems);
    }
    let mut heads: Vec<AxisHead> = Vec::new();
    let mut settings = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let values = assignments(item, problems)?;
        if index == 0 {
            for (entry, name, field) in &values {
                heads.push(axis::head(entry, name.clone(), &field.path, context, &[], problems)?);
            }
        }
        let setting: Option<Setting> = heads
            .iter()
            .map(|head| {
                values.iter().find(|(_, name, _)| *name == head.name).map(|(_, _, field)| axis::value(field.node))
            })
            .collect();
        let names = |names: Vec<&str>| if names.is_empty() { "nothing".to_owned() } else { listed(names) };
        match setting {
            Some(setting) if setting.len() == values.len() => settings.push(setting),
            _ => {
                let expected = names(heads.iter().map(|head| head.name.as_str()).collect());
                let found = names(values.iter().map(|(_, name, _)| name.as_str()).collect());
                let message =
                    format!("every setting sets the same axes: expected {expected} as in the first, found {found}");
                item.problem(Code::Uneven, message, None, problems);
            }
        }
    }
    Some(Dimension { heads, settings })
}

/// `axis = value` pairs. A table that is no conditional is a prefix of names, as in `grid`.
fn assignments<'a>(field: &Field<'a>, problems: &mut Problems) -> Option<Vec<(&'a Entry, String, Field<'a>)>> {
    fn collect<'a>(
        prefix: &str,
        entries: Vec<(&'a Entry, Field<'a>)>,
        found: &mut Vec<(&'a Entry, String, Field<'a>)>,
    ) {
        for (entry, field) in entries {
            let name = if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
            let nested = match &field.node.value {
                Value::Map(_) if field.node.get("value").is_none() => field.entries("", &mut Problems::default()),
                _ => None,
            };
            match nested {
                Some(entries) => collect(&name, entries, found),
                None => found.push((entry, name, field)),
            }
        }
    }
    let entries = field.entries("a setting, such as `{ t = 0.3 }`", problems)?;
    if entries.is_empty() {
        field.problem(Code::Empty, "expected at least one axis, found none", None, problems);
    }
    let mut found = Vec::new();
    collect("", entries, &mut found);
    Some(found)
}

/// Axes of the same name, or that set the same place.
fn collisions(axes: &[AxisHead], problems: &mut Problems) {
    for (index, axis) in axes.iter().enumerate() {
        for earlier in &axes[..index] {
            let overlap = match (&axis.target, &earlier.target) {
                (super::Target::Places(a), super::Target::Places(b)) => {
                    a.iter().find(|place| b.contains(place)).map(ToString::to_string)
                }
                (a, b) => (a == b).then(|| "seed".to_owned()),
            };
            let message = match overlap {
                _ if axis.name == earlier.name => format!("axis `{}` is given twice", axis.name),
                Some(place) => format!("axes `{}` and `{}` both set `{place}`", earlier.name, axis.name),
                None => continue,
            };
            problems.push(Code::AxesCollide, axis.span.clone(), axis.key_path.clone(), message, None);
        }
    }
}

/// Values that exclude a combination where all of them occur in it.
struct Exclusion<'a> {
    node: &'a Node,
    path: String,
    values: Vec<(usize, AxisValue)>,
}

impl Exclusion<'_> {
    fn matches(&self, setting: &Setting) -> bool {
        !self.values.is_empty() && self.values.iter().all(|(axis, value)| same(&setting[*axis].value, &value.value))
    }

    fn field(&self) -> Field<'_> {
        Field::new(self.node, self.path.clone())
    }
}

fn exclusions<'a>(field: &Field<'a>, axes: &[AxisHead], problems: &mut Problems) -> Vec<Exclusion<'a>> {
    let items =
        field.list("a list of partial settings, such as `[{ density = 0.2, seed = 3 }]`", problems).unwrap_or_default();
    let mut exclusions = Vec::new();
    for item in items {
        let Some(pairs) = assignments(&item, problems) else { continue };
        let mut values = Vec::new();
        for (entry, name, field) in pairs {
            match axes.iter().position(|axis| axis.name == name) {
                Some(axis) => values.push((axis, axis::value(field.node))),
                None => {
                    let known = axes.iter().map(|axis| axis.name.as_str());
                    let hint = match nearest(&name, known.clone()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if axes.is_empty() => "this merge has no axes".to_owned(),
                        None => format!("axes: {}", listed(known)),
                    };
                    let message = format!("unknown axis `{name}`");
                    problems.push(Code::UnknownAxis, entry.key_span.clone(), field.path, message, Some(hint));
                }
            }
        }
        exclusions.push(Exclusion { node: item.node, path: item.path, values });
    }
    exclusions
}

/// `n` of the combinations in their order. Which ones depends on `seed` and their number alone, and a larger `n` keeps
/// those of a smaller one.
fn sampled(field: &Field<'_>, settings: Vec<Setting>, problems: &mut Problems) -> Vec<Setting> {
    let Some(mut table) = field.table(&keys::SAMPLE, problems) else { return settings };
    let n = table.required("n", problems).and_then(|field| field.whole(1, problems));
    let seed = table.optional("seed").map(|field| field.whole(0, problems));
    table.finish(problems);
    let (Some(n), Some(seed)) = (n, seed.unwrap_or(Some(0))) else { return settings };
    let draw = |index: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&(index as u64).to_le_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut order: Vec<usize> = (0..settings.len()).collect();
    order.sort_by_cached_key(|index| draw(*index));
    let mut keep = vec![false; settings.len()];
    order.into_iter().take(n.try_into().unwrap_or(usize::MAX)).for_each(|index| keep[index] = true);
    settings.into_iter().zip(keep).filter_map(|(setting, keep)| keep.then_some(setting)).collect()
}
