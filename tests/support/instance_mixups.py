"""Seeded street-like splits of instances: models of any quality, honest bad ones, and mix-ups of ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from gpu_eval.doctor.doubt import Doubt
from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.matching import AREA
from gpu_eval.runs.workers import make_workers
from gpu_eval.tasks.instance import InstanceTask
from tests.reference.instances import EVALUATED, Image, Mask, Prediction, class_of
from tests.support.instance_split import InstanceFiles

HEIGHT, WIDTH = 96, 128
# Persons, riders, two-wheelers and cars are frequent, the others rare.
FREQUENCY = (0.2, 0.12, 0.16, 0.06, 0.1, 0.2, 0.07, 0.05, 0.04)
STUFF = (0, 3, 20, 29, 32, 33)

# Each class and the one that models take it for.
SIMILAR = {6: 8, 8: 6, 9: 10, 10: 9, 11: 12, 12: 11, 13: 14, 14: 13, 18: 13}

Draw = np.random.Generator


def gt_map(rng: Draw) -> np.ndarray:
    """Bands of stuff with boxes of instances on them, numbered per class from 0."""
    gt = np.repeat(rng.choice(STUFF, 4), HEIGHT // 4)[:, None] * np.ones(WIDTH, np.int64)
    numbers = dict.fromkeys(EVALUATED, 0)
    for _ in range(int(rng.integers(4, 14))):
        label = int(rng.choice(EVALUATED, p=FREQUENCY))
        height, width = rng.integers(12, 32, 2)
        top, left = int(rng.integers(0, HEIGHT - height)), int(rng.integers(0, WIDTH - width))
        gt[top : top + height, left : left + width] = label * 1000 + numbers[label]
        numbers[label] += 1
    if rng.random() < 0.3:
        gt[:6, :6] = int(rng.choice((7, 16, 35, 39)))  # void
    return gt


def predict(rng: Draw, gt: np.ndarray, quality: float) -> list[Prediction]:
    """Predictions of a model that finds, outlines and names instances as well as its quality from 0 to 1."""
    found = []
    for value in np.unique(gt[gt >= 1000]).tolist():
        if rng.random() > 0.3 + 0.7 * quality:
            continue
        label = class_of(value)
        if rng.random() > 0.7 + 0.3 * quality:
            label = SIMILAR[label] if rng.random() < 0.7 else int(rng.choice(EVALUATED))
        reach = round(8 * (1 - quality))
        shift = tuple(rng.integers(-reach, reach + 1, 2).tolist())
        confidence = round(float(rng.uniform(0.3 * quality, 1)), 4)
        found.append(Prediction(np.roll(gt == value, shift, (0, 1)), label, confidence))
    for _ in range(int(rng.poisson(3 * (1 - quality)))):
        found.append(Prediction(box(rng), int(rng.choice(EVALUATED)), round(float(rng.uniform()), 4)))
    return found


def box(rng: Draw) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    top, left, height, width = (
        int(rng.integers(low, high)) for low, high in ((0, 60), (0, 90), (8, 36), (8, 36))
    )
    mask[top : top + height, left : left + width] = True
    return mask


def split(seed: int, quality: float, count: int = 8) -> dict[str, Image]:
    """A split of images by key, predicted by a model of that quality."""
    rng = np.random.default_rng(seed)
    gts = [gt_map(rng) for _ in range(count)]
    return {f"{at % 2}/frame{at:04d}": Image(gt, predict(rng, gt, quality)) for at, gt in enumerate(gts)}


def relabelled(images: Mapping[str, Image], label_of: Callable[[int], int | None]) -> dict[str, Image]:
    """The split with other labels of its predictions; None leaves a prediction out."""
    return {
        key: Image(
            gt,
            [one._replace(label=label) for one in predictions if (label := label_of(one.label)) is not None],
        )
        for key, (gt, predictions) in images.items()
    }


def honest(kind: str, seed: int) -> dict[str, Image]:
    """A split of a model that is merely bad, or of little data."""
    rng = np.random.default_rng(seed)
    images = split(seed, 0.9, int(rng.integers(1, 3)) if kind == "tiny" else 8)
    if kind == "random boxes":
        return {
            key: Image(
                gt, [Prediction(box(rng), int(rng.choice(EVALUATED)), float(rng.uniform())) for _ in range(9)]
            )
            for key, (gt, _) in images.items()
        }
    if kind == "random labels":
        return relabelled(images, lambda _: int(rng.choice(EVALUATED)))
    if kind == "constant label":
        constant = int(rng.choice(EVALUATED))
        return relabelled(images, lambda _: constant)
    if kind == "one class":
        only = int(rng.choice(EVALUATED))
        return relabelled(images, lambda label: label if label == only else None)
    if kind == "swapped pair":
        pair = [(12, 13), (6, 8), (9, 10), (13, 14)][seed % 4]
        return relabelled(images, lambda label: sum(pair) - label if label in pair else label)
    if kind == "all similar":
        return relabelled(images, SIMILAR.__getitem__)
    if kind == "half of the classes":
        half = set(rng.permutation(EVALUATED)[:4].tolist())
        return relabelled(images, lambda label: label if label in half else SIMILAR[label])
    if kind == "nothing predicted":
        return relabelled(images, lambda _: None)
    assert kind in ("tiny", "early epoch")
    return split(seed, 0.05) if kind == "early epoch" else images


HONEST = (
    "random boxes",
    "random labels",
    "constant label",
    "one class",
    "swapped pair",
    "all similar",
    "half of the classes",
    "nothing predicted",
    "tiny",
    "early epoch",
)


@cache
def labels_in(name: str) -> dict[int, int]:
    """The label of each evaluated class in an encoding; classes that it does not have are missing."""
    reading = choose_reading(load_readings("idd", load_instances("idd")), name)
    labels: dict[int, int] = {}
    for value, classes in reading.classes.items():
        labels |= dict.fromkeys(classes, value)
    return labels


def examine(files: InstanceFiles | Path, *, factor: int = 1000, encoding: str | None = None) -> list[Doubt]:
    """What the doctor says of a split on disk, by IDD's rules; a folder holds gt and pred."""
    gts, preds = (
        (str(files / "gt"), str(files / "pred"))
        if isinstance(files, Path)
        else (str(files.gts), str(files.preds))
    )
    space = load_instances("idd")
    readings = load_readings("idd", space)
    task = InstanceTask(
        space,
        AREA,
        gt_suffix=space.gt_suffix,
        list_suffix=space.list_suffix,
        gt_factor=factor,
        reading=choose_reading(readings, encoding),
        readings=readings,
        void_on_error=False,
    )
    with make_workers("cpu", None, None) as workers:
        listing = task.list_split(gts, preds, workers.open)
        with workers.sight(gts, preds) as sight:
            return list(task.examine(listing, sight))
