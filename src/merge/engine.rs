//! Running recipes of one merge or of several: output tensors that are made of the same inputs are computed together, so
//! that every input is read once and every statistic taken once. The pieces of a group of tensors go over all cores; each
//! is computed in scratch buffers, hashed, and handed over to be written where it belongs. No tensor is ever held as a whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blake3::Hash;
use rayon::prelude::*;

use super::arithmetic::{Arithmetic, Work, with_arithmetic};
use super::inputs::{BLOCK, Input, Inputs, Stop, pair_sum};
use super::method::{Block, Kernel, Task, prepare};
use super::outbox::{Outbox, Parcel, with_outbox};
use super::real::Real;
use super::recipe::{Recipe, RecipeInput};
use super::sample::{Places, Seen};
use super::source::Source;
use super::vector::{Loop, vectorised};
use super::writer::{PageBuffer, Writer};
use super::{MergeError, Progress, digest, rows};
use crate::config::{Dtype, Numerics};

/// Bytes of inputs that the operating system is asked to read ahead.
const READ_AHEAD: usize = 256 << 20;

/// One merge of a run.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What is computed.
    pub recipes: &'a [Recipe],
    /// From which models.
    pub sources: &'a [Source],
    /// Where it goes.
    pub writer: &'a Writer,
    /// How intermediate results are rounded.
    pub numerics: Numerics,
}

/// What became of an output tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    /// Digest of its bytes.
    pub digest: Hash,
    /// Infinities and NaN, all of them where an input had one.
    pub n_non_finite: u64,
    /// Square of the L2 norm of what it differs by from the base, where there is one.
    pub squared_change: Option<f64>,
    /// The first of its inputs that has infinities or NaN. A method may hide them.
    pub unsound_input: Option<usize>,
    /// Some of its numbers.
    pub seen: Vec<Seen>,
}

/// Output tensors of the same inputs, and with them of the same shape and number formats.
struct Group<'a> {
    tensors: Vec<(&'a Source, &'a RecipeInput)>,
    members: Vec<Member<'a>>,
}

/// One output tensor of a group.
struct Member<'a> {
    job: usize,
    index: usize,
    recipe: &'a Recipe,
    /// Numbers of its inputs in the group.
    inputs: Vec<usize>,
}

/// What one piece adds to what is known of an output tensor.
#[derive(Debug, Clone)]
struct Piece {
    hash: Hash,
    n_non_finite: u64,
    /// Of those, the ones whose inputs were all finite.
    n_made: u64,
    squared_change: f64,
    /// The numbers of the sample in it.
    seen: Vec<Seen>,
}

/// What a run shares between threads.
struct Run<'a, 'b> {
    jobs: &'a [Job<'a>],
    /// Where numbers are taken for a sample, by job.
    places: Vec<Places>,
    outbox: &'b Outbox<'a, 'b>,
    progress: &'a Progress<'a>,
    done: AtomicU64,
    total: u64,
    /// Whether `progress` has said no.
    stopped: AtomicBool,
}

