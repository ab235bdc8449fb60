"""Small instance splits on disk, in IDD's layout, and what the literal evaluator makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image

from gpu_eval.inputs.rle import compress
from tests.reference import instances as reference
from tests.reference.instances import EVALUATED, Image, Prediction

GT_SUFFIX, LIST_SUFFIX = "_gtFine_instanceids.png", "_leftImg8bit.txt"
CLASSES = (6, 9, 12)


@dataclass(frozen=True)
class InstanceFiles:
    """A split on disk; `images` holds what was written by key, in the order of the split."""

    root: Path
    images: Mapping[str, Image]

    task: ClassVar[str] = "instance"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def gts(self) -> Path:
        return self.root / "gt"

    @property
    def preds(self) -> Path:
        return self.root / "pred"

    @property
    def keys(self) -> list[str]:
        return list(self.images)

    def gt(self, number: int) -> Path:
        return self.gts / f"{self.keys[number]}{GT_SUFFIX}"

    def listed(self, number: int) -> Path:
        return self.preds / f"{self.keys[number]}{LIST_SUFFIX}"

    def mask(self, number: int, index: int) -> Path:
        """The mask of a line of a list, both counted from 0."""
        return self.preds / self.keys[number] / f"{index:03d}.png"

    def masks(self, number: int) -> list[Path]:
        """The masks of an image that are read."""
        return [self.mask(number, index) for index, _ in self.evaluated(number)]

    def evaluated(self, number: int) -> list[tuple[int, Prediction]]:
        """The predictions of evaluated labels with their place in the list, from 0."""
        predictions = enumerate(self.images[self.keys[number]].predictions)
        return [(index, one) for index, one in predictions if one.label in EVALUATED]


def make_images(count: int = 6, seed: int = 6) -> dict[str, Image]:
    """Images of odd sizes in two drives with all that the random split of the reference has.

    Predictions of every kind on gt of every kind: see `tests.reference.instances.random_split`. The last
    image has no predictions.
    """
    rng = np.random.default_rng(seed)
    images = {}
    for number, (gt, predictions) in enumerate(reference.random_split(seed, count, CLASSES)):
        height, width = rng.integers(47, reference.HEIGHT), rng.integers(61, reference.WIDTH)
        kept = (
            []
            if number == count - 1
            else [one._replace(mask=one.mask[:height, :width]) for one in predictions]
        )
        images[f"{'ab'[number * 2 // count]}/frame{number:04d}"] = Image(gt[:height, :width], kept)
    return images


def write(root: Path, images: Mapping[str, Image], *, every_mask: bool = False) -> InstanceFiles:
    """The images under `root`/gt and `root`/pred.

    Masks of labels that are not evaluated are written with `every_mask` only.
    """
    files = InstanceFiles(root, images)
    for number, image in enumerate(images.values()):
        lines = []
        for index, (mask, label, confidence) in enumerate(image.predictions):
            path = files.mask(number, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            if every_mask or label in EVALUATED:
                PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(path)
            lines.append(f"{path.parent.name}/{path.name} {label} {confidence!r}\n")
        for path in (files.gt(number), files.listed(number)):
            path.parent.mkdir(parents=True, exist_ok=True)
        files.listed(number).write_text("".join(lines))
        PIL.Image.fromarray(image.gt.astype(np.uint16)).save(files.gt(number))
    return files


def make_split(root: Path, count: int = 6, seed: int = 6) -> InstanceFiles:
    return write(root, make_images(count, seed))


def write_coco(path: Path, images: Mapping[str, Image]) -> Path:
    """All predictions as one COCO results file, run lengths as numbers and as text in turn."""
    entries = []
    for key, image in images.items():
        for mask, label, confidence in image.predictions:
            runs = run_lengths(mask)
            counts = compress(runs).decode() if len(entries) % 2 else runs
            entries.append(
                {
                    "image_id": key,
                    "category_id": label,
                    "segmentation": {"size": list(mask.shape), "counts": counts},
                    "score": confidence,
                }
            )
    path.write_text(json.dumps(entries))
    return path


def run_lengths(mask: reference.Mask) -> list[int]:
    """Lengths of runs of 0 and 1 in turn, column by column, those of 0 first."""
    values = np.concatenate(([False], mask.T.ravel()))
    ends = np.append(np.flatnonzero(np.diff(values)), mask.size)
    return np.diff(ends, prepend=0).tolist()


def literal(images: Mapping[Any, Image], protocol: str, area: tuple[float, float] = (100, np.inf)) -> Any:
    """The scores per class and threshold, by the literal evaluator."""
    thresholds = np.arange(0.5, 1.0, 0.05).tolist()
    return reference.evaluate(
        list(images.values()), EVALUATED, set(reference.VOID), protocol, thresholds, area
    )


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])
