"""Arithmetic on confusion matrices.

A matrix is int64 of shape (..., n+1, n+1): rows are gt, columns are prediction, the last index is void.
Every function works on any number of leading axes, so one call serves a total or a million images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Ratios = npt.NDArray[np.float64]


def roll_up(confusion: Counts, groups: Sequence[Sequence[int]]) -> Counts:
    """The matrix of coarser classes, int64 (..., m+1, m+1) from (..., n+1, n+1).

    `groups[c]` are the indices that class c is made of. Void, and whatever no group names, becomes the
    void of the result: the sum of the matrix stays.
    """
    named = {index for group in groups for index in group}
    void = [index for index in range(confusion.shape[-1]) if index not in named]
    members = [list(group) for group in groups] + [void]
    rows = np.stack([confusion[..., index, :].sum(axis=-2, dtype=np.int64) for index in members], axis=-2)
    return np.stack([rows[..., index].sum(axis=-1, dtype=np.int64) for index in members], axis=-1)


def tp_fp_fn(confusion: Counts) -> tuple[Counts, Counts, Counts]:
    """True positives, false positives and false negatives in pixels, int64 (..., n) each.

    A false negative is any other prediction, void too; a pixel whose gt is void is never a false
    positive (evaluate_mIoU.py of AutoNUE/public-code, the rule of level 3).
    """
    tp = np.diagonal(confusion, axis1=-2, axis2=-1)[..., :-1].astype(np.int64)
    fp = confusion[..., :-1, :-1].sum(axis=-2, dtype=np.int64) - tp
    fn = confusion[..., :-1, :].sum(axis=-1, dtype=np.int64) - tp
    return tp, fp, fn


def iou(tp: Counts, fp: Counts, fn: Counts) -> Ratios:
    """TP / (TP + FP + FN), float64; NaN where gt and prediction both lack the class."""
    return ratio(tp, tp + fp + fn)


# The four ratios share one signature, so that tables can treat them alike.


def precision(tp: Counts, fp: Counts, fn: Counts) -> Ratios:  # noqa: ARG001
    """TP / (TP + FP), float64; NaN where the class is never predicted."""
    return ratio(tp, tp + fp)


def recall(tp: Counts, fp: Counts, fn: Counts) -> Ratios:  # noqa: ARG001
    """TP / (TP + FN), float64; NaN where the class has no gt."""
    return ratio(tp, tp + fn)


def dice(tp: Counts, fp: Counts, fn: Counts) -> Ratios:
    """2 TP / (2 TP + FP + FN), float64, also called F1; NaN where gt and prediction both lack the class."""
    return ratio(2 * tp, 2 * tp + fp + fn)


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Ratios:
    """part / whole in float64, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part), np.asarray(whole))
    result = np.full(part.shape, np.nan)
    np.divide(part, whole, out=result, where=whole != 0)
    return result


def mean_of_defined(values: Ratios) -> Ratios:
    """The mean over the last axis without NaN, float64; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
