"""The intervals, p-values and tiers of version 0.1.0, kept as `python -m bench statistics` measured them.

A percentile bootstrap over drives where there are eight or more, else over images. Frozen: not to be
improved.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.average_precision_units import rank_predictions
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import Outcomes

RESAMPLES = 2000
MIN_DRIVES = 8
CONFIDENCE = 0.95
SEED = 0

# Below any count: see `average_precision_units`.
_NOTHING = 1e-200


def units(drives: Counts) -> Counts:
    """The unit of each image: its drive where there are eight of them, else itself."""
    names, of_image = np.unique(drives, return_inverse=True)
    return of_image.reshape(-1) if names.size >= MIN_DRIVES else np.arange(drives.size)


@lru_cache(maxsize=4)
def weights(count: int) -> Ratios:
    """How often each unit is drawn in each resample, float64 (resamples, count)."""
    rng = np.random.default_rng(SEED)
    drawn = np.empty((RESAMPLES, count))
    for row in drawn:
        row[:] = np.bincount(rng.integers(0, count, count), minlength=count)
    return drawn


def mean_iou(tp: Counts, union: Counts, of_image: Counts) -> tuple[Ratios, Ratios]:
    """mIoU (R,) and IoU (R, C) of the resamples, from TP and union of each image, int64 (images, C)."""
    drawn = weights(int(of_image.max()) + 1)
    sums = []
    for counts in (tp, union):
        of_units = np.zeros((drawn.shape[1], counts.shape[1]))
        np.add.at(of_units, of_image, counts)
        sums.append(drawn @ of_units)
    iou = cm.ratio(*sums)
    return cm.mean_of_defined(iou), iou


def average_precision(outcomes: Outcomes, of_image: Counts) -> tuple[Ratios, Ratios]:
    """AP (R,) and the AP of classes (R, C) of the resamples."""
    drawn = weights(int(of_image.max()) + 1)
    classes = len(outcomes.space.ids)
    counted = outcomes.counted
    cell = of_image[outcomes.table.gt_image[counted]] * classes + outcomes.gt_class[counted]
    gt = np.bincount(cell, minlength=drawn.shape[1] * classes).reshape(drawn.shape[1], classes)
    gt_drawn = drawn @ gt
    by_unit = np.ascontiguousarray(drawn.T)
    ap = np.full((len(drawn), classes, outcomes.thresholds.size), np.nan)
    for c in range(classes):
        if gt[:, c].any():
            area = _areas(outcomes, of_image, c, by_unit)
            ap[:, c] = cm.ratio(area.T, gt_drawn[:, c, None])
    per_class = ap.mean(axis=2)
    return cm.mean_of_defined(per_class), per_class


def _areas(outcomes: Outcomes, of_image: Counts, class_index: int, by_unit: Ratios) -> Ratios:
    ranked = rank_predictions(outcomes, of_image, class_index)
    shape = outcomes.thresholds.size, by_unit.shape[1]
    tp, total = np.full(shape, _NOTHING), np.full(shape, _NOTHING)
    area = np.zeros(shape)
    for first, last, reach in ranked.points:
        rows = by_unit[ranked.group[first:last]]
        before = tp[:reach] / total[:reach]
        total += _drawn(ranked.kept[first:last], rows)
        if reach:
            step = _drawn(ranked.true[first:last, :reach], rows)
            tp[:reach] += step
            area[:reach] += (before + tp[:reach] / total[:reach]) * step
    return area / 2


def _drawn(marks: Ratios, rows: Ratios) -> Ratios:
    return np.asarray(marks[0, :, None] * rows if len(marks) == 1 else marks.T @ rows)


def interval(samples: Ratios) -> tuple[Ratios, Ratios]:
    """The middle 95 % of the samples, over the first axis; NaN samples are left out."""
    ordered = np.sort(samples, axis=0)  # NaN comes last
    defined = np.count_nonzero(~np.isnan(samples), axis=0)
    bounds = []
    for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2):
        at = np.maximum(defined - 1, 0) * share
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(defined - 1, 0))
        low, high = (np.take_along_axis(ordered, i[None], axis=0)[0] for i in (below, above))
        bounds.append(np.where(defined > 0, low + (at - below) * (high - low), np.nan))
    return bounds[0], bounds[1]


def p_value(differences: Ratios) -> Ratios:
    """Two-sided p of "there is no difference", over the first axis; NaN samples are left out."""
    defined = np.count_nonzero(~np.isnan(differences), axis=0)
    below = np.count_nonzero(differences <= 0, axis=0)
    above = np.count_nonzero(differences >= 0, axis=0)
    p = np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1) / (defined + 1))
    return np.asarray(np.where(defined > 0, p, np.nan))


def tiers(samples: Sequence[Ratios], scores: Sequence[float]) -> int:
    """How many tiers a board has: a run whose interval of the difference to the leader lacks 0 begins one."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    leader, count = order[0], 1
    for run in order[1:]:
        low, high = interval(samples[leader] - samples[run])
        if low > 0 or high < 0:
            leader, count = run, count + 1
    return count
