"""The tables of a run of label maps: columns, types, units and meaning; and its labels in run.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gpu_eval.labels import LabelSpace, Level
from gpu_eval.run_folder.schema import (
    CHANGE,
    CLASS_NAME,
    DIFFERENCE,
    DRIVE,
    ERROR_FACTS,
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

LEVEL = field("level", pa.int8(), "level of the label hierarchy; the largest number is the finest")
CLASS_ID = field("class_id", pa.int16(), "class within its level")
PROTOCOL = field(
    "protocol", pa.string(), "idd: one rule at every level; autonue: the public script, bug for bug"
)

LEVELS = pa.schema(
    [
        PROTOCOL,
        LEVEL,
        field("classes", pa.int16(), "classes of the level", "classes"),
        field(
            "classes_in_mean",
            pa.int16(),
            "classes with ground truth or predictions: those in the mean",
            "classes",
        ),
        *with_interval("miou", "mean of the classes' IoU; NaN where the protocol gives none"),
        *with_interval("pixel_accuracy", "right pixels over pixels with ground truth"),
        share("mean_accuracy", "mean of the recall of classes with ground truth"),
        share("frequency_weighted_iou", "IoU weighted by ground-truth pixels"),
        pixels("gt_pixels", "pixels whose ground truth is a class"),
    ]
)

CLASSES = pa.schema(
    [
        PROTOCOL,
        LEVEL,
        CLASS_ID,
        CLASS_NAME,
        pixels("tp", "true positives"),
        pixels("fp", "false positives: predicted so where the ground truth is another class"),
        pixels("fn", "false negatives: of this class, predicted otherwise (void included under idd)"),
        *with_interval("iou", "tp / (tp + fp + fn); NaN for a class that never occurs"),
        share("precision", "tp / (tp + fp)"),
        share("recall", "tp / (tp + fn)"),
        share("dice", "2 tp / (2 tp + fp + fn)"),
    ]
)

CONFUSION = pa.schema(
    [
        field("gt", pa.int16(), "ground-truth class at the finest level; the last id is void"),
        field("pred", pa.int16(), "predicted class at the finest level; the last id is void"),
        field("gt_name", pa.string(), "name of the ground-truth class"),
        field("pred_name", pa.string(), "name of the predicted class"),
        pixels("pixels", "pixels of the whole split at the scored resolution"),
    ]
)

CELLS = pa.schema(
    [
        IMAGE_ID,
        field("gt", pa.int16(), "ground-truth class at the finest level; the last id is void"),
        field("pred", pa.int16(), "predicted class at the finest level; the last id is void"),
        pixels("pixels", "pixels of this image; cells without pixels have no row"),
    ]
)

IMAGE_CLASSES = pa.schema(
    [
        IMAGE_ID,
        LEVEL,
        CLASS_ID,
        pixels("tp", "true positives (protocol idd)"),
        pixels("fp", "false positives (protocol idd)"),
        pixels("fn", "false negatives (protocol idd)"),
        share("iou", "tp / (tp + fp + fn); classes absent from the image have no row"),
    ]
)

_IMAGES = [
    IMAGE_ID,
    KEY,
    DRIVE,
    GT_FILE,
    field("pred_file", pa.string(), "path within the prediction source", nullable=True),
    size("gt_height", "rows of the ground-truth file"),
    size("gt_width", "columns of the ground-truth file"),
    size("pred_height", "rows of the prediction file"),
    size("pred_width", "columns of the prediction file"),
    field(
        "decoder",
        pa.string(),
        "simd: the fast kernels of the CPU; cuda: those of a device; pillow: a PNG they do not take",
        nullable=True,
    ),
    field("status", pa.string(), "ok; void: counted as predicted void everywhere; error: not counted"),
    ERRORS,
    field("warning", pa.string(), "what looks wrong but was scored", nullable=True),
    pixels("pixels", "pixels counted", nullable=True),
    pixels("gt_outside", "ground-truth pixels outside the encoding, counted as void", nullable=True),
    pixels("pred_outside", "predicted pixels outside the encoding, counted as void", nullable=True),
    share("gt_void_share", "pixels whose ground truth is void", nullable=True),
    share("pred_void_share", "pixels predicted void where the ground truth is a class", nullable=True),
    share("pixel_accuracy", "right pixels over pixels with ground truth (NaN without any)", nullable=True),
]

COMPARED = Compared(
    scores=pa.schema(
        [
            PROTOCOL,
            LEVEL,
            share("miou_a", "mIoU of the first run, over the compared images"),
            share("miou_b", "mIoU of the second run, over the compared images"),
            *DIFFERENCE,
        ]
    ),
    classes=pa.schema(
        [
            PROTOCOL,
            LEVEL,
            CLASS_ID,
            CLASS_NAME,
            share("iou_a", "IoU of the first run; NaN where it never occurs"),
            share("iou_b", "IoU of the second run"),
            *DIFFERENCE,
            HOLM,
        ]
    ),
    images=pa.schema(
        [
            KEY,
            LEVEL,
            share("miou_a", "mean IoU of the image in the first run (protocol idd)"),
            share("miou_b", "mean IoU of the image in the second run (protocol idd)"),
            CHANGE,
        ]
    ),
)

MANIFEST = pa.schema(
    [KEY, DRIVE, *entry_fields("gt", "the ground truth"), *entry_fields("pred", "the prediction")]
)


def images(levels: Sequence[int]) -> pa.Schema:
    """The images table of a label space with these level numbers: a `miou_level<N>` column for each."""
    means = [
        share(f"miou_level{n}", f"mean IoU of this image at level {n} (protocol idd)", nullable=True)
        for n in levels
    ]
    return pa.schema([*_IMAGES, *means])


def tables(levels: Sequence[int] = (3, 2, 1)) -> RunTables:
    """The tables of a run whose label space has these level numbers, finest first."""
    scores = [
        column
        for n in levels
        for column in with_interval(f"miou_level{n}", f"mIoU at level {n}", nullable=True, title=f"mIoU L{n}")
    ]
    # Of the benchmark's own boards, which list both tasks.
    scores += [
        share("ap", "average precision (published rows)", nullable=True, title="AP"),
        share("ap50", "average precision at 50 % overlap (published rows)", nullable=True, title="AP50"),
    ]
    return RunTables(
        manifest=MANIFEST,
        whole={"levels": LEVELS, "classes": CLASSES, "confusion": CONFUSION},
        parts={"cells": CELLS, "image_classes": IMAGE_CLASSES, "images": images(levels)},
        compared=COMPARED,
        board=board(*scores),
        note="The images table has a `miou_level<N>` column per level of the label space (here IDD's three). "
        "In runs of format 2 it has error_kind, error, error_file, error_found, error_expected and error_fix "
        "in place of errors; SQL sees them as they are, `run.images` has errors. Their levels, classes and "
        "confusion are computed anew when they are read, for SQL too: the intervals in their files were too "
        "narrow.",
    )


def with_errors(images: pa.Table) -> pa.Table:
    """An images table as this version writes it: format 2 had the one error of an image in six columns."""
    if "errors" in images.column_names:
        return images
    old = ["error_kind", "error", *(f"error_{name}" for name in ERROR_FACTS[2:])]
    rows = images.select(old).rename_columns(list(ERROR_FACTS)).to_pylist()
    errors = pa.array([[row] if row["kind"] is not None else [] for row in rows], ERRORS.type)
    return images.set_column(images.column_names.index(old[0]), ERRORS, errors).drop_columns(old[1:])


def describe_labels(labels: LabelSpace) -> dict[str, Any]:
    """A label space for run.json: enough to recompute every score, and to name and colour classes."""
    return {
        "name": labels.name,
        "digest": labels.digest(),
        "protocols": labels.protocols,
        "colours": labels.colours,
        "has_void": labels.has_void,
        "levels": [
            {"number": v.number, "names": v.names, "groups": v.groups, "children": v.children}
            for v in labels.levels
        ],
    }


def labels_of(facts: Mapping[str, Any]) -> LabelSpace:
    """The label space of a run, by its run.json; without the encodings and the names of files."""
    described = facts["labels"]
    return LabelSpace(
        name=described["name"],
        levels=tuple(
            Level(
                number=level["number"],
                names=tuple(level["names"]),
                groups=tuple(map(tuple, level["groups"])),
                children=tuple(map(tuple, level["children"])),
            )
            for level in described["levels"]
        ),
        encodings={},
        default_encoding="",
        gt_suffix="",
        pred_suffix="",
        exclude=(),
        resolution="",
        protocols=tuple(described["protocols"]),
        colours=tuple((int(r), int(g), int(b)) for r, g, b in described["colours"]),
        has_void=bool(described.get("has_void", True)),  # of runs before it was told
    )
