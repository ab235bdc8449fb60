"""What a reader looks for in a confusion matrix: its top mistakes, and how far they miss.

Matrices are int64 of shape (n + 1, n + 1): rows are gt, columns are prediction, the last index is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.confusion import Counts, Ratios


@dataclass(frozen=True, slots=True)
class Mistake:
    """Pixels of class `gt` that were called `pred`, and their share of the class; indices of the level."""

    gt: int
    pred: int
    pixels: int
    share: float


@dataclass(frozen=True, slots=True)
class Reach:
    """Of each class's mistaken gt pixels: those that stay inside its parent, that leave it, that are void.

    Each int64 of shape (n,). `parents` are indices of the parent level, `only_child` marks classes that
    have no sibling to be mistaken for.
    """

    inside: Counts
    outside: Counts
    void: Counts
    parents: tuple[int, ...]
    only_child: npt.NDArray[np.bool_]


def shares(matrix: Counts) -> Ratios:
    """The matrix as shares of each row, float64; NaN in rows without pixels."""
    rows = matrix.sum(axis=-1, keepdims=True)
    return np.asarray(cm.ratio(matrix, np.broadcast_to(rows, matrix.shape)))


def top_mistakes(matrix: Counts, limit: int, least_share: float = 0.0) -> list[Mistake]:
    """The largest off-diagonal cells by their share of the gt class; gt void is left out.

    `least_share` leaves out classes with less than that share of all gt pixels.
    """
    counted = matrix[:-1].copy()
    np.fill_diagonal(counted[:, :-1], 0)
    gt_pixels = matrix[:-1].sum(axis=1)
    share = np.nan_to_num(cm.ratio(counted, np.broadcast_to(gt_pixels[:, None], counted.shape)))
    share[gt_pixels < least_share * gt_pixels.sum()] = 0.0
    order = np.lexsort((-counted.ravel(), -share.ravel()))[:limit]
    found = [divmod(int(index), counted.shape[1]) for index in order]
    return [Mistake(i, j, int(counted[i, j]), float(share[i, j])) for i, j in found if share[i, j] > 0]


def parents(labels: LabelSpace, number: int) -> tuple[int, ...] | None:
    """The index of each class's parent in the next coarser level; None at the coarsest."""
    numbers = [level.number for level in labels.levels]
    position = numbers.index(labels.level(number).number)
    if position + 1 == len(numbers):
        return None
    found = [-1] * len(labels.levels[position].names)
    for parent, children in enumerate(labels.levels[position + 1].children):
        for child in children:
            found[child] = parent
    return tuple(found)


def reach(matrix: Counts, parent_of: Sequence[int]) -> Reach:
    """How far the mistakes of a level's matrix go; `parent_of[c]` is the parent of class c, -1 for none."""
    parent = np.array(parent_of)
    same = (parent[:, None] == parent) & (parent[:, None] >= 0)
    np.fill_diagonal(same, False)
    inner = matrix[:-1, :-1]
    wrong = inner.sum(axis=1) - np.diagonal(inner)
    inside = np.where(same, inner, 0).sum(axis=1)
    return Reach(inside, wrong - inside, matrix[:-1, -1].copy(), tuple(parent_of), ~same.any(axis=1))


def colours(labels: LabelSpace, number: int) -> list[str]:
    """A CSS colour per class of a level."""
    return [labels.css_colour(number, c) for c in range(len(labels.level(number).names))]
