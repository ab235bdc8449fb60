"""Whether a split has the classes of its label table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.doubt import Doubt
from gpu_eval.labels import LabelSpace
from gpu_eval.labels.table import MASK

# So much void in the ground truth asks for a reason where a class is missing.
MUCH_VOID = 0.25
# Of two classes one is nothing: then any is too much.
ANY_VOID = 0.005


def judge_total(total: npt.NDArray[np.int64], space: LabelSpace) -> list[Doubt]:
    """The same of a whole run's confusion matrix (n + 1, n + 1), of which raw values are not known any more.

    A split whose gt has a single class is what it is; the images themselves were looked at before.
    """
    void, pixels = int(total[-1].sum()), int(total.sum())
    absent = [c for c in range(space.n_classes) if not total[c].any() and not total[:, c].any()]
    if space.has_void or pixels == 0 or not absent or void < MUCH_VOID * pixels:
        return []
    return [
        Doubt(
            "classes",
            f"{_never_occur(space, absent)}, and much of the ground truth is void",
            f"{void / pixels:.0%} of the ground truth is void",
            "see that the label table has every value of the ground truth: `gpu-eval check` lists them",
        )
    ]


def _never_occur(space: LabelSpace, classes: list[int]) -> str:
    names = ", ".join(f"`{space.names[c]}`" for c in classes[:3]) + (", ..." if len(classes) > 3 else "")
    return f"{names} of {space.name} never occur{'s' if len(classes) == 1 else ''}"


def judge_classes(
    joint: npt.NDArray[np.int64], space: LabelSpace, gt_encoding: str, pred_encoding: str
) -> list[Doubt]:
    """A class of the table that occurs on neither side, while one raw value makes much of the gt void.

    `joint` as in `judge_encodings`. Nothing is said of tables with void labels of their own: there void is
    meant. Certain where a single class is left: its IoU says nothing then.
    """
    n = space.n_classes
    gts, preds = joint.sum(axis=1)[:256], joint.sum(axis=0)[:256]
    gt_table, pred_table = space.encoding(gt_encoding).table, space.encoding(pred_encoding).table
    pixels = int(joint.sum())
    there = {int(c) for c in gt_table[gts > 0]} | {int(c) for c in pred_table[preds > 0]}
    absent = [c for c in range(n) if c not in there]
    void = np.where(gt_table >= n, gts, 0)
    value = int(np.argmax(void))
    much = ANY_VOID if n == 2 else MUCH_VOID
    if space.has_void or pixels == 0 or not absent or void[value] < much * pixels:
        return []
    in_gt = {int(c) for c in gt_table[gts > 0] if c < n}
    name = space.names[absent[0]]
    fix = f"if {value} is the class `{name}`, write a label table that gives it the id {value}, as --labels"
    mend = {}
    if value == 255 and MASK in space.encodings:
        # Predictions that are 0 everywhere are the same in both.
        sides = ["gt", "pred"] if not preds[1:255].any() else ["gt"]
        mend = {f"{side}_encoding": MASK for side in sides}
        options = " ".join(f"--{side}-encoding {MASK}" for side in sides)
        fix = f"give {options}, which reads 0 and 255 as the two classes, or {fix}"
    ids = np.flatnonzero(gt_table == absent[0])
    expected = f"; it has the value {ids[0]}" if len(absent) == 1 and ids.size else ""
    return [
        Doubt(
            "classes",
            f"{_never_occur(space, absent)}, and the value {value}, which is void, makes up "
            f"{'some' if n == 2 else 'much'} of the ground truth",
            f"{value} covers {void[value] / pixels:.0%} of the ground truth{expected}",
            fix,
            certain=len(in_gt) == 1 and n > 1,
            mend=mend,
        )
    ]
