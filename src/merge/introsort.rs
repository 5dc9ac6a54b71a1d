//! Which of several equal elements end up where, in the orders that PyTorch's `sort` and `topk` leave on a processor.
//!
//! Those are not stable: they are `std::sort`, `std::nth_element` and `std::partial_sort` of libstdc++ on pairs of a number
//! and its position (PyTorch 2.15 for Linux; the same with any vector instructions and any number of threads). What
//! those functions do with equal elements follows from how they divide a range: a median of three is put first, two
//! pointers run towards each other and stop at what is equal to it, and stretches of up to [`STRETCH`] elements are sorted
//! by insertion. A divided range whose elements all stay, or all go, is not divided further here, so the time is linear in
//! the number of elements on average.

use std::ops::Range;

/// Stretches of so many elements are sorted by insertion.
pub(super) const STRETCH: usize = 16;

/// Up to this share of the elements is kept in a heap where the first are asked for.
pub(super) const HEAP: usize = 64;

/// Puts the elements in such an order that those of `ranks` are the ones that `std::sort` would put there.
pub fn sort<T: Copy>(items: &mut [T], ranks: &Range<usize>, less: impl Fn(&T, &T) -> bool + Copy) {
    let depth = depth_of(items.len());
    sort_between(items, 0, ranks, depth, less);
}

fn sort_between<T: Copy>(
    mut items: &mut [T],
    first: usize,
    ranks: &Range<usize>,
    mut depth: u32,
    less: impl Fn(&T, &T) -> bool + Copy,
) {
    let cuts = |from: usize, len: usize| [ranks.start, ranks.end].into_iter().any(|cut| cut > from && cut < from + len);
    while items.len() > STRETCH {
        if !cuts(first, items.len()) {
            return;
        }
        if depth == 0 {
            return heap_sort(items, less);
        }
        depth -= 1;
        let middle = divide(items, less);
        let (left, right) = items.split_at_mut(middle);
        if cuts(first + middle, right.len()) {
            sort_between(right, first + middle, ranks, depth, less);
        }
        items = left;
    }
    insert(items, less);
}

/// Puts the elements in such an order that the first `n` are those of PyTorch's `topk`, where `less` is true of the larger
/// element and a smaller one.
pub fn top<T: Copy>(items: &mut [T], n: usize, less: impl Fn(&T, &T) -> bool + Copy) {
    if n == 0 || n >= items.len() {
        return;
    }
    if n.saturating_mul(HEAP) <= items.len() {
        return heap_select(items, n, less);
    }
    let mut depth = depth_of(items.len());
    let (mut first, mut last) = (0, items.len());
    while last - first > 3 {
        if depth == 0 {
            return heap_select(&mut items[first..last], n - first, less);
        }
        depth -= 1;
        let middle = first + divide(&mut items[first..last], less);
        if middle < n {
            first = middle;
        } else {
            last = middle;
        }
    }
    insert(&mut items[first..last], less);
}

/// Ranges are divided so many times before a heap is used.
pub(super) fn depth_of(len: usize) -> u32 {
    2 * len.max(1).ilog2()
}

/// Which of three elements is between the two others.
pub(super) fn median<T>(items: &[T], less: impl Fn(&T, &T) -> bool) -> usize {
    let (a, b, c) = (1, items.len() / 2, items.len() - 1);
    let below = |left: usize, right: usize| less(&items[left], &items[right]);
    match (below(a, b), below(b, c), below(a, c)) {
        (true, true, _) | (false, false, false) => b,
        (true, false, true) | (false, true, false) => c,
        (true, false, false) | (false, _, true) => a,
    }
}

/// Divides more than three elements; returns where the second part begins.
fn divide<T: Copy>(items: &mut [T], less: impl Fn(&T, &T) -> bool) -> usize {
    items.swap(0, median(items, &less));
    let pivot = items[0];
    let (mut left, mut right) = (1, items.len());
    loop {
        while less(&items[left], &pivot) {
            left += 1;
        }
        right -= 1;
        while less(&pivot, &items[right]) {
            right -= 1;
        }
        if left >= right {
            return left;
        }
        items.swap(left, right);
        left += 1;
    }
}

pub(super) fn insert<T: Copy>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    for end in 1..items.len() {
        let mut place = end;
        while place > 0 && less(&items[place], &items[place - 1]) {
            items.swap(place, place - 1);
            place -= 1;
        }
    }
}

/// Leaves the first `n` of all elements in front.
pub(super) fn heap_select<T: Copy>(items: &mut [T], n: usize, less: impl Fn(&T, &T) -> bool + Copy) {
    let (heap, rest) = items.split_at_mut(n);
    make_heap(heap, less);
    for item in rest {
        take_in(heap, item, less);
    }
}

