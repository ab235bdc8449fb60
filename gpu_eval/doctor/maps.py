"""Single label maps, read and counted by the readable decoder, which no file can bring down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import colours
from gpu_eval.engines.colours import Side
from gpu_eval.engines.resize import index_table
from gpu_eval.engines.semantic import SemanticJob, SemanticResult, fold_outside, joint_count, to_classes
from gpu_eval.errors import InputError
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.source import Entry, Source

Values = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def decoded(source: Source, entry: Entry, side: Side) -> Values:
    """The values of a map of this side, shape (height, width). Raises InputError where it has none."""
    buffer = np.empty(entry.size, np.uint8)
    _, problems = source.read_into([entry], buffer)
    if problems:
        raise problems[0]
    return colours.decode(buffer.data, f"{source.location}/{entry.name}", side)


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
