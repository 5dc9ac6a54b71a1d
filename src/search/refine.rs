//! Which points of one or two axes to ask next: those where, as far as the answers tell, the optimum can still be.
//!
//! The objective over the axes is a Gaussian process ([`super::gaussian`]). The error of a point is that of its documents, and
//! points share them: what makes a document hard for all says nothing. Curves are drawn that the process may be; where their
//! optima lie is the interval of the optimum, and a point is worth asking by how much the curves exceed there, on average, the
//! best of the points that were asked (the expected improvement of Jones, Schonlau and Welch 1998).

use serde::{Deserialize, Serialize};

use super::gaussian::{self, Seen};
use super::objective::Measure;
use crate::stats::bootstrap::percentile_interval;
use crate::stats::{Interval, Items};

/// When points are worth asking.
#[derive(Debug, Clone, PartialEq)]
pub struct Aim {
    /// Width of the interval of the optimum, as a share of the axis, that is narrow enough.
    pub width: f64,
    /// Confidence of that interval.
    pub confidence: f64,
    /// Points that are asked at most, those of the grid among them.
    pub most: usize,
    /// Points that are chosen at once.
    pub batch: usize,
}

/// Width where the spec names none.
pub const WIDTH: f64 = 0.1;
/// Most points where the spec names none.
pub const MOST: usize = 12;

/// An expected gain is no gain below this share of the standard error of the best point's difference from the mean of all.
const NO_GAIN: f64 = 0.02;

/// Places of an axis, by how many axes there are.
const PLACES: [usize; 2] = [101, 41];

/// Curves that are drawn.
const DRAWS: usize = 1_000;

/// A point that has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its place, each coordinate from 0 to 1.
    pub at: Vec<f64>,
    /// What it scored, column by column, on the same documents as the others.
    pub columns: Vec<Items>,
}

/// What the answers say of the optimum.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Where the expected curve is highest.
    pub optimum: Vec<f64>,
    /// Where the optimum lies, axis by axis, with the confidence asked for.
    pub intervals: Vec<Interval>,
    /// What the best of the next points is expected to gain over the best so far.
    pub gain: f64,
    /// Points to ask next; none where that is over.
    pub next: Vec<Vec<f64>>,
    /// Why it goes on, or why not.
    pub verdict: Verdict,
}

/// Why a refinement goes on, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Further points are worth asking.
    Open,
    /// The interval of the optimum is narrow enough.
    Narrow,
    /// No point is expected to gain anything that its documents could show.
    NoGain,
    /// As many points were asked as may be.
    Spent,
}

impl Verdict {
    /// For a sentence about why it ended.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Open => "it goes on",
            Self::Narrow => "the interval of the optimum is narrow enough",
            Self::NoGain => "no further point is expected to gain what these documents could show",
            Self::Spent => "as many points were asked as may be",
        }
    }
}

