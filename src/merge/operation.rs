//! The parameters of a method for one tensor: from the levels of the config to an [`Operation`] of plain numbers.

use super::method::stream::Stream;
use super::method::{Axis, Operation, Sparsity, TaskModel, TaskVector, UniqueScale};
use super::recipe::RecipeError;
use crate::config::method::Scope;
use crate::config::parameter::{Recorder, Site};
use crate::config::{MergeConfig, Method, Numerics, Slice, SourceModel};

/// An input that parameters are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its entry in the config.
    pub listed: &'a SourceModel,
    /// Its own tensor's name.
    pub tensor: &'a str,
    /// The model's key.
    pub key: &'a str,
}

/// The output tensor.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its place in the layers of its slice.
    pub t: f64,
    /// Elements of its last axis.
    pub row_len: usize,
}

/// Every parameter of a method for one tensor, looked up whether or not the other values leave it anything to do, as mergekit
/// does.
struct Values {
    shared: Vec<Value>,
    /// By input, a base first.
    inputs: Vec<Vec<Value>>,
}

type Value = (&'static str, Option<f64>);

struct Resolver<'a> {
    method: Method,
    tensor: Tensor<'a>,
    inputs: &'a [Asked<'a>],
    has_base: bool,
    seed: u64,
    values: Values,
}

/// The order in which inputs are worked with: the base first. The others of a method that does not care about their order
/// follow by key, so that sums are the same whatever the order in the file; mergekit adds in that order.
pub fn order(method: Method, numerics: Numerics, base: Option<usize>, keys: &[&str]) -> Vec<usize> {
    let mut others: Vec<usize> = (0..keys.len()).filter(|index| Some(*index) != base).collect();
    if method != Method::Nuslerp && numerics == Numerics::F32 {
        others.sort_by_key(|index| keys[*index]);
    }
    base.into_iter().chain(others).collect()
}

