//! The statistics of whole tensors that merge methods ask for: sums over all elements, magnitudes at ranks, ranks within
//! rows. Merges that are computed together ask together, so each is computed once, and everything of one kind in one
//! pass.

use super::arithmetic::Arithmetic;
use super::inputs::{Inputs, block_sum, dot_product, pair_sum, products};
use super::method::mask::Mask;
use super::real::Real;
use super::select::{Keys, Statistic};
use super::vector::{Loop, vectorised};
use num_traits::{One, Zero};

/// An input as it is, or its task vector: what it differs by from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vector {
    /// Number of the input.
    pub input: usize,
    /// Number of the base.
    pub minus: Option<usize>,
}

impl Vector {
    /// An input as it is.
    pub fn of(input: usize) -> Self {
        Self { input, minus: None }
    }

    /// What an input differs by from a base.
    pub fn task(input: usize, base: usize) -> Self {
        Self { input, minus: Some(base) }
    }

    /// The elements of a block: of a task vector in `filled`, where [`Vector::fill`] put them.
    #[inline(always)]
    pub fn of_block<'b, R>(&self, blocks: &'b [Vec<R>], filled: &'b [R]) -> &'b [R] {
        if self.minus.is_none() { &blocks[self.input] } else { filled }
    }

    /// Copies the elements of a block.
    #[inline(always)]
    pub fn fill<A: Arithmetic>(&self, blocks: &[Vec<A::Real>], out: &mut Vec<A::Real>) {
        let x = &blocks[self.input];
        out.resize(x.len(), A::Real::of(0.0));
        match self.minus {
            None => out.copy_from_slice(x),
            Some(base) => {
                for ((out, x), base) in out.iter_mut().zip(x).zip(&blocks[base]) {
                    *out = A::step(*x - *base);
                }
            }
        }
    }
}

/// A sum over all elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Sum<R> {
    /// Dot product.
    Product(Vector, Vector),
    /// Dot product of which every term is a step.
    Steps(Vector, Vector),
    /// L1 norm.
    Magnitude(Vector),
    /// L1 norm of what a mask keeps.
    Kept(Vector, Mask<R>),
}

impl<R: PartialEq> Sum<R> {
    /// The square of the L2 norm.
    pub fn square(vector: Vector) -> Self {
        Self::Product(vector, vector)
    }

    /// A dot product, in one order for both.
    pub fn product(left: Vector, right: Vector) -> Self {
        Self::Product(left.min(right), left.max(right))
    }

    fn vectors(&self) -> [Vector; 2] {
        match self {
            Self::Product(left, right) | Self::Steps(left, right) => [*left, *right],
            Self::Magnitude(vector) | Self::Kept(vector, _) => [*vector; 2],
        }
    }
}

/// A vector, a rank, and the magnitude at it.
type Ranked<K> = (Vector, u64, Statistic<K>);

/// What is known of the tensors of one group.
#[derive(Debug)]
pub struct Survey<'a, A: Arithmetic> {
    /// The tensors.
    pub inputs: &'a Inputs<'a>,
    sums: Vec<(Sum<A::Real>, f64)>,
    ranks: Vec<Ranked<<A::Real as Real>::Key>>,
}

impl<'a, A: Arithmetic> Survey<'a, A> {
    /// Nothing yet.
    pub fn new(inputs: &'a Inputs<'a>) -> Self {
        Self { inputs, sums: Vec::new(), ranks: Vec::new() }
    }

    /// A sum that was asked for.
    pub fn sum(&self, sum: &Sum<A::Real>) -> f64 {
        self.sums.iter().find(|(known, _)| known == sum).map_or(0.0, |(_, value)| *value)
    }

    /// A statistic of the magnitudes of a vector that was asked for.
    pub fn magnitude_at(&self, vector: Vector, rank: u64) -> Option<&Statistic<<A::Real as Real>::Key>> {
        self.ranks.iter().find(|(of, at, _)| (*of, *at) == (vector, rank)).map(|(_, _, statistic)| statistic)
    }

