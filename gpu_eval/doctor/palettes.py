"""Palette PNGs whose colours say what their indices do not: some tools number colours by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_eval.doctor.agreement import Agreement, Counts, agreement
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.doctor.encodings import GOOD
from gpu_eval.doctor.maps import count_readably, read_bytes
from gpu_eval.engines.semantic import SemanticJob, make_job
from gpu_eval.errors import OptionError
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.png import PALETTE
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.labels import LabelSpace
from gpu_eval.labels.colours import COLOUR

# Pairs that are decoded for it; where the IHDR chunk has the colour type.
LOOKED_AT, COLOUR_TYPE = 2, 25
# How much more the colours must give, in how many classes.
LIKELY, CERTAIN, SHOWN_BY = 0.1, 0.25, 2


def judge_palettes(
    joint: Counts,
    pairs: Sequence[Pair],
    space: LabelSpace,
    gt_encoding: str,
    pred_encoding: str,
    sight: Sight,
) -> list[Doubt]:
    """A side whose palettes hold the table's colours, and which agrees by them and not by its indices.

    `joint` counts the raw values of these pairs, as `judge_encodings` has it: nothing is decoded again where
    they agree as they are.
    """
    if space.palette is None or not pairs:
        return []
    if _as_read(joint, space, gt_encoding, pred_encoding).weight >= GOOD:
        return []
    some = list(pairs[:LOOKED_AT])
    now: Agreement | None = None
    for side, entries, source in (
        ("pred", [pair.pred for pair in some], sight.preds),
        ("gt", [pair.gt for pair in some], sight.gts),
    ):
        if not all(entry is not None and _has_palette(source, entry) for entry in entries):
            continue
        now = now or _found(
            make_job(space, gt_encoding=gt_encoding, pred_encoding=pred_encoding), some, sight
        )
        gt, pred = (gt_encoding, COLOUR) if side == "pred" else (COLOUR, pred_encoding)
        try:
            job = make_job(space, gt_encoding=gt, pred_encoding=pred)
        except OptionError:  # colours that cannot be told apart
            continue
        then = _found(job, some, sight)
        if now is None or then is None or now.weight >= GOOD:
            return []
        if then.classes < SHOWN_BY or then.weight - now.weight < LIKELY:
            continue
        word = "predictions are" if side == "pred" else "ground truth is"
        return [
            Doubt(
                "encoding",
                f"the {word} meant by colour: palettes have the colours of {space.name} in their own order",
                f"by colour the agreement is {then.miou:.2f}, by index {now.miou:.2f}",
                f"give --{side}-encoding {COLOUR}",
                then.weight - now.weight >= CERTAIN,
                {f"{side}_encoding": COLOUR},
            )
        ]
    return []


def _as_read(joint: Counts, space: LabelSpace, gt_encoding: str, pred_encoding: str) -> Agreement:
    outside = space.n_classes + 1
    gt, pred = (np.append(space.encoding(name).table, outside) for name in (gt_encoding, pred_encoding))
    classes = np.zeros((outside + 1, outside + 1), np.int64)
    values = np.nonzero(joint)
    np.add.at(classes, (gt[values[0]], pred[values[1]]), joint[values])
    return agreement(classes)


def _has_palette(source: Source, entry: Entry) -> bool:
    data = read_bytes(source, entry)
    return len(data) > COLOUR_TYPE and data[COLOUR_TYPE] == PALETTE


def _found(job: SemanticJob, pairs: Sequence[Pair], sight: Sight) -> Agreement | None:
    """How far these pairs agree; None where one cannot be read so, a colour of no label among it."""
    size = job.n_classes + 2
    joint = np.zeros((size, size), np.int64)
    for result in count_readably(job, pairs, sight.gts, sight.preds):
        if result.confusion is None:
            return None
        joint[:-1, :-1] += result.confusion
    return agreement(joint)
