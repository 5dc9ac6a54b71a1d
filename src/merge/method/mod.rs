//! Merge methods: tensors and numbers only, no paths and no files.
//!
//! An [`Operation`] is a method with its parameters resolved for one tensor. [`prepare`] takes the statistics of whole
//! tensors that operations need (norms, thresholds, divergences), for all operations on the same tensors at once;
//! [`Kernel::apply`] then computes any block of a result. Kernels compute in `f32` (`f64` where the working dtype is
//! float64) and leave the last rounding to the caller; how they round on the way is the
//! [`Arithmetic`](super::arithmetic)'s business.

pub mod arcee_fusion;
pub mod combination;
pub mod divergence;
pub mod exponential;
pub mod karcher;
pub mod linear;
pub mod magprune;
pub mod mask;
pub mod model_stock;
pub mod multislerp;
pub mod nearswap;
pub mod nuslerp;
pub mod ram;
pub mod sce;
pub mod slerp;
pub mod sparsify;
pub mod stream;
pub mod task_vector;

pub use nuslerp::Axis;
pub use sparsify::Sparsity;
pub use task_vector::{TaskModel, TaskVector};

use std::sync::Arc;

use super::arithmetic::Arithmetic;
use super::inputs::Inputs;
use super::survey::{Sum, Survey, Vector};
use combination::Gram;
use magprune::Prune;
use mask::Mask;
use sparsify::Sparse;

/// A method with its parameters for one tensor. A base is always input 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// One input, copied, or scaled.
    Passthrough {
        /// The factor.
        scale: Option<f64>,
    },
    /// Weighted average.
    Linear {
        /// One for every input.
        weights: Vec<f64>,
        /// Whether they are made to sum to 1.
        normalize: bool,
    },
    /// Base plus task vectors.
    TaskVector(TaskVector),
    /// Spherical interpolation of base and other.
    Slerp {
        /// 0 is the base.
        t: f64,
    },
    /// Spherical interpolation of two task vectors or tensors.
    Nuslerp {
        /// Of the two models.
        weights: [f64; 2],
        /// Whether input 0 is a base.
        has_base: bool,
        /// What the vectors are.
        axis: Axis,
    },
    /// What matters of the other, on the base.
    ArceeFusion,
    /// Weighted mean of directions, in the tangent space of their mean.
    Multislerp {
        /// Of the inputs besides the base.
        weights: Vec<f64>,
        /// Whether input 0 is a base.
        has_base: bool,
        /// Whether weights are made to sum to 1.
        normalize_weights: bool,
        /// Norms below it count as zero.
        eps: f64,
    },
    /// Spherical mean of all inputs.
    Karcher {
        /// Steps at most.
        max_iter: usize,
        /// Angles and norms below it count as zero.
        tol: f64,
    },
    /// Towards the average of the others, by how much their task vectors agree.
    ModelStock {
        /// Whether every row has its own angle.
        filter_wise: bool,
    },
    /// Towards the other where it is near.
    Nearswap {
        /// Difference that is still taken over whole.
        t: f64,
    },
    /// Mean of task vectors by their energy, without minority signs.
    Sce {
        /// Share of the elements that vary that stay, by their variance.
        select_topk: f64,
    },
    /// Mean of the task vectors that change an element.
    Ram {
        /// Changes up to this count as none.
        epsilon: f64,
        /// Scaling of what one model alone changed.
        unique: Option<UniqueScale>,
    },
}

impl Operation {
    /// Whether input 0 is a base that the others change.
    pub fn has_base(&self) -> bool {
        match self {
            Self::Passthrough { .. } | Self::Linear { .. } | Self::Karcher { .. } => false,
            Self::Nuslerp { has_base, .. } | Self::Multislerp { has_base, .. } => *has_base,
            Self::TaskVector(_)
            | Self::Slerp { .. }
            | Self::ArceeFusion
            | Self::ModelStock { .. }
            | Self::Nearswap { .. }
            | Self::Sce { .. }
            | Self::Ram { .. } => true,
        }
    }
}

