"""A bootstrap the slow, literal way: lists of matrices drawn one by one, added up, scored.

Imports nothing from the package.
"""

from __future__ import annotations

import math

import numpy as np

from tests.reference import semantic
from tests.reference.semantic import Groups, Matrix


def draws(units: int, resamples: int, seed: int) -> list[list[int]]:
    """The units of each resample, as the package documents its draws: one call of `integers` each."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, units, units).tolist() for _ in range(resamples)]


def total(images: list[Matrix]) -> Matrix:
    size = len(images[0])
    out = [[0] * size for _ in range(size)]
    for image in images:
        for gt in range(size):
            for pred in range(size):
                out[gt][pred] += image[gt][pred]
    return out


def scores(
    images: list[Matrix], unit_of: list[int], drawn: list[list[int]], protocol: str, children: list[Groups]
) -> list[list[tuple[float, list[float]]]]:
    """Per resample and level (finest first) the mIoU and the classes' IoU."""
    out = []
    for units in drawn:
        chosen = [image for unit in units for image, of in zip(images, unit_of, strict=True) if of == unit]
        levels = []
        for matrix in semantic.level_matrices(total(chosen), protocol, children):
            ious = semantic.iou(*semantic.tp_fp_fn(matrix))
            levels.append((semantic.mean_iou(ious, protocol), ious))
        out.append(levels)
    return out


def interval(samples: list[float], confidence: float) -> tuple[float, float]:
    kept = sorted(value for value in samples if not math.isnan(value))
    if not kept:
        return math.nan, math.nan
    bounds = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        at = share * (len(kept) - 1)
        below = math.floor(at)
        above = min(below + 1, len(kept) - 1)
        bounds.append(kept[below] + (at - below) * (kept[above] - kept[below]))
    return bounds[0], bounds[1]


def p_value(differences: list[float]) -> float:
    kept = [value for value in differences if not math.isnan(value)]
    below = sum(value <= 0 for value in kept) + 1
    above = sum(value >= 0 for value in kept) + 1
    return min(1.0, 2 * min(below, above) / (len(kept) + 1)) if kept else math.nan
