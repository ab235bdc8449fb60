"""From the overlaps of images to the tables of an instance run, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.average_precision import AveragePrecision, average_precision, curves
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import (
    GT_OUTCOMES,
    PRED_OUTCOMES,
    PROTOCOLS,
    InstanceTable,
    Outcomes,
    concatenate,
    outcomes,
)
from gpu_eval.metrics.uncertainty import Interval, Scored
from gpu_eval.run_folder import instance_schema as schema
from gpu_eval.run_folder.schema import interval_columns

# Thresholds whose precision-recall points are kept.
CURVE_THRESHOLDS = (0.5, 0.75)

# What the columns `<protocol>` and `<protocol>_why` of the instances table say.
PRED_WORDS: Mapping[str, tuple[str, str]] = {
    "tp": ("TP", "the most confident match of this ground truth"),
    "fp_duplicate": ("FP", "a more confident prediction matches the same ground truth"),
    "fp_unmatched": ("FP", "matches no ground truth of its class"),
    "ignored_size": ("ignored", "matches a ground truth outside the area range"),
    "ignored_group": ("ignored", "matches a group of its class"),
    "ignored_void": ("ignored", "lies on void"),
    "ignored_mixed": ("ignored", "lies on void, groups and ground truth outside the area range"),
    "empty": ("ignored", "the mask is empty"),
    "not_evaluated": ("ignored", "the class is not evaluated"),
}
GT_WORDS: Mapping[str, tuple[str, str]] = {
    "tp": ("TP", "found"),
    "fn": ("FN", "no prediction matches it"),
    "ignored_size": ("ignored", "outside the area range"),
    "ignored_group": ("ignored", "a group"),
    "void": ("ignored", "void"),
    "not_evaluated": ("ignored", "the class is not evaluated"),
}


@dataclass(frozen=True, slots=True)
class ListedPrediction:
    """Where a prediction comes from: its line, and its mask file unless it is run-length encoded."""

    line: int
    mask: str | None


def part(
    images: Sequence[Mapping[str, Any]],
    tables: Sequence[InstanceTable],
    listed: Sequence[Sequence[ListedPrediction]],
    space: InstanceSpace,
    area: tuple[float, float],
) -> dict[str, pa.Table]:
    """A shard's part: the tables intersections, instances and images.

    `images` are rows of the images table but for `gt_instances`; of each image that could be counted there is
    one of `tables`, and one of `listed` with an entry per prediction.
    """
    table = concatenate(tables)
    judged = {p: outcomes(table, space, p, thresholds=(0.5,), area=area) for p in PROTOCOLS}
    first = judged["cityscapes"]
    evaluated = first.gt_class >= 0
    counts = dict(
        zip(*(v.tolist() for v in np.unique(table.gt_image[evaluated], return_counts=True)), strict=True)
    )
    rows = [
        {**row, "gt_instances": None if row["status"] == "error" else counts.get(row["image_id"], 0)}
        for row in images
    ]
    return {
        "intersections": _intersections(table, first),
        "instances": pa.concat_tables([_preds(table, judged, listed, space), _gts(table, judged, space)]),
        "images": pa.Table.from_pylist(rows, schema=schema.IMAGES),
    }


def _number(table: InstanceTable) -> Counts:
    """The place of each prediction in its image's list; an image's predictions stand together."""
    starts = np.flatnonzero(np.diff(table.pred_image, prepend=-1))
    sizes = np.diff(np.append(starts, table.pred_image.size))
    return np.arange(table.pred_image.size) - np.repeat(starts, sizes)


def _intersections(table: InstanceTable, judged: Outcomes) -> pa.Table:
    """Overlaps that can decide something: with gt of evaluated classes and with void."""
    gt = table.overlap_gt
    void = GT_OUTCOMES.index("void")
    kept = np.flatnonzero((judged.gt_class[gt] >= 0) | (judged.gts[gt, 0] == void))
    pred, gt = table.overlap_pred[kept], gt[kept]
    columns = (table.pred_image[pred], _number(table)[pred], table.gt_value[gt], table.overlap_pixels[kept])
    return _arrow(schema.INTERSECTIONS, dict(zip(schema.INTERSECTIONS.names, columns, strict=True)))


def _preds(
    table: InstanceTable,
    judged: Mapping[str, Outcomes],
    listed: Sequence[Sequence[ListedPrediction]],
    space: InstanceSpace,
) -> pa.Table:
    first = judged["cityscapes"]
    flat = [one for of_image in listed for one in of_image]
    count = table.pred_class.size
    with_gt = first.best_gt >= 0
    best_value = table.gt_value[first.best_gt] if table.gt_value.size else np.zeros(count, np.int64)
    columns: dict[str, Any] = {
        "image_id": table.pred_image,
        "kind": pa.array(["pred"] * count, pa.string()),
        "number": _number(table),
        "line": pa.array([one.line for one in flat], pa.int32()),
        "mask": pa.array([one.mask for one in flat], pa.string()),
        "class_id": table.pred_class,
        "class_name": _names(first.pred_class, space),
        "gt_value": _where(with_gt, best_value),
        "confidence": table.confidence,
        "pixels": table.pred_pixels,
        "best_iou": first.best_iou,
        "matched": _where(with_gt & (first.best_iou > 0.5), best_value),
    }
    return _judged(columns, {p: (o.preds[:, 0], PRED_OUTCOMES, PRED_WORDS) for p, o in judged.items()})


def _gts(table: InstanceTable, judged: Mapping[str, Outcomes], space: InstanceSpace) -> pa.Table:
    first = judged["cityscapes"]
    kept = np.flatnonzero(first.gt_class >= 0)
    count = kept.size
    found_by = first.found_by[kept, 0]
    number = _number(table)[found_by] if table.pred_class.size else np.zeros(count, np.int64)
    columns: dict[str, Any] = {
        "image_id": table.gt_image[kept],
        "kind": pa.array(["gt"] * count, pa.string()),
        "number": pa.nulls(count, pa.int32()),
        "line": pa.nulls(count, pa.int32()),
        "mask": pa.nulls(count, pa.string()),
        "class_id": np.array(space.ids, np.int64)[first.gt_class[kept]],
        "class_name": _names(first.gt_class[kept], space),
        "gt_value": table.gt_value[kept],
        "confidence": pa.nulls(count, pa.float64()),
        "pixels": table.gt_pixels[kept],
        "best_iou": _best_iou(table, first)[kept],
        "matched": _where(found_by >= 0, number),
    }
    return _judged(columns, {p: (o.gts[kept, 0], GT_OUTCOMES, GT_WORDS) for p, o in judged.items()})


def _best_iou(table: InstanceTable, judged: Outcomes) -> Ratios:
    """Per gt row the highest IoU with a prediction of its class, float64 (G,); 0 without one.

    `Outcomes.best_iou` is the prediction's side: a gt that is nobody's best may still be met.
    """
    alike = judged.gt_class[table.overlap_gt] == judged.pred_class[table.overlap_pred]
    pred, gt, shared = (
        column[alike] for column in (table.overlap_pred, table.overlap_gt, table.overlap_pixels)
    )
    best = np.zeros(table.gt_value.size)
    np.maximum.at(best, gt, cm.ratio(shared, table.gt_pixels[gt] + table.pred_pixels[pred] - shared))
    return best


def _judged(
    columns: dict[str, Any],
    codes: Mapping[str, tuple[npt.NDArray[np.uint8], Sequence[str], Mapping[str, tuple[str, str]]]],
) -> pa.Table:
    for protocol, (code, names, words) in codes.items():
        for suffix, place in (("", 0), ("_why", 1)):
            texts = np.array([words[name][place] for name in names], object)
            columns[protocol + suffix] = pa.array(texts[code], pa.string())
    return _arrow(schema.INSTANCES, columns)


def _names(index: Counts, space: InstanceSpace) -> pa.Array:
    return pa.array(np.array([*space.names], object)[index], pa.string())


def _where(mask: npt.NDArray[np.bool_], values: Counts) -> pa.Array:
    return pa.array(values, pa.int32(), mask=~mask)


def _arrow(table: pa.Schema, columns: Mapping[str, Any]) -> pa.Table:
    arrays = [
        value if isinstance(value, pa.Array) else pa.array(value, table.field(name).type)
        for name, value in columns.items()
    ]
    return pa.Table.from_arrays(arrays, schema=table)


def to_instance_table(instance_rows: pa.Table, overlap_rows: pa.Table) -> InstanceTable:
    """The overlaps of a whole run from its tables, ready to be judged by any protocol.

    Of values that are void only their overlaps are known: their `gt_pixels` are 0, and nothing asks for them.
    """
    preds, gts = (
        {
            name: column.to_numpy()
            for name, column in zip(rows.column_names, rows.columns, strict=True)
            if name in ("image_id", "number", "class_id", "gt_value", "confidence", "pixels")
        }
        for rows in (instance_rows.filter(pc.equal(instance_rows["kind"], kind)) for kind in ("pred", "gt"))
    )
    image, number, value, pixels = (overlap_rows[name].to_numpy() for name in schema.INTERSECTIONS.names)
    pred = _find(_pairs(image, number), _pairs(preds["image_id"], preds["number"]))
    known = _pairs(gts["image_id"], gts["gt_value"])
    met = _pairs(image, value)
    void = np.setdiff1d(met, known)
    gt_keys = np.concatenate([known, void])
    return InstanceTable(
        pred_image=preds["image_id"].astype(np.int64),
        pred_class=preds["class_id"].astype(np.int64),
        confidence=preds["confidence"].astype(np.float64),
        pred_pixels=preds["pixels"].astype(np.int64),
        gt_image=gt_keys >> 32,
        gt_value=gt_keys & 0xFFFFFFFF,
        gt_pixels=np.concatenate([gts["pixels"].astype(np.int64), np.zeros(void.size, np.int64)]),
        overlap_pred=pred,
        overlap_gt=_find(met, gt_keys),
        overlap_pixels=pixels.astype(np.int64),
    )


def _pairs(image: npt.NDArray[Any], value: npt.NDArray[Any]) -> Counts:
    """Image and value as one number that sorts like the pair."""
    return (image.astype(np.int64) << 32) | value.astype(np.int64)


def _find(wanted: Counts, among: Counts) -> Counts:
    """Where each of `wanted` stands in `among`, which holds them all."""
    order = np.argsort(among, kind="stable")
    return order[np.searchsorted(among, wanted, sorter=order)].astype(np.int64)


def totals(
    by_protocol: Mapping[str, Outcomes], intervals: Mapping[tuple[str, Any], Scored[Interval]]
) -> dict[str, pa.Table]:
    """The tables of a whole run: scores, classes, ap and curves, for every protocol in `by_protocol`.

    `intervals` has one entry per protocol and measure, "ap" or "ap50", or none at all.
    """
    scores: list[dict[str, Any]] = []
    classes: list[dict[str, Any]] = []
    precisions: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for protocol, judged in by_protocol.items():
        space, score = judged.space, average_precision(judged)
        between = {name: intervals.get((protocol, name)) for name in ("ap", "ap50")}
        scores.append(
            {
                "protocol": protocol,
                "ap": score.mean_ap,
                "ap50": score.mean_ap50,
                **_bounds(between),
                "classes": len(space.ids),
                "classes_in_mean": score.classes_in_mean,
            }
        )
        gt_all = np.bincount(judged.gt_class[judged.gt_class >= 0], minlength=len(space.ids))
        for c, (class_id, name) in enumerate(zip(space.ids, space.names, strict=True)):
            head = {"protocol": protocol, "class_id": class_id, "class_name": name}
            classes.append(
                {
                    **head,
                    "ap": float(score.class_ap[c]),
                    "ap50": float(score.class_ap50[c]),
                    **_bounds(between, c),
                    "gt": int(score.gt_count[c]),
                    "gt_ignored": int(gt_all[c] - score.gt_count[c]),
                    "predictions": int(score.pred_count[c]),
                }
            )
            precisions += _precisions(head, score, c)
            points += _points(head, judged, c)
    return {
        "scores": pa.Table.from_pylist(scores, schema=schema.SCORES),
        "classes": pa.Table.from_pylist(classes, schema=schema.CLASSES),
        "ap": pa.Table.from_pylist(precisions, schema=schema.AVERAGE_PRECISION),
        "curves": pa.Table.from_pylist(points, schema=schema.CURVES),
    }


def _bounds(scored: Mapping[str, Scored[Interval] | None], c: int | None = None) -> dict[str, Any]:
    """The columns of each measure's interval: of class c, or of the mean."""
    columns: dict[str, Any] = {}
    for name, intervals in scored.items():
        one = None if intervals is None else intervals.mean if c is None else intervals.parts[c]
        columns |= interval_columns(name, one)
    return columns


def _precisions(head: Mapping[str, Any], score: AveragePrecision, c: int) -> list[dict[str, Any]]:
    counts = ("tp", "fp", "fn")
    return [
        {
            **head,
            "threshold": float(threshold),
            "ap": float(score.ap[c, t]),
            **{name: int(getattr(score, name)[c, t]) for name in counts},
        }
        for t, threshold in enumerate(score.thresholds)
    ]


def _points(head: Mapping[str, Any], judged: Outcomes, c: int) -> list[dict[str, Any]]:
    wanted = [
        (threshold, curve)
        for threshold, curve in zip(judged.thresholds.tolist(), curves(judged, c), strict=True)
        if any(math.isclose(threshold, kept) for kept in CURVE_THRESHOLDS)
    ]
    return [
        {**head, "threshold": threshold, "confidence": confidence, "precision": precision, "recall": recall}
        for threshold, curve in wanted
        for confidence, precision, recall in zip(
            curve.confidence.tolist(), curve.precision.tolist(), curve.recall.tolist(), strict=True
        )
    ]
