#!/usr/bin/env python3
"""Makes tests/fixtures/stats/vectors.json: expected values for the statistics of `src/stats`, computed here from the
definitions with exact fractions and full enumeration, sharing no code with the program. Standard library only.

    python3 scripts/stats_vectors.py > tests/fixtures/stats/vectors.json
"""

import itertools
import json
import math
import random
from fractions import Fraction
from statistics import NormalDist

Z = NormalDist().inv_cdf


def mcnemar(b, c):
    m = b + c
    tail = sum(Fraction(math.comb(m, i), 2**m) for i in range(min(b, c) + 1))
    return float(min(Fraction(1), 2 * tail))


def mcnemar_worse(b, c):
    m = b + c
    return float(sum(Fraction(math.comb(m, i), 2**m) for i in range(c, m + 1)))


def wilson(k, n, z=Z(0.975)):
    """The roots of (p - k/n)^2 = z^2 p(1-p)/n, from the quadratic formula."""
    p = k / n
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return [(-b - root) / (2 * a) if k else 0.0, (-b + root) / (2 * a) if k < n else 1.0]


def upper_tail(k, n, p):
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def bisect(f, low=0.0, high=1.0):
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) else (low, middle)
    return low


def clopper_pearson(k, n):
    low = 0.0 if k == 0 else bisect(lambda p: upper_tail(k, n, p) < 0.025)
    high = 1.0 if k == n else bisect(lambda p: 1 - upper_tail(k + 1, n, p) > 0.025)
    return [low, high]


def bonett_price(b, c, n, z):
    p1, p2 = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = z * math.sqrt((p1 + p2 - (p1 - p2) ** 2) / (n + 2))
    return [p1 - p2 - half, p1 - p2 + half]


def sign_flip(d):
    observed = abs(sum(d))
    as_large = sum(abs(sum(s * x for s, x in zip(signs, d))) >= observed - 1e-12 for signs in itertools.product((1, -1), repeat=len(d)))
    return as_large / 2 ** len(d)


def loss(items, kind):
    r = math.fsum(x for x, _ in items) / math.fsum(w for _, w in items)
    return r / math.log(2) if kind == "bits" else math.exp(r)


def swap(a, b, kind):
    observed = abs(loss(a, kind) - loss(b, kind))
    as_large = 0
    for pattern in itertools.product((False, True), repeat=len(a)):
        first = [y if s else x for s, x, y in zip(pattern, a, b)]
        second = [x if s else y for s, x, y in zip(pattern, a, b)]
        as_large += abs(loss(first, kind) - loss(second, kind)) >= observed - 1e-12
    return as_large / 2 ** len(a)


def ratio_se(items, kind):
    """Delta method from the covariance matrix of (mean loss, mean units), the textbook's other way to write it."""
    n = len(items)
    mx, mw = sum(x for x, _ in items) / n, sum(w for _, w in items) / n
    vx = sum((x - mx) ** 2 for x, _ in items) / (n - 1)
    vw = sum((w - mw) ** 2 for _, w in items) / (n - 1)
    cov = sum((x - mx) * (w - mw) for x, w in items) / (n - 1)
    r = mx / mw
    var = (vx - 2 * r * cov + r * r * vw) / (mw * mw) / n
    slope = 1 / math.log(2) if kind == "bits" else math.exp(r)
    return slope * math.sqrt(var)


def ratio_difference_se(a, b, kind):
    """The same with the four means (x_a, w_a, x_b, w_b) and the gradient of the difference."""
    n = len(a)
    columns = [[x for x, _ in a], [w for _, w in a], [x for x, _ in b], [w for _, w in b]]
    means = [sum(c) / n for c in columns]
    cov = [[sum((u - mu) * (v - mv) for u, v in zip(cu, cv)) / (n - 1) for cv, mv in zip(columns, means)] for cu, mu in zip(columns, means)]
    slope = (lambda r: 1 / math.log(2)) if kind == "bits" else math.exp
    ra, rb = means[0] / means[1], means[2] / means[3]
    g = [slope(ra) / means[1], -slope(ra) * ra / means[1], -slope(rb) / means[3], slope(rb) * rb / means[3]]
    return math.sqrt(sum(g[i] * g[j] * cov[i][j] for i in range(4) for j in range(4)) / n)


