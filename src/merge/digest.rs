//! Digests of weights (BLAKE3): of a tensor over the digests of its pieces, so that pieces are hashed where they are
//! computed, and of a whole model over names, dtypes, shapes and tensor digests, so that sharding and headers do not
//! matter.

use std::path::Path;

use blake3::{Hash, Hasher};
use rayon::prelude::*;
use safetensors::Dtype as StoredDtype;

use super::checkpoint::{Checkpoint, CheckpointError, Tensor};
use super::inputs::PIECE;

/// Digest of one tensor from the digests of its pieces, in order.
pub fn of_pieces(pieces: impl IntoIterator<Item = Hash>) -> Hash {
    let mut hasher = Hasher::new();
    for piece in pieces {
        hasher.update(piece.as_bytes());
    }
    hasher.finalize()
}

/// A tensor as the digest of a model sees it.
#[derive(Debug, Clone)]
pub struct Digested<'a> {
    /// Name.
    pub name: &'a str,
    /// Number format.
    pub stored: StoredDtype,
    /// Shape.
    pub shape: &'a [usize],
    /// Digest of its bytes.
    pub digest: Hash,
}

/// Digest of a model from those of its tensors, as hexadecimal digits.
pub fn of_tensors(tensors: &mut [Digested<'_>]) -> String {
    tensors.sort_by(|a, b| a.name.cmp(b.name));
    let mut hasher = Hasher::new();
    let mut update = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for tensor in tensors {
        update(tensor.name.as_bytes());
        update(format!("{:?}{:?}", tensor.stored, tensor.shape).as_bytes());
        update(tensor.digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Digest of the weights in a folder: equal to the `weights_digest` of the merge that wrote them as long as not a bit of
/// them has changed.
///
/// # Errors
/// [`CheckpointError`] when the folder's weights are not sound.
pub fn of_folder(folder: &Path) -> Result<String, CheckpointError> {
    let checkpoint = Checkpoint::open_weights_of(folder)?;
    let of_tensor = |tensor: &Tensor| {
        let piece = (PIECE * tensor.stored.bitsize() / 8).max(1);
        let pieces: Vec<Hash> = checkpoint.bytes(tensor).par_chunks(piece).map(blake3::hash).collect();
        of_pieces(pieces)
    };
    let mut tensors: Vec<Digested<'_>> = checkpoint
        .tensors()
        .iter()
        .map(|(name, tensor)| Digested { name, stored: tensor.stored, shape: &tensor.shape, digest: of_tensor(tensor) })
        .collect();
    Ok(of_tensors(&mut tensors))
}
