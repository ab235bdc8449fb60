"""Drawn layouts of splits, as benchmarks and toolchains have them: names, and which belong together."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

CITIES = ("aachen", "bonn", "sankt-augustin", "ulm")

# What a toolchain writes after <city>_<seq>_<frame>.
BUNDLED = (
    "_leftImg8bit.png", "_leftImg8bit_pred.png", "_pred.png", "_gtFine_labelIds.png",
    "_gtFine_labelTrainIds.png", "_leftImg8bit_labelids.png", "_label.png", ".png",
)  # fmt: skip
OF_ONES_OWN = ("_mine.png", "-out.png", "_leftImg8bit_deeplab.png", ".pred.PNG", "_v2.png", "_a_b_c.png")
# Beside gts of Cityscapes, and beside predictions.
GT_KINDS = ("_gtFine_labelIds.png", "_gtFine_color.png", "_gtFine_instanceIds.png", "_gtFine_polygons.json")
STRAY = ("log.txt", "metrics.json", "checkpoints/last.pth", "README.md")


@dataclass(frozen=True)
class Layout:
    """File names of both sides; `pairs` are gt name to prediction name, of every image."""

    gts: tuple[str, ...]
    preds: tuple[str, ...]
    pairs: Mapping[str, str]


def cityscapes_keys(draw: random.Random, images: int = 12) -> list[str]:
    """Keys such as "aachen/aachen_000003_000019" of two cities or more."""
    cities = draw.sample(CITIES, draw.randint(2, len(CITIES)))
    return sorted(
        f"{cities[number % len(cities)]}/{cities[number % len(cities)]}_{number:06d}_000019"
        for number in range(images)
    )


def idd_keys(draw: random.Random, images: int = 12) -> list[str]:
    """Keys such as "17/0003", whose frames repeat over drives."""
    drives = draw.sample(range(1, 300), 3)
    return sorted(f"{drives[number % 3]}/{number // 3:04d}" for number in range(images))


def draw_cityscapes(draw: random.Random, ending: str) -> Layout:
    """Gts in some folders and kinds, predictions of this ending flat, in cities, sharded or deep below."""
    keys = cityscapes_keys(draw)
    top = draw.choice(["", "val/", "gtFine/val/", "a/b/c/d/e/"])
    flat_gts = not top and draw.random() < 0.2
    gt_kinds = GT_KINDS if draw.random() < 0.7 else GT_KINDS[:1]
    preds_top = draw.choice(["", "val/", "results/", "work_dirs/run 1/format/x/y/z/"])
    spread = draw.choice(["flat", "cities", "shards"])
    pairs = {}
    gts = []
    for number, key in enumerate(keys):
        base = key.rpartition("/")[2]
        gt = base if flat_gts else top + key
        gts += [gt + kind for kind in gt_kinds]
        place = {"flat": base, "cities": key, "shards": f"rank{number % 2}/{base}"}[spread]
        pairs[gt + GT_KINDS[0]] = f"{preds_top}{place}{ending}"
    stray = [preds_top + name for name in STRAY if draw.random() < 0.5]
    return _shuffled(draw, gts, [*pairs.values(), *stray], pairs)


def draw_idd(draw: random.Random, ending: str, gt_ending: str = "_gtFine_labellevel3Ids.png") -> Layout:
    """Gts in drives, predictions of this ending in drives, any folders above either."""
    keys = idd_keys(draw)
    tops = draw.choice(["", "val/", "gtFine/val/"]), draw.choice(["", "val/", "out/", "a/b/c/d/e/f/"])
    pairs = {f"{tops[0]}{key}{gt_ending}": f"{tops[1]}{key}{ending}" for key in keys}
    gts = [*pairs, *(f"{tops[0]}{key}_gtFine_polygons.json" for key in keys)]
    stray = [tops[1] + name for name in STRAY if draw.random() < 0.5]
    return _shuffled(draw, gts, [*pairs.values(), *stray], pairs)


def _shuffled(draw: random.Random, gts: list[str], preds: list[str], pairs: Mapping[str, str]) -> Layout:
    draw.shuffle(gts)
    draw.shuffle(preds)
    return Layout(tuple(gts), tuple(preds), pairs)