/// Computes and writes every recipe of every job; the results are in the order of the jobs and their recipes.
///
/// # Errors
/// [`MergeError::Cancelled`] when `progress` says so, [`MergeError::NonFinite`] for a tensor that came out with
/// infinities or NaN of its own, and what a method, writing or an adapter may raise.
pub fn run(jobs: &[Job<'_>], progress: &Progress<'_>) -> Result<Vec<Vec<Computed>>, MergeError> {
    with_outbox(|outbox| {
        let total = jobs.iter().flat_map(|job| job.recipes).map(Recipe::n_bytes).sum();
        let places = jobs.iter().map(|job| Places::of(job.recipes)).collect();
        let run =
            Run { jobs, places, outbox, progress, done: AtomicU64::new(0), total, stopped: AtomicBool::new(false) };
        run.advance(0)?;
        run.all()
    })
}

/// What decides how numbers are held and rounded.
fn registers(recipe: &Recipe, numerics: Numerics) -> (Dtype, Numerics, bool) {
    let wide = recipe.working == Dtype::F32 && numerics == Numerics::F32 && recipe.operation.is_wide();
    (recipe.working, numerics, wide)
}

/// The output tensors of all jobs, put together where they share an input, shape, working dtype and numerics, in the
/// order of the first of each.
fn groups<'a>(jobs: &'a [Job<'_>]) -> Vec<Group<'a>> {
    let recipes: Vec<(usize, usize)> =
        jobs.iter().enumerate().flat_map(|(job, of)| (0..of.recipes.len()).map(move |index| (job, index))).collect();
    // A recipe's group is that of the smallest recipe it is connected to.
    let mut parents: Vec<usize> = (0..recipes.len()).collect();
    fn root(parents: &mut [usize], mut node: usize) -> usize {
        while parents[node] != node {
            parents[node] = parents[parents[node]];
            node = parents[node];
        }
        node
    }
    let mut users = HashMap::new();
    let mut laid_out: Vec<usize> = Vec::new();
    for (node, (job, index)) in recipes.iter().enumerate() {
        let Job { recipes: of_job, sources, numerics, .. } = jobs[*job];
        let recipe = &of_job[*index];
        if recipe.is_laid_out() {
            // Rows are told by the number of the input: only what has the very same inputs goes with it.
            let same = |other: &&usize| {
                let (other_job, other_index) = recipes[**other];
                let other_job = jobs[other_job];
                let other = &other_job.recipes[other_index];
                let key = |recipe: &Recipe, numerics| (recipe.shape.clone(), registers(recipe, numerics));
                key(recipe, numerics) == key(other, other_job.numerics)
                    && recipe.inputs.len() == other.inputs.len()
                    && recipe.inputs.iter().zip(&other.inputs).all(|(input, other)| {
                        let identity = sources[input.source].identity(&input.tensor);
                        (&input.tensor, &input.rows) == (&other.tensor, &other.rows)
                            && identity == other_job.sources[other.source].identity(&other.tensor)
                    })
            };
            match laid_out.iter().find(same) {
                Some(other) => parents[node] = root(&mut parents, *other),
                None => laid_out.push(node),
            }
            continue;
        }
        for input in &recipe.inputs {
            let identity = sources[input.source].identity(&input.tensor);
            let key = (identity, input.tensor.as_str(), recipe.shape.as_slice(), registers(recipe, numerics));
            let user = *users.entry(key).or_insert(node);
            let (a, b) = (root(&mut parents, user), root(&mut parents, node));
            parents[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<(usize, usize), (Group<'a>, Vec<_>)> = BTreeMap::new();
    for (node, (job, index)) in recipes.iter().enumerate() {
        let root = root(&mut parents, node);
        let order = (recipes[root].1, root);
        let (group, identities) =
            groups.entry(order).or_insert_with(|| (Group { tensors: Vec::new(), members: Vec::new() }, Vec::new()));
        let Job { recipes, sources, .. } = jobs[*job];
        let recipe = &recipes[*index];
        let mut inputs = Vec::with_capacity(recipe.inputs.len());
        for (number, input) in recipe.inputs.iter().enumerate() {
            let source = &sources[input.source];
            let identity = (source.identity(&input.tensor), input.tensor.as_str());
            let known = if recipe.is_laid_out() {
                (number < identities.len()).then_some(number)
            } else {
                identities.iter().position(|known| *known == identity)
            };
            inputs.push(known.unwrap_or_else(|| {
                identities.push(identity);
                group.tensors.push((source, input));
                identities.len() - 1
            }));
        }
        group.members.push(Member { job: *job, index: *index, recipe, inputs });
    }
    groups.into_values().map(|(group, _)| group).collect()
}

/// Asks for the inputs of groups to come before their turn.
struct ReadAhead<'a> {
    groups: &'a [Group<'a>],
    /// The first group that was not asked for.
    next: usize,
    /// Bytes asked for and not used yet.
    bytes: usize,
}

impl ReadAhead<'_> {
    fn go_on(&mut self, current: usize) {
        let bytes_of = |group: &Group<'_>| {
            group.tensors.iter().map(|(source, input)| source.n_bytes(&input.tensor)).sum::<usize>()
        };
        while let Some(group) = self.groups.get(self.next)
            && (self.next <= current || self.bytes < READ_AHEAD)
        {
            group.tensors.iter().for_each(|(source, input)| source.read_ahead(&input.tensor));
            self.bytes += bytes_of(group);
            self.next += 1;
        }
        self.bytes = self.bytes.saturating_sub(bytes_of(&self.groups[current]));
    }
}

impl Group<'_> {
    fn inputs<'b>(&'b self, stop: Stop<'b>) -> Result<Inputs<'b>, MergeError> {
        let recipe = self.members[0].recipe;
        let mut inputs = Vec::with_capacity(self.tensors.len());
        for (source, input) in &self.tensors {
            // Recipes are made from these very headers.
            let Some(tensor) = source.checkpoint.tensor(&input.tensor) else { continue };
            let stored = source.dtype(tensor).unwrap_or(recipe.working);
            let rows = input.rows.clone().map(rows::Layout::new);
            inputs.push(Input { bytes: source.bytes(&input.tensor, tensor)?, stored, rows });
        }
        let mut inputs = Inputs { inputs, shape: recipe.shape.clone(), working: recipe.working, stop };
        rows::pad(&mut inputs);
        Ok(inputs)
    }
}

/// The computation of one group.
struct GroupWork<'a, 'b, 'c> {
    run: &'a Run<'b, 'c>,
    group: &'a Group<'a>,
    inputs: &'a Inputs<'a>,
}

