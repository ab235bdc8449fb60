"""Every table of a run folder: its columns, their types, units and meaning. They stand nowhere else.

`docs/schema.md` is generated from this file (`python docs/make_schema.py`); a test holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

FORMAT_VERSION = 1


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "", *, nullable: bool = False) -> pa.Field:
    metadata = {"meaning": meaning}
    if unit:
        metadata["unit"] = unit
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def _share(name: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    return _field(name, pa.float64(), meaning, "share 0..1", nullable=nullable)


def _pixels(name: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    return _field(name, pa.int64(), meaning, "pixels", nullable=nullable)


def _size(name: str, meaning: str) -> pa.Field:
    return _field(name, pa.int32(), meaning, "pixels", nullable=True)


_DIFFERENCE = [
    _share("difference", "second run minus first run; NaN where one of them has no score"),
    _share("low", "lower bound of the paired bootstrap interval of the difference"),
    _share("high", "upper bound of the same interval"),
    _field("p", pa.float64(), "two-sided p-value of no difference, for this row alone", "probability"),
]

_IMAGE_ID = _field("image_id", pa.int64(), "position of the image in the sorted split")
_LEVEL = _field("level", pa.int8(), "level of the label hierarchy; the largest number is the finest")
_CLASS_ID = _field("class_id", pa.int16(), "class within its level")
_PROTOCOL = _field(
    "protocol", pa.string(), "idd: one rule at every level; autonue: the public script, bug for bug"
)

LEVELS = pa.schema(
    [
        _PROTOCOL,
        _LEVEL,
        _field("classes", pa.int16(), "classes of the level", "classes"),
        _field(
            "classes_in_mean",
            pa.int16(),
            "classes with ground truth or predictions: those in the mean",
            "classes",
        ),
        _share("miou", "mean of the classes' IoU; NaN where the protocol gives none"),
        _share("miou_low", "lower bound of the bootstrap interval of miou (run.json: intervals); NaN: none"),
        _share("miou_high", "upper bound of the same interval"),
        _share("pixel_accuracy", "right pixels over pixels with ground truth"),
        _share("mean_accuracy", "mean of the recall of classes with ground truth"),
        _share("frequency_weighted_iou", "IoU weighted by ground-truth pixels"),
        _pixels("gt_pixels", "pixels whose ground truth is a class"),
    ]
)

CLASSES = pa.schema(
    [
        _PROTOCOL,
        _LEVEL,
        _CLASS_ID,
        _field("class_name", pa.string(), "name of the class"),
        _pixels("tp", "true positives"),
        _pixels("fp", "false positives: predicted so where the ground truth is another class"),
        _pixels("fn", "false negatives: of this class, predicted otherwise (void included under idd)"),
        _share("iou", "tp / (tp + fp + fn); NaN for a class that never occurs"),
        _share("iou_low", "lower bound of the bootstrap interval of iou, over resamples with the class"),
        _share("iou_high", "upper bound of the same interval"),
        _share("precision", "tp / (tp + fp)"),
        _share("recall", "tp / (tp + fn)"),
        _share("dice", "2 tp / (2 tp + fp + fn)"),
    ]
)

CONFUSION = pa.schema(
    [
        _field("gt", pa.int16(), "ground-truth class at the finest level; the last id is void"),
        _field("pred", pa.int16(), "predicted class at the finest level; the last id is void"),
        _field("gt_name", pa.string(), "name of the ground-truth class"),
        _field("pred_name", pa.string(), "name of the predicted class"),
        _pixels("pixels", "pixels of the whole split at the scored resolution"),
    ]
)

CELLS = pa.schema(
    [
        _IMAGE_ID,
        _field("gt", pa.int16(), "ground-truth class at the finest level; the last id is void"),
        _field("pred", pa.int16(), "predicted class at the finest level; the last id is void"),
        _pixels("pixels", "pixels of this image; cells without pixels have no row"),
    ]
)

IMAGE_CLASSES = pa.schema(
    [
        _IMAGE_ID,
        _LEVEL,
        _CLASS_ID,
        _pixels("tp", "true positives (protocol idd)"),
        _pixels("fp", "false positives (protocol idd)"),
        _pixels("fn", "false negatives (protocol idd)"),
        _share("iou", "tp / (tp + fp + fn); classes absent from the image have no row"),
    ]
)

_IMAGES = [
    _IMAGE_ID,
    _field("key", pa.string(), "drive and image name without the suffix"),
    _field("drive", pa.string(), "folder of the image; frames of one drive resemble each other"),
    _field("gt_file", pa.string(), "path within the ground-truth source"),
    _field("pred_file", pa.string(), "path within the prediction source", nullable=True),
    _size("gt_height", "rows of the ground-truth file"),
    _size("gt_width", "columns of the ground-truth file"),
    _size("pred_height", "rows of the prediction file"),
    _size("pred_width", "columns of the prediction file"),
    _field("decoder", pa.string(), "simd: the fast kernels; pillow: a PNG they do not take", nullable=True),
    _field("status", pa.string(), "ok; void: counted as predicted void everywhere; error: not counted"),
    _field("error_kind", pa.string(), "class of the error, as in gpu_eval.errors", nullable=True),
    _field("error", pa.string(), "what is wrong", nullable=True),
    _field("error_file", pa.string(), "the file that is wrong", nullable=True),
    _field("error_found", pa.string(), "what was found there", nullable=True),
    _field("error_expected", pa.string(), "what was expected instead", nullable=True),
    _field("error_fix", pa.string(), "what to do about it", nullable=True),
    _field("warning", pa.string(), "what looks wrong but was scored", nullable=True),
    _pixels("pixels", "pixels counted", nullable=True),
    _pixels("gt_outside", "ground-truth pixels outside the encoding, counted as void", nullable=True),
    _pixels("pred_outside", "predicted pixels outside the encoding, counted as void", nullable=True),
    _share("gt_void_share", "pixels whose ground truth is void", nullable=True),
    _share("pred_void_share", "pixels predicted void where the ground truth is a class", nullable=True),
    _share("pixel_accuracy", "right pixels over pixels with ground truth (NaN without any)", nullable=True),
]


def images(levels: Iterable[int]) -> pa.Schema:
    """The images table of a label space with these level numbers: a `miou_level<N>` column for each."""
    means = [
        _share(f"miou_level{n}", f"mean IoU of this image at level {n} (protocol idd)", nullable=True)
        for n in levels
    ]
    return pa.schema([*_IMAGES, *means])


COMPARED_LEVELS = pa.schema(
    [
        _PROTOCOL,
        _LEVEL,
        _share("miou_a", "mIoU of the first run, over the compared images"),
        _share("miou_b", "mIoU of the second run, over the compared images"),
        *_DIFFERENCE,
    ]
)

COMPARED_CLASSES = pa.schema(
    [
        _PROTOCOL,
        _LEVEL,
        _CLASS_ID,
        _field("class_name", pa.string(), "name of the class"),
        _share("iou_a", "IoU of the first run; NaN where it never occurs"),
        _share("iou_b", "IoU of the second run"),
        *_DIFFERENCE,
    ]
)

COMPARED_IMAGES = pa.schema(
    [
        _field("key", pa.string(), "drive and image name without the suffix"),
        _LEVEL,
        _share("miou_a", "mean IoU of the image in the first run (protocol idd)"),
        _share("miou_b", "mean IoU of the image in the second run (protocol idd)"),
        _share("difference", "second run minus first run"),
    ]
)


def board(levels: Iterable[int]) -> pa.Schema:
    """The leaderboard of a label space with these level numbers: three columns for each."""
    means = [
        field
        for n in levels
        for field in (
            _share(f"miou_level{n}", f"mIoU at level {n}", nullable=True),
            _share(f"miou_level{n}_low", "lower bound of its bootstrap interval", nullable=True),
            _share(f"miou_level{n}_high", "upper bound of its bootstrap interval", nullable=True),
        )
    ]
    return pa.schema(
        [
            _field("rank", pa.int32(), "1 is best; null: published, or images missing", nullable=True),
            _field("tier", pa.int32(), "runs that noise cannot tell from the tier's best", nullable=True),
            _field("team", pa.string(), "who", nullable=True),
            _field("method", pa.string(), "how", nullable=True),
            _field("link", pa.string(), "web address of a paper or code", nullable=True),
            *means,
            _share("ap", "average precision (instance task)", nullable=True),
            _share("ap50", "average precision at 50 % overlap (instance task)", nullable=True),
            _field("source", pa.string(), "scored: by this program; published: copied, not scored here"),
            _field("published_rank", pa.int32(), "rank on the published board", nullable=True),
            _field("protocol", pa.string(), "protocol of the mIoU columns", nullable=True),
            _field("images_scored", pa.int64(), "images in the scores", "images", nullable=True),
            _field("images", pa.int64(), "images of the split", "images", nullable=True),
            _share("completeness", "images scored over images of the split", nullable=True),
            _field("images_void", pa.int64(), "of the scored, counted as predicted void", nullable=True),
            _field("gt_fingerprint", pa.string(), "SHA-256 of the ground truth's content", nullable=True),
            _field("pred_fingerprint", pa.string(), "SHA-256 of the matrices of all images", nullable=True),
            _field("version", pa.string(), "gpu-eval that counted the pixels", nullable=True),
            _field("engine", pa.string(), "engine that counted the pixels", nullable=True),
            _field("run", pa.string(), "the run folder; of a published row, where it was copied from"),
        ]
    )


def tables(levels: Sequence[int] = (3, 2, 1)) -> dict[str, pa.Schema]:
    """All tables by their name in SQL and on disk."""
    return {
        "levels": LEVELS,
        "classes": CLASSES,
        "confusion": CONFUSION,
        "images": images(levels),
        "cells": CELLS,
        "image_classes": IMAGE_CLASSES,
    }


# Tables of one file; the others are folders of parts.
SINGLE_FILES = ("levels", "classes", "confusion")


def markdown() -> str:
    """The text of docs/schema.md, for a label space of three levels."""
    lines = [
        "# Tables of a run folder",
        "",
        "Generated from `gpu_eval/report/schema.py` by `python docs/make_schema.py`; do not edit.",
        "The images table has one `miou_level<N>` column per level of the label space (here IDD's three).",
    ]
    for name, table in tables().items():
        where = f"{name}.parquet" if name in SINGLE_FILES else f"{name}/part-*.parquet"
        lines += _described(name, f"`{where}`", table)
    lines += [
        "",
        "# Tables over several runs",
        "",
        "Of `gpu_eval.compare` (the first three; B - A) and `gpu_eval.leaderboard`.",
    ]
    lines += _described("Comparison.levels", "One row per protocol and level.", COMPARED_LEVELS)
    lines += _described("Comparison.classes", "One row per protocol, level and class.", COMPARED_CLASSES)
    lines += _described("Comparison.images", "One row per level and compared image.", COMPARED_IMAGES)
    lines += _described("leaderboard", "`leaderboard.parquet`, `leaderboard.csv`", board((3, 2, 1)))
    return "\n".join(lines) + "\n"


def _described(title: str, where: str, table: pa.Schema) -> list[str]:
    lines = ["", f"## {title}", "", where, "", "| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in table:
        facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
        kind = f"{field.type}, may be null" if field.nullable else str(field.type)
        lines.append(f"| {field.name} | {kind} | {facts.get('unit', '')} | {facts['meaning']} |")
    return lines
