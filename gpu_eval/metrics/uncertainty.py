"""How far a score would move on other drives of the same kind: jackknife over units, with Student's t.

A score is a mean of parts (classes), each a function of all units: an IoU of summed pixels, an AP. It is
computed anew without each unit in turn; how far it moves is the standard error (Tukey 1958; for few and
unequal clusters MacKinnon, Nielsen and Webb, Fast and reliable jackknife and bootstrap methods for
cluster-robust inference, 2023). The bounds are Student's t about the score on the logit scale, about a
difference as it is.

Degrees of freedom are one less than the effective number of units, Kish's (sum of w)^2 / sum of w^2 (Survey
Sampling, 1965): w is the unit's share of the gt of a class, for a mean over classes weighted by how much each
class moves the mean, or would if units varied alike, whichever leaves fewer. A class of which nearly all lies
in two drives has one degree of freedom, whatever the number of drives. `docs/statistics.md` shows the
simulations by which this was chosen.

Nothing is drawn at random: equal counts give equal bounds, always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from numbers import Real
from typing import Any, Generic, TypeVar

import numpy as np

from gpu_eval.errors import OptionError
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import student
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.units import DRIVES, Units, plural

CONFIDENCE = 0.95
METHOD = "jackknife t"

# A spread needs two units; a class, two in which it occurs.
MIN_UNITS = 2

# Units at a time: what bounds the memory.
CHUNK = 16384

# A standard error below this is what rounding leaves of none.
_NO_SPREAD = 1e-13

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Parts:
    """A mean of C parts (its classes) and what becomes of them without each of `count` units.

    `value` (C,) has NaN for a part that has no score. `without(slice of units)` gives (g, C), the values of
    the parts without each of these units, `weight` likewise the share of the gt of each part that the unit
    has, 0..1. `occurs` (C,) is the number of units with gt of the part. `all_or_none`: one NaN makes the mean
    NaN (`autonue`). `content` gives the bytes that decide a part's score: equal bytes, equal predictions.
    """

    value: Ratios
    without: Callable[[slice], Ratios]
    weight: Callable[[slice], Ratios]
    count: int
    occurs: Counts
    all_or_none: bool
    content: Callable[[int], bytes]

    @property
    def mean(self) -> float:
        """The score; NaN where no part has one, or where `all_or_none` and one has none."""
        if self.all_or_none and np.isnan(self.value).any():
            return float("nan")
        return float(cm.mean_of_defined(self.value))

    def moves(self, units: slice) -> tuple[Ratios, Ratios]:
        """How far the mean (g,) and the parts (g, C) move without each of the units.

        Without the only unit of a class, the mean is over the others, under every protocol: `all_or_none`
        decides whether there is a mean, not which units are left out. Such a class is taken to move the mean
        by what its place in the mean does. A part that has no value does not move.
        """
        left = self.without(units)
        mean = float(cm.mean_of_defined(self.value))
        gone = np.isnan(left)
        parts = np.where(gone, mean, left) - self.value
        parts[:, np.isnan(self.value)] = 0.0
        return cm.mean_of_defined(left) - mean, parts

    def chunks(self) -> Iterator[slice]:
        """All units, `CHUNK` at a time; at least one slice, which is empty where there are no units."""
        for first in range(0, max(self.count, 1), CHUNK):
            yield slice(first, min(first + CHUNK, self.count))


@dataclass(frozen=True, eq=False)
class Spread:
    """Standard error and degrees of freedom of a mean and of its C parts (C,)."""

    mean_se: float
    mean_df: float
    part_se: Ratios
    part_df: Ratios


@dataclass(frozen=True)
class Interval:
    """A score and the bounds between which it would lie on other units, with 95 % confidence or as asked.

    `low`, `high`, `se` (standard error) and `df` (degrees of freedom) are NaN where `reason` says why there
    are none. `units` is how many of what were left out in turn, "12 drives"; `remark` says that they are few.
    """

    estimate: float
    low: float
    high: float
    se: float
    df: float
    method: str
    units: str
    reason: str | None
    remark: str | None


@dataclass(frozen=True)
class Difference:
    """The second score less the first on the same units; `p` is of "there is no difference".

    `low`, `high`, `p`, `se` and `df` are NaN where `reason` says why there are none. Equal predictions have
    difference 0, interval [0, 0] and p 1. `detectable` is the smallest true difference that these units
    would show with p < 1 - confidence in 80 of 100 splits.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    se: float
    df: float
    detectable: float
    method: str
    units: str
    reason: str | None
    remark: str | None


@dataclass(frozen=True)
class Scored(Generic[T]):
    """What is said of a mean and of each of its parts."""

    mean: T
    parts: tuple[T, ...]


