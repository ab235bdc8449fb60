"""Instance runs made of images in memory: what `score_instances` would have written, without a file read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.average_precision import AveragePrecision, average_precision
from gpu_eval.metrics.matching import InstanceTable, concatenate, image_table, outcomes
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import instance_schema as schema
from gpu_eval.run_folder import instance_tables, parts
from gpu_eval.run_folder.instance_tables import ListedPrediction
from gpu_eval.scheduling.shards import cut
from tests.reference import instances as reference
from tests.reference.instances import Image, Prediction
from tests.support.run_facts import described, frame_key, image_row

EVERY_SIZE = (100.0, math.inf)


def table_of(images: Sequence[Image], first: int = 0) -> InstanceTable:
    """Joint counts by plain NumPy; images are numbered from `first`."""
    tables = []
    for number, image in enumerate(images, first):
        values, pixels = np.unique(image.gt, return_counts=True)
        overlaps = np.zeros((len(image.predictions), values.size), np.int64)
        for row, pred in zip(overlaps, image.predictions, strict=True):
            row[:] = [np.count_nonzero(image.gt[pred.mask] == value) for value in values]
        labels = [pred.label for pred in image.predictions]
        confidences = [pred.confidence for pred in image.predictions]
        tables.append(image_table(number, labels, confidences, values, pixels, overlaps))
    return concatenate(tables)


def scores_of(table: InstanceTable, protocol: str, **options: Any) -> AveragePrecision:
    """The scores of IDD's classes."""
    return average_precision(outcomes(table, load_instances("idd"), protocol, **options))


def repeated(
    images: Sequence[Image], unit_of: Sequence[int], drawn: Sequence[int], protocol: str
) -> AveragePrecision:
    """The AP of a split in which the images of each drawn unit stand once per draw, numbered anew."""
    split = [image for unit in drawn for image, of in zip(images, unit_of, strict=True) if of == unit]
    return scores_of(table_of(split), protocol)


def random_images(
    count: int, *, seed: int = 0, drives: int = 0, found: float = 0.0, sure: float = 2.0
) -> dict[str, Image]:
    """Images by key whose gt and first predictions depend on the seed alone: see `reference.random_split`.

    Of the gt instances the share `found` is predicted once more, to the pixel and at the confidence `sure`
    (that of the others is at most 1).
    """
    rng = np.random.default_rng([seed, 1])
    images = {}
    for i, image in enumerate(reference.random_split(seed, count)):
        values = [value for value in np.unique(image.gt).tolist() if value // 1000 in reference.EVALUATED]
        chosen = rng.random(len(values)) < found
        more = [
            Prediction(image.gt == value, value // 1000, sure)
            for value, kept in zip(values, chosen, strict=True)
            if kept
        ]
        evaluated = [one for one in image.predictions if one.label in reference.EVALUATED]
        images[frame_key(i, count, drives)] = Image(image.gt, [*evaluated, *more])
    return images


def write_instance_run(
    folder: Path,
    images: Mapping[str, Image | None],
    *,
    labels: str = "idd",
    area: tuple[float, float] = EVERY_SIZE,
    shard_size: int = 64,
    **facts: Any,
) -> InstanceRun:
    """A complete run of these images by key ("drive/name"); None is an image that could not be counted."""
    space = load_instances(labels)
    keys = sorted(images)
    facts = described(
        "instance",
        schema.describe_labels(space),
        images,
        {"area": schema.area_facts(area), "shard_size": shard_size},
        **facts,
    )
    run_folder.begin(folder, facts)
    for shard in cut(len(keys), shard_size):
        rows, tables, listed = [], [], []
        for number in range(shard.first, shard.last):
            image = images[keys[number]]
            rows.append(_row(number, keys[number], image))
            if image is not None:
                tables.append(table_of([image], number))
                listed.append([ListedPrediction(n, None) for n in range(len(image.predictions))])
        part = instance_tables.part(rows, tables, listed, space, area)
        parts.commit(folder, shard.number, part, "f")
    InstanceRun.finish(folder, facts)
    return InstanceRun(folder)


def _row(image_id: int, key: str, image: Image | None) -> dict[str, Any]:
    return {
        **image_row(image_id, key, image is not None),
        "list_file": f"{key}.txt",
        "height": reference.HEIGHT,
        "width": reference.WIDTH,
        "predictions": 0 if image is None else len(image.predictions),
        **dict.fromkeys(("simd", "cuda", "pillow", "rle"), 0),
        "errors": [],
    }
