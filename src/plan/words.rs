//! Merges in words and formulas, with the short names of models.

use super::resolution::Resolution;
use super::sites::Class;
use super::twins::rounding::{Form, number};
use crate::merge::method::{Operation, Sparsity, TaskModel, TaskVector, nuslerp};
use crate::model::ModelRef;

/// What a model is called.
pub type Naming<'a> = dyn Fn(&ModelRef) -> String + 'a;

/// Short names of the inputs of an operation.
pub fn inputs(resolution: &Resolution<'_>, class: &Class, naming: &Naming<'_>) -> Vec<String> {
    resolution.sources(class).map(|source| naming(&source.model)).collect()
}

/// A sum of inputs times coefficients: `0.5 code + 0.5 math`.
pub fn average(terms: &[(usize, f64)], names: &[String]) -> String {
    signed_sum(terms.iter().map(|(input, coefficient)| (*coefficient, names[*input].clone())))
}

/// The same as changes of the first input: `base + 0.8 (code - base)`.
pub fn changes(terms: &[(usize, f64)], names: &[String]) -> String {
    let changed = terms.iter().filter(|(input, _)| *input > 0);
    let changed: Vec<_> =
        changed.map(|(input, coefficient)| (*coefficient, format!("({} - {})", names[*input], names[0]))).collect();
    if changed.is_empty() { names[0].clone() } else { after(&names[0], &signed_sum(changed)) }
}

fn after(base: &str, sum: &str) -> String {
    match sum.strip_prefix('-') {
        Some(rest) => format!("{base} - {rest}"),
        None => format!("{base} + {sum}"),
    }
}

