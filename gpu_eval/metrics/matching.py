"""What became of every predicted and every gt instance: matching, from counts of pixels alone.

The rules are those of evalInstanceLevelSemanticLabeling.py of cityscapesScripts, and of its copy in
AutoNUE/public-code 5d9a93b. They depend on masks only through the number of pixels that a mask shares with
each value of the gt, so a whole split is one `InstanceTable`, and all of this is arithmetic on its columns.

Gt instances do not share pixels. An IoU above 0.5 puts most of the mask on one gt instance, so a prediction
matches at most one, the same at every threshold. That makes matching a comparison per row, and is why
thresholds below 0.5 are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.confusion import Counts, Ratios

PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        "autonue": "the public AutoNUE script: groups of a class are plain background, predictions on them "
        "are false positives",
        "cityscapes": "the Cityscapes script: predictions on a group of their class are ignored",
    }
)

# 0.5, 0.55, ... 0.95 with the residue that the reference's arange leaves: the fourth is
# 0.6500000000000001, and an IoU of 13/20 does not pass it.
THRESHOLDS: tuple[float, ...] = tuple(np.arange(0.5, 1.0, 0.05).tolist())

# Gt instances of so many pixels count, from the first number up to, not including, the second.
AREA = (100.0, math.inf)

# Gt values from here on are class id * 1000 + number; a value below is a plain id, a group where the class
# has instances.
_FIRST_INSTANCE = 1000

PRED_OUTCOMES = (
    "tp",  # matches a counted gt, the most confident one that does
    "fp_duplicate",  # matches a counted gt that a more confident prediction took
    "fp_unmatched",  # matches nothing
    "ignored_size",  # matches a gt outside the area range
    "ignored_group",  # matches a group; cityscapes only
    "ignored_void",  # matches nothing, and more of it than the threshold lies on void
    "ignored_mixed",  # the same with void, gt outside the area range and groups together
    "empty",  # no pixels: as if it were not there
    "not_evaluated",  # of a class that is not evaluated
)
_TP, _DUPLICATE, _UNMATCHED, _SIZE, _GROUP, _VOID, _MIXED, _EMPTY, _OTHER = range(len(PRED_OUTCOMES))

GT_OUTCOMES = (
    "tp",  # found
    "fn",  # counted, and no prediction matches it
    "ignored_size",  # outside the area range: not counted
    "ignored_group",  # a group: not counted
    "void",  # a void value
    "not_evaluated",  # an instance or region of a class that is not evaluated
)
_GT_TP, _GT_FN, _GT_SIZE, _GT_GROUP, _GT_VOID, _GT_OTHER = range(len(GT_OUTCOMES))


@dataclass(frozen=True, eq=False)
class InstanceTable:
    """The predicted instances, the gt values and their overlaps of one image or of a whole split.

    Columns, int64 but for the confidence: of P predictions `pred_image`, `pred_class` (raw id), `confidence`
    (float64, finite), `pred_pixels` (area of the mask); of G gt rows, one per value that occurs in an image
    (void and background too), `gt_image`, `gt_value`, `gt_pixels`; of K overlaps `overlap_pred` and
    `overlap_gt` (row numbers, both of one image) and `overlap_pixels` (> 0).
    """

    pred_image: Counts
    pred_class: Counts
    confidence: Ratios
    pred_pixels: Counts
    gt_image: Counts
    gt_value: Counts
    gt_pixels: Counts
    overlap_pred: Counts
    overlap_gt: Counts
    overlap_pixels: Counts


def image_table(
    image: int,
    pred_class: npt.ArrayLike,
    confidence: npt.ArrayLike,
    gt_values: Counts,
    gt_pixels: Counts,
    overlaps: Counts,
) -> InstanceTable:
    """The table of one image from its joint counts.

    `pred_class` and `confidence` have shape (p,), `gt_values` and `gt_pixels` (g,), `overlaps` (p, g):
    pixels of each mask on each gt value, so that a row's sum is the mask's area.
    """
    pred_row, gt_row = np.nonzero(overlaps)
    return InstanceTable(
        pred_image=np.full(overlaps.shape[0], image, np.int64),
        pred_class=np.array(pred_class, np.int64),
        confidence=np.array(confidence, np.float64),
        pred_pixels=overlaps.sum(axis=1, dtype=np.int64),
        gt_image=np.full(overlaps.shape[1], image, np.int64),
        gt_value=np.array(gt_values, np.int64),
        gt_pixels=np.array(gt_pixels, np.int64),
        overlap_pred=pred_row.astype(np.int64),
        overlap_gt=gt_row.astype(np.int64),
        overlap_pixels=overlaps[pred_row, gt_row].astype(np.int64),
    )


def concatenate(tables: Sequence[InstanceTable]) -> InstanceTable:
    """The tables one below the other: image numbers stay, row numbers are shifted.

    No image may be in two of them.
    """
    pred_rows = np.cumsum([0, *(table.pred_class.size for table in tables)])
    gt_rows = np.cumsum([0, *(table.gt_value.size for table in tables)])

    def joined(name: str, shifts: Counts | None = None) -> Counts:
        columns = [getattr(table, name) for table in tables]
        if shifts is not None:
            columns = [column + shift for column, shift in zip(columns, shifts, strict=False)]
        return np.concatenate(columns) if columns else np.zeros(0, np.int64)

    return InstanceTable(
        pred_image=joined("pred_image"),
        pred_class=joined("pred_class"),
        confidence=joined("confidence").astype(np.float64),
        pred_pixels=joined("pred_pixels"),
        gt_image=joined("gt_image"),
        gt_value=joined("gt_value"),
        gt_pixels=joined("gt_pixels"),
        overlap_pred=joined("overlap_pred", pred_rows),
        overlap_gt=joined("overlap_gt", gt_rows),
        overlap_pixels=joined("overlap_pixels"),
    )


def take(table: InstanceTable, images: Counts) -> InstanceTable:
    """The rows of some images, which are numbered anew by their place in `images`, int64 (n,).

    The order of rows stays. `images` names none twice; some may have no row.
    """
    numbers = np.concatenate([images, table.pred_image, table.gt_image])
    place = np.full(numbers.max(initial=-1) + 1, -1, np.int64)
    place[images] = np.arange(images.size)
    pred, gt = (np.flatnonzero(place[column] >= 0) for column in (table.pred_image, table.gt_image))
    new_pred, new_gt = (np.cumsum(place[column] >= 0) - 1 for column in (table.pred_image, table.gt_image))
    overlap = np.flatnonzero(place[table.pred_image[table.overlap_pred]] >= 0)
    return InstanceTable(
        pred_image=place[table.pred_image[pred]],
        pred_class=table.pred_class[pred],
        confidence=table.confidence[pred],
        pred_pixels=table.pred_pixels[pred],
        gt_image=place[table.gt_image[gt]],
        gt_value=table.gt_value[gt],
        gt_pixels=table.gt_pixels[gt],
        overlap_pred=new_pred[table.overlap_pred[overlap]],
        overlap_gt=new_gt[table.overlap_gt[overlap]],
        overlap_pixels=table.overlap_pixels[overlap],
    )


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of each row of `table` at each of T thresholds.

    `pred_class` (P,) and `gt_class` (G,) are indices into `space.ids`, -1 for a class that is not
    evaluated. `best_gt` (P,) is the row of the gt of the same class with the highest IoU, -1 without one, and
    `best_iou` (P,) that IoU: the prediction matches it wherever `best_iou` is greater than the threshold.
    Groups take part only under `cityscapes`. `preds` (P, T) and `gts` (G, T), uint8, are indices into
    `PRED_OUTCOMES` and `GT_OUTCOMES`; `found_by` (G, T) is the row of the prediction that is the TP of a gt,
    or -1.
    """

    table: InstanceTable
    space: InstanceSpace
    protocol: str
    thresholds: Ratios
    area: tuple[float, float]
    pred_class: Counts
    gt_class: Counts
    best_gt: Counts
    best_iou: Ratios
    preds: npt.NDArray[np.uint8]
    gts: npt.NDArray[np.uint8]
    found_by: Counts

    @property
    def tp(self) -> npt.NDArray[np.bool_]:
        """Which predictions are true positives, (P, T)."""
        return np.asarray(self.preds == _TP)

    @property
    def fp(self) -> npt.NDArray[np.bool_]:
        """Which predictions are false positives, (P, T)."""
        return np.asarray((self.preds == _DUPLICATE) | (self.preds == _UNMATCHED))

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which gt instances count, (G,); the same at every threshold."""
        return np.asarray(self.gts[:, 0] <= _GT_FN)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which predictions have pixels and an evaluated class, (P,), ignored or not."""
        return np.asarray((self.pred_class >= 0) & (self.table.pred_pixels > 0))


