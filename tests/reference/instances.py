"""Instance scores the slow, literal way: image by image, class by class, threshold by threshold.

An image is its gt map (int64, raw values) and a list of predictions (mask, label, confidence). The rules are
written down as the public scripts of Cityscapes and AutoNUE publish them. Imports nothing from the package.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

Map = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Prediction(NamedTuple):
    mask: Mask
    label: int
    confidence: float


class Image(NamedTuple):
    gt: Map
    predictions: list[Prediction]


class Score(NamedTuple):
    """Of a class at a threshold; `points` are (confidence, precision, recall), lowest confidence first."""

    ap: float
    tp: int
    fp: int
    fn: int
    points: list[tuple[float, float, float]]


def class_of(value: int) -> int:
    return value if value < 1000 else value // 1000


def observe(image: Image, label: int, void_ids: set[int], protocol: str) -> tuple[list[Any], list[Any]]:
    """The gt instances and the predictions of one class, and how they overlap."""
    gts = []
    for value in np.unique(image.gt).tolist():
        group = value < 1000
        if class_of(value) != label or (group and protocol == "autonue"):
            continue
        gts.append({"value": value, "group": group, "pixels": int((image.gt == value).sum())})
    void = np.isin(image.gt, sorted(void_ids))
    preds = []
    for mask, of, confidence in image.predictions:
        pixels = int(mask.sum())
        if of != label or pixels == 0:
            continue
        shared = [int((mask & (image.gt == gt["value"])).sum()) for gt in gts]
        on_void = int((mask & void).sum())
        preds.append({"pixels": pixels, "confidence": confidence, "shared": shared, "void": on_void})
    return gts, preds


def judge(
    gts: list[Any], preds: list[Any], threshold: float, area: tuple[float, float]
) -> tuple[list[tuple[float, bool]], int, int]:
    """(confidence, true?) of every prediction of an image that counts; counted gt; counted gt never found."""
    examples: list[tuple[float, bool]] = []
    counted = missed = 0
    for g, gt in enumerate(gts):
        if gt["group"] or not area[0] <= gt["pixels"] < area[1]:
            continue
        counted += 1
        matching = sorted(
            pred["confidence"]
            for pred in preds
            if pred["shared"][g] / (gt["pixels"] + pred["pixels"] - pred["shared"][g]) > threshold
        )
        if not matching:
            missed += 1
            continue
        examples.append((matching.pop(), True))
        for confidence in matching:
            examples.append((confidence, False))
    for pred in preds:
        found = False
        ignorable = pred["void"]
        for gt, shared in zip(gts, pred["shared"], strict=True):
            if shared / (gt["pixels"] + pred["pixels"] - shared) > threshold:
                found = True
            if gt["group"]:
                ignorable += shared
            if not area[0] <= gt["pixels"] < area[1]:
                ignorable += shared
        if not found and not ignorable / pred["pixels"] > threshold:
            examples.append((pred["confidence"], False))
    return examples, counted, missed


def summarize(examples: list[tuple[float, bool]], counted: int, missed: int) -> Score:
    tp = sum(true for _, true in examples)
    fp = len(examples) - tp
    if counted == 0:
        return Score(math.nan, tp, fp, missed, [])
    points = []
    for confidence in sorted({confidence for confidence, _ in examples}):
        kept = [true for of, true in examples if of >= confidence]
        points.append((confidence, sum(kept) / len(kept), sum(kept) / counted))
    precision = [point[1] for point in points] + [1.0]
    recall = [point[2] for point in points] + [0.0]
    ap = 0.0
    for i in range(len(precision)):
        before = recall[i - 1] if i > 0 else recall[0]
        after = recall[i + 1] if i + 1 < len(recall) else 0.0
        ap += precision[i] * (before - after) / 2
    return Score(ap, tp, fp, missed, points)


def evaluate(
    images: list[Image],
    ids: tuple[int, ...],
    void_ids: set[int],
    protocol: str,
    thresholds: list[float],
    area: tuple[float, float] = (100, math.inf),
) -> list[list[Score]]:
    """The scores per class and threshold."""
    result = []
    for label in ids:
        observed = [observe(image, label, void_ids, protocol) for image in images]
        row = []
        for threshold in thresholds:
            examples: list[tuple[float, bool]] = []
            counted = missed = 0
            for gts, preds in observed:
                some, gt_count, never = judge(gts, preds, threshold, area)
                examples += some
                counted += gt_count
                missed += never
            row.append(summarize(examples, counted, missed))
        result.append(row)
    return result


def mean(values: list[float]) -> float:
    """Over the values that are defined; NaN without any."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


