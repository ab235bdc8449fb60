"""The integers per image that the scores of label maps are made of: any images' scores need their sums
alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import semantic
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.uncertainty import Parts


@dataclass(frozen=True)
class _Place:
    """Where the columns of one protocol and level stand."""

    tp: slice
    gt: slice
    union: slice


class Columns:
    """The columns of a label space: TP, gt and TP + FP + FN of every class, level and protocol.

    Equal ones (the finest level is the same under both protocols) stand once. Each is a sum of cells of the
    confusion matrix; which cells, `semantic.counts` is asked, cell by cell, on first sight.
    """

    def __init__(self, labels: LabelSpace) -> None:
        self.labels = labels
        self._size = labels.n_classes + 1
        self._place: dict[tuple[str, int], _Place] = {}
        finest, first = labels.levels[0], labels.protocols[0]
        width = 0
        for protocol in labels.protocols:
            for level in labels.levels:
                key, classes = (protocol, level.number), len(level.names)
                if level is finest and protocol != first:
                    self._place[key] = self._place[first, finest.number]
                    continue
                ends = [slice(width + i * classes, width + (i + 1) * classes) for i in range(3)]
                self._place[key] = _Place(*ends)
                width += 3 * classes
        self.width = width
        # share[cell] says which columns a cell counts in; rows are filled when a cell is first seen.
        self._share = np.zeros((self._size**2, width), np.float64)
        self._known = np.zeros(self._size**2, bool)

    @property
    def scored(self) -> tuple[tuple[str, int], ...]:
        """Every protocol and level, in the order of the tables."""
        return tuple(self._place)

    def count(
        self,
        cell: npt.NDArray[np.signedinteger[Any]],
        image: npt.NDArray[np.signedinteger[Any]],
        pixels: Counts,
        images: int,
    ) -> Counts:
        """The columns of each image, int64 (images, width).

        `cell` is gt * (n + 1) + pred, `image` 0..images-1, `pixels` how many; shape (cells,) each. What an
        image has of one cell in several entries is added up.
        """
        used = np.flatnonzero(np.bincount(cell, minlength=self._size**2))
        self._learn(used[~self._known[used]])
        position = np.zeros(self._size**2, np.int64)
        position[used] = np.arange(used.size)
        flat, size = image * used.size + position[cell], images * used.size
        share = self._share[used]
        if int(pixels.sum()) < 2**53:  # float64 holds all integers below, and is many times faster
            dense = np.bincount(flat, pixels, size).reshape(images, used.size)
            return np.asarray((dense @ share).astype(np.int64))
        whole = np.zeros(size, np.int64)
        np.add.at(whole, flat, pixels)
        return np.asarray(whole.reshape(images, used.size) @ share.astype(np.int64))

    def _learn(self, cells: npt.NDArray[np.int64]) -> None:
        for first in range(0, cells.size, 256):
            some = cells[first : first + 256]
            alone = np.zeros((some.size, self._size, self._size), np.int64)
            alone[np.arange(some.size), some // self._size, some % self._size] = 1
            for (protocol, level), place in self._place.items():
                tp, fp, fn = semantic.counts(alone, self.labels, protocol, level)
                self._share[some, place.tp] = tp
                self._share[some, place.gt] = tp + fn
                self._share[some, place.union] = tp + fp + fn
            self._known[some] = True

    def scores(
        self, sums: Counts, protocols: Sequence[str] | None = None
    ) -> dict[tuple[str, int], tuple[Ratios, Ratios]]:
        """Per protocol (default: all) and level the mIoU (...) and the IoU (..., n) of sums (..., width).

        NaN stands where `semantic` has it.
        """
        result = {}
        for (protocol, level), place in self._place.items():
            if protocols is not None and protocol not in protocols:
                continue
            iou = cm.ratio(sums[..., place.tp], sums[..., place.union])
            result[protocol, level] = semantic.mean_iou(iou, protocol), iou
        return result

    def iou(self, sums: Counts, protocol: str, level: int) -> Parts:
        """The classes' IoU, whose mean is the mIoU, from sums per unit (units, width)."""
        place = self._place[protocol, level]
        tp, gt, union = sums[:, place.tp], sums[:, place.gt], sums[:, place.union]
        return iou_parts(tp, gt, union, protocol)

    def pixel_accuracy(self, sums: Counts, protocol: str, level: int) -> Parts:
        """The share of gt pixels that are right, a single part, from sums per unit (units, width)."""
        place = self._place[protocol, level]
        tp, gt = (sums[:, at].sum(axis=1, keepdims=True) for at in (place.tp, place.gt))
        return ratio_parts(tp, gt, gt, all_or_none=False)


@lru_cache(maxsize=8)
def columns_of(labels: LabelSpace) -> Columns:
    """The columns of a label space, which know the cells that they have seen."""
    return Columns(labels)


def iou_parts(tp: Counts, gt: Counts, union: Counts, protocol: str) -> Parts:
    """The IoU of n classes from TP, gt and TP + FP + FN of each unit, int64 (units, n)."""
    return ratio_parts(tp, gt, union, all_or_none=protocol == "autonue")


def ratio_parts(part: Counts, gt: Counts, whole: Counts, *, all_or_none: bool) -> Parts:
    """Ratios of sums: `part` / `whole` of n classes, of which each unit has `gt` pixels, int64 (units, n)."""
    part_sum, whole_sum, gt_sum = (counts.sum(axis=0) for counts in (part, whole, gt))
    # A class that is predicted and nowhere true has a score, 0, and weighs where it is predicted.
    in_gt = gt_sum > 0
    weight_sum = np.where(in_gt, gt_sum, whole_sum)

    def without(units: slice) -> Ratios:
        return cm.ratio(part_sum - part[units], whole_sum - whole[units])

    def weight(units: slice) -> Ratios:
        counts = np.where(in_gt, gt[units], whole[units])
        return np.asarray(counts / np.maximum(weight_sum, 1))

    return Parts(
        value=cm.ratio(part_sum, whole_sum),
        without=without,
        weight=weight,
        count=len(part),
        occurs=np.count_nonzero(gt, axis=0).astype(np.int64),
        all_or_none=all_or_none,
        content=lambda index: np.stack([part[:, index], whole[:, index]]).tobytes(),
    )