def outcomes(
    table: InstanceTable,
    space: InstanceSpace,
    protocol: str,
    thresholds: Sequence[float] = THRESHOLDS,
    area: tuple[float, float] = AREA,
) -> Outcomes:
    """What became of each prediction and each gt instance at each threshold.

    A prediction matches a gt of its class where their IoU is greater than the threshold. Of several on one
    gt the most confident is the TP, the first in the table among equals, and the others are FPs. A prediction
    that matches nothing is ignored if more of it than the threshold lies on void, on gt of its class outside
    `area`, or (`cityscapes`) on groups of its class; a group outside `area` weighs twice, as in the
    reference. `area` is in gt pixels, the first number included, the second not. It selects gt alone, as the
    minimum of the reference does: a prediction on nothing is an FP in every range, whatever its own size.

    Raises OptionError for an unknown protocol, for thresholds that do not rise within [0.5, 1), and for an
    area that is no range.
    """
    _check(protocol, thresholds, area)
    pred_class = _index_in(space.ids, table.pred_class)
    kind, gt_class = _kinds(table, space, area)
    collected = gt_class >= 0
    if protocol == "autonue":
        collected &= kind != _GT_GROUP
    same_class = gt_class[table.overlap_gt] == pred_class[table.overlap_pred]
    alike = same_class & collected[table.overlap_gt]
    best_gt, best_iou = _best(table, np.flatnonzero(alike))
    void, ignorable = _ignorable(table, kind, alike, area)

    limits = np.array(thresholds, np.float64)
    when_matched = np.full(kind.size + 1, _DUPLICATE, np.uint8)  # one more: best_gt is -1 without a gt
    when_matched[:-1][kind == _GT_SIZE] = _SIZE
    when_matched[:-1][kind == _GT_GROUP] = _GROUP
    preds = np.full((pred_class.size, limits.size), _UNMATCHED, np.uint8)
    preds[ignorable[:, None] > limits] = _MIXED
    preds[void[:, None] > limits] = _VOID
    preds = np.where(best_iou[:, None] > limits, when_matched[best_gt][:, None], preds)
    preds[table.pred_pixels == 0] = _EMPTY
    preds[pred_class < 0] = _OTHER

    found_by = np.full((kind.size, limits.size), -1, np.int64)
    rivals = np.flatnonzero((best_iou > limits[0]) & (preds[:, 0] == _DUPLICATE))
    rivals = rivals[np.lexsort((rivals, -table.confidence[rivals], best_gt[rivals]))]
    for column, limit in enumerate(limits):
        matching = rivals[best_iou[rivals] > limit]
        first = np.diff(best_gt[matching], prepend=-1) != 0
        found_by[best_gt[matching[first]], column] = matching[first]
        preds[matching[first], column] = _TP

    gts = np.repeat(kind[:, None], limits.size, axis=1)
    gts[found_by >= 0] = _GT_TP
    return Outcomes(
        table=table,
        space=space,
        protocol=protocol,
        thresholds=limits,
        area=area,
        pred_class=pred_class,
        gt_class=gt_class,
        best_gt=best_gt,
        best_iou=best_iou,
        preds=preds,
        gts=gts,
        found_by=found_by,
    )


