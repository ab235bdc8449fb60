"""A confusion matrix the slow, literal way: Pillow decodes and resizes, a loop over values counts.

Imports nothing from the package.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image


def raw_counts(gt_png: bytes, pred_png: bytes, size: tuple[int, int] | None) -> dict[tuple[int, int], int]:
    """Pixels per (gt value, pred value) after nearest-resizing both to `size` (height, width).

    None means the gt's own size.
    """
    with Image.open(BytesIO(gt_png)) as gt, Image.open(BytesIO(pred_png)) as pred:
        width, height = (size[1], size[0]) if size else gt.size
        maps = [
            np.asarray(
                image if image.size == (width, height) else image.resize((width, height), Image.NEAREST)
            )
            for image in (gt, pred)
        ]
    values, counts = np.unique(
        np.stack([m.ravel().astype(np.int64) for m in maps]), axis=1, return_counts=True
    )
    return {(int(g), int(p)): int(n) for g, p, n in zip(*values, counts, strict=True)}


def level3_matrix(counts: dict[tuple[int, int], int]) -> list[list[int]]:
    """The reference script's matrix: 27 x 27, rows gt, every value above 25 is index 26."""
    matrix = [[0] * 27 for _ in range(27)]
    for (gt, pred), pixels in counts.items():
        matrix[min(gt, 26)][min(pred, 26)] += pixels
    return matrix
