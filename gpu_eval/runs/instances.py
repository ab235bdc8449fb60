"""The instance task: a shard's masks are counted against its gt, its part is committed, tallied."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.engines.engine import ImageOverlaps
from gpu_eval.errors import InputError, MalformedPredictions, MissingPrediction
from gpu_eval.inputs.instances import InstanceImage, Rle
from gpu_eval.labels.instances import InstanceSpace
from gpu_eval.metrics.instances import InstanceTable, image_table
from gpu_eval.report import instance_tables
from gpu_eval.report.instance_tables import ListedPrediction
from gpu_eval.runs import manifest, workplace
from gpu_eval.runs.tally import Tally, count_values, error_facts, fatal_image, to_error
from gpu_eval.runs.workplace import Workplace
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.isolate import find_poison
from gpu_eval.scheduling.shards import Shard

# In the order of writing: the images table is the commit.
PART_TABLES = ("intersections", "instances", "images")

# Columns of the images table: files by who decoded them.
DECODERS = ("simd", "cuda", "pillow", "rle")

# What is wrong with lists: engines see none, listing the split has told it in full.
OF_LISTS = (MissingPrediction, MalformedPredictions)


@dataclass(frozen=True)
class InstanceWork:
    """Everything needed to score any shard of an instance run, in any process that sees its files.

    `area` is the range of gt pixels that counts. With `void_on_error` an image with a missing or broken
    prediction is counted as one without predictions.
    """

    workplace: Workplace
    space: InstanceSpace
    area: tuple[float, float]
    void_on_error: bool

    def __call__(self, shard: Shard) -> Tally:
        """Score a shard and commit its part."""
        images = manifest.to_images(workplace.rows(self.workplace, shard.first, shard.last))
        results, seconds = self._count(images, shard)
        scored = time.perf_counter()
        part = self._part(shard.first, images, results)
        sharding.commit(self.workplace.folder, shard, {n: part[n] for n in PART_TABLES}, self._fingerprint)
        tally = self._tally(part["images"])
        tally.seconds.update({**seconds, "write": time.perf_counter() - scored})
        return tally

    def _count(
        self, images: Sequence[InstanceImage], shard: Shard
    ) -> tuple[list[ImageOverlaps], dict[str, float]]:
        """Results in the order of the images, and the engine's seconds.

        Images that kill the process are not touched again.
        """
        fatal = {image - shard.first for image in shard.poisoned}
        with workplace.at(self.workplace) as tools:
            healthy = [image for i, image in enumerate(images) if i not in fatal]
            results = iter(tools.engine.overlaps(healthy, tools.gts, tools.preds))
            ordered = [
                ImageOverlaps(errors=[fatal_image(f"{tools.gts.location}/{image.gt.name}")])
                if i in fatal
                else next(results)
                for i, image in enumerate(images)
            ]
            return ordered, tools.engine.take_seconds()

    def try_image(self, image: int) -> None:
        """Count one image and forget it: what it does to the process is the answer."""
        images = manifest.to_images(workplace.rows(self.workplace, image, image + 1))
        with workplace.at(self.workplace) as tools:
            tools.engine.overlaps(images, tools.gts, tools.preds)

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        """The images of a shard that kill the process that scores them."""
        return find_poison(self.try_image, shard.first, shard.last, known=shard.poisoned)

    def is_done(self, shard: Shard) -> bool:
        """Whether an earlier run has committed the shard. Raises CorruptRun for a foreign part."""
        return sharding.is_committed(self.workplace.folder, shard, PART_TABLES, self._fingerprint)

    def recall(self, shard: Shard) -> Tally:
        """The tally of a shard that an earlier run has committed."""
        return self._tally(sharding.read_parts(self.workplace.folder, "images", [shard]))

    @property
    def _fingerprint(self) -> str:
        return self.workplace.fingerprint

    def _part(
        self, first: int, images: Sequence[InstanceImage], results: Sequence[ImageOverlaps]
    ) -> dict[str, pa.Table]:
        rows: list[dict[str, Any]] = []
        tables: list[InstanceTable] = []
        listed: list[list[ListedPrediction]] = []
        for i, (image, result) in enumerate(zip(images, results, strict=True)):
            predictions = image.predictions or ()
            broken = bool(result.errors) or image.predictions is None
            counts_void = broken and self.void_on_error and result.gt_values is not None
            height, width = result.size or (None, None)
            rows.append(
                {
                    "image_id": first + i,
                    "key": image.key,
                    "drive": image.drive,
                    "gt_file": image.gt.name,
                    "list_file": image.list_file,
                    "height": height,
                    "width": width,
                    "predictions": len(predictions),
                    **{name: result.decoders[name] for name in DECODERS},
                    "status": "void" if counts_void else "error" if broken else "ok",
                    "errors": [error_facts(e) for e in (*self._list_errors(image), *result.errors)],
                }
            )
            if broken and not counts_void:
                continue
            assert result.gt_values is not None
            assert result.gt_pixels is not None
            kept = () if counts_void else predictions
            overlaps = result.overlaps if kept else np.zeros((0, result.gt_values.size), np.int64)
            assert overlaps is not None
            tables.append(
                image_table(
                    first + i,
                    [prediction.label for prediction in kept],
                    [prediction.confidence for prediction in kept],
                    result.gt_values,
                    result.gt_pixels,
                    overlaps,
                )
            )
            listed.append(
                [ListedPrediction(p.line, None if isinstance(p.mask, Rle) else p.mask.name) for p in kept]
            )
        return instance_tables.part(rows, tables, listed, self.space, self.area)

    def _list_errors(self, image: InstanceImage) -> list[InputError]:
        """Why an image has no predictions to count, in short: no row is an error without a reason."""
        if image.predictions is not None:
            return []
        preds = self.workplace.preds
        if image.list_file is None:
            return [
                MissingPrediction(
                    "no list of predictions for this ground truth", file=preds, expected=image.key
                )
            ]
        file = image.list_file if preds is None else f"{preds}/{image.list_file}"
        return [
            MalformedPredictions(
                "the list of predictions cannot be used",
                file=file,
                fix="run.json tells what is wrong with it",
            )
        ]

    def _tally(self, images: pa.Table) -> Tally:
        tally = Tally(images.num_rows)
        count_values(tally, "status", images["status"].value_counts().to_pylist())
        for name in DECODERS:
            tally.counts[f"decoder {name}"] = int(images[name].to_numpy().sum())
        problems = [to_error(row) for errors in images["errors"].to_pylist() for row in errors]
        tally.problems = [problem for problem in problems if not isinstance(problem, OF_LISTS)]
        return tally
