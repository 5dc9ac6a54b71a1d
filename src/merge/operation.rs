//! The parameters of a method for one tensor: from the levels of the config to an [`Operation`] of plain numbers.

use super::method::stream::Stream;
use super::method::{Axis, Operation, Sparsity, TaskModel, TaskVector, UniqueScale};
use super::recipe::RecipeError;
use crate::config::parameter::Site;
use crate::config::{MergeConfig, Method, Slice, SourceModel};

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

struct Resolver<'a> {
    config: &'a MergeConfig,
    slice: &'a Slice,
    tensor: Tensor<'a>,
    seed: u64,
}

/// The operation of a tensor. The base, if there is one, is the first input.
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
) -> Result<Operation, RecipeError> {
    let resolver = Resolver { config, slice, tensor, seed };
    let models = &inputs[usize::from(has_base)..];
    let weights = || models.iter().map(|input| resolver.required("weight", Some(input))).collect::<Result<Vec<_>, _>>();
    Ok(match config.method {
        Method::Passthrough => Operation::Passthrough { scale: resolver.optional("scale", inputs.first())? },
        Method::Linear => Operation::Linear { weights: weights()?, normalize: resolver.switch("normalize")? },
        Method::Slerp => Operation::Slerp { t: resolver.required("t", None)? },
        Method::Nuslerp => {
            let axis = match (resolver.switch("nuslerp_flatten")?, resolver.switch("nuslerp_row_wise")?) {
                (true, _) => Axis::Whole,
                (false, false) => Axis::Last,
                (false, true) => Axis::First,
            };
            let weights = weights()?;
            // The number of inputs is checked for every slice.
            Operation::Nuslerp { weights: [weights[0], weights[1]], has_base, axis }
        }
        Method::ArceeFusion => Operation::ArceeFusion,
        Method::Multislerp => Operation::Multislerp {
            weights: weights()?,
            has_base,
            normalize_weights: resolver.switch("normalize_weights")?,
            eps: resolver.required("eps", None)?,
        },
        Method::Karcher => {
            let max_iter = resolver.required("max_iter", None)?;
            if max_iter < 0.0 || max_iter.fract() != 0.0 {
                return Err(resolver.shared_range("max_iter", "a whole number from 0", max_iter));
            }
            Operation::Karcher { max_iter: max_iter as usize, tol: resolver.required("tol", None)? }
        }
        Method::ModelStock => Operation::ModelStock { filter_wise: resolver.switch("filter_wise")? },
        Method::Nearswap => Operation::Nearswap { t: resolver.required("t", None)? },
        Method::Sce => Operation::Sce { select_topk: resolver.required("select_topk", None)? },
        Method::Ram => Operation::Ram { epsilon: resolver.required("epsilon", None)?, unique: None },
        Method::RamplusTl => Operation::Ram {
            epsilon: resolver.required("epsilon", None)?,
            unique: Some(UniqueScale { r: resolver.required("r", None)?, alpha: resolver.required("alpha", None)? }),
        },
        Method::TaskArithmetic
        | Method::Ties
        | Method::DareLinear
        | Method::DareTies
        | Method::Breadcrumbs
        | Method::BreadcrumbsTies
        | Method::Della
        | Method::DellaLinear => Operation::TaskVector(resolver.task_vector(models)?),
    })
}

impl Resolver<'_> {
    fn optional(&self, name: &str, input: Option<&Asked<'_>>) -> Result<Option<f64>, RecipeError> {
        // Only parameters of the method's own row are asked for.
        let Some(row) = self.config.method.parameter(name) else { return Ok(None) };
        let tensor = input.map_or(self.tensor.name, |input| input.tensor);
        let site = Site { tensor, t: self.tensor.t };
        Ok(self.config.parameter(row, self.slice, input.map(|input| input.listed), site)?)
    }

    fn required(&self, name: &str, input: Option<&Asked<'_>>) -> Result<f64, RecipeError> {
        self.optional(name, input).map(Option::unwrap_or_default)
    }

    fn shared_range(&self, name: &'static str, expected: &'static str, found: f64) -> RecipeError {
        RecipeError::Range {
            name,
            tensor: self.tensor.name.to_owned(),
            model: "all models".to_owned(),
            expected,
            found,
        }
    }

    fn switch(&self, name: &str) -> Result<bool, RecipeError> {
        Ok(self.required(name, None)? != 0.0)
    }

    fn task_vector(&self, models: &[Asked<'_>]) -> Result<TaskVector, RecipeError> {
        let consensus =
            matches!(self.config.method, Method::Ties | Method::DareTies | Method::BreadcrumbsTies | Method::Della);
        let models = models.iter().map(|input| {
            Ok(TaskModel { weight: self.required("weight", Some(input))?, sparsity: self.sparsity(input)? })
        });
        Ok(TaskVector {
            consensus,
            normalize: self.switch("normalize")?,
            rescale: self.switch("rescale")?,
            lambda: self.required("lambda", None)?,
            models: models.collect::<Result<_, RecipeError>>()?,
        })
    }

    fn sparsity(&self, input: &Asked<'_>) -> Result<Sparsity, RecipeError> {
        let method = self.config.method;
        let density = self.required("density", Some(input))?;
        let range = |name, expected, found| RecipeError::Range {
            name,
            tensor: self.tensor.name.to_owned(),
            model: format!("`{}`", input.listed.model),
            expected,
            found,
        };
        if method == Method::TaskArithmetic || density >= 1.0 {
            return Ok(Sparsity::Everything);
        }
        if density.is_nan() {
            return Err(range("density", "a number", density));
        }
        let dare = matches!(method, Method::DareLinear | Method::DareTies);
        if dare && density < 0.0 {
            return Err(range("density", "a probability", density));
        }
        if density <= 0.0 {
            return Ok(Sparsity::Nothing);
        }
        let stream = Stream::new(self.seed, input.key, self.tensor.name);
        Ok(match method {
            Method::Ties => Sparsity::Magnitude { density },
            Method::Breadcrumbs | Method::BreadcrumbsTies => {
                Sparsity::Outliers { density, gamma: self.required("gamma", Some(input))? }
            }
            Method::DareLinear | Method::DareTies => Sparsity::Random { density, stream },
            _ => {
                let epsilon = self.required("epsilon", Some(input))?;
                if !(density + epsilon < 1.0 && density - epsilon > 0.0) {
                    return Err(range("epsilon", "density - epsilon above 0 and density + epsilon below 1", epsilon));
                }
                if self.tensor.row_len == 1 {
                    return Err(RecipeError::SingleElementRows { tensor: self.tensor.name.to_owned(), method });
                }
                Sparsity::Magprune { density, epsilon, stream }
            }
        })
    }
}