/// Looks at what was answered. Nothing is asked next to places that are closed. None where points hold different things, or
/// there are fewer than two.
pub fn outlook(
    aim: &Aim,
    measures: &[Measure],
    weights: &[f64],
    points: &[Point],
    closed: &[Vec<f64>],
    seed: u64,
) -> Option<Outlook> {
    let n_axes = points.first()?.at.len();
    let values: Vec<f64> = points.iter().map(|point| objective(measures, weights, point)).collect();
    let noise = covariance(measures, weights, points)?;
    let leader = (0..points.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]))?;
    let error = error_from_mean(&noise, leader);
    let asked: Vec<Vec<f64>> = points.iter().map(|point| point.at.clone()).collect();
    let mut places = lattice(n_axes)?;
    let n_free = places.len();
    places.extend(asked.iter().cloned());
    let seen = Seen { places: asked.clone(), values, noise };
    (points.len() > 1).then_some(())?;
    let curves = gaussian::curves(&seen, &places, DRAWS, seed)?;
    let highest = |curve: &[f64]| (0..curve.len()).max_by(|a, b| curve[*a].total_cmp(&curve[*b])).unwrap_or_default();
    let optima: Vec<&Vec<f64>> = curves.drawn.iter().map(|curve| &places[highest(curve)]).collect();
    let tail = (1.0 - aim.confidence) / 2.0;
    let interval = |axis: usize| {
        let mut along: Vec<f64> = optima.iter().map(|place| place[axis]).collect();
        along.sort_by(f64::total_cmp);
        percentile_interval(&along, tail, 1.0 - tail)
    };
    let intervals: Vec<Interval> = (0..n_axes).map(interval).collect::<Option<_>>()?;
    let optimum = places[highest(&curves.mean)].clone();

    // Nearer than this to a point that was asked there is nothing to learn.
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > aim.width / 4.0);
    let mut best: Vec<f64> =
        curves.drawn.iter().map(|curve| curve[n_free..].iter().copied().fold(f64::MIN, f64::max)).collect();
    let (mut next, mut gain) = (Vec::new(), None);
    for _ in 0..aim.batch.min(aim.most.saturating_sub(points.len())).max(1) {
        let taken = asked.iter().chain(closed).chain(&next).collect::<Vec<&Vec<f64>>>();
        let free = (0..n_free).filter(|place| taken.iter().all(|taken| apart(&places[*place], taken)));
        let gains = free.map(|place| {
            let over = curves.drawn.iter().zip(&best).map(|(curve, best)| (curve[place] - best).max(0.0));
            (place, over.sum::<f64>() / curves.drawn.len() as f64)
        });
        let Some((place, of_place)) = gains.max_by(|a, b| a.1.total_cmp(&b.1)) else { break };
        gain = gain.or(Some(of_place));
        if of_place < NO_GAIN * error {
            break;
        }
        next.push(places[place].clone());
        best.iter_mut().zip(&curves.drawn).for_each(|(best, curve)| *best = best.max(curve[place]));
    }
    let verdict = if intervals.iter().all(|interval| interval.high - interval.low <= aim.width) {
        Verdict::Narrow
    } else if points.len() >= aim.most {
        Verdict::Spent
    } else if next.is_empty() {
        Verdict::NoGain
    } else {
        Verdict::Open
    };
    if verdict != Verdict::Open {
        next.clear();
    }
    Some(Outlook { optimum, intervals, gain: gain.unwrap_or_default(), next, verdict })
}

/// The objective of a point, larger is better.
pub fn objective(measures: &[Measure], weights: &[f64], point: &Point) -> f64 {
    let columns = measures.iter().zip(weights).zip(&point.columns);
    columns.map(|((measure, weight), items)| weight * measure.turned(items.score())).sum()
}

