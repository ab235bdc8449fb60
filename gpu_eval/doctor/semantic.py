"""The doctor of label maps: a few images of a split, looked at before it is scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.classes import judge_classes
from gpu_eval.doctor.doubt import UNSCORABLE, Doubt, Sight
from gpu_eval.doctor.encodings import judge_each, judge_encodings
from gpu_eval.doctor.maps import count_readably
from gpu_eval.doctor.palettes import judge_palettes
from gpu_eval.doctor.readings import VALUES
from gpu_eval.doctor.sizes import judge_sizes
from gpu_eval.engines.semantic import SemanticJob, SemanticResult
from gpu_eval.errors import WrongImageMode
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace

# Images looked at: enough to see every class of a street, few enough to cost nothing beside a split.
SAMPLE = 12

# The readable decoder is slow: it takes every so many of them.
READABLY = 2

RAW = np.arange(VALUES - 1, dtype=np.uint16)
RAW_JOB = SemanticJob(
    n_classes=VALUES - 1, gt_table=RAW, pred_table=RAW, resolution=None, encodings={}, as_is=True
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
    job = replace(RAW_JOB, palette=space.palette)
    if sight.engine is None:
        complete = complete[::READABLY]
        results = count_readably(job, complete, sight.gts, sight.preds)
    else:
        results = sight.engine.count(job, complete, sight.gts, sight.preds)
    wrong = [result.error for result in results if isinstance(result.error, WrongImageMode)]
    if wrong and len(wrong) == len(results):
        return [_no_labels(wrong)]
    joint = raw_joint(results)
    doubts = judge_encodings(joint, space, gt_encoding, pred_encoding)
    readable = [pair for pair, result in zip(complete, results, strict=True) if result.confusion is not None]
    doubts = judge_palettes(joint, readable, space, gt_encoding, pred_encoding, sight) or doubts
    if not doubts:
        joints = [result.confusion for result in results if result.confusion is not None]
        doubts = judge_each(joints, space, gt_encoding, pred_encoding)
    # A wrong encoding looks like many other things.
    if not doubts:
        # A class that a few images lack may be in the others: that is judged at the end of the run.
        classes = judge_classes(joint, space, gt_encoding, pred_encoding)
        doubts += [doubt for doubt in classes if whole or doubt.certain]
        doubts += judge_sizes(complete, results, space, gt_encoding, pred_encoding, sight)
    return doubts


def _no_labels(errors: Sequence[WrongImageMode]) -> Doubt:
    """Maps that are all of a mode that holds no labels: one sentence, not one per image."""
    first = errors[0]
    fix = first.fix or "save the label ids themselves as 8-bit grey PNG"
    option = re.search(r"--(gt|pred)-encoding (\S+)", fix)
    mend = {f"{option[1]}_encoding": option[2]} if option else {}
    who = "the map that was" if len(errors) == 1 else f"all {len(errors)} maps that were"
    told = f"{who} looked at: {first.message}"
    return Doubt(UNSCORABLE, told, f"{first.file}: {first.found}", fix, certain=True, mend=mend)


def raw_joint(results: Sequence[SemanticResult]) -> npt.NDArray[np.int64]:
    """The joint count of raw values of all results that have one, int64 (257, 257)."""
    joint = np.zeros((VALUES, VALUES), np.int64)
    for result in results:
        if result.confusion is not None:
            joint += result.confusion
    return joint
