//! [`introsort::sort`](super::introsort::sort) and [`introsort::top`](super::introsort::top) of keys of 16 bits in less memory: which elements end up where is of interest for
//! those alone whose key is at a cut, so the others are keys without a position, two bytes each.
//!
//! The positions of the followed elements lie in a list in the order in which the elements stand. Both pointers of a division
//! move one way only, so what a division does to the list is found on the way: what the left one passes or is given comes
//! out at the front, in order, and what the right one passes or is given at the back, from the end.

use std::ops::Range;

use super::introsort::{HEAP, STRETCH, depth_of, heap_select, heap_sort, insert, make_heap, median, take_in};

/// Keys, and where the followed ones of them were.
#[derive(Debug)]
pub struct Followed {
    keys: Vec<u16>,
    positions: Vec<u32>,
    is_followed: Table,
}

/// A set of keys, one bit each.
#[derive(Debug)]
struct Table(Vec<u64>);

/// The order, and the ranks that matter.
struct Sort<'a, L> {
    is_followed: &'a Table,
    ranks: Range<usize>,
    less: L,
    /// What a division makes of the list.
    left: Vec<u32>,
    right: Vec<u32>,
}

impl Table {
    fn of(keys: &[u16]) -> Self {
        let mut table = vec![0; (usize::from(u16::MAX) + 1) / 64];
        keys.iter().for_each(|key| table[usize::from(*key) / 64] |= 1 << (key % 64));
        Self(table)
    }

    #[inline(always)]
    fn has(&self, key: u16) -> bool {
        self.0[usize::from(key) / 64] >> (key % 64) & 1 == 1
    }

    fn count(&self, keys: &[u16]) -> usize {
        keys.iter().filter(|key| self.has(**key)).count()
    }
}

impl Followed {
    /// Keys in order of position, of which there are fewer than 2^32; those that equal one of `followed` are followed.
    pub fn new(keys: Vec<u16>, followed: &[u16]) -> Self {
        let is_followed = Table::of(followed);
        let mut positions = Vec::with_capacity(is_followed.count(&keys));
        positions.extend((0..).zip(&keys).filter(|(_, key)| is_followed.has(**key)).map(|(position, _)| position));
        Self { keys, positions, is_followed }
    }

    /// The positions of the followed elements that `std::sort` would put at `ranks`; `less` orders keys.
    pub fn at(mut self, ranks: Range<usize>, less: impl Fn(u16, u16) -> bool + Copy) -> Vec<u32> {
        let mut sort =
            Sort { is_followed: &self.is_followed, ranks: ranks.clone(), less, left: Vec::new(), right: Vec::new() };
        let depth = depth_of(self.keys.len());
        sort.between(&mut self.keys, &mut self.positions, 0, depth);
        let before = self.is_followed.count(&self.keys[..ranks.start]);
        let within = self.is_followed.count(&self.keys[ranks]);
        self.positions.drain(..before);
        self.positions.truncate(within);
        self.positions
    }
}

impl Followed {
    /// The positions of the followed elements among the first `n`, which is fewer than there are, that PyTorch's `topk` would
    /// give; `less` is true of the larger key and a smaller one.
    pub fn top(mut self, n: usize, less: impl Fn(u16, u16) -> bool + Copy) -> Vec<u32> {
        if n.saturating_mul(HEAP) <= self.keys.len() {
            return self.heap_of(n, less);
        }
        let mut sort = Sort { is_followed: &self.is_followed, ranks: 0..n, less, left: Vec::new(), right: Vec::new() };
        sort.first(&mut self.keys, &mut self.positions, n);
        let within = self.is_followed.count(&self.keys[..n]);
        self.positions.truncate(within);
        self.positions
    }

    /// The same where they are few: then only they have a place beside them.
    fn heap_of(self, n: usize, less: impl Fn(u16, u16) -> bool + Copy) -> Vec<u32> {
        let Self { keys, positions, is_followed } = self;
        let mut positions = positions.into_iter();
        let mut pairs = keys
            .into_iter()
            .map(|key| (key, if is_followed.has(key) { positions.next().unwrap_or_default() } else { 0 }));
        let less = |left: &(u16, u32), right: &(u16, u32)| less(left.0, right.0);
        let mut heap: Vec<(u16, u32)> = pairs.by_ref().take(n).collect();
        if heap.is_empty() {
            return Vec::new();
        }
        make_heap(&mut heap, less);
        pairs.for_each(|mut pair| take_in(&mut heap, &mut pair, less));
        heap.into_iter().filter(|(key, _)| is_followed.has(*key)).map(|(_, position)| position).collect()
    }
}

