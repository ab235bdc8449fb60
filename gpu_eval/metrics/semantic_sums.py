"""The integers per image of which every score of label maps is a function: what intervals draw from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import semantic
from gpu_eval.metrics.confusion import Counts, Ratios


class Columns:
    """The integers per image that all scores of a label space are made of, and where they stand.

    The columns are TP and TP + FP + FN of every class, level and protocol; equal ones (the finest level is
    the same under both protocols) stand once. Each is a sum of cells of the confusion matrix; which
    cells, `semantic.counts` is asked, cell by cell, on first sight.
    """

    def __init__(self, labels: LabelSpace) -> None:
        self.labels = labels
        self._size = labels.n_classes + 1
        self._place: dict[tuple[str, int], tuple[slice, slice]] = {}
        finest, first = labels.levels[0], labels.protocols[0]
        width = 0
        for protocol in labels.protocols:
            for level in labels.levels:
                key, classes = (protocol, level.number), len(level.names)
                if level is finest and protocol != first:
                    self._place[key] = self._place[first, finest.number]
                    continue
                self._place[key] = slice(width, width + classes), slice(width + classes, width + 2 * classes)
                width += 2 * classes
        self.width = width
        # share[cell] says which columns a cell counts in; rows are filled when a cell is first seen.
        self._share = np.zeros((self._size**2, width), np.float64)
        self._known = np.zeros(self._size**2, bool)

    def count(
        self, cell: npt.NDArray[np.int64], image: npt.NDArray[np.int64], pixels: Counts, images: int
    ) -> Counts:
        """The columns of each image, int64 (images, width).

        `cell` is gt * (n + 1) + pred, `image` 0..images-1, `pixels` how many; shape (cells,) each.
        """
        used = np.flatnonzero(np.bincount(cell, minlength=self._size**2))
        self._learn(used[~self._known[used]])
        position = np.zeros(self._size**2, np.int64)
        position[used] = np.arange(used.size)
        dense = np.zeros((images, used.size), np.float64)
        dense[image, position[cell]] = pixels
        return np.asarray((dense @ self._share[used]).astype(np.int64))

    def _learn(self, cells: npt.NDArray[np.int64]) -> None:
        for first in range(0, cells.size, 256):
            some = cells[first : first + 256]
            alone = np.zeros((some.size, self._size, self._size), np.int64)
            alone[np.arange(some.size), some // self._size, some % self._size] = 1
            for (protocol, level), (tp_at, union_at) in self._place.items():
                tp, fp, fn = semantic.counts(alone, self.labels, protocol, level)
                self._share[some, tp_at] = tp
                self._share[some, union_at] = tp + fp + fn
            self._known[some] = True

    def scores(
        self, sums: Counts, protocols: Sequence[str] | None = None
    ) -> dict[tuple[str, int], tuple[Ratios, Ratios]]:
        """Per protocol (default: all) and level the mIoU (...) and the IoU (..., n) of sums (..., width).

        NaN stands where `semantic` has it.
        """
        result = {}
        for (protocol, level), (tp_at, union_at) in self._place.items():
            if protocols is not None and protocol not in protocols:
                continue
            iou = cm.ratio(sums[..., tp_at], sums[..., union_at])
            result[protocol, level] = semantic.mean_iou(iou, protocol), iou
        return result