impl Work for GroupWork<'_, '_, '_> {
    type Output = Result<Vec<Computed>, MergeError>;

    fn run<A: Arithmetic>(self) -> Self::Output {
        let Self { run, group, inputs } = self;
        let tasks: Vec<Task<'_>> = group
            .members
            .iter()
            .map(|member| Task { operation: &member.recipe.operation, inputs: &member.inputs })
            .collect();
        let name = || group.members[0].recipe.name.clone();
        let kernels = prepare::<A>(&tasks, inputs);
        if run.stopped.load(Ordering::Relaxed) {
            return Err(MergeError::Cancelled);
        }
        let kernels = kernels.map_err(|source| MergeError::Method { tensor: name(), source })?;
        let piece = |piece| run.piece(group, inputs, &kernels, piece);
        let pieces: Vec<(Vec<Piece>, u64)> = match inputs.n_pieces() {
            1 => vec![piece(0)?],
            n => (0..n).into_par_iter().map(piece).collect::<Result<_, MergeError>>()?,
        };
        let unsound = pieces.iter().fold(0, |all, (_, unsound)| all | unsound);
        let computed = |(number, member): (usize, &Member<'_>)| {
            let of_member = || pieces.iter().map(|(piece, _)| &piece[number]);
            let count = of_member().map(|piece| piece.n_made).sum();
            let unsound_input = member.inputs.iter().position(|input| unsound & bit(*input) != 0);
            if count > 0 {
                let tensor = member.recipe.name.clone();
                return Err(match unsound_input.and_then(|input| member.recipe.inputs.get(input)) {
                    Some(input) => MergeError::UnsoundInput {
                        tensor,
                        model: run.jobs[member.job].sources[input.source].model.to_string(),
                        input: input.tensor.clone(),
                        count,
                    },
                    None => MergeError::NonFinite { tensor, count },
                });
            }
            Ok(Computed {
                digest: digest::of_pieces(of_member().map(|piece| piece.hash)),
                n_non_finite: of_member().map(|piece| piece.n_non_finite).sum(),
                squared_change: member
                    .recipe
                    .operation
                    .has_base()
                    .then(|| of_member().map(|piece| piece.squared_change).sum()),
                unsound_input,
                seen: of_member().flat_map(|piece| piece.seen.iter().cloned()).collect(),
            })
        };
        group.members.iter().enumerate().map(computed).collect()
    }
}

