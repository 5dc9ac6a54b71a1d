//! A Gaussian process over one or two axes of length 1, given noisy values at some points (Rasmussen and Williams, *Gaussian
//! Processes for Machine Learning*, 2006): curves are smooth, and length and height of the kernel (squared exponential) are
//! averaged over by their likelihood, as a handful of points does not tell them.

use crate::stats::distribution::normal_quantile;
use crate::stats::random::word;

/// Lengths that are averaged over, in lengths of the axis.
const LENGTHS: [f64; 5] = [0.25, 0.4, 0.65, 1.0, 1.6];
/// Heights that are averaged over, in standard deviations of the values.
const HEIGHTS: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// Variance of the unknown mean, in squares of the height.
const MEAN: f64 = 10.0;
/// What keeps matrices of near-equal points invertible, in squares of the height.
const JITTER: f64 = 1e-10;
/// Variance that drawn curves may lack, in squares of the height.
const LACKING: f64 = 1e-10;
/// Less likely kernels are left out.
const LEAST: f64 = 0.005;

/// Values that were seen, with what is known of their errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Places, each coordinate from 0 to 1.
    pub places: Vec<Vec<f64>>,
    /// The value at each.
    pub values: Vec<f64>,
    /// Covariance of their errors: what all share says nothing of where the process is high.
    pub noise: Vec<Vec<f64>>,
}

/// Curves that the process may be, drawn at some places.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// The expected curve.
    pub mean: Vec<f64>,
    /// Curves, each with a value at every place.
    pub drawn: Vec<Vec<f64>>,
}

struct Kernel {
    lengths: Vec<f64>,
    height: f64,
}

impl Kernel {
    fn at(&self, a: &[f64], b: &[f64]) -> f64 {
        let square: f64 = a.iter().zip(b).zip(&self.lengths).map(|((a, b), length)| ((a - b) / length).powi(2)).sum();
        self.height.powi(2) * (MEAN + (-0.5 * square).exp())
    }

    fn between(&self, a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
        a.iter().map(|a| b.iter().map(|b| self.at(a, b)).collect()).collect()
    }
}

/// What a kernel makes of what was seen.
struct Fit {
    kernel: Kernel,
    /// Lower triangle of the covariance of the values.
    root: Vec<Vec<f64>>,
    log_likelihood: f64,
}

/// Draws `n` curves at `places`. A function of the seed. None of fewer than two points, or where errors are no numbers.
pub fn curves(seen: &Seen, places: &[Vec<f64>], n: usize, seed: u64) -> Option<Curves> {
    let n_seen = seen.values.len();
    let centre = seen.values.iter().sum::<f64>() / n_seen as f64;
    let values: Vec<f64> = seen.values.iter().map(|value| value - centre).collect();
    let spread = (values.iter().map(|value| value * value).sum::<f64>() / n_seen as f64).sqrt();
    let error = (0..n_seen).map(|place| seen.noise[place][place]).fold(0.0, f64::max).sqrt();
    // Of equal values nothing is known but that differences are smaller than their errors.
    let unit = if spread > 0.0 { spread } else { error.max(f64::MIN_POSITIVE.sqrt()) };
    let fits: Vec<Fit> = kernels(places.first()?.len(), unit)
        .filter_map(|kernel| {
            let mut covariance = kernel.between(&seen.places, &seen.places);
            for (place, row) in covariance.iter_mut().enumerate() {
                row.iter_mut().zip(&seen.noise[place]).for_each(|(own, noise)| *own += noise);
                row[place] += JITTER * kernel.height.powi(2);
            }
            let root = cholesky(covariance)?;
            let white = solve_lower(&root, &values);
            let determinant: f64 = (0..n_seen).map(|place| root[place][place].ln()).sum();
            let log_likelihood = -0.5 * white.iter().map(|value| value * value).sum::<f64>() - determinant;
            log_likelihood.is_finite().then_some(Fit { kernel, root, log_likelihood })
        })
        .collect();
    let best = fits.iter().map(|fit| fit.log_likelihood).reduce(f64::max)?;
    let weights: Vec<f64> = fits.iter().map(|fit| (fit.log_likelihood - best).exp()).collect();
    let likely: f64 = weights.iter().sum();
    let kept: Vec<(&Fit, f64)> = fits.iter().zip(weights).filter(|(_, weight)| *weight >= LEAST * likely).collect();
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let mut curves = Curves { mean: vec![0.0; places.len()], drawn: Vec::new() };
    let mut so_far = 0.0;
    for (fit, weight) in kept {
        so_far += weight / total;
        let upto = (so_far * n as f64).round() as usize;
        let (mean, parts) = fit.posterior(seen, &values, places);
        curves.mean.iter_mut().zip(&mean).for_each(|(sum, value)| *sum += value * weight / total);
        for draw in curves.drawn.len()..upto {
            let mut curve: Vec<f64> = mean.iter().map(|mean| centre + mean).collect();
            for (number, part) in parts.iter().enumerate() {
                let normal = normal(seed, draw as u64, number);
                curve.iter_mut().zip(part).for_each(|(value, part)| *value += normal * part);
            }
            curves.drawn.push(curve);
        }
    }
    curves.mean.iter_mut().for_each(|value| *value += centre);
    Some(curves)
}

fn kernels(n_axes: usize, unit: f64) -> impl Iterator<Item = Kernel> {
    let n_shapes = LENGTHS.len().pow(n_axes as u32);
    (0..n_shapes).flat_map(move |shape| {
        let length = |axis: usize| LENGTHS[shape / LENGTHS.len().pow(axis as u32) % LENGTHS.len()];
        let lengths: Vec<f64> = (0..n_axes).map(length).collect();
        HEIGHTS.iter().map(move |height| Kernel { lengths: lengths.clone(), height: height * unit })
    })
}

