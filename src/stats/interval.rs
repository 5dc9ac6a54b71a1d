//! Intervals and standard errors of one score.

use super::Interval;
use super::distribution::{beta_quantile, normal_quantile};

/// Two-sided z of a level: 1.959964 for .95.
pub fn two_sided_z(level: f64) -> f64 {
    normal_quantile(0.5 + level / 2.0)
}

/// Wilson's interval of `k` right answers of `n` (Wilson 1927), exactly 0 and 1 at the ends. None of no answers.
pub fn wilson(k: u64, n: u64, level: f64) -> Option<Interval> {
    if n == 0 || k > n {
        return None;
    }
    let z = two_sided_z(level);
    let (count, n_f) = (k as f64, n as f64);
    let p = count / n_f;
    let shrink = 1.0 + z * z / n_f;
    let centre = (p + z * z / (2.0 * n_f)) / shrink;
    let half = z * (p * (1.0 - p) / n_f + z * z / (4.0 * n_f * n_f)).sqrt() / shrink;
    // At the ends the two are equal but for rounding.
    let low = if k == 0 { 0.0 } else { centre - half };
    let high = if k == n { 1.0 } else { centre + half };
    Some(Interval { low, high })
}

/// The interval of Clopper and Pearson (1934), which errs on the wide side.
pub fn clopper_pearson(k: u64, n: u64, level: f64) -> Option<Interval> {
    if n == 0 || k > n {
        return None;
    }
    let tail = (1.0 - level) / 2.0;
    let (count, rest) = (k as f64, (n - k) as f64);
    let low = if k == 0 { 0.0 } else { beta_quantile(tail, count, rest + 1.0) };
    let high = if k == n { 1.0 } else { beta_quantile(1.0 - tail, count + 1.0, rest) };
    Some(Interval { low, high })
}

/// Standard error of `k` of `n`, as the harness gives it: `√(p(1−p)/(n−1))`.
pub fn binary_standard_error(k: u64, n: u64) -> Option<f64> {
    let p = k as f64 / n as f64;
    (n > 1).then(|| (p * (1.0 - p) / (n - 1) as f64).sqrt())
}

/// Standard error of a mean over items that come in clusters (questions on one passage); `clusters` names that of each
/// item. To be used with Student's t of C − 1 degrees of freedom. None with fewer than two clusters.
pub fn clustered_standard_error(values: &[f64], clusters: &[usize]) -> Option<f64> {
    let centre = super::mean(values);
    let mut sums = std::collections::BTreeMap::<usize, f64>::new();
    for (value, cluster) in values.iter().zip(clusters) {
        *sums.entry(*cluster).or_default() += value - centre;
    }
    let n_clusters = sums.len() as f64;
    let squares: f64 = sums.values().map(|sum| sum * sum).sum();
    (sums.len() > 1).then(|| (n_clusters / (n_clusters - 1.0) * squares).sqrt() / values.len() as f64)
}

/// Standard error of a micro average (items pooled) from (items, standard error) of each task, as the harness pools
/// them. None where a task has none.
pub fn micro_standard_error(tasks: &[(u64, Option<f64>)]) -> Option<f64> {
    let total: u64 = tasks.iter().map(|(n, _)| n).sum();
    let mut pooled = 0.0;
    for (n, stderr) in tasks {
        pooled += (n.checked_sub(1)? * n) as f64 * (*stderr)?.powi(2);
    }
    let freedom = total.checked_sub(tasks.len() as u64).filter(|freedom| *freedom > 0)?;
    Some((pooled / freedom as f64 / total as f64).sqrt())
}

/// Standard error of a macro average (tasks weigh the same). None where a task has none.
pub fn macro_standard_error(tasks: &[Option<f64>]) -> Option<f64> {
    let squares: Option<f64> = tasks.iter().map(|stderr| stderr.map(|stderr| stderr * stderr)).sum();
    (!tasks.is_empty()).then_some(())?;
    Some(squares?.sqrt() / tasks.len() as f64)
}
