"""The instance task: a shard's masks are counted against its gt, its part is committed, tallied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.engines.engine import ImageOverlaps
from gpu_eval.errors import (
    FatalImage,
    InputError,
    MalformedPredictions,
    MissingPrediction,
    UnreadableFile,
)
from gpu_eval.inputs.instance_split import InstanceImage, Rle
from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics.matching import InstanceTable, image_table
from gpu_eval.run_folder import instance_tables, manifest
from gpu_eval.run_folder.instance_tables import ListedPrediction
from gpu_eval.tasks.process_cache import Tools, Workplace
from gpu_eval.tasks.summary import Tally, count_values, error_facts, to_error
from gpu_eval.tasks.task import ShardWork

# In the order of writing: the images table is the commit.
PART_TABLES = ("intersections", "instances", "images")

# Columns of the images table: files by who decoded them.
DECODERS = ("simd", "cuda", "pillow", "rle")

# What is wrong with lists: engines see none, listing the split has told it in full.
OF_LISTS = (MissingPrediction, MalformedPredictions)


@dataclass(frozen=True)
class InstanceWork(ShardWork[InstanceImage, ImageOverlaps]):
    """The work on predicted instances.

    `area` is the range of gt pixels that counts. With `void_on_error` an image with a missing or broken
    prediction is counted as one without predictions.
    """

    part_tables = PART_TABLES
    told_by = ("images",)

    workplace: Workplace
    space: InstanceSpace
    area: tuple[float, float]
    void_on_error: bool

    def images(self, rows: pa.Table) -> list[InstanceImage]:
        return manifest.to_images(rows)

    def count(self, images: Sequence[InstanceImage], tools: Tools) -> list[ImageOverlaps]:
        return tools.engine.overlaps(images, tools.gts, tools.preds)

    def is_unread(self, result: ImageOverlaps) -> bool:
        return any(isinstance(error, UnreadableFile) for error in result.errors)

    def given_up(self, error: FatalImage) -> ImageOverlaps:
        return ImageOverlaps(errors=[error])

    def part(
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

    def tally(self, part: dict[str, pa.Table]) -> Tally:
        images = part["images"]
        tally = Tally(images.num_rows)
        count_values(tally, "status", images["status"].value_counts().to_pylist())
        for name in DECODERS:
            tally.counts[f"decoder {name}"] = int(images[name].to_numpy().sum())
        problems = [to_error(row) for errors in images["errors"].to_pylist() for row in errors]
        tally.problems = [problem for problem in problems if not isinstance(problem, OF_LISTS)]
        return tally
