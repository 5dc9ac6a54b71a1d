//! Random numbers from a counter: a number is a function of (seed, draw, place), never of what was drawn before.

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The 64 random bits at a place of a draw.
pub fn word(seed: u64, draw: u64, place: u64) -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    mix(mix(mix(seed.wrapping_add(STEP)) ^ draw.wrapping_mul(STEP))
        .wrapping_add(place.wrapping_add(1).wrapping_mul(STEP)))
}

/// A fair coin for an item of a draw. Items of one place in several columns of a task fall the same way.
pub fn coin(seed: u64, draw: u64, item: usize) -> bool {
    (word(seed, draw, (item / 64) as u64) >> (item % 64)) & 1 == 1
}

/// A whole number below `n`, `n > 0`.
pub fn below(seed: u64, draw: u64, place: usize, n: usize) -> usize {
    // The high part of a product: uneven by n / 2⁶⁴ at most.
    let product = u128::from(word(seed, draw, place as u64)) * n as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

/// A seed for one stream of a family: a task of a sweep.
pub fn stream(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |seed, byte| mix(seed ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coins_are_fair_and_differ_from_draw_to_draw() {
        let heads = |draw: u64| (0..1000).filter(|item| coin(1, draw, *item)).count();
        let all: usize = (0..100).map(heads).sum();
        // 100,000 coins: a standard deviation is 158.
        assert!(all.abs_diff(50_000) < 800, "{all}");
        assert_ne!(
            (0..64).map(|i| coin(1, 0, i)).collect::<Vec<_>>(),
            (0..64).map(|i| coin(1, 1, i)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn whole_numbers_fall_evenly() {
        let mut counts = [0_usize; 7];
        (0..70_000).for_each(|place| counts[below(3, 5, place, 7)] += 1);
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 500), "{counts:?}");
    }
}