/// Puts an element in place of the last one of a heap, if it comes before that.
#[inline(always)]
pub(super) fn take_in<T: Copy>(heap: &mut [T], item: &mut T, less: impl Fn(&T, &T) -> bool + Copy) {
    if less(item, &heap[0]) {
        let value = std::mem::replace(item, heap[0]);
        sift(heap, 0, value, less);
    }
}

pub(super) fn heap_sort<T: Copy>(items: &mut [T], less: impl Fn(&T, &T) -> bool + Copy) {
    make_heap(items, less);
    for last in (1..items.len()).rev() {
        let value = items[last];
        items[last] = items[0];
        sift(&mut items[..last], 0, value, less);
    }
}

pub(super) fn make_heap<T: Copy>(heap: &mut [T], less: impl Fn(&T, &T) -> bool + Copy) {
    for parent in (0..heap.len() / 2).rev() {
        sift(heap, parent, heap[parent], less);
    }
}

/// Moves a hole down to the leaves, the larger child up each time, and the value up from there.
fn sift<T: Copy>(heap: &mut [T], top: usize, value: T, less: impl Fn(&T, &T) -> bool) {
    let (mut hole, len) = (top, heap.len());
    while 2 * hole + 2 < len {
        let child = 2 * hole + 2;
        let child = if less(&heap[child], &heap[child - 1]) { child - 1 } else { child };
        heap[hole] = heap[child];
        hole = child;
    }
    if 2 * hole + 2 == len {
        heap[hole] = heap[len - 1];
        hole = len - 1;
    }
    while hole > top && less(&heap[(hole - 1) / 2], &value) {
        heap[hole] = heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap[hole] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers below `below` that are the same everywhere.
    fn draw(n: usize, below: u64) -> Vec<u64> {
        let mut state = 1u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        (0..n).map(step).collect()
    }

    /// Rises and falls.
    fn organ_pipes(n: usize) -> Vec<u64> {
        (0..n).map(|index| (index.min(n - 1 - index) / 3) as u64).collect()
    }

    /// What makes medians of three bad ones, so that heaps are used.
    fn killer(n: usize) -> Vec<u64> {
        let half = n / 2;
        let mut numbers = vec![0; n];
        for index in 1..=half {
            if index % 2 == 1 {
                numbers[index - 1] = index as u64;
                numbers[index] = (half + index) as u64;
            }
            numbers[half + index - 1] = 2 * index as u64;
        }
        numbers
    }

    fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
        numbers.iter().copied().zip(0..).collect()
    }

    /// One number for a set of positions.
    fn digest(pairs: &[(u64, u64)]) -> u64 {
        let mut positions: Vec<u64> = pairs.iter().map(|(_, position)| *position).collect();
        positions.sort_unstable();
        let step = |digest, position| (u128::from(digest) * 1_000_003 + u128::from(position)) % ((1 << 61) - 1);
        positions.into_iter().fold(0, |digest: u64, position| step(digest, position) as u64)
    }

    /// Found with PyTorch 2.15: the same sets of `sort(descending=True)`, `sort()` and `topk` of these numbers as float32.
    #[test]
    fn the_same_elements_stay_as_in_pytorch() {
        let cases: [(Vec<u64>, [u64; 4]); 4] = [
            (draw(1000, 7), [2296848826377517872, 1235200836987529661, 1967999655435802837, 649043195609936901]),
            (draw(5000, 50), [1169129103062972497, 557021649726091831, 1472726194290066265, 656680035722626892]),
            (organ_pipes(3000), [1048870121443098433, 1574249371562189075, 395244793638456589, 875378043919935797]),
            (killer(4000), [1449097918457089689, 1704502174065896148, 1449097918457089689, 1481641784932820343]),
        ];
        for (numbers, expected) in cases {
            let n = numbers.len();
            let larger = |left: &(u64, u64), right: &(u64, u64)| left.0 > right.0;
            let sorted = |ranks: Range<usize>, less: fn(&(u64, u64), &(u64, u64)) -> bool| {
                let mut pairs = pairs(&numbers);
                sort(&mut pairs, &ranks, less);
                digest(&pairs[ranks])
            };
            let top = |count: usize| {
                let mut pairs = pairs(&numbers);
                top(&mut pairs, count, larger);
                digest(&pairs[..count])
            };
            let found = [
                sorted(0..n / 3, larger),
                sorted(n / 5..n / 2, |left, right| left.0 < right.0),
                top(n / 3),
                top(n / 70),
            ];
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn heaps_sort() {
        for n in 0..40 {
            let mut numbers = draw(n, 9);
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            heap_sort(&mut numbers, |left, right| left < right);
            assert_eq!(numbers, sorted);
        }
    }
}
