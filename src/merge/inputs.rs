//! The inputs of one output tensor, read block by block and walked piece by piece.
//!
//! A *piece* ([`PIECE`] elements) is the unit of parallel work, of writing and of the digest; a *block* ([`BLOCK`]
//! elements) is what lies in scratch buffers at a time. Partial results come back in piece order and are combined in that
//! order, so no result depends on the number of threads.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::real::Real;
use super::rows::Layout;
use crate::config::Dtype;

/// Elements of a piece.
pub const PIECE: usize = 1 << 18;

/// Elements of a block: half a dozen of them fit the first-level cache together.
pub const BLOCK: usize = 1 << 10;

/// One input tensor.
#[derive(Debug)]
pub struct Input<'a> {
    /// Its bytes: mapped from the file, or owned where an adapter was applied.
    pub bytes: Cow<'a, [u8]>,
    /// What the bytes are.
    pub stored: Dtype,
    /// Its rows for another vocabulary, where it is not read as it lies.
    pub rows: Option<Layout>,
}

/// Tells whether to stop: asked before every piece of a walk over the inputs, which is left out then. What comes of a
/// walk that was stopped is not to be used.
#[derive(Clone, Copy, Default)]
pub struct Stop<'a>(pub Option<&'a (dyn Fn() -> bool + Sync)>);

impl Stop<'_> {
    fn is_asked(self) -> bool {
        self.0.is_some_and(|stop| stop())
    }
}

impl std::fmt::Debug for Stop<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

/// The inputs of output tensors that are computed together, all of one shape.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Each tensor once.
    pub inputs: Vec<Input<'a>>,
    /// The shape they share.
    pub shape: Vec<usize>,
    /// What they are cast to on reading.
    pub working: Dtype,
    /// Whether statistics are still wanted.
    pub stop: Stop<'a>,
}

/// How a tensor divides into rows along its last axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Number of rows.
    pub count: usize,
    /// Elements of a row.
    pub len: usize,
}

impl Inputs<'_> {
    /// Elements of each input.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of pieces.
    pub fn n_pieces(&self) -> usize {
        self.len().div_ceil(PIECE)
    }

    /// Elements of a piece.
    pub fn piece(&self, index: usize) -> Range<usize> {
        index * PIECE..self.len().min((index + 1) * PIECE)
    }

    /// Vectors along the last axis; a vector or a single number is one row.
    pub fn rows(&self) -> Rows {
        let len = self.shape.last().copied().unwrap_or(1);
        Rows { count: self.len().checked_div(len).unwrap_or_default(), len }
    }

    /// Reads elements of one input, cast to the working dtype.
    pub fn read<R: Real>(&self, input: usize, range: Range<usize>, out: &mut Vec<R>) {
        let Input { bytes, stored, rows } = &self.inputs[input];
        if let Some(rows) = rows {
            return rows.read(self, range, out);
        }
        out.resize(range.len(), R::default());
        let bytes = &bytes[range.start * stored.size()..range.end * stored.size()];
        fetch(bytes);
        R::decode(bytes, *stored, out);
        if *stored != self.working {
            R::round_to(out, self.working);
        }
    }

    /// Walks a range block by block, reading the inputs of `which`: `step` gets the first element's index, a buffer for
    /// every input (filled for those of `which`), and `n_scratch` buffers whose contents are left over from earlier work.
    pub fn walk<R: Real>(
        &self,
        which: &[usize],
        n_scratch: usize,
        range: Range<usize>,
        mut step: impl FnMut(usize, &[Vec<R>], &mut [Vec<R>]),
    ) {
        if self.stop.is_asked() {
            return;
        }
        R::with_blocks(self.inputs.len() + n_scratch, |blocks| {
            let (blocks, scratch) = blocks.split_at_mut(self.inputs.len());
            for start in range.clone().step_by(BLOCK) {
                let end = range.end.min(start + BLOCK);
                for input in which {
                    self.read(*input, start..end, &mut blocks[*input]);
                }
                step(start, blocks, scratch);
            }
        });
    }

    /// Folds every piece in parallel; the results are in piece order.
    pub fn fold<R: Real, T: Send>(
        &self,
        which: &[usize],
        n_scratch: usize,
        init: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, usize, &[Vec<R>], &mut [Vec<R>]) + Sync,
    ) -> Vec<T> {
        let piece = |index| {
            let mut state = init();
            self.walk(which, n_scratch, self.piece(index), |start, blocks, scratch| {
                step(&mut state, start, blocks, scratch);
            });
            state
        };
        match self.n_pieces() {
            // Most tensors of a model by number are short vectors: no hand-over to other threads for them.
            1 => vec![piece(0)],
            n => (0..n).into_par_iter().map(piece).collect(),
        }
    }

    /// Folds groups of whole rows in parallel; `step` gets the row's number and a buffer for every input. The groups
    /// depend on the shape alone, and the results are in their order.
    pub fn fold_rows<R: Real, T: Send>(
        &self,
        which: &[usize],
        init: impl Fn() -> T + Sync,
        step: impl Fn(&mut T, usize, &[Vec<R>]) + Sync,
    ) -> Vec<T> {
        let rows = self.rows();
        let group = PIECE.div_ceil(rows.len.max(1));
        (0..rows.count.div_ceil(group))
            .into_par_iter()
            .map(|index| {
                let mut state = init();
                if self.stop.is_asked() {
                    return state;
                }
                R::with_blocks(self.inputs.len(), |blocks| {
                    for row in index * group..rows.count.min((index + 1) * group) {
                        for input in which {
                            self.read(*input, row * rows.len..(row + 1) * rows.len, &mut blocks[*input]);
                        }
                        step(&mut state, row, blocks);
                    }
                });
                state
            })
            .collect()
    }
}

