//! The methods that work with angles: slerp, nuslerp, multislerp, karcher and model_stock.

use candle_core::{Result, Tensor};

use super::oracle::{Operands, Outcome, magnitudes, sum, weighted};
use crate::merge::method::Axis;

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a * b)?.sum_all()?.to_scalar()
}

fn norm(a: &Tensor) -> Result<f64> {
    Ok(dot(a, a)?.sqrt())
}

/// Factors of two vectors at that angle.
fn spherical(t: f64, cos: f64) -> [f64; 2] {
    let theta = cos.acos();
    [((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin()]
}

/// `sin((1 - t) theta) / sin theta a + sin(t theta) / sin theta c`; linear where `|cos theta| > 0.9995`.
pub fn slerp(x: &Operands, t: f64) -> Result<Outcome> {
    let unit = |v: &Tensor| {
        let norm = norm(v)?;
        v / if norm <= 1e-8 { 1.0 } else { norm }
    };
    let cos = dot(&unit(&x.inputs[0])?, &unit(&x.inputs[1])?)?.clamp(-1.0, 1.0);
    let factors = if cos.abs() > 0.9995 { [1.0 - t, t] } else { spherical(t, cos) };
    Ok(Outcome::plain(weighted(&factors, &x.inputs)?, magnitudes(&factors, &x.inputs)?))
}

/// `y = b + ns(t, x_1 - b, x_2 - b)` or `ns(t, x_1, x_2)`, for every vector along an axis.
pub fn nuslerp(x: &Operands, weights: [f64; 2], has_base: bool, axis: Axis) -> Result<Outcome> {
    let (base, models) = x.split(has_base);
    let total = weights[0] + weights[1];
    let t = if total.abs() < 1e-6 { 0.5 } else { weights[1] / total };
    let n = models[0].elem_count();
    let (rows, columns, along) = match axis {
        Axis::First if x.shape.len() > 1 => (x.shape[0], n / x.shape[0], 0),
        Axis::Last if x.shape.len() > 1 => (n / x.row_len(), x.row_len(), 1),
        _ => (1, n, 1),
    };
    let vectors = |model: &Tensor| match base {
        Some(base) => (model - base)?.reshape((rows, columns)),
        None => model.reshape((rows, columns)),
    };
    let (first, second) = (vectors(&models[0])?, vectors(&models[1])?);
    let unit = |v: &Tensor| v.broadcast_div(&v.sqr()?.sum_keepdim(along)?.sqrt()?.maximum(1e-7)?);
    let cosines = (unit(&first)? * unit(&second)?)?.sum_keepdim(along)?;
    let of_shape = cosines.dims().to_vec();
    // The test for vectors on one line is about a cosine as kernels hold it: opposite vectors are linear, not divided by
    // the sine of what rounding left.
    let cosines = x.in_registers(&cosines)?.flatten_all()?.to_vec1::<f64>()?;
    let factors: Vec<[f64; 2]> = cosines
        .iter()
        .map(|cos| cos.clamp(-1.0, 1.0))
        .map(|cos| if 1.0 - cos * cos <= 1e-16 { [1.0 - t, t] } else { spherical(t, cos) })
        .collect();
    // Next to opposite vectors, an angle known to so many digits gives factors known to fewer.
    let known = cosines.iter().map(|cos| if *cos < 0.0 { 1.0 / (1.0 - cos * cos).max(1e-16) } else { 1.0 });
    let column = |values: Vec<f64>| Tensor::from_vec(values, of_shape.as_slice(), first.device());
    let known = column(known.collect())?;
    let parts = [&first, &second]
        .into_iter()
        .enumerate()
        .map(|(index, v)| v.broadcast_mul(&column(factors.iter().map(|factors| factors[index]).collect())?));
    let parts: Vec<Tensor> = parts.collect::<Result<_>>()?;
    let blend = weighted(&[1.0, 1.0], &parts)?.flatten_all()?;
    let terms = magnitudes(&[1.0, 1.0], &parts)?.broadcast_mul(&known)?.flatten_all()?;
    on_base(base, blend, terms)
}

fn on_base(base: Option<&Tensor>, change: Tensor, terms: Tensor) -> Result<Outcome> {
    Ok(match base {
        Some(base) => Outcome::plain((base + change)?, (base.abs()? + terms)?),
        None => Outcome::plain(change, terms),
    })
}

/// `r = (m cos tau + T sin(tau) / tau) sum w_i |X_i|` with m the mean direction, T the mean tangent there and tau its norm.
pub fn multislerp(x: &Operands, weights: &[f64], has_base: bool, normalize_weights: bool, eps: f64) -> Result<Outcome> {
    let (base, models) = x.split(has_base);
    if let [only] = models {
        return Outcome::copy(only);
    }
    let vectors: Vec<Tensor> = match base {
        Some(base) => models.iter().map(|model| model - base).collect::<Result<_>>()?,
        None => models.to_vec(),
    };
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|w| if normalize_weights { w / total } else { *w }).collect();
    let norms: Vec<f64> = vectors.iter().map(norm).collect::<Result<_>>()?;
    let units: Vec<Tensor> = vectors.iter().zip(&norms).map(|(v, norm)| v / (norm + eps)).collect::<Result<_>>()?;
    let mean = weighted(&weights, &units)?;
    let length = norm(&mean)?;
    if length < eps {
        if vectors.len() > 2 {
            candle_core::bail!("the weighted directions of the models cancel out");
        }
        return on_base(base, weighted(&weights, &vectors)?, magnitudes(&weights, &vectors)?);
    }
    let mean = (mean / length)?;
    let dots: Vec<f64> = units.iter().map(|unit| dot(unit, &mean)).collect::<Result<_>>()?;
    let tangents = units.iter().zip(&dots).map(|(unit, dot)| unit - (&mean * *dot)?);
    let tangent = weighted(&weights, &tangents.collect::<Result<Vec<_>>>()?)?;
    let tau = norm(&tangent)? + eps;
    let radius: f64 = weights.iter().zip(&norms).map(|(weight, norm)| weight * norm).sum();
    let change = (((&mean * tau.cos())? + (tangent * (tau.sin() / tau))?)? * radius)?;
    let of_units = magnitudes(&weights, &units)?;
    let of_mean = (&of_units / length)?;
    let pull: f64 = weights.iter().zip(&dots).map(|(weight, dot)| (weight * dot).abs()).sum();
    let of_tangent = (of_units + (&of_mean * pull)?)?;
    let terms = ((of_mean * tau.cos().abs())? + (of_tangent * (tau.sin() / tau).abs())?)?;
    on_base(base, change, (terms * radius.abs())?)
}

/// The Karcher mean of the directions times the mean of the norms.
pub fn karcher(x: &Operands, max_iter: usize, tol: f64) -> Result<Outcome> {
    if let [only] = x.inputs.as_slice() {
        return Outcome::copy(only);
    }
    let norms: Vec<f64> = x.inputs.iter().map(norm).collect::<Result<_>>()?;
    // Models that are next to nothing have no direction, but count in the mean of the norms.
    let radius = norms.iter().sum::<f64>() / norms.len() as f64;
    let directed = x.inputs.iter().zip(&norms).filter(|(_, norm)| **norm > tol);
    let units: Vec<Tensor> = directed.map(|(v, norm)| v / *norm).collect::<Result<_>>()?;
    let Some(first) = units.first() else {
        let zeros = x.inputs[0].zeros_like()?;
        return Ok(Outcome::plain(zeros.clone(), zeros));
    };
    let alphas = vec![1.0 / units.len() as f64; units.len()];
    let start = weighted(&alphas, &units)?;
    let length = norm(&start)?;
    let mut mean = if length < tol { first.clone() } else { (start / length)? };
    for _ in 0..max_iter {
        let mut tangent = mean.zeros_like()?;
        for (unit, alpha) in units.iter().zip(&alphas) {
            let cos = dot(&mean, unit)?.clamp(-1.0, 1.0);
            let theta = cos.acos();
            if theta >= tol {
                tangent = (tangent + ((unit - (&mean * cos)?)? * (alpha * theta / theta.sin()))?)?;
            }
        }
        let step = norm(&tangent)?;
        if step < tol {
            break;
        }
        mean = ((mean * step.cos())? + (tangent * (step.sin() / step))?)?;
        let length = norm(&mean)?;
        mean = (mean / length)?;
    }
    // Directions that nearly cancel give a mean known to fewer digits.
    let terms = (magnitudes(&alphas, &units)? * (radius / length.clamp(tol, 1.0)))?;
    Ok(Outcome::plain((mean * radius)?, terms))
}

/// `y = t mean(x) + (1 - t) b` with `t = n cos / (1 + (n - 1) cos)`, cos the mean over all pairs of task vectors.
pub fn model_stock(x: &Operands, filter_wise: bool) -> Result<Outcome> {
    let (base, models) = (&x.inputs[0], &x.inputs[1..]);
    let (count, n) = (models.len(), models.len() as f64);
    let len = if filter_wise { x.row_len() } else { base.elem_count() };
    let rows = base.elem_count() / len;
    let offsets = models.iter().map(|model| (model - base)?.reshape((rows, len)));
    let offsets: Vec<Tensor> = offsets.collect::<Result<_>>()?;
    let norms: Vec<Tensor> =
        offsets.iter().map(|offset| offset.sqr()?.sum_keepdim(1)?.sqrt()).collect::<Result<_>>()?;
    let pairs = (0..count).flat_map(|i| (0..i).map(move |j| (i, j)));
    let cosines = pairs.map(|(i, j)| {
        let product = (&offsets[i] * &offsets[j])?.sum_keepdim(1)?;
        (product / (&norms[i] * &norms[j])?.maximum(1e-6)?)?.clamp(-1.0, 1.0)
    });
    let cosine = (sum(cosines, &norms[0])? / (n * (n - 1.0) / 2.0))?;
    let divisor = cosine.affine(n - 1.0, 1.0)?;
    let share = ((cosine * n)? / &divisor)?;
    let share = divisor.abs()?.lt(1e-6)?.where_cond(&share.zeros_like()?, &share)?;
    let average = weighted(&vec![1.0 / n; count], models)?.reshape((rows, len))?;
    let theirs = average.broadcast_mul(&share)?.flatten_all()?;
    let ours = base.reshape((rows, len))?.broadcast_mul(&share.affine(-1.0, 1.0)?)?.flatten_all()?;
    let sizes = magnitudes(&vec![1.0 / n; count], models)?.reshape((rows, len))?;
    let terms = (sizes.broadcast_mul(&share.abs()?)?.flatten_all()? + ours.abs()?)?;
    Ok(Outcome::plain((theirs + ours)?, terms))
}
