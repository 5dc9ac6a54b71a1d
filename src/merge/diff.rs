//! Two checkpoints compared tensor by tensor, from the mapped files, without a copy of any tensor.
//!
//! Tensors are walked in stretches of fixed size over all cores; sums are taken per stretch and added in order, so the
//! numbers do not depend on threads. Equal means equal bytes: of two tensors of one format an element counts as different
//! when its bits differ, be it the sign of a zero.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::Progress;
use super::checkpoint::{Checkpoint, CheckpointError, Tensor};
use super::inputs::PIECE;
use super::real::Real;
use crate::config::Dtype;

/// Numbers decoded at a time.
const BLOCK: usize = 1 << 12;

/// Two checkpoints that could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// One that is not sound.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Stopped by the caller.
    #[error("cancelled")]
    Cancelled,
}

/// What differs between two checkpoints, A and B.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// Tensors that both have, of one format and shape, with the same bytes.
    pub n_equal: usize,
    /// Tensors that only A has.
    pub only_in_a: Vec<String>,
    /// Tensors that only B has.
    pub only_in_b: Vec<String>,
    /// Tensors that both have and whose shapes differ, or whose formats do and are not both floating-point.
    pub incomparable: Vec<Incomparable>,
    /// Tensors that both have and whose numbers or formats differ: the largest relative difference first.
    pub different: Vec<TensorDiff>,
}

impl Diff {
    /// Whether A and B have the same tensors with the same bytes.
    pub fn is_empty(&self) -> bool {
        self.only_in_a.is_empty()
            && self.only_in_b.is_empty()
            && self.incomparable.is_empty()
            && self.different.is_empty()
    }
}

/// A tensor that is not the same kind of thing in A and B.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incomparable {
    /// Its name.
    pub tensor: String,
    /// Format and shape in A.
    pub a: String,
    /// Format and shape in B.
    pub b: String,
}

/// A tensor whose numbers or formats differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDiff {
    /// Its name.
    pub tensor: String,
    /// Formats in A and B.
    pub dtypes: [String; 2],
    /// Elements.
    pub n_elements: usize,
    /// Elements that differ: in their bits, or in their values where the formats differ.
    pub n_different: u64,
    /// Largest difference of two elements; `None` where it is not finite, or the format is no floating-point one.
    pub max_abs: Option<f64>,
    /// Most numbers of the format from one element to the other; `None` where the formats differ, and as for `max_abs`.
    pub max_ulps: Option<u64>,
    /// |A - B| / |A|, in L2 norms; `None` as for `max_abs`.
    pub relative_l2: Option<f64>,
}

/// What is known of a stretch.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    n_different: u64,
    max_abs: f64,
    max_ulps: u64,
    of_difference: f64,
    of_a: f64,
}

/// Opens what a path names: a model's folder or a single safetensors file.
///
/// # Errors
/// [`CheckpointError`].
pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    if path.is_file() { Checkpoint::open_file(path) } else { Checkpoint::open_weights_of(path) }
}

/// Compares two checkpoints.
///
/// # Errors
/// [`DiffError::Cancelled`] when `progress` says so.
pub fn diff(a: &Checkpoint, b: &Checkpoint, progress: &Progress<'_>) -> Result<Diff, DiffError> {
    let names = |checkpoint: &Checkpoint| checkpoint.tensors().keys().cloned().collect::<BTreeSet<String>>();
    let (in_a, in_b) = (names(a), names(b));
    let mut diff = Diff {
        n_equal: 0,
        only_in_a: in_a.difference(&in_b).cloned().collect(),
        only_in_b: in_b.difference(&in_a).cloned().collect(),
        incomparable: Vec::new(),
        different: Vec::new(),
    };
    let both: Vec<Pair<'_>> = in_a.intersection(&in_b).filter_map(|name| Pair::of(name, a, b)).collect();
    let total = both.iter().filter(|pair| pair.is_comparable()).map(|pair| pair.a.len() as u64).sum();
    let done = AtomicU64::new(0);
    let advance = |bytes: usize| {
        let done = done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if progress(done, total) { Ok(()) } else { Err(DiffError::Cancelled) }
    };
    for pair in both {
        if !pair.is_comparable() {
            diff.incomparable.push(pair.incomparable());
            continue;
        }
        match pair.compare(&advance)? {
            Some(tensor) => diff.different.push(tensor),
            None => diff.n_equal += 1,
        }
    }
    let size = |tensor: &TensorDiff| tensor.relative_l2.unwrap_or(f64::INFINITY);
    diff.different.sort_by(|a, b| size(b).total_cmp(&size(a)).then_with(|| a.tensor.cmp(&b.tensor)));
    Ok(diff)
}

/// A tensor that both have.
struct Pair<'a> {
    name: &'a str,
    tensors: [&'a Tensor; 2],
    a: &'a [u8],
    b: &'a [u8],
}

impl<'a> Pair<'a> {
    fn of(name: &'a str, a: &'a Checkpoint, b: &'a Checkpoint) -> Option<Self> {
        let tensors = [a.tensor(name)?, b.tensor(name)?];
        Some(Self { name, tensors, a: a.bytes(tensors[0]), b: b.bytes(tensors[1]) })
    }

    fn is_comparable(&self) -> bool {
        let [a, b] = self.tensors;
        a.shape == b.shape && (a.stored == b.stored || (a.dtype().is_some() && b.dtype().is_some()))
    }

    fn incomparable(&self) -> Incomparable {
        let of = |tensor: &Tensor| format!("{} {:?}", format_of(tensor), tensor.shape);
        Incomparable { tensor: self.name.to_owned(), a: of(self.tensors[0]), b: of(self.tensors[1]) }
    }

