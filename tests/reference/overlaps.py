"""Joint counts of masks and instance maps, and of two label arrays, as loops over pixels.

Imports nothing from the package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def overlaps(gt: npt.NDArray[np.integer], masks: Iterable[npt.NDArray[np.integer]]) -> list[Counter[int]]:
    """Per mask, the pixels where it is not zero, by gt value."""
    out = []
    for mask in masks:
        assert mask.shape == gt.shape
        pixels: Counter[int] = Counter()
        for value, inside in zip(gt.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if inside != 0:
                pixels[value] += 1
        out.append(pixels)
    return out


def joint_count(
    gt: npt.NDArray[np.integer],
    pred: npt.NDArray[np.integer],
    gt_classes: list[int],
    pred_classes: list[int],
    classes: int,
    *,
    gt_positions: tuple[list[int], list[int]] | None = None,
    pred_positions: tuple[list[int], list[int]] | None = None,
) -> list[list[int]]:
    """The (classes x classes) count, rows gt, of two maps shown at (rows, columns) positions of each.

    `*_classes[v]` is the class of value v; any other value is class `classes` - 1. No positions: as it is.
    """

    def shown(
        side: npt.NDArray[np.integer], positions: tuple[list[int], list[int]] | None
    ) -> list[list[int]]:
        pixels: list[list[int]] = side.tolist()
        if positions is None:
            return pixels
        return [[pixels[y][x] for x in positions[1]] for y in positions[0]]

    def class_of(value: int, table: list[int]) -> int:
        return table[value] if 0 <= value < len(table) else classes - 1

    cells = [[0] * classes for _ in range(classes)]
    for gt_row, pred_row in zip(shown(gt, gt_positions), shown(pred, pred_positions), strict=True):
        for gt_value, pred_value in zip(gt_row, pred_row, strict=True):
            cells[class_of(gt_value, gt_classes)][class_of(pred_value, pred_classes)] += 1
    return cells
