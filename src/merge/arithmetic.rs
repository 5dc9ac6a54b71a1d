//! How kernels round.
//!
//! A kernel is written once, for any [`Arithmetic`]: with [`Once`] a result is rounded when it is written and no sooner;
//! with [`Steps`], [`Bf16Steps`] and [`F16Steps`] every step listed in a kernel is rounded to the working dtype, as
//! mergekit's operations on tensors are. Where the working dtype is what numbers are held in, such a step is the operation
//! itself, and what is left is mergekit's order of operations.

use std::marker::PhantomData;

use super::float16::{narrow, round_to_f16};
use super::real::{Real, round_to_bf16};
use crate::config::{Dtype, Numerics};

/// A way to round.
pub trait Arithmetic: Copy + Send + Sync + 'static {
    /// What numbers are held in.
    type Real: Real;

    /// Whether steps are rounded.
    const STEPS: bool;

    /// The result of one step.
    fn step(value: Self::Real) -> Self::Real;

    /// The magnitude of a number of the working format in 16 bits that are ordered as magnitudes are, where it has no more.
    #[inline(always)]
    fn short_key(_: Self::Real) -> Option<u16> {
        None
    }

    /// The result of one step that was computed in 64 bits: a norm, an angle, a factor.
    #[inline(always)]
    fn step_wide(value: f64) -> Self::Real {
        Self::step(Self::Real::of(value))
    }

    /// The result of a step whose number is used on: [`Arithmetic::step_wide`] as it is held.
    #[inline(always)]
    fn stepped(value: f64) -> f64 {
        Self::step_wide(value).wide()
    }

    /// A number as PyTorch holds it that is not part of a tensor of the working dtype: in 32 bits, or in 64.
    #[inline(always)]
    fn held(value: f64) -> f64 {
        Self::Real::of(value).wide()
    }
}

/// Rounding at the end only.
#[derive(Debug, Clone, Copy)]
pub struct Once<R>(PhantomData<R>);

/// Every step in the format that numbers are held in.
#[derive(Debug, Clone, Copy)]
pub struct Steps<R>(PhantomData<R>);

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

impl<R: Real> Arithmetic for Steps<R> {
    type Real = R;
    const STEPS: bool = true;

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

    #[inline(always)]
    fn short_key(value: f32) -> Option<u16> {
        Some((value.magnitude_key() >> 16) as u16)
    }
}

impl Arithmetic for F16Steps {
    type Real = f32;
    const STEPS: bool = true;

    #[inline(always)]
    fn step(value: f32) -> f32 {
        round_to_f16(value)
    }

    #[inline(always)]
    fn short_key(value: f32) -> Option<u16> {
        Some(narrow(value.abs()))
    }
}

/// Runs `work` with the arithmetic that the numerics ask for in a working dtype; where results are rounded once to 32 bits,
/// it may be done in 64 (`wide`).
pub fn with_arithmetic<W: Work>(numerics: Numerics, working: Dtype, wide: bool, work: W) -> W::Output {
    match (numerics, working) {
        (Numerics::F32, Dtype::F32) if wide => work.run::<Once<f64>>(),
        (Numerics::F32, Dtype::F64) => work.run::<Once<f64>>(),
        (Numerics::Mergekit, Dtype::F64) => work.run::<Steps<f64>>(),
        (Numerics::Mergekit, Dtype::F32) => work.run::<Steps<f32>>(),
        (Numerics::Mergekit, Dtype::Bf16) => work.run::<Bf16Steps>(),
        (Numerics::Mergekit, Dtype::F16) => work.run::<F16Steps>(),
        (Numerics::F32, Dtype::Bf16 | Dtype::F16 | Dtype::F32) => work.run::<Once<f32>>(),
    }
}

/// Something that can be done in any arithmetic.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does it.
    fn run<A: Arithmetic>(self) -> Self::Output;
}
