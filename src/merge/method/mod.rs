//! Merge methods: tensors and numbers only, no paths and no files.
//!
//! An [`Operation`] is a method with its parameters resolved for one tensor. [`Kernel::prepare`] takes the statistics of
//! the whole tensor that it needs (norms, thresholds, divergences), [`Kernel::apply`] then computes any block of the
//! result. Kernels compute in `f32` (`f64` where the working dtype is float64) and leave rounding to the caller, once.

pub mod arcee_fusion;
pub mod linear;
pub mod mask;
pub mod nuslerp;
pub mod slerp;
pub mod sparsify;
pub mod stream;
pub mod task_vector;

pub use nuslerp::Axis;
pub use sparsify::Sparsity;
pub use task_vector::{TaskModel, TaskVector};

use super::inputs::Inputs;
use super::real::Real;

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

/// How `ramplus_tl` scales what one model alone changed: by `1 + r * clip(shared / unique, 0, alpha)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UniqueScale {
    /// Strength.
    pub r: f64,
    /// Largest ratio that counts.
    pub alpha: f64,
}

/// An operation with the statistics of its inputs.
#[derive(Debug)]
pub enum Kernel<R> {
    /// See [`Operation::Passthrough`].
    Passthrough(Option<R>),
    /// See [`linear`].
    Linear(linear::Kernel<R>),
    /// See [`task_vector`].
    TaskVector(task_vector::Kernel<R>),
    /// See [`slerp`].
    Slerp(slerp::Kernel<R>),
    /// See [`nuslerp`].
    Nuslerp(nuslerp::Kernel<R>),
    /// See [`arcee_fusion`].
    ArceeFusion(arcee_fusion::Kernel<R>),
}

impl<R: Real> Kernel<R> {
    /// Reads the inputs as often as the operation's statistics need.
    pub fn prepare(operation: &Operation, inputs: &Inputs<'_>) -> Self {
        match operation {
            Operation::Passthrough { scale } => Self::Passthrough(scale.map(R::of)),
            Operation::Linear { weights, normalize } => Self::Linear(linear::Kernel::new(weights, *normalize)),
            Operation::TaskVector(task_vector) => Self::TaskVector(task_vector.prepare(inputs)),
            Operation::Slerp { t } => Self::Slerp(slerp::Kernel::new(*t, inputs)),
            Operation::Nuslerp { weights, has_base, axis } => {
                Self::Nuslerp(nuslerp::Kernel::new(*weights, *has_base, *axis, inputs))
            }
            Operation::ArceeFusion => Self::ArceeFusion(arcee_fusion::Kernel::new(inputs)),
            _ => unimplemented!("being written"),
        }
    }

    /// Computes one block of the result from the same block of every input (which may be overwritten).
    pub fn apply(&self, start: usize, blocks: &mut [Vec<R>], out: &mut [R]) {
        match self {
            Self::Passthrough(None) => out.copy_from_slice(&blocks[0]),
            Self::Passthrough(Some(scale)) => out.iter_mut().zip(&blocks[0]).for_each(|(y, x)| *y = *x * *scale),
            Self::Linear(kernel) => kernel.apply(blocks, out),
            Self::TaskVector(kernel) => kernel.apply(start, blocks, out),
            Self::Slerp(kernel) => kernel.apply(blocks, out),
            Self::Nuslerp(kernel) => kernel.apply(start, blocks, out),
            Self::ArceeFusion(kernel) => kernel.apply(start, blocks, out),
        }
    }
}
