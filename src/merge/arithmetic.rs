//! How kernels round.
//!
//! A kernel is written once, for any [`Arithmetic`]: with [`Once`] a result is rounded when it is written and no sooner;
//! with [`Bf16Steps`] and [`F16Steps`] every step listed in a kernel is rounded to the working dtype, as mergekit's
//! operations on half-precision tensors are.

use std::marker::PhantomData;

use super::real::{Real, round_to_bf16, round_to_f16};
use crate::config::{Dtype, Numerics};

/// A way to round.
pub trait Arithmetic: Copy + Send + Sync + 'static {
    /// What numbers are held in.
    type Real: Real;

    /// Whether steps are rounded.
    const STEPS: bool;

    /// The result of one step.
    fn step(value: Self::Real) -> Self::Real;

    /// The result of one step that was computed in 64 bits: a norm, an angle, a factor.
    #[inline(always)]
    fn step_wide(value: f64) -> Self::Real {
        Self::step(Self::Real::of(value))
    }
}

/// Rounding at the end only.
#[derive(Debug, Clone, Copy)]
pub struct Once<R>(PhantomData<R>);

/// Rounding to bfloat16 after every step.
#[derive(Debug, Clone, Copy)]
pub struct Bf16Steps;

/// Rounding to float16 after every step.
#[derive(Debug, Clone, Copy)]
pub struct F16Steps;

impl<R: Real> Arithmetic for Once<R> {
    type Real = R;
    const STEPS: bool = false;

    #[inline(always)]
    fn step(value: R) -> R {
        value
    }
}

impl Arithmetic for Bf16Steps {
    type Real = f32;
    const STEPS: bool = true;

    #[inline(always)]
    fn step(value: f32) -> f32 {
        round_to_bf16(value)
    }
}

impl Arithmetic for F16Steps {
    type Real = f32;
    const STEPS: bool = true;

    #[inline(always)]
    fn step(value: f32) -> f32 {
        round_to_f16(value)
    }
}

/// Runs `work` with the arithmetic that the numerics ask for in a working dtype.
pub fn with_arithmetic<W: Work>(numerics: Numerics, working: Dtype, work: W) -> W::Output {
    match (numerics, working) {
        (_, Dtype::F64) => work.run::<Once<f64>>(),
        (Numerics::Mergekit, Dtype::Bf16) => work.run::<Bf16Steps>(),
        (Numerics::Mergekit, Dtype::F16) => work.run::<F16Steps>(),
        (Numerics::F32, Dtype::Bf16 | Dtype::F16) | (_, Dtype::F32) => work.run::<Once<f32>>(),
    }
}

/// Something that can be done in any arithmetic.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<A: Arithmetic>(self) -> Self::Output;
}