impl<'a> Run<'a, '_> {
    fn all(&self) -> Result<Vec<Vec<Computed>>, MergeError> {
        let jobs = self.jobs;
        let groups = groups(jobs);
        let mut computed: Vec<Vec<Option<Computed>>> = jobs.iter().map(|job| vec![None; job.recipes.len()]).collect();
        let mut ahead = ReadAhead { groups: &groups, next: 0, bytes: 0 };
        for (index, group) in groups.iter().enumerate() {
            ahead.go_on(index);
            let stop = || self.is_stopped();
            let inputs = group.inputs(Stop(Some(&stop)))?;
            // All members agree on it: see `groups`.
            let Some(first) = group.members.first() else { continue };
            let work = GroupWork { run: self, group, inputs: &inputs };
            let is_wide = first.recipe.operation.is_wide();
            let results = with_arithmetic(jobs[first.job].numerics, inputs.working, is_wide, work)?;
            for (member, result) in group.members.iter().zip(results) {
                computed[member.job][member.index] = Some(result);
            }
        }
        // Every recipe is in exactly one group.
        Ok(computed.into_iter().map(|of_job| of_job.into_iter().flatten().collect()).collect())
    }

    /// Computes one piece of every member; also says which inputs have infinities or NaN in it, one bit each.
    fn piece<A: Arithmetic>(
        &self,
        group: &Group<'_>,
        inputs: &Inputs<'_>,
        kernels: &[Kernel<A>],
        piece: usize,
    ) -> Result<(Vec<Piece>, u64), MergeError> {
        let range = inputs.piece(piece);
        let n_inputs = inputs.inputs.len();
        let n_scratch = kernels.iter().map(Kernel::n_scratch).max().unwrap_or_default();
        let buffer = |member: &Member<'_>| {
            let (mut buffer, size) = (self.outbox.buffer(), member.recipe.out.size());
            let lead = self.jobs[member.job].writer.lead(member.index, (range.start * size) as u64);
            buffer.reserve(lead, range.len() * size);
            buffer
        };
        let mut buffers: Vec<PageBuffer> = group.members.iter().map(buffer).collect();
        let hash = Hash::from_bytes([0; 32]);
        let empty = Piece { hash, n_non_finite: 0, n_made: 0, squared_change: 0.0, seen: Vec::new() };
        let mut pieces = vec![empty; group.members.len()];
        let mut places: Vec<&[usize]> =
            group.members.iter().map(|member| self.places[member.job].within(member.index, &range)).collect();
        let mut unsound = 0;
        A::Real::with_blocks(n_inputs + n_scratch + 1, |blocks| {
            let (blocks, scratch) = blocks.split_at_mut(n_inputs);
            let Some((out, scratch)) = scratch.split_last_mut() else { return };
            for start in range.clone().step_by(BLOCK) {
                let end = range.end.min(start + BLOCK);
                for (input, block) in blocks.iter_mut().enumerate() {
                    inputs.read(input, start..end, block);
                    if vectorised(HasNonFinite(block)) {
                        unsound |= bit(input);
                    }
                }
                out.resize(end - start, A::Real::default());
                for ((((member, kernel), buffer), piece), places) in
                    group.members.iter().zip(kernels).zip(&mut buffers).zip(&mut pieces).zip(&mut places)
                {
                    let Member { recipe, inputs, .. } = member;
                    let block = Block { start, blocks, inputs };
                    let size = recipe.out.size();
                    let bytes = &mut buffer.bytes_mut()[(start - range.start) * size..(end - range.start) * size];
                    vectorised(Apply { kernel, block, scratch, out });
                    let here = take_before(places, end);
                    let n_before = piece.seen.len();
                    piece.seen.extend(here.iter().map(|place| seen(place - start, &block, out)));
                    A::Real::round_to(out, recipe.result);
                    if recipe.out != recipe.result {
                        A::Real::round_to(out, recipe.out);
                    }
                    for (seen, place) in piece.seen[n_before..].iter_mut().zip(here) {
                        seen.rounded = out[place - start].wide() as f32;
                    }
                    vectorised(Look { piece, recipe, block, out });
                    A::Real::store(out, recipe.out, bytes);
                }
            }
        });
        let mut written = 0;
        for ((member, buffer), piece) in group.members.iter().zip(buffers).zip(&mut pieces) {
            piece.hash = blake3::hash(buffer.bytes());
            written += buffer.bytes().len() as u64;
            let offset = (range.start * member.recipe.out.size()) as u64;
            self.outbox.send(Parcel { writer: self.jobs[member.job].writer, recipe: member.index, offset, buffer });
        }
        self.advance(written)?;
        Ok((pieces, unsound))
    }

    fn advance(&self, bytes: u64) -> Result<(), MergeError> {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.outbox.has_failed() || self.is_stopped() { Err(MergeError::Cancelled) } else { Ok(()) }
    }

    /// Whether the caller stops the run, asked anew; once it has, it stays so.
    fn is_stopped(&self) -> bool {
        if self.stopped.load(Ordering::Relaxed) {
            return true;
        }
        let stopped = !(self.progress)(self.done.load(Ordering::Relaxed), self.total);
        if stopped {
            self.stopped.store(true, Ordering::Relaxed);
        }
        stopped
    }
}

