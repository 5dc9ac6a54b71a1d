//! The distributions that tests and intervals need: normal, binomial, beta, Student's t. Accurate to about 1e-12, which is
//! far below anything shown.

/// `ln Γ(x)` for x > 0 (Lanczos, g = 7, nine terms: about 15 digits).
pub fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let sum = TERMS.iter().enumerate().skip(1).fold(TERMS[0], |sum, (index, term)| sum + term / (x + index as f64));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// `P[X = k]`, X ~ Binomial(n, p).
pub fn binomial_mass(k: u64, n: u64, p: f64) -> f64 {
    if k > n {
        return 0.0;
    }
    let (k, n) = (k as f64, n as f64);
    let power = |count: f64, p: f64| if count > 0.0 { count * p.ln() } else { 0.0 };
    let ways = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    (ways + power(k, p) + power(n - k, 1.0 - p)).exp()
}

/// `P[X ≤ k]`, X ~ Binomial(n, ½). Exact where every term is a whole number of 2⁻ⁿ, which doubles hold up to n = 52.
pub fn fair_binomial_up_to(k: u64, n: u64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if n > 52 {
        return (0..=k).map(|k| binomial_mass(k, n, 0.5)).sum::<f64>().min(1.0);
    }
    let (mut ways, mut total) = (1_u64, 1_u64);
    for i in 1..=k {
        // Divides without a rest: it is C(n, i).
        ways = u64::try_from(u128::from(ways) * u128::from(n - i + 1) / u128::from(i)).unwrap_or(u64::MAX);
        total += ways;
    }
    total as f64 / (1_u64 << n) as f64
}

/// Cumulative distribution of the standard normal.
pub fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 7.0 {
        // The series loses its digits in the far tails; 1e-12 is as good as nothing here.
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (mut term, mut sum, mut divisor) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        divisor += 2.0;
        term *= x * x / divisor;
        sum += term;
    }
    0.5 + density * sum
}

/// The standard normal's quantile, 0 < p < 1: 1.959964 for .975.
pub fn normal_quantile(p: f64) -> f64 {
    solve(-7.0, 7.0, |x| normal_cdf(x) < p)
}

/// Regularised incomplete beta function `I_x(a, b)`, the cumulative distribution of Beta(a, b) (continued fraction by
/// Lentz' method; Numerical Recipes 6.4 has the same form).
pub fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    // The fraction converges fast on one side of the mean; the other side is its mirror.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cdf(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let nonzero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for step in 1..2000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for numerator in [even, odd] {
            d = 1.0 / nonzero(1.0 + numerator * d);
            c = nonzero(1.0 + numerator / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    front * fraction
}

/// Quantile of Beta(a, b).
pub fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    solve(0.0, 1.0, |x| beta_cdf(x, a, b) < p)
}

/// Cumulative distribution of Student's t with `df` degrees of freedom.
pub fn t_cdf(t: f64, df: f64) -> f64 {
    let tail = 0.5 * beta_cdf(df / (df + t * t), df / 2.0, 0.5);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// Quantile of Student's t, .5 ≤ p < 1.
pub fn t_quantile(p: f64, df: f64) -> f64 {
    solve(0.0, 1e4, |t| t_cdf(t, df) < p)
}

/// The place between `low` and `high` where a monotone question turns from yes to no.
pub(super) fn solve(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    // Halved until neighbouring doubles are reached, from any width used here.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if is_below(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        near(normal_quantile(0.975), 1.959_963_985);
        near(normal_quantile(0.95), 1.644_853_627);
        near(normal_cdf(-3.0), 0.001_349_898);
        near(t_quantile(0.975, 9.0), 2.262_157_163);
        near(t_quantile(0.95, 163.0), 1.654_255_585);
        near(beta_quantile(0.5, 1.0, 1.0), 0.5);
        near(beta_cdf(0.3, 2.0, 5.0), 0.579_825);
    }

    #[test]
    fn binomial_sums_agree_in_both_forms() {
        for (k, n) in [(0, 1), (3, 10), (20, 52), (26, 52)] {
            let sum: f64 = (0..=k).map(|k| binomial_mass(k, n, 0.5)).sum();
            assert!((fair_binomial_up_to(k, n) - sum).abs() < 1e-12);
        }
        near((0..=60).map(|k| binomial_mass(k, 60, 0.03)).sum(), 1.0);
    }
}