impl Fit {
    /// Mean at the places, and the parts that curves are made of: the sum of their products with themselves is the covariance.
    fn posterior(&self, seen: &Seen, values: &[f64], places: &[Vec<f64>]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let white = solve_lower(&self.root, values);
        let across = self.kernel.between(places, &seen.places);
        let half: Vec<Vec<f64>> = across.iter().map(|row| solve_lower(&self.root, row)).collect();
        let mean = half.iter().map(|half| product(half, &white)).collect();
        let covariance = |a: usize, b: usize| self.kernel.at(&places[a], &places[b]) - product(&half[a], &half[b]);
        (mean, parts(places.len(), &covariance, LACKING * self.kernel.height.powi(2)))
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Columns of the pivoted Cholesky factor of a covariance, until no place lacks more variance than `least`. That of a smooth
/// process has few.
fn parts(n: usize, covariance: &dyn Fn(usize, usize) -> f64, least: f64) -> Vec<Vec<f64>> {
    let mut left: Vec<f64> = (0..n).map(|place| covariance(place, place)).collect();
    let mut parts: Vec<Vec<f64>> = Vec::new();
    while parts.len() < n {
        let Some(pivot) = (0..n).max_by(|a, b| left[*a].total_cmp(&left[*b])).filter(|pivot| left[*pivot] > least)
        else {
            break;
        };
        let scale = left[pivot].sqrt();
        let entry = |place: usize| {
            let known: f64 = parts.iter().map(|part| part[place] * part[pivot]).sum();
            (covariance(place, pivot) - known) / scale
        };
        let part: Vec<f64> = (0..n).map(entry).collect();
        left.iter_mut().zip(&part).for_each(|(left, part)| *left -= part * part);
        left[pivot] = 0.0;
        parts.push(part);
    }
    parts
}

/// Lower triangle of a matrix whose square it is; of the matrix only the lower triangle is read. None where it has none.
fn cholesky(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for row in 0..matrix.len() {
        let (above, rest) = matrix.split_at_mut(row);
        let own = &mut rest[0];
        own.truncate(row + 1);
        for column in 0..=row {
            let (before, is_last) = (if column < row { &above[column] } else { &Vec::new() }, column == row);
            let dot = if is_last {
                own[..row].iter().map(|value| value * value).sum::<f64>()
            } else {
                own[..column].iter().zip(&before[..column]).map(|(a, b)| a * b).sum()
            };
            let rest = own[column] - dot;
            own[column] = if is_last { (rest > 0.0).then(|| rest.sqrt())? } else { rest / before[column] };
        }
    }
    Some(matrix)
}

/// Solves `root · x = right` for a lower triangle.
fn solve_lower(root: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let mut solved: Vec<f64> = Vec::with_capacity(right.len());
    for (row, right) in root.iter().zip(right) {
        let known: f64 = row.iter().zip(&solved).map(|(a, b)| a * b).sum();
        solved.push((right - known) / row[solved.len()]);
    }
    solved
}

/// A normal number at a place of a draw.
fn normal(seed: u64, draw: u64, place: usize) -> f64 {
    normal_quantile(((word(seed, draw, place as u64) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_through_what_was_seen_and_spread_where_nothing_was() {
        let places: Vec<Vec<f64>> = (0..=20).map(|place| vec![f64::from(place) / 20.0]).collect();
        let seen = Seen {
            places: vec![vec![0.0], vec![0.5], vec![1.0]],
            values: vec![1.0, 2.0, 1.5],
            noise: vec![vec![0.0; 3]; 3],
        };
        let curves = curves(&seen, &places, 500, 1).unwrap();
        assert_eq!(curves.drawn.len(), 500);
        let spread = |place: usize| {
            let values: Vec<f64> = curves.drawn.iter().map(|curve| curve[place]).collect();
            let mean = values.iter().sum::<f64>() / 500.0;
            (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 500.0).sqrt()
        };
        for (place, value) in [(0, 1.0), (10, 2.0), (20, 1.5)] {
            assert!((curves.mean[place] - value).abs() < 1e-3 && spread(place) < 1e-2, "{place}: {}", spread(place));
        }
        assert!(spread(5) > 0.05 && spread(15) > 0.05);
    }

    #[test]
    fn what_all_values_share_says_nothing_of_their_order() {
        let places = vec![vec![0.0], vec![1.0]];
        let noise = |own: f64, shared: f64| {
            let entry = |row: usize, column: usize| if row == column { own + shared } else { shared };
            (0..2).map(|row| (0..2).map(|column| entry(row, column)).collect()).collect()
        };
        let seen = |noise| Seen { places: places.clone(), values: vec![1.0, 1.1], noise };
        let higher = |noise: Vec<Vec<f64>>| {
            let curves = curves(&seen(noise), &places, 1000, 1).unwrap();
            curves.drawn.iter().filter(|curve| curve[1] > curve[0]).count()
        };
        assert!(higher(noise(1e-6, 1.0)) > 990, "errors of 1 that both have");
        assert!(higher(noise(1.0, 0.0)) < 700, "errors of 1 that each has for itself");
    }

    #[test]
    fn a_triangle_is_the_root_of_its_square() {
        let root = cholesky(vec![vec![4.0, 2.0], vec![2.0, 5.0]]).unwrap();
        assert_eq!(root, [vec![2.0], vec![1.0, 2.0]]);
        assert_eq!(solve_lower(&root, &[2.0, 5.0]), [1.0, 2.0]);
        assert_eq!(cholesky(vec![vec![1.0, 2.0], vec![2.0, 1.0]]), None);
    }
}
