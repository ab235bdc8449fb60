"""Sides to be examined: label maps written as tools write them by mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gpu_eval.labels import load_labels

Map = npt.NDArray[np.integer]

IDD = load_labels("idd")


def rewrite(folder: Path, change: Callable[[Map], Map | Image.Image]) -> None:
    """Every PNG below `folder`, changed."""
    for path in sorted(folder.rglob("*.png")):
        changed = change(np.asarray(Image.open(path)))
        image = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
        path.unlink()  # it may have hard links
        image.save(path)


def by_table(table: Mapping[int, int], rest: int = 255) -> Callable[[Map], Map]:
    """Values looked up; what the table lacks is `rest`."""
    lut = np.full(256, rest, np.uint8)
    lut[list(table)] = list(table.values())
    return lambda values: lut[values]


# Each raw value of the side's maps, 0..25, in another encoding; the raw ids are the first of each class.
SUBMISSION = by_table({v: v + 1 for v in range(26)}, rest=27)
RAW_ID = by_table({v: int(np.flatnonzero(IDD.encoding("id").table == v)[0]) for v in range(26)})


def coloured(values: Map) -> Map:
    """The rendering in the table's colours, void black.

    Class 21 is drawn as class 20: the table has its colour for two classes.
    """
    lut = np.zeros((256, 3), np.uint8)
    lut[:26] = IDD.colours
    lut[21] = lut[20]
    return lut[values]


def three_channels(values: Map) -> Map:
    return np.stack([values] * 3, axis=2)
