//! What a comparison could see: detectable differences and sample sizes.

use super::LEVEL;
use super::distribution::{beta_cdf, binomial_mass, normal_quantile, solve};

/// Power that is aimed at.
pub const POWER: f64 = 0.8;

/// Discordant shares to show where none has been seen.
pub const DISCORDANCE: [f64; 3] = [0.05, 0.10, 0.20];

/// Items needed to see a true difference `delta` where a share `psi` of items differs (Connor 1987), two-sided at .05 with
/// a power of .8. Infinite for no difference.
pub fn items_needed(psi: f64, delta: f64) -> f64 {
    let (za, zb) = (normal_quantile(1.0 - LEVEL / 2.0), normal_quantile(POWER));
    (za * psi.sqrt() + zb * (psi - delta * delta).max(0.0).sqrt()).powi(2) / (delta * delta)
}

/// The smallest true difference that `n` items show, roughly: `(z₁ + z₂)·√(ψ/n)`.
pub fn approximate_detectable(n: u64, psi: f64) -> f64 {
    (normal_quantile(1.0 - LEVEL / 2.0) + normal_quantile(POWER)) * (psi / n as f64).sqrt()
}

/// Power of McNemar's exact two-sided test at .05: `n` items, discordant share `psi`, true difference `delta` ≤ `psi`.
pub fn mcnemar_power(n: u64, psi: f64, delta: f64) -> f64 {
    Exact::new(n, psi, LEVEL).power(delta)
}

/// The exact test on `n` items of which a share `psi` is expected to differ: for every number of discordant items that is
/// worth a thought its probability, and the most of them that may fall to one side for the other side to be called better.
struct Exact {
    psi: f64,
    counts: Vec<(u64, f64, u64)>,
}

impl Exact {
    fn new(n: u64, psi: f64, level: f64) -> Self {
        let spread = 8.0 * (n as f64 * psi * (1.0 - psi)).sqrt() + 8.0;
        let centre = n as f64 * psi;
        let worth = (0..=n).filter(|m| (*m as f64 - centre).abs() <= spread);
        let count = |m: u64| Some((m, binomial_mass(m, n, psi), most(m, level)?));
        Self { psi, counts: worth.filter_map(count).collect() }
    }

    /// Each discordant item falls to the better side with a chance of `(ψ + δ) / 2ψ`.
    fn power(&self, delta: f64) -> f64 {
        let share = ((self.psi + delta) / (2.0 * self.psi)).clamp(0.0, 1.0);
        let rejected = |m: u64, most: u64| at_most(most, m, share) + at_most(most, m, 1.0 - share);
        self.counts.iter().map(|(m, mass, most)| mass * rejected(*m, *most)).sum()
    }
}

/// The most of `m` discordant items that may fall to one side if the exact test is to reject; none where it never does.
fn most(m: u64, level: f64) -> Option<u64> {
    let (mut sum, mut most) = (0.0, None);
    for b in 0..=m / 2 {
        sum += 2.0 * binomial_mass(b, m, 0.5);
        // Sums of powers of two are off by rounding alone.
        if sum.min(1.0) > level * (1.0 + 1e-9) {
            break;
        }
        most = Some(b);
    }
    most
}

/// `P[X ≤ k]`, X ~ Binomial(m, p), k < m.
fn at_most(k: u64, m: u64, p: f64) -> f64 {
    beta_cdf(1.0 - p, (m - k) as f64, (k + 1) as f64)
}

/// The smallest true difference that McNemar's exact test on `n` items finds with a power of .8, where a share `psi` of
/// items differs; none where even a one-sided split of all of them (`delta = psi`) is found less often.
pub fn detectable(n: u64, psi: f64) -> Option<f64> {
    detectable_at(n, psi, LEVEL)
}

/// The same at another level: .05 shared by K comparisons is .05 / K for the first that Holm's correction looks at.
pub fn detectable_at(n: u64, psi: f64, level: f64) -> Option<f64> {
    /// From here on the normal formula is as good as the exact test, and does not take long.
    const MANY: u64 = 3000;
    if n == 0 || psi <= 0.0 {
        return None;
    }
    if n > MANY {
        let (za, zb) = (normal_quantile(1.0 - level / 2.0), normal_quantile(POWER));
        let needed = |delta: f64| (za * psi.sqrt() + zb * (psi - delta * delta).max(0.0).sqrt()).powi(2);
        return Some(solve(0.0, psi, |delta| needed(delta) > n as f64 * delta * delta));
    }
    let exact = Exact::new(n, psi, level);
    if exact.power(psi) < POWER { None } else { Some(solve(0.0, psi, |delta| exact.power(delta) < POWER)) }
}

/// The smallest true difference that a test at this level finds with a power of .8, of scores whose paired difference has
/// this standard error.
pub fn detectable_of_spread(stderr: f64, level: f64) -> f64 {
    (normal_quantile(1.0 - level / 2.0) + normal_quantile(POWER)) * stderr
}

/// Items needed with repeats, (z₁ + z₂)²·(ω² + σ²_A/K_A + σ²_B/K_B) / δ² (Miller 2024): `omega2` is the variance of item
/// differences, `within` the variance within an item over its number of repeats, for both models together.
pub fn items_needed_with_repeats(omega2: f64, within: f64, delta: f64) -> f64 {
    (normal_quantile(1.0 - LEVEL / 2.0) + normal_quantile(POWER)).powi(2) * (omega2 + within) / (delta * delta)
}