impl Operation {
    /// Whether a result for float32 is computed in 64 bits before it is rounded once: sums and angles, so that a result
    /// is never farther from the exact one than a 32-bit computation in another order gets. Methods that compare
    /// magnitudes with each other or elect signs do so in 32 bits, as everyone else: changes that cancel there would still
    /// elect a sign in 64. A model of weight zero decides nothing.
    pub fn is_wide(&self) -> bool {
        match self {
            Self::Linear { .. }
            | Self::Slerp { .. }
            | Self::Nuslerp { .. }
            | Self::Multislerp { .. }
            | Self::Karcher { .. }
            | Self::ModelStock { .. }
            | Self::Sce { .. } => true,
            Self::TaskVector(TaskVector { consensus, models, .. }) => {
                !consensus && models.iter().all(|model| model.weight == 0.0 || !model.sparsity.compares())
            }
            Self::Passthrough { .. } | Self::ArceeFusion | Self::Nearswap { .. } | Self::Ram { .. } => false,
        }
    }
}

/// How `ramplus_tl` scales what one model alone changed: by `1 + r * clip(shared / unique, 0, alpha)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UniqueScale {
    /// Strength.
    pub r: f64,
    /// Largest ratio that counts.
    pub alpha: f64,
}

/// An operation and its inputs, as numbers of the tensors it is computed with.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// What is to be done.
    pub operation: &'a Operation,
    /// With which tensors: a base first.
    pub inputs: &'a [usize],
}

/// A result that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// Nothing is left of the mean of directions.
    #[error("multislerp: the directions of the models cancel out, so they have no mean")]
    DirectionsCancel,
}

/// A block of every tensor that an operation works with.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a, R> {
    /// Number of its first element.
    pub start: usize,
    /// By number of the tensor.
    pub blocks: &'a [Vec<R>],
    /// Numbers of the operation's inputs.
    pub inputs: &'a [usize],
}

impl<'a, R> Block<'a, R> {
    /// The block of an input of the operation.
    #[inline(always)]
    pub fn input(&self, input: usize) -> &'a [R] {
        &self.blocks[self.inputs[input]]
    }
}

/// An operation with the statistics of its inputs.
#[derive(Debug)]
pub enum Kernel<A: Arithmetic> {
    /// One of the inputs as it is.
    Copy(usize),
    /// The input times a number.
    Scaled(A::Real),
    /// See [`linear`].
    Linear(linear::Kernel<A>),
    /// See [`task_vector`].
    TaskVector(task_vector::Kernel<A>),
    /// See [`slerp`].
    Slerp(slerp::Kernel<A>),
    /// See [`nuslerp`].
    Nuslerp(nuslerp::Kernel<A>),
    /// See [`arcee_fusion`].
    ArceeFusion(arcee_fusion::Kernel<A>),
    /// See [`combination`].
    Combination(combination::Kernel<A>),
    /// See [`multislerp`].
    Multislerp(multislerp::Kernel<A>),
    /// See [`karcher`].
    Karcher(karcher::Kernel<A>),
    /// See [`model_stock`].
    ModelStock(model_stock::Kernel<A>),
    /// See [`nearswap`].
    Nearswap(nearswap::Kernel<A>),
    /// See [`sce`].
    Sce(sce::Kernel<A>),
    /// See [`ram`].
    Ram(ram::Kernel<A>),
}

