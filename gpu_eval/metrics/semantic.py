"""Semantic scores of a confusion matrix under the two protocols.

`idd` is what the benchmark's page says, made consistent over the levels; `autonue` is what its public
script prints (evaluate_mIoU.py of AutoNUE/public-code 5d9a93b), bug for bug. One matrix gives both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from gpu_eval.errors import OptionError
from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.confusion import Counts, Ratios

PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        "idd": "the benchmark's rules at every level: predicted void is a miss, absent classes are left out",
        "autonue": "the public AutoNUE script bug for bug: void dropped below the finest level, level-1 "
        "groups applied to level-3 ids, an absent class makes the mean NaN",
    }
)


@dataclass(frozen=True, eq=False)
class LevelScore:
    """The scores of one level under one protocol; per-class arrays have shape (n,).

    Counts are pixels, ratios are in 0..1 and NaN where undefined. `classes_in_mean` is the number of
    classes that have an IoU. `mean_accuracy` is the mean recall over the classes with gt,
    `frequency_weighted_iou` weighs each IoU by the class's share of the gt, and `gt_pixels` counts the
    gt that is not void (autonue: that its matrix keeps).
    """

    protocol: str
    level: int
    names: tuple[str, ...]
    tp: Counts
    fp: Counts
    fn: Counts
    iou: Ratios
    miou: float
    classes_in_mean: int
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    gt_pixels: int

    @property
    def precision(self) -> Ratios:
        return cm.precision(self.tp, self.fp, self.fn)

    @property
    def recall(self) -> Ratios:
        return cm.recall(self.tp, self.fp, self.fn)

    @property
    def dice(self) -> Ratios:
        return cm.dice(self.tp, self.fp, self.fn)


def counts(
    confusion: Counts, labels: LabelSpace, protocol: str, level_number: int
) -> tuple[Counts, Counts, Counts]:
    """TP, FP and FN of one level in pixels, int64 (..., m) from matrices (..., n+1, n+1).

    Raises OptionError for an unknown protocol or level.
    """
    _check(protocol)
    level = labels.level(level_number)
    if level is labels.levels[0]:
        return cm.tp_fp_fn(confusion)
    if protocol == "idd":
        return cm.tp_fp_fn(cm.roll_up(confusion, level.groups))
    # The script groups the finest matrix by the ids of the next finer level. That is right for the second
    # level and wrong for the third. What no group names it drops, and void with it.
    rolled = cm.roll_up(confusion, level.children)
    rolled[..., -1, :] = 0
    rolled[..., :, -1] = 0
    return cm.tp_fp_fn(rolled)


def mean_iou(iou: Ratios, protocol: str) -> Ratios:
    """The mean over the last axis, float64.

    `idd` leaves NaN out and gives NaN where nothing is left; under `autonue` one NaN makes the mean NaN.
    """
    _check(protocol)
    if protocol == "autonue":
        return np.asarray(iou.mean(axis=-1))
    return cm.mean_of_defined(iou)


def score(confusion: Counts, labels: LabelSpace, protocol: str) -> tuple[LevelScore, ...]:
    """The scores of every level, finest first, of one matrix (n+1, n+1); rows gt, columns prediction.

    Raises OptionError for an unknown protocol.
    """
    _check(protocol)
    scores = []
    for level in labels.levels:
        tp, fp, fn = counts(confusion, labels, protocol, level.number)
        iou = cm.iou(tp, fp, fn)
        gt = tp + fn
        total = int(gt.sum())
        present = gt > 0
        recall = cm.recall(tp, fp, fn)[present]
        scores.append(
            LevelScore(
                protocol=protocol,
                level=level.number,
                names=level.names,
                tp=tp,
                fp=fp,
                fn=fn,
                iou=iou,
                miou=float(mean_iou(iou, protocol)),
                classes_in_mean=int(np.count_nonzero(~np.isnan(iou))),
                pixel_accuracy=float(cm.ratio(tp.sum(), total)),
                mean_accuracy=float(cm.ratio(recall.sum(), recall.size)),
                frequency_weighted_iou=float(cm.ratio((gt[present] * iou[present]).sum(), total)),
                gt_pixels=total,
            )
        )
    return tuple(scores)


def _check(protocol: str) -> None:
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise OptionError("no such protocol", found=str(protocol), expected="one of " + ", ".join(PROTOCOLS))
