"""What a merge would be without any rounding: the deterministic methods of mergekit in 64 bits, from their formulas.

Written from the papers and from mergekit's documented behaviour, not from either program, for `compare_numerics.py --oracle`.
Inputs are tensors of float64 whose numbers are those of the working format. Of equal magnitudes at a cut the earlier stays.
"""

import itertools
import math

import torch

CONSENSUS = {"ties", "breadcrumbs_ties"}
TASK_VECTORS = {"task_arithmetic", "ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties"}
# Methods that compare numbers with each other: an element as close to a boundary as rounding may go either way.
DECIDING = {"ties", "breadcrumbs", "breadcrumbs_ties", "sce", "ram", "ramplus_tl", "arcee_fusion"}


def merged(document, inputs):
    """One output tensor; `inputs` has the tensor of every model by its name in the config."""
    method, base = document["merge_method"], document.get("base_model")
    shared = document.get("parameters", {})
    listed = [(entry["model"], entry.get("parameters", {})) for entry in document["models"]]
    if method == "linear":
        total = sum(own["weight"] * inputs[model] for model, own in listed)
        return total / sum(own["weight"] for _, own in listed) if shared.get("normalize", True) else total
    if method == "passthrough":
        ((model, own),) = listed
        return inputs[model] * own.get("scale", 1.0)
    if method == "karcher":
        return karcher([inputs[model] for model, _ in listed], shared.get("max_iter", 10), shared.get("tol", 1e-5))
    others = [(inputs[model], own) for model, own in listed if model != base]
    b = inputs[base] if base is not None else None
    if method in TASK_VECTORS:
        return task_vectors(method, b, others, shared)
    vectors = [x for x, _ in others]
    weights = [own.get("weight", 1.0) for _, own in others]
    if method == "slerp":
        return slerp(shared["t"], b, vectors[0])
    if method == "nearswap":
        w = (shared["t"] / (b - vectors[0]).abs().clamp(min=1e-6)).clamp(0, 1)
        return w * vectors[0] + (1 - w) * b
    if method == "nuslerp":
        return nuslerp(vectors, weights, b, shared)
    if method == "multislerp":
        return multislerp(vectors, weights, b, shared)
    deltas = [x - b for x in vectors]
    if method == "model_stock":
        return model_stock(b, vectors, deltas, shared.get("filter_wise", False))
    if method == "sce":
        return b + sce(deltas, shared.get("select_topk", 1.0))
    if method in ("ram", "ramplus_tl"):
        return b + ram(deltas, shared, method == "ramplus_tl")
    if method == "arcee_fusion":
        return arcee_fusion(b, vectors[0])
    raise ValueError(method)


def kept(magnitudes, first, end):
    """A mask of the ranks first..end of the ascending order; of equal magnitudes the earlier ones stay at the upper end."""
    mask = torch.zeros(magnitudes.numel(), dtype=torch.bool)
    mask[torch.sort(magnitudes.flatten(), stable=True).indices[first:end]] = True
    return mask.view_as(magnitudes)


def largest(magnitudes, count):
    """A mask of the largest, the earlier of equal ones."""
    mask = torch.zeros(magnitudes.numel(), dtype=torch.bool)
    mask[torch.sort(magnitudes.flatten(), descending=True, stable=True).indices[:count]] = True
    return mask.view_as(magnitudes)


def task_vectors(method, b, others, shared):
    weighted, weights = [], []
    rescale = shared.get("rescale", method == "dare_linear")
    for x, own in others:
        delta, density, n = x - b, own.get("density", shared.get("density", 1.0)), b.numel()
        if density < 1:
            if method == "ties":
                mask = largest(delta.abs(), max(1, int(density * n)))
            else:
                stay = int(density * n)
                bottom = max(0, n - stay - int(own.get("gamma", 0.01) * n))
                mask = kept(delta.abs(), bottom, bottom + stay)
            thin = delta * mask
            full, part = delta.abs().sum(), thin.abs().sum()
            delta = thin * (full / part) if rescale and full >= 1e-7 and part >= 1e-7 else thin
        weighted.append(own["weight"] * delta)
        weights.append(own["weight"])
    total, divisor = sum(weighted), sum(weights)
    if method in CONSENSUS:
        sign = torch.where(total >= 0, 1.0, -1.0)
        agree = [torch.sign(delta) == sign for delta in weighted]
        total = sum(delta * mask for delta, mask in zip(weighted, agree))
        divisor = sum(weight * mask.double() for weight, mask in zip(weights, agree))
        divisor = torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    elif abs(divisor) < 1e-8:
        divisor = 1.0
    if shared.get("normalize", method == "ties"):
        total = total / divisor
    return b + shared.get("lambda", 1.0) * total


def slerp(t, a, c):
    unit = lambda v: v / (v.norm() if v.norm() > 1e-8 else 1.0)
    cos = (unit(a) * unit(c)).sum().clamp(-1, 1)
    if cos.abs() > 0.9995:
        return (1 - t) * a + t * c
    theta = torch.arccos(cos)
    return (torch.sin((1 - t) * theta) * a + torch.sin(t * theta) * c) / torch.sin(theta)


