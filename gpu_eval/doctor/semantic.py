"""The doctor of label maps: a few images of a split, looked at before it is scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.classes import judge_classes
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.doctor.encodings import judge_encodings
from gpu_eval.doctor.maps import count_readably
from gpu_eval.doctor.readings import VALUES
from gpu_eval.doctor.sizes import judge_sizes
from gpu_eval.engines.semantic import SemanticJob, SemanticResult
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace

# Images looked at: enough to see every class of a street, few enough to cost nothing beside a split.
SAMPLE = 12

# The readable decoder is slow: it takes every so many of them.
READABLY = 2

RAW = np.arange(VALUES - 1, dtype=np.uint16)
RAW_JOB = SemanticJob(
    n_classes=VALUES - 1, gt_table=RAW, pred_table=RAW, resolution=None, encodings={}, void_on_error=False
)


def sampled(number: int, most: int = SAMPLE) -> list[int]:
    """Which of `number` images are looked at: seeded, one of each stretch of the split."""
    if number <= most:
        return list(range(number))
    edges = np.linspace(0, number, most + 1).astype(np.int64)
    draws = np.random.default_rng(0).random(most)
    return [int(a + (b - a) * draw) for a, b, draw in zip(edges, edges[1:], draws, strict=False)]


def examine(
    pairs: Sequence[Pair],
    space: LabelSpace,
    gt_encoding: str,
    pred_encoding: str,
    sight: Sight,
    *,
    whole: bool,
) -> list[Doubt]:
    """What looks like a mix-up in these pairs, a sample or the whole split.

    Of images that cannot be read, scoring tells.
    """
    complete = [pair for pair in pairs if pair.pred is not None]
    if sight.engine is None:
        results = count_readably(RAW_JOB, complete[::READABLY], sight.gts, sight.preds)
        complete = complete[::READABLY]
    else:
        results = sight.engine.count(RAW_JOB, complete, sight.gts, sight.preds)
    joint = raw_joint(results)
    doubts = judge_encodings(joint, space, gt_encoding, pred_encoding)
    # A wrong encoding looks like many other things.
    if not doubts:
        # A class that a few images lack may be in the others: that is judged at the end of the run.
        classes = judge_classes(joint, space, gt_encoding, pred_encoding)
        doubts += [doubt for doubt in classes if whole or doubt.certain]
        doubts += judge_sizes(complete, results, space, gt_encoding, pred_encoding, sight)
    return doubts


def raw_joint(results: Sequence[SemanticResult]) -> npt.NDArray[np.int64]:
    """The joint count of raw values of all results that have one, int64 (257, 257)."""
    joint = np.zeros((VALUES, VALUES), np.int64)
    for result in results:
        if result.confusion is not None:
            joint += result.confusion
    return joint
