"""A tiny split of label maps in IDD's layout, and what its counts must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

SUFFIX = "_gtFine_labellevel3Ids.png"
HEIGHT, WIDTH = 40, 64
CLASSES = 26

Map = npt.NDArray[np.integer]


@dataclass(frozen=True)
class TinySplit:
    """A split on disk; `maps` holds (gt, prediction) by file name, in the order of the split."""

    gts: Path
    preds: Path
    maps: dict[str, tuple[Map, Map]]

    task: ClassVar[str] = "semantic"

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def names(self) -> list[str]:
        return list(self.maps)

    def without(self, name: str) -> TinySplit:
        """The same files with one image less in what is expected."""
        return TinySplit(self.gts, self.preds, {n: maps for n, maps in self.maps.items() if n != name})

    def total(self, size: tuple[int, int] | None = None) -> npt.NDArray[np.int64]:
        """The literal confusion matrix at (height, width) or the maps' own; rows gt."""
        return np.sum([count(gt, pred, size) for gt, pred in self.maps.values()], axis=0)


def count(gt: Map, pred: Map, size: tuple[int, int] | None = None) -> npt.NDArray[np.int64]:
    """Pillow's nearest resize and a bincount of level-3 ids; whatever is no class is void, index 26."""
    sides = []
    for values in (gt, pred):
        height, width = size or gt.shape
        resized = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))
        sides.append(np.where(resized < CLASSES, resized, CLASSES).astype(np.int64))
    joint = np.bincount((sides[0] * (CLASSES + 1) + sides[1]).ravel(), minlength=(CLASSES + 1) ** 2)
    return joint.reshape(CLASSES + 1, CLASSES + 1)


def make_split(root: Path, pairs: int = 6) -> TinySplit:
    """Blocks of classes and void under `root`/gt and `root`/pred, in two drives; every class occurs."""
    maps: dict[str, tuple[Map, Map]] = {}
    for number in range(pairs):
        rng = np.random.default_rng([7, number])
        blocks = rng.choice([*range(CLASSES), 255], (HEIGHT // 4, WIDTH // 4)).astype(np.uint8)
        gt = blocks.repeat(4, axis=0).repeat(4, axis=1)
        wrong = rng.random(gt.shape) < 0.2
        pred = np.where(wrong, rng.integers(0, CLASSES, gt.shape), gt).astype(np.uint8)
        maps[f"{'ab'[number * 2 // pairs]}/frame{number:04d}{SUFFIX}"] = (gt, pred)
    for name, sides in maps.items():
        for side, values in zip(("gt", "pred"), sides, strict=True):
            path = root / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return TinySplit(root / "gt", root / "pred", maps)


def drawn_pixels() -> Map:
    """Other pixels than those of any map of a split."""
    return np.random.default_rng(5).integers(0, CLASSES, (HEIGHT, WIDTH)).astype(np.uint8)
