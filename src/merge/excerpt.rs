//! What operations would make of some rows of their tensors: the engine's own kernels on a part of the numbers, in memory.
//! Norms, angles and thresholds are then those of the part, so that the result stands for the whole where the rows are
//! a fair sample of it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::arithmetic::{Arithmetic, Work, with_arithmetic};
use super::engine::Apply;
use super::inputs::{BLOCK, Input, Inputs, Stop};
use super::method::{Block, MethodError, Operation, Task, prepare};
use super::real::Real;
use super::vector::vectorised;
use crate::config::{Dtype, Numerics};

/// Rows of one tensor.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Their bytes, one after the other.
    pub bytes: Vec<u8>,
    /// What the bytes are.
    pub stored: Dtype,
}

/// One result that is asked for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// What is done.
    pub operation: &'a Operation,
    /// With which of the rows, by number: a base first.
    pub inputs: Vec<usize>,
    /// What they are cast to.
    pub working: Dtype,
    /// What the result is rounded to, and then what is written.
    pub rounded: [Dtype; 2],
    /// How steps are rounded.
    pub numerics: Numerics,
}

/// A result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// As it is written.
    pub rounded: Vec<f32>,
    /// Before it is rounded at the end.
    pub unrounded: Vec<f32>,
}

impl Rows {
    /// Their numbers.
    pub fn numbers(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.bytes.len() / self.stored.size()];
        f32::decode(&self.bytes, self.stored, &mut numbers);
        numbers
    }
}

/// Computes results from rows of one shape, of which every `every`-th number is given; none for an operation that has no
/// result.
pub fn compute(rows: &[Rows], shape: &[usize], wanted: &[Wanted<'_>], every: usize) -> Vec<Option<Made>> {
    let mut computed = vec![None; wanted.len()];
    let key = |one: &Wanted<'_>| (one.working, one.numerics, one.operation.is_wide());
    let mut left: Vec<usize> = (0..wanted.len()).collect();
    while let Some(first) = left.first().copied() {
        let (alike, others): (Vec<usize>, Vec<usize>) =
            left.into_iter().partition(|one| key(&wanted[*one]) == key(&wanted[first]));
        left = others;
        for (one, result) in alike.iter().zip(together(rows, shape, wanted, &alike, every)) {
            computed[*one] = result;
        }
    }
    computed
}

/// Results of one arithmetic.
fn together(rows: &[Rows], shape: &[usize], wanted: &[Wanted<'_>], which: &[usize], every: usize) -> Vec<Option<Made>> {
    let Wanted { working, numerics, operation, .. } = &wanted[which[0]];
    let inputs = Inputs {
        inputs: rows
            .iter()
            .map(|rows| Input { bytes: Cow::Borrowed(rows.bytes.as_slice()), stored: rows.stored, rows: None })
            .collect(),
        shape: shape.to_vec(),
        working: *working,
        stop: Stop::default(),
    };
    let work = Computation { inputs: &inputs, wanted: which.iter().map(|one| &wanted[*one]).collect(), every };
    match with_arithmetic(*numerics, *working, operation.is_wide(), work) {
        Ok(results) => results.into_iter().map(Some).collect(),
        // One operation without a result must not take the others along.
        Err(_) if which.len() > 1 => {
            which.iter().flat_map(|one| together(rows, shape, wanted, &[*one], every)).collect()
        }
        Err(_) => vec![None],
    }
}

struct Computation<'a> {
    inputs: &'a Inputs<'a>,
    wanted: Vec<&'a Wanted<'a>>,
    every: usize,
}

impl Work for Computation<'_> {
    type Output = Result<Vec<Made>, MethodError>;

    fn run<A: Arithmetic>(self) -> Self::Output {
        let Self { inputs, wanted, every } = self;
        let tasks: Vec<Task<'_>> =
            wanted.iter().map(|one| Task { operation: one.operation, inputs: &one.inputs }).collect();
        let kernels = prepare::<A>(&tasks, inputs)?;
        let n_inputs = inputs.inputs.len();
        let n_scratch = kernels.iter().map(super::method::Kernel::n_scratch).max().unwrap_or_default();
        let mut results = vec![Made::default(); wanted.len()];
        A::Real::with_blocks(n_inputs + n_scratch + 1, |blocks| {
            let (blocks, scratch) = blocks.split_at_mut(n_inputs);
            let Some((out, scratch)) = scratch.split_last_mut() else { return };
            for start in (0..inputs.len()).step_by(BLOCK) {
                let end = inputs.len().min(start + BLOCK);
                for (input, block) in blocks.iter_mut().enumerate() {
                    inputs.read(input, start..end, block);
                }
                out.resize(end - start, A::Real::default());
                for ((one, kernel), result) in wanted.iter().zip(&kernels).zip(&mut results) {
                    let block = Block { start, blocks, inputs: &one.inputs };
                    vectorised(Apply { kernel, block, scratch, out });
                    let kept = || (start..end).filter(|place| place % every == 0).map(|place| place - start);
                    result.unrounded.extend(kept().map(|place| out[place].wide() as f32));
                    one.rounded.iter().for_each(|dtype| A::Real::round_to(out, *dtype));
                    result.rounded.extend(kept().map(|place| out[place].wide() as f32));
                }
            }
        });
        Ok(results)
    }
}