/// The bit of an input. Those beyond the 64th share the last one.
fn bit(input: usize) -> u64 {
    1 << input.min(63)
}

/// Takes the places before an end off the front.
fn take_before<'a>(places: &mut &'a [usize], end: usize) -> &'a [usize] {
    let (before, rest) = places.split_at(places.partition_point(|place| *place < end));
    *places = rest;
    before
}

/// One number of a result that is not rounded yet.
fn seen<R: Real>(place: usize, block: &Block<'_, R>, out: &[R]) -> Seen {
    let number = |block: &[R]| block[place].wide() as f32;
    let inputs = (0..block.inputs.len()).map(|input| number(block.input(input))).collect();
    Seen { unrounded: number(out), rounded: number(out), inputs }
}

/// Whether a block has infinities or NaN.
struct HasNonFinite<'a, R>(&'a [R]);

impl<R: Real> Loop for HasNonFinite<'_, R> {
    type Output = bool;

    #[inline(always)]
    fn call(self) -> bool {
        self.0.iter().fold(false, |any, value| any | !value.is_finite())
    }
}

/// One block of one result.
pub(super) struct Apply<'a, A: Arithmetic> {
    /// How it is computed.
    pub kernel: &'a Kernel<A>,
    /// From what.
    pub block: Block<'a, A::Real>,
    /// Buffers to work in.
    pub scratch: &'a mut [Vec<A::Real>],
    /// Where it goes.
    pub out: &'a mut [A::Real],
}

impl<A: Arithmetic> Loop for Apply<'_, A> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.kernel.apply(self.block, self.scratch, self.out);
    }
}

/// A look at one block of a result: counts what is not finite, and measures the change against the base.
struct Look<'a, R> {
    piece: &'a mut Piece,
    recipe: &'a Recipe,
    block: Block<'a, R>,
    out: &'a [R],
}

impl<R: Real> Loop for Look<'_, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { piece, recipe, block, out } = self;
        let n_non_finite = out.iter().fold(0u32, |count, value| count + u32::from(!value.is_finite()));
        if n_non_finite > 0 {
            piece.n_non_finite += u64::from(n_non_finite);
            for (index, _) in out.iter().enumerate().filter(|(_, value)| !value.is_finite()) {
                let had_one = (0..block.inputs.len()).any(|input| !block.input(input)[index].is_finite());
                piece.n_made += u64::from(!had_one);
            }
        }
        if recipe.operation.has_base() {
            piece.squared_change += pair_sum(out, block.input(0), |out, base| {
                let change = (out - base).wide();
                change * change
            });
        }
    }
}