    /// Takes the sums that are not known yet, all in one pass.
    pub fn take_sums(&mut self, wanted: Vec<Sum<A::Real>>) {
        let mut new: Vec<Sum<A::Real>> = Vec::new();
        for sum in wanted {
            if !new.contains(&sum) && !self.sums.iter().any(|(known, _)| *known == sum) {
                new.push(sum);
            }
        }
        if new.is_empty() {
            return;
        }
        let vectors = distinct(new.iter().flat_map(Sum::vectors));
        let place = |vector: Vector| vectors.iter().position(|other| *other == vector).unwrap_or_default();
        let places: Vec<[usize; 2]> = new.iter().map(|sum| sum.vectors().map(place)).collect();
        let (triples, alone) = triples(&new);
        let pieces = self.inputs.fold(
            &inputs_of(&vectors),
            vectors.len() + 1,
            || vec![0.0; new.len()],
            |sums, start, blocks, scratch| {
                let Some((kept, values)) = scratch.split_last_mut() else { return };
                for (vector, value) in vectors.iter().zip(&mut *values).filter(|(vector, _)| vector.minus.is_some()) {
                    vectorised(|| vector.fill::<A>(blocks, value));
                }
                let pair = |index: usize| places[index].map(|place| vectors[place].of_block(blocks, &values[place]));
                for indices in &triples {
                    let [left, right] = pair(indices[2]);
                    let products = vectorised(Products { left, right });
                    indices.iter().zip(products).for_each(|(index, product)| sums[*index] += product);
                }
                for index in &alone {
                    let ([left, right], sum) = (pair(*index), &new[*index]);
                    sums[*index] += vectorised(BlockSum::<A> { sum, start, left, right, kept });
                }
            },
        );
        for (index, sum) in new.into_iter().enumerate() {
            self.sums.push((sum, pieces.iter().map(|piece| piece[index]).sum()));
        }
    }

    /// Finds the magnitudes at ascending ranks that are not known yet.
    pub fn take_ranks(&mut self, mut wanted: Vec<(Vector, u64)>) {
        wanted.retain(|(vector, rank)| self.magnitude_at(*vector, *rank).is_none());
        wanted.sort_unstable();
        wanted.dedup();
        let vectors = distinct(wanted.iter().map(|(vector, _)| *vector));
        let ranks: Vec<Vec<u64>> = vectors
            .iter()
            .map(|vector| wanted.iter().filter(|(of, _)| of == vector).map(|(_, rank)| *rank).collect())
            .collect();
        let which = inputs_of(&vectors);
        let found = magnitude_keys::<A>(self.inputs, &which, &vectors).at(&ranks);
        for ((vector, ranks), found) in vectors.iter().zip(ranks).zip(found) {
            self.ranks.extend(ranks.into_iter().zip(found).map(|(rank, statistic)| (*vector, rank, statistic)));
        }
    }

    /// Magnitudes of a vector with their positions: see [`Keys::with_positions`].
    pub fn magnitudes(&self, vector: Vector) -> Option<Vec<(<A::Real as Real>::Key, u32)>> {
        magnitude_keys::<A>(self.inputs, &inputs_of(&[vector]), &[vector]).with_positions(0)
    }

    /// Magnitudes of a vector in 16 bits, in order of position. None where the working format has more, or positions have more
    /// than 32.
    pub fn short_magnitudes(&self, vector: Vector) -> Option<Vec<u16>> {
        A::short_key(A::Real::zero())?;
        let short = |key| A::short_key(A::Real::from_magnitude_key(key)).unwrap_or_default();
        magnitude_keys::<A>(self.inputs, &inputs_of(&[vector]), &[vector]).in_16_bits(0, short)
    }

    /// One bit for every element of a vector, lowest first: whether its magnitude is one of those.
    pub fn bits(&self, vector: Vector, has: impl Fn(<A::Real as Real>::Key) -> bool + Sync) -> Vec<u64> {
        magnitude_keys::<A>(self.inputs, &inputs_of(&[vector]), &[vector]).bits(0, has)
    }

    /// Where the `ordinal`th of the elements with a statistic's magnitude is.
    pub fn position(&self, vector: Vector, of: &Statistic<<A::Real as Real>::Key>, ordinal: u64) -> usize {
        match ordinal {
            0 => 0,
            _ if ordinal >= of.n_equal() => self.inputs.len(),
            _ => magnitude_keys::<A>(self.inputs, &inputs_of(&[vector]), &[vector]).position(0, of, ordinal),
        }
    }
}

