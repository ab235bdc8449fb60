"""Slow, literal semantic scores: plain loops over lists, nothing from the package.

A matrix is a list of rows, gt by prediction, the last index void. Groups are lists of indices.
"""

from __future__ import annotations

import math

Matrix = list[list[int]]
Groups = list[list[int]]


def tp_fp_fn(matrix: Matrix) -> tuple[list[int], list[int], list[int]]:
    n = len(matrix) - 1
    tp, fp, fn = [0] * n, [0] * n, [0] * n
    for gt in range(n):
        for pred in range(n + 1):
            pixels = matrix[gt][pred]
            if gt == pred:
                tp[gt] += pixels
            else:
                fn[gt] += pixels
                if pred < n:
                    fp[pred] += pixels
    return tp, fp, fn


def iou(tp: list[int], fp: list[int], fn: list[int]) -> list[float]:
    out = []
    for t, p, n in zip(tp, fp, fn, strict=True):
        out.append(t / (t + p + n) if t + p + n else math.nan)
    return out


def map_indices(matrix: Matrix, target: list[int | None], m: int) -> Matrix:
    """Every cell moved to its target's row and column; a cell with a target of None is dropped."""
    out = [[0] * (m + 1) for _ in range(m + 1)]
    for gt, row in enumerate(matrix):
        for pred, pixels in enumerate(row):
            to_gt, to_pred = target[gt], target[pred]
            if to_gt is not None and to_pred is not None:
                out[to_gt][to_pred] += pixels
    return out


def group_of(groups: Groups, size: int, otherwise: int | None) -> list[int | None]:
    target: list[int | None] = [otherwise] * size
    for c, members in enumerate(groups):
        for member in members:
            target[member] = c
    return target


def level_matrices(matrix: Matrix, protocol: str, children: list[Groups]) -> list[Matrix]:
    """The matrix each level is scored on, finest first.

    `children[k]` are the groups of level k+1 below the finest, in ids of the level before it.
    """
    out = [matrix]
    for groups in children:
        m = len(groups)
        if protocol == "idd":
            before = out[-1]
            out.append(map_indices(before, group_of(groups, len(before), m), m))
        else:
            out.append(map_indices(matrix, group_of(groups, len(matrix), None), m))
    return out


def mean_iou(values: list[float], protocol: str) -> float:
    total, count = 0.0, 0
    for value in values:
        if math.isnan(value) and protocol == "idd":
            continue
        total += value
        count += 1
    return total / count if count else math.nan