/// The operation of a tensor. The base, if there is one, is the first input. Whoever wants to know what was read gets told
/// of every look-up.
///
/// # Errors
/// [`RecipeError`] for parameters that are missing, of the wrong type or out of range.
pub fn resolve(
    config: &MergeConfig,
    slice: &Slice,
    inputs: &[Asked<'_>],
    has_base: bool,
    tensor: Tensor<'_>,
    seed: u64,
    recorder: Option<&Recorder<'_>>,
) -> Result<Operation, RecipeError> {
    let values = Values::look_up(config, slice, inputs, has_base, tensor, recorder)?;
    Resolver { method: config.method, tensor, inputs, has_base, seed, values }.operation()
}

impl Values {
    fn look_up(
        config: &MergeConfig,
        slice: &Slice,
        inputs: &[Asked<'_>],
        has_base: bool,
        tensor: Tensor<'_>,
        recorder: Option<&Recorder<'_>>,
    ) -> Result<Self, RecipeError> {
        let of = |scope: &dyn Fn(Scope) -> bool, input: Option<&Asked<'_>>| {
            let name = input.map_or(tensor.name, |input| input.tensor);
            let site = Site { tensor: name, t: tensor.t };
            let rows = config.method.spec().parameters.iter().filter(|row| scope(row.scope));
            rows.map(|row| {
                let value = config.parameter(row, slice, input.map(|input| input.listed), site, recorder)?;
                Ok((row.name, value))
            })
            .collect::<Result<Vec<Value>, RecipeError>>()
        };
        let input = |(index, input): (usize, &Asked<'_>)| {
            let is_base = has_base && index == 0;
            of(&|scope| scope == Scope::EveryInput || scope == Scope::NonBaseInputs && !is_base, Some(input))
        };
        let inputs = inputs.iter().enumerate().map(input).collect::<Result<_, _>>()?;
        Ok(Self { inputs, shared: of(&|scope| scope == Scope::Shared, None)? })
    }
}

impl Resolver<'_> {
    fn operation(&self) -> Result<Operation, RecipeError> {
        let has_base = self.has_base;
        Ok(match self.method {
            Method::Passthrough => Operation::Passthrough { scale: self.of_input("scale", 0) },
            Method::Linear => Operation::Linear { weights: self.weights(), normalize: self.switch("normalize") },
            Method::Slerp => Operation::Slerp { t: self.shared("t") },
            Method::Nuslerp => {
                let axis = match (self.switch("nuslerp_flatten"), self.switch("nuslerp_row_wise")) {
                    (true, _) => Axis::Whole,
                    (false, false) => Axis::Last,
                    (false, true) => Axis::First,
                };
                let weights = self.weights();
                // The number of inputs is checked for every slice.
                Operation::Nuslerp { weights: [weights[0], weights[1]], has_base, axis }
            }
            Method::ArceeFusion => Operation::ArceeFusion,
            Method::Multislerp => Operation::Multislerp {
                weights: self.weights(),
                has_base,
                normalize_weights: self.switch("normalize_weights"),
                eps: self.shared("eps"),
            },
            Method::Karcher => {
                let max_iter = self.shared("max_iter");
                if max_iter < 0.0 || max_iter.fract() != 0.0 {
                    return Err(self.range("max_iter", None, "a whole number from 0", max_iter));
                }
                Operation::Karcher { max_iter: max_iter as usize, tol: self.shared("tol") }
            }
            Method::ModelStock => Operation::ModelStock { filter_wise: self.switch("filter_wise") },
            Method::Nearswap => Operation::Nearswap { t: self.shared("t") },
            Method::Sce => Operation::Sce { select_topk: self.shared("select_topk") },
            Method::Ram => Operation::Ram { epsilon: self.shared("epsilon"), unique: None },
            Method::RamplusTl => Operation::Ram {
                epsilon: self.shared("epsilon"),
                unique: Some(UniqueScale { r: self.shared("r"), alpha: self.shared("alpha") }),
            },
            Method::TaskArithmetic
            | Method::Ties
            | Method::DareLinear
            | Method::DareTies
            | Method::Breadcrumbs
            | Method::BreadcrumbsTies
            | Method::Della
            | Method::DellaLinear => Operation::TaskVector(self.task_vector()?),
        })
    }

    /// The inputs besides the base.
    fn models(&self) -> std::ops::Range<usize> {
        usize::from(self.has_base)..self.inputs.len()
    }

    fn of_input(&self, name: &str, input: usize) -> Option<f64> {
        value(self.values.inputs.get(input)?, name)
    }

    /// A parameter that has a value for every input it is asked for: it is required, or has a default.
    fn own(&self, name: &str, input: usize) -> f64 {
        self.of_input(name, input).unwrap_or_default()
    }

    fn weights(&self) -> Vec<f64> {
        self.models().map(|input| self.own("weight", input)).collect()
    }

    fn shared(&self, name: &str) -> f64 {
        value(&self.values.shared, name).unwrap_or_default()
    }

    fn switch(&self, name: &str) -> bool {
        self.shared(name) != 0.0
    }

    fn range(&self, name: &'static str, input: Option<usize>, expected: &'static str, found: f64) -> RecipeError {
        let model = input.map(|input| format!("`{}`", self.inputs[input].listed.model));
        let (tensor, model) = (self.tensor.name.to_owned(), model.unwrap_or_else(|| "all models".to_owned()));
        RecipeError::Range { name, tensor, model, expected, found }
    }

    fn task_vector(&self) -> Result<TaskVector, RecipeError> {
        let consensus =
            matches!(self.method, Method::Ties | Method::DareTies | Method::BreadcrumbsTies | Method::Della);
        let model = |input| Ok(TaskModel { weight: self.own("weight", input), sparsity: self.sparsity(input)? });
        Ok(TaskVector {
            consensus,
            normalize: self.switch("normalize"),
            rescale: self.switch("rescale"),
            lambda: self.shared("lambda"),
            models: self.models().map(model).collect::<Result<_, RecipeError>>()?,
        })
    }

    fn sparsity(&self, input: usize) -> Result<Sparsity, RecipeError> {
        let method = self.method;
        let density = self.own("density", input);
        if method == Method::TaskArithmetic || density >= 1.0 {
            return Ok(Sparsity::Everything);
        }
        if density.is_nan() {
            return Err(self.range("density", Some(input), "a number", density));
        }
        let dare = matches!(method, Method::DareLinear | Method::DareTies);
        if dare && density < 0.0 {
            return Err(self.range("density", Some(input), "a probability", density));
        }
        if density <= 0.0 {
            return Ok(Sparsity::Nothing);
        }
        let stream = Stream::new(self.seed, self.inputs[input].key, self.tensor.name);
        Ok(match method {
            Method::Ties => Sparsity::Magnitude { density },
            Method::Breadcrumbs | Method::BreadcrumbsTies => {
                Sparsity::Outliers { density, gamma: self.own("gamma", input) }
            }
            Method::DareLinear | Method::DareTies => Sparsity::Random { density, stream },
            _ => {
                let epsilon = self.own("epsilon", input);
                if !(density + epsilon < 1.0 && density - epsilon > 0.0) {
                    let expected = "density - epsilon above 0 and density + epsilon below 1";
                    return Err(self.range("epsilon", Some(input), expected, epsilon));
                }
                if self.tensor.row_len == 1 {
                    return Err(RecipeError::SingleElementRows { tensor: self.tensor.name.to_owned(), method });
                }
                Sparsity::Magprune { density, epsilon, stream }
            }
        })
    }
}

fn value(values: &[Value], name: &str) -> Option<f64> {
    values.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value)
}
