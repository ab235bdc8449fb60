"""AP of many resamples of a split, from outcomes that are judged once.

An instance is matched within its image, so an image that is drawn w times brings w times the TP, FP and gt
that it has alone, at the same confidences. A resample is thus one walk down the ranked predictions in which
each weighs what its unit does, and all resamples are walked side by side, at all thresholds. The draws are
those of `bootstrap.weights`, so runs of the same images are resampled together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_eval.metrics import bootstrap
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.bootstrap import Units
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import Outcomes

# What TP and TP + FP begin with: their ratio is 1, the precision of the artificial first point, until a
# prediction counts, and a count of 1 or more swallows it without a trace.
_NOTHING = 1e-200

# Resamples walked side by side: enough to outweigh the calls per prediction, few enough to stay in cache.
_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class Samples:
    """The AP of R resamples per class: `class_ap` and `class_ap50`, float64 (R, C).

    NaN where the resample has no counted gt of the class, as in `AveragePrecision`; `class_ap50` is all NaN
    where 0.5 is not among the thresholds.
    """

    class_ap: Ratios
    class_ap50: Ratios

    @property
    def mean_ap(self) -> Ratios:
        """The mean over the classes that have an AP in the resample, (R,); NaN if none has."""
        return cm.mean_of_defined(self.class_ap)

    @property
    def mean_ap50(self) -> Ratios:
        """The same of `class_ap50`, (R,)."""
        return cm.mean_of_defined(self.class_ap50)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The predictions of a class that count at some threshold, the most confident first.

    Of P predictions `unit` (P,), and 1.0 or 0.0 (P, T) whether each is a TP (`true`), and a TP or FP
    (`kept`). `points` are the runs of equal confidence: first row, row after the last, and at how many
    thresholds, from the lowest on, there may be a TP.
    """

    unit: Counts
    true: Ratios
    kept: Ratios
    points: Sequence[tuple[int, int, int]]


def resample(
    outcomes: Outcomes, units: Units, resamples: int = bootstrap.RESAMPLES, seed: int = bootstrap.SEED
) -> Samples:
    """The AP of every class in every resample of the units.

    Images are numbered from 0 as in `units`. The draws follow from the seed and the number of units alone.
    """
    classes, thresholds = len(outcomes.space.ids), outcomes.thresholds.size
    ranked = [_rank(outcomes, units, c) for c in range(classes)]
    gt = units.sums(_gt_counts(outcomes, units.of_image.size)).astype(np.float64)
    ap = np.full((resamples, classes, thresholds), np.nan)
    for first, drawn in bootstrap.weights(units.count, resamples, seed, _AT_ONCE):
        weights = np.ascontiguousarray(drawn.T)
        gt_drawn = drawn @ gt
        for c, of_class in enumerate(ranked):
            area = _areas(of_class, weights, thresholds)
            ap[first : first + len(drawn), c] = cm.ratio(area.T, gt_drawn[:, c, None])
    half = np.flatnonzero(np.isclose(outcomes.thresholds, 0.5))
    return Samples(ap.mean(axis=2), ap[..., half[0]] if half.size else np.full(ap.shape[:2], np.nan))


def _gt_counts(outcomes: Outcomes, images: int) -> Counts:
    """How many gt instances of each class count in each image, int64 (images, C)."""
    classes = len(outcomes.space.ids)
    counted = outcomes.counted
    cell = outcomes.table.gt_image[counted] * classes + outcomes.gt_class[counted]
    return np.bincount(cell, minlength=images * classes).reshape(images, classes)


def _rank(outcomes: Outcomes, units: Units, class_index: int) -> _Ranked:
    true, kept = outcomes.tp, outcomes.tp | outcomes.fp
    rows = np.flatnonzero((outcomes.pred_class == class_index) & kept.any(axis=1))
    rows = rows[np.argsort(-outcomes.table.confidence[rows], kind="stable")]
    confidence, true = outcomes.table.confidence[rows], true[rows]
    starts = np.flatnonzero(np.append(True, confidence[1:] != confidence[:-1])[: rows.size])
    thresholds = np.arange(1, true.shape[1] + 1)
    reach = np.maximum.reduceat((true * thresholds).max(axis=1), starts) if rows.size else starts
    ends = np.append(starts[1:], rows.size)
    return _Ranked(
        unit=units.of_image[outcomes.table.pred_image[rows]],
        true=true.astype(np.float64),
        kept=kept[rows].astype(np.float64),
        points=list(zip(starts.tolist(), ends.tolist(), reach.tolist(), strict=False)),
    )


def _areas(ranked: _Ranked, weights: Ratios, thresholds: int) -> Ratios:
    """The area under precision over TP (not yet over recall), float64 (T, R), of weights (units, R).

    Cityscapes' half steps to both neighbours (`Curve.area`) are the trapezoids between neighbouring points.
    Only points with a TP move along that axis; what no resample draws repeats the point before it.
    """
    shape = thresholds, weights.shape[1]
    tp, total = np.full(shape, _NOTHING), np.full(shape, _NOTHING)
    area, before, after, drawn = (np.zeros(shape) for _ in range(4))
    for first, last, reach in ranked.points:
        moved = slice(0, reach)
        if reach:
            np.divide(tp[moved], total[moved], out=before[moved])
        total += _drawn(ranked.kept, ranked.unit, first, last, weights, drawn)
        if reach:
            step = _drawn(ranked.true[:, moved], ranked.unit, first, last, weights, drawn[moved])
            tp[moved] += step
            np.divide(tp[moved], total[moved], out=after[moved])
            after[moved] += before[moved]
            after[moved] *= step
            area[moved] += after[moved]
    return area / 2


def _drawn(marks: Ratios, unit: Counts, first: int, last: int, weights: Ratios, out: Ratios) -> Ratios:
    """How many marked predictions of these rows each resample holds, at each threshold (T, R), in `out`."""
    if last - first == 1:  # confidences are rarely equal, and a product of vectors needs no BLAS
        np.multiply(marks[first, :, None], weights[unit[first]], out=out)
    else:
        np.matmul(marks[first:last].T, weights[unit[first:last]], out=out)
    return out