/// Covariance of the objectives of points over draws of their documents, to first order: documents of a task are drawn
/// together for all points and columns. None where points hold different things.
fn covariance(measures: &[Measure], weights: &[f64], points: &[Point]) -> Option<Vec<Vec<f64>>> {
    let mut tasks: Vec<&str> = measures.iter().map(|measure| measure.task.as_str()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let mut covariance = vec![vec![0.0; points.len()]; points.len()];
    for task in tasks {
        let columns: Vec<usize> = (0..measures.len()).filter(|column| measures[*column].task == task).collect();
        let n = points.first()?.columns.get(*columns.first()?)?.len();
        let mut pulls = vec![vec![0.0; n]; points.len()];
        for (point, pull) in points.iter().zip(&mut pulls) {
            for column in &columns {
                let influence = point.columns.get(*column)?.influence();
                (influence.len() == n).then_some(())?;
                let mean = influence.iter().sum::<f64>() / n as f64;
                let weight = measures[*column].turned(weights[*column]);
                pull.iter_mut().zip(influence).for_each(|(sum, of_document)| *sum += weight * (of_document - mean));
            }
        }
        let scale = (n as f64 * (n as f64 - 1.0)).max(1.0);
        for (row, a) in pulls.iter().enumerate() {
            for (column, b) in pulls.iter().enumerate() {
                covariance[row][column] += a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / scale;
            }
        }
    }
    Some(covariance)
}

/// Standard error of the difference of a point from the mean of all.
fn error_from_mean(noise: &[Vec<f64>], point: usize) -> f64 {
    let n = noise.len() as f64;
    let of_mean = noise.iter().flatten().sum::<f64>() / (n * n);
    let with_mean = noise[point].iter().sum::<f64>() / n;
    (noise[point][point] - 2.0 * with_mean + of_mean).max(0.0).sqrt()
}

/// All places that may be asked, evenly over the axes. None of more axes than two.
fn lattice(n_axes: usize) -> Option<Vec<Vec<f64>>> {
    let n = *PLACES.get(n_axes.checked_sub(1)?)?;
    let coordinate = |place: usize| place as f64 / (n - 1) as f64;
    let place = |number: usize| (0..n_axes).map(|axis| coordinate(number / n.pow(axis as u32) % n)).collect();
    Some((0..n.pow(n_axes as u32)).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::random::word;
    use crate::stats::ratio::Scale;

    fn aim() -> Aim {
        Aim { width: WIDTH, confidence: 0.9, most: MOST, batch: 1 }
    }

    fn measure() -> Measure {
        Measure { column: "loss".to_owned(), task: "t".to_owned(), higher_is_better: false }
    }

    fn uniform(seed: u64, draw: u64, place: usize) -> f64 {
        (word(seed, draw, place as u64) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A point on a curve of losses: documents differ widely, and pull the same way everywhere but for a little.
    fn point(seed: u64, at: f64, loss: f64, n: usize) -> Point {
        let draw = 2 + (at * 1e6) as u64;
        let item = |document: usize| {
            let units = 50.0 + 100.0 * uniform(seed, 0, document);
            let own = 0.05 * (uniform(seed, draw, document) - 0.5);
            ((loss + 0.5 * uniform(seed, 1, document) + own) * units, units)
        };
        Point { at: vec![at], columns: vec![Items::Ratio((0..n).map(item).collect(), Scale::Bits)] }
    }

    /// From three points on, until it stops.
    fn refine(seed: u64, curve: &dyn Fn(f64) -> f64) -> (Outlook, usize) {
        let mut points: Vec<Point> = [0.0, 0.5, 1.0].iter().map(|at| point(seed, *at, curve(*at), 100)).collect();
        loop {
            let outlook = outlook(&aim(), &[measure()], &[1.0], &points, &[], seed).unwrap();
            if outlook.next.is_empty() {
                return (outlook, points.len());
            }
            points.extend(outlook.next.iter().map(|at| point(seed, at[0], curve(at[0]), 100)));
        }
    }

    #[test]
    fn the_optimum_of_a_curve_is_found_with_fewer_than_seven_points() {
        let (mut n_points, mut n_off, mut n_outside) = (0, 0, 0);
        for study in 0..100 {
            let best = 0.15 + 0.7 * f64::from(study) / 100.0;
            let (outlook, n) = refine(u64::from(study as u32), &|t| 0.8 * (t - best).powi(2) / (1.0 + t));
            n_points += usize::from(n >= 7);
            let found = outlook.optimum[0];
            n_off += usize::from((found - best).abs() > 0.05);
            let Interval { low, high } = outlook.intervals[0];
            n_outside += usize::from(!(low - 0.01..=high + 0.01).contains(&best));
        }
        println!(
            "of 100: {n_points} took 7 points or more, {n_off} off by more than .05, {n_outside} outside its interval"
        );
        assert!(n_points <= 5 && n_off <= 5 && n_outside <= 20, "{n_points} {n_off} {n_outside}");
    }

    #[test]
    fn where_nothing_differs_no_further_point_pays() {
        let (outlook, n) = refine(1, &|_| 0.3);
        assert!(matches!(outlook.verdict, Verdict::NoGain | Verdict::Spent), "{outlook:?} after {n}");
        assert!(outlook.intervals[0].high - outlook.intervals[0].low > 0.5, "{outlook:?}");
    }

    #[test]
    fn a_slope_has_its_optimum_at_the_end() {
        let (outlook, n) = refine(3, &|t| 0.4 - 0.3 * t);
        assert_eq!(outlook.optimum, [1.0]);
        assert!(n <= 5, "{n} points");
    }

    #[test]
    fn of_two_axes_the_optimum_is_found_too() {
        let at = |seed: u64, x: f64, y: f64| Point {
            at: vec![x, y],
            ..point(seed, x + 10.0 * y, (x - 0.3).powi(2) + 0.5 * (y - 0.7).powi(2), 100)
        };
        let mut points: Vec<Point> = (0..9).map(|n| at(5, f64::from(n % 3) / 2.0, f64::from(n / 3) / 2.0)).collect();
        let aim = Aim { width: 0.2, most: 16, batch: 2, ..aim() };
        let last = loop {
            let outlook = outlook(&aim, &[measure()], &[1.0], &points, &[], 5).unwrap();
            if outlook.next.is_empty() {
                break outlook;
            }
            assert!(outlook.next.len() <= 2);
            points.extend(outlook.next.iter().map(|place| at(5, place[0], place[1])));
        };
        assert!((last.optimum[0] - 0.3).abs() < 0.11 && (last.optimum[1] - 0.7).abs() < 0.16, "{last:?}");
        assert_eq!(
            outlook(&aim, &[measure()], &[1.0], &points, &[], 5),
            Some(last),
            "the same answers, the same outlook"
        );
    }
}
