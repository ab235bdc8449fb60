"""AP without each unit in turn, from outcomes that are judged once.

An instance is matched within its image, so a split without a unit keeps the TP, FP and gt of all others as
they are, at the same confidences. AP without each of G units is thus one walk down the ranked predictions, G
columns wide: every prediction counts in all columns but that of its own unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.average_precision import average_precision
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import Outcomes
from gpu_eval.metrics.uncertainty import Parts
from gpu_eval.metrics.units import Units

# More units than these are dealt into as many groups, and groups are left out: the walk's cost grows with
# units times predictions, and a spread over 512 groups is known to within 3 %.
MAX_GROUPS = 512

# What TP and TP + FP begin with: their ratio is 1, the precision of the artificial first point, until a
# prediction counts, and a count of 1 or more swallows it without a trace.
_NOTHING = 1e-200


@dataclass(frozen=True, eq=False)
class DeleteOne:
    """AP of C classes with all units, and without each of G: a unit, or a group where there are many.

    `ap` and `ap50` are float64 (C,), `without` and `without50` (G, C); NaN where no gt of the class counts,
    and for 0.5 where it is not among the thresholds. `gt` counts instances, int64 (G, C), `occurs` the units
    that have one, (C,). `content` is a digest per class of all that its AP depends on.
    """

    ap: Ratios
    without: Ratios
    ap50: Ratios
    without50: Ratios
    gt: Counts
    occurs: Counts
    content: tuple[bytes, ...]

    def parts(self, *, at_half: bool = False) -> Parts:
        """The AP of the classes, or their AP at threshold 0.5: parts of the mean over classes."""
        value, without = (self.ap50, self.without50) if at_half else (self.ap, self.without)
        share = cm.ratio(self.gt, np.maximum(self.gt.sum(axis=0), 1))
        return Parts(
            value=value,
            without=lambda groups: without[groups],
            weight=lambda groups: share[groups],
            count=len(without),
            occurs=self.occurs,
            all_or_none=False,
            content=self.content.__getitem__,
        )


@dataclass(frozen=True, eq=False)
class Ranked:
    """The predictions of a class that count at some threshold, the most confident first.

    Of P predictions `group` (P,), and 1.0 or 0.0 (P, T) whether each is a TP (`true`), and a TP or FP
    (`kept`). `points` are the runs of equal confidence: first row, row after the last, and at how many
    thresholds, from the lowest on, there may be a TP.
    """

    group: Counts
    true: Ratios
    kept: Ratios
    points: Sequence[tuple[int, int, int]]

    def digest(self) -> bytes:
        parts = (self.group, self.true, self.kept, np.array(self.points, np.int64))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()


def delete_one(outcomes: Outcomes, units: Units) -> DeleteOne:
    """AP of every class with all units and without each; images are numbered from 0 as in `units`.

    More than `MAX_GROUPS` units are dealt into groups in turn, so that neighbours are apart.
    """
    of_image, groups = units.of_image, units.count
    if groups > MAX_GROUPS:
        of_image, groups = of_image % MAX_GROUPS, MAX_GROUPS
    classes, thresholds = len(outcomes.space.ids), outcomes.thresholds.size
    counted = outcomes.counted
    image, gt_class = outcomes.table.gt_image[counted], outcomes.gt_class[counted]
    cells = of_image[image] * classes + gt_class
    gt = np.bincount(cells, minlength=groups * classes).reshape(groups, classes).astype(np.int64)
    seen = np.unique(units.of_image[image] * classes + gt_class)
    total = gt.sum(axis=0)
    # The last column leaves nothing out.
    ap = np.full((groups + 1, classes, thresholds), np.nan)
    content = []
    for c in range(classes):
        ranked = rank_predictions(outcomes, of_image, c)
        content.append(ranked.digest())
        remaining = total[c] - np.append(gt[:, c], 0)
        ap[:, c] = cm.ratio(_areas(ranked, groups, thresholds), remaining).T
    half = np.flatnonzero(np.isclose(outcomes.thresholds, 0.5))
    mean, at_half = ap.mean(axis=2), ap[..., half[0]] if half.size else np.full(ap.shape[:2], np.nan)
    score = average_precision(outcomes)  # to the last bit; the walk adds up in another order
    return DeleteOne(
        ap=score.class_ap,
        without=mean[:-1],
        ap50=score.class_ap50,
        without50=at_half[:-1],
        gt=gt,
        occurs=np.bincount(seen % classes, minlength=classes).astype(np.int64),
        content=tuple(content),
    )


def rank_predictions(outcomes: Outcomes, group: Counts, class_index: int) -> Ranked:
    """The predictions of one class, an index into `space.ids`; `group` is int64 (images,)."""
    true, kept = outcomes.tp, outcomes.tp | outcomes.fp
    rows = np.flatnonzero((outcomes.pred_class == class_index) & kept.any(axis=1))
    rows = rows[np.argsort(-outcomes.table.confidence[rows], kind="stable")]
    confidence, true = outcomes.table.confidence[rows], true[rows]
    starts = np.flatnonzero(np.append(True, confidence[1:] != confidence[:-1])[: rows.size])
    thresholds = np.arange(1, true.shape[1] + 1)
    reach = np.maximum.reduceat((true * thresholds).max(axis=1), starts) if rows.size else starts
    ends = np.append(starts[1:], rows.size)
    return Ranked(
        group=group[outcomes.table.pred_image[rows]],
        true=true.astype(np.float64),
        kept=kept[rows].astype(np.float64),
        points=list(zip(starts.tolist(), ends.tolist(), reach.tolist(), strict=False)),
    )


def _areas(ranked: Ranked, groups: int, thresholds: int) -> Ratios:
    """The area under precision over TP (not yet over recall), float64 (T, G + 1), without each group.

    Cityscapes' half steps to both neighbours (`Curve.area`) are the trapezoids between neighbouring points.
    Only points with a TP move along that axis; where all of a point is left out, it repeats the one before.
    """
    shape = thresholds, groups + 1
    tp, total = np.full(shape, _NOTHING), np.full(shape, _NOTHING)
    area, before, after, step = (np.zeros(shape) for _ in range(4))
    for first, last, reach in ranked.points:
        moved = slice(0, reach)
        if reach:
            np.divide(tp[moved], total[moved], out=before[moved])
        group = ranked.group[first:last]
        total += _left(ranked.kept[first:last], group, step)
        if reach:
            tp[moved] += _left(ranked.true[first:last, moved], group, step[moved])
            np.divide(tp[moved], total[moved], out=after[moved])
            after[moved] += before[moved]
            after[moved] *= step[moved]
            area[moved] += after[moved]
    return area / 2


def _left(marks: Ratios, group: Counts, out: Ratios) -> Ratios:
    """How many marked predictions (k, T) remain at each threshold without each group (T, G + 1), in `out`."""
    if len(group) == 1:
        out[...] = marks[0, :, None]
        out[:, group[0]] = 0.0
    else:
        out[...] = marks.sum(axis=0)[:, None]
        np.subtract.at(out.T, group, marks)
    return out
