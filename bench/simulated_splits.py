"""Made-up splits of drives whose true scores are known: what intervals are held against.

A drive has 1 to 60 images, or twelve each. What is seen and how well it is predicted varies by drive, by
drive and class, by image, and by model within each of them. Rare classes occur in one drive of six. Two
models of equal quality are two draws from one population on the same images; truth is the score of very many
drives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.bootstrap_before import MIN_DRIVES
from gpu_eval.labels.instance_space import InstanceSpace, load_instances
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import InstanceTable

CLASSES = 12
PIXELS = 20_000
INSTANCES = load_instances("idd")

Rng = np.random.Generator


@dataclass(frozen=True)
class Population:
    """`equal`: twelve images a drive and every class everywhere; else unequal drives and rare classes.

    `per_drive` overrules the number of images; the others are standard deviations of the logit of being
    right. `last_in`: the last class is in so many drives, whatever their number; 0: as the others.
    """

    name: str
    equal: bool
    per_drive: int | None = None
    by_drive: float = 0.6
    by_class: float = 0.6
    by_image: float = 0.5
    by_model: float = 0.3
    last_in: int = 0

    def sizes(self, rng: Rng, drives: int) -> Counts:
        """Images of each drive, int64 (drives,)."""
        if self.per_drive or self.equal:
            return np.full(drives, self.per_drive or 12)
        return np.clip(np.rint(np.exp(rng.normal(np.log(12), 0.9, drives))), 1, 60).astype(np.int64)


EQUAL = Population("equal drives", True)
UNEQUAL = Population("unequal drives, rare classes", False)
HARD = Population("unequal drives, rare classes, drives differ much", False, None, 1.0, 1.0, 0.2)
FLAT = Population("independent images, rare classes", False, 1)
FEW = tuple(Population(f"equal drives, one class in {few} of them", True, last_in=few) for few in (2, 5))


@dataclass(frozen=True)
class Labels:
    """TP, gt and TP + FP + FN of M models per row, an image or a whole drive, and the drive of each row.

    `tp` and `union` are int64 (M, rows, C), `gt` (rows, C), `drive` (rows,).
    """

    tp: Counts
    gt: Counts
    union: Counts
    drive: Counts


def _ease() -> tuple[Ratios, Ratios, Ratios, Ratios]:
    """Of each class: logit of being right, log of its pixels, chance to be in a drive, where errors go."""
    rng = np.random.default_rng(1)
    ease = np.linspace(3.2, 0.3, CLASSES) + rng.normal(0, 0.3, CLASSES)
    confused = rng.dirichlet(np.full(CLASSES + 1, 0.5), CLASSES)
    confused[np.arange(CLASSES), np.arange(CLASSES)] = 0
    confused /= confused.sum(axis=1, keepdims=True)
    return (
        ease,
        np.linspace(0, -4.5, CLASSES),
        np.clip(np.linspace(1.6, 0.15, CLASSES), 0, 1),
        confused,
    )


def label_maps(rng: Rng, population: Population, drives: int, models: int = 1) -> Labels:
    """A split of so many drives, scored by so many models of equal quality.

    Rows are images where there are fewer than `MIN_DRIVES`, and drives from there on: the old bootstrap
    looks at no more, and it is quicker.
    """
    ease, log_share, occurs, confused = _ease()
    sizes = population.sizes(rng, drives)
    drive = np.repeat(np.arange(drives), sizes)
    images = drive.size
    present = np.ones((images, CLASSES), bool)
    if not population.equal:
        in_drive = rng.random((drives, CLASSES)) < occurs
        present = in_drive[drive] & (rng.random((images, CLASSES)) < 0.3 + 0.7 * occurs)
    if population.last_in:
        present[:, -1] = np.isin(drive, rng.permutation(drives)[: population.last_in])
    present[:, 0] = True
    share = np.exp(
        log_share + rng.normal(0, 0.5, (drives, CLASSES))[drive] + rng.normal(0, 0.6, (images, CLASSES))
    )
    share *= present
    gt = rng.multinomial(PIXELS, share / share.sum(axis=1, keepdims=True))

    def effect(by: float, classes: int = CLASSES) -> Ratios:
        return rng.normal(0, by, (drives, classes))[drive]

    common = ease + effect(population.by_drive, 1) + effect(population.by_class)
    common = common + rng.normal(0, population.by_image, (images, CLASSES))
    tps, unions = [], []
    for _ in range(models):
        by = population.by_model
        logit = common + effect(by / 2, 1) + effect(by) + rng.normal(0, by, (images, CLASSES))
        tps.append(rng.binomial(gt, 1 / (1 + np.exp(-logit))))
    if drives >= MIN_DRIVES:
        first = np.searchsorted(drive, np.arange(drives))
        gt, *tps = (np.add.reduceat(counts, first, axis=0) for counts in (gt, *tps))
        drive = np.arange(drives)
    for tp in tps:
        wrong = rng.multinomial(gt - tp, np.broadcast_to(confused, (len(gt), CLASSES, CLASSES + 1)))
        unions.append(gt + wrong[..., :CLASSES].sum(axis=1))
    return Labels(np.stack(tps), gt, np.stack(unions), drive)


def rare_class(rng: Rng, images: int, occurs: int, models: int = 2) -> Labels:
    """One class in the first `occurs` of the images, predicted nowhere else: the hardest case for a test."""
    gt = np.zeros((images, 1), np.int64)
    gt[:occurs, 0] = np.rint(np.exp(rng.normal(8, 1, occurs)))
    logit = rng.normal(0, 1.0, images)
    tps, unions = [], []
    for _ in range(models):
        tp = rng.binomial(gt[:, 0], 1 / (1 + np.exp(-logit - rng.normal(0, 0.5, images))))
        tps.append(tp[:, None])
        unions.append(gt)
    return Labels(np.stack(tps), gt, np.stack(unions), np.arange(images))


@dataclass(frozen=True)
class Instances:
    """The tables of M models over the same gt, images numbered from 0, and the drive of each image."""

    tables: tuple[InstanceTable, ...]
    space: InstanceSpace
    drive: Counts


def instances(rng: Rng, population: Population, drives: int, models: int = 1) -> Instances:
    """A split of instances of five classes, the rarest in half of the drives; see `label_maps`.

    A better seen instance is found more often, overlapped better and with more confidence.
    """
    classes = np.array([12, 6, 8, 9, 18])
    rate = np.array([3.0, 1.5, 0.8, 0.4, 0.3])
    ease = np.array([2.0, 1.2, 0.8, 0.5, 0.2])
    occurs = np.array([1.0, 1.0, 0.9, 0.7, 0.5]) if not population.equal else np.ones(5)
    sizes = population.sizes(rng, drives)
    drive = np.repeat(np.arange(drives), sizes)
    crowd = rate / occurs * np.exp(rng.normal(-0.125, 0.5, (drives, 5))) * (rng.random((drives, 5)) < occurs)
    counts = rng.poisson(crowd[drive])
    image, kind = (np.repeat(index.reshape(-1), counts.reshape(-1)) for index in np.indices(counts.shape))
    gts = image.size
    common = ease[kind] + rng.normal(0, population.by_drive, drives)[drive[image]]
    common = common + rng.normal(0, population.by_class, (drives, 5))[drive[image], kind]
    common = common + rng.normal(0, 1.0, gts)
    pixels = np.full(gts, 1000)
    value = classes[kind] * 1000 + np.arange(gts) % 1000
    tables = []
    for _ in range(models):
        by = population.by_model
        seen = common + rng.normal(0, by, (drives, 5))[drive[image], kind] + rng.normal(0, by, gts)
        found = np.flatnonzero(rng.random(gts) < 1 / (1 + np.exp(-seen - 0.5)))
        iou = 1 / (1 + np.exp(-(0.6 * seen[found] + 0.6 + rng.normal(0, 0.6, found.size))))
        false_rate = 0.4 * rate * np.exp(rng.normal(-0.125, 0.5, (drives, 5)))
        false_counts = rng.poisson(false_rate[drive])
        false_image, false_kind = (
            np.repeat(index.reshape(-1), false_counts.reshape(-1)) for index in np.indices(counts.shape)
        )
        tables.append(
            InstanceTable(
                pred_image=np.concatenate([image[found], false_image]),
                pred_class=classes[np.concatenate([kind[found], false_kind])],
                confidence=_sure(
                    np.concatenate([seen[found] + 0.5, rng.normal(-0.5, 1, false_image.size)]), rng
                ),
                pred_pixels=np.full(found.size + false_image.size, 1000),
                gt_image=image,
                gt_value=value,
                gt_pixels=pixels,
                overlap_pred=np.arange(found.size),
                overlap_gt=found,
                overlap_pixels=np.rint(2000 * iou / (1 + iou)).astype(np.int64).clip(1),
            )
        )
    return Instances(tuple(tables), INSTANCES, drive)


def _sure(seen: npt.NDArray[np.float64], rng: Rng) -> Ratios:
    return np.asarray(1 / (1 + np.exp(-(seen + rng.normal(0, 0.7, seen.size)))))
