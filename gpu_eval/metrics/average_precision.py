"""Average precision of instances: one number per class and threshold, from the outcomes of predictions.

The curve and its integral are those of evalInstanceLevelSemanticLabeling.py of cityscapesScripts: a point for
each distinct confidence, no envelope under the precision, half steps to both neighbours. It is not COCO's
AP (101 recalls under an envelope) and not Pascal VOC's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import Outcomes


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision over recall of one class at one threshold: k points, the highest confidence first.

    A point keeps the predictions of at least its `confidence`: `tp` and `fp` of them, int64 (k,), of
    `gt_count` gt instances. Equal confidences are one point.
    """

    confidence: Ratios
    tp: Counts
    fp: Counts
    gt_count: int

    @property
    def precision(self) -> Ratios:
        return cm.ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> Ratios:
        """NaN where there is no gt."""
        return cm.ratio(self.tp, self.gt_count)

    @property
    def area(self) -> float:
        """The average precision; NaN without gt, 0 without points.

        An artificial first point has precision 1 and recall 0. Each point's precision weighs half of the
        recall between its neighbours; the last point is its own neighbour, and before the first the recall
        is 0.
        """
        if not self.gt_count:
            return float("nan")
        precision = np.concatenate(([1.0], self.precision))
        recall = np.concatenate(([0.0, 0.0], self.recall))
        recall = np.append(recall, recall[-1])
        return float(precision @ (recall[2:] - recall[:-2])) / 2


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """The AP of C classes at T thresholds, in 0..1, and the counts it comes from.

    `ap` float64 (C, T): NaN for a class without counted gt, 0 for one with gt and no prediction that counts
    (the reference stops with an IndexError where all predictions of a class are ignored). `tp`, `fp` and
    `fn`, int64 (C, T), are instances at the lowest confidence. `gt_count` (C,) counts gt instances within
    `area`; `pred_count` (C,) the predictions with pixels, of which `ignored` count neither way.
    """

    space: InstanceSpace
    protocol: str
    thresholds: Ratios
    area: tuple[float, float]
    ap: Ratios
    tp: Counts
    fp: Counts
    fn: Counts
    gt_count: Counts
    pred_count: Counts

    @property
    def ignored(self) -> Counts:
        """Predictions with pixels that are neither TP nor FP, int64 (C, T)."""
        return self.pred_count[:, None] - self.tp - self.fp

    @property
    def class_ap(self) -> Ratios:
        """The mean over all thresholds, (C,)."""
        return np.asarray(self.ap.mean(axis=1))

    @property
    def class_ap50(self) -> Ratios:
        """The AP at threshold 0.5, (C,); NaN where 0.5 is not among the thresholds."""
        at = np.flatnonzero(np.isclose(self.thresholds, 0.5))
        return self.ap[:, at[0]] if at.size else np.full(len(self.ap), np.nan)

    @property
    def mean_ap(self) -> float:
        """The mean of `class_ap` over the classes that have one; NaN if none has."""
        return float(cm.mean_of_defined(self.class_ap))

    @property
    def mean_ap50(self) -> float:
        """The mean of `class_ap50` over the classes that have one; NaN if none has."""
        return float(cm.mean_of_defined(self.class_ap50))

    @property
    def classes_in_mean(self) -> int:
        """How many classes have counted gt."""
        return int(np.count_nonzero(self.gt_count))


def average_precision(outcomes: Outcomes) -> AveragePrecision:
    """The AP of every class at every threshold.

    It depends on confidences only through their order, and not on the order of rows.
    """
    classes = len(outcomes.space.ids)
    shape = classes, outcomes.thresholds.size
    gt_count = _per_class(outcomes.gt_class[outcomes.counted], classes)
    ap = np.zeros(shape)
    tp, fp = (np.zeros(shape, np.int64) for _ in range(2))
    for c in range(classes):
        for t, one in enumerate(_curves(outcomes, c, int(gt_count[c]))):
            ap[c, t] = one.area
            tp[c, t], fp[c, t] = (count[-1] if count.size else 0 for count in (one.tp, one.fp))
    return AveragePrecision(
        space=outcomes.space,
        protocol=outcomes.protocol,
        thresholds=outcomes.thresholds,
        area=outcomes.area,
        ap=ap,
        tp=tp,
        fp=fp,
        fn=gt_count[:, None] - tp,
        gt_count=gt_count,
        pred_count=_per_class(outcomes.pred_class[outcomes.present], classes),
    )


def curves(outcomes: Outcomes, class_index: int) -> tuple[Curve, ...]:
    """The precision-recall curve of one class (an index into `space.ids`) at each threshold."""
    gt_count = np.count_nonzero(outcomes.counted & (outcomes.gt_class == class_index))
    return _curves(outcomes, class_index, int(gt_count))


def _curves(outcomes: Outcomes, class_index: int, gt_count: int) -> tuple[Curve, ...]:
    rows = np.flatnonzero(outcomes.pred_class == class_index)
    rows = rows[np.argsort(-outcomes.table.confidence[rows], kind="stable")]
    confidence, tp, fp = outcomes.table.confidence[rows], outcomes.tp[rows], outcomes.fp[rows]
    result = []
    for true, false in zip(tp.T, fp.T, strict=True):
        kept = true | false
        ranked = confidence[kept]
        last = np.append(ranked[1:] != ranked[:-1], True)[: ranked.size]  # of each run of equal ones
        result.append(
            Curve(
                confidence=ranked[last],
                tp=np.cumsum(true[kept], dtype=np.int64)[last],
                fp=np.cumsum(false[kept], dtype=np.int64)[last],
                gt_count=gt_count,
            )
        )
    return tuple(result)


def _per_class(index: Counts, classes: int) -> Counts:
    return np.bincount(index, minlength=classes).astype(np.int64)
