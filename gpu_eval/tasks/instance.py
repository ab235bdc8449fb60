"""The instance task: masks of predicted instances, scored by AP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.doctor import instance as doctor
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.engines.instance import InstanceJob, InstanceResult
from gpu_eval.errors import (
    FatalImage,
    InputError,
    MalformedPredictions,
    MissingPrediction,
    UnreadableFile,
)
from gpu_eval.inputs.coco import read_split_coco
from gpu_eval.inputs.instance_split import InstanceImage, Listed, Prediction, Rle, read_split
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.labels.instance_coding import FACTOR, merge, recode
from gpu_eval.labels.instance_readings import Reading
from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics.matching import InstanceTable, image_table
from gpu_eval.run_folder import instance_schema as schema
from gpu_eval.run_folder import instance_tables, manifest
from gpu_eval.run_folder.instance_tables import ListedPrediction
from gpu_eval.run_folder.schema import ENTRY, RunTables
from gpu_eval.tasks.summary import Summary, error_facts, summary_of
from gpu_eval.tasks.task import Listing, Task

_SCANNED = 256  # images of a manifest that are made at a time

# What is wrong with lists: engines see none, listing the split has told it in full.
OF_LISTS = (MissingPrediction, MalformedPredictions)


@dataclass(frozen=True)
class InstanceTask(Task[InstanceImage, InstanceResult]):
    """Scoring predicted instances of the classes of `space`.

    `area` is the range of gt pixels that counts, `gt_factor` what a gt pixel of an instance is coded with,
    id * gt_factor + n. `reading` says what the labels of predictions mean; it is one of `readings`, which the
    doctor judges. A suffix is None where the user gave none. With `void_on_error` an image with a missing or
    broken prediction is counted as one without predictions.
    """

    word = "instance"
    suffix_option = "--list-suffix"
    decoders = ("simd", "cuda", "pillow", "rle")  # each a column of the images table
    summarized = ("images",)

    space: InstanceSpace
    area: tuple[float, float]
    gt_suffix: str | None
    list_suffix: str | None
    gt_factor: int
    reading: Reading
    readings: tuple[Reading, ...]
    void_on_error: bool

    def list_split(self, gts: str, preds: str, open_source: Callable[[str], Source]) -> Listing:
        gt_source = open_source(gts)
        is_coco = preds.lower().endswith(".json")
        if is_coco:
            split = read_split_coco(
                gt_source, preds, self.space, gt_suffix=self.gt_suffix, reading=self.reading
            )
        else:
            split = read_split(
                gt_source,
                open_source(preds),
                self.space,
                gt_suffix=self.gt_suffix,
                list_suffix=self.list_suffix,
                reading=self.reading,
            )
        notes = list(split.notes)
        if split.skipped:
            notes.append(f"{split.skipped} predictions of labels that are not evaluated were left out")
        return Listing(
            to_manifest(split.images),
            split.problems,
            notes,
            preds_are_files=not is_coco,
            hint=split.hint,
            seen=split.listed,
        )

    def examine(self, listing: Listing, sight: Sight) -> Sequence[Doubt]:
        assert isinstance(listing.seen, Listed)
        rows = listing.manifest
        batches = (to_images(rows.slice(first, _SCANNED)) for first in range(0, rows.num_rows, _SCANNED))
        means = doctor.Means(self.space, self.readings, self.reading, self.gt_factor)
        return doctor.examine(listing.seen, batches, means, sight)

    def decides(self) -> Mapping[str, Any]:
        return {
            "labels": self.space.digest(),
            "area": schema.area_facts(self.area),
            "gt_factor": self.gt_factor,
            "pred_encoding": self.reading.name,
            "void_on_error": self.void_on_error,
        }

    def labels(self) -> Mapping[str, Any]:
        return schema.describe_labels(self.space)

    @property
    def tables(self) -> RunTables:
        return schema.tables()

    def images(self, rows: pa.Table) -> list[InstanceImage]:
        return to_images(rows)

    @property
    def job(self) -> InstanceJob:
        return InstanceJob()

    def is_unread(self, result: InstanceResult) -> bool:
        return any(isinstance(error, UnreadableFile) for error in result.errors)

    def given_up(self, error: FatalImage) -> InstanceResult:
        return InstanceResult(errors=[error])

    def part(
        self,
        first: int,
        images: Sequence[InstanceImage],
        results: Sequence[InstanceResult],
        preds: str | None,
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
                    **{name: result.decoders[name] for name in self.decoders},
                    "status": "void" if counts_void else "error" if broken else "ok",
                    "errors": [error_facts(e) for e in (*_list_errors(image, preds), *result.errors)],
                }
            )
            if broken and not counts_void:
                continue
            assert result.gt_values is not None
            assert result.gt_pixels is not None
            kept = () if counts_void else predictions
            overlaps = result.overlaps if kept else np.zeros((0, result.gt_values.size), np.int64)
            assert overlaps is not None
            values, gt_pixels = result.gt_values, result.gt_pixels
            if self.gt_factor != FACTOR:
                codes = recode(values, self.gt_factor, self.space.ids)
                values, (gt_pixels, overlaps) = merge(codes, gt_pixels, overlaps)
            tables.append(
                image_table(
                    first + i,
                    [prediction.label for prediction in kept],
                    [prediction.confidence for prediction in kept],
                    values,
                    gt_pixels,
                    overlaps,
                )
            )
            listed.append(
                [ListedPrediction(p.line, None if isinstance(p.mask, Rle) else p.mask.name) for p in kept]
            )
        return instance_tables.part(rows, tables, listed, self.space, self.area)

    def summary(self, part: Mapping[str, pa.Table]) -> Summary:
        images = part["images"]
        summary = summary_of(images, told=OF_LISTS)
        for name in self.decoders:
            summary.counts[f"decoder {name}"] = int(images[name].to_numpy().sum())
        return summary


def to_manifest(images: Sequence[InstanceImage]) -> pa.Table:
    """The manifest of these images; `to_images` reads it back."""
    columns = {
        "key": pa.array([image.key for image in images], pa.string()),
        "drive": pa.array([image.drive for image in images], pa.string()),
    }
    columns |= manifest.entry_columns("gt", [image.gt for image in images])
    columns["list_file"] = pa.array([image.list_file for image in images], pa.string())
    predictions = [
        None if image.predictions is None else [_prediction_row(p) for p in image.predictions]
        for image in images
    ]
    columns["predictions"] = pa.array(predictions, pa.list_(schema.PREDICTION))
    return pa.table(columns, schema=schema.MANIFEST)


def to_images(rows: pa.Table) -> list[InstanceImage]:
    """The images of some rows of a manifest."""
    names = ("key", "drive", "list_file", "predictions")
    columns = [rows[name].to_pylist() for name in names]
    return [
        InstanceImage(key, drive, gt, None if listed is None else tuple(map(_prediction, listed)), list_file)
        for key, drive, list_file, listed, gt in zip(*columns, manifest.entries(rows, "gt"), strict=True)
        if gt is not None  # always: for the type checker
    ]


def _prediction_row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "label": prediction.label, "confidence": prediction.confidence, "line": prediction.line
    }  # fmt: skip
    mask = prediction.mask
    if isinstance(mask, Rle):
        return row | {"rle_height": mask.height, "rle_width": mask.width, "rle_counts": mask.counts}
    return row | {name: getattr(mask, name) for name in ENTRY}


def _prediction(row: dict[str, Any]) -> Prediction:
    mask: Entry | Rle
    if row["rle_counts"] is not None:
        mask = Rle(row["rle_height"], row["rle_width"], row["rle_counts"])
    else:
        mask = Entry(*(row[name] for name in ENTRY))
    return Prediction(mask, row["label"], row["confidence"], row["line"])


def _list_errors(image: InstanceImage, preds: str | None) -> list[InputError]:
    """Why an image has no predictions to count, in short: no row is an error without a reason."""
    if image.predictions is not None:
        return []
    if image.list_file is None:
        return [
            MissingPrediction("no list of predictions for this ground truth", file=preds, expected=image.key)
        ]
    file = image.list_file if preds is None else f"{preds}/{image.list_file}"
    return [
        MalformedPredictions(
            "the list of predictions cannot be used", file=file, fix="run.json tells what is wrong with it"
        )
    ]
