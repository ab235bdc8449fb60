"""The tables of a run of instances: columns, types, units and meaning; and its classes in run.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.run_folder.schema import (
    CHANGE,
    CLASS_NAME,
    DIFFERENCE,
    DRIVE,
    ENTRY,
    ERRORS,
    GT_FILE,
    HOLM,
    IMAGE_ID,
    KEY,
    Compared,
    RunTables,
    board,
    entry_fields,
    field,
    pixels,
    share,
    size,
    with_interval,
)

PROTOCOL = field(
    "protocol", pa.string(), "autonue: the public script; cityscapes: group pixels of the class are ignored"
)
RAW_ID = field("class_id", pa.int32(), "raw label id of the class")
THRESHOLD = share("threshold", "a match needs an IoU strictly greater than this")

SCORES = pa.schema(
    [
        PROTOCOL,
        *with_interval("ap", "mean over classes of their AP; NaN where no class has ground truth"),
        *with_interval("ap50", "the same at the threshold 0.5 alone"),
        field("classes", pa.int16(), "classes of the task", "classes"),
        field("classes_in_mean", pa.int16(), "classes with ground truth that counts", "classes"),
    ]
)

CLASSES = pa.schema(
    [
        PROTOCOL,
        RAW_ID,
        CLASS_NAME,
        *with_interval("ap", "mean over thresholds; NaN for a class without ground truth that counts"),
        *with_interval("ap50", "at the threshold 0.5 alone"),
        field("gt", pa.int64(), "ground-truth instances that count", "instances"),
        field("gt_ignored", pa.int64(), "groups, and instances outside the area range", "instances"),
        field("predictions", pa.int64(), "predictions that are not empty", "instances"),
    ]
)

AVERAGE_PRECISION = pa.schema(
    [
        PROTOCOL,
        RAW_ID,
        CLASS_NAME,
        THRESHOLD,
        share("ap", "area under precision over recall, as Cityscapes takes it; NaN without ground truth"),
        field("tp", pa.int64(), "true positives", "instances"),
        field("fp", pa.int64(), "false positives", "instances"),
        field("fn", pa.int64(), "ground-truth instances that no prediction matches", "instances"),
    ]
)

CURVES = pa.schema(
    [
        PROTOCOL,
        RAW_ID,
        CLASS_NAME,
        THRESHOLD,
        field("confidence", pa.float64(), "predictions of at least this confidence count", nullable=True),
        share("precision", "tp / (tp + fp) of those"),
        share("recall", "tp / (tp + fn) of those"),
    ]
)

IMAGES = pa.schema(
    [
        IMAGE_ID,
        KEY,
        DRIVE,
        GT_FILE,
        field("list_file", pa.string(), "the list of predictions; null: there is none", nullable=True),
        size("height", "rows of the ground truth"),
        size("width", "columns of the ground truth"),
        field("predictions", pa.int32(), "predictions of evaluated classes", "instances"),
        field("gt_instances", pa.int32(), "instances and groups of evaluated classes", nullable=True),
        field("simd", pa.int32(), "files decoded by the fast kernels of the CPU", "files"),
        field("cuda", pa.int32(), "files decoded on a device", "files"),
        field("pillow", pa.int32(), "files they do not take, decoded by Pillow", "files"),
        field("rle", pa.int32(), "run-length masks of a COCO file", "masks"),
        field("status", pa.string(), "ok; void: counted as without predictions; error: not counted"),
        ERRORS,
    ]
)

INSTANCES = pa.schema(
    [
        IMAGE_ID,
        field("kind", pa.string(), "pred: a prediction; gt: a ground-truth instance or group"),
        field("number", pa.int32(), "of a prediction: its place in the image's list, from 0", nullable=True),
        field("line", pa.int32(), "its line in the list file, or its place in the JSON", nullable=True),
        field("mask", pa.string(), "its mask file; null: run-length encoded", nullable=True),
        RAW_ID,
        CLASS_NAME,
        field(
            "gt_value",
            pa.int32(),
            "pixel value of the instance; of a prediction: of the one it overlaps "
            "best, null if none of its class",
            nullable=True,
        ),
        field("confidence", pa.float64(), "of a prediction", nullable=True),
        pixels("pixels", "area of the mask or instance"),
        share("best_iou", "highest IoU with an instance of the class (of a gt: with a prediction)"),
        field(
            "matched",
            pa.int32(),
            "at 0.5: of a gt, the number of the prediction that is its TP; of a "
            "prediction, the pixel value of the gt it matches",
            nullable=True,
        ),
        field("autonue", pa.string(), "at 0.5 under autonue: TP, FP, FN or ignored"),
        field("autonue_why", pa.string(), "the reason"),
        field("cityscapes", pa.string(), "at 0.5 under cityscapes: TP, FP, FN or ignored"),
        field("cityscapes_why", pa.string(), "the reason"),
    ]
)

INTERSECTIONS = pa.schema(
    [
        IMAGE_ID,
        field("number", pa.int32(), "the prediction's place in the image's list, from 0"),
        field("gt_value", pa.int32(), "a pixel value of the ground truth: an instance, a group or void"),
        pixels("pixels", "pixels of the mask with that value; pairs without pixels have no row"),
    ]
)


MEASURE = field("measure", pa.string(), "ap: the mean over thresholds; ap50: at the threshold 0.5 alone")

COMPARED = Compared(
    scores=pa.schema(
        [
            PROTOCOL,
            MEASURE,
            share("ap_a", "mean over classes of the first run, over the compared images"),
            share("ap_b", "the same of the second run"),
            *DIFFERENCE,
        ]
    ),
    classes=pa.schema(
        [
            PROTOCOL,
            MEASURE,
            RAW_ID,
            CLASS_NAME,
            share("ap_a", "AP of the first run; NaN for a class without ground truth that counts"),
            share("ap_b", "AP of the second run"),
            *DIFFERENCE,
            HOLM,
        ]
    ),
    images=pa.schema(
        [
            KEY,
            PROTOCOL,
            share("f1_a", "2 tp / (2 tp + fp + fn) of the image in the first run, at 0.5, all classes"),
            share("f1_b", "the same in the second run"),
            CHANGE,
        ]
    ),
)

# A mask is a file, as in `ENTRY`, or run lengths.
PREDICTION = pa.struct(
    [
        *(pa.field(name, kind) for name, kind in ENTRY.items()),
        pa.field("rle_height", pa.int32()),
        pa.field("rle_width", pa.int32()),
        pa.field("rle_counts", pa.binary()),
        pa.field("label", pa.int32()),
        pa.field("confidence", pa.float64()),
        pa.field("line", pa.int64()),
    ]
)

MANIFEST = pa.schema(
    [
        KEY,
        DRIVE,
        *entry_fields("gt", "the ground truth"),
        field("list_file", pa.string(), "the list of predictions; null: there is none", nullable=True),
        field("predictions", pa.list_(PREDICTION), "null: the list is missing or broken", nullable=True),
    ]
)


def tables() -> RunTables:
    """The tables of a run."""
    return RunTables(
        manifest=MANIFEST,
        whole={"scores": SCORES, "classes": CLASSES, "ap": AVERAGE_PRECISION, "curves": CURVES},
        parts={"intersections": INTERSECTIONS, "instances": INSTANCES, "images": IMAGES},
        compared=COMPARED,
        board=board(
            *with_interval("ap", "average precision", nullable=True, title="AP"),
            *with_interval("ap50", "average precision at 50 % overlap", nullable=True, title="AP50"),
        ),
    )


def describe_labels(space: InstanceSpace) -> dict[str, Any]:
    """An instance task for run.json: enough to judge every overlap again."""
    return {
        "name": space.name,
        "digest": space.digest(),
        "ids": space.ids,
        "names": space.names,
        "known_ids": sorted(space.known_ids),
        "void_ids": sorted(space.void_ids),
    }


def space_of(facts: Mapping[str, Any]) -> InstanceSpace:
    """The classes of a run, by its run.json; without the names of files."""
    described = facts["labels"]
    return InstanceSpace(
        name=described["name"],
        ids=tuple(described["ids"]),
        names=tuple(described["names"]),
        known_ids=frozenset(described["known_ids"]),
        void_ids=frozenset(described["void_ids"]),
        gt_suffix="",
        list_suffix="",
    )


def area_facts(area: tuple[float, float]) -> list[float | None]:
    """An area range for run.json, which has no infinity."""
    return [None if math.isinf(bound) else bound for bound in area]


def area_of(facts: Mapping[str, Any]) -> tuple[float, float]:
    """The area range of a run, by its run.json."""
    low, high = (math.inf if bound is None else bound for bound in facts["decides"]["area"])
    return low, high
