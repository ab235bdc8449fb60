"""Seeded splits of instances for the doctor: mix-ups that it must name, and honest models to leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances

Map = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

HEIGHT, WIDTH, CELL = 96, 160, 32
IDS = {"idd": (6, 8, 9, 10, 11, 12, 13, 14, 18), "cityscapes": (24, 25, 26, 27, 28, 31, 32, 33)}


class Found(NamedTuple):
    """A predicted instance; `label` is what its list says."""

    mask: Mask
    label: int
    confidence: float


class Scene(NamedTuple):
    """A gt (id, or id * 1000 + n) and what a model found in it."""

    gt: Map
    found: Sequence[Found]


Scenes = list[Scene]


def draw(
    rng: np.random.Generator,
    labels: str = "idd",
    of: Sequence[int] | None = None,
    quality: float | None = None,
) -> Scenes:
    """Six images in which a model, worse or better (quality 1: perfect), has found instances."""
    level = float(rng.uniform(0.45, 1.0)) if quality is None else quality
    return [_scene(rng, level, of or IDS[labels]) for _ in range(6)]


def _scene(rng: np.random.Generator, quality: float, ids: Sequence[int]) -> Scene:
    gt = np.zeros((HEIGHT, WIDTH), np.int64)
    numbers = dict.fromkeys(ids, 0)
    found = []
    for top in range(0, HEIGHT, CELL):
        for left in range(0, WIDTH, CELL):
            if rng.random() < 0.35:
                continue
            label = int(rng.choice(ids))
            box = _box(top + rng.integers(2, 6), left + rng.integers(2, 6), *rng.integers(16, 24, 2))
            gt[box] = label * 1000 + numbers[label]
            numbers[label] += 1
            if rng.random() < quality:
                seen = np.roll(box, int(rng.integers(-2, 3)), axis=1)
                named = label if rng.random() < 0.5 + quality / 2 else int(rng.choice(ids))
                found.append(Found(seen, named, round(0.5 + rng.random() / 2, 3)))
            elif rng.random() < 0.7:
                anywhere = _box(*rng.integers(0, (HEIGHT - 30, WIDTH - 30)), *rng.integers(6, 30, 2))
                found.append(Found(anywhere, int(rng.choice(ids)), round(rng.random() * 0.7, 3)))
    return Scene(gt, found)


def _box(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def relabelled(scenes: Scenes, new: Callable[[int], int | None]) -> Scenes:
    """The labels of predictions changed; those that become None are not predicted."""
    return [
        Scene(gt, [one._replace(label=label) for one in found if (label := new(one.label)) is not None])
        for gt, found in scenes
    ]


def values_of(encoding: str, labels: str) -> Mapping[int, int]:
    """How an encoding writes each raw id of an evaluated class."""
    reading = choose_reading(load_readings(labels, load_instances(labels)), encoding)
    return {raw: value for value, ids in reading.classes.items() for raw in ids if value >= 0}


def labels_in(encoding: str, labels: str, rng: np.random.Generator) -> Scenes:
    return relabelled(draw(rng, labels), values_of(encoding, labels).get)


def gt_in(encoding: str, labels: str, rng: np.random.Generator) -> Scenes:
    values = values_of(encoding, labels)
    table = np.array([values.get(raw, 0) if values.get(raw, 0) < 66 else 0 for raw in range(66)])

    def new(gt: Map) -> Map:
        ids = table[gt // 1000]
        return np.where(gt < 1000, gt, ids * 1000 + gt % 1000 * (ids > 0))

    return with_gt(new, labels, rng)


def with_gt(new: Callable[[Map], Map], labels: str, rng: np.random.Generator) -> Scenes:
    return [Scene(new(gt), found) for gt, found in draw(rng, labels)]


def _ids(gt: Map) -> Map:
    return np.where(gt < 1000, gt, gt // 1000)


def _by_256(gt: Map) -> Map:
    return np.where(gt < 1000, gt, gt // 1000 * 256 + gt % 1000)


@dataclass(frozen=True)
class MixUp:
    """What was written by mistake, and a word of the doubt that names it right."""

    title: str
    labels: str
    make: Callable[[np.random.Generator], Scenes]
    word: str


MIX_UPS = [
    *(
        MixUp(f"{labels} instances: labels in {name}", labels, partial(labels_in, name, labels), name)
        for labels, names in (
            ("idd", ("level3", "cs", "cs_train", "coco", "id+1", "id-1", "from0", "from1")),
            ("cityscapes", ("train", "coco", "from1", "id+1")),
        )
        for name in names
    ),
    *(
        MixUp(f"{labels} instances: gt in {name}", labels, partial(gt_in, name, labels), name)
        for labels, name in (("idd", "level3"), ("idd", "cs"), ("cityscapes", "train"))
    ),
    MixUp("idd instances: gt of id * 256 + n", "idd", partial(with_gt, _by_256, "idd"), "256"),
    MixUp(
        "idd instances: gt cut to 8 bits", "idd",
        partial(with_gt, lambda gt: (gt % 256).astype(np.uint8), "idd"), "8 bits",
    ),
    MixUp(
        "idd instances: gt limited to 255", "idd",
        partial(with_gt, lambda gt: np.minimum(gt, 255).astype(np.uint8), "idd"), "8 bits",
    ),
    MixUp("idd instances: a label map as gt", "idd", partial(with_gt, _ids, "idd"), "label map"),
]  # fmt: skip


# --- honest models ---------------------------------------------------------------------------------


def _constant(rng: np.random.Generator) -> Scenes:
    label = int(rng.choice(IDS["idd"]))
    return relabelled(draw(rng), lambda _: label)


def _exchanged(rng: np.random.Generator) -> Scenes:
    return relabelled(draw(rng), lambda label: {12: 13, 13: 12}.get(label, label))


def _by_chance(ids: Sequence[int], rng: np.random.Generator) -> Scenes:
    return relabelled(draw(rng), lambda _: int(rng.choice(ids)))


HONEST: Mapping[str, Callable[[np.random.Generator], Scenes]] = {
    "any model": draw,
    "one label": _constant,
    "cars and trucks exchanged": _exchanged,
    "labels by chance": partial(_by_chance, IDS["idd"]),
    "labels of all kinds by chance": partial(_by_chance, tuple(range(40))),
    "random boxes": partial(draw, quality=0.0),
    "one class": partial(draw, of=(12,), quality=0.8),
    "nothing found": lambda rng: [Scene(gt, []) for gt, _ in draw(rng)],
}


def write(folder: Path, scenes: Scenes) -> tuple[Path, Path]:
    """The split as PNGs and lists below `folder`: where its gts and its predictions lie."""
    gts, preds = folder / "gt" / "drive", folder / "pred" / "drive"
    for i, (gt, found) in enumerate(scenes):
        (preds / str(i)).mkdir(parents=True)
        gts.mkdir(parents=True, exist_ok=True)
        values = gt if gt.dtype == np.uint8 else gt.astype(np.uint16)
        Image.fromarray(values).save(gts / f"{i}_gtFine_instanceids.png")
        lines = []
        for j, (mask, label, confidence) in enumerate(found):
            Image.fromarray(mask.astype(np.uint8) * 255).save(preds / str(i) / f"{j}.png", compress_level=1)
            lines.append(f"{i}/{j}.png {label} {confidence}\n")
        (preds / f"{i}_leftImg8bit.txt").write_text("".join(lines))
    return gts.parent, preds.parent