/// Has bytes come from memory, all lines of the cache at once: a loop that also computes has few of them on their way at a
/// time, since a processor does not guess ahead beyond the end of a page. Halves the time of reading what is mapped.
fn fetch(bytes: &[u8]) {
    const LINE: usize = 64;
    std::hint::black_box(bytes.chunks(LINE).fold(0, |all, line| all ^ line[0]));
}

/// Sums `term` over a block in a fixed order that the compiler can vectorise: running sums side by side, then their sum in
/// pairs.
#[inline(always)]
pub fn block_sum<R: Real, T: Real>(block: &[R], term: impl Fn(R) -> T) -> T {
    pair_sum(block, block, |x, _| term(x))
}

/// The same over two blocks of one length.
#[inline(always)]
pub fn pair_sum<R: Real, T: Real>(left: &[R], right: &[R], term: impl Fn(R, R) -> T) -> T {
    let [sum] = pair_sums(left, right, |x, y| [term(x, y)]);
    sum
}

/// Several sums over the same two blocks.
#[inline(always)]
pub fn pair_sums<const N: usize, R: Real, T: Real>(left: &[R], right: &[R], terms: impl Fn(R, R) -> [T; N]) -> [T; N] {
    pair_folds(left, right, |mut sums, x, y| {
        let terms = terms(x, y);
        for sum in 0..N {
            sums[sum] = sums[sum] + terms[sum];
        }
        sums
    })
}

/// The squares of two blocks' norms, and their dot product. Products of 32-bit numbers are exact in 64 bits, so that fusing
/// them with the addition changes nothing but the time.
#[inline(always)]
pub fn products<R: Real>(left: &[R], right: &[R]) -> [f64; 3] {
    pair_folds(left, right, |[xx, yy, xy], x, y| {
        let (x, y) = (x.wide(), y.wide());
        [x.mul_add(x, xx), y.mul_add(y, yy), x.mul_add(y, xy)]
    })
}

/// The dot product of two blocks: see [`products`].
#[inline(always)]
pub fn dot_product<R: Real>(left: &[R], right: &[R]) -> f64 {
    let [sum] = pair_folds(left, right, |[sum], x, y| [x.wide().mul_add(y.wide(), sum)]);
    sum
}

/// The same with a step that takes sums on.
#[inline(always)]
fn pair_folds<const N: usize, R: Real, T: Real>(
    left: &[R],
    right: &[R],
    step: impl Fn([T; N], R, R) -> [T; N],
) -> [T; N] {
    /// Enough of them that an addition need not wait for the one before.
    const LANES: usize = 16;
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut lanes = [[T::of(0.0); LANES]; N];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            let sums = step(std::array::from_fn(|sum| lanes[sum][lane]), left[lane], right[lane]);
            for sum in 0..N {
                lanes[sum][lane] = sums[sum];
            }
        }
    }
    let mut sums = lanes.map(|mut lanes| {
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] = lanes[lane] + lanes[lane + width];
            }
        }
        lanes[0]
    });
    for (x, y) in left_rest.iter().zip(right_rest) {
        sums = step(sums, *x, *y);
    }
    sums
}
