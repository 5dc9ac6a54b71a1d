//! Many comparisons at once, and the best of many.

use super::distribution::{normal_cdf, solve};

/// Holm's step-down correction (Holm 1979), in the order of the input. Equal p-values keep their order.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in ascending(p).into_iter().enumerate() {
        largest = largest.max(((p.len() - rank) as f64 * p[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// The correction of Benjamini and Hochberg (1995) for the share of false discoveries.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut adjusted = vec![0.0; p.len()];
    let mut smallest = 1.0_f64;
    for (rank, index) in ascending(p).into_iter().enumerate().rev() {
        smallest = smallest.min(p.len() as f64 * p[index] / (rank + 1) as f64);
        adjusted[index] = smallest;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    // A stable sort: ties keep input order.
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    order
}

/// How far the best of `k` equal models stands above their mean by chance, in standard deviations of one: the expected
/// largest of `k` independent normal values. Scores of siblings on the same items vary by `√((1 − ρ)·variance)`.
pub fn expected_best(k: usize) -> f64 {
    if k < 2 {
        return 0.0;
    }
    // E[max] = ∫ (1 − Φ(x)^k) dx over x > 0 minus ∫ Φ(x)^k dx over x < 0, by the trapezium rule.
    let step = 0.01;
    let positive = (0..800).map(|i| 1.0 - normal_cdf(f64::from(i) * step).powf(k as f64));
    let negative = (1..800).map(|i| normal_cdf(-f64::from(i) * step).powf(k as f64));
    (positive.sum::<f64>() - negative.sum::<f64>() - 0.5) * step
}

/// The z of a one-sided test at `.05 / n_tests`.
pub fn corrected_z(n_tests: usize) -> f64 {
    let tail = super::LEVEL / n_tests.max(1) as f64;
    solve(0.0, 7.0, |z| normal_cdf(z) < 1.0 - tail)
}
