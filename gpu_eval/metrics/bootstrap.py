"""How far a score would move on other images of the same kind: the percentile bootstrap.

The units of a split (images, or whole drives, whose frames resemble each other) are drawn again with
replacement, as many as there are; every score is computed anew of each such resample (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16). All scores are functions of sums
over images, so a resample is a row of weights (how often each unit was drawn), and all resamples are one
matrix product, exact because every sum is an integer below 2^53.

One seed and one number of units give the same draws, always: runs of the same images are resampled
together, which is what makes their differences paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.metrics.confusion import Counts, Ratios

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0

# From so many drives on, drives are drawn instead of images: with fewer, their spread cannot be told.
MIN_DRIVES = 8

# float64 holds every integer up to here.
_EXACT = 2**53

# Bytes of weights at a time, and units at a time: what bounds the memory on a million images.
_SLAB_BYTES = 128 << 20
_CHUNK = 16384


@dataclass(frozen=True)
class Units:
    """What is drawn: `kind` is "images" or "drives", `of_image` each image's unit, int64 (images,)."""

    kind: str
    of_image: npt.NDArray[np.int64]
    count: int

    def sums(self, counts: Counts) -> Counts:
        """Columns per unit, int64 (count, width), from columns per image (images, width)."""
        if self.kind == "images":
            return counts
        result = np.zeros((self.count, counts.shape[1]), np.int64)
        np.add.at(result, self.of_image, counts)
        return result


def units(drives: Sequence[str]) -> Units:
    """Drives where there are at least `MIN_DRIVES`, else images; `drives` names each image's drive."""
    names, of_image = np.unique(np.array(drives, dtype=object), return_inverse=True)
    if names.size >= MIN_DRIVES:
        return Units("drives", of_image.astype(np.int64), int(names.size))
    return Units("images", np.arange(len(drives)), len(drives))


def describe(units: Units, resamples: int) -> dict[str, object] | None:
    """How intervals came about, for run.json; None where there are none."""
    if not resamples:
        return None
    return {
        "method": "percentile bootstrap",
        "units": units.kind,
        "unit_count": units.count,
        "resamples": resamples,
        "confidence": CONFIDENCE,
        "seed": SEED,
    }


def resample(sums: Counts, resamples: int = RESAMPLES, seed: int = SEED) -> Counts:
    """Columns of each resample, int64 (resamples, width), from columns per unit (units, width).

    The draws follow from the seed and the number of units alone. Raises OptionError where a sum could
    pass 2^53 and the product would not be exact.
    """
    count, width = sums.shape
    if count and count * int(sums.max(initial=0)) >= _EXACT:
        raise OptionError("too many pixels for exact intervals", fix="score without them: --bootstrap 0")
    result = np.zeros((resamples, width), np.int64)
    for first, some in weights(count, resamples, seed):
        total = np.zeros((len(some), width))
        for at in range(0, count, _CHUNK):
            total += some[:, at : at + _CHUNK] @ sums[at : at + _CHUNK].astype(np.float64)
        result[first : first + len(some)] = total.astype(np.int64)
    return result


def weights(
    count: int, resamples: int = RESAMPLES, seed: int = SEED, at_once: int = RESAMPLES
) -> Iterator[tuple[int, Ratios]]:
    """How often each of `count` units is drawn in each resample, at most `at_once` resamples at a time.

    Yields the number of the first resample and the weights, integers in float64 (resamples, count), which are
    overwritten by the next. They follow from the seed and the number of units alone.
    """
    if not count or not resamples:
        return
    rng = np.random.default_rng(seed)
    slab = min(resamples, at_once, max(1, _SLAB_BYTES // (8 * count)))
    held = np.empty((slab, count))
    for first in range(0, resamples, slab):
        some = held[: resamples - first]
        for row in some:
            row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
        yield first, some


def interval(samples: Ratios, confidence: float = CONFIDENCE) -> tuple[Ratios, Ratios]:
    """The bounds between which the middle `confidence` of the samples lie, over the first axis.

    NaN samples are left out; the bounds are NaN where none is left. Quantiles are interpolated linearly,
    as `numpy.quantile` does.
    """
    if not len(samples):
        nothing = np.full(samples.shape[1:], np.nan)
        return nothing, nothing
    ordered = np.sort(samples, axis=0)  # NaN comes last
    defined = np.count_nonzero(~np.isnan(samples), axis=0)
    bounds = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        at = np.maximum(defined - 1, 0) * share
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(defined - 1, 0))
        low, high = (np.take_along_axis(ordered, i[None], axis=0)[0] for i in (below, above))
        bounds.append(np.where(defined > 0, low + (at - below) * (high - low), np.nan))
    return bounds[0], bounds[1]


def p_value(differences: Ratios) -> Ratios:
    """Two-sided p of "there is no difference", over the first axis; NaN samples are left out.

    Twice the smaller share of resamples on either side of zero, each counted with one more (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 4.2): never 0, and 1 where all are 0.
    """
    defined = np.count_nonzero(~np.isnan(differences), axis=0)
    below = np.count_nonzero(differences <= 0, axis=0)
    above = np.count_nonzero(differences >= 0, axis=0)
    p = np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1) / (defined + 1))
    return np.asarray(np.where(defined > 0, p, np.nan))
