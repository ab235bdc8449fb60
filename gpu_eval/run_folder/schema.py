"""Every table of a run folder: its columns, their types, units and meaning. They stand nowhere else.

`docs/schema.md` is generated from this file (`python docs/make_schema.py`); a test holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

FORMAT_VERSION = 2

# The kinds of runs: what was scored.
SEMANTIC, INSTANCE = "semantic", "instance"


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
_CLASS_NAME = _field("class_name", pa.string(), "name of the class")
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
        _CLASS_NAME,
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
    _field(
        "decoder",
        pa.string(),
        "simd: the fast kernels of the CPU; cuda: those of a device; pillow: a PNG they do not take",
        nullable=True,
    ),
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


_INSTANCE_PROTOCOL = _field(
    "protocol", pa.string(), "autonue: the public script; cityscapes: group pixels of the class are ignored"
)
_RAW_ID = _field("class_id", pa.int32(), "raw label id of the class")
_THRESHOLD = _share("threshold", "a match needs an IoU strictly greater than this")

INSTANCE_SCORES = pa.schema(
    [
        _INSTANCE_PROTOCOL,
        _share("ap", "mean over classes of their AP; NaN where no class has ground truth"),
        _share("ap50", "the same at the threshold 0.5 alone"),
        _field("classes", pa.int16(), "classes of the task", "classes"),
        _field("classes_in_mean", pa.int16(), "classes with ground truth that counts", "classes"),
    ]
)

INSTANCE_CLASSES = pa.schema(
    [
        _INSTANCE_PROTOCOL,
        _RAW_ID,
        _CLASS_NAME,
        _share("ap", "mean over thresholds; NaN for a class without ground truth that counts"),
        _share("ap50", "at the threshold 0.5 alone"),
        _field("gt", pa.int64(), "ground-truth instances that count", "instances"),
        _field("gt_ignored", pa.int64(), "groups, and instances outside the area range", "instances"),
        _field("predictions", pa.int64(), "predictions that are not empty", "instances"),
    ]
)

AVERAGE_PRECISION = pa.schema(
    [
        _INSTANCE_PROTOCOL,
        _RAW_ID,
        _CLASS_NAME,
        _THRESHOLD,
        _share("ap", "area under precision over recall, as Cityscapes takes it; NaN without ground truth"),
        _field("tp", pa.int64(), "true positives", "instances"),
        _field("fp", pa.int64(), "false positives", "instances"),
        _field("fn", pa.int64(), "ground-truth instances that no prediction matches", "instances"),
    ]
)

CURVES = pa.schema(
    [
        _INSTANCE_PROTOCOL,
        _RAW_ID,
        _CLASS_NAME,
        _THRESHOLD,
        _field("confidence", pa.float64(), "predictions of at least this confidence count", nullable=True),
        _share("precision", "tp / (tp + fp) of those"),
        _share("recall", "tp / (tp + fn) of those"),
    ]
)

_ERRORS = pa.list_(
    pa.struct([pa.field(n, pa.string()) for n in ("kind", "message", "file", "found", "expected", "fix")])
)

INSTANCE_IMAGES = pa.schema(
    [
        _IMAGE_ID,
        _field("key", pa.string(), "drive and image name without the suffix"),
        _field("drive", pa.string(), "folder of the image; frames of one drive resemble each other"),
        _field("gt_file", pa.string(), "path within the ground-truth source"),
        _field("list_file", pa.string(), "the list of predictions; null: there is none", nullable=True),
        _size("height", "rows of the ground truth"),
        _size("width", "columns of the ground truth"),
        _field("predictions", pa.int32(), "predictions of evaluated classes", "instances"),
        _field("gt_instances", pa.int32(), "instances and groups of evaluated classes", nullable=True),
        _field("simd", pa.int32(), "files decoded by the fast kernels of the CPU", "files"),
        _field("cuda", pa.int32(), "files decoded on a device", "files"),
        _field("pillow", pa.int32(), "files they do not take, decoded by Pillow", "files"),
        _field("rle", pa.int32(), "run-length masks of a COCO file", "masks"),
        _field("status", pa.string(), "ok; void: counted as without predictions; error: not counted"),
        _field("errors", _ERRORS, "everything that is wrong with the image's files"),
    ]
)

INSTANCES = pa.schema(
    [
        _IMAGE_ID,
        _field("kind", pa.string(), "pred: a prediction; gt: a ground-truth instance or group"),
        _field("number", pa.int32(), "of a prediction: its place in the image's list, from 0", nullable=True),
        _field("line", pa.int32(), "its line in the list file, or its place in the JSON", nullable=True),
        _field("mask", pa.string(), "its mask file; null: run-length encoded", nullable=True),
        _RAW_ID,
        _CLASS_NAME,
        _field(
            "gt_value",
            pa.int32(),
            "pixel value of the instance; of a prediction: of the one it overlaps "
            "best, null if none of its class",
            nullable=True,
        ),
        _field("confidence", pa.float64(), "of a prediction", nullable=True),
        _pixels("pixels", "area of the mask or instance"),
        _share("best_iou", "highest IoU with an instance of the class (of a gt: with a prediction)"),
        _field(
            "matched",
            pa.int32(),
            "at 0.5: of a gt, the number of the prediction that is its TP; of a "
            "prediction, the pixel value of the gt it matches",
            nullable=True,
        ),
        _field("autonue", pa.string(), "at 0.5 under autonue: TP, FP, FN or ignored"),
        _field("autonue_why", pa.string(), "the reason"),
        _field("cityscapes", pa.string(), "at 0.5 under cityscapes: TP, FP, FN or ignored"),
        _field("cityscapes_why", pa.string(), "the reason"),
    ]
)

INTERSECTIONS = pa.schema(
    [
        _IMAGE_ID,
        _field("number", pa.int32(), "the prediction's place in the image's list, from 0"),
        _field("gt_value", pa.int32(), "a pixel value of the ground truth: an instance, a group or void"),
        _pixels("pixels", "pixels of the mask with that value; pairs without pixels have no row"),
    ]
)


@dataclass(frozen=True)
class Compared:
    """The tables of a comparison of two runs of a kind.

    Columns stand in one order in both kinds: `scores` and `classes` have protocol, what is scored, (class id
    and name,) the two scores and their difference; `images` key, what is scored, two scores, difference.
    """

    scores: pa.Schema
    classes: pa.Schema
    images: pa.Schema


_KEY = _field("key", pa.string(), "drive and image name without the suffix")
_CHANGE = _share("difference", "second run minus first run")
_MEASURE = _field("measure", pa.string(), "ap: the mean over thresholds; ap50: at the threshold 0.5 alone")

COMPARED = {
    SEMANTIC: Compared(
        scores=pa.schema(
            [
                _PROTOCOL,
                _LEVEL,
                _share("miou_a", "mIoU of the first run, over the compared images"),
                _share("miou_b", "mIoU of the second run, over the compared images"),
                *_DIFFERENCE,
            ]
        ),
        classes=pa.schema(
            [
                _PROTOCOL,
                _LEVEL,
                _CLASS_ID,
                _CLASS_NAME,
                _share("iou_a", "IoU of the first run; NaN where it never occurs"),
                _share("iou_b", "IoU of the second run"),
                *_DIFFERENCE,
            ]
        ),
        images=pa.schema(
            [
                _KEY,
                _LEVEL,
                _share("miou_a", "mean IoU of the image in the first run (protocol idd)"),
                _share("miou_b", "mean IoU of the image in the second run (protocol idd)"),
                _CHANGE,
            ]
        ),
    ),
    INSTANCE: Compared(
        scores=pa.schema(
            [
                _INSTANCE_PROTOCOL,
                _MEASURE,
                _share("ap_a", "mean over classes of the first run, over the compared images"),
                _share("ap_b", "the same of the second run"),
                *_DIFFERENCE,
            ]
        ),
        classes=pa.schema(
            [
                _INSTANCE_PROTOCOL,
                _MEASURE,
                _RAW_ID,
                _CLASS_NAME,
                _share("ap_a", "AP of the first run; NaN for a class without ground truth that counts"),
                _share("ap_b", "AP of the second run"),
                *_DIFFERENCE,
            ]
        ),
        images=pa.schema(
            [
                _KEY,
                _INSTANCE_PROTOCOL,
                _share("f1_a", "2 tp / (2 tp + fp + fn) of the image in the first run, at 0.5, all classes"),
                _share("f1_b", "the same in the second run"),
                _CHANGE,
            ]
        ),
    ),
}


def board(kind: str = SEMANTIC, levels: Sequence[int] = (3, 2, 1)) -> pa.Schema:
    """The leaderboard of runs of a kind, which has these levels: three columns for each of their scores."""
    ap = {"ap": "average precision", "ap50": "average precision at 50 % overlap"}
    if kind == INSTANCE:
        scores = [field for name, meaning in ap.items() for field in _with_interval(name, meaning)]
    else:
        scores = [field for n in levels for field in _with_interval(f"miou_level{n}", f"mIoU at level {n}")]
        scores += [_share(name, f"{meaning} (published rows)", nullable=True) for name, meaning in ap.items()]
    return pa.schema(
        [
            _field("rank", pa.int32(), "1 is best; null: published, or images missing", nullable=True),
            _field("tier", pa.int32(), "runs that noise cannot tell from the tier's best", nullable=True),
            _field("team", pa.string(), "who", nullable=True),
            _field("method", pa.string(), "how", nullable=True),
            _field("link", pa.string(), "web address of a paper or code", nullable=True),
            *scores,
            _field("source", pa.string(), "scored: by this program; published: copied, not scored here"),
            _field("published_rank", pa.int32(), "rank on the published board", nullable=True),
            _field("protocol", pa.string(), "protocol of the scores with intervals", nullable=True),
            _field("images_scored", pa.int64(), "images in the scores", "images", nullable=True),
            _field("images", pa.int64(), "images of the split", "images", nullable=True),
            _share("completeness", "images scored over images of the split", nullable=True),
            _field("images_void", pa.int64(), "of the scored, counted as without prediction", nullable=True),
            _field("gt_fingerprint", pa.string(), "SHA-256 of the ground truth's content", nullable=True),
            _field("pred_fingerprint", pa.string(), "SHA-256 of the counts of all images", nullable=True),
            _field("version", pa.string(), "gpu-eval that counted the pixels", nullable=True),
            _field("engine", pa.string(), "engine that counted the pixels", nullable=True),
            _field("run", pa.string(), "the run folder; of a published row, where it was copied from"),
        ]
    )


def _with_interval(name: str, meaning: str) -> list[pa.Field]:
    return [
        _share(name, meaning, nullable=True),
        _share(f"{name}_low", "lower bound of its bootstrap interval", nullable=True),
        _share(f"{name}_high", "upper bound of its bootstrap interval", nullable=True),
    ]


# Tables of one file, and tables of one file per shard, of either kind of run.
SINGLE_FILES = ("levels", "classes", "confusion", "scores", "ap", "curves")
PART_TABLES = ("cells", "image_classes", "intersections", "instances", "images")


def tables(kind: str = SEMANTIC, levels: Sequence[int] = (3, 2, 1)) -> dict[str, pa.Schema]:
    """All tables of a kind of run by their name in SQL and on disk."""
    if kind == INSTANCE:
        return {
            "scores": INSTANCE_SCORES,
            "classes": INSTANCE_CLASSES,
            "ap": AVERAGE_PRECISION,
            "curves": CURVES,
            "images": INSTANCE_IMAGES,
            "instances": INSTANCES,
            "intersections": INTERSECTIONS,
        }
    return {
        "levels": LEVELS,
        "classes": CLASSES,
        "confusion": CONFUSION,
        "images": images(levels),
        "cells": CELLS,
        "image_classes": IMAGE_CLASSES,
    }


def markdown() -> str:
    """The text of docs/schema.md, for a label space of three levels."""
    lines = [
        "# Tables of a run folder: `gpu-eval score`",
        "",
        "Generated from `gpu_eval/run_folder/schema.py` by `python docs/make_schema.py`; do not edit.",
        "The images table has one `miou_level<N>` column per level of the label space (here IDD's three).",
    ]
    lines += _of_kind(SEMANTIC)
    lines += ["", "# Tables of a run folder: `gpu-eval instances`"]
    lines += _of_kind(INSTANCE)
    lines += [
        "",
        "# Tables over several runs",
        "",
        "Of `gpu_eval.compare` (`Comparison`; differences are B - A) and `gpu_eval.leaderboard`.",
    ]
    for kind, compared in COMPARED.items():
        what = {SEMANTIC: "level", INSTANCE: "measure"}[kind]
        alone = {SEMANTIC: "level", INSTANCE: "protocol"}[kind]
        of = f"of {kind} runs"
        lines += _described(f"Comparison.scores {of}", f"One row per protocol and {what}.", compared.scores)
        lines += _described(
            f"Comparison.classes {of}", f"One row per protocol, {what} and class.", compared.classes
        )
        lines += _described(
            f"Comparison.images {of}", f"One row per {alone} and compared image.", compared.images
        )
        lines += _described(f"leaderboard {of}", "`leaderboard.parquet`, `leaderboard.csv`", board(kind))
    return "\n".join(lines) + "\n"


def _of_kind(kind: str) -> list[str]:
    lines: list[str] = []
    for name, table in tables(kind).items():
        where = f"{name}.parquet" if name in SINGLE_FILES else f"{name}/part-*.parquet"
        lines += _described(name, f"`{where}`", table)
    return lines


def _described(title: str, where: str, table: pa.Schema) -> list[str]:
    lines = ["", f"## {title}", "", where, "", "| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in table:
        facts = {key.decode(): value.decode() for key, value in field.metadata.items()}
        kind = f"{field.type}, may be null" if field.nullable else str(field.type)
        lines.append(f"| {field.name} | {kind} | {facts.get('unit', '')} | {facts['meaning']} |")
    return lines
