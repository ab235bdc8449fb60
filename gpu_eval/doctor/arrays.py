"""The doctor of a meter: a little of the first arrays that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.classes import judge_classes
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.doctor.encodings import judge_encodings
from gpu_eval.doctor.readings import VALUES
from gpu_eval.labels import LabelSpace

Integers = npt.NDArray[np.integer[Any]]

# Of so many updates so many pixels each: less than a millisecond in all of a validation.
UPDATES, PIXELS = 16, 2**14


class Sample:
    """Raw values of both sides, counted together; samples add up."""

    def __init__(self) -> None:
        self.updates = 0
        self.joint = np.zeros((VALUES, VALUES), np.int64)

    def look(self, gt: Integers, pred: Integers) -> None:
        """Count some pixels of two arrays of one shape, if not enough were seen."""
        if self.updates >= UPDATES or gt.size == 0:
            return
        self.updates += 1
        # A stride that shares no factor with the width of a map sees all of its columns.
        step = max(1, gt.size // PIXELS) | 1
        sides = [_raw(np.asarray(side).reshape(-1)[::step]) for side in (gt, pred)]
        counted = np.bincount(sides[0] * VALUES + sides[1], minlength=VALUES**2)
        self.joint += counted.reshape(VALUES, VALUES)

    def add(self, other: Sample) -> None:
        self.updates += other.updates
        self.joint += other.joint

    def doubts(self, space: LabelSpace, gt_encoding: str, pred_encoding: str) -> list[Doubt]:
        """What looks like a mix-up in it."""
        found = judge_encodings(self.joint, space, gt_encoding, pred_encoding)
        return found or judge_classes(self.joint, space, gt_encoding, pred_encoding)


def _raw(values: Integers) -> npt.NDArray[np.int64]:
    """Values of a byte as they are, all others as one."""
    wide = values.astype(np.int64)
    return np.where((wide < 0) | (wide > 255), VALUES - 1, wide)


def told(doubt: Doubt, caller: str) -> str:
    """A doubt with the arguments of `caller` that mend it, where there are some."""
    if not doubt.mend:
        return str(doubt)
    labels = [repr(value) for name, value in doubt.mend.items() if name == "labels"]
    others = [f"{name}={value!r}" for name, value in doubt.mend.items() if name != "labels"]
    arguments = ", ".join([*(labels or ["..."]), *others])
    return f"{doubt.message} ({doubt.evidence}); {caller}({arguments}) reads them so"
