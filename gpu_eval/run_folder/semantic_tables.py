"""Confusion matrices to tables: the part of a shard, and the totals of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import semantic
from gpu_eval.metrics.uncertainty import Interval, Scored
from gpu_eval.run_folder import semantic_schema as schema
from gpu_eval.run_folder.schema import interval_columns

Confusion = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The columns of the images table that do not follow from the matrix; see `schema`."""

    image_id: int
    key: str
    drive: str
    gt_file: str
    pred_file: str | None
    gt_height: int | None
    gt_width: int | None
    pred_height: int | None
    pred_width: int | None
    decoder: str | None
    status: str
    errors: list[dict[str, str | None]]
    warning: str | None
    gt_outside: int | None
    pred_outside: int | None


def part(
    rows: Sequence[ImageRow], matrices: Sequence[Confusion | None], labels: LabelSpace
) -> dict[str, pa.Table]:
    """The tables of one shard: images, cells and image_classes.

    `matrices[i]` belongs to `rows[i]`: int64, shape (n + 1, n + 1), rows gt, columns prediction, void
    last; None for an image that was not counted.
    """
    counted = np.array([matrix is not None for matrix in matrices], dtype=bool)
    size = labels.n_classes + 1
    stack = np.zeros((len(rows), size, size), np.int64)
    for i, matrix in enumerate(matrices):
        if matrix is not None:
            stack[i] = matrix
    ids = np.array([row.image_id for row in rows], np.int64)
    image_classes, means = _image_classes(ids, counted, stack, labels)
    return {
        "images": _images(rows, counted, stack, means, labels),
        "cells": _cells(ids, stack),
        "image_classes": image_classes,
    }


def _images(
    rows: Sequence[ImageRow],
    counted: npt.NDArray[np.bool_],
    stack: Confusion,
    means: dict[int, npt.NDArray[np.float64]],
    labels: LabelSpace,
) -> pa.Table:
    pixels = stack.sum(axis=(1, 2))
    gt_pixels = stack[:, :-1].sum(axis=(1, 2))
    right = np.trace(stack[:, :-1, :-1], axis1=1, axis2=2)
    columns: dict[str, object] = {name: [getattr(row, name) for row in rows] for name in ImageRow.__slots__}
    computed = {
        "pixels": pixels,
        "gt_void_share": cm.ratio(stack[:, -1].sum(axis=1), pixels),
        "pred_void_share": cm.ratio(stack[:, :-1, -1].sum(axis=1), gt_pixels),
        "pixel_accuracy": cm.ratio(right, gt_pixels),
        **{f"miou_level{level}": mean for level, mean in means.items()},
    }
    for name, values in computed.items():
        columns[name] = pa.array(values, mask=~counted)
    wanted = schema.images([level.number for level in labels.levels])
    arrays = [
        column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
        for field in wanted
        for column in (columns[field.name],)
    ]
    return pa.Table.from_arrays(arrays, schema=wanted)


def _cells(ids: npt.NDArray[np.int64], stack: Confusion) -> pa.Table:
    flat, size = stack.reshape(-1), stack.shape[-1]
    at = np.flatnonzero(flat)
    row, pred = np.divmod(at, size)
    image, gt = np.divmod(row, size)
    columns = [ids[image], gt.astype(np.int16), pred.astype(np.int16), flat[at]]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema.CELLS)


def _image_classes(
    ids: npt.NDArray[np.int64], counted: npt.NDArray[np.bool_], stack: Confusion, labels: LabelSpace
) -> tuple[pa.Table, dict[int, npt.NDArray[np.float64]]]:
    """The image_classes table, and per level the images' mean IoU."""
    batches, means = [], {}
    for level in labels.levels:
        tp, fp, fn = semantic.counts(stack, labels, "idd", level.number)
        iou = cm.iou(tp, fp, fn)
        means[level.number] = semantic.mean_iou(iou, "idd")
        image, class_id = np.nonzero((tp + fp + fn > 0) & counted[:, None])
        columns = [
            ids[image],
            np.full(image.size, level.number, np.int8),
            class_id.astype(np.int16),
            *(values[image, class_id] for values in (tp, fp, fn, iou)),
        ]
        batches.append(
            pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema.IMAGE_CLASSES)
        )
    return pa.concat_tables(batches).sort_by([("image_id", "ascending")]), means


def totals(
    confusion: Confusion,
    labels: LabelSpace,
    intervals: Mapping[tuple[str, Any], Scored[Interval]],
    accuracies: Mapping[tuple[str, Any], Scored[Interval]],
) -> dict[str, pa.Table]:
    """The tables of a whole run: levels, classes and confusion, for every protocol of the label space.

    `intervals` (of mIoU and the classes' IoU) and `accuracies` (of pixel accuracy) have an entry per protocol
    and level, or none at all.
    """
    levels: list[dict[str, object]] = []
    classes: list[dict[str, object]] = []
    for protocol in labels.protocols:
        for score in semantic.score(confusion, labels, protocol):
            interval = intervals.get((protocol, score.level))
            accuracy = accuracies.get((protocol, score.level))
            levels.append(
                {
                    "protocol": protocol,
                    "level": score.level,
                    "classes": len(score.names),
                    "classes_in_mean": score.classes_in_mean,
                    "miou": score.miou,
                    **interval_columns("miou", None if interval is None else interval.mean),
                    "pixel_accuracy": score.pixel_accuracy,
                    **interval_columns("pixel_accuracy", None if accuracy is None else accuracy.mean),
                    "mean_accuracy": score.mean_accuracy,
                    "frequency_weighted_iou": score.frequency_weighted_iou,
                    "gt_pixels": score.gt_pixels,
                }
            )
            per_class = {
                "tp": score.tp,
                "fp": score.fp,
                "fn": score.fn,
                "iou": score.iou,
                "precision": score.precision,
                "recall": score.recall,
                "dice": score.dice,
            }
            classes += [
                {
                    "protocol": protocol,
                    "level": score.level,
                    "class_id": i,
                    "class_name": name,
                    **{column: values[i].item() for column, values in per_class.items()},
                    **interval_columns("iou", None if interval is None else interval.parts[i]),
                }
                for i, name in enumerate(score.names)
            ]
    names = [*labels.names, "void"]
    cells = [
        {"gt": i, "pred": j, "gt_name": gt, "pred_name": pred, "pixels": int(confusion[i, j])}
        for i, gt in enumerate(names)
        for j, pred in enumerate(names)
    ]
    return {
        "levels": pa.Table.from_pylist(levels, schema=schema.LEVELS),
        "classes": pa.Table.from_pylist(classes, schema=schema.CLASSES),
        "confusion": pa.Table.from_pylist(cells, schema=schema.CONFUSION),
    }