impl<L: Fn(u16, u16) -> bool + Copy> Sort<'_, L> {
    /// Puts the first `n` in front, as [`introsort::top`](super::introsort::top) does.
    fn first(&mut self, mut keys: &mut [u16], mut positions: &mut [u32], mut n: usize) {
        let mut depth = depth_of(keys.len());
        while keys.len() > 3 {
            if depth == 0 {
                return self.with_pairs(keys, positions, |pairs, less| heap_select(pairs, n, less));
            }
            depth -= 1;
            let (middle, n_left) = self.divide(keys, positions);
            let (left, right) = keys.split_at_mut(middle);
            let (left_positions, right_positions) = positions.split_at_mut(n_left);
            if middle < n {
                (keys, positions, n) = (right, right_positions, n - middle);
            } else {
                (keys, positions) = (left, left_positions);
            }
        }
        self.with_pairs(keys, positions, |pairs, less| insert(pairs, less));
    }

    fn cuts(&self, from: usize, len: usize) -> bool {
        [self.ranks.start, self.ranks.end].into_iter().any(|cut| cut > from && cut < from + len)
    }

    fn between(&mut self, mut keys: &mut [u16], mut positions: &mut [u32], first: usize, mut depth: u32) {
        while keys.len() > STRETCH {
            if positions.is_empty() || !self.cuts(first, keys.len()) {
                return;
            }
            if depth == 0 {
                return self.with_pairs(keys, positions, |pairs, less| heap_sort(pairs, less));
            }
            depth -= 1;
            let (middle, n_left) = self.divide(keys, positions);
            let (left, right) = keys.split_at_mut(middle);
            let (left_positions, right_positions) = positions.split_at_mut(n_left);
            if self.cuts(first + middle, right.len()) {
                self.between(right, right_positions, first + middle, depth);
            }
            (keys, positions) = (left, left_positions);
        }
        self.with_pairs(keys, positions, |pairs, less| insert(pairs, less));
    }

    /// Does something to keys that have their positions beside them; those of the others do not matter.
    fn with_pairs(
        &self,
        keys: &mut [u16],
        positions: &mut [u32],
        work: impl FnOnce(&mut [(u16, u32)], &dyn Fn(&(u16, u32), &(u16, u32)) -> bool),
    ) {
        let mut next = positions.iter();
        let position = |key: u16, next: &mut std::slice::Iter<'_, u32>| {
            if self.is_followed.has(key) { next.next().copied().unwrap_or_default() } else { 0 }
        };
        let mut pairs: Vec<(u16, u32)> = keys.iter().map(|key| (*key, position(*key, &mut next))).collect();
        work(&mut pairs, &|left, right| (self.less)(left.0, right.0));
        let mut places = positions.iter_mut();
        for ((key, position), place) in pairs.into_iter().zip(keys) {
            *place = key;
            if self.is_followed.has(key)
                && let Some(place) = places.next()
            {
                *place = position;
            }
        }
    }

    /// Divides more than three keys; returns where the second part begins, of keys and of positions.
    fn divide(&mut self, keys: &mut [u16], positions: &mut [u32]) -> (usize, usize) {
        let less = self.less;
        let median = median(keys, |left, right| less(*left, *right));
        self.put_first(keys, positions, median);
        let pivot = keys[0];
        self.left.clear();
        self.right.clear();
        // Of the list, what was taken from the front, and what is left before the part that was taken from the end.
        let (mut front, mut back) = (usize::from(self.is_followed.has(pivot)), positions.len());
        self.left.extend(&positions[..front]);
        let (mut left, mut right) = (1, keys.len());
        loop {
            while less(keys[left], pivot) {
                if self.is_followed.has(keys[left]) {
                    self.left.push(positions[front]);
                    front += 1;
                }
                left += 1;
            }
            right -= 1;
            while less(pivot, keys[right]) {
                if self.is_followed.has(keys[right]) {
                    back -= 1;
                    self.right.push(positions[back]);
                }
                right -= 1;
            }
            if left >= right {
                break;
            }
            if self.is_followed.has(keys[right]) {
                back -= 1;
                self.left.push(positions[back]);
            }
            if self.is_followed.has(keys[left]) {
                self.right.push(positions[front]);
                front += 1;
            }
            keys.swap(left, right);
            left += 1;
        }
        // Where the pointers met, the element was passed by neither.
        if left == right && self.is_followed.has(keys[left]) {
            self.right.push(positions[front]);
        }
        let (before, after) = positions.split_at_mut(self.left.len());
        before.copy_from_slice(&self.left);
        after.iter_mut().zip(self.right.iter().rev()).for_each(|(place, position)| *place = *position);
        (left, self.left.len())
    }

    /// Swaps a key with the first.
    fn put_first(&self, keys: &mut [u16], positions: &mut [u32], index: usize) {
        let (first, other) = (self.is_followed.has(keys[0]), self.is_followed.has(keys[index]));
        if first || other {
            let place = self.is_followed.count(&keys[..index]);
            match (first, other) {
                (true, true) => positions.swap(0, place),
                (true, false) => positions[..place].rotate_left(1),
                _ => positions[..=place].rotate_right(1),
            }
        }
        keys.swap(0, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::introsort;

    /// The same with every element followed by its pair.
    fn expected(
        keys: &[u16],
        followed: &[u16],
        ranks: Range<usize>,
        less: impl Fn(u16, u16) -> bool + Copy,
    ) -> Vec<u32> {
        let mut pairs: Vec<(u16, u32)> = keys.iter().copied().zip(0..).collect();
        introsort::sort(&mut pairs, &ranks, |left, right| less(left.0, right.0));
        let mut kept: Vec<u32> =
            pairs[ranks].iter().filter(|(key, _)| followed.contains(key)).map(|(_, position)| *position).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn the_same_stay_as_where_all_are_followed() {
        let mut state = 1u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..2000 {
            let n = 1 + draw(if round % 10 == 0 { 5000 } else { 200 }) as usize;
            let distinct = 1 + draw(40);
            let mut keys: Vec<u16> = (0..n).map(|_| draw(distinct) as u16 * 7).collect();
            match round % 4 {
                1 => keys.sort_unstable(),
                2 => keys[n / 2..].reverse(),
                _ => {}
            }
            let (a, b) = (draw(n as u64 + 1) as usize, draw(n as u64 + 1) as usize);
            let ranks = a.min(b)..a.max(b);
            for descending in [false, true] {
                let less = |left: u16, right: u16| if descending { left > right } else { left < right };
                let mut sorted = keys.clone();
                sorted.sort_unstable();
                if descending {
                    sorted.reverse();
                }
                // Those at the cuts, as the callers follow them.
                let cuts = [ranks.start, ranks.end].map(|cut| sorted[cut.min(n - 1)]);
                let mut found = Followed::new(keys.clone(), &cuts).at(ranks.clone(), less);
                found.sort_unstable();
                assert_eq!(found, expected(&keys, &cuts, ranks.clone(), less), "{n} keys, {ranks:?}, {descending}");
                if (1..n).contains(&ranks.end) {
                    let kept = if round % 3 == 0 { ranks.end.div_ceil(100) } else { ranks.end };
                    let cut = [sorted[kept - 1]];
                    let mut pairs: Vec<(u16, u32)> = keys.iter().copied().zip(0..).collect();
                    introsort::top(&mut pairs, kept, |left, right| less(left.0, right.0));
                    let of_cut = pairs[..kept].iter().filter(|(key, _)| *key == cut[0]);
                    let mut expected: Vec<u32> = of_cut.map(|(_, position)| *position).collect();
                    expected.sort_unstable();
                    let mut found = Followed::new(keys.clone(), &cut).top(kept, less);
                    found.sort_unstable();
                    assert_eq!(found, expected, "first {kept} of {n} keys, {descending}");
                }
            }
        }
    }

    #[test]
    fn heaps_take_over_where_medians_are_bad() {
        // Made so that medians of three are among the smallest.
        let n = 4000u16;
        let mut keys = vec![0u16; usize::from(n)];
        for index in 1..=n / 2 {
            if index % 2 == 1 {
                keys[usize::from(index) - 1] = index;
                keys[usize::from(index)] = n / 2 + index;
            }
            keys[usize::from(n / 2 + index) - 1] = 2 * index;
        }
        keys.iter_mut().for_each(|key| *key /= 4);
        for ranks in [0..1500, 1203..2001] {
            let less = |left: u16, right: u16| left < right;
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            let cuts = [ranks.start, ranks.end - 1, ranks.end].map(|cut| sorted[cut]);
            let mut found = Followed::new(keys.clone(), &cuts).at(ranks.clone(), less);
            found.sort_unstable();
            assert_eq!(found, expected(&keys, &cuts, ranks, less));
        }
    }
}