def _check(protocol: str, thresholds: Sequence[float], area: tuple[float, float]) -> None:
    if protocol not in PROTOCOLS:
        raise OptionError("no such protocol", found=protocol, expected="one of " + ", ".join(PROTOCOLS))
    limits = np.array(thresholds, np.float64)
    rising = limits.ndim == 1 and limits.size > 0 and bool(np.all(np.diff(limits) > 0))
    if not (rising and limits[0] >= 0.5 and limits[-1] < 1):
        raise OptionError(
            "overlap thresholds that mean nothing here",
            found=str(list(thresholds)),
            expected="rising numbers from 0.5 to below 1: below 0.5 a prediction could match two gt",
        )
    check_area(area)


def check_area(area: tuple[float, float]) -> None:
    """Raise OptionError for an area that is no range."""
    low, high = area
    if not 0 <= low < high:
        raise OptionError(
            "no range of areas", found=str(area), expected="(from, to) in pixels, 0 <= from < to"
        )


def gt_classes(table: InstanceTable, space: InstanceSpace) -> Counts:
    """The class of each gt row as an index into `space.ids`, (G,); -1 where it is not evaluated."""
    value = table.gt_value
    return _index_in(space.ids, np.where(value < _FIRST_INSTANCE, value, value // _FIRST_INSTANCE))


def _index_in(ids: Sequence[int], values: Counts) -> Counts:
    """Where each value stands in `ids`, -1 where it does not."""
    table = np.array(ids, np.int64)
    order = np.argsort(table)
    place = np.minimum(np.searchsorted(table, values, sorter=order), table.size - 1)
    return np.asarray(np.where(table[order[place]] == values, order[place], -1))


def _kinds(
    table: InstanceTable, space: InstanceSpace, area: tuple[float, float]
) -> tuple[npt.NDArray[np.uint8], Counts]:
    """Per gt row its outcome as if nothing were predicted, and the index of its class or -1."""
    value = table.gt_value
    group = value < _FIRST_INSTANCE
    gt_class = gt_classes(table, space)
    kind = np.full(value.size, _GT_FN, np.uint8)
    kind[_outside(table, area)] = _GT_SIZE
    kind[group] = _GT_GROUP
    kind[gt_class < 0] = _GT_OTHER
    kind[np.isin(value, list(space.void_ids))] = _GT_VOID
    return kind, gt_class


def _outside(table: InstanceTable, area: tuple[float, float]) -> npt.NDArray[np.bool_]:
    return np.asarray((table.gt_pixels < area[0]) | (table.gt_pixels >= area[1]))


def _best(table: InstanceTable, overlaps: npt.NDArray[np.intp]) -> tuple[Counts, Ratios]:
    """Per prediction the gt row with the highest IoU among `overlaps`, and that IoU; -1 and 0 without."""
    pred, gt, shared = (
        column[overlaps] for column in (table.overlap_pred, table.overlap_gt, table.overlap_pixels)
    )
    iou = shared / (table.gt_pixels[gt] + table.pred_pixels[pred] - shared)
    order = np.lexsort((gt, -iou, pred))
    first = order[np.diff(pred[order], prepend=-1) != 0]
    best_gt = np.full(table.pred_class.size, -1, np.int64)
    best_iou = np.zeros(table.pred_class.size)
    best_gt[pred[first]] = gt[first]
    best_iou[pred[first]] = iou[first]
    return best_gt, best_iou


def _ignorable(
    table: InstanceTable,
    kind: npt.NDArray[np.uint8],
    alike: npt.NDArray[np.bool_],
    area: tuple[float, float],
) -> tuple[Ratios, Ratios]:
    """The share of each prediction that lies on void, and on all that is ignorable, float64 (P,); 0 if empty.

    `alike` marks the overlaps with collected gt of the prediction's own class.
    """
    weight = _outside(table, area).astype(np.int64) + (kind == _GT_GROUP)
    # bincount adds in float64, exact below 2^53 pixels.
    void, rest = (
        np.bincount(table.overlap_pred, weights=pixels, minlength=table.pred_class.size)
        for pixels in (
            table.overlap_pixels * (kind[table.overlap_gt] == _GT_VOID),
            table.overlap_pixels * weight[table.overlap_gt] * alike,
        )
    )
    pixels = np.maximum(table.pred_pixels, 1)
    return cm.ratio(void, pixels), cm.ratio(void + rest, pixels)