def intervals(parts: Parts, units: Units, confidence: float = CONFIDENCE) -> Scored[Interval]:
    """The interval of the mean and of each part. Raises OptionError for a confidence that is none."""
    check_confidence(confidence)
    found = spread((*parts.moves(chunk), parts.weight(chunk)) for chunk in parts.chunks())
    value = np.append(parts.mean, parts.value)
    se, df = np.append(found.mean_se, found.part_se), np.append(found.mean_df, found.part_df)
    reasons = [_why_not(value[0], se[0], units, _no_mean(parts))]
    reasons += [
        _why_not(value[1 + c], se[1 + c], units, _ABSENT, int(parts.occurs[c]))
        for c in range(parts.value.size)
    ]
    without = np.array([reason is not None for reason in reasons])
    se, df = np.where(without, np.nan, se), np.where(without, np.nan, df)
    low, high = _around(value, se, df, confidence)
    columns = [column.tolist() for column in (value, low, high, se, df)]
    same_for_all = repeat(METHOD), repeat(str(units))
    rows: Iterable[Any] = zip(*columns, *same_for_all, reasons, repeat(units.remark), strict=False)
    made = [Interval(*row) for row in rows]
    return Scored(made[0], tuple(made[1:]))


def differences(a: Parts, b: Parts, units: Units, confidence: float = CONFIDENCE) -> Scored[Difference]:
    """The second against the first, on the same units in the same order: of the mean and of each part.

    Raises OptionError for a confidence that is none.
    """
    check_confidence(confidence)
    found = spread(_moves_apart(a, b, chunk) for chunk in a.chunks())
    of_a, of_b = np.append(a.mean, a.value), np.append(b.mean, b.value)
    equal = [a.content(c) == b.content(c) for c in range(a.value.size)]
    equal = [all(equal), *equal]
    se, df = np.append(found.mean_se, found.part_se), np.append(found.mean_df, found.part_df)
    change = of_b - of_a
    reasons: list[str | None] = []
    for i, same in enumerate(equal):
        absent = (_no_mean(a) or _no_mean(b)) if i == 0 else _ABSENT
        occurs = None if i == 0 else int(min(a.occurs[i - 1], b.occurs[i - 1]))
        if same and not np.isnan(change[i]):
            reasons.append(None)
        elif np.isnan(change[i]) and not (np.isnan(of_a[i]) and np.isnan(of_b[i])):
            reasons.append("one of the runs has no score")
        else:
            reasons.append(_why_not(change[i], se[i], units, absent, occurs))
    without = np.array([reason is not None for reason in reasons])
    same = np.array(equal) & ~without
    se = np.where(without, np.nan, np.where(same, 0.0, se))
    df = np.where(without, np.nan, df)
    half = student.quantile(1 - confidence, df) * se
    low, high = np.clip(change - half, -1.0, 1.0), np.clip(change + half, -1.0, 1.0)
    p = np.where(same, 1.0, student.two_sided(cm.ratio(change, se), df))
    smallest = detectable(se, df, confidence)
    for bound in (low, high, smallest):
        bound[same] = 0.0
    columns = [column.tolist() for column in (of_a, of_b, change, low, high, p, se, df, smallest)]
    same_for_all = repeat(METHOD), repeat(str(units))
    rows: Iterable[Any] = zip(*columns, *same_for_all, reasons, repeat(units.remark), strict=False)
    made = [Difference(*row) for row in rows]
    return Scored(made[0], tuple(made[1:]))


def spread(chunks: Iterable[tuple[Ratios, Ratios, Ratios]]) -> Spread:
    """Standard errors and degrees of freedom from what moves how far, unit after unit.

    Each chunk has of g units how far the mean (g,) and the parts (g, C) move without each, and the units'
    shares of the gt (g, C). Both are NaN for fewer than two units.
    """
    count = 0
    total = squares = weights = None
    for mean, parts, weight in chunks:
        moved = np.concatenate([mean[:, None], parts], axis=1)
        count += len(moved)
        sums = moved.sum(axis=0), (moved**2).sum(axis=0), weight.T @ weight
        if total is None or squares is None or weights is None:
            total, squares, weights = sums
        else:
            total, squares, weights = total + sums[0], squares + sums[1], weights + sums[2]
    if total is None or squares is None or weights is None or count < MIN_UNITS:
        nothing = np.full(0 if total is None else total.size - 1, np.nan)
        return Spread(float("nan"), float("nan"), nothing, nothing)
    se = np.sqrt((count - 1) / count * np.maximum(squares - total**2 / count, 0.0))
    se[se < _NO_SPREAD] = 0.0
    mean_df = degrees_of_freedom(squares[1:], weights, count)
    part_df = _from_effective(cm.ratio(1.0, np.diagonal(weights)), count)
    return Spread(float(se[0]), float(mean_df), se[1:], part_df)