def mcnemar_power(n, psi, delta):
    total = 0.0
    share = (psi + delta) / (2 * psi)
    for m in range(n + 1):
        mass = math.comb(n, m) * psi**m * (1 - psi) ** (n - m)
        if mass < 1e-15:
            continue
        total += mass * sum(math.comb(m, b) * share**b * (1 - share) ** (m - b) for b in range(m + 1) if mcnemar(b, m - b) <= 0.05)
    return total


def seeds(scores):
    k, n = len(scores), len(scores[0])
    var = lambda v: sum((x - sum(v) / len(v)) ** 2 for x in v) / (len(v) - 1)
    means = [sum(s) / n for s in scores]
    items = [[scores[j][i] for j in range(k)] for i in range(n)]
    v_items = var([sum(i) / k for i in items]) / n
    seed_var = max(0.0, var(means) - sum(var(i) for i in items) / n / n)
    return {"scores": scores, "mean": sum(means) / k, "seed_sd": math.sqrt(seed_var), "stderr": math.sqrt(v_items + seed_var / k)}


def documents(rng, n, slope):
    made = []
    for _ in range(n):
        size = rng.randint(20, 900)
        made.append([round(size * (0.5 + slope + rng.gauss(0, 0.12)), 6), size])
    return made


def main():
    rng = random.Random(6)
    pairs = [(0, 0), (1, 1), (3, 0), (5, 0), (6, 0), (8, 2), (9, 2), (10, 3), (12, 4), (20, 1), (25, 6), (60, 41), (300, 260)]
    counts = [(95, 164), (98, 164), (76, 164), (75, 100), (100, 100), (0, 8), (8, 8), (1, 2), (0, 164), (500, 1000)]
    graded = [[0.25, -0.5, 0.0, 0.125, 0.3, -0.05, 0.6, 0.2], [0.1] * 5, [0.0] * 4, [round(rng.gauss(0.1, 0.3), 4) for _ in range(14)]]
    losses = []
    for kind, n, shift in [("bits", 11, 0.0), ("bits", 12, 0.05), ("perplexity", 10, 0.04), ("bits", 40, 0.03), ("perplexity", 40, 0.01)]:
        a = documents(rng, n, shift)
        b = [[round(x - w * rng.gauss(shift, 0.05), 6), w] for x, w in a]
        losses.append({
            "kind": kind, "a": a, "b": b, "score": loss(a, kind), "stderr": ratio_se(a, kind),
            "difference_stderr": ratio_difference_se(a, b, kind), "p": swap(a, b, kind) if n <= 12 else None,
        })
    two_seeds = [[float(rng.random() < p) for _ in range(40)] for p in (0.4, 0.7, 0.5)]
    graded_seeds = [[round(rng.random(), 3) for _ in range(12)] for _ in range(2)]
    print(json.dumps({
        "mcnemar": [{"b": b, "c": c, "p": mcnemar(b, c), "worse": mcnemar_worse(b, c)} for b, c in pairs],
        "shares": [{"k": k, "n": n, "wilson": wilson(k, n), "clopper_pearson": clopper_pearson(k, n)} for k, n in counts],
        "bonett_price": [
            {"b": b, "c": c, "n": n, "z": z, "interval": bonett_price(b, c, n, z)}
            for b, c in pairs[:9] for n in (100, 164) for z in (Z(0.975), Z(0.95))
        ],
        "sign_flip": [{"differences": d, "p": sign_flip(d)} for d in graded],
        "losses": losses,
        "power": [{"n": n, "psi": psi, "delta": d, "power": mcnemar_power(n, psi, d)} for n, psi, d in [(100, 0.05, 0.05), (100, 0.1, 0.088), (164, 0.2, 0.101), (164, 0.1, 0.03)]],
        "seeds": [seeds(two_seeds), seeds(graded_seeds)],
    }, indent=1))


main()