/// One block's part in two squares of norms and the dot product.
struct Products<'a, R> {
    left: &'a [R],
    right: &'a [R],
}

impl<R: Real> Loop for Products<'_, R> {
    type Output = [f64; 3];

    #[inline(always)]
    fn call(self) -> [f64; 3] {
        products(self.left, self.right)
    }
}

/// One block's part in a sum.
struct BlockSum<'a, A: Arithmetic> {
    sum: &'a Sum<A::Real>,
    start: usize,
    left: &'a [A::Real],
    right: &'a [A::Real],
    kept: &'a mut Vec<A::Real>,
}

impl<A: Arithmetic> Loop for BlockSum<'_, A> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let Self { sum, start, left, right, kept } = self;
        match sum {
            Sum::Product(..) => dot_product(left, right),
            Sum::Steps(..) => pair_sum(left, right, |left, right| A::step(left * right).wide()),
            Sum::Magnitude(_) => block_sum(left, |x| x.wide().abs()),
            Sum::Kept(_, mask) => {
                kept.resize(left.len(), A::Real::zero());
                mask.apply::<A>(start, left, kept, A::Real::one());
                block_sum(kept, |x| x.wide().abs())
            }
        }
    }
}

/// Which sums are best taken together, by number: two squares of norms and the dot product. And those that are taken alone.
fn triples<R: PartialEq>(sums: &[Sum<R>]) -> (Vec<[usize; 3]>, Vec<usize>) {
    let mut alone: Vec<usize> = (0..sums.len()).collect();
    let mut triples = Vec::new();
    for (index, sum) in sums.iter().enumerate() {
        let Sum::Product(left, right) = sum else { continue };
        let square = |vector: &Vector| alone.iter().copied().find(|other| sums[*other] == Sum::square(*vector));
        if left != right
            && let (Some(left), Some(right)) = (square(left), square(right))
        {
            let together = [left, right, index];
            alone.retain(|index| !together.contains(index));
            triples.push(together);
        }
    }
    (triples, alone)
}

#[allow(clippy::type_complexity)] // the type of a closure can be named in no other way
fn magnitude_keys<'a, A: Arithmetic>(
    inputs: &'a Inputs<'a>,
    which: &'a [usize],
    vectors: &'a [Vector],
) -> Keys<'a, A::Real, impl Fn(usize, &[Vec<A::Real>], usize, &mut Vec<<A::Real as Real>::Key>) + Sync> {
    Keys::new(inputs, which, |_, blocks: &[Vec<A::Real>], stream: usize, out: &mut Vec<_>| {
        vectorised(MagnitudeKeys::<A> { vector: vectors[stream], blocks, out });
    })
}

/// The keys of one block of a vector.
struct MagnitudeKeys<'a, A: Arithmetic> {
    vector: Vector,
    blocks: &'a [Vec<A::Real>],
    out: &'a mut Vec<<A::Real as Real>::Key>,
}

impl<A: Arithmetic> Loop for MagnitudeKeys<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { vector: Vector { input, minus }, blocks, out } = self;
        out.resize(blocks[input].len(), Default::default());
        match minus {
            None => out.iter_mut().zip(&blocks[input]).for_each(|(key, x)| *key = x.magnitude_key()),
            Some(base) => {
                for ((key, x), base) in out.iter_mut().zip(&blocks[input]).zip(&blocks[base]) {
                    *key = A::step(*x - *base).magnitude_key();
                }
            }
        }
    }
}

/// Each vector once, in order of first mention.
fn distinct(vectors: impl IntoIterator<Item = Vector>) -> Vec<Vector> {
    let mut distinct = Vec::new();
    for vector in vectors {
        if !distinct.contains(&vector) {
            distinct.push(vector);
        }
    }
    distinct
}

/// The inputs that vectors are made of.
fn inputs_of(vectors: &[Vector]) -> Vec<usize> {
    let mut inputs: Vec<usize> =
        vectors.iter().flat_map(|vector| [Some(vector.input), vector.minus]).flatten().collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}