    /// `None` where nothing differs.
    fn compare(
        &self,
        advance: &(dyn Fn(usize) -> Result<(), DiffError> + Sync),
    ) -> Result<Option<TensorDiff>, DiffError> {
        let [a, b] = self.tensors;
        let n_elements: usize = a.shape.iter().product();
        let floats = a.dtype().zip(b.dtype());
        let same_format = a.stored == b.stored;
        let compare = |index: usize| {
            let stretch = index * PIECE..n_elements.min((index + 1) * PIECE);
            let bytes = |of: &'a [u8]| {
                // Formats of less than a byte an element end where the bytes end.
                let bits = of.len() * 8 / n_elements;
                &of[stretch.start * bits / 8..(stretch.end * bits).div_ceil(8)]
            };
            let (a, b) = (bytes(self.a), bytes(self.b));
            let sums = match floats {
                Some((left, right)) => float_sums(a, left, b, right),
                None => byte_sums(a, b, (self.a.len() / n_elements).max(1)),
            };
            advance(a.len()).map(|()| sums)
        };
        let stretches: Vec<Sums> =
            (0..n_elements.div_ceil(PIECE)).into_par_iter().map(compare).collect::<Result<_, _>>()?;
        let sums = stretches.into_iter().fold(Sums::default(), Sums::and);
        if sums.n_different == 0 && same_format {
            return Ok(None);
        }
        let finite = |value: f64| (floats.is_some() && value.is_finite()).then_some(value);
        let max_abs = finite(sums.max_abs);
        let relative = if sums.of_difference == 0.0 { 0.0 } else { (sums.of_difference / sums.of_a).sqrt() };
        Ok(Some(TensorDiff {
            tensor: self.name.to_owned(),
            dtypes: [format_of(a), format_of(b)],
            n_elements,
            n_different: sums.n_different,
            max_abs,
            max_ulps: max_abs.filter(|_| same_format).map(|_| sums.max_ulps),
            relative_l2: finite(relative),
        }))
    }
}

/// Name of a format: torch's where a merge can compute with it, else the file's.
fn format_of(tensor: &Tensor) -> String {
    tensor.dtype().map_or_else(|| format!("{:?}", tensor.stored), |dtype| dtype.name().to_owned())
}

impl Sums {
    fn and(self, next: Self) -> Self {
        Self {
            n_different: self.n_different + next.n_different,
            max_abs: self.max_abs.max(next.max_abs),
            max_ulps: self.max_ulps.max(next.max_ulps),
            of_difference: self.of_difference + next.of_difference,
            of_a: self.of_a + next.of_a,
        }
    }
}

fn float_sums(a: &[u8], left: Dtype, b: &[u8], right: Dtype) -> Sums {
    let same_bytes = left == right && a == b;
    let mut sums = Sums::default();
    let (mut x, mut y) = ([0f64; BLOCK], [0f64; BLOCK]);
    for (a, b) in a.chunks(BLOCK * left.size()).zip(b.chunks(BLOCK * right.size())) {
        let n = a.len() / left.size();
        let (x, y) = (&mut x[..n], &mut y[..n]);
        f64::decode(a, left, x);
        sums.of_a += x.iter().map(|x| x * x).sum::<f64>();
        if same_bytes {
            continue;
        }
        f64::decode(b, right, y);
        let pairs = a.chunks_exact(left.size()).zip(b.chunks_exact(right.size()));
        for ((x, y), (a, b)) in x.iter().zip(&*y).zip(pairs) {
            let same = if left == right { a == b } else { x == y || (x.is_nan() && y.is_nan()) };
            if same {
                continue;
            }
            sums.n_different += 1;
            let difference = if x == y { 0.0 } else { (x - y).abs() };
            // What is no number on one side alone is as far away as can be.
            sums.max_abs = sums.max_abs.max(if difference.is_nan() { f64::INFINITY } else { difference });
            sums.of_difference += difference * difference;
            if left == right {
                sums.max_ulps = sums.max_ulps.max(place(a).abs_diff(place(b)));
            }
        }
    }
    sums
}

/// Place of a number among all numbers of its format, from its little-endian bytes: zeros of both signs are at 0.
fn place(bytes: &[u8]) -> i64 {
    let bits = bytes.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let sign = 1u64 << (bytes.len() * 8 - 1);
    let magnitude = (bits & (sign - 1)) as i64;
    if bits & sign == 0 { magnitude } else { -magnitude }
}

fn byte_sums(a: &[u8], b: &[u8], size: usize) -> Sums {
    let n_different = if a == b { 0 } else { a.chunks(size).zip(b.chunks(size)).filter(|(a, b)| a != b).count() };
    Sums { n_different: n_different as u64, ..Sums::default() }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn places_count_the_numbers_between() {
        assert_eq!(place(&1f32.to_le_bytes()) + 1, place(&1.000_000_1f32.to_le_bytes()));
        assert_eq!(place(&(-0.0f64).to_le_bytes()), place(&0f64.to_le_bytes()));
        assert_eq!(place(&f16::from_bits(0x8001).to_le_bytes()), -1);
        assert_eq!(place(&bf16::from_f32(-1.0).to_le_bytes()), -place(&bf16::from_f32(1.0).to_le_bytes()));
        assert_eq!(place(&f64::MAX.to_le_bytes()).abs_diff(place(&f64::MIN.to_le_bytes())), 2 * (0x7ff0 << 48) - 2);
    }
}
