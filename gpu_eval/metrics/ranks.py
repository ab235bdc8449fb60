"""Which ranks the data allow each run of a board: simultaneous over all pairs of runs.

Every pair is tested both ways, by its own paired difference, standard error and degrees of freedom; Holm's
correction over all of these keeps the chance that any pair of truly equal runs is told apart at 5 %. The best
rank of a run is one more than the number of runs found better, the last is all runs less those found worse
(Mogstad, Romano, Shaikh and Wilhelm, Inference for ranks with applications to mobility across neighbourhoods
and academic achievement across countries, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import student
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.uncertainty import (
    CONFIDENCE,
    MIN_UNITS,
    Parts,
    check_confidence,
    degrees_of_freedom,
    detectable,
    holm,
)

# Units at a time are as many as keep the moves of all runs and parts below this many numbers.
_AT_ONCE = 4 << 20


@dataclass(frozen=True, eq=False)
class RankRanges:
    """The ranks that m runs may have: `first` (the best) and `last`, int64 (m,), 1 to m.

    `better` (m, m) says whether the run of the row is better than that of the column; if one is better than a
    second and that than a third, the first is better than the third. `p` (m, m), corrected for the number of
    pairs, is of "the row is not better than the column", NaN where nothing can be said. `detectable` is the
    true difference that the pair in the middle, by standard error, would show with 80 % power on a board of
    this size; NaN without one.
    """

    first: Counts
    last: Counts
    better: npt.NDArray[np.bool_]
    p: Ratios
    detectable: float


def rank_ranges(runs: Sequence[Parts], confidence: float = CONFIDENCE) -> RankRanges:
    """The ranks of runs that were scored on the same units, in the same order.

    A run without a score, and all runs where there is one unit, may have any rank. Raises OptionError for
    runs of different numbers of units or classes, and for a confidence that is none.
    """
    check_confidence(confidence)
    if len({(run.count, run.value.size) for run in runs}) > 1:
        raise OptionError("runs of different units or classes share no board")
    m = len(runs)
    upper = np.triu_indices(m, 1)
    score = np.array([run.mean for run in runs])
    se, df = _pairs(runs, upper)
    change = score[upper[0]] - score[upper[1]]
    statistic = cm.ratio(change, se)
    tail = student.two_sided(statistic, df) / 2
    p = np.full((m, m), np.nan)
    p[upper] = np.where(statistic > 0, tail, 1 - tail)
    p.T[upper] = np.where(statistic < 0, tail, 1 - tail)
    p = holm(p.reshape(-1)).reshape(m, m)
    better = p <= (1 - confidence) if m else np.zeros((0, 0), bool)
    better = _closed(better)
    pairs = max(change.size, 1)
    smallest = detectable(se, df, 1 - (1 - confidence) / pairs)
    known = np.sort(smallest[~np.isnan(smallest)])
    return RankRanges(
        first=1 + better.sum(axis=0, dtype=np.int64),
        last=m - better.sum(axis=1, dtype=np.int64),
        better=better,
        p=p,
        detectable=float(known[known.size // 2]) if known.size else float("nan"),
    )


def _pairs(runs: Sequence[Parts], upper: tuple[Counts, Counts]) -> tuple[Ratios, Ratios]:
    """Standard error and degrees of freedom of the difference of each pair, NaN where there is none."""
    first, second = upper
    nothing = np.full(first.size, np.nan)
    if not first.size or runs[0].count < MIN_UNITS:
        return nothing, nothing
    m, count, parts = len(runs), runs[0].count, runs[0].value.size
    weights = np.zeros((parts, parts))
    total = np.zeros(m)
    products, part_products = np.zeros((m, m)), np.zeros((parts, m, m))
    at_once = max(1, _AT_ONCE // max(1, m * parts))
    for start in range(0, count, at_once):
        chunk = slice(start, min(start + at_once, count))
        moves = [run.moves(chunk) for run in runs]
        means = np.stack([mean for mean, _ in moves])
        of_parts = np.stack([moved.T for _, moved in moves], axis=1)  # (C, m, g)
        total += means.sum(axis=1)
        products += means @ means.T
        part_products += of_parts @ of_parts.transpose(0, 2, 1)
        weight = runs[0].weight(chunk)
        weights += weight.T @ weight
    change = total[first] - total[second]
    squares = _squares(products, upper)
    variance = (count - 1) / count * (squares - change**2 / count)
    # The difference of two runs that are nearly one and the same drowns in rounding: they are not told apart.
    drowned = variance <= 1e-12 * (np.diagonal(products)[first] + np.diagonal(products)[second])
    se = np.sqrt(np.where(drowned, np.nan, variance))
    moved = np.maximum(np.stack([_squares(of_part, upper) for of_part in part_products], axis=-1), 0.0)
    return se, np.where(np.isnan(se), np.nan, degrees_of_freedom(moved, weights, count))


def _squares(products: Ratios, upper: tuple[Counts, Counts]) -> Ratios:
    """The sum of squared differences of each pair of rows, of the rows' products (m, m)."""
    own = np.diagonal(products)
    return np.asarray(own[upper[0]] + own[upper[1]] - 2 * products[upper])


def _closed(better: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What follows from it: better than one that is better than a third is better than the third.

    It costs no further error: where all of it is true, so is what follows.
    """
    result = better.copy()
    for middle in range(len(better)):
        result |= result[:, middle, None] & result[middle]
    return result
