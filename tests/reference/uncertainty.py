"""The delete-one-unit jackknife the slow, literal way: leave a unit out, add up the rest, score it.

Imports nothing from the package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tests.reference import semantic
from tests.reference.semantic import Groups, Matrix


class Told(NamedTuple):
    """Of a mean (first) and of each class: the score, its standard error and its degrees of freedom."""

    scores: list[float]
    errors: list[float]
    freedom: list[float]


def total(images: list[Matrix]) -> Matrix:
    size = len(images[0])
    out = [[0] * size for _ in range(size)]
    for image in images:
        for gt in range(size):
            for pred in range(size):
                out[gt][pred] += image[gt][pred]
    return out


def scored(images: list[Matrix], protocol: str, children: list[Groups], level: int) -> list[float]:
    """The mean over the classes that have an IoU, and each class's IoU; `level` counts from the finest, 0."""
    matrix = semantic.level_matrices(total(images), protocol, children)[level]
    ious = semantic.iou(*semantic.tp_fp_fn(matrix))
    defined = [value for value in ious if not math.isnan(value)]
    return [sum(defined) / len(defined) if defined else math.nan, *ious]


def pixels(images: list[Matrix], protocol: str, children: list[Groups], level: int) -> list[tuple[int, int]]:
    """Per class its gt, and its gt and false positives."""
    tp, fp, fn = semantic.tp_fp_fn(semantic.level_matrices(total(images), protocol, children)[level])
    return [(t + n, t + p + n) for t, p, n in zip(tp, fp, fn, strict=True)]


def jackknife(
    sides: list[list[Matrix]], unit_of: list[int], protocol: str, children: list[Groups], level: int
) -> Told:
    """Of one run, or of the second of two less the first."""

    def apart(kept: list[int]) -> list[list[float]]:
        return [scored([side[i] for i in kept], protocol, children, level) for side in sides]

    units = sorted(set(unit_of))
    full = apart(list(range(len(unit_of))))
    moves = []  # unit, score
    for unit in units:
        row = [0.0] * len(full[0])
        for sign, all_of, without in zip(
            (1.0,) if len(sides) == 1 else (-1.0, 1.0),
            full,
            apart([i for i, of in enumerate(unit_of) if of != unit]),
            strict=True,
        ):
            for c, (value, left) in enumerate(zip(all_of, without, strict=True)):
                if math.isnan(value):
                    continue  # a class without a score does not move
                row[c] += sign * ((all_of[0] if math.isnan(left) else left) - value)
        moves.append(row)
    by_side = [_shares(side, unit_of, protocol, children, level) for side in sides]
    shares = [  # unit, class
        [sum(of_class) / len(sides) for of_class in zip(*of_unit, strict=True)]
        for of_unit in zip(*by_side, strict=True)
    ]
    errors = []
    for c in range(len(full[0])):
        moved = [row[c] for row in moves]
        mean = sum(moved) / len(moved)
        errors.append(math.sqrt((len(units) - 1) / len(units) * sum((x - mean) ** 2 for x in moved)))
    classes = range(1, len(full[0]))
    seen = [sum(row[c] ** 2 for row in moves) for c in classes]
    alike = [sum(share[c - 1] ** 2 for share in shares) if seen[c - 1] > 0 else 0.0 for c in classes]
    freedom = [min(_freedom([_product(of_class, share) for share in shares]) for of_class in (seen, alike))]
    freedom += [_freedom([share[c - 1] for share in shares]) for c in classes]
    scores = full[0] if len(sides) == 1 else [b - a for a, b in zip(*full, strict=True)]
    return Told(scores, errors, freedom)


def _shares(
    images: list[Matrix], unit_of: list[int], protocol: str, children: list[Groups], level: int
) -> list[list[float]]:
    """Per unit and class the unit's share of the gt; of what is predicted, for a class without gt."""
    everything = pixels(images, protocol, children, level)
    out = []
    for unit in sorted(set(unit_of)):
        own = [m for m, of in zip(images, unit_of, strict=True) if of == unit]
        out.append(
            [
                mine[0] / whole[0] if whole[0] else mine[1] / whole[1] if whole[1] else 0.0
                for mine, whole in zip(pixels(own, protocol, children, level), everything, strict=True)
            ]
        )
    return out


def _product(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _freedom(weights: list[float]) -> float:
    """Kish's effective number of units less one, within 1 and the number of units less one."""
    squares = sum(w * w for w in weights)
    effective = sum(weights) ** 2 / squares if squares else float(len(weights))
    return min(max(effective - 1, 1.0), max(len(weights) - 1, 1))


def bounds(score: float, error: float, t: float) -> tuple[float, float]:
    """Student's t about the logit of a score."""
    odds = math.log(score / (1 - score))
    half = t * error / (score * (1 - score))
    return 1 / (1 + math.exp(half - odds)), 1 / (1 + math.exp(-half - odds))


def holm(p: list[float]) -> list[float]:
    out = []
    for i, mine in enumerate(p):
        smaller = [q for j, q in enumerate(p) if (q, j) <= (mine, i)]
        steps = [q * sum((r, k) >= (q, j) for k, r in enumerate(p)) for j, q in enumerate(p) if q in smaller]
        out.append(min(1.0, max(steps)))
    return out