# IDD's raw ids, and the size of random images.
EVALUATED = (6, 8, 9, 10, 11, 12, 13, 14, 18)
VOID = (7, 15, 16, 17, 35, 36, 37, 38, 39)
BACKGROUND = (0, 2, 29, 33, 255)
HEIGHT, WIDTH = 56, 72


def read_image(gt: Path, listed: Path) -> Image:
    """As the public script reads well-formed files; masks of labels that are not evaluated may be absent."""
    fields = (line.split() for line in listed.read_text().splitlines())
    chosen = {name: (int(float(label)), float(confidence)) for name, label, confidence in fields}
    predictions = []
    for name, (label, confidence) in chosen.items():
        if label in EVALUATED:
            with PIL.Image.open(listed.parent / name) as mask:
                predictions.append(Prediction(np.array(mask.convert("L")) != 0, label, confidence))
    with PIL.Image.open(gt) as values:
        return Image(np.array(values).astype(np.int64), predictions)


def read_drive(folder: Path, drive: str) -> list[Image]:
    suffix = "_gtFine_instanceids.png"
    return [
        read_image(gt, folder / "pred" / drive / f"{gt.name.removesuffix(suffix)}_leftImg8bit.txt")
        for gt in sorted((folder / "gt" / drive).glob(f"*{suffix}"))
    ]


def random_split(seed: int, images: int, classes: tuple[int, ...] = (6, 9, 12)) -> list[Image]:
    """Images with instances of all sizes around 100 pixels, groups and void, and predictions of every kind.

    Near hits, duplicates, unions, masks on void, on groups and on nothing, empty and one-pixel ones, wrong
    and unevaluated labels; confidences are tenths, so that many are equal, some negative.
    """
    rng = np.random.default_rng(seed)
    return [_random_image(rng, classes) for _ in range(images)]


def _random_image(rng: np.random.Generator, classes: tuple[int, ...]) -> Image:
    gt = np.full((HEIGHT, WIDTH), rng.choice(BACKGROUND), np.int64)
    for value in [*rng.choice(VOID, 2), *rng.choice(classes, 2), 7000 + int(rng.integers(3))]:
        gt[_box(rng, 6, 24)] = value
    for number in range(int(rng.integers(0, 12))):
        gt[_box(rng, 5, 22)] = int(rng.choice(classes)) * 1000 + number
    values = np.unique(gt).tolist()
    predictions = []
    for _ in range(int(rng.integers(0, 30))):
        value = int(rng.choice(values))
        label = class_of(value) if class_of(value) in classes else int(rng.choice(classes))
        if rng.random() < 0.1:
            label = int(rng.choice([*classes, 7, 29]))
        confidence = float(rng.integers(-2, 11)) / 10
        predictions.append(Prediction(_random_mask(rng, gt, value, values), label, confidence))
    return Image(gt, predictions)


def _random_mask(rng: np.random.Generator, gt: Map, value: int, values: list[int]) -> Mask:
    kind = rng.random()
    if kind < 0.05:
        return np.zeros(gt.shape, bool)
    mask = np.zeros(gt.shape, bool)
    if kind < 0.1:
        mask[rng.integers(HEIGHT), rng.integers(WIDTH)] = True
    elif kind < 0.25:
        mask[_box(rng, 5, 25)] = True
    elif kind < 0.35:
        mask = (gt == value) | (gt == rng.choice(values))
    else:
        reach = int(rng.integers(0, 4))
        mask = np.roll(gt == value, rng.integers(-reach, reach + 1, 2), (0, 1))
    return mask


def _box(rng: np.random.Generator, least: int, most: int) -> tuple[slice, slice]:
    height, width = (int(side) for side in rng.integers(least, most, 2))
    top, left = int(rng.integers(0, HEIGHT - height)), int(rng.integers(0, WIDTH - width))
    return slice(top, top + height), slice(left, left + width)
