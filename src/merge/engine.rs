//! Running recipes: every output tensor in order, its pieces over all cores, each piece computed in scratch buffers,
//! hashed and written where it belongs. No tensor is ever held as a whole.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hash;
use rayon::prelude::*;

use super::inputs::{BLOCK, Input, Inputs};
use super::method::Kernel;
use super::real::Real;
use super::recipe::Recipe;
use super::source::Source;
use super::writer::Writer;
use super::{MergeError, Progress, digest};
use crate::config::Dtype;

thread_local! {
    static PIECE_BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a run shares between threads.
struct Run<'a> {
    writer: &'a Writer,
    progress: &'a Progress<'a>,
    done: AtomicU64,
    total: u64,
}

/// Computes and writes every recipe; the digests of the tensors are in the order of the recipes.
///
/// # Errors
/// [`MergeError::Cancelled`] when `progress` says so, and what writing or an adapter may raise.
pub fn run(
    recipes: &[Recipe],
    sources: &[Source],
    writer: &Writer,
    progress: &Progress<'_>,
) -> Result<Vec<Hash>, MergeError> {
    let total = recipes.iter().map(Recipe::n_bytes).sum();
    let run = Run { writer, progress, done: AtomicU64::new(0), total };
    run.advance(0)?;
    let tensor = |(index, recipe): (usize, &Recipe)| {
        let inputs = inputs(recipe, sources)?;
        let pieces = match recipe.working {
            Dtype::F64 => run.tensor::<f64>(index, recipe, &inputs),
            Dtype::Bf16 | Dtype::F16 | Dtype::F32 => run.tensor::<f32>(index, recipe, &inputs),
        }?;
        Ok(digest::of_pieces(&pieces))
    };
    recipes.iter().enumerate().map(tensor).collect()
}

fn inputs<'a>(recipe: &Recipe, sources: &'a [Source]) -> Result<Inputs<'a>, MergeError> {
    let mut inputs = Vec::with_capacity(recipe.inputs.len());
    for input in &recipe.inputs {
        let source = &sources[input.source];
        // Recipes are made from these very headers.
        let Some(tensor) = source.checkpoint.tensor(&input.tensor) else { continue };
        let stored = source.dtype(tensor).unwrap_or(recipe.working);
        inputs.push(Input { bytes: source.bytes(&input.tensor, tensor)?, stored });
    }
    Ok(Inputs { inputs, shape: recipe.shape.clone(), working: recipe.working })
}

impl Run<'_> {
    fn tensor<R: Real>(&self, index: usize, recipe: &Recipe, inputs: &Inputs<'_>) -> Result<Vec<Hash>, MergeError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let kernel = Kernel::<R>::prepare(&recipe.operation, inputs);
        let piece = |piece: usize| self.piece(index, recipe, inputs, &kernel, piece);
        match inputs.n_pieces() {
            1 => piece(0).map(|hash| vec![hash]),
            n => (0..n).into_par_iter().map(piece).collect(),
        }
    }

    fn piece<R: Real>(
        &self,
        index: usize,
        recipe: &Recipe,
        inputs: &Inputs<'_>,
        kernel: &Kernel<R>,
        piece: usize,
    ) -> Result<Hash, MergeError> {
        let range = inputs.piece(piece);
        let size = recipe.out.size();
        PIECE_BYTES.with_borrow_mut(|bytes| {
            bytes.resize(range.len() * size, 0);
            R::with_blocks(inputs.inputs.len() + 1, |blocks| {
                let Some((out, blocks)) = blocks.split_last_mut() else { return };
                for (start, bytes) in range.clone().step_by(BLOCK).zip(bytes.chunks_mut(BLOCK * size)) {
                    let end = range.end.min(start + BLOCK);
                    for (input, block) in blocks.iter_mut().enumerate() {
                        inputs.read(input, start..end, block);
                    }
                    out.resize(end - start, R::default());
                    kernel.apply(start, blocks, out);
                    if recipe.out != recipe.working {
                        R::round_to(out, recipe.working);
                    }
                    R::encode(out, recipe.out, bytes);
                }
            });
            self.writer.write(index, (range.start * size) as u64, bytes)?;
            let hash = blake3::hash(bytes);
            self.advance(bytes.len() as u64)?;
            Ok(hash)
        })
    }

    fn advance(&self, bytes: u64) -> Result<(), MergeError> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if (self.progress)(done, self.total) { Ok(()) } else { Err(MergeError::Cancelled) }
    }
}