def degrees_of_freedom(moves: Ratios, weights: Ratios, count: int) -> Ratios:
    """The effective number of `count` units less one, from 1 to count - 1, float64 (...).

    `moves` (..., C) are the sums over units of each part's squared moves, `weights` (C, C) the sums over
    units of the products of two parts' shares of gt. The unit's weight is its share of each part, weighted by
    moves: by those that were seen, or by those to be expected where all parts that move vary alike from unit
    to unit. The lesser counts. Two units that agree by luck hardly move the mean, and would leave all the
    degrees of freedom of the others to a standard error that lacks them.
    """
    expected = _effective(np.where(moves > 0, np.diagonal(weights), 0.0), weights)
    return _from_effective(np.fmin(_effective(moves, weights), expected), count)


def _effective(moves: Ratios, weights: Ratios) -> Ratios:
    return cm.ratio(moves.sum(axis=-1) ** 2, ((moves @ weights) * moves).sum(axis=-1))


def _from_effective(units: Ratios, count: int) -> Ratios:
    return np.asarray(np.clip(np.where(np.isnan(units), count, units) - 1, 1.0, max(count - 1, 1)))


def holm(p: Ratios) -> Ratios:
    """p-values corrected for their number, (n,): all below 5 % are wrong together in at most 5 % of cases.

    Holm, A simple sequentially rejective multiple test procedure, 1979. NaN stays NaN and is not counted.
    """
    result = np.full(p.shape, np.nan)
    given = np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    steps = p[order] * np.arange(order.size, 0, -1)
    result[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return result


def detectable(se: Ratios, df: Ratios, confidence: float = CONFIDENCE, power: float = 0.8) -> Ratios:
    """The smallest true difference that is found with this power: (t of the test + t of the power) * se.

    A standard error is too small more often than too large. Divided by the root of the median of its square's
    distribution (Wilson and Hilferty 1931: (1 - 2 / (9 df))^3 of the mean), it is as often either.
    """
    halfway = (1 - 2 / (9 * df)) ** 1.5
    both = student.quantile(1 - confidence, df) + student.quantile(2 * (1 - power), df)
    return np.asarray(both * se / halfway)


def check_confidence(confidence: float) -> None:
    """Raise OptionError for a confidence that is none."""
    if isinstance(confidence, bool) or not isinstance(confidence, Real) or not 0 < confidence < 1:
        raise OptionError(
            "no such confidence", found=repr(confidence)[:80], expected="above 0 and below 1, 0.95 say"
        )


_ABSENT = "in no image"


def _no_mean(parts: Parts) -> str:
    if np.isnan(parts.value).all():
        return "no class has a score"
    lacking = int(np.isnan(parts.value).sum())
    return f"{lacking} of {parts.value.size} classes in no image: autonue gives no mean"


def _why_not(value: float, se: float, units: Units, absent: str, occurs: int | None = None) -> str | None:
    """Why a score has no interval; None where it has one."""
    if np.isnan(value):
        return absent
    if units.count < MIN_UNITS:
        images = (
            " (--units images takes each image for a unit)" if units.count and units.kind == DRIVES else ""
        )
        return f"{units}: no other to compare with{images}"
    if occurs == 0:
        return "in no ground truth: nothing but false positives"
    if occurs is not None and occurs < MIN_UNITS:
        return f"occurs in {occurs} of {units}: too few to say"
    if np.isnan(se):
        return f"all of it is in one {plural(units.kind, 1)}"
    if se == 0:
        return f"the same in all {units}: no spread to judge by"
    return None


def _moves_apart(a: Parts, b: Parts, chunk: slice) -> tuple[Ratios, Ratios, Ratios]:
    (mean_a, parts_a), (mean_b, parts_b) = a.moves(chunk), b.moves(chunk)
    return mean_b - mean_a, parts_b - parts_a, (a.weight(chunk) + b.weight(chunk)) / 2


def _around(value: Ratios, se: Ratios, df: Ratios, confidence: float) -> tuple[Ratios, Ratios]:
    """Bounds on the logit scale, which stay in 0..1 and lean to the middle; value 0 or 1 has no spread."""
    inside = (value > 0) & (value < 1) & ~np.isnan(se)
    score = np.where(inside, value, 0.5)
    half = student.quantile(1 - confidence, df) * se / (score * (1 - score))
    odds = np.log(score / (1 - score))
    bounds = []
    for shifted in (odds - half, odds + half):
        # exp of a negative number never overflows
        small = np.exp(-np.abs(shifted))
        bounds.append(np.where(inside, np.where(shifted < 0, small, 1.0) / (1 + small), np.nan))
    return bounds[0], bounds[1]