def nuslerp(vectors, weights, b, shared):
    total = sum(weights)
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    x, y = [v if b is None else v - b for v in vectors]
    shape = x.shape
    if shared.get("nuslerp_flatten", True) or x.dim() < 2:
        x, y, axis = x.flatten(), y.flatten(), -1
    else:
        axis = 0 if shared.get("nuslerp_row_wise", False) else -1
    unit = lambda v: v / v.norm(dim=axis, keepdim=True).clamp(min=1e-7)
    cos = (unit(x) * unit(y)).sum(dim=axis, keepdim=True).clamp(-1, 1)
    theta = torch.arccos(cos)
    curved = (torch.sin((1 - t) * theta) * x + torch.sin(t * theta) * y) / torch.sin(theta)
    out = torch.where(1 - cos * cos <= 1e-16, (1 - t) * x + t * y, curved).view(shape)
    return out if b is None else b + out


def multislerp(vectors, weights, b, shared):
    vectors = [v if b is None else v - b for v in vectors]
    eps, total = shared.get("eps", 1e-8), sum(weights)
    if shared.get("normalize_weights", True):
        weights = [weight / total for weight in weights]
    units = [v / (v.norm() + eps) for v in vectors]
    mean = sum(w * u for w, u in zip(weights, units))
    if mean.norm() < eps:
        out = sum(w * v for w, v in zip(weights, vectors))
    else:
        mean = mean / mean.norm()
        tangent = sum(w * (u - (u * mean).sum() * mean) for w, u in zip(weights, units))
        tau = tangent.norm() + eps
        out = (mean * torch.cos(tau) + tangent * torch.sin(tau) / tau) * sum(w * v.norm() for w, v in zip(weights, vectors))
    return out if b is None else b + out


def karcher(vectors, max_iter, tol):
    if len(vectors) == 1:
        return vectors[0]
    norms = [v.norm() for v in vectors]
    units = [v / norm for v, norm in zip(vectors, norms) if norm > tol]
    if not units:
        return torch.zeros_like(vectors[0])
    mean = sum(units) / len(units)
    mean = mean / mean.norm() if mean.norm() >= tol else units[0]
    for _ in range(max_iter):
        tangent = torch.zeros_like(mean)
        for unit in units:
            theta = torch.arccos((mean * unit).sum().clamp(-1, 1))
            if theta >= tol:
                tangent = tangent + theta / torch.sin(theta) * (unit - torch.cos(theta) * mean) / len(units)
        length = tangent.norm()
        if length < tol:
            break
        mean = torch.cos(length) * mean + torch.sin(length) * tangent / length
        mean = mean / mean.norm()
    return mean * (sum(norms) / len(norms))


def model_stock(b, vectors, deltas, filter_wise):
    n = len(deltas)
    rows = deltas if filter_wise and b.dim() > 1 else [delta.flatten() for delta in deltas]
    cosines = [
        ((x * y).sum(-1, keepdim=True) / (x.norm(dim=-1, keepdim=True) * y.norm(dim=-1, keepdim=True)).clamp(min=1e-6)).clamp(-1, 1)
        for x, y in itertools.combinations(rows, 2)
    ]
    cos = sum(cosines) / len(cosines)
    below = 1 + (n - 1) * cos
    t = torch.where(below.abs() < 1e-6, torch.zeros_like(below), n * cos / below)
    return t * sum(vectors) / n + (1 - t) * b


def sce(deltas, share):
    if share < 1:
        variance = torch.stack(deltas).var(dim=0, unbiased=False)
        count = int(share * int((variance != 0).sum()))
        mask = largest(variance, count) if count > 0 else torch.zeros_like(variance, dtype=torch.bool)
        deltas = [delta * mask for delta in deltas]
    energies = [(delta * delta).mean() for delta in deltas]
    total = sum(energies)
    weights = [energy / total for energy in energies] if total >= 1e-6 else [1 / len(deltas)] * len(deltas)
    sign = torch.where(sum(deltas) >= 0, 1.0, -1.0)
    agree = [torch.sign(delta) == sign for delta in deltas]
    above = sum(weight * delta * mask for weight, delta, mask in zip(weights, deltas, agree))
    below = sum(weight * mask.double() for weight, mask in zip(weights, agree))
    return above / below.clamp(min=1e-6)


def ram(deltas, shared, scaled):
    epsilon = shared.get("epsilon", 1e-5)
    changed = [delta.abs() > epsilon for delta in deltas]
    count = sum(mask.double() for mask in changed)
    total = sum(delta * mask for delta, mask in zip(deltas, changed))
    out = torch.where(count > 1, total / count.clamp(min=1), torch.zeros_like(total))
    for delta, mask in zip(deltas, changed):
        alone = mask & (count == 1)
        factor = 1.0
        if scaled:
            ratio = int((mask & (count > 1)).sum()) / max(int(alone.sum()), epsilon)
            factor = 1 + shared.get("r", 0.1) * min(max(ratio, 0.0), shared.get("alpha", 0.2))
        out = torch.where(alone, factor * delta, out)
    return out


def arcee_fusion(a, c):
    p, q = (torch.softmax(v, dim=-1) + 1e-8 for v in (c, a))
    importance = (c - a).abs() * (p * torch.log(p / q)).sum(dim=-1, keepdim=True)
    ordered = torch.sort(importance.flatten()).values
    quartile = lambda share: ordered[math.floor(share * (ordered.numel() - 1))]
    threshold = quartile(0.5) + 1.5 * (quartile(0.75) - quartile(0.25))
    return torch.where(importance >= threshold, c, a)