/// Reads the tensors as often as the operations' statistics need, together.
///
/// # Errors
/// [`MethodError`] of the first operation that has one.
pub fn prepare<A: Arithmetic>(tasks: &[Task<'_>], inputs: &Inputs<'_>) -> Result<Vec<Kernel<A>>, MethodError> {
    let n = inputs.len() as u64;
    let mut survey = Survey::<A>::new(inputs);
    survey.take_sums(tasks.iter().flat_map(|task| task.sums::<A>(inputs)).collect());
    survey.take_ranks(tasks.iter().flat_map(|task| task.ranks(n)).collect());
    let prunes: Vec<Prune> = tasks.iter().flat_map(Task::prunes).collect();
    let prunings = magprune::prune::<A>(inputs, &prunes);
    let mut known = Vec::new();
    let mut masks: Vec<Vec<Mask<A::Real>>> =
        tasks.iter().map(|task| task.masks(&survey, &prunings, &mut known)).collect();
    drop(known);
    draw(tasks, &mut masks, inputs.len());
    survey.take_sums(tasks.iter().zip(&masks).flat_map(|(task, masks)| task.rescale_sums(masks)).collect());
    tasks.iter().zip(masks).map(|(task, masks)| task.kernel(masks, &survey)).collect()
}

/// Draws random masks that rescaling will ask for besides the result, each once.
fn draw<R: super::real::Real>(tasks: &[Task<'_>], masks: &mut [Vec<Mask<R>>], len: usize) {
    let mut drawn: Vec<(Mask<R>, Mask<R>)> = Vec::new();
    for (task, masks) in tasks.iter().zip(masks) {
        let Operation::TaskVector(TaskVector { rescale: true, .. }) = task.operation else { continue };
        for mask in masks {
            let known = drawn.iter().find(|(random, _)| random == mask).map(|(_, bits)| bits.clone());
            let bits = known.unwrap_or_else(|| mask.clone().drawn(len));
            drawn.push((std::mem::replace(mask, bits.clone()), bits));
        }
    }
}

/// What stays of a vector under a setting.
type Chosen<R> = ((Vector, Sparsity), Mask<R>);

impl Task<'_> {
    /// The sums that are wanted before anything else is known.
    fn sums<A: Arithmetic>(&self, inputs: &Inputs<'_>) -> Vec<Sum<A::Real>> {
        match self.operation {
            Operation::Slerp { .. } => slerp::sums(self.inputs),
            Operation::Nuslerp { has_base, axis, .. } => match axis.in_shape(&inputs.shape) {
                Axis::Whole => nuslerp::sums(nuslerp::vectors(self.inputs, *has_base)),
                Axis::First | Axis::Last => Vec::new(),
            },
            Operation::Multislerp { has_base, .. } if A::STEPS => multislerp::sums(&self.directions(*has_base)),
            Operation::Karcher { .. } if A::STEPS => karcher::sums(self.inputs),
            Operation::Multislerp { has_base, .. } => Gram::sums::<A>(&self.directions(*has_base)),
            Operation::Karcher { .. } => Gram::sums::<A>(&self.directions(false)),
            Operation::ModelStock { filter_wise: false } => Gram::sums::<A>(&self.directions(true)),
            _ => Vec::new(),
        }
    }

    /// The vectors whose directions are averaged.
    fn directions(&self, has_base: bool) -> Vec<Vector> {
        if has_base {
            task_vector::vectors(self.inputs).collect()
        } else {
            self.inputs.iter().map(|input| Vector::of(*input)).collect()
        }
    }

    /// The task vectors that are thinned out, and how.
    fn sparsities(&self) -> impl Iterator<Item = (Vector, Sparsity)> {
        let models = match self.operation {
            Operation::TaskVector(task_vector) => task_vector.models.as_slice(),
            _ => &[],
        };
        models
            .iter()
            .zip(self.inputs.iter().skip(1))
            .map(|(model, input)| (Vector::task(*input, self.inputs[0]), model.sparsity))
    }

    fn ranks(&self, n: u64) -> Vec<(Vector, u64)> {
        self.sparsities()
            .flat_map(|(vector, sparsity)| sparsity.ranks(n).into_iter().map(move |rank| (vector, rank)))
            .collect()
    }

    fn prunes(&self) -> Vec<Prune> {
        self.sparsities().filter_map(|(vector, sparsity)| sparsity.prune(vector)).collect()
    }

    /// What stays of every task vector. The same choice of one vector is made once: see `known`.
    fn masks<A: Arithmetic>(
        &self,
        survey: &Survey<'_, A>,
        prunings: &[(Prune, Arc<Vec<u64>>)],
        known: &mut Vec<Chosen<A::Real>>,
    ) -> Vec<Mask<A::Real>> {
        let mut mask = |choice: (Vector, Sparsity)| {
            if let Some((_, mask)) = known.iter().find(|(other, _)| *other == choice) {
                return mask.clone();
            }
            let mask = choice.1.mask(choice.0, survey, prunings);
            known.push((choice, mask.clone()));
            mask
        };
        self.sparsities().map(&mut mask).collect()
    }

    fn rescale_sums<R: super::real::Real>(&self, masks: &[Mask<R>]) -> Vec<Sum<R>> {
        match self.operation {
            Operation::TaskVector(TaskVector { rescale: true, .. }) => self
                .sparsities()
                .zip(masks)
                .flat_map(|((vector, _), mask)| sparsify::rescale_sums(vector, mask))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn kernel<A: Arithmetic>(
        &self,
        masks: Vec<Mask<A::Real>>,
        survey: &Survey<'_, A>,
    ) -> Result<Kernel<A>, MethodError> {
        Ok(match self.operation {
            Operation::Passthrough { scale: None } => Kernel::Copy(0),
            Operation::Passthrough { scale: Some(scale) } => Kernel::Scaled(<A::Real as super::real::Real>::of(*scale)),
            Operation::Linear { weights, normalize } => Kernel::Linear(linear::Kernel::new(weights, *normalize)),
            Operation::TaskVector(task_vector) => {
                let sparse = self.sparsities().zip(masks).map(|((vector, sparsity), mask)| {
                    let factor = if task_vector.rescale {
                        sparsity.rescale_factor(vector, &mask, survey)
                    } else {
                        num_traits::one()
                    };
                    Sparse { mask, factor }
                });
                Kernel::TaskVector(task_vector.kernel(sparse.collect()))
            }
            Operation::Slerp { t } => Kernel::Slerp(slerp::Kernel::new(*t, self.inputs, survey)),
            Operation::Nuslerp { weights, has_base, axis } => {
                Kernel::Nuslerp(nuslerp::Kernel::new(*weights, *has_base, *axis, self.inputs, survey))
            }
            Operation::ArceeFusion => Kernel::ArceeFusion(arcee_fusion::Kernel::new(self.inputs, survey)),
            // A single model is its own mean: mergekit returns it as it is.
            Operation::Multislerp { weights, has_base, .. } if weights.len() == 1 => {
                Kernel::Copy(usize::from(*has_base))
            }
            Operation::Multislerp { weights, has_base, normalize_weights, eps } if A::STEPS => {
                let vectors = self.directions(*has_base);
                let kernel = multislerp::Kernel::new(vectors, weights, *normalize_weights, *eps, self.inputs, survey)?;
                Kernel::Multislerp(kernel)
            }
            Operation::Multislerp { weights, has_base, normalize_weights, eps } => {
                let gram = Gram::new(&self.directions(*has_base), survey);
                let coefficients = combination::multislerp(&gram, weights, *normalize_weights, *eps)?;
                Kernel::Combination(combination::Kernel::new(*has_base, &coefficients))
            }
            Operation::Karcher { max_iter, tol } if A::STEPS && self.inputs.len() > 1 => {
                Kernel::Karcher(karcher::Kernel::new(*max_iter, *tol, self.inputs, survey))
            }
            Operation::Karcher { max_iter, tol } => {
                let coefficients = combination::karcher(&Gram::new(&self.directions(false), survey), *max_iter, *tol);
                Kernel::Combination(combination::Kernel::new(false, &coefficients))
            }
            Operation::ModelStock { filter_wise } => {
                Kernel::ModelStock(model_stock::Kernel::new(*filter_wise, self.inputs, survey))
            }
            Operation::Nearswap { t } => Kernel::Nearswap(nearswap::Kernel::new(*t)),
            Operation::Sce { select_topk } => Kernel::Sce(sce::Kernel::new(*select_topk, self.inputs, survey)),
            Operation::Ram { epsilon, unique } => Kernel::Ram(ram::Kernel::new(*epsilon, *unique, self.inputs, survey)),
        })
    }
}

impl<A: Arithmetic> Kernel<A> {
    /// Buffers that [`Kernel::apply`] works in.
    pub fn n_scratch(&self) -> usize {
        match self {
            Self::TaskVector(kernel) => kernel.n_scratch(),
            Self::Sce(kernel) => kernel.n_scratch(),
            Self::Ram(_) => 3,
            Self::Multislerp(kernel) => kernel.n_scratch(),
            Self::Karcher(kernel) => kernel.n_scratch(),
            _ => 0,
        }
    }

    /// Computes one block of the result. `scratch` has [`Kernel::n_scratch`] buffers whose contents do not matter.
    #[inline(always)]
    pub fn apply(&self, block: Block<'_, A::Real>, scratch: &mut [Vec<A::Real>], out: &mut [A::Real]) {
        match self {
            Self::Copy(input) => out.copy_from_slice(block.input(*input)),
            Self::Scaled(scale) => {
                out.iter_mut().zip(block.input(0)).for_each(|(y, x)| *y = *x * *scale);
            }
            Self::Linear(kernel) => kernel.apply(block, out),
            Self::TaskVector(kernel) => kernel.apply(block, scratch, out),
            Self::Slerp(kernel) => kernel.apply(block, out),
            Self::Nuslerp(kernel) => kernel.apply(block, out),
            Self::ArceeFusion(kernel) => kernel.apply(block, out),
            Self::Combination(kernel) => kernel.apply(block, out),
            Self::Multislerp(kernel) => kernel.apply(block, scratch, out),
            Self::Karcher(kernel) => kernel.apply(block, scratch, out),
            Self::ModelStock(kernel) => kernel.apply(block, out),
            Self::Nearswap(kernel) => kernel.apply(block, out),
            Self::Sce(kernel) => kernel.apply(block, scratch, out),
            Self::Ram(kernel) => kernel.apply(block, scratch, out),
        }
    }
}
