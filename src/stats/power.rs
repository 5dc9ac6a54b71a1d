//! What a comparison could see: detectable differences and sample sizes.

use super::LEVEL;
use super::binary::{Discordant, mcnemar};
use super::distribution::{binomial_mass, normal_quantile, solve};

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
    let share = ((psi + delta) / (2.0 * psi)).clamp(0.0, 1.0);
    let spread = 8.0 * (n as f64 * psi * (1.0 - psi)).sqrt() + 8.0;
    let centre = n as f64 * psi;
    (0..=n)
        .filter(|m| (*m as f64 - centre).abs() <= spread)
        .map(|m| binomial_mass(m, n, psi) * rejected(m, share))
        .sum()
}

/// The chance to reject, given `m` discordant items of which each falls to the better side with `share`.
fn rejected(m: u64, share: f64) -> f64 {
    // Rejection means one side has at most `most`; the smallest p comes first.
    let most = (0..=m / 2).take_while(|b| mcnemar(Discordant { b: *b, c: m - *b }) <= LEVEL).last();
    let Some(most) = most else { return 0.0 };
    (0..=most).map(|k| binomial_mass(k, m, share) + binomial_mass(k, m, 1.0 - share)).sum()
}

/// The smallest true difference that McNemar's exact test on `n` items finds with a power of .8, where a share `psi` of
/// items differs; none where even a one-sided split of all of them (`delta = psi`) is found less often.
pub fn detectable(n: u64, psi: f64) -> Option<f64> {
    if n == 0 || psi <= 0.0 || mcnemar_power(n, psi, psi) < POWER {
        return None;
    }
    Some(solve(0.0, psi, |delta| mcnemar_power(n, psi, delta) < POWER))
}

/// Items needed with repeats, (z₁ + z₂)²·(ω² + σ²_A/K_A + σ²_B/K_B) / δ² (Miller 2024): `omega2` is the variance of item
/// differences, `within` the variance within an item over its number of repeats, for both models together.
pub fn items_needed_with_repeats(omega2: f64, within: f64, delta: f64) -> f64 {
    (normal_quantile(1.0 - LEVEL / 2.0) + normal_quantile(POWER)).powi(2) * (omega2 + within) / (delta * delta)
}