fn signed_sum(terms: impl IntoIterator<Item = (f64, String)>) -> String {
    let mut text = String::new();
    for (coefficient, what) in terms {
        let magnitude = number(coefficient.abs());
        let term = if magnitude == "1" { what } else { format!("{magnitude} {what}") };
        let sign = match (text.is_empty(), coefficient < 0.0) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        };
        text += sign;
        text += &term;
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

/// The formula of an operation, with numbers in it. `y` is what comes out.
pub fn formula(operation: &Operation, names: &[String]) -> String {
    let list = names.join(", ");
    match operation {
        Operation::Passthrough { scale: None } => format!("y = {}", names[0]),
        Operation::Passthrough { scale: Some(scale) } => format!("y = {} {}", number(*scale), names[0]),
        Operation::Linear { weights, normalize } => {
            let terms: Vec<(usize, f64)> = weights.iter().copied().enumerate().collect();
            let sum = average(&terms, names);
            if *normalize { format!("y = ({sum}) / {}", number(weights.iter().sum())) } else { format!("y = {sum}") }
        }
        Operation::TaskVector(task_vector) => of_task_vectors(task_vector, names),
        Operation::Slerp { t } => format!("y = slerp({}; {list}), 0 is {}", number(*t), names[0]),
        Operation::Nuslerp { weights, has_base, .. } => {
            let t = nuslerp::share(*weights);
            match names {
                [base, a, b] if *has_base => {
                    format!("y = {base} + slerp({}; {a} - {base}, {b} - {base})", number(t))
                }
                _ => format!("y = slerp({}; {list})", number(t)),
            }
        }
        Operation::ArceeFusion => {
            let [base, other] = names else { return format!("y = arcee_fusion({list})") };
            format!("y = {base} + mask ({other} - {base}), where the importance |{other} - {base}| KL is high")
        }
        Operation::Multislerp { weights, .. } => format!("y = multislerp({list}) with weights {weights:?}"),
        Operation::Karcher { max_iter, tol } => {
            format!("y = Karcher mean of {list}, at most {max_iter} steps, tolerance {tol}")
        }
        Operation::ModelStock { filter_wise } => {
            let each = if *filter_wise { "row" } else { "tensor" };
            format!("y = t mean({}) + (1 - t) {}, t by the angle of each {each}", names[1..].join(", "), names[0])
        }
        Operation::Nearswap { t } => match names {
            [base, other] => {
                format!("y = w {other} + (1 - w) {base}, w = clip({} / |{base} - {other}|, 0, 1)", number(*t))
            }
            _ => format!("y = nearswap({list})"),
        },
        Operation::Sce { select_topk } => {
            format!("y = sce({list}), the share {} of the elements stays", number(*select_topk))
        }
        Operation::Ram { epsilon, unique } => match unique {
            None => format!("y = ram({list}), changes up to {epsilon} count as none"),
            Some(unique) => {
                format!(
                    "y = ramplus_tl({list}), changes up to {epsilon} count as none, r {}, alpha {}",
                    unique.r, unique.alpha
                )
            }
        },
    }
}

fn of_task_vectors(task_vector: &TaskVector, names: &[String]) -> String {
    let TaskVector { consensus, normalize, rescale, lambda, models } = task_vector;
    let base = &names[0];
    let term = |(model, name): (&TaskModel, &String)| {
        let delta = format!("({name} - {base})");
        let kept = match model.sparsity {
            Sparsity::Everything => delta,
            Sparsity::Nothing => format!("none{delta}"),
            Sparsity::Magnitude { density } => format!("top {}{delta}", number(density)),
            Sparsity::Outliers { density, gamma } => {
                format!("middle {}{delta} without the top {}", number(density), number(gamma))
            }
            Sparsity::Random { density, .. } => format!("random {}{delta}", number(density)),
            Sparsity::Magprune { density, epsilon, .. } => {
                format!("magprune {}±{}{delta}", number(density), number(epsilon))
            }
        };
        (model.weight, kept)
    };
    let sum = signed_sum(models.iter().zip(&names[1..]).map(term));
    let thins = models.iter().any(|model| !matches!(model.sparsity, Sparsity::Everything | Sparsity::Nothing));
    let weights: f64 = models.iter().map(|model| model.weight).sum();
    let mut change = match (consensus, normalize) {
        (false, false) => sum,
        (false, true) => format!("[{sum}] / {}", number(weights)),
        (true, false) => format!("agreeing [{sum}]"),
        (true, true) => format!("agreeing [{sum}] / (their weights)"),
    };
    if *lambda != 1.0 {
        change = format!("{} [{change}]", number(*lambda));
    }
    let rescaled = if *rescale && thins { ", what is kept rescaled to the L1 norm of the whole" } else { "" };
    format!("y = {}{rescaled}", after(base, &change))
}

/// What a merge comes down to, where that is less than its method promises: for all of its tensors alike.
pub fn reduction(resolution: &Resolution<'_>, forms: &[Form], naming: &Naming<'_>) -> Option<String> {
    let classes = resolution.sites.classes.iter().zip(&resolution.operations).zip(forms);
    let mut found: Option<String> = None;
    for ((class, operation), form) in classes {
        let names = inputs(resolution, class, naming);
        let one = reduced(operation, form, &names, resolution.config.method.name())?;
        match &found {
            Some(known) if *known != one => return None,
            _ => found = Some(one),
        }
    }
    found
}

fn reduced(operation: &Operation, form: &Form, names: &[String], method: &str) -> Option<String> {
    if matches!(operation, Operation::Passthrough { .. }) {
        return None;
    }
    if let Some(input) = form.only_input() {
        return Some(format!("is `{}` itself, but for rounding", names[input]));
    }
    let Operation::TaskVector(task_vector) = operation else { return None };
    match form {
        _ if method == "task_arithmetic" => None,
        Form::Combination(terms) if terms.iter().all(|(input, _)| *input > 0) => {
            let of_sum = terms.iter().map(|(_, coefficient)| coefficient).sum::<f64>();
            // Weights that leave no base are those of an average.
            ((of_sum - 1.0).abs() < 1e-6)
                .then(|| format!("is plain task_arithmetic, with these weights the average {}", average(terms, names)))
        }
        Form::Combination(terms) => Some(format!("is plain task_arithmetic, {}", changes(terms, names))),
        Form::Other(_) => {
            let thins = task_vector.models.iter().any(|model| model.sparsity != Sparsity::Everything);
            (!thins).then(|| "elects signs and drops nothing: every density is 1".to_owned())
        }
    }
}
