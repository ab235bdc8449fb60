"""Student's t, on NumPy alone: its tails and its quantiles, for any degrees of freedom.

The tail is an incomplete beta function, I_x(df / 2, 1 / 2) with x = df / (df + t^2) (Abramowitz and Stegun,
Handbook of Mathematical Functions, 26.5.27 and 26.7.1), which is the continued fraction 26.5.8, added up by
Lentz's rule (Numerical Recipes, section 6.4). The tails are good to nine digits up to a million degrees of
freedom.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from gpu_eval.metrics.confusion import Ratios

_TINY = 1e-300
_CLOSE = 1e-14
_DEGREE = 32
_STEPS = 10_000  # of the continued fraction; it needs about the root of the degrees of freedom


def two_sided(t: npt.ArrayLike, df: npt.ArrayLike) -> Ratios:
    """The probability of |T| >= |t| at `df` degrees of freedom (> 0), float64; NaN where either is NaN."""
    t, df = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    result = np.full(t.shape, np.nan)
    given = ~(np.isnan(t) | np.isnan(df))
    result[given] = _tails(np.abs(t[given]), df[given])
    return result


def quantile(tails: float, df: npt.ArrayLike) -> Ratios:
    """The t that |T| exceeds with probability `tails` (0 < tails < 1) at `df` degrees of freedom (>= 1),
    float64.

    0.05 gives the 1.96 of large samples. NaN where `df` is NaN.
    """
    df = np.asarray(df, np.float64)
    return np.asarray(np.exp(chebyshev.chebval(2 / df - 1, _curve(tails))))


@lru_cache(maxsize=64)
def _curve(tails: float) -> Ratios:
    """Chebyshev coefficients of log t as a function of 1 / df, which is smooth from 0 to 1.

    A split has hundreds of scores, each with degrees of freedom of its own, at one probability.
    """
    x = chebyshev.chebpts1(_DEGREE + 1)
    log_t = _invert(tails, 2 / (x + 1))
    # At these points the polynomials are orthogonal: the coefficients are means.
    return np.asarray(2 * (chebyshev.chebvander(x, _DEGREE).T @ log_t) / x.size) / ([2] + [1] * _DEGREE)


def _invert(tails: float, df: Ratios) -> Ratios:
    """log t by Newton's steps for log P(log t), which is concave: after the first they come from one side."""
    log_t = np.full(df.shape, math.log(-2 * math.log(tails)) / 2)  # near the normal distribution's
    scale = np.array([_log_density(x) for x in df.tolist()])
    for _ in range(60):
        t = np.exp(log_t)
        tail = np.maximum(_tails(t, df), _TINY)
        slope = 2 * np.exp(scale - (df + 1) / 2 * np.log1p(t * t / df)) * t / tail
        step = np.log(tail / tails) / slope
        log_t = log_t + step
        if np.all(np.abs(step) < 1e-9):  # the next would be its square
            break
    return log_t


def _log_density(df: float) -> float:
    """The logarithm of the density at 0."""
    return math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2


def _tails(t: Ratios, df: Ratios) -> Ratios:
    square = t * t
    a, b = df / 2, np.full(df.shape, 0.5)
    # x and 1 - x, each without cancellation; an infinite t has no tail.
    x, rest = df / (df + square), square / (df + square)
    infinite = np.isinf(square)
    x[infinite], rest[infinite] = 0.0, 1.0
    near = x > (a + 1) / (a + b + 2)  # here the fraction of the other tail converges fast
    part = np.empty(t.shape)
    part[near] = 1 - _beta(b[near], a[near], rest[near])
    part[~near] = _beta(a[~near], b[~near], x[~near])
    return part


def _beta(a: Ratios, b: Ratios, x: Ratios) -> Ratios:
    """I_x(a, b) for x below (a + 1) / (a + b + 2)."""
    if not x.size:
        return x
    constant = np.array(
        [math.lgamma(p + q) - math.lgamma(p) - math.lgamma(q) for p, q in zip(a, b, strict=True)]
    )
    front = np.zeros(x.shape)
    inside = x > 0
    front[inside] = (
        np.exp(constant + a * np.log(np.where(inside, x, 1)) + b * np.log1p(-x))[inside] / a[inside]
    )
    c = np.ones(x.shape)
    d = 1 / _not_0(1 - (a + b) * x / (a + 1))
    fraction = d.copy()
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_0(1 + term * d)
            c = _not_0(1 + term / c)
            fraction = fraction * c * d
        if np.all(np.abs(c * d - 1) < _CLOSE):
            break
    return front * fraction


def _not_0(values: Ratios) -> Ratios:
    return np.where(np.abs(values) < _TINY, _TINY, values)
