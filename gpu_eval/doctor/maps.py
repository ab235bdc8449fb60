"""Single maps and masks, read and counted by the readable decoders, which no file can bring down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import colours
from gpu_eval.engines.colours import Side
from gpu_eval.engines.instance import InstanceResult
from gpu_eval.engines.resize import index_table
from gpu_eval.engines.semantic import SemanticJob, SemanticResult, fold_outside, joint_count, to_classes
from gpu_eval.errors import InputError
from gpu_eval.inputs import png
from gpu_eval.inputs.instance_split import InstanceImage, Rle
from gpu_eval.inputs.masks import decode_mask
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.rle import decode_rle
from gpu_eval.inputs.source import Entry, Source

Values = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def decoded(source: Source, entry: Entry, side: Side) -> Values:
    """The values of a map of this side, shape (height, width). Raises InputError where it has none."""
    return colours.decode(read_bytes(source, entry), f"{source.location}/{entry.name}", side)


def read_bytes(source: Source, entry: Entry) -> memoryview:
    """The bytes of a file. Raises InputError where it cannot be read."""
    buffer = np.empty(entry.size, np.uint8)
    _, problems = source.read_into([entry], buffer)
    if problems:
        raise problems[0]
    return buffer.data


def count_readably(
    job: SemanticJob, pairs: Sequence[Pair], gts: Source, preds: Source
) -> list[SemanticResult]:
    """What an engine would find at the gt's own size, one result per pair with a prediction."""
    return [_count(job, pair, gts, preds) for pair in pairs]


def _count(job: SemanticJob, pair: Pair, gts: Source, preds: Source) -> SemanticResult:
    assert pair.pred is not None
    try:
        gt_side, pred_side = job.sides
        gt, pred = decoded(gts, pair.gt, gt_side), decoded(preds, pair.pred, pred_side)
    except InputError as error:
        return SemanticResult(error=error)
    rows = index_table(pred.shape[0], gt.shape[0])
    columns = index_table(pred.shape[1], gt.shape[1])
    joint = joint_count(
        to_classes(gt, job.gt_table, job.n_classes),
        to_classes(pred[rows[:, None], columns], job.pred_table, job.n_classes),
        job.n_classes,
    )
    return SemanticResult(fold_outside(joint), gt_size=gt.shape, pred_size=pred.shape)


def count_instances_readably(
    images: Sequence[InstanceImage], gts: Source, preds: Source
) -> list[InstanceResult]:
    """What an engine would find of each image's masks on its gt; no overlaps where a file is broken."""
    return [_count_instances(image, gts, preds) for image in images]


def _count_instances(image: InstanceImage, gts: Source, preds: Source) -> InstanceResult:
    try:
        gt = png.decode(read_bytes(gts, image.gt), image.gt.name)
    except InputError as error:
        return InstanceResult(errors=[error])
    values, places, pixels = np.unique(gt, return_inverse=True, return_counts=True)
    result = InstanceResult(values.astype(np.int64), pixels.astype(np.int64), size=gt.shape)
    overlaps = np.zeros((len(image.predictions or ()), values.size), np.int64)
    for row, prediction in zip(overlaps, image.predictions or (), strict=True):
        try:
            mask = (
                decode_rle(prediction.mask, str(image.list_file))
                if isinstance(prediction.mask, Rle)
                else decode_mask(read_bytes(preds, prediction.mask), prediction.mask.name)
            )
        except InputError as error:
            result.errors.append(error)
            continue
        if mask.shape != gt.shape:
            continue  # which scoring tells of
        row[:] = np.bincount(places.ravel()[mask.ravel() != 0], minlength=values.size)
    if not result.errors:
        result.overlaps = overlaps
    return result
